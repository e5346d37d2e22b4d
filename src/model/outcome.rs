//! How steps, legs and jobs end.

use super::{Fault, row, words};

words! {
    /// How a step, leg or job ended; GitHub's four words.
    pub enum Conclusion {
        /// Did what it should.
        Success = "success",
        /// Did not.
        Failure = "failure",
        /// Was stopped from outside.
        Cancelled = "cancelled",
        /// Its condition was false.
        Skipped = "skipped",
    }
}

row! {
    /// A row of `step_attempts`.
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
        pub outcome: Conclusion,
        /// Result after it.
        pub conclusion: Conclusion,
        /// Whose fault, where it failed.
        pub fault: Option<Fault>,
        /// Reason code.
        pub reason: Option<String>,
        /// Reason in words.
        pub detail: Option<String>,
        /// Wall time of the start, microseconds since 1970 UTC.
        pub started_at_us: i64,
        /// How long it took.
        pub duration_ns: i64,
    }
}
