//! From what the file declares to what is connected to: `~` expanded, `ssh_config` honoured,
//! defaults filled in.
//!
//! The fleet file wins over `ssh_config`, and `ssh_config` over our defaults. `[defaults]` belongs
//! to the fleet file as far as hosts go; for a jump it comes after `ssh_config`, because the
//! account on a bastion is rarely the account on the hosts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::address_book::AddressBook;
use super::range::compress;
use super::server::{address_fault, parse_hops};
use super::ssh_config::Outline;
use super::ssh_query::Answer;
use super::{DeclaredHost, DeclaredServer, FleetFile, ServerSettings};
use crate::host_spec::{AgentSocket, Endpoint, HostSpec};

/// `ssh_config` may send a jump through a jump; this many times is enough for anyone.
pub(super) const MAX_NESTED_JUMPS: usize = 8;
/// The keys that are offered when none is configured, if they exist. No RSA: see `docs/ssh.md`.
const DEFAULT_IDENTITIES: [&str; 2] = [".ssh/id_ed25519", ".ssh/id_ecdsa"];
/// What the resolution may look at besides the fleet file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// The user's home, for `~` and the default keys.
    pub home: PathBuf,
    /// The user's login name here: the login name there when nothing else is said, as with `ssh`.
    pub local_user: Option<String>,
    /// Which `ssh_config` is honoured.
    pub ssh_config: SshConfig,
    /// The `ssh` client; a name without `/` is looked for in `PATH`.
    pub ssh_program: PathBuf,
}

/// Which `ssh_config` is honoured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SshConfig {
    /// `~/.ssh/config` and `/etc/ssh/ssh_config`, as `ssh` reads them.
    Usual,
    /// Only this file (`ssh -F`).
    File(PathBuf),
    /// None; the client is never run.
    Ignored,
}

impl SshConfig {
    pub(super) fn outline(&self, home: &Path) -> Outline {
        match self {
            Self::Usual => Outline::read(&home.join(".ssh/config"), home)
                .then(Outline::read(Path::new("/etc/ssh/ssh_config"), home)),
            Self::File(path) => Outline::read(path, home),
            Self::Ignored => Outline::default(),
        }
    }

    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Usual | Self::Ignored => None,
        }
    }
}

/// A resolved fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The hosts, in the order of the file.
    pub hosts: Vec<HostSpec>,
    /// What is odd and stops nothing.
    pub warnings: Vec<String>,
}

/// What stands in the way of one or more hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResolveProblem {
    /// The hosts, written compactly.
    pub hosts: String,
    /// What is wrong.
    pub message: String,
}

/// Some hosts cannot be resolved. All problems are listed, equal ones once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ResolveError {
    /// The problems.
    pub problems: Vec<ResolveProblem>,
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index > 0 { "\n" } else { "" };
            write!(f, "{separator}{}: {}", problem.hosts, problem.message)?;
        }
        Ok(())
    }
}

/// Resolves every host of a fleet file. No network is touched; `ssh -G` is run for the names that
/// `ssh_config` could concern, a few at a time, once for names that share an answer.
///
/// # Errors
/// [`ResolveError`] with every host that cannot be reached as configured: a user that is not known, a
/// `ProxyCommand`, jumps in a circle, an answer of `ssh -G` that makes no sense.
///
/// # Cancel safety
/// Dropping the future kills the clients that run.
pub async fn resolve(
    fleet: &FleetFile,
    environment: &Environment,
) -> Result<Resolved, ResolveError> {
    let mut book = AddressBook::open(environment);
    book.look_up(fleet).await;
    let resolver = Resolver {
        fleet,
        environment,
        answers: &book.answers,
        default_identities: DEFAULT_IDENTITIES
            .iter()
            .map(|file| environment.home.join(file))
            .filter(|path| path.is_file())
            .collect(),
    };

    let mut hosts = Vec::with_capacity(fleet.hosts.len());
    let mut problems: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for declared in &fleet.hosts {
        match resolver.host(declared) {
            Ok(host) => hosts.push(host),
            Err(message) => problems.entry(message).or_default().push(declared.name.as_str()),
        }
    }
    if problems.is_empty() {
        return Ok(Resolved { hosts, warnings: book.warnings });
    }
    let problems = problems
        .into_iter()
        .map(|(message, names)| ResolveProblem { hosts: compress(names), message });
    Err(ResolveError { problems: problems.collect() })
}

/// The hop with what `[jumps.<name>]` says of it; what the hop itself says wins.
pub(super) fn named_jump(fleet: &FleetFile, hop: &DeclaredServer) -> DeclaredServer {
    match fleet.jumps.get(&hop.address) {
        None => hop.clone(),
        Some(named) => DeclaredServer {
            address: named.address.clone(),
            settings: hop.settings.clone().or(&named.settings),
        },
    }
}

struct Resolver<'a> {
    fleet: &'a FleetFile,
    environment: &'a Environment,
    answers: &'a HashMap<String, Result<Answer, String>>,
    default_identities: Vec<PathBuf>,
}

impl Resolver<'_> {
    fn host(&self, declared: &DeclaredHost) -> Result<HostSpec, String> {
        let answer = self.answer(&declared.server.address)?;
        let hops = match &declared.proxy_jump {
            Some(hops) => hops.clone(),
            None => jumps_of(answer)?,
        };
        Ok(HostSpec {
            name: declared.name.clone(),
            endpoint: self.endpoint(&declared.server, &ServerSettings::default())?,
            proxy_jump: self.route(hops)?,
            mode: declared.mode,
            gpus: declared.gpus.clone(),
            labels: declared.labels.clone(),
            work_dir: declared.work_dir.clone(),
            containers: declared.containers.clone(),
        })
    }

    /// The whole way: as `ssh -J`, the first hop is itself reached as `ssh_config` says.
    fn route(&self, hops: Vec<DeclaredServer>) -> Result<Vec<Endpoint>, String> {
        let mut hops: Vec<DeclaredServer> =
            hops.iter().map(|hop| named_jump(self.fleet, hop)).collect();
        let mut seen: HashSet<String> = HashSet::new();
        for _ in 0..=MAX_NESTED_JUMPS {
            let Some(first) = hops.first() else { return Ok(Vec::new()) };
            if !seen.insert(first.address.clone()) {
                return Err(format!("the jumps go in a circle through {}", first.address));
            }
            let before = jumps_of(self.answer(&first.address)?)?;
            if before.is_empty() {
                let fallback = ServerSettings { port: None, ..self.fleet.defaults.clone() };
                return hops.iter().map(|hop| self.endpoint(hop, &fallback)).collect();
            }
            let before = before.iter().map(|hop| named_jump(self.fleet, hop));
            hops = before.chain(hops).collect();
        }
        Err("ssh_config sends the jump through too many further jumps".to_owned())
    }

    fn answer(&self, address: &str) -> Result<Option<&Answer>, String> {
        match self.answers.get(address) {
            None => Ok(None),
            Some(Ok(answer)) => Ok(Some(answer)),
            Some(Err(message)) => Err(message.clone()),
        }
    }

    /// One server: the file first, then `ssh_config`, then `fallback`, then what `ssh` would do.
    fn endpoint(
        &self,
        server: &DeclaredServer,
        fallback: &ServerSettings,
    ) -> Result<Endpoint, String> {
        let nothing = Answer::default();
        let answer = self.answer(&server.address)?.unwrap_or(&nothing);
        let address = answer.first("hostname").unwrap_or(&server.address).to_owned();
        address_fault(&address).map_err(|(message, _)| format!("ssh_config: {message}"))?;

        let said = said_by(answer)?;
        let user = server.settings.user.as_ref().or(said.user.as_ref()).or(fallback.user.as_ref());
        let user = user.or(self.environment.local_user.as_ref()).cloned();
        let user = user.ok_or_else(|| format!("no user is given for {address}"))?;
        let tokens = Tokens { environment: self.environment, address: &address, user: &user };
        let said = tokens.expand_settings(said)?;
        let settings = server.settings.clone().or(&said).or(fallback);
        let files = |files: Vec<String>| files.iter().map(|file| self.path(file)).collect();
        let known_hosts = answer.first("userknownhostsfile").unwrap_or_default();
        let known_hosts = known_hosts.split_whitespace().map(|file| tokens.expand(file));
        Ok(Endpoint {
            port: settings.port.unwrap_or(22),
            identity_files: settings
                .identity_files
                .map_or_else(|| self.default_identities.clone(), files),
            certificate_files: settings.certificate_files.map(files).unwrap_or_default(),
            agent: match settings.agent.unwrap_or_default() {
                AgentSocket::Path(path) => AgentSocket::Path(self.path(&path.to_string_lossy())),
                other => other,
            },
            host_key: settings.host_key,
            host_key_alias: answer.first("hostkeyalias").map(str::to_owned),
            known_hosts_files: known_hosts
                .map(|file| file.map(|file| self.path(&file)))
                .collect::<Result<_, _>>()?,
            user,
            address,
        })
    }

    /// A file name with its `~`; a relative one starts at the fleet file, so that it means the
    /// same wherever the command is run.
    fn path(&self, file: &str) -> PathBuf {
        match file.strip_prefix("~/") {
            Some(rest) => self.environment.home.join(rest),
            None => self.fleet.path.parent().unwrap_or(Path::new("")).join(file),
        }
    }
}

/// The jumps that `ssh_config` names; a `ProxyCommand` is a way that we cannot go.
fn jumps_of(answer: Option<&Answer>) -> Result<Vec<DeclaredServer>, String> {
    let Some(answer) = answer else { return Ok(Vec::new()) };
    if let Some(jumps) = answer.first("proxyjump") {
        return parse_hops(jumps).map_err(|error| format!("ssh_config: {}", error.message));
    }
    match answer.first("proxycommand") {
        None | Some("none") => Ok(Vec::new()),
        Some(_) => Err(
            "ssh_config goes through a ProxyCommand, which is not supported: say `proxy_jump` in the fleet file (\"none\" for a direct way)"
                .to_owned(),
        ),
    }
}

/// What `ssh_config` says, in the words of the fleet file.
fn said_by(answer: &Answer) -> Result<ServerSettings, String> {
    let files = |keyword| {
        let all = answer.all(keyword);
        let all: Vec<String> =
            all.iter().filter(|f| **f != "none").map(|f| (*f).to_owned()).collect();
        answer.first(keyword).map(|_| all)
    };
    let port = match answer.first("port") {
        None => None,
        Some(port) => Some(port.parse().map_err(|_| format!("ssh_config: bad port {port:?}"))?),
    };
    Ok(ServerSettings {
        user: answer.first("user").map(str::to_owned),
        port,
        identity_files: files("identityfile"),
        certificate_files: files("certificatefile"),
        agent: match answer.first("identityagent") {
            None => None,
            Some("none") => Some(AgentSocket::Disabled),
            Some("SSH_AUTH_SOCK") => Some(AgentSocket::Environment),
            Some(variable) if variable.starts_with('$') => {
                return Err(format!(
                    "ssh_config: IdentityAgent {variable} names a variable; say `agent` in the fleet file"
                ));
            }
            Some(path) => Some(AgentSocket::Path(PathBuf::from(path))),
        },
        host_key: None,
    })
}

/// The `%` tokens that `ssh -G` leaves in file names.
struct Tokens<'a> {
    environment: &'a Environment,
    address: &'a str,
    user: &'a str,
}

impl Tokens<'_> {
    fn expand_settings(&self, mut settings: ServerSettings) -> Result<ServerSettings, String> {
        for files in [&mut settings.identity_files, &mut settings.certificate_files] {
            for file in files.iter_mut().flatten() {
                *file = self.expand(file)?;
            }
        }
        if let Some(AgentSocket::Path(path)) = &mut settings.agent {
            *path = PathBuf::from(self.expand(&path.to_string_lossy())?);
        }
        Ok(settings)
    }

    fn expand(&self, file: &str) -> Result<String, String> {
        let mut out = String::with_capacity(file.len());
        let mut chars = file.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            match chars.next() {
                Some('%') => out.push('%'),
                Some('d') => out.push_str(&self.environment.home.to_string_lossy()),
                Some('h') => out.push_str(self.address),
                Some('r') => out.push_str(self.user),
                Some('u') => {
                    out.push_str(self.environment.local_user.as_deref().unwrap_or_default());
                }
                token => {
                    let token = token.map_or_else(String::new, String::from);
                    return Err(format!(
                        "ssh_config: the token %{token} in {file:?} is not supported"
                    ));
                }
            }
        }
        Ok(out)
    }
}
