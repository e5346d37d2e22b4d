//! `ticks/journal.jsonl`: every instant of every schedule and what became of it, for all rounds of a data directory.
//!
//! Its lines have the form of a round's journal ([`super::journal`]). It outlives the rounds: what a schedule has
//! handled is known from it alone, so no tick is handled twice. What its lines come to is `schedule::Timetable`'s
//! business, and as rows of `ticks` that of [`tick_rows`].

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::journal::{Event, JournalLine};
use super::{FormatVersion, digest};
use crate::model::{RoundId, ScheduleId, TickId, TickOutcome, TickReason, TickRow};

/// A line of the journal of ticks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum TickEvent {
    /// The journal begins.
    TicksStarted {
        /// Version of the format.
        schema: FormatVersion,
    },
    /// A schedule is watched from now on: its ticks after `from` count.
    ScheduleSeen {
        /// The schedule.
        #[serde(flatten)]
        schedule: ScheduleId,
        /// Path of the pipeline's file.
        path: String,
        /// No tick up to here is the schedule's business.
        from: Timestamp,
    },
    /// A schedule is no longer in its pipeline.
    ScheduleGone {
        /// The schedule.
        #[serde(flatten)]
        schedule: ScheduleId,
    },
    /// A tick waits until it can start its round.
    TickWaiting {
        /// The tick.
        #[serde(flatten)]
        tick: TickId,
        /// When it was due: the nominal instant and its jitter.
        scheduled: Timestamp,
        /// When it is given up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Timestamp>,
        /// What it waits for.
        reason: TickReason,
        /// The round that runs, or what is wrong with the machine.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
        /// Whether it is one of several that are made up for, which do not take each other's place.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_made_up: bool,
    },
    /// A tick starts its round. The line is on disk before the round begins.
    TickFired {
        /// The tick.
        #[serde(flatten)]
        tick: TickId,
        /// When it was due.
        scheduled: Timestamp,
        /// When its round is no longer taken up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Timestamp>,
        /// Id of the round.
        round_id: RoundId,
        /// Why it is late, if it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        late: Option<TickReason>,
    },
    /// A tick starts no round, because one of its pipeline is there.
    TickSkipped {
        /// The tick.
        #[serde(flatten)]
        tick: TickId,
        /// When it was due.
        scheduled: Timestamp,
        /// Why.
        reason: TickReason,
        /// The round that is there, or the tick that took the place.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// A tick starts no round, because its time has passed.
    TickMissed {
        /// The tick; of several the newest.
        #[serde(flatten)]
        tick: TickId,
        /// When it was due.
        scheduled: Timestamp,
        /// Why.
        reason: TickReason,
        /// What it waited for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
        /// How many ticks, where so many were missed at once that they have no lines of their own.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        ticks: u32,
    },
    /// The round of a tick ended before it was done, and is taken up again.
    RoundTakenUp {
        /// Id of the round.
        round_id: RoundId,
        /// How often it has been taken up, with this time.
        resumes: u32,
    },
    /// The round of a tick is told to stop, and is not taken up again.
    RoundCancelled {
        /// Id of the round.
        round_id: RoundId,
        /// Who wants that: a person, or a newer tick.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tick: Option<Timestamp>,
    },
    /// The round of a tick has come to its end, or is given up.
    TickEnded {
        /// Id of the round.
        round_id: RoundId,
        /// Exit code of the round: 0 where it is done.
        exit_code: u8,
        /// Why it was given up, if it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
}

const fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
const fn is_one(number: &u32) -> bool {
    *number == 1
}

impl Event for TickEvent {
    const SCHEMA: FormatVersion = FormatVersion::new(1, 0);

    fn begins(&self) -> bool {
        matches!(self, Self::TicksStarted { .. })
    }
}

/// A number that is drawn from a tick's identity alone: the same wherever and however often it is asked for.
fn drawn(tick: &TickId) -> (String, u64) {
    let ScheduleId { pipeline, cron, timezone } = &tick.schedule;
    let identity = format!("{pipeline}\n{cron}\n{timezone}\n{}", tick.nominal);
    let hex = digest::sha256(identity.as_bytes()).as_str().trim_start_matches("sha256:").to_owned();
    let number = u64::from_str_radix(&hex[..15], 16).unwrap_or_default();
    (hex, number)
}

/// How long after its nominal instant a tick is due: its share of the schedule's `jitter`, in whole milliseconds.
pub fn jitter_of(tick: &TickId, jitter: std::time::Duration) -> std::time::Duration {
    let most = u64::try_from(jitter.as_millis()).unwrap_or(u64::MAX);
    std::time::Duration::from_millis(if most == 0 { 0 } else { drawn(tick).1 % most })
}

/// The id of a tick's round: `<pipeline>-<nominal instant, UTC>-<6 digits>`. Whoever fires the tick, the round is the same.
pub fn round_of(tick: &TickId) -> Option<RoundId> {
    let time = tick.nominal.strftime("%Y%m%dt%H%M%Sz");
    let name = RoundId::readable(&tick.schedule.pipeline);
    format!("{name}-{time}-{}", &drawn(tick).0[..6]).parse().ok()
}

/// The rows of `ticks`: one for each tick, as the last line about it says.
pub fn tick_rows(lines: &[JournalLine<TickEvent>]) -> Vec<TickRow> {
    let mut rows: BTreeMap<TickId, TickRow> = BTreeMap::new();
    let mut of_round: BTreeMap<RoundId, TickId> = BTreeMap::new();
    for JournalLine { at, event, .. } in lines {
        match event {
            TickEvent::TicksStarted { .. }
            | TickEvent::ScheduleSeen { .. }
            | TickEvent::ScheduleGone { .. }
            | TickEvent::RoundCancelled { .. } => {}
            TickEvent::TickWaiting { tick, scheduled, reason, detail, .. } => {
                let row = blank(tick, (*scheduled, *at), TickOutcome::Waiting);
                let row = TickRow { reason: Some(*reason), detail: detail.clone(), ..row };
                rows.insert(tick.clone(), row);
            }
            TickEvent::TickFired { tick, scheduled, round_id, late, .. } => {
                let outcome = if late.is_some() { TickOutcome::Late } else { TickOutcome::Fired };
                let row = blank(tick, (*scheduled, *at), outcome);
                of_round.insert(round_id.clone(), tick.clone());
                rows.insert(
                    tick.clone(),
                    TickRow { reason: *late, round_id: Some(round_id.to_string()), ..row },
                );
            }
            TickEvent::TickSkipped { tick, scheduled, reason, detail } => {
                let row = blank(tick, (*scheduled, *at), TickOutcome::Skipped);
                rows.insert(tick.clone(), TickRow { reason: Some(*reason), detail: detail.clone(), ..row });
            }
            TickEvent::TickMissed { tick, scheduled, reason, detail, ticks } => {
                let row = blank(tick, (*scheduled, *at), TickOutcome::Missed);
                let row = TickRow { reason: Some(*reason), detail: detail.clone(), ticks: *ticks, ..row };
                rows.insert(tick.clone(), row);
            }
            TickEvent::RoundTakenUp { round_id, resumes } => {
                if let Some(row) = of_round.get(round_id).and_then(|tick| rows.get_mut(tick)) {
                    row.resumes = *resumes;
                }
            }
            TickEvent::TickEnded { round_id, exit_code, detail } => {
                if let Some(row) = of_round.get(round_id).and_then(|tick| rows.get_mut(tick)) {
                    row.ended_at_us = Some(at.as_microsecond());
                    row.exit_code = Some(u32::from(*exit_code));
                    row.detail.clone_from(detail);
                }
            }
        }
    }
    let mut rows: Vec<TickRow> = rows.into_values().collect();
    rows.sort_by(|left, right| {
        let key = |row: &TickRow| (row.nominal_at_us, row.scheduled_at_us);
        key(left)
            .cmp(&key(right))
            .then_with(|| (&left.pipeline, &left.cron).cmp(&(&right.pipeline, &right.cron)))
    });
    rows
}

fn blank(tick: &TickId, (scheduled, at): (Timestamp, Timestamp), outcome: TickOutcome) -> TickRow {
    TickRow {
        pipeline: tick.schedule.pipeline.clone(),
        cron: tick.schedule.cron.clone(),
        timezone: tick.schedule.timezone.clone(),
        nominal_at_us: tick.nominal.as_microsecond(),
        scheduled_at_us: scheduled.as_microsecond(),
        outcome,
        reason: None,
        detail: None,
        decided_at_us: at.as_microsecond(),
        ticks: 1,
        round_id: None,
        resumes: 0,
        ended_at_us: None,
        exit_code: None,
    }
}
