//! Cron lines: what they may say, and the instants they mean.
//!
//! Own code, because no crate has the arena's meaning: two day fields are joined by Vixie's rule, a local time that a
//! clock change skips is made up for at once, and one that a clock change repeats fires once. A line is five sets of
//! bits; `field` reads them, `instants` walks over them, `times` says them in words.
//!
//! Absent on purpose: seconds, years, nicknames, and the extensions `L`, `W`, `#` and `?`. No clock is read here.

mod field;
mod instants;
#[cfg(test)]
mod tests;
mod times;

pub use field::FieldFault;
pub use instants::ClockChange;
pub use times::TimesOfDay;

use field::Field;
use jiff::tz::TimeZone;

use super::source::Span;

/// A checked cron line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    /// Bit 0 is Sunday, bit 6 Saturday.
    weekdays: u64,
    day_rule: DayRule,
    pace: Pace,
}

/// How the two day fields are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DayRule {
    /// Both must match: one of them begins with `*`.
    Both,
    /// One is enough: both are restricted.
    Either,
}

/// What a clock change does to a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Each local time that the line names fires once.
    WallClock,
    /// The clock is followed as it runs: the hour field is `*` or `*/n`.
    Interval,
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
    #[error("nicknames like '{name:.40}' are not supported{}", instead.map(|line| format!("; write `{line}`")).unwrap_or_default())]
    Nickname {
        /// The nickname that was written.
        name: String,
        /// The line that means the same, where there is one.
        instead: Option<&'static str>,
    },
    /// The line does not have five fields.
    #[error("expected 5 fields, found {found}; write minute, hour, day of month, month, day of week")]
    FieldCount {
        /// Number of fields there are.
        found: usize,
    },
    /// A field of the line cannot be read.
    #[error("{field} field: {fault}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What is wrong with the field.
        fault: FieldFault,
    },
}

impl Cron {
    /// Reads a line.
    ///
    /// # Errors
    /// The first thing that is wrong, and where.
    pub fn parse(line: &str) -> Result<Self, CronError> {
        let text = line.trim_ascii();
        let whole = Span::new(0, line.len());
        if text.starts_with('@') {
            let fault = CronFault::Nickname { name: text.to_owned(), instead: in_five_fields(text) };
            return Err(CronError { fault, span: whole });
        }
        let words: Vec<(usize, &str)> = line
            .split(|character: char| character.is_ascii_whitespace())
            .filter(|word| !word.is_empty())
            .map(|word| (word.as_ptr() as usize - line.as_ptr() as usize, word))
            .collect();
        let &[minute, hour, day, month, weekday] = &words[..] else {
            return Err(CronError { fault: CronFault::FieldCount { found: words.len() }, span: whole });
        };
        let read = |field: &Field, (start, word): (usize, &str)| {
            field.read(word).map_err(|(fault, span)| CronError {
                fault: CronFault::Field { field: field.name, fault },
                span: Span::new(start + span.start, start + span.end),
            })
        };
        let minutes = read(&field::MINUTE, minute)?;
        let hours = read(&field::HOUR, hour)?;
        let days = read(&field::DAY, day)?;
        let months = read(&field::MONTH, month)?;
        let weekdays = read(&field::WEEKDAY, weekday)?;
        let is_open = |word: &str| word.starts_with('*');
        let is_paced = hour.1 == "*" || (hour.1.starts_with("*/") && !hour.1.contains(','));
        Ok(Self {
            text: text.to_owned(),
            minutes,
            hours,
            days,
            months,
            weekdays: (weekdays | weekdays >> 7) & 0x7f,
            day_rule: if is_open(day.1) || is_open(weekday.1) { DayRule::Both } else { DayRule::Either },
            pace: if is_paced { Pace::Interval } else { Pace::WallClock },
        })
    }

    /// Whether both day fields are restricted and neither begins with `*`: a day of either counts.
    pub fn has_either_day(&self) -> bool {
        self.day_rule == DayRule::Either
    }

    /// The line as written, without the blanks around it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the line names local times of the day, and not an interval: its hour field is neither `*` nor `*/n`.
    ///
    /// A wall-clock line fires once for each local time: for one that a clock change skips at the first instant after
    /// the gap, for one that it repeats at the first occurrence. An interval fires whenever the clock shows its time.
    pub fn is_wall_clock(&self) -> bool {
        self.pace == Pace::WallClock
    }
}

/// The line that means the same as a nickname.
fn in_five_fields(nickname: &str) -> Option<&'static str> {
    match nickname.to_ascii_lowercase().as_str() {
        "@hourly" => Some("0 * * * *"),
        "@daily" | "@midnight" => Some("0 0 * * *"),
        "@weekly" => Some("0 0 * * 0"),
        "@monthly" => Some("0 0 1 * *"),
        "@yearly" | "@annually" => Some("0 0 1 1 *"),
        _ => None,
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
