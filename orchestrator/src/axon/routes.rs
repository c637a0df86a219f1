//! What can be called: synapses (`POST /<Name>`) and plain paths (`/v1/...`), with one kind of handler.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::Method;
use serde_json::{Map, Value};

use super::answer::Refusal;
use super::auth::Scheme;
use super::stream::Lines;
use crate::hotkey::Hotkey;

/// A request whose sender is proven and admitted.
#[derive(Debug, Clone)]
pub struct Call {
    /// Who asks.
    pub hotkey: Hotkey,
    /// By which scheme; `None` by the token of a session.
    pub scheme: Option<Scheme>,
    /// The session whose token it was.
    pub session: Option<String>,
    /// From which address.
    pub address: IpAddr,
    /// The fields of the body; of a synapse the SDK's own fields are among them.
    pub body: Map<String, Value>,
    /// What stands behind `?`, not decoded.
    pub query: Option<String>,
    /// When the caller gives up. The handler is dropped then.
    pub timeout: Duration,
}

/// The fields of the answer, or why there is none.
pub type Answer = Result<Map<String, Value>, Refusal>;

type Whole = dyn Fn(Call) -> BoxFuture<'static, Answer> + Send + Sync;
type Streaming = dyn Fn(Call, Lines) -> BoxFuture<'static, Answer> + Send + Sync;

/// What answers a call. It may be dropped at any await: the caller has gone or its time is over.
#[derive(Clone)]
pub enum Handler {
    /// With one answer.
    Whole(Arc<Whole>),
    /// With lines as they come, and an answer at the end.
    Streaming(Arc<Streaming>),
}

/// A handler of an async function.
pub fn handler<F, A>(f: F) -> Handler
where
    F: Fn(Call) -> A + Send + Sync + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    Handler::Whole(Arc::new(move |call| Box::pin(f(call))))
}

/// A handler of an async function that says lines meanwhile.
pub fn streaming<F, A>(f: F) -> Handler
where
    F: Fn(Call, Lines) -> A + Send + Sync + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    Handler::Streaming(Arc::new(move |call, lines| Box::pin(f(call, lines))))
}

/// One thing that can be called.
#[derive(Clone)]
pub struct Route {
    /// The name of the synapse's class: `POST /<name>`.
    pub synapse: &'static str,
    /// The fields that a legacy caller must have signed: its class states the same in
    /// `required_hash_fields`, in this order. `name` binds the signature to the synapse; the legacy
    /// scheme signs no path.
    pub hash_fields: &'static [&'static str],
    /// The method of the plain path.
    pub method: Method,
    /// The plain path.
    pub path: &'static str,
    /// What the OpenAPI document says of it.
    pub doc: RouteDoc,
    /// What answers.
    pub handler: Handler,
}

/// What a route is for, and what it takes and answers, as JSON schemas; [`super::schema`] has parts.
#[derive(Debug, Clone)]
pub struct RouteDoc {
    /// One line.
    pub summary: &'static str,
    /// The schema of the request's body.
    pub request: Value,
    /// The schema of the answer.
    pub answer: Value,
}

impl Route {
    /// A route that is a synapse at both its paths.
    #[must_use]
    pub fn post(
        synapse: &'static str,
        path: &'static str,
        hash_fields: &'static [&'static str],
        doc: RouteDoc,
        handler: Handler,
    ) -> Self {
        Self { synapse, hash_fields, method: Method::POST, path, doc, handler }
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Route({} {}, /{})", self.method, self.path, self.synapse)
    }
}

/// The table of routes.
#[derive(Debug, Clone, Default)]
pub struct Routes(HashMap<String, Arc<Route>>);

/// Where a path leads.
pub enum Found {
    Route(Arc<Route>),
    /// There is such a path, with this method.
    Method(Method),
    Nothing,
}

impl Routes {
    /// No routes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a route; one of the same synapse or path is replaced.
    #[must_use]
    pub fn with(mut self, route: Route) -> Self {
        let route = Arc::new(route);
        self.0.insert(format!("/{}", route.synapse), route.clone());
        self.0.insert(route.path.to_owned(), route);
        self
    }

    /// Every route once, by path.
    pub(super) fn all(&self) -> Vec<&Route> {
        let named = self.0.iter().filter(|(key, route)| **key == route.path);
        let mut all: Vec<&Route> = named.map(|(_, route)| route.as_ref()).collect();
        all.sort_by_key(|route| route.path);
        all
    }

    pub(super) fn find(&self, method: &Method, path: &str) -> Found {
        let Some(route) = self.0.get(path) else { return Found::Nothing };
        let wanted = if path == route.path { &route.method } else { &Method::POST };
        if method == wanted { Found::Route(route.clone()) } else { Found::Method(wanted.clone()) }
    }
}
