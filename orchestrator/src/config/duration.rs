//! Durations as people write them: `30s`, `500ms`, `1m30s`.

use std::fmt;
use std::time::Duration;

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration: write for example 500ms, 30s, 5m, 1h or 1m30s")]
pub struct InvalidDuration(pub String);

/// The units, the larger first, in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a duration: whole numbers with the units d, h, m, s and ms, larger units first.
///
/// # Errors
/// [`InvalidDuration`], also for a number without a unit: nobody knows whether 30 was meant as
/// seconds.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    parse_millis(text).map(Duration::from_millis).ok_or_else(|| InvalidDuration(text.to_owned()))
}

fn parse_millis(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    let mut units = UNITS.iter();
    let mut total: u64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits_end = rest.find(|c: char| !c.is_ascii_digit())?;
        let (digits, tail) = rest.split_at(digits_end);
        let unit_end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (name, tail) = tail.split_at(unit_end);
        // `find` goes on from the last unit, so that a unit comes once and after larger ones.
        let (_, millis) = units.find(|(unit, _)| *unit == name)?;
        let number: u64 = digits.parse().ok()?;
        total = total.checked_add(number.checked_mul(*millis)?)?;
        rest = tail;
    }
    Some(total)
}

/// Prints a duration as [`parse`] reads it; below a millisecond nothing is shown.
pub struct Written(pub Duration);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if left == 0 {
            return f.write_str("0s");
        }
        for (unit, millis) in UNITS {
            if left >= millis {
                write!(f, "{}{unit}", left / millis)?;
                left %= millis;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn usual_durations() {
        assert_eq!(parse("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("1d1h"), Ok(Duration::from_secs(90_000)));
    }

    #[test]
    fn what_is_no_duration() {
        for text in ["", "30", "s", "-1s", "1.5s", "30 s", "1s1m", "1s1s", "1w", "999999999999d"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0u64..10_000_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&Written(duration).to_string()), Ok(duration));
        }
    }
}
