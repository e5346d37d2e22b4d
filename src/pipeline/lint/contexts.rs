//! Which contexts can be used where.

/// Where an expression stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
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
    /// `env` of a job.
    JobEnv,
    /// A job's `continue-on-error`.
    JobFlag,
    /// A job's `outputs`.
    Output,
    /// A step's `if`.
    StepIf,
    /// A step's `run`.
    Script,
    /// Anything else in a step.
    Step,
}

/// All contexts there are.
pub(super) const ALL: &[&str] =
    &["run", "tick", "inputs", "env", "needs", "strategy", "matrix", "steps", "job", "machine"];

/// What is known of contexts that are the same for every pipeline.
pub(super) const PROPERTIES: &[(&str, &[&str])] = &[
    ("run", &["id", "number", "attempt", "seed", "parent", "trigger", "dir"]),
    ("tick", &["id", "nominal", "cron", "timezone"]),
    ("job", &["status"]),
    ("strategy", &["key", "job-index", "job-total", "max-parallel", "fail-fast"]),
];

/// Contexts of GitHub's, and where what they hold is found here.
pub(super) const FOREIGN: &[(&str, &str)] = &[
    ("github", "the round is `run`, what started it `tick`"),
    ("runner", "the machine is `machine`"),
    ("vars", "use `inputs` or `env`"),
    ("secrets", "keys never reach a pipeline"),
    ("jobs", "finished jobs are `needs`"),
];

impl Place {
    /// What the place is called in messages.
    pub(super) fn name(self) -> &'static str {
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
            Self::JobEnv => "a job's `env`",
            Self::JobFlag => "a job's `continue-on-error`",
            Self::Output => "a job's `outputs`",
            Self::StepIf => "a step's `if`",
            Self::Script => "`run`",
            Self::Step => "a step",
        }
    }

    /// The contexts that can be used there.
    pub(super) fn contexts(self) -> &'static [&'static str] {
        match self {
            Self::RunName | Self::Group | Self::PipelineEnv => &["run", "tick", "inputs"],
            Self::JobIf | Self::Matrix => &["run", "tick", "inputs", "env", "needs"],
            Self::Key | Self::Sequence | Self::JobName | Self::RunsOn | Self::JobEnv | Self::JobFlag => {
                &["run", "tick", "inputs", "env", "needs", "strategy", "matrix"]
            }
            Self::Output | Self::StepIf | Self::Script | Self::Step => ALL,
        }
    }

    /// Whether `success()` and its like can be asked there.
    pub(super) fn has_status(self) -> bool {
        matches!(self, Self::JobIf | Self::StepIf)
    }

    /// Whether there are files to look at.
    pub(super) fn has_files(self) -> bool {
        matches!(self, Self::StepIf | Self::Script | Self::Step)
    }
}
