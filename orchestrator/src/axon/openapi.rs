//! The OpenAPI document of the plain paths, made of the table of routes.

use serde_json::{Map, Value, json};

use super::routes::{Handler, Route, Routes};
use super::schema;
use super::sessions::OPEN_PATH;
use super::stream::KIND;

/// Where the document is; no signature is needed to read it.
pub const PATH: &str = "/v1/openapi.json";

/// The headers that sign a request, all of them together. `X-Bittensor-Crypto` is needed beside them
/// for another cryptography than sr25519.
const SIGNATURE: [(&str, &str); 5] = [
    ("X-Bittensor-Version", "1"),
    ("X-Bittensor-Hotkey", "the caller's hotkey, as its SS58 address"),
    ("X-Bittensor-Receiver", "this axon's hotkey"),
    ("X-Bittensor-Nonce", "nanoseconds since the Unix epoch, never used before"),
    ("X-Bittensor-Signature", "the signature, 0x and 128 digits"),
];

/// The refusals that every route may answer.
const REFUSALS: [(&str, &str); 12] = [
    ("400", "The request itself is wrong"),
    ("403", "The hotkey may not call"),
    ("404", "There is no such thing for this hotkey"),
    ("405", "The path has another method"),
    ("408", "It was not done in time"),
    ("409", "It does not fit what is there"),
    ("410", "Its time is over, or it was given up"),
    ("413", "The body is too large"),
    ("429", "Too many requests"),
    ("500", "The service failed"),
    ("502", "A host did not do its part"),
    ("503", "The service has too much to do, or is starting"),
];

/// The document.
pub fn document(routes: &Routes, sessions: bool) -> Value {
    let paths: Map<String, Value> = routes
        .all()
        .into_iter()
        .map(|route| {
            let method = route.method.as_str().to_lowercase();
            (route.path.to_owned(), json!({ method: operation(route, sessions) }))
        })
        .chain([(PATH.to_owned(), json!({ "get": own_operation() }))])
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "orchestrator: the service for validators",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Each request is signed by the caller's hotkey (btauth/1), for this axon's \
                hotkey. The same can be called as synapses of the older SDKs, at /NAME.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": { "Problem": problem(), "NotSigned": not_signed() },
            "securitySchemes": security(sessions),
        },
    })
}

fn operation(route: &Route, sessions: bool) -> Value {
    let mut needed = vec![json!(
        SIGNATURE.iter().map(|(name, _)| ((*name).to_owned(), json!([]))).collect::<Map<_, _>>()
    )];
    if sessions && route.path != OPEN_PATH {
        needed.push(json!({ "session": [] }));
    }
    let must = route.doc.request.get("required").and_then(Value::as_array);
    let needs_body = must.is_some_and(|must| !must.is_empty());
    let mut done = response("Done", "application/json", &route.doc.answer);
    let lines = matches!(route.handler, Handler::Streaming(_));
    if let Some(content) = done.get_mut("content").and_then(Value::as_object_mut).filter(|_| lines)
    {
        let line = json!({ "type": "string", "description": "a JSON object a line; the last is the answer" });
        content.insert(KIND.to_owned(), json!({ "schema": line }));
    }
    let mut responses =
        Map::from_iter([("200".to_owned(), done), ("401".to_owned(), unauthenticated())]);
    responses.extend(REFUSALS.map(|(status, why)| (status.to_owned(), refusal(why))));
    json!({
        "operationId": route.synapse,
        "summary": route.doc.summary,
        "security": needed,
        "requestBody": {
            "required": needs_body,
            "content": { "application/json": { "schema": route.doc.request } },
        },
        "responses": responses,
        // What the class of a legacy synapse of this name must say.
        "x-required-hash-fields": route.hash_fields,
    })
}

fn own_operation() -> Value {
    json!({
        "operationId": "OpenApi",
        "summary": "This document",
        "security": [],
        "responses": {
            "200": response("The document", "application/json", &json!({ "type": "object" })),
            "405": refusal("The path has another method"),
            "429": refusal("Too many requests"),
        },
    })
}

fn response(what: &str, kind: &str, schema: &Value) -> Value {
    json!({ "description": what, "content": { kind: { "schema": schema } } })
}

fn refusal(what: &str) -> Value {
    let problem = json!({ "$ref": "#/components/schemas/Problem" });
    response(what, "application/problem+json", &problem)
}

/// Who signs is told in the words of its SDK, everybody else by a problem document.
fn unauthenticated() -> Value {
    let mut refusal = refusal("Nobody is proven to have sent it");
    let not_signed = json!({ "schema": { "$ref": "#/components/schemas/NotSigned" } });
    if let Some(content) = refusal.get_mut("content").and_then(Value::as_object_mut) {
        content.insert("application/json".to_owned(), not_signed);
    }
    refusal
}

fn problem() -> Value {
    schema::answer(&[
        ("type", schema::text("always about:blank")),
        ("title", schema::text("the words of the status")),
        ("status", schema::number("the status")),
        ("code", schema::text("the stable code")),
        ("detail", schema::text("what is wrong, for people")),
    ])
}

fn not_signed() -> Value {
    schema::answer(&[
        ("error", schema::text("the SDK's name of the error")),
        ("detail", schema::text("what is wrong, for people")),
    ])
}

fn security(sessions: bool) -> Value {
    let signed = SIGNATURE.iter().map(|(name, what)| {
        let scheme = json!({ "type": "apiKey", "in": "header", "name": name, "description": what });
        ((*name).to_owned(), scheme)
    });
    let session = json!({ "type": "http", "scheme": "bearer", "bearerFormat": "JWT" });
    let session = sessions.then(|| ("session".to_owned(), session));
    Value::from(signed.chain(session).collect::<Map<_, _>>())
}
