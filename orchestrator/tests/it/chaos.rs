//! A TCP proxy that injects faults: one [`Plan`] for each connection, in the order of accepting.
//!
//! It stands between a client and a real server on loopback. Faults happen at byte counts, not at
//! times, so a run repeats exactly. The proxy counts what it carried, so a test can say what
//! never reached the server.
//!
//! ```ignore
//! let proxy = ChaosProxy::start(server, [Plan::reset_to_client_at(100), Plan::pass()]).await;
//! client.connect(proxy.address()).await; // reset after 100 bytes
//! client.connect(proxy.address()).await; // carried
//! ```
//!
//! Connections after the last plan get the last plan again.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What happens to the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// Waits this long before each chunk is passed on.
    pub delay: Duration,
    /// At most this many bytes in a chunk; with `delay`, a slow drip.
    pub chunk: Option<usize>,
    /// Inverts every bit of the byte with this index (from 0).
    pub corrupt_at: Option<u64>,
    /// What happens once this many bytes have passed.
    pub cut: Option<(u64, Cut)>,
}

/// How a direction ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Both sides get a TCP reset.
    Reset,
    /// Both sides get an orderly end.
    Close,
    /// Nothing more passes in this direction, and nothing is closed.
    Freeze,
}

/// What happens to one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Plan {
    /// Bytes are carried, each direction with its faults.
    #[default]
    Pass,
    /// Bytes are carried with these faults.
    Flows {
        /// From the client to the server.
        to_server: Flow,
        /// From the server to the client.
        to_client: Flow,
    },
    /// The server's first line arrives, and then nothing in either direction: a server that
    /// froze after its SSH banner.
    FreezeAfterBanner,
    /// The connection is accepted, and nothing ever happens on it.
    NeverAnswer,
    /// The connection is reset at once.
    Refuse,
}

impl Plan {
    /// Resets after `bytes` from the client have passed.
    pub fn reset_to_server_at(bytes: u64) -> Self {
        Self::to_server(Flow { cut: Some((bytes, Cut::Reset)), ..Flow::default() })
    }

    /// Resets after `bytes` from the server have passed.
    pub fn reset_to_client_at(bytes: u64) -> Self {
        Self::to_client(Flow { cut: Some((bytes, Cut::Reset)), ..Flow::default() })
    }

    /// Inverts one byte from the server.
    pub fn corrupt_to_client_at(index: u64) -> Self {
        Self::to_client(Flow { corrupt_at: Some(index), ..Flow::default() })
    }

    /// Inverts one byte from the client.
    pub fn corrupt_to_server_at(index: u64) -> Self {
        Self::to_server(Flow { corrupt_at: Some(index), ..Flow::default() })
    }

    /// Adds half of `round_trip` to each direction.
    pub fn delay(round_trip: Duration) -> Self {
        let flow = Flow { delay: round_trip / 2, ..Flow::default() };
        Self::Flows { to_server: flow, to_client: flow }
    }

    /// Passes the server's bytes one at a time, with a pause before each.
    pub fn drip(pause: Duration) -> Self {
        Self::to_client(Flow { delay: pause, chunk: Some(1), ..Flow::default() })
    }

    /// Faults in the direction to the server alone.
    pub fn to_server(to_server: Flow) -> Self {
        Self::Flows { to_server, to_client: Flow::default() }
    }

    /// Faults in the direction to the client alone.
    pub fn to_client(to_client: Flow) -> Self {
        Self::Flows { to_server: Flow::default(), to_client }
    }

    /// `working` connections that pass, then only refused ones.
    pub fn drop_after(working: usize) -> Vec<Self> {
        let mut plans = vec![Self::Pass; working];
        plans.push(Self::Refuse);
        plans
    }
}

/// What the proxy has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Connections accepted.
    pub accepted: usize,
    /// Connections that are over.
    pub finished: usize,
    /// Bytes written to the server.
    pub bytes_to_server: u64,
    /// Bytes written to clients.
    pub bytes_to_client: u64,
}

/// A running proxy; dropping it ends every connection.
pub struct ChaosProxy {
    address: SocketAddr,
    traffic: watch::Receiver<Traffic>,
    _tasks: JoinSet<()>,
}

impl ChaosProxy {
    /// Listens on a free loopback port, in front of `server`.
    pub async fn start(server: SocketAddr, plans: impl IntoIterator<Item = Plan>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (counter, traffic) = watch::channel(Traffic::default());
        let mut plans: VecDeque<Plan> = plans.into_iter().collect();
        assert!(!plans.is_empty(), "a proxy needs a plan");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let plan = match plans.len() {
                    1 => plans[0],
                    _ => plans.pop_front().unwrap(),
                };
                counter.send_modify(|traffic| traffic.accepted += 1);
                let counter = counter.clone();
                connections.spawn(async move {
                    carry(plan, client, server, &counter).await;
                    counter.send_modify(|traffic| traffic.finished += 1);
                });
            }
        });
        Self { address, traffic, _tasks: tasks }
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has happened so far.
    pub fn traffic(&self) -> Traffic {
        *self.traffic.borrow()
    }

    /// Waits until something is true of what has happened.
    pub async fn wait_for(&self, happened: impl FnMut(&Traffic) -> bool) -> Traffic {
        *self.traffic.clone().wait_for(happened).await.unwrap()
    }
}

type Counter = watch::Sender<Traffic>;

async fn carry(plan: Plan, client: TcpStream, server: SocketAddr, counter: &Counter) {
    let (to_server, to_client) = match plan {
        Plan::Pass => (Flow::default(), Flow::default()),
        Plan::Flows { to_server, to_client } => (to_server, to_client),
        Plan::FreezeAfterBanner => return freeze_after_banner(client, server, counter).await,
        Plan::NeverAnswer => return hold(client).await,
        Plan::Refuse => return reset(client),
    };
    let Ok(server) = TcpStream::connect(server).await else { return reset(client) };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let over = CancellationToken::new();
    let up = Direction { from: client_in, to: server_out, flow: to_server, over: over.clone() };
    let down = Direction { from: server_in, to: client_out, flow: to_client, over };
    // The halves come back so that a reset can close the whole sockets, both at once.
    let (up, down) = tokio::join!(
        up.run(|bytes| counter.send_modify(|traffic| traffic.bytes_to_server += bytes)),
        down.run(|bytes| counter.send_modify(|traffic| traffic.bytes_to_client += bytes)),
    );
    let cut = up.cut.or(down.cut);
    let client = up.from.reunite(down.to).unwrap();
    let server = down.from.reunite(up.to).unwrap();
    match cut {
        Some(Cut::Reset) => {
            reset(client);
            reset(server);
        }
        Some(Cut::Close) => {
            // Closing with bytes unread would be a reset, so they are read.
            tokio::join!(finish(client), finish(server));
        }
        Some(Cut::Freeze) | None => {}
    }
}

async fn finish(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    hold(stream).await;
}

struct Direction {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    flow: Flow,
    /// Ends the other direction too.
    over: CancellationToken,
}

struct Ended {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    cut: Option<Cut>,
}

impl Direction {
    async fn run(mut self, count: impl Fn(u64)) -> Ended {
        // Cancel safe: after a cancellation nothing of this direction is used any more.
        let cut = tokio::select! {
            cut = pump(&mut self.from, &mut self.to, self.flow, count) => {
                if cut.is_some() {
                    self.over.cancel();
                }
                cut
            }
            () = self.over.cancelled() => None,
        };
        Ended { from: self.from, to: self.to, cut }
    }
}

/// Copies with faults; `None` after the sender's own end, which is passed on.
async fn pump(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    flow: Flow,
    count: impl Fn(u64),
) -> Option<Cut> {
    let mut passed = 0_u64;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut limit = flow.chunk.unwrap_or(buffer.len()).min(buffer.len());
        if let Some((at, cut)) = flow.cut {
            let left = usize::try_from(at - passed).unwrap_or(usize::MAX);
            if left == 0 {
                if cut == Cut::Freeze {
                    std::future::pending::<()>().await;
                }
                return Some(cut);
            }
            limit = limit.min(left);
        }
        let read = match from.read(&mut buffer[..limit]).await {
            Ok(0) => {
                let _ = to.shutdown().await;
                return None;
            }
            Ok(read) => read,
            // A reset of one side is passed on as one.
            Err(_) => return Some(Cut::Reset),
        };
        if !flow.delay.is_zero() {
            tokio::time::sleep(flow.delay).await;
        }
        let end = passed + read as u64;
        if let Some(index) = flow.corrupt_at.filter(|index| (passed..end).contains(index)) {
            buffer[usize::try_from(index - passed).unwrap()] ^= 0xff;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return Some(Cut::Reset);
        }
        passed = end;
        count(read as u64);
    }
}

async fn freeze_after_banner(mut client: TcpStream, server: SocketAddr, counter: &Counter) {
    let Ok(mut server) = TcpStream::connect(server).await else { return reset(client) };
    let mut byte = [0];
    while byte != *b"\n" && server.read_exact(&mut byte).await.is_ok() {
        if client.write_all(&byte).await.is_err() {
            return;
        }
        counter.send_modify(|traffic| traffic.bytes_to_client += 1);
    }
    hold(client).await;
}

/// Keeps a connection open and silent until the other side ends it.
async fn hold(client: TcpStream) {
    // Read readiness without reading would stay set after the first byte: the bytes are dropped.
    let (mut client, _kept_open) = client.into_split();
    let mut sink = tokio::io::sink();
    let _ = tokio::io::copy(&mut client, &mut sink).await;
}

/// Closes with RST instead of FIN.
fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
}

/// A server that answers every byte with itself, after a banner line. For the tests below.
struct Echo {
    address: SocketAddr,
    received: Arc<Mutex<Vec<u8>>>,
    _task: JoinSet<()>,
}

const BANNER: &[u8] = b"ECHO-1.0\r\n";

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&received);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let sink = Arc::clone(&sink);
                connections.spawn(async move {
                    let _ = stream.write_all(BANNER).await;
                    let mut buffer = vec![0; 4096];
                    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                        sink.lock().unwrap().extend_from_slice(&buffer[..read]);
                        if stream.write_all(&buffer[..read]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, received, _task: task }
    }
}

mod tests {
    use std::io::ErrorKind;

    use super::*;

    async fn client(proxy: &ChaosProxy) -> TcpStream {
        TcpStream::connect(proxy.address()).await.unwrap()
    }

    /// Sends `bytes`, ends, and reads what comes until the end.
    async fn exchange(proxy: &ChaosProxy, bytes: &[u8]) -> (Vec<u8>, std::io::Result<usize>) {
        let mut stream = client(proxy).await;
        let (mut input, mut output) = stream.split();
        let mut received = Vec::new();
        let send = async {
            let _ = output.write_all(bytes).await;
            let _ = output.shutdown().await;
        };
        let ((), ended) = tokio::join!(send, input.read_to_end(&mut received));
        (received, ended)
    }

    fn echoed(bytes: &[u8]) -> Vec<u8> {
        [BANNER, bytes].concat()
    }

    fn is_reset(ended: &std::io::Result<usize>) -> bool {
        ended.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
    }

    #[tokio::test]
    async fn a_plan_without_faults_carries_everything_and_counts_it() {
        let echo = Echo::start().await;
        let proxy = ChaosProxy::start(echo.address, [Plan::Pass]).await;
        let sent: Vec<u8> = (0..1_000_000_u32).map(|i| i.to_le_bytes()[1]).collect();
        let (received, ended) = exchange(&proxy, &sent).await;
        ended.unwrap();
        assert!(received == echoed(&sent));
        let traffic = proxy.wait_for(|traffic| traffic.finished == 1).await;
        assert_eq!(traffic.bytes_to_server, sent.len() as u64);
        assert_eq!(traffic.bytes_to_client, received.len() as u64);
    }

    #[tokio::test]
    async fn a_reset_comes_at_the_exact_byte_to_the_client() {
        let echo = Echo::start().await;
        for bytes in [0, 1, BANNER.len() as u64, 17] {
            let proxy = ChaosProxy::start(echo.address, [Plan::reset_to_client_at(bytes)]).await;
            let (received, ended) = exchange(&proxy, &[7; 100]).await;
            // A reset may overtake bytes that the client has not read yet; it never adds any.
            assert!(is_reset(&ended), "{ended:?}");
            assert!(received.len() as u64 <= bytes);
            let traffic = proxy.wait_for(|traffic| traffic.finished == 1).await;
            assert_eq!(traffic.bytes_to_client, bytes);
        }
    }

    #[tokio::test]
    async fn a_reset_comes_at_the_exact_byte_to_the_server() {
        let echo = Echo::start().await;
        let proxy = ChaosProxy::start(echo.address, [Plan::reset_to_server_at(42)]).await;
        let (_, ended) = exchange(&proxy, &[9; 5000]).await;
        assert!(is_reset(&ended), "{ended:?}");
        let traffic = proxy.wait_for(|traffic| traffic.finished == 1).await;
        assert_eq!(traffic.bytes_to_server, 42);
        assert!(echo.received.lock().unwrap().len() <= 42);
    }

    #[tokio::test]
    async fn a_close_is_orderly_and_comes_at_the_exact_byte() {
        let echo = Echo::start().await;
        let cut = Some((BANNER.len() as u64 + 3, Cut::Close));
        let plan = Plan::to_client(Flow { cut, ..Flow::default() });
        let proxy = ChaosProxy::start(echo.address, [plan]).await;
        let (received, ended) = exchange(&proxy, &[b'x'; 100_000]).await;
        ended.unwrap();
        assert_eq!(received, echoed(b"xxx"));
    }

    #[tokio::test]
    async fn one_byte_is_corrupted_in_the_direction_and_at_the_place_asked_for() {
        let echo = Echo::start().await;
        let plans = [Plan::corrupt_to_client_at(12), Plan::corrupt_to_server_at(3)];
        let proxy = ChaosProxy::start(echo.address, plans).await;
        let (down, _) = exchange(&proxy, b"abcdef").await;
        assert_eq!(down, echoed(&[b'a', b'b', b'c' ^ 0xff, b'd', b'e', b'f']));
        assert_eq!(*echo.received.lock().unwrap(), b"abcdef");
        let (up, _) = exchange(&proxy, b"abcdef").await;
        assert_eq!(up, echoed(&[b'a', b'b', b'c', b'd' ^ 0xff, b'e', b'f']));
    }

    #[tokio::test]
    async fn a_frozen_server_shows_its_banner_and_nothing_else() {
        let echo = Echo::start().await;
        let proxy = ChaosProxy::start(echo.address, [Plan::FreezeAfterBanner]).await;
        let mut stream = client(&proxy).await;
        let mut banner = vec![0; BANNER.len()];
        stream.read_exact(&mut banner).await.unwrap();
        assert_eq!(banner, BANNER);
        stream.write_all(b"hello").await.unwrap();
        // The proxy ends only because the client does; the server never saw the bytes.
        assert_eq!(proxy.traffic().finished, 0);
        drop(stream);
        let traffic = proxy.wait_for(|traffic| traffic.finished == 1).await;
        assert_eq!((traffic.bytes_to_server, traffic.bytes_to_client), (0, BANNER.len() as u64));
    }

    #[tokio::test]
    async fn a_half_open_connection_never_answers() {
        let echo = Echo::start().await;
        let proxy = ChaosProxy::start(echo.address, [Plan::NeverAnswer]).await;
        let mut stream = client(&proxy).await;
        stream.write_all(b"hello").await.unwrap();
        proxy.wait_for(|traffic| traffic.accepted == 1).await;
        stream.shutdown().await.unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"");
        assert_eq!(proxy.traffic().bytes_to_server, 0);
    }

    #[tokio::test]
    async fn a_freeze_in_the_middle_stops_one_direction_only() {
        let echo = Echo::start().await;
        let cut = Some((BANNER.len() as u64 + 2, Cut::Freeze));
        let plan = Plan::to_client(Flow { cut, ..Flow::default() });
        let proxy = ChaosProxy::start(echo.address, [plan]).await;
        let mut stream = client(&proxy).await;
        stream.write_all(b"abcdef").await.unwrap();
        let mut received = vec![0; BANNER.len() + 2];
        stream.read_exact(&mut received).await.unwrap();
        assert_eq!(received, echoed(b"ab"));
        stream.write_all(b"more").await.unwrap();
        let traffic = proxy.wait_for(|traffic| traffic.bytes_to_server == 10).await;
        assert_eq!((traffic.bytes_to_client, traffic.finished), (BANNER.len() as u64 + 2, 0));
    }

    #[tokio::test]
    async fn connections_after_the_working_ones_are_dropped() {
        let echo = Echo::start().await;
        let proxy = ChaosProxy::start(echo.address, Plan::drop_after(2)).await;
        for _ in 0..2 {
            assert_eq!(exchange(&proxy, b"hi").await.0, echoed(b"hi"));
        }
        for _ in 0..3 {
            let (received, ended) = exchange(&proxy, b"hi").await;
            assert!(received.is_empty() && is_reset(&ended), "{received:?} {ended:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_and_a_drip_take_the_time_they_say() {
        let echo = Echo::start().await;
        let round_trip = Duration::from_secs(10);
        let pause = Duration::from_secs(3);
        let proxy =
            ChaosProxy::start(echo.address, [Plan::delay(round_trip), Plan::drip(pause)]).await;
        let started = tokio::time::Instant::now();
        exchange(&proxy, b"x").await.1.unwrap();
        assert!(started.elapsed() >= round_trip, "{:?}", started.elapsed());
        let started = tokio::time::Instant::now();
        let (received, _) = exchange(&proxy, b"xyz").await;
        assert_eq!(received, echoed(b"xyz"));
        assert!(started.elapsed() >= pause * u32::try_from(received.len()).unwrap());
    }
}
