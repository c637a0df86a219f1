//! Pages of lists: `?limit=` and the `next` of the page before as `?cursor=`.

use std::collections::BTreeMap;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use serde::Serialize;

use super::Problem;
use crate::ids::HostName;

/// Items of one page unless asked for fewer or more.
const DEFAULT_LIMIT: u32 = 100;
/// Items of one page at most.
const MAX_LIMIT: u32 = 1000;
/// A list is not read further by counting than this.
const MAX_OFFSET: u32 = 10_000_000;

/// The parameters of a request, each of which must be known and given once.
pub(super) type Parameters = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// The parameters by name.
pub(super) struct Named(BTreeMap<String, String>);

/// One page.
#[derive(Debug, Serialize)]
pub(super) struct Page<T> {
    /// What is on it.
    pub(super) items: Vec<T>,
    /// The `cursor` of the next page; `null` on the last.
    pub(super) next: Option<String>,
}

impl Named {
    /// Reads the parameters; `known` are those that the route has.
    pub(super) fn read(parameters: Parameters, known: &[&str]) -> Result<Self, Problem> {
        let Query(pairs) =
            parameters.map_err(|error| Problem::parameter("query", error.body_text()))?;
        let mut named = BTreeMap::new();
        for (name, value) in pairs {
            if !known.contains(&name.as_str()) {
                let detail = format!("unknown; known here: {}", known.join(", "));
                return Err(Problem::parameter(&crate::printable::printable(&name), detail));
            }
            if named.insert(name.clone(), value).is_some() {
                return Err(Problem::parameter(&name, "is given twice"));
            }
        }
        Ok(Self(named))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn limit(&self) -> Result<u32, Problem> {
        self.number("limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
    }

    pub(super) fn offset(&self) -> Result<u32, Problem> {
        self.number("cursor", 0, 0, MAX_OFFSET)
    }

    fn number(&self, name: &str, default: u32, low: u32, high: u32) -> Result<u32, Problem> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|n| plain && (low..=high).contains(n));
        number.ok_or_else(|| Problem::parameter(name, format!("must be {low} to {high}")))
    }

    pub(super) fn host(&self) -> Result<Option<HostName>, Problem> {
        self.get("host")
            .map(|text| HostName::new(text).map_err(|error| Problem::parameter("host", error)))
            .transpose()
    }
}

impl<T> Page<T> {
    /// A page of a list that was read with one item more than fits.
    pub(super) fn counted(mut items: Vec<T>, limit: u32, offset: u32) -> Self {
        let full = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = items.len() > full;
        items.truncate(full);
        Self { items, next: more.then(|| (offset + limit).to_string()) }
    }
}
