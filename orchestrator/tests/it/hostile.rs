//! A hostile SSH host: it lets any key in, and then does what its script says.
//!
//! ```ignore
//! let host = HostileHost::start(Hostility::on_exec(script::endless_stdout())).await;
//! // ... drive `host.address()`, pinning `host.fingerprint()` ...
//! assert_eq!(host.seen().authentication_requests, 0);
//! ```
//!
//! A [`Hostility`] says how the host behaves up to the `exec`; a list of [`Act`]s says what the
//! command then does. [`script`] holds commands, [`frames`] the lies of a runner. The scripts
//! are sizes, not times: nothing here waits.

pub mod frames;
pub mod prover;
pub mod script;
mod self_test;

use std::collections::HashMap;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::sync::Arc;

use runner_protocol::{FrameDecoder, RequestId, ToRunner};
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{HashAlg, PrivateKey, PublicKey};
use russh::server::{
    self, Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Chooses what a command does by its command line.
pub type Script = Arc<dyn Fn(&[u8]) -> Vec<Act> + Send + Sync>;

/// How a host behaves.
#[derive(Clone)]
pub struct Hostility {
    /// What a new TCP connection gets.
    pub greeting: Greeting,
    /// Shown to the client when it asks to authenticate (RFC 4252 section 5.4).
    pub banner: Option<String>,
    /// Whether every key is let in, or none.
    pub lets_in: bool,
    /// What a request for a session channel gets.
    pub channel: Answer,
    /// What an `exec` request gets.
    pub exec: Answer,
    /// What the command of an accepted `exec` does, by its command line.
    pub command: Script,
}

/// What a new TCP connection gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greeting {
    /// SSH.
    Ssh,
    /// An end at once.
    Close,
    /// Nothing.
    Silence,
    /// Lines that are not an SSH identification, without end (RFC 4253 section 4.2 allows some).
    EndlessLines,
}

/// What a request gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Accept,
    /// No.
    Refuse,
    /// Nothing, for ever.
    Never,
    /// The end of the connection.
    Cut,
}

/// Where output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// What is answered to each message.
pub type Talker = Box<dyn FnMut(ToRunner) -> Vec<u8> + Send>;

/// One thing that a command does.
#[derive(Clone)]
pub enum Act {
    /// Writes bytes.
    Write(Stream, Vec<u8>),
    /// Writes bytes this often; [`u64::MAX`] is without end.
    Repeat(Stream, Vec<u8>, u64),
    /// Reads a runner request from stdin, and writes what this makes of its id to stdout.
    Reply(fn(RequestId) -> Vec<u8>),
    /// Reads the messages to a runner to their end, and writes what this answers each.
    Talk(Arc<dyn Fn() -> Talker + Send + Sync>),
    /// Reads stdin to its end.
    ReadAll,
    /// Runs the command line for real, with `sh -c` and this environment variable `HOME`.
    Run(std::path::PathBuf),
    /// Reports an exit status.
    Exit(u32),
    /// Reports a death by SIGKILL.
    Killed,
    /// Ends the output.
    Eof,
    /// Closes the channel.
    Close,
    /// Ends the TCP connection.
    Cut,
    /// Does nothing until the client closes the channel.
    Hang,
}

impl Hostility {
    /// An ordinary host but for what every command does.
    pub fn on_exec(acts: Vec<Act>) -> Self {
        Self::by_command(move |_| acts.clone())
    }

    /// An ordinary host but for what a command does, by its command line.
    pub fn by_command(command: impl Fn(&[u8]) -> Vec<Act> + Send + Sync + 'static) -> Self {
        Self {
            greeting: Greeting::Ssh,
            banner: None,
            lets_in: true,
            channel: Answer::Accept,
            exec: Answer::Accept,
            command: Arc::new(command),
        }
    }
}

/// What the host has seen of its clients.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// TCP connections accepted.
    pub connections: usize,
    /// TCP connections that are over.
    pub ended: usize,
    /// Requests of the authentication service and of any method in it. Zero means that not one
    /// byte of authentication was sent.
    pub authentication_requests: usize,
    /// Login names that were tried.
    pub users: Vec<String>,
    /// Keys that were offered.
    pub keys: Vec<PublicKey>,
    /// Session channels asked for.
    pub channels: usize,
    /// Session channels that the client closed.
    pub closed_channels: usize,
    /// Command lines, in order.
    pub commands: Vec<String>,
    /// Bytes sent to commands.
    pub stdin_bytes: u64,
    /// Bytes that commands wrote and the client's window took.
    pub output_bytes: u64,
}

/// A running hostile host; dropping it ends every connection.
pub struct HostileHost {
    address: SocketAddr,
    host_key: PublicKey,
    seen: watch::Receiver<Seen>,
    _stop: DropGuard,
    _tasks: JoinSet<()>,
}

impl HostileHost {
    /// Listens on a free loopback port, with a new ed25519 host key.
    pub async fn start(hostility: Hostility) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut seed = [0; 32];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut seed).unwrap();
        let key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
        let host_key = key.public_key().clone();
        let config = Arc::new(server::Config {
            keys: vec![key],
            auth_rejection_time: std::time::Duration::ZERO,
            inactivity_timeout: None,
            nodelay: true,
            ..server::Config::default()
        });
        let (record, seen) = watch::channel(Seen::default());
        let stop = CancellationToken::new();
        let accept = Accept { listener, config, hostility, record, stop: stop.clone() };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept.run());
        Self { address, host_key, seen, _stop: stop.drop_guard(), _tasks: tasks }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its host key.
    pub fn host_key(&self) -> &PublicKey {
        &self.host_key
    }

    /// Its host key's fingerprint, `SHA256:<base64>`.
    pub fn fingerprint(&self) -> String {
        self.host_key.fingerprint(HashAlg::Sha256).to_string()
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits until something is true of what it has seen.
    pub async fn wait_for(&self, happened: impl FnMut(&Seen) -> bool) -> Seen {
        self.seen.clone().wait_for(happened).await.unwrap().clone()
    }
}

struct Accept {
    listener: TcpListener,
    config: Arc<server::Config>,
    hostility: Hostility,
    record: watch::Sender<Seen>,
    stop: CancellationToken,
}

impl Accept {
    async fn run(self) {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = self.listener.accept().await.unwrap();
            self.record.send_modify(|seen| seen.connections += 1);
            let stream = stream.into_std().unwrap();
            let cut = Arc::new(stream.try_clone().unwrap());
            let stream = TcpStream::from_std(stream).unwrap();
            let client = Client {
                hostility: self.hostility.clone(),
                record: self.record.clone(),
                stop: self.stop.child_token(),
                cut,
                channels: HashMap::new(),
            };
            let (config, record) = (Arc::clone(&self.config), self.record.clone());
            connections.spawn(async move {
                client.greet(config, stream).await;
                record.send_modify(|seen| seen.ended += 1);
            });
        }
    }
}

struct Client {
    hostility: Hostility,
    record: watch::Sender<Seen>,
    stop: CancellationToken,
    cut: Arc<std::net::TcpStream>,
    channels: HashMap<ChannelId, OpenChannel>,
}

struct OpenChannel {
    writer: Option<ChannelWriteHalf<Msg>>,
    /// Dropped at the client's EOF. Unbounded: a test sends what it sends.
    stdin: Option<mpsc::UnboundedSender<Vec<u8>>>,
    command_stdin: Option<mpsc::UnboundedReceiver<Vec<u8>>>,
    closed: CancellationToken,
    _close: DropGuard,
}

impl Client {
    async fn greet(self, config: Arc<server::Config>, mut stream: TcpStream) {
        match self.hostility.greeting {
            Greeting::Ssh => {
                let (stop, cut) = (self.stop.clone(), Arc::clone(&self.cut));
                let _commands_end_too = stop.clone().drop_guard();
                let serve = async {
                    if let Ok(session) = server::run_stream(config, stream, self).await {
                        let _ = session.await;
                    }
                };
                tokio::pin!(serve);
                // Cancel safe: `serve` is polled on after the cut.
                tokio::select! {
                    () = &mut serve => {}
                    () = stop.cancelled() => {
                        let _ = cut.shutdown(Shutdown::Both);
                        serve.await;
                    }
                }
            }
            Greeting::Close => {}
            Greeting::Silence => {
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
            Greeting::EndlessLines => {
                while stream.write_all(b"Welcome to this host. Please wait.\r\n").await.is_ok() {
                    // A socket that is always writable would starve the other tasks.
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    fn note_authentication(&self, user: &str) {
        self.record.send_modify(|seen| {
            seen.authentication_requests += 1;
            seen.users.push(user.to_owned());
        });
    }

    fn answer_login(&self, key: &PublicKey) -> Auth {
        self.record.send_modify(|seen| {
            if !seen.keys.contains(key) {
                seen.keys.push(key.clone());
            }
        });
        if self.hostility.lets_in { Auth::Accept } else { Auth::reject() }
    }

    fn cut(&self) {
        let _ = self.cut.shutdown(Shutdown::Both);
    }
}

impl Handler for Client {
    type Error = russh::Error;

    /// Called for the service request, which comes before any method.
    async fn authentication_banner(&mut self) -> Result<Option<String>, Self::Error> {
        self.record.send_modify(|seen| seen.authentication_requests += 1);
        Ok(self.hostility.banner.clone())
    }

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Self::Error> {
        self.note_authentication(user);
        Ok(Auth::reject())
    }

    async fn auth_password(&mut self, user: &str, _: &str) -> Result<Auth, Self::Error> {
        self.note_authentication(user);
        Ok(Auth::reject())
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _: &str,
        _: Option<server::Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        self.note_authentication(user);
        Ok(Auth::reject())
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        self.note_authentication(user);
        Ok(self.answer_login(offer.public_key))
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        self.note_authentication(user);
        Ok(self.answer_login(key.public_key))
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.record.send_modify(|seen| seen.channels += 1);
        match self.hostility.channel {
            Answer::Accept => {}
            Answer::Refuse => {
                reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
                return Ok(());
            }
            Answer::Never => {
                // Dropping the handle would be a refusal.
                std::mem::forget(reply);
                return Ok(());
            }
            Answer::Cut => {
                self.cut();
                return Ok(());
            }
        }
        let id = channel.id();
        let (_reader, writer) = channel.split();
        let (stdin, command_stdin) = mpsc::unbounded_channel();
        let closed = self.stop.child_token();
        let open = OpenChannel {
            writer: Some(writer),
            stdin: Some(stdin),
            command_stdin: Some(command_stdin),
            _close: closed.clone().drop_guard(),
            closed,
        };
        self.channels.insert(id, open);
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let text = String::from_utf8_lossy(line).into_owned();
        self.record.send_modify(|seen| seen.commands.push(text));
        match self.hostility.exec {
            Answer::Accept => session.channel_success(id)?,
            Answer::Refuse => return session.channel_failure(id),
            Answer::Never => return Ok(()),
            Answer::Cut => {
                self.cut();
                return Ok(());
            }
        }
        let Some(open) = self.channels.get_mut(&id) else { return Ok(()) };
        let (Some(writer), Some(stdin)) = (open.writer.take(), open.command_stdin.take()) else {
            return Ok(());
        };
        let command = script::Running {
            line: line.to_vec(),
            acts: (self.hostility.command)(line),
            writer,
            session: session.handle(),
            stdin,
            record: self.record.clone(),
            cut: Arc::clone(&self.cut),
        };
        let closed = open.closed.clone();
        tokio::spawn(async move {
            // Cancel safe: nobody is left to see what is lost.
            tokio::select! {
                () = command.run() => {}
                () = closed.cancelled() => {}
            }
        });
        Ok(())
    }

    async fn data(
        &mut self,
        id: ChannelId,
        bytes: &[u8],
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.record.send_modify(|seen| seen.stdin_bytes += bytes.len() as u64);
        if let Some(stdin) = self.channels.get(&id).and_then(|open| open.stdin.as_ref()) {
            let _ = stdin.send(bytes.to_vec());
        }
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        if let Some(open) = self.channels.get_mut(&id) {
            open.stdin = None;
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.record.send_modify(|seen| seen.closed_channels += 1);
        self.channels.remove(&id);
        Ok(())
    }
}

/// Reads the next frame of a command's stdin.
async fn next_message(
    stdin: &mut mpsc::UnboundedReceiver<Vec<u8>>,
    decoder: &mut FrameDecoder,
    unread: &mut Vec<u8>,
) -> Option<ToRunner> {
    loop {
        let mut input = unread.as_slice();
        if let Some(body) = decoder.push(&mut input).ok()? {
            *unread = input.to_vec();
            return runner_protocol::decode(&body).ok();
        }
        *unread = stdin.recv().await?;
    }
}

/// Reads frames from a command's stdin until a request; the other messages are passed over.
async fn next_request(
    stdin: &mut mpsc::UnboundedReceiver<Vec<u8>>,
    decoder: &mut FrameDecoder,
    unread: &mut Vec<u8>,
) -> Option<RequestId> {
    loop {
        if let ToRunner::Request { id, .. } = next_message(stdin, decoder, unread).await? {
            return Some(id);
        }
    }
}
