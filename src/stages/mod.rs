//! L3, the stages: the built-in actions that a step names by `uses:`.
//!
//! A closed enum with typed parameters and outputs, not a trait: what a stage takes and gives stands in
//! `pipeline::stage`, what it does in its file here, and no match over stages has an arm for the rest. A stage
//! leaves rows of a table as `<table>.parquet` in its attempt's directory, and hands small values on as outputs.
//! Deliberately absent: what happens next (`schedule`), and any judgement (`judge`).

mod again;
mod benchmark;
mod boot;
mod ended;
mod fetch_commitments;
mod idle;
mod kept_streams;
mod load;
mod plan_confirm;
mod plan_reads;
mod plan_repeats;
mod preflight;
mod prompts;
mod publish;
mod pull;
mod rank;
mod ranking;
mod scoring;
mod set_weights;
mod suspects;
mod symptoms;
mod verify_logprobs;
mod warm_up;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

pub use again::again;
pub use boot::{BootError, BootedServer};
pub use ended::Ending;
pub use preflight::Before;

use crate::adapters::machine::ThisMachine;
use crate::adapters::shell::ExecError;
use crate::adapters::store::{RoundDirectory, StoreError};
use crate::artifact::{ArtifactError, CorpusError, Projection, Table, TableContext, layout};
use crate::judge::NO_ANSWER;
use crate::judge::repeats::GPU_FAILED;
use crate::measure::{DrawError, InvalidStreams};
use crate::model::{Digest, Fault, MachineSpec, Reason, Role, RoundId, Seed, Throttle};
use crate::pipeline::floor::FloorSource;
use crate::pipeline::stage::{Handle, HandleError, LeavesData, StageCall, StageOutput};
use crate::ports::{ChainError, Connector, ContainerEngine, EngineError, Exit, JobNews, Machine, Progress};
use crate::report::text::error_chain;

/// What all jobs of a round share.
pub struct RoundContext {
    /// The round.
    pub round_id: RoundId,
    /// The directory of the round: where stages leave what they make.
    pub directory: RoundDirectory,
    /// Where stages find what earlier ones left: the same directory, but where a round is done again only to be
    /// compared with what is kept of it.
    pub kept: RoundDirectory,
    /// Root of all its randomness.
    pub seed: Seed,
}

/// The runner of a job, with its engine.
#[derive(Clone)]
pub struct RunnerContext {
    /// Name of the runner.
    pub name: String,
    /// Engine that boots servers there; the controller has none.
    pub engine: Option<Arc<dyn ContainerEngine>>,
    /// Directory of the model, absolute.
    pub model_dir: PathBuf,
    /// Most bytes of server log kept.
    pub max_log_bytes: u64,
    /// The least time of an answer there follows from this; none where the runner states no facts.
    pub floor: Option<FloorSource>,
    /// The machine itself.
    pub machine: Arc<dyn Machine>,
    /// What the runner's file says that the machine is.
    pub stated: MachineSpec,
    /// Whether its servers get GPUs.
    pub has_gpus: bool,
}

impl RunnerContext {
    /// Whether its servers use GPUs, as far as its file says: then these have to be free and well.
    pub fn uses_gpus(&self) -> bool {
        self.has_gpus || self.stated != MachineSpec::default()
    }

    /// The controller: the machine that runs the round, which boots no servers.
    pub fn controller() -> Self {
        Self {
            name: "controller".to_owned(),
            engine: None,
            model_dir: PathBuf::new(),
            max_log_bytes: 0,
            floor: None,
            machine: Arc::new(ThisMachine::default()),
            stated: MachineSpec::default(),
            has_gpus: false,
        }
    }
}

/// What one attempt of a leg works with; it owns the booted server.
pub struct JobContext<'a> {
    /// The round.
    pub round: &'a RoundContext,
    /// The runner of the job.
    pub runner: &'a RunnerContext,
    /// Id of the job.
    pub job: String,
    /// Key of the leg; empty for a job without matrix.
    pub leg: String,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// The jobs that the job needs, directly or through others: what it may build on.
    pub upstream: BTreeSet<String>,
    /// Directory of the attempt; what is left there is kept.
    pub attempt_dir: PathBuf,
    /// Directory that is removed when the job ends.
    pub scratch_dir: PathBuf,
    /// Wall time of the attempt's start, microseconds since 1970 UTC.
    pub started_at_us: i64,
    /// The server this job booted.
    pub server: Option<BootedServer>,
    /// What later stages of the job need to know of earlier ones.
    pub notes: Notes,
    /// When the stage has to be done; none where nothing limits it.
    pub ends: Option<Instant>,
    /// Ends the stage early.
    pub cancel: CancellationToken,
    /// Where news of the attempt are told.
    pub news: UnboundedSender<JobNews>,
}

/// What later stages of a job need to know of earlier ones.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    /// Digest of the content of the image that was pulled last.
    pub content: Option<Digest>,
    /// Identity of the launch and how long it took to be ready.
    pub boot: Option<(String, Duration)>,
    /// Directory of the model the server was booted with, absolute.
    pub model_dir: Option<PathBuf>,
    /// How long the warm-up took.
    pub warm_up: Option<Duration>,
    /// What was seen of the machine before the last launch.
    pub before: Option<Before>,
}

impl JobContext<'_> {
    fn tell(&self, doing: &str, done: usize, total: usize) {
        let progress =
            Progress { job: self.job.clone(), leg: self.leg.clone(), doing: doing.to_owned(), done, total };
        // Nobody may be watching.
        let _ = self.news.send(JobNews::Progress(progress));
    }

    fn engine(&self) -> Result<&Arc<dyn ContainerEngine>, StageError> {
        let missing = || {
            StageError::Parameter(format!(
                "this job runs on `{}`, which boots no servers: give it `runs-on:` a runner whose engine this program has",
                self.runner.name
            ))
        };
        self.runner.engine.as_ref().ok_or_else(missing)
    }

    /// The way to a server: to the job's own, wherever it listens by now, or to another one at `http://address:port`.
    fn connector(&self, endpoint: &str) -> Result<Arc<dyn Connector>, StageError> {
        if let Some(booted) = self.server.as_ref().filter(|booted| booted.is_at(endpoint)) {
            return Ok(booted.server.connector());
        }
        let address =
            endpoint.strip_prefix("http://").and_then(|rest| rest.trim_end_matches('/').parse().ok());
        let address: SocketAddr = address.ok_or_else(|| {
            StageError::Parameter(format!("`endpoint` is `{endpoint}`, want `http://address:port`"))
        })?;
        Ok(Arc::new(address))
    }

    fn server(&self) -> Result<&BootedServer, StageError> {
        let missing =
            || StageError::Parameter("no server is booted in this job: put a `boot` step before".to_owned());
        self.server.as_ref().ok_or_else(missing)
    }
}

/// Whose server a stage handles, if it handles one.
fn role(call: &StageCall, context: &JobContext<'_>) -> Option<Role> {
    match call {
        StageCall::Pull(parameters) => Some(parameters.role),
        StageCall::Boot(parameters) => Some(parameters.role),
        StageCall::Benchmark(parameters) => Some(parameters.read.arm.into()),
        StageCall::WarmUp(_) => context.server.as_ref().map(|booted| booted.boot.role),
        // It launches the scorer anew where that dies.
        StageCall::VerifyLogprobs(_) => Some(Role::Scorer),
        StageCall::FetchCommitments(_)
        | StageCall::PlanReads(_)
        | StageCall::PlanConfirm(_)
        | StageCall::PlanRepeats(_)
        | StageCall::Rank(_)
        | StageCall::Publish(_)
        | StageCall::SetWeights(_) => None,
    }
}

/// Runs a stage.
///
/// # Errors
/// Why it did not succeed; only a failure around a candidate's server can be a submission's fault.
///
/// # Cancel safety
/// Stops by `context.cancel`; a booted server stays with the context, which stops it.
pub async fn run_stage(call: StageCall, context: &mut JobContext<'_>) -> Result<StageOutput, StepFailure> {
    let role = role(&call, context);
    let cancel = context.cancel.clone();
    let work = async {
        match stage(call, context).await {
            Ok(output) => Ok(output),
            Err(error) => Err(ended::explain(error, context).await),
        }
    };
    let result: Result<StageOutput, StageError> = tokio::select! {
        biased;
        result = work => result,
        () = cancel.cancelled() => return Err(StepFailure::Cancelled),
    };
    result.map_err(|error| {
        let mut reason = error.reason();
        if let Some(role) = role {
            reason.fault = role.fault(reason.fault);
        }
        StepFailure::Failed(reason)
    })
}

/// Has the stage that is called do its work.
async fn stage(call: StageCall, context: &mut JobContext<'_>) -> Result<StageOutput, StageError> {
    Ok(match call {
        StageCall::FetchCommitments(with) => {
            StageOutput::FetchCommitments(fetch_commitments::run(with, context).await?)
        }
        StageCall::PlanReads(with) => StageOutput::PlanReads(plan_reads::run(&with, context)?),
        StageCall::Pull(with) => StageOutput::Pull(pull::run(with, context).await?),
        StageCall::Boot(with) => StageOutput::Boot(boot::run(with, context).await?),
        StageCall::WarmUp(with) => StageOutput::WarmUp(warm_up::run(with, context).await?),
        StageCall::Benchmark(with) => StageOutput::Benchmark(benchmark::run(with, context).await?),
        StageCall::VerifyLogprobs(with) => {
            StageOutput::VerifyLogprobs(verify_logprobs::run(with, context).await?)
        }
        StageCall::PlanConfirm(with) => StageOutput::PlanConfirm(plan_confirm::run(&with, context)?),
        StageCall::PlanRepeats(with) => StageOutput::PlanRepeats(plan_repeats::run(&with, context)?),
        StageCall::Rank(with) => StageOutput::Rank(rank::run(&with, context)?),
        StageCall::Publish(with) => StageOutput::Publish(publish::run(&with, context)?),
        StageCall::SetWeights(with) => StageOutput::SetWeights(set_weights::run(&with, context)?),
    })
}

/// Why a step did not succeed.
#[derive(Debug, Clone, PartialEq)]
pub enum StepFailure {
    /// Somebody stopped the step.
    Cancelled,
    /// The step failed, for this reason.
    Failed(Reason),
}

impl From<Reason> for StepFailure {
    fn from(reason: Reason) -> Self {
        Self::Failed(reason)
    }
}

impl From<ExecError> for StepFailure {
    fn from(error: ExecError) -> Self {
        match error {
            ExecError::Cancelled => Self::Cancelled,
            failed => Self::Failed(failed.reason()),
        }
    }
}

/// Why a stage failed.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A parameter of the stage is wrong.
    #[error("{0}")]
    Parameter(String),
    /// The engine could not pull or start an image.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The commitments could not be read.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The server did not become ready.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The server ended, or its engine failed, while it was asked.
    #[error("{ending}; what was seen of it before: {seen}")]
    Ended {
        /// What became of it.
        ending: Ending,
        /// What its clients saw of it.
        seen: String,
    },
    /// The round's directory could not be written or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A table or capture is damaged.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// Something that was planned is neither done nor failed.
    #[error(
        "{count} of what was planned are missing, first {first}: nothing is published before each is done or failed"
    )]
    Missing {
        /// How many are missing.
        count: u32,
        /// The first of them.
        first: String,
    },
    /// What is kept of a read is not what the pipeline asks for.
    #[error("{0}")]
    NotAsPlanned(String),
    /// Kept streams are not those of their requests.
    #[error(transparent)]
    Streams(#[from] InvalidStreams),
    /// The operating system refused something.
    #[error("{attempted}: {source}")]
    Machine {
        /// What was attempted.
        attempted: String,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The model's tokenizer cannot be used.
    #[error("the pinned tokenizer `{path}` cannot be used: {why}")]
    Tokenizer {
        /// The tokenizer's file.
        path: PathBuf,
        /// What is wrong with the file.
        why: String,
    },
    /// The weights of the model do not say what a pass of it reads.
    #[error("the weights in `{path}` do not say what a pass of the model reads: {why}")]
    Weights {
        /// The model's folder.
        path: PathBuf,
        /// What is wrong with them.
        why: String,
    },
    /// A corpus cannot be read, or a row of it cannot be used.
    #[error("the corpus `{path}` cannot be used")]
    Corpus {
        /// The operator's file.
        path: PathBuf,
        /// What is wrong with it.
        source: CorpusError,
    },
    /// A corpus is not the file that the pipeline pins.
    #[error("the corpus `{path}` has the digest `{found}`, and the pipeline pins `{expected}`")]
    OtherCorpus {
        /// The operator's file.
        path: PathBuf,
        /// The digest that it has.
        found: Digest,
        /// The digest that the pipeline says.
        expected: Digest,
    },
    /// A workload does not give as many prompts as are wanted.
    #[error(transparent)]
    Draw(#[from] DrawError),
    /// The client itself was too slow to measure.
    #[error("the client was {lag:?} late (99th percentile), at most {limit:?} is a measurement")]
    ClientLag {
        /// The measured lateness, 99th percentile.
        lag: Duration,
        /// The most lateness that is still a measurement.
        limit: Duration,
    },
    /// Somebody else used the machine.
    #[error("others used {:.1}% of this machine's processors {when}, at most {:.1}% is a measurement; `top` shows who", share * 100.0, limit * 100.0)]
    NotIdle {
        /// Share of the processors' time that others used.
        share: f64,
        /// The largest that is still a measurement.
        limit: f64,
        /// When it was.
        when: &'static str,
    },
    /// The machine is not the one that it has to be.
    #[error("this machine cannot be compared: {0}")]
    OtherMachine(String),
    /// Somebody else uses the machine's GPUs, or they are not well.
    #[error("this machine's GPUs are not clean after {:.0} s: {why}; `nvidia-smi` shows more", waited.as_secs_f64())]
    NotClean {
        /// What was seen of them.
        why: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Others than the server computed on the machine's GPUs.
    #[error(
        "others than the server computed on a GPU of this machine during the read: {processes} processes"
    )]
    GpuShared {
        /// How many at an instant, at most.
        processes: u32,
    },
    /// A GPU was slowed down by heat, or for want of power.
    #[error("a GPU of this machine was slowed down during the read: {reasons}")]
    GpuSlowed {
        /// Why.
        reasons: Throttle,
    },
    /// A GPU failed, or its driver.
    #[error("the machine failed during the read: {0}")]
    GpuFailed(String),
    /// An earlier attempt sent the prompts, and they are sent once.
    #[error(
        "attempt {attempt} had sent its prompts when it was cut, and a submission is not asked twice: `plan-repeats` has it measured with fresh ones"
    )]
    AskedBefore {
        /// Number of the attempt that did.
        attempt: u32,
    },
    /// What cannot be tried again.
    #[error(transparent)]
    Final(Box<Self>),
    /// Something waited for memory or a disk too long.
    #[error("something on this machine waited for {what} in {:.1}% of the time {when}, at most {:.1}% is a measurement", share * 100.0, limit * 100.0)]
    Stalled {
        /// What was waited for.
        what: &'static str,
        /// Share of the time in which something waited.
        share: f64,
        /// The largest that is still a measurement.
        limit: f64,
        /// When it was.
        when: &'static str,
    },
    /// Too little memory is free.
    #[error(
        "{free_mib} MiB of this machine's memory are free before the read, at least {limit_mib} MiB are asked for"
    )]
    LowMemory {
        /// What is free, in MiB.
        free_mib: u64,
        /// What has to be, in MiB.
        limit_mib: u64,
    },
    /// The baseline failed requests: there is nothing to compare with.
    #[error("the baseline failed {failed} of {requests} requests: {first}")]
    BaselineFailed {
        /// Number of requests that failed.
        failed: usize,
        /// Number of requests in all.
        requests: usize,
        /// Why the first of them failed.
        first: String,
    },
    /// A server took requests, or did not even that, and not one byte came from it.
    #[error("no byte came from the server to {sent} of {planned} requests within {:.1} s", waited.as_secs_f64())]
    Silent {
        /// Number of requests that were sent.
        sent: usize,
        /// Number of requests that were to be sent.
        planned: usize,
        /// How long the server had.
        waited: Duration,
    },
    /// The server is healthy, as it says, and does not answer as a server of the model does.
    #[error("of {sent} requests to warm up, {failed} failed: {first}")]
    WarmUp {
        /// Number of requests that were sent.
        sent: usize,
        /// Number of requests that failed.
        failed: usize,
        /// Why the first of them failed.
        first: String,
    },
    /// The time of the step was over before all requests were.
    #[error("{ended} of {planned} requests had ended when the time of the step was over")]
    OutOfTime {
        /// Number of requests that had ended.
        ended: usize,
        /// Number of requests in all.
        planned: usize,
    },
    /// The scorer did not answer as a scorer does.
    #[error("the scorer: {0}")]
    Scorer(String),
    /// The attempt's own directory has no handle.
    #[error(transparent)]
    Handle(#[from] HandleError),
}

impl StageError {
    /// Whose fault this is and the published reason: every variant, no default.
    pub fn reason(&self) -> Reason {
        let (fault, code) = match self {
            Self::Engine(error) => return error.reason(),
            Self::Chain(error) => return error.reason(),
            Self::Parameter(_) => (Fault::Pipeline, "bad-parameter"),
            // Gone without a trace: the container or its daemon was lost, and nobody saw it exit.
            Self::Boot(BootError::Exited { exit: Exit { code: None, signal: None, .. }, .. }) => {
                (Fault::Unknown, "server-lost")
            }
            Self::Boot(BootError::Exited { .. }) => (Fault::Submission, "server-exited-before-ready"),
            Self::Boot(BootError::NotReady { .. } | BootError::NotAnswering { .. }) => {
                (Fault::Submission, "not-ready-in-time")
            }
            Self::Ended { ending, .. } => ending.fault(),
            Self::Store(_) => (Fault::Infra, "round-directory"),
            Self::Artifact(_) => (Fault::Infra, "damaged-artifact"),
            Self::Missing { .. } => (Fault::Unknown, "missing"),
            Self::NotAsPlanned(_) => (Fault::Unknown, "not-as-planned"),
            Self::Streams(_) => (Fault::Unknown, "streams"),
            Self::Machine { .. } => (Fault::Infra, "machine"),
            Self::Tokenizer { .. } => (Fault::Operator, "tokenizer"),
            Self::Weights { .. } => (Fault::Operator, "weights"),
            Self::Corpus { .. } | Self::OtherCorpus { .. } | Self::Draw(_) => (Fault::Operator, "corpus"),
            Self::ClientLag { .. } => (Fault::Infra, "client-lag"),
            Self::NotIdle { .. }
            | Self::Stalled { .. }
            | Self::LowMemory { .. }
            | Self::NotClean { .. }
            | Self::GpuShared { .. } => (Fault::Infra, "machine-not-idle"),
            Self::OtherMachine(_) => (Fault::Infra, "machine-differs"),
            Self::GpuSlowed { .. } => (Fault::Infra, "gpu-slowed"),
            Self::GpuFailed(_) => (Fault::Infra, GPU_FAILED),
            Self::AskedBefore { .. } => (Fault::Infra, "asked-before"),
            Self::Final(error) => return Reason { is_final: true, ..error.reason() },
            Self::BaselineFailed { .. } => (Fault::Infra, "baseline-failed"),
            Self::Silent { .. } => (Fault::Submission, NO_ANSWER),
            Self::WarmUp { .. } => (Fault::Submission, "warm-up-failed"),
            Self::OutOfTime { .. } => (Fault::Unknown, "timeout"),
            Self::Scorer(_) => (Fault::Infra, "scorer"),
            Self::Handle(_) => (Fault::Unknown, "handle"),
        };
        Reason::new(fault, code, error_chain(self))
    }
}

/// How long a server may take to end when it is asked to.
pub const STOP_GRACE: Duration = Duration::from_secs(5);

/// The endpoint that is measured.
const CHAT_PATH: &str = "/v1/chat/completions";

/// Leaves rows of a table in the attempt's directory.
fn write_table<T: Table>(context: &JobContext<'_>, rows: &[T]) -> Result<(), StageError> {
    write_rows(context, &format!("{}.parquet", T::NAME), rows)
}

/// Leaves rows under a name of the caller's.
fn write_rows<T: Table>(context: &JobContext<'_>, name: &str, rows: &[T]) -> Result<(), StageError> {
    let table = TableContext { round_id: &context.round.round_id };
    write_file(context, name, &crate::artifact::encode(rows, &table)?)
}

/// Leaves a whole file in the attempt's directory.
fn write_file(context: &JobContext<'_>, name: &str, bytes: &[u8]) -> Result<(), StageError> {
    context.round.directory.write_whole(&format!("{}/{name}", data_dir(context)), bytes)?;
    Ok(())
}

/// A table file of an attempt may not be larger than this.
const MAX_TABLE_BYTES: u64 = 1 << 30;

/// Loads rows that an earlier stage of this round left.
fn load<T: Table, S: LeavesData>(
    context: &JobContext<'_>,
    data: &Handle<S>,
    name: &str,
) -> Result<Vec<T>, StageError> {
    read_table(context, &format!("{}/{name}", data.attempt()))
}

/// Reads some columns of the rows that an earlier stage left, from the directory that its handle names.
fn load_columns<P: Projection, S: LeavesData>(
    context: &JobContext<'_>,
    data: &Handle<S>,
    name: &str,
) -> Result<Vec<P>, StageError> {
    let relative = format!("{}/{name}", data.attempt());
    Ok(crate::artifact::decode(&context.round.kept.read(&relative, MAX_TABLE_BYTES)?)?)
}

/// Reads rows that this very attempt left, where the round is done again.
fn read_kept<T: Table>(context: &JobContext<'_>, name: &str) -> Result<Vec<T>, StageError> {
    read_table(context, &format!("{}/{name}", data_dir(context)))
}

/// Reads rows of this round's, whichever round left them.
fn read_table<T: Table>(context: &JobContext<'_>, relative: &str) -> Result<Vec<T>, StageError> {
    let mut rows: Vec<T> = crate::artifact::decode(&context.round.kept.read(relative, MAX_TABLE_BYTES)?)?;
    for row in &mut rows {
        row.set_round(context.round.round_id.as_str());
    }
    Ok(rows)
}

/// Nanoseconds as the tables have them.
fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

/// The handle to what this attempt leaves: the output `data`.
fn handle<S: LeavesData>(context: &JobContext<'_>) -> Result<Handle<S>, StageError> {
    Ok(Handle::new(&data_dir(context))?)
}

/// Directory of this attempt, relative to the round's.
fn data_dir(context: &JobContext<'_>) -> String {
    layout::attempt_path(&context.job, &context.leg, context.attempt)
}
