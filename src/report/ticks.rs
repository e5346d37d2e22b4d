//! Schedules and ticks, as `cacheon schedule` tells them.

use crate::artifact::TickEvent;
use crate::model::TickReason;

/// A line of the journal of ticks as a person reads it; none for what no person needs to hear.
pub fn tick_line(event: &TickEvent) -> Option<String> {
    let also =
        |detail: &Option<String>| detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default();
    Some(match event {
        TickEvent::TicksStarted { .. } => return None,
        TickEvent::ScheduleSeen { schedule, from, .. } => format!("watching {schedule} from {from} on"),
        TickEvent::ScheduleGone { schedule } => format!("no longer watching {schedule}"),
        TickEvent::TickWaiting { tick, reason, detail, .. } => {
            format!("tick {tick} waits: {}{}", meaning(*reason), also(detail))
        }
        TickEvent::TickFired { tick, round_id, late: None, .. } => {
            format!("tick {tick} starts round {round_id}")
        }
        TickEvent::TickFired { tick, round_id, late: Some(reason), .. } => {
            format!("tick {tick} starts round {round_id} late: {}", meaning(*reason))
        }
        TickEvent::TickSkipped { tick, reason, detail, .. } => {
            format!("tick {tick} is skipped: {}{}", meaning(*reason), also(detail))
        }
        TickEvent::TickMissed { tick, reason, detail, ticks: 1, .. } => {
            format!("tick {tick} is missed: {}{}", meaning(*reason), also(detail))
        }
        TickEvent::TickMissed { tick, reason, ticks, .. } => {
            format!("{ticks} ticks up to {tick} are missed: {}", meaning(*reason))
        }
        TickEvent::RoundTakenUp { round_id, resumes } => {
            format!("round {round_id} is not done and is taken up again (time {resumes})")
        }
        TickEvent::RoundCancelled { round_id, .. } => format!("round {round_id} is told to stop"),
        TickEvent::TickEnded { round_id, exit_code: 0, .. } => format!("round {round_id} is done"),
        TickEvent::TickEnded { round_id, exit_code, detail } => {
            format!("round {round_id} has ended with exit code {exit_code}{}", also(detail))
        }
    })
}

/// What a reason means, as the rest of a sentence.
pub const fn meaning(reason: TickReason) -> &'static str {
    match reason {
        TickReason::NotWatched => "nobody looked when it was due",
        TickReason::NewerDue => "a newer tick was due too",
        TickReason::TooMany => "more ticks were due than are made up for",
        TickReason::Deadline => "its deadline has passed",
        TickReason::ScheduleRemoved => "its schedule was taken out of the pipeline",
        TickReason::StillRunning => "a round of its pipeline is not done yet",
        TickReason::NewerWaiting => "a newer tick took its place",
        TickReason::Replacing => "the running round stops for it",
        TickReason::CatchingUp => "older ticks are made up for first",
        TickReason::Group => "a round of its concurrency group runs",
        TickReason::Machine => "the machine failed its checks",
    }
}
