//! Collects what `ssh_config` says of every name in a fleet, asking as little as possible.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use futures_util::{StreamExt as _, stream};

use super::resolve::{MAX_NESTED_JUMPS, named_jump};
use super::server::parse_hops;
use super::ssh_config::{Need, Outline};
use super::ssh_query::{Answer, query};
use super::{Environment, FleetFile};

/// How many `ssh -G` run at once: they are short and bound by the processor.
const PARALLEL_QUERIES: usize = 8;
/// A name that no configuration is expected to mention; with no configuration any name will do.
const BASELINE_NAME: &str = "baseline.invalid";

/// What `ssh_config` says, for every name that was asked for.
pub(super) struct AddressBook<'a> {
    environment: &'a Environment,
    outline: Outline,
    pub(super) answers: HashMap<String, Result<Answer, String>>,
    shared: HashMap<Vec<usize>, Result<Answer, String>>,
    pub(super) warnings: Vec<String>,
}

impl<'a> AddressBook<'a> {
    pub(super) fn open(environment: &'a Environment) -> Self {
        Self {
            environment,
            outline: environment.ssh_config.outline(&environment.home),
            answers: HashMap::new(),
            shared: HashMap::new(),
            warnings: Vec::new(),
        }
    }

    /// Asks for all hosts and declared jumps, then for the jumps that the answers name.
    pub(super) async fn look_up(&mut self, fleet: &FleetFile) {
        let mut wanted: BTreeSet<String> = BTreeSet::new();
        for host in &fleet.hosts {
            wanted.insert(host.server.address.clone());
            for hop in host.proxy_jump.iter().flatten() {
                wanted.insert(named_jump(fleet, hop).address);
            }
        }
        let Some(baseline) = self.baseline(&wanted).await else { return };
        for _ in 0..=MAX_NESTED_JUMPS {
            let asked: BTreeSet<String> =
                wanted.into_iter().filter(|name| !self.answers.contains_key(name)).collect();
            if asked.is_empty() {
                return;
            }
            self.ask(&asked, &baseline).await;
            let answers = asked.iter().filter_map(|name| self.answers.get(name)?.as_ref().ok());
            let hops = answers.filter_map(|answer| parse_hops(answer.first("proxyjump")?).ok());
            wanted = hops.flatten().map(|hop| named_jump(fleet, &hop).address).collect();
        }
    }

    /// What the client says without any configuration; none if nobody need be asked, or if there
    /// is no client.
    async fn baseline(&mut self, wanted: &BTreeSet<String>) -> Option<Answer> {
        if wanted.iter().all(|name| self.outline.need(name) == Need::Nothing) {
            return None;
        }
        if self.outline.runs_commands {
            self.warnings.push(
                "ssh_config has a `Match exec`: its command runs for each name that is looked up"
                    .to_owned(),
            );
        }
        let program = &self.environment.ssh_program;
        match query(program, Some(Path::new("none")), BASELINE_NAME).await {
            Ok(baseline) => Some(baseline),
            Err(error) => {
                let why = if error.no_client() {
                    "there is no ssh client".to_owned()
                } else {
                    error.to_string()
                };
                self.warnings.push(format!("ssh_config is not honoured: {why}"));
                None
            }
        }
    }

    async fn ask(&mut self, names: &BTreeSet<String>, baseline: &Answer) {
        let mut own: Vec<&str> = Vec::new();
        let mut sharing: BTreeMap<Vec<usize>, Vec<&str>> = BTreeMap::new();
        for name in names {
            match self.outline.need(name) {
                Need::Nothing => {}
                Need::Own => own.push(name),
                Need::Shared(blocks) => sharing.entry(blocks).or_default().push(name),
            }
        }
        let speakers = sharing
            .iter()
            .filter(|(blocks, _)| !self.shared.contains_key(*blocks))
            .filter_map(|(_, names)| names.first().copied());
        let asked: Vec<&str> = own.iter().copied().chain(speakers).collect();
        let (program, config) = (&self.environment.ssh_program, self.environment.ssh_config.file());
        let mut replies: HashMap<&str, Result<Answer, String>> = stream::iter(asked)
            .map(|name| async move {
                let answer = query(program, config, name).await;
                (name, answer.map(|a| a.without(baseline)).map_err(|error| error.to_string()))
            })
            .buffer_unordered(PARALLEL_QUERIES)
            .collect()
            .await;

        for (blocks, members) in sharing {
            if let Some(reply) = members.first().and_then(|speaker| replies.remove(speaker)) {
                self.shared.insert(
                    blocks.clone(),
                    reply.map(|answer| {
                        // An answer that serves several names must not carry the one it was asked for.
                        answer.without_keyword("hostname")
                    }),
                );
            }
            let Some(reply) = self.shared.get(&blocks) else { continue };
            for name in members {
                self.answers.insert(name.to_owned(), reply.clone());
            }
        }
        for (name, reply) in replies {
            self.answers.insert(name.to_owned(), reply);
        }
    }
}
