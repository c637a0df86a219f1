//! The sections of the configuration: what each key means once it is read. The manual,
//! config/orchestrator.toml, says what each is for and why its default is what it is.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{DatabaseUrl, Executor, SecretSource};

/// `[server]`: the service for validators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// The address that it listens on.
    pub host: IpAddr,
    /// A second port beside `bittensor.axon_port`; 0 is none.
    pub port: u16,
    /// Open connections at a time.
    pub max_connections: usize,
    /// From a request's first byte to the last of its answer.
    pub request_timeout: Duration,
}

/// `[operator_api]`: what the operator's tools and browser talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorApiConfig {
    /// The address that it listens on.
    pub host: IpAddr,
    /// Its port.
    pub port: u16,
    /// Whether every request needs a token, also on loopback.
    pub require_token: bool,
    /// Open event streams at a time.
    pub max_event_streams: usize,
}

/// `[database]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseConfig {
    /// Where the database is; [`DatabaseUrl::sqlite_path`] makes a path of it.
    pub url: DatabaseUrl,
    /// Connections at most.
    pub max_connections: u32,
    /// Connections that are kept open.
    pub min_connections: u32,
    /// Waiting for a free connection or for another process's write.
    pub connect_timeout: Duration,
    /// After how long an unused connection is closed.
    pub idle_timeout: Duration,
    /// After how long any connection is replaced.
    pub max_lifetime: Duration,
    /// Whether tables of an older release are brought up to date.
    pub run_migrations: bool,
}

/// A network with a subtensor chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The main network.
    Finney,
    /// The test network.
    Test,
    /// A node on this machine.
    Local,
}

/// `[bittensor]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BittensorConfig {
    /// Folder of the wallet.
    pub wallet_name: String,
    /// Name of the hotkey in it.
    pub hotkey_name: String,
    /// Folder of all wallets, as written.
    pub wallet_path: PathBuf,
    /// The network.
    pub network: Network,
    /// The subnet.
    pub netuid: u16,
    /// Nodes of the chain, the preferred one first; never empty.
    pub chain_endpoints: Vec<String>,
    /// The port that validators are told, and that is listened on.
    pub axon_port: u16,
    /// The address that validators are told; `None` until the operator says it.
    pub external_ip: Option<IpAddr>,
    /// Whether an address that only a private network reaches may be announced.
    pub allow_private_ip: bool,
    /// Whether the chain is left alone.
    pub skip_registration: bool,
}

/// `[executor_management]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutorManagement {
    /// Hosts worked on at a time.
    pub parallel: usize,
    /// Hosts that this file declares.
    pub executors: Vec<Executor>,
    /// From one sweep to the next.
    pub health_check_interval: Duration,
    /// How long a sweep's probe of one host may take.
    pub health_check_timeout: Duration,
    /// Sweeps in a row that must see a passing trouble before it counts.
    pub max_retry_attempts: u32,
    /// Whether a sweep mends what is safe to mend.
    pub auto_recovery: bool,
}

/// `[validator_comms]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatorComms {
    /// From a request's first byte to the last of its answer.
    pub request_timeout: Duration,
    /// The same for one whose answer comes in lines.
    pub stream_timeout: Duration,
    /// Requests that are worked on at a time.
    pub max_concurrent_sessions: usize,
    /// `[validator_comms.rate_limit]`.
    pub rate_limit: RateLimit,
    /// `[validator_comms.auth]`.
    pub auth: ValidatorAuth,
}

/// How a validator shows who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    /// It signs every request.
    Signature,
    /// It signs a request that opens a session, and sends the session's token with others.
    Jwt,
}

/// `[validator_comms.auth]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatorAuth {
    /// How.
    pub method: AuthMethod,
    /// How long a session holds at most.
    pub token_expiration: Duration,
}

/// `[validator_comms.rate_limit]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// Whether requests are limited at all.
    pub enabled: bool,
    /// Requests a second of one hotkey, and of one address.
    pub requests_per_second: u32,
    /// Requests at once.
    pub burst_capacity: u32,
}

/// `[security]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityConfig {
    /// Whether validators must show a client certificate.
    pub enable_mtls: bool,
    /// The server's certificate chain (PEM).
    pub cert_path: Option<PathBuf>,
    /// Its private key (PEM).
    pub key_path: Option<PathBuf>,
    /// The authority of client certificates (PEM).
    pub ca_cert_path: Option<PathBuf>,
    /// What tokens of the operator API are signed with.
    pub jwt_secret: Option<SecretSource>,
    /// How long such a token is good for.
    pub token_expiration: Duration,
    /// Hotkeys that are let in; empty is every one that the chain vouches for.
    pub allowed_validators: Vec<String>,
}

/// `[logging]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggingConfig {
    /// What is logged.
    pub level: LogLevel,
    /// How it looks.
    pub format: LogFormat,
    /// Whether it goes to standard error.
    pub stdout: bool,
    /// A file that it goes to, too.
    pub file: Option<PathBuf>,
    /// The size at which that file is set aside and begun anew, in bytes.
    pub max_file_size: u64,
    /// How many files are kept, the current one included.
    pub max_files: u32,
    /// Levels of single modules.
    pub targets: BTreeMap<String, String>,
}

/// The least severe level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the words of every logger")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How a log record looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Pretty,
    /// For people, without the module.
    Compact,
    /// One JSON object a line.
    Json,
}

/// `[metrics]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Whether there are metrics.
    pub enabled: bool,
    /// How old the numbers of a scrape may be.
    pub collection_interval: Duration,
    /// Labels of every metric.
    pub default_labels: BTreeMap<String, String>,
    /// `[metrics.prometheus]`: a listener of its own; `None` without.
    pub prometheus: Option<PrometheusConfig>,
}

/// `[metrics.prometheus]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrometheusConfig {
    /// The address that it listens on.
    pub host: IpAddr,
    /// Its port.
    pub port: u16,
    /// Where the metrics are.
    pub path: String,
}

/// `[ssh_session]`: SSH grants to validators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSessionConfig {
    /// The private key for executors that name none, as written.
    pub miner_executor_key_path: Option<String>,
    /// The login name for executors that name none.
    pub default_executor_username: Option<String>,
    /// Whether validators are given grants.
    pub enable_automated_sessions: bool,
    /// How long a grant holds when the validator does not say.
    pub default_session_duration: Duration,
    /// How long it may hold.
    pub max_session_duration: Duration,
    /// Live grants of one validator.
    pub max_sessions_per_validator: u32,
    /// Live grants on one host.
    pub max_sessions_per_host: u32,
    /// Grants of one validator in one window.
    pub session_rate_limit: u32,
    /// That window.
    pub rate_limit_window: Duration,
    /// From one look after expired grants to the next.
    pub key_cleanup_interval: Duration,
    /// The file on hosts, as sshd there is configured; `~` is the login's home.
    pub authorized_keys_file: String,
}

/// Which validators get which hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// All hosts to one validator: the named one, or the one with the most stake.
    HighestStake,
    /// The hosts in turn to every validator that qualifies.
    RoundRobin,
    /// All hosts to the named validator and to nobody else.
    Fixed,
}

/// `[validator_assignment]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatorAssignment {
    /// Whether hosts are assigned; without, every validator may have every host.
    pub enabled: bool,
    /// How.
    pub strategy: Strategy,
    /// The least stake of a validator, in rao (1e-9 TAO).
    pub min_stake_rao: u64,
    /// The preferred validator's hotkey.
    pub validator_hotkey: Option<String>,
}

/// `[ssh]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshConfig {
    /// Resolving a name.
    pub resolve_timeout: Duration,
    /// One TCP connect.
    pub connect_timeout: Duration,
    /// Greeting and key exchange.
    pub handshake_timeout: Duration,
    /// Authentication.
    pub auth_timeout: Duration,
    /// Silence before a keepalive is sent.
    pub keepalive_interval: Duration,
    /// Attempts before a transient failure counts.
    pub connect_attempts: usize,
    /// Unauthenticated connects at a time per server or jump.
    pub max_unauthenticated_per_route: usize,
}
