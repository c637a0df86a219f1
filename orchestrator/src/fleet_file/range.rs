//! Ranges in names and addresses: `gpu-[01-16]`, `r[1-2]-n[01-04]`, `10.0.0.[1,3,7-9]`.
//!
//! A pattern is text with sets of numbers in square brackets. A set is a comma-separated list of
//! numbers and `low-high` pairs, both ends included. A number written with a leading zero keeps
//! its width. Several sets multiply, the last one counting fastest. [`compress`] is the way back:
//! it prints a set of names as few patterns, for messages about many hosts.

use std::collections::BTreeMap;
use std::fmt;

/// Why a text is not a pattern, and where in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct RangeError {
    /// The bytes of the text at fault.
    pub at: std::ops::Range<usize>,
    /// What is wrong there.
    pub kind: RangeErrorKind,
}

/// What is wrong with a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeErrorKind {
    /// A `[` without its `]`.
    #[error("`[` is not closed")]
    Unclosed,
    /// A `]` without its `[`.
    #[error("`]` closes nothing")]
    Unopened,
    /// `[]`, or nothing between two commas.
    #[error("a range needs numbers, as in [01-16] or [1,3,7-9]")]
    Empty,
    /// Something that is no number of at most nine digits.
    #[error("not a number of at most nine digits; ranges are written [01-16] or [1,3,7-9]")]
    NotANumber,
    /// `[01:16]`, as Ansible writes it.
    #[error("ranges are written with `-`, as in [01-16]")]
    Colon,
    /// The second number is smaller than the first.
    #[error("the range runs backwards")]
    Backwards,
    /// `[1-016]`: it cannot be told how wide the numbers between are.
    #[error("one end is padded with zeros to another width than the other end")]
    Padding,
}

/// A text with zero or more sets of numbers in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Set(Vec<Span>),
}

/// Consecutive numbers of one width; width 0 is unpadded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    low: u32,
    high: u32,
    width: usize,
}

impl Span {
    fn count(self) -> u64 {
        u64::from(self.high) - u64::from(self.low) + 1
    }
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`RangeError`] with the place of the first mistake.
    pub fn parse(text: &str) -> Result<Self, RangeError> {
        let mut parts = Vec::new();
        let mut rest = text;
        let mut offset = 0;
        while let Some(bracket) = rest.find(['[', ']']) {
            let (literal, tail) = rest.split_at(bracket);
            let open = offset + bracket;
            let Some(body) = tail.strip_prefix('[') else {
                return Err(error(open..open + 1, RangeErrorKind::Unopened));
            };
            let Some(close) = body.find(']') else {
                return Err(error(open..text.len(), RangeErrorKind::Unclosed));
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            let (numbers, tail) = body.split_at(close);
            parts.push(Part::Set(parse_set(numbers, open + 1)?));
            rest = tail.strip_prefix(']').unwrap_or_default();
            offset = open + 1 + close + 1;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// How many texts it stands for, without making them.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.parts.iter().fold(1, |product: u64, part| product.saturating_mul(part.count()))
    }

    /// True when it has a set of numbers, even one of a single number.
    #[must_use]
    pub fn has_ranges(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Set(_)))
    }

    /// The texts, in order; the last set counts fastest. Ask [`Pattern::count`] first.
    pub fn expand(&self) -> impl Iterator<Item = String> + '_ {
        (0..self.count()).map(|index| self.text_at(index))
    }

    /// The text with this index in the expansion.
    fn text_at(&self, index: u64) -> String {
        let mut pieces = Vec::with_capacity(self.parts.len());
        let mut left = index;
        for part in self.parts.iter().rev() {
            match part {
                Part::Literal(text) => pieces.push(text.clone()),
                Part::Set(spans) => {
                    let size = part.count();
                    pieces.push(number_at(spans, left % size));
                    left /= size;
                }
            }
        }
        pieces.reverse();
        pieces.concat()
    }
}

impl Part {
    fn count(&self) -> u64 {
        match self {
            Self::Literal(_) => 1,
            Self::Set(spans) => spans.iter().map(|span| span.count()).fold(0, u64::saturating_add),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Literal(text) => f.write_str(text)?,
                Part::Set(spans) => write_set(f, spans)?,
            }
        }
        Ok(())
    }
}

fn write_set(f: &mut impl fmt::Write, spans: &[Span]) -> fmt::Result {
    f.write_char('[')?;
    for (index, Span { low, high, width }) in spans.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        write!(f, "{comma}{low:0width$}")?;
        if high > low {
            write!(f, "-{high:0width$}")?;
        }
    }
    f.write_char(']')
}

fn error(at: std::ops::Range<usize>, kind: RangeErrorKind) -> RangeError {
    RangeError { at, kind }
}

fn number_at(spans: &[Span], index: u64) -> String {
    let mut left = index;
    for span in spans {
        if left < span.count() {
            let (number, width) = (u64::from(span.low) + left, span.width);
            return format!("{number:0width$}");
        }
        left -= span.count();
    }
    String::new()
}

fn parse_set(numbers: &str, offset: usize) -> Result<Vec<Span>, RangeError> {
    let mut spans = Vec::new();
    let mut at = offset;
    for item in numbers.split(',') {
        let place = at..at + item.len();
        at = place.end + 1;
        spans.push(parse_span(item).map_err(|kind| error(place, kind))?);
    }
    Ok(spans)
}

fn parse_span(item: &str) -> Result<Span, RangeErrorKind> {
    if item.trim().is_empty() {
        return Err(RangeErrorKind::Empty);
    }
    let (low, high) = item.split_once('-').unwrap_or((item, item));
    let (low, high) = (low.trim(), high.trim());
    if let (None, Some((a, b))) = (item.find('-'), item.split_once(':'))
        && parse_number(a.trim()).is_some()
        && parse_number(b.trim()).is_some()
    {
        return Err(RangeErrorKind::Colon);
    }
    let first = parse_number(low).ok_or(RangeErrorKind::NotANumber)?;
    let last = parse_number(high).ok_or(RangeErrorKind::NotANumber)?;
    if last < first {
        return Err(RangeErrorKind::Backwards);
    }
    let padded = |digits: &str| digits.len() > 1 && digits.starts_with('0');
    let width = match (padded(low), padded(high)) {
        (false, false) => 0,
        _ if low.len() == high.len() => low.len(),
        _ => return Err(RangeErrorKind::Padding),
    };
    Ok(Span { low: first, high: last, width })
}

fn parse_number(digits: &str) -> Option<u32> {
    let plain = (1..=9).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// Prints names compactly: `gpu-[01-04,07],login`. Expanding what it prints gives exactly the
/// given names, without repetitions.
///
/// Only the last run of digits in a name is folded, and only with names that are otherwise equal
/// and padded alike.
#[must_use]
pub fn compress<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut sorted: Vec<&str> = names.into_iter().collect();
    sorted.sort_unstable();
    sorted.dedup();

    let mut families: BTreeMap<(&str, &str), BTreeMap<usize, Vec<u32>>> = BTreeMap::new();
    let mut printed: Vec<String> = Vec::new();
    for name in sorted {
        match split_number(name) {
            Some((family, width, number)) => {
                families.entry(family).or_default().entry(width).or_default().push(number);
            }
            None => printed.push(name.to_owned()),
        }
    }
    for ((before, after), mut widths) in families {
        let unpadded = widths.remove(&0).unwrap_or_default();
        for number in unpadded {
            // `10` continues `08, 09`; it stays unpadded where nothing is padded to two digits.
            let digits = number.to_string().len();
            let width = if widths.contains_key(&digits) { digits } else { 0 };
            widths.entry(width).or_default().push(number);
        }
        printed.extend(widths.into_iter().map(|(width, n)| print_group(before, after, width, n)));
    }
    printed.sort_unstable();
    printed.join(",")
}

/// Splits at the last run of digits: (before, after), width and number. The width is 0 when the
/// number has no leading zero.
fn split_number(name: &str) -> Option<((&str, &str), usize, u32)> {
    let end = name.rfind(|c: char| c.is_ascii_digit())? + 1;
    let head = name.get(..end)?;
    let start = head.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| {
        at + head.get(at..).and_then(|tail| tail.chars().next()).map_or(1, char::len_utf8)
    });
    let digits = head.get(start..)?;
    let number = parse_number(digits)?;
    let padded = digits.len() > 1 && digits.starts_with('0');
    let width = if padded { digits.len() } else { 0 };
    Some(((name.get(..start)?, name.get(end..)?), width, number))
}

fn print_group(before: &str, after: &str, width: usize, mut numbers: Vec<u32>) -> String {
    numbers.sort_unstable();
    let mut spans: Vec<Span> = Vec::new();
    for number in numbers {
        match spans.last_mut() {
            Some(span) if span.high.checked_add(1) == Some(number) => span.high = number,
            _ => spans.push(Span { low: number, high: number, width }),
        }
    }
    let mut out = before.to_owned();
    match spans.as_slice() {
        [Span { low, high, .. }] if low == high => out.push_str(&format!("{low:0width$}")),
        // Writing to a String cannot fail.
        spans => drop(write_set(&mut out, spans)),
    }
    out.push_str(after);
    out
}
