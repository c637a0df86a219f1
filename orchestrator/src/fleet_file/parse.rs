//! From the text of a fleet file to [`FleetFile`], collecting every error on the way.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::range::Pattern;
use super::server::{AddressPattern, SETTINGS_KEYS, address_pattern, check_address, settings};
use super::traits::{TRAIT_KEYS, Traits, read_traits};
use super::{DeclaredHost, DeclaredServer, FleetFile, MAX_HOSTS, ServerSettings};
use crate::ids::HostName;
use crate::toml_text::{self, Diagnostics, Lines, Problems, Section, Span};

const TOP_KEYS: [&str; 3] = ["defaults", "hosts", "jumps"];

/// Address, port, and the way there: behind different jumps one private address is different hosts.
type Place = (String, u16, Vec<String>);

/// Everything that reading one `[[hosts]]` entry needs to know of the others.
struct Walk<'t> {
    source: &'t str,
    lines: Lines,
    problems: Problems,
    defaults: (ServerSettings, Traits),
    /// Hosts declared so far, in numbers; counted before they are made.
    declared: u64,
    hosts: Vec<DeclaredHost>,
    names: HashMap<HostName, usize>,
    places: HashMap<Place, (HostName, usize)>,
}

pub(super) fn parse(path: &Path, source: &str) -> Result<FleetFile, Diagnostics> {
    let document = toml_text::parse(path, source)?;
    let mut problems = Problems::default();
    let top =
        Section::open("the fleet file", 0..0, document.get_ref(), source, &TOP_KEYS, &mut problems);
    let defaults = match top.table("defaults", &mut problems) {
        Some(table) => read_defaults(&table, source, &mut problems),
        None => Default::default(),
    };
    let jumps = match top.table("jumps", &mut problems) {
        Some(table) => read_jumps(&table, source, &mut problems),
        None => BTreeMap::new(),
    };

    let mut walk = Walk {
        source,
        lines: Lines::of(source),
        problems,
        defaults,
        declared: 0,
        hosts: Vec::new(),
        names: HashMap::new(),
        places: HashMap::new(),
    };
    walk.hosts_of(&top);

    match walk.problems.located_errors(path, source) {
        Some(diagnostics) => Err(diagnostics),
        None => Ok(FleetFile {
            path: path.to_owned(),
            warnings: walk.problems.located_warnings(source),
            hosts: walk.hosts,
            defaults: walk.defaults.0,
            jumps,
        }),
    }
}

impl<'t> Walk<'t> {
    fn hosts_of(&mut self, top: &Section<'t>) {
        let Some(value) = top.get("hosts") else {
            let end = self.source.len();
            self.problems.error_with_hint(
                end..end,
                "At least one executor must be configured",
                "declare a host: [[hosts]] with a name and an address",
            );
            return;
        };
        let DeValue::Array(entries) = value.get_ref() else {
            self.problems.error_with_hint(
                top.key_span("hosts"),
                format!("`hosts` is {}", toml_text::type_name(value.get_ref())),
                "each host is an entry of its own, in double brackets: [[hosts]]",
            );
            return;
        };
        if entries.is_empty() {
            let message = "At least one executor must be configured";
            self.problems.error(value.span(), message);
        }
        for entry in entries.iter() {
            match entry.get_ref() {
                DeValue::Table(table) => self.host_entry(table, entry.span()),
                other => {
                    let found = toml_text::type_name(other);
                    let message = format!("a host must be a table, and is {found}");
                    self.problems.error(entry.span(), message);
                }
            }
        }
    }

    /// One `[[hosts]]` entry: one host, or as many as its range has.
    fn host_entry(&mut self, table: &'t DeTable<'t>, span: Span) {
        let known = known_keys(&["name", "address", "host_key"], true);
        let section =
            Section::open("[[hosts]]", span, table, self.source, &known, &mut self.problems);
        let errors_before = self.problems.errors.len();
        let own = settings(&section, &mut self.problems);
        let traits = read_traits(&section, &mut self.problems);
        let Some(names) = self.names_of(&section) else { return };
        let Some(addresses) = self.addresses_of(&section, &names) else { return };

        if own.host_key.is_some() && names.len() > 1 {
            let message = format!("`host_key` pins one host, and this entry is {}", names.len());
            self.problems.error_with_hint(
                section.key_span("host_key"),
                message,
                "hosts that share a host key can each pass for the others: pin each in an entry of its own",
            );
        }
        let line = self.lines.number(section.span.start);
        let server = own.or(&self.defaults.0);
        let traits = traits.or(&self.defaults.1);
        for (name, address) in names.into_iter().zip(addresses) {
            if !self.is_new(&name, &section, line) || self.problems.errors.len() > errors_before {
                continue;
            }
            let hops = traits.proxy_jump.iter().flatten().map(|hop| hop.address.clone()).collect();
            let place = (address.to_ascii_lowercase(), server.port.unwrap_or(22), hops);
            self.note_place(&name, place, &section, line);
            self.hosts.push(DeclaredHost {
                name,
                server: DeclaredServer { address, settings: server.clone() },
                proxy_jump: traits.proxy_jump.clone(),
                mode: traits.mode.unwrap_or_default(),
                gpus: traits.gpus.clone(),
                labels: traits.labels.clone(),
                work_dir: traits.work_dir.clone(),
                containers: traits.rules(),
                line,
            });
        }
    }

    fn names_of(&mut self, section: &Section<'t>) -> Option<Vec<HostName>> {
        if section.get("name").is_none() {
            section.missing("name", &mut self.problems);
            return None;
        }
        let written = section.text("name", &mut self.problems)?;
        let pattern = match Pattern::parse(written.value) {
            Ok(pattern) => pattern,
            Err(error) => {
                self.problems.error(written.place(error.at), format!("`name`: {}", error.kind));
                return None;
            }
        };
        self.declared = self.declared.saturating_add(pattern.count());
        if self.declared > MAX_HOSTS {
            // Said once, at the entry that goes over.
            if self.declared - pattern.count() <= MAX_HOSTS {
                let message = format!("with this entry the fleet has more than {MAX_HOSTS} hosts");
                self.problems.error(written.span, message);
            }
            return None;
        }
        let mut names = Vec::new();
        for text in pattern.expand() {
            match HostName::new(text) {
                Ok(name) => names.push(name),
                Err(error) => {
                    self.problems.error(written.span, error.to_string());
                    return None;
                }
            }
        }
        Some(names)
    }

    /// The addresses, as many as there are names; the names themselves where none is given.
    fn addresses_of(&mut self, section: &Section<'t>, names: &[HostName]) -> Option<Vec<String>> {
        if section.get("address").is_none() {
            return Some(names.iter().map(|name| name.as_str().to_owned()).collect());
        }
        let written = section.text("address", &mut self.problems)?;
        let AddressPattern { pattern, span } = address_pattern(&written, &mut self.problems)?;
        let (wanted, found) = (names.len() as u64, pattern.count());
        if wanted != found {
            let message = format!("`name` is {}, `address` is {}", hosts(wanted), addresses(found));
            let hint = "each host needs one address: write as many in the range of `address` as in that of `name`";
            self.problems.error_with_hint(span, message, hint);
            return None;
        }
        let mut all = Vec::with_capacity(names.len());
        for address in pattern.expand() {
            if !check_address(&address, &span, &mut self.problems) {
                return None;
            }
            all.push(address);
        }
        Some(all)
    }

    fn is_new(&mut self, name: &HostName, section: &Section<'t>, line: usize) -> bool {
        match self.names.get(name) {
            None => {
                self.names.insert(name.clone(), line);
                true
            }
            Some(first) => {
                let message = format!(
                    "`{name}` is declared twice: in the entry of line {first} and in that of line {line}"
                );
                self.problems.error(section.key_span("name"), message);
                false
            }
        }
    }

    fn note_place(&mut self, name: &HostName, place: Place, section: &Section<'t>, line: usize) {
        match self.places.get(&place) {
            None => {
                self.places.insert(place, (name.clone(), line));
            }
            Some((other, first)) => {
                let message =
                    format!("`{name}` has the same address and port as `{other}` of line {first}");
                self.problems.warn(section.key_span("address"), message);
            }
        }
    }
}

fn known_keys(own: &[&'static str], with_traits: bool) -> Vec<&'static str> {
    let traits = if with_traits { TRAIT_KEYS.as_slice() } else { &[] };
    own.iter().chain(&SETTINGS_KEYS).chain(traits).copied().collect()
}

fn hosts(count: u64) -> String {
    if count == 1 { "1 host".to_owned() } else { format!("{count} hosts") }
}

fn addresses(count: u64) -> String {
    if count == 1 { "1 address".to_owned() } else { format!("{count} addresses") }
}

fn read_defaults<'t>(
    table: &Spanned<&'t DeTable<'t>>,
    source: &'t str,
    problems: &mut Problems,
) -> (ServerSettings, Traits) {
    let known = known_keys(&[], true);
    let section =
        Section::open("[defaults]", table.span(), table.get_ref(), source, &known, problems);
    (settings(&section, problems), read_traits(&section, problems))
}

fn read_jumps<'t>(
    table: &Spanned<&'t DeTable<'t>>,
    source: &'t str,
    problems: &mut Problems,
) -> BTreeMap<String, DeclaredServer> {
    let known = known_keys(&["address", "host_key"], false);
    let mut jumps = BTreeMap::new();
    for (key, value) in table.get_ref().iter() {
        let DeValue::Table(table) = value.get_ref() else {
            let found = toml_text::type_name(value.get_ref());
            let message = format!("a jump must be a table, and is {found}");
            problems.error_with_hint(value.span(), message, "write [jumps.<name>]");
            continue;
        };
        let section =
            Section::open("[jumps.<name>]", value.span(), table, source, &known, problems);
        let settings = settings(&section, problems);
        let (address, span) = match section.text("address", problems) {
            Some(address) => (address.value, address.span),
            None => (key.get_ref().as_ref(), key.span()),
        };
        if check_address(address, &span, problems) {
            let server = DeclaredServer { address: address.to_owned(), settings };
            jumps.insert(key.get_ref().to_string(), server);
        }
    }
    jumps
}
