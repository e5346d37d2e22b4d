//! The read: one fresh launch of one image on one machine, the unit of measurement.

use serde::{Deserialize, Serialize};

use super::{Digest, Fault, Hotkey, ImageReference, row, words};

words! {
    /// Which side of a comparison a read belongs to.
    pub enum Arm {
        /// The pinned baseline.
        Baseline = "baseline",
        /// A submission.
        Candidate = "candidate",
    }
}

/// A planned read: one leg of the measuring matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadSpec {
    /// Identity of the leg, for example `0003-candidate-5Grwva`; sorts in the order of measurement.
    pub key: String,
    /// Side of the comparison.
    pub arm: Arm,
    /// The submission's hotkey; none for the baseline.
    pub hotkey: Option<Hotkey>,
    /// Image to boot.
    pub image: ImageReference,
    /// Digest to boot.
    pub digest: Digest,
    /// Place in the order of measurement, from 0.
    pub position: u32,
    /// Reads with one value run in order on one runner.
    pub sequence: String,
}

words! {
    /// How a read ended.
    pub enum ReadStatus {
        /// Benchmarked to the end; single requests may have failed.
        Measured = "measured",
        /// Did not come to its end; the reason says whose fault it is.
        Failed = "failed",
        /// Measured, but the client was not healthy: not scored.
        Void = "void",
    }
}

row! {
    /// A row of `reads`.
    pub struct ReadRow {
        /// The round.
        pub round_id: String,
        /// Key of the leg.
        pub read_key: String,
        /// Side of the comparison.
        pub arm: Arm,
        /// Submission, none for the baseline.
        pub hotkey: Option<String>,
        /// Image booted.
        pub image: String,
        /// Digest booted.
        pub digest: String,
        /// Place in the order of measurement.
        pub position: u32,
        /// Sequence the read ran in.
        pub sequence: String,
        /// Attempt whose data this is, from 1.
        pub attempt: u32,
        /// Runner that ran it.
        pub runner: String,
        /// Identity of the launch.
        pub boot_id: Option<String>,
        /// From launch to the first healthy answer.
        pub boot_ns: Option<i64>,
        /// Time spent in warm-up.
        pub warm_up_ns: Option<i64>,
        /// From the first request's send to the last one's end.
        pub benchmark_ns: Option<i64>,
        /// Wall time of the leg's start, microseconds since 1970 UTC.
        pub started_at_us: i64,
        /// How it ended.
        pub status: ReadStatus,
        /// Whose fault, where it failed.
        pub fault: Option<Fault>,
        /// Reason code, where it failed.
        pub reason: Option<String>,
        /// Reason in words, where it failed.
        pub detail: Option<String>,
        /// Requests sent.
        pub requests: u32,
        /// Requests that did not end `ok`.
        pub failed_requests: u32,
        /// Median of how late the client's own timer fired while it measured.
        pub client_lag_p50_ns: Option<i64>,
        /// 99th percentile of the same.
        pub client_lag_p99_ns: Option<i64>,
        /// CPU time of the client's process over the benchmark.
        pub client_cpu_ns: Option<i64>,
        /// Processor model of the machine.
        pub machine_cpu: Option<String>,
        /// Logical processors of the machine.
        pub machine_cpus: Option<u32>,
        /// Memory of the machine.
        pub machine_memory_bytes: Option<i64>,
    }
}
