//! `Ping` and `/v1/ping`: who answers, in which version, and what time it is there.

use hyper::Method;
use serde_json::{Map, Value};

use super::replay::now_ns;
use super::routes::{Route, RouteDoc, handler};
use super::schema;
use crate::hotkey::Hotkey;

/// The route.
pub fn route(hotkey: Hotkey) -> Route {
    Route {
        synapse: "Ping",
        hash_fields: &["name"],
        method: Method::POST,
        path: "/v1/ping",
        doc: RouteDoc {
            summary: "Who answers",
            request: schema::request(&[], &[]),
            answer: schema::answer(&[
                ("version", schema::text("of this program")),
                ("hotkey", schema::text("this axon's hotkey")),
                ("time_ns", schema::number("the time there, nanoseconds since the Unix epoch")),
            ]),
        },
        handler: handler(move |_call| async move {
            Ok(Map::from_iter([
                ("version".to_owned(), Value::from(env!("CARGO_PKG_VERSION"))),
                ("hotkey".to_owned(), Value::from(hotkey.to_string())),
                ("time_ns".to_owned(), Value::from(now_ns())),
            ]))
        }),
    }
}
