//! SSH grants on a real sshd, as a real user with a home of its own.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use orchestrator::fleet::Fleet;
use orchestrator::fleet::grants::{GrantError, GrantRequest, GrantRules, grant, grant_all};
use orchestrator::fleet::grants::{is_due, reconcile, revoke};
use orchestrator::grants::{Expiry, FromAddress, PublicKey, line};
use orchestrator::host_spec::{AgentSocket, Endpoint, HostMode, HostSpec};
use orchestrator::ids::HostName;
use orchestrator::reason::Reason;
use orchestrator::ssh::{Connection, connect};
use orchestrator::store::{GrantFilter, GrantLimits, GrantRow, GrantState, Store};
use orchestrator::transport::{ExecRequest, Failure, RemoteCommand, Transport};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

use crate::cli::operator::eventually;
use crate::sshd::{self, Sshd, User, command, context, generate_key, need, sh};

const LOOPBACK: &str = "127.0.0.1";

/// A host whose sshd reads its user's own `authorized_keys`, and checks who may write there.
struct Host {
    sshd: Sshd,
    user: User,
    keys: PathBuf,
    validator: TempDir,
    _database: TempDir,
    fleet: Arc<Fleet>,
}

impl Host {
    async fn start() -> Self {
        Self::with_shell("/bin/sh").await
    }

    async fn with_shell(shell: &str) -> Self {
        let options = ["AuthorizedKeysFile %h/.ssh/authorized_keys", "StrictModes yes"];
        let sshd = Sshd::start(&options);
        let user = User::add(Path::new(shell));
        let (uid, gid) = ids(&user.name);
        let home = user.home.path();
        fs::create_dir(home.join(".ssh")).unwrap();
        let keys = home.join(".ssh/authorized_keys");
        fs::copy(sshd.dir.path().join("user.pub"), &keys).unwrap();
        for (path, mode) in
            [(home.to_owned(), 0o755), (home.join(".ssh"), 0o700), (keys.clone(), 0o600)]
        {
            chown(&path, Some(uid), Some(gid)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let validator = sshd::open_dir();
        generate_key(&validator.path().join("key"), "ed25519", "");
        let database = tempfile::tempdir().unwrap();
        let store = Store::open(&database.path().join("o.db")).await.unwrap();
        let fleet = Fleet { store, ssh: context(&[&sshd]).into(), actor: "test@here".to_owned() };
        Self { sshd, user, keys, validator, _database: database, fleet: Arc::new(fleet) }
    }

    fn spec(&self) -> HostSpec {
        HostSpec {
            name: HostName::new("gpu-01").unwrap(),
            endpoint: self.endpoint(&self.sshd.dir.path().join("user")),
            proxy_jump: Vec::new(),
            mode: HostMode::Ssh,
            gpus: None,
            labels: Default::default(),
            work_dir: None,
            containers: Default::default(),
        }
    }

    fn endpoint(&self, key: &Path) -> Endpoint {
        Endpoint {
            user: self.user.name.clone(),
            identity_files: vec![key.to_owned()],
            agent: AgentSocket::Disabled,
            ..self.sshd.endpoint()
        }
    }

    fn request(&self) -> GrantRequest {
        let text = fs::read_to_string(self.validator.path().join("key.pub")).unwrap();
        GrantRequest {
            validator: "5Validator".to_owned(),
            public_key: PublicKey::parse(&text).unwrap(),
            duration: Duration::from_secs(3600),
            from: FromAddress::parse(LOOPBACK).unwrap(),
        }
    }

    async fn grant(&self) -> GrantRow {
        grant(&self.fleet, &self.spec(), &self.request(), &rules()).await.unwrap()
    }

    async fn log_in(&self) -> Result<Connection, Reason> {
        let endpoint = self.endpoint(&self.validator.path().join("key"));
        connect(&endpoint, &[], &context(&[&self.sshd])).await.map_err(|error| error.reason())
    }

    fn content(&self) -> Vec<u8> {
        fs::read(&self.keys).unwrap()
    }

    async fn kinds(&self) -> Vec<String> {
        let events = self.fleet.store.events_after(0, None, 1000).await.unwrap();
        events.into_iter().map(|event| event.kind).collect()
    }

    /// Processes of the user, by command line.
    fn running(&self) -> Vec<String> {
        let output =
            Command::new("ps").args(["-o", "args=", "-u", &self.user.name]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

fn ids(user: &str) -> (u32, u32) {
    let id = |flag| {
        let output = sshd::succeed(Command::new("id").args([flag, user]));
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    (id("-u"), id("-g"))
}

fn rules() -> GrantRules {
    GrantRules {
        limits: GrantLimits { per_validator: 50, per_host: 50, rate: 100, window_ms: 3_600_000 },
        max_duration: Duration::from_secs(7200),
        keys_file: "~/.ssh/authorized_keys".to_owned(),
    }
}

#[tokio::test]
async fn a_grant_lets_in_until_it_is_revoked_and_leaves_no_trace() {
    for shell in ["/bin/sh", "/bin/bash", "/usr/bin/fish"] {
        let host = Host::with_shell(shell).await;
        let before = host.content();
        assert_eq!(host.log_in().await.err(), Some(Reason::Auth));

        let row = host.grant().await;
        assert_eq!(row.state, GrantState::Placed);
        let connection = host.log_in().await.unwrap();
        let said = sh(&connection, "echo \"$ORCH_GRANT $(id -un)\"; exit 7").await;
        assert_eq!(
            String::from_utf8(said.stdout).unwrap(),
            format!("{} {}\n", row.id, host.user.name)
        );
        assert_eq!(said.status.to_string(), "exit status 7");
        // No way around the shell: forwarding is refused.
        assert!(connection.open_socket("/var/run/docker.sock").await.is_err());
        connection.close().await;

        revoke(&host.fleet, &host.spec(), &row.id).await.unwrap();
        assert_eq!(host.log_in().await.err(), Some(Reason::Auth));
        assert_eq!(host.content(), before);
        assert_eq!(
            host.kinds().await,
            ["grant.requested", "grant.placed", "grant.revoked", "grant.removed"]
        );
        let row = host.fleet.store.grant(&row.id).await.unwrap().unwrap();
        assert_eq!((row.state, row.end_reason.as_deref()), (GrantState::Gone, Some("revoked")));
    }
}

#[tokio::test]
async fn sshd_refuses_another_address_and_an_expired_grant() {
    let host = Host::start().await;
    let elsewhere =
        GrantRequest { from: FromAddress::parse("203.0.113.0/24").unwrap(), ..host.request() };
    grant(&host.fleet, &host.spec(), &elsewhere, &rules()).await.unwrap();
    assert_eq!(host.log_in().await.err(), Some(Reason::Auth));
    assert!(host.sshd.log().contains("not from a permitted host"), "{}", host.sshd.log());

    let own = fs::read(host.sshd.dir.path().join("user.pub")).unwrap();
    let with_end = |at_secs: i64| {
        let expiry = Expiry::for_host(at_secs, None, "").unwrap();
        let from = FromAddress::parse(LOOPBACK).unwrap();
        let keys = host.keys.to_str().unwrap();
        let line = line(&"a".repeat(32), &host.request().public_key, from, &expiry, keys).unwrap();
        fs::write(&host.keys, [&own[..], line.as_bytes(), b"\n"].concat()).unwrap();
    };
    let now = orchestrator::store::now_ms() / 1000;
    with_end(now - 60);
    assert_eq!(host.log_in().await.err(), Some(Reason::Auth));
    assert_eq!(host.sshd.log().matches("Refused by key options").count(), 2);
    with_end(now + 3600);
    host.log_in().await.unwrap().close().await;
    // A connection that outlives its grant opens no session: the line's own command looks again.
    let text = fs::read_to_string(&host.keys).unwrap();
    fs::write(&host.keys, text.replace(&(now + 3600).to_string(), &now.to_string())).unwrap();
    let connection = host.log_in().await.unwrap();
    let refused = connection.exec(ExecRequest::new(command("echo in"))).await.unwrap_err();
    assert!(refused.to_string().contains("This grant has ended"), "{refused}");
    connection.close().await;
}

#[tokio::test]
async fn a_revoke_ends_live_sessions_and_what_they_left_behind() {
    let host = Host::start().await;
    let row = host.grant().await;
    let connection = host.log_in().await.unwrap();
    let idle = host.log_in().await.unwrap();
    let script = "setsid sleep 86400 >/dev/null 2>&1 & echo started; cat";
    let mut process = connection.spawn(command(script), Duration::from_secs(60)).await.unwrap();
    eventually("the session runs", || {
        host.running().iter().any(|line| line.contains("sleep 86400"))
    })
    .await;
    // The operator's own session stays.
    let own = connect(&host.spec().endpoint, &[], &host.fleet.ssh).await.unwrap();
    let mut kept = own.spawn(command("echo here; cat"), Duration::from_secs(60)).await.unwrap();

    let done = revoke(&host.fleet, &host.spec(), &row.id).await.unwrap();
    assert!(done.processes_ended >= 2, "{done:?}");
    // Whatever it says, it has ended.
    let _ended = process.wait().await;
    assert!(
        !host.running().iter().any(|line| line.contains("sleep 86400")),
        "{:?}",
        host.running()
    );
    // A connection without a session lives on and is good for nothing.
    let refused = idle.exec(ExecRequest::new(command("echo in"))).await;
    match refused {
        Ok(output) => panic!("{output:?}"),
        Err(error) => assert!(matches!(error.failure(), Failure::NotOurCommand { .. }), "{error}"),
    }
    kept.stdin.shutdown().await.unwrap();
    assert!(kept.wait().await.unwrap().success());
    own.close().await;
    idle.close().await;
}

#[tokio::test]
async fn foreign_bytes_mode_owner_and_links_stay() {
    let own = |host: &Host| fs::read(host.sshd.dir.path().join("user.pub")).unwrap();
    for tail in [
        &b"ssh-rsa AAAA no line break"[..],
        b"# windows\r\nssh-ed25519 AAAA me\r\n",
        b"\0\xff\xfe binary\0\n\n\n",
        b"restrict,pty,from=\"1.2.3.4\" ssh-ed25519 AAAA orch:0123456789abcdef0123456789abcdef\n",
    ] {
        let host = Host::start().await;
        let before = [&own(&host), tail].concat();
        // The file is a link to somewhere else in the home.
        let real = host.user.home.path().join("real_keys");
        fs::write(&real, &before).unwrap();
        let (uid, gid) = ids(&host.user.name);
        chown(&real, Some(uid), Some(gid)).unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        fs::remove_file(&host.keys).unwrap();
        symlink("../real_keys", &host.keys).unwrap();

        let row = host.grant().await;
        assert!(host.content().starts_with(&before));
        host.log_in().await.unwrap().close().await;
        revoke(&host.fleet, &host.spec(), &row.id).await.unwrap();
        assert_eq!(host.content(), before);
        let metadata = fs::metadata(&real).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (0o640, uid, gid));
        assert!(host.keys.is_symlink());
        let left: Vec<_> = fs::read_dir(host.keys.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}

#[tokio::test]
async fn grants_at_the_same_moment_are_all_there() {
    let host = Host::start().await;
    let before = host.content();
    let grants: Vec<_> = (0..6)
        .map(|number| {
            let fleet = host.fleet.clone();
            let spec = host.spec();
            let request = GrantRequest { validator: format!("5V{number}"), ..host.request() };
            tokio::spawn(async move { grant(&fleet, &spec, &request, &rules()).await.unwrap() })
        })
        .collect();
    for task in grants {
        let row = task.await.unwrap();
        assert_eq!(row.state, GrantState::Placed);
    }
    let text = String::from_utf8(host.content()).unwrap();
    assert_eq!(text.matches(" orch:").count(), 6 + 6, "{text}");
    let open = GrantFilter { open: true, ..GrantFilter::default() };
    for row in host.fleet.store.grants(&open, 10, 0).await.unwrap() {
        revoke(&host.fleet, &host.spec(), &row.id).await.unwrap();
    }
    assert_eq!(host.content(), before);
}

#[tokio::test]
async fn limits_hold_and_what_ended_frees_its_place() {
    let host = Host::start().await;
    let limits = |per_validator, per_host, rate| {
        let limits = GrantLimits { per_validator, per_host, rate, window_ms: 3_600_000 };
        GrantRules { limits, ..rules() }
    };
    let try_grant = async |rules: &GrantRules, validator: &str| {
        let request = GrantRequest { validator: validator.to_owned(), ..host.request() };
        grant(&host.fleet, &host.spec(), &request, rules).await
    };
    let first = try_grant(&limits(1, 9, 9), "a").await.unwrap();
    let refused = try_grant(&limits(1, 9, 9), "a").await.unwrap_err();
    assert_eq!(refused.reason(), Reason::Limit, "{refused}");
    try_grant(&limits(1, 2, 9), "b").await.unwrap();
    let refused = try_grant(&limits(1, 2, 9), "c").await.unwrap_err();
    assert_eq!(refused.to_string(), "host gpu-01 has 2 live grants already");
    revoke(&host.fleet, &host.spec(), &first.id).await.unwrap();
    let refused = try_grant(&limits(1, 9, 1), "a").await.unwrap_err();
    assert_eq!(refused.to_string(), "validator a was given 1 grants within 3600 s");
    try_grant(&limits(1, 9, 9), "a").await.unwrap();
    let long = GrantRequest { duration: Duration::from_secs(7201), ..host.request() };
    let refused = grant(&host.fleet, &host.spec(), &long, &rules()).await.unwrap_err();
    assert!(matches!(refused, GrantError::Duration { .. }), "{refused}");
}

#[tokio::test]
async fn a_dead_host_fails_alone_and_its_revoke_waits_for_it() {
    let host = Host::start().await;
    let mut dead = host.spec();
    dead.name = HostName::new("gpu-02").unwrap();
    // Reserved and never listened on.
    dead.endpoint.port = 1;
    let specs = vec![dead.clone(), host.spec()];
    let mut done = grant_all(host.fleet.clone(), specs, host.request(), rules()).await;
    done.sort_by(|a, b| a.0.cmp(&b.0));
    let row = done[0].1.as_ref().unwrap().clone();
    assert_eq!(done[1].1.as_ref().unwrap_err().reason(), Reason::Tcp);
    // The failed one is over: nothing of it can be on the host.
    assert!(!is_due(&host.fleet, &dead.name).await.unwrap());

    // A grant is revoked while its host is away.
    let away = HostSpec { endpoint: dead.endpoint.clone(), ..host.spec() };
    let error = revoke(&host.fleet, &away, &row.id).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Tcp);
    let ended = host.fleet.store.grant(&row.id).await.unwrap().unwrap();
    assert_eq!(ended.state, GrantState::Ended);
    assert!(is_due(&host.fleet, &host.spec().name).await.unwrap());
    let done = reconcile(&host.fleet, &host.spec()).await.unwrap();
    assert_eq!(done.removed, [row.id]);
    assert_eq!(host.log_in().await.err(), Some(Reason::Auth));
}

#[tokio::test]
async fn what_others_take_out_is_lost_and_what_others_grant_stays() {
    let host = Host::start().await;
    let before = host.content();
    let row = host.grant().await;
    let foreign = host.content().split_off(before.len());
    let foreign = String::from_utf8(foreign).unwrap().replace(&row.id, &"c".repeat(32));
    fs::write(&host.keys, [&before[..], foreign.as_bytes()].concat()).unwrap();
    let done = reconcile(&host.fleet, &host.spec()).await.unwrap();
    assert_eq!(done.lost, std::slice::from_ref(&row.id));
    assert_eq!(host.content(), [&before[..], foreign.as_bytes()].concat());
    let row = host.fleet.store.grant(&row.id).await.unwrap().unwrap();
    assert_eq!((row.state, row.end_reason.as_deref()), (GrantState::Gone, Some("lost")));
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_said() {
    let host = Host::start().await;
    let folder = host.keys.parent().unwrap();
    let too_large = [&host.content()[..], &vec![b'#'; 1 << 20]].concat();
    let small = host.content();
    fs::write(&host.keys, too_large).unwrap();
    let error = grant(&host.fleet, &host.spec(), &host.request(), &rules()).await.unwrap_err();
    assert!(matches!(error, GrantError::TooLarge { .. }), "{error}");
    fs::write(&host.keys, small).unwrap();
    chown(folder, Some(0), Some(0)).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let error = grant(&host.fleet, &host.spec(), &host.request(), &rules()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::ReadOnly, "{error}");
    assert!(error.to_string().contains("ermission denied"), "{error}");
}

/// The script as it runs on hosts, alone, with these programs in its PATH.
struct Script {
    home: TempDir,
    bin: TempDir,
    shell: PathBuf,
}

const KEYS: &str = include_str!("../../src/fleet/grants/scripts/keys.sh");

impl Script {
    /// Busybox and nothing else, without these applets.
    fn busybox(without: &[&str]) -> Self {
        let busybox = need("/usr/bin/busybox", "busybox-static");
        let (home, bin) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let list = sshd::succeed(Command::new(&busybox).arg("--list"));
        for applet in String::from_utf8(list.stdout).unwrap().lines() {
            if !without.contains(&applet) {
                symlink(&busybox, bin.path().join(applet)).unwrap();
            }
        }
        if !without.contains(&"flock") {
            let flock = bin.path().join("flock");
            let _there_already = fs::remove_file(&flock);
            symlink(need("/usr/bin/flock", "util-linux"), flock).unwrap();
        }
        let shell = bin.path().join("sh");
        Self { home, bin, shell }
    }

    fn start(&self) -> std::process::Child {
        Command::new(&self.shell)
            .args(["-c", KEYS, "sh", "~/.ssh/authorized_keys", "1800000000", "200"])
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", self.bin.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn folder(&self) -> PathBuf {
        self.home.path().join(".ssh")
    }
}

/// Reads until the script has shown the file, which is `length` bytes long.
fn shown(child: &mut std::process::Child, length: usize) -> String {
    let stdout = child.stdout.as_mut().unwrap();
    let mut said = Vec::new();
    let mut byte = [0];
    while !said.ends_with(b"\nend\n") {
        assert_eq!(stdout.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&said));
        said.push(byte[0]);
    }
    let mut content = vec![0; length];
    stdout.read_exact(&mut content).unwrap();
    String::from_utf8(said).unwrap()
}

#[test]
fn the_script_runs_on_busybox_with_and_without_flock() {
    for without in [&[][..], &["flock"]] {
        let script = Script::busybox(without);
        let mut child = script.start();
        let said = shown(&mut child, 0);
        assert!(said.contains("state=absent\n") && said.contains("size=0\n"), "{said}");
        assert!(said.contains("local=2027011"), "{said}");
        child.stdin.take().unwrap().write_all(b"write 6\na\0b\xffc\n").unwrap();
        let mut rest = String::new();
        child.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "written=6\nend\n");
        assert!(child.wait().unwrap().success());
        let keys = script.folder().join("authorized_keys");
        assert_eq!(fs::read(&keys).unwrap(), b"a\0b\xffc\n");
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(&keys), mode(&script.folder())), (0o600, 0o700));
        assert_eq!(fs::read_dir(script.folder()).unwrap().count(), 1);
    }
}

#[test]
fn a_killed_or_cut_edit_leaves_the_file_whole_and_holds_up_nobody() {
    for without in [&[][..], &["flock"]] {
        let script = Script::busybox(without);
        fs::create_dir(script.folder()).unwrap();
        let keys = script.folder().join("authorized_keys");
        fs::write(&keys, "whole\n").unwrap();
        // Killed while it waits for the content.
        let mut killed = script.start();
        shown(&mut killed, 6);
        killed.kill().unwrap();
        killed.wait().unwrap();
        // Killed with half of it.
        let mut killed = script.start();
        shown(&mut killed, 6);
        killed.stdin.as_mut().unwrap().write_all(b"write 100\nhalf").unwrap();
        killed.kill().unwrap();
        killed.wait().unwrap();
        drop(killed);
        assert_eq!(fs::read(&keys).unwrap(), b"whole\n");
        // Cut off: the input ends early.
        let mut cut = script.start();
        shown(&mut cut, 6);
        cut.stdin.take().unwrap().write_all(b"write 100\nhalf").unwrap();
        let mut said = String::new();
        cut.stdout.as_mut().unwrap().read_to_string(&mut said).unwrap();
        assert!(said.starts_with("failed=cut\n"), "{said}");
        assert!(!cut.wait().unwrap().success());
        // Changed by an editor meanwhile.
        let mut changed = script.start();
        shown(&mut changed, 6);
        fs::write(&keys, "edited\n").unwrap();
        changed.stdin.take().unwrap().write_all(b"write 4\nold\n").unwrap();
        let mut said = String::new();
        changed.stdout.as_mut().unwrap().read_to_string(&mut said).unwrap();
        assert!(said.starts_with("failed=changed\n"), "{said}");
        changed.wait().unwrap();
        assert_eq!(fs::read(&keys).unwrap(), b"edited\n");
        assert_eq!(fs::read_dir(script.folder()).unwrap().count(), 1);
    }
}

/// A command line must be constant; this one is only read.
#[test]
fn the_scripts_fit_into_a_command_line() {
    let ids = vec!["a".repeat(32); 500];
    RemoteCommand::script(include_str!("../../src/fleet/grants/scripts/end.sh"), ids).unwrap();
}
