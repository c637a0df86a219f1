//! What an import found, and how it is printed as a fleet file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::fleet_file::server::{address_fault, is_user, parse_hops};
use crate::ids::HostName;
use crate::render::toml_string;

/// A server that was found; every text is as it stood in the source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DraftServer {
    pub(super) name: String,
    pub(super) address: Option<String>,
    pub(super) port: Option<String>,
    pub(super) user: Option<String>,
    pub(super) identity_files: Vec<String>,
    pub(super) certificate_files: Vec<String>,
    pub(super) proxy_jump: Option<String>,
    /// Groups it belongs to; they become labels.
    pub(super) groups: BTreeSet<String>,
    /// What was not taken over.
    pub(super) notes: Vec<String>,
}

/// Everything that was found.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) hosts: Vec<DraftServer>,
    pub(super) jumps: Vec<DraftServer>,
    /// What was not taken over, of the source as a whole.
    pub(super) notes: Vec<String>,
}

impl Draft {
    /// The fleet file, and the number of notes in it.
    pub(super) fn print(self, source: &str) -> (String, usize) {
        let mut printer = Printer {
            out: format!(
                "# Imported from {source}. Read it, remove what is no GPU host, and run\n\
                 # `orchestrator check`. What could not be taken over is marked \"not taken over\".\n"
            ),
            notes: 0,
        };
        for note in &self.notes {
            printer.note(note);
        }
        let mut names: BTreeSet<String> = BTreeSet::new();
        for jump in self.jumps {
            if names.insert(jump.name.clone()) {
                let title = format!("[jumps.{}]", toml_string(&jump.name));
                printer.server(jump, &title, false);
            }
        }
        names.clear();
        for host in self.hosts {
            match HostName::new(host.name.as_str()) {
                Err(error) => {
                    printer.out.push('\n');
                    printer.note(&error.to_string());
                }
                Ok(_) if names.insert(host.name.clone()) => {
                    printer.server(host, "[[hosts]]", true);
                }
                Ok(_) => {}
            }
        }
        (printer.out, printer.notes)
    }
}

struct Printer {
    out: String,
    notes: usize,
}

impl Printer {
    fn server(&mut self, mut server: DraftServer, title: &str, is_host: bool) {
        let address = server.address.take().unwrap_or_else(|| server.name.clone());
        let address = address.trim_start_matches('[').trim_end_matches(']').to_owned();
        if let Err((message, _)) = address_fault(&address) {
            self.out.push('\n');
            self.note(&format!("{}: {message}", server.name));
            return;
        }
        self.line(&format!("\n{title}"));
        for note in &server.notes {
            self.note(note);
        }
        if is_host {
            self.line(&format!("name = {}", toml_string(&server.name)));
        }
        self.line(&format!("address = {}", toml_string(&address)));
        match server.port.as_deref().map(|port| (port, port.parse::<u16>())) {
            None => {}
            Some((_, Ok(port))) if port > 0 => self.line(&format!("port = {port}")),
            Some((port, _)) => self.note(&format!("port {port:?}")),
        }
        match server.user {
            Some(user) if is_user(&user) => self.line(&format!("user = {}", toml_string(&user))),
            Some(user) => self.note(&format!("user {user:?}")),
            None => {}
        }
        self.files("identity_file", server.identity_files);
        self.files("certificate_file", server.certificate_files);
        match server.proxy_jump.as_deref().map(|jump| (jump, parse_hops(jump))) {
            Some((jump, Ok(_))) if is_host => {
                self.line(&format!("proxy_jump = {}", toml_string(jump)));
            }
            Some((jump, _)) => self.note(&format!("ProxyJump {jump:?}")),
            None => {}
        }
        self.labels(&server.groups);
    }

    fn files(&mut self, key: &str, files: Vec<String>) {
        let (good, bad): (Vec<String>, Vec<String>) = files.into_iter().partition(|file| {
            let home = !file.starts_with('~') || file.starts_with("~/");
            home && !file.is_empty() && !file.contains('%') && !file.ends_with(".pub")
                || (key == "certificate_file" && home && !file.contains('%'))
        });
        for file in bad {
            self.note(&format!("{key} {file:?}"));
        }
        let all: Vec<String> = good.iter().map(|file| toml_string(file)).collect();
        match all.as_slice() {
            [] => {}
            [one] => self.line(&format!("{key} = {one}")),
            several => self.line(&format!("{key} = [{}]", several.join(", "))),
        }
    }

    /// A host may be in many groups, so each is a label of its own: `--limit group/fra=yes`.
    fn labels(&mut self, groups: &BTreeSet<String>) {
        let mut labels: BTreeMap<String, ()> = BTreeMap::new();
        for group in groups {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            if group.len() <= 57 && group.bytes().all(plain) {
                labels.insert(format!("\"group/{group}\" = \"yes\""), ());
            } else {
                self.note(&format!("group {group:?}"));
            }
        }
        if !labels.is_empty() {
            let all: Vec<String> = labels.into_keys().collect();
            self.line(&format!("labels = {{ {} }}", all.join(", ")));
        }
    }

    fn line(&mut self, text: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.out, "{text}");
    }

    /// A comment is one line, whatever the source had in it.
    fn note(&mut self, text: &str) {
        self.notes += 1;
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.line(&format!("# not taken over: {text}"));
    }
}
