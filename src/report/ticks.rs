//! Schedules and ticks, as `cacheon schedule` tells them.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};

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
        TickReason::Machine => "the machine failed its checks",
    }
}

/// How it stands with the schedules of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineStatus {
    /// Name of the pipeline.
    pub pipeline: String,
    /// Path of its file.
    pub path: String,
    /// What is wrong with the file, if something is.
    pub broken: Option<String>,
    /// Its schedules.
    pub schedules: Vec<ScheduleStatus>,
    /// The round that is open: its id, when it was started or last taken up, and how often it was taken up.
    pub running: Option<(String, Timestamp, u32)>,
    /// The ticks that wait: nominal instant, what for, and more of that.
    pub waiting: Vec<(Timestamp, TickReason, Option<String>)>,
    /// The round that ended last: its id, when that was known, and its exit code.
    pub last: Option<(String, Timestamp, u8)>,
    /// When a round was last done.
    pub last_done: Option<Timestamp>,
}

/// How it stands with a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleStatus {
    /// The cron line.
    pub cron: String,
    /// Its time zone.
    pub timezone: String,
    /// Up to which instant its ticks are handled; none while nobody looked after it.
    pub handled: Option<Timestamp>,
    /// The tick to come: its nominal instant, and when it is due; none if none will be.
    pub next: Option<(Timestamp, Timestamp)>,
}

/// The status of schedules for a person.
pub fn status_text(known: &[PipelineStatus], now: Timestamp) -> String {
    let mut text = String::new();
    for status in known {
        let PipelineStatus { pipeline, path, broken, schedules, running, waiting, last, last_done } = status;
        let gap = if text.is_empty() { "" } else { "\n" };
        let _ = writeln!(text, "{gap}{pipeline}  {path}");
        let mut line = |what: &str, words: String| {
            let _ = writeln!(text, "  {what:<9}{words}");
        };
        for ScheduleStatus { cron, timezone, handled, next } in schedules {
            let seen = if handled.is_some() { "" } else { "  (nobody has looked after it yet)" };
            let next = match next {
                None => "never".to_owned(),
                Some((nominal, due)) if nominal == due => format!("{nominal}, {}", until(*due, now)),
                Some((nominal, due)) => format!("{nominal}, due {due} with its jitter, {}", until(*due, now)),
            };
            line("next", format!("{next}  `{cron}` {timezone}{seen}"));
        }
        if let Some((round_id, started, resumes)) = running {
            let again = if *resumes == 0 { String::new() } else { format!(", taken up again ({resumes})") };
            line("open", format!("round {round_id} since {started}{again}"));
        }
        for (nominal, reason, detail) in waiting {
            let detail = detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default();
            line("waiting", format!("tick {nominal}: {}{detail}", meaning(*reason)));
        }
        match last {
            Some((round_id, at, 0)) => line("last", format!("round {round_id} was done at {at}")),
            Some((round_id, at, code)) => {
                let done = last_done.map_or("never".to_owned(), |at| at.to_string());
                line(
                    "last",
                    format!("round {round_id} ended with exit code {code} at {at}; last done: {done}"),
                );
            }
            None => line("last", "none".to_owned()),
        }
        if let Some(why) = broken {
            line("broken", format!("its last good version is in force:\n{why}"));
        }
    }
    text
}

fn until(due: Timestamp, now: Timestamp) -> String {
    let seconds = due.duration_since(now).as_secs();
    match seconds {
        ..0 => "due".to_owned(),
        0..120 => format!("in {seconds} s"),
        120..7_200 => format!("in {} min", seconds / 60),
        7_200..172_800 => format!("in {} h", seconds / 3_600),
        _ => format!("in {} days", seconds / 86_400),
    }
}

/// The status of schedules as JSON.
pub fn status_json(known: &[PipelineStatus]) -> String {
    let one = |status: &PipelineStatus| {
        let schedules: Vec<Value> = status
            .schedules
            .iter()
            .map(|schedule| {
                json!({
                    "cron": schedule.cron,
                    "timezone": schedule.timezone,
                    "handled_until": schedule.handled,
                    "next": schedule.next.map(|(nominal, _)| nominal),
                    "next_due": schedule.next.map(|(_, due)| due),
                })
            })
            .collect();
        let running = status.running.as_ref().map(|(round_id, started, resumes)| {
            json!({ "round_id": round_id, "started_at": started, "resumes": resumes })
        });
        let waiting: Vec<Value> = status
            .waiting
            .iter()
            .map(|(at, reason, detail)| json!({ "at": at, "reason": reason, "detail": detail }))
            .collect();
        let last = status.last.as_ref().map(|(round_id, at, exit_code)| {
            json!({ "round_id": round_id, "ended_at": at, "exit_code": exit_code })
        });
        json!({
            "pipeline": status.pipeline,
            "path": status.path,
            "broken": status.broken,
            "schedules": schedules,
            "open": running,
            "waiting": waiting,
            "last": last,
            "last_done_at": status.last_done,
        })
    };
    let known: Vec<Value> = known.iter().map(one).collect();
    format!("{:#}\n", json!({ "pipelines": known }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_a_line_for_all_that_matters() {
        let at = |text: &str| text.parse::<Timestamp>().expect("an instant");
        let (next, due) = (at("2026-03-01T06:17:00Z"), at("2026-03-01T06:18:10Z"));
        let schedule = |next| ScheduleStatus {
            cron: "17 */6 * * *".to_owned(),
            timezone: "UTC".to_owned(),
            handled: Some(at("2026-03-01T00:17:00Z")),
            next: Some(next),
        };
        let known = [
            PipelineStatus {
                pipeline: "round".to_owned(),
                path: "/srv/pipelines/round.yml".to_owned(),
                broken: None,
                schedules: vec![schedule((next, due))],
                running: Some(("round-20260301t001700z-0a1b2c".to_owned(), at("2026-03-01T00:17:01Z"), 1)),
                waiting: vec![(
                    at("2026-03-01T00:17:00Z"),
                    TickReason::Machine,
                    Some("disk full".to_owned()),
                )],
                last: Some(("round-20260228t181700z-0a1b2c".to_owned(), at("2026-02-28T20:00:00Z"), 4)),
                last_done: Some(at("2026-02-28T14:00:00Z")),
            },
            PipelineStatus {
                pipeline: "demo".to_owned(),
                path: "/srv/pipelines/demo.yml".to_owned(),
                broken: Some("error[L002]: unknown key".to_owned()),
                schedules: vec![ScheduleStatus { handled: None, ..schedule((next, next)) }],
                running: None,
                waiting: Vec::new(),
                last: None,
                last_done: None,
            },
        ];
        insta::assert_snapshot!(status_text(&known, at("2026-03-01T05:17:00Z")));
        assert_eq!(
            serde_json::from_str::<Value>(&status_json(&known)).expect("JSON")["pipelines"][0]["last"]["exit_code"],
            4
        );
    }
}
