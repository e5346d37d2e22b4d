//! How steps, legs and jobs end.

use super::{Fault, row, words};

words! {
    /// How a step, leg or job ended, in GitHub's four words.
    pub enum Conclusion {
        /// It did what it should.
        Success = "success",
        /// It did not do what it should.
        Failure = "failure",
        /// It was stopped from outside.
        Cancelled = "cancelled",
        /// It did not run, because its condition was false.
        Skipped = "skipped",
    }
}

row! {
    /// A row of `step_attempts`: one step of one attempt of a leg.
    pub struct StepAttemptRow {
        /// Id of the round.
        pub round_id: String,
        /// Id of the job.
        pub job: String,
        /// Key of the leg; empty for a job without matrix.
        pub leg: String,
        /// Number of the leg's attempt, from 1.
        pub attempt: u32,
        /// Position of the step in its job, from 0.
        pub step_index: u32,
        /// Id of the step, or its name where it has no id.
        pub step: String,
        /// Stage that the step names by `uses:`, or `run` for a shell step.
        pub stage: String,
        /// How the step ended, before `continue-on-error` is considered.
        pub outcome: Conclusion,
        /// How the step counts, after `continue-on-error` is considered.
        pub conclusion: Conclusion,
        /// Whose fault it was, where the step failed.
        pub fault: Option<Fault>,
        /// Code of the reason, where the step failed.
        pub reason: Option<String>,
        /// The reason in words, where the step failed.
        pub detail: Option<String>,
        /// Wall time of the step's start, microseconds since 1970 UTC.
        pub started_at_us: i64,
        /// How long the step took.
        pub duration_ns: i64,
    }
}
