//! The hosts of an `ssh_config`.

use std::collections::BTreeSet;

use super::draft::{Draft, DraftServer};
use crate::fleet_file::server::parse_hops;
use crate::fleet_file::ssh_config::{any_matches, directive};

struct Block {
    patterns: Vec<String>,
    settings: Vec<(String, Vec<String>)>,
}

/// Every alias with what the blocks that match it say, the first word on each matter winning, as
/// in `ssh`.
pub(super) fn draft(text: &str) -> Draft {
    let mut draft = Draft::default();
    let mut blocks = vec![Block { patterns: vec!["*".to_owned()], settings: Vec::new() }];
    let mut in_match = false;
    for line in text.lines() {
        let Some((keyword, arguments)) = directive(line) else { continue };
        match keyword.as_str() {
            "host" => {
                in_match = false;
                blocks.push(Block { patterns: arguments, settings: Vec::new() });
            }
            "match" => {
                in_match = true;
                draft.notes.push(format!("the block `Match {}`", arguments.join(" ")));
            }
            "include" => draft.notes.push(format!("Include {}", arguments.join(" "))),
            _ if in_match => {}
            _ => {
                if let Some(block) = blocks.last_mut() {
                    block.settings.push((keyword, arguments));
                }
            }
        }
    }
    let mut seen = BTreeSet::new();
    let aliases = blocks.iter().flat_map(|block| &block.patterns);
    let aliases = aliases.filter(|alias| !alias.contains(['*', '?']) && !alias.starts_with('!'));
    let servers: Vec<DraftServer> = aliases
        .filter(|alias| seen.insert((*alias).clone()))
        .map(|alias| server(alias, &blocks))
        .collect();

    let hops = servers.iter().filter_map(|server| parse_hops(server.proxy_jump.as_deref()?).ok());
    let jumps: BTreeSet<String> = hops.flatten().map(|hop| hop.address).collect();
    for server in servers {
        let list = if jumps.contains(&server.name) { &mut draft.jumps } else { &mut draft.hosts };
        list.push(server);
    }
    draft
}

fn server(alias: &str, blocks: &[Block]) -> DraftServer {
    let mut server = DraftServer { name: alias.to_owned(), ..DraftServer::default() };
    let matching = blocks.iter().filter(|block| any_matches(&block.patterns, alias));
    for (keyword, arguments) in matching.flat_map(|block| &block.settings) {
        let first = arguments.first().cloned();
        let value = arguments.join(" ");
        match keyword.as_str() {
            "hostname" => {
                server.address = server.address.or(first.map(|name| name.replace("%h", alias)));
            }
            "port" => server.port = server.port.or(first),
            "user" => server.user = server.user.or(first),
            "identityfile" => server.identity_files.extend(first.filter(|file| file != "none")),
            "certificatefile" => {
                server.certificate_files.extend(first.filter(|file| file != "none"))
            }
            "proxyjump" => server.proxy_jump = server.proxy_jump.or(first),
            "proxycommand" | "identityagent" | "hostkeyalias" | "userknownhostsfile"
            | "localforward" | "remoteforward" | "dynamicforward" | "remotecommand" => {
                server.notes.push(format!("{keyword} {value}"));
            }
            // Its values may be secrets.
            "setenv" => server.notes.push(keyword.clone()),
            // About the client's own comfort: multiplexing, keepalive, algorithms.
            _ => {}
        }
    }
    server
}
