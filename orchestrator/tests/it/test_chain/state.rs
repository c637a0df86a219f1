//! What the test chain holds: blocks, one subnet, and the rules of serving an axon.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use orchestrator::chain::AccountId32;
use sp_core::{Pair as _, sr25519};
use subxt::config::Hasher as _;
use subxt::config::substrate::{BlakeTwo256, Digest, SubstrateHeader};
use subxt::ext::codec::{Compact, Decode as _, Encode};
use subxt::ext::scale_value::Value;
use subxt::utils::H256;

use super::runtime::{Runtime, TRANSACTION_VERSION};

/// The only subnet.
pub const NETUID: u16 = 39;

/// The genesis block of the main network.
pub const FINNEY_GENESIS: &str = "2f0555cc76fc2840a25a6ea3b9637146806f1f44b090c175ffde2a7e5ab36c03";

#[derive(Debug, Clone)]
pub struct TestNeuron {
    pub hotkey: AccountId32,
    pub stake: u64,
    pub permit: bool,
    pub active: bool,
    pub last_update: u64,
    /// Address, port, block.
    pub axon: Option<(IpAddr, u16, u64)>,
    pub certificate: Option<Vec<u8>>,
}

pub struct Block {
    pub header: SubstrateHeader<H256>,
    pub hash: H256,
    pub extrinsics: Vec<Vec<u8>>,
    pub events: Vec<u8>,
    pub runtime: Arc<Runtime>,
}

pub struct World {
    pub genesis: H256,
    pub blocks: Vec<Block>,
    /// The last is the one of the next block.
    pub runtimes: Vec<Arc<Runtime>>,
    pub neurons: Vec<TestNeuron>,
    pub tempo: u16,
    pub serving_rate_limit: u64,
    /// Whether a refusal is an error of a block, as in old runtimes, or one of the pool.
    pub refuses_in_block: bool,
    /// An error that the next call meets, whatever it is, as if the state had changed meanwhile.
    pub next_error: Option<(u8, &'static str)>,
    /// Whether `get_metagraph` leaves out the last neuron in one of its lists.
    pub contradicts_itself: bool,
    /// How far the newest block is ahead of the newest finalized one.
    pub lag: u64,
    /// What the clock of the chain says.
    pub time_ms: u64,
    /// Blocks with calls in them.
    pub calls: u32,
}

impl World {
    pub fn new(runtime: Runtime) -> Self {
        let neuron = |byte: u8, stake, permit, axon| TestNeuron {
            hotkey: super::hotkey(byte),
            stake,
            permit,
            active: byte != 3,
            last_update: u64::from(byte) * 10,
            axon,
            certificate: None,
        };
        let axon = Some(("203.0.113.5".parse().unwrap(), 8091, 7));
        let mut world = Self {
            genesis: H256::repeat_byte(0x11),
            blocks: Vec::new(),
            runtimes: vec![Arc::new(runtime)],
            neurons: vec![
                neuron(1, 5_000_000_000, true, None),
                neuron(2, 9_000_000_000, true, axon),
                neuron(3, 20_000_000_000, false, None),
            ],
            tempo: 360,
            serving_rate_limit: 50,
            refuses_in_block: false,
            next_error: None,
            contradicts_itself: false,
            lag: 0,
            time_ms: 1_700_000_000_000,
            calls: 0,
        };
        for _ in 0..100 {
            world.block(Vec::new(), None);
        }
        world
    }

    pub fn finney(mut self) -> Self {
        let bytes: Vec<u8> = (0..32)
            .map(|i| u8::from_str_radix(&FINNEY_GENESIS[i * 2..i * 2 + 2], 16).unwrap())
            .collect();
        self.genesis = H256::from_slice(&bytes);
        self
    }

    pub fn runtime(&self) -> Arc<Runtime> {
        self.runtimes.last().unwrap().clone()
    }

    /// Registers a hotkey, in the next slot.
    pub fn register(&mut self, hotkey: AccountId32) {
        let template = self.neurons[0].clone();
        self.neurons.push(TestNeuron { hotkey, permit: false, stake: 0, ..template });
    }

    pub fn height(&self) -> u64 {
        self.blocks.last().map_or(0, |block| block.header.number)
    }

    pub fn at(&self, hash: H256) -> Option<&Block> {
        self.blocks.iter().find(|block| block.hash == hash)
    }

    /// Makes a block with these extrinsics; the outcome is that of the first.
    pub fn block(&mut self, extrinsics: Vec<Vec<u8>>, failed: Option<&str>) -> H256 {
        let runtime = self.runtime();
        let parent_hash = self.blocks.last().map_or(self.genesis, |block| block.hash);
        let header = SubstrateHeader {
            parent_hash,
            number: self.height() + 1,
            state_root: H256::zero(),
            extrinsics_root: H256::zero(),
            digest: Digest { logs: Vec::new() },
        };
        let events = match extrinsics.is_empty() {
            true => Vec::new(),
            false => vec![outcome(&runtime, failed)],
        };
        let mut encoded = Compact(u32::try_from(events.len()).unwrap()).encode();
        encoded.extend(events.concat());
        let hash = BlakeTwo256.hash(&header.encode());
        self.time_ms += 12_000;
        self.blocks.push(Block { header, hash, extrinsics, events: encoded, runtime });
        hash
    }

    /// Every storage value, by its key, in the form of a runtime.
    pub fn storage(&self, runtime: &Runtime) -> HashMap<Vec<u8>, Vec<u8>> {
        let mut all = HashMap::new();
        let mut put = |pallet: &str, item: &str, keys: Vec<Value>, value: Value| {
            if let Some(bytes) = runtime.stored(pallet, item, &value) {
                all.insert(runtime.storage_key(pallet, item, keys), bytes);
            }
        };
        let netuid = || Value::u128(NETUID.into());
        let pallet = "SubtensorModule";
        put("Timestamp", "Now", Vec::new(), Value::u128(self.time_ms.into()));
        let count = Value::u128(self.neurons.len().try_into().unwrap());
        put(pallet, "NetworksAdded", vec![netuid()], Value::bool(true));
        put(pallet, "SubnetworkN", vec![netuid()], count);
        put(pallet, "Tempo", vec![netuid()], Value::u128(self.tempo.into()));
        let limit = Value::u128(self.serving_rate_limit.into());
        put(pallet, "ServingRateLimit", vec![netuid()], limit);
        let list = |of: &dyn Fn(&TestNeuron) -> Value| {
            Value::unnamed_composite(self.neurons.iter().map(of))
        };
        put(pallet, "ValidatorPermit", vec![netuid()], list(&|n| Value::bool(n.permit)));
        put(pallet, "Active", vec![netuid()], list(&|n| Value::bool(n.active)));
        put(pallet, "LastUpdate", vec![netuid()], list(&|n| Value::u128(n.last_update.into())));
        for (neuron, uid) in self.neurons.iter().zip(0_u32..) {
            let (hotkey, uid) = (|| key(&neuron.hotkey), Value::u128(uid.into()));
            put(pallet, "Uids", vec![netuid(), hotkey()], uid.clone());
            put(pallet, "Keys", vec![netuid(), uid], hotkey());
            let stake = Value::u128(neuron.stake.into());
            put(pallet, "TotalHotkeyAlpha", vec![hotkey(), netuid()], stake);
            if neuron.axon.is_some()
                && let Some(id) = value_type(runtime, "Axons")
            {
                put(pallet, "Axons", vec![netuid(), hotkey()], axon(runtime, id, neuron));
            }
            if let Some([algorithm, public_key @ ..]) = neuron.certificate.as_deref() {
                let certificate = Value::named_composite([
                    ("public_key", Value::from_bytes(public_key)),
                    ("algorithm", Value::u128((*algorithm).into())),
                ]);
                put(pallet, "NeuronCertificates", vec![netuid(), hotkey()], certificate);
            }
        }
        all
    }

    /// What `get_metagraph` answers.
    pub fn metagraph(&self, runtime: &Runtime, netuid: u16) -> Option<Vec<u8>> {
        let option = runtime.api_output("SubnetInfoRuntimeApi", "get_metagraph")?;
        if netuid != NETUID {
            return Some(vec![0]);
        }
        let id = runtime.inside(option);
        let axon_id = runtime.inside(runtime.part(id, "axons"));
        let list = |of: &dyn Fn(&TestNeuron) -> Value| {
            Value::unnamed_composite(self.neurons.iter().map(of))
        };
        let left_out = usize::from(self.contradicts_itself);
        let active = self.neurons.iter().skip(left_out).map(|n| Value::bool(n.active));
        let given = HashMap::from([
            ("hotkeys", list(&|n| key(&n.hotkey))),
            ("axons", list(&|n| axon(runtime, axon_id, n))),
            ("active", Value::unnamed_composite(active)),
            ("validator_permit", list(&|n| Value::bool(n.permit))),
            ("last_update", list(&|n| Value::u128(n.last_update.into()))),
            ("total_stake", list(&|n| Value::u128(n.stake.into()))),
        ]);
        let metagraph = Value::unnamed_variant("Some", [runtime.structure(id, given)]);
        Some(runtime.encode(&metagraph, option))
    }

    /// What `get_neurons_lite` answers.
    pub fn neurons_lite(&self, runtime: &Runtime, netuid: u16) -> Option<Vec<u8>> {
        let list = runtime.api_output("NeuronInfoRuntimeApi", "get_neurons_lite")?;
        let id = runtime.inside(list);
        let axon_id = runtime.part(id, "axon_info");
        let own = self.neurons.iter().zip(0_u32..).filter(|_| netuid == NETUID);
        let neurons = own.map(|(n, uid)| {
            // Of two coldkeys.
            let half = |stake: u64| {
                Value::unnamed_composite([Value::from_bytes([9; 32]), Value::u128(stake.into())])
            };
            let stake = [half(n.stake / 2), half(n.stake - n.stake / 2)];
            let given = HashMap::from([
                ("hotkey", key(&n.hotkey)),
                ("uid", Value::u128(uid.into())),
                ("active", Value::bool(n.active)),
                ("axon_info", axon(runtime, axon_id, n)),
                ("stake", Value::unnamed_composite(stake)),
                ("last_update", Value::u128(n.last_update.into())),
                ("validator_permit", Value::bool(n.permit)),
            ]);
            runtime.structure(id, given)
        });
        Some(runtime.encode(&Value::unnamed_composite(neurons), list))
    }

    /// What the pool says of an extrinsic: the bytes of a `TransactionValidity`.
    pub fn validity(&self, extrinsic: &[u8]) -> Vec<u8> {
        let custom = |code: u8| vec![1, 0, 7, code];
        let call = match self.read(extrinsic) {
            Ok(call) => call,
            // BadProof.
            Err(_) => return vec![1, 0, 4],
        };
        match self.refusal(&call) {
            Some((code, _)) if !self.refuses_in_block => custom(code),
            _ => {
                let (nothing, for_ever): (Vec<Vec<u8>>, u64) = (Vec::new(), 64);
                let mut valid = vec![0];
                (0_u64, &nothing, &nothing, for_ever, true).encode_to(&mut valid);
                valid
            }
        }
    }

    /// Takes an extrinsic into a block. The pool's refusal is an error.
    pub fn include(&mut self, extrinsic: Vec<u8>) -> Result<H256, u8> {
        let call = self.read(&extrinsic).map_err(|_| 0)?;
        let refusal = self.refusal(&call);
        self.next_error = None;
        match refusal {
            Some((code, _)) if !self.refuses_in_block => return Err(code),
            Some((_, name)) => return Ok(self.block(vec![extrinsic], Some(name))),
            None => {}
        }
        let hash = self.block(vec![extrinsic], None);
        let block = self.height();
        let neuron = self.neurons.iter_mut().find(|n| n.hotkey == call.hotkey).unwrap();
        neuron.axon = Some((call.ip, call.port, block));
        neuron.certificate = call.certificate;
        self.calls += 1;
        Ok(hash)
    }

    /// Why a call is refused: the pool's code, and the pallet's name.
    fn refusal(&self, call: &ServeAxon) -> Option<(u8, &'static str)> {
        if self.next_error.is_some() {
            return self.next_error;
        }
        let Some(neuron) = self.neurons.iter().find(|n| n.hotkey == call.hotkey) else {
            return Some((10, "HotKeyNotRegisteredInNetwork"));
        };
        let (limit, last) = (self.serving_rate_limit, neuron.axon.map_or(0, |axon| axon.2));
        let passes = limit == 0 || last == 0 || self.height() - last >= limit;
        (!passes).then_some((12, "ServingRateLimitExceeded"))
    }

    /// Reads an extrinsic and checks its signature.
    fn read(&self, extrinsic: &[u8]) -> Result<ServeAxon, &'static str> {
        let mut rest = extrinsic;
        let length = Compact::<u32>::decode(&mut rest).map_err(|_| "no length")?.0;
        assert_eq!(rest.len(), usize::try_from(length).unwrap());
        let (head, rest) = rest.split_at(1 + 1 + 32 + 1 + 64);
        assert_eq!((head[0], head[1], head[34]), (0x84, 0, 1), "version, kind of address, scheme");
        let public = sr25519::Public::from_raw(head[2..34].try_into().unwrap());
        let signature = sr25519::Signature::from_raw(head[35..].try_into().unwrap());
        let mut call = rest;
        let era = u16::decode(&mut call).map_err(|_| "no era")?;
        let _nonce = Compact::<u64>::decode(&mut call).map_err(|_| "no nonce")?;
        let tip = Compact::<u64>::decode(&mut call).map_err(|_| "no tip")?;
        let mode = u8::decode(&mut call).map_err(|_| "no mode")?;
        assert_eq!((tip.0, mode), (0, 0));
        let extra = &rest[..rest.len() - call.len()];
        // A mortal era: the period is two to the power of the low four bits plus one.
        let period = 2_u64 << (era & 0b1111);
        let phase = u64::from(era >> 4);
        assert!(period >= 64, "a period of {period} blocks");
        let birth = self.blocks.iter().rev().find(|block| block.header.number % period == phase);
        let birth = birth.ok_or("no block of birth")?.hash;
        let runtime = self.runtime();
        let beside =
            (runtime.spec_version, TRANSACTION_VERSION, self.genesis, birth, None::<[u8; 32]>);
        let mut payload = [call, extra, &beside.encode()].concat();
        if payload.len() > 256 {
            payload = BlakeTwo256.hash(&payload).0.to_vec();
        }
        if !sr25519::Pair::verify(&signature, payload, &public) {
            return Err("a wrong signature");
        }
        Ok(ServeAxon::read(public.into(), call))
    }
}

/// A call of `serve_axon` or `serve_axon_tls`.
struct ServeAxon {
    hotkey: AccountId32,
    ip: IpAddr,
    port: u16,
    certificate: Option<Vec<u8>>,
}

impl ServeAxon {
    fn read(hotkey: AccountId32, mut call: &[u8]) -> Self {
        type Arguments = (u8, u8, u16, u32, u128, u16, u8, u8, u8, u8);
        let (pallet, index, netuid, _, ip, port, ip_type, ..) =
            Arguments::decode(&mut call).unwrap();
        assert_eq!((pallet, netuid), (7, NETUID));
        let ip = match ip_type {
            4 => IpAddr::V4(u32::try_from(ip).unwrap().into()),
            _ => IpAddr::V6(ip.into()),
        };
        let certificate = (index == 40).then(|| Vec::<u8>::decode(&mut call).unwrap());
        assert!(call.is_empty() && (index == 4 || index == 40));
        Self { hotkey, ip, port, certificate }
    }
}

fn value_type(runtime: &Runtime, item: &str) -> Option<u32> {
    let pallet = runtime.metadata.pallet_by_name("SubtensorModule")?;
    Some(pallet.storage()?.entry_by_name(item)?.value_ty())
}

fn key(account: &AccountId32) -> Value {
    Value::from_bytes(AsRef::<[u8; 32]>::as_ref(account))
}

/// An axon in the form of a type; zeros where there is none.
fn axon(runtime: &Runtime, id: u32, neuron: &TestNeuron) -> Value {
    let given = neuron.axon.map(|(ip, port, block)| {
        let (number, kind) = match ip {
            IpAddr::V4(ip) => (u128::from(ip.to_bits()), 4),
            IpAddr::V6(ip) => (ip.to_bits(), 6),
        };
        HashMap::from([
            ("ip", Value::u128(number)),
            ("ip_type", Value::u128(kind)),
            ("port", Value::u128(port.into())),
            ("protocol", Value::u128(4)),
            ("version", Value::u128(1000)),
            ("block", Value::u128(block.into())),
        ])
    });
    runtime.structure(id, given.unwrap_or_default())
}

/// The event of a call: success, or the error of that name.
fn outcome(runtime: &Runtime, failed: Option<&str>) -> Vec<u8> {
    let system = runtime.metadata.pallet_by_name("System").unwrap();
    let variants = system.event_variants().unwrap();
    let name = if failed.is_some() { "ExtrinsicFailed" } else { "ExtrinsicSuccess" };
    let variant = variants.iter().find(|variant| variant.name == name).unwrap();
    // ApplyExtrinsic(0), the pallet, the event.
    let mut bytes = vec![0, 0, 0, 0, 0, system.event_index(), variant.index];
    for field in &variant.fields {
        match (field.name.as_deref(), failed) {
            (Some("dispatch_error"), Some(error)) => {
                let pallet = runtime.metadata.pallet_by_name("SubtensorModule").unwrap();
                let errors = pallet.error_variants().unwrap();
                let error = errors.iter().find(|variant| variant.name == error).unwrap();
                // Module, which is the fourth in all runtimes.
                bytes.extend([3, pallet.error_index(), error.index, 0, 0, 0]);
            }
            _ => {
                let zero = runtime.structure(field.ty.id, HashMap::new());
                bytes.extend(runtime.encode(&zero, field.ty.id));
            }
        }
    }
    // No topics.
    bytes.push(0);
    bytes
}
