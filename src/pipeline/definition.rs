//! A checked pipeline: what the YAML file means.
//!
//! Built only by [`Pipeline::parse`](super::parse); a value of these types has unknown keys, wrong types,
//! cycles and misplaced contexts behind it. What is templated keeps its span in the file.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::cron::Cron;
use super::expr::{ExprError, Scope, Value};
use super::source::{Source, Span};
use super::stage::{StageName, ValueKind};
use super::template::{Condition, Template, TemplateTree};
use super::yaml::Key;

/// Variables of an environment by name, in file order.
pub type Env = Vec<(String, Template)>;

/// The values of an environment as text.
///
/// # Errors
/// The first expression that fails.
pub fn texts(env: &Env, scope: &dyn Scope) -> Result<Vec<(String, String)>, ExprError> {
    env.iter().map(|(name, template)| Ok((name.clone(), template.text(scope)?))).collect()
}

/// A whole pipeline.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// The file, for drawing failures at run time.
    pub source: Source,
    /// The pipeline's `name`, or the file's name without its extension.
    pub name: String,
    /// What one round is called, if the pipeline says so.
    pub run_name: Option<Template>,
    /// When rounds start by themselves.
    pub schedules: Vec<Schedule>,
    /// The script that runs when a scheduled round ends and is not done.
    pub on_failure: Option<String>,
    /// What a person may set when starting a round.
    pub inputs: Vec<InputDecl>,
    /// Environment of all steps.
    pub env: Env,
    /// What steps and jobs without their own setting use.
    pub defaults: Defaults,
    /// Which rounds must not run at once.
    pub concurrency: Option<Concurrency>,
    /// The jobs in file order; `needs` form no circle.
    pub jobs: Vec<Job>,
}

impl Pipeline {
    /// The job of this id.
    pub fn job(&self, id: &str) -> Option<&Job> {
        self.jobs.iter().find(|job| job.id == id)
    }
}

/// A time at which rounds start.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// The instants at which rounds start.
    pub cron: Cron,
    /// The time zone of the cron line; UTC by default.
    pub timezone: TimeZone,
    /// What happens when a round of this pipeline is still running.
    pub overlap: Overlap,
    /// What happens to ticks that passed while nobody was watching.
    pub catch_up: CatchUp,
    /// A tick older than this is recorded as missed.
    pub deadline: Option<Duration>,
    /// The longest delay, drawn for each tick from its identity.
    pub jitter: Duration,
    /// Inputs of the rounds it starts: names and texts.
    pub inputs: Vec<(String, String)>,
    /// Where the cron line stands.
    pub span: Span,
}

impl Schedule {
    /// Name of the time zone.
    pub fn zone_name(&self) -> &str {
        self.timezone.iana_name().unwrap_or("UTC")
    }

    /// When rounds start, in words: `runs at 00:17, 12:17 UTC`.
    pub fn runs(&self) -> String {
        let days = self.cron.days();
        let days = days.map(|days| format!(", on days of `{days}` (day of the month, month, weekday)"));
        let days = days.unwrap_or_default();
        format!("runs {} {}{days}", self.cron.times_of_day(), self.zone_name())
    }

    /// A schedule with nothing said but its instants.
    pub fn plain(cron: Cron, timezone: TimeZone) -> Self {
        Self {
            cron,
            timezone,
            overlap: Overlap::default(),
            catch_up: CatchUp::default(),
            deadline: None,
            jitter: Duration::ZERO,
            inputs: Vec::new(),
            span: Span::new(0, 0),
        }
    }
}

/// What happens to a tick while a round of the same pipeline runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlap {
    /// The tick is recorded and not run.
    #[default]
    Skip,
    /// The tick waits; the newest one wins.
    Queue,
    /// The running round is cancelled.
    Replace,
}

/// What happens to ticks that passed while nobody was watching.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CatchUp {
    /// None of them runs.
    None,
    /// The newest one runs.
    #[default]
    Latest,
    /// All run, the oldest first.
    All,
}

/// Something a person may set when starting a round.
#[derive(Debug, Clone, PartialEq)]
pub struct InputDecl {
    /// Name of the input.
    pub name: String,
    /// Type of the input.
    pub kind: InputType,
    /// What the input is for.
    pub description: Option<String>,
    /// Whether the input must be given.
    pub is_required: bool,
    /// Value of the input if it is not given; already of the right type.
    pub default: Option<Value>,
    /// Where the input's name stands.
    pub span: Span,
}

/// The type of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputType {
    /// Any text.
    String,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// One of these texts.
    Choice(Vec<String>),
}

/// What steps and jobs without their own setting use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Defaults {
    /// The shell of `run` steps that name none.
    pub shell: Shell,
    /// The timeout of jobs that name none; without it they have no limit.
    pub timeout: Option<Duration>,
}

/// The program that a script runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shell {
    /// `bash --noprofile --norc -eo pipefail`.
    #[default]
    Bash,
}

/// Rounds of one group run one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Concurrency {
    /// Name of the group.
    pub group: Template,
    /// Whether a new round cancels the running one.
    pub cancel_in_progress: bool,
    /// How many rounds of the group wait.
    pub queue: Queue,
}

/// How many rounds of a group wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Queue {
    /// One waits; the newest wins.
    #[default]
    Single,
    /// All wait, first come first served.
    Max,
}

/// One job.
#[derive(Debug, Clone)]
pub struct Job {
    /// Id of the job, unique whatever the case.
    pub id: String,
    /// Where the id stands.
    pub span: Span,
    /// What the job is called; the id if not given.
    pub name: Option<Template>,
    /// The jobs whose end the job waits for.
    pub needs: Vec<Need>,
    /// Whether the job runs.
    pub condition: Condition,
    /// Where the job runs.
    pub runs_on: RunsOn,
    /// The matrix of the job and how its legs run; none if it has one leg.
    pub strategy: Option<Strategy>,
    /// Environment of the job's steps.
    pub env: Env,
    /// What the job hands to the jobs that need it.
    pub outputs: Vec<OutputDecl>,
    /// How long one attempt may take; none if there is no limit.
    pub timeout: Option<Duration>,
    /// Whether and when the job is tried again, as a whole.
    pub retry: Retry,
    /// Whether a failure of the job lets the round go on.
    pub continue_on_error: Flag,
    /// The steps of the job in order; never empty.
    pub steps: Vec<Step>,
}

/// A job that is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Id of the job that is waited for.
    pub job: String,
    /// Where the need is written.
    pub span: Span,
}

/// Where a job runs: a runner that has all these labels.
#[derive(Debug, Clone, PartialEq)]
pub struct RunsOn {
    /// The labels; `controller` stands for the machine that runs the round.
    pub labels: Vec<Template>,
}

/// The legs of a job, and how they run.
#[derive(Debug, Clone, PartialEq)]
pub struct Strategy {
    /// The matrix: a mapping of lists with `include` and `exclude`, or one expression that gives such a mapping.
    pub matrix: TemplateTree,
    /// The identity of a leg; its values joined by `-` if not given.
    pub key: Option<Template>,
    /// How many legs run at once; none if there is no limit.
    pub max_parallel: Option<u32>,
    /// Whether the first failing leg cancels the others.
    pub fail_fast: bool,
    /// In which order legs start.
    pub order: LegOrder,
    /// Legs for which this gives the same value run one after the other on one runner.
    pub sequence: Option<Template>,
    /// Whether a matrix without legs is fine.
    pub allow_empty: bool,
    /// Where the key `strategy` stands.
    pub span: Span,
}

/// In which order legs start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LegOrder {
    /// Legs start as they stand in the file.
    #[default]
    File,
    /// Legs start in an order drawn from the round's seed, which is recorded.
    Shuffle,
}

/// What a job hands to the jobs that need it.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputDecl {
    /// Name of the output.
    pub name: String,
    /// Type of the output.
    pub kind: OutputType,
    /// Value of the output.
    pub value: Template,
}

/// The type of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutputType {
    /// Text.
    #[default]
    String,
    /// Any value.
    Json,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
}

impl OutputType {
    /// The value in this type; `None` if it is of another. Text is read as JSON for `json`, and as a number or
    /// boolean for those.
    pub fn accept(self, value: &Value) -> Option<Value> {
        match (self, value) {
            (Self::Json, Value::String(text)) => {
                serde_json::from_str::<serde_json::Value>(text).ok().map(Value::from)
            }
            (Self::Json, value) => Some(value.clone()),
            (Self::String, value) => ValueKind::String.accept(value),
            (Self::Number, value) => ValueKind::Number.accept(value),
            (Self::Boolean, value) => ValueKind::Boolean.accept(value),
        }
    }
}

/// Whether and when something is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retry {
    /// How often it is tried again, after the first time.
    pub max: u32,
    /// After which faults it is tried again.
    pub on: Vec<FaultName>,
    /// How long it waits before it is tried again.
    pub backoff: Backoff,
}

/// A fault that may be retried; a submission's own never is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultName {
    /// The fault of the machine, the network or a registry.
    Infra,
    /// The fault of the pipeline file.
    Pipeline,
    /// The fault of a person at the controls.
    Operator,
    /// A fault that the evidence does not explain.
    Unknown,
}

/// The delay before another try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    /// How the delay grows from try to try.
    pub kind: BackoffKind,
    /// The first delay.
    pub delay: Duration,
    /// The longest delay.
    pub max_delay: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            kind: BackoffKind::Exponential,
            delay: Duration::from_secs(5),
            max_delay: Duration::from_mins(5),
        }
    }
}

impl Backoff {
    /// The delay before the try of this number; the first retry is number one.
    pub fn delay_before(&self, retry: u32) -> Duration {
        let factor = match self.kind {
            BackoffKind::Fixed => 1,
            BackoffKind::Linear => retry.max(1),
            BackoffKind::Exponential => 1u32.checked_shl(retry.saturating_sub(1)).unwrap_or(u32::MAX),
        };
        self.delay.saturating_mul(factor).min(self.max_delay)
    }
}

/// How a delay grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BackoffKind {
    /// It does not grow.
    Fixed,
    /// It grows by the first delay each time.
    Linear,
    /// It doubles each time.
    #[default]
    Exponential,
}

/// A setting that is true, false, or decided by an expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Flag {
    /// The value as it is written.
    Fixed(bool),
    /// The value is decided by this expression.
    Template(Template),
}

/// One step.
#[derive(Debug, Clone)]
pub struct Step {
    /// Id of the step, unique in its job whatever the case.
    pub id: Option<String>,
    /// Where the step begins.
    pub span: Span,
    /// What the step is called, if it says so.
    pub name: Option<Template>,
    /// Whether the step runs.
    pub condition: Condition,
    /// Environment of the step.
    pub env: Env,
    /// How long the step may take; none if there is no limit.
    pub timeout: Option<Duration>,
    /// Whether a failure of the step lets the job go on.
    pub continue_on_error: Flag,
    /// Whether and when the step is tried again.
    pub retry: Retry,
    /// What the step does.
    pub action: StepAction,
}

/// What a step does.
#[derive(Debug, Clone)]
pub enum StepAction {
    /// Runs a built-in stage.
    Stage {
        /// The stage that is run.
        stage: StageName,
        /// Inputs of the stage, in file order.
        with: Vec<(Key, TemplateTree)>,
        /// Where `uses` stands.
        span: Span,
    },
    /// Runs a script.
    Run {
        /// The script; outside data reaches it by `env` only.
        script: Template,
        /// The program that the script runs in.
        shell: Shell,
    },
}
