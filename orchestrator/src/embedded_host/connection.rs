//! One port of one embedded host: accepting, the login check, and what each SSH request gets.

use std::collections::HashMap;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{PrivateKey, PublicKey};
use russh::server::{
    self, Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{
    Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, MethodKind, MethodSet, Pty, SshId,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::command::{Command, Shell};
use super::stdin_queue::StdinQueue;

/// Connections to one host at a time; more wait in the listen queue.
const MAX_CONNECTIONS: usize = 64;

/// Channels with a command in one connection at a time: sshd's default `MaxSessions`.
const MAX_SESSIONS: usize = 10;

/// From accept to the end of authentication. sshd allows 120 s for a person with a password;
/// here a program has the key at hand.
const LOGIN_GRACE: Duration = Duration::from_secs(30);

/// Pause before accepting again after a failure, which means that the process is out of file
/// descriptors: an immediate retry would spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// What every connection to one host is served with.
pub(super) fn server_config(host_key: PrivateKey) -> Arc<server::Config> {
    Arc::new(server::Config {
        server_id: SshId::Standard("SSH-2.0-orchestrator_embedded_demo".into()),
        methods: MethodSet::from([MethodKind::PublicKey].as_slice()),
        // Slowing down a refusal protects passwords and user names; there are none.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key],
        inactivity_timeout: None,
        keepalive_interval: Some(Duration::from_secs(15)),
        keepalive_max: 3,
        nodelay: true,
        ..server::Config::default()
    })
}

/// The accepting task of one host.
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) config: Arc<server::Config>,
    pub(super) client_key: Arc<PublicKey>,
    pub(super) shell: Arc<Shell>,
    pub(super) stop: CancellationToken,
}

impl Listener {
    /// Accepts until stopped.
    pub(super) async fn run(self) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            // Cancel safe: a permit or a connection not yet returned is not lost.
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = async {
                    let slot = Arc::clone(&slots).acquire_owned().await;
                    (slot, self.socket.accept().await)
                } => accepted,
            };
            match accepted {
                (Ok(slot), Ok((stream, _))) => {
                    let connection = self.connection();
                    self.shell.tasks.spawn(async move {
                        connection.run(stream).await;
                        drop(slot);
                    });
                }
                (_, Err(error)) => {
                    tracing::warn!(host = self.shell.host, %error, "embedded host cannot accept");
                    tokio::select! {
                        () = self.stop.cancelled() => return,
                        () = tokio::time::sleep(ACCEPT_RETRY) => {}
                    }
                }
                (Err(_closed), _) => return,
            }
        }
    }

    fn connection(&self) -> Connection {
        let stop = self.stop.child_token();
        Connection {
            config: Arc::clone(&self.config),
            requests: Requests {
                client_key: Arc::clone(&self.client_key),
                shell: Arc::clone(&self.shell),
                authenticated: CancellationToken::new(),
                stop: stop.clone(),
                channels: HashMap::new(),
            },
            stop,
        }
    }
}

struct Connection {
    config: Arc<server::Config>,
    requests: Requests,
    stop: CancellationToken,
}

impl Connection {
    async fn run(self, stream: TcpStream) {
        // The session lives in a task of the SSH library, which cannot be aborted from here. A
        // second handle on the socket can end it: after a cut, its read returns the end.
        let Ok((stream, cut)) = split_off_cut(stream) else { return };
        let _commands_end_with_the_connection = self.stop.clone().drop_guard();
        let authenticated = self.requests.authenticated.clone();
        let serve = async {
            match server::run_stream(self.config, stream, self.requests).await {
                Ok(session) => session.await,
                Err(error) => Err(error),
            }
        };
        tokio::pin!(serve);
        let grace = async {
            tokio::select! {
                () = authenticated.cancelled() => std::future::pending().await,
                () = tokio::time::sleep(LOGIN_GRACE) => {}
            }
        };
        // Cancel safe: `serve` is polled on below, the other two hold nothing.
        let ended = tokio::select! {
            ended = &mut serve => ended,
            () = self.stop.cancelled() => {
                let _ = cut.shutdown(Shutdown::Both);
                serve.await
            }
            () = grace => {
                let _ = cut.shutdown(Shutdown::Both);
                serve.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection to an embedded host ended");
        }
    }
}

fn split_off_cut(stream: TcpStream) -> std::io::Result<(TcpStream, std::net::TcpStream)> {
    let stream = stream.into_std()?;
    let cut = stream.try_clone()?;
    let stream = TcpStream::from_std(stream)?;
    stream.set_nodelay(true)?;
    Ok((stream, cut))
}

/// The answers to one client's requests. Owned by its session; dropped when the connection ends,
/// which drops the guards, which end the commands.
struct Requests {
    client_key: Arc<PublicKey>,
    shell: Arc<Shell>,
    authenticated: CancellationToken,
    stop: CancellationToken,
    channels: HashMap<ChannelId, OpenChannel>,
}

/// A session channel: waiting for its one `exec`, or running it.
struct OpenChannel {
    /// Taken by the command.
    writer: Option<ChannelWriteHalf<Msg>>,
    stdin: Arc<StdinQueue>,
    /// Cancelled by the command when it is done.
    done: CancellationToken,
    /// Ends the command when the channel is closed.
    _close: DropGuard,
    closed: CancellationToken,
}

impl Requests {
    /// Compares the key itself, not the comment that came with it.
    fn check(&self, key: &PublicKey) -> Auth {
        if key.key_data() == self.client_key.key_data() { Auth::Accept } else { Auth::reject() }
    }
}

impl Handler for Requests {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        _user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.check(offer.public_key))
    }

    async fn auth_publickey(
        &mut self,
        _user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.check(key.public_key))
    }

    async fn auth_succeeded(&mut self, _session: &mut Session) -> Result<(), Self::Error> {
        self.authenticated.cancel();
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        // A channel that we close gets no `channel_close`: its entry goes here.
        self.channels.retain(|_, open| !open.done.is_cancelled());
        if self.channels.len() >= MAX_SESSIONS {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        let id = channel.id();
        // Without its reader, the library hands data to `data` below and never waits for us.
        let (_reader, writer) = channel.split();
        let closed = self.stop.child_token();
        let open = OpenChannel {
            writer: Some(writer),
            stdin: Arc::new(StdinQueue::new(&self.shell.spill)),
            done: CancellationToken::new(),
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
        let Some(open) = self.channels.get_mut(&id) else { return session.channel_failure(id) };
        let Some(writer) = open.writer.take() else { return session.channel_failure(id) };
        match self.shell.spawn(line) {
            Ok(child) => {
                session.channel_success(id)?;
                let command = Command {
                    child,
                    stdin: Arc::clone(&open.stdin),
                    writer,
                    session: session.handle(),
                    closed: open.closed.clone(),
                    done: open.done.clone().drop_guard(),
                };
                self.shell.tasks.spawn(command.run(Arc::clone(&self.shell)));
                Ok(())
            }
            Err(error) => {
                tracing::warn!(host = self.shell.host, %error, "embedded host cannot start a shell");
                open.done.cancel();
                session.channel_failure(id)
            }
        }
    }

    async fn data(
        &mut self,
        id: ChannelId,
        bytes: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(open) = self.channels.get(&id) else { return Ok(()) };
        if let Err(error) = open.stdin.push(bytes) {
            tracing::warn!(host = self.shell.host, %error, "embedded host closes a channel");
            self.channels.remove(&id);
            session.close(id)?;
        }
        Ok(())
    }

    async fn channel_eof(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(open) = self.channels.get(&id) {
            open.stdin.end();
        }
        Ok(())
    }

    async fn channel_close(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.remove(&id);
        Ok(())
    }

    async fn shell_request(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        _name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        _name: &str,
        _value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _single_connection: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }
}
