//! A host to deploy to: a real sshd whose logins have a home of their own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::cli::operator::{eventually, runner};
use crate::sshd::{self, Sshd};

pub struct Host {
    pub sshd: Sshd,
    pub home: PathBuf,
    _home: TempDir,
}

impl Host {
    /// A host with an empty home.
    pub fn start() -> Self {
        Self::with(&[], "")
    }

    /// A host with these lines in its sshd_config and these further variables (`NAME=value`) in
    /// the environment of logins.
    pub fn with(options: &[&str], environment: &str) -> Self {
        let home = sshd::open_dir();
        let path = home.path().to_owned();
        Self::in_home(home, &path, options, environment)
    }

    /// A host with an empty home and this Docker socket; see [`Self::with`] for the rest.
    pub fn with_docker(socket: &Path, options: &[&str], environment: &str) -> Self {
        let home = sshd::open_dir();
        let set = format!("SetEnv HOME={} {environment}", home.path().display());
        let mut options = options.to_vec();
        options.push(&set);
        let sshd = Sshd::with_docker_socket(socket, &options);
        Self { sshd, home: home.path().to_owned(), _home: home }
    }

    /// A host whose home is `path` inside a directory that it keeps.
    pub fn in_home(kept: TempDir, path: &Path, options: &[&str], environment: &str) -> Self {
        // sshd takes the first SetEnv alone.
        let set = format!("SetEnv HOME={} {environment}", path.display());
        let mut options = options.to_vec();
        options.push(&set);
        Self { sshd: Sshd::start(&options), home: path.to_owned(), _home: kept }
    }

    /// A `[[hosts]]` entry that pins the host key.
    pub fn pinned(&self, name: &str) -> String {
        self.entry(name, self.sshd.port, &format!("host_key = \"{}\"", self.fingerprint()))
    }

    /// As [`Self::pinned`], through something that listens on another port.
    pub fn pinned_through(&self, name: &str, port: u16) -> String {
        self.entry(name, port, &format!("host_key = \"{}\"", self.fingerprint()))
    }

    /// A `[[hosts]]` entry whose host key nobody has seen.
    pub fn unknown(&self, name: &str) -> String {
        self.entry(name, self.sshd.port, "")
    }

    /// A `[[hosts]]` entry with these further lines.
    pub fn entry(&self, name: &str, port: u16, more: &str) -> String {
        format!(
            "[[hosts]]\nname = \"{name}\"\naddress = \"127.0.0.1\"\nport = {port}\nuser = \"{}\"\n\
             identity_file = \"{}\"\n{more}\n",
            sshd::current_user(),
            self.user_key().display(),
        )
    }

    /// The private key that lets in.
    pub fn user_key(&self) -> PathBuf {
        self.sshd.dir.path().join("user")
    }

    pub fn fingerprint(&self) -> String {
        sshd::fingerprint(&self.sshd.dir.path().join("host_ed25519.pub"))
    }

    /// The host is installed anew: it has another key.
    pub async fn reimage(&self) {
        let key = self.sshd.dir.path().join("host_ed25519");
        fs::remove_file(&key).unwrap();
        fs::remove_file(key.with_extension("pub")).unwrap();
        sshd::generate_key(&key, "ed25519", "");
        let config = self.sshd.dir.path().join("sshd_config");
        let (listener, _) = processes(|process| {
            let line = process.command_line();
            line.contains("-D") && line.contains(config.to_str().unwrap())
        })
        .pop()
        .unwrap();
        let starts = || self.sshd.log().matches("Server listening on").count();
        let before = starts();
        rustix::process::kill_process(listener, Signal::HUP).unwrap();
        eventually("sshd starts again", || starts() > before).await;
    }

    /// Where a runner lies.
    pub fn runner(&self, sha256: &str) -> PathBuf {
        self.home.join(".cache/orchestrator").join(sha256).join("remote-runner")
    }

    /// That the runner lies on the host whole, and nothing half beside it.
    #[track_caller]
    pub fn assert_installed(&self) {
        let bytes = fs::read(runner()).unwrap();
        let sha256 = sha256(&bytes);
        let path = self.runner(&sha256);
        assert!(fs::read(&path).unwrap() == bytes, "{} differs", path.display());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&path), 0o700);
        let folder = path.parent().unwrap();
        assert_eq!((mode(folder), mode(folder.parent().unwrap())), (0o700, 0o700));
        assert_eq!(fs::read_dir(folder).unwrap().count(), 1, "{}", tree(&self.home));
    }

    /// Whether an upload's temporary file is there.
    pub fn has_half_an_upload(&self) -> bool {
        tree(&self.home).contains(".upload.")
    }

    /// The processes that logins have left running, by command line.
    pub fn left_running(&self) -> Vec<String> {
        running_with_home(&self.home)
    }
}

/// The command lines of the processes whose home is `home` or below it.
pub fn running_with_home(home: &Path) -> Vec<String> {
    let variable = format!("HOME={}", home.display());
    let found = processes(|process| {
        process
            .read("environ")
            .split(|byte| *byte == 0)
            .any(|entry| entry.starts_with(variable.as_bytes()))
    });
    found.into_iter().map(|(_, line)| line).collect()
}

pub struct Process(PathBuf);

impl Process {
    /// A file of `/proc/<pid>`; empty when the process is gone or not ours to read.
    fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.0.join(file)).unwrap_or_default()
    }

    pub fn command_line(&self) -> String {
        String::from_utf8_lossy(&self.read("cmdline")).replace('\0', " ")
    }
}

pub fn processes(wanted: impl Fn(&Process) -> bool) -> Vec<(Pid, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let entry = entry.unwrap();
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let process = Process(entry.path());
        if wanted(&process) {
            found.push((Pid::from_raw(pid).unwrap(), process.command_line()));
        }
    }
    found
}

pub fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Everything below a directory: path, mode, owner and content, one line each.
pub fn tree(root: &Path) -> String {
    let mut lines = Vec::new();
    walk(root, root, &mut |line, _| lines.push(line));
    lines.join("\n")
}

/// As [`tree`], with what any write would change: inode, time of modification, time of change.
pub fn stamped_tree(root: &Path) -> String {
    let mut lines = Vec::new();
    walk(root, root, &mut |line, metadata| {
        let (inode, modified) = (metadata.ino(), metadata.mtime());
        let stamps = (modified, metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec());
        lines.push(format!("{line} {inode} {stamps:?}"));
    });
    lines.join("\n")
}

fn walk(root: &Path, folder: &Path, each: &mut impl FnMut(String, &fs::Metadata)) {
    let mut entries: Vec<PathBuf> = match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
        // What a host removes while it is looked at.
        Err(_) => return,
    };
    entries.sort();
    for path in entries {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let content = match fs::read(&path) {
            Ok(bytes) if metadata.is_file() => sha256(&bytes),
            _ => String::new(),
        };
        let name = path.strip_prefix(root).unwrap().display();
        let (mode, owner) = (metadata.mode(), (metadata.uid(), metadata.gid()));
        each(format!("{name} {mode:o} {owner:?} {content}"), &metadata);
        if metadata.is_dir() {
            walk(root, &path, each);
        }
    }
}

/// The folder of the fake NVML library that the runner's own tests use: an H100 and a GT 1030.
pub fn fake_nvml() -> &'static Path {
    static FOLDER: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    FOLDER.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../remote-runner/tests/fake_nvml/fake_nvml.c");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("orchestrator_fake_nvml");
        fs::create_dir_all(&folder).unwrap();
        // Under another name first: another test process may be using the library.
        let library = tempfile::NamedTempFile::new_in(&folder).unwrap().into_temp_path();
        let mut compiler = std::process::Command::new(sshd::need("/usr/bin/cc", "gcc"));
        let shim = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/cuda/shim");
        compiler.args(["-O1", "-shared", "-fPIC", "-I"]).arg(shim);
        compiler.arg("-o").arg(&library).arg(source);
        sshd::succeed(&mut compiler);
        library.persist(folder.join("libnvidia-ml.so.1")).unwrap();
        folder
    })
}
