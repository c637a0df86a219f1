//! What the verbs about containers share: which container is meant, and what its errors are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::app::App;
use super::failure::Failure;
use crate::fleet::Fleet;
use crate::fleet::containers::{Address, ContainerError, HostEngine};
use crate::runner::Artifact;

/// The runner, for whatever needs one on the host.
#[derive(Debug, clap::Args)]
pub struct RunnerArgs {
    /// The runner, which passes output on and connects where sshd does not; without it the one
    /// beside this program
    #[arg(long, value_name = "FILE", env = "ORCHESTRATOR_RUNNER")]
    pub runner: Option<PathBuf>,
}

/// A container's host, reached.
pub struct Reached {
    /// For what is recorded.
    pub fleet: Arc<Fleet>,
    /// The host's engine.
    pub host: HostEngine,
    /// How the container is named there.
    pub what: String,
}

/// Reaches the host of the container that `text` names.
pub async fn reach(app: &App<'_>, text: &str, runner: Option<&Path>) -> Result<Reached, Failure> {
    let address = Address::parse(text).map_err(|error| {
        Failure::user(format!("{text:?} names no container"))
            .because(error)
            .hint("HOST/NAME, HOST/ID, or the beginning of the id that `orchestrator ps` shows")
    })?;
    let store = app.store().await?;
    let cannot = |error| failed(&format!("cannot find the container {text}"), error);
    let (name, what) = address.place(store).await.map_err(cannot)?;
    let spec = match store.host(&name).await? {
        Some(record) => record.spec,
        None => return Err(app.unknown_host(&name).await),
    };
    let fleet = Arc::new(app.fleet(std::slice::from_ref(&spec), false).await?);
    let artifact = runner_if_there(app, runner)?;
    let open = HostEngine::open(&fleet, &spec, artifact);
    let host = app.until_cancelled(open).await?.map_err(|error| {
        failed(&format!("cannot reach the containers of {name}"), error)
    })?;
    Ok(Reached { fleet, host, what })
}

/// The runner that was named; without a name the one beside this program, if there is one.
pub fn runner_if_there(app: &App<'_>, path: Option<&Path>) -> Result<Option<Arc<Artifact>>, Failure> {
    match (app.artifact(path), path) {
        (Ok(artifact), _) => Ok(Some(Arc::new(artifact))),
        (Err(_), None) => Ok(None),
        (Err(failure), Some(_)) => Err(failure),
    }
}

/// The failure that an error about a container is.
pub fn failed(what: &str, error: ContainerError) -> Failure {
    use crate::store::LeaseError;
    match error {
        ContainerError::Store(error) | ContainerError::Lease(LeaseError::Store(error)) => {
            error.into()
        }
        ContainerError::Cancelled => Failure::interrupted(),
        ContainerError::Plan(_)
        | ContainerError::Auth(_)
        | ContainerError::NoRunner
        | ContainerError::NotFound { .. }
        | ContainerError::Ambiguous { .. } => told(Failure::user(what), error),
        error => told(Failure::remote(what, error.reason()), error),
    }
}

fn told(mut failure: Failure, error: ContainerError) -> Failure {
    failure.reason = error.reason();
    if let Some(hint) = error.hint() {
        failure = failure.hint(hint);
    }
    let chain = error.causes();
    match error {
        // Its causes are the hosts, which no error chain has room for.
        ContainerError::NoHostFits(_) => failure.because(Listed(chain.join("\n"))),
        error => failure.because(error),
    }
}

/// A cause of several lines.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Listed(String);
