//! From the text of `orchestrator.toml` to [`Config`], collecting every error on the way.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::keys::{Document, Keys, Variables};
use super::{
    AuthMethod, BittensorConfig, Config, DatabaseConfig, DatabaseUrl, ExecutorManagement,
    LogFormat, LogLevel, LoggingConfig, MetricsConfig, Network, OperatorApiConfig, Problems,
    PrometheusConfig, RateLimit, Reading, SecurityConfig, ServerConfig, SshConfig,
    SshSessionConfig, Strategy, ValidatorAssignment, ValidatorAuth, ValidatorComms, alerts,
    executors, sweep, toml_text, validators,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const EVERYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

use crate::hotkey::Hotkey;

/// Longer than any request or login takes, and short enough that a mistyped unit is noticed.
const WAIT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);

pub(super) fn read(
    path: &Path,
    source: &str,
    variables: Variables<'_>,
    migrating: bool,
) -> Reading {
    let tree = match toml_text::parse(path, source) {
        Ok(tree) => tree,
        Err(errors) => {
            let config = Config::default();
            return Reading {
                config,
                entries: Vec::new(),
                warnings: Vec::new(),
                errors: Some(errors),
            };
        }
    };
    let document = Document::new(source, variables);
    let top = document.top(tree.get_ref());
    let config = config(&top, migrating);
    top.ignored("advertised_addresses", "`bittensor.external_ip` and `axon_port` are announced");
    top.refused(
        "remote_executor_deployment",
        "hosts are declared in the fleet file and deployed to by `orchestrator deploy`",
        "write the hosts with `orchestrator config migrate miner.toml`, and remove the section",
    );
    top.refused(
        "axon",
        "the axon's port and address are `axon_port` and `external_ip` of [bittensor]",
        "move them there, and remove the section",
    );
    top.finish();
    let problems: Problems = document.problems.take();
    let entries = document.entries.take();
    Reading {
        config,
        entries,
        warnings: problems.located_warnings(source),
        errors: problems.located_errors(path, source),
    }
}

fn config(top: &Keys<'_, '_>, migrating: bool) -> Config {
    Config {
        server: top.table("server", "[server]", "server.", server),
        operator_api: top.table("operator_api", "[operator_api]", "operator_api.", operator_api),
        database: top.table("database", "[database]", "database.", database),
        bittensor: top.table("bittensor", "[bittensor]", "bittensor.", bittensor),
        executor_management: top.table(
            "executor_management",
            "[executor_management]",
            "executor_management.",
            |keys| executor_management(keys, migrating),
        ),
        validator_comms: top.table(
            "validator_comms",
            "[validator_comms]",
            "validator_comms.",
            validator_comms,
        ),
        security: top.table("security", "[security]", "security.", security),
        logging: top.table("logging", "[logging]", "logging.", logging),
        metrics: top.table("metrics", "[metrics]", "metrics.", metrics),
        ssh_session: top.table("ssh_session", "[ssh_session]", "ssh_session.", ssh_session),
        validator_assignment: top.table(
            "validator_assignment",
            "[validator_assignment]",
            "validator_assignment.",
            validator_assignment,
        ),
        validator_challenges: top.table(
            "validator_challenges",
            "[validator_challenges]",
            "validator_challenges.",
            validators::challenges,
        ),
        validator_containers: top.table(
            "validator_containers",
            "[validator_containers]",
            "validator_containers.",
            validators::containers,
        ),
        ssh: top.table("ssh", "[ssh]", "ssh.", ssh),
        sweep: top.table("sweep", "[sweep]", "sweep.", sweep::read),
        alerts: top.table("alerts", "[alerts]", "alerts.", alerts::read),
    }
}

/// An IP address to listen on.
fn address(keys: &Keys<'_, '_>, key: &'static str, default: IpAddr) -> IpAddr {
    let parse = |text: &str| {
        let name = if text == "localhost" { "127.0.0.1" } else { text };
        name.parse().map_err(|_| format!("{text:?} is not an IP address to listen on"))
    };
    keys.parsed(key, &default.to_string(), false, parse, || default)
}

fn server(keys: &Keys<'_, '_>) -> ServerConfig {
    let config = ServerConfig {
        host: address(keys, "host", EVERYWHERE),
        port: keys.count("port", 0..=65_535, 8092),
        max_connections: keys.count("max_connections", 1..=65_536, 1000),
        request_timeout: keys.seconds("request_timeout", WAIT, SECOND * 30),
    };
    keys.ignored("keep_alive_timeout", "a connection without a request ends with request_timeout");
    keys.ignored("advertised_host", "`bittensor.external_ip` is announced");
    keys.ignored("advertised_port", "`bittensor.axon_port` is announced");
    keys.ignored("advertised_tls", "whether there is TLS follows from `security.cert_path`");
    keys.only("tls_enabled", false, "TLS is on when [security] has `cert_path` and `key_path`");
    keys.refused(
        "tls_config",
        "it is in [security]",
        "move it to `cert_path` and `key_path` there",
    );
    config
}

fn operator_api(keys: &Keys<'_, '_>) -> OperatorApiConfig {
    OperatorApiConfig {
        host: address(keys, "host", LOOPBACK),
        port: keys.count("port", 0..=65_535, 8080),
        require_token: keys.flag("require_token", false),
        max_event_streams: keys.count("max_event_streams", 0..=1024, 32),
    }
}

fn database(keys: &Keys<'_, '_>) -> DatabaseConfig {
    let default = DatabaseUrl::default().to_string();
    // A URL may hold a password.
    let url = keys.parsed(
        "url",
        &default,
        true,
        |text| DatabaseUrl::parse(text).map_err(|error| error.to_string()),
        DatabaseUrl::default,
    );
    let life = SECOND..=DAY * 30;
    let config = DatabaseConfig {
        url,
        max_connections: keys.count("max_connections", 1..=100, 5),
        min_connections: keys.count("min_connections", 0..=100, 1),
        connect_timeout: keys.time("connect_timeout", WAIT, SECOND * 30),
        idle_timeout: keys.time("idle_timeout", life.clone(), SECOND * 600),
        max_lifetime: keys.time("max_lifetime", life, HOUR),
        run_migrations: keys.flag("run_migrations", true),
    };
    if config.min_connections > config.max_connections {
        let span = keys.section().map(|section| section.key_span("min_connections"));
        let message = "`min_connections` is larger than `max_connections`";
        keys.problems().error(span.unwrap_or_default(), message);
    }
    keys.refused("ssl_config", "the database is a local file", "remove it");
    config
}

fn bittensor(keys: &Keys<'_, '_>) -> BittensorConfig {
    let networks =
        [("finney", Network::Finney), ("test", Network::Test), ("local", Network::Local)];
    let wallet_name = keys.text("wallet_name", "miner");
    let hotkey_name = keys.text("hotkey_name", "default");
    let wallet_path = PathBuf::from(keys.text("wallet_path", "~/.bittensor/wallets"));
    let network = keys.choice("network", &networks, "finney", Network::Finney);
    let (netuid, endpoint) = match network {
        Network::Finney => (39, "wss://entrypoint-finney.opentensor.ai:443"),
        Network::Test => (387, "wss://test.finney.opentensor.ai:443"),
        Network::Local => (39, "ws://127.0.0.1:9944"),
    };
    for (key, name) in [("wallet_name", &wallet_name), ("hotkey_name", &hotkey_name)] {
        // Each becomes one part of a path.
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            let span = keys.section().map(|section| section.key_span(key)).unwrap_or_default();
            keys.problems().error(span, format!("`{key}` is the name of a folder or file"));
        }
    }
    let config = BittensorConfig {
        wallet_name,
        hotkey_name,
        wallet_path,
        network,
        netuid: keys.count("netuid", 1..=65_535, netuid),
        chain_endpoints: chain_endpoints(keys, endpoint),
        axon_port: keys.count("axon_port", 0..=65_535, 8091),
        external_ip: external_ip(keys),
        allow_private_ip: keys.flag("allow_private_ip", false),
        skip_registration: keys.flag("skip_registration", false),
    };
    keys.ignored("coldkey_name", "the coldkey is never opened");
    keys.ignored("uid", "the UID is looked up by the hotkey");
    keys.ignored("weight_interval_secs", "weights are set by validators");
    keys.ignored("max_weight_uids", "weights are set by validators");
    config
}

fn chain_endpoints(keys: &Keys<'_, '_>, default: &str) -> Vec<String> {
    let endpoints = keys.texts("chain_endpoint", &[default]);
    let endpoints: Vec<String> = endpoints.into_iter().filter(|text| !text.is_empty()).collect();
    for endpoint in &endpoints {
        if !endpoint.starts_with("wss://") && !endpoint.starts_with("ws://") {
            let span = keys.section().map(|section| section.key_span("chain_endpoint"));
            let message = "`chain_endpoint` must begin with wss:// or ws://";
            keys.problems().error(span.unwrap_or_default(), message);
        }
    }
    if endpoints.is_empty() { vec![default.to_owned()] } else { endpoints }
}

fn external_ip(keys: &Keys<'_, '_>) -> Option<IpAddr> {
    let parse = |text: &str| match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| format!("{text:?} is not an IP address")),
    };
    keys.parsed("external_ip", "", false, parse, || None)
}

fn executor_management(keys: &Keys<'_, '_>, migrating: bool) -> ExecutorManagement {
    ExecutorManagement {
        // One core drives about this many handshakes a second.
        parallel: keys.count("parallel", 1..=1024, 64),
        executors: executors::read(keys, migrating),
        health_check_interval: keys.time("health_check_interval", SECOND..=DAY, SECOND * 60),
        // Longer than a host under load takes to log in and ask its driver; three connect attempts
        // to one that does not answer fit.
        health_check_timeout: keys.time("health_check_timeout", SECOND..=SECOND * 600, SECOND * 30),
        max_retry_attempts: keys.count("max_retry_attempts", 1..=100, 3),
        auto_recovery: keys.flag("auto_recovery", true),
    }
}

fn validator_comms(keys: &Keys<'_, '_>) -> ValidatorComms {
    let config = ValidatorComms {
        request_timeout: keys.seconds("request_timeout", WAIT, SECOND * 30),
        stream_timeout: keys.time("stream_timeout", SECOND..=SECOND * 600, SECOND * 300),
        max_concurrent_sessions: keys.count("max_concurrent_sessions", 1..=65_536, 100),
        rate_limit: keys.table(
            "rate_limit",
            "[validator_comms.rate_limit]",
            "validator_comms.rate_limit.",
            |keys| {
                let limit = RateLimit {
                    enabled: keys.flag("enabled", true),
                    requests_per_second: keys.count("requests_per_second", 1..=100_000, 10),
                    burst_capacity: keys.count("burst_capacity", 1..=100_000, 20),
                };
                keys.ignored("window_duration", "a rate and a burst need no window");
                limit
            },
        ),
        auth: keys.table("auth", "[validator_comms.auth]", "validator_comms.auth.", auth),
    };
    keys.ignored("session_timeout", "`ssh_session.max_session_duration` limits a grant");
    keys.refused("tls", "it is in [security]", "move it to `cert_path` and `key_path` there");
    config
}

fn auth(keys: &Keys<'_, '_>) -> ValidatorAuth {
    const SIGNED: &str = "a validator signs with its hotkey, if only to open a session";
    let methods = [("bittensor_signature", AuthMethod::Signature), ("jwt", AuthMethod::Jwt)];
    let auth = ValidatorAuth {
        method: keys.choice("method", &methods, "bittensor_signature", AuthMethod::Signature),
        token_expiration: keys.seconds("token_expiration", SECOND * 60..=DAY, HOUR),
    };
    keys.only("enabled", true, SIGNED);
    keys.ignored("token_validation", "a token is always validated");
    let place = "the secret is `jwt_secret_file` of [security]";
    keys.refused("jwt_secret", "there is one secret for all tokens", place);
    auth
}

fn security(keys: &Keys<'_, '_>) -> SecurityConfig {
    let config = SecurityConfig {
        enable_mtls: keys.flag("enable_mtls", false),
        cert_path: keys.path("cert_path"),
        key_path: keys.path("key_path"),
        ca_cert_path: keys.path("ca_cert_path"),
        jwt_secret: keys.secret("jwt_secret", "jwt_secret_file", "ORCHESTRATOR_JWT_SECRET"),
        token_expiration: keys.seconds("token_expiration", SECOND * 60..=DAY * 366, HOUR),
        allowed_validators: hotkeys(keys),
    };
    keys.only("verify_signatures", true, "a request without a valid signature is never answered");
    let missing = match &config {
        SecurityConfig { cert_path: Some(_), key_path: None, .. } => Some("`key_path`"),
        SecurityConfig { cert_path: None, key_path: Some(_), .. } => Some("`cert_path`"),
        SecurityConfig { enable_mtls: true, cert_path: None, .. } => Some("`cert_path`"),
        SecurityConfig { enable_mtls: true, ca_cert_path: None, .. } => Some("`ca_cert_path`"),
        _ => None,
    };
    if let Some(missing) = missing {
        let span = keys.section().map(|section| section.span.clone()).unwrap_or_default();
        keys.problems().error(span, format!("[security] asks for TLS and has no {missing}"));
    }
    config
}

fn hotkeys(keys: &Keys<'_, '_>) -> Vec<String> {
    let texts = keys.texts("allowed_validators", &[]);
    for text in &texts {
        if let Err(error) = Hotkey::parse(text) {
            let span = keys.section().map(|section| section.key_span("allowed_validators"));
            let message = format!("`allowed_validators`: {text:?}: {error}");
            keys.problems().error(span.unwrap_or_default(), message);
        }
    }
    texts
}

fn logging(keys: &Keys<'_, '_>) -> LoggingConfig {
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    let formats = [
        ("pretty", LogFormat::Pretty),
        ("compact", LogFormat::Compact),
        ("json", LogFormat::Json),
        // What this program called it before.
        ("text", LogFormat::Pretty),
    ];
    let config = LoggingConfig {
        level: keys.choice("level", &levels, "info", LogLevel::Info),
        format: keys.choice("format", &formats, "pretty", LogFormat::Pretty),
        stdout: keys.flag("stdout", true),
        file: keys.path("file"),
        max_file_size: keys.count("max_file_size", 4096..=1 << 40, 100 * 1024 * 1024),
        max_files: keys.count("max_files", 1..=1000, 5),
        targets: keys.words("targets"),
    };
    for (target, level) in &config.targets {
        let named = levels.iter().any(|(name, _)| name == level) || level == "off";
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
        if !named || target.is_empty() || !target.chars().all(plain) {
            let span = keys.section().map(|section| section.key_span("targets"));
            let message = format!("`targets`: {target:?} = {level:?} is no module with a level");
            keys.problems().error(span.unwrap_or_default(), message);
        }
    }
    if !config.stdout && config.file.is_none() {
        let span = keys.section().map(|section| section.key_span("stdout")).unwrap_or_default();
        keys.problems().error(span, "`stdout` is false and there is no `file`: nothing is logged");
    }
    config
}

fn metrics(keys: &Keys<'_, '_>) -> MetricsConfig {
    let mut config = MetricsConfig {
        enabled: keys.flag("enabled", true),
        collection_interval: keys.time("collection_interval", SECOND..=DAY, SECOND * 30),
        default_labels: keys.words("default_labels"),
        prometheus: None,
    };
    for label in config.default_labels.keys() {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let first = label.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
        if !first || !label.chars().all(plain) {
            let span = keys.section().map(|section| section.key_span("default_labels"));
            let message = format!("`default_labels`: {label:?} is no label name");
            keys.problems().error(span.unwrap_or_default(), message);
        }
    }
    keys.ignored("retention_period", "metrics are kept by the Prometheus that reads them");
    config.prometheus =
        keys.table("prometheus", "[metrics.prometheus]", "metrics.prometheus.", |keys| {
            let enabled = keys.flag("enabled", keys.is_present());
            let config = PrometheusConfig {
                host: address(keys, "host", LOOPBACK),
                port: keys.count("port", 0..=65_535, 9091),
                path: keys.parsed("path", "/metrics", false, metrics_path, || "/metrics".into()),
            };
            enabled.then_some(config)
        });
    config
}

fn metrics_path(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
    let good = text.len() > 1 && text.starts_with('/') && text.chars().all(plain);
    if good { Ok(text.to_owned()) } else { Err(format!("{text:?} is no path such as /metrics")) }
}

fn ssh_session(keys: &Keys<'_, '_>) -> SshSessionConfig {
    const HERE: &str = "[ssh] has the limits of every connection";
    let duration = SECOND * 60..=DAY * 7;
    let config = SshSessionConfig {
        miner_executor_key_path: keys.optional("miner_executor_key_path"),
        default_executor_username: keys.optional("default_executor_username"),
        enable_automated_sessions: keys.flag("enable_automated_sessions", true),
        default_session_duration: keys.seconds("default_session_duration", duration.clone(), HOUR),
        max_session_duration: keys.seconds("max_session_duration", duration, HOUR),
        max_sessions_per_validator: keys.count("max_sessions_per_validator", 1..=10_000, 5),
        max_sessions_per_host: keys.count("max_sessions_per_host", 1..=1_000, 20),
        session_rate_limit: keys.count("session_rate_limit", 1..=100_000, 20),
        rate_limit_window: keys.time("rate_limit_window", SECOND..=DAY * 7, HOUR),
        key_cleanup_interval: keys.time("key_cleanup_interval", SECOND..=DAY, SECOND * 300),
        authorized_keys_file: keys.parsed(
            "authorized_keys_file",
            "~/.ssh/authorized_keys",
            false,
            remote_path,
            || "~/.ssh/authorized_keys".into(),
        ),
    };
    if config.default_session_duration > config.max_session_duration && keys.is_present() {
        let span = keys.section().map(|section| section.span.clone()).unwrap_or_default();
        let message = "`default_session_duration` is longer than `max_session_duration`";
        keys.problems().error(span, message);
    }
    keys.ignored("session_cleanup_interval", "`key_cleanup_interval` is for both");
    keys.ignored("audit_log_path", "grants are in the audit chain: `orchestrator audit export`");
    keys.only("enable_audit_log", true, "grants are always in the audit chain");
    keys.only("enable_session_expiration", true, "every grant expires");
    keys.only("enable_key_cleanup", true, "the lines of expired grants are always removed");
    for key in
        ["ssh_connection_timeout", "ssh_command_timeout", "ssh_retry_attempts", "ssh_retry_delay"]
    {
        keys.ignored(key, HERE);
    }
    config
}

/// A file on hosts: absolute, or below the login's home.
fn remote_path(text: &str) -> Result<String, String> {
    let rooted = text.starts_with('/') || text.starts_with("~/");
    if rooted && !text.ends_with('/') && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is no file: begin with / or ~/"))
    }
}

fn hotkey(text: &str) -> Result<Option<String>, String> {
    match text {
        "" => Ok(None),
        text => Hotkey::parse(text)
            .map(|_| Some(text.to_owned()))
            .map_err(|error| format!("{text:?}: {error}")),
    }
}

fn validator_assignment(keys: &Keys<'_, '_>) -> ValidatorAssignment {
    let strategies = [
        ("highest_stake", Strategy::HighestStake),
        ("round_robin", Strategy::RoundRobin),
        ("fixed", Strategy::Fixed),
        ("fixed_assignment", Strategy::Fixed),
    ];
    let config = ValidatorAssignment {
        enabled: keys.flag("enabled", true),
        strategy: keys.choice("strategy", &strategies, "highest_stake", Strategy::HighestStake),
        min_stake_rao: keys.tao("min_stake_threshold", 6000),
        validator_hotkey: keys.parsed("validator_hotkey", "", false, hotkey, || None),
    };
    if config.strategy == Strategy::Fixed && config.validator_hotkey.is_none() {
        let span = keys.section().map(|section| section.key_span("strategy")).unwrap_or_default();
        keys.problems().error(span, "`strategy` is fixed and there is no `validator_hotkey`");
    }
    config
}

// The arguments for these values stand with `ssh::Limits`, which they end up in, and for operators
// in config/orchestrator.toml.
fn ssh(keys: &Keys<'_, '_>) -> SshConfig {
    SshConfig {
        resolve_timeout: keys.time("resolve_timeout", WAIT, SECOND * 5),
        connect_timeout: keys.time("connect_timeout", WAIT, SECOND * 5),
        handshake_timeout: keys.time("handshake_timeout", WAIT, SECOND * 10),
        auth_timeout: keys.time("auth_timeout", WAIT, SECOND * 10),
        keepalive_interval: keys.time("keepalive_interval", SECOND..=HOUR, SECOND * 15),
        connect_attempts: keys.count("connect_attempts", 1..=20, 4),
        max_unauthenticated_per_route: keys.count("max_unauthenticated_per_route", 1..=1024, 8),
    }
}
