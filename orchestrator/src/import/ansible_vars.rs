//! What Ansible's connection variables are in a fleet file.

use super::ansible::Vars;
use super::draft::DraftServer;

/// Applies the variables to a host; false when the host is not reached over SSH at all.
pub(super) fn apply(server: &mut DraftServer, vars: &Vars) -> bool {
    let mut others: Vec<&str> = Vec::new();
    for (key, value) in vars {
        // Ansible 1 wrote `ansible_ssh_` for what is now `ansible_`.
        let short = key.strip_prefix("ansible_").map(|k| k.strip_prefix("ssh_").unwrap_or(k));
        let Some(short) = short else {
            others.push(key);
            continue;
        };
        let is_secret =
            ["pass", "password", "passphrase", "secret"].iter().any(|w| short.ends_with(w));
        if is_secret {
            server.notes.push(format!("{key}, a secret: its value was not copied; use a key"));
        } else if value.contains("{{") || value.contains("{%") {
            server.notes.push(format!("{key}, a template"));
        } else {
            match short {
                "host" => server.address = Some(value.clone()),
                "port" => server.port = Some(value.clone()),
                "user" => server.user = Some(value.clone()),
                "private_key_file" => server.identity_files = vec![value.clone()],
                "common_args" | "extra_args" | "args" => ssh_arguments(server, key, value),
                "connection" if matches!(value.as_str(), "ssh" | "smart" | "paramiko") => {}
                "connection" => return false,
                // It is about Python on the host, which we do not need.
                "python_interpreter" => {}
                // Only the name: nobody knows what a value holds.
                _ => others.push(key),
            }
        }
    }
    if !others.is_empty() {
        server.notes.push(format!("variables {}", others.join(", ")));
    }
    true
}

/// Finds a jump among the arguments for `ssh`: `-J b`, `-o ProxyJump=b`, `-oProxyJump=b`.
fn ssh_arguments(server: &mut DraftServer, key: &str, value: &str) {
    let words = split_words(value);
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let option = match word.split_at_checked(2) {
            Some((flag @ ("-J" | "-o"), "")) => words.next().map(|argument| (flag, argument)),
            Some((flag @ ("-J" | "-o"), argument)) => Some((flag, argument)),
            _ => None,
        };
        match option {
            Some(("-J", jump)) => server.proxy_jump = Some(jump.to_owned()),
            Some((_, setting)) => {
                let (name, argument) = setting.split_once(['=', ' ']).unwrap_or((setting, ""));
                if name.eq_ignore_ascii_case("proxyjump") {
                    server.proxy_jump = Some(argument.trim().to_owned());
                } else {
                    server.notes.push(format!("{key}: -o {setting}"));
                }
            }
            None => server.notes.push(format!("{key}: {word}")),
        }
    }
}

/// Splits as a shell would, with both kinds of quotes and the backslash; expands nothing.
pub(super) fn split_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => word.get_or_insert_default().extend(chars.next()),
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}
