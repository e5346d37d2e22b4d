//! Checks of schedules against the pipeline they start.

use crate::pipeline::code::Code;
use crate::pipeline::definition::{Pipeline, Schedule};
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
