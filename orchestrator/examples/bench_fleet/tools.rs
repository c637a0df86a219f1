//! The tools, and how each does an operation.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;

use crate::Run;
use crate::fleet::Fleet;
use crate::measure::{self, Usage};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Connects to every host and runs one command.
    Exec,
    /// Runs one more command on every host over connections that are still open.
    Kept,
    /// Puts the payload on hosts that have nothing, checks it and runs it.
    Cold,
    /// The same again on hosts that have it.
    Warm,
}

impl Operation {
    /// In the order of measuring: `Warm` finds what `Cold` left.
    pub const ALL: [Self; 4] = [Self::Exec, Self::Kept, Self::Cold, Self::Warm];

    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Kept => "kept",
            Self::Cold => "cold",
            Self::Warm => "warm",
        }
    }
}

/// Who does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// This workspace.
    Orchestrator,
    /// `ssh` under `xargs -P`.
    OpenSsh,
    /// ansible-core with its ssh connections and pipelining.
    Ansible,
    /// pyinfra (paramiko).
    Pyinfra,
    /// parallel-ssh (libssh2).
    ParallelSsh,
    /// asyncssh.
    AsyncSsh,
}

impl Tool {
    /// Ours first: the others' ratios are to it.
    pub const ALL: [Self; 6] = [
        Self::Orchestrator,
        Self::OpenSsh,
        Self::Ansible,
        Self::Pyinfra,
        Self::ParallelSsh,
        Self::AsyncSsh,
    ];

    /// As its users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Orchestrator => "orchestrator",
            Self::OpenSsh => "openssh+xargs",
            Self::Ansible => "ansible-core",
            Self::Pyinfra => "pyinfra",
            Self::ParallelSsh => "parallel-ssh",
            Self::AsyncSsh => "asyncssh",
        }
    }
}

/// What a host is asked to run: it leaves a trace, so that a skipped host shows.
const TRACE: &str = "printf x >> ran";

/// Where the other tools put the payload, from the home.
const PLACE: &str = "bench/remote-runner";

/// One fleet with the means to measure on it.
pub struct Bench<'a> {
    /// The servers.
    pub fleet: &'a Fleet,
    /// Hosts at a time.
    pub parallel: usize,
    payload: PathBuf,
    payload_sha256: String,
    /// Size of the payload.
    pub payload_bytes: u64,
    orchestrator: Option<PathBuf>,
    venv: Option<PathBuf>,
    tools: Vec<String>,
}

/// What a client that keeps connections says of its second pass.
#[derive(Deserialize)]
struct SecondPass {
    wall_s: f64,
    cpu_s: f64,
}

impl<'a> Bench<'a> {
    /// Writes what the tools need beside the fleet's files.
    pub fn new(fleet: &'a Fleet, run: &Run) -> Self {
        let payload = run.payload.canonicalize().expect("the payload exists");
        let bytes = fs::read(&payload).unwrap();
        let bench = Self {
            fleet,
            parallel: run.parallel,
            payload_sha256: sha256(&bytes),
            payload_bytes: bytes.len() as u64,
            payload,
            orchestrator: run.orchestrator.as_ref().map(|path| path.canonicalize().unwrap()),
            venv: run.venv.as_ref().map(|path| path.canonicalize().unwrap()),
            tools: run.tools.clone(),
        };
        bench.write_inputs();
        bench
    }

    /// Does and checks one operation; `None` if the tool is not there or cannot do it.
    pub fn measure(&self, tool: Tool, operation: Operation) -> Option<Result<Usage, String>> {
        if !self.tools.is_empty() && !self.tools.iter().any(|name| name == tool.name()) {
            return None;
        }
        self.command(tool, operation)?;
        match operation {
            Operation::Exec | Operation::Kept | Operation::Cold => self.fleet.wipe(),
            // A failed cold deploy has left nothing to be warm.
            Operation::Warm => {
                self.fleet.wipe();
                if let Err(why) = self.run(tool, Operation::Cold) {
                    return Some(Err(format!("the cold deploy before it: {why}")));
                }
            }
        }
        Some(self.run(tool, operation))
    }

    fn run(&self, tool: Tool, operation: Operation) -> Result<Usage, String> {
        let log = self.fleet.file("client.log");
        let report = self.fleet.file("report.json");
        let _ = fs::remove_file(&report);
        let masters = operation == Operation::Kept && matches!(tool, Tool::OpenSsh | Tool::Ansible);
        if masters {
            self.open_masters(tool, &log)?;
        }
        let result = measure::run(&mut self.command(tool, operation).unwrap(), &log);
        // Whoever leaves some behind: the next measurement starts from nothing.
        self.close_masters();
        let mut usage = result?;
        if operation == Operation::Kept && !masters {
            let second: SecondPass =
                serde_json::from_slice(&fs::read(&report).map_err(|e| e.to_string())?).unwrap();
            usage.wall = Duration::from_secs_f64(second.wall_s);
            usage.cpu = Duration::from_secs_f64(second.cpu_s);
        }
        self.check(tool, operation)?;
        Ok(usage)
    }

    /// Whether every host was really served.
    fn check(&self, tool: Tool, operation: Operation) -> Result<(), String> {
        for &address in &self.fleet.addresses {
            let home = self.fleet.home(address);
            let ok = match operation {
                Operation::Exec => fs::read(home.join("ran")).is_ok_and(|bytes| bytes == b"x"),
                Operation::Kept => fs::read(home.join("ran")).is_ok_and(|bytes| bytes == b"xx"),
                Operation::Cold | Operation::Warm => match tool {
                    // It names its file by what it is, and may deploy another build than the
                    // payload: what is checked is that name and content agree.
                    Tool::Orchestrator => deployed_runner_is_whole(&home),
                    _ => fs::read(home.join(PLACE))
                        .is_ok_and(|bytes| sha256(&bytes) == self.payload_sha256),
                },
            };
            if !ok {
                return Err(format!("{address} was not served"));
            }
        }
        Ok(())
    }

    fn command(&self, tool: Tool, operation: Operation) -> Option<Command> {
        use Operation::{Cold, Exec, Kept, Warm};
        match (tool, operation) {
            (Tool::Orchestrator, Exec | Kept) => Some(self.client(operation)),
            (Tool::Orchestrator, Cold | Warm) => self.deploy(),
            (Tool::OpenSsh, Exec) => Some(self.xargs(&self.ssh_line("", TRACE))),
            (Tool::OpenSsh, Kept) => Some(self.xargs(&self.ssh_line(&self.mux(), TRACE))),
            (Tool::OpenSsh, Cold | Warm) => Some(self.xargs(&self.ssh_deploy_line())),
            (Tool::Ansible, Exec) => Some(self.ansible("-m raw -a", TRACE, false)?),
            (Tool::Ansible, Kept) => Some(self.ansible("-m raw -a", TRACE, true)?),
            (Tool::Ansible, Cold | Warm) => self.ansible_playbook(),
            (Tool::Pyinfra, Exec) => {
                let mut command = self.pyinfra()?;
                command.args(["inventory.py", "exec", "--", TRACE]);
                Some(command)
            }
            (Tool::Pyinfra, Kept) => None,
            (Tool::Pyinfra, Cold | Warm) => {
                let mut command = self.pyinfra()?;
                command.args(["inventory.py", "deploy.py"]);
                Some(command)
            }
            (Tool::ParallelSsh, _) => self.python("parallel_ssh.py", operation),
            (Tool::AsyncSsh, _) => self.python("async_ssh.py", operation),
        }
    }

    fn client(&self, operation: Operation) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["client", "--operation", operation.name(), "--directory"]);
        command.arg(&self.fleet.directory).args(["--user", &self.fleet.user]);
        command.args(["--port", &self.fleet.port.to_string()]);
        command.args(["--fingerprint", &self.fleet.fingerprint, "--line", TRACE]);
        command.args(["--parallel", &self.parallel.to_string()]);
        command
    }

    fn deploy(&self) -> Option<Command> {
        let mut command = Command::new(self.orchestrator.as_ref()?);
        command.args(["deploy", "--json", "--hosts"]).arg(self.fleet.file("fleet.toml"));
        command.args(["--parallel", &self.parallel.to_string()]);
        self.seal(&mut command);
        command.env("ORCHESTRATOR_RUNNER", &self.payload);
        Some(command)
    }

    /// One `ssh` for each host; `{}` is the host.
    fn xargs(&self, line: &str) -> Command {
        let mut command = Command::new("xargs");
        command.arg("-a").arg(self.fleet.file("hosts"));
        command.args(["-P", &self.parallel.to_string(), "-I", "{}", "sh", "-c", line]);
        self.seal(&mut command);
        command
    }

    fn ssh_line(&self, options: &str, remote: &str) -> String {
        let config = self.fleet.file("ssh_config");
        format!("exec ssh -F {} {options} {{}} '{remote}'", config.display())
    }

    /// Asks whether the payload is there, and sends it if it is not: two connections when cold.
    fn ssh_deploy_line(&self) -> String {
        let sum = format!("echo \"{}  {PLACE}\" | sha256sum -c --status", self.payload_sha256);
        let ssh = format!("ssh -F {} {{}}", self.fleet.file("ssh_config").display());
        format!(
            "{ssh} '{sum} 2>/dev/null && {PLACE} --version' || \
             {ssh} 'mkdir -p bench && cat > {PLACE} && {sum} && chmod 700 {PLACE} && \
             {PLACE} --version' < {}",
            self.payload.display()
        )
    }

    fn mux(&self) -> String {
        format!("-S {}/mux/%h", self.fleet.directory.display())
    }

    fn open_masters(&self, tool: Tool, log: &Path) -> Result<(), String> {
        fs::create_dir_all(self.fleet.file("mux")).unwrap();
        let mut command = match tool {
            Tool::OpenSsh => {
                let options = format!("{} -M -o ControlPersist=yes", self.mux());
                self.xargs(&self.ssh_line(&options, TRACE))
            }
            // Its first run leaves the masters behind.
            _ => self.command(tool, Operation::Kept).unwrap(),
        };
        measure::run(&mut command, log).map(drop)
    }

    fn close_masters(&self) {
        let mux = self.fleet.file("mux");
        let Ok(sockets) = fs::read_dir(&mux) else { return };
        for entry in sockets.flatten() {
            let _ = Command::new("ssh")
                .args(["-F", "/dev/null", "-O", "exit", "-S"])
                .arg(entry.path())
                .arg("any")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        }
        let _ = fs::remove_dir_all(mux);
    }

    fn ansible(&self, module: &str, argument: &str, kept: bool) -> Option<Command> {
        let mut command = self.in_venv("ansible")?;
        command.args(["all", "-i", "inventory.ini", "-f", &self.parallel.to_string()]);
        command.args(module.split(' ')).arg(argument);
        self.ansible_settings(&mut command, kept);
        Some(command)
    }

    fn ansible_playbook(&self) -> Option<Command> {
        let mut command = self.in_venv("ansible-playbook")?;
        command.args(["-i", "inventory.ini", "-f", &self.parallel.to_string(), "deploy.yml"]);
        // Its default: one connection a host within a playbook run.
        self.ansible_settings(&mut command, true);
        Some(command)
    }

    fn ansible_settings(&self, command: &mut Command, kept: bool) {
        let mux = self.fleet.file("mux");
        let config = self.fleet.file("ssh_config");
        let control = if kept {
            "-o ControlMaster=auto -o ControlPersist=60s"
        } else {
            "-o ControlMaster=no"
        };
        command
            .env("ANSIBLE_SSH_ARGS", format!("-F {} {control}", config.display()))
            .env("ANSIBLE_SSH_CONTROL_PATH_DIR", mux)
            .env("ANSIBLE_SSH_CONTROL_PATH", "%(directory)s/%%h")
            .env("ANSIBLE_PIPELINING", "1")
            .env("ANSIBLE_LOCALHOST_WARNING", "0")
            .env("ANSIBLE_NOCOLOR", "1");
    }

    fn pyinfra(&self) -> Option<Command> {
        let mut command = self.in_venv("pyinfra")?;
        command.args(["-y", "--parallel", &self.parallel.to_string()]);
        Some(command)
    }

    fn python(&self, script: &str, operation: Operation) -> Option<Command> {
        let mut command = self.in_venv("python")?;
        command.arg(script).arg(operation.name());
        Some(command)
    }

    /// A program of the virtual environment, with what the scripts need in `BENCH_*`.
    fn in_venv(&self, program: &str) -> Option<Command> {
        let path = self.venv.as_ref()?.join("bin").join(program);
        if !path.exists() {
            return None;
        }
        let mut command = Command::new(path);
        command.current_dir(&self.fleet.directory);
        self.seal(&mut command);
        command
            .env("BENCH_USER", &self.fleet.user)
            .env("BENCH_PORT", self.fleet.port.to_string())
            .env("BENCH_PARALLEL", self.parallel.to_string())
            .env("BENCH_LINE", TRACE)
            .env("BENCH_PAYLOAD", &self.payload)
            .env("BENCH_SHA256", &self.payload_sha256)
            .env("BENCH_PLACE", PLACE);
        Some(command)
    }

    /// Nothing of the caller's own configuration.
    fn seal(&self, command: &mut Command) {
        let home = self.fleet.file("operator");
        fs::create_dir_all(&home).unwrap();
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).env("HOME", home).env("LANG", "C.UTF-8");
    }

    fn write_inputs(&self) {
        let fleet = self.fleet;
        let key = fleet.file("client_key");
        let mut toml = format!(
            "[defaults]\nuser = \"{}\"\nport = {}\nidentity_file = \"{}\"\n",
            fleet.user,
            fleet.port,
            key.display()
        );
        let mut ini = String::from("[all]\n");
        for (number, address) in fleet.addresses.iter().enumerate() {
            toml += &format!(
                "\n[[hosts]]\nname = \"host-{number}\"\naddress = \"{address}\"\nhost_key = \"{}\"\n",
                fleet.fingerprint
            );
            ini += &format!("{address}\n");
        }
        // The hosts are this machine, so its Python is theirs.
        ini += &format!("[all:vars]\nansible_python_interpreter={}\n", python_path());
        let files = [
            ("fleet.toml", toml.as_str()),
            ("inventory.ini", ini.as_str()),
            ("deploy.yml", include_str!("peers/deploy.yml")),
            ("inventory.py", include_str!("peers/inventory.py")),
            ("deploy.py", include_str!("peers/deploy.py")),
            ("parallel_ssh.py", include_str!("peers/parallel_ssh.py")),
            ("async_ssh.py", include_str!("peers/async_ssh.py")),
            ("second_pass.py", include_str!("peers/second_pass.py")),
        ];
        for (name, content) in files {
            fs::write(fleet.file(name), content).unwrap();
        }
    }
}

/// The interpreter itself, not a launcher that depends on `$HOME`.
fn python_path() -> String {
    let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    output.map_or_else(|_| String::new(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}

fn deployed_runner_is_whole(home: &Path) -> bool {
    let Ok(builds) = fs::read_dir(home.join(".cache/orchestrator")) else { return false };
    builds.flatten().any(|build| {
        let name = build.file_name();
        fs::read(build.path().join("remote-runner"))
            .is_ok_and(|bytes| name.to_str() == Some(&sha256(&bytes)))
    })
}

fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
