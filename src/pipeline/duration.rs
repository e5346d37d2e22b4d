//! Durations as people write them: `90m`, `2h`, `120s`, `100ms`, `1h30m`.

use std::fmt::Write as _;
use std::time::Duration;

/// Why text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// There is no number where one was expected.
    #[error("a duration is a number and a unit, such as `90m`")]
    NoNumber,
    /// There is no unit after a number, or one that does not exist.
    #[error("`{unit}` is not a unit of time: use ms, s, m, h or d")]
    NoUnit {
        /// What stands there in its stead.
        unit: String,
    },
    /// The duration is more than a year.
    #[error("durations end at 365 days")]
    TooLong,
}

const LONGEST_MS: u128 = 365 * 24 * 3_600_000;

/// Reads a duration.
///
/// # Errors
/// Where the text is no sequence of whole numbers with units, or is more than a year.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let mut rest = text.trim();
    let mut total: u128 = 0;
    if rest.is_empty() {
        return Err(DurationError::NoNumber);
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let letters = after.len() - after.trim_start_matches(|c: char| c.is_alphabetic()).len();
        let (unit, after) = after.split_at(letters);
        if number.is_empty() {
            return Err(DurationError::NoNumber);
        }
        let number: u128 = number.parse().map_err(|_| DurationError::TooLong)?;
        let scale = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 24 * 3_600_000,
            _ => return Err(DurationError::NoUnit { unit: unit.to_owned() }),
        };
        total =
            number.checked_mul(scale).and_then(|ms| ms.checked_add(total)).ok_or(DurationError::TooLong)?;
        rest = after;
    }
    if total > LONGEST_MS {
        return Err(DurationError::TooLong);
    }
    Ok(Duration::from_millis(total as u64))
}

/// Writes a duration as text that [`parse`] reads back, to the millisecond.
pub fn print(duration: Duration) -> String {
    let mut rest = duration.as_millis();
    let mut text = String::new();
    for (unit, scale) in [("d", 24 * 3_600_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        let count = rest / scale;
        rest %= scale;
        if count > 0 {
            let _ = write!(text, "{count}{unit}");
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_numbers_with_units() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(parse(text).ok().map(|d| d.as_millis() as u64), expected, "{text}");
        };
        check("90m", Some(5_400_000));
        check("1h30m", Some(5_400_000));
        check("100ms", Some(100));
        check("0s", Some(0));
        check("90", None);
        check("m", None);
        check("1.5h", None);
        check("-1s", None);
        check("9999999d", None);
        check("99999999999999999999999999999999999999999d", None);
        check("", None);
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(ms in 0..LONGEST_MS as u64) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse(&print(duration)), Ok(duration));
        }

        #[test]
        fn never_panics(text in any::<String>()) {
            let _ = parse(&text);
        }
    }
}
