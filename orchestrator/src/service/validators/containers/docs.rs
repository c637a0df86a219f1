//! What the routes of containers take and answer, as JSON schemas.

use serde_json::{Value, json};

use super::asked::TAILS;
use crate::axon::{RouteDoc, schema};

pub fn run() -> RouteDoc {
    let count = |what: &str| schema::nullable(schema::number(what));
    let table = json!({
        "type": ["object", "null"],
        "additionalProperties": { "type": "string" },
        "description": "variables; names that begin with NVIDIA_ are refused",
    });
    RouteDoc {
        summary: "Runs a container on a host, within a lease and a time limit",
        request: schema::request(
            &[
                ("host", schema::text("one that is assigned to the caller")),
                ("image", schema::text("one that the operator allows, by its whole name")),
            ],
            &[
                (
                    "command",
                    schema::nullable(schema::list(schema::text("a word"), "none: the image's")),
                ),
                ("env", table),
                ("gpus", schema::nullable(schema::list(schema::text("a UUID"), "these GPUs"))),
                ("gpu_count", count("or so many that are free")),
                ("memory_bytes", count("less than it gets by itself")),
                ("cpus_milli", count("thousandths of a processor")),
                ("timeout_secs", count("less than it gets by itself")),
            ],
        ),
        answer: schema::after_lines(&[
            ("container", schema::text("its id, for what follows")),
            ("host", schema::text("the host")),
            ("gpus", uuids()),
            ("deadline_ms", time("when it is stopped")),
        ]),
    }
}

pub fn list() -> RouteDoc {
    let row = schema::answer(&[
        ("container", schema::text("its id")),
        ("host", schema::text("the host")),
        ("gpus", uuids()),
        ("created_ms", schema::number("when it was asked for, ms since the Unix epoch")),
        ("deadline_ms", time("when it is stopped")),
        ("ended_ms", time("when it had ended; null while it has a lease")),
    ]);
    RouteDoc {
        summary: "The caller's own containers, the newest 100",
        request: schema::request(&[], &[]),
        answer: schema::answer(&[("containers", schema::list(row, "newest first"))]),
    }
}

pub fn inspect() -> RouteDoc {
    RouteDoc {
        summary: "How one of the caller's containers is",
        request: own(&[]),
        answer: schema::answer(&[
            ("container", schema::text("its id")),
            ("host", schema::text("the host")),
            ("image", schema::text("the image")),
            ("gpus", uuids()),
            ("state", schema::text("the engine's word: `running`, `exited`, ...")),
            ("running", schema::flag("whether it runs")),
            ("exit_code", schema::nullable(schema::number("null while it runs"))),
            ("oom_killed", schema::flag("whether it ran out of memory")),
            ("created_ms", schema::number("when it was asked for, ms since the Unix epoch")),
            ("deadline_ms", time("when it is stopped")),
            ("started_at", schema::text("RFC 3339, by the host's clock")),
            ("finished_at", schema::nullable(schema::text("the same; null while it runs"))),
        ]),
    }
}

pub fn logs() -> RouteDoc {
    let piece = schema::answer(&[
        ("stream", schema::word(&["stdout", "stderr"], "which stream")),
        ("text", schema::text("what was written")),
    ]);
    RouteDoc {
        summary: "The end of a container's log",
        request: own(&[(
            "tail",
            schema::nullable(schema::between(&TAILS, "lines; 100 if absent")),
        )]),
        answer: schema::answer(&[
            ("log", schema::list(piece, "256 KiB at most, in order")),
            ("truncated", schema::flag("whether there was more")),
        ]),
    }
}

pub fn stop() -> RouteDoc {
    RouteDoc {
        summary: "Stops and removes a container",
        request: own(&[]),
        answer: schema::answer(&[
            ("stopped", schema::flag("true")),
            ("exit_code", schema::number("how it ended")),
        ]),
    }
}

fn own(may: &[(&str, Value)]) -> Value {
    schema::request(&[("container", schema::text("its whole id"))], may)
}

fn uuids() -> Value {
    schema::list(schema::text("a UUID"), "the GPUs that it holds")
}

fn time(what: &str) -> Value {
    schema::nullable(schema::number(what))
}
