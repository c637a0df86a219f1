//! `FetchProofs`: the signed proofs of a host, for validators that check them themselves.

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

use super::{Validators, failed, no_host, text, whole};
use crate::axon::{Answer, Call, Refusal, RouteDoc, schema};
use crate::store::{SignedProofFilter, SignedProofRow};

/// Proofs of one answer, unless asked for fewer or more.
const USUAL: u32 = 10;
/// How many it may be asked for.
const LIMITS: RangeInclusive<u64> = 1..=100;
/// A cursor of ours.
const CURSOR: &str = "^[0-9]{1,18}\\.[0-9a-f]{1,64}$";

/// Bytes of documents in one answer, of which the first may be more: a quick proof has a few hundred
/// KB, and an answer is in memory as a whole, some three times over.
const PAGE_BYTES: usize = 4 << 20;

/// A proof with larger documents is named, and not sent: one of the deep mode has a few MB.
const LARGEST: i64 = 16 << 20;

/// Answers that are put together at a time, for all validators: 100 MB or so, at the worst.
pub(super) const AT_ONCE: usize = 2;

/// The proofs of one host, newest first.
pub(super) async fn fetch(this: &Validators, call: &Call) -> Answer {
    let name = text(call, "host")?.ok_or_else(|| Refusal::bad_request("`host` is missing"))?;
    let limit = whole(call, "limit", &LIMITS)?;
    let limit = limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(USUAL);
    let before = text(call, "cursor")?.map(position).transpose()?;
    let gpu = text(call, "gpu")?.map(str::to_owned);
    let assigned = this.assigned(call).await?;
    let host = assigned.iter().find(|(known, _)| known.as_str() == name);
    let (host, _) = host.ok_or_else(no_host)?;
    let filter = SignedProofFilter { host: host.clone(), gpu, before };
    let _place = this.0.proofs.try_acquire().map_err(|_| Refusal::busy())?;
    let store = &this.0.store;
    let rows = store.signed_proofs(&filter, limit + 1).await.map_err(failed)?;
    let full = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut items, mut bytes, mut next) = (Vec::new(), 0, None);
    for (place, row) in rows.iter().enumerate() {
        let size = usize::try_from(row.bytes).unwrap_or(usize::MAX);
        let sent = row.bytes <= LARGEST;
        let over = sent && bytes > 0 && size.saturating_add(bytes) > PAGE_BYTES;
        if place == full || over {
            // The page ends before this one, which is where the next begins.
            next = place.checked_sub(1).and_then(|last| rows.get(last)).map(cursor);
            break;
        }
        let documents = match sent {
            true => store.proof_documents(&row.id).await.map_err(failed)?,
            false => None,
        };
        bytes += documents.as_ref().map_or(0, String::len);
        items.push(json!({
            "challenge": row.id,
            "gpu": row.gpu,
            "model": row.model,
            "mode": row.mode,
            "issued_ms": row.issued_ms,
            "ended_ms": row.ended_ms,
            "outcome": row.outcome,
            "failed_check": row.failed_check,
            "bytes": row.bytes,
            "documents": documents,
        }));
    }
    Ok(Map::from_iter([
        ("proofs".to_owned(), Value::from(items)),
        ("next".to_owned(), Value::from(next)),
    ]))
}

/// What it takes and answers.
pub(super) fn doc() -> RouteDoc {
    let optional = |schema: Value| schema::nullable(schema);
    let proof = schema::answer(&[
        ("challenge", schema::text("the challenge's id")),
        ("gpu", optional(schema::text("the GPU's UUID; null for the reference"))),
        ("model", optional(schema::text("the model that the challenge was for"))),
        ("mode", optional(schema::word(&["quick", "deep", "hold"], "how long it was"))),
        ("issued_ms", schema::number("when it was sent, ms since the Unix epoch")),
        ("ended_ms", schema::number("when it was judged")),
        ("outcome", schema::word(&["accepted", "unproven", "rejected"], "our verdict")),
        ("failed_check", optional(schema::text("the first check that failed"))),
        ("bytes", schema::number("the size of the documents")),
        (
            "documents",
            optional(schema::text(
                "the signed documents, one a line, as `verify-proof` reads them; null where they \
                 are larger than 16 MiB",
            )),
        ),
    ]);
    let may = [
        ("gpu", optional(schema::text("of this GPU alone, by its UUID"))),
        ("limit", optional(schema::between(&LIMITS, "10 if absent"))),
        ("cursor", optional(schema::form(CURSOR, "`next` of the page before"))),
    ];
    RouteDoc {
        summary: "Signed proofs of a host, newest first",
        request: schema::request(&[("host", schema::text("the host's name"))], &may),
        answer: schema::answer(&[
            ("proofs", schema::list(proof, "a page of about 4 MiB at most")),
            ("next", optional(schema::text("the `cursor` of the next page; null on the last"))),
        ]),
    }
}

/// Where a page ends: the time and the id of its last proof.
fn cursor(row: &SignedProofRow) -> String {
    format!("{}.{}", row.issued_ms, row.id)
}

fn position(text: &str) -> Result<(i64, String), Refusal> {
    let digits = |text: &str, most: usize, hex: bool| {
        let one = |b: u8| b.is_ascii_digit() || (hex && matches!(b, b'a'..=b'f'));
        (1..=most).contains(&text.len()) && text.bytes().all(one)
    };
    let parts = text.split_once('.').and_then(|(at, id)| {
        let plain = digits(at, 18, false) && digits(id, 64, true);
        plain.then_some((at.parse().ok()?, id.to_owned()))
    });
    parts.ok_or_else(|| Refusal::bad_request("`cursor` is none of ours"))
}
