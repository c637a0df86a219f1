//! HTTP/1.1 over dialled streams: at most two that wait for the next request.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use super::dial::{Dial, Lane};
use super::error::Error;

/// Streams that are kept open for the next request: each is a channel of the connection.
const MAX_IDLE: usize = 2;

/// The most of an answer that is taken whole, in bytes: the list of a thousand containers is 2 MiB.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// For an ordinary question. Docker's own answers to listing take a second on a loaded host.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

type Sender = SendRequest<Full<Bytes>>;

/// The HTTP connections to one engine.
pub(super) struct Http {
    dial: Arc<dyn Dial>,
    idle: Mutex<Vec<Sender>>,
    /// Each drives one connection, and ends with it or with this.
    drivers: Mutex<JoinSet<()>>,
}

/// A request before it has a connection. It may be sent twice when a kept connection was closed.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) operation: &'static str,
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Option<Bytes>,
}

impl Ask {
    pub(super) fn new(operation: &'static str, method: &'static str, path: String) -> Self {
        Self { operation, method, path, headers: Vec::new(), body: None }
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, Error> {
        let mut request =
            Request::builder().method(self.method).uri(&self.path).header("host", "engine");
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if self.body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = Full::new(self.body.clone().unwrap_or_default());
        request.body(body).map_err(|_| Error::Request { operation: self.operation })
    }
}

/// An answer whose body is still to come.
pub(super) struct Opened {
    pub(super) response: Response<Incoming>,
    /// Its connection, which does nothing unless it is driven.
    pub(super) driver: Driver,
}

/// A connection that whoever reads its answer drives. An engine sends a log line by line, and a task
/// of its own for the connection would wake the reader on another thread for each of them.
pub(super) struct Driver(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Driver {
    fn of(connection: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Some(Box::pin(connection)))
    }

    /// Drives the connection until `work`, which waits for something of it, is done.
    ///
    /// # Cancel safety
    /// The connection goes on where it was; the work is dropped.
    pub(super) async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(done);
            }
            if let Some(connection) = &mut self.0
                && connection.as_mut().poll(context).is_ready()
            {
                self.0 = None;
            }
            // What the connection has just read is taken at once, without another wake-up.
            work.as_mut().poll(context)
        })
        .await
    }
}

impl Http {
    pub(super) fn new(dial: Arc<dyn Dial>) -> Self {
        Self { dial, idle: Mutex::default(), drivers: Mutex::default() }
    }

    /// Asks and reads the whole answer, whatever its status.
    pub(super) async fn ask(&self, ask: Ask, limit: Duration) -> Result<(u16, Bytes), Error> {
        let operation = ask.operation;
        let whole = async {
            let (response, sender) = self.send(ask).await?;
            let status = response.status().as_u16();
            let body = collect(response, operation).await?;
            self.keep(sender).await;
            Ok((status, body))
        };
        in_time(operation, limit, whole).await
    }

    /// As [`Self::ask`] for an answer of success.
    pub(super) async fn succeed(&self, ask: Ask, limit: Duration) -> Result<Bytes, Error> {
        let operation = ask.operation;
        match self.ask(ask, limit).await? {
            (200..=299, body) => Ok(body),
            (status, body) => Err(Error::refused(operation, status, &body)),
        }
    }

    /// Asks on a connection of its own and returns once the head of a good answer is there; the
    /// body follows as it comes.
    pub(super) async fn open(
        &self,
        ask: Ask,
        lane: Lane,
        limit: Duration,
    ) -> Result<Opened, Error> {
        let operation = ask.operation;
        let head = async {
            let stream = self.dial.dial(lane).await?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|source| Error::Http { operation, source })?;
            let mut driver = Driver::of(async move {
                // Whoever waits for an answer hears of the failure.
                let _ = connection.with_upgrades().await;
            });
            let response = driver.drive(sender.send_request(ask.request()?)).await;
            let response = response.map_err(|source| Error::Http { operation, source })?;
            let status = response.status().as_u16();
            if matches!(status, 101 | 200..=299) {
                return Ok(Opened { response, driver });
            }
            let body = driver.drive(collect(response, operation)).await?;
            Err(Error::refused(operation, status, &body))
        };
        in_time(operation, limit, head).await
    }

    /// Sends on a kept connection or a new one.
    async fn send(&self, ask: Ask) -> Result<(Response<Incoming>, Sender), Error> {
        let operation = ask.operation;
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(mut sender) = kept.filter(|sender| !sender.is_closed()) {
            match sender.try_send_request(ask.request()?).await {
                Ok(response) => return Ok((response, sender)),
                // It was closed meanwhile and the request never left.
                Err(mut error) => {
                    if error.take_message().is_none() {
                        return Err(Error::Http { operation, source: error.into_error() });
                    }
                }
            }
        }
        let mut sender = self.connect(Lane::Control, operation).await?;
        let response = sender.send_request(ask.request()?).await;
        let response = response.map_err(|source| Error::Http { operation, source })?;
        Ok((response, sender))
    }

    async fn connect(&self, lane: Lane, operation: &'static str) -> Result<Sender, Error> {
        let stream = self.dial.dial(lane).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| Error::Http { operation, source })?;
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that have ended are forgotten.
        while drivers.try_join_next().is_some() {}
        drivers.spawn(async move {
            // Whoever waits for an answer hears of the failure.
            let _ = connection.with_upgrades().await;
        });
        Ok(sender)
    }

    /// Keeps a connection that is ready for the next request.
    async fn keep(&self, mut sender: Sender) {
        if sender.ready().await.is_ok() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < MAX_IDLE {
                idle.push(sender);
            }
        }
    }
}

async fn in_time<T>(
    operation: &'static str,
    limit: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let seconds = limit.as_secs();
    tokio::time::timeout(limit, work).await.unwrap_or(Err(Error::TimedOut { operation, seconds }))
}

/// The whole body of an answer, as far as that is reasonable.
async fn collect(response: Response<Incoming>, operation: &'static str) -> Result<Bytes, Error> {
    let mut body = response.into_body();
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| Error::Http { operation, source })?;
        if let Some(data) = frame.data_ref() {
            if whole.len() + data.len() > MAX_ANSWER {
                return Err(Error::TooLarge { operation, limit: MAX_ANSWER });
            }
            whole.extend_from_slice(data);
        }
    }
    Ok(whole.into())
}
