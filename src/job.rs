//! L4, one attempt of one leg: runs the job's steps in order and owns the booted server.
//!
//! Whatever happens (a failing step, a timeout, a cancellation), the server is stopped and the scratch
//! directory removed before the attempt counts as ended. Deliberately absent: retries of the attempt, and
//! anything about other legs; that is `schedule`'s.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value as Json};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use crate::adapters::shell::{Shell, ShellStep};
use crate::adapters::store::RoundDirectory;
use crate::artifact::{AttemptState, JobStep, JournalEvent, Publication, StepKind};
use crate::model::{Conclusion, Fault, Reason};
use crate::pipeline::contexts::{ContextName, KnownContexts, Site};
use crate::pipeline::definition::{Flag, Job, Step, StepAction, texts};
use crate::pipeline::expr::{ExprError, Object, Status, Value};
use crate::pipeline::stage::StageOutput;
use crate::pipeline::template::diagnostic;
use crate::ports::{JobNews, JobOrder, JobRunner, JobStop};
use crate::report::text::error_chain;
use crate::schedule::{AttemptEnd, fault_of, pipeline_reason};
use crate::stages::{
    JobContext, Notes, RoundContext, RunnerContext, STOP_GRACE, StepFailure, again, run_stage,
};

/// How long before its end a stage is told to say what it has seen, at most.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// What steps that insist on running after a cancellation (`if: always()`) may take together.
const CLEANUP_BUDGET: Duration = Duration::from_secs(30);

/// Runs jobs in this process.
pub struct InProcess {
    runner: RunnerContext,
    shell: Arc<Shell>,
}

impl InProcess {
    /// Jobs run by this process as the runner's, scripts by this shell.
    pub fn new(runner: RunnerContext, shell: Shell) -> Self {
        Self { runner, shell: Arc::new(shell) }
    }
}

impl JobRunner for InProcess {
    fn run(
        &self,
        order: JobOrder,
        news: UnboundedSender<JobNews>,
        stop: JobStop,
    ) -> BoxFuture<'static, AttemptEnd> {
        let (runner, shell) = (self.runner.clone(), Arc::clone(&self.shell));
        let run = JobRun { order, runner, work: Work::Here(shell), news, stop };
        run_attempt(run).boxed()
    }
}

/// An attempt as it is kept: what the journal says of it, and the directory in which its files lie.
#[derive(Debug, Clone)]
pub struct KeptAttempt {
    /// The directory of the round.
    pub directory: RoundDirectory,
    /// What the journal says of the attempt.
    pub state: AttemptState,
}

/// Does an attempt again from what is kept of it: evaluates all that the pipeline says, derives again what follows from
/// the files, takes from the journal what only the world could do, and leaves what it makes below the order's own data
/// directory. Measures nothing, waits for nothing.
pub async fn attempt_again(
    order: JobOrder,
    runner: RunnerContext,
    kept: KeptAttempt,
    news: UnboundedSender<JobNews>,
) -> AttemptEnd {
    let work = Work::Again(Box::new(kept));
    run_attempt(JobRun { order, runner, work, news, stop: JobStop::default() }).await
}

/// Who does what the steps say.
enum Work {
    /// The world: stages and scripts run, scripts by this shell.
    Here(Arc<Shell>),
    /// Nobody, for it was done.
    Again(Box<KeptAttempt>),
}

/// An attempt under way.
struct JobRun {
    order: JobOrder,
    runner: RunnerContext,
    work: Work,
    news: UnboundedSender<JobNews>,
    stop: JobStop,
}

/// Runs the attempt to its end.
async fn run_attempt(run: JobRun) -> AttemptEnd {
    let failed = |fault, code, message: String| {
        AttemptEnd::failed(Reason::new(fault, code, message), run.order.started_at_us)
    };
    let order = &run.order;
    let Some(job) = order.job() else {
        return failed(Fault::Pipeline, "unknown-job", format!("there is no job `{}`", order.at.job));
    };
    let directory = RoundDirectory::open(&order.data_dir, &order.round_id).and_then(|directory| {
        let attempt_dir = directory.new_attempt_dir(&order.at.job, &order.at.leg, order.at.attempt)?;
        Ok((directory, attempt_dir))
    });
    let (directory, attempt_dir) = match directory {
        Ok(directories) => directories,
        Err(error) => return failed(Fault::Infra, "round-directory", error_chain(&error)),
    };
    let scratch = match tempfile::Builder::new().prefix("cacheon-").tempdir() {
        Ok(scratch) => scratch,
        Err(error) => {
            return failed(Fault::Infra, "machine", format!("make a scratch directory: {error}"));
        }
    };
    let kept = match &run.work {
        Work::Here(_) => directory.clone(),
        Work::Again(kept) => kept.directory.clone(),
    };
    let round = RoundContext { round_id: order.round_id.clone(), directory, kept, seed: order.seed.clone() };
    let context = JobContext {
        round: &round,
        runner: &run.runner,
        job: order.at.job.clone(),
        leg: order.at.leg.clone(),
        attempt: order.at.attempt,
        upstream: order.pipeline.upstream(&order.at.job),
        attempt_dir,
        scratch_dir: scratch.path().to_owned(),
        started_at_us: order.started_at_us,
        server: None,
        notes: Notes::default(),
        ends: None,
        cancel: run.stop.cancel.clone(),
        news: run.news.clone(),
    };
    let mut steps = StepLoop::new(&run, job, context);
    let end = steps.run().await;
    if let Some(booted) = steps.context.server.take() {
        tokio::select! {
            biased;
            // Dropping the stop kills the server's whole group.
            () = run.stop.kill.cancelled() => {}
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
    /// What expressions of the job's own settings see.
    contexts: KnownContexts,
    /// The environment of all steps, or why it cannot be computed.
    env: Result<Environment, Reason>,
    /// `steps.<id>` as expressions see it; shared with a scope only while that lives.
    steps: Arc<Object>,
    status: Status,
    reason: Option<Reason>,
    deadline: Option<Instant>,
}

/// The variables of a step: for its process, and as expressions see them.
#[derive(Debug, Clone, Default)]
struct Environment {
    variables: Arc<BTreeMap<String, String>>,
    value: Value,
}

impl Environment {
    fn of(variables: BTreeMap<String, String>) -> Self {
        let value = variables.iter().map(|(name, text)| (name, Value::from(text.as_str())));
        Self { value: Value::from(value.collect::<Object>()), variables: Arc::new(variables) }
    }
}

/// How a step ended.
struct StepEnd {
    outcome: Conclusion,
    reason: Option<Reason>,
    gain: StepGain,
}

/// What a step that succeeded gave.
#[derive(Default)]
struct StepGain {
    /// Its outputs, as expressions read them.
    outputs: Map<String, Json>,
    /// The tables that are out since.
    published: Option<JournalEvent>,
}

impl StepEnd {
    fn failed(reason: Reason) -> Self {
        Self { outcome: Conclusion::Failure, reason: Some(reason), gain: StepGain::default() }
    }
}

impl<'a> StepLoop<'a> {
    fn new(run: &'a JobRun, job: &'a Job, context: JobContext<'a>) -> Self {
        let contexts = run.order.contexts.clone();
        let contexts =
            contexts.with(ContextName::Machine, Object::new().with("id", run.runner.name.as_str()));
        Self {
            run,
            job,
            context,
            env: environment_of(run, job),
            contexts,
            steps: Arc::new(Object::new()),
            status: if run.order.status == Status::Cancelled { Status::Cancelled } else { Status::Success },
            reason: None,
            deadline: job.timeout.map(|timeout| Instant::now() + timeout),
        }
    }

    async fn run(&mut self) -> AttemptEnd {
        for (index, step) in self.job.steps.iter().enumerate() {
            if self.status != Status::Cancelled && self.run.stop.cancel.is_cancelled() {
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
            started_at_us: self.run.order.started_at_us,
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
        self.context.cancel = self.run.stop.kill.clone();
    }

    async fn step(&mut self, index: usize, step: &Step) {
        let name = step_name(index, step);
        let started = Instant::now();
        let mut is_started = false;
        let mut tolerates = false;
        let end = match self.decide(step) {
            Ok(None) => StepEnd { outcome: Conclusion::Skipped, reason: None, gain: StepGain::default() },
            Ok(Some(env)) => {
                is_started = true;
                self.tell(JournalEvent::StepStarted {
                    at: self.run.order.at.clone(),
                    step: JobStep { index: index as u32, name: name.clone(), kind: kind_of(step) },
                });
                let end = self.attempts(index, step, &env).await;
                tolerates =
                    end.outcome == Conclusion::Failure && self.tolerates(&step.continue_on_error, &env);
                end
            }
            Err(reason) => {
                tolerates = matches!(step.continue_on_error, Flag::Fixed(true));
                StepEnd::failed(reason)
            }
        };
        let conclusion = if tolerates { Conclusion::Success } else { end.outcome };
        let shown = Object::new()
            .with("outputs", Json::Object(end.gain.outputs.clone()))
            .with("outcome", end.outcome.as_str())
            .with("conclusion", conclusion.as_str());
        Arc::make_mut(&mut self.steps).insert(step.id.as_deref().unwrap_or(&name), shown);
        if is_started || end.outcome != Conclusion::Skipped {
            let nanos = i64::try_from(started.elapsed().as_nanos()).unwrap_or(i64::MAX);
            self.tell(JournalEvent::StepEnded {
                at: self.run.order.at.clone(),
                step: JobStep { index: index as u32, name, kind: kind_of(step) },
                outcome: end.outcome,
                conclusion,
                outputs: end.gain.outputs,
                reason: end.reason.clone(),
                duration_ns: nanos,
            });
            if let Some(published) = end.gain.published {
                self.tell(published);
            }
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

    /// Says something that is to be journalled.
    fn tell(&self, event: JournalEvent) {
        // Whoever ordered the job listens for as long as it runs.
        let _ = self.run.news.send(JobNews::Journal(event));
    }

    /// The contexts of this moment, with the environment given.
    fn known(&self, env: &Environment) -> KnownContexts {
        let status = match self.status {
            Status::Success => "success",
            Status::Failure => "failure",
            Status::Cancelled => "cancelled",
        };
        let contexts = self.contexts.clone();
        contexts
            .with(ContextName::Steps, Value::Object(Arc::clone(&self.steps)))
            .with(ContextName::Env, env.value.clone())
            .with(ContextName::Job, Object::new().with("status", status))
    }

    /// Whether the step runs, and with what environment.
    fn decide(&self, step: &Step) -> Result<Option<Environment>, Reason> {
        let env = self.env.clone()?;
        let known = self.known(&env);
        let holds = step.condition.holds(&known.at(Site::StepIf, self.status));
        if !holds.map_err(|error| self.expression(&error))? {
            return Ok(None);
        }
        if step.env.is_empty() {
            return Ok(Some(env));
        }
        let scope = known.at(Site::Step, self.status);
        let own = texts(&step.env, &scope).map_err(|error| self.expression(&error))?;
        let mut variables = BTreeMap::clone(&env.variables);
        variables.extend(own);
        Ok(Some(Environment::of(variables)))
    }

    /// Whether a failure passes; an expression that fails itself lets nothing pass.
    fn tolerates(&self, flag: &Flag, env: &Environment) -> bool {
        match flag {
            Flag::Fixed(value) => *value,
            Flag::Template(template) => {
                let known = self.known(env);
                template.evaluate(&known.at(Site::Step, self.status)).is_ok_and(|value| value.is_truthy())
            }
        }
    }

    /// Tries the step as often as its own `retry` allows.
    async fn attempts(&mut self, index: usize, step: &Step, env: &Environment) -> StepEnd {
        let mut tries = 0;
        loop {
            tries += 1;
            let end = self.attempt(index, step, env).await;
            let tries_again = matches!(self.run.work, Work::Here(_))
                && end.outcome == Conclusion::Failure
                && tries <= step.retry.max
                && end
                    .reason
                    .as_ref()
                    .is_some_and(|reason| step.retry.on.iter().any(|name| fault_of(*name) == reason.fault));
            if !tries_again {
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

    async fn attempt(&mut self, index: usize, step: &Step, env: &Environment) -> StepEnd {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let is_here = matches!(self.run.work, Work::Here(_));
        let limit = [step.timeout, left].into_iter().flatten().min().filter(|_| is_here);
        // A stage that sees its end coming says what it has seen until then.
        self.context.ends = limit.and_then(|limit| {
            std::time::Instant::now().checked_add(limit.saturating_sub(LAST_WORDS.min(limit / 10)))
        });
        let work = self.action(index, step, env);
        let result = match limit {
            None => work.await,
            Some(limit) => tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
                // Not explained by evidence yet: a hanging server and a hanging machine look alike.
                let message = format!("not done within {:.0} s", limit.as_secs_f64());
                Err(StepFailure::Failed(Reason::new(Fault::Unknown, "timeout", message)))
            }),
        };
        match result {
            Ok(gain) => StepEnd { outcome: Conclusion::Success, reason: None, gain },
            Err(StepFailure::Failed(reason)) => StepEnd::failed(reason),
            Err(StepFailure::Cancelled) => StepEnd {
                outcome: Conclusion::Cancelled,
                reason: Some(Reason::new(Fault::Operator, "cancelled", "cancelled")),
                gain: StepGain::default(),
            },
        }
    }

    async fn action(
        &mut self,
        index: usize,
        step: &Step,
        env: &Environment,
    ) -> Result<StepGain, StepFailure> {
        let known = self.known(env);
        match &step.action {
            StepAction::Stage { stage, with, .. } => {
                let scope = known.at(Site::Step, self.status);
                let given = with
                    .iter()
                    .map(|(name, tree)| Ok((name.name.as_str(), tree.evaluate(&scope)?)))
                    .collect::<Result<Object, ExprError>>()
                    .map_err(|error| self.expression(&error))?;
                let call = stage
                    .spec()
                    .bind(&given)
                    .map_err(|error| Reason::new(Fault::Pipeline, "bad-parameter", error.to_string()))?;
                let output = match &self.run.work {
                    Work::Here(_) => run_stage(call, &mut self.context).await?,
                    Work::Again(kept) => {
                        let recorded = recorded(&kept.state, index)?;
                        match again(call, recorded, &self.context).map_err(|error| error.reason())? {
                            Some(output) => output,
                            None => return Ok(StepGain { outputs: recorded.clone(), published: None }),
                        }
                    }
                };
                let outputs = output.to_json().map_err(|error| {
                    Reason::new(Fault::Unknown, "json", format!("write outputs as JSON: {error}"))
                })?;
                Ok(StepGain { outputs, published: published(output) })
            }
            StepAction::Run { script, .. } => {
                let scope = known.at(Site::Script, self.status);
                let script = script.text(&scope).map_err(|error| self.expression(&error))?;
                let scripts = match &self.run.work {
                    Work::Here(shell) => shell,
                    Work::Again(kept) => {
                        let outputs = recorded(&kept.state, index)?.clone();
                        return Ok(StepGain { outputs, published: None });
                    }
                };
                let working_dir = std::env::current_dir().map_err(|error| {
                    Reason::new(Fault::Infra, "machine", format!("find the working directory: {error}"))
                })?;
                let script = ShellStep {
                    script,
                    env: BTreeMap::clone(&env.variables),
                    working_dir,
                    files_dir: self.context.attempt_dir.clone(),
                    name: format!("step-{index}"),
                };
                let outputs = scripts.run(script, self.context.cancel.clone()).await?;
                Ok(StepGain { outputs, published: None })
            }
        }
    }

    /// The job's outputs; of a job that did not succeed, those that there are.
    fn outputs(&self, conclusion: Conclusion) -> Result<Map<String, Json>, Reason> {
        let known = self.known(self.env.as_ref().unwrap_or(&Environment::default()));
        let scope = known.at(Site::Output, self.status);
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
        pipeline_reason(&self.run.order.pipeline.source, &diagnostic(error))
    }
}

/// The environment of all steps of a job: the pipeline's, then the job's own.
fn environment_of(run: &JobRun, job: &Job) -> Result<Environment, Reason> {
    let contexts = &run.order.contexts;
    let inherited = contexts.get(ContextName::Env).and_then(Value::as_object);
    let mut variables: BTreeMap<String, String> = inherited
        .into_iter()
        .flat_map(Object::iter)
        .map(|(name, value)| (name.to_owned(), value.to_string()))
        .collect();
    let own = texts(&job.env, &contexts.at(Site::JobEnv, Status::Success));
    variables.extend(own.map_err(|error| pipeline_reason(&run.order.pipeline.source, &diagnostic(&error)))?);
    Ok(Environment::of(variables))
}

/// The outputs of a step as they are recorded, or why it did not succeed then.
fn recorded(attempt: &AttemptState, index: usize) -> Result<&Map<String, Json>, StepFailure> {
    let step = u32::try_from(index).ok().and_then(|index| attempt.steps.get(&index));
    let Some(end) = step.and_then(|step| step.end.as_ref()) else {
        let why = "the journal does not say that the step ran";
        return Err(Reason::new(Fault::Unknown, "not-recorded", why).into());
    };
    match end.outcome {
        Conclusion::Success => Ok(&end.outputs),
        Conclusion::Cancelled => Err(StepFailure::Cancelled),
        Conclusion::Failure | Conclusion::Skipped => {
            let unexplained = || Reason::new(Fault::Unknown, "not-recorded", "the journal says no reason");
            Err(end.reason.clone().unwrap_or_else(unexplained).into())
        }
    }
}

/// What is to be said of tables that a stage has written: that they are published.
fn published(output: StageOutput) -> Option<JournalEvent> {
    let (what, tables) = match output {
        StageOutput::Publish(output) => (Publication::Results, output.tables),
        StageOutput::SetWeights(output) => (Publication::Weights, output.tables),
        StageOutput::FetchCommitments(_)
        | StageOutput::PlanReads(_)
        | StageOutput::Pull(_)
        | StageOutput::Boot(_)
        | StageOutput::WarmUp(_)
        | StageOutput::Benchmark(_)
        | StageOutput::VerifyLogprobs(_)
        | StageOutput::PlanConfirm(_)
        | StageOutput::PlanRepeats(_)
        | StageOutput::Rank(_) => return None,
    };
    Some(JournalEvent::Published { what, tables })
}

fn step_name(index: usize, step: &Step) -> String {
    step.id.clone().unwrap_or_else(|| format!("{index}-{}", kind_of(step)))
}

fn kind_of(step: &Step) -> StepKind {
    match &step.action {
        StepAction::Stage { stage, .. } => StepKind::Stage(*stage),
        StepAction::Run { .. } => StepKind::Run,
    }
}

#[cfg(test)]
mod tests;
