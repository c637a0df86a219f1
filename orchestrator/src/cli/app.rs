//! What every verb needs: configuration, database, who we are, and the wish to stop.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::GlobalArgs;
use super::failure::Failure;
use super::logging::{Logs, Wish};
use super::report::Report;
use super::settings::{self, Settings};
use crate::config::Config;
use crate::fleet::Fleet;
use crate::fleet_file::{Environment, FleetFile, Selector, SshConfig, resolve};
use crate::host_spec::HostSpec;
use crate::ids::HostName;
use crate::reason::Reason;
use crate::runner::Artifact;
use crate::ssh::known_hosts::KnownHosts;
use crate::ssh::{Identities, SshContext, StoredPins, TrustPolicy};
use crate::store::{HostRecord, Store};

/// The running program, for its verbs.
pub struct App<'r> {
    /// Where output goes.
    pub report: &'r Report,
    /// The configuration.
    pub config: Config,
    /// The same, key by key, and what is odd in it.
    pub settings: Settings,
    /// The logs.
    pub logs: Logs,
    /// The file it was read from; `None` for the built-in defaults.
    pub config_file: Option<PathBuf>,
    /// The database that it means.
    pub database: PathBuf,
    /// Who runs this: `user@machine`.
    pub actor: String,
    /// Fires at the first Ctrl-C or SIGTERM.
    pub cancel: CancellationToken,
    /// The user's home and name.
    pub environment: Environment,
    abandon: CancellationToken,
    store: OnceCell<Store>,
}

impl<'r> App<'r> {
    /// Reads the configuration, starts logging, listens for signals.
    pub fn start(global: &GlobalArgs, report: &'r Report) -> Result<Self, Failure> {
        let environment = environment()?;
        let settings = settings::load(global.config.as_deref(), &environment.home)?;
        let wish = Wish { verbose: global.verbose, quiet: global.quiet };
        let logs = super::logging::start(&settings, wish, report)?;
        let (cancel, abandon) = (CancellationToken::new(), CancellationToken::new());
        listen_for_signals(cancel.clone(), abandon.clone())?;
        let uid = rustix::process::getuid().as_raw();
        let user = environment.local_user.clone().unwrap_or_else(|| format!("uid-{uid}"));
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let actor = crate::printable::printable(&format!("{user}@{machine}"));
        let store = OnceCell::new();
        Ok(Self {
            report,
            config: settings.config().clone(),
            config_file: settings.file.clone(),
            database: settings.database.clone(),
            settings,
            logs,
            actor,
            cancel,
            environment,
            abandon,
            store,
        })
    }

    /// Resolves when the user insists: a second Ctrl-C leaves at once.
    pub async fn second_signal(&self) {
        self.abandon.cancelled().await;
    }

    /// Runs `work` unless the user stops it first.
    pub async fn until_cancelled<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        // Cancel safety: work on hosts may be dropped anywhere, see `fleet`.
        tokio::select! {
            done = work => Ok(done),
            () = self.cancel.cancelled() => Err(Failure::interrupted()),
        }
    }

    /// The database, opened at its first use.
    pub async fn store(&self) -> Result<&Store, Failure> {
        let options = settings::store_options(&self.config);
        let open = async || Store::open_with(&self.database, &options).await.map_err(Failure::from);
        self.store.get_or_try_init(open).await
    }

    /// Closes the database, so that all of it is in one file while nobody uses it.
    pub async fn close(&self) {
        // A statement that hangs is no reason to stay.
        const PATIENCE: Duration = Duration::from_secs(1);
        if let Some(store) = self.store.get() {
            let _still_busy = tokio::time::timeout(PATIENCE, store.clone().close()).await;
        }
    }

    /// Uses this database instead of the configured one.
    pub fn use_store(&self, store: Store) {
        // Only the demo calls this, before anything else could have opened one.
        let _already_open = self.store.set(store);
    }

    /// Reads, resolves and selects the hosts of a fleet file, and warns of what is odd in it.
    pub async fn fleet_file(
        &self,
        path: &Path,
        limit: Option<&str>,
    ) -> Result<Vec<HostSpec>, Failure> {
        let file = FleetFile::load(path).map_err(|error| {
            Failure::user(format!("cannot use the fleet file {}", path.display()))
                .because(error)
                .hint("`orchestrator init` writes an explained example")
        })?;
        self.resolved(&file, limit).await
    }

    /// The hosts of this fleet file; without one those that the configuration declares, else those
    /// of `fleet.toml`.
    pub async fn declared_hosts(
        &self,
        path: Option<&Path>,
        limit: Option<&str>,
    ) -> Result<Vec<HostSpec>, Failure> {
        match path {
            Some(path) => self.fleet_file(path, limit).await,
            None => match self.executors()? {
                Some(file) => self.resolved(&file, limit).await,
                None => self.fleet_file(Path::new("fleet.toml"), limit).await,
            },
        }
    }

    /// The executors of the configuration as a fleet file; `None` if it has none.
    pub fn executors(&self) -> Result<Option<FleetFile>, Failure> {
        let executors = &self.config.executor_management.executors;
        if executors.is_empty() {
            return Ok(None);
        }
        let path = self.config_file.as_deref().unwrap_or(Path::new("the configuration"));
        let failed = || Failure::user(format!("cannot use the executors of {}", path.display()));
        let imported = crate::import::executors(executors, &self.config.ssh_session)
            .map_err(|error| failed().because(error))?;
        FleetFile::parse(path, &imported.toml).map(Some).map_err(|error| failed().because(error))
    }

    async fn resolved(
        &self,
        file: &FleetFile,
        limit: Option<&str>,
    ) -> Result<Vec<HostSpec>, Failure> {
        let path = &file.path;
        for warning in &file.warnings {
            self.report.warning(&warning.render(path));
        }
        let resolved =
            self.until_cancelled(resolve(file, &self.environment)).await?.map_err(|error| {
                Failure::user(format!("cannot resolve the hosts of {}", path.display()))
                    .because(error)
            })?;
        for warning in &resolved.warnings {
            self.report.warning(warning);
        }
        select(resolved.hosts, limit)
    }

    /// Every host of the last deploys, narrowed by a selector.
    pub async fn known_hosts(&self, limit: Option<&str>) -> Result<Vec<HostRecord>, Failure> {
        let mut records = self.store().await?.hosts().await?;
        let specs: Vec<HostSpec> = records.iter().map(|record| record.spec.clone()).collect();
        if !specs.is_empty() || limit.is_some() {
            let kept = select(specs, limit)?;
            records.retain(|record| kept.iter().any(|spec| spec.name == record.spec.name));
        }
        Ok(records)
    }

    /// One host of the last deploys.
    pub async fn known_host(&self, text: &str) -> Result<HostRecord, Failure> {
        let name = self.host_name(text)?;
        match self.store().await?.host(&name).await? {
            Some(record) => Ok(record),
            None => Err(self.unknown_host(&name).await),
        }
    }

    /// The declaration of one host: of the fleet file if given, else of its last deploy.
    pub async fn spec_of(&self, text: &str, file: Option<&Path>) -> Result<HostSpec, Failure> {
        let Some(path) = file else { return Ok(self.known_host(text).await?.spec) };
        let name = self.host_name(text)?;
        let specs = self.fleet_file(path, None).await?;
        specs.into_iter().find(|spec| spec.name == name).ok_or_else(|| {
            Failure::user(format!("there is no host {name} in {}", path.display()))
                .hint("`orchestrator check` lists the hosts of a fleet file")
        })
    }

    /// Checks a host name of the command line.
    pub fn host_name(&self, text: &str) -> Result<HostName, Failure> {
        HostName::new(text).map_err(|error| Failure::user(error.to_string()))
    }

    /// The error for a host that was never deployed to.
    pub async fn unknown_host(&self, name: &HostName) -> Failure {
        let known = match self.store().await {
            Ok(store) => store.hosts().await.unwrap_or_default(),
            Err(failure) => return failure,
        };
        let names: Vec<&str> = known.iter().map(|record| record.spec.name.as_str()).collect();
        let failure = Failure::user(format!("there is no host {name}"));
        if names.is_empty() {
            failure.hint("deploy first: orchestrator deploy --hosts fleet.toml")
        } else {
            failure.hint(format!("known hosts: {}", crate::fleet_file::range::compress(names)))
        }
    }

    /// The runner to upload: the given file, or the one beside this program.
    pub fn artifact(&self, path: Option<&Path>) -> Result<Artifact, Failure> {
        let found = match path {
            Some(path) => Artifact::read(path),
            None => Artifact::find_in(&program_folder()?),
        };
        found.map_err(|error| {
            Failure::user("there is no runner to upload").because(error).hint(
                "build it with `cargo build -p remote-runner` or scripts/build-runner, or pass --runner FILE",
            )
        })
    }

    /// What operations over these hosts need. Asks for passphrases that are wanted.
    pub async fn fleet(&self, specs: &[HostSpec], accept_new: bool) -> Result<Fleet, Failure> {
        let store = self.store().await?.clone();
        let mut stored = StoredPins::default();
        for key in store.trusted_keys().await? {
            stored.insert(&key.address, key.port, &key.public_key).map_err(|error| {
                Failure::user("the database holds a host key that cannot be read").because(error)
            })?;
        }
        let mut named_known_hosts = HashMap::new();
        for endpoint in specs.iter().flat_map(HostSpec::endpoints) {
            let files = &endpoint.known_hosts_files;
            if !files.is_empty() && !named_known_hosts.contains_key(files) {
                named_known_hosts.insert(files.clone(), known_hosts(files)?);
            }
        }
        let usual = [
            self.environment.home.join(".ssh/known_hosts"),
            self.environment.home.join(".ssh/known_hosts2"),
            PathBuf::from("/etc/ssh/ssh_known_hosts"),
        ];
        let known_hosts = known_hosts(&usual)?;
        let trust = TrustPolicy { stored, known_hosts, named_known_hosts, accept_new };
        let mut ssh = SshContext::new(settings::limits(&self.config), trust);
        ssh.identities = Identities::new(super::passphrase::provider(self.report));
        ssh.agent_socket = std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from);
        self.until_cancelled(ssh.unlock(specs.iter().flat_map(HostSpec::endpoints))).await?;
        Ok(Fleet { store, ssh: Arc::new(ssh), actor: self.actor.clone() })
    }

    /// Asks the user, or says that it cannot.
    pub fn confirm(&self, question: &str) -> Result<bool, Failure> {
        if self.report.may_ask() {
            Ok(self.report.ask(question))
        } else {
            Err(Failure::user("this needs a yes, and there is no terminal to ask on")
                .hint("see the command's --help for the option that answers beforehand"))
        }
    }
}

fn select(hosts: Vec<HostSpec>, limit: Option<&str>) -> Result<Vec<HostSpec>, Failure> {
    let Some(limit) = limit else { return Ok(hosts) };
    let chosen = selector(limit)?.select(&hosts).map_err(|error| {
        Failure::user(format!("cannot use the selector {limit:?}")).because(error)
    })?;
    Ok(chosen.into_iter().cloned().collect())
}

/// Reads `known_hosts` files; one that does not exist has no entries.
fn known_hosts(files: &[PathBuf]) -> Result<Arc<KnownHosts>, Failure> {
    KnownHosts::load(files).map(Arc::new).map_err(|error| {
        let mut failure = Failure::user("cannot read the known host keys").because(error).hint(
            "make the file readable: an unreadable trust store is not taken for an empty one",
        );
        failure.reason = Reason::HostKey;
        failure
    })
}

/// Reads a selector of the command line.
pub fn selector(text: &str) -> Result<Selector, Failure> {
    Selector::parse(text)
        .map_err(|error| Failure::user(format!("cannot use the selector {text:?}")).because(error))
}

/// The folder of this program, where the runner lies.
fn program_folder() -> Result<PathBuf, Failure> {
    let failed = |error| Failure::user("cannot find out where this program lies").because(error);
    let program = std::env::current_exe().and_then(|path| path.canonicalize()).map_err(failed)?;
    Ok(program.parent().map(Path::to_path_buf).unwrap_or_default())
}

/// The one place that reads the user's environment.
fn environment() -> Result<Environment, Failure> {
    let home = std::env::home_dir().filter(|home| home.is_absolute()).ok_or_else(|| {
        Failure::user("cannot find the home directory").hint("set HOME to an absolute path")
    })?;
    Ok(Environment {
        home,
        local_user: settings::user_name(),
        ssh_config: SshConfig::Usual,
        ssh_program: "ssh".into(),
    })
}

/// The first signal asks to stop, the second leaves.
fn listen_for_signals(
    cancel: CancellationToken,
    abandon: CancellationToken,
) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |error| Failure::user("cannot listen for signals").because(error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    // Owned by the runtime: it lives as long as the process and holds nothing.
    tokio::spawn(async move {
        for token in [cancel, abandon] {
            // Cancel safety: both receivers keep a signal that came meanwhile.
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            token.cancel();
        }
    });
    Ok(())
}

/// A time for people: `2026-01-31 12:00 UTC`.
pub fn utc(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms).map_or_else(
        |_| "at an impossible time".to_owned(),
        |at| at.strftime("%F %R UTC").to_string(),
    )
}

/// How long ago, in one unit.
pub fn ago(at_ms: i64) -> String {
    let seconds = (crate::store::now_ms() - at_ms).max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..86_400 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}
