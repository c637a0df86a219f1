//! `ListSshGrants`, and what the routes of grants take and answer.

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

use super::{DURATIONS, Validators, failed, whole};
use crate::axon::{Answer, Call, Refusal, RouteDoc, schema};
use crate::store::GrantFilter;

/// Grants of one answer, unless asked for fewer or more.
const USUAL: u64 = 100;
/// How many it may be asked for.
const LIMITS: RangeInclusive<u64> = 1..=1000;
/// How many may be skipped: a list is not read further by counting.
const CURSORS: RangeInclusive<u64> = 0..=1_000_000;

/// The caller's own grants, newest first.
pub(super) async fn list(this: &Validators, call: &Call) -> Answer {
    let all = match call.body.get("all") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(all)) => *all,
        Some(_) => return Err(Refusal::bad_request("`all` is true or false")),
    };
    let limit = whole(call, "limit", &LIMITS)?.unwrap_or(USUAL);
    let offset = whole(call, "cursor", &CURSORS)?.unwrap_or(0);
    let filter = GrantFilter { host: None, validator: Some(call.hotkey.to_string()), open: !all };
    // Both are bounded above.
    let (rows, skipped) = (u32::try_from(limit + 1), u32::try_from(offset));
    let rows = (rows.unwrap_or(u32::MAX), skipped.unwrap_or(u32::MAX));
    let mut grants = this.0.store.grants(&filter, rows.0, rows.1).await.map_err(failed)?;
    let full = usize::try_from(limit).unwrap_or(usize::MAX);
    let next = (grants.len() > full).then_some(offset + limit);
    grants.truncate(full);
    let grants: Vec<Value> = grants
        .iter()
        .map(|grant| {
            json!({
                "grant": grant.id,
                "host": grant.host,
                "fingerprint": grant.fingerprint,
                "from": grant.from_address,
                "issued_ms": grant.issued_ms,
                "expires_ms": grant.expires_ms,
                "state": grant.state,
                "ended_ms": grant.ended_ms,
                "end_reason": grant.end_reason,
            })
        })
        .collect();
    Ok(Map::from_iter([
        ("grants".to_owned(), Value::from(grants)),
        ("next".to_owned(), Value::from(next)),
    ]))
}

/// What `ListSshGrants` takes and answers.
pub(super) fn list_doc() -> RouteDoc {
    let states = ["pending", "placed", "ended", "gone"];
    let ends = ["revoked", "expired", "failed", "lost"];
    let grant = schema::answer(&[
        ("grant", schema::text("its id")),
        ("host", schema::text("the host")),
        ("fingerprint", schema::text("of the key")),
        ("from", schema::text("the address that it may be used from")),
        ("issued_ms", schema::number("when it was asked for, ms since the Unix epoch")),
        ("expires_ms", schema::number("when it ends by itself")),
        ("state", schema::word(&states, "where it stands; `gone` is not on the host any more")),
        ("ended_ms", schema::nullable(schema::number("when it ended"))),
        ("end_reason", schema::nullable(schema::word(&ends, "why it ended"))),
    ]);
    let may = [
        ("all", schema::nullable(schema::flag("those that are gone, too"))),
        ("limit", schema::nullable(schema::between(&LIMITS, "100 if absent"))),
        ("cursor", schema::nullable(schema::between(&CURSORS, "`next` of the page before"))),
    ];
    RouteDoc {
        summary: "The caller's own SSH grants, newest first",
        request: schema::request(&[], &may),
        answer: schema::answer(&[
            ("grants", schema::list(grant, "a page")),
            ("next", schema::nullable(schema::number("the `cursor` of the next page"))),
        ]),
    }
}

/// What `RequestSshGrant` takes and answers.
pub(super) fn request_doc() -> RouteDoc {
    let must = [("public_key", schema::text("one line of an OpenSSH public key"))];
    let may = [
        ("host", schema::nullable(schema::text("the host; without it all that are assigned"))),
        ("duration_secs", schema::nullable(schema::between(&DURATIONS, "how long it shall hold"))),
    ];
    // What a row has depends on `ok`.
    let grant = schema::request(
        &[("host", schema::text("the host")), ("ok", schema::flag("whether it was granted"))],
        &[
            ("reason", schema::text("why it was not")),
            ("grant", schema::text("the grant's id")),
            ("address", schema::text("where the host's sshd is")),
            ("port", schema::number("the port of its sshd")),
            ("user", schema::text("the login")),
            ("from", schema::text("the address that it may be used from")),
            ("expires_ms", schema::number("when it ends, ms since the Unix epoch")),
        ],
    );
    RouteDoc {
        summary: "Puts the caller's SSH key on hosts, for a time",
        request: schema::request(&must, &may),
        answer: schema::answer(&[("grants", schema::list(grant, "one for each host"))]),
    }
}

/// What `RevokeSshGrant` takes and answers.
pub(super) fn revoke_doc() -> RouteDoc {
    RouteDoc {
        summary: "Ends a grant of the caller, and what runs by it",
        request: schema::request(&[("grant", schema::text("its id"))], &[]),
        answer: schema::answer(&[
            ("revoked", schema::flag("always true")),
            ("removed", schema::flag("whether the host's file is rid of it; else it will be")),
        ]),
    }
}
