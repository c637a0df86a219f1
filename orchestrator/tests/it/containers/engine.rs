//! A real container engine: a Docker Engine for all of this test process, and others for a test.
//!
//! It runs in PID, mount and network namespaces of its own (see `engine.sh`), so that several test
//! processes can run at the same time, nothing of the machine is changed, and everything is gone
//! when the test process has ended, however it ended.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::cli::operator::{STUCK, eventually};
use crate::deploy::host::processes;
use crate::sshd::{User, current_user, need, succeed};

/// How long the Engine may take to say that it listens; only a broken one takes as long.
const STARTUP: Duration = Duration::from_secs(120);

/// The image that every engine has: busybox, and the file `/mebibyte` to print.
pub const IMAGE: &str = "orch-it/busybox:1";

/// A mebibyte in lines of a kibibyte.
pub fn mebibyte() -> String {
    let line = ('!'..='y').cycle().take(1023).collect::<String>() + "\n";
    line.repeat(1024)
}

/// What tests ask of GPUs in the Engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuHook {
    /// As on a machine without NVIDIA's container toolkit.
    None,
    /// The Engine finds a hook with the name of NVIDIA's, and then takes device requests for GPUs
    /// and sets `NVIDIA_VISIBLE_DEVICES`. The hook is a FAKE that does nothing: no device appears.
    FakeThatDoesNothing,
}

/// Which engine.
#[derive(Debug, Clone, Copy)]
pub enum Kind<'a> {
    /// Docker's, run by root.
    Docker,
    /// Podman's service with Docker's API, run by root.
    Podman,
    /// Docker's, run by a user in a user namespace of the user's own.
    RootlessDocker(&'a User),
}

/// A running engine; dropping it ends it and its containers.
pub struct Engine {
    dir: PathBuf,
    socket: PathBuf,
    log: Arc<Mutex<Vec<String>>>,
    supervisor: Child,
    /// Closing it ends the Engine.
    alive: Option<ChildStdin>,
}

impl Engine {
    /// The Engine that the tests of this process share. It has the fake GPU hook.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Engine> = OnceLock::new();
        // Never dropped: the end of the process closes the supervisor's input.
        SHARED.get_or_init(|| Self::start(GpuHook::FakeThatDoesNothing))
    }

    /// Starts a Docker Engine for one test.
    pub fn start(gpu_hook: GpuHook) -> Self {
        Self::start_a(Kind::Docker, gpu_hook)
    }

    /// Starts an engine for one test.
    pub fn start_a(kind: Kind<'_>, gpu_hook: GpuHook) -> Self {
        assert_eq!(
            current_user(),
            "root",
            "this test starts a container engine in namespaces of its own: run as root"
        );
        let common = [
            ("/usr/bin/docker", "docker.io"),
            ("/usr/bin/unshare", "util-linux"),
            ("/bin/busybox", "busybox-static"),
        ];
        let own: &[_] = match kind {
            Kind::Docker => &[("/usr/sbin/dockerd", "docker.io")],
            Kind::Podman => &[("/usr/bin/podman", "podman"), ("/usr/bin/crun", "crun")],
            Kind::RootlessDocker(_) => &[
                ("/usr/share/docker.io/contrib/dockerd-rootless.sh", "docker.io"),
                ("/usr/bin/rootlesskit", "rootlesskit"),
                ("/usr/bin/newuidmap", "uidmap"),
                ("/usr/bin/setpriv", "util-linux"),
            ],
        };
        for (program, package) in common.iter().chain(own) {
            need(program, package);
        }
        let dir = tempfile::Builder::new().prefix("orch-it-engine-").tempdir().unwrap().keep();
        // Users of the group `docker` reach the socket in it.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let mut path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
        if gpu_hook == GpuHook::FakeThatDoesNothing {
            let folder = dir.join("fake-gpu-hook");
            fs::create_dir(&folder).unwrap();
            let hook = folder.join("nvidia-container-runtime-hook");
            fs::write(&hook, "#!/bin/sh\n# A FAKE, for tests.\nexit 0\n").unwrap();
            fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
            path = format!("{}:{path}", folder.display());
        }
        let cgroup = dir.file_name().unwrap().to_str().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/containers/engine.sh");
        let (word, user, socket) = match kind {
            Kind::Docker => ("docker", None, "docker.sock"),
            Kind::Podman => ("podman", None, "podman/podman.sock"),
            Kind::RootlessDocker(user) => ("rootless-docker", Some(&user.name), "docker.sock"),
        };
        let socket = dir.join(socket);
        let mut supervisor = Command::new("/bin/sh")
            .arg(script)
            .arg(&dir)
            .args([cgroup, word])
            .args(user)
            // No variable of this machine, for example a proxy, reaches the Engine.
            .env_clear()
            .env("PATH", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A signal to the test's process group must not end the one who tidies up.
            .process_group(0)
            .spawn()
            .unwrap();
        let alive = supervisor.stdin.take();
        let stderr = BufReader::new(supervisor.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let ready = follow(stderr, Arc::clone(&log));
        let engine = Self { dir, socket, log, supervisor, alive };
        assert!(
            ready.recv_timeout(STARTUP).unwrap_or(false),
            "the {word} engine does not start here; it needs root with CAP_SYS_ADMIN, cgroups and \
             overlay or plain files below {}:\n{}",
            engine.dir.display(),
            engine.log(),
        );
        engine.import_busybox();
        engine
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Runs Docker's own client, which is how tests look at what our client did.
    pub fn docker<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Output {
        self.client(arguments).output().unwrap()
    }

    /// As [`Self::docker`] for a command that succeeds: its standard output.
    #[track_caller]
    pub fn docker_says<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> String {
        let output = succeed(&mut self.client(arguments));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn client<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new("/usr/bin/docker");
        command
            .env_clear()
            .env("HOME", &self.dir)
            .args(["--host", &format!("unix://{}", self.socket().display())])
            .args(arguments);
        command
    }

    /// The Engine's own record of a container, by name or id; `None` when it has none.
    pub fn inspect(&self, container: &str) -> Option<Value> {
        match self.get(&format!("/containers/{container}/json")) {
            (200, body) => Some(serde_json::from_slice(&body).unwrap()),
            (404, _) => None,
            // Podman's answer while it removes one.
            (500, body) if String::from_utf8_lossy(&body).contains("no such container") => None,
            (status, body) => panic!("{status}: {}", String::from_utf8_lossy(&body)),
        }
    }

    /// What a container has written so far, both streams.
    pub fn logged(&self, container: &str) -> String {
        let path = format!("/containers/{container}/logs?stdout=true&stderr=true");
        match self.get(&path) {
            (200, body) => String::from_utf8_lossy(&body).into_owned(),
            _ => String::new(),
        }
    }

    /// Asks the Engine itself: for what is asked again and again, the client is too slow.
    fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let mut socket = UnixStream::connect(self.socket()).unwrap();
        // To 1.0 the answer is not in chunks, and ends with the connection.
        write!(socket, "GET {path} HTTP/1.0\r\nHost: engine\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
        let body = answer.split_off(end + 4);
        let head = String::from_utf8(answer).unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
    }

    /// The ids of the containers that have this label (`name` or `name=value`), running or not.
    pub fn labelled(&self, label: &str) -> Vec<String> {
        let filter = format!("label={label}");
        let said = self.docker_says(["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter]);
        said.lines().map(str::to_owned).collect()
    }

    /// Listens on a free port of the Engine's own loopback interface, which the Engine takes for a
    /// registry that needs no TLS.
    pub fn listen(&self) -> TcpListener {
        let network = fs::File::open(format!("/proc/{}/ns/net", self.pid())).unwrap();
        // A namespace belongs to a thread, and the listener to the namespace it was made in.
        let listen = move || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            TcpListener::bind(("127.0.0.1", 0)).unwrap()
        };
        std::thread::spawn(listen).join().unwrap()
    }

    /// Ends the Engine with a signal of its own and waits until it has ended.
    ///
    /// Its containers go on, as they do when an Engine crashes.
    pub async fn kill(&self) {
        kill_process(self.pid(), Signal::KILL).unwrap();
        eventually("the engine has ended", || self.log().contains("the engine has ended")).await;
    }

    /// The process of dockerd.
    fn pid(&self) -> Pid {
        let own = format!("--pidfile {}", self.dir.join("pid").display());
        let found = processes(|process| {
            let line = process.command_line();
            line.starts_with("dockerd ") && line.contains(&own)
        });
        found.first().unwrap_or_else(|| panic!("no dockerd:\n{}", self.log())).0
    }

    fn import_busybox(&self) {
        let root = self.dir.join("image");
        let bin = root.join("bin");
        for folder in [&root, &bin, &root.join("tmp")] {
            fs::create_dir(folder).unwrap();
        }
        fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        let applets = succeed(Command::new("/bin/busybox").arg("--list")).stdout;
        for applet in String::from_utf8(applets).unwrap().lines().filter(|name| *name != "busybox")
        {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        fs::write(root.join("mebibyte"), mebibyte()).unwrap();
        let archive = self.dir.join("image.tar");
        succeed(Command::new("/bin/busybox").arg("tar").arg("-cf").arg(&archive).args([
            "-C",
            root.to_str().unwrap(),
            ".",
        ]));
        self.docker_says(["import", archive.to_str().unwrap(), IMAGE]);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.alive.take());
        let _ = self.supervisor.wait();
    }
}

/// Reads the log until it ends. The receiver hears `true` once the Engine listens, and `false` when
/// it has ended before.
fn follow(
    stderr: impl BufRead + Send + 'static,
    log: Arc<Mutex<Vec<String>>>,
) -> mpsc::Receiver<bool> {
    let (tell, ready) = mpsc::channel();
    std::thread::spawn(move || {
        for line in stderr.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            let listens = ["API listen on", "API service listening on"];
            let event = if listens.iter().any(|words| line.contains(words)) {
                Some(true)
            } else if line.contains("the engine has ended") {
                Some(false)
            } else {
                None
            };
            log.lock().unwrap().push(line);
            if let Some(event) = event {
                // Nobody listens any more once it is ready.
                let _ = tell.send(event);
            }
        }
    });
    ready
}

mod tests {
    use super::*;
    use crate::deploy::host::Host;
    use crate::sshd::{context, sh};

    #[test]
    fn an_engine_leaves_no_process_no_cgroup_and_no_file() {
        let engine = Engine::start(GpuHook::None);
        let dir = engine.dir.clone();
        let run = ["run", "--detach", "--name", "stays", IMAGE, "sleep", "100000"];
        engine.docker_says(run);
        assert_eq!(engine.inspect("stays").unwrap()["State"]["Running"], true);
        let name = dir.file_name().unwrap().to_str().unwrap().to_owned();
        let of_it = || processes(|process| process.command_line().contains(&name));
        assert!(of_it().len() >= 3, "dockerd, containerd, a shim: {:?}", of_it());
        let cgroups = || {
            let find = ["/sys/fs/cgroup", "-path", &format!("*{name}*")].map(str::to_owned);
            // It also meets those of other Engines, which come and go.
            Command::new("find").args(find).output().unwrap().stdout
        };
        assert_ne!(cgroups(), b"");

        drop(engine);
        assert_eq!(of_it(), []);
        assert_eq!(String::from_utf8(cgroups()).unwrap(), "");
        assert!(!dir.exists());
    }

    #[test]
    fn gpus_need_a_hook_and_the_fake_one_only_names_them() {
        let bare = Engine::start(GpuHook::None);
        let ask = ["run", "--rm", "--gpus", "device=GPU-1", IMAGE];
        let refused = bare.docker(ask.into_iter().chain(["true"]));
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(said.contains("could not select device driver"), "{said}");
        let shown = ask.into_iter().chain(["sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES"]);
        assert_eq!(Engine::shared().docker_says(shown), "GPU-1");
    }

    #[tokio::test]
    async fn a_host_reaches_its_engine_where_every_host_has_it() {
        let host = Host::with_docker(Engine::shared().socket(), &[], "");
        let context = context(&[&host.sshd]);
        let endpoint = host.sshd.endpoint();
        let connection = orchestrator::ssh::connect(&endpoint, &[], &context).await.unwrap();
        let ask = "docker version --format '{{.Server.APIVersion}}'";
        let version = sh(&connection, ask).await;
        assert!(version.status.success(), "{version:?}");
        assert!(version.stdout.starts_with(b"1."), "{version:?}");
        let mut socket = connection.open_socket("/var/run/docker.sock").await.unwrap();
        let ping = b"GET /_ping HTTP/1.0\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut socket, ping).await.unwrap();
        let mut answer = String::new();
        let read = tokio::io::AsyncReadExt::read_to_string(&mut socket, &mut answer);
        tokio::time::timeout(STUCK, read).await.expect("no end of the answer").unwrap();
        assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
    }
}
