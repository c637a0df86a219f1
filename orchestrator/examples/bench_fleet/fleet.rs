//! The servers: sshd on many loopback addresses, with a home for each.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// `MAX_LISTEN_SOCKS` of sshd.
const ADDRESSES_PER_SSHD: usize = 16;

/// Runs what the client asked for (a command line, or the sftp server) in the home that sshd has
/// set; sshd itself would start it in the user's directory.
const WRAPPER: &str = r#"#!/bin/sh
cd "$HOME" || exit 97
exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"
"#;

const SSHD_CONFIG: &str = "\
HostKey @DIR@/host_key
AuthorizedKeysFile @DIR@/client_key.pub
ForceCommand @DIR@/wrapper
Subsystem sftp @SFTP@
PidFile none
StrictModes no
UsePAM no
UseDNS no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
# The default drops connections of a client with 64 at a time; that is not what is measured.
MaxStartups 1000:30:2000
PrintMotd no
LogLevel ERROR
";

/// Running servers. Dropping it ends them.
pub struct Fleet {
    /// Where everything is; temporary.
    pub directory: PathBuf,
    /// Addresses of the hosts.
    pub addresses: Vec<Ipv4Addr>,
    /// The port of all of them.
    pub port: u16,
    /// The login name: who runs this.
    pub user: String,
    /// SHA-256 fingerprint of the host key of all of them.
    pub fingerprint: String,
    servers: Vec<Child>,
}

impl Fleet {
    /// Starts servers for `count` hosts and waits until all of them answer.
    pub fn start(directory: &Path, count: usize) -> Self {
        let directory = directory.canonicalize().unwrap();
        let addresses: Vec<Ipv4Addr> = (0..count)
            .map(|index| {
                let (third, fourth) = (1 + index / 250, 1 + index % 250);
                Ipv4Addr::new(127, 0, third.try_into().unwrap(), fourth.try_into().unwrap())
            })
            .collect();
        keygen(&directory.join("host_key"));
        keygen(&directory.join("client_key"));
        let user = text_of(Command::new("id").arg("-un"));
        let listed = text_of(Command::new("ssh-keygen").arg("-lf").arg(directory.join("host_key")));
        let fingerprint = listed.split(' ').nth(1).unwrap().to_owned();
        let mut fleet =
            Self { directory, addresses, port: 0, user, fingerprint, servers: Vec::new() };
        fleet.port = fleet.free_port();
        fleet.write_files();
        fleet.wipe();
        fleet.start_servers();
        fleet
    }

    /// The home of a host.
    pub fn home(&self, address: Ipv4Addr) -> PathBuf {
        self.directory.join("homes").join(address.to_string())
    }

    /// A file of this fleet.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Makes every host new.
    pub fn wipe(&self) {
        for &address in &self.addresses {
            let home = self.home(address);
            let _ = fs::remove_dir_all(&home);
            fs::create_dir_all(home).unwrap();
        }
    }

    /// A port that is free on every address at this moment.
    fn free_port(&self) -> u16 {
        loop {
            let probe = TcpListener::bind((self.addresses[0], 0)).unwrap();
            let port = probe.local_addr().unwrap().port();
            let rest = &self.addresses[1..];
            if rest.iter().all(|&address| TcpListener::bind((address, port)).is_ok()) {
                return port;
            }
        }
    }

    fn write_files(&self) {
        fs::write(self.file("wrapper"), WRAPPER).unwrap();
        fs::set_permissions(self.file("wrapper"), fs::Permissions::from_mode(0o755)).unwrap();

        let host_key = fs::read_to_string(self.file("host_key.pub")).unwrap();
        let key: String = host_key.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let known: String =
            self.addresses.iter().map(|a| format!("[{a}]:{} {key}\n", self.port)).collect();
        fs::write(self.file("known_hosts"), known).unwrap();
        let list: String = self.addresses.iter().map(|a| format!("{a}\n")).collect();
        fs::write(self.file("hosts"), list).unwrap();
        fs::write(
            self.file("ssh_config"),
            format!(
                "Host *\n User {}\n Port {}\n IdentityFile {}\n IdentitiesOnly yes\n \
                 IdentityAgent none\n UserKnownHostsFile {}\n GlobalKnownHostsFile none\n \
                 StrictHostKeyChecking yes\n BatchMode yes\n LogLevel ERROR\n",
                self.user,
                self.port,
                self.file("client_key").display(),
                self.file("known_hosts").display(),
            ),
        )
        .unwrap();
    }

    fn start_servers(&mut self) {
        let sftp = ["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .unwrap_or("/usr/libexec/sftp-server");
        let common = SSHD_CONFIG
            .replace("@DIR@", &self.directory.display().to_string())
            .replace("@SFTP@", sftp);
        let sshd = ["/usr/sbin/sshd", "/usr/local/sbin/sshd"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .expect("sshd is installed");
        for (number, addresses) in self.addresses.chunks(ADDRESSES_PER_SSHD).enumerate() {
            let listen: String =
                addresses.iter().map(|a| format!("ListenAddress {a}:{}\n", self.port)).collect();
            // Set this early, the user's own rc files are not read either.
            let homes: String = addresses
                .iter()
                .map(|&a| {
                    format!("Match LocalAddress {a}\n SetEnv HOME={}\n", self.home(a).display())
                })
                .collect();
            let config = self.file(&format!("sshd_config.{number}"));
            fs::write(&config, format!("{common}{listen}{homes}")).unwrap();
            let log = fs::File::create(self.file(&format!("sshd.{number}.log"))).unwrap();
            // sshd re-executes itself and so wants its absolute path.
            let server = Command::new(sshd)
                .args(["-D", "-e", "-f"])
                .arg(config)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .unwrap();
            self.servers.push(server);
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        for &address in &self.addresses {
            while TcpStream::connect(SocketAddr::from((address, self.port))).is_err() {
                assert!(Instant::now() < deadline, "sshd does not listen on {address}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn keygen(path: &Path) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f"])
        .arg(path)
        .status();
    assert!(made.unwrap().success());
}

fn text_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}
