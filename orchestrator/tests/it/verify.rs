//! A whole proof-of-work over SSH, with the CPU reference: embedded hosts, the real runner, the
//! built command line, a real database.

pub mod fake_gpus;
mod gpus;
pub mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use orchestrator::embedded_host::{EmbeddedFleet, EmbeddedOptions, new_key};
use orchestrator::fleet::{Fleet, GpuStep, VerifyError, VerifyEvent, VerifyOptions, verify};
use orchestrator::fleet_file::{Environment, FleetFile, SshConfig, resolve};
use orchestrator::host_spec::HostSpec;
use orchestrator::ids::HostName;
use orchestrator::pow::{ChallengeRecord, SignedProof, examine};
use orchestrator::reason::Reason;
use orchestrator::runner::Artifact;
use orchestrator::signing_key::SigningKey;
use orchestrator::ssh::{Limits, SshContext, TrustPolicy};
use orchestrator::store::{ChallengeEnd, JudgedProof, NewChallenge, NewEvent, Store};
use pow_kernels::{Challenge, ModelTable};
use russh::keys::ssh_key::LineEnding;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// One embedded host, and what an operator has on his machine.
struct Site {
    folder: TempDir,
    hosts: EmbeddedFleet,
}

impl Site {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = new_key().unwrap();
        let options =
            EmbeddedOptions::new(folder.path().join("hosts"), 1, key.public_key().clone());
        let hosts = EmbeddedFleet::start(options).await.unwrap();
        let identity = folder.path().join("key");
        std::fs::write(&identity, key.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&identity, private).unwrap();
        let host = &hosts.hosts()[0];
        let text = format!(
            "[[hosts]]\nname = \"gpu-01\"\nuser = \"demo\"\nagent = false\nidentity_file = '{}'\n\
             address = \"{}\"\nport = {}\nhost_key = \"{}\"\n",
            identity.display(),
            host.address,
            host.port,
            host.host_key_fingerprint
        );
        std::fs::write(folder.path().join("fleet.toml"), text).unwrap();
        Self { folder, hosts }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn state(&self) -> PathBuf {
        self.path("state/orchestrator")
    }

    async fn store(&self) -> Store {
        Store::open(&self.state().join("orchestrator.db")).await.unwrap()
    }

    /// The command line in a sealed environment, with JSON output. On another thread: the host is
    /// served by this one's runtime.
    async fn run(&self, arguments: &[&str]) -> (i32, Value, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrator"));
        command
            .arg("--json")
            .args(arguments)
            .env_clear()
            .env("HOME", self.folder.path())
            .env("XDG_STATE_HOME", self.path("state"))
            .env("ORCHESTRATOR_RUNNER", runner())
            .current_dir(self.folder.path());
        let Output { status, stdout, stderr } =
            tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let words = String::from_utf8(stderr).unwrap();
        let json = serde_json::from_slice(&stdout)
            .unwrap_or_else(|_| panic!("{}\n{words}", String::from_utf8_lossy(&stdout)));
        (status.code().unwrap(), json, words)
    }

    async fn spec(&self) -> HostSpec {
        let file = FleetFile::load(&self.path("fleet.toml")).unwrap();
        let environment = Environment {
            home: self.folder.path().to_owned(),
            local_user: None,
            ssh_config: SshConfig::Usual,
            ssh_program: "ssh".into(),
        };
        resolve(&file, &environment).await.unwrap().hosts.remove(0)
    }

    async fn fleet(&self) -> Fleet {
        let ssh = SshContext::new(Limits::default(), TrustPolicy::default());
        Fleet { store: self.store().await, ssh: ssh.into(), actor: "ops@desk".to_owned() }
    }

    fn options(&self, allow_reference: bool) -> VerifyOptions {
        let key = SigningKey::load_or_create(&self.state()).unwrap();
        let artifact = Arc::new(Artifact::read(&runner()).unwrap());
        VerifyOptions { allow_reference, ..VerifyOptions::new(artifact, Arc::new(key)) }
    }

    /// The processes that run an executable below the host's home, to be waited for.
    fn runners(&self) -> Vec<rustix::fd::OwnedFd> {
        let home = &self.hosts.hosts()[0].home;
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_str().unwrap_or_default().parse() else { continue };
            let executable = std::fs::read_link(entry.path().join("exe")).unwrap_or_default();
            if executable.starts_with(home) {
                let pid = Pid::from_raw(pid).unwrap();
                found.extend(pidfd_open(pid, PidfdFlags::empty()));
            }
        }
        found
    }
}

/// The runner of this build.
fn runner() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_orchestrator")).with_file_name("remote-runner");
    assert!(path.exists(), "build it first: cargo build -p remote-runner");
    path
}

fn host() -> HostName {
    HostName::new("gpu-01").unwrap()
}

const VERIFY: [&str; 4] = ["verify", "gpu-01", "--hosts", "fleet.toml"];

/// The kinds of all audit events; the chain must be whole.
async fn audit(store: &Store) -> Vec<String> {
    assert_eq!(store.audit_verify(None).await.unwrap().fault, None);
    store.events_after(0, None, 100).await.unwrap().into_iter().map(|event| event.kind).collect()
}

/// Blocks until all of them have ended: without a limit, so that it hangs if one does not.
async fn ended(processes: Vec<rustix::fd::OwnedFd>) {
    let wait = move || {
        for process in &processes {
            let mut waiting = [rustix::event::PollFd::new(process, rustix::event::PollFlags::IN)];
            assert_eq!(rustix::event::poll(&mut waiting, None).unwrap(), 1);
        }
    };
    tokio::task::spawn_blocking(wait).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reference_challenge_is_judged_stored_signed_exported_and_checked_again() {
    let site = Site::start().await;
    let arguments = [&VERIFY[..], &["--allow-reference", "--proof-out", "proof.json"]].concat();
    let (status, json, words) = site.run(&arguments).await;
    assert_eq!((status, &json["ok"]), (0, &json!(true)), "{json}\n{words}");
    let gpu = &json["gpus"][0];
    assert_eq!(gpu["backend"], "reference");
    assert_eq!(gpu["outcome"], "unproven", "the reference is never accepted");
    assert_eq!(
        (&gpu["uuid"], &gpu["telemetry"], &json["tries"]),
        (&json!(null), &json!(null), &json!(1))
    );
    assert!(json["message"].as_str().unwrap().contains("nothing is shown of a GPU"));
    assert!(words.contains("proves nothing of a GPU"), "{words}");
    assert_eq!(site.runners().len(), 0);

    // What is stored is what was exported, and names the host's key.
    let store = site.store().await;
    let rows = store.challenges(&host(), 10).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0].outcome, &rows[0].reason), (&Some("unproven".to_owned()), &None));
    assert_eq!(gpu["challenge"], rows[0].id);
    let file = std::fs::read(site.path("proof.json")).unwrap();
    assert_eq!(rows[0].proof_json.as_deref().unwrap().as_bytes(), file);
    assert_eq!(audit(&store).await, ["verify.passed"]);
    let document = SignedProof::from_json(&file).unwrap();
    let challenge = Challenge::try_from(&document.record.challenge).unwrap();
    use base64::Engine as _;
    let id = base64::engine::general_purpose::STANDARD_NO_PAD.encode(challenge.context.host_id);
    assert_eq!(site.hosts.hosts()[0].host_key_fingerprint, format!("SHA256:{id}"));

    // The host is not needed any more.
    let Site { folder, hosts } = site;
    hosts.shutdown().await;
    let offline = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_orchestrator"))
            .args(["--json", "verify-proof"])
            .args(arguments)
            .env_clear()
            .env("HOME", folder.path())
            .env("XDG_STATE_HOME", folder.path().join("state"))
            .current_dir(folder.path())
            .output()
            .unwrap();
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code().unwrap(), json)
    };
    let (status, json) = offline(&["proof.json", "--allow-reference"]);
    assert_eq!((status, &json["ok"]), (0, &json!(true)), "{json}");
    let (status, json) = offline(&["proof.json"]);
    assert_eq!((status, &json["failed_check"]), (4, &json!("backend")), "{json}");
    assert_eq!(json["reason"], "rejected");
    let stranger = "ab".repeat(32);
    let (status, json) = offline(&["proof.json", "--allow-reference", "--signer", &stranger]);
    assert_eq!((status, &json["failed_check"]), (4, &json!("signer")), "{json}");
    let mut longer = file.clone();
    longer.push(b' ');
    std::fs::write(folder.path().join("longer.json"), longer).unwrap();
    let (status, json) = offline(&["longer.json", "--allow-reference"]);
    assert_eq!((status, &json["failed_check"]), (4, &json!("document")), "{json}");
    let (status, json) = offline(&["missing.json"]);
    assert_eq!((status, &json["ok"]), (1, &json!(false)), "{json}");

    // Whatever byte is changed, something fails; and whoever signs it again changes no fact.
    tampering(&file, &document);
}

fn tampering(file: &[u8], document: &SignedProof) {
    let trusted = [document.signer.0];
    let failure = |document: &SignedProof| {
        let found = examine(document, &trusted, ModelTable::embedded(), true).unwrap();
        assert!(!found.passed);
        found.first_failure().unwrap().check
    };
    let passes = |text: &[u8]| match SignedProof::from_json(text) {
        Ok(document) => examine(&document, &trusted, ModelTable::embedded(), true).unwrap().passed,
        Err(_) => false,
    };
    assert!(passes(file));
    // The first part has every field but the openings' bodies; of those, places all over the file.
    // Reading a document is dear, so not each of half a million places is tried.
    let places = (0..2_000).chain((2_000..file.len()).step_by(9_973)).chain([file.len() - 1]);
    for place in places.step_by(29) {
        let mut changed = file.to_vec();
        changed[place] = if changed[place] == b'1' { b'2' } else { b'1' };
        assert!(!passes(&changed), "byte {place}");
    }
    let folder = tempfile::tempdir().unwrap();
    let key = SigningKey::load_or_create(folder.path()).unwrap();
    let signed_again = |change: &dyn Fn(&mut SignedProof)| {
        let mut changed = document.clone();
        change(&mut changed);
        let changed = SignedProof::new(changed.record, &key).unwrap();
        let found = examine(&changed, &[key.public_key()], ModelTable::embedded(), true).unwrap();
        assert!(!found.passed);
        found.first_failure().unwrap().check
    };
    let mut other = document.clone();
    other.record.timings.chain_ns += 1;
    assert_eq!(failure(&other), "signature");
    assert_eq!(signed_again(&|document| document.record.timings.chain_ns += 1), "transcript");
    assert_eq!(
        signed_again(&|document| document.record.challenge.nonce_open.0[0] ^= 1),
        "transcript"
    );
    assert_eq!(
        signed_again(&|document| document.record.proof.backend = pow_kernels::Backend::Cuda),
        "label"
    );
    let relabelled = signed_again(&|document| {
        document.record.backend = pow_kernels::Backend::Cuda;
        document.record.proof.backend = pow_kernels::Backend::Cuda;
    });
    assert_eq!(relabelled, "label", "it was the reference that was asked");
    assert_eq!(signed_again(&|document| document.record.challenge.context.0[0] ^= 1), "context");
    let reopened = signed_again(&|document| {
        let record = &mut document.record;
        record.proof.probe_openings[0].chunk.0[3] ^= 1;
        let challenge = Challenge::try_from(&record.challenge).unwrap();
        record.transcript.0 = challenge.transcript_hash(&record.proof, &record.timings);
    });
    assert_eq!(reopened, "openings");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_gpu_and_without_leave_the_cpu_is_not_taken() {
    let site = Site::start().await;
    let (status, json, words) = site.run(&VERIFY).await;
    assert_eq!(status, 5, "{json}\n{words}");
    let reason = json["reason"].as_str().unwrap();
    let causes = json["causes"].to_string();
    // A machine with a driver lacks the kernels instead.
    match reason {
        "no_driver" => assert!(causes.contains("No NVIDIA driver found"), "{causes}"),
        "no_kernels" => assert!(causes.contains("CUDA kernels required"), "{causes}"),
        other => panic!("{other}: {json}"),
    }
    let store = site.store().await;
    assert_eq!(store.challenges(&host(), 10).await.unwrap(), [], "nothing was asked");
    assert_eq!(audit(&store).await, ["verify.failed"]);
    site.hosts.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_is_not_written_over_another_file() {
    let site = Site::start().await;
    std::fs::write(site.path("proof.json"), "evidence").unwrap();
    let arguments = [&VERIFY[..], &["--allow-reference", "--proof-out", "proof.json"]].concat();
    let (status, json, _) = site.run(&arguments).await;
    assert_eq!(status, 1, "{json}");
    assert_eq!(std::fs::read_to_string(site.path("proof.json")).unwrap(), "evidence");
    assert_eq!(site.runners().len(), 0);
    site.hosts.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_in_the_middle_nothing_runs_on_and_the_store_says_so() {
    let site = Site::start().await;
    let (fleet, spec) = (site.fleet().await, site.spec().await);
    let cancel = CancellationToken::new();
    let running = Mutex::new(Vec::new());
    let on_step = |event| {
        if event == (VerifyEvent::Gpu { gpu: 0, step: GpuStep::Probing }) {
            running.lock().unwrap().extend(site.runners());
            cancel.cancel();
        }
    };
    let stopped = verify(&fleet, &spec, &site.options(true), &on_step, &cancel).await;
    assert!(matches!(stopped, Err(VerifyError::Cancelled)), "{stopped:?}");
    let running = running.into_inner().unwrap();
    assert_eq!(running.len(), 2, "the runner and its prover were there");
    ended(running).await;
    let rows = fleet.store.challenges(&host(), 10).await.unwrap();
    assert_eq!(rows[0].outcome.as_deref(), Some("failed"));
    assert_eq!(rows[0].reason.as_deref(), Some("cancelled"));
    assert_eq!(audit(&fleet.store).await, ["verify.failed"]);
    site.hosts.shutdown().await;
}

/// As by a kill: the future is dropped where it is, and nothing is recorded after that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_the_challenge_stands_without_an_end() {
    let site = Site::start().await;
    let (fleet, spec, options) = (site.fleet().await, site.spec().await, site.options(true));
    let running = Mutex::new(Vec::new());
    let killed = tokio::sync::Notify::new();
    let on_step = |event| {
        if event == (VerifyEvent::Gpu { gpu: 0, step: GpuStep::Probing }) {
            running.lock().unwrap().extend(site.runners());
            killed.notify_one();
        }
    };
    let never = CancellationToken::new();
    tokio::select! {
        done = verify(&fleet, &spec, &options, &on_step, &never) => panic!("{done:?}"),
        () = killed.notified() => {}
    }
    let running = running.into_inner().unwrap();
    assert_eq!(running.len(), 2);
    ended(running).await;
    let rows = fleet.store.challenges(&host(), 10).await.unwrap();
    assert_eq!((rows.len(), &rows[0].outcome, rows[0].ended_ms), (1, &None, None));
    assert_eq!(audit(&fleet.store).await, Vec::<String>::new());
    site.hosts.shutdown().await;
}

#[tokio::test]
async fn a_challenge_ends_once_and_one_that_was_never_issued_does_not_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("o.db")).await.unwrap();
    let issued = orchestrator::pow::reference_challenge([1; 32], 2).unwrap();
    let challenge = NewChallenge {
        id: "ab".repeat(16),
        host: host(),
        backend: "reference",
        gpu_uuid: None,
        mode: "quick",
        model: None,
        challenge_json: serde_json::to_string(&ChallengeRecord::from(&issued)).unwrap(),
    };
    store.record_challenges("ops@desk", std::slice::from_ref(&challenge)).await.unwrap();
    store.record_challenges("ops@desk", std::slice::from_ref(&challenge)).await.unwrap_err();
    let end = ChallengeEnd::Failed { reason: Reason::Runner, message: "gone".to_owned() };
    let event = || NewEvent { kind: "verify.failed", host: Some(host()), detail: json!({}) };
    let ends = async |id: &str, end: &ChallengeEnd| {
        let ends = [(id.to_owned(), end.clone())];
        store.record_challenge_ends("ops@desk", &ends, &[event()]).await
    };
    ends("never", &end).await.unwrap_err();
    ends(&challenge.id, &end).await.unwrap();
    let judged = JudgedProof { outcome: "accepted", ..JudgedProof::default() };
    ends(&challenge.id, &ChallengeEnd::Judged(Box::new(judged))).await.unwrap_err();
    let rows = store.challenges(&host(), 10).await.unwrap();
    assert_eq!(rows[0].outcome.as_deref(), Some("failed"));
    assert_eq!(audit(&store).await, ["verify.failed"], "what changed nothing is no event");
}
