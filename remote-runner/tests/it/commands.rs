//! What the binary does outside of a session.

use std::fs;
use std::io::Read;
use std::process::Stdio;

use sha2::{Digest, Sha256};

use crate::harness::{self, BINARY, Runner};

/// The hash as another program would compute it.
fn sha256_of_the_binary() -> String {
    let hash = Sha256::digest(fs::read(BINARY).unwrap());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn output(arguments: &[&str]) -> (i32, String, String) {
    let output = harness::command(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn self_check_prints_the_hash_of_the_file() {
    let expected = (0, format!("{}\n", sha256_of_the_binary()), String::new());
    assert_eq!(output(&["--self-check"]), expected);
}

#[test]
fn hello_carries_the_same_hash() {
    let runner = Runner::start(&mut harness::command(&[]));
    assert_eq!(runner.hello.build, sha256_of_the_binary());
    runner.end();
}

#[test]
fn version_and_help() {
    let version = format!("remote-runner {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(output(&["--version"]), (0, version, String::new()));
    let (status, help, log) = output(&["--help"]);
    assert_eq!((status, log.as_str()), (0, ""));
    assert!(help.starts_with("remote-runner: runs on a GPU host"));
}

#[test]
fn an_unknown_argument_is_a_usage_error_that_does_not_repeat_it() {
    let (status, stdout, log) = output(&["--token=secret"]);
    assert_eq!((status, stdout.as_str()), (2, ""));
    let line: serde_json::Value = serde_json::from_str(&log).unwrap();
    assert_eq!(line["detail"], "argument 1 is not known");
    assert!(!log.contains("secret"));
}

#[test]
fn a_probe_without_its_parent_does_nothing() {
    let (status, stdout, _) = output(&["--probe-for", "1"]);
    assert_eq!((status, stdout.as_str()), (16, ""));
}

#[test]
fn at_a_terminal_it_says_what_it_is() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap();
    let terminal = fs::File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let mut child = harness::command(&[]).stdin(terminal).spawn().unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2));
    assert!(text.starts_with("This is the remote-runner of a GPU orchestrator."), "{text}");
}
