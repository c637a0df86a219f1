//! A host with the Engine, deployed to, and its operator.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use super::engine::{Engine, IMAGE};
use crate::cli::operator::{Finished, Operator, Running, eventually};
use crate::deploy::host::{Host, fake_nvml};

pub const HOST: &str = "gpu-01";

pub struct Site {
    pub host: Host,
    pub operator: Operator,
    pub engine: &'static Engine,
}

impl Site {
    /// A host without GPUs, with the shared Engine.
    pub async fn new() -> Self {
        Self::with(&[], "").await
    }

    /// A host whose (fake) NVML reports an H100 and a GT 1030, with the shared Engine.
    pub async fn with_gpus() -> Self {
        let library = fake_nvml().display();
        Self::with(&[], &format!("LD_LIBRARY_PATH={library} FAKE_NVML=honest")).await
    }

    /// A host with these options of sshd and these variables of logins.
    pub async fn with(options: &[&str], environment: &str) -> Self {
        let engine = Engine::shared();
        let host = Host::with_docker(engine.socket(), options, environment);
        let operator = Operator::new();
        operator.fleet(&[host.pinned(HOST)]);
        operator.deploy([]).await.expect(0);
        Self { host, operator, engine }
    }

    /// The arguments of a `run` of the busybox image.
    pub fn arguments<'a>(options: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
        let before = ["run", HOST, "--image", IMAGE].into_iter().chain(options.iter().copied());
        before.chain(["--"]).chain(command.iter().copied()).collect()
    }

    /// Runs a container to its end.
    pub async fn run(&self, options: &[&str], command: &[&str]) -> Finished {
        self.operator.run(Self::arguments(options, command)).await
    }

    /// Starts a `run` that goes on.
    pub fn start(&self, options: &[&str], command: &[&str]) -> Running {
        self.operator.start(Self::arguments(options, command))
    }

    /// The containers of `ps --all --json`.
    pub async fn ps(&self) -> Vec<Value> {
        let listed = self.operator.run(["ps", "--all", "--json"]).await.expect(0);
        let mut documents = listed.json_lines();
        match documents.pop() {
            Some(Value::Array(rows)) => {
                rows.into_iter().map(|mut row| row["container"].take()).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    /// Whether the Engine says that a container runs.
    pub fn runs(&self, name: &str) -> bool {
        self.engine.inspect(name).is_some_and(|found| found["State"]["Running"] == true)
    }

    /// Waits until a container has written a line with these words, by the Engine's own record.
    pub async fn wrote(&self, name: &str, words: &str) {
        let wrote = || self.engine.logged(name).contains(words);
        eventually(&format!("{name} writes {words}"), wrote).await;
    }

    /// Waits until the Engine knows no such container any more.
    pub async fn gone(&self, name: &str) {
        eventually(&format!("{name} is gone"), || self.engine.inspect(name).is_none()).await;
    }
}

/// How the operator names a container.
pub fn at(name: &str) -> String {
    format!("{HOST}/{name}")
}

/// A name that no other test of this process uses: the Engine is shared.
pub fn name(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The most memory that a process has had so far, in bytes; `None` once it has ended. What wait4(2)
/// says of a child starts with the pages that its parent had; this starts with its own program.
pub fn peak_bytes(running: &Running) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", running.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
