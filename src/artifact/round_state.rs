//! What a journal comes to: its jobs, their legs, attempts and steps, and what was published.
//!
//! The one fold over the lines. What `show` and `rounds` say of a round, what is seen while it runs, which
//! attempts `publish` gathers, and the rows of `step_attempts` are all read from a [`RoundState`], so that they
//! cannot disagree; times are the lines' own. A round that was cut short is described by what is done
//! ([`LegState::done`], [`JobState::done`]) and what still stands of an attempt that was cut
//! ([`AttemptState::standing_steps`]). Deliberately absent: deciding what follows from it, which is
//! `schedule`'s, and whether a living process holds the round, which no journal knows.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::journal::{
    JobStep, JournalEvent, JournalLine, LegAttempt, Publication, PublishedTable, RoundStart, StepKind,
    TakenLeg,
};
use crate::model::{Conclusion, Fault, Reason, RoundId, StepAttemptRow};
use crate::pipeline::stage::StageName;

/// What is known of a round after some of its journal's lines.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RoundState {
    /// What the round is, as its first line says; none before that.
    pub start: Option<RoundStart>,
    /// When the round started.
    pub started_at: Option<Timestamp>,
    /// The jobs, in the order in which they were first heard of.
    pub jobs: Vec<JobState>,
    /// The tables that were published, by name; of one published again, the last.
    pub tables: BTreeMap<String, PublishedTable>,
    /// Whether the results are among the published tables.
    pub has_published: bool,
    /// The round of its concurrency group that the round waits for, as long as it does.
    pub group_wait: Option<RoundId>,
    /// The first signal that asked the round to stop.
    pub interruption: Option<Interruption>,
    /// How the round ended; none while it has not.
    pub end: Option<RoundEnding>,
    /// Where in [`RoundState::jobs`] each job is.
    job_indices: Indices,
    /// For each job, where in [`JobState::legs`] each leg is.
    leg_indices: Vec<Indices>,
    leg_counts: LegCounts,
}

/// How many legs there are, as far as is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LegCounts {
    /// Number of legs that are known.
    pub known: usize,
    /// Number of legs that are known and settled, as [`LegState::settled`] says.
    pub settled: usize,
}

/// Where in a list each name is, so that a line costs the same however long the list is.
#[derive(Clone, Default, PartialEq)]
struct Indices(HashMap<String, usize>);

/// Says nothing: what it knows is seen in the list itself, and its order is by chance.
impl fmt::Debug for Indices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

impl Indices {
    fn get(&self, name: &str) -> Option<usize> {
        self.0.get(name).copied()
    }

    fn set(&mut self, name: &str, index: usize) {
        self.0.insert(name.to_owned(), index);
    }
}

/// That somebody wanted the round to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interruption {
    /// Name of the signal.
    pub signal: String,
    /// When the signal came.
    pub at: Timestamp,
}

/// The end of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundEnding {
    /// How the round ended.
    pub conclusion: Conclusion,
    /// Exit code of the program.
    pub exit_code: u8,
    /// When the round ended.
    pub at: Timestamp,
}

/// The end of a job, a leg or an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// How it ended.
    pub conclusion: Conclusion,
    /// Why it did not succeed; none if it did.
    pub reason: Option<Reason>,
    /// When it ended.
    pub at: Timestamp,
    /// Whether the round was being stopped then: what did not succeed may have failed for that alone.
    pub is_stopping: bool,
    /// Whether the round's results were out by then.
    pub is_published: bool,
}

/// How far a job came.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobState {
    /// Id of the job.
    pub job: String,
    /// When the job began; none while it has not, and for one that ended without beginning.
    pub started_at: Option<Timestamp>,
    /// Whether the job began while the round was being stopped: then it saw a world that does not count.
    pub is_begun_stopping: bool,
    /// Whether all legs of the job are known.
    pub is_planned: bool,
    /// The legs of the job, in the order of the plan.
    pub legs: Vec<LegState>,
    /// How the job ended; none while it has not.
    pub end: Option<Ending>,
}

/// How far a leg came.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LegState {
    /// Key of the leg; empty for a job without matrix.
    pub key: String,
    /// The attempts of the leg, the first first.
    pub attempts: Vec<AttemptState>,
    /// The attempt to come, while the leg waits for one.
    pub retry: Option<RetryWait>,
    /// How and why the leg was given up; none if it was not.
    pub skip: Option<Ending>,
}

/// The wait of a leg for a further attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryWait {
    /// Number of the attempt to come.
    pub attempt: u32,
    /// How long the leg waits, milliseconds.
    pub delay_ms: u64,
    /// When the wait began.
    pub at: Timestamp,
}

/// How far an attempt came.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AttemptState {
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Name of the runner that runs it.
    pub runner: String,
    /// When the attempt began.
    pub started_at: Option<Timestamp>,
    /// The steps that began or ended, by their position in the job, from 0.
    pub steps: BTreeMap<u32, StepState>,
    /// Whether the attempt ran in the round that this one was made from, and stands here.
    pub is_taken_over: bool,
    /// The job's outputs as this attempt gave them; none before its end.
    pub outputs: Map<String, Value>,
    /// How the attempt ended; none while it has not.
    pub end: Option<Ending>,
}

/// How far a step came.
#[derive(Debug, Clone, PartialEq)]
pub struct StepState {
    /// Which step of the job it is.
    pub step: JobStep,
    /// When the step began; none for one that ended without beginning.
    pub started_at: Option<Timestamp>,
    /// How the step ended; none while it has not.
    pub end: Option<StepEnding>,
}

/// The end of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepEnding {
    /// How the step ended, before `continue-on-error` is considered.
    pub outcome: Conclusion,
    /// How the step counts, after `continue-on-error` is considered.
    pub conclusion: Conclusion,
    /// Outputs of the step, by name.
    pub outputs: Map<String, Value>,
    /// Why the step did not succeed; none if it did.
    pub reason: Option<Reason>,
    /// How long the step took, nanoseconds.
    pub duration_ns: i64,
    /// When the step ended.
    pub at: Timestamp,
}

impl RoundState {
    /// The state that these lines come to.
    pub fn of(lines: &[JournalLine]) -> Self {
        let mut state = Self::default();
        for line in lines {
            state.apply(line);
        }
        state
    }

    /// Takes in the next line of the journal.
    pub fn apply(&mut self, line: &JournalLine) {
        // Whatever happens next, the wait is over.
        self.group_wait = None;
        let leg = leg_of(&line.event);
        let was_settled = leg.is_some_and(|(job, leg)| self.is_settled(job, leg));
        self.take_in(line);
        let is_settled = leg.is_some_and(|(job, leg)| self.is_settled(job, leg));
        self.leg_counts.settled += usize::from(is_settled);
        self.leg_counts.settled -= usize::from(was_settled);
    }

    fn take_in(&mut self, line: &JournalLine) {
        let at = line.at;
        match &line.event {
            JournalEvent::RoundStarted(start) => {
                self.start = Some(start.clone());
                self.started_at = Some(at);
            }
            JournalEvent::LegTakenOver(taken) => {
                let (conclusion, reason) = (taken.conclusion, taken.reason.clone());
                let attempt = self.attempt_mut(&taken.at);
                attempt.is_taken_over = true;
                attempt.runner.clone_from(&taken.runner);
                attempt.started_at = Some(taken.started_at);
                attempt.outputs.clone_from(&taken.outputs);
                attempt.end = Some(Ending {
                    conclusion,
                    reason,
                    at: taken.ended_at,
                    is_stopping: false,
                    is_published: false,
                });
            }
            JournalEvent::JobStarted { job } => {
                let is_stopping = self.interruption.is_some();
                let job = self.job_mut(job);
                job.started_at = Some(at);
                job.is_begun_stopping = is_stopping;
            }
            JournalEvent::JobPlanned { job, legs } => {
                self.job_mut(job).is_planned = true;
                for leg in legs {
                    self.leg_mut(job, leg);
                }
            }
            JournalEvent::LegStarted { at: which, runner } => {
                self.leg_mut(&which.job, &which.leg).retry = None;
                let attempt = self.attempt_mut(which);
                attempt.runner.clone_from(runner);
                attempt.started_at = Some(at);
            }
            JournalEvent::StepStarted { at: which, step } => {
                self.step_mut(which, step).started_at = Some(at);
            }
            JournalEvent::StepEnded {
                at: which,
                step,
                outcome,
                conclusion,
                outputs,
                reason,
                duration_ns,
            } => {
                self.step_mut(which, step).end = Some(StepEnding {
                    outcome: *outcome,
                    conclusion: *conclusion,
                    outputs: outputs.clone(),
                    reason: reason.clone(),
                    duration_ns: *duration_ns,
                    at,
                });
            }
            JournalEvent::LegEnded { at: which, conclusion, reason, outputs } => {
                let end = self.ending(at, *conclusion, reason.clone());
                let attempt = self.attempt_mut(which);
                attempt.outputs.clone_from(outputs);
                attempt.end = Some(end);
            }
            JournalEvent::RetryScheduled { at: which, delay_ms, .. } => {
                let retry = RetryWait { attempt: which.attempt, delay_ms: *delay_ms, at };
                self.leg_mut(&which.job, &which.leg).retry = Some(retry);
            }
            JournalEvent::LegSkipped { job, leg, why } => {
                let reason = Reason::new(Fault::Operator, "cancelled", why.as_str());
                let end = self.ending(at, Conclusion::Skipped, Some(reason));
                let leg = self.leg_mut(job, leg);
                leg.retry = None;
                leg.skip = Some(end);
            }
            JournalEvent::JobEnded { job, conclusion, reason } => {
                let end = self.ending(at, *conclusion, reason.clone());
                self.job_mut(job).end = Some(end);
            }
            JournalEvent::Published { what, tables } => {
                self.has_published |= *what == Publication::Results;
                self.tables.extend(tables.iter().map(|table| (table.table.clone(), table.clone())));
            }
            // The attempt goes on as it was.
            JournalEvent::ServerLaunchedAnew { .. } => {}
            JournalEvent::GroupAwaited { behind, .. } => self.group_wait = Some(behind.clone()),
            JournalEvent::Interrupted { signal } => {
                self.interruption.get_or_insert_with(|| Interruption { signal: signal.clone(), at });
            }
            JournalEvent::RoundResumed { .. } => self.take_up(at),
            JournalEvent::RoundEnded { conclusion, exit_code } => {
                self.end = Some(RoundEnding { conclusion: *conclusion, exit_code: *exit_code, at });
            }
        }
    }

    /// Takes the round up again: what ran is cut, and what was decided is open until it is decided again.
    fn take_up(&mut self, at: Timestamp) {
        self.interruption = None;
        self.end = None;
        for job in &mut self.jobs {
            job.end = None;
            for leg in &mut job.legs {
                leg.retry = None;
                leg.skip = None;
                for attempt in &mut leg.attempts {
                    attempt.end.get_or_insert_with(|| {
                        let why = "the program that ran the round ended before the attempt did";
                        let reason = Reason::new(Fault::Infra, "cut", why);
                        Ending {
                            conclusion: Conclusion::Cancelled,
                            reason: Some(reason),
                            at,
                            is_stopping: true,
                            is_published: false,
                        }
                    });
                }
            }
        }
        self.leg_counts.settled = self.legs().filter(|leg| leg.settled().is_some()).count();
    }

    /// The last attempt of a leg and how it ended, if that stands when the round is taken up again.
    ///
    /// What succeeded stands, and so does a failure that was a submission's own or that nobody could explain: nobody
    /// is asked twice. So does all that was taken over from another round. Any other failure was ours and is tried again,
    /// unless the results that it is missing from are out already. What began only because somebody wanted the round to
    /// stop does not stand.
    pub fn standing(&self, job: &str, leg: &str) -> Option<(&AttemptState, &Ending)> {
        let is_begun_stopping = self.job(job)?.is_begun_stopping;
        let leg = self.leg(job, leg)?;
        if let Some(taken) = leg.last().filter(|attempt| attempt.is_taken_over) {
            return taken.end.as_ref().map(|end| (taken, end));
        }
        if is_begun_stopping {
            return None;
        }
        let end = leg.done()?;
        let is_final = || {
            let fault = end.reason.as_ref().map(|reason| reason.fault);
            matches!(fault, Some(Fault::Submission | Fault::Unknown))
                || (self.has_published && !end.is_published)
        };
        let stands = match end.conclusion {
            Conclusion::Success => true,
            Conclusion::Failure => is_final(),
            Conclusion::Cancelled | Conclusion::Skipped => false,
        };
        leg.last().filter(|_| stands && leg.skip.is_none()).map(|attempt| (attempt, end))
    }

    /// The job of this id, if it is known.
    pub fn job(&self, id: &str) -> Option<&JobState> {
        self.job_indices.get(id).map(|index| &self.jobs[index])
    }

    /// The leg of this job and key, if it is known.
    pub fn leg(&self, job: &str, key: &str) -> Option<&LegState> {
        let job = self.job_indices.get(job)?;
        self.leg_indices[job].get(key).map(|index| &self.jobs[job].legs[index])
    }

    /// The attempt of a leg, if it is known.
    pub fn attempt(&self, at: &LegAttempt) -> Option<&AttemptState> {
        let attempts = &self.leg(&at.job, &at.leg)?.attempts;
        // Most often it is the last.
        attempts.iter().rfind(|attempt| attempt.attempt == at.attempt)
    }

    /// How many legs are known, and how many of them are settled.
    pub fn leg_counts(&self) -> LegCounts {
        self.leg_counts
    }

    fn is_settled(&self, job: &str, leg: &str) -> bool {
        self.leg(job, leg).is_some_and(|leg| leg.settled().is_some())
    }

    /// All legs of all jobs, job by job.
    pub fn legs(&self) -> impl Iterator<Item = &LegState> {
        self.jobs.iter().flat_map(|job| &job.legs)
    }

    /// The rows of `step_attempts`: every step that ended, by job, leg, attempt and step.
    pub fn step_rows(&self) -> Vec<StepAttemptRow> {
        let round_id = self.start.as_ref().map(|start| start.round_id.to_string()).unwrap_or_default();
        let mut rows = Vec::new();
        for job in &self.jobs {
            for leg in &job.legs {
                for attempt in &leg.attempts {
                    for StepState { step, started_at, end } in attempt.steps.values() {
                        let Some(end) = end else { continue };
                        let reason = end.reason.as_ref();
                        let ended_at_us = end.at.as_microsecond();
                        rows.push(StepAttemptRow {
                            round_id: round_id.clone(),
                            job: job.job.clone(),
                            leg: leg.key.clone(),
                            attempt: attempt.attempt,
                            step_index: step.index,
                            step: step.name.clone(),
                            stage: step.kind.as_str().to_owned(),
                            outcome: end.outcome,
                            conclusion: end.conclusion,
                            fault: reason.map(|reason| reason.fault),
                            reason: reason.map(|reason| reason.code.clone()),
                            detail: reason.map(|reason| reason.message.clone()),
                            started_at_us: started_at
                                .map_or(ended_at_us - end.duration_ns / 1000, Timestamp::as_microsecond),
                            duration_ns: end.duration_ns,
                        });
                    }
                }
            }
        }
        rows
    }

    fn ending(&self, at: Timestamp, conclusion: Conclusion, reason: Option<Reason>) -> Ending {
        let (is_stopping, is_published) = (self.interruption.is_some(), self.has_published);
        Ending { conclusion, reason, at, is_stopping, is_published }
    }

    fn job_mut(&mut self, id: &str) -> &mut JobState {
        let index = self.job_index(id);
        &mut self.jobs[index]
    }

    /// The index of a job; one that is new comes last.
    fn job_index(&mut self, id: &str) -> usize {
        self.job_indices.get(id).unwrap_or_else(|| {
            let index = self.jobs.len();
            self.job_indices.set(id, index);
            self.jobs.push(JobState { job: id.to_owned(), ..JobState::default() });
            self.leg_indices.push(Indices::default());
            index
        })
    }

    fn leg_mut(&mut self, job: &str, key: &str) -> &mut LegState {
        let job = self.job_index(job);
        let (indices, legs) = (&mut self.leg_indices[job], &mut self.jobs[job].legs);
        let index = indices.get(key).unwrap_or_else(|| {
            indices.set(key, legs.len());
            legs.push(LegState { key: key.to_owned(), ..LegState::default() });
            self.leg_counts.known += 1;
            legs.len() - 1
        });
        &mut legs[index]
    }

    fn attempt_mut(&mut self, at: &LegAttempt) -> &mut AttemptState {
        let attempts = &mut self.leg_mut(&at.job, &at.leg).attempts;
        let index = attempts.iter().rposition(|attempt| attempt.attempt == at.attempt).unwrap_or_else(|| {
            attempts.push(AttemptState { attempt: at.attempt, ..AttemptState::default() });
            attempts.len() - 1
        });
        &mut attempts[index]
    }

    fn step_mut(&mut self, at: &LegAttempt, step: &JobStep) -> &mut StepState {
        let steps = &mut self.attempt_mut(at).steps;
        steps.entry(step.index).or_insert_with(|| StepState {
            step: step.clone(),
            started_at: None,
            end: None,
        })
    }
}

/// The leg whose standing an event changes: its job and key.
fn leg_of(event: &JournalEvent) -> Option<(&str, &str)> {
    match event {
        JournalEvent::LegStarted { at, .. }
        | JournalEvent::LegEnded { at, .. }
        | JournalEvent::RetryScheduled { at, .. }
        | JournalEvent::LegTakenOver(TakenLeg { at, .. }) => Some((&at.job, &at.leg)),
        JournalEvent::LegSkipped { job, leg, .. } => Some((job, leg)),
        _ => None,
    }
}

impl JobState {
    /// How the job ended; none while it has not.
    pub fn conclusion(&self) -> Option<Conclusion> {
        self.end.as_ref().map(|end| end.conclusion)
    }

    /// The legs that failed or were cancelled.
    pub fn failed_legs(&self) -> impl Iterator<Item = &LegState> {
        let is_failed =
            |leg: &&LegState| matches!(leg.conclusion(), Some(Conclusion::Failure | Conclusion::Cancelled));
        self.legs.iter().filter(is_failed)
    }

    /// The job's end, if it need not be run again: it ended before anybody wanted the round to stop, or it began
    /// before, and every leg of it is done.
    pub fn done(&self) -> Option<&Ending> {
        let is_whole = || {
            self.started_at.is_some()
                && !self.is_begun_stopping
                && self.legs.iter().all(|leg| leg.done().is_some())
        };
        let counts =
            |end: &&Ending| !end.is_stopping || (end.conclusion != Conclusion::Cancelled && is_whole());
        self.end.as_ref().filter(counts)
    }
}

impl LegState {
    /// The last attempt of the leg, if one began.
    pub fn last(&self) -> Option<&AttemptState> {
        self.attempts.last()
    }

    /// Number of the last attempt; 0 if none began.
    pub fn attempt(&self) -> u32 {
        self.last().map_or(0, |attempt| attempt.attempt)
    }

    /// How the leg was given up, or how its last attempt ended; none while that runs. A further attempt may follow.
    pub fn end(&self) -> Option<&Ending> {
        self.skip.as_ref().or_else(|| self.last()?.end.as_ref())
    }

    /// The conclusion of [`LegState::end`].
    pub fn conclusion(&self) -> Option<Conclusion> {
        self.end().map(|end| end.conclusion)
    }

    /// The leg's last end, if no further attempt is waited for.
    pub fn settled(&self) -> Option<&Ending> {
        self.end().filter(|_| self.retry.is_none())
    }

    /// The leg's end, if it need not be run again: no attempt is waited for, and it succeeded, or ended before anybody
    /// wanted the round to stop.
    pub fn done(&self) -> Option<&Ending> {
        self.settled().filter(|end| end.conclusion == Conclusion::Success || !end.is_stopping)
    }

    /// Number of attempts that failed on their own, and not because somebody wanted the round to stop.
    pub fn failures(&self) -> u32 {
        let ends = self.attempts.iter().filter_map(|attempt| attempt.end.as_ref());
        let failed = ends.filter(|end| end.conclusion == Conclusion::Failure && !end.is_stopping);
        u32::try_from(failed.count()).unwrap_or(u32::MAX)
    }
}

impl AttemptState {
    /// Whether a step of this stage was begun.
    pub fn has_begun(&self, stage: StageName) -> bool {
        self.steps.values().any(|step| step.step.kind == StepKind::Stage(stage))
    }

    /// The steps from the first on that succeeded without exception: what can be kept of an attempt that was cut.
    pub fn standing_steps(&self) -> impl Iterator<Item = (&JobStep, &StepEnding)> {
        let succeeded =
            |step: &'_ StepState| step.end.as_ref().is_some_and(|end| end.outcome == Conclusion::Success);
        let standing = self.steps.values().take_while(move |step| succeeded(step));
        standing.filter_map(|step| Some((&step.step, step.end.as_ref()?)))
    }
}

#[cfg(test)]
mod tests;
