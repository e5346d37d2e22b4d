//! `benchmark`: the measured requests of one read.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::declare::{outputs, parameters};
use super::{Handle, LeavesData, StageName, TimeSpan};
use crate::model::{LegSummary, ReadSpec, Workload};

parameters! {
    /// Which read is measured, and within which bounds it is a measurement.
    {
        /// the server's base URL
        "endpoint" endpoint: String,
        /// the read this is, from `plan-reads`
        "read" read: ReadSpec,
        /// how many prompts are sent
        "prompts" prompts: u32 = 128,
        /// where the prompts come from: a list of sources, mixed by `weight`: `grammar` (a toy, for demos), `passages`,
        /// `instructions`, `corpus` (`path`, `digest`, `column`, `strata`); see [workloads](workloads.md)
        "workload" workload: Workload = Workload::default(),
        /// the most tokens that an answer may have
        "max-tokens" max_tokens: u32 = 256,
        /// how many alternatives are asked for at each position
        "top-logprobs" top_logprobs: u32 = 2,
        /// how long one request may take
        "request-deadline" request_deadline: TimeSpan = TimeSpan(Duration::from_mins(2)),
        /// the client's own lateness (99th percentile) that voids the read
        "max-client-lag" max_client_lag: TimeSpan = TimeSpan(Duration::from_millis(50)),
        /// the share of the machine's processors, 0 to 1, that others than the server and this program may use before the
        /// read, and on average while it is measured; more voids the read
        "max-foreign-cpu" max_foreign_cpu: f64 = 0.05,
        /// the share of the time, 0 to 1, in which something on the machine may wait for memory, or for a disk, before the read, and
        /// while the baseline is measured; more voids the read
        "max-stall" max_stall: f64 = 0.05,
        /// the memory in MiB that has to be free before the read
        "min-free-memory-mib" min_free_memory_mib: Option<u64>,
        /// how long the machine may take to become idle before the read is void
        "idle-within" idle_within: TimeSpan = TimeSpan(Duration::from_secs(10)),
    }
}

outputs! {
    /// How the requests went, and where they are kept.
    {
        /// how many requests were sent
        "requests" requests: u64,
        /// how many of them failed
        "failed" failed: u64,
        /// a handle to its rows and raw streams, for later stages
        "data" data: Handle<Output>,
    }
}

impl LeavesData for Output {
    const STAGE: StageName = StageName::Benchmark;
}

/// A leg that was to measure one read, as `needs.<job>.legs` lists it: its matrix has `read`, its job hands on
/// the benchmark's `data`.
pub type MeasuredLeg = LegSummary<MeasuredMatrix, MeasuredOutputs>;

/// The matrix of a leg that measures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasuredMatrix {
    /// The planned read, from `plan-reads`.
    pub read: ReadSpec,
}

/// What a leg that measures hands on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasuredOutputs {
    /// What its benchmark left, if it came so far.
    pub data: Option<Handle<Output>>,
}
