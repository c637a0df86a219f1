//! What the routes of challenges take and answer, as JSON schemas.

use serde_json::Value;

use super::MOST_GPUS;
use crate::axon::{RouteDoc, schema};

/// A nonce.
const NONCE: &str = "^[0-9a-fA-F]{64}$";

pub fn open() -> RouteDoc {
    let issued = schema::answer(&[
        ("gpu", uuid()),
        ("model", schema::nullable(schema::text("the model of the table"))),
        ("context", schema::text("the 256 bytes that the proof is bound to, in hexadecimal")),
    ]);
    let left_out = schema::answer(&[("gpu", uuid()), ("reason", schema::text("why"))]);
    let gpus = format!("UUIDs, {MOST_GPUS} at most; none is all");
    RouteDoc {
        summary: "Round 1 of a challenge: fills the memories of a host's GPUs",
        request: schema::request(
            &[
                ("host", schema::text("one that is assigned to the caller")),
                ("nonce_fill", schema::form(NONCE, "32 bytes in hexadecimal")),
            ],
            &[
                ("gpus", schema::nullable(schema::list(uuid(), &gpus))),
                ("mode", schema::nullable(schema::word(&["quick", "deep"], "how long it is"))),
            ],
        ),
        answer: schema::after_lines(&[
            ("challenge", schema::text("its id, for the rounds that follow")),
            ("host", schema::text("the host")),
            ("issued", schema::list(issued, "the GPUs that are challenged")),
            ("left_out", schema::list(left_out, "the GPUs that are not")),
            (
                "round_timeout_ms",
                schema::nullable(schema::number("how long the next nonce may take")),
            ),
        ]),
    }
}

pub fn probe() -> RouteDoc {
    let roots = schema::answer(&[
        ("gpu", schema::nullable(uuid())),
        ("probe_root", schema::nullable(schema::text("the root of the records"))),
        ("gemm_roots", schema::list(schema::text("a root"), "of the products, in order")),
    ]);
    RouteDoc {
        summary: "Round 2 of a challenge: the memories are walked and multiplied",
        request: round("nonce_probe"),
        answer: schema::after_lines(&[
            ("challenge", schema::text("its id")),
            ("roots", schema::list(roots, "the roots of each GPU")),
        ]),
    }
}

pub fn commitments() -> RouteDoc {
    let judged = schema::answer(&[
        ("gpu", schema::nullable(uuid())),
        ("ok", schema::flag("whether it passed here")),
        ("outcome", schema::nullable(schema::text("our verdict"))),
        ("failed_check", schema::nullable(schema::text("the first check that failed"))),
        ("reason", schema::nullable(schema::text("why there is no verdict"))),
    ]);
    RouteDoc {
        summary: "Round 3 of a challenge: the commitments are opened",
        request: round("nonce_open"),
        answer: schema::after_lines(&[
            ("challenge", schema::text("its id")),
            ("passed", schema::flag("whether all passed here")),
            ("gpus", schema::list(judged, "how each GPU was judged here")),
        ]),
    }
}

pub fn cancel() -> RouteDoc {
    RouteDoc {
        summary: "Ends a challenge",
        request: schema::request(&[("challenge", schema::text("its id"))], &[]),
        answer: schema::answer(&[("cancelled", schema::flag("true: nothing of it is left"))]),
    }
}

fn round(nonce: &str) -> Value {
    schema::request(
        &[
            ("challenge", schema::text("its id")),
            (nonce, schema::form(NONCE, "32 bytes in hexadecimal, kept back until now")),
        ],
        &[],
    )
}

fn uuid() -> Value {
    schema::text("a GPU's UUID")
}
