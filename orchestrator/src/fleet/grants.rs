//! SSH grants to validators: placing, revoking, and the reconciler that ends what is over.
//!
//! The database is first: a grant is noted before its line is written, and its end is noted before
//! its line is taken out, so that whatever dies in between is put right by [`reconcile`]. On the
//! host one script holds the file's lock for the whole of an edit, and the file is replaced in
//! one step.

mod remote;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;

use super::link::{Fleet, Link, LinkError};
use crate::error_chain::causes;
use crate::grants::{self, Expiry, FromAddress, InvalidPublicKey, PublicKey, SshdVersion};
use crate::host_spec::HostSpec;
use crate::ids::HostName;
use crate::reason::Reason;
use crate::store::{
    self, GrantEnd, GrantFilter, GrantLimits, GrantRow, GrantState, LimitReached, NewGrant, now_ms,
};
use crate::sweep::KnownGrant;

/// How long a grant may be pending: far longer than an edit takes, whose parts have deadlines.
const PENDING_MS: i64 = 10 * 60 * 1000;

/// More open grants on one host than any limit allows.
const MOST_GRANTS: u32 = 10_000;

/// Hosts that are granted on at a time.
const PARALLEL: usize = 64;

/// What a validator asks for.
#[derive(Debug, Clone)]
pub struct GrantRequest {
    /// Its hotkey.
    pub validator: String,
    /// The key that it will log in with.
    pub public_key: PublicKey,
    /// How long it shall hold.
    pub duration: Duration,
    /// From where it will log in.
    pub from: FromAddress,
}

/// What holds for all grants.
#[derive(Debug, Clone)]
pub struct GrantRules {
    /// How many there may be.
    pub limits: GrantLimits,
    /// The longest duration.
    pub max_duration: Duration,
    /// The file on hosts; `~` is the login's home.
    pub keys_file: String,
}

impl GrantRules {
    /// The rules of a configuration.
    #[must_use]
    pub fn of(config: &crate::config::SshSessionConfig) -> Self {
        Self {
            limits: GrantLimits {
                per_validator: config.max_sessions_per_validator,
                per_host: config.max_sessions_per_host,
                rate: config.session_rate_limit,
                window_ms: i64::try_from(config.rate_limit_window.as_millis()).unwrap_or(i64::MAX),
            },
            max_duration: config.max_session_duration,
            keys_file: config.authorized_keys_file.clone(),
        }
    }
}

/// Why a grant was not placed, revoked or looked after.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GrantError {
    /// The key cannot be granted.
    #[error(transparent)]
    Key(#[from] InvalidPublicKey),
    /// There are enough grants.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// It shall hold for too long, or for no time.
    #[error("a grant holds for 1 s to {} s, not {} s", most.as_secs(), asked.as_secs())]
    Duration {
        /// What was asked for.
        asked: Duration,
        /// The most there is.
        most: Duration,
    },
    /// The host cannot be reached, or the database not be used.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The command failed.
    #[error("cannot {operation}")]
    Transport {
        /// What was being done.
        operation: &'static str,
        /// How it failed.
        source: crate::transport::Error,
    },
    /// The host's script did not do it.
    #[error("the host did not take the change of {file}: {detail}")]
    Refused {
        /// The file.
        file: String,
        /// The script's word for why.
        what: String,
        /// What its tools said.
        detail: String,
    },
    /// The script said nothing that makes sense.
    #[error("the host did not answer as expected: {0}")]
    NoAnswer(String),
    /// The file is too large.
    #[error("{file} has {bytes} bytes, more than {}", grants::MAX_FILE_BYTES)]
    TooLarge {
        /// The file.
        file: String,
        /// Its size.
        bytes: u64,
    },
    /// sshd knows no expiry, or cannot be told one.
    #[error("its sshd ({0}) cannot limit the time of a key")]
    OldSshd(String),
    /// The file's path cannot stand in a line of it.
    #[error("the path {0:?} has characters that no grant can name")]
    Path(String),
    /// Processes of ended sessions are still there.
    #[error("{0} processes of the ended grants still run")]
    StillRunning(u64),
    /// There is no such grant.
    #[error("there is no grant {0}")]
    Unknown(String),
}

impl GrantError {
    /// The stable code.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Key(_) | Self::Duration { .. } | Self::Unknown(_) | Self::Path(_) => {
                Reason::Input
            }
            Self::Limit(_) => Reason::Limit,
            Self::Link(error) => error.reason(),
            Self::Transport { source, .. } => source.reason(),
            Self::Refused { what, detail, .. } => match what.as_str() {
                "lock" | "changed" => Reason::Locked,
                "cut" => Reason::Upload,
                _ if detail.contains("No space left") => Reason::NoSpace,
                _ => Reason::ReadOnly,
            },
            Self::NoAnswer(_) | Self::OldSshd(_) | Self::TooLarge { .. } => Reason::Exec,
            Self::StillRunning(_) => Reason::Exec,
        }
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Link(error) => error.hint(),
            Self::Transport { source, .. } => source.hint(),
            Self::Refused { .. } => Some(
                "the file must be the login user's own: `authorized_keys_file` of [ssh_session] names it"
                    .to_owned(),
            ),
            Self::OldSshd(_) => Some("OpenSSH 7.7 is the first that can".to_owned()),
            _ => None,
        }
    }

    /// The messages behind this one.
    #[must_use]
    pub fn causes(&self) -> Vec<String> {
        causes(self)
    }
}

impl From<store::Error> for GrantError {
    fn from(error: store::Error) -> Self {
        Self::Link(LinkError::Store(error))
    }
}

/// What a look after a host's grants did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reconciled {
    /// Grants whose lines were taken out, or were found to be out.
    pub removed: Vec<String>,
    /// Grants whose lines somebody else had taken out.
    pub lost: Vec<String>,
    /// Processes of ended sessions that were ended.
    pub processes_ended: u64,
}

/// Places a grant on one host.
///
/// # Errors
/// [`GrantError`]. A grant that may have been placed before the link broke is noted as ended, and
/// taken out by the next [`reconcile`].
///
/// # Cancel safety
/// Dropping the future leaves a pending grant, which [`reconcile`] ends and takes out.
pub async fn grant(
    fleet: &Fleet,
    spec: &HostSpec,
    request: &GrantRequest,
    rules: &GrantRules,
) -> Result<GrantRow, GrantError> {
    let seconds = request.duration.as_secs();
    if seconds == 0 || request.duration > rules.max_duration {
        let (asked, most) = (request.duration, rules.max_duration);
        return Err(GrantError::Duration { asked, most });
    }
    let expires_ms = now_ms() + i64::try_from(seconds).unwrap_or(i64::MAX / 2000) * 1000;
    let new = NewGrant {
        host: spec.name.clone(),
        validator: request.validator.clone(),
        public_key: request.public_key.to_string(),
        fingerprint: request.public_key.fingerprint(),
        from_address: request.from.to_string(),
        keys_file: rules.keys_file.clone(),
        expires_ms,
    };
    let id = fleet.store.begin_grant(&fleet.actor, &new, &rules.limits).await??;
    let row = fleet.store.grant(&id).await?.ok_or_else(|| GrantError::Unknown(id.clone()))?;
    let placed = match fleet.connect(spec, false).await {
        Err(error) => Err(GrantError::Link(error)),
        Ok(link) => {
            let placed = place(&link, &row, request).await;
            link.close().await;
            placed
        }
    };
    match placed {
        Ok(()) => {
            if !fleet.store.grant_placed(&fleet.actor, &row).await? {
                // It was revoked meanwhile, before there was a line to take out.
                reconcile(fleet, spec).await?;
            }
            fleet.store.grant(&id).await?.ok_or(GrantError::Unknown(id))
        }
        Err(error) => {
            fleet.store.end_grant(&fleet.actor, &row, GrantEnd::Failed).await?;
            if matches!(error, GrantError::Link(LinkError::Connect(_))) {
                // Nothing can have been written.
                fleet.store.grant_gone(&fleet.actor, &row).await?;
            }
            Err(error)
        }
    }
}

async fn place(link: &Link, row: &GrantRow, request: &GrantRequest) -> Result<(), GrantError> {
    // Whole seconds: what sshd can be told.
    let at_secs = row.expires_ms / 1000;
    remote::edit(link.transport(), &row.keys_file, Some(at_secs), |answer, content| {
        let said = answer.get("openssh");
        let version = SshdVersion::parse(said);
        let expiry = Expiry::for_host(at_secs, version, answer.get("local"))
            .ok_or_else(|| GrantError::OldSshd(said.to_owned()))?;
        let file = answer.get("target");
        let line = grants::line(&row.id, &request.public_key, request.from, &expiry, file)
            .ok_or_else(|| GrantError::Path(file.to_owned()))?;
        Ok(Some(grants::edit(content, &|_| false, Some(&line)).content))
    })
    .await
    .map(|_| ())
}

/// Places one grant on each of many hosts. A host that fails, fails alone.
///
/// # Cancel safety
/// As [`grant`], for each host that was being worked on.
pub async fn grant_all(
    fleet: Arc<Fleet>,
    specs: Vec<HostSpec>,
    request: GrantRequest,
    rules: GrantRules,
) -> Vec<(HostName, Result<GrantRow, GrantError>)> {
    let (request, rules) = (Arc::new(request), Arc::new(rules));
    let mut tasks = JoinSet::new();
    let mut done = Vec::new();
    for spec in specs {
        if tasks.len() >= PARALLEL {
            done.extend(tasks.join_next().await.and_then(Result::ok));
        }
        let (fleet, request, rules) = (fleet.clone(), request.clone(), rules.clone());
        tasks.spawn(async move {
            let result = grant(&fleet, &spec, &request, &rules).await;
            (spec.name, result)
        });
    }
    while let Some(ended) = tasks.join_next().await {
        // A task can end without a result only by a panic, which the runtime has reported.
        done.extend(ended);
    }
    done
}

/// Revokes a grant: its line is taken out and its live sessions end.
///
/// # Errors
/// [`GrantError`]. The grant counts as revoked from the first moment; when the host could not be
/// reached, its line is taken out by the next [`reconcile`].
///
/// # Cancel safety
/// The end is noted first; the rest is done by the next [`reconcile`].
pub async fn revoke(fleet: &Fleet, spec: &HostSpec, id: &str) -> Result<Reconciled, GrantError> {
    let row = fleet.store.grant(id).await?.ok_or_else(|| GrantError::Unknown(id.to_owned()))?;
    if row.state == GrantState::Gone {
        return Ok(Reconciled::default());
    }
    fleet.store.end_grant(&fleet.actor, &row, GrantEnd::Revoked).await?;
    reconcile(fleet, spec).await
}

/// Whether a host has grants that are over and wait to be taken out. Looks at the database alone.
///
/// # Errors
/// The database cannot be read.
pub async fn is_due(fleet: &Fleet, host: &HostName) -> Result<bool, GrantError> {
    let open = open_grants(fleet, host).await?;
    let now = now_ms();
    Ok(open.iter().any(|row| over(row, now).is_some() || row.state == GrantState::Ended))
}

/// Ends what is over on a host: expired grants, grants that were left half done, sessions of
/// revoked ones. Nothing is done on a host without open grants. Lines of other orchestrators, and
/// everybody else's, stay.
///
/// # Errors
/// [`GrantError`]; what is noted as ended stays so, and is tried again next time.
///
/// # Cancel safety
/// Safe: each step is noted after it was done and may be done again.
pub async fn reconcile(fleet: &Fleet, spec: &HostSpec) -> Result<Reconciled, GrantError> {
    let (store, actor) = (&fleet.store, fleet.actor.as_str());
    let now = now_ms();
    for row in open_grants(fleet, &spec.name).await? {
        if let Some(end) = over(&row, now) {
            store.end_grant(actor, &row, end).await?;
        }
    }
    let open = open_grants(fleet, &spec.name).await?;
    let mut done = Reconciled::default();
    if open.is_empty() {
        return Ok(done);
    }
    let link = fleet.connect(spec, false).await?;
    let result = reconcile_on(&link, &open, &mut done).await;
    link.close().await;
    // What was taken out is noted, whatever came after it.
    for row in &open {
        if done.lost.contains(&row.id) {
            store.end_grant(actor, row, GrantEnd::Lost).await?;
        }
    }
    result?;
    for row in &open {
        if done.removed.contains(&row.id) || done.lost.contains(&row.id) {
            store.grant_gone(actor, row).await?;
        }
    }
    Ok(done)
}

async fn reconcile_on(
    link: &Link,
    open: &[GrantRow],
    done: &mut Reconciled,
) -> Result<(), GrantError> {
    let mut files: Vec<&str> = open.iter().map(|row| row.keys_file.as_str()).collect();
    files.sort_unstable();
    files.dedup();
    for file in files {
        let of_file = || open.iter().filter(|row| row.keys_file == file);
        let present = remote::edit(link.transport(), file, None, |_, content| {
            let ended =
                |id: &str| of_file().any(|row| row.id == id && row.state == GrantState::Ended);
            let edited = grants::edit(content, &ended, None);
            Ok((!edited.removed.is_empty()).then_some(edited.content))
        })
        .await?;
        for row in of_file() {
            match row.state {
                GrantState::Ended => done.removed.push(row.id.clone()),
                GrantState::Placed if !present.contains(&row.id) => done.lost.push(row.id.clone()),
                _ => {}
            }
        }
    }
    let over: Vec<&str> = done.removed.iter().chain(&done.lost).map(String::as_str).collect();
    // A command line has room for some thousands of ids; the limits are far below.
    for ids in over.chunks(500) {
        done.processes_ended += remote::end_sessions(link.transport(), ids).await?;
    }
    Ok(())
}

async fn open_grants(fleet: &Fleet, host: &HostName) -> Result<Vec<GrantRow>, GrantError> {
    let filter = GrantFilter { host: Some(host.clone()), open: true, ..GrantFilter::default() };
    Ok(fleet.store.grants(&filter, MOST_GRANTS, 0).await?)
}

/// A grant as sweeps judge it.
pub(super) fn known(row: &GrantRow) -> KnownGrant {
    let (over_ms, by_time) = match row.state {
        GrantState::Placed => (row.expires_ms, true),
        GrantState::Pending => (row.issued_ms.saturating_add(PENDING_MS), false),
        GrantState::Ended | GrantState::Gone => {
            let by_time = row.end_reason.as_deref() == Some(GrantEnd::Expired.name());
            let ended_ms = row.ended_ms.unwrap_or(row.issued_ms);
            // That its time was over may have been noted much later.
            (if by_time { row.expires_ms.min(ended_ms) } else { ended_ms }, by_time)
        }
    };
    KnownGrant { id: row.id.clone(), over_ms, by_time, gone: row.state == GrantState::Gone }
}

/// Why a grant that is not noted as ended is over, if it is.
fn over(row: &GrantRow, now: i64) -> Option<GrantEnd> {
    match row.state {
        GrantState::Placed if row.expires_ms <= now => Some(GrantEnd::Expired),
        GrantState::Pending if row.issued_ms + PENDING_MS <= now => Some(GrantEnd::Failed),
        _ => None,
    }
}
