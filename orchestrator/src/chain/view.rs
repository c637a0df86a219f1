//! The chain at one block: items by name, decoded within bounds.

use std::collections::HashMap;

use subxt::OnlineClientAtBlock;
use subxt::dynamic;
use subxt::ext::scale_value::{self, Value};

use super::error::{Error, NodeError};
use super::link::{Methods, SubtensorConfig};
use super::runtime::{MissingItem, SUBTENSOR};
use super::value;
use super::walk::walk;

/// Storage keys that are asked for in one request.
const KEYS_A_REQUEST: usize = 512;

/// Which value of which storage.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pallet: &'static str,
    item: &'static str,
    keys: Vec<Value>,
}

impl Place {
    /// A value of the pallet that subnets live in.
    pub fn subtensor(item: &'static str, keys: impl Into<Vec<Value>>) -> Self {
        Self { pallet: SUBTENSOR, item, keys: keys.into() }
    }

    /// The time of the block.
    pub fn time() -> Self {
        Self { pallet: "Timestamp", item: "Now", keys: Vec::new() }
    }
}

/// The chain at one block, through one node.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// subxt's view, for the call.
    pub at: OnlineClientAtBlock<SubtensorConfig>,
    /// The node, as it is shown.
    pub endpoint: String,
    methods: Methods,
}

impl View {
    pub fn new(
        at: OnlineClientAtBlock<SubtensorConfig>,
        methods: Methods,
        endpoint: String,
    ) -> Self {
        Self { at, endpoint, methods }
    }

    /// The number of the newest block that the node has, finalized or not.
    pub async fn best_block(&self) -> Result<u64, Error> {
        let operation = "read the newest block";
        let header = self
            .methods
            .chain_get_header(None)
            .await
            .map_err(|error| self.failed(operation, &error))?;
        let none = || self.failed(operation, &NodeError::words("there is none"));
        header.map(|header| header.number).ok_or_else(none)
    }

    /// An error of a request to this node.
    pub fn failed(
        &self,
        operation: &'static str,
        error: &(dyn std::error::Error + 'static),
    ) -> Error {
        let endpoint = self.endpoint.clone();
        Error::Request { operation, endpoint, source: NodeError::of(error) }
    }

    /// An error for an answer that makes no sense.
    pub fn unexpected(&self, item: impl Into<String>, problem: impl Into<String>) -> Error {
        Error::Unexpected {
            item: item.into(),
            spec_version: self.at.spec_version(),
            problem: crate::printable::printable(&problem.into()),
        }
    }

    fn missing(&self, pallet: &str, kind: &'static str, item: &str) -> Error {
        let spec_version = self.at.spec_version();
        let (pallet, item) = (pallet.to_owned(), item.to_owned());
        Error::Missing(MissingItem { pallet, kind, item, spec_version })
    }

    /// Many values, in as few requests as it takes, in the order of the places: the storage's default
    /// where there is no value, and nothing where there is none of both.
    pub async fn read_all(&self, places: Vec<Place>) -> Result<Vec<Option<Value>>, Error> {
        let operation = "read storage";
        let keys = places.iter().map(|place| self.key(place)).collect::<Result<Vec<_>, _>>()?;
        let mut found: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        for chunk in keys.chunks(KEYS_A_REQUEST) {
            let chunk = chunk.iter().map(Vec::as_slice);
            let changes = self
                .methods
                .state_query_storage_at(chunk, Some(self.at.block_hash()))
                .await
                .map_err(|error| self.failed(operation, &error))?;
            for (key, data) in changes.into_iter().flat_map(|set| set.changes) {
                if let Some(data) = data {
                    found.insert(key.0, data.0);
                }
            }
        }
        let read = |(place, key): (&Place, &Vec<u8>)| {
            let (id, default) = self.entry(place)?;
            let Some(bytes) = found.get(key).map(Vec::as_slice).or(default) else {
                return Ok(None);
            };
            self.decode(&format!("{}.{}", place.pallet, place.item), bytes, id).map(Some)
        };
        places.iter().zip(&keys).map(read).collect()
    }

    /// Whether the runtime has a runtime API. Old metadata lists none.
    pub fn has_api(&self, (name, method): (&str, &str)) -> bool {
        let api = self.at.metadata_ref().runtime_api_trait_by_name(name);
        api.is_some_and(|api| api.method_by_name(method).is_some())
    }

    /// Calls a runtime API.
    pub async fn call_api(
        &self,
        (name, method): (&str, &str),
        arguments: Vec<Value>,
    ) -> Result<Value, Error> {
        let operation = "call a runtime API";
        let api = self.at.metadata_ref().runtime_api_trait_by_name(name);
        let known = api.and_then(|api| api.method_by_name(method));
        let known = known.ok_or_else(|| self.missing(name, "runtime API", method))?;
        let apis = self.at.runtime_apis();
        let call = dynamic::runtime_api_call::<Vec<Value>, Value>(name, method, arguments);
        let item = format!("{name}.{method}");
        let arguments = apis
            .encode_args(&call)
            .map_err(|error| self.unexpected(&item, NodeError::of(&error).to_string()))?;
        let answer = apis
            .call_raw(&apis.encode_name(&call), Some(&arguments))
            .await
            .map_err(|error| self.failed(operation, &error))?;
        self.decode(&item, &answer, known.output_ty())
    }

    /// The type and the default of a storage.
    fn entry(&self, place: &Place) -> Result<(u32, Option<&[u8]>), Error> {
        let pallet = self.at.metadata_ref().pallet_by_name(place.pallet);
        let storage = pallet.and_then(|pallet| pallet.storage());
        let entry = storage.and_then(|storage| storage.entry_by_name(place.item));
        let entry = entry.ok_or_else(|| self.missing(place.pallet, "storage", place.item))?;
        Ok((entry.value_ty(), entry.default_value()))
    }

    fn key(&self, place: &Place) -> Result<Vec<u8>, Error> {
        self.entry(place)?;
        self.at
            .storage()
            .entry((place.pallet, place.item))
            .and_then(|entry| entry.fetch_key(place.keys.clone()))
            .map_err(|error| {
                let item = format!("{}.{}", place.pallet, place.item);
                self.unexpected(item, NodeError::of(&error).to_string())
            })
    }

    fn decode(&self, item: &str, bytes: &[u8], id: u32) -> Result<Value, Error> {
        let metadata = self.at.metadata_ref();
        walk(bytes, id, metadata).map_err(|problem| self.unexpected(item, problem.to_string()))?;
        scale_value::scale::decode_as_type(&mut &*bytes, id, metadata.types())
            .map(Value::remove_context)
            .map_err(|error| self.unexpected(item, error.to_string()))
    }

    /// The parts of a structure, by name.
    pub fn parts<'a>(&'a self, item: &'a str, value: &'a Value) -> Parts<'a> {
        Parts { view: self, item, value }
    }

    /// A value as a number.
    pub fn number<T: TryFrom<u128>>(&self, item: &str, value: &Value) -> Result<T, Error> {
        value::number(value).ok_or_else(|| self.unexpected(item, "it is no number that fits"))
    }

    /// A value as yes or no.
    pub fn boolean(&self, item: &str, value: &Value) -> Result<bool, Error> {
        value::boolean(value).ok_or_else(|| self.unexpected(item, "it is no yes or no"))
    }

    /// A value as a list.
    pub fn list<'a>(&self, item: &str, value: &'a Value) -> Result<&'a [Value], Error> {
        value::list(value).ok_or_else(|| self.unexpected(item, "it is no list"))
    }

    /// A value as an account.
    pub fn account(&self, item: &str, value: &Value) -> Result<super::AccountId32, Error> {
        value::account(value).ok_or_else(|| self.unexpected(item, "it is no account"))
    }
}

/// A structure whose parts are read by name; each error says which part of what.
pub(super) struct Parts<'a> {
    view: &'a View,
    item: &'a str,
    value: &'a Value,
}

impl<'a> Parts<'a> {
    /// A part.
    pub fn get(&self, name: &str) -> Result<&'a Value, Error> {
        let none = || self.view.unexpected(self.item, format!("it has no field `{name}`"));
        value::field(self.value, name).ok_or_else(none)
    }

    /// A part as a number.
    pub fn number<T: TryFrom<u128>>(&self, name: &str) -> Result<T, Error> {
        self.view.number(&self.path(name), self.get(name)?)
    }

    /// A part as yes or no.
    pub fn boolean(&self, name: &str) -> Result<bool, Error> {
        self.view.boolean(&self.path(name), self.get(name)?)
    }

    /// A part as a list.
    pub fn list(&self, name: &str) -> Result<&'a [Value], Error> {
        self.view.list(&self.path(name), self.get(name)?)
    }

    /// A part as an account.
    pub fn account(&self, name: &str) -> Result<super::AccountId32, Error> {
        self.view.account(&self.path(name), self.get(name)?)
    }

    fn path(&self, name: &str) -> String {
        format!("{}.{name}", self.item)
    }
}
