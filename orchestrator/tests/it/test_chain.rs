//! A chain of the tests: a small node that speaks JSON-RPC over WebSocket and keeps one subnet.
//!
//! It works from metadata alone, be it the synthetic one of `metadata` or that of a real runtime: its
//! storage, its answers and its events are encoded by the types that the metadata has. It checks what
//! a node checks (signature, registration, rate limit), and does on demand what a bad node does.

pub mod metadata;
mod node;
mod runtime;
mod state;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use orchestrator::chain::AccountId32;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use runtime::Runtime;
pub use state::{FINNEY_GENESIS, NETUID, World};

/// What the node does instead of answering a request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Closes the connection.
    Drop,
    /// Answers nothing.
    Silence,
    /// Sends this text, which is no answer.
    Text(String),
    /// Answers a text of so many bytes.
    Huge(usize),
    /// Answers these bytes in hexadecimal.
    Bytes(Vec<u8>),
    /// Answers an error.
    Error(i32, &'static str),
}

/// A fault, and how often: `None` is for ever.
pub type Faults = HashMap<String, (Fault, Option<usize>)>;

/// What a node knows; shared by its connections and its test.
pub struct Shared {
    pub world: Mutex<World>,
    pub faults: Mutex<Faults>,
    /// The methods that were asked for, runtime calls with their names.
    pub log: Mutex<Vec<String>>,
    /// Counts blocks and upgrades, for subscriptions.
    pub news: watch::Sender<u64>,
    /// Counts the times that all connections were cut.
    pub cuts: watch::Sender<u64>,
}

/// A running node. It ends when it is dropped.
pub struct TestChain {
    shared: Arc<Shared>,
    port: u16,
    accepting: Option<JoinHandle<()>>,
}

impl TestChain {
    /// A node with this runtime and a subnet of three neurons.
    pub async fn start(runtime: Runtime) -> Self {
        Self::with(World::new(runtime)).await
    }

    pub async fn with(world: World) -> Self {
        let shared = Arc::new(Shared {
            world: Mutex::new(world),
            faults: Mutex::default(),
            log: Mutex::default(),
            news: watch::Sender::new(0),
            cuts: watch::Sender::new(0),
        });
        let mut chain = Self { shared, port: 0, accepting: None };
        chain.listen().await;
        chain
    }

    /// Listens; after [`TestChain::stop`], again at the same port.
    pub async fn listen(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        self.port = listener.local_addr().unwrap().port();
        self.accepting = Some(tokio::spawn(node::accept(listener, self.shared.clone())));
    }

    /// Stops listening and cuts every connection.
    pub async fn stop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            let _aborted = accepting.await;
        }
        self.cut();
    }

    /// Cuts every connection, and goes on listening.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world.lock().unwrap()
    }

    /// Makes a method fail: so many times, or for ever. Runtime calls go by their own names.
    pub fn fail(&self, method: &str, fault: Fault, times: Option<usize>) {
        self.shared.faults.lock().unwrap().insert(method.to_owned(), (fault, times));
    }

    pub fn heal(&self) {
        self.shared.faults.lock().unwrap().clear();
    }

    /// How often a method was asked for.
    pub fn asked(&self, method: &str) -> usize {
        self.shared.log.lock().unwrap().iter().filter(|asked| *asked == method).count()
    }

    /// How many requests there were.
    pub fn requests(&self) -> usize {
        self.shared.log.lock().unwrap().len()
    }

    /// Makes a block, and finalizes it.
    pub fn block(&self) {
        self.world().block(Vec::new(), None);
        self.shared.news.send_modify(|news| *news += 1);
    }

    /// Replaces the runtime, from the next block on, which is made.
    pub fn upgrade(&self, runtime: Runtime) {
        self.world().runtimes.push(Arc::new(runtime));
        self.block();
    }
}

impl Drop for TestChain {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
        self.cut();
    }
}

/// The account of so many same bytes.
pub fn hotkey(byte: u8) -> AccountId32 {
    AccountId32::new([byte; 32])
}
