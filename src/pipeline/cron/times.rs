//! The times of a day at which a line fires, for people.

use std::fmt;

use jiff::civil::Time;

use super::Cron;

/// The most times that are listed one by one.
const MOST_LISTED: usize = 6;
const MINUTES_PER_DAY: usize = 24 * 60;

/// The local times at which a line fires on the days it fires on, ascending; never empty.
///
/// Shown, they end a sentence that begins with "runs": `at 00:17, 12:17`, `every 15 minutes`, `96 times a day`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimesOfDay {
    /// Minutes from midnight.
    minutes: Vec<usize>,
}

impl Cron {
    /// The local times at which the line fires on the days it fires on.
    pub fn times_of_day(&self) -> TimesOfDay {
        let is_named =
            |minute: &usize| self.hours >> (minute / 60) & 1 == 1 && self.minutes >> (minute % 60) & 1 == 1;
        TimesOfDay { minutes: (0..MINUTES_PER_DAY).filter(is_named).collect() }
    }

    /// Whether the line fires on every day.
    pub fn is_daily(&self) -> bool {
        self.days().is_none()
    }

    /// The day fields of a line that does not fire on every day: day of the month, month, weekday.
    pub fn days(&self) -> Option<String> {
        let fields: Vec<&str> = self.as_str().split_ascii_whitespace().skip(2).collect();
        fields.iter().any(|field| *field != "*").then(|| fields.join(" "))
    }
}

impl TimesOfDay {
    /// Number of times.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.minutes.len()
    }

    /// The times, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Time> + '_ {
        self.minutes.iter().map(|minute| Time::constant((minute / 60) as i8, (minute % 60) as i8, 0, 0))
    }

    /// Minutes between any two, where they are equally far apart, over midnight too.
    fn spacing(&self) -> Option<usize> {
        let spacing = MINUTES_PER_DAY / self.minutes.len().max(1);
        let is_even = self.minutes.windows(2).all(|pair| pair[1] - pair[0] == spacing);
        (is_even && spacing * self.minutes.len() == MINUTES_PER_DAY).then_some(spacing)
    }
}

impl fmt::Display for TimesOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.minutes.len() <= MOST_LISTED {
            let times: Vec<String> = self.iter().map(|time| time.strftime("%H:%M").to_string()).collect();
            return write!(f, "at {}", times.join(", "));
        }
        let Some(spacing) = self.spacing() else { return write!(f, "{} times a day", self.minutes.len()) };
        match (spacing, spacing / 60) {
            (1, _) => write!(f, "every minute")?,
            (60, _) => write!(f, "every hour")?,
            (spacing, hours) if spacing % 60 == 0 => write!(f, "every {hours} hours")?,
            (spacing, _) => write!(f, "every {spacing} minutes")?,
        }
        match self.iter().next() {
            Some(first) if first != Time::midnight() => write!(f, " from {}", first.strftime("%H:%M")),
            _ => Ok(()),
        }
    }
}
