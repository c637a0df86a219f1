//! Our axon, with the routes that it always has.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use orchestrator::axon::{Admission, AxonContext, AxonLimits, Denied, Rate, Rates, Routes, serve};
use orchestrator::hotkey::Hotkey;
use orchestrator::store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[derive(clap::Args)]
pub struct Server {
    /// Where the database and the file with the port go.
    folder: PathBuf,
}

struct One(Hotkey);

impl Admission for One {
    fn admit(&self, hotkey: &Hotkey) -> Result<(), Denied> {
        if *hotkey == self.0 { Ok(()) } else { Err(Denied::NotAllowed) }
    }
}

impl Server {
    pub fn run(&self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let rate = Rate { per_second: 1_000_000, burst: 1_000_000 };
            let context = AxonContext {
                pair: Arc::new(super::pair(0)),
                store: Store::open(&self.folder.join("o.db")).await.unwrap(),
                admission: Arc::new(One(super::pair(1).hotkey())),
                routes: Routes::new(),
                limits: AxonLimits {
                    connections: 20_000,
                    connections_per_address: 20_000,
                    // Idle connections stay while they are counted.
                    head_timeout: Duration::from_secs(600),
                    ..AxonLimits::default()
                },
                rates: Rates::new(rate, rate),
                sessions: None,
                tls: None,
            };
            let file = tempfile::NamedTempFile::new_in(&self.folder).unwrap();
            std::fs::write(file.path(), port.to_string()).unwrap();
            file.persist(self.folder.join("port")).unwrap();
            serve(listener, context, CancellationToken::new()).await.unwrap();
        });
    }
}
