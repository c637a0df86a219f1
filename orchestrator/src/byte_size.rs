//! Sizes as people write them: `512M`, `64GiB`.

/// Why a text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a size: write a whole number with K, M, G or T, for example 512M or 64G")]
pub struct InvalidSize(pub String);

/// Reads a size in bytes: a whole number and K, M, G or T, powers of 1024 as Docker takes them,
/// with or without `iB` or `B` after it. A number alone is bytes.
///
/// # Errors
/// [`InvalidSize`].
pub fn parse(text: &str) -> Result<u64, InvalidSize> {
    let invalid = || InvalidSize(text.to_owned());
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| invalid())?;
    let lower = unit.to_ascii_lowercase();
    let unit = match lower.strip_suffix("ib").or(lower.strip_suffix('b')) {
        // `iB` alone is nothing.
        Some("") if lower != "b" => return Err(invalid()),
        Some(unit) => unit,
        None => &lower,
    };
    let power = ["", "k", "m", "g", "t"].iter().position(|known| *known == unit);
    let factor = power.and_then(|power| u32::try_from(power).ok()).ok_or_else(invalid)?;
    number.checked_mul(1024_u64.pow(factor)).ok_or_else(invalid)
}

/// A size for people, in the largest unit that keeps one digit before the point.
#[must_use]
pub fn words(bytes: u64) -> String {
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10;
    while tenths >= 10_240 && unit < 4 {
        tenths /= 1024;
        unit += 1;
    }
    let name = ["B", "KiB", "MiB", "GiB", "TiB"].get(unit).unwrap_or(&"TiB");
    if unit == 0 { format!("{bytes} B") } else { format!("{}.{} {name}", tenths / 10, tenths % 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in
            [("0", 0), ("10b", 10), ("1k", 1024), ("2KiB", 2048), ("512M", 536_870_912), ("1tb", 1 << 40)]
        {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "1.5G", "-1", "1 G", "1iB", "1X", "99999999999T"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!((words(5), words(1536)), ("5 B".to_owned(), "1.5 KiB".to_owned()));
    }
}
