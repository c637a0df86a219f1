//! One host's turn in a sweep: look, judge, mend, and say what is to be recorded.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::look::{Look, Progress, look};
use super::report::{FindingReport, HostReport, RepairReport};
use super::{SweepOptions, millis, ours, repair};
use crate::fleet::claim::mismatch;
use crate::fleet::link::Fleet;
use crate::fleet::verify::{VerifyOptions, verify};
use crate::host_spec::HostSpec;
use crate::host_state::HostState;
use crate::reason::Reason;
use crate::ssh::HostConnections;
use crate::store::{HostKnowledge, HostSweep, NewEvent, now_ms, trouble_of};
use crate::sweep::{
    Assessment, Code, Finding, FixPlaces, History, HostMemory, Observation, Passport, Repair,
    Severity, arrange, assess, judge,
};
use crate::transport::RemoteCommand;

/// What a turn needs besides the host.
pub(super) struct Visit {
    pub(super) fleet: Arc<Fleet>,
    pub(super) options: Arc<SweepOptions>,
    pub(super) proofs: Arc<Semaphore>,
    /// Whose containers are ours.
    pub(super) owner: Arc<str>,
    pub(super) deadline: Instant,
}

/// What a turn found. States in the report are filled in by the recorder.
pub(super) struct Found {
    pub(super) record: HostSweep,
    pub(super) report: HostReport,
}

impl Visit {
    pub(super) async fn run(
        &self,
        spec: &HostSpec,
        mut known: HostKnowledge,
        connections: &HostConnections,
    ) -> Found {
        let (at_ms, began) = (now_ms(), Instant::now());
        let remembered = known.memory.clone();
        let progress = Progress::default();
        let look = self.look(spec, &known, connections, &progress).await;
        let mut repairs = Vec::new();
        let mut events = Vec::new();
        if progress.uploaded.load(Ordering::Relaxed) {
            let ok = matches!(look.observation, Observation::Probed(_));
            let message = if ok { "the runner was uploaded again" } else { "the upload failed" };
            self.note(spec, &mut known.memory, Repair::UploadRunner, ok, message, &mut events);
            let (repair, message) = (Repair::UploadRunner, message.to_owned());
            repairs.push(RepairReport { repair, ok, message });
        }
        let proof = self.prove(spec, &mut known, &look.observation).await;
        let mut findings = self.judge(spec, &known, &look.observation);
        findings.extend(proof);
        if let Observation::Probed(probed) = &look.observation {
            let mut ours = ours::findings(self, spec, &known, &probed.facts, at_ms).await;
            for ending in self.wanted_endings(&known.memory, &ours) {
                let (ok, message) = ours::end(self, spec, ending).await;
                self.note(spec, &mut known.memory, ending, ok, &message, &mut events);
                repairs.push(RepairReport { repair: ending, ok, message });
                // What was ended is no trouble of the host.
                ours.retain(|finding| !(ok && ours::ends(ending, finding)));
            }
            findings.extend(ours);
        }
        arrange(&mut findings, &self.options.config);
        let done = assess(
            known.state,
            &mut known.memory,
            &known.open,
            &findings,
            now_ms(),
            self.options.max_retry_attempts,
            &self.options.config,
        );
        for wanted in self.wanted_repairs(&known, &findings, &done) {
            let Some(connection) = &look.connection else { break };
            let work = repair::run(&self.fleet.store, spec, connection.as_ref(), wanted);
            let (ok, message) = match tokio::time::timeout_at(self.deadline, work).await {
                Ok(Some(outcome)) => outcome,
                Ok(None) => continue,
                Err(_) => (false, "the time of the sweep was over".to_owned()),
            };
            self.note(spec, &mut known.memory, wanted, ok, &message, &mut events);
            repairs.push(RepairReport { repair: wanted, ok, message });
        }
        let elapsed = began.elapsed();
        self.found(spec, known, remembered, look, findings, done, repairs, events, at_ms, elapsed)
    }

    /// The look, within the host's time and what is left of the pass.
    async fn look(
        &self,
        spec: &HostSpec,
        known: &HostKnowledge,
        connections: &HostConnections,
        progress: &Progress,
    ) -> Look {
        let config = &self.options.config;
        let window = millis(config.recovery_window);
        let upload = self.options.auto_recovery
            && known.state != HostState::Draining
            && known.memory.may_repair(
                Repair::UploadRunner,
                now_ms(),
                window,
                config.recovery_attempts,
            );
        let limit = self.deadline.min(Instant::now() + self.options.probe_timeout);
        let query = ours::query(spec, known, &self.options.keys_file);
        let work = look(spec, &self.options, connections, &query, upload, progress);
        match tokio::time::timeout_at(limit, work).await {
            Ok(look) => look,
            Err(_) => {
                let connected = progress.connected.load(Ordering::Relaxed);
                if connected {
                    // What hangs in it hangs; the next look gets a fresh one.
                    connections.close().await;
                }
                let what = if connected { "no answer in time" } else { "no connection in time" };
                Look::failed(Reason::Deadline, connected, what)
            }
        }
    }

    fn judge(
        &self,
        spec: &HostSpec,
        known: &HostKnowledge,
        observation: &Observation,
    ) -> Vec<Finding> {
        let history = History {
            passport: known.passport.as_ref(),
            memory: &known.memory,
            proofs: &known.proofs,
            last_proof_ms: known.last_proof_ms,
        };
        let config = &self.options.config;
        let mut found = judge(observation, &history, now_ms(), config);
        if let Observation::Probed(probed) = observation
            && let Some((Reason::ClaimMismatch, message)) =
                mismatch(spec.gpus.as_ref(), &probed.facts)
        {
            let expected = "what the fleet file claims";
            found.push(Finding::new(Code::ClaimMismatch, "host", message, expected));
        }
        found
    }

    /// Asks for a proof, where that is wanted and there is something to prove.
    async fn prove(
        &self,
        spec: &HostSpec,
        known: &mut HostKnowledge,
        observation: &Observation,
    ) -> Option<Finding> {
        let options = self.options.pow.as_ref()?;
        let Observation::Probed(probed) = observation else { return None };
        if probed.facts.gpus.devices.is_empty() && !options.allow_reference {
            return None;
        }
        let work = async {
            let _turn = self.proofs.acquire().await;
            self.proof(spec, options).await
        };
        let finding = match tokio::time::timeout_at(self.deadline, work).await {
            Ok(finding) => finding,
            Err(_) => {
                let seen = "no proof before the end of the sweep";
                Some(Finding::new(Code::ProofFailed, "host", seen, "a proof"))
            }
        };
        if finding.is_none() {
            // What the reference answers proves nothing.
            if !options.allow_reference {
                known.last_proof_ms = Some(now_ms());
            }
            let since = now_ms().saturating_sub(millis(self.options.config.history));
            if let Ok(proofs) = self.fleet.store.proof_times_of(&spec.name, since).await {
                known.proofs = proofs;
            }
        }
        finding
    }

    async fn proof(&self, spec: &HostSpec, options: &VerifyOptions) -> Option<Finding> {
        let failed = |seen: String| Finding::new(Code::ProofFailed, "host", seen, "a proof");
        // The pass drops this whole when it is cancelled.
        let never = CancellationToken::new();
        match verify(&self.fleet, spec, options, &|_| (), &never).await {
            Ok(verdict) if verdict.passed => None,
            // A GPU that works for somebody is no failure of the host.
            Ok(verdict) if verdict.reason == Some(Reason::GpuBusy) => {
                Some(failed(verdict.message).severe(Severity::Info))
            }
            Ok(verdict) => Some(failed(verdict.message)),
            Err(error) => Some(failed(format!("{}: {error}", error.reason()))),
        }
    }

    /// What of everyday work is due, whoever holds the host: it takes nothing from anybody.
    fn wanted_endings(&self, memory: &HostMemory, findings: &[Finding]) -> Vec<Repair> {
        if !self.options.auto_recovery {
            return Vec::new();
        }
        let config = &self.options.config;
        let (now, window) = (now_ms(), millis(config.recovery_window));
        let mut wanted = ours::endings(findings);
        wanted.retain(|it| memory.may_repair(*it, now, window, config.recovery_attempts));
        wanted
    }

    fn wanted_repairs(
        &self,
        known: &HostKnowledge,
        findings: &[Finding],
        done: &Assessment,
    ) -> Vec<Repair> {
        let config = &self.options.config;
        // A host with a lease, one that a person set aside, and one that was never well are left
        // alone.
        let free = matches!(known.state, HostState::Ready | HostState::Degraded);
        if !self.options.auto_recovery || !config.restart_services || !free {
            return Vec::new();
        }
        let sure = findings.iter().zip(&done.confirmed).filter(|(_, confirmed)| **confirmed);
        let mut wanted: Vec<Repair> = sure
            .filter_map(|(finding, _)| match finding.code {
                Code::ContainerRuntimeSilent if finding.subject.contains("docker") => {
                    Some(Repair::RestartContainerRuntime)
                }
                Code::GpuPersistenceOff => Some(Repair::EnablePersistence),
                _ => None,
            })
            .collect();
        wanted.dedup();
        let (now, window) = (now_ms(), millis(config.recovery_window));
        wanted.retain(|it| known.memory.may_repair(*it, now, window, config.recovery_attempts));
        wanted
    }

    fn note(
        &self,
        spec: &HostSpec,
        memory: &mut HostMemory,
        repair: Repair,
        ok: bool,
        message: &str,
        events: &mut Vec<NewEvent>,
    ) {
        if !(ok && repair.is_routine()) {
            memory.note_repair(repair, now_ms(), millis(self.options.config.recovery_window));
        }
        events.push(NewEvent {
            kind: if ok { "recovery.succeeded" } else { "recovery.failed" },
            host: Some(spec.name.clone()),
            detail: json!({ "repair": repair.name(), "message": message }),
        });
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one turn, joined once")]
    fn found(
        &self,
        spec: &HostSpec,
        mut known: HostKnowledge,
        remembered: HostMemory,
        look: Look,
        findings: Vec<Finding>,
        done: Assessment,
        repairs: Vec<RepairReport>,
        mut events: Vec<NewEvent>,
        at_ms: i64,
        elapsed: Duration,
    ) -> Found {
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let (mut passport, mut celsius, mut facts) = (None, None, None);
        let (probed, reached) = match look.observation {
            Observation::Failed { connected, .. } => (false, connected),
            Observation::Probed(probed) => {
                let now = probed.facts;
                let seen = Passport::of(&now);
                let same_gpus = match (&seen, &known.passport) {
                    (Some(seen), Some(passport)) => seen.has_gpus_of(passport),
                    (Some(_), None) => true,
                    (None, _) => false,
                };
                if same_gpus && seen != known.passport {
                    passport.clone_from(&seen);
                }
                celsius = temperatures(&now);
                if findings.iter().any(|finding| finding.code == Code::Rebooted) {
                    events.push(NewEvent {
                        kind: "host.rebooted",
                        host: Some(spec.name.clone()),
                        detail: json!({ "boot_id": now.boot_id, "uptime_secs": now.uptime_secs }),
                    });
                }
                remember(&mut known.memory, &now, seen.clone(), at_ms);
                // Full facts are history where something lasting in them changed.
                facts = (known.memory.seen != remembered.seen).then_some(now);
                (true, true)
            }
        };
        let worst = findings
            .iter()
            .zip(&done.confirmed)
            .find(|(finding, sure)| **sure && finding.severity >= Severity::Warning);
        let (reason, message) = match worst {
            Some((finding, _)) => (Some(finding.code), trouble_of(finding).1),
            None => (None, String::new()),
        };
        let trouble = worst.map(|(finding, _)| trouble_of(finding));
        let report = HostReport {
            host: spec.name.clone(),
            ok: false,
            reason,
            message,
            elapsed_ms,
            state: known.state,
            before: known.state,
            findings: reports(spec, &known, &findings, &done, at_ms),
            repairs,
        };
        let sha256 = self.options.artifact.sha256.clone();
        let record = HostSweep {
            spec: spec.clone(),
            at_ms,
            elapsed_ms,
            reached,
            probed,
            event: done.event,
            times: done.times,
            findings,
            known: known.open,
            memory: (known.memory != remembered).then_some(known.memory),
            passport,
            facts,
            runner: look.runner.map(|version| (sha256, version)),
            trouble,
            celsius,
            events,
        };
        Found { record, report }
    }
}

/// Brings what is remembered up to what was found.
fn remember(
    memory: &mut HostMemory,
    facts: &runner_protocol::HostFacts,
    seen: Option<Passport>,
    now_ms: i64,
) {
    memory.seen = seen;
    if let Some(boot_id) = &facts.boot_id {
        memory.boot_id = Some(crate::printable::printable(boot_id));
    }
    let counts: Vec<(String, u64)> = facts
        .gpus
        .devices
        .iter()
        .filter_map(|gpu| {
            Some((crate::printable::printable(&gpu.uuid), gpu.ecc.corrected_lifetime?))
        })
        .collect();
    memory.note_ecc(now_ms, &counts);
}

fn temperatures(facts: &runner_protocol::HostFacts) -> Option<String> {
    let of = |gpu: &runner_protocol::facts::Gpu| {
        gpu.temperature_celsius.map_or_else(String::new, |celsius| celsius.to_string())
    };
    let all: Vec<String> = facts.gpus.devices.iter().map(of).collect();
    (!all.is_empty()).then(|| all.join(","))
}

fn reports(
    spec: &HostSpec,
    known: &HostKnowledge,
    findings: &[Finding],
    done: &Assessment,
    at_ms: i64,
) -> Vec<FindingReport> {
    if findings.is_empty() {
        return Vec::new();
    }
    let places = FixPlaces { host: spec.name.to_string(), ssh: ssh_command(spec) };
    findings
        .iter()
        .zip(&done.times)
        .zip(&done.confirmed)
        .map(|((finding, times), confirmed)| {
            let before = known.open.iter().find(|it| it.finding.key() == finding.key());
            let since_ms = before.map_or(at_ms, |known| known.first_ms);
            let fix = finding.code.fix(&places, &finding.subject);
            FindingReport::new(finding, fix, *confirmed, *times, since_ms)
        })
        .collect()
}

/// The start of a command line that runs the rest on the host.
fn ssh_command(spec: &HostSpec) -> String {
    let endpoint = &spec.endpoint;
    let mut words = vec!["-p".to_owned(), endpoint.port.to_string()];
    if !spec.proxy_jump.is_empty() {
        let jumps = spec.proxy_jump.iter();
        let jumps: Vec<String> =
            jumps.map(|hop| format!("{}@{}:{}", hop.user, hop.address, hop.port)).collect();
        words.extend(["-J".to_owned(), jumps.join(",")]);
    }
    words.push(format!("{}@{}", endpoint.user, endpoint.address));
    RemoteCommand::argv("ssh", words).map_or_else(|_| "ssh".to_owned(), |it| it.line())
}
