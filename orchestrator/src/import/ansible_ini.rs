//! The INI form of an Ansible inventory.

use super::ImportError;
use super::ansible::{Inventory, Vars};
use super::ansible_vars::split_words;

enum Kind {
    Hosts,
    Vars,
    Children,
}

pub(super) fn parse(text: &str) -> Result<Inventory, ImportError> {
    let mut inventory = Inventory::default();
    let (mut group, mut kind) = ("ungrouped".to_owned(), Kind::Hosts);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let syntax =
            |message: &str| ImportError::Syntax { line: index + 1, message: message.to_owned() };
        if let Some(title) = line.strip_prefix('[').filter(|_| is_section(line)) {
            let title = title.split(']').next().unwrap_or_default().trim();
            let (name, suffix) = title.split_once(':').unwrap_or((title, ""));
            kind = match suffix {
                "" => Kind::Hosts,
                "vars" => Kind::Vars,
                "children" => Kind::Children,
                _ => return Err(syntax("a section is [group], [group:vars] or [group:children]")),
            };
            group = name.to_owned();
            inventory.groups.entry(group.clone()).or_default();
            continue;
        }
        match kind {
            Kind::Children => {
                let child = line.split_whitespace().next().unwrap_or_default().to_owned();
                inventory.groups.entry(child.clone()).or_default();
                inventory.groups.entry(group.clone()).or_default().children.insert(child);
            }
            Kind::Vars => {
                let (key, value) =
                    line.split_once('=').ok_or_else(|| syntax("a variable needs `=`"))?;
                let value = unquote(value.trim());
                let vars = &mut inventory.groups.entry(group.clone()).or_default().vars;
                vars.insert(key.trim().to_owned(), value);
            }
            Kind::Hosts => {
                let words = split_words(line);
                let mut words = words.iter();
                let host = words.next().ok_or_else(|| syntax("a host needs a name"))?;
                let mut vars = Vars::new();
                for word in words {
                    if word.starts_with('#') {
                        break;
                    }
                    let pair = word
                        .split_once('=')
                        .ok_or_else(|| syntax("a host variable is key=value"))?;
                    vars.insert(pair.0.to_owned(), pair.1.to_owned());
                }
                let (host, port) = split_port(host);
                if let Some(port) = port {
                    vars.entry("ansible_port".to_owned()).or_insert(port.to_owned());
                }
                inventory.add(&group, host, vars)?;
            }
        }
    }
    Ok(inventory)
}

/// `[group]`, and not a host such as `[::1]:22`.
fn is_section(line: &str) -> bool {
    let title = line.trim_start_matches('[').split(']').next().unwrap_or_default();
    title.matches(':').count() <= 1 && !title.starts_with(':')
}

/// `host:2222` names a port; `2001:db8::1` does not.
fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit())
                && !port.is_empty()
                && (name.ends_with(']') || !name.contains(':')) =>
        {
            (name, Some(port))
        }
        _ => (host, None),
    }
}

fn unquote(value: &str) -> String {
    let inner = |quote| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(value).to_owned()
}
