//! The operator API: health, metrics, and what the database knows, over HTTP, and a dashboard.
//!
//! It reads and changes nothing. Every answer that is an error is a problem document (RFC 9457)
//! with a stable code and the request's id. Routes stand in one table, `ROUTES`, which the
//! OpenAPI document is tested against. Requests to a listener on loopback must name a loopback
//! host, so that no web page can reach it through a name of its own; elsewhere each request but
//! `/health` needs a token.

mod access;
mod dashboard;
mod events;
mod health;
mod hosts;
mod listener;
mod listings;
mod metrics;
mod paging;
mod problem;

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::config::{MetricsConfig, Secret};
use crate::store::Store;

pub use access::Access;
pub use health::{Check, Health};
pub use listener::{ListenLimits, serve};
pub use metrics::Metrics;
pub use problem::{Problem, ProblemCode};

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
pub struct ApiState(Arc<Shared>);

struct Shared {
    store: Store,
    access: Access,
    metrics: Option<Metrics>,
    health: watch::Receiver<Health>,
    event_streams: Arc<Semaphore>,
    cancel: CancellationToken,
    started_ms: i64,
}

/// What an API is made of.
pub struct ApiParts {
    /// The database.
    pub store: Store,
    /// Who may ask.
    pub access: Access,
    /// `[metrics]`.
    pub metrics: MetricsConfig,
    /// What is published of the running service.
    pub health: watch::Receiver<Health>,
    /// Open event streams at a time.
    pub max_event_streams: usize,
    /// Ends event streams.
    pub cancel: CancellationToken,
}

impl ApiState {
    /// The state of one API.
    #[must_use]
    pub fn new(parts: ApiParts) -> Self {
        let metrics =
            parts.metrics.enabled.then(|| Metrics::new(parts.store.clone(), &parts.metrics));
        Self(Arc::new(Shared {
            store: parts.store,
            access: parts.access,
            metrics,
            health: parts.health,
            event_streams: Arc::new(Semaphore::new(parts.max_event_streams)),
            cancel: parts.cancel,
            started_ms: crate::store::now_ms(),
        }))
    }

    fn store(&self) -> &Store {
        &self.0.store
    }
}

type Route = (&'static str, fn() -> MethodRouter<ApiState>);

/// Every route there is.
const ROUTES: [Route; 18] = [
    ("/", || get(dashboard::page)),
    ("/dashboard.css", || get(dashboard::style)),
    ("/health", || get(health::ready)),
    ("/health/live", || get(health::live)),
    ("/metrics", || get(metrics::scrape)),
    ("/api/v1/openapi.json", || get(openapi)),
    ("/api/v1/hosts", || get(hosts::list)),
    ("/api/v1/executors", || get(hosts::list)),
    ("/api/v1/hosts/{name}", || get(hosts::show)),
    ("/api/v1/hosts/{name}/facts", || get(hosts::facts)),
    ("/api/v1/hosts/{name}/proofs", || get(listings::proofs_of)),
    ("/api/v1/proofs", || get(listings::proofs)),
    ("/api/v1/grants", || get(listings::grants)),
    ("/api/v1/grants/{id}", || get(listings::grant)),
    ("/api/v1/sweeps", || get(listings::sweeps)),
    ("/api/v1/leases", || get(listings::leases)),
    ("/api/v1/containers", || get(listings::containers)),
    ("/api/v1/events", || get(events::events)),
];

/// The paths of all routes, in OpenAPI's notation.
#[must_use]
pub fn paths() -> Vec<&'static str> {
    ROUTES.iter().map(|(path, _)| *path).collect()
}

/// The OpenAPI document.
pub const OPENAPI: &str = include_str!("../../templates/api/openapi.json");

/// The API as a service.
pub fn router(state: ApiState) -> Router {
    let routes =
        ROUTES.iter().fold(Router::new(), |router, (path, handler)| router.route(path, handler()));
    let routes = routes
        .fallback(|| async { Problem::new(ProblemCode::NotFound, "there is nothing here") })
        .method_not_allowed_fallback(|| async {
            Problem::new(ProblemCode::MethodNotAllowed, "this is read with GET")
        })
        .layer(middleware::from_fn_with_state(state.clone(), access::check));
    routes.layer(middleware::from_fn_with_state(state.clone(), finish)).with_state(state)
}

/// The metrics alone, for a listener of their own.
pub fn metrics_router(state: ApiState, path: &str) -> Router {
    Router::new()
        .route(path, get(metrics::scrape))
        .fallback(|| async { Problem::new(ProblemCode::NotFound, "there is nothing here") })
        .layer(middleware::from_fn_with_state(state.clone(), finish))
        .with_state(state)
}

/// `GET /api/v1/openapi.json`, as it holds for this listener.
async fn openapi(State(state): State<ApiState>) -> Result<Json<Value>, Problem> {
    let document = serde_json::from_str(OPENAPI);
    let mut document: Value = document.map_err(|error| {
        tracing::error!(%error, "the OpenAPI document is no JSON");
        Problem::new(ProblemCode::Internal, "the log says more under this request's id")
    })?;
    if let Some(version) = document.pointer_mut("/info/version") {
        *version = Value::from(env!("CARGO_PKG_VERSION"));
    }
    if let Some(document) = document.as_object_mut() {
        // The address is where the document came from, which is the listener that it describes.
        document.remove("servers");
        if !state.0.access.require_token {
            document.remove("security");
        }
    }
    Ok(Json(document))
}

/// Gives the request its id, counts and logs it, and puts on what every answer has.
async fn finish(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
    let id = problem::RequestId::of(request.headers());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "other".to_owned(), |path| path.as_str().to_owned());
    let method = request.method().clone();
    request.extensions_mut().insert(id.clone());
    let began = std::time::Instant::now();
    let response = problem::RequestId::scope(id.clone(), next.run(request)).await;
    let status = response.status().as_u16();
    if let Some(metrics) = &state.0.metrics {
        metrics.count(method.as_str(), &route, status);
    }
    let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::debug!(request = %id, %method, route, status, elapsed_ms, "operator API");
    let mut response = response;
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        headers.insert(REQUEST_ID, value);
    }
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, "no-store"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// The secret of tokens, if requests need one.
impl Access {
    /// Who may ask a listener: on loopback everybody who names a loopback host, unless
    /// `require_token`; elsewhere whoever has a token.
    #[must_use]
    pub fn new(secret: Option<Secret>, require_token: bool) -> Self {
        Self { secret, require_token }
    }
}
