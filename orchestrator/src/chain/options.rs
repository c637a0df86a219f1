//! Which network, over which nodes, and how patiently.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use subxt::ext::jsonrpsee::client_transport::ws::Url;

use crate::retry::RetryPolicy;

/// The most endpoints that make sense: more hide a mistake, and each costs a timeout in an outage.
const MAX_ENDPOINTS: usize = 16;

/// The genesis block of the main network.
const FINNEY_GENESIS: [u8; 32] = [
    0x2f, 0x05, 0x55, 0xcc, 0x76, 0xfc, 0x28, 0x40, 0xa2, 0x5a, 0x6e, 0xa3, 0xb9, 0x63, 0x71, 0x46,
    0x80, 0x6f, 0x1f, 0x44, 0xb0, 0x90, 0xc1, 0x75, 0xff, 0xde, 0x2a, 0x7e, 0x5a, 0xb3, 0x6c, 0x03,
];

/// A Bittensor network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    /// The main network.
    Finney,
    /// The public test network.
    Test,
    /// A network of one's own.
    Local,
}

impl Network {
    /// Every network, in the order of documentation.
    pub const ALL: [Self; 3] = [Self::Finney, Self::Test, Self::Local];

    /// The name in configuration and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Finney => "finney",
            Self::Test => "test",
            Self::Local => "local",
        }
    }

    /// The network of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|network| network.name() == name)
    }

    /// The node that is asked where none is named.
    #[must_use]
    pub fn default_endpoint(self) -> &'static str {
        match self {
            Self::Finney => "wss://entrypoint-finney.opentensor.ai:443",
            Self::Test => "wss://test.finney.opentensor.ai:443",
            Self::Local => "ws://127.0.0.1:9944",
        }
    }

    /// The subnet that is meant where none is named; a local network has no usual one.
    #[must_use]
    pub fn default_netuid(self) -> Option<u16> {
        match self {
            Self::Finney => Some(39),
            Self::Test => Some(387),
            Self::Local => None,
        }
    }

    /// Whether strangers must be able to reach an axon that is announced on it.
    #[must_use]
    pub fn is_public(self) -> bool {
        self != Self::Local
    }

    /// Whether a chain with this genesis block can be this network. Test networks are started
    /// anew now and then, so of them it is known only that they are not the main one.
    #[must_use]
    pub fn may_have_genesis(self, genesis: &[u8; 32]) -> bool {
        (self == Self::Finney) == (*genesis == FINNEY_GENESIS)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The address of a node. What could be a secret in it (user, path, query) is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    url: Url,
}

impl Endpoint {
    /// Reads a `ws://` or `wss://` address.
    ///
    /// # Errors
    /// [`InvalidOptions`].
    pub fn parse(text: &str) -> Result<Self, InvalidOptions> {
        // The text is not repeated: it may hold a key.
        let url = Url::parse(text)
            .map_err(|error| InvalidOptions::Unreadable { problem: error.to_string() })?;
        let endpoint = Self { url };
        match (endpoint.url.scheme(), endpoint.url.host_str()) {
            ("ws" | "wss", Some(_)) => Ok(endpoint),
            ("ws" | "wss", None) => {
                Err(InvalidOptions::Unreadable { problem: "it names no host".to_owned() })
            }
            (scheme, _) => Err(InvalidOptions::Scheme { scheme: scheme.to_owned() }),
        }
    }

    /// The whole address, secrets included: for the connection alone.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Whether what is said travels encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.url.scheme() == "wss"
    }

    /// Whether it is by its name or number near: this machine, a private address, a name without a
    /// domain.
    #[must_use]
    pub fn is_near(&self) -> bool {
        let host = self.url.host_str().unwrap_or_default();
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
            Ok(IpAddr::V6(ip)) => {
                ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
            }
            Err(_a_name) => !host.contains('.'),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.url.host_str().unwrap_or_default();
        write!(f, "{}://{host}", self.url.scheme())?;
        self.url.port_or_known_default().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

/// How fast requests follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pacing {
    /// From one to the next, in the long run.
    pub interval: Duration,
    /// How many may follow each other at once after a silence.
    pub burst: u32,
}

impl Pacing {
    /// For public nodes: they allow about one request a second. A first contact takes eight, which
    /// may come at once.
    pub const POLITE: Self = Self { interval: Duration::from_secs(1), burst: 10 };
}

/// Why the options cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidOptions {
    /// Not an address.
    #[error("a chain endpoint cannot be read: {problem}")]
    Unreadable {
        /// What is wrong, without the address, which may hold a key.
        problem: String,
    },
    /// An address of something else.
    #[error("a chain endpoint begins with `{scheme}://`; it must be ws:// or wss://")]
    Scheme {
        /// What it begins with.
        scheme: String,
    },
    /// Unencrypted over a network of others.
    #[error(
        "the chain endpoint {endpoint} is far and not encrypted: anyone on the way could invent the chain"
    )]
    Plaintext {
        /// The endpoint.
        endpoint: Endpoint,
    },
    /// Too many.
    #[error("{count} chain endpoints; at most {MAX_ENDPOINTS} are used")]
    TooMany {
        /// How many there are.
        count: usize,
    },
}

/// What a [`ChainClient`](super::ChainClient) needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainOptions {
    /// The network, whose genesis block every endpoint must have.
    pub network: Network,
    /// The nodes, in the order in which they are tried.
    pub endpoints: Vec<Endpoint>,
    /// Reaching one endpoint: name, TCP, TLS and WebSocket.
    pub connect_timeout: Duration,
    /// One answer.
    pub request_timeout: Duration,
    /// One operation with all its requests, pauses and further attempts.
    pub operation_timeout: Duration,
    /// Silence of the chain after which a subscription counts as lost. Ten blocks of 12 s.
    pub silence_timeout: Duration,
    /// How often and how soon an operation is tried again, each time at the next endpoint.
    pub retry: RetryPolicy,
    /// `None` for nodes of one's own.
    pub pacing: Option<Pacing>,
    /// Blocks for which a signed call stays valid: at least 64, since 32 of the quarter-second
    /// blocks of a fast local network are over before a slow line has delivered it.
    pub mortality_blocks: u64,
}

impl ChainOptions {
    /// The usual options. Without endpoints the network's own is used. Endpoints that are all near
    /// ([`Endpoint::is_near`]) are taken for one's own and asked without pauses.
    ///
    /// # Errors
    /// [`InvalidOptions`]: an address that is none, or that is far and unencrypted without
    /// `allow_plaintext`.
    pub fn new<T: AsRef<str>>(
        network: Network,
        endpoints: &[T],
        allow_plaintext: bool,
    ) -> Result<Self, InvalidOptions> {
        let mut parsed = Vec::with_capacity(endpoints.len().max(1));
        for text in endpoints {
            let endpoint = Endpoint::parse(text.as_ref())?;
            if !(endpoint.is_encrypted() || endpoint.is_near() || allow_plaintext) {
                return Err(InvalidOptions::Plaintext { endpoint });
            }
            // One that is named twice would be tried twice.
            if !parsed.contains(&endpoint) {
                parsed.push(endpoint);
            }
        }
        if parsed.is_empty() {
            parsed.push(Endpoint::parse(network.default_endpoint())?);
        }
        if parsed.len() > MAX_ENDPOINTS {
            return Err(InvalidOptions::TooMany { count: parsed.len() });
        }
        let own = parsed.iter().all(Endpoint::is_near);
        Ok(Self {
            network,
            endpoints: parsed,
            connect_timeout: Duration::from_secs(15),
            request_timeout: Duration::from_secs(30),
            operation_timeout: Duration::from_secs(120),
            silence_timeout: Duration::from_secs(120),
            retry: RetryPolicy {
                attempts: 3,
                pause: Duration::from_millis(500),
                pause_max: Duration::from_secs(10),
            },
            pacing: if own { None } else { Some(Pacing::POLITE) },
            mortality_blocks: 64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(endpoints: &[&str]) -> Result<ChainOptions, InvalidOptions> {
        ChainOptions::new(Network::Finney, endpoints, false)
    }

    #[test]
    fn without_endpoints_the_networks_own_is_asked_politely() {
        for network in Network::ALL {
            let options = ChainOptions::new::<&str>(network, &[], false).unwrap();
            assert_eq!(options.endpoints.len(), 1);
            assert_eq!(options.pacing.is_some(), network.is_public(), "{network}");
            assert_eq!(Network::named(network.name()), Some(network));
        }
    }

    #[test]
    fn a_far_endpoint_must_be_encrypted() {
        for far in ["ws://node.example.com:9944", "ws://192.0.2.1", "ws://[2001:db8::1]:9944"] {
            assert!(matches!(options(&[far]), Err(InvalidOptions::Plaintext { .. })), "{far}");
            assert!(ChainOptions::new(Network::Finney, &[far], true).unwrap().pacing.is_some());
        }
        for near in ["ws://localhost:9944", "ws://10.0.0.7", "ws://[::1]:9944", "ws://subtensor"] {
            assert_eq!(options(&[near]).unwrap().pacing, None, "{near}");
        }
        assert!(options(&["wss://node.example.com"]).unwrap().pacing.is_some());
        assert!(options(&["ws://10.0.0.7", "wss://node.example.com"]).unwrap().pacing.is_some());
    }

    #[test]
    fn what_is_no_endpoint_is_refused_without_repeating_it() {
        let long = vec!["ws://10.0.0.1"; 2];
        assert_eq!(options(&long).unwrap().endpoints.len(), 1);
        let many: Vec<String> = (0..17).map(|n| format!("ws://10.0.0.{n}")).collect();
        let refused = ChainOptions::new(Network::Local, &many, false);
        assert_eq!(refused, Err(InvalidOptions::TooMany { count: 17 }));
        for text in ["", "secret", "https://node.example.com/secret", "wss://:secret@/", "ws://"] {
            let error = options(&[text]).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn secrets_in_an_endpoint_are_not_shown() {
        let text = "wss://user:secret@node.example.com/secret?key=secret";
        let endpoint = Endpoint::parse(text).unwrap();
        assert_eq!(endpoint.to_string(), "wss://node.example.com:443");
        assert_eq!(format!("{endpoint:?}"), "Endpoint(wss://node.example.com:443)");
        assert_eq!(Endpoint::parse("ws://h:9944").unwrap().to_string(), "ws://h:9944");
    }

    #[test]
    fn only_finney_has_its_genesis() {
        for network in Network::ALL {
            let finney = network == Network::Finney;
            assert_eq!(network.may_have_genesis(&FINNEY_GENESIS), finney);
            assert_eq!(network.may_have_genesis(&[7; 32]), !finney);
        }
    }
}
