//! The instants at which a line fires.
//!
//! A line is searched in local time, by bits: the days of a month at once, then the hours of a day, then the minutes.
//! A wall-clock line walks over local times and asks the zone for the instant of each; an interval walks over the
//! stretches of one offset, in which local and real time run alike.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, Zoned};

use super::{Cron, DayRule};

/// How far ahead a line is searched. Forty years lie between some 29 February and the next on the same day of the
/// week (2088 and 2128, as 2100 is no leap year); a line that is silent for longer never fires.
const HORIZON_YEARS: i16 = 41;

/// What a clock change has to do with an instant at which a line fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockChange {
    /// The line names a local time that does not exist; it fires at the first instant after the gap.
    Moved {
        /// The first such local time.
        nominal: DateTime,
    },
    /// The local time occurs twice, and this is the first.
    FirstOfTwo,
    /// The local time occurs twice, and this is the second; of an interval only.
    SecondOfTwo,
}

/// A minute of a day in local time.
#[derive(Debug, Clone, Copy)]
struct Minute {
    date: Date,
    /// Number in the day, from 0; 1440 is the day's end.
    of_day: u32,
}

impl Minute {
    /// The minute in which a local time lies.
    fn of(local: DateTime) -> Self {
        Self { date: local.date(), of_day: local.hour() as u32 * 60 + local.minute() as u32 }
    }

    /// The first minute that does not begin before a local time.
    fn from(local: DateTime) -> Self {
        if local.second() == 0 && local.subsec_nanosecond() == 0 {
            Self::of(local)
        } else {
            Self::of(local).next()
        }
    }

    fn next(self) -> Self {
        Self { of_day: self.of_day + 1, ..self }
    }
}

impl Cron {
    /// The first instant after this one at which the line fires, in that instant's zone; `None` if there is none
    /// within 41 years, which means never.
    pub fn next_after(&self, after: &Zoned) -> Option<Zoned> {
        let zone = after.time_zone();
        let at = if self.is_wall_clock() { self.next_local_time(after) } else { self.next_reading(after) }?;
        Some(at.to_zoned(zone.clone()))
    }

    /// The instants after this one at which the line fires, in that instant's zone, ascending.
    pub fn after<'c>(&'c self, start: &Zoned) -> impl Iterator<Item = Zoned> + use<'c> {
        std::iter::successors(self.next_after(start), |at| self.next_after(at))
    }

    /// What a clock change has to do with an instant at which the line fires, in its zone; `None` if nothing.
    pub fn clock_change(&self, at: &Zoned) -> Option<ClockChange> {
        let (zone, local) = (at.time_zone(), at.datetime());
        if let AmbiguousOffset::Fold { before, .. } = zone.to_ambiguous_timestamp(local).offset() {
            let is_first = at.offset() == before;
            return Some(if is_first { ClockChange::FirstOfTwo } else { ClockChange::SecondOfTwo });
        }
        if !self.is_wall_clock() {
            return None;
        }
        let just_before = at.timestamp().checked_sub(SignedDuration::from_nanos(1)).ok()?;
        let gap = zone.to_offset(just_before).to_datetime(at.timestamp());
        let nominal = (gap < local).then(|| self.next_minute(Minute::from(gap))).flatten()?;
        (nominal < local).then_some(ClockChange::Moved { nominal })
    }

    /// The next instant of a line that fires once for each local time.
    ///
    /// The instants of ascending local times ascend, and those of one gap are the same. So nothing is missed by
    /// starting from the local time of `after`, and what is not later than `after` is passed over: it lies in the
    /// second run of a repeated hour.
    fn next_local_time(&self, after: &Zoned) -> Option<Timestamp> {
        let mut from = Minute::of(after.datetime()).next();
        loop {
            let local = self.next_minute(from)?;
            let at = first_instant(after.time_zone(), local)?;
            if at > after.timestamp() {
                return Some(at);
            }
            from = Minute::of(local).next();
        }
    }

    /// The next instant at which the clock shows a time of the line.
    fn next_reading(&self, after: &Zoned) -> Option<Timestamp> {
        let zone = after.time_zone();
        let mut since = after.timestamp();
        let mut from = Minute::of(after.datetime()).next();
        while from.date.year() - after.year() <= HORIZON_YEARS {
            let at = zone.to_offset(since).to_timestamp(self.next_minute(from)?).ok()?;
            let Some(change) = zone.following(since).next().map(|change| change.timestamp()) else {
                return Some(at);
            };
            if at < change {
                return Some(at);
            }
            since = change;
            from = Minute::from(zone.to_offset(change).to_datetime(change));
        }
        None
    }

    /// The first local time of the line that is not before this minute.
    fn next_minute(&self, from: Minute) -> Option<DateTime> {
        let day = self.next_day(from.date)?;
        let time = self.time_from(if day == from.date { from.of_day } else { 0 });
        if let Some(time) = time {
            return Some(day.to_datetime(time));
        }
        Some(self.next_day(day.tomorrow().ok()?)?.to_datetime(self.time_from(0)?))
    }

    /// The first time of a day of the line that is not before this minute of the day.
    fn time_from(&self, of_day: u32) -> Option<Time> {
        let (hour, minute) = (of_day / 60, of_day % 60);
        let is_in_hour = self.hours & 1u64.checked_shl(hour)? != 0;
        let in_hour =
            is_in_hour.then(|| first_from(self.minutes, minute)).flatten().map(|found| (hour, found));
        let (hour, minute) =
            in_hour.or_else(|| Some((first_from(self.hours, hour + 1)?, first_from(self.minutes, 0)?)))?;
        Time::new(hour as i8, minute as i8, 0, 0).ok()
    }

    /// The first day of the line from this one on.
    fn next_day(&self, from: Date) -> Option<Date> {
        let mut first = from.first_of_month();
        let mut day = from.day() as u32;
        for _ in 0..=HORIZON_YEARS * 12 {
            if self.months & 1 << first.month() != 0
                && let Some(found) = first_from(self.days_of(first), day)
            {
                return Date::new(first.year(), first.month(), found as i8).ok();
            }
            first = first.last_of_month().tomorrow().ok()?;
            day = 1;
        }
        None
    }

    /// The days of a month that the line names, as bits; `first` is the month's first day.
    fn days_of(&self, first: Date) -> u64 {
        const WEEKS: u64 = 1 | 1 << 7 | 1 << 14 | 1 << 21 | 1 << 28;
        let weekday = first.weekday().to_sunday_zero_offset() as u32;
        let week = (self.weekdays >> weekday | self.weekdays << (7 - weekday)) & 0x7f;
        let by_weekday = (week * WEEKS) << 1;
        let named = match self.day_rule {
            DayRule::Both => self.days & by_weekday,
            DayRule::Either => self.days | by_weekday,
        };
        named & ((2 << first.days_in_month()) - 1) & !1
    }
}

/// The least value of a set that is not below this one.
fn first_from(bits: u64, least: u32) -> Option<u32> {
    let left = bits & u64::MAX.checked_shl(least)?;
    (left != 0).then(|| left.trailing_zeros())
}

/// The first instant at which the clock shows this local time, or the end of the gap in which it lies.
fn first_instant(zone: &TimeZone, local: DateTime) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { before: offset, .. } => {
            offset.to_timestamp(local).ok()
        }
        AmbiguousOffset::Gap { after, .. } => {
            // By the later offset this local time lies before the change, by no more than the gap is long.
            let before = after.to_timestamp(local).ok()?;
            zone.following(before).next().map(|change| change.timestamp())
        }
    }
}
