//! One look at one host: a connection, one command, its facts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use runner_protocol::FactsQuery;

use super::SweepOptions;
use crate::error_chain::causes;
use crate::host_spec::{HostMode, HostSpec};
use crate::printable::printable;
use crate::reason::Reason;
use crate::runner::{self, Session, Started};
use crate::ssh::{Connection, HostConnections, Lane};
use crate::store::now_ms;
use crate::sweep::{Observation, Probed};

/// How far a look has come, for whoever ends it before its time.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// A connection stands.
    pub(super) connected: AtomicBool,
    /// The runner was being uploaded.
    pub(super) uploaded: AtomicBool,
}

/// What a look gave.
pub(super) struct Look {
    pub(super) observation: Observation,
    /// Version of the runner that answered.
    pub(super) runner: Option<String>,
    /// The connection, for what is to be mended.
    pub(super) connection: Option<Arc<Connection>>,
}

impl Look {
    pub(super) fn failed(reason: Reason, connected: bool, message: &str) -> Self {
        let message = printable(message);
        let observation = Observation::Failed { reason, connected, message };
        Self { observation, runner: None, connection: None }
    }
}

/// Looks. `upload` allows to put a runner there that is missing.
pub(super) async fn look(
    spec: &HostSpec,
    options: &SweepOptions,
    connections: &HostConnections,
    query: &FactsQuery,
    upload: bool,
    progress: &Progress,
) -> Look {
    let connect = async || {
        let connection = connections.get(Lane::Control).await;
        connection.map_err(|error| Look::failed(error.reason(), false, &whole(&error)))
    };
    let mut connection = match connect().await {
        Ok(connection) => connection,
        Err(look) => return look,
    };
    progress.connected.store(true, Ordering::Relaxed);
    let mut answer = ask(spec, options, &connection, query, upload, progress).await;
    if answer.is_err() && connection.is_gone() {
        // A connection that was kept may have died since; that is no trouble of the host yet.
        progress.connected.store(false, Ordering::Relaxed);
        connection = match connect().await {
            Ok(connection) => connection,
            Err(look) => return look,
        };
        progress.connected.store(true, Ordering::Relaxed);
        answer = ask(spec, options, &connection, query, upload, progress).await;
    }
    match answer {
        Ok((probed, version)) => Look {
            observation: Observation::Probed(Box::new(probed)),
            runner: Some(version),
            connection: Some(connection),
        },
        Err((reason, message)) => {
            let mut look = Look::failed(reason, true, &message);
            look.connection = Some(connection);
            look
        }
    }
}

async fn ask(
    spec: &HostSpec,
    options: &SweepOptions,
    connection: &Connection,
    query: &FactsQuery,
    upload: bool,
    progress: &Progress,
) -> Result<(Probed, String), (Reason, String)> {
    let told = |error: runner::Error| (error.reason(), whole(&error));
    let mut note = |_, _| progress.uploaded.store(true, Ordering::Relaxed);
    // A host whose runner the operator places by hand is never written to.
    let upload = upload && spec.mode == HostMode::Ssh;
    let upload: Option<&mut runner::session::UploadProgress<'_>> = upload.then_some(&mut note);
    let work_dir = spec.work_dir.as_deref();
    let started = Session::start(connection, work_dir, &options.artifact, upload).await;
    let mut session = match started.map_err(told)? {
        Started::Running { session, .. } => session,
        Started::NotThere(host) if host.get("state") == "damaged" => {
            return Err((Reason::Verify, "its SHA-256 is another one".to_owned()));
        }
        Started::NotThere(_) => {
            return Err((Reason::RunnerMissing, "it is not in its place".to_owned()));
        }
    };
    let asked_ms = now_ms();
    let facts = session.facts(query.clone()).await;
    let answered_ms = now_ms();
    let version = printable(&session.hello().runner_version);
    session.close().await;
    let facts = facts.map_err(told)?;
    Ok((Probed { facts, asked_ms, answered_ms }, version))
}

/// An error with its innermost cause.
fn whole(error: &(dyn std::error::Error + 'static)) -> String {
    match causes(error).last() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
