//! Container runtimes: which sockets exist, and what answers there.
//!
//! Docker and Podman speak the same HTTP API on their sockets. containerd and CRI-O speak gRPC, of
//! which the runner only sees the socket. Nothing is started: a socket that systemd holds for a
//! runtime does start it when asked, which is what any user of it would do.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use runner_protocol::facts::{ContainerRuntime, MAX_ENTRIES, OwnContainer};
use runner_protocol::labels;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::root::Root;
use crate::deadline::within;
use crate::http;

/// How long a runtime may take for one answer. Docker's `/info` asks its storage driver.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// Files that describe NVIDIA devices to runtimes that know CDI.
const CDI_FILES: [&str; 4] = [
    "/etc/cdi/nvidia.yaml",
    "/etc/cdi/nvidia.json",
    "/var/run/cdi/nvidia.yaml",
    "/var/run/cdi/nvidia.json",
];

/// Asks every runtime whose socket exists, at the usual places and at `another` one.
pub(super) fn read(root: &Root, another: Option<&str>) -> Vec<ContainerRuntime> {
    let user = rustix::process::getuid().as_raw();
    let own = std::env::var("XDG_RUNTIME_DIR").unwrap_or_else(|_| format!("/run/user/{user}"));
    let own = own.trim_end_matches('/');
    let places = [
        ("docker", "/var/run/docker.sock".to_owned()),
        ("docker", format!("{own}/docker.sock")),
        ("podman", "/run/podman/podman.sock".to_owned()),
        ("podman", format!("{own}/podman/podman.sock")),
        ("containerd", "/run/containerd/containerd.sock".to_owned()),
        ("cri-o", "/var/run/crio/crio.sock".to_owned()),
    ];
    let mut found: Vec<ContainerRuntime> =
        places.into_iter().filter_map(|(name, socket)| runtime(root, name, socket)).collect();
    if let Some(socket) = another {
        // One that was found already may have another name: `/run` and `/var/run` are often one.
        let place = |socket: &str| root.path(socket).canonicalize().ok();
        if !found.iter().any(|it| it.socket == socket || place(&it.socket) == place(socket)) {
            let name = if socket.contains("podman") { "podman" } else { "docker" };
            found.extend(runtime(root, name, socket.to_owned()));
        }
    }
    found
}

fn runtime(root: &Root, name: &str, socket: String) -> Option<ContainerRuntime> {
    let path = root.path(&socket);
    if !path.metadata().is_ok_and(|metadata| metadata.file_type().is_socket()) {
        return None;
    }
    let mut runtime = ContainerRuntime { name: name.to_owned(), socket, ..Default::default() };
    if matches!(name, "docker" | "podman") {
        // The connection itself has no timeout of its own, so the whole is put under one.
        let limit = ANSWER_DEADLINE.saturating_mul(3);
        match within(limit, move || ask(&path))
            .unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
        {
            Ok(answer) => answer.tell(&mut runtime),
            Err(error) => runtime.problem = Some(error.to_string()),
        }
    }
    let by_file = set_up_by_file(root, name);
    runtime.nvidia_runtime = match (runtime.nvidia_runtime, by_file) {
        (Some(true), _) | (_, true) => Some(true),
        // A runtime that answered, or whose set-up is all in files, has none.
        (Some(false), false) => Some(false),
        (None, false) => None,
    };
    Some(runtime)
}

/// Whether files set up the devices for a runtime. Docker's own set-up file says what the daemon
/// will do once it runs again, which counts where the daemon does not say.
fn set_up_by_file(root: &Root, name: &str) -> bool {
    #[derive(Deserialize)]
    struct Daemon {
        #[serde(default)]
        runtimes: BTreeMap<String, IgnoredAny>,
    }
    let cdi = CDI_FILES.iter().any(|file| root.path(file).is_file());
    let daemon = || {
        let text = root.read("/etc/docker/daemon.json").ok()?;
        serde_json::from_str::<Daemon>(&text).ok()
    };
    match name {
        "docker" => daemon().is_some_and(|daemon| daemon.runtimes.contains_key("nvidia")),
        "podman" => cdi,
        _ => false,
    }
}

/// What a runtime says of itself.
struct Answer {
    version: Version,
    info: Option<Info>,
    containers: Option<Vec<OwnContainer>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    api_version: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    #[serde(default)]
    runtimes: BTreeMap<String, IgnoredAny>,
    /// Since Docker 28.2.
    #[serde(default)]
    discovered_devices: Vec<DiscoveredDevice>,
}

#[derive(Deserialize)]
struct DiscoveredDevice {
    #[serde(default, rename = "ID")]
    id: String,
}

/// A container in the engine's words.
#[derive(Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[derive(Default)]
struct Listed {
    id: String,
    state: String,
    labels: Option<BTreeMap<String, String>>,
}

/// All containers, running or not, with the label [`labels::OWNER`]:
/// `{"label":["orchestrator.owner"]}`, escaped.
const OWN_CONTAINERS: &str =
    "/containers/json?all=true&filters=%7B%22label%22%3A%5B%22orchestrator.owner%22%5D%7D";

/// Asks the three questions. A runtime that answers only the first still answers.
fn ask(socket: &Path) -> io::Result<Answer> {
    let version = http::get(socket, "/version", ANSWER_DEADLINE)?;
    let version = serde_json::from_str(&version)?;
    let info = http::get(socket, "/info", ANSWER_DEADLINE).ok();
    let listed = http::get(socket, OWN_CONTAINERS, ANSWER_DEADLINE).ok();
    Ok(Answer {
        version,
        info: info.and_then(|info| serde_json::from_str(&info).ok()),
        containers: listed.and_then(|listed| own(&listed)),
    })
}

/// The containers of a list that have an owner. More than facts can carry are not told at all.
fn own(listed: &str) -> Option<Vec<OwnContainer>> {
    let listed: Vec<Listed> = serde_json::from_str(listed).ok()?;
    let own: Vec<OwnContainer> = listed.into_iter().filter_map(Listed::own).collect();
    (own.len() <= MAX_ENTRIES).then_some(own)
}

impl Listed {
    fn own(self) -> Option<OwnContainer> {
        let mut labels = self.labels?;
        let owner = labels.remove(labels::OWNER)?;
        let mut label = |name| labels.remove(name).unwrap_or_default();
        Some(OwnContainer {
            id: self.id,
            state: self.state,
            owner,
            lease: label(labels::LEASE),
            mode: label(labels::MODE),
            deadline_unix_ms: label(labels::DEADLINE).parse().ok(),
            remove: label(labels::REMOVE) == "true",
            keep_until_unix_ms: label(labels::KEEP).parse().ok(),
        })
    }
}

impl Answer {
    fn tell(self, runtime: &mut ContainerRuntime) {
        runtime.answers = true;
        runtime.version = self.version.version;
        runtime.api_version = self.version.api_version;
        runtime.containers = self.containers;
        runtime.nvidia_runtime = self.info.map(|info| {
            let by_cdi = info.discovered_devices.iter().any(|it| it.id.starts_with("nvidia.com/"));
            info.runtimes.contains_key("nvidia") || by_cdi
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::super::root::tests::tree;
    use super::*;

    /// Answers as Docker Engine does: recorded from 27.3, shortened.
    fn answer_of(path: &str) -> &'static str {
        match path {
            "/version" => {
                "HTTP/1.0 200 OK\r\nServer: Docker/27.3.1 (linux)\r\n\r\n\
                 {\"Platform\":{\"Name\":\"Docker Engine - Community\"},\"Version\":\"27.3.1\",\
                 \"ApiVersion\":\"1.47\",\"MinAPIVersion\":\"1.24\",\"Os\":\"linux\"}\n"
            }
            "/info" => {
                "HTTP/1.0 200 OK\r\nServer: Docker/27.3.1 (linux)\r\n\r\n\
                 {\"ID\":\"x\",\"Containers\":2,\"Runtimes\":{\"io.containerd.runc.v2\":{\"path\":\"runc\"},\
                 \"nvidia\":{\"path\":\"nvidia-container-runtime\"}},\"DefaultRuntime\":\"runc\"}\n"
            }
            OWN_CONTAINERS => {
                "HTTP/1.0 200 OK\r\nServer: Docker/27.3.1 (linux)\r\n\r\n\
                 [{\"Id\":\"c0ffee\",\"Names\":[\"/eager_turing\"],\"State\":\"running\",\"Labels\":\
                 {\"orchestrator.owner\":\"db-1\",\"orchestrator.lease\":\"1ea5e\",\
                 \"orchestrator.mode\":\"detached\",\"orchestrator.remove\":\"true\",\
                 \"orchestrator.deadline-ms\":\"1760000000000\",\"orchestrator.gpus\":\"\"}},\
                 {\"Id\":\"f00\",\"State\":\"exited\",\"Labels\":{\"maintainer\":\"somebody\"}}]\n"
            }
            _ => "HTTP/1.0 404 Not Found\r\n\r\n{}",
        }
    }

    /// Serves `count` connections on a socket of the tree with what `answer` gives for a path.
    fn serve(
        root: &Root,
        count: usize,
        answer: fn(&str) -> &'static str,
    ) -> thread::JoinHandle<()> {
        let path = root.path("/var/run/docker.sock");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(path).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().take(count) {
                let mut stream = BufReader::new(stream.unwrap());
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                let path = line.split(' ').nth(1).unwrap();
                stream.get_mut().write_all(answer(path).as_bytes()).unwrap();
            }
        })
    }

    fn docker(root: &Root) -> ContainerRuntime {
        runtime(root, "docker", "/var/run/docker.sock".to_owned()).unwrap()
    }

    #[test]
    fn docker_with_the_nvidia_runtime() {
        let (_folder, root) = tree(&[]);
        let server = serve(&root, 3, answer_of);
        let found = docker(&root);
        server.join().unwrap();
        assert!(found.answers);
        assert_eq!(found.version.as_deref(), Some("27.3.1"));
        assert_eq!(found.api_version.as_deref(), Some("1.47"));
        assert_eq!(found.nvidia_runtime, Some(true));
        // The engine's filter is not relied on: what has no owner is not told.
        let ours = OwnContainer {
            id: "c0ffee".into(),
            state: "running".into(),
            owner: "db-1".into(),
            lease: "1ea5e".into(),
            mode: "detached".into(),
            deadline_unix_ms: Some(1_760_000_000_000),
            remove: true,
            keep_until_unix_ms: None,
        };
        assert_eq!(found.containers, Some(vec![ours]));
    }

    #[test]
    fn a_socket_that_is_named_is_asked_once() {
        let (_folder, root) = tree(&[]);
        // Two answers for the usual place, and none for its other name.
        let server = serve(&root, 2, answer_of);
        std::os::unix::fs::symlink("var/run", root.path("/run")).unwrap();
        let found = read(&root, Some("/run/docker.sock"));
        drop(server);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].socket, "/var/run/docker.sock");

        let (_folder, root) = tree(&[]);
        let listener = {
            std::fs::create_dir_all(root.path("/srv")).unwrap();
            UnixListener::bind(root.path("/srv/d.sock")).unwrap()
        };
        drop(listener);
        let found = read(&root, Some("/srv/d.sock"));
        assert_eq!((found.len(), found[0].socket.as_str()), (1, "/srv/d.sock"));
        assert_eq!(read(&root, None), []);
    }

    #[test]
    fn a_list_that_is_none_or_too_long_is_not_told() {
        assert_eq!(own("{}"), None);
        assert_eq!(own("[]"), Some(Vec::new()));
        let one = r#"{"Id":"a","State":"running","Labels":{"orchestrator.owner":"o"}}"#;
        let many = |count: usize| format!("[{}]", vec![one; count].join(","));
        assert_eq!(own(&many(MAX_ENTRIES)).map(|it| it.len()), Some(MAX_ENTRIES));
        assert_eq!(own(&many(MAX_ENTRIES + 1)), None);
    }

    #[test]
    fn a_socket_that_speaks_something_else() {
        let (_folder, root) = tree(&[]);
        let server = serve(&root, 1, |_| "SSH-2.0-OpenSSH_9.6\r\n");
        let found = docker(&root);
        server.join().unwrap();
        assert!(!found.answers);
        assert_eq!(found.problem.as_deref(), Some("no HTTP answer"));
        assert_eq!(found.nvidia_runtime, None);
    }

    #[test]
    fn a_stopped_docker_whose_set_up_file_has_the_runtime() {
        let text = r#"{"runtimes": {"nvidia": {"path": "nvidia-container-runtime", "args": []}}}"#;
        let (_folder, root) = tree(&[("/etc/docker/daemon.json", text)]);
        // The socket is left behind; nobody listens.
        drop(serve(&root, 0, answer_of).join());
        let found = docker(&root);
        assert!(!found.answers);
        assert!(found.problem.unwrap().contains("refused"));
        assert_eq!(found.nvidia_runtime, Some(true));
    }

    #[test]
    fn a_file_in_the_socket_s_place_is_no_runtime() {
        let (_folder, root) = tree(&[("/var/run/docker.sock", "")]);
        assert_eq!(runtime(&root, "docker", "/var/run/docker.sock".to_owned()), None);
    }

    #[test]
    fn podman_with_cdi_devices() {
        let (_folder, root) = tree(&[("/etc/cdi/nvidia.yaml", "cdiVersion: 0.5.0\n")]);
        assert!(set_up_by_file(&root, "podman"));
        assert!(!set_up_by_file(&root, "docker"));
    }
}
