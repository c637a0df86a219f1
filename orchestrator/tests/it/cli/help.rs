//! `--help` of every verb.

use super::operator::{Operator, Running};

/// The help of a verb and of every verb below it, as the help itself lists them.
async fn walk(operator: &Operator, verbs: Vec<String>, all: &mut String) {
    let arguments = verbs.iter().map(String::as_str).chain(["--help"]);
    let mut command = operator.command(arguments);
    // The help shows the values of variables.
    command.env_remove("ORCHESTRATOR_RUNNER");
    let help = Running::start(command).end().await.expect(0);
    assert_eq!(help.stderr, "");
    let shown: Vec<&str> =
        std::iter::once("orchestrator").chain(verbs.iter().map(String::as_str)).collect();
    *all += &format!("$ {} --help\n{}\n", shown.join(" "), help.stdout);
    let below = help.stdout.split("Commands:\n").nth(1).unwrap_or_default();
    let names = below.lines().take_while(|line| line.starts_with("  "));
    // A name has two spaces before it; the lines that continue a text have more.
    let names = names.filter(|line| !line.starts_with("   "));
    for name in names.filter_map(|line| line.split_whitespace().next()) {
        if name != "help" {
            let verbs = verbs.iter().cloned().chain([name.to_owned()]).collect();
            Box::pin(walk(operator, verbs, all)).await;
        }
    }
}

#[tokio::test]
async fn every_verb_explains_itself() {
    let mut all = String::new();
    walk(&Operator::new(), Vec::new(), &mut all).await;
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn wrong_command_lines_are_usage_errors() {
    let operator = Operator::new();
    for arguments in [
        &["deply"][..],
        &["deploy", "--parallel", "0"],
        &["deploy", "extra"],
        &["--quiet", "--verbose", "audit", "verify"],
        &[],
    ] {
        let refused = operator.run(arguments.iter().copied()).await.expect(2);
        assert_eq!(refused.stdout, "");
        assert!(refused.stderr.contains("--help"), "{refused:?}");
    }
}

#[tokio::test]
async fn completions_name_every_verb() {
    let operator = Operator::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = operator.run(["completions", shell]).await.expect(0);
        for verb in ["deploy", "hosts", "audit", "demo", "purge"] {
            assert!(script.stdout.contains(verb), "{shell}: {verb}");
        }
    }
}
