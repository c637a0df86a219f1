//! Hosts, Engines and registries that say no: what is said to the operator, and what is not.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::engine::{Engine, IMAGE};
use super::registry::Registry;
use super::site::{HOST, Site, at, name};
use crate::cli::operator::{Finished, Operator};
use crate::deploy::host::Host;
use crate::sshd::{User, need};

#[track_caller]
fn refused(finished: Finished, words: &[&str]) -> Finished {
    assert!(![Some(0), Some(70), None].contains(&finished.code), "{finished:?}");
    assert!(!finished.stderr.contains("panicked"), "{finished:?}");
    for word in words {
        assert!(finished.stderr.contains(word), "{word}: {finished:?}");
    }
    finished
}

#[tokio::test]
async fn an_sshd_that_forbids_socket_forwarding_is_no_obstacle() {
    for option in ["AllowStreamLocalForwarding no", "DisableForwarding yes"] {
        let site = Site::with(&[option], "").await;
        let name = name("unforwarded");
        let print = ["sh", "-c", "echo out; echo err >&2; exit 3"];
        let ran = site.run(&["--name", &name], &print).await.expect(3);
        assert_eq!(ran.stdout, "out\n");
        assert!(ran.stderr.contains("err\n"), "{ran:?}");
        let logs = site.operator.run(["logs", &at(&name)]).await.expect(0);
        assert_eq!(logs.stdout, "out\n");
        site.operator.run(["rm", &at(&name)]).await.expect(0);
    }
}

/// Gives a host's home to a user, and an entry of the fleet file for logins as that user.
pub fn entry_of(host: &Host, user: &User) -> String {
    let id = crate::sshd::succeed(std::process::Command::new("id").args(["-u", &user.name]));
    let uid: u32 = String::from_utf8(id.stdout).unwrap().trim().parse().unwrap();
    std::os::unix::fs::chown(&host.home, Some(uid), None).unwrap();
    let of_root = format!("user = \"{}\"", crate::sshd::current_user());
    host.pinned(HOST).replace(&of_root, &format!("user = \"{}\"", user.name))
}

#[tokio::test]
async fn a_user_who_may_not_use_docker_is_told_which_group_may() {
    let engine = Engine::shared();
    let (host, operator) = (Host::with_docker(engine.socket(), &[], ""), Operator::new());
    let user = User::add(&need("/bin/dash", "dash"));
    operator.fleet(&[entry_of(&host, &user)]);
    operator.deploy([]).await.expect(0);
    let arguments = Site::arguments(&["--rm"], &["true"]);
    refused(operator.run(arguments).await, &["docker.sock", "group", "docker", &user.name]);
}

#[tokio::test]
async fn a_user_of_the_group_needs_no_root() {
    let engine = Engine::shared();
    let (host, operator) = (Host::with_docker(engine.socket(), &[], ""), Operator::new());
    let user = User::add(&need("/bin/dash", "dash"));
    user.join("docker");
    operator.fleet(&[entry_of(&host, &user)]);
    operator.deploy([]).await.expect(0);
    let arguments = Site::arguments(&["--rm"], &["echo", "hello"]);
    assert_eq!(operator.run(arguments).await.expect(0).stdout, "hello\n");
}

async fn without_engine(socket: &Path) -> Finished {
    let (host, operator) = (Host::with_docker(socket, &[], ""), Operator::new());
    operator.fleet(&[host.pinned(HOST)]);
    operator.deploy([]).await.expect(0);
    operator.run(Site::arguments(&["--rm"], &["true"])).await
}

#[tokio::test]
async fn a_host_without_an_engine_or_with_one_that_does_not_run_is_said() {
    let dir = crate::sshd::open_dir();
    let missing = dir.path().join("missing.sock");
    refused(without_engine(&missing).await, &["docker.sock"]);
    let dead = dir.path().join("dead.sock");
    drop(UnixListener::bind(&dead).unwrap());
    assert!(dead.exists(), "nobody listens, and the socket is there, as after a crash");
    refused(without_engine(&dead).await, &["docker.sock"]);
}

#[tokio::test]
async fn an_engine_that_dies_during_a_run_is_said_and_the_lease_outlives_no_container() {
    let engine = Engine::start(super::engine::GpuHook::FakeThatDoesNothing);
    let library = crate::deploy::host::fake_nvml().display();
    let environment = format!("LD_LIBRARY_PATH={library} FAKE_NVML=honest");
    let (host, operator) = (Host::with_docker(engine.socket(), &[], &environment), Operator::new());
    operator.fleet(&[host.pinned(HOST)]);
    operator.deploy([]).await.expect(0);
    let script = "echo ready; while :; do sleep 0.05; done";
    let options = ["--name", "left-alone", "--gpus", "1"];
    let running = operator.start(Site::arguments(&options, &["sh", "-c", script]));
    crate::cli::operator::eventually("it prints", || running.written_bytes() > 0).await;
    engine.kill().await;
    refused(running.end().await, &[]);
    operator.audit().await;
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_said() {
    let site = Site::new().await;
    let closed = site.engine.listen().local_addr().unwrap();
    let image = format!("{closed}/nothing/here:1");
    let run = ["run", HOST, "--image", &image, "--pull", "always", "--rm", "--", "true"];
    refused(site.operator.run(run).await, &[&closed.to_string(), "refused"]);
}

#[tokio::test]
async fn credentials_reach_the_registry_and_nothing_else() {
    const PASSWORD: &str = "correct-horse-battery-staple";
    let site = Site::new().await;
    let registry = Registry::start(site.engine, "robot", PASSWORD).await;
    let image = registry.image();
    let run = ["run", HOST, "--image", &image, "--pull", "always", "--rm", "--", "echo", "pulled"];
    let anonymous = site.operator.run(run).await;
    refused(anonymous, &[&image]);

    let file = site.operator.write("auth.json", &registry.docker_config());
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let file = file.to_str().unwrap();
    let loud = ["-vvv", "run", HOST, "--registry-auth-file", file].into_iter();
    let ran = site.operator.run(loud.chain(run.into_iter().skip(2))).await.expect(0);
    assert_eq!(ran.stdout, "pulled\n");
    assert!(registry.was_asked_by("robot", PASSWORD));

    fs::remove_file(file).unwrap();
    let secrets = registry.secrets();
    let said = [ran.stdout, ran.stderr, site.engine.log()].concat().into_bytes();
    let mut places = vec![("what was printed and logged".to_owned(), said)];
    for root in [site.operator.home(), site.operator.temporary(), site.host.home.clone()] {
        files(&root, &mut places);
    }
    assert!(places.len() > 3, "the database is among them");
    for (place, bytes) in places {
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is in {place}");
        }
    }
    site.engine.docker_says(["rmi", &image]);
    assert!(site.engine.docker(["image", "inspect", IMAGE]).status.success());
}

fn files(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push((path.display().to_string(), fs::read(&path).unwrap_or_default()));
        }
    }
}
