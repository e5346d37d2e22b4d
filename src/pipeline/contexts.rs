//! The one table of contexts: which there are, what they hold, and where each can be used.
//!
//! Lint checks expressions against it, and [`SiteScope`] is the scope of every expression at run time, so that
//! what lint accepts is there when the pipeline runs and nothing else is.

use std::collections::BTreeMap;

use super::expr::{Scope, Status, Value, same_name};

/// A context: a name at the head of a path such as `needs.measure.result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContextName {
    /// The round.
    Run,
    /// The tick that started the round; only where a schedule did.
    Tick,
    /// What a person set when starting the round.
    Inputs,
    /// The environment so far: the pipeline's, then the job's, then the step's.
    Env,
    /// The jobs this one waited for.
    Needs,
    /// The leg among the legs of its job.
    Strategy,
    /// The values of the leg.
    Matrix,
    /// The steps that ran before.
    Steps,
    /// The job so far.
    Job,
    /// The machine the job runs on.
    Machine,
}

impl ContextName {
    /// All contexts.
    pub const ALL: &[Self] = &[
        Self::Run,
        Self::Tick,
        Self::Inputs,
        Self::Env,
        Self::Needs,
        Self::Strategy,
        Self::Matrix,
        Self::Steps,
        Self::Job,
        Self::Machine,
    ];

    /// The name as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Tick => "tick",
            Self::Inputs => "inputs",
            Self::Env => "env",
            Self::Needs => "needs",
            Self::Strategy => "strategy",
            Self::Matrix => "matrix",
            Self::Steps => "steps",
            Self::Job => "job",
            Self::Machine => "machine",
        }
    }

    /// The context of this name, whatever its case.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|context| same_name(context.as_str(), name))
    }

    /// What it holds, where that is the same for every pipeline; elsewhere the pipeline says it.
    pub const fn properties(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Run => Some(&["id", "trigger"]),
            Self::Tick => Some(&["cron", "timezone", "at", "scheduled"]),
            Self::Strategy => Some(&["key", "job-index", "job-total", "max-parallel", "fail-fast"]),
            Self::Job => Some(&["status"]),
            Self::Machine => Some(&["id"]),
            Self::Inputs | Self::Env | Self::Needs | Self::Matrix | Self::Steps => None,
        }
    }

    /// Properties that are planned and not there yet.
    pub(super) const fn planned_properties(self) -> &'static [&'static str] {
        match self {
            Self::Run => &["number", "attempt", "seed", "parent", "dir"],
            Self::Machine => &["pool", "gpu"],
            _ => &[],
        }
    }
}

/// Contexts of GitHub's, and where what they hold is found here.
pub(super) const FOREIGN: &[(&str, &str)] = &[
    ("github", "the round is `run`"),
    ("runner", "the machine is `machine`"),
    ("vars", "use `inputs` or `env`"),
    ("secrets", "keys never reach a pipeline"),
    ("jobs", "finished jobs are `needs`"),
];

/// Where an expression stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// `run-name`.
    RunName,
    /// `concurrency.group`.
    Group,
    /// `env` of the pipeline.
    PipelineEnv,
    /// A job's `if`.
    JobIf,
    /// `strategy.matrix`.
    Matrix,
    /// `strategy.key`.
    Key,
    /// `strategy.sequence`.
    Sequence,
    /// A job's `name`.
    JobName,
    /// `runs-on`.
    RunsOn,
    /// A job's `continue-on-error`.
    JobFlag,
    /// `env` of a job.
    JobEnv,
    /// A job's `outputs`.
    Output,
    /// A step's `if`.
    StepIf,
    /// A step's `run`.
    Script,
    /// Anything else in a step.
    Step,
}

impl Site {
    /// What the site is called in messages.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::RunName => "`run-name`",
            Self::Group => "`concurrency`",
            Self::PipelineEnv => "the pipeline's `env`",
            Self::JobIf => "a job's `if`",
            Self::Matrix => "`matrix`",
            Self::Key => "`strategy.key`",
            Self::Sequence => "`strategy.sequence`",
            Self::JobName => "a job's `name`",
            Self::RunsOn => "`runs-on`",
            Self::JobFlag => "a job's `continue-on-error`",
            Self::JobEnv => "a job's `env`",
            Self::Output => "a job's `outputs`",
            Self::StepIf => "a step's `if`",
            Self::Script => "`run`",
            Self::Step => "a step",
        }
    }

    /// The contexts that can be used there.
    pub const fn contexts(self) -> &'static [ContextName] {
        use ContextName::{Env, Inputs, Matrix, Needs, Run, Strategy, Tick};
        match self {
            Self::RunName | Self::Group | Self::PipelineEnv => &[Run, Tick, Inputs],
            // Before the legs are there.
            Self::JobIf | Self::Matrix | Self::RunsOn => &[Run, Tick, Inputs, Env, Needs],
            // While the legs are laid out.
            Self::Key | Self::Sequence | Self::JobName | Self::JobFlag => {
                &[Run, Tick, Inputs, Env, Needs, Matrix]
            }
            Self::JobEnv => &[Run, Tick, Inputs, Env, Needs, Strategy, Matrix],
            Self::Output | Self::StepIf | Self::Script | Self::Step => ContextName::ALL,
        }
    }

    /// Whether `success()` and its like can be asked there.
    pub const fn has_status(self) -> bool {
        matches!(self, Self::JobIf | Self::StepIf)
    }
}

/// The contexts that are known so far. Cloning is cheap: the values are shared.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct KnownContexts {
    values: BTreeMap<ContextName, Value>,
}

impl KnownContexts {
    /// The same with one more context, or with another value of one that is known.
    #[must_use]
    pub fn with(mut self, name: ContextName, value: impl Into<Value>) -> Self {
        self.values.insert(name, value.into());
        self
    }

    /// The value of a context, if it is known.
    pub fn get(&self, name: ContextName) -> Option<&Value> {
        self.values.get(&name)
    }

    /// The scope of an expression at a site.
    pub const fn at(&self, site: Site, status: Status) -> SiteScope<'_> {
        SiteScope { known: self, site, status }
    }
}

/// The scope of an expression where it stands: the known contexts, as far as they can be used there.
#[derive(Debug, Clone, Copy)]
pub struct SiteScope<'k> {
    known: &'k KnownContexts,
    site: Site,
    status: Status,
}

impl Scope for SiteScope<'_> {
    fn context(&self, name: &str) -> Option<Value> {
        let name = ContextName::named(name)?;
        self.site.contexts().contains(&name).then(|| self.known.get(name).cloned())?
    }

    fn contexts(&self) -> Vec<String> {
        let usable = self.site.contexts().iter().filter(|name| self.known.get(**name).is_some());
        usable.map(|name| name.as_str().to_owned()).collect()
    }

    fn status(&self) -> Option<Status> {
        self.site.has_status().then_some(self.status)
    }
}
