//! Reads TOML so that every complaint has a place: file, line, column, the line itself and a
//! caret. Used by the fleet file and by the configuration.
//!
//! `serde` stops at the first error; an operator who renames forty hosts wants all of them. So
//! the document is walked by hand over the spanned tree of the `toml` crate, and problems are
//! collected. Nothing here knows what the keys mean.

use std::io::{self, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

mod diagnostic;

pub use diagnostic::{Diagnostic, Diagnostics, MAX_DIAGNOSTICS};

/// A file larger than this is refused unread: a fleet of 10,000 hosts written one by one is
/// about 2 MiB.
pub const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Why a file has no text.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It could not be read, or is not UTF-8.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is larger than [`MAX_FILE_BYTES`].
    #[error("{} is larger than {} MiB", path.display(), MAX_FILE_BYTES >> 20)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

/// Reads a file of a size that can be meant.
pub(crate) fn read(path: &Path) -> Result<String, ReadError> {
    let failed = |source| ReadError::Io { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ReadError::TooLarge { path: path.to_owned() });
    }
    let text = String::from_utf8(bytes);
    text.map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))
}

/// A place in the text, in bytes.
pub(crate) type Span = Range<usize>;

/// One complaint, not yet turned into line and column.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) span: Span,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// The line holds a secret, or may: it is not quoted.
    pub(crate) secret: bool,
}

/// Turns byte offsets into line numbers without a pass over the text for each.
pub(crate) struct Lines(Vec<usize>);

impl Lines {
    pub(crate) fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// The line, from 1, that holds this offset.
    pub(crate) fn number(&self, offset: usize) -> usize {
        self.0.partition_point(|newline| *newline < offset) + 1
    }
}

/// What was found wrong so far: errors, and warnings that do not stop anything.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    pub(crate) errors: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
}

impl Problems {
    pub(crate) fn error(&mut self, span: Span, message: impl Into<String>) {
        self.errors.push(Problem { span, message: message.into(), hint: None, secret: false });
    }

    pub(crate) fn error_with_hint(
        &mut self,
        span: Span,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.errors.push(Problem {
            span,
            message: message.into(),
            hint: Some(hint.into()),
            secret: false,
        });
    }

    /// An error in a line that is not shown, because it may hold a secret.
    pub(crate) fn error_in_secret(&mut self, span: Span, message: impl Into<String>) {
        self.errors.push(Problem { span, message: message.into(), hint: None, secret: true });
    }

    /// As [`Self::error_in_secret`], with what to do.
    pub(crate) fn error_in_secret_with_hint(
        &mut self,
        span: Span,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let (message, hint) = (message.into(), Some(hint.into()));
        self.errors.push(Problem { span, message, hint, secret: true });
    }

    pub(crate) fn warn(&mut self, span: Span, message: impl Into<String>) {
        self.warnings.push(Problem { span, message: message.into(), hint: None, secret: false });
    }

    /// The errors with line and column, if there are any.
    pub(crate) fn located_errors(&self, path: &Path, text: &str) -> Option<Diagnostics> {
        Diagnostics::locate(path, text, &self.errors)
    }

    /// The warnings with line and column, capped like the errors.
    pub(crate) fn located_warnings(&self, text: &str) -> Vec<Diagnostic> {
        diagnostic::locate_all(text, &self.warnings)
    }
}

/// Parses the document; on a syntax error, everything the parser found wrong.
///
/// The tree is handed out only when the syntax is right: after a recovery, what follows would be
/// complaints about text that the operator never meant.
pub(crate) fn parse<'t>(path: &Path, text: &'t str) -> Result<Spanned<DeTable<'t>>, Diagnostics> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let problems: Vec<Problem> = errors
        .iter()
        .map(|error| Problem {
            span: error.span().unwrap_or(0..0),
            message: error.message().trim().to_owned(),
            hint: None,
            secret: false,
        })
        .collect();
    match Diagnostics::locate(path, text, &problems) {
        None => Ok(document),
        Some(diagnostics) => Err(diagnostics),
    }
}

/// A string in the document.
#[derive(Debug, Clone)]
pub(crate) struct Text<'a> {
    pub(crate) value: &'a str,
    pub(crate) span: Span,
    /// True when the bytes between the quotes are the value, so that an offset in the value is
    /// an offset in the file.
    verbatim: bool,
}

impl Text<'_> {
    /// The place in the file of a place in the value; the whole string if it has escapes.
    pub(crate) fn place(&self, within: Span) -> Span {
        if self.verbatim {
            let start = self.span.start + 1;
            start + within.start..start + within.end.max(within.start + 1)
        } else {
            self.span.clone()
        }
    }
}

/// One table of the document under the name that messages call it by.
#[derive(Debug, Clone)]
pub(crate) struct Section<'a> {
    pub(crate) name: &'a str,
    pub(crate) span: Span,
    table: &'a DeTable<'a>,
    source: &'a str,
}

impl<'a> Section<'a> {
    /// Opens a table and complains of every key that is not in `known`.
    pub(crate) fn open(
        name: &'a str,
        span: Span,
        table: &'a DeTable<'a>,
        source: &'a str,
        known: &[&str],
        problems: &mut Problems,
    ) -> Self {
        let section = Self::unchecked(name, span, table, source);
        section.check_keys(known, &[], problems);
        section
    }

    /// Opens a table whose keys are checked later.
    pub(crate) fn unchecked(
        name: &'a str,
        span: Span,
        table: &'a DeTable<'a>,
        source: &'a str,
    ) -> Self {
        Self { name, span, table, source }
    }

    /// Complains of every key that is neither in `known`, which hints offer, nor in `passed`.
    pub(crate) fn check_keys(&self, known: &[&str], passed: &[&str], problems: &mut Problems) {
        for key in self.table.keys() {
            let written: &str = key.get_ref();
            if !known.contains(&written) && !passed.contains(&written) {
                let message = format!("unknown key `{}` in {}", written.escape_debug(), self.name);
                problems.error_with_hint(key.span(), message, suggest(written, known));
            }
        }
    }

    /// The text of the file.
    pub(crate) fn source(&self) -> &'a str {
        self.source
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.get(key)
    }

    /// The place of a key's name, for complaints about its presence.
    pub(crate) fn key_span(&self, key: &str) -> Span {
        self.table.get_key_value(key).map_or_else(|| self.span.clone(), |(key, _)| key.span())
    }

    /// The value as a string.
    pub(crate) fn text(&self, key: &str, problems: &mut Problems) -> Option<Text<'a>> {
        let value = self.get(key)?;
        let found = text(value, self.source);
        if found.is_none() {
            self.wrong_type(key, value, "a string", problems);
        }
        found
    }

    /// The value as one string or a list of strings.
    pub(crate) fn texts(&self, key: &str, problems: &mut Problems) -> Option<Vec<Text<'a>>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::String(_) => text(value, self.source).map(|one| vec![one]),
            DeValue::Array(items) => {
                let mut all = Vec::with_capacity(items.len());
                for item in items.iter() {
                    match text(item, self.source) {
                        Some(one) => all.push(one),
                        None => self.wrong_type(key, item, "a string", problems),
                    }
                }
                Some(all)
            }
            _ => {
                self.wrong_type(key, value, "a string or a list of strings", problems);
                None
            }
        }
    }

    /// The value as a whole number within bounds.
    pub(crate) fn integer(
        &self,
        key: &str,
        bounds: std::ops::RangeInclusive<u64>,
        problems: &mut Problems,
    ) -> Option<u64> {
        let value = self.get(key)?;
        let DeValue::Integer(number) = value.get_ref() else {
            self.wrong_type(key, value, "a whole number", problems);
            return None;
        };
        let parsed = u64::from_str_radix(number.as_str(), number.radix()).ok();
        let found = parsed.filter(|n| bounds.contains(n));
        if found.is_none() {
            let (low, high) = (bounds.start(), bounds.end());
            let message = format!("`{key}` is {}, and must be {low} to {high}", number.as_str());
            problems.error(value.span(), message);
        }
        found
    }

    /// The value as a table.
    pub(crate) fn table(
        &self,
        key: &str,
        problems: &mut Problems,
    ) -> Option<Spanned<&'a DeTable<'a>>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Spanned::new(value.span(), table)),
            _ => {
                self.wrong_type(key, value, "a table", problems);
                None
            }
        }
    }

    /// Complains that a key is required.
    pub(crate) fn missing(&self, key: &str, problems: &mut Problems) {
        problems.error(self.span.clone(), format!("{} has no `{key}`", self.name));
    }

    /// Complains that a value is of another type.
    pub(crate) fn wrong_type(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        wanted: &str,
        problems: &mut Problems,
    ) {
        let found = type_name(value.get_ref());
        problems.error(value.span(), format!("`{key}` must be {wanted}, and is {found}"));
    }
}

/// A value as a string, if it is one.
pub(crate) fn text<'a>(value: &'a Spanned<DeValue<'a>>, source: &str) -> Option<Text<'a>> {
    let DeValue::String(found) = value.get_ref() else { return None };
    let span = value.span();
    let written = source.get(span.clone()).unwrap_or_default();
    let inner = written.get(1..written.len().saturating_sub(1)).unwrap_or_default();
    Some(Text { value: found, verbatim: inner == found.as_ref(), span })
}

/// What kind of value it is, with its article.
pub(crate) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fractional number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// The hint for a name that is not among the known ones: the nearest, else all of them.
pub(crate) fn suggest(written: &str, known: &[&str]) -> String {
    match nearest(written, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// The candidate most like what was written, if any is like it at all.
pub(crate) fn nearest<'a>(
    written: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // Lets a swap, a lost or a doubled letter of a short word pass, and keeps unrelated words out;
    // the tests hold examples of both.
    const ALIKE: f64 = 0.75;
    let written: String = written.chars().take(64).collect();
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&written, candidate), candidate))
        .filter(|(score, _)| *score >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
