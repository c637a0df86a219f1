//! Hosts on which a runner cannot be put or run: each has its own reason. And hosts that are odd
//! and on which it can.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::host::{Host, sha256, stamped_tree, tree};
use crate::cli::operator::{Deployed, Operator, runner};
use crate::sshd::{Sshd, User, current_user, need, open_dir, succeed};

async fn deploy(host: &Host) -> Deployed {
    let operator = Operator::new();
    operator.fleet(&[host.pinned("gpu-01")]);
    operator.deploy([]).await
}

#[track_caller]
fn assert_reason(deployed: &Deployed, reason: &str, message: &str) {
    let row = deployed.row("gpu-01");
    assert_eq!(row["reason"], reason, "{row}");
    assert!(row["message"].as_str().unwrap().contains(message), "{row}");
    assert!(row["hint"].is_string(), "{row}");
    assert_eq!(deployed.finished.code, Some(3));
}

/// A file system in memory; dropping it unmounts it.
pub struct Mount(TempDir);

impl Mount {
    pub fn new(options: &str) -> Self {
        assert_eq!(current_user(), "root", "this test mounts a tmpfs: run as root");
        let mount = Self(open_dir());
        let options = format!("mode=755,{options}");
        succeed(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
                .arg(mount.0.path()),
        );
        mount
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        succeed(Command::new("mount").args(["-o", &options]).arg(self.0.path()));
    }

    /// A host whose home it is.
    pub fn host(&self, environment: &str) -> Host {
        Host::in_home(open_dir(), self.0.path(), &[], environment)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_no_space_and_nothing_is_left() {
    let mount = Mount::new("size=256k");
    let host = mount.host("");
    assert_reason(&deploy(&host).await, "no_space", "no space left in");
    assert_eq!(tree(&host.home), "");
}

#[tokio::test]
async fn a_disk_that_fills_up_under_the_upload_is_no_space_and_nothing_runnable_is_left() {
    let mount = Mount::new("size=1m");
    // df says what there was when it was asked, and then somebody else fills the disk.
    let tools = tools(&[]);
    fs::remove_file(tools.path().join("df")).unwrap();
    script(&tools.path().join("df"), "printf 'a\\n/dev/sda 9 9 99999999 9%% /\\n'");
    let host = mount.host(&format!("PATH={}", tools.path().display()));
    assert_reason(&deploy(&host).await, "no_space", "No space left on device");
    let left = tree(&host.home);
    assert!(!left.contains("remote-runner") && !left.contains(".upload."), "{left}");
}

#[tokio::test]
async fn a_disk_without_inodes_is_no_space() {
    let mount = Mount::new("size=64m,nr_inodes=3");
    let host = mount.host("");
    assert_reason(&deploy(&host).await, "no_space", "No space left on device");
    let left = tree(&host.home);
    assert!(!left.contains("remote-runner") && !left.contains(".upload."), "{left}");
}

#[tokio::test]
async fn a_noexec_home_is_noexec_and_another_work_directory_helps() {
    let mount = Mount::new("size=64m,noexec");
    let host = mount.host("");
    let operator = Operator::new();
    operator.fleet(&[host.pinned("gpu-01")]);
    assert_reason(&operator.deploy([]).await, "noexec", "programs cannot be run from");
    let left = tree(&host.home);
    assert!(!left.contains("remote-runner") && !left.contains(".upload."), "{left}");

    let elsewhere = open_dir();
    let work_dir = elsewhere.path().join("orchestrator");
    let more = format!("work_dir = \"{}\"", work_dir.display());
    let pin = format!("host_key = \"{}\"\n{more}", host.fingerprint());
    operator.fleet(&[host.entry("gpu-01", host.sshd.port, &pin)]);
    operator.deploy([]).await.expect(0);
    let name = sha256(&fs::read(runner()).unwrap());
    assert!(work_dir.join(name).join("remote-runner").exists());
    operator.run(["hosts", "purge", "gpu-01", "--yes"]).await.expect(0);
    assert_eq!(tree(elsewhere.path()), "");
}

#[tokio::test]
async fn a_read_only_home_is_read_only() {
    let mount = Mount::new("size=64m");
    mount.remount("ro");
    let host = mount.host("");
    assert_reason(&deploy(&host).await, "read_only", "cannot write to the work directory");
}

#[tokio::test]
async fn a_home_that_belongs_to_someone_else_is_read_only() {
    let user = User::add(Path::new("/bin/sh"));
    fs::set_permissions(user.home.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let (sshd, operator) = (Sshd::start(&[]), Operator::new());
    operator.fleet(&[entry_of(&user, &sshd)]);
    let deployed = operator.deploy([]).await.expect(3);
    assert_reason(&deployed, "read_only", "cannot write to the work directory");
    assert_eq!(tree(user.home.path()), "");
}

#[tokio::test]
async fn a_runner_for_another_processor_is_wrong_arch() {
    let mut bytes = fs::read(runner()).unwrap();
    // e_machine: 0xb7 is aarch64, 0x3e is x86_64.
    bytes[18] = if bytes[18] == 0xb7 { 0x3e } else { 0xb7 };
    let (host, operator) = (Host::start(), Operator::new());
    operator.fleet(&[host.pinned("gpu-01")]);
    fs::write(operator.file("foreign"), bytes).unwrap();
    let deployed = operator.deploy(["--runner", "foreign"]).await;
    assert_reason(&deployed, "wrong_arch", "and this runner is for Linux");
    assert_eq!(tree(&host.home), "");
}

/// A runner that wants a C library which does not exist yet.
fn futuristic() -> Vec<u8> {
    let mut bytes = fs::read(runner()).unwrap();
    let version = b"GLIBC_2.2.5\0";
    let at = bytes.windows(version.len()).position(|window| window == version).unwrap();
    bytes[at..at + version.len()].copy_from_slice(b"GLIBC_9.9.9\0");
    bytes
}

#[tokio::test]
async fn an_old_c_library_is_old_glibc() {
    let (host, operator) = (Host::start(), Operator::new());
    operator.fleet(&[host.pinned("gpu-01")]);
    fs::write(operator.file("futuristic"), futuristic()).unwrap();
    let deployed = operator.deploy(["--runner", "futuristic"]).await;
    assert_reason(&deployed, "old_glibc", "this runner needs 9.9 or newer");
    assert_eq!(tree(&host.home), "");
}

#[tokio::test]
async fn what_does_not_start_is_found_out_before_it_gets_its_name() {
    // A host that does not say how old its C library is.
    let tools = tools(&["getconf"]);
    let host = Host::with(&[], &format!("PATH={}", tools.path().display()));
    let operator = Operator::new();
    operator.fleet(&[host.pinned("gpu-01")]);
    let nothing_runnable = || {
        let left = tree(&host.home);
        assert!(!left.contains("remote-runner") && !left.contains(".upload."), "{left}");
    };
    fs::write(operator.file("futuristic"), futuristic()).unwrap();
    let deployed = operator.deploy(["--runner", "futuristic"]).await;
    assert_reason(&deployed, "old_glibc", "this runner needs 9.9 or newer");
    nothing_runnable();

    let mut bytes = fs::read(runner()).unwrap();
    let library = b"libc.so.6\0";
    let at = bytes.windows(library.len()).position(|window| window == library).unwrap();
    bytes[at + 8] = b'9';
    fs::write(operator.file("other"), bytes).unwrap();
    let deployed = operator.deploy(["--runner", "other"]).await;
    assert_reason(&deployed, "runner", "the runner does not start on this host");
    nothing_runnable();
}

#[tokio::test]
async fn a_work_directory_may_have_any_name_and_home_may_be_elsewhere() {
    let place = open_dir();
    let odd = place.path().join("it's a \\ $(touch owned) `dir` \"*\" ; &");
    fs::create_dir(&odd).unwrap();
    let (host, operator) = (Host::start(), Operator::new());
    let more = format!("work_dir = '''{}'''", odd.join("-rf").display());
    let pin = format!("host_key = \"{}\"\n{more}", host.fingerprint());
    operator.fleet(&[host.entry("gpu-01", host.sshd.port, &pin)]);
    operator.deploy([]).await.expect(0);
    assert_eq!(operator.deploy([]).await.expect(0).change("gpu-01"), "none");
    assert_eq!(tree(&host.home), "");
    operator.run(["hosts", "purge", "gpu-01", "--yes"]).await.expect(0);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "{}", tree(place.path()));
    assert_eq!(tree(&odd), "");

    // A cache that someone has put on another disk.
    let elsewhere = open_dir();
    symlink(elsewhere.path(), host.home.join(".cache")).unwrap();
    operator.fleet(&[host.pinned("gpu-01")]);
    operator.deploy([]).await.expect(0);
    host.assert_installed();
    operator.run(["hosts", "purge", "gpu-01", "--yes"]).await.expect(0);
    assert_eq!(tree(elsewhere.path()), "");
    assert!(host.home.join(".cache").is_symlink());
}

#[tokio::test]
async fn the_build_before_this_one_stays_and_older_ones_go() {
    let (host, operator) = (Host::start(), Operator::new());
    operator.fleet(&[host.pinned("gpu-01")]);
    let mut names = Vec::new();
    for build in 0..3_u8 {
        // Bytes after an executable are no matter to it, and make it another build.
        let bytes = [fs::read(runner()).unwrap(), vec![build]].concat();
        fs::write(operator.file("build"), &bytes).unwrap();
        let deployed = operator.deploy(["--runner", "build"]).await.expect(0);
        assert_eq!(deployed.change("gpu-01"), "uploaded");
        names.push(sha256(&bytes));
    }
    let here = |name: &String| host.runner(name).exists();
    assert_eq!(names.iter().map(here).collect::<Vec<_>>(), [false, true, true]);
    let left = fs::read_dir(host.home.join(".cache/orchestrator")).unwrap();
    let builds = left.filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir());
    assert_eq!(builds.count(), 2, "{}", tree(&host.home));
    operator.run(["hosts", "purge", "gpu-01", "--yes"]).await.expect(0);
    assert_eq!(tree(&host.home), "");
}

#[tokio::test]
async fn a_manual_host_is_never_written_to() {
    let (host, operator) = (Host::start(), Operator::new());
    let pin = format!("host_key = \"{}\"\nmode = \"manual\"", host.fingerprint());
    operator.fleet(&[host.entry("gpu-01", host.sshd.port, &pin)]);
    let deployed = operator.deploy([]).await;
    assert_reason(&deployed, "verify", "the host's mode is manual");
    assert_eq!(tree(&host.home), "");

    // As the hint says.
    let bytes = fs::read(runner()).unwrap();
    let path = host.runner(&sha256(&bytes));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    let placed = stamped_tree(&host.home);
    assert_eq!(operator.deploy([]).await.expect(0).change("gpu-01"), "none");
    assert_eq!(stamped_tree(&host.home), placed);
}

#[tokio::test]
async fn a_hardened_sshd_is_deployed_to() {
    let options = ["MaxSessions 1", "MaxStartups 1", "DisableForwarding yes", "PermitTTY no"];
    let host = Host::with(&options, "");
    let operator = Operator::new();
    operator.fleet(&[host.pinned("gpu-01")]);
    operator.deploy([]).await.expect(0);
    host.assert_installed();
    operator.run(["hosts", "purge", "gpu-01", "--yes"]).await.expect(0);
    assert_eq!(tree(&host.home), "");
}

#[tokio::test]
async fn a_missing_runner_on_this_side_is_an_error_before_any_connection() {
    let (host, operator) = (Host::start(), Operator::new());
    operator.fleet(&[host.pinned("gpu-01")]);
    let missing = operator.run(["deploy", "--runner", "nowhere"]).await.expect(1);
    assert!(missing.stderr.contains("cannot read the runner nowhere"), "{missing:?}");
    fs::write(operator.file("script"), "#!/bin/sh\n").unwrap();
    let script = operator.run(["deploy", "--runner", "script"]).await.expect(1);
    assert!(script.stderr.contains("is not a 64-bit Linux executable"), "{script:?}");

    let alone = operator.file("orchestrator");
    let program = env!("CARGO_BIN_EXE_orchestrator");
    fs::hard_link(program, &alone).or_else(|_| fs::copy(program, &alone).map(drop)).unwrap();
    let mut command = Command::new(&alone);
    command.arg("deploy");
    operator.seal(&mut command);
    command.env_remove("ORCHESTRATOR_RUNNER");
    let finished = crate::cli::operator::Running::start(command).end().await.expect(1);
    assert!(finished.stderr.contains("no remote-runner beside the orchestrator"), "{finished:?}");
    assert!(!host.sshd.log().contains("Connection from"));
}

/// A directory with the programs that the remote scripts use, except these.
fn tools(without: &[&str]) -> TempDir {
    let dir = open_dir();
    let all = [
        "sh",
        "awk",
        "cat",
        "chmod",
        "df",
        "dirname",
        "getconf",
        "gzip",
        "head",
        "ls",
        "mkdir",
        "mv",
        "rm",
        "rmdir",
        "sha256sum",
        "tr",
        "uname",
        "wc",
    ];
    for name in all {
        if !without.contains(&name) {
            symlink(find(name), dir.path().join(name)).unwrap();
        }
    }
    dir
}

fn find(name: &str) -> PathBuf {
    let places = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(name));
    places.into_iter().find(|path| path.exists()).unwrap_or_else(|| panic!("no {name}"))
}

fn script(path: &Path, body: &str) {
    fs::write(path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_host_without_gzip_and_without_a_hash_tool_is_deployed_to() {
    let tools = tools(&["gzip", "sha256sum"]);
    let host = Host::with(&[], &format!("PATH={}", tools.path().display()));
    let operator = Operator::new();
    operator.fleet(&[host.pinned("gpu-01")]);
    let cold = operator.deploy([]).await.expect(0);
    assert_eq!(cold.change("gpu-01"), "uploaded");
    host.assert_installed();
    let warm = operator.deploy([]).await.expect(0);
    assert_eq!(warm.change("gpu-01"), "none");
}

#[tokio::test]
async fn a_forced_command_is_named_and_nothing_is_written() {
    for forced in ["echo only this", "cat", "internal-sftp"] {
        let host = Host::with(&[&format!("ForceCommand {forced}")], "");
        let deployed = deploy(&host).await;
        assert_reason(&deployed, "exec", "");
        let hint = deployed.row("gpu-01")["hint"].as_str().unwrap();
        assert!(hint.contains("ForceCommand"), "{forced}: {hint}");
        assert_eq!(tree(&host.home), "", "{forced}");
    }
}

#[tokio::test]
async fn noisy_rc_files_are_no_matter() {
    let host = Host::start();
    let noise = "echo 'Welcome to gpu-01'; echo state=ready; echo end; echo warn >&2\n\
                 printf 'no newline'; printf '\\033[2J'\n";
    fs::write(host.home.join(".bashrc"), noise).unwrap();
    let operator = Operator::new();
    operator.fleet(&[host.pinned("gpu-01")]);
    operator.deploy([]).await.expect(0);
    host.assert_installed();
    assert_eq!(operator.deploy([]).await.expect(0).change("gpu-01"), "none");
}

fn entry_of(user: &User, sshd: &Sshd) -> String {
    format!(
        "[[hosts]]\nname = \"gpu-01\"\naddress = \"127.0.0.1\"\nport = {}\nuser = \"{}\"\n\
         identity_file = \"{}\"\nhost_key = \"{}\"\n",
        sshd.port,
        user.name,
        sshd.dir.path().join("user").display(),
        crate::sshd::fingerprint(&sshd.dir.path().join("host_ed25519.pub")),
    )
}

#[tokio::test]
async fn every_login_shell_of_an_ordinary_user_is_deployed_to() {
    let dir = open_dir();
    let busybox = dir.path().join("sh");
    symlink(need("/usr/bin/busybox", "busybox-static"), &busybox).unwrap();
    let sshd = Sshd::start(&[]);
    for shell in [
        need("/bin/dash", "dash"),
        need("/usr/bin/zsh", "zsh"),
        need("/usr/bin/fish", "fish"),
        busybox,
    ] {
        let user = User::add(&shell);
        succeed(Command::new("chown").arg(&user.name).arg(user.home.path()));
        let operator = Operator::new();
        operator.fleet(&[entry_of(&user, &sshd)]);
        let cold = operator.deploy([]).await.expect(0);
        assert_eq!(cold.change("gpu-01"), "uploaded", "{}", shell.display());
        let warm = operator.deploy([]).await.expect(0);
        assert_eq!(warm.change("gpu-01"), "none", "{}", shell.display());
        operator.run(["hosts", "purge", "gpu-01", "--yes"]).await.expect(0);
        let left = tree(user.home.path());
        assert!(!left.contains(".cache/orchestrator"), "{}: {left}", shell.display());
    }
}
