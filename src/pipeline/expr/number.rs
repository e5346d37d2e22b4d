//! Numbers as text, both ways.
//!
//! Printing is .NET's `G15`, because the C# runner is what executes GitHub's pipelines: 15 significant digits,
//! fixed between 1e-5 and 1e15, else `d.dddE+XX`. Reading is that runner's literal grammar.

/// Text -> number; `None` where the runner would say not-a-number. The text is not trimmed.
pub(crate) fn parse(text: &str) -> Option<f64> {
    match text {
        "Infinity" => return Some(f64::INFINITY),
        "-Infinity" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return integer(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return integer(digits, 8);
    }
    let is_decimal =
        text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
    if is_decimal { text.parse().ok() } else { None }
}

/// A 32-bit integer in two's complement.
fn integer(digits: &str, radix: u32) -> Option<f64> {
    if digits.starts_with('+') {
        return None;
    }
    u32::from_str_radix(digits, radix).ok().map(|bits| f64::from(bits.cast_signed()))
}

/// Number -> text by `G15`; negative zero is `0`, and the three special values print by name.
pub(crate) fn print(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    if number == 0.0 {
        return "0".to_owned();
    }
    let scientific = format!("{:.14e}", number.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let mut digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.truncate(digits.trim_end_matches('0').len().max(1));
    let sign = if number < 0.0 { "-" } else { "" };
    if !(-5 < exponent && exponent < 15) {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let mark = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{first}{point}{rest}E{mark}{:02}", exponent.abs());
    }
    let Ok(whole) = usize::try_from(exponent + 1) else {
        return format!("{sign}0.{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1));
    };
    if whole == 0 {
        return format!("{sign}0.{digits}");
    }
    if digits.len() <= whole {
        return format!("{sign}{digits}{}", "0".repeat(whole - digits.len()));
    }
    let (before, after) = digits.split_at(whole);
    format!("{sign}{before}.{after}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prints_as_the_runner_does() {
        let check = |number: f64, expected: &str| assert_eq!(print(number), expected);
        check(2.0, "2");
        check(-0.0, "0");
        check(0.1 + 0.2, "0.3");
        check(1e15, "1E+15");
        check(123_456_789_012_345.0, "123456789012345");
        check(999_999_999_999_999.9, "1E+15");
        check(1_234_567_890_123_456_789.0, "1.23456789012346E+18");
        check(0.0001, "0.0001");
        check(0.00012, "0.00012");
        check(0.00001, "1E-05");
        check(0.25, "0.25");
        check(-12.5, "-12.5");
        check(1.5e300, "1.5E+300");
        check(f64::NAN, "NaN");
        check(f64::NEG_INFINITY, "-Infinity");
    }

    #[test]
    fn reads_the_literal_grammar() {
        let check = |text: &str, expected: Option<f64>| assert_eq!(parse(text), expected, "{text}");
        check("42", Some(42.0));
        check("-9.2", Some(-9.2));
        check("+1", Some(1.0));
        check(".5", Some(0.5));
        check("1e3", Some(1000.0));
        check("0x1F", Some(31.0));
        check("0xFFFFFFFF", Some(-1.0));
        check("0o17", Some(15.0));
        check("-0x1", None);
        check("inf", None);
        check("nan", None);
        check("12abc", None);
        check("", None);
        check("-", None);
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_to_fifteen_digits(number in proptest::num::f64::NORMAL) {
            let again = parse(&print(number)).unwrap();
            let overflowed = again.is_infinite() && number.abs() > 1.7e308;
            prop_assert!(overflowed || ((again - number) / number).abs() < 1e-14);
        }
    }
}
