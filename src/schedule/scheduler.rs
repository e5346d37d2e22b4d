//! The state machine of a round.
//!
//! What an event costs does not grow with the jobs and legs it does not touch: the placements below say at once what
//! may start, and counters say what is over. Only a job's beginning and end look at all of its legs.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::event::{Action, AttemptEnd, AttemptOrder, Event, JobOutcome, SchedulerSettings};
use super::legs::{legs_of, reason};
use super::placement::{Placement, labels_of, placement_of};
use crate::artifact::{JournalEvent, LegAttempt, LegState, RoundState};
use crate::model::{Conclusion, Fault, LegSummary, Reason};
use crate::pipeline::contexts::{ContextName, KnownContexts, Site};
use crate::pipeline::definition::{FaultName, Job};
use crate::pipeline::expr::{ExprError, Object, Status, Value};
use crate::pipeline::template::diagnostic;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobPhase {
    Waiting,
    Running,
    Ended(Conclusion),
}

#[derive(Debug, Clone)]
struct ScheduledJob {
    phase: JobPhase,
    /// The jobs it needs, by index.
    needs: Vec<usize>,
    /// The jobs that need it, by index.
    dependents: Vec<usize>,
    /// Number of the jobs it needs that have not ended.
    unmet: usize,
    legs: Vec<ScheduledLeg>,
    /// Legs that have not ended, by sequence and in their order: the first of each may run.
    sequences: Vec<VecDeque<usize>>,
    /// Legs that may start now, as far as only this job is concerned.
    ready: BTreeSet<usize>,
    /// Number of legs that run.
    running: u32,
    /// Number of legs that have not ended.
    open: usize,
    /// What `needs` shows of the job once it has ended; made for the first that asks.
    shown: Option<Value>,
    placement: Placement,
    runner: String,
    contexts: KnownContexts,
    status: Status,
    reason: Option<Reason>,
    /// Whether anything of it, or of what it needs, has run since the round was taken up again.
    is_renewed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LegPhase {
    Pending,
    Running,
    Backoff,
    Ended,
}

#[derive(Debug, Clone)]
struct ScheduledLeg {
    phase: LegPhase,
    /// Index of the leg's sequence, if it is in one.
    sequence: Option<usize>,
    is_tolerated: bool,
    /// Number of attempts that failed since the round began, or was taken up again: what `retry` counts.
    failures: u32,
    /// The leg's `matrix`, as expressions see it.
    matrix: Value,
    summary: LegSummary,
}

impl ScheduledLeg {
    /// Whether the leg failed and its job's `continue-on-error` lets that pass.
    fn is_forgiven(&self) -> bool {
        self.is_tolerated && self.summary.result == Conclusion::Failure
    }
}

impl ScheduledLeg {
    /// Ends the leg as it ended before the round was taken up again, if that stands.
    fn take_over(&mut self, history: &RoundState, job: &str) -> bool {
        let Some((attempt, end)) = history.standing(job, &self.summary.key) else { return false };
        self.phase = LegPhase::Ended;
        self.summary.result = end.conclusion;
        self.summary.reason.clone_from(&end.reason);
        self.summary.runner.clone_from(&attempt.runner);
        self.summary.outputs.clone_from(&attempt.outputs);
        self.summary.started_at_us = attempt.started_at.map_or(0, jiff::Timestamp::as_microsecond);
        true
    }
}

impl ScheduledJob {
    /// Whether a leg may start, as far as only this job is concerned.
    fn is_startable(&self, max_parallel: Option<u32>) -> bool {
        !self.ready.is_empty() && max_parallel.is_none_or(|limit| self.running < limit)
    }

    /// Lets a leg run, if no earlier one of its sequence is still to end.
    fn wait_for_turn(&mut self, leg: usize) {
        self.legs[leg].phase = LegPhase::Pending;
        let first = |sequence: usize| self.sequences[sequence].front() == Some(&leg);
        if self.legs[leg].sequence.is_none_or(first) {
            self.ready.insert(leg);
        }
    }

    /// Notes that a leg is over: the next one of its sequence may run.
    fn close(&mut self, leg: usize) {
        self.legs[leg].phase = LegPhase::Ended;
        self.ready.remove(&leg);
        self.open -= 1;
        let Some(sequence) = self.legs[leg].sequence else { return };
        let queue = &mut self.sequences[sequence];
        while queue.front().is_some_and(|first| self.legs[*first].phase == LegPhase::Ended) {
            queue.pop_front();
        }
        if let Some(next) = queue.front().filter(|next| self.legs[**next].phase == LegPhase::Pending) {
            self.ready.insert(*next);
        }
    }
}

/// What runs in one placement, and what may start there.
#[derive(Debug, Clone)]
struct PlacementState {
    capacity: u32,
    running: u32,
    /// Jobs with legs that may start there.
    startable: BTreeSet<usize>,
}

/// Decides what happens next in a round.
#[derive(Debug, Clone)]
pub struct Scheduler {
    settings: SchedulerSettings,
    jobs: Vec<ScheduledJob>,
    /// The controller, then the runners in their order.
    placements: Vec<PlacementState>,
    /// Jobs that may begin or end now.
    due: BTreeSet<usize>,
    /// Number of jobs that have not ended.
    open: usize,
    is_cancelled: bool,
    has_ended: bool,
}

impl Scheduler {
    /// A scheduler before its first event.
    pub fn new(settings: SchedulerSettings) -> Self {
        let jobs = &settings.pipeline.jobs;
        let numbers: HashMap<&str, usize> = jobs.iter().map(|job| job.id.as_str()).zip(0..).collect();
        let needs_of = |job: &Job| -> Vec<usize> {
            job.needs.iter().filter_map(|need| numbers.get(need.job.as_str()).copied()).collect()
        };
        let waiting = |job: &Job| ScheduledJob {
            phase: JobPhase::Waiting,
            needs: needs_of(job),
            dependents: Vec::new(),
            unmet: 0,
            legs: Vec::new(),
            sequences: Vec::new(),
            ready: BTreeSet::new(),
            running: 0,
            open: 0,
            shown: None,
            placement: Placement::Controller,
            runner: String::new(),
            contexts: KnownContexts::default(),
            status: Status::Success,
            reason: None,
            is_renewed: false,
        };
        let mut jobs: Vec<ScheduledJob> = jobs.iter().map(waiting).collect();
        for job in 0..jobs.len() {
            jobs[job].unmet = jobs[job].needs.len();
            for need in jobs[job].needs.clone() {
                jobs[need].dependents.push(job);
            }
        }
        let state = |capacity| PlacementState { capacity, running: 0, startable: BTreeSet::new() };
        let runners = settings.runners.iter().map(|runner| state(runner.capacity.max(1)));
        let placements = std::iter::once(state(u32::MAX)).chain(runners).collect();
        let due = (0..jobs.len()).filter(|job| jobs[*job].unmet == 0).collect();
        let open = jobs.len();
        Self { settings, jobs, placements, due, open, is_cancelled: false, has_ended: false }
    }

    /// Takes in what happened and says what is to be done, in order.
    pub fn on_event(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Started => {}
            Event::AttemptEnded { job, leg, end } => self.attempt_ended((job, leg), end, &mut actions),
            Event::RetryDue { job, leg } => {
                if self.jobs[job].legs[leg].phase == LegPhase::Backoff {
                    self.jobs[job].wait_for_turn(leg);
                    self.note_startable(job);
                }
            }
            Event::CancelRequested => self.cancel(&mut actions),
        }
        self.advance(&mut actions);
        actions
    }

    /// How the jobs ended, with their legs; for the exit code and the report.
    pub fn outcome(&self) -> Vec<JobOutcome<'_>> {
        let jobs = self.settings.pipeline.jobs.iter().zip(&self.jobs);
        jobs.map(|(job, state)| JobOutcome {
            job,
            conclusion: if let JobPhase::Ended(conclusion) = state.phase { Some(conclusion) } else { None },
            reason: state.reason.as_ref(),
            legs: state.legs.iter().map(|leg| &leg.summary).collect(),
        })
        .collect()
    }

    fn attempt_ended(&mut self, (job, leg): (usize, usize), end: AttemptEnd, actions: &mut Vec<Action>) {
        let pipeline = Arc::clone(&self.settings.pipeline);
        let definition = &pipeline.jobs[job];
        self.jobs[job].running -= 1;
        self.placements[placement_index(self.jobs[job].placement)].running -= 1;
        self.note_startable(job);
        let state = &mut self.jobs[job].legs[leg];
        let attempt = state.summary.attempt;
        actions.push(Action::record(JournalEvent::LegEnded {
            at: attempt_of(definition, &state.summary, attempt),
            conclusion: end.conclusion,
            reason: end.reason.clone(),
            outputs: end.outputs.clone(),
        }));
        state.summary.result = end.conclusion;
        state.summary.started_at_us = end.started_at_us;
        state.summary.outputs = end.outputs;
        state.failures += u32::from(end.conclusion == Conclusion::Failure);
        let failures = state.failures;
        let retry = end.reason.as_ref().filter(|reason| {
            end.conclusion == Conclusion::Failure
                && !reason.is_final
                && !self.is_cancelled
                && failures <= definition.retry.max
                && definition.retry.on.iter().any(|name| fault_of(*name) == reason.fault)
        });
        if let Some(reason) = retry {
            let delay = definition.retry.backoff.delay_before(failures);
            state.phase = LegPhase::Backoff;
            actions.push(Action::record(JournalEvent::RetryScheduled {
                at: attempt_of(definition, &state.summary, attempt + 1),
                delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                reason: reason.clone(),
            }));
            actions.push(Action::WaitForRetry { job, leg, delay });
            return;
        }
        state.summary.reason = end.reason;
        let is_tolerated = state.is_tolerated;
        self.jobs[job].close(leg);
        self.note_startable(job);
        self.due.insert(job);
        if end.conclusion == Conclusion::Failure && !is_tolerated {
            self.fail_fast(job, actions);
        }
    }

    fn cancel(&mut self, actions: &mut Vec<Action>) {
        self.is_cancelled = true;
        for job in 0..self.jobs.len() {
            if self.jobs[job].phase == JobPhase::Running {
                self.give_up(job, "the round was cancelled", actions);
            }
        }
    }

    /// Ends the legs of a job that have not started.
    fn give_up(&mut self, job: usize, why: &str, actions: &mut Vec<Action>) {
        let id = &self.settings.pipeline.jobs[job].id;
        let state = &mut self.jobs[job];
        if state.open > state.running as usize {
            for leg in &mut state.legs {
                if matches!(leg.phase, LegPhase::Pending | LegPhase::Backoff) {
                    leg.phase = LegPhase::Ended;
                    state.open -= 1;
                    leg.summary.result = Conclusion::Cancelled;
                    leg.summary.reason = Some(Reason::new(Fault::Operator, "cancelled", why));
                    let (job, leg) = (id.clone(), leg.summary.key.clone());
                    actions.push(Action::record(JournalEvent::LegSkipped { job, leg, why: why.to_owned() }));
                }
            }
        }
        state.ready.clear();
        self.note_startable(job);
        self.due.insert(job);
    }

    fn advance(&mut self, actions: &mut Vec<Action>) {
        // Upwards by number, then from the first again: what ends lets others begin, which may end at once.
        let mut from = 0;
        while let Some(job) = self.due.range(from..).next().or_else(|| self.due.first()).copied() {
            self.due.remove(&job);
            from = job + 1;
            match self.jobs[job].phase {
                JobPhase::Waiting => self.begin(job, actions),
                JobPhase::Running if self.jobs[job].open == 0 => self.end(job, actions),
                JobPhase::Running | JobPhase::Ended(_) => {}
            }
        }
        while let Some(job) = self.next_to_start() {
            self.start_leg(job, actions);
        }
        if self.open == 0 && !self.has_ended {
            self.has_ended = true;
            actions.push(Action::EndRound);
        }
    }

    /// The first job with a leg that may start: within the job's own limit, its sequences, and the runner's
    /// capacity.
    fn next_to_start(&self) -> Option<usize> {
        let with_room = self.placements.iter().filter(|placement| placement.running < placement.capacity);
        with_room.filter_map(|placement| placement.startable.first().copied()).min()
    }

    fn max_parallel(&self, job: usize) -> Option<u32> {
        self.settings.pipeline.jobs[job].strategy.as_ref().and_then(|strategy| strategy.max_parallel)
    }

    /// Keeps what the job's placement knows of it up to date.
    fn note_startable(&mut self, job: usize) {
        let is_startable = self.jobs[job].is_startable(self.max_parallel(job));
        let startable = &mut self.placements[placement_index(self.jobs[job].placement)].startable;
        if is_startable {
            startable.insert(job);
        } else {
            startable.remove(&job);
        }
    }

    /// What `needs` shows of a job that has ended.
    fn need(&mut self, job: usize) -> Value {
        if let Some(shown) = &self.jobs[job].shown {
            return shown.clone();
        }
        let state = &self.jobs[job];
        let result = if let JobPhase::Ended(conclusion) = state.phase { conclusion.as_str() } else { "" };
        let has_matrix = self.settings.pipeline.jobs[job].strategy.is_some();
        let outputs = match state.legs.as_slice() {
            [only] if !has_matrix => Value::from(Json::Object(only.summary.outputs.clone())),
            _ => Value::from(Object::new()),
        };
        let count = |wanted: Conclusion| state.legs.iter().filter(|leg| leg.summary.result == wanted).count();
        let counts = json!({
            "total": state.legs.len(),
            "success": count(Conclusion::Success),
            "failure": count(Conclusion::Failure),
            "cancelled": count(Conclusion::Cancelled),
            "skipped": count(Conclusion::Skipped),
        });
        let legs: Vec<Value> = state.legs.iter().map(|leg| Value::from(json!(leg.summary))).collect();
        let keys = state.legs.iter().map(|leg| leg.summary.key.as_str());
        let by_key: Object = keys.zip(legs.iter().cloned()).collect();
        let shown = Value::from(
            Object::new()
                .with("result", result)
                .with("outputs", outputs)
                .with("legs", legs)
                .with("counts", counts)
                .with("by-key", by_key),
        );
        self.jobs[job].shown = Some(shown.clone());
        shown
    }

    /// Begins a job all of whose needs have ended: decides whether it runs, and plans its legs.
    fn begin(&mut self, job: usize, actions: &mut Vec<Action>) {
        let pipeline = Arc::clone(&self.settings.pipeline);
        let definition = &pipeline.jobs[job];
        let needs = self.jobs[job].needs.clone();
        let went_well = |need: &usize| self.jobs[*need].phase == JobPhase::Ended(Conclusion::Success);
        let status = match () {
            () if self.is_cancelled => Status::Cancelled,
            () if needs.iter().all(went_well) => Status::Success,
            () => Status::Failure,
        };
        let needs: Object =
            needs.iter().map(|need| (pipeline.jobs[*need].id.as_str(), self.need(*need))).collect();
        let contexts = self.settings.contexts.clone().with(ContextName::Needs, needs);
        self.jobs[job].is_renewed = self.jobs[job].needs.iter().any(|need| self.jobs[*need].is_renewed);

        let failed =
            |code: &str, error: &dyn std::fmt::Display| Reason::new(Fault::Pipeline, code, error.to_string());
        let misread = |error: &ExprError| reason(&pipeline.source, &diagnostic(error));
        match definition.condition.holds(&contexts.at(Site::JobIf, status)) {
            Ok(true) => {}
            Ok(false) => {
                let why =
                    if self.is_cancelled { "the round was cancelled" } else { "its condition does not hold" };
                let conclusion = if self.is_cancelled { Conclusion::Cancelled } else { Conclusion::Skipped };
                let reason = Reason::new(Fault::Operator, "condition", why);
                return self.conclude(job, (conclusion, Some(reason)), actions);
            }
            Err(error) => {
                return self.conclude(job, (Conclusion::Failure, Some(misread(&error))), actions);
            }
        }
        let planned = labels_of(definition, &contexts)
            .map_err(|error| misread(&error))
            .and_then(|labels| {
                placement_of(&labels, &self.settings.runners).map_err(|error| failed("no-runner", &error))
            })
            .and_then(|placement| {
                Ok((placement, legs_of(definition, &pipeline.source, &contexts, &self.settings.seed)?))
            });
        let (placement, legs) = match planned {
            Ok(planned) => planned,
            Err(reason) => return self.conclude(job, (Conclusion::Failure, Some(reason)), actions),
        };
        actions.push(Action::record(JournalEvent::JobStarted { job: definition.id.clone() }));
        let keys = legs.iter().map(|leg| leg.key.clone()).collect();
        actions.push(Action::record(JournalEvent::JobPlanned { job: definition.id.clone(), legs: keys }));
        if legs.is_empty() {
            let reason = Reason::new(Fault::Operator, "matrix-empty", "its matrix has no legs");
            return self.conclude(job, (Conclusion::Skipped, Some(reason)), actions);
        }
        let history = &self.settings.history;
        let state = &mut self.jobs[job];
        state.phase = JobPhase::Running;
        state.placement = placement;
        state.runner = match placement {
            Placement::Controller => "controller".to_owned(),
            Placement::Runner(index) => self.settings.runners[index].name.clone(),
        };
        state.contexts = contexts;
        state.status = status;
        let mut sequences: HashMap<String, usize> = HashMap::new();
        let mut number_of = |name: String| {
            let next = sequences.len();
            *sequences.entry(name).or_insert(next)
        };
        let pending = |leg: super::legs::Leg| ScheduledLeg {
            phase: LegPhase::Pending,
            sequence: leg.sequence.map(&mut number_of),
            is_tolerated: leg.is_tolerated,
            matrix: leg.matrix.clone(),
            failures: 0,
            summary: LegSummary {
                attempt: history.leg(&definition.id, &leg.key).map_or(0, LegState::attempt),
                key: leg.key,
                result: Conclusion::Skipped,
                runner: state.runner.clone(),
                started_at_us: 0,
                reason: None,
                matrix: Json::from(leg.matrix),
                outputs: Map::new(),
            },
        };
        state.legs = legs.into_iter().map(pending).collect();
        state.sequences = vec![VecDeque::new(); sequences.len()];
        for leg in 0..state.legs.len() {
            if !state.is_renewed && state.legs[leg].take_over(history, &definition.id) {
                continue;
            }
            state.open += 1;
            if let Some(sequence) = state.legs[leg].sequence {
                state.sequences[sequence].push_back(leg);
            }
            state.wait_for_turn(leg);
        }
        self.note_startable(job);
        let failed = |leg: &ScheduledLeg| leg.summary.result == Conclusion::Failure && !leg.is_forgiven();
        if self.jobs[job].legs.iter().any(failed) {
            self.fail_fast(job, actions);
        }
        if self.jobs[job].open == 0 {
            self.due.insert(job);
        }
    }

    /// Stops what is left of a job that wants to fail fast.
    fn fail_fast(&mut self, job: usize, actions: &mut Vec<Action>) {
        let strategy = self.settings.pipeline.jobs[job].strategy.as_ref();
        if strategy.is_some_and(|strategy| strategy.fail_fast) {
            actions.push(Action::StopLegs { job });
            self.give_up(job, "another leg failed and `fail-fast` is set", actions);
        }
    }

    /// Ends a job: those that waited for it alone may begin.
    fn conclude(
        &mut self,
        job: usize,
        (conclusion, reason): (Conclusion, Option<Reason>),
        actions: &mut Vec<Action>,
    ) {
        self.jobs[job].phase = JobPhase::Ended(conclusion);
        self.jobs[job].reason.clone_from(&reason);
        self.open -= 1;
        for dependent in self.jobs[job].dependents.clone() {
            self.jobs[dependent].unmet -= 1;
            if self.jobs[dependent].unmet == 0 {
                self.due.insert(dependent);
            }
        }
        let id = self.settings.pipeline.jobs[job].id.clone();
        actions.push(Action::record(JournalEvent::JobEnded { job: id, conclusion, reason }));
    }

    fn end(&mut self, job: usize, actions: &mut Vec<Action>) {
        let ended_as = |conclusion: Conclusion| {
            let counts = move |leg: &&ScheduledLeg| leg.summary.result == conclusion && !leg.is_forgiven();
            self.jobs[job].legs.iter().find(counts)
        };
        let conclusion = match () {
            () if ended_as(Conclusion::Failure).is_some() => Conclusion::Failure,
            () if ended_as(Conclusion::Cancelled).is_some() => Conclusion::Cancelled,
            () => Conclusion::Success,
        };
        let first = ended_as(conclusion);
        let reason =
            first.and_then(|leg| leg.summary.reason.clone()).filter(|_| conclusion != Conclusion::Success);
        self.conclude(job, (conclusion, reason), actions);
    }

    /// Starts the first leg of a job that may start.
    fn start_leg(&mut self, job: usize, actions: &mut Vec<Action>) {
        let definition = &self.settings.pipeline.jobs[job];
        let strategy = definition.strategy.as_ref();
        let state = &mut self.jobs[job];
        let Some(index) = state.ready.pop_first() else { return };
        let total = state.legs.len();
        let leg = &mut state.legs[index];
        leg.phase = LegPhase::Running;
        leg.summary.attempt += 1;
        state.running += 1;
        state.is_renewed = true;
        self.placements[placement_index(state.placement)].running += 1;
        let max_parallel = strategy.and_then(|strategy| strategy.max_parallel);
        let strategy = json!({
            "key": leg.summary.key,
            "job-index": index,
            "job-total": total,
            "max-parallel": max_parallel.unwrap_or_else(|| u32::try_from(total).unwrap_or(u32::MAX)),
            "fail-fast": strategy.is_some_and(|strategy| strategy.fail_fast),
        });
        let contexts = state.contexts.clone();
        let contexts = contexts
            .with(ContextName::Matrix, leg.matrix.clone())
            .with(ContextName::Strategy, Value::from(strategy));
        let at = attempt_of(definition, &leg.summary, leg.summary.attempt);
        let runner = state.runner.clone();
        actions.push(Action::record(JournalEvent::LegStarted { at: at.clone(), runner }));
        actions.push(Action::StartAttempt(Box::new(AttemptOrder {
            job,
            leg: index,
            at,
            placement: state.placement,
            contexts,
            status: state.status,
        })));
        self.note_startable(job);
    }
}

/// Index of a placement in [`Scheduler::placements`].
fn placement_index(placement: Placement) -> usize {
    match placement {
        Placement::Controller => 0,
        Placement::Runner(index) => index + 1,
    }
}

/// The attempt of a leg, as the journal names it.
fn attempt_of(job: &Job, leg: &LegSummary, attempt: u32) -> LegAttempt {
    LegAttempt { job: job.id.clone(), leg: leg.key.clone(), attempt }
}

/// The fault that a retry rule names.
pub(crate) fn fault_of(name: FaultName) -> Fault {
    match name {
        FaultName::Infra => Fault::Infra,
        FaultName::Pipeline => Fault::Pipeline,
        FaultName::Operator => Fault::Operator,
        FaultName::Unknown => Fault::Unknown,
    }
}
