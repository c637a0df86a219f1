//! Simulated hosts: SSH servers that answer as the start script and the runner would.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use runner_protocol::facts::{
    ContainerRuntime, CpuFacts, DiskFacts, DriverState, EccFacts, Gpu, GpuFacts, LoadFacts,
    MemoryFacts, PciGpu, PcieFacts, PowerFacts, RowRemapFacts,
};
use runner_protocol::{
    FrameDecoder, FromRunner, Hello, HostFacts, MAGIC, Outcome, PROTOCOL_VERSION, Reply, ToRunner,
    Unit, decode, encode_frame,
};
use russh::keys::ssh_key::LineEnding;
use russh::keys::{HashAlg, PrivateKey};
use russh::server::{
    self, Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const GPUS: u32 = 8;

/// Serves simulated hosts until standard input ends.
#[derive(clap::Args)]
pub struct Serve {
    #[arg(long)]
    hosts: usize,
    /// One host in ten is dead, in four ways in turn.
    #[arg(long)]
    dead: bool,
    #[arg(long)]
    directory: PathBuf,
}

/// What a host does with a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Alive,
    /// No listener.
    Refuses,
    /// Takes the connection and says nothing.
    Silent,
    /// Greets and says no more.
    Frozen,
    /// Lets nobody in.
    RefusesLogin,
}

impl Way {
    fn of(index: usize, dead: bool) -> Self {
        if !dead || index % 10 != 9 {
            return Self::Alive;
        }
        [Self::Refuses, Self::Silent, Self::Frozen, Self::RefusesLogin][index / 10 % 4]
    }
}

/// The address of a host: 127.1.0.1 and on.
pub fn address(index: usize) -> Ipv4Addr {
    let bytes = (0x7f01_0000_u32 + 1 + u32::try_from(index).unwrap()).to_be_bytes();
    Ipv4Addr::from(bytes)
}

impl Serve {
    pub fn run(self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(self.serve());
        runtime.shutdown_background();
    }

    async fn serve(self) {
        let host_key = key();
        let fingerprint = host_key.public_key().fingerprint(HashAlg::Sha256);
        let client = key().to_openssh(LineEnding::LF).unwrap();
        let path = self.directory.join("client_key");
        std::fs::write(&path, client.as_bytes()).unwrap();
        let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, owner_only).unwrap();
        let config = Arc::new(server::Config {
            keys: vec![host_key],
            inactivity_timeout: None,
            auth_rejection_time: Duration::ZERO,
            auth_rejection_time_initial: Some(Duration::ZERO),
            nodelay: true,
            ..server::Config::default()
        });
        let first = TcpListener::bind((address(0), 0)).await.unwrap();
        let port = first.local_addr().unwrap().port();
        let mut first = Some(first);
        let mut addresses = Vec::new();
        for index in 0..self.hosts {
            addresses.push(address(index).to_string());
            let way = Way::of(index, self.dead);
            if way == Way::Refuses {
                continue;
            }
            let listener = match first.take() {
                Some(listener) => listener,
                None => TcpListener::bind((address(index), port)).await.unwrap(),
            };
            tokio::spawn(host(listener, index, way, Arc::clone(&config)));
        }
        std::fs::write(self.directory.join("addresses"), addresses.join("\n")).unwrap();
        println!("{port} {fingerprint}");
        let mut end = Vec::new();
        tokio::io::stdin().read_to_end(&mut end).await.unwrap();
    }
}

fn key() -> PrivateKey {
    orchestrator::embedded_host::new_key().unwrap()
}

async fn host(listener: TcpListener, index: usize, way: Way, config: Arc<server::Config>) {
    let mut held: Vec<TcpStream> = Vec::new();
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        match way {
            Way::Silent => held.push(stream),
            Way::Frozen => {
                let _ = stream.write_all(b"SSH-2.0-frozen\r\n").await;
                held.push(stream);
            }
            _ => {
                let handler =
                    Connection { index, lets_in: way == Way::Alive, channels: HashMap::new() };
                stream.set_nodelay(true).unwrap();
                let config = Arc::clone(&config);
                tokio::spawn(async move {
                    if let Ok(session) = server::run_stream(config, stream, handler).await {
                        let _ = session.await;
                    }
                });
            }
        }
    }
}

struct Connection {
    index: usize,
    lets_in: bool,
    channels: HashMap<ChannelId, FrameDecoder>,
}

impl Connection {
    fn login(&self) -> Auth {
        if self.lets_in { Auth::Accept } else { Auth::reject() }
    }

    /// The start script finds the runner in place and becomes it.
    fn start(&self, line: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let line = String::from_utf8_lossy(line);
        let mut words = line.split(' ');
        let marker = words.find(|word| word.starts_with("orchestrator-")).unwrap_or_default();
        let is_sha = |word: &&str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
        let hello = FromRunner::Hello(Hello {
            protocol_version: PROTOCOL_VERSION,
            build: line.split([' ', '\'']).find(is_sha).unwrap_or_default().to_owned(),
            runner_version: "simulated".to_owned(),
            capabilities: vec!["facts".to_owned()],
            pid: 1,
            boot_id: boot_id(self.index),
        });
        let marker = format!("{marker}\n").into_bytes();
        let frame = encode_frame(&hello).unwrap();
        let out = [&marker, &b"state=ready\nend\n"[..], MAGIC.as_bytes(), &frame].concat();
        (out, marker)
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        _user: &str,
        _offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.login())
    }

    async fn auth_publickey(
        &mut self,
        _user: &str,
        _key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.login())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.insert(channel.id(), FrameDecoder::new());
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)?;
        let (out, marker) = self.start(line);
        session.extended_data(channel, 1, marker)?;
        session.data(channel, out)?;
        Ok(())
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        mut data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(decoder) = self.channels.get_mut(&channel) else { return Ok(()) };
        let mut answers = Vec::new();
        let mut ends = false;
        while let Ok(Some(body)) = decoder.push(&mut data) {
            match decode::<ToRunner>(&body) {
                Ok(ToRunner::Request { id, unit: Unit::Facts(_) }) => {
                    let reply = Reply::Facts(Box::new(facts(self.index)));
                    answers.extend(encode_frame(&FromRunner::Reply { id, reply }).unwrap());
                    let done = FromRunner::Finished { id, outcome: Outcome::Ok {} };
                    answers.extend(encode_frame(&done).unwrap());
                }
                Ok(ToRunner::Shutdown {}) => ends = true,
                _ => {}
            }
        }
        if !answers.is_empty() {
            session.data(channel, answers)?;
        }
        if ends {
            session.exit_status_request(channel, 0)?;
            session.eof(channel)?;
            session.close(channel)?;
            self.channels.remove(&channel);
        }
        Ok(())
    }
}

fn boot_id(index: usize) -> String {
    format!("b7f2a6de-9d0b-4f0e-8d7a-{index:012x}")
}

/// A well host with eight GPUs.
fn facts(index: usize) -> HostFacts {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let pci = |gpu: u32| format!("0000:{:02x}:00.0", 0x1b + 0x20 * gpu % 0xe0 + gpu);
    HostFacts {
        kernel: "6.8.0-45-generic".into(),
        arch: "x86_64".into(),
        glibc: Some("2.39".into()),
        hostname: format!("sim-{index}"),
        machine_id: Some(format!("{index:032x}")),
        boot_id: Some(boot_id(index)),
        uptime_secs: 86_400,
        clock_unix_ms: u64::try_from(now.as_millis()).unwrap(),
        clock_synchronized: Some(true),
        cpu: CpuFacts {
            model: "simulated".into(),
            sockets: 2,
            cores: 112,
            threads: 224,
            usable_threads: 224,
        },
        load: LoadFacts { one_milli: 1_250, five_milli: 900, fifteen_milli: 40 },
        memory: MemoryFacts {
            total_bytes: 2 << 40,
            available_bytes: 1 << 40,
            ..MemoryFacts::default()
        },
        disks: vec![DiskFacts {
            mount: "/".into(),
            device: "/dev/nvme0n1p2".into(),
            fs: "ext4".into(),
            total_bytes: 2 << 40,
            free_bytes: 1 << 40,
            inodes_total: Some(120_000_000),
            inodes_free: Some(119_000_000),
            read_only: false,
        }],
        container_runtimes: vec![ContainerRuntime {
            name: "docker".into(),
            socket: "/var/run/docker.sock".into(),
            answers: true,
            version: Some("27.3.1".into()),
            nvidia_runtime: Some(true),
            ..ContainerRuntime::default()
        }],
        pci_gpus: (0..GPUS)
            .map(|gpu| PciGpu {
                address: pci(gpu),
                device_id: "0x2330".into(),
                kernel_driver: Some("nvidia".into()),
                link_width: Some(16),
                link_width_max: Some(16),
            })
            .collect(),
        gpus: GpuFacts {
            driver: DriverState::Present {
                driver_version: "550.54.15".into(),
                cuda_version: Some("12.4".into()),
                nvml_version: Some("12.550.54.15".into()),
            },
            devices: (0..GPUS).map(|gpu| device(index, gpu, pci(gpu))).collect(),
        },
        xid_errors: Some(Vec::new()),
        ..HostFacts::default()
    }
}

fn device(index: usize, gpu: u32, pci: String) -> Gpu {
    Gpu {
        uuid: format!("GPU-{index:08x}-0000-4000-8000-{gpu:012x}"),
        index: gpu,
        model: "NVIDIA H100 80GB HBM3".into(),
        vbios: Some("96.00.74.00.01".into()),
        pci_address: Some(pci),
        pcie: PcieFacts {
            width: Some(16),
            width_max: Some(16),
            generation: Some(5),
            generation_max: Some(5),
        },
        memory_total_bytes: Some(85_520_809_984),
        memory_used_bytes: Some(1_048_576),
        ecc: EccFacts {
            enabled: Some(true),
            enabled_pending: Some(true),
            corrected: Some(0),
            uncorrected: Some(0),
            corrected_lifetime: Some(3),
            uncorrected_lifetime: Some(0),
        },
        row_remap: Some(RowRemapFacts::default()),
        throttle_reasons: vec!["gpu_idle".into()],
        power: PowerFacts {
            limit_mw: Some(700_000),
            limit_default_mw: Some(700_000),
            draw_mw: Some(70_123),
        },
        mig_enabled: Some(false),
        persistence_mode: Some(true),
        temperature_celsius: Some(34),
        utilization_percent: Some(0),
        ..Gpu::default()
    }
}
