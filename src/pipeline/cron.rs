//! Cron lines: five fields, checked here, computed by `croner` (this is the only file that names it).

use std::str::FromStr as _;

use croner::parser::{CronParser, Seconds, Year};
use jiff::Zoned;
use jiff::tz::TimeZone;

use super::source::Span;

const FIELDS: [&str; 5] = ["minute", "hour", "day of month", "month", "day of week"];

/// A checked cron line.
#[derive(Debug, Clone)]
pub struct Cron {
    text: String,
    pattern: croner::Cron,
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Why a line is not cron, and where in the line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct CronError {
    /// What is wrong with the line.
    pub fault: CronFault,
    /// Where it is wrong, in bytes of the line.
    pub span: Span,
}

/// What is wrong with a cron line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronFault {
    /// The line is a nickname: `@daily` and its like.
    #[error("`{name}` is a nickname; write the five fields{}", instead.map(|line| format!(": `{line}`")).unwrap_or_default())]
    Nickname {
        /// The nickname that was written.
        name: String,
        /// The line that means the same, where there is one.
        instead: Option<&'static str>,
    },
    /// The line does not have five fields.
    #[error("a cron line has five fields (minute, hour, day of month, month, day of week); this has {found}")]
    FieldCount {
        /// Number of fields there are.
        found: usize,
    },
    /// A field of the line cannot be read.
    #[error("{field} field: `{value}` {why}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What stands in the field.
        value: String,
        /// What is wrong with the field.
        why: String,
    },
}

impl Cron {
    /// Reads a line.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn parse(line: &str) -> Result<Self, CronError> {
        let whole = Span::new(0, line.len());
        if line.trim_start().starts_with('@') {
            let name = line.trim().to_owned();
            let instead = match name.to_ascii_lowercase().as_str() {
                "@hourly" => Some("0 * * * *"),
                "@daily" | "@midnight" => Some("0 0 * * *"),
                "@weekly" => Some("0 0 * * 0"),
                "@monthly" => Some("0 0 1 * *"),
                "@yearly" | "@annually" => Some("0 0 1 1 *"),
                _ => None,
            };
            return Err(CronError { fault: CronFault::Nickname { name, instead }, span: whole });
        }
        let fields: Vec<(usize, &str)> = line
            .split_whitespace()
            .map(|field| (field.as_ptr() as usize - line.as_ptr() as usize, field))
            .collect();
        if fields.len() != FIELDS.len() {
            return Err(CronError { fault: CronFault::FieldCount { found: fields.len() }, span: whole });
        }
        for (index, (start, value)) in fields.iter().enumerate() {
            if let Err(why) = check_field(index, value) {
                let fault = CronFault::Field { field: FIELDS[index], value: (*value).to_owned(), why };
                return Err(CronError { fault, span: Span::new(*start, start + value.len()) });
            }
        }
        let pattern = parser().parse(line.trim()).map_err(|error| CronError {
            fault: CronFault::Field {
                field: FIELDS[2],
                value: line.trim().to_owned(),
                why: error.to_string(),
            },
            span: whole,
        })?;
        Ok(Self { text: line.trim().to_owned(), pattern })
    }

    /// The line as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first instant after this one at which the line fires, in that instant's zone; `None` if it never does.
    pub fn next_after(&self, after: &Zoned) -> Option<Zoned> {
        self.pattern.find_next_occurrence(after, false).ok()
    }
}

/// The zone of an IANA name.
///
/// # Errors
/// The names that are close to one that does not exist.
pub fn time_zone(name: &str) -> Result<TimeZone, Vec<String>> {
    TimeZone::get(name).map_err(|_| {
        let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        super::suggest::closest(name, names.iter().map(String::as_str))
    })
}

fn parser() -> CronParser {
    CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).sloppy_ranges(true).build()
}

fn check_field(index: usize, value: &str) -> Result<(), String> {
    const BOUNDS: [(u32, u32); 5] = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)];
    const WORDS: [&[&str]; 5] = [
        &[],
        &[],
        &[],
        &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
        &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    ];
    let (least, most) = BOUNDS[index];
    let number = |text: &str| -> Result<u32, String> {
        let word = WORDS[index].iter().position(|word| word.eq_ignore_ascii_case(text));
        if let Some(position) = word {
            return Ok(position as u32 + least);
        }
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let found = u32::from_str(text).ok().filter(|_| is_number).ok_or_else(|| {
            format!(
                "has `{text}`, which is not a number{}",
                if WORDS[index].is_empty() { "" } else { " or a name" }
            )
        })?;
        if (least..=most).contains(&found) {
            Ok(found)
        } else {
            Err(format!("is out of range {least}-{most}"))
        }
    };
    for item in value.split(',') {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        if let Some(step) = step
            && !step.parse::<u32>().is_ok_and(|step| (1..=most).contains(&step))
        {
            return Err(format!("has the step `{step}`; steps are 1 to {most}"));
        }
        match range.split_once('-') {
            _ if range == "*" => {}
            None => {
                number(range)?;
            }
            Some((from, to)) => {
                if number(from)? > number(to)? {
                    return Err(format!("has the range `{range}`, which runs backwards"));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(line: &str, expected: Result<&str, &str>) {
        let start: Zoned = "2025-11-01T00:00:00[America/New_York]".parse().unwrap();
        let found = Cron::parse(line)
            .map(|cron| cron.next_after(&start).map_or("never".to_owned(), |at| at.to_string()));
        let found = found.map_err(|error| format!("{} @{}-{}", error, error.span.start, error.span.end));
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{line}");
    }

    #[test]
    fn lines_fire_or_say_which_field_is_wrong() {
        check("17 */6 * * *", Ok("2025-11-01T00:17:00-04:00[America/New_York]"));
        check("20/15 1 * * *", Ok("2025-11-01T01:20:00-04:00[America/New_York]"));
        check("0 0 * JAN mon-FRI", Ok("2026-01-01T00:00:00-05:00[America/New_York]"));
        check("0 0 31 2 *", Ok("never"));
        check("60 * * * *", Err("minute field: `60` is out of range 0-59 @0-2"));
        check("0 0 L * *", Err("day of month field: `L` has `L`, which is not a number @4-5"));
        check("0 5-3 * * *", Err("hour field: `5-3` has the range `5-3`, which runs backwards @2-5"));
        check("*/0 * * * *", Err("minute field: `*/0` has the step `0`; steps are 1 to 59 @0-3"));
        check("@daily", Err("`@daily` is a nickname; write the five fields: `0 0 * * *` @0-6"));
        check(
            "0 * * * * *",
            Err(
                "a cron line has five fields (minute, hour, day of month, month, day of week); this has 6 @0-11",
            ),
        );
    }

    #[test]
    fn zones_are_iana_names() {
        assert!(time_zone("Europe/Berlin").is_ok());
        assert_eq!(time_zone("Europe/Berln"), Err(vec!["Europe/Berlin".to_owned()]));
    }

    proptest! {
        #[test]
        fn never_panics(line in "[0-9*/,a-zA-Z@ é-]{0,30}") {
            let _ = Cron::parse(&line);
        }
    }
}
