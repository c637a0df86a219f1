//! Our side where no verb of the command line does just this: the library, in a process.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use orchestrator::host_spec::{AgentSocket, Endpoint};
use orchestrator::ssh::{Connection, Limits, SshContext, TrustPolicy, connect};
use orchestrator::transport::{ExecRequest, RemoteCommand, Transport};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::measure::own_cpu;

/// Connects to every host and runs one command; for `kept`, then one more.
#[derive(clap::Args)]
pub struct Client {
    #[arg(long)]
    operation: String,
    #[arg(long)]
    directory: PathBuf,
    #[arg(long)]
    user: String,
    #[arg(long)]
    port: u16,
    #[arg(long)]
    fingerprint: String,
    #[arg(long)]
    line: String,
    #[arg(long)]
    parallel: usize,
}

impl Client {
    /// Does it, or panics.
    pub fn run(self) {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
            let context = Arc::new(SshContext::new(Limits::default(), TrustPolicy::default()));
            let hosts = std::fs::read_to_string(self.directory.join("hosts")).unwrap();
            let kept = self.operation == "kept";
            let this = Arc::new(self);
            let connections = this
                .each(hosts.lines().map(str::to_owned), {
                    let this = Arc::clone(&this);
                    move |address| {
                        let (this, context) = (Arc::clone(&this), Arc::clone(&context));
                        async move {
                            let endpoint = this.endpoint(address);
                            let connection = connect(&endpoint, &[], &context).await.unwrap();
                            this.exec(&connection).await;
                            if !kept {
                                connection.close().await;
                            }
                            connection
                        }
                    }
                })
                .await;
            if kept {
                this.second_pass(connections).await;
            }
        });
    }

    async fn second_pass(self: &Arc<Self>, connections: Vec<Connection>) {
        let (wall, cpu) = (Instant::now(), own_cpu());
        let this = Arc::clone(self);
        let connections = self
            .each(connections.into_iter(), move |connection| {
                let this = Arc::clone(&this);
                async move {
                    this.exec(&connection).await;
                    connection
                }
            })
            .await;
        let (wall, cpu) = (wall.elapsed(), own_cpu().saturating_sub(cpu));
        let report =
            serde_json::json!({ "wall_s": wall.as_secs_f64(), "cpu_s": cpu.as_secs_f64() });
        std::fs::write(self.directory.join("report.json"), report.to_string()).unwrap();
        for connection in connections {
            connection.close().await;
        }
    }

    async fn exec(&self, connection: &Connection) {
        let command = RemoteCommand::argv("sh", ["-c", &self.line]).unwrap();
        let output = connection.exec(ExecRequest::new(command)).await.unwrap();
        assert!(output.status.success(), "{}", output.status);
    }

    fn endpoint(&self, address: String) -> Endpoint {
        Endpoint {
            address,
            port: self.port,
            user: self.user.clone(),
            identity_files: vec![self.directory.join("client_key")],
            certificate_files: Vec::new(),
            agent: AgentSocket::Disabled,
            host_key: Some(self.fingerprint.clone()),
            host_key_alias: None,
            known_hosts_files: Vec::new(),
        }
    }

    /// Does something for each item, so many at a time.
    async fn each<I, T, F>(&self, items: impl Iterator<Item = I>, work: impl Fn(I) -> F) -> Vec<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let slots = Arc::new(Semaphore::new(self.parallel));
        let mut tasks = JoinSet::new();
        for item in items {
            let (work, slots) = (work(item), Arc::clone(&slots));
            tasks.spawn(async move {
                let _slot = slots.acquire().await.unwrap();
                work.await
            });
        }
        tasks.join_all().await
    }
}
