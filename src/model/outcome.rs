//! How steps, legs and jobs end.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a step, leg or job ended; GitHub's four words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conclusion {
    /// Did what it should.
    Success,
    /// Did not.
    Failure,
    /// Was stopped from outside.
    Cancelled,
    /// Its condition was false.
    Skipped,
}

impl Conclusion {
    /// The word used in expressions and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }
}

impl fmt::Display for Conclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A row of `step_attempts`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepAttemptRow {
    /// The round.
    pub round_id: String,
    /// Job.
    pub job: String,
    /// Leg; empty for a job without matrix.
    pub leg: String,
    /// Attempt of the leg, from 1.
    pub attempt: u32,
    /// Place of the step in its job, from 0.
    pub step_index: u32,
    /// Step id or name.
    pub step: String,
    /// Stage, or `run` for a shell step.
    pub stage: String,
    /// Result before `continue-on-error`.
    pub outcome: String,
    /// Result after it.
    pub conclusion: String,
    /// Whose fault, where it failed.
    pub fault: Option<String>,
    /// Reason code.
    pub reason: Option<String>,
    /// Reason in words.
    pub detail: Option<String>,
    /// Wall time of the start, microseconds since 1970 UTC.
    pub started_at_us: i64,
    /// How long it took.
    pub duration_ns: i64,
}
