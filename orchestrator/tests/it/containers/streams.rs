//! What a container prints arrives: all of it, in order, on the right stream, in little memory.

use std::fmt::Write as _;

use futures_util::stream::{self, StreamExt as _};

use super::engine::mebibyte;
use super::site::{HOST, Site, at, name, peak_bytes};
use crate::cli::operator::{Running, eventually};
use crate::deploy::host::sha256;

/// What the orchestrator may need for a stream of any length: a bounded buffer, and what it is.
const MEMORY: u64 = 128 << 20;

/// A script that prints [`stream`] and waits for a file before it ends.
fn print(mebibytes: usize) -> String {
    format!(
        "i=0; while [ $i -lt {mebibytes} ]; do echo block $i; cat /mebibyte; i=$((i+1)); done; \
         while [ ! -e /tmp/go ]; do sleep 0.1; done"
    )
}

/// Numbered blocks of a mebibyte: a block that is lost, doubled or in another place shows.
fn stream(mebibytes: usize) -> String {
    let mut text = String::with_capacity((mebibytes + 1) << 20);
    let block = mebibyte();
    for number in 0..mebibytes {
        writeln!(text, "block {number}").unwrap();
        text.push_str(&block);
    }
    text
}

async fn arrives_whole(running: Running, site: &Site, name: &str, expected: &str) {
    let length = u64::try_from(expected.len()).unwrap();
    eventually("all of it has arrived", || running.written_bytes() >= length).await;
    let peak = peak_bytes(&running).unwrap();
    site.engine.docker_says(["exec", name, "touch", "/tmp/go"]);
    let finished = running.end().await.expect(0);
    assert_eq!(finished.stdout.len(), expected.len());
    // The texts are too long to be shown.
    assert_eq!(sha256(finished.stdout.as_bytes()), sha256(expected.as_bytes()));
    assert!(peak < MEMORY, "{} MiB for a stream", peak >> 20);
}

#[tokio::test]
async fn two_hundred_mebibytes_arrive_whole_in_bounded_memory() {
    let site = Site::new().await;
    let expected = stream(200);
    let name = name("long");
    let running = site.start(&["--name", &name], &["sh", "-c", &print(200)]);
    arrives_whole(running, &site, &name, &expected).await;
    // The same again from the Engine's log of it.
    let logs = site.operator.run(["logs", &at(&name)]).await.expect(0);
    assert_eq!(sha256(logs.stdout.as_bytes()), sha256(expected.as_bytes()));
}

#[tokio::test]
async fn followed_logs_arrive_whole_in_bounded_memory() {
    let site = Site::new().await;
    let name = name("followed");
    site.run(&["--name", &name, "--detach"], &["sh", "-c", &print(32)]).await.expect(0);
    let running = site.operator.start(["logs", "-f", &at(&name)]);
    arrives_whole(running, &site, &name, &stream(32)).await;
}

#[tokio::test]
async fn a_reader_that_pauses_loses_nothing() {
    use std::io::Read as _;
    use std::process::Stdio;

    let site = Site::new().await;
    let name = name("paused");
    // Far more than all the buffers on the way.
    let script = print(64);
    let options = ["--name", name.as_str()];
    let command = ["sh", "-c", script.as_str()];
    let arguments = Site::arguments(&options, &command);
    let mut command = site.operator.command(arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    // A little, then a whole exchange with the Engine, and again: meanwhile every buffer fills up.
    let mut bytes = Vec::new();
    for _ in 0..20 {
        let mut some = vec![0; 64 * 1024];
        let read = stdout.read(&mut some).unwrap();
        bytes.extend_from_slice(&some[..read]);
        site.engine.docker_says(["exec", &name, "true"]);
    }
    site.engine.docker_says(["exec", &name, "touch", "/tmp/go"]);
    let rest = tokio::task::spawn_blocking(move || {
        stdout.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let bytes = rest.await.unwrap();
    assert_eq!(sha256(&bytes), sha256(stream(64).as_bytes()));
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn both_streams_are_kept_apart_and_each_in_order() {
    let site = Site::new().await;
    let script = "i=0; while [ $i -lt 2000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done";
    let name = name("both");
    let ran = site.run(&["--name", &name], &["sh", "-c", script]).await.expect(0);
    let lines = |word: &str| -> String { (0..2000).map(|i| format!("{word} {i}\n")).collect() };
    assert_eq!(ran.stdout, lines("out"));
    assert!(ran.stderr.contains(&lines("err")), "{}", ran.stderr);
    let logs = site.operator.run(["logs", &at(&name)]).await.expect(0);
    assert_eq!(logs.stdout, lines("out"));
    assert!(logs.stderr.contains(&lines("err")), "{}", logs.stderr);
}

#[tokio::test]
async fn bytes_that_are_no_text_arrive_as_they_are() {
    let site = Site::new().await;
    let script = "i=0; while [ $i -lt 256 ]; do printf \"\\\\$(printf %03o $i)\"; i=$((i+1)); done";
    let output = site.operator.file("raw");
    let mut command = site.operator.command(Site::arguments(&["--rm"], &["sh", "-c", script]));
    let status = command.stdout(std::fs::File::create(&output).unwrap()).status().unwrap();
    assert!(status.success());
    let expected: Vec<u8> = (0..=255).collect();
    assert_eq!(std::fs::read(output).unwrap(), expected);
}

#[tokio::test]
async fn every_exit_code_is_that_of_the_container() {
    let site = Site::new().await;
    let run = async |code: i32| {
        let script = format!("exit {code}");
        site.run(&["--rm", "--network", "none"], &["sh", "-c", &script]).await.expect(code);
    };
    // Some at a time, as the machine has processors; each is a whole command.
    stream::iter(0..=255).map(run).buffer_unordered(4).collect::<()>().await;
}

#[tokio::test]
async fn a_command_that_is_not_there_is_said() {
    let site = Site::new().await;
    let ran = site.run(&["--rm"], &["no-such-program"]).await;
    assert_ne!(ran.code, Some(0));
    assert!(ran.stderr.contains("no-such-program"), "{ran:?}");
    let missing = site.operator.run([
        "run",
        HOST,
        "--image",
        "orch-it/none:1",
        "--pull",
        "never",
        "--rm",
        "--",
        "true",
    ]);
    let missing = missing.await;
    assert_ne!(missing.code, Some(0));
    assert!(missing.stderr.contains("orch-it/none:1"), "{missing:?}");
}
