//! Ticks: the instants at which the schedules of pipelines start rounds, and what became of each.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{row, words};

/// A schedule: what tells its ticks from those of all others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ScheduleId {
    /// Name of the pipeline.
    pub pipeline: String,
    /// The cron line as written.
    pub cron: String,
    /// IANA name of the time zone that the line is read in.
    pub timezone: String,
}

/// A tick: one instant of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TickId {
    /// The schedule.
    #[serde(flatten)]
    pub schedule: ScheduleId,
    /// The instant that the cron line names.
    pub nominal: Timestamp,
}

/// The tick that started a round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundTick {
    /// The tick.
    #[serde(flatten)]
    pub tick: TickId,
    /// When it was due: the nominal instant and its jitter.
    pub scheduled: Timestamp,
}

impl fmt::Display for ScheduleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}` {}", self.pipeline, self.cron, self.timezone)
    }
}

impl fmt::Display for TickId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.nominal, self.schedule)
    }
}

words! {
    /// What became of a tick.
    pub enum TickOutcome {
        /// It waits until it can start its round.
        Waiting = "waiting",
        /// It started its round.
        Fired = "fired",
        /// It started its round a minute or more after its time.
        Late = "late",
        /// It started none, because a round of its pipeline was there.
        Skipped = "skipped",
        /// It started none, because its time had passed.
        Missed = "missed",
    }
}

words! {
    /// Why a tick waits, came late, was skipped or was missed.
    pub enum TickReason {
        /// Nobody looked when it was due.
        NotWatched = "not-watched",
        /// A newer tick of its schedule was due when somebody looked.
        NewerDue = "newer-due",
        /// More ticks were due than are made up for.
        TooMany = "too-many",
        /// Its deadline passed.
        Deadline = "deadline",
        /// Its schedule was taken out of the pipeline.
        ScheduleRemoved = "schedule-removed",
        /// A round of its pipeline was still running, or still to be taken up.
        StillRunning = "still-running",
        /// A newer tick took its place in the queue.
        NewerWaiting = "newer-waiting",
        /// The running round was told to stop for it.
        Replacing = "replacing",
        /// Older ticks are made up for first.
        CatchingUp = "catching-up",
        /// The machine failed its checks.
        Machine = "machine",
    }
}

row! {
    /// A row of `ticks`: an instant of a schedule and what became of it.
    pub struct TickRow {
        /// Name of the pipeline.
        pub pipeline: String,
        /// The cron line as written.
        pub cron: String,
        /// IANA name of the time zone that the line is read in.
        pub timezone: String,
        /// The instant that the cron line names, UTC.
        pub nominal_at_us: i64,
        /// When the tick was due: the nominal instant and its jitter, UTC.
        pub scheduled_at_us: i64,
        /// What became of the tick.
        pub outcome: TickOutcome,
        /// Why it waits, came late, was skipped or was missed.
        pub reason: Option<TickReason>,
        /// What the reason does not say by itself: the round that ran, what is wrong with the machine.
        pub detail: Option<String>,
        /// When that was decided, UTC.
        pub decided_at_us: i64,
        /// Number of ticks that the row stands for: 1, and more where very many were missed at once.
        pub ticks: u32,
        /// Id of the round that the tick started.
        pub round_id: Option<String>,
        /// How often the round was taken up again.
        pub resumes: u32,
        /// When the round had ended, as far as this is known, UTC.
        pub ended_at_us: Option<i64>,
        /// Exit code of the round: 0 where it is done.
        pub exit_code: Option<u32>,
    }
}
