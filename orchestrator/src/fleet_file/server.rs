//! What is said of one SSH server: addresses, jumps, users, keys.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::range::{Pattern, RangeError};
use super::{DeclaredServer, ServerSettings};
use crate::host_spec::AgentSocket;
use crate::toml_text::{Problems, Section, Span, Text};
use toml::de::DeValue;

/// More hops than this is a mistake: each adds a handshake inside the one before.
const MAX_HOPS: usize = 8;

/// The keys that `[defaults]`, `[[hosts]]` and `[jumps.<name>]` share.
pub(super) const SETTINGS_KEYS: [&str; 5] =
    ["user", "port", "identity_file", "certificate_file", "agent"];

/// Reads the shared keys, and `host_key` where it is among the known ones.
pub(super) fn settings(section: &Section<'_>, problems: &mut Problems) -> ServerSettings {
    ServerSettings {
        user: section.text("user", problems).and_then(|text| user(&text, problems)),
        port: section
            .integer("port", 1..=65535, problems)
            .and_then(|port| u16::try_from(port).ok()),
        identity_files: files(section, "identity_file", problems),
        certificate_files: files(section, "certificate_file", problems),
        agent: agent(section, problems),
        host_key: section.text("host_key", problems).and_then(|text| host_key(&text, problems)),
    }
}

fn user(text: &Text<'_>, problems: &mut Problems) -> Option<String> {
    if is_user(text.value) {
        return Some(text.value.to_owned());
    }
    problems.error(text.span.clone(), format!("{:?} is not a login name", text.value));
    None
}

/// What may be a login name: `DOMAIN\user` and `user@realm` exist; an option, a separator of
/// ours or white space does not.
pub(crate) fn is_user(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && !text.starts_with('-')
        && !text
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || matches!(c, ':' | ',' | '/'))
}

fn files(section: &Section<'_>, key: &str, problems: &mut Problems) -> Option<Vec<String>> {
    let texts = section.texts(key, problems)?;
    let mut files = Vec::with_capacity(texts.len());
    for text in texts {
        let bad = if text.value.is_empty() {
            Some("is empty")
        } else if text.value.starts_with('~') && !text.value.starts_with("~/") {
            Some("names another user's home; only `~/` is understood")
        } else if key == "identity_file" && text.value.ends_with(".pub") {
            Some("is the public half; name the private key file")
        } else {
            None
        };
        match bad {
            Some(why) => problems.error(text.span.clone(), format!("`{key}` {why}")),
            None => files.push(text.value.to_owned()),
        }
    }
    Some(files)
}

fn agent(section: &Section<'_>, problems: &mut Problems) -> Option<AgentSocket> {
    let value = section.get("agent")?;
    match value.get_ref() {
        DeValue::Boolean(true) => Some(AgentSocket::Environment),
        DeValue::Boolean(false) => Some(AgentSocket::Disabled),
        DeValue::String(path) if path.starts_with('/') || path.starts_with("~/") => {
            Some(AgentSocket::Path(PathBuf::from(path.as_ref())))
        }
        _ => {
            problems.error_with_hint(
                value.span(),
                "`agent` must be true, false or the path of a socket",
                "true asks the agent that SSH_AUTH_SOCK names; false asks none",
            );
            None
        }
    }
}

fn host_key(text: &Text<'_>, problems: &mut Problems) -> Option<String> {
    let digest = text.value.strip_prefix("SHA256:").filter(|digest| digest.len() == 43);
    let bytes = digest.and_then(|digest| STANDARD_NO_PAD.decode(digest).ok());
    if bytes.is_some_and(|bytes| bytes.len() == 32) {
        return Some(text.value.to_owned());
    }
    problems.error_with_hint(
        text.span.clone(),
        "`host_key` must be `SHA256:` and 43 characters of base64",
        "on the host: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
    );
    None
}

/// An address before its ranges are expanded.
pub(super) struct AddressPattern {
    pub(super) pattern: Pattern,
    pub(super) span: Span,
}

/// Reads an `address`: a range pattern, or an IPv6 address with or without brackets.
pub(super) fn address_pattern(text: &Text<'_>, problems: &mut Problems) -> Option<AddressPattern> {
    let written = text.value;
    if let Some((user, rest)) = written.split_once('@') {
        let hint = format!("user = {user:?}, address = {rest:?}");
        problems.error_with_hint(text.span.clone(), "`address` has a user in it", hint);
        return None;
    }
    let (inner, shift) = unbracket(written);
    match Pattern::parse(inner) {
        Ok(pattern) => Some(AddressPattern { pattern, span: text.span.clone() }),
        Err(RangeError { at, kind }) => {
            let span = text.place(at.start + shift..at.end + shift);
            problems.error(span, format!("`address`: {kind}"));
            None
        }
    }
}

/// `[2001:db8::1]` without its brackets, and how far the inner text lies in. Brackets around the
/// whole text belong to an IPv6 address if there are two colons in it before any inner bracket; a
/// range never has a colon.
fn unbracket(written: &str) -> (&str, usize) {
    let inner = written.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match inner {
        Some(inner) => {
            let head = inner.split(['[', ']']).next().unwrap_or_default();
            if head.matches(':').count() >= 2 { (inner, 1) } else { (written, 0) }
        }
        None => (written, 0),
    }
}

/// Checks one expanded address.
pub(super) fn check_address(address: &str, span: &Span, problems: &mut Problems) -> bool {
    let Err((message, hint)) = address_fault(address) else { return true };
    match hint {
        Some(hint) => problems.error_with_hint(span.clone(), message, hint),
        None => problems.error(span.clone(), message),
    }
    false
}

/// Why a text is no address, and what to write instead.
pub(crate) fn address_fault(address: &str) -> Result<(), (String, Option<String>)> {
    let shown = address.escape_debug();
    if address.contains(':') {
        let (ip, zone) = address.split_once('%').unwrap_or((address, "-"));
        let zone_is_plain = !zone.is_empty()
            && zone.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if ip.parse::<Ipv6Addr>().is_ok() && zone_is_plain {
            return Ok(());
        }
        let port = address.rsplit_once(':').filter(|(host, _)| !host.contains("::"));
        return Err(match port.and_then(|(_, port)| port.parse::<u16>().ok()) {
            Some(port) => {
                let hint = format!("the port is a key of its own: port = {port}");
                (format!("`{shown}` has a port in it"), Some(hint))
            }
            None => (format!("`{shown}` is not an IPv6 address"), None),
        });
    }
    if address.starts_with('-') {
        return Err((format!("`{shown}` reads as an option, not as an address"), None));
    }
    let plain = address.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if address.is_empty() || address.len() > 253 || !plain {
        let what = format!("`{shown}` is not a host name or IP address");
        return Err((what, None));
    }
    let looks_like_v4 = address.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if looks_like_v4 && address.parse::<Ipv4Addr>().is_err() {
        return Err((format!("`{shown}` is not an IPv4 address"), None));
    }
    Ok(())
}

/// Reads `proxy_jump`: hops separated by commas, or a list of them; `none` or nothing is no jump.
pub(super) fn proxy_jump(
    section: &Section<'_>,
    problems: &mut Problems,
) -> Option<Vec<DeclaredServer>> {
    let texts = section.texts("proxy_jump", problems)?;
    let mut hops = Vec::new();
    for text in &texts {
        match parse_hops(text.value) {
            Ok(more) => hops.extend(more),
            Err(HopError { at, message }) => problems.error(text.place(at), message),
        }
    }
    if hops.len() > MAX_HOPS {
        let message = format!("`proxy_jump` has {} hops, and may have {MAX_HOPS}", hops.len());
        problems.error(section.key_span("proxy_jump"), message);
        hops.clear();
    }
    Some(hops)
}

/// A hop that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HopError {
    pub(crate) at: std::ops::Range<usize>,
    pub(crate) message: String,
}

/// Reads `user@b1:22,b2`; also what `ssh -G` prints as `proxyjump`.
pub(crate) fn parse_hops(text: &str) -> Result<Vec<DeclaredServer>, HopError> {
    if text.trim().is_empty() || text.trim().eq_ignore_ascii_case("none") {
        return Ok(Vec::new());
    }
    let mut hops = Vec::new();
    let mut at = 0;
    for piece in text.split(',') {
        let place = at..at + piece.len();
        at = place.end + 1;
        let hop = parse_hop(piece.trim());
        hops.push(hop.map_err(|message| HopError { at: place, message })?);
    }
    Ok(hops)
}

fn parse_hop(hop: &str) -> Result<DeclaredServer, String> {
    let hop = hop.strip_prefix("ssh://").unwrap_or(hop);
    let (user, rest) = match hop.rsplit_once('@') {
        Some((user, rest)) if is_user(user) => (Some(user.to_owned()), rest),
        Some((user, _)) => return Err(format!("{user:?} is not a login name")),
        None => (None, hop),
    };
    let (address, port) = if let Some(bracketed) = rest.strip_prefix('[') {
        let (address, tail) =
            bracketed.split_once(']').ok_or_else(|| "`[` is not closed".to_owned())?;
        (address, tail.strip_prefix(':'))
    } else if rest.matches(':').count() == 1 {
        rest.split_once(':').map_or((rest, None), |(address, port)| (address, Some(port)))
    } else {
        (rest, None)
    };
    let port = match port {
        None => None,
        Some(digits) => match digits.parse::<u16>() {
            Ok(port) if port > 0 => Some(port),
            _ => return Err(format!("{digits:?} is not a port; a hop reads user@address:port")),
        },
    };
    address_fault(address).map_err(|(message, _)| format!("in `proxy_jump`: {message}"))?;
    let settings = ServerSettings { user, port, ..ServerSettings::default() };
    Ok(DeclaredServer { address: address.to_owned(), settings })
}
