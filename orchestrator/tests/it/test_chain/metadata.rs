//! Metadata made in code, of two generations of the same runtime: the names are the same, and what
//! changes between real runtimes does: order of fields, newtypes, numbers of errors, versions of
//! metadata.
#![allow(dead_code, non_camel_case_types, clippy::upper_case_acronyms, reason = "types alone")]

use scale_info::build::{Fields, Variants};
use scale_info::{MetaType, Path, Type, TypeInfo, TypeParameter, meta_type};
use subxt::ext::codec::{Compact, Encode};
use subxt::ext::frame_metadata::{RuntimeMetadata, RuntimeMetadataPrefixed, v14, v15};
use subxt::utils::{AccountId32, H256, MultiAddress, MultiSignature};

use super::Runtime;

/// What differs between runtimes.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Numbers in newtypes, fields in another order, errors with other numbers.
    pub modern: bool,
    /// The version of the metadata: 14 has no runtime APIs.
    pub version: u32,
    /// A storage that is left out.
    pub without: Option<&'static str>,
    /// The pallet's place in the runtime; 7 in real ones.
    pub pallet_index: u8,
    /// Whether `get_metagraph` is there, else only `get_neurons_lite`.
    pub metagraph_api: bool,
}

pub const OLD: Shape =
    Shape { modern: false, version: 15, without: None, pallet_index: 7, metagraph_api: true };
pub const NEW: Shape = Shape { modern: true, ..OLD };

/// A runtime of this shape.
pub fn runtime(spec_version: u32, shape: Shape) -> Runtime {
    Runtime::new(spec_version, encode(shape))
}

/// The metadata of this shape, as a node sends it.
pub fn encode(shape: Shape) -> Vec<u8> {
    let metadata = match shape.version {
        14 => RuntimeMetadata::V14(in_v14(shape)),
        15 => RuntimeMetadata::V15(in_v15(shape)),
        other => panic!("no metadata of version {other} is made here"),
    };
    // `meta` in ASCII, as a little-endian number.
    RuntimeMetadataPrefixed(0x6174_656d, metadata).encode()
}

mod old {
    use super::*;

    #[derive(TypeInfo)]
    pub struct AxonInfo {
        block: u64,
        version: u32,
        ip: u128,
        port: u16,
        ip_type: u8,
        protocol: u8,
        placeholder1: u8,
        placeholder2: u8,
    }

    #[derive(TypeInfo)]
    pub struct NeuronCertificate {
        public_key: BoundedVec,
        algorithm: u8,
    }

    #[derive(TypeInfo)]
    pub struct BoundedVec(Vec<u8>);

    #[derive(TypeInfo)]
    pub struct Metagraph {
        netuid: Compact<u16>,
        name: Vec<Compact<u8>>,
        hotkeys: Vec<AccountId32>,
        coldkeys: Vec<AccountId32>,
        axons: Vec<AxonInfo>,
        active: Vec<bool>,
        validator_permit: Vec<bool>,
        last_update: Vec<Compact<u64>>,
        total_stake: Vec<Compact<u64>>,
    }

    #[derive(TypeInfo)]
    pub struct NeuronInfoLite {
        hotkey: AccountId32,
        coldkey: AccountId32,
        uid: Compact<u16>,
        netuid: Compact<u16>,
        active: bool,
        axon_info: AxonInfo,
        stake: Vec<(AccountId32, Compact<u64>)>,
        last_update: Compact<u64>,
        validator_permit: bool,
    }

    #[derive(TypeInfo)]
    pub enum Call {
        #[codec(index = 4)]
        serve_axon {
            netuid: u16,
            version: u32,
            ip: u128,
            port: u16,
            ip_type: u8,
            protocol: u8,
            placeholder1: u8,
            placeholder2: u8,
        },
        #[codec(index = 40)]
        serve_axon_tls {
            netuid: u16,
            version: u32,
            ip: u128,
            port: u16,
            ip_type: u8,
            protocol: u8,
            placeholder1: u8,
            placeholder2: u8,
            certificate: Vec<u8>,
        },
    }

    #[derive(TypeInfo)]
    pub enum Error {
        SubNetworkDoesNotExist,
        HotKeyNotRegisteredInNetwork,
        InvalidIpAddress,
        ServingRateLimitExceeded,
    }
}

mod new {
    use super::*;

    #[derive(TypeInfo)]
    pub struct NetUid(u16);

    #[derive(TypeInfo)]
    pub struct Balance(u64);

    #[derive(TypeInfo)]
    pub struct AxonInfo {
        port: u16,
        ip: u128,
        ip_type: u8,
        version: u32,
        added_later: Option<u32>,
        protocol: u8,
        placeholder2: u8,
        placeholder1: u8,
        block: u64,
    }

    #[derive(TypeInfo)]
    pub struct NeuronCertificate {
        algorithm: u8,
        public_key: Vec<u8>,
    }

    #[derive(TypeInfo)]
    pub struct Metagraph {
        total_stake: Vec<Compact<Balance>>,
        last_update: Vec<Compact<u64>>,
        validator_permit: Vec<bool>,
        active: Vec<bool>,
        axons: Vec<AxonInfo>,
        added_later: Vec<(AccountId32, Option<Compact<Balance>>)>,
        hotkeys: Vec<AccountId32>,
        netuid: NetUid,
    }

    #[derive(TypeInfo)]
    pub struct NeuronInfoLite {
        validator_permit: bool,
        last_update: Compact<u64>,
        stake: Vec<(AccountId32, Compact<Balance>)>,
        axon_info: AxonInfo,
        active: bool,
        netuid: NetUid,
        uid: Compact<u16>,
        added_later: String,
        hotkey: AccountId32,
    }

    #[derive(TypeInfo)]
    pub enum Call {
        #[codec(index = 4)]
        serve_axon {
            netuid: NetUid,
            version: u32,
            ip: u128,
            port: u16,
            ip_type: u8,
            protocol: u8,
            placeholder1: u8,
            placeholder2: u8,
        },
        #[codec(index = 40)]
        serve_axon_tls {
            netuid: NetUid,
            version: u32,
            ip: u128,
            port: u16,
            ip_type: u8,
            protocol: u8,
            placeholder1: u8,
            placeholder2: u8,
            certificate: Vec<u8>,
        },
    }

    #[derive(TypeInfo)]
    pub enum Error {
        #[codec(index = 9)]
        ServingRateLimitExceeded,
        #[codec(index = 30)]
        HotKeyNotRegisteredInNetwork,
        #[codec(index = 31)]
        InvalidIpAddress,
    }
}

#[derive(TypeInfo)]
enum SystemEvent {
    ExtrinsicSuccess { dispatch_info: DispatchInfo },
    ExtrinsicFailed { dispatch_error: DispatchError, dispatch_info: DispatchInfo },
}

#[derive(TypeInfo)]
struct DispatchInfo {
    weight: Compact<u64>,
    class: u8,
}

/// The error of a call, whose path is how it is found.
struct DispatchError;

impl TypeInfo for DispatchError {
    type Identity = Self;

    fn type_info() -> Type {
        let variants = Variants::new().variant("Other", |v| v.index(0));
        let variants = variants.variant("CannotLookup", |v| v.index(1));
        let variants = variants.variant("BadOrigin", |v| v.index(2));
        let fields = || Fields::unnamed().field(|field| field.ty::<ModuleError>());
        let variants = variants.variant("Module", |v| v.index(3).fields(fields()));
        Type::builder().path(Path::new("DispatchError", "sp_runtime")).variant(variants)
    }
}

#[derive(TypeInfo)]
struct ModuleError {
    index: u8,
    error: [u8; 4],
}

#[derive(TypeInfo)]
enum RuntimeCall {
    SubtensorModule(old::Call),
}

#[derive(TypeInfo)]
enum RuntimeEvent {
    System(SystemEvent),
}

#[derive(TypeInfo)]
enum RuntimeError {
    SubtensorModule(old::Error),
}

/// The runtime, which names the outer types, so that old metadata has them.
#[derive(TypeInfo)]
struct TheRuntime(RuntimeCall, RuntimeEvent, RuntimeError);

struct UncheckedExtrinsic;

impl TypeInfo for UncheckedExtrinsic {
    type Identity = Self;

    fn type_info() -> Type {
        let parameter = |name, ty| TypeParameter::new(name, Some(ty));
        Type::builder()
            .path(Path::new("UncheckedExtrinsic", "sp_runtime"))
            .type_params(vec![
                parameter("Address", meta_type::<MultiAddress<AccountId32, ()>>()),
                parameter("Call", meta_type::<RuntimeCall>()),
                parameter("Signature", meta_type::<MultiSignature>()),
                parameter("Extra", meta_type::<()>()),
            ])
            .composite(Fields::unnamed().field(|field| field.ty::<Vec<u8>>()))
    }
}

#[derive(TypeInfo)]
struct Era(u8, u8);

#[derive(TypeInfo)]
enum Mode {
    Disabled,
    Enabled,
}

/// The extensions of a transaction: name, type in it, type signed beside it. The last but one is none
/// that a client knows.
fn extensions() -> Vec<(&'static str, MetaType, MetaType)> {
    let none = meta_type::<()>;
    vec![
        ("CheckNonZeroSender", none(), none()),
        ("CheckSpecVersion", none(), meta_type::<u32>()),
        ("CheckTxVersion", none(), meta_type::<u32>()),
        ("CheckGenesis", none(), meta_type::<H256>()),
        ("CheckMortality", meta_type::<Era>(), meta_type::<H256>()),
        ("CheckNonce", meta_type::<Compact<u32>>(), none()),
        ("CheckWeight", none(), none()),
        ("ChargeTransactionPayment", meta_type::<Compact<u64>>(), none()),
        ("SubtensorTransactionExtension", none(), none()),
        ("CheckMetadataHash", meta_type::<Mode>(), meta_type::<Option<[u8; 32]>>()),
    ]
}

/// A storage: its name, how its keys are hashed, its key and value, and its default.
type Entry = (&'static str, Vec<v14::StorageHasher>, MetaType, MetaType, Option<Vec<u8>>);

fn storage(shape: Shape) -> Vec<v14::StorageEntryMetadata> {
    use v14::StorageHasher::{Blake2_128Concat as Concat, Identity};
    let modern = shape.modern;
    let netuid = || if modern { meta_type::<new::NetUid>() } else { meta_type::<u16>() };
    let with_hotkey = || match modern {
        true => meta_type::<(new::NetUid, AccountId32)>(),
        false => meta_type::<(u16, AccountId32)>(),
    };
    let with_uid = match modern {
        true => meta_type::<(new::NetUid, u16)>(),
        false => meta_type::<(u16, u16)>(),
    };
    let of_hotkey = match modern {
        true => meta_type::<(AccountId32, new::NetUid)>(),
        false => meta_type::<(AccountId32, u16)>(),
    };
    let axon = if modern { meta_type::<new::AxonInfo>() } else { meta_type::<old::AxonInfo>() };
    let certificate = match modern {
        true => meta_type::<new::NeuronCertificate>(),
        false => meta_type::<old::NeuronCertificate>(),
    };
    let balance = if modern { meta_type::<new::Balance>() } else { meta_type::<u64>() };
    let number = || Some(vec![0; 8]);
    let entries: Vec<Entry> = vec![
        ("NetworksAdded", vec![Identity], netuid(), meta_type::<bool>(), Some(vec![0])),
        ("SubnetworkN", vec![Identity], netuid(), meta_type::<u16>(), Some(vec![0, 0])),
        ("Tempo", vec![Identity], netuid(), meta_type::<u16>(), Some(vec![99, 0])),
        ("ServingRateLimit", vec![Identity], netuid(), meta_type::<u64>(), number()),
        ("Uids", vec![Identity, Concat], with_hotkey(), meta_type::<u16>(), None),
        ("Keys", vec![Identity, Identity], with_uid, meta_type::<AccountId32>(), None),
        ("Axons", vec![Identity, Concat], with_hotkey(), axon, None),
        ("NeuronCertificates", vec![Identity, Concat], with_hotkey(), certificate, None),
        ("ValidatorPermit", vec![Identity], netuid(), meta_type::<Vec<bool>>(), Some(vec![0])),
        ("Active", vec![Identity], netuid(), meta_type::<Vec<bool>>(), Some(vec![0])),
        ("LastUpdate", vec![Identity], netuid(), meta_type::<Vec<u64>>(), Some(vec![0])),
        ("TotalHotkeyAlpha", vec![Concat, Identity], of_hotkey, balance, number()),
    ];
    let kept = entries.into_iter().filter(|entry| Some(entry.0) != shape.without);
    kept.map(|(name, hashers, key, value, default)| v14::StorageEntryMetadata {
        name,
        modifier: match default {
            Some(_) => v14::StorageEntryModifier::Default,
            None => v14::StorageEntryModifier::Optional,
        },
        ty: v14::StorageEntryType::Map { hashers, key, value },
        default: default.unwrap_or_default(),
        docs: Vec::new(),
    })
    .collect()
}

fn time() -> v14::StorageEntryMetadata {
    v14::StorageEntryMetadata {
        name: "Now",
        modifier: v14::StorageEntryModifier::Default,
        ty: v14::StorageEntryType::Plain(meta_type::<u64>()),
        default: vec![0; 8],
        docs: Vec::new(),
    }
}

fn call_and_error(shape: Shape) -> (MetaType, MetaType) {
    match shape.modern {
        true => (meta_type::<new::Call>(), meta_type::<new::Error>()),
        false => (meta_type::<old::Call>(), meta_type::<old::Error>()),
    }
}

/// The pallets: their names, places, storages, and types of call, event and error.
type Pallet = (
    &'static str,
    u8,
    Vec<v14::StorageEntryMetadata>,
    Option<MetaType>,
    Option<MetaType>,
    Option<MetaType>,
);

fn pallets(shape: Shape) -> Vec<Pallet> {
    let (call, error) = call_and_error(shape);
    vec![
        ("System", 0, Vec::new(), None, Some(meta_type::<SystemEvent>()), None),
        ("Timestamp", 2, vec![time()], None, None, None),
        ("SubtensorModule", shape.pallet_index, storage(shape), Some(call), None, Some(error)),
    ]
}

fn in_v14(shape: Shape) -> v14::RuntimeMetadataV14 {
    let pallet = |(name, index, entries, call, event, error): Pallet| v14::PalletMetadata {
        name,
        storage: Some(v14::PalletStorageMetadata { prefix: name, entries }),
        calls: call.map(|ty| v14::PalletCallMetadata { ty }),
        event: event.map(|ty| v14::PalletEventMetadata { ty }),
        constants: Vec::new(),
        error: error.map(|ty| v14::PalletErrorMetadata { ty }),
        index,
    };
    let extension = |(identifier, ty, additional_signed)| v14::SignedExtensionMetadata {
        identifier,
        ty,
        additional_signed,
    };
    v14::RuntimeMetadataV14::new(
        pallets(shape).into_iter().map(pallet).collect(),
        v14::ExtrinsicMetadata {
            ty: meta_type::<UncheckedExtrinsic>(),
            version: 4,
            signed_extensions: extensions().into_iter().map(extension).collect(),
        },
        meta_type::<TheRuntime>(),
    )
}

fn in_v15(shape: Shape) -> v15::RuntimeMetadataV15 {
    let pallet = |(name, index, entries, call, event, error): Pallet| v15::PalletMetadata {
        name,
        storage: Some(v14::PalletStorageMetadata { prefix: name, entries }),
        calls: call.map(|ty| v14::PalletCallMetadata { ty }),
        event: event.map(|ty| v14::PalletEventMetadata { ty }),
        constants: Vec::new(),
        error: error.map(|ty| v14::PalletErrorMetadata { ty }),
        index,
        docs: Vec::new(),
    };
    let extension = |(identifier, ty, additional_signed)| v15::SignedExtensionMetadata {
        identifier,
        ty,
        additional_signed,
    };
    v15::RuntimeMetadataV15::new(
        pallets(shape).into_iter().map(pallet).collect(),
        v15::ExtrinsicMetadata {
            version: 4,
            address_ty: meta_type::<MultiAddress<AccountId32, ()>>(),
            call_ty: meta_type::<RuntimeCall>(),
            signature_ty: meta_type::<MultiSignature>(),
            extra_ty: meta_type::<()>(),
            signed_extensions: extensions().into_iter().map(extension).collect(),
        },
        meta_type::<TheRuntime>(),
        apis(shape),
        v15::OuterEnums {
            call_enum_ty: meta_type::<RuntimeCall>(),
            event_enum_ty: meta_type::<RuntimeEvent>(),
            error_enum_ty: meta_type::<RuntimeError>(),
        },
        v15::CustomMetadata { map: std::collections::BTreeMap::new() },
    )
}

fn apis(shape: Shape) -> Vec<v15::RuntimeApiMetadata> {
    let netuid = if shape.modern { meta_type::<new::NetUid>() } else { meta_type::<u16>() };
    let (metagraph, neurons) = match shape.modern {
        true => (meta_type::<Option<new::Metagraph>>(), meta_type::<Vec<new::NeuronInfoLite>>()),
        false => (meta_type::<Option<old::Metagraph>>(), meta_type::<Vec<old::NeuronInfoLite>>()),
    };
    let api = |name, method, output| v15::RuntimeApiMetadata {
        name,
        methods: vec![v15::RuntimeApiMethodMetadata {
            name: method,
            inputs: vec![v15::RuntimeApiMethodParamMetadata { name: "netuid", ty: netuid }],
            output,
            docs: Vec::new(),
        }],
        docs: Vec::new(),
    };
    let mut apis = vec![api("NeuronInfoRuntimeApi", "get_neurons_lite", neurons)];
    if shape.metagraph_api {
        apis.push(api("SubnetInfoRuntimeApi", "get_metagraph", metagraph));
    }
    apis
}
