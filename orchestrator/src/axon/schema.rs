//! Parts of JSON schemas, for what a route takes and answers.

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

/// A text.
#[must_use]
pub fn text(what: &str) -> Value {
    json!({ "type": "string", "description": what })
}

/// One of some words.
#[must_use]
pub fn word(words: &[&str], what: &str) -> Value {
    json!({ "type": "string", "enum": words, "description": what })
}

/// A whole number.
#[must_use]
pub fn number(what: &str) -> Value {
    json!({ "type": "integer", "description": what })
}

/// A whole number within bounds.
#[must_use]
pub fn between(bounds: &RangeInclusive<u64>, what: &str) -> Value {
    let (low, high) = (bounds.start(), bounds.end());
    json!({ "type": "integer", "minimum": low, "maximum": high, "description": what })
}

/// A text of a form, which is a regular expression.
#[must_use]
pub fn form(pattern: &str, what: &str) -> Value {
    json!({ "type": "string", "pattern": pattern, "description": what })
}

/// Yes or no.
#[must_use]
pub fn flag(what: &str) -> Value {
    json!({ "type": "boolean", "description": what })
}

/// A list.
#[must_use]
pub fn list(of: Value, what: &str) -> Value {
    json!({ "type": "array", "items": of, "description": what })
}

/// The same, or null.
#[must_use]
pub fn nullable(mut schema: Value) -> Value {
    if let Some(kind) = schema.get_mut("type") {
        *kind = json!([kind.take(), "null"]);
    }
    // A word that may be null has null among its words.
    if let Some(words) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        words.push(Value::Null);
    }
    schema
}

/// What a body must have and may have. More is let pass: a legacy synapse has fields of the SDK's own.
#[must_use]
pub fn request(must: &[(&str, Value)], may: &[(&str, Value)]) -> Value {
    let properties = must.iter().chain(may);
    json!({
        "type": "object",
        "properties": properties.cloned().map(owned).collect::<Map<_, _>>(),
        "required": must.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
    })
}

/// Everything that an answer, or an object in it, has.
#[must_use]
pub fn answer(fields: &[(&str, Value)]) -> Value {
    let mut schema = request(fields, &[]);
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("additionalProperties".to_owned(), Value::from(false));
    }
    schema
}

/// As [`answer`] for one that comes after lines: those are in it where they were not passed on before.
#[must_use]
pub fn after_lines(fields: &[(&str, Value)]) -> Value {
    let mut schema = answer(fields);
    let line = json!({ "type": "object", "properties": { "event": text("what happened") } });
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("event".to_owned(), text("always result"));
        properties
            .insert("events".to_owned(), list(line, "the lines before, where they are gathered"));
    }
    schema
}

fn owned((name, schema): (&str, Value)) -> (String, Value) {
    (name.to_owned(), schema)
}
