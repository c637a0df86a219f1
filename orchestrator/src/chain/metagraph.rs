//! The metagraph: every neuron of a subnet.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use subxt::ext::scale_value::Value;

use super::account::{AccountId32, as_ss58};
use super::error::Error;
use super::runtime::{METAGRAPH_API, NEURONS_API};
use super::value;
use super::view::{Parts, Place, View};

/// The most neurons that are believed. A subnet has 256 slots at most, and its number may grow.
const MAX_NEURONS: usize = 4096;

/// An axon as it is announced on the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AxonInfo {
    /// Its address.
    pub ip: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its protocol, as Bittensor numbers them; 4 is usual.
    pub protocol: u8,
    /// The version that its software claims.
    pub version: u32,
    /// The block at which it was announced.
    pub block: u64,
}

/// A neuron: a hotkey in its slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neuron {
    /// The slot. It is given to another hotkey when this one is outdone: never a key.
    pub uid: u16,
    /// The hotkey.
    #[serde(with = "as_ss58")]
    pub hotkey: AccountId32,
    /// The stake, in the unit of [`MetagraphSource`], in thousand millionths.
    pub stake_rao: u64,
    /// Whether it may set weights: whether it is a validator.
    pub validator_permit: bool,
    /// Whether the chain counts it as active.
    pub active: bool,
    /// The block of its last weights or registration.
    pub last_update_block: u64,
    /// Its axon, if one is announced.
    pub axon: Option<AxonInfo>,
}

/// Where a metagraph was read, which also says what its stake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetagraphSource {
    /// `get_metagraph`: the total stake, alpha and TAO weighted by the chain.
    MetagraphApi,
    /// `get_neurons_lite`: the subnet's alpha.
    NeuronsApi,
    /// Storage: the subnet's alpha.
    Storage,
}

/// Every neuron of a subnet at one block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metagraph {
    /// The subnet.
    pub netuid: u16,
    /// The chain's genesis block, `0x` and 64 digits.
    pub genesis: String,
    /// The block.
    pub block: u64,
    /// The version of the runtime at it.
    pub spec_version: u32,
    /// When it was read, by our clock, in milliseconds since the Unix epoch.
    pub taken_ms: i64,
    /// Where it was read.
    pub source: MetagraphSource,
    /// The neurons, by their slots.
    pub neurons: Vec<Neuron>,
}

impl Metagraph {
    /// The neuron of a hotkey.
    #[must_use]
    pub fn neuron(&self, hotkey: &AccountId32) -> Option<&Neuron> {
        self.neurons.iter().find(|neuron| neuron.hotkey == *hotkey)
    }

    /// The validators with the most stake, the first of them first.
    #[must_use]
    pub fn top_validators(&self, count: usize) -> Vec<&Neuron> {
        let mut validators: Vec<&Neuron> =
            self.neurons.iter().filter(|neuron| neuron.validator_permit).collect();
        validators.sort_by_key(|neuron| (Reverse(neuron.stake_rao), neuron.uid));
        validators.truncate(count);
        validators
    }
}

/// Reads a metagraph in the best way that the runtime has, and where that fails, in the next: each
/// was at some time the one whose types had changed.
pub(super) async fn read(view: &View, netuid: u16) -> Result<Metagraph, Error> {
    let mut failed = None;
    for source in
        [MetagraphSource::MetagraphApi, MetagraphSource::NeuronsApi, MetagraphSource::Storage]
    {
        let read = match source {
            MetagraphSource::MetagraphApi if view.has_api(METAGRAPH_API) => {
                by_metagraph_api(view, netuid).await
            }
            MetagraphSource::NeuronsApi if view.has_api(NEURONS_API) => {
                by_neurons_api(view, netuid).await
            }
            MetagraphSource::Storage => by_storage(view, netuid).await,
            _ => continue,
        };
        match read {
            Ok(neurons) => return Ok(metagraph(view, netuid, source, neurons)),
            Err(error @ Error::Unexpected { .. }) => {
                tracing::warn!(%error, "the metagraph is read in another way");
                failed.get_or_insert(error);
            }
            // The other ways would ask the same node, or find the same subnet missing.
            Err(error) => return Err(failed.unwrap_or(error)),
        }
    }
    Err(failed.unwrap_or(Error::NoSubnet { netuid }))
}

fn metagraph(
    view: &View,
    netuid: u16,
    source: MetagraphSource,
    mut neurons: Vec<Neuron>,
) -> Metagraph {
    neurons.sort_by_key(|neuron| neuron.uid);
    let head = view.head();
    Metagraph {
        netuid,
        genesis: head.genesis,
        block: head.block,
        spec_version: head.spec_version,
        taken_ms: jiff::Timestamp::now().as_millisecond(),
        source,
        neurons,
    }
}

async fn by_metagraph_api(view: &View, netuid: u16) -> Result<Vec<Neuron>, Error> {
    let item = "get_metagraph";
    let answer = view.call_api(METAGRAPH_API, vec![Value::u128(netuid.into())]).await?;
    let found = value::option(&answer).ok_or_else(|| view.unexpected(item, "it is no option"))?;
    let parts = view.parts(item, found.ok_or(Error::NoSubnet { netuid })?);
    let hotkeys = bounded(view, item, parts.list("hotkeys")?)?;
    let column = |name: &str| {
        let column = parts.list(name)?;
        match column.len() == hotkeys.len() {
            true => Ok(column),
            false => Err(view.unexpected(
                format!("{item}.{name}"),
                format!("it has {} elements for {} hotkeys", column.len(), hotkeys.len()),
            )),
        }
    };
    let (stakes, permits) = (column("total_stake")?, column("validator_permit")?);
    let (active, updates) = (column("active")?, column("last_update")?);
    let axons = column("axons")?;
    let rows = hotkeys.iter().zip(stakes).zip(permits).zip(active).zip(updates).zip(axons);
    rows.zip(0..)
        .map(|((((((hotkey, stake), permit), active), update), axon), uid)| {
            Ok(Neuron {
                uid,
                hotkey: view.account("get_metagraph.hotkeys", hotkey)?,
                stake_rao: view.number("get_metagraph.total_stake", stake)?,
                validator_permit: view.boolean("get_metagraph.validator_permit", permit)?,
                active: view.boolean("get_metagraph.active", active)?,
                last_update_block: view.number("get_metagraph.last_update", update)?,
                axon: axon_info(view, "get_metagraph.axons", axon)?,
            })
        })
        .collect()
}

async fn by_neurons_api(view: &View, netuid: u16) -> Result<Vec<Neuron>, Error> {
    let item = "get_neurons_lite";
    let answer = view.call_api(NEURONS_API, vec![Value::u128(netuid.into())]).await?;
    let neurons = bounded(view, item, view.list(item, &answer)?)?;
    // For a subnet that does not exist the answer is an empty list, too.
    if neurons.is_empty() {
        super::registration::subnet(view, netuid).await?;
    }
    neurons.iter().map(|neuron| neuron_lite(view, &view.parts(item, neuron))).collect()
}

fn neuron_lite(view: &View, parts: &Parts<'_>) -> Result<Neuron, Error> {
    // Pairs of a coldkey and its stake; the hotkey's stake is their sum.
    let stake = parts.list("stake")?.iter().try_fold(0_u64, |sum, pair| {
        let stake = value::list(pair).and_then(<[Value]>::last).and_then(value::number::<u64>);
        stake.map(|stake| sum.saturating_add(stake))
    });
    let no_stake = || view.unexpected("get_neurons_lite.stake", "it is no pairs with numbers");
    Ok(Neuron {
        uid: parts.number("uid")?,
        hotkey: parts.account("hotkey")?,
        stake_rao: stake.ok_or_else(no_stake)?,
        validator_permit: parts.boolean("validator_permit")?,
        active: parts.boolean("active")?,
        last_update_block: parts.number("last_update")?,
        axon: axon_info(view, "get_neurons_lite.axon_info", parts.get("axon_info")?)?,
    })
}

/// Three rounds of one or two requests: the subnet's lists, the hotkeys by slot, and each hotkey's
/// axon and stake. `Alpha` is left alone: its type keeps changing.
async fn by_storage(view: &View, netuid: u16) -> Result<Vec<Neuron>, Error> {
    let subnet = super::registration::subnet(view, netuid).await?;
    let key = || Value::u128(netuid.into());
    let lists = ["ValidatorPermit", "Active", "LastUpdate"];
    let lists = view.read_all(lists.map(|item| Place::subtensor(item, [key()])).into()).await?;
    let uids = 0..subnet.neurons.min(u16::try_from(MAX_NEURONS).unwrap_or(u16::MAX));
    let slot = |uid: u16| Place::subtensor("Keys", [key(), Value::u128(uid.into())]);
    let hotkeys = view.read_all(uids.clone().map(slot).collect()).await?;
    let hotkeys: Vec<(u16, AccountId32)> = uids
        .zip(hotkeys)
        .filter_map(|(uid, hotkey)| Some((uid, hotkey?)))
        .map(|(uid, hotkey)| Ok((uid, view.account("Keys", &hotkey)?)))
        .collect::<Result<_, Error>>()?;
    let of = |hotkey: &AccountId32| Value::from_bytes(AsRef::<[u8; 32]>::as_ref(hotkey));
    let axons = hotkeys.iter().map(|(_, key_)| Place::subtensor("Axons", [key(), of(key_)]));
    let stakes =
        hotkeys.iter().map(|(_, key_)| Place::subtensor("TotalHotkeyAlpha", [of(key_), key()]));
    let mut axons = view.read_all(axons.chain(stakes).collect()).await?;
    let stakes = axons.split_off(hotkeys.len());
    let at = |list: usize, uid: u16| {
        let list = lists.get(list).and_then(Option::as_ref).and_then(value::list);
        list.and_then(|list| list.get(usize::from(uid)))
    };
    hotkeys
        .into_iter()
        .zip(axons)
        .zip(stakes)
        .map(|(((uid, hotkey), axon), stake)| {
            // A neuron that came after the last epoch is in the lists only at the next one.
            let permit = at(0, uid).map(|value| view.boolean("ValidatorPermit", value));
            let active = at(1, uid).map(|value| view.boolean("Active", value));
            let update = at(2, uid).map(|value| view.number("LastUpdate", value));
            let stake = stake.map(|value| view.number("TotalHotkeyAlpha", &value));
            Ok(Neuron {
                uid,
                hotkey,
                stake_rao: stake.transpose()?.unwrap_or(0),
                validator_permit: permit.transpose()?.unwrap_or(false),
                active: active.transpose()?.unwrap_or(false),
                last_update_block: update.transpose()?.unwrap_or(0),
                axon: axon.map(|value| axon_info(view, "Axons", &value)).transpose()?.flatten(),
            })
        })
        .collect()
}

fn bounded<'a>(view: &View, item: &str, neurons: &'a [Value]) -> Result<&'a [Value], Error> {
    match neurons.len() <= MAX_NEURONS {
        true => Ok(neurons),
        false => Err(view.unexpected(item, format!("it has {} neurons", neurons.len()))),
    }
}

/// An axon; nothing where none was announced, which the chain writes as zeros.
pub(super) fn axon_info(view: &View, item: &str, value: &Value) -> Result<Option<AxonInfo>, Error> {
    let parts = view.parts(item, value);
    let (ip, port): (u128, u16) = (parts.number("ip")?, parts.number("port")?);
    if ip == 0 && port == 0 {
        return Ok(None);
    }
    let ip = match parts.number::<u8>("ip_type")? {
        // The runtime keeps an IPv4 address in the low 32 bits.
        4 => u32::try_from(ip).map(|ip| IpAddr::V4(Ipv4Addr::from_bits(ip))).ok(),
        6 => Some(IpAddr::V6(Ipv6Addr::from_bits(ip))),
        _ => None,
    };
    Ok(Some(AxonInfo {
        // What is no address cannot be connected to: as good as none, and no reason to lose the rest.
        ip: match ip {
            Some(ip) => ip,
            None => return Ok(None),
        },
        port,
        protocol: parts.number("protocol")?,
        version: parts.number("version")?,
        block: parts.number("block")?,
    }))
}
