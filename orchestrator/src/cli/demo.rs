//! `orchestrator demo`.

use std::path::Path;
use std::sync::Arc;

use russh::keys::ssh_key::LineEnding;

use super::app::App;
use super::deploy::deploy;
use super::failure::{Exit, Failure};
use super::report::Tone;
use super::{models, sweep, verify, verify_proof};
use crate::embedded_host::{EmbeddedFleet, EmbeddedOptions, new_key};
use crate::fleet::sweep::SweepOptions;
use crate::fleet::{DeployOptions, Fleet, VerifyOptions};
use crate::host_spec::HostSpec;
use crate::host_state::HostState;
use crate::runner::Artifact;
use crate::signing_key::SigningKey;
use crate::store::Store;
use crate::sweep::Code;

/// Everything on this machine: embedded SSH hosts on loopback, deploy, facts, sweep, verify, audit
///
/// Starts SSH servers inside this process (no root, no sshd), deploys the real runner to them over
/// real SSH connections, deploys again to show that nothing is left to do, and shows what the
/// runner found. Then it sweeps the hosts, removes a runner, and shows how a sweep finds and mends
/// that; and it has a host prove itself by the CPU reference, which shows nothing of a GPU. Keys, homes and database lie in a temporary directory that is removed at the end.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many embedded hosts
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=200))]
    hosts: u16,
    /// The runner to upload; without it the one beside this program
    #[arg(long, value_name = "FILE", env = "ORCHESTRATOR_RUNNER")]
    runner: Option<std::path::PathBuf>,
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    // First what can fail for want of a build.
    let artifact = app.artifact(args.runner.as_deref())?;
    let folder =
        tempfile::Builder::new().prefix("orchestrator-demo-").tempdir().map_err(|error| {
            Failure::user("cannot make a temporary directory").because(error).hint("set TMPDIR")
        })?;
    let key = new_key().map_err(|error| Failure::user("cannot make a key").because(error))?;
    let options = EmbeddedOptions::new(
        folder.path().join("hosts"),
        args.hosts.into(),
        key.public_key().clone(),
    );
    let hosts = EmbeddedFleet::start(options)
        .await
        .map_err(|error| Failure::user("cannot start the embedded hosts").because(error))?;
    let shown = show(app, &hosts, folder.path(), &key, artifact).await;
    hosts.shutdown().await;
    app.close().await;
    let removed = folder.close();
    let exit = shown?;
    removed.map_err(|error| Failure::user("cannot remove the demo's files").because(error))?;
    if exit == Exit::Ok {
        app.report.note("\nThe demo's hosts, keys, files and database are gone again.");
        app.report.note("Next, with your own hosts: orchestrator init, then orchestrator deploy --hosts fleet.toml");
    }
    Ok(exit)
}

async fn show(
    app: &App<'_>,
    hosts: &EmbeddedFleet,
    folder: &Path,
    key: &russh::keys::PrivateKey,
    artifact: Artifact,
) -> Result<Exit, Failure> {
    let fleet_file = folder.join("fleet.toml");
    let identity = folder.join("id_ed25519");
    write_private(&identity, key)?;
    let text = fleet_toml(hosts, &identity);
    std::fs::write(&fleet_file, &text)
        .map_err(|error| Failure::user("cannot write the demo's fleet file").because(error))?;
    let store = Store::open(&folder.join("orchestrator.db")).await?;
    app.use_store(store);

    heading(app, "The fleet file: embedded demo hosts, inside this process, on loopback");
    app.report.note(text.trim_end());
    let specs = app.fleet_file(&fleet_file, None).await?;
    let fleet = Arc::new(app.fleet(&specs, false).await?);
    let options = DeployOptions {
        artifact: Arc::new(artifact),
        parallel: app.config.executor_management.parallel,
        dry_run: false,
    };
    heading(app, "orchestrator deploy: connect, check the host key, upload the runner, read facts");
    let exit = deploy(app, fleet.clone(), specs.clone(), options.clone()).await?;
    if exit != Exit::Ok {
        return Ok(exit);
    }
    heading(app, "orchestrator deploy, again: nothing left to do");
    let exit = deploy(app, fleet.clone(), specs.clone(), options.clone()).await?;
    if exit != Exit::Ok {
        return Ok(exit);
    }
    if let Some(first) = specs.first() {
        heading(app, &format!("orchestrator hosts show {}", first.name));
        super::hosts::show(app, first.name.as_str()).await?;
    }
    let artifact = options.artifact;
    sweeps(app, hosts, &fleet, &specs, &artifact).await?;
    if let Some(first) = specs.first() {
        let exit = proof(app, folder, &fleet, first, artifact).await?;
        if exit != Exit::Ok {
            return Ok(exit);
        }
    }
    heading(app, "orchestrator audit verify");
    super::audit::verify(app, None).await
}

/// A pass over hosts that are well, one that finds a lost runner, and one that puts it back.
async fn sweeps(
    app: &App<'_>,
    hosts: &EmbeddedFleet,
    fleet: &Arc<Fleet>,
    specs: &[HostSpec],
    artifact: &Arc<Artifact>,
) -> Result<(), Failure> {
    let pass = async |auto_recovery: bool| {
        let mut options =
            SweepOptions { auto_recovery, ..sweep::configured(app, Arc::clone(artifact)) };
        let is_of_machine = |code: &&Code| !code.is_of_reach();
        options.config.ignore =
            Code::ALL.iter().filter(is_of_machine).map(ToString::to_string).collect();
        sweep::swept(app, fleet, specs.to_vec(), options).await
    };
    heading(app, "orchestrator sweep: one look at every host, one command each");
    app.report.note(
        "(here it judges whether hosts and runners answer; what this machine's own disks, load, \
         clock and driver are like is left out)",
    );
    pass(true).await?;
    let Some(host) = hosts.hosts().first() else { return Ok(()) };
    // Where the runner is put without a `work_dir` in the fleet file.
    let runner = host.home.join(".cache/orchestrator");
    std::fs::remove_dir_all(&runner).map_err(|error| {
        Failure::user(format!("cannot remove the runner of {}", host.name)).because(error)
    })?;
    heading(app, &format!("The runner of {} is removed. A sweep that only looks:", host.name));
    let found = pass(false).await?;
    heading(app, "A sweep with auto_recovery, as it is without configuration:");
    let mended = pass(true).await?;
    let state = |report: &crate::fleet::sweep::SweepReport| {
        let of_host = report.hosts.iter().find(|it| it.host.as_str() == host.name);
        of_host.map(|it| it.state)
    };
    if (state(&found), state(&mended)) != (Some(HostState::Degraded), Some(HostState::Ready)) {
        return Err(Failure::user("the sweeps did not find and mend what was done to a host"));
    }
    Ok(())
}

/// A proof by the CPU reference, and the check of its document that needs no host.
async fn proof(
    app: &App<'_>,
    folder: &Path,
    fleet: &Fleet,
    spec: &HostSpec,
    artifact: Arc<Artifact>,
) -> Result<Exit, Failure> {
    let key = Arc::new(SigningKey::load_or_create(folder).map_err(verify::no_key)?);
    let trusted = [key.public_key()];
    let options = VerifyOptions { allow_reference: true, ..VerifyOptions::new(artifact, key) };
    let file = folder.join("proof.json");
    heading(app, &format!("orchestrator verify {} --allow-reference --proof-out FILE", spec.name));
    let exit = verify::challenge(app, fleet, spec, &options, Some(&file)).await?;
    if exit != Exit::Ok {
        return Ok(exit);
    }
    heading(app, "orchestrator verify-proof FILE --allow-reference: offline, by the same verifier");
    let (table, _) = models::load(None)?;
    verify_proof::check(app, &[file], &trusted, &table, true)
}

fn heading(app: &App<'_>, text: &str) {
    app.report.note(&format!("\n{}", app.report.err_tone(&format!("== {text}"), Tone::Bold)));
}

/// The fleet file of the demo. Every value is of our own making: names, loopback addresses, ports,
/// fingerprints and a path that TOML's literal strings can hold.
fn fleet_toml(hosts: &EmbeddedFleet, identity: &Path) -> String {
    let mut text = format!(
        "[defaults]\nuser = \"demo\"\nidentity_file = '{}'\nagent = false\n",
        identity.display()
    );
    for host in hosts.hosts() {
        text += &format!(
            "\n[[hosts]]\nname = \"{}\"\naddress = \"{}\"\nport = {}\nhost_key = \"{}\"\n",
            host.name, host.address, host.port, host.host_key_fingerprint
        );
    }
    text
}

fn write_private(path: &Path, key: &russh::keys::PrivateKey) -> Result<(), Failure> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let failed = || Failure::user("cannot write the demo's key");
    let text = key.to_openssh(LineEnding::LF).map_err(|error| failed().because(error))?;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| failed().because(error))
}
