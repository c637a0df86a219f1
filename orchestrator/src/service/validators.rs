//! What validators can ask for: their hosts, proofs of them, and SSH grants on them.

mod challenges;
mod containers;
mod grants;
mod hosts;
mod proofs;
mod requests;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::{Map, Value, json};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use super::Doorkeeper;
use crate::axon::{Answer, Call, Refusal, Route, Routes, handler};
use crate::config::{SshSessionConfig, ValidatorAssignment};
use crate::fleet::Fleet;
use crate::fleet::grants::{GrantError, GrantRequest, GrantRules, grant_all, revoke};
use crate::grants::{FromAddress, PublicKey, assign};
use crate::host_state::HostState;
use crate::hotkey::Hotkey;
use crate::ids::HostName;
use crate::reason::Reason;
use crate::store::{GrantRow, HostRecord, Store};

pub use challenges::{ChallengeParts, Challenges};
pub use containers::Containers;

/// How long a grant may be asked for, in seconds; the operator's limit is what counts.
const DURATIONS: RangeInclusive<u64> = 0..=4_294_967_295;

/// What the handlers share.
#[derive(Clone)]
pub struct Validators(Arc<Shared>);

struct Shared {
    store: Store,
    /// How hosts are reached, renewed when hosts or trusted keys change.
    fleet: watch::Receiver<Option<Arc<Fleet>>>,
    door: Doorkeeper,
    assignment: ValidatorAssignment,
    session: SshSessionConfig,
    /// Answers with signed proofs that are being put together.
    proofs: Semaphore,
    /// Grants that were begun: they come to their end when a caller has gone.
    tasks: TaskTracker,
}

impl Validators {
    /// The service for validators.
    #[must_use]
    pub fn new(
        store: Store,
        fleet: watch::Receiver<Option<Arc<Fleet>>>,
        door: Doorkeeper,
        assignment: ValidatorAssignment,
        session: SshSessionConfig,
    ) -> Self {
        let tasks = TaskTracker::new();
        let proofs = Semaphore::new(proofs::AT_ONCE);
        Self(Arc::new(Shared { store, fleet, door, assignment, session, proofs, tasks }))
    }

    /// What can be called.
    #[must_use]
    pub fn routes(&self) -> Routes {
        let (list, fetch) = (self.clone(), self.clone());
        let (request, revoke, grants) = (self.clone(), self.clone(), self.clone());
        let routes = Routes::new()
            .with(Route {
                synapse: "ListHosts",
                hash_fields: &["name"],
                method: Method::POST,
                path: "/v1/hosts",
                doc: hosts::doc(),
                handler: handler(move |call| {
                    let this = list.clone();
                    async move { hosts::list(&this, &call).await }
                }),
            })
            .with(Route {
                synapse: "FetchProofs",
                hash_fields: &["name", "host", "gpu", "limit", "cursor"],
                method: Method::POST,
                path: "/v1/proofs",
                doc: proofs::doc(),
                handler: handler(move |call| {
                    let this = fetch.clone();
                    async move { proofs::fetch(&this, &call).await }
                }),
            })
            .with(Route {
                synapse: "ListSshGrants",
                hash_fields: &["name", "all", "limit", "cursor"],
                method: Method::POST,
                path: "/v1/ssh-grants/list",
                doc: grants::list_doc(),
                handler: handler(move |call| {
                    let this = grants.clone();
                    async move { grants::list(&this, &call).await }
                }),
            });
        if !self.0.session.enable_automated_sessions {
            return routes;
        }
        routes
            .with(Route {
                synapse: "RequestSshGrant",
                hash_fields: &["name", "public_key", "host", "duration_secs"],
                method: Method::POST,
                path: "/v1/ssh-grants",
                doc: grants::request_doc(),
                handler: handler(move |call| {
                    let this = request.clone();
                    async move { this.detached(|this| async move { this.request(&call).await }).await }
                }),
            })
            .with(Route {
                synapse: "RevokeSshGrant",
                hash_fields: &["name", "grant"],
                method: Method::POST,
                path: "/v1/ssh-grants/revoke",
                doc: grants::revoke_doc(),
                handler: handler(move |call| {
                    let this = revoke.clone();
                    async move { this.detached(|this| async move { this.revoke(&call).await }).await }
                }),
            })
    }

    /// Waits for the grants that were begun.
    pub async fn drain(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Runs work in a task of its own: a caller that hangs up stops no grant half-way.
    async fn detached<F: Future<Output = Answer> + Send + 'static>(
        &self,
        work: impl FnOnce(Self) -> F,
    ) -> Answer {
        let task = self.0.tasks.spawn(work(self.clone()));
        task.await.unwrap_or_else(|_| Err(internal()))
    }

    /// The hosts that are assigned to the caller.
    async fn assigned(&self, call: &Call) -> Result<BTreeMap<HostName, HostRecord>, Refusal> {
        let records = self.0.store.hosts().await.map_err(failed)?;
        let names: Vec<HostName> = records.iter().map(|host| host.spec.name.clone()).collect();
        let candidates = self.0.door.candidates();
        let mut all = assign(&self.0.assignment, &candidates, &names);
        let mine = all.remove(&call.hotkey.to_string()).unwrap_or_default();
        Ok(records
            .into_iter()
            .filter(|host| mine.contains(&host.spec.name))
            .map(|host| (host.spec.name.clone(), host))
            .collect())
    }

    async fn request(&self, call: &Call) -> Answer {
        let public_key = text(call, "public_key")?
            .ok_or_else(|| Refusal::bad_request("`public_key` is missing"))?;
        let public_key = PublicKey::parse(public_key).map_err(|error| {
            let detail = format!("`public_key`: {error}");
            Refusal::new(StatusCode::BAD_REQUEST, "invalid_public_key", detail)
        })?;
        let session = &self.0.session;
        let duration = whole(call, "duration_secs", &DURATIONS)?
            .map_or(session.default_session_duration, Duration::from_secs);
        let mut hosts = self.assigned(call).await?;
        if let Some(name) = text(call, "host")? {
            hosts.retain(|known, _| known.as_str() == name);
        }
        if hosts.is_empty() {
            return Err(no_host());
        }
        let fleet = self.fleet()?;
        let request = GrantRequest {
            validator: call.hotkey.to_string(),
            public_key,
            duration,
            from: FromAddress::from(call.address),
        };
        let (usable, others): (Vec<_>, Vec<_>) =
            hosts.values().partition(|host| may_be_granted(host.state));
        let specs = usable.iter().map(|host| host.spec.clone()).collect();
        let done = grant_all(fleet, specs, request, GrantRules::of(session)).await;
        let mut rows: Vec<Value> = others
            .iter()
            .map(|host| json!({ "host": host.spec.name, "ok": false, "reason": host.state.name() }))
            .collect();
        for (name, result) in done {
            rows.push(match (result, hosts.get(&name)) {
                (Ok(grant), Some(host)) => granted(&grant, host),
                (Ok(_), None) => continue,
                (Err(error), _) => {
                    let causes = error.causes();
                    tracing::warn!(host = %name, %error, ?causes, "a grant was not placed");
                    json!({ "host": name, "ok": false, "reason": told(&error) })
                }
            });
        }
        Ok(Map::from_iter([("grants".to_owned(), Value::from(rows))]))
    }

    async fn revoke(&self, call: &Call) -> Answer {
        let id = text(call, "grant")?.ok_or_else(|| Refusal::bad_request("`grant` is missing"))?;
        let grant = self.0.store.grant(id).await.map_err(failed)?;
        // Another's grant is as unknown as none.
        let grant = grant.filter(|grant| grant.validator == call.hotkey.to_string());
        let missing = || {
            let detail = "this hotkey has no such grant";
            Refusal::new(StatusCode::NOT_FOUND, "no_grant", detail)
        };
        let grant = grant.ok_or_else(missing)?;
        let name = HostName::new(grant.host.as_str()).map_err(|_| internal())?;
        let host = self.0.store.host(&name).await.map_err(failed)?.ok_or_else(missing)?;
        let fleet = self.fleet()?;
        let gone = match revoke(&fleet, &host.spec, &grant.id).await {
            Ok(_) => true,
            Err(error) => {
                // It is revoked, and its line goes at the next look.
                tracing::warn!(host = %name, %error, "a revoked grant is still on its host");
                false
            }
        };
        Ok(Map::from_iter([
            ("revoked".to_owned(), Value::from(true)),
            ("removed".to_owned(), Value::from(gone)),
        ]))
    }

    fn fleet(&self) -> Result<Arc<Fleet>, Refusal> {
        self.0.fleet.borrow().clone().ok_or_else(|| {
            let detail = "the service is starting";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "starting", detail)
        })
    }
}

/// How leases and the audit chain name a validator that has something done on a host.
fn actor(hotkey: &Hotkey) -> String {
    format!("validator:{hotkey}")
}

/// Whether a validator may be let onto a host in this state. One that is faulty may be looked at.
fn may_be_granted(state: HostState) -> bool {
    match state {
        HostState::Ready | HostState::Leased | HostState::Degraded => true,
        HostState::Unknown
        | HostState::Unreachable
        | HostState::Quarantined
        | HostState::Draining => false,
    }
}

fn granted(grant: &GrantRow, host: &HostRecord) -> Value {
    json!({
        "host": host.spec.name,
        "ok": true,
        "grant": grant.id,
        "address": host.spec.endpoint.address,
        "port": host.spec.endpoint.port,
        "user": host.spec.endpoint.user,
        "from": grant.from_address,
        "expires_ms": grant.expires_ms,
    })
}

/// A code that says nothing of the fleet's inside.
fn told(error: &GrantError) -> &'static str {
    match error.reason() {
        Reason::Limit => "limit",
        Reason::Input => "bad_request",
        _ => "host_failed",
    }
}

/// A field that is text, or absent.
fn text<'c>(call: &'c Call, name: &str) -> Result<Option<&'c str>, Refusal> {
    match call.body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Refusal::bad_request(format!("`{name}` is text"))),
    }
}

/// A field that is a whole number within bounds, or absent.
fn whole(call: &Call, name: &str, bounds: &RangeInclusive<u64>) -> Result<Option<u64>, Refusal> {
    let wrong = || {
        let (low, high) = (bounds.start(), bounds.end());
        Refusal::bad_request(format!("`{name}` is a whole number, {low} to {high}"))
    };
    match call.body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            // JSON has one kind of number: 8.0 is whole, too.
            let float = value.as_f64().filter(|float| float.fract() == 0.0 && *float < 1e15);
            let number = value.as_u64().or(float.filter(|float| *float >= 0.0).map(|f| f as u64));
            number.filter(|number| bounds.contains(number)).map(Some).ok_or_else(wrong)
        }
    }
}

fn no_host() -> Refusal {
    let detail = "no such host is assigned to this hotkey";
    Refusal::new(StatusCode::NOT_FOUND, "no_host", detail)
}

/// The database does not answer; the caller gets no SQL.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: crate::store::Error) -> Refusal {
    let causes = crate::error_chain::causes(&error);
    tracing::error!(%error, ?causes, "validators are not answered");
    internal()
}

fn internal() -> Refusal {
    let detail = "the service failed; its log says more";
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
}
