//! `run`: what comes back, what is passed on, and what is left.

use rustix::process::Signal;
use serde_json::Value;

use super::engine::{Engine, IMAGE};
use super::{Place, fake_gpus, labels_of};
use crate::cli::operator::eventually;

#[tokio::test]
async fn streams_stay_apart_and_the_exit_code_is_the_container_s() {
    let place = Place::deployed().await;
    let script = "echo out; echo err >&2; exit 7";
    let ran = place.run(&["--rm", "--", "sh", "-c", script]).await.expect(7);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
    place.assert_nothing_left().await;
    let kinds = place.operator.audit().await;
    let ours: Vec<&str> = kinds
        .iter()
        .map(String::as_str)
        .filter(|kind| kind.starts_with("container.") || kind.starts_with("lease."))
        .collect();
    assert_eq!(ours, ["lease.taken", "container.started", "container.ended", "lease.released"]);
}

#[tokio::test]
async fn a_container_gets_what_was_asked_for_and_no_more() {
    let place = Place::deployed().await;
    let script = "echo $A $B; id -u; pwd; cat /proc/self/status | grep -E 'NoNewPrivs|CapBnd'; \
                  touch /x || echo read-only; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max \
                  2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max";
    place.operator.write("vars", "# comment\nB=two words\n");
    let arguments = [
        "--rm",
        "--env",
        "A=one=1",
        "--env-file",
        "vars",
        "--user",
        "1000:1000",
        "--workdir",
        "/tmp",
        "--read-only",
        "--memory",
        "64M",
        "--pids",
        "50",
        "--cpus",
        "0.5",
        "--network",
        "none",
        "--",
        "sh",
        "-c",
        script,
    ];
    let ran = place.run(&arguments).await.expect(0);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(&lines[..3], ["one=1 two words", "1000", "/tmp"], "{ran:?}");
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, NET_BIND_SERVICE.
    assert!(ran.stdout.contains("CapBnd:\t00000000000004fb"), "{ran:?}");
    assert!(ran.stdout.contains("NoNewPrivs:\t1"), "{ran:?}");
    assert_eq!(&lines[lines.len() - 3..], ["read-only", "67108864", "50"], "{ran:?}");
}

#[tokio::test]
async fn detached_it_runs_on_until_it_is_stopped_and_removed() {
    let place = Place::deployed().await;
    let ran = place.run(&["--detach", "--name", &place.name("svc"), "--", "sleep", "100000"]).await;
    let id = ran.expect(0).stdout.trim().to_owned();
    let container = place.ours().pop().unwrap();
    assert_eq!(labels_of(&container, "orchestrator.lease"), id);
    assert_eq!(Engine::shared().inspect(&container).unwrap()["State"]["Running"], true);

    let rows = place.operator.run(["ps", "--json"]).await.expect(0).json_lines().remove(0);
    assert_eq!(rows[0]["container"]["id"], id.as_str(), "{rows}");
    assert_eq!(rows[0]["container"]["leased"], true, "{rows}");
    // By our own id, by name, and by the engine's.
    let inspected = place.operator.run(["inspect", "--json", &id[..10]]).await.expect(0);
    assert_eq!(inspected.json_lines()[0]["Id"], container.as_str());
    let named = format!("gpu-01/{}", place.name("svc"));
    let refused = place.operator.run(["rm", &named]).await.expect(5);
    assert!(refused.stderr.contains("running"), "{refused:?}");
    place.operator.run(["stop", "--grace", "0s", &named]).await.expect(0);
    let leases = place.operator.run(["ps", "--all", "--json"]).await.expect(0).json_lines();
    assert_eq!(leases[0][0]["container"]["leased"], false);
    assert_eq!(leases[0][0]["container"]["state"], "exited");
    place.operator.run(["rm", &format!("gpu-01/{}", &container[..12])]).await.expect(0);
    place.assert_nothing_left().await;
    let gone = place.operator.run(["stop", &id]).await.expect(1);
    assert!(gone.stderr.contains("there is no container"), "{gone:?}");
}

#[tokio::test]
async fn ctrl_c_sends_term_and_the_container_may_answer() {
    let place = Place::deployed().await;
    let script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done";
    let running = place.start(&["--rm", "--", "sh", "-c", script]);
    eventually("it is up", || running.written().0.contains("up")).await;
    running.signal(Signal::INT);
    let ended = running.end().await.expect(130);
    assert_eq!(ended.stdout, "up\nbye\n", "{ended:?}");
    place.assert_nothing_left().await;
    assert!(place.operator.audit().await.contains(&"container.stopping".to_owned()));
}

#[tokio::test]
async fn a_container_whose_time_is_over_is_stopped() {
    let place = Place::deployed().await;
    let over = ["--rm", "--timeout", "1s", "--grace", "0s", "--", "sleep", "100000"];
    let ended = place.run(&over).await.expect(124);
    assert!(ended.stderr.contains("its time is over"), "{ended:?}");
    place.assert_nothing_left().await;
}

#[tokio::test]
async fn a_killed_orchestrator_s_container_ends_and_the_next_contact_frees_its_lease() {
    let place = Place::deployed().await;
    let running = place.start(&["--rm", "--gpus", "1", "--", "sh", "-c", "echo up; sleep 100000"]);
    eventually("it is up", || running.written().0.contains("up")).await;
    let container = place.ours().pop().unwrap();
    running.signal(Signal::KILL);
    running.end().await;
    // The runner's session has ended, and the runner stops and removes it.
    eventually("it is gone", || Engine::shared().inspect(&container).is_none()).await;
    place.operator.run(["ps"]).await.expect(0);
    place.assert_nothing_left().await;
}

#[tokio::test]
async fn gpus_are_given_by_uuid_and_to_one_at_a_time() {
    let place = Place::deployed().await;
    let [first, second] = fake_gpus();
    let show = ["--", "sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES"];
    let holder = ["--detach", "--gpu", first, "--", "sleep", "100000"];
    place.run(&holder).await.expect(0);
    let ran = place.run(&[&["--rm", "--gpus", "1"][..], &show].concat()).await.expect(0);
    assert_eq!(ran.stdout.trim(), second);
    let refused = place.run(&[&["--rm", "--gpu", first][..], &show].concat()).await.expect(125);
    assert!(refused.stderr.contains(&format!("{first} is held by")), "{refused:?}");
    let refused = place.run(&[&["--rm", "--gpus", "2"][..], &show].concat()).await.expect(125);
    assert!(refused.stderr.contains("1 of 2 are free"), "{refused:?}");
    let refused = place.run(&[&["--rm", "--gpus", "3"][..], &show].concat()).await.expect(125);
    assert!(refused.stderr.contains("gpu-01 has 2 GPUs"), "{refused:?}");
    let wanted = ["run", "--json", "--any", "--image", IMAGE, "--gpus", "2", "--", "true"];
    let any = place.operator.run(wanted).await.expect(125).json_lines().remove(0);
    assert_eq!(any["reason"], "no_host_fits", "{any}");
    assert!(any["causes"][0].as_str().unwrap().contains("gpu-01: 1 of 2 GPUs are free"), "{any}");
    let one = ["run", "--any", "--rm", "--image", IMAGE, "--gpus", "1", "--", "echo", "chosen"];
    assert_eq!(place.operator.run(one).await.expect(0).stdout, "chosen\n");
}

#[tokio::test]
async fn what_would_give_the_host_away_is_refused_before_anything_is_sent() {
    let place = Place::deployed().await;
    for (option, value, words) in [
        ("--mount", "/var/run/docker.sock:/s", "owns the host"),
        ("--mount", "/:/host", "the whole host"),
        ("--mount", "/etc:/e:ro", "accounts and keys"),
    ] {
        let refused = place.run(&[option, value, "--", "true"]).await.expect(125);
        assert!(refused.stderr.contains(words), "{refused:?}");
    }
    let refused = place.run(&["--privileged", "--", "true"]).await.expect(125);
    assert!(refused.stderr.contains("allow_privileged"), "{refused:?}");
    place.operator.write("auth", "user:password");
    let refused = place.run(&["--registry-auth-file", "auth", "--", "true"]).await.expect(125);
    assert!(refused.stderr.contains("others may read") && refused.stderr.contains("chmod 600"));
    assert!(!refused.stderr.contains("password"), "{refused:?}");
    place.assert_nothing_left().await;
}

#[tokio::test]
async fn what_the_engine_refuses_is_told_and_nothing_is_left() {
    let place = Place::deployed().await;
    let missing = ["run", "gpu-01", "--image", "orch-it/absent:1", "--pull", "never", "--", "true"];
    let refused = place.operator.run(missing).await.expect(125);
    assert!(
        refused.stderr.contains("the image orch-it/absent:1 is not on the host"),
        "{refused:?}"
    );
    let refused = place.run(&["--rm", "--", "/no/such/program"]).await.expect(125);
    assert!(refused.stderr.contains("cannot start the container"), "{refused:?}");
    place.assert_nothing_left().await;
}

#[tokio::test]
async fn logs_are_read_whole_and_in_part() {
    let place = Place::deployed().await;
    let name = place.name("logs");
    let script = "echo one; echo two >&2; echo three";
    let ran = place.run(&["--name", &name, "--", "sh", "-c", script]).await.expect(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("one\nthree\n", "two\n"));
    let address = format!("gpu-01/{name}");
    let logs = place.operator.run(["logs", "--follow", &address]).await.expect(0);
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("one\nthree\n", "two\n"));
    let last = place.operator.run(["logs", "--tail", "1", &address]).await.expect(0);
    // The engine reads the two streams apart: either line may be the last that it has noted.
    let last = (last.stdout.as_str(), last.stderr.as_str());
    assert!(matches!(last, ("three\n", "") | ("", "two\n")), "{last:?}");
    let later = place.operator.run(["logs", "--since", "2100-01-01T00:00:00Z", &address]).await;
    assert_eq!(later.expect(0).stdout, "");
    let json = place.operator.run(["logs", "--json", "--tail", "1", &address]).await.expect(0);
    let line: &Value = &json.json_lines()[0];
    let line = (line["stream"].as_str().unwrap(), line["base64"].as_str().unwrap());
    assert!(matches!(line, ("stdout", "dGhyZWUK") | ("stderr", "dHdvCg==")), "{line:?}");
    place.operator.run(["rm", &address]).await.expect(0);
    place.assert_nothing_left().await;
}
