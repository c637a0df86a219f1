//! What the chain has of one subnet and of one hotkey in it.

use subxt::ext::scale_value::Value;

use super::account::{AccountId32, as_ss58};
use super::error::Error;
use super::metagraph::{AxonInfo, axon_info};
use super::value;
use super::view::{Place, View};

/// A subnet's own numbers.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Subnet {
    /// Its number.
    pub netuid: u16,
    /// The block at which this was read.
    pub block: u64,
    /// When that block was made, in milliseconds since the Unix epoch; nothing where the runtime
    /// does not say.
    pub block_time_ms: Option<u64>,
    /// How many neurons it has.
    pub neurons: u16,
    /// Blocks from one epoch to the next.
    pub tempo: u16,
    /// Blocks that must be between two axon addresses of one hotkey; 0 for none.
    pub serving_rate_limit_blocks: u64,
}

/// What the chain has of a hotkey in a subnet.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Registration {
    /// The subnet.
    pub subnet: Subnet,
    /// The hotkey.
    #[serde(with = "as_ss58")]
    pub hotkey: AccountId32,
    /// Its slot now; nothing where it is not registered. Slots are given to others: never a key.
    pub uid: Option<u16>,
    /// The axon address that is announced.
    pub axon: Option<AxonInfo>,
    /// The certificate that is announced with it, as it was sent: the algorithm, then the key.
    #[serde(skip)]
    pub certificate: Option<Vec<u8>>,
}

impl Registration {
    /// Blocks until the chain takes another axon address; 0 for now.
    #[must_use]
    pub fn blocks_until_served(&self) -> u64 {
        let limit = self.subnet.serving_rate_limit_blocks;
        match &self.axon {
            // As the runtime reckons: an axon of block 0 was never served.
            Some(axon) if axon.block != 0 => {
                limit.saturating_sub(self.subnet.block.saturating_sub(axon.block))
            }
            _ => 0,
        }
    }
}

/// Where the subnet's numbers are.
fn places(netuid: u16) -> Vec<Place> {
    let key = || vec![Value::u128(netuid.into())];
    vec![
        Place::subtensor("NetworksAdded", key()),
        Place::subtensor("SubnetworkN", key()),
        Place::subtensor("Tempo", key()),
        Place::subtensor("ServingRateLimit", key()),
        Place::time(),
    ]
}

/// Reads a subnet's numbers, in one request.
pub(super) async fn subnet(view: &View, netuid: u16) -> Result<Subnet, Error> {
    let values = view.read_all(places(netuid)).await?;
    subnet_of(view, netuid, &values)
}

fn subnet_of(view: &View, netuid: u16, values: &[Option<Value>]) -> Result<Subnet, Error> {
    let at = |index: usize| values.get(index).and_then(Option::as_ref);
    let exists = at(0).map(|value| view.boolean("NetworksAdded", value)).transpose()?;
    if exists != Some(true) {
        return Err(Error::NoSubnet { netuid });
    }
    let number = |index: usize, item: &str| {
        at(index).map(|value| view.number::<u64>(item, value)).transpose()
    };
    let small = |index: usize, item: &str| {
        let number = number(index, item)?.unwrap_or(0);
        u16::try_from(number).map_err(|_| view.unexpected(item, "it is too large"))
    };
    Ok(Subnet {
        netuid,
        block: view.at.block_number(),
        block_time_ms: number(4, "Timestamp.Now")?.filter(|time| *time > 0),
        neurons: small(1, "SubnetworkN")?,
        tempo: small(2, "Tempo")?,
        serving_rate_limit_blocks: number(3, "ServingRateLimit")?.unwrap_or(0),
    })
}

/// Reads what the chain has of a hotkey, with the subnet's numbers, in one request.
pub(super) async fn registration(
    view: &View,
    netuid: u16,
    hotkey: &AccountId32,
) -> Result<Registration, Error> {
    let account: &[u8; 32] = hotkey.as_ref();
    let key = || vec![Value::u128(netuid.into()), Value::from_bytes(account)];
    let own = ["Uids", "Axons", "NeuronCertificates"];
    let mut wanted = places(netuid);
    let first = wanted.len();
    wanted.extend(own.map(|item| Place::subtensor(item, key())));
    let values = view.read_all(wanted).await?;
    let subnet = subnet_of(view, netuid, &values)?;
    let at = |index: usize| values.get(first + index).and_then(Option::as_ref);
    let axon = at(1).map(|value| axon_info(view, "Axons", value)).transpose()?.flatten();
    let certificate = at(2).map(|value| certificate(view, value)).transpose()?.flatten();
    let uid = at(0).map(|value| view.number("Uids", value)).transpose()?;
    Ok(Registration { subnet, hotkey: hotkey.clone(), uid, axon, certificate })
}

/// A certificate as it was sent.
fn certificate(view: &View, value: &Value) -> Result<Option<Vec<u8>>, Error> {
    let parts = view.parts("NeuronCertificates", value);
    let key = value::bytes(parts.get("public_key")?)
        .ok_or_else(|| view.unexpected("NeuronCertificates.public_key", "it is no bytes"))?;
    let algorithm = parts.number("algorithm")?;
    // The storage's default, where it has one, is an empty key.
    Ok((!key.is_empty()).then(|| [vec![algorithm], key].concat()))
}
