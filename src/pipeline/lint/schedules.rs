//! Checks of schedules against the pipeline they start, the clock and the rounds of the past.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, ToSpan as _};

use crate::pipeline::code::Code;
use crate::pipeline::cron::ClockChange;
use crate::pipeline::definition::{Overlap, Pipeline, Schedule};
use crate::pipeline::diagnostic::Diagnostic;

pub(super) fn findings(pipeline: &Pipeline) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (index, schedule) in pipeline.schedules.iter().enumerate() {
        if let Err(error) = pipeline.inputs(&schedule.inputs) {
            let message = format!("this schedule cannot start a round: {error}");
            let finding = Diagnostic::error(Code::ScheduleInputs, schedule.span, message);
            found.push(finding.help("set it under `inputs:` of the schedule, or give it a default"));
        }
        let is_same = |other: &&Schedule| other.cron == schedule.cron && other.timezone == schedule.timezone;
        if let Some(first) = pipeline.schedules[..index].iter().find(is_same) {
            let message = "this schedule is there already: its ticks would be the same";
            found.push(
                Diagnostic::error(Code::RepeatedSchedule, schedule.span, message)
                    .label(first.span, "the first one"),
            );
        }
        if schedule.cron.has_either_day() {
            let message = "both day fields are restricted, so a day of either counts";
            let help = "if a day must be both, begin one with `*`: `*/1` restricts nothing";
            found.push(Diagnostic::warning(Code::EitherDay, schedule.span, message).help(help));
        }
    }
    found
}

/// How far ahead ticks are looked at: every zone changes its clock within a year, if it does at all.
const AHEAD_DAYS: i64 = 366;
/// The most ticks of a schedule that are looked at.
const MOST_TICKS: usize = 10_000;

impl Pipeline {
    /// What is to be said of the schedules as they are seen today: what a clock change does to their ticks, ticks closer
    /// together than `usual` (how long a round of this pipeline takes, where that is known), and minute 0.
    pub fn schedule_advice(&self, now: Timestamp, usual: Option<Duration>) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        for schedule in &self.schedules {
            found.extend(full_hour(schedule));
            found.extend(clock_change(schedule, now));
            found.extend(usual.and_then(|usual| short_interval(schedule, now, usual)));
        }
        found
    }
}

fn full_hour(schedule: &Schedule) -> Option<Diagnostic> {
    let times = schedule.cron.times_of_day();
    let is_spread = schedule.jitter > Duration::ZERO;
    let message = format!("this schedule fires on the full hour, when many others do: {}", schedule.runs());
    let advice = Diagnostic::warning(Code::FullHour, schedule.span, message)
        .help("take another minute, or spread the ticks by `jitter`");
    (!is_spread && times.len() <= 24 && times.iter().any(|time| time.minute() == 0)).then_some(advice)
}

fn clock_change(schedule: &Schedule, now: Timestamp) -> Option<Diagnostic> {
    if !schedule.cron.is_wall_clock() {
        return None;
    }
    let start = now.to_zoned(schedule.timezone.clone());
    let end = start.checked_add(AHEAD_DAYS.days()).ok()?;
    let mut ticks = schedule.cron.after(&start).take(MOST_TICKS).take_while(|at| *at <= end);
    let changed = |at: jiff::Zoned| Some((schedule.cron.clock_change(&at)?, at));
    let (change, at) = ticks.find_map(changed)?;
    let zone = schedule.zone_name();
    let message = match change {
        ClockChange::Moved { nominal } => format!(
            "{} does not exist in {zone}: this schedule fires at {} then",
            nominal.strftime("%Y-%m-%d %H:%M"),
            at.strftime("%H:%M")
        ),
        ClockChange::FirstOfTwo | ClockChange::SecondOfTwo => format!(
            "{} comes twice in {zone}: this schedule fires the first time",
            at.strftime("%Y-%m-%d %H:%M")
        ),
    };
    let help = "take an hour that no clock change touches, or `timezone: UTC`";
    Some(Diagnostic::warning(Code::ClockChanges, schedule.span, message).help(help))
}

fn short_interval(schedule: &Schedule, now: Timestamp, usual: Duration) -> Option<Diagnostic> {
    let start = now.to_zoned(schedule.timezone.clone());
    let ticks: Vec<Timestamp> =
        schedule.cron.after(&start).take(MOST_TICKS).map(|at| at.timestamp()).collect();
    let shortest = ticks.windows(2).map(|pair| pair[1].duration_since(pair[0])).min()?;
    let usual = SignedDuration::try_from(usual).ok()?;
    if shortest >= usual {
        return None;
    }
    let then = match schedule.overlap {
        Overlap::Skip => "the ticks between are skipped",
        Overlap::Queue => "of the ticks between one waits",
        Overlap::Replace => "each stops the round before it, and none comes to its end",
    };
    let message =
        format!("ticks are {shortest:#} apart, and a round of this pipeline takes {usual:#}: {then}");
    let help = "let the ticks be further apart";
    Some(Diagnostic::warning(Code::ShortInterval, schedule.span, message).help(help))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::source::Source;

    fn pipeline(schedule: &str) -> Pipeline {
        let text = format!(
            "on: {{schedule: [{{{schedule}}}]}}\njobs: {{a: {{runs-on: controller, steps: [{{run: 'true'}}]}}}}\n"
        );
        Pipeline::parse(&Source::new("t.yml", &text)).unwrap_or_else(|errors| panic!("{errors}")).value
    }

    /// The code and message of each finding, as seen in the autumn of 2026.
    fn advice(schedule: &str, usual_minutes: Option<u64>) -> Vec<String> {
        let now: Timestamp = "2026-10-01T00:00:00Z".parse().expect("an instant");
        let found = pipeline(schedule).schedule_advice(now, usual_minutes.map(Duration::from_mins));
        found.iter().map(|finding| format!("{} {}", finding.code.as_str(), finding.message)).collect()
    }

    #[test]
    fn a_quiet_schedule_is_let_be() {
        for quiet in [
            "cron: '17 */6 * * *'",
            "cron: '* * * * *'",
            "cron: '0 * * * *', jitter: 5m",
            "cron: '17 2 * * *'",
            "cron: '17 5 * * *', timezone: Europe/Zurich",
            "cron: '17 * * * *', timezone: Europe/Zurich",
        ] {
            assert_eq!(advice(quiet, None), [] as [&str; 0], "{quiet}");
        }
        assert_eq!(advice("cron: '17 */6 * * *'", Some(360)), [] as [&str; 0]);
    }

    #[test]
    fn the_full_hour_is_crowded() {
        let found = advice("cron: '0 0,12 * * *'", None);
        assert_eq!(
            found,
            ["L065 this schedule fires on the full hour, when many others do: runs at 00:00, 12:00 UTC"]
        );
        assert_eq!(advice("cron: '0 * * * *'", None).len(), 1);
        assert_eq!(advice("cron: '0,30 3 * * 1'", None).len(), 1);
    }

    #[test]
    fn the_next_clock_change_is_named() {
        let zurich = "timezone: Europe/Zurich";
        assert_eq!(
            advice(&format!("cron: '30 2 * * *', {zurich}"), None),
            ["L066 2026-10-25 02:30 comes twice in Europe/Zurich: this schedule fires the first time"]
        );
        assert_eq!(
            advice(&format!("cron: '30 2 * 3 0', {zurich}"), None),
            ["L066 2027-03-28 02:30 does not exist in Europe/Zurich: this schedule fires at 03:00 then"]
        );
    }

    #[test]
    fn ticks_are_no_closer_than_rounds_take() {
        let hourly = "cron: '17 * * * *'";
        assert_eq!(advice(hourly, Some(60)), [] as [&str; 0]);
        let said = |overlap: &str| advice(&format!("{hourly}, overlap: {overlap}"), Some(130)).remove(0);
        assert_eq!(
            said("skip"),
            "L067 ticks are 1h apart, and a round of this pipeline takes 2h 10m: the ticks between are skipped"
        );
        assert!(said("queue").ends_with("of the ticks between one waits"));
        assert!(said("replace").ends_with("none comes to its end"));
    }

    #[test]
    fn what_a_line_means_is_said() {
        let runs = |schedule: &str| pipeline(schedule).schedules[0].runs();
        assert_eq!(runs("cron: '17 */6 * * *'"), "runs at 00:17, 06:17, 12:17, 18:17 UTC");
        assert_eq!(
            runs("cron: '*/15 * * * 1-5', timezone: Asia/Tokyo"),
            "runs every 15 minutes Asia/Tokyo, on days of `* * 1-5` (day of the month, month, weekday)"
        );
    }
}
