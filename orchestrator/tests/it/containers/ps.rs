//! `ps` and the ways to an engine.

use super::Place;
use super::engine::{Engine, IMAGE};
use crate::cli::operator::Operator;
use crate::deploy::host::Host;

#[tokio::test]
async fn where_sshd_forbids_sockets_the_runner_connects() {
    for option in ["AllowStreamLocalForwarding no", "DisableForwarding yes"] {
        let place = Place::with(&[option], "").await;
        let script = "echo out; echo err >&2; exit 4";
        let ran = place.run(&["--rm", "--", "sh", "-c", script]).await.expect(4);
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
        let said = place.operator.run(["-v", "ps"]).await.expect(0);
        assert!(said.stderr.contains("going through the runner"), "{said:?}");
        place.assert_nothing_left().await;
    }
}

#[tokio::test]
async fn an_engine_that_is_elsewhere_is_named_in_the_fleet_file() {
    let socket = Engine::shared().socket();
    let nowhere = socket.with_file_name("absent.sock");
    let host = Host::with_docker(&nowhere, &[], "");
    let operator = Operator::new();
    operator.fleet(&[host.pinned("gpu-01")]);
    operator.deploy(["--hosts", "fleet.toml"]).await.expect(0);
    let run = ["run", "gpu-01", "--rm", "--image", IMAGE, "--", "echo", "found"];
    let none = operator.run(run).await.expect(125);
    assert!(none.stderr.contains("no container engine listens on"), "{none:?}");
    assert!(none.stderr.contains("docker_socket"), "{none:?}");
    // A host without an engine has no containers, and that is no failure.
    operator.run(["ps"]).await.expect(0);

    let more = format!(
        "host_key = \"{}\"\ndocker_socket = \"{}\"\ncontainers = {{ memory = \"32M\", timeout = \"1h\" }}",
        host.fingerprint(),
        socket.display()
    );
    operator.fleet(&[host.entry("gpu-01", host.sshd.port, &more)]);
    operator.deploy(["--hosts", "fleet.toml"]).await.expect(0);
    assert_eq!(operator.run(run).await.expect(0).stdout, "found\n");
    let over = ["run", "gpu-01", "--image", IMAGE, "--memory", "33M", "--", "true"];
    let refused = operator.run(over).await.expect(125);
    assert!(refused.stderr.contains("--memory of 34603008 is more than"), "{refused:?}");
}

#[tokio::test]
async fn a_dead_host_is_a_row_and_the_others_are_listed() {
    let place = Place::deployed().await;
    let dead = Host::start();
    place.operator.fleet(&[place.host.pinned("gpu-01"), dead.pinned("gpu-02")]);
    place.operator.deploy(["--hosts", "fleet.toml"]).await.expect(0);
    place.run(&["--detach", "--", "sleep", "100000"]).await.expect(0);
    drop(dead);
    let listed = place.operator.run(["ps", "--json"]).await.expect(3).json_lines().remove(0);
    assert_eq!(listed[0]["container"]["host"], "gpu-01", "{listed}");
    assert_eq!((&listed[1]["host"], &listed[1]["reason"]), (&"gpu-02".into(), &"tcp".into()));
    let table = place.operator.run(["ps"]).await.expect(3).stdout;
    assert!(table.contains("gpu-02") && table.contains("[tcp]"), "{table}");
}

#[tokio::test]
async fn what_outlived_its_deadline_is_stopped_by_the_next_contact() {
    let place = Place::deployed().await;
    // Nothing on the host knows of the deadline but the label.
    place.run(&["--detach", "--gpus", "1", "--timeout", "1s", "--", "sleep", "100000"]).await.expect(0);
    let container = place.ours().pop().unwrap();
    let listed = loop {
        let listed = place.operator.run(["ps", "--all", "--json"]).await.expect(0);
        let listed = listed.json_lines().remove(0);
        if listed[0]["container"]["state"] == "exited" {
            break listed;
        }
    };
    assert_eq!(listed[0]["container"]["leased"], false);
    assert_eq!(Engine::shared().inspect(&container).unwrap()["State"]["Running"], false);
    assert!(place.operator.audit().await.contains(&"container.expired".to_owned()));
    // Its GPU is free again.
    place.run(&["--rm", "--gpus", "2", "--", "true"]).await.expect(0);
}

#[tokio::test]
async fn a_user_outside_the_group_is_told_which_group() {
    let user = crate::sshd::User::add(&crate::sshd::need("/bin/dash", "dash"));
    let place = Place::deployed().await;
    let entry = place.host.pinned("gpu-03").replace(
        &format!("user = \"{}\"", crate::sshd::current_user()),
        &format!("user = \"{}\"\nwork_dir = \"{}/w\"", user.name, user.home.path().display()),
    );
    crate::sshd::succeed(
        std::process::Command::new("chown").arg(&user.name).arg(user.home.path()),
    );
    place.operator.fleet(&[entry]);
    place.operator.deploy(["--hosts", "fleet.toml"]).await.expect(0);
    let refused = place
        .operator
        .run(["run", "gpu-03", "--image", IMAGE, "--", "true"])
        .await
        .expect(125);
    assert!(refused.stderr.contains("may not use /var/run/docker.sock"), "{refused:?}");
    assert!(refused.stderr.contains("usermod --append --groups docker"), "{refused:?}");
}
