//! The state machine of a round.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::event::{Action, AttemptEnd, AttemptOrder, Event, JobOutcome, SchedulerSettings};
use super::legs::{legs_of, reason};
use super::placement::{Placement, place};
use crate::artifact::{JournalEvent, LegAttempt};
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

#[derive(Debug)]
struct JobState {
    phase: JobPhase,
    legs: Vec<LegState>,
    placement: Placement,
    runner: String,
    contexts: KnownContexts,
    status: Status,
    reason: Option<Reason>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LegPhase {
    Pending,
    Running,
    Backoff,
    Ended,
}

#[derive(Debug)]
struct LegState {
    phase: LegPhase,
    sequence: Option<String>,
    is_tolerated: bool,
    /// Its `matrix`, as expressions see it.
    matrix: Value,
    summary: LegSummary,
}

impl LegState {
    /// Whether it failed and its job's `continue-on-error` lets that pass.
    fn is_forgiven(&self) -> bool {
        self.is_tolerated && self.summary.result == Conclusion::Failure
    }
}

/// Decides what happens next in a round.
#[derive(Debug)]
pub struct Scheduler {
    settings: SchedulerSettings,
    jobs: Vec<JobState>,
    is_cancelled: bool,
    has_ended: bool,
}

impl Scheduler {
    /// A scheduler before its first event.
    pub fn new(settings: SchedulerSettings) -> Self {
        let waiting = |_: &Job| JobState {
            phase: JobPhase::Waiting,
            legs: Vec::new(),
            placement: Placement::Controller,
            runner: String::new(),
            contexts: KnownContexts::default(),
            status: Status::Success,
            reason: None,
        };
        let jobs = settings.pipeline.jobs.iter().map(waiting).collect();
        Self { settings, jobs, is_cancelled: false, has_ended: false }
    }

    /// Takes in what happened and says what is to be done, in order.
    pub fn on_event(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Started => {}
            Event::AttemptEnded { job, leg, end } => self.attempt_ended((job, leg), end, &mut actions),
            Event::RetryDue { job, leg } => {
                let leg = &mut self.jobs[job].legs[leg];
                if leg.phase == LegPhase::Backoff {
                    leg.phase = LegPhase::Pending;
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
        let definition = &self.settings.pipeline.jobs[job];
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
        let retry = end.reason.as_ref().filter(|reason| {
            end.conclusion == Conclusion::Failure
                && !self.is_cancelled
                && attempt <= definition.retry.max
                && definition.retry.on.iter().any(|name| fault_of(*name) == reason.fault)
        });
        if let Some(reason) = retry {
            let delay = definition.retry.backoff.delay_before(attempt);
            state.phase = LegPhase::Backoff;
            actions.push(Action::record(JournalEvent::RetryScheduled {
                at: attempt_of(definition, &state.summary, attempt + 1),
                delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                reason: reason.clone(),
            }));
            actions.push(Action::WaitForRetry { job, leg, delay });
            return;
        }
        state.phase = LegPhase::Ended;
        state.summary.reason = end.reason;
        let fails_fast = definition.strategy.as_ref().is_some_and(|strategy| strategy.fail_fast);
        if fails_fast && end.conclusion == Conclusion::Failure && !state.is_tolerated {
            actions.push(Action::StopLegs { job });
            self.give_up(job, "another leg failed and `fail-fast` is set", actions);
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
        for leg in &mut self.jobs[job].legs {
            if matches!(leg.phase, LegPhase::Pending | LegPhase::Backoff) {
                leg.phase = LegPhase::Ended;
                leg.summary.result = Conclusion::Cancelled;
                leg.summary.reason = Some(Reason::new(Fault::Operator, "cancelled", why));
                let (job, leg) = (id.clone(), leg.summary.key.clone());
                actions.push(Action::record(JournalEvent::LegSkipped { job, leg, why: why.to_owned() }));
            }
        }
    }

    fn advance(&mut self, actions: &mut Vec<Action>) {
        // Each turn ends at least one job or changes nothing: it comes to rest.
        loop {
            let mut has_changed = false;
            for job in 0..self.jobs.len() {
                if self.jobs[job].phase == JobPhase::Waiting && self.are_needs_over(job) {
                    self.begin(job, actions);
                    has_changed = true;
                }
                if self.jobs[job].phase == JobPhase::Running {
                    let is_over = self.jobs[job].legs.iter().all(|leg| leg.phase == LegPhase::Ended);
                    if is_over {
                        self.end(job, actions);
                        has_changed = true;
                    }
                }
            }
            if !has_changed {
                break;
            }
        }
        for job in 0..self.jobs.len() {
            self.start_legs(job, actions);
        }
        let is_over = self.jobs.iter().all(|job| matches!(job.phase, JobPhase::Ended(_)));
        if is_over && !self.has_ended {
            self.has_ended = true;
            actions.push(Action::EndRound);
        }
    }

    fn needs_of(&self, job: usize) -> impl Iterator<Item = usize> {
        let jobs = &self.settings.pipeline.jobs;
        jobs[job].needs.iter().filter_map(|need| jobs.iter().position(|other| other.id == need.job))
    }

    fn are_needs_over(&self, job: usize) -> bool {
        self.needs_of(job).all(|need| matches!(self.jobs[need].phase, JobPhase::Ended(_)))
    }

    /// What `needs` shows of one job.
    fn need(&self, job: usize) -> Value {
        let state = &self.jobs[job];
        let result = if let JobPhase::Ended(conclusion) = state.phase { conclusion.as_str() } else { "" };
        let summaries: Vec<&LegSummary> = state.legs.iter().map(|leg| &leg.summary).collect();
        let has_matrix = self.settings.pipeline.jobs[job].strategy.is_some();
        let outputs = match summaries.as_slice() {
            [only] if !has_matrix => Json::Object(only.outputs.clone()),
            _ => Json::Object(Map::new()),
        };
        let count = |wanted: Conclusion| summaries.iter().filter(|leg| leg.result == wanted).count();
        let counts = json!({
            "total": summaries.len(),
            "success": count(Conclusion::Success),
            "failure": count(Conclusion::Failure),
            "cancelled": count(Conclusion::Cancelled),
            "skipped": count(Conclusion::Skipped),
        });
        let by_key: Map<String, Json> = summaries.iter().map(|leg| (leg.key.clone(), json!(leg))).collect();
        Value::from(
            json!({"result": result, "outputs": outputs, "legs": summaries, "counts": counts, "by-key": by_key}),
        )
    }

    /// Everything a waiting job needs has ended: decides whether it runs, and plans its legs.
    fn begin(&mut self, job: usize, actions: &mut Vec<Action>) {
        let pipeline = Arc::clone(&self.settings.pipeline);
        let definition = &pipeline.jobs[job];
        let needs: Vec<usize> = self.needs_of(job).collect();
        let went_well = |need: &usize| self.jobs[*need].phase == JobPhase::Ended(Conclusion::Success);
        let status = match () {
            () if self.is_cancelled => Status::Cancelled,
            () if needs.iter().all(went_well) => Status::Success,
            () => Status::Failure,
        };
        let needs: Object =
            needs.iter().map(|need| (pipeline.jobs[*need].id.as_str(), self.need(*need))).collect();
        let contexts = self.settings.contexts.clone().with(ContextName::Needs, needs);

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
                return self.end_without_legs(job, (conclusion, Some(reason)), actions);
            }
            Err(error) => {
                return self.end_without_legs(job, (Conclusion::Failure, Some(misread(&error))), actions);
            }
        }
        let planned = labels_of(definition, &contexts)
            .map_err(|error| misread(&error))
            .and_then(|labels| {
                place(&labels, &self.settings.runners).map_err(|error| failed("no-runner", &error))
            })
            .and_then(|placement| {
                Ok((placement, legs_of(definition, &pipeline.source, &contexts, &self.settings.seed)?))
            });
        let (placement, legs) = match planned {
            Ok(planned) => planned,
            Err(reason) => return self.end_without_legs(job, (Conclusion::Failure, Some(reason)), actions),
        };
        actions.push(Action::record(JournalEvent::JobStarted { job: definition.id.clone() }));
        let keys = legs.iter().map(|leg| leg.key.clone()).collect();
        actions.push(Action::record(JournalEvent::JobPlanned { job: definition.id.clone(), legs: keys }));
        if legs.is_empty() {
            let reason = Reason::new(Fault::Operator, "matrix-empty", "its matrix has no legs");
            return self.end_without_legs(job, (Conclusion::Skipped, Some(reason)), actions);
        }
        let state = &mut self.jobs[job];
        state.phase = JobPhase::Running;
        state.placement = placement;
        state.runner = match placement {
            Placement::Controller => "controller".to_owned(),
            Placement::Runner(index) => self.settings.runners[index].name.clone(),
        };
        state.contexts = contexts;
        state.status = status;
        let pending = |leg: super::legs::Leg| LegState {
            phase: LegPhase::Pending,
            sequence: leg.sequence,
            is_tolerated: leg.is_tolerated,
            matrix: leg.matrix.clone(),
            summary: LegSummary {
                key: leg.key,
                result: Conclusion::Skipped,
                attempt: 0,
                runner: state.runner.clone(),
                started_at_us: 0,
                reason: None,
                matrix: Json::from(leg.matrix),
                outputs: Map::new(),
            },
        };
        state.legs = legs.into_iter().map(pending).collect();
    }

    fn end_without_legs(
        &mut self,
        job: usize,
        (conclusion, reason): (Conclusion, Option<Reason>),
        actions: &mut Vec<Action>,
    ) {
        self.jobs[job].phase = JobPhase::Ended(conclusion);
        self.jobs[job].reason.clone_from(&reason);
        let id = self.settings.pipeline.jobs[job].id.clone();
        actions.push(Action::record(JournalEvent::JobEnded { job: id, conclusion, reason }));
    }

    fn end(&mut self, job: usize, actions: &mut Vec<Action>) {
        let definition = &self.settings.pipeline.jobs[job];
        let ended_as = |conclusion: Conclusion| {
            let counts = move |leg: &&LegState| leg.summary.result == conclusion && !leg.is_forgiven();
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
        self.jobs[job].phase = JobPhase::Ended(conclusion);
        self.jobs[job].reason.clone_from(&reason);
        let id = definition.id.clone();
        actions.push(Action::record(JournalEvent::JobEnded { job: id, conclusion, reason }));
    }

    /// Starts what may start: within the job's own limit, its sequences, and the runner's capacity.
    fn start_legs(&mut self, job: usize, actions: &mut Vec<Action>) {
        // After a cancellation only jobs that asked for it (`if: always()`) still start legs.
        let is_stopped = self.is_cancelled && self.jobs[job].status != Status::Cancelled;
        if self.jobs[job].phase != JobPhase::Running || is_stopped {
            return;
        }
        let definition = &self.settings.pipeline.jobs[job];
        let max_parallel = definition.strategy.as_ref().and_then(|strategy| strategy.max_parallel);
        let placement = self.jobs[job].placement;
        let mut running_here = self.running_at(placement);
        let capacity = match placement {
            Placement::Controller => u32::MAX,
            Placement::Runner(index) => self.settings.runners[index].capacity.max(1),
        };
        let state = &mut self.jobs[job];
        for index in 0..state.legs.len() {
            let running = state.legs.iter().filter(|leg| leg.phase == LegPhase::Running).count();
            let is_full =
                max_parallel.is_some_and(|limit| running >= limit as usize) || running_here >= capacity;
            if is_full {
                break;
            }
            let sequence = state.legs[index].sequence.clone();
            let is_blocked = sequence.is_some()
                && state.legs[..index]
                    .iter()
                    .any(|leg| leg.sequence == sequence && leg.phase != LegPhase::Ended);
            if state.legs[index].phase != LegPhase::Pending || is_blocked {
                continue;
            }
            let total = state.legs.len();
            let leg = &mut state.legs[index];
            leg.phase = LegPhase::Running;
            leg.summary.attempt += 1;
            running_here += 1;
            let strategy = json!({
                "key": leg.summary.key,
                "job-index": index,
                "job-total": total,
                "max-parallel": max_parallel.unwrap_or_else(|| u32::try_from(total).unwrap_or(u32::MAX)),
                "fail-fast": definition.strategy.as_ref().is_some_and(|strategy| strategy.fail_fast),
            });
            let contexts = state.contexts.clone();
            let contexts = contexts
                .with(ContextName::Matrix, leg.matrix.clone())
                .with(ContextName::Strategy, Value::from(strategy));
            actions.push(Action::record(JournalEvent::LegStarted {
                at: attempt_of(definition, &leg.summary, leg.summary.attempt),
                runner: state.runner.clone(),
            }));
            actions.push(Action::StartAttempt(Box::new(AttemptOrder {
                job,
                leg: index,
                key: leg.summary.key.clone(),
                attempt: leg.summary.attempt,
                placement,
                runner: state.runner.clone(),
                contexts,
                status: state.status,
            })));
        }
    }

    fn running_at(&self, placement: Placement) -> u32 {
        let here = self.jobs.iter().filter(|job| job.placement == placement);
        let running = here.flat_map(|job| &job.legs).filter(|leg| leg.phase == LegPhase::Running).count();
        u32::try_from(running).unwrap_or(u32::MAX)
    }
}

/// How the journal names an attempt.
fn attempt_of(job: &Job, leg: &LegSummary, attempt: u32) -> LegAttempt {
    LegAttempt { job: job.id.clone(), leg: leg.key.clone(), attempt }
}

/// The labels a job asks for; a label that evaluates to a list stands for its items.
fn labels_of(job: &Job, known: &KnownContexts) -> Result<Vec<String>, ExprError> {
    let scope = known.at(Site::RunsOn, Status::Success);
    let mut labels = Vec::new();
    for template in &job.runs_on.labels {
        match template.evaluate(&scope)? {
            Value::Array(items) => labels.extend(items.iter().map(ToString::to_string)),
            label => labels.push(label.to_string()),
        }
    }
    Ok(labels)
}

/// The fault a retry rule names.
pub(crate) fn fault_of(name: FaultName) -> Fault {
    match name {
        FaultName::Infra => Fault::Infra,
        FaultName::Pipeline => Fault::Pipeline,
        FaultName::Operator => Fault::Operator,
        FaultName::Unknown => Fault::Unknown,
    }
}
