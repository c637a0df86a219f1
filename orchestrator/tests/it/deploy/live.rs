//! What a deploy shows while it runs: rows and a bar on a terminal, plain lines elsewhere.

use std::net::SocketAddr;

use rustix::process::Signal;

use super::host::Host;
use crate::chaos::{ChaosProxy, Cut, Flow, Plan};
use crate::cli::operator::{Operator, eventually};
use crate::cli::terminal::Terminal;
use crate::sshd::free_port;

#[tokio::test]
async fn a_terminal_shows_rows_and_a_bar_and_ends_with_the_table() {
    let (good, slow, operator) = (Host::start(), Host::start(), Operator::new());
    // Some of the upload arrives, and then nothing: the view stays as it is.
    let flow = Flow { cut: Some((300_000, Cut::Freeze)), ..Flow::default() };
    let server = SocketAddr::from(([127, 0, 0, 1], slow.sshd.port));
    let proxy = ChaosProxy::start(server, [Plan::to_server(flow)]).await;
    let dead = good.entry("gpu-03", free_port(), "");
    let slow = slow.pinned_through("gpu-02", proxy.address().port());
    operator.fleet(&[good.pinned("gpu-01"), slow, dead]);

    let (terminal, running) = Terminal::start(operator.command(["deploy"]));
    eventually("one row is left", || {
        let shown = terminal.shown();
        shown.contains("2/3 hosts") && shown.contains("waiting on gpu-02")
    })
    .await;
    let during = terminal.shown();
    assert!(during.contains("uploading") && during.contains('%'), "{during}");
    // A failure is told at once, above the bars; successes are not.
    assert!(during.contains("gpu-03") && during.contains("[tcp]"), "{during}");
    assert!(!during.contains("OUTCOME"), "{during}");

    running.signal(Signal::INT);
    running.end().await.expect(130);
    eventually("the summary", || terminal.shown().contains("2 failed")).await;
    let after = terminal.shown().split_off(during.len());
    let table = &after[after.find("OUTCOME").unwrap_or_else(|| panic!("{after}"))..];
    for words in ["gpu-01", "gpu-02", "cancelled", "gpu-03", "3 hosts"] {
        assert!(table.contains(words), "{words}: {table}");
    }
    assert!(!table.contains("waiting on"), "{table}");
}

#[tokio::test]
async fn elsewhere_one_plain_line_for_each_host_that_ends() {
    let (good, operator) = (Host::start(), Operator::new());
    operator.fleet(&[good.pinned("gpu-01"), good.entry("gpu-02", free_port(), "")]);
    let finished = operator.run(["deploy"]).await.expect(3);
    let lines: Vec<&str> = finished.stderr.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(lines.len(), 2, "{finished:?}");
    assert!(lines.iter().any(|line| line.contains("/2] gpu-01 ok runner uploaded")), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("/2] gpu-02 failed [tcp]")), "{lines:?}");
    assert!(!finished.stderr.contains('\x1b') && !finished.stdout.contains('\x1b'));

    let quiet = operator.run(["deploy", "--quiet"]).await.expect(3);
    assert!(!quiet.stderr.contains("/2]"), "{quiet:?}");
    assert!(quiet.stdout.contains("gpu-02"), "{quiet:?}");
}

#[tokio::test]
async fn colours_are_for_terminals_and_for_those_who_ask() {
    let (host, operator) = (Host::start(), Operator::new());
    operator.fleet(&[host.entry("gpu-01", free_port(), "")]);
    let red = "\x1b[31m";

    let always = operator.run(["deploy", "--color", "always"]).await.expect(3);
    assert!(always.stderr.contains(red), "{always:?}");
    let mut command = operator.command(["deploy", "--color", "always"]);
    command.env("NO_COLOR", "1");
    let asked = crate::cli::operator::Running::start(command).end().await.expect(3);
    assert!(asked.stderr.contains(red), "an option is a stronger wish than the environment");

    let on_terminal = async |arguments: &[&str], no_color: &str| {
        let mut command = operator.command(arguments.iter().copied());
        command.env("NO_COLOR", no_color);
        let (terminal, running) = Terminal::start(command);
        running.end().await.expect(3);
        eventually("the summary", || terminal.shown().contains("1 failed")).await;
        terminal.shown()
    };
    assert!(on_terminal(&["deploy"], "").await.contains(red));
    let plain = on_terminal(&["deploy"], "1").await;
    assert!(!plain.contains(red) && plain.contains("/1] gpu-01 failed"), "{plain}");
    assert!(!on_terminal(&["deploy", "--color", "never"], "").await.contains(red));
}
