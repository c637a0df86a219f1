//! A runtime of the test chain: metadata, and values encoded by it.

use std::collections::HashMap;

use scale_info::{PortableRegistry, TypeDef};
use subxt::config::SubstrateConfig;
use subxt::config::substrate::SpecVersionForRange;
use subxt::ext::codec::Encode;
use subxt::ext::scale_value::{self, Value};
use subxt::{ArcMetadata, Metadata, OfflineClient, OfflineClientAtBlock};

pub const TRANSACTION_VERSION: u32 = 1;

/// A runtime.
#[derive(Clone)]
pub struct Runtime {
    pub spec_version: u32,
    /// The metadata as a node sends it, magic number first.
    pub bytes: Vec<u8>,
    pub metadata: ArcMetadata,
    offline: OfflineClientAtBlock<SubstrateConfig>,
}

impl Runtime {
    pub fn new(spec_version: u32, bytes: Vec<u8>) -> Self {
        let metadata = Metadata::decode_from(&bytes).unwrap().arc();
        let config = SubstrateConfig::builder()
            .set_metadata_for_spec_versions([(spec_version, metadata.clone())])
            .set_spec_version_for_block_ranges([SpecVersionForRange {
                block_range: 0..u64::MAX,
                spec_version,
                transaction_version: TRANSACTION_VERSION,
            }])
            .build();
        let offline = OfflineClient::new_with_config(config).at_block(0_u64).unwrap();
        Self { spec_version, bytes, metadata, offline }
    }

    /// The version of its metadata's form.
    pub fn metadata_version(&self) -> u32 {
        u32::from(self.bytes[4])
    }

    /// What `Core_version` answers.
    pub fn core_version(&self) -> Vec<u8> {
        let apis: Vec<([u8; 8], u32)> = Vec::new();
        ("test", "test", 1_u32, self.spec_version, 1_u32, apis, TRANSACTION_VERSION).encode()
    }

    pub fn storage_key(&self, pallet: &str, item: &str, keys: Vec<Value>) -> Vec<u8> {
        self.offline.storage().entry((pallet, item)).unwrap().fetch_key(keys).unwrap()
    }

    /// A value in the form of a storage; nothing where the metadata has no such storage.
    pub fn stored(&self, pallet: &str, item: &str, value: &Value) -> Option<Vec<u8>> {
        let storage = self.metadata.pallet_by_name(pallet)?.storage()?;
        Some(self.encode(value, storage.entry_by_name(item)?.value_ty()))
    }

    pub fn encode(&self, value: &Value, id: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let types = self.metadata.types();
        scale_value::scale::encode_as_type(value, id, types, &mut bytes).unwrap();
        bytes
    }

    pub fn api_output(&self, name: &str, method: &str) -> Option<u32> {
        let api = self.metadata.runtime_api_trait_by_name(name)?;
        Some(api.method_by_name(method)?.output_ty())
    }

    /// A structure of the type with these parts; the parts that are not given are zero.
    pub fn structure(&self, id: u32, mut given: HashMap<&str, Value>) -> Value {
        let types = self.metadata.types();
        let TypeDef::Composite(composite) = &types.resolve(id).unwrap().type_def else {
            panic!("type {id} is no structure")
        };
        Value::named_composite(composite.fields.iter().map(|field| {
            let name = field.name.clone().unwrap();
            let value = given.remove(name.as_str());
            (name, value.unwrap_or_else(|| zero(types, field.ty.id)))
        }))
    }

    /// The type of a part of a structure; through lists and options.
    pub fn part(&self, id: u32, name: &str) -> u32 {
        let types = self.metadata.types();
        match &types.resolve(id).unwrap().type_def {
            TypeDef::Composite(composite) => {
                let field = |field: &&scale_info::Field<_>| field.name.as_deref() == Some(name);
                composite.fields.iter().find(field).unwrap().ty.id
            }
            _ => self.part(self.inside(id), name),
        }
    }

    /// What a list or an option is of.
    pub fn inside(&self, id: u32) -> u32 {
        match &self.metadata.types().resolve(id).unwrap().type_def {
            TypeDef::Sequence(sequence) => sequence.type_param.id,
            TypeDef::Variant(variant) => {
                variant.variants.iter().find(|v| v.name == "Some").unwrap().fields[0].ty.id
            }
            other => panic!("{other:?} is neither list nor option"),
        }
    }
}

/// The value of zeros of a type.
fn zero(types: &PortableRegistry, id: u32) -> Value {
    match &types.resolve(id).unwrap().type_def {
        TypeDef::Composite(composite) => {
            Value::unnamed_composite(composite.fields.iter().map(|field| zero(types, field.ty.id)))
        }
        TypeDef::Variant(variant) => {
            let first = variant.variants.iter().min_by_key(|variant| variant.index).unwrap();
            let fields = first.fields.iter().map(|field| zero(types, field.ty.id));
            Value::unnamed_variant(first.name.clone(), fields)
        }
        TypeDef::Sequence(_) => Value::unnamed_composite([]),
        TypeDef::Array(array) => {
            let element = || zero(types, array.type_param.id);
            Value::unnamed_composite((0..array.len).map(|_| element()))
        }
        TypeDef::Tuple(tuple) => {
            Value::unnamed_composite(tuple.fields.iter().map(|field| zero(types, field.id)))
        }
        TypeDef::Primitive(scale_info::TypeDefPrimitive::Bool) => Value::bool(false),
        TypeDef::Primitive(scale_info::TypeDefPrimitive::Str) => Value::string(""),
        TypeDef::Primitive(scale_info::TypeDefPrimitive::Char) => Value::char('0'),
        TypeDef::Primitive(_) => Value::u128(0),
        TypeDef::Compact(compact) => zero(types, compact.type_param.id),
        TypeDef::BitSequence(_) => panic!("nothing here has bits"),
    }
}
