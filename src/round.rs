//! L4, one round: the only event loop.
//!
//! Everything that happens (attempts ending, steps going by, waits running out, a wish to stop) becomes an
//! [`Event`] for the scheduler or a line of the journal; what the scheduler decides is done here. The loop owns
//! the tasks, joined to empty before it returns, and is the only writer of the journal.
//!
//! A turn of the loop takes in all that is ready, writes its lines with one wait for the disk, and only then does
//! what was decided: no attempt starts and no retry is waited for before the lines that say so are durable. So
//! many small steps share their waits, and a single event waits for nobody.

mod group;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::{Map, Value as Json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

pub use service::{held_up, slot};

use crate::adapters::model_files::{file_digest, model_digest};
use crate::adapters::store::{Derivation, Group, JournalWriter, RoundDirectory};
use crate::artifact::{
    JournalEvent, JournalLine, ParentRound, Publication, Quarantine, RoundFile, RoundStart, RoundState,
    RunnerFile, TakenLeg, digest, journal, layout,
};
use crate::error::{Error, ExitCode};
use crate::model::{Conclusion, Digest, Fault, Reason, RoundId, RoundTick, Seed};
use crate::pipeline::contexts::{ContextName, KnownContexts};
use crate::pipeline::definition::{Job, Pipeline, StepAction};
use crate::pipeline::expr::{ExprError, Object, Status, Value};
use crate::pipeline::runner::RunnerSpec;
use crate::pipeline::source::Source;
use crate::pipeline::stage::StageName;
use crate::pipeline::template::diagnostic;
use crate::pipeline::{Color, Diagnostics};
use crate::ports::{JobNews, JobOrder, JobRunner, JobStop, Progress};
use crate::schedule::{
    Action, AttemptEnd, AttemptOrder, Event, Placement, RunnerSlot, Scheduler, SchedulerSettings,
};

/// What a round is made of; all that enters it from outside.
pub struct RoundSettings {
    /// Whether the round begins or goes on.
    pub beginning: Beginning,
    /// The checked pipeline.
    pub pipeline: Arc<Pipeline>,
    /// Inputs, defaults filled in.
    pub inputs: Map<String, Json>,
    /// The tick that starts the round, where a schedule does.
    pub tick: Option<RoundTick>,
    /// The runners there are.
    pub runners: Vec<RoundRunner>,
    /// What becomes of a runner whose machine is broken.
    pub machines: Machines,
    /// Runs the jobs that are on no runner.
    pub controller: Arc<dyn JobRunner>,
    /// Directory of all rounds, absolute.
    pub data_dir: PathBuf,
    /// Name of this round.
    pub round_id: RoundId,
    /// Root of all randomness of the round.
    pub seed: Seed,
    /// This executable, for its digest.
    pub program: PathBuf,
    /// The wall clock.
    pub now: fn() -> jiff::Timestamp,
}

/// What becomes of a runner whose machine is broken, as the round's baselines say when it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machines {
    /// It is put out of service.
    Judged,
    /// Nothing: the round is somebody's check of their own image, or is made from another one.
    Left,
}

/// A runner of a round.
pub struct RoundRunner {
    /// What its file says.
    pub spec: RunnerSpec,
    /// The file itself.
    pub source: Source,
    /// Runs its jobs.
    pub jobs: Arc<dyn JobRunner>,
    /// The queue of the rounds for its engine, where that serves one round at a time.
    pub queue: Option<Group>,
}

impl RoundRunner {
    fn slot(&self) -> RunnerSlot {
        service::slot(&self.spec)
    }
}

/// How somebody stops a round.
#[derive(Debug, Clone, Default)]
pub struct Control {
    /// Stops everything: its jobs, and the waits between them.
    pub stop: JobStop,
    /// Name of the signal that asked first.
    pub signal: Arc<OnceLock<&'static str>>,
}

/// What somebody who watches a round is told.
#[derive(Debug, Clone)]
pub enum View {
    /// Something was journalled.
    Journal(Box<JournalLine>),
    /// A step came further.
    Progress(Progress),
    /// The round is one that was taken up again, and stands so.
    Resumed(Box<RoundState>),
}

/// How a round ended.
#[derive(Debug)]
pub struct RoundEnd {
    /// The exit code that the program ends with.
    pub exit_code: ExitCode,
    /// Why the round is not done, where it is not.
    pub reason: Option<Reason>,
    /// The round's directory.
    pub directory: PathBuf,
    /// The runners that it put out of service, and why.
    pub put_out: Vec<(String, Quarantine)>,
}

/// What ended inside the loop's tasks.
enum Done {
    Attempt { job: usize, leg: usize, end: AttemptEnd },
    Retry { job: usize, leg: usize },
}

/// Whether a round begins or goes on.
#[derive(Debug, Clone)]
pub enum Beginning {
    /// A new round, in a directory of its own.
    New,
    /// A round that was left unfinished. What stands of it is not run again ([`RoundState::standing`]); a leg that was
    /// cut runs again as a whole, under the next number of its attempts.
    Resumed,
    /// A new round, in which legs of another stand as they ended there.
    Derived(Box<Origin>),
}

/// What a round that is made from another has of it.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Directory of the other round.
    pub directory: RoundDirectory,
    /// What the other round was made of.
    pub file: RoundFile,
    /// What is said of it; the files that are shared are filled in.
    pub parent: ParentRound,
    /// The legs that stand.
    pub taken: Vec<TakenLeg>,
    /// Ids of the jobs of which something runs again.
    pub renewed: BTreeSet<String>,
    /// Whether servers are booted again: with other models than the other round's, nothing could be compared.
    pub is_measuring: bool,
}

/// Runs a round, or what is left of it, to its end and leaves its directory whole.
///
/// # Errors
/// Where the round's directory cannot be made or written, or something of it can only run on a runner that is out of service; of a
/// round that goes on also where another process holds
/// it, it is sealed, or a model is not what it was. Everything started is stopped first.
pub async fn run_round(
    settings: RoundSettings,
    control: Control,
    view: UnboundedSender<View>,
) -> Result<RoundEnd, Error> {
    drive(settings, control, view, |journal| journal).await
}

/// Runs a round whose journal's writer is `journal_of` the one of its directory.
async fn drive(
    mut settings: RoundSettings,
    control: Control,
    view: UnboundedSender<View>,
    journal_of: impl FnOnce(JournalWriter) -> JournalWriter,
) -> Result<RoundEnd, Error> {
    let contexts = contexts_of(&settings)?;
    let run_name = settings.pipeline.run_name(&contexts).map_err(|error| unstartable(&settings, &error))?;
    let group = settings.pipeline.group(&contexts).map_err(|error| unstartable(&settings, &error))?;
    match &settings.beginning {
        Beginning::New => service::leave_out(&mut settings, &contexts)?,
        Beginning::Derived(_) => service::check(&settings, &contexts, &RoundState::default())?,
        Beginning::Resumed => {}
    }
    let start = |pipeline_digest: Digest| {
        JournalEvent::RoundStarted(RoundStart {
            schema: journal::SCHEMA,
            round_id: settings.round_id.clone(),
            pipeline: settings.pipeline.name.clone(),
            run_name: run_name.clone(),
            pipeline_digest,
            runners: settings.runners.iter().map(|runner| runner.spec.name.clone()).collect(),
            seed_commitment: digest::sha256(settings.seed.to_hex().as_bytes()),
        })
    };
    let directory = match &settings.beginning {
        Beginning::New => RoundDirectory::create(&settings.data_dir, &settings.round_id)?,
        Beginning::Resumed => RoundDirectory::open(&settings.data_dir, &settings.round_id)?,
        Beginning::Derived(origin) => derive(&settings, origin, start)?,
    };
    let lock = directory.lock()?;
    match &settings.beginning {
        Beginning::New => drop(directory.write_round_file(&round_file(&settings))?),
        Beginning::Resumed => check_models(&directory.read_round_file()?, &round_file(&settings))?,
        Beginning::Derived(_) => {}
    }
    let (journal_file, replay) = directory.open_journal()?;
    let state = RoundState::of(&replay.lines);
    if matches!(settings.beginning, Beginning::Resumed) {
        service::check(&settings, &contexts, &state)?;
    }
    let path = directory.path().to_owned();
    let (news, heard) = unbounded_channel();
    let mut event_loop = EventLoop {
        scheduler: Scheduler::new(scheduler_settings(&settings, contexts.clone(), state.clone())),
        journal_file: Arc::new(Mutex::new(journal_of(journal_file))),
        lines: Vec::new(),
        decided: Vec::new(),
        settings: &settings,
        directory,
        control,
        view,
        news,
        heard,
        tasks: JoinSet::new(),
        stops: BTreeMap::new(),
        state,
    };
    if replay.lines.is_empty() {
        // So it is too where a program ended before it had written the first line.
        event_loop.note(start(digest::sha256(settings.pipeline.source.text.as_bytes())));
    } else {
        event_loop.show(View::Resumed(Box::new(event_loop.state.clone())));
    }
    if !replay.lines.is_empty() && matches!(settings.beginning, Beginning::Resumed) {
        event_loop.note(JournalEvent::RoundResumed { tool_version: env!("CARGO_PKG_VERSION").to_owned() });
    }
    let turn = event_loop.take_turn(group.as_deref()).await?;
    let outcome = match turn.stopped() {
        Some(end) => Ok(end),
        None => event_loop.run(&contexts).await,
    };
    // Whatever went wrong, nothing that was started outlives the round.
    event_loop.control.stop.cancel.cancel();
    while event_loop.tasks.join_next().await.is_some() {}
    let (exit_code, mut reason) = outcome?;
    if exit_code == ExitCode::Interrupted {
        reason = turn.displacement().or(reason);
    }
    // Before the end is written: a round that is cut short here comes by once more.
    let put_out = event_loop.judge_machines(exit_code)?;
    event_loop.finish(exit_code).await?;
    drop((turn, lock));
    Ok(RoundEnd { exit_code, reason, directory: path, put_out })
}

fn round_file(settings: &RoundSettings) -> RoundFile {
    let source = &settings.pipeline.source;
    // Runners often share a model, and reading one takes long.
    let mut models: BTreeMap<&str, Option<Digest>> = BTreeMap::new();
    let mut runners = Vec::new();
    for RoundRunner { spec, source, .. } in &settings.runners {
        let folder = spec.model_dir.as_deref();
        let digest_of =
            |folder| models.entry(folder).or_insert_with(|| model_digest(Path::new(folder))).clone();
        runners.push(RunnerFile {
            name: spec.name.clone(),
            path: source.path.to_string(),
            text: source.text.to_string(),
            digest: digest::sha256(source.text.as_bytes()),
            model_digest: folder.and_then(digest_of),
        });
    }
    RoundFile {
        schema: RoundFile::SCHEMA,
        round_id: settings.round_id.clone(),
        pipeline_path: source.path.to_string(),
        pipeline_text: source.text.to_string(),
        pipeline_digest: digest::sha256(source.text.as_bytes()),
        runners,
        inputs: settings.inputs.clone().into_iter().collect(),
        seed_hex: settings.seed.to_hex(),
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        tool_digest: file_digest(&settings.program),
        started_at: (settings.now)().to_string(),
        tick: settings.tick.clone(),
        parent: None,
    }
}

/// Makes the directory of a round that is made from another, with all that stands of that.
fn derive(
    settings: &RoundSettings,
    origin: &Origin,
    start: impl FnOnce(Digest) -> JournalEvent,
) -> Result<RoundDirectory, Error> {
    let source = &settings.pipeline.source;
    if origin.is_measuring {
        check_models(&origin.file, &round_file(settings))?;
    }
    let pipeline_digest = digest::sha256(source.text.as_bytes());
    let now = (settings.now)();
    let round_file = RoundFile {
        schema: RoundFile::SCHEMA,
        round_id: settings.round_id.clone(),
        pipeline_text: source.text.to_string(),
        pipeline_digest: pipeline_digest.clone(),
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        tool_digest: file_digest(&settings.program),
        started_at: now.to_string(),
        parent: Some(origin.parent.clone()),
        ..origin.file.clone()
    };
    let attempt = |taken: &TakenLeg| layout::attempt_path(&taken.at.job, &taken.at.leg, taken.at.attempt);
    // What is measured anew is compared with what is taken over, so that the machines have to be the same.
    let mut shared: Vec<String> =
        [layout::TOKENIZER_DIR, layout::CORPUS_DIR, layout::MACHINE_DIR].map(str::to_owned).into();
    shared.extend(origin.taken.iter().map(attempt));
    let taken = origin.taken.iter().cloned().map(JournalEvent::LegTakenOver);
    let derivation = Derivation {
        parent: &origin.directory,
        directories: shared,
        round_file,
        events: std::iter::once(start(pipeline_digest)).chain(taken).map(|event| (now, event)).collect(),
    };
    Ok(RoundDirectory::derive(&settings.data_dir, derivation)?)
}

/// Refuses to go on with other models than the round began with: its reads would not be comparable.
fn check_models(began: &RoundFile, now: &RoundFile) -> Result<(), Error> {
    let digest = |file: &RoundFile, name: &str| {
        file.runners.iter().find(|runner| runner.name == name).and_then(|runner| runner.model_digest.clone())
    };
    let changed = began.runners.iter().find(|runner| digest(now, &runner.name) != runner.model_digest);
    match changed {
        None => Ok(()),
        Some(runner) => Err(Error::Invalid(format!(
            "error: the model of runner `{}` is not the one the round began with: start a new round by `cacheon run`",
            runner.name
        ))),
    }
}

/// The contexts that stay the same for the whole round.
pub(crate) fn contexts_of(settings: &RoundSettings) -> Result<KnownContexts, Error> {
    let made = contexts((&settings.pipeline, &settings.inputs), settings.tick.as_ref(), &settings.round_id);
    made.map_err(|error| unstartable(settings, &error))
}

/// The contexts of a round of a pipeline with these inputs.
fn contexts(
    (pipeline, inputs): (&Pipeline, &Map<String, Json>),
    tick: Option<&RoundTick>,
    round_id: &RoundId,
) -> Result<KnownContexts, ExprError> {
    let trigger = if tick.is_some() { "schedule" } else { "dispatch" };
    let run = Object::new().with("id", round_id.as_str()).with("trigger", trigger);
    let mut known = KnownContexts::default()
        .with(ContextName::Inputs, Value::from(Json::Object(inputs.clone())))
        .with(ContextName::Run, run);
    if let Some(RoundTick { tick, scheduled }) = tick {
        let context = Object::new()
            .with("cron", tick.schedule.cron.as_str())
            .with("timezone", tick.schedule.timezone.as_str())
            .with("at", tick.nominal.to_string())
            .with("scheduled", scheduled.to_string());
        known = known.with(ContextName::Tick, context);
    }
    let env = pipeline.env(&known)?;
    Ok(known.with(ContextName::Env, env))
}

/// An expression that is needed before the first job, and fails.
fn unstartable(settings: &RoundSettings, error: &ExprError) -> Error {
    let found = vec![diagnostic(error)];
    Error::Invalid(Diagnostics::new(&settings.pipeline.source, found).render(Color::Never))
}

pub(crate) fn scheduler_settings(
    settings: &RoundSettings,
    contexts: KnownContexts,
    history: RoundState,
) -> SchedulerSettings {
    SchedulerSettings {
        pipeline: Arc::clone(&settings.pipeline),
        contexts,
        seed: settings.seed.clone(),
        runners: settings.runners.iter().map(RoundRunner::slot).collect(),
        history,
    }
}

struct EventLoop<'a> {
    scheduler: Scheduler,
    /// The journal; written here only. Shared with the thread that waits for the disk.
    journal_file: Arc<Mutex<JournalWriter>>,
    /// Lines that are not written yet, with their times.
    lines: Vec<(jiff::Timestamp, JournalEvent)>,
    /// What was decided and waits until those lines are on disk.
    decided: Vec<Action>,
    settings: &'a RoundSettings,
    directory: RoundDirectory,
    control: Control,
    view: UnboundedSender<View>,
    /// Handed to jobs; the loop keeps one end so that the channel never closes under it.
    news: UnboundedSender<JobNews>,
    heard: UnboundedReceiver<JobNews>,
    tasks: JoinSet<Done>,
    /// Stops the legs of one job, for `fail-fast`.
    stops: BTreeMap<usize, CancellationToken>,
    /// What the journal's lines come to so far.
    state: RoundState,
}

impl EventLoop<'_> {
    async fn run(&mut self, known: &KnownContexts) -> Result<(ExitCode, Option<Reason>), Error> {
        let mut is_cancelled = false;
        // While the round waited for its turn, another one may have found a machine broken.
        if let Err(error) = service::check(self.settings, known, &self.state) {
            self.write().await?;
            return Err(error);
        }
        self.on_event(Event::Started);
        while !self.act().await? {
            tokio::select! {
                biased;
                () = self.control.stop.cancel.cancelled(), if !is_cancelled => {
                    is_cancelled = true;
                    self.take_in_what_was_said();
                    self.note_interruption();
                    self.on_event(Event::CancelRequested);
                }
                Some(news) = self.heard.recv() => self.take_in(news),
                Some(done) = self.tasks.join_next() => self.take_in_end(done),
            }
            self.take_in_what_was_said();
            while let Some(done) = self.tasks.try_join_next() {
                self.take_in_end(done);
            }
        }
        Ok(self.exit_code(is_cancelled))
    }

    fn take_in_what_was_said(&mut self) {
        while let Ok(news) = self.heard.try_recv() {
            self.take_in(news);
        }
    }

    fn take_in(&mut self, news: JobNews) {
        match news {
            JobNews::Journal(event) => self.note(event),
            JobNews::Progress(progress) => self.show(View::Progress(progress)),
        }
    }

    fn take_in_end(&mut self, done: Result<Done, JoinError>) {
        // What the attempt said before it ended comes before its end.
        self.take_in_what_was_said();
        self.on_event(match done {
            Ok(Done::Attempt { job, leg, end }) => Event::AttemptEnded { job, leg, end },
            Ok(Done::Retry { job, leg }) => Event::RetryDue { job, leg },
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        });
    }

    /// Feeds the scheduler and keeps what it says for [`EventLoop::act`].
    fn on_event(&mut self, event: Event) {
        for action in self.scheduler.on_event(event) {
            match action {
                Action::Record(event) => self.note(*event),
                action => self.decided.push(action),
            }
        }
    }

    /// Does what was decided, once it is on disk; true when the round is over.
    async fn act(&mut self) -> Result<bool, Error> {
        self.write().await?;
        for action in std::mem::take(&mut self.decided) {
            match action {
                Action::Record(_) => {}
                Action::StartAttempt(order) => self.start(*order),
                Action::WaitForRetry { job, leg, delay } => {
                    let cancel = self.control.stop.cancel.clone();
                    self.tasks.spawn(async move {
                        tokio::select! {
                            () = cancel.cancelled() => {}
                            () = tokio::time::sleep(delay) => {}
                        }
                        Done::Retry { job, leg }
                    });
                }
                Action::StopLegs { job } => {
                    if let Some(stop) = self.stops.get(&job) {
                        stop.cancel();
                    }
                }
                Action::EndRound => return Ok(true),
            }
        }
        Ok(false)
    }

    fn start(&mut self, order: AttemptOrder) {
        // A job that began after a cancellation insists on running; one that was decided just before it does not.
        let insists = order.status == Status::Cancelled;
        let JobStop { cancel, kill } = &self.control.stop;
        let parent = if insists { kill } else { cancel };
        let cancel = self.stops.entry(order.job).or_insert_with(|| parent.child_token()).child_token();
        let (job, leg) = (order.job, order.leg);
        let started_at = self.state.attempt(&order.at).and_then(|attempt| attempt.started_at);
        let (runner, jobs) = match order.placement {
            Placement::Controller => (None, &self.settings.controller),
            Placement::Runner(index) => {
                let runner = &self.settings.runners[index];
                (Some(runner.source.clone()), &runner.jobs)
            }
        };
        let order = JobOrder {
            schema: JobOrder::SCHEMA,
            data_dir: self.settings.data_dir.clone(),
            round_id: self.settings.round_id.clone(),
            seed: self.settings.seed.clone(),
            pipeline: Arc::clone(&self.settings.pipeline),
            runner,
            at: order.at,
            contexts: order.contexts,
            status: order.status,
            started_at_us: started_at.unwrap_or_else(self.settings.now).as_microsecond(),
        };
        let stop = JobStop { cancel, kill: self.control.stop.kill.clone() };
        let running = jobs.run(order, self.news.clone(), stop);
        self.tasks.spawn(async move { Done::Attempt { job, leg, end: running.await } });
    }

    /// Takes an event down as one of the next lines.
    fn note(&mut self, event: JournalEvent) {
        self.lines.push(((self.settings.now)(), event));
    }

    fn note_interruption(&mut self) {
        let signal = self.control.signal.get().copied().unwrap_or("none").to_owned();
        self.note(JournalEvent::Interrupted { signal });
    }

    /// Writes the lines taken down and waits until they are on disk; the wait holds up no other task.
    async fn write(&mut self) -> Result<(), Error> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let file = Arc::clone(&self.journal_file);
        let events = std::mem::take(&mut self.lines);
        let writing = tokio::task::spawn_blocking(move || {
            file.lock().unwrap_or_else(PoisonError::into_inner).append(events)
        });
        let lines = writing.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        for line in lines? {
            self.state.apply(&line);
            self.show(View::Journal(Box::new(line)));
        }
        Ok(())
    }

    fn show(&self, view: View) {
        // Nobody may be watching.
        let _ = self.view.send(view);
    }

    /// What the program ends with: submissions may fail on their own, anything else leaves the round undone.
    fn exit_code(&self, is_cancelled: bool) -> (ExitCode, Option<Reason>) {
        if is_cancelled {
            let reason = Reason::new(
                Fault::Operator,
                "cancelled",
                "the round was interrupted; everything it started was stopped",
            );
            return (ExitCode::Interrupted, Some(reason));
        }
        let outcome = self.scheduler.outcome();
        let has_stage = |job: &Job, stage: StageName| {
            job.steps
                .iter()
                .any(|step| matches!(step.action, StepAction::Stage { stage: own, .. } if own == stage))
        };
        let undone = outcome.iter().find_map(|job| Some((job.job, job.undone()?)));
        let is_meant_to_publish = outcome.iter().any(|job| has_stage(job.job, StageName::Publish));
        match undone {
            Some((job, reason)) if self.state.has_published && has_stage(job, StageName::SetWeights) => {
                (ExitCode::Refused, Some(reason))
            }
            // That the rest was published although a read was spoilt is the pipeline's decision.
            _ if self.state.has_published => (ExitCode::Done, None),
            Some((_, reason)) => (ExitCode::Incomplete, Some(reason)),
            None if is_meant_to_publish => {
                let why = "nothing was published: see which submissions are held, and why";
                (ExitCode::Incomplete, Some(Reason::new(Fault::Unknown, "held", why)))
            }
            None => (ExitCode::Done, None),
        }
    }

    /// Writes what comes last: the table of steps, the journal's end, and the seal over all.
    async fn finish(&mut self, exit_code: ExitCode) -> Result<(), Error> {
        self.take_in_what_was_said();
        self.write().await?;
        if self.state.has_published {
            let table = self.directory.write_table(&self.state.step_rows())?;
            self.note(JournalEvent::Published { what: Publication::Steps, tables: vec![table] });
        }
        let conclusion = match exit_code {
            ExitCode::Done => Conclusion::Success,
            ExitCode::Interrupted => Conclusion::Cancelled,
            _ => Conclusion::Failure,
        };
        self.note(JournalEvent::RoundEnded { conclusion, exit_code: exit_code.code() });
        self.write().await?;
        if exit_code == ExitCode::Done {
            self.directory.seal()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
