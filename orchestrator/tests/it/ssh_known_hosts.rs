//! Our reader of `known_hosts` against the one of OpenSSH, by `ssh-keygen -F`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use orchestrator::ssh::known_hosts::{Answer, KeyBlob, KnownHosts};
use proptest::prelude::*;

use crate::sshd::{keygen, need};

/// An Ed25519 key line with this number in its bytes; distinct keys tell lines apart.
fn key(number: usize) -> KeyBlob {
    let mut bytes = Vec::new();
    for field in [&b"ssh-ed25519"[..], &[number as u8; 32]] {
        bytes.extend_from_slice(&(field.len() as u32).to_be_bytes());
        bytes.extend_from_slice(field);
    }
    KeyBlob::from_bytes(bytes).unwrap()
}

/// What is found for a name: line and kind.
type Found = BTreeSet<(usize, &'static str)>;

fn by_openssh(file: &Path, name: &str) -> Found {
    let output = Command::new(need("/usr/bin/ssh-keygen", "openssh-client"))
        .args(["-F", name, "-f"])
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text.lines().filter(|line| line.starts_with("# Host"));
    found
        .map(|line| {
            let rest = line.split_once(" found: line ").unwrap().1;
            let number = rest.split_whitespace().next().unwrap().parse().unwrap();
            let kind = match rest {
                rest if rest.ends_with("CA") => "authority",
                rest if rest.ends_with("REVOKED") => "revoked",
                _ => "plain",
            };
            (number, kind)
        })
        .collect()
}

fn by_us(known: &KnownHosts, name: &str, lines: usize) -> Found {
    let mut found = Found::new();
    for line in 1..=lines {
        match known.check(name, &key(line)) {
            Answer::Known(at) => found.insert((at.line, "plain")),
            Answer::Revoked(at) => found.insert((at.line, "revoked")),
            _ => false,
        };
    }
    found.extend(known.authorities(name).iter().map(|at| (at.line, "authority")));
    found
}

fn compare(file: &Path, names: &[&str], lines: usize) -> Result<(), TestCaseError> {
    let known = KnownHosts::load([file]).unwrap();
    for name in names {
        let content = fs::read_to_string(file).unwrap();
        let (theirs, ours) = (by_openssh(file, name), by_us(&known, name, lines));
        prop_assert_eq!(theirs, ours, "{} in\n{}", name, content);
    }
    Ok(())
}

const NAMES: &[&str] = &["gpu", "gpu.lan", "[gpu]:22", "[gpu]:2222", "10.0.0.1", "fe80::1", "gp"];

fn host_pattern() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        4 => proptest::sample::select(NAMES).prop_map(str::to_owned),
        1 => "[GPgpu.*?!\\[\\]:0-9]{1,8}",
    ];
    let edit = prop_oneof![
        4 => Just(""),
        1 => Just("*"),
        1 => Just("?"),
        1 => Just("!"),
    ];
    (name, edit, any::<proptest::sample::Index>()).prop_map(|(mut name, edit, at)| {
        if edit == "!" {
            name.insert(0, '!');
        } else if !edit.is_empty() && name.is_ascii() {
            let at = at.index(name.len());
            name.replace_range(at..=at, edit);
        }
        name
    })
}

fn line() -> impl Strategy<Value = (&'static str, Vec<String>, &'static str)> {
    // OpenSSH wants a space after a marker; we take a tab as well.
    let marker = proptest::sample::select(&["", "", "", "@cert-authority ", "@revoked "][..]);
    let blank = proptest::sample::select(&[" ", "\t", " \t "][..]);
    (marker, proptest::collection::vec(host_pattern(), 1..4), blank)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_same_lines_are_found_for_the_same_names(
        lines in proptest::collection::vec(line(), 1..8),
        ends in proptest::sample::select(&["\n", "\r\n"][..]),
        hash in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("known_hosts");
        let mut content = String::new();
        for (index, (marker, hosts, blank)) in lines.iter().enumerate() {
            let key = key(index + 1).to_line().replace(' ', blank);
            content += &format!("{marker}{}{blank}{key} comment{ends}", hosts.join(","));
        }
        fs::write(&file, content).unwrap();
        if hash {
            // Hashes the plain names and leaves patterns; a line with several names is split,
            // so that each key may stand in several lines.
            keygen(&["-H", "-f", file.to_str().unwrap()]);
            let known = KnownHosts::load([&file]).unwrap();
            for name in NAMES {
                let theirs: BTreeSet<_> =
                    by_openssh(&file, name).into_iter().map(|(_, kind)| kind).collect();
                let ours: BTreeSet<_> =
                    by_us(&known, name, lines.len()).into_iter().map(|(_, kind)| kind).collect();
                prop_assert_eq!(theirs, ours, "{} in\n{}", name, fs::read_to_string(&file).unwrap());
            }
        } else {
            compare(&file, NAMES, lines.len())?;
        }
    }
}

#[test]
fn a_hashed_name_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("known_hosts");
    let line = |name: &str, number| format!("{name} {}\n", key(number).to_line());
    fs::write(&file, line("gpu", 1) + &line("[gpu]:2222", 2)).unwrap();
    keygen(&["-H", "-f", file.to_str().unwrap()]);
    assert!(!fs::read_to_string(&file).unwrap().contains("gpu"));
    let known = KnownHosts::load([&file]).unwrap();
    assert!(matches!(known.check("gpu", &key(1)), Answer::Known(_)));
    assert!(matches!(known.check("[gpu]:2222", &key(2)), Answer::Known(_)));
    assert!(matches!(known.check("gpu", &key(2)), Answer::Changed(_)));
    assert_eq!(known.check("gpu2", &key(1)), Answer::Unknown);
}
