//! A complaint with its place, and how it reads on a terminal.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Problem, Span};
use crate::printable::is_format;

/// More errors than this are counted and not shown: the rest usually follows from the first.
pub const MAX_DIAGNOSTICS: usize = 20;

/// A quoted line longer than this is cut around the caret.
const MAX_QUOTED_CHARS: usize = 120;

/// One complaint about one place of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it, where that can be said.
    pub hint: Option<String>,
    /// The line, harmless to print: no control characters, cut if long.
    #[serde(skip)]
    quoted: String,
    /// Characters of `quoted` before the caret.
    #[serde(skip)]
    caret: usize,
    /// How many characters the carets underline.
    #[serde(skip)]
    width: usize,
}

impl Diagnostic {
    fn locate(text: &str, problem: &Problem) -> Self {
        let Span { start, end } = clamp(text, &problem.span);
        let before = text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line_text = text.get(line_start..).unwrap_or_default();
        let line_text = line_text.split(['\n', '\r']).next().unwrap_or_default();
        let column = text.get(line_start..start).unwrap_or_default().chars().count();
        let length = line_text.chars().count();
        let marked = text.get(start..end).unwrap_or_default();
        let marked = marked.split(['\n', '\r']).next().unwrap_or_default().chars().count();

        let skipped = if length <= MAX_QUOTED_CHARS {
            0
        } else {
            column.saturating_sub(MAX_QUOTED_CHARS / 2)
        };
        let shown = if problem.secret { "" } else { line_text };
        let mut quoted: String =
            shown.chars().skip(skipped).take(MAX_QUOTED_CHARS).map(printable).collect();
        let mut caret = column - skipped;
        if skipped > 0 {
            quoted.insert_str(0, "...");
            caret += 3;
        }
        if length > skipped + MAX_QUOTED_CHARS && !problem.secret {
            quoted.push_str("...");
        }
        let room = quoted.chars().count().saturating_sub(caret).max(1);
        Self {
            line: before.matches('\n').count() + 1,
            column: column + 1,
            message: problem.message.clone(),
            hint: problem.hint.clone(),
            quoted,
            caret,
            width: marked.clamp(1, room),
        }
    }

    /// The complaint as several lines: `path:line:column: message`, the line, a caret, the hint.
    pub fn render(&self, path: &Path) -> String {
        let mut out = format!("{}:{}:{}: {}", path.display(), self.line, self.column, self.message);
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        if !self.quoted.trim().is_empty() {
            let carets = format!("{}{}", " ".repeat(self.caret), "^".repeat(self.width));
            out.push_str(&format!(
                "\n {margin} |\n {number} | {}\n {margin} | {carets}",
                self.quoted
            ));
        }
        if let Some(hint) = &self.hint {
            out.push_str(&format!("\n {margin} = hint: {hint}"));
        }
        out
    }
}

/// Every error of one file, in the order of the file, capped at [`MAX_DIAGNOSTICS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostics {
    /// The file.
    pub path: PathBuf,
    /// The first errors.
    pub items: Vec<Diagnostic>,
    /// How many more there were.
    pub omitted: usize,
}

impl Diagnostics {
    pub(super) fn locate(path: &Path, text: &str, problems: &[Problem]) -> Option<Self> {
        if problems.is_empty() {
            return None;
        }
        let items = locate_all(text, problems);
        let omitted = problems.len() - items.len();
        Some(Self { path: path.to_owned(), items, omitted })
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.items.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            f.write_str(&item.render(&self.path))?;
        }
        match self.omitted {
            0 => Ok(()),
            1 => f.write_str("\n\nand 1 more error"),
            more => write!(f, "\n\nand {more} more errors"),
        }
    }
}

/// Places the first [`MAX_DIAGNOSTICS`] problems, in the order of the file.
///
/// The cut comes first: finding a line costs a pass over the file.
pub(super) fn locate_all(text: &str, problems: &[Problem]) -> Vec<Diagnostic> {
    let mut sorted: Vec<&Problem> = problems.iter().collect();
    sorted.sort_by_key(|problem| (problem.span.start, problem.span.end));
    sorted
        .into_iter()
        .take(MAX_DIAGNOSTICS)
        .map(|problem| Diagnostic::locate(text, problem))
        .collect()
}

/// Moves both ends onto character boundaries within the text.
fn clamp(text: &str, span: &Span) -> Span {
    let mut start = span.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = span.end.clamp(start, text.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

/// A file is the operator's own, and still may have come from elsewhere: no escape sequence of it
/// reaches the terminal.
fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c if is_format(c) => '\u{fffd}',
        c => c,
    }
}
