//! What goes into the scheduler and what comes out.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::placement::{Placement, RunnerSlot};
use crate::artifact::{JournalEvent, LegAttempt, RoundState};
use crate::model::{Conclusion, Fault, LegSummary, Reason, Seed};
use crate::pipeline::contexts::KnownContexts;
use crate::pipeline::definition::{Job, Pipeline};
use crate::pipeline::expr::Status;

/// What happened in the world, as the scheduler is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The round begins.
    Started,
    /// An attempt of a leg ended.
    AttemptEnded {
        /// Index of the job in the pipeline.
        job: usize,
        /// Index of the leg in its job.
        leg: usize,
        /// How the attempt ended.
        end: AttemptEnd,
    },
    /// The wait before another attempt is over.
    RetryDue {
        /// Index of the job in the pipeline.
        job: usize,
        /// Index of the leg in its job.
        leg: usize,
    },
    /// Somebody wants the round to stop.
    CancelRequested,
}

/// How an attempt ended: its report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptEnd {
    /// Whether it succeeded, failed or was cancelled.
    pub conclusion: Conclusion,
    /// Why it did not succeed, where it did not.
    pub reason: Option<Reason>,
    /// The job's outputs as this leg gives them.
    pub outputs: Map<String, Json>,
    /// Wall time of its start, microseconds since 1970 UTC.
    pub started_at_us: i64,
}

impl AttemptEnd {
    /// An attempt that began then and failed before it had outputs.
    pub fn failed(reason: Reason, started_at_us: i64) -> Self {
        let conclusion = Conclusion::Failure;
        Self { conclusion, reason: Some(reason), outputs: Map::new(), started_at_us }
    }
}

/// What the scheduler wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Write this event to the journal.
    Record(Box<JournalEvent>),
    /// Run this attempt of a leg.
    StartAttempt(Box<AttemptOrder>),
    /// Come back with [`Event::RetryDue`] after a while.
    WaitForRetry {
        /// Index of the job in the pipeline.
        job: usize,
        /// Index of the leg in its job.
        leg: usize,
        /// How long to wait.
        delay: Duration,
    },
    /// Stop the running legs of a job.
    StopLegs {
        /// Index of the job in the pipeline.
        job: usize,
    },
    /// All jobs have ended.
    EndRound,
}

impl Action {
    pub(super) fn record(event: JournalEvent) -> Self {
        Self::Record(Box::new(event))
    }
}

/// How a job stands: for the exit code and the report.
#[derive(Debug)]
pub struct JobOutcome<'a> {
    /// The job.
    pub job: &'a Job,
    /// How it ended; none while it has not.
    pub conclusion: Option<Conclusion>,
    /// Why, where it did not succeed.
    pub reason: Option<&'a Reason>,
    /// How its legs stand, in the order of the plan.
    pub legs: Vec<&'a LegSummary>,
}

impl JobOutcome<'_> {
    /// Why the job failed, where it was not by its submissions' own faults alone.
    pub fn undone(&self) -> Option<Reason> {
        if self.conclusion != Some(Conclusion::Failure) {
            return None;
        }
        let mut failed = self.legs.iter().filter(|leg| leg.result == Conclusion::Failure).peekable();
        if failed.peek().is_none() {
            return self.reason.cloned();
        }
        let is_own =
            |reason: &Option<Reason>| reason.as_ref().is_some_and(|reason| reason.fault == Fault::Submission);
        let unexplained =
            || Reason::new(Fault::Unknown, "job-failed", format!("job `{}` failed", self.job.id));
        failed.find(|leg| !is_own(&leg.reason)).map(|leg| leg.reason.clone().unwrap_or_else(unexplained))
    }
}

/// An attempt to be run.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptOrder {
    /// Index of the job in the pipeline.
    pub job: usize,
    /// Index of the leg in its job.
    pub leg: usize,
    /// The attempt, as the journal names it.
    pub at: LegAttempt,
    /// Where it is to run.
    pub placement: Placement,
    /// The contexts known before the job's own steps: inputs, run, env, needs, matrix, strategy.
    pub contexts: KnownContexts,
    /// Whether what it needs went well.
    pub status: Status,
}

/// What a scheduler is made of.
#[derive(Debug, Clone)]
pub struct SchedulerSettings {
    /// The pipeline.
    pub pipeline: Arc<Pipeline>,
    /// Contexts that stay: `inputs`, `run`, `env`.
    pub contexts: KnownContexts,
    /// The round's seed.
    pub seed: Seed,
    /// The runners there are.
    pub runners: Vec<RunnerSlot>,
    /// What happened before the round was taken up again; nothing in a round that begins.
    pub history: RoundState,
}
