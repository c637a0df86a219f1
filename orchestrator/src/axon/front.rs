//! The way of one request, from its head to its answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_LENGTH, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answer::{Answering, Built, Refusal, document_response};
use super::auth::{AuthError, Bounds, Claim, Scheme, Signed};
use super::replay::{Replay, now_ns};
use super::routes::{Call, Found, Handler, Route};
use super::sessions::{Bearer, OPEN_PATH, Sessions, bearer};
use super::stream::{self, Begun, Streamed};
use super::{AxonContext, openapi, party, ping};
use crate::hotkey::Hotkey;

/// What all requests share.
pub struct Front {
    context: AxonContext,
    replay: Replay,
    uuid: String,
    /// The OpenAPI document.
    document: Bytes,
    sessions: Arc<Semaphore>,
    large_bodies: Semaphore,
    /// One for each answer that is a stream.
    streams: TaskTracker,
}

/// What a request comes to.
enum Done {
    /// The body of the request, and the answer.
    Whole(Bytes, Map<String, Value>),
    /// An answer that has begun.
    Begun(Built),
}

/// A stated length up to which a body is read without asking. Every connection may have one of these,
/// so that strangers who send theirs slowly take no place away from anybody.
const SMALL_BODY: usize = 16 * 1024;

/// What a request brings for a proof of who sent it.
enum Credential<'f> {
    Signed(Claim),
    Session(&'f Sessions, Bearer),
}

impl Credential<'_> {
    fn claim(&self) -> Option<&Claim> {
        match self {
            Self::Signed(claim) => Some(claim),
            Self::Session(..) => None,
        }
    }

    fn session(&self) -> Option<String> {
        match self {
            Self::Signed(_) => None,
            Self::Session(_, bearer) => Some(bearer.session.clone()),
        }
    }
}

/// What is known of a request so far.
struct Progress {
    /// The method that the path has, where it is another.
    allowed: Option<Method>,
    scheme: Option<Scheme>,
    sender: Option<Hotkey>,
}

impl Front {
    pub fn new(mut context: AxonContext, replay: Replay, uuid: String) -> Self {
        context.routes = context.routes.with(ping::route(context.pair.hotkey()));
        for route in context.sessions.iter().flat_map(Sessions::routes) {
            context.routes = context.routes.with(route);
        }
        let document = openapi::document(&context.routes, context.sessions.is_some());
        Self {
            document: document.to_string().into(),
            sessions: Arc::new(Semaphore::new(context.limits.sessions)),
            large_bodies: Semaphore::new(context.limits.large_bodies),
            streams: TaskTracker::new(),
            context,
            replay,
            uuid,
        }
    }

    /// Answers a request. `cut` ends the connection, where a stream is not taken.
    ///
    /// # Cancel safety
    /// It may be dropped at any await when the caller has gone; a nonce that was spent stays spent.
    pub async fn answer(
        self: Arc<Self>,
        address: IpAddr,
        request: Request<Incoming>,
        cut: CancellationToken,
    ) -> Built {
        let began = Instant::now();
        let (head, body) = request.into_parts();
        let scheme = Claim::scheme(&head.headers);
        let mut progress = Progress { allowed: None, scheme, sender: None };
        if head.uri.path() == openapi::PATH {
            return self.describe(&head, address);
        }
        let result = self.work(&head, body, address, &mut progress, cut).await;
        let path = head.uri.path();
        // A synapse stands alone after the slash; who calls one without a header is answered as one.
        let name = path.trim_start_matches('/');
        let scheme = progress.scheme.or((!path.starts_with("/v1/")).then_some(Scheme::Legacy));
        let answering = Answering {
            pair: &self.context.pair,
            uuid: &self.uuid,
            scheme,
            sender: progress.sender,
            sessions: self.context.sessions.is_some(),
            elapsed: began.elapsed(),
            name,
            headers: &head.headers,
        };
        match result {
            Ok(Done::Whole(request, answer)) => answering.success(&request, &answer),
            Ok(Done::Begun(response)) => response,
            Err(refusal) => {
                tracing::debug!(%address, path, code = refusal.code, "refused");
                let mut response = answering.refusal(&refusal);
                allow(&mut response, progress.allowed.as_ref());
                response
            }
        }
    }

    /// The OpenAPI document, for everybody.
    fn describe(&self, head: &Parts, address: IpAddr) -> Built {
        let allowed = match head.method {
            Method::GET => self.within_rate(address),
            _ => Err(Refusal::method()),
        };
        match allowed {
            Ok(()) => document_response(self.document.clone()),
            Err(refusal) => {
                let mut response = refusal.as_problem();
                allow(&mut response, Some(&Method::GET));
                response
            }
        }
    }

    fn within_rate(&self, address: IpAddr) -> Result<(), Refusal> {
        let allowed = self.context.rates.allow_address(&party(address));
        allowed.then_some(()).ok_or_else(|| Refusal::rate("address"))
    }

    async fn work(
        &self,
        head: &Parts,
        body: Incoming,
        address: IpAddr,
        progress: &mut Progress,
        cut: CancellationToken,
    ) -> Result<Done, Refusal> {
        self.within_rate(address)?;
        let route = match self.context.routes.find(&head.method, head.uri.path()) {
            Found::Route(route) => route,
            Found::Method(allowed) => {
                progress.allowed = Some(allowed);
                return Err(Refusal::method());
            }
            Found::Nothing => return Err(Refusal::unknown()),
        };
        let credential = self.credential(head, progress.scheme, &route)?;
        let body = self.body(head, body).await?;
        let sender = match &credential {
            Credential::Signed(claim) => self.prove(head, claim, &body, &route).await?,
            Credential::Session(_, bearer) => bearer.validator,
        };
        progress.sender = Some(sender);
        self.admit(sender)?;
        let session = self.sessions.clone().try_acquire_owned().map_err(|_| Refusal::busy())?;
        match &credential {
            Credential::Signed(claim) => self.spend(claim).await?,
            Credential::Session(sessions, bearer) => sessions.check(bearer).await?,
        }
        let limits = &self.context.limits;
        let limit = match route.handler {
            Handler::Whole(_) => limits.request_timeout,
            Handler::Streaming(_) => limits.stream_timeout,
        };
        let patience = credential.claim().and_then(Claim::patience);
        let patience = patience.filter(|patience| !patience.is_zero()).unwrap_or(limit).min(limit);
        let call = Call {
            hotkey: sender,
            scheme: credential.claim().map(Claim::is_of),
            session: credential.session(),
            address,
            body: fields(&body)?,
            query: head.uri.query().map(str::to_owned),
            timeout: patience,
        };
        match &route.handler {
            Handler::Whole(handler) => match timeout(patience, handler(call)).await {
                Ok(answer) => answer.map(|answer| Done::Whole(body, answer)),
                Err(_) => Err(Refusal::too_slow()),
            },
            Handler::Streaming(handler) => {
                let wanted =
                    call.scheme != Some(Scheme::Legacy) && stream::is_wanted(&head.headers);
                let streamed = Streamed { handler: &**handler, call, patience };
                if !wanted {
                    return streamed.gathered().await.map(|answer| Done::Whole(body, answer));
                }
                let rest = limits.stream_rest;
                let begun = Begun { tasks: &self.streams, session, cut, rest };
                streamed.begin(begun).await.map(Done::Begun)
            }
        }
    }

    /// The cheap checks of the head. A token is taken on plain paths alone, and not to open a session.
    fn credential<'f>(
        &'f self,
        head: &Parts,
        scheme: Option<Scheme>,
        route: &Route,
    ) -> Result<Credential<'f>, Refusal> {
        if let Some(sessions) = &self.context.sessions {
            let by_token = head.uri.path() == route.path && route.path != OPEN_PATH;
            match (scheme, by_token) {
                (None, true) => {
                    if let Some(bearer) = sessions.claimed(&head.headers)? {
                        return Ok(Credential::Session(sessions, bearer));
                    }
                }
                (Some(_), _) if bearer(&head.headers).is_ok_and(|token| token.is_some()) => {
                    let both = "a request is signed or has a token, not both";
                    return Err(AuthError::Malformed(both).into());
                }
                _ => {}
            }
        }
        self.claim(head, scheme).map(Credential::Signed)
    }

    /// The cheap checks of the headers of a signature.
    fn claim(&self, head: &Parts, scheme: Option<Scheme>) -> Result<Claim, Refusal> {
        let scheme = scheme.ok_or(AuthError::Malformed("the request is not signed"))?;
        let receiver = self.context.pair.hotkey();
        let bounds = Bounds { receiver, now: now_ns(), floor: self.replay.floor() };
        Ok(Claim::read(scheme, &head.headers, &bounds)?)
    }

    async fn body(&self, head: &Parts, body: Incoming) -> Result<Bytes, Refusal> {
        let limits = &self.context.limits;
        let stated = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let stated: Option<usize> = stated.and_then(|text| text.parse().ok());
        if stated.is_some_and(|length| length > limits.body_bytes) {
            return Err(Refusal::too_large());
        }
        let _place = match stated {
            Some(length) if length <= SMALL_BODY => None,
            _ => Some(self.large_bodies.try_acquire().map_err(|_| Refusal::busy())?),
        };
        let read = Limited::new(body, limits.body_bytes).collect();
        match timeout(limits.body_timeout, read).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::too_large()),
            Ok(Err(_)) => Err(Refusal::bad_request("the body broke off")),
            Err(_) => Err(Refusal::too_slow()),
        }
    }

    async fn prove(
        &self,
        head: &Parts,
        claim: &Claim,
        body: &[u8],
        route: &Route,
    ) -> Result<Hotkey, Refusal> {
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let method = head.method.as_str();
        let (synapse, hash_fields) = (route.synapse, route.hash_fields);
        let signed = Signed { method, target, body, synapse, hash_fields };
        let sender = claim.verify(&signed)?;
        // A signature is a tenth of a millisecond of work: others on this thread come in between.
        tokio::task::yield_now().await;
        Ok(sender)
    }

    /// Whether the proven sender may call, and now.
    fn admit(&self, sender: Hotkey) -> Result<(), Refusal> {
        self.context.admission.admit(&sender).map_err(Refusal::denied)?;
        if self.context.rates.allow_hotkey(&sender) { Ok(()) } else { Err(Refusal::rate("hotkey")) }
    }

    /// Whether the nonce is new. Last of all: the journal is written for those alone who are admitted
    /// and served, and who is told to come again later may do so with the same request.
    async fn spend(&self, claim: &Claim) -> Result<(), Refusal> {
        match self.replay.spend(claim.is_of(), claim.replay_key(), claim.nonce()).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(AuthError::Replayed.into()),
            Err(_) => Err(Refusal::journal()),
        }
    }

    /// Waits for the streams, whose connections have ended.
    pub async fn end_streams(&self) {
        self.streams.close();
        self.streams.wait().await;
    }

    /// Time for running requests to end.
    pub fn drain(&self) -> Duration {
        self.context.limits.drain_timeout
    }
}

/// Names the method that a path has, where the request had another (RFC 9110).
fn allow(response: &mut Built, method: Option<&Method>) {
    let method = method.filter(|_| response.status() == StatusCode::METHOD_NOT_ALLOWED);
    if let Some(value) = method.and_then(|method| HeaderValue::from_str(method.as_str()).ok()) {
        response.headers_mut().insert(ALLOW, value);
    }
}

fn malformed() -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "malformed_body", "the body is no JSON object")
}

/// The body as fields; none at all is an empty object.
fn fields(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(body).map_err(|_| malformed())
}
