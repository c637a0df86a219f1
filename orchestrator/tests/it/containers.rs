//! Containers by the built binary, on a real Docker Engine behind a real sshd.

mod endings;
pub mod engine;
mod engines;
mod gpus;
mod hostile;
mod leases;
mod ps;
mod refusals;
mod registry;
mod run;
mod site;
mod streams;
mod tampering;

use engine::{Engine, IMAGE};

use crate::cli::operator::{Finished, Operator, Running};
use crate::deploy::host::{Host, fake_nvml};

/// An operator, and a host with the shared engine and two (fake) GPUs, deployed to.
pub struct Place {
    pub operator: Operator,
    pub host: Host,
}

impl Place {
    pub async fn deployed() -> Self {
        Self::with(&[], "").await
    }

    /// A host with these lines in its sshd_config and these variables for logins.
    pub async fn with(options: &[&str], environment: &str) -> Self {
        let gpus =
            format!("LD_LIBRARY_PATH={} FAKE_NVML=honest {environment}", fake_nvml().display());
        let host = Host::with_docker(Engine::shared().socket(), options, &gpus);
        let operator = Operator::new();
        operator.fleet(&[host.pinned("gpu-01")]);
        operator.deploy(["--hosts", "fleet.toml"]).await.expect(0);
        Self { operator, host }
    }

    /// `run gpu-01 --image busybox` with these further arguments.
    pub async fn run(&self, arguments: &[&str]) -> Finished {
        self.start(arguments).end().await
    }

    pub fn start(&self, arguments: &[&str]) -> Running {
        let all = ["run", "gpu-01", "--image", IMAGE].into_iter().chain(arguments.iter().copied());
        self.operator.start(all)
    }

    /// A name that no other test's container has.
    pub fn name(&self, text: &str) -> String {
        format!("{text}-{}", self.host.sshd.port)
    }

    /// The ids of this operator's containers, asked of the engine itself. Its owner is in the
    /// database.
    pub fn ours(&self) -> Vec<String> {
        Engine::shared().labelled(&format!("orchestrator.owner={}", self.owner()))
    }

    fn owner(&self) -> String {
        let path = self.operator.database();
        // Tests have a runtime of one thread, which must not wait for itself.
        let read = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let store = orchestrator::store::Store::open(&path).await.unwrap();
                let owner = store.identity().await.unwrap();
                store.close().await;
                owner
            })
        });
        read.join().unwrap()
    }

    /// No container of ours, and no GPU that is held.
    pub async fn assert_nothing_left(&self) {
        assert_eq!(self.ours(), Vec::<String>::new());
        let store = orchestrator::store::Store::open(&self.operator.database()).await.unwrap();
        assert_eq!(store.live_leases(None).await.unwrap(), []);
        store.close().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for container in self.ours() {
            Engine::shared().docker(["rm", "--force", &container]);
        }
    }
}

/// A label of a container, asked of the engine itself.
pub fn labels_of(container: &str, label: &str) -> String {
    let inspected = Engine::shared().inspect(container).unwrap();
    inspected["Config"]["Labels"][label].as_str().unwrap().to_owned()
}

/// The UUIDs of the fake NVML library's GPUs.
pub fn fake_gpus() -> [&'static str; 2] {
    ["GPU-11111111-0000-0000-0000-000000000001", "GPU-22222222-0000-0000-0000-000000000002"]
}
