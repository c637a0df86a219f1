//! Reads the keys of the configuration one by one, and notes of each where its value comes from.
//!
//! A section's function asks for its keys in the order of the manual; what nobody asked for is
//! unknown. So the list of known keys, the defaults and what `config show` prints are one text.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::duration::{self, Written};
use super::secret::{self, SecretSource};
use super::{Entry, Source};
use crate::render::toml_string;
use crate::toml_text::{self, Lines, Problems, Section};

/// Reads a variable of the environment.
pub type Variables<'e> = &'e dyn Fn(&str) -> Option<String>;

/// One configuration file while it is read.
pub(super) struct Document<'a> {
    source: &'a str,
    lines: Lines,
    variables: Variables<'a>,
    pub(super) problems: RefCell<Problems>,
    pub(super) entries: RefCell<Vec<Entry>>,
}

impl<'a> Document<'a> {
    pub(super) fn new(source: &'a str, variables: Variables<'a>) -> Self {
        let lines = Lines::of(source);
        Self { source, lines, variables, problems: RefCell::default(), entries: RefCell::default() }
    }

    /// Opens the table of the whole file.
    pub(super) fn top<'d>(&'d self, table: &'a DeTable<'a>) -> Keys<'d, 'a> {
        let section = Section::unchecked("the configuration", 0..0, table, self.source);
        Keys {
            document: self,
            path: "",
            section: Some(section),
            known: RefCell::default(),
            passed: RefCell::default(),
        }
    }
}

/// The keys of one table, which may be absent from the file.
pub(super) struct Keys<'d, 'a> {
    document: &'d Document<'a>,
    /// What stands before a key in its full name, with the dot.
    path: &'static str,
    section: Option<Section<'a>>,
    known: RefCell<Vec<&'static str>>,
    /// Keys that are recognised and not offered in hints.
    passed: RefCell<Vec<&'static str>>,
}

impl<'d, 'a> Keys<'d, 'a> {
    /// Reads a table below this one. `title` is what messages call it, `path` its name with a dot.
    pub(super) fn table<T>(
        &self,
        key: &'static str,
        title: &'static str,
        path: &'static str,
        read: impl FnOnce(&Keys<'d, 'a>) -> T,
    ) -> T {
        self.known.borrow_mut().push(key);
        let found = self.section.as_ref().and_then(|section| {
            let mut problems = self.document.problems.borrow_mut();
            section.table(key, &mut problems)
        });
        let section = found.map(|table: Spanned<&'a DeTable<'a>>| {
            let span = table.span();
            Section::unchecked(title, span, table.into_inner(), self.document.source)
        });
        let keys = Keys {
            document: self.document,
            path,
            section,
            known: RefCell::default(),
            passed: RefCell::default(),
        };
        let value = read(&keys);
        keys.finish();
        value
    }

    /// Complains of every key that nobody asked for.
    pub(super) fn finish(&self) {
        if let Some(section) = &self.section {
            let mut problems = self.document.problems.borrow_mut();
            section.check_keys(&self.known.borrow(), &self.passed.borrow(), &mut problems);
        }
    }

    /// Whether the table is in the file.
    pub(super) fn is_present(&self) -> bool {
        self.section.is_some()
    }

    /// The table itself, for values of a shape of their own.
    pub(super) fn section(&self) -> Option<&Section<'a>> {
        self.section.as_ref()
    }

    /// Marks a key as one that is read elsewhere.
    pub(super) fn know(&self, key: &'static str) {
        self.known.borrow_mut().push(key);
    }

    pub(super) fn problems(&self) -> std::cell::RefMut<'_, Problems> {
        self.document.problems.borrow_mut()
    }

    /// A string.
    pub(super) fn text(&self, key: &'static str, default: &str) -> String {
        let found = self.ask(key, |section, problems| {
            section.text(key, problems).map(|text| text.value.to_owned())
        });
        let value = found.clone().unwrap_or_else(|| default.to_owned());
        self.note(key, toml_string(&value), found.is_some());
        value
    }

    /// A string that may be absent; an empty one is absent.
    pub(super) fn optional(&self, key: &'static str) -> Option<String> {
        Some(self.text(key, "")).filter(|text| !text.is_empty())
    }

    /// A path that may be absent.
    pub(super) fn path(&self, key: &'static str) -> Option<PathBuf> {
        self.optional(key).map(PathBuf::from)
    }

    /// A string that another type is read from; `parse` says what is wrong with it.
    pub(super) fn parsed<T>(
        &self,
        key: &'static str,
        default: &str,
        hidden: bool,
        parse: impl Fn(&str) -> Result<T, String>,
        fallback: impl FnOnce() -> T,
    ) -> T {
        let found = self.ask(key, |section, problems| {
            let text = section.text(key, problems)?;
            match parse(text.value) {
                Ok(value) => Some((value, text.value.to_owned())),
                Err(error) if hidden => {
                    problems.error_in_secret(text.span, format!("`{key}`: {error}"));
                    None
                }
                Err(error) => {
                    problems.error(text.span, format!("`{key}`: {error}"));
                    None
                }
            }
        });
        match found {
            Some((value, written)) => {
                self.note(key, toml_string(&written), true);
                value
            }
            None => {
                self.note(key, toml_string(default), false);
                fallback()
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &'static str, default: bool) -> bool {
        let found = self.ask(key, |section, problems| flag(section, key, problems));
        self.note(key, found.unwrap_or(default).to_string(), found.is_some());
        found.unwrap_or(default)
    }

    /// A whole number.
    pub(super) fn count<N>(&self, key: &'static str, bounds: RangeInclusive<u64>, default: N) -> N
    where
        N: TryFrom<u64> + std::fmt::Display + Copy,
    {
        let found = self.ask(key, |section, problems| {
            section.integer(key, bounds, problems).and_then(|number| N::try_from(number).ok())
        });
        self.note(key, found.unwrap_or(default).to_string(), found.is_some());
        found.unwrap_or(default)
    }

    /// A duration: `"30s"` or `{ secs = 30, nanos = 0 }`.
    pub(super) fn time(
        &self,
        key: &'static str,
        bounds: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        self.duration(key, bounds, default, false)
    }

    /// As [`Self::time`], where the guide writes a bare number of seconds.
    pub(super) fn seconds(
        &self,
        key: &'static str,
        bounds: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        self.duration(key, bounds, default, true)
    }

    fn duration(
        &self,
        key: &'static str,
        bounds: RangeInclusive<Duration>,
        default: Duration,
        bare: bool,
    ) -> Duration {
        let found =
            self.ask(key, |section, problems| duration_of(section, key, &bounds, bare, problems));
        let value = found.unwrap_or(default);
        self.note(key, format!("\"{}\"", Written(value)), found.is_some());
        value
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &'static str,
        choices: &[(&'static str, T)],
        default: &'static str,
        fallback: T,
    ) -> T {
        let found = self.ask(key, |section, problems| {
            let text = section.text(key, problems)?;
            let known = choices.iter().find(|(name, _)| *name == text.value);
            if known.is_none() {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                let message = format!("unknown {key} `{}`", text.value.escape_debug());
                let hint = toml_text::suggest(text.value, &names);
                problems.error_with_hint(text.span, message, hint);
            }
            known.copied()
        });
        let name = found.map_or(default, |(name, _)| name);
        self.note(key, toml_string(name), found.is_some());
        found.map_or(fallback, |(_, value)| value)
    }

    /// A list of strings; one string is a list of one.
    pub(super) fn texts(&self, key: &'static str, default: &[&str]) -> Vec<String> {
        let found = self.ask(key, |section, problems| {
            let texts = section.texts(key, problems)?;
            Some(texts.iter().map(|text| text.value.to_owned()).collect::<Vec<_>>())
        });
        let given = found.is_some();
        let value =
            found.unwrap_or_else(|| default.iter().map(|text| (*text).to_owned()).collect());
        let written: Vec<String> = value.iter().map(|text| toml_string(text)).collect();
        self.note(key, format!("[{}]", written.join(", ")), given);
        value
    }

    /// A table of strings.
    pub(super) fn words(&self, key: &'static str) -> BTreeMap<String, String> {
        let found = self.ask(key, |section, problems| {
            let table = section.table(key, problems)?.into_inner();
            let mut words = BTreeMap::new();
            for (name, value) in table.iter() {
                let name: &str = name.get_ref();
                match toml_text::text(value, section.source()) {
                    Some(text) => {
                        words.insert(name.to_owned(), text.value.to_owned());
                    }
                    None => section.wrong_type(name, value, "a string", problems),
                }
            }
            Some(words)
        });
        let given = found.is_some();
        let value = found.unwrap_or_default();
        let pairs: Vec<String> = value
            .iter()
            .map(|(name, text)| format!("{} = {}", toml_string(name), toml_string(text)))
            .collect();
        let written =
            if pairs.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", pairs.join(", ")) };
        self.note(key, written, given);
        value
    }

    /// An amount of TAO, in rao (1e-9 TAO).
    pub(super) fn tao(&self, key: &'static str, default_tao: u32) -> u64 {
        const RAO: f64 = 1e9;
        // More TAO than there will ever be (21 million).
        const MOST: f64 = 21e6;
        let found = self.ask(key, |section, problems| {
            let value = section.get(key)?;
            let number: Option<f64> = match value.get_ref() {
                DeValue::Integer(number) => number.as_str().parse().ok(),
                DeValue::Float(number) => number.as_str().parse().ok(),
                _ => None,
            };
            let found = number.filter(|number| (0.0..=MOST).contains(number));
            if found.is_none() {
                let message = format!("`{key}` must be an amount of TAO, 0.0 to 21000000.0");
                problems.error(value.span(), message);
            }
            found
        });
        let value = found.unwrap_or_else(|| f64::from(default_tao));
        self.note(key, format!("{value:?}"), found.is_some());
        // In range by the check above: 21e15 fits.
        (value * RAO).round() as u64
    }

    /// A secret: in the file, in a file of its own, or in the environment, in that order of rank
    /// from the last.
    pub(super) fn secret(
        &self,
        key: &'static str,
        file_key: &'static str,
        variable: &'static str,
    ) -> Option<SecretSource> {
        let inline = self.ask(key, |section, problems| {
            let text = section.text(key, problems)?;
            match secret::Secret::new(text.value) {
                Ok(secret) => Some(secret),
                Err(error) => {
                    let message = format!("`{key}`: {error}");
                    problems.error_in_secret_with_hint(text.span, message, secret::HINT);
                    None
                }
            }
        });
        let file = self.ask(file_key, |section, problems| {
            section.text(file_key, problems).map(|text| PathBuf::from(text.value))
        });
        let file = file.filter(|path| !path.as_os_str().is_empty());
        if inline.is_some() && file.is_some() {
            let span = self.section.as_ref().map(|section| section.key_span(file_key));
            let message = format!("`{key}` and `{file_key}` are both given");
            self.problems().error(span.unwrap_or_default(), message);
        }
        let hidden = |given: bool| if given { "(hidden)" } else { "(none)" }.to_owned();
        let from_environment =
            (self.document.variables)(variable).filter(|value| !value.is_empty());
        if let Some(value) = from_environment {
            self.entry(key, hidden(true), Source::Environment { variable });
            return Some(SecretSource::Environment { variable, value: value.into() });
        }
        self.note(key, hidden(inline.is_some()), inline.is_some());
        let written = file.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        self.note(file_key, toml_string(&written), file.is_some());
        inline.map(SecretSource::Inline).or(file.map(SecretSource::File))
    }

    /// A key of the guide that changes nothing here.
    pub(super) fn ignored(&self, key: &'static str, because: &'static str) {
        self.passed.borrow_mut().push(key);
        let Some(section) = &self.section else { return };
        let Some(value) = section.get(key) else { return };
        let span = section.key_span(key);
        let message = format!("`{}{key}` is ignored: {because}", self.path);
        let line = self.document.lines.number(span.start);
        self.problems().warn(span, message);
        // A table of its own has no text of one line.
        let written = match value.get_ref() {
            DeValue::Table(_) | DeValue::Array(_) => "...".to_owned(),
            _ => section.source().get(value.span()).unwrap_or_default().to_owned(),
        };
        let source = Source::Ignored { line, because };
        self.entry(key, written, source);
    }

    /// A key of the guide that may only say what holds anyway.
    pub(super) fn only(&self, key: &'static str, must: bool, otherwise: &'static str) {
        self.passed.borrow_mut().push(key);
        let Some(section) = &self.section else { return };
        let found = {
            let mut problems = self.problems();
            flag(section, key, &mut problems)
        };
        match (found, section.get(key)) {
            (Some(found), Some(value)) if found != must => {
                self.problems().error(value.span(), format!("`{key}` must be {must}: {otherwise}"));
            }
            (Some(_), Some(value)) => {
                let line = self.document.lines.number(value.span().start);
                self.entry(key, must.to_string(), Source::Ignored { line, because: otherwise });
            }
            _ => {}
        }
    }

    /// A table of the guide that is refused as a whole.
    pub(super) fn refused(&self, key: &'static str, because: &'static str, hint: &'static str) {
        self.passed.borrow_mut().push(key);
        let Some(section) = &self.section else { return };
        if section.get(key).is_some() {
            let span = section.key_span(key);
            self.problems().error_with_hint(span, format!("`{key}` is refused: {because}"), hint);
        }
    }

    /// Notes what a value is and where it comes from.
    pub(super) fn note(&self, key: &'static str, value: String, given: bool) {
        let source = match (&self.section, given) {
            (Some(section), true) => {
                Source::File { line: self.document.lines.number(section.key_span(key).start) }
            }
            _ => Source::Default,
        };
        self.entry(key, value, source);
    }

    fn entry(&self, key: &'static str, value: String, source: Source) {
        let key = format!("{}{key}", self.path);
        self.document.entries.borrow_mut().push(Entry { key, value, source });
    }

    fn ask<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Section<'a>, &mut Problems) -> Option<T>,
    ) -> Option<T> {
        self.known.borrow_mut().push(key);
        let section = self.section.as_ref()?;
        read(section, &mut self.document.problems.borrow_mut())
    }
}

/// `true` or `false`, if it is there.
pub(super) fn flag(section: &Section<'_>, key: &str, problems: &mut Problems) -> Option<bool> {
    let value = section.get(key)?;
    match value.get_ref() {
        DeValue::Boolean(found) => Some(*found),
        _ => {
            section.wrong_type(key, value, "true or false", problems);
            None
        }
    }
}

fn duration_of(
    section: &Section<'_>,
    key: &str,
    bounds: &RangeInclusive<Duration>,
    bare: bool,
    problems: &mut Problems,
) -> Option<Duration> {
    let value = section.get(key)?;
    let found = match value.get_ref() {
        DeValue::String(text) => match duration::parse(text) {
            Ok(duration) => duration,
            Err(error) => {
                problems.error(value.span(), format!("`{key}`: {error}"));
                return None;
            }
        },
        DeValue::Table(table) => {
            let known = ["secs", "nanos"];
            let errors_before = problems.errors.len();
            let parts = Section::open(key, value.span(), table, section.source(), &known, problems);
            let secs = parts.integer("secs", 0..=u64::from(u32::MAX), problems).unwrap_or(0);
            let nanos = parts.integer("nanos", 0..=999_999_999, problems).unwrap_or(0);
            if problems.errors.len() > errors_before {
                return None;
            }
            Duration::from_secs(secs) + Duration::from_nanos(nanos)
        }
        DeValue::Integer(number) if bare => match number.as_str().parse() {
            Ok(secs) => Duration::from_secs(secs),
            Err(_) => {
                problems.error(value.span(), format!("`{key}` must be a number of seconds"));
                return None;
            }
        },
        _ => {
            section.wrong_type(key, value, "a duration such as \"30s\"", problems);
            return None;
        }
    };
    if bounds.contains(&found) {
        return Some(found);
    }
    let (low, high) = (Written(*bounds.start()), Written(*bounds.end()));
    let message = format!("`{key}` is {}, and must be {low} to {high}", Written(found));
    problems.error(value.span(), message);
    None
}
