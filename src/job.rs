//! L4, one attempt of one leg: runs the job's steps in order and owns the booted server.
//!
//! Whatever happens (a failing step, a timeout, a cancellation), the server is stopped and the scratch
//! directory removed before the attempt counts as ended. Deliberately absent: retries of the attempt, and
//! anything about other legs; that is `schedule`'s.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value as Json, json};
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::artifact::{JobStep, JournalEvent, LegAttempt, StepKind};
use crate::model::{Conclusion, Fault, Reason};
use crate::pipeline::definition::{Action, Env, Flag, Job, Pipeline, Step};
use crate::pipeline::expr::{Contexts, ExprError, Object, Status, Value};
use crate::pipeline::template::diagnostic;
use crate::ports::Progress;
use crate::report::text::error_chain;
use crate::schedule::{AttemptEnd, AttemptOrder, fault_of, pipeline_reason, scope_of};
use crate::stages::{JobContext, Notes, RoundContext, RunnerContext, ShellStep, StageCall, run_shell};

/// How long a server may take to end when it is asked to.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// What steps that insist on running after a cancellation (`if: always()`) may take together.
const CLEANUP_BUDGET: Duration = Duration::from_secs(30);

/// What an attempt needs.
pub struct JobRun {
    /// What to run.
    pub order: AttemptOrder,
    /// The pipeline.
    pub pipeline: Arc<Pipeline>,
    /// The round.
    pub round: Arc<RoundContext>,
    /// The place.
    pub runner: RunnerContext,
    /// Stops the attempt: its server is asked to end.
    pub cancel: CancellationToken,
    /// Stops it at once: its server is killed.
    pub kill: CancellationToken,
    /// Where journal events go.
    pub journal: UnboundedSender<JournalEvent>,
    /// Where progress goes.
    pub progress: UnboundedSender<Progress>,
    /// Wall time of now, microseconds since 1970 UTC.
    pub started_at_us: i64,
}

/// Runs the attempt to its end.
///
/// # Cancel safety
/// Stops by its tokens; dropping the future kills the server.
pub async fn run_attempt(run: JobRun) -> AttemptEnd {
    let failed = |reason: Reason| AttemptEnd {
        conclusion: Conclusion::Failure,
        reason: Some(reason),
        outputs: Map::new(),
        started_at_us: run.started_at_us,
    };
    let job = &run.pipeline.jobs[run.order.job];
    let attempt_dir = match run.round.directory.attempt_dir(&job.id, &run.order.key, run.order.attempt) {
        Ok(path) => path,
        Err(error) => return failed(Reason::new(Fault::Infra, "round-directory", error_chain(&error))),
    };
    let scratch = match tempfile::Builder::new().prefix("cacheon-").tempdir() {
        Ok(scratch) => scratch,
        Err(error) => {
            return failed(Reason::new(
                Fault::Infra,
                "machine",
                format!("make a scratch directory: {error}"),
            ));
        }
    };
    let context = JobContext {
        round: &run.round,
        runner: &run.runner,
        job: job.id.clone(),
        leg: run.order.key.clone(),
        attempt: run.order.attempt,
        attempt_dir,
        scratch_dir: scratch.path().to_owned(),
        started_at_us: run.started_at_us,
        server: None,
        notes: Notes::default(),
        cancel: run.cancel.clone(),
        progress: run.progress.clone(),
    };
    let mut steps = StepLoop::new(&run, job, context);
    let end = steps.run().await;
    if let Some(booted) = steps.context.server.take() {
        tokio::select! {
            biased;
            // Dropping the stop kills the server's whole group.
            () = run.kill.cancelled() => {}
            () = booted.server.stop(STOP_GRACE) => {}
        }
    }
    end
}

/// How far the steps of a job have come.
struct StepLoop<'a> {
    run: &'a JobRun,
    job: &'a Job,
    context: JobContext<'a>,
    contexts: BTreeMap<String, Json>,
    /// `steps.<id>` as expressions see it.
    steps: Map<String, Json>,
    status: Status,
    reason: Option<Reason>,
    deadline: Option<Instant>,
}

/// How a step ended.
struct StepEnd {
    outcome: Conclusion,
    reason: Option<Reason>,
    outputs: Map<String, Json>,
}

impl<'a> StepLoop<'a> {
    fn new(run: &'a JobRun, job: &'a Job, context: JobContext<'a>) -> Self {
        let timeout = job.timeout.or(run.pipeline.defaults.timeout);
        Self {
            run,
            job,
            context,
            contexts: run.order.contexts.clone(),
            steps: Map::new(),
            status: if run.order.status == Status::Cancelled { Status::Cancelled } else { Status::Success },
            reason: None,
            deadline: timeout.map(|timeout| Instant::now() + timeout),
        }
    }

    async fn run(&mut self) -> AttemptEnd {
        for (index, step) in self.job.steps.iter().enumerate() {
            if self.status != Status::Cancelled && self.run.cancel.is_cancelled() {
                self.cancelled();
            }
            self.step(index, step).await;
        }
        let conclusion = match self.status {
            Status::Success => Conclusion::Success,
            Status::Failure => Conclusion::Failure,
            Status::Cancelled => Conclusion::Cancelled,
        };
        let mut end = AttemptEnd {
            conclusion,
            reason: self.reason.take(),
            outputs: Map::new(),
            started_at_us: self.run.started_at_us,
        };
        match self.outputs(conclusion) {
            Ok(outputs) => end.outputs = outputs,
            Err(reason) => {
                end.conclusion = Conclusion::Failure;
                end.reason = Some(reason);
            }
        }
        end
    }

    /// From here on only steps that insist run, within one budget, and by a token of their own.
    fn cancelled(&mut self) {
        self.status = Status::Cancelled;
        self.reason
            .get_or_insert_with(|| Reason::new(Fault::Operator, "cancelled", "the round was cancelled"));
        self.deadline = Some(Instant::now() + CLEANUP_BUDGET);
        self.context.cancel = self.run.kill.clone();
    }

    async fn step(&mut self, index: usize, step: &Step) {
        let name = step_name(index, step);
        let started = Instant::now();
        let mut is_started = false;
        let end = match self.decide(step) {
            Ok(None) => StepEnd { outcome: Conclusion::Skipped, reason: None, outputs: Map::new() },
            Ok(Some(env)) => {
                is_started = true;
                let _ = self.run.journal.send(JournalEvent::StepStarted {
                    at: self.at(),
                    step: JobStep { index: index as u32, name: name.clone(), kind: kind_of(step) },
                });
                self.attempts(index, step, &env).await
            }
            Err(reason) => {
                StepEnd { outcome: Conclusion::Failure, reason: Some(reason), outputs: Map::new() }
            }
        };
        let tolerates = end.outcome == Conclusion::Failure && self.tolerates(&step.continue_on_error);
        let conclusion = if tolerates { Conclusion::Success } else { end.outcome };
        let id = step.id.clone().unwrap_or_else(|| name.clone());
        self.steps.insert(
            id,
            json!({"outputs": end.outputs, "outcome": end.outcome.as_str(), "conclusion": conclusion.as_str()}),
        );
        if is_started || end.outcome != Conclusion::Skipped {
            let nanos = i64::try_from(started.elapsed().as_nanos()).unwrap_or(i64::MAX);
            // The round owns the receiver for as long as it runs jobs.
            let _ = self.run.journal.send(JournalEvent::StepEnded {
                at: self.at(),
                step: JobStep { index: index as u32, name, kind: kind_of(step) },
                outcome: end.outcome,
                conclusion,
                outputs: end.outputs,
                reason: end.reason.clone(),
                duration_ns: nanos,
            });
        }
        match conclusion {
            Conclusion::Failure if self.status == Status::Success => {
                self.status = Status::Failure;
                self.reason = end.reason;
            }
            Conclusion::Cancelled if self.status != Status::Cancelled => self.cancelled(),
            _ => {}
        }
    }

    /// How the journal names this attempt.
    fn at(&self) -> LegAttempt {
        let JobContext { job, leg, attempt, .. } = &self.context;
        LegAttempt { job: job.clone(), leg: leg.clone(), attempt: *attempt }
    }

    /// The scope of this moment, with the environment given.
    fn scope(&self, env: &BTreeMap<String, String>) -> Contexts {
        let mut contexts = self.contexts.clone();
        contexts.insert("steps".to_owned(), Json::Object(self.steps.clone()));
        contexts.insert("env".to_owned(), json!(env));
        let status = match self.status {
            Status::Success => "success",
            Status::Failure => "failure",
            Status::Cancelled => "cancelled",
        };
        contexts.insert("job".to_owned(), json!({"status": status}));
        contexts.insert("machine".to_owned(), json!({"id": self.run.order.runner}));
        scope_of(&contexts, self.status)
    }

    /// Whether the step runs, and with what environment.
    fn decide(&self, step: &Step) -> Result<Option<BTreeMap<String, String>>, Reason> {
        let mut env = BTreeMap::new();
        for level in [&self.run.pipeline.env, &self.job.env] {
            self.extend_env(&mut env, level)?;
        }
        let holds = step.condition.holds(&self.scope(&env)).map_err(|error| self.expression(&error))?;
        if !holds {
            return Ok(None);
        }
        self.extend_env(&mut env, &step.env)?;
        Ok(Some(env))
    }

    fn extend_env(&self, env: &mut BTreeMap<String, String>, level: &Env) -> Result<(), Reason> {
        let scope = self.scope(env);
        for (name, template) in level {
            let value = template.text(&scope).map_err(|error| self.expression(&error))?;
            env.insert(name.clone(), value);
        }
        Ok(())
    }

    fn tolerates(&self, flag: &Flag) -> bool {
        match flag {
            Flag::Fixed(value) => *value,
            Flag::Template(template) => {
                template.evaluate(&self.scope(&BTreeMap::new())).is_ok_and(|value| value.is_truthy())
            }
        }
    }

    /// Tries the step as often as its own `retry` allows.
    async fn attempts(&mut self, index: usize, step: &Step, env: &BTreeMap<String, String>) -> StepEnd {
        let mut tries = 0;
        loop {
            tries += 1;
            let end = self.attempt(index, step, env).await;
            let again = end.outcome == Conclusion::Failure
                && tries <= step.retry.max
                && end
                    .reason
                    .as_ref()
                    .is_some_and(|reason| step.retry.on.iter().any(|name| fault_of(*name) == reason.fault));
            if !again {
                return end;
            }
            let delay = step.retry.backoff.delay_before(tries);
            tracing::warn!(step = index, tries, ?delay, "step failed, trying again");
            tokio::select! {
                () = self.context.cancel.cancelled() => return end,
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    async fn attempt(&mut self, index: usize, step: &Step, env: &BTreeMap<String, String>) -> StepEnd {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let limit = [step.timeout, left].into_iter().flatten().min();
        let work = self.action(index, step, env);
        let result = match limit {
            None => work.await,
            Some(limit) => tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
                // Not explained by evidence yet: a hanging server and a hanging machine look alike.
                let message = format!("not done within {:.0} s", limit.as_secs_f64());
                Err(Reason::new(Fault::Unknown, "timeout", message))
            }),
        };
        match result {
            Ok(outputs) => StepEnd { outcome: Conclusion::Success, reason: None, outputs },
            Err(reason) => {
                let is_cancelled = reason.code == "cancelled";
                let outcome = if is_cancelled { Conclusion::Cancelled } else { Conclusion::Failure };
                StepEnd { outcome, reason: Some(reason), outputs: Map::new() }
            }
        }
    }

    async fn action(
        &mut self,
        index: usize,
        step: &Step,
        env: &BTreeMap<String, String>,
    ) -> Result<Map<String, Json>, Reason> {
        let scope = self.scope(env);
        match &step.action {
            Action::Stage { stage, with, .. } => {
                let given = with
                    .iter()
                    .map(|(name, tree)| Ok((name.name.as_str(), tree.evaluate(&scope)?)))
                    .collect::<Result<Object, ExprError>>()
                    .map_err(|error| self.expression(&error))?;
                let bound = stage
                    .spec()
                    .bind(&given)
                    .map_err(|error| Reason::new(Fault::Pipeline, "bad-parameter", error.to_string()))?;
                let Json::Object(with) = Json::from(Value::from(bound)) else { return Ok(Map::new()) };
                let call = StageCall::decode(*stage, with).map_err(|error| error.reason())?;
                call.run(&mut self.context).await
            }
            Action::Run { script, .. } => {
                let script = script.text(&scope).map_err(|error| self.expression(&error))?;
                let working_dir = std::env::current_dir().map_err(|error| {
                    Reason::new(Fault::Infra, "machine", format!("find the working directory: {error}"))
                })?;
                let shell = ShellStep {
                    script,
                    env: env.clone(),
                    working_dir,
                    files_dir: self.context.attempt_dir.clone(),
                    name: format!("step-{index}"),
                };
                run_shell(shell, self.context.cancel.clone()).await.map_err(|error| error.reason())
            }
        }
    }

    /// The job's outputs; of a job that did not succeed, those that there are.
    fn outputs(&self, conclusion: Conclusion) -> Result<Map<String, Json>, Reason> {
        let scope = self.scope(&BTreeMap::new());
        let mut outputs = Map::new();
        for output in &self.job.outputs {
            let value =
                output.value.evaluate(&scope).map_err(|error| self.expression(&error)).and_then(|value| {
                    output.kind.accept(&value).map(Json::from).ok_or_else(|| {
                        let message = format!(
                            "output `{}` of job `{}` is {}, not of its type",
                            output.name,
                            self.job.id,
                            value.kind()
                        );
                        Reason::new(Fault::Pipeline, "bad-output", message)
                    })
                });
            match value {
                Ok(value) => {
                    outputs.insert(output.name.clone(), value);
                }
                Err(_) if conclusion != Conclusion::Success => {}
                Err(reason) => return Err(reason),
            }
        }
        Ok(outputs)
    }

    fn expression(&self, error: &ExprError) -> Reason {
        pipeline_reason(&self.run.pipeline.source, &diagnostic(error))
    }
}

fn step_name(index: usize, step: &Step) -> String {
    step.id.clone().unwrap_or_else(|| format!("{index}-{}", kind_of(step)))
}

fn kind_of(step: &Step) -> StepKind {
    match &step.action {
        Action::Stage { stage, .. } => StepKind::Stage(*stage),
        Action::Run { .. } => StepKind::Run,
    }
}
