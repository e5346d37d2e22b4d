//! `warm-up`: requests that are not measured.

use std::time::Duration;

use super::TimeSpan;
use super::declare::{outputs, parameters};
use crate::model::Workload;

parameters! {
    /// Which requests are sent, and how long they may take.
    {
        /// the server's base URL
        "endpoint" endpoint: String,
        /// how many requests are sent
        "requests" requests: u32 = 4,
        /// where the prompts come from, as in the benchmark; a corpus keeps a tenth of its texts for warm-ups
        "workload" workload: Workload = Workload::default(),
        /// the most tokens that an answer may have
        "max-tokens" max_tokens: u32 = 256,
        /// how many alternatives are asked for at each position; as in the benchmark, so that requests look alike
        "top-logprobs" top_logprobs: u32 = 2,
        /// how long all of it may take
        "deadline" deadline: TimeSpan = TimeSpan(Duration::from_mins(1)),
    }
}

outputs! {
    /// How many requests were answered, and in what time.
    {
        /// how many requests were answered
        "requests" requests: u64,
        /// how long they took, in milliseconds
        "duration-ms" duration_ms: u64,
    }
}
