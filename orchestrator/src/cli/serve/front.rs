//! The service for validators within `serve`: wallet, chain, listeners.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::api::Health;
use crate::axon::{
    self, Admission as _, AxonContext, AxonLimits, Denied, Rate, Rates, Sessions, TlsFiles,
};
use crate::chain::{
    Announced, AnnouncementOptions, AxonAddress, ChainClient, ChainOptions, Network,
};
use crate::cli::app::App;
use crate::cli::chain::{self, ChainKey};
use crate::cli::config::findings;
use crate::cli::failure::Failure;
use crate::cli::{models, verify, wallet};
use crate::config::{self, AuthMethod, Config, SECRET_HINT, Source};
use crate::error_chain::causes;
use crate::fleet::Fleet;
use crate::fleet::sweep::{deliver, queue_notice};
use crate::hotkey::Hotkey;
use crate::metagraph_cache::MetagraphCache;
use crate::runner::Artifact;
use crate::service::{ChallengeParts, Challenges, Containers, Doorkeeper, Validators};
use crate::signing_key::SigningKey;
use crate::store::{SessionFilter, Store};
use crate::token::session::SessionKey;
use crate::wallet::{HotkeyPair, WalletPlace};

/// From one reading of the metagraph to the next: stakes change by the hour, and public nodes want
/// to be asked rarely.
const METAGRAPH_INTERVAL: Duration = Duration::from_secs(600);

/// A chain that was not read for this long is told of: six readings that failed.
const OUTAGE: Duration = Duration::from_secs(3600);

/// From a failed announcement to the next attempt: what passes soon is tried again soon, twice as late
/// each time.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(5);

/// No later than this: the chain takes one every ten minutes or so.
const ANNOUNCE_AT_LEAST: Duration = Duration::from_secs(600);

/// Everything that the service for validators is made of.
pub struct Front {
    listeners: Vec<(TcpListener, SocketAddr)>,
    context: AxonContext,
    validators: Validators,
    challenges: Option<Challenges>,
    containers: Option<Containers>,
    metagraph: Option<MetagraphCache>,
    announcement: Option<(ChainClient, AnnouncementOptions)>,
    door: Doorkeeper,
}

/// What of a running front can be changed.
#[derive(Clone)]
pub struct Dials {
    door: Doorkeeper,
    rates: Rates,
}

impl Dials {
    /// Takes over who is let in, and how often. Sessions of those who are not on the list any more
    /// end: they are not taken up again by another list.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn set(&self, app: &App<'_>, config: &Config) -> Result<(), Failure> {
        self.door.allow(allowed(config));
        self.rates.set(rate(config), rate(config));
        let store = app.store().await?;
        let live = SessionFilter { live: true, ..SessionFilter::default() };
        for session in store.sessions(&live, u32::MAX).await? {
            let known = Hotkey::parse(&session.validator);
            if known.is_ok_and(|hotkey| self.door.admit(&hotkey) != Err(Denied::NotAllowed)) {
                continue;
            }
            let one = SessionFilter { id: Some(session.id), ..live.clone() };
            store.end_sessions(&app.actor, &one).await?;
        }
        Ok(())
    }
}

impl Front {
    /// Opens the wallet and the listeners. `None`, with a word why, where there is no wallet and
    /// none was asked for: then this is no miner.
    pub async fn prepare(
        app: &App<'_>,
        fleet: watch::Receiver<Option<Arc<Fleet>>>,
        artifact: &Arc<Artifact>,
    ) -> Result<Option<Self>, Failure> {
        let Some(pair) = pair(app)? else { return Ok(None) };
        let config = &app.config;
        let store = app.store().await?.clone();
        let chain = client(app)?;
        let metagraph = match &chain {
            Some(chain) => {
                let netuid = config.bittensor.netuid;
                let opened =
                    MetagraphCache::open(store.clone(), chain.clone(), netuid, &app.actor).await;
                Some(opened?)
            }
            None => None,
        };
        let allowed = allowed(config);
        if chain.is_none() {
            let whom = match allowed.len() {
                0 => "nobody is let in: `allowed_validators` is empty".to_owned(),
                count => format!("only the {count} hotkeys of `allowed_validators` are let in"),
            };
            app.report.note(&format!("no chain, as `skip_registration` says: {whom}"));
        }
        let min_stake = config.validator_assignment.min_stake_rao;
        let door = Doorkeeper::new(allowed, metagraph.clone(), min_stake);
        let validators = Validators::new(
            store.clone(),
            fleet,
            door.clone(),
            config.validator_assignment.clone(),
            config.ssh_session.clone(),
        );
        let mut ports = vec![(config.bittensor.axon_port, "bittensor.axon_port")];
        if config.server.port != 0 && config.server.port != config.bittensor.axon_port {
            ports.push((config.server.port, "server.port"));
        }
        let mut listeners = Vec::new();
        for (port, key) in ports {
            listeners.push(super::bind(config.server.host, port, key).await?);
        }
        let sessions = sessions(app, &store, pair.hotkey())?;
        let challenges = challenges(app, &validators, artifact, pair.hotkey())?;
        let mut routes = validators.routes();
        if let Some(challenges) = &challenges {
            routes = challenges.routes(routes);
        }
        let containers = config.validator_containers.enabled.then(|| {
            let own = config.validator_containers.clone();
            Containers::new(validators.clone(), own, Arc::clone(artifact), app.cancel.clone())
        });
        if let Some(containers) = &containers {
            routes = containers.routes(routes);
        }
        let context = AxonContext {
            pair: pair.clone(),
            store,
            admission: Arc::new(door.clone()),
            routes,
            limits: limits(config),
            rates: Rates::new(rate(config), rate(config)),
            sessions,
            tls: tls(app),
        };
        let port = listeners.first().map_or(config.bittensor.axon_port, |(_, at)| at.port());
        let announcement = announcement(app, chain, port)?;
        Ok(Some(Self {
            listeners,
            context,
            validators,
            challenges,
            containers,
            metagraph,
            announcement,
            door,
        }))
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<String> {
        self.listeners.iter().map(|(_, address)| address.to_string()).collect()
    }

    /// What can be changed while it runs.
    pub fn dials(&self) -> Dials {
        Dials { door: self.door.clone(), rates: self.context.rates.clone() }
    }

    /// The hotkey that it answers for.
    pub fn hotkey(&self) -> Hotkey {
        self.context.pair.hotkey()
    }

    /// Serves until the end.
    pub async fn run(self, app: &App<'_>, health: &watch::Sender<Health>) {
        const NAME: &str = "axon";
        let addresses = self.addresses().join(", ");
        health.send_modify(|health| health.set(NAME, true, format!("listens on {addresses}")));
        let pair = self.context.pair.clone();
        let listening = self.listeners.into_iter().map(|(listener, address)| {
            let context = self.context.clone();
            let cancel = app.cancel.clone();
            async move {
                if let Err(error) = axon::serve(listener, context, cancel).await {
                    let why = std::iter::once(error.to_string()).chain(causes(&error));
                    let why = why.collect::<Vec<_>>().join(": ");
                    tracing::error!(%address, why, "the service for validators has ended");
                    health.send_modify(|health| health.set(NAME, false, why));
                }
            }
        });
        let listening = futures_util::future::join_all(listening);
        let chain = async {
            if let Some(metagraph) = &self.metagraph {
                let reading = metagraph.run(METAGRAPH_INTERVAL, app.cancel.clone());
                let alerting = tell_of_outage(app, metagraph);
                tokio::join!(reading, follow_chain(app, metagraph, health), alerting);
            }
        };
        let announcing = async {
            if let Some((chain, options)) = &self.announcement {
                announce(app, chain, options, &ChainKey(pair), health).await;
            }
        };
        tokio::join!(listening, chain, announcing);
        self.validators.drain().await;
        if let Some(challenges) = &self.challenges {
            challenges.drain().await;
        }
        if let Some(containers) = &self.containers {
            containers.drain().await;
        }
    }
}

/// The hotkeys of `allowed_validators`.
fn allowed(config: &Config) -> BTreeSet<Hotkey> {
    // The configuration was refused if one of them were none.
    config.security.allowed_validators.iter().filter_map(|text| Hotkey::parse(text).ok()).collect()
}

fn challenges(
    app: &App<'_>,
    validators: &Validators,
    artifact: &Arc<Artifact>,
    miner: Hotkey,
) -> Result<Option<Challenges>, Failure> {
    let config = app.config.validator_challenges.clone();
    if !config.enabled {
        return Ok(None);
    }
    let table = config.models.as_ref().map(|path| app.settings.resolve(path));
    let (models, models_name) = models::load(table.as_deref())?;
    let key = SigningKey::load_or_create(&verify::state_folder(app)).map_err(verify::no_key)?;
    let artifact = Arc::clone(artifact);
    let parts = ChallengeParts { config, artifact, key: Arc::new(key), models, models_name, miner };
    Ok(Some(Challenges::new(validators.clone(), parts, app.cancel.clone())))
}

fn pair(app: &App<'_>) -> Result<Option<Arc<HotkeyPair>>, Failure> {
    let config = &app.config.bittensor;
    let folder = app.settings.resolve(&config.wallet_path);
    let place = WalletPlace::new(&folder, &config.wallet_name, &config.hotkey_name)
        .map_err(|error| Failure::user("cannot use the wallet").because(error))?;
    let file: PathBuf = place.hotkey_file();
    let asked_for = app.settings.reading.entries.iter().any(|entry| {
        entry.key.starts_with("bittensor.") && matches!(entry.source, Source::File { .. })
    });
    if !asked_for && !file.exists() {
        app.report.note(&format!("no service for validators: there is no {}", file.display()));
        return Ok(None);
    }
    wallet::unlock(app, &place).map(|pair| Some(Arc::new(pair)))
}

fn client(app: &App<'_>) -> Result<Option<ChainClient>, Failure> {
    let config = &app.config.bittensor;
    if config.skip_registration {
        return Ok(None);
    }
    let network = match config.network {
        config::Network::Finney => Network::Finney,
        config::Network::Test => Network::Test,
        config::Network::Local => Network::Local,
    };
    let options = ChainOptions::new(network, &config.chain_endpoints, false)
        .map_err(|error| Failure::user("cannot use `chain_endpoint`").because(error))?;
    Ok(Some(ChainClient::new(options)))
}

fn announcement(
    app: &App<'_>,
    chain: Option<ChainClient>,
    port: u16,
) -> Result<Option<(ChainClient, AnnouncementOptions)>, Failure> {
    let config = &app.config.bittensor;
    let Some(chain) = chain else { return Ok(None) };
    let Some(ip) = config.external_ip else {
        app.report.note("the chain is told no address: `external_ip` of [bittensor] is not set");
        return Ok(None);
    };
    let address = AxonAddress::new(ip, port)
        .map_err(|error| Failure::user("cannot announce the axon").because(error))?;
    let (netuid, allow_private) = (config.netuid, config.allow_private_ip);
    Ok(Some((chain, AnnouncementOptions { netuid, address, allow_private })))
}

/// The sessions of validators, if their tokens are taken; `findings` has refused a listener that
/// others could read along with.
fn sessions(app: &App<'_>, store: &Store, axon: Hotkey) -> Result<Option<Sessions>, Failure> {
    let auth = &app.config.validator_comms.auth;
    if auth.method != AuthMethod::Jwt {
        return Ok(None);
    }
    let failed = || Failure::user("cannot use the secret of tokens").hint(SECRET_HINT);
    let secret = findings::secret(&app.settings).map_err(|error| failed().because(error))?;
    let key = SessionKey::derive(secret.ok_or_else(failed)?.expose());
    Ok(Some(Sessions::new(key, store.clone(), axon, auth.token_expiration)))
}

/// How often one address, and one hotkey, may ask.
fn rate(config: &Config) -> Rate {
    let rate = &config.validator_comms.rate_limit;
    match rate.enabled {
        true => Rate { per_second: rate.requests_per_second, burst: rate.burst_capacity },
        false => Rate { per_second: 1_000_000, burst: 1_000_000 },
    }
}

fn limits(config: &Config) -> AxonLimits {
    let timeout = config.validator_comms.request_timeout;
    AxonLimits {
        connections: config.server.max_connections,
        sessions: config.validator_comms.max_concurrent_sessions,
        head_timeout: config.server.request_timeout,
        body_timeout: config.server.request_timeout,
        request_timeout: timeout,
        stream_timeout: config.validator_comms.stream_timeout,
        ..AxonLimits::default()
    }
}

fn tls(app: &App<'_>) -> Option<TlsFiles> {
    let security = &app.config.security;
    let (Some(certificate), Some(key)) = (&security.cert_path, &security.key_path) else {
        return None;
    };
    let authorities = security.ca_cert_path.as_ref().filter(|_| security.enable_mtls);
    Some(TlsFiles {
        certificate: app.settings.resolve(certificate),
        key: app.settings.resolve(key),
        client_authorities: authorities.map(|path| app.settings.resolve(path)),
    })
}

/// Publishes how the reading of the chain goes.
async fn follow_chain(app: &App<'_>, metagraph: &MetagraphCache, health: &watch::Sender<Health>) {
    let mut status = metagraph.status();
    loop {
        let now = status.borrow_and_update().clone();
        health.send_modify(|health| match (&now.error, now.block) {
            (Some(error), _) => health.set("chain", false, error.clone()),
            (None, Some(block)) => health.set("chain", true, format!("as of block {block}")),
            (None, None) => health.set("chain", false, "it was not read yet"),
        });
        // Cancel safety: both are plain waits.
        tokio::select! {
            changed = status.changed() => if changed.is_err() { return },
            () = app.cancel.cancelled() => return,
        }
    }
}

/// Alerts when the chain could not be read for long, and when it is read again: once each.
async fn tell_of_outage(app: &App<'_>, metagraph: &MetagraphCache) {
    let began = Instant::now();
    let mut told = false;
    while !app.cancel.is_cancelled() {
        // A miner that never read it has waited since the start.
        let age = metagraph.age().unwrap_or_else(|| began.elapsed());
        let stale = age > OUTAGE;
        let done = tell_if(app, (stale != told).then(|| outage_words(stale, age)));
        match done.await {
            Ok(()) => told = stale,
            Err(failure) => tracing::error!(what = failure.what, "nobody is told of the chain"),
        }
        super::rest(app, super::LOOK).await;
    }
}

fn outage_words(stale: bool, age: Duration) -> String {
    if !stale {
        return "the chain is read again".to_owned();
    }
    let minutes = age.as_secs() / 60;
    format!(
        "the chain was not read for {minutes} min: validators are judged by what was known then, and \
         after a day nobody is let in"
    )
}

/// Queues a notice, if there is one, and delivers what is due: sweeps do that, too, where there are
/// hosts.
async fn tell_if(app: &App<'_>, notice: Option<String>) -> Result<(), Failure> {
    let store = app.store().await?;
    if notice.is_none() && store.waiting_alerts().await? == 0 {
        return Ok(());
    }
    let channels = crate::cli::sweep::channels(app)?;
    if let Some(notice) = notice {
        tracing::warn!(notice, "the chain");
        queue_notice(store, &app.actor, &notice, &channels).await?;
    }
    // One that cannot be delivered waits, and is tried again.
    deliver(store, &app.actor, &channels, &app.config.alerts).await?;
    Ok(())
}

/// Announces the axon, once, after as many attempts as it takes.
async fn announce(
    app: &App<'_>,
    client: &ChainClient,
    options: &AnnouncementOptions,
    key: &ChainKey,
    health: &watch::Sender<Health>,
) {
    const NAME: &str = "announcement";
    let mut pause = ANNOUNCE_AGAIN;
    loop {
        // Cancel safety: an announcement that was sent is found on the chain the next time.
        let done = tokio::select! {
            done = chain::announce(app, client, key, options) => done,
            () = app.cancel.cancelled() => return,
        };
        match done {
            Ok(done) => {
                let words = match done {
                    Announced::Already => "the chain has the address already",
                    Announced::Finalized { .. } => "the chain has taken the address",
                };
                tracing::info!(words, "the axon is announced");
                health.send_modify(|health| health.set(NAME, true, words));
                return;
            }
            Err(error) => {
                let why = std::iter::once(error.to_string()).chain(causes(&error));
                let why = why.collect::<Vec<_>>().join(": ");
                tracing::error!(why, hint = error.hint(), "the axon is not announced");
                health.send_modify(|health| health.set(NAME, false, why));
            }
        }
        super::rest(app, pause).await;
        pause = (pause * 2).min(ANNOUNCE_AT_LEAST);
        if app.cancel.is_cancelled() {
            return;
        }
    }
}
