//! A FAKE Engine: a socket in front of the real one that answers some requests with lies. It only
//! injects faults; what it does not lie about comes from the real Engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

/// What becomes of a request.
#[derive(Debug, Clone)]
pub enum Tampering {
    /// The real Engine answers.
    None,
    /// These bytes, and the end.
    Answer(Vec<u8>),
    /// These bytes, and then these others for ever.
    Endless(&'static [u8], &'static [u8]),
    /// The real answer with one text in place of another of the same length.
    Replaced(&'static str, &'static str),
}

pub struct TamperingEngine {
    socket: PathBuf,
    _dir: TempDir,
    _task: JoinSet<()>,
}

impl TamperingEngine {
    /// Listens in front of a real Engine; `choose` sees each request line.
    pub fn start(real: &Path, choose: impl Fn(&str) -> Tampering + Send + Sync + 'static) -> Self {
        let dir = crate::sshd::open_dir();
        let socket = dir.path().join("tampering.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (real, choose) = (real.to_owned(), Arc::new(choose));
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (real, choose) = (real.clone(), Arc::clone(&choose));
                connections.spawn(async move {
                    // A client that goes away is no fault of this fake.
                    let _ = serve(client, &real, &*choose).await;
                });
            }
        });
        Self { socket, _dir: dir, _task: task }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

async fn serve(
    mut client: UnixStream,
    real: &Path,
    choose: &(impl Fn(&str) -> Tampering + ?Sized),
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    match choose(head.lines().next().unwrap()) {
        Tampering::None => {
            let mut engine = UnixStream::connect(real).await?;
            engine.write_all(one_request(&head).as_bytes()).await?;
            copy_bidirectional(&mut client, &mut engine).await?;
        }
        Tampering::Answer(bytes) => {
            client.write_all(&bytes).await?;
            client.shutdown().await?;
            // Closing with bytes unread would be a reset.
            tokio::io::copy(&mut client, &mut tokio::io::sink()).await?;
        }
        Tampering::Endless(first, for_ever) => {
            client.write_all(first).await?;
            let many = for_ever.repeat(64 * 1024 / for_ever.len());
            loop {
                client.write_all(&many).await?;
            }
        }
        Tampering::Replaced(from, to) => {
            assert_eq!(from.len(), to.len());
            let mut engine = UnixStream::connect(real).await?;
            engine.write_all(one_request(&head).as_bytes()).await?;
            let mut answer = Vec::new();
            engine.read_to_end(&mut answer).await?;
            let places: Vec<usize> = (0..answer.len().saturating_sub(from.len()))
                .filter(|at| answer[*at..].starts_with(from.as_bytes()))
                .collect();
            for at in places {
                answer[at..at + from.len()].copy_from_slice(to.as_bytes());
            }
            client.write_all(&answer).await?;
            client.shutdown().await?;
            tokio::io::copy(&mut client, &mut tokio::io::sink()).await?;
        }
    }
    Ok(())
}

/// A request after which the Engine closes the connection, so that the next one comes on another
/// and is seen here. A connection that is taken over for a stream stays as it is.
fn one_request(head: &str) -> String {
    let lower = head.to_ascii_lowercase();
    if lower.contains("\r\nupgrade:") {
        return head.to_owned();
    }
    let lines = head.trim_end().split("\r\n");
    let kept: Vec<&str> =
        lines.filter(|line| !line.to_ascii_lowercase().starts_with("connection:")).collect();
    format!("{}\r\nConnection: close\r\n\r\n", kept.join("\r\n"))
}

mod tests {
    use super::*;
    use crate::containers::engine::{Engine, IMAGE};

    async fn dockers_client(socket: &Path, arguments: &'static [&'static str]) -> String {
        let host = format!("unix://{}", socket.display());
        let ran = tokio::task::spawn_blocking(move || {
            let mut client = std::process::Command::new("/usr/bin/docker");
            client.args(["--host", &host]).args(arguments).output().unwrap()
        });
        let output = ran.await.unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    #[tokio::test]
    async fn what_is_not_tampered_with_is_the_engines_and_the_rest_is_not() {
        let engine = TamperingEngine::start(Engine::shared().socket(), |line| match line {
            line if line.contains("/version") => Tampering::Answer(b"what?".to_vec()),
            line if line.contains("/images/json") => Tampering::Replaced("busybox", "fuzzbox"),
            _ => Tampering::None,
        });
        let ran = dockers_client(engine.socket(), &["run", "--rm", IMAGE, "echo", "real"]).await;
        assert_eq!(ran, "real\n");
        let images = dockers_client(engine.socket(), &["images"]).await;
        assert!(images.contains("orch-it/fuzzbox"), "{images}");
        let version = dockers_client(engine.socket(), &["version"]).await;
        assert!(version.contains("malformed HTTP"), "{version}");
    }
}
