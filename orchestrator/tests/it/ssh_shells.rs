//! Login shells: quoting through each of them, and what their rc files do.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use orchestrator::reason::Reason;
use orchestrator::ssh::connect;
use orchestrator::transport::{ExecRequest, ExitStatus, Failure, RemoteCommand, Transport};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::sshd::{Sshd, User, command, context, need, sh};

/// Every supported login shell: its name and its program.
fn shells(dir: &TempDir) -> Vec<(&'static str, PathBuf)> {
    // busybox takes its applet from its name, and sshd takes the name from the path.
    let busybox = dir.path().join("sh");
    if !busybox.exists() {
        symlink(need("/usr/bin/busybox", "busybox-static"), &busybox).unwrap();
    }
    vec![
        ("bash", need("/bin/bash", "bash")),
        ("dash", need("/bin/dash", "dash")),
        ("zsh", need("/usr/bin/zsh", "zsh")),
        ("fish", need("/usr/bin/fish", "fish")),
        ("busybox", busybox),
    ]
}

/// Prints its arguments, each ended by a NUL.
const PRINT: &str = "for word; do printf '%s\\000' \"$word\"; done";

fn printed(words: &[String]) -> Vec<u8> {
    words.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect()
}

/// Runs a line as sshd would: `shell -c line`.
fn run(shell: &Path, line: &str) -> Vec<u8> {
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(shell)
        .args(["-c", line])
        .env("HOME", home.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Words with everything that some shell gives a meaning.
fn word() -> impl Strategy<Value = String> {
    let meaningful = prop_oneof![
        Just("\\".to_owned()),
        Just("'".to_owned()),
        Just("\n".to_owned()),
        Just("$(id)".to_owned()),
        Just("!!".to_owned()),
        Just("%self".to_owned()),
        Just("=ls".to_owned()),
        Just("~root".to_owned()),
        Just("{a,b}".to_owned()),
        "[ -~]{1,3}",
        "\\PC{1,3}",
        "[^\0]{1,2}",
    ];
    proptest::collection::vec(meaningful, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_shell_reads_back_exactly_the_words(
        words in proptest::collection::vec(word(), 1..12),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let command = RemoteCommand::script(PRINT, words.clone()).unwrap();
        for (name, shell) in shells(&dir) {
            let read = run(&shell, &command.line());
            prop_assert_eq!(read, printed(&words), "{}: {}", name, command.line());
        }
    }
}

#[test]
fn every_ascii_character_survives_every_shell_in_every_position() {
    let dir = tempfile::tempdir().unwrap();
    let characters = (1_u8..128).map(char::from);
    let words: Vec<String> = characters
        .flat_map(|c| [c.to_string(), format!("{c}{c}"), format!("a{c}"), format!("{c}a'\\")])
        .collect();
    let command = RemoteCommand::script(PRINT, words.clone()).unwrap();
    for (name, shell) in shells(&dir) {
        assert_eq!(run(&shell, &command.line()), printed(&words), "{name}");
    }
}

fn server_for(user: &User) -> (Sshd, orchestrator::host_spec::Endpoint) {
    let server = Sshd::start(&[]);
    let mut endpoint = server.endpoint();
    endpoint.user = user.name.clone();
    (server, endpoint)
}

#[tokio::test]
async fn every_login_shell_runs_commands_whatever_its_rc_files_print() {
    let dir = crate::sshd::open_dir();
    for (name, shell) in shells(&dir) {
        let user = User::add(&shell);
        let noise = "echo noise; echo noise >&2; printf 'no newline'\n";
        for file in [".bashrc", ".zshenv", ".config/fish/config.fish"] {
            user.write(file, noise);
        }
        let (server, endpoint) = server_for(&user);
        let connection = connect(&endpoint, &[], &context(&[&server])).await.unwrap();
        let words = vec!["it's a \\ $word".to_owned(), String::new(), "*".to_owned()];
        let command = RemoteCommand::script(PRINT, words.clone()).unwrap();
        let output = connection.exec(ExecRequest::new(command)).await.unwrap();
        assert_eq!(output.stdout, printed(&words), "{name}");
        assert_eq!(output.stderr, b"", "{name}");
        let output = sh(&connection, "echo out; echo err >&2; id -un; exit 9").await;
        assert_eq!(output.stdout, format!("out\n{}\n", user.name).into_bytes(), "{name}");
        assert_eq!(output.stderr, b"err\n", "{name}");
        assert_eq!(output.status, ExitStatus::Code(9), "{name}");
        connection.close().await;
    }
}

#[tokio::test]
async fn rc_files_that_are_slow_are_waited_for_and_those_that_hang_are_not() {
    let user = User::add(&need("/bin/bash", "bash"));
    user.write(".bashrc", "sleep 0.4\n");
    let (server, endpoint) = server_for(&user);
    let connection = connect(&endpoint, &[], &context(&[&server])).await.unwrap();
    assert_eq!(sh(&connection, "echo after").await.stdout, b"after\n");

    // Hangs until its standard input ends, which is when the channel closes.
    user.write(".bashrc", "read never\n");
    let started = connection.spawn(command("true"), Duration::from_secs(1)).await;
    let error = started.err().unwrap();
    assert!(matches!(error.failure(), Failure::LoginTimeout(_)), "{error}");
    assert!(error.hint().unwrap().contains("rc files"));

    user.write(".bashrc", "exec cat /dev/zero\n");
    let error = connection.exec(ExecRequest::new(command("true"))).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::Noise(_)), "{error}");
    connection.close().await;
}

#[tokio::test]
async fn a_user_without_a_login_shell_is_told_so() {
    let user = User::add(&need("/usr/sbin/nologin", "login"));
    let (server, endpoint) = server_for(&user);
    let connection = connect(&endpoint, &[], &context(&[&server])).await.unwrap();
    let error = connection.exec(ExecRequest::new(command("true"))).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Exec);
    assert!(error.to_string().contains("This account is currently not available"), "{error}");
    assert!(error.hint().unwrap().contains("login shell"));
    connection.close().await;
}

#[test]
fn a_word_in_another_encoding_is_kept_as_utf8() {
    let dir = tempfile::tempdir().unwrap();
    let words = vec!["ünïcödé \u{1f980} \u{200b}\u{feff}".to_owned()];
    let command = RemoteCommand::script(PRINT, words.clone()).unwrap();
    for (name, shell) in shells(&dir) {
        assert_eq!(run(&shell, &command.line()), printed(&words), "{name}");
    }
    fs::remove_file(dir.path().join("sh")).unwrap();
}
