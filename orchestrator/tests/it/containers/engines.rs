//! Engines beside root's Docker: Podman's service, and a Docker that a user runs without root. The
//! same life of a container through each, and the ways in which their sockets are found.

use rustix::process::Signal;

use super::engine::{Engine, GpuHook, IMAGE, Kind, mebibyte};
use super::refusals::entry_of;
use super::site::{HOST, at};
use crate::cli::operator::{Operator, eventually};
use crate::deploy::host::Host;
use crate::sshd::{User, need};

/// Everything that a container does, and then that nothing of it is left.
async fn lives(operator: &Operator, engine: &Engine) {
    let run = |options: &[&'static str], script: &'static str| {
        let before = ["run", HOST, "--image", IMAGE, "--network", "none"];
        let all = before.into_iter().chain(options.iter().copied());
        operator.start(all.chain(["--", "sh", "-c", script]))
    };
    let ran = run(&["--rm"], "echo out; echo err >&2; exit 7").end().await.expect(7);
    assert_eq!(ran.stdout, "out\n", "{ran:?}");
    assert!(ran.stderr.contains("err\n"), "{ran:?}");
    let ran = run(&["--rm"], "grep -E 'NoNewPrivs|CapEff' /proc/self/status").end().await.expect(0);
    assert!(ran.stdout.contains("NoNewPrivs:\t1"), "{ran:?}");
    assert!(ran.stdout.contains("CapEff:\t00000000000004fb"), "{ran:?}");
    let ran = run(&["--rm"], "cat /mebibyte").end().await.expect(0);
    assert!(ran.stdout == mebibyte(), "{} bytes", ran.stdout.len());

    let script = "echo up; trap 'exit 0' TERM; while :; do sleep 0.05; done";
    run(&["--detach", "--name", "svc"], script).end().await.expect(0);
    eventually("it writes", || engine.logged("svc").contains("up")).await;
    let rows = operator.run(["ps", "--json"]).await.expect(0).json_lines().remove(0);
    let row = &rows[0]["container"];
    assert_eq!((&row["name"], &row["leased"]), (&"svc".into(), &true.into()), "{rows}");
    let logs = operator.run(["logs", &at("svc")]).await.expect(0);
    assert_eq!(logs.stdout, "up\n", "{logs:?}");
    let found = operator.run(["inspect", "--json", &at("svc")]).await.expect(0).json_lines();
    assert_eq!(found[0]["State"]["Running"], true);
    operator.run(["stop", &at("svc")]).await.expect(0);
    operator.run(["rm", &at("svc")]).await.expect(0);
    assert_eq!(engine.inspect("svc"), None);

    // Ctrl-C, and the death of the orchestrator.
    let script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done";
    for (signal, code) in [(Signal::INT, Some(130)), (Signal::KILL, None)] {
        let running = run(&["--rm", "--name", "held"], script);
        eventually("it is up", || running.written().0.contains("up")).await;
        running.signal(signal);
        let ended = running.end().await;
        assert_eq!(ended.code, code, "{ended:?}");
        eventually("it is gone", || engine.inspect("held").is_none()).await;
    }
    operator.run(["ps"]).await.expect(0);
    let store = orchestrator::store::Store::open(&operator.database()).await.unwrap();
    assert_eq!(store.live_leases(None).await.unwrap(), []);
    store.close().await;
}

#[tokio::test]
async fn podman_s_service_runs_containers_like_docker() {
    let engine = Engine::start_a(Kind::Podman, GpuHook::None);
    // Found below the runtime directory of the login user; there is no docker.sock.
    let runtime = engine.socket().ancestors().nth(2).unwrap().display();
    let nowhere = engine.socket().with_file_name("absent.sock");
    let host = Host::with_docker(&nowhere, &[], &format!("XDG_RUNTIME_DIR={runtime}"));
    let operator = Operator::new();
    operator.fleet(&[host.pinned(HOST)]);
    operator.deploy([]).await.expect(0);
    lives(&operator, &engine).await;
    let facts = operator.run(["hosts", "show", HOST]).await.expect(0);
    assert!(facts.stdout.contains("podman"), "{facts:?}");
}

#[tokio::test]
async fn a_docker_without_root_belongs_to_the_login_user() {
    let user = User::add(&need("/bin/dash", "dash"));
    let engine = Engine::start_a(Kind::RootlessDocker(&user), GpuHook::None);
    let runtime = engine.socket().parent().unwrap().display();
    let nowhere = engine.socket().with_file_name("absent.sock");
    let host = Host::with_docker(&nowhere, &[], &format!("XDG_RUNTIME_DIR={runtime}"));
    let operator = Operator::new();
    operator.fleet(&[entry_of(&host, &user)]);
    operator.deploy([]).await.expect(0);
    lives(&operator, &engine).await;
    // Without control groups of version 2 it takes limits and holds none.
    let limited = ["run", HOST, "--image", IMAGE, "--network", "none", "--memory", "32M", "--rm"];
    let ran = operator.run(limited.into_iter().chain(["--", "echo", "held"])).await;
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        assert_eq!(ran.expect(0).stdout, "held\n");
    } else {
        let ran = ran.expect(125);
        assert!(ran.stderr.contains("holds no limit of memory"), "{ran:?}");
    }
}
