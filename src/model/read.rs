//! The read: one fresh launch of one image on one machine, the unit of measurement.

use serde::{Deserialize, Serialize};

use super::{Digest, Fault, Hotkey, ImageReference, RoundId, row, words};

words! {
    /// Which side of a comparison a read belongs to.
    pub enum Arm {
        /// The side of the pinned baseline.
        Baseline = "baseline",
        /// The side of a submission.
        Candidate = "candidate",
    }
}

/// A planned read: one leg of the measuring matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadSpec {
    /// Identity of the leg, for example `0003-candidate-5Grwva`; sorts in the order of measurement.
    pub key: String,
    /// Side of the comparison the read is on.
    pub arm: Arm,
    /// The submission's hotkey; none for the baseline.
    pub hotkey: Option<Hotkey>,
    /// Image to boot.
    pub image: ImageReference,
    /// Digest of the image to boot.
    pub digest: Digest,
    /// Position in the order of measurement, from 0.
    pub position: u32,
    /// Name of the sequence: reads of one sequence run in order on one runner.
    pub sequence: String,
    /// The brackets whose prompts the read answers, ascending: a candidate's its own, a baseline's those on either side.
    /// The first one where nothing is said.
    #[serde(default = "first_bracket")]
    pub brackets: Vec<u32>,
    /// Key of the read that this one is measured for, since the machine lost it; none for one that is the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<String>,
}

fn first_bracket() -> Vec<u32> {
    vec![0]
}

/// Most prompts of a bracket. Prompt `i` of bracket `b` is prompt `b * MAX_PROMPTS + i` of the round.
pub const MAX_PROMPTS: u32 = 100_000;
/// Most brackets of a round.
pub const MAX_BRACKETS: u32 = u32::MAX / MAX_PROMPTS;

/// Number in the round of a bracket's prompt; the largest there is for a bracket beyond [`MAX_BRACKETS`].
pub const fn prompt_of_round(bracket: u32, number: u32) -> u32 {
    bracket.saturating_mul(MAX_PROMPTS).saturating_add(number)
}

/// The bracket that a prompt of the round belongs to, and its number there: what [`prompt_of_round`] was made of.
pub const fn prompt_of_bracket(prompt_index: u32) -> (u32, u32) {
    (prompt_index / MAX_PROMPTS, prompt_index % MAX_PROMPTS)
}

words! {
    /// How a read ended.
    pub enum ReadStatus {
        /// The read was benchmarked to the end; single requests may have failed.
        Measured = "measured",
        /// The read did not come to its end; the reason says whose fault that is.
        Failed = "failed",
        /// The read was measured, but the client was not healthy: it is not scored.
        Void = "void",
    }
}

row! {
    /// A row of `reads`: one fresh launch of one image, and what was measured of it.
    pub struct ReadRow {
        /// Id of the round.
        pub round_id: String,
        /// Key of the read, which is the key of its leg.
        pub read_key: String,
        /// Side of the comparison the read is on.
        pub arm: Arm,
        /// Hotkey of the submission; none for the baseline.
        pub hotkey: Option<String>,
        /// Image that was booted.
        pub image: String,
        /// Digest of the image that was booted.
        pub digest: String,
        /// Position in the order of measurement, from 0.
        pub position: u32,
        /// Name of the sequence the read ran in.
        pub sequence: String,
        /// Number of the attempt whose data this is, from 1.
        pub attempt: u32,
        /// Name of the runner that ran it.
        pub runner: String,
        /// Identity of the launch; none if the server was not booted.
        pub boot_id: Option<String>,
        /// Time from the launch to the first answer.
        pub boot_ns: Option<i64>,
        /// Time the warm-up took.
        pub warm_up_ns: Option<i64>,
        /// Time from the first request's send to the last one's end.
        pub benchmark_ns: Option<i64>,
        /// Wall time of the leg's start, microseconds since 1970 UTC.
        pub started_at_us: i64,
        /// How the read ended.
        pub status: ReadStatus,
        /// Whose fault it was, where the read failed.
        pub fault: Option<Fault>,
        /// Code of the reason, where the read failed.
        pub reason: Option<String>,
        /// The reason in words, where the read failed.
        pub detail: Option<String>,
        /// Number of requests sent.
        pub requests: u32,
        /// Number of requests that did not end `ok`.
        pub failed_requests: u32,
        /// Median of how late the client's own timer fired while it measured.
        pub client_lag_p50_ns: Option<i64>,
        /// 99th percentile of how late the client's own timer fired while it measured.
        pub client_lag_p99_ns: Option<i64>,
        /// CPU time of the client's own thread over the benchmark.
        pub client_cpu_ns: Option<i64>,
        /// Model of the machine's processor.
        pub machine_cpu: Option<String>,
        /// Number of logical processors of the machine.
        pub machine_cpus: Option<u32>,
        /// Size of the machine's memory.
        pub machine_memory_bytes: Option<i64>,
        /// Digest of the tokenizer by which tokens were counted: the round keeps the file.
        pub tokenizer_digest: Option<String>,
        /// Kendall's rank correlation of the times to first token with the order of the requests: -1 always falling, about 0 no
        /// trend, 1 always rising. None of fewer than ten answers, and in files before 1.2.
        pub ttft_trend: Option<f64>,
        /// Whether the times to first token fall over the read by more than chance (one in 1,000): the server was still warming
        /// up. It decides nothing alone. None as `ttft_trend`.
        pub is_cold: Option<bool>,
        /// Digest of what ran: the same for the same layers and configuration under another manifest; none in files before
        /// 1.2.
        pub content_digest: Option<String>,
        /// Share of the machine's processors, 0 to 1, that others than the server and this program used over the benchmark;
        /// none in files before 1.2.
        pub foreign_cpu: Option<f64>,
        /// The least time that one pass of the model takes on the runner, by its facts; none where it states none.
        pub floor_pass_ns: Option<f64>,
        /// The least time that the arithmetic of one token takes on the runner; none where it states none.
        pub floor_token_ns: Option<f64>,
        /// The most tokens that a pass may yield: the longest draft allowed, and one; none where the runner states none.
        pub floor_step_tokens: Option<u32>,
        /// Key of the read that this one was measured for, since the machine lost it; of the two this one counts, if it was
        /// measured. None for one that is the first, and in files before 1.3.
        pub repeats: Option<String>,
        /// Share of the time of the benchmark, 0 to 1, in which some task of the machine waited for memory, the server's and this
        /// program's included; none where the kernel does not say, and in files before 1.3.
        pub memory_stall: Option<f64>,
        /// The same for a disk.
        pub io_stall: Option<f64>,
        /// Digest of what the machine is: its processors, memory, kernel, clock and GPUs. The round keeps it in `machines/`;
        /// none in files before 1.4, as all that follows.
        pub machine_fingerprint: Option<String>,
        /// The first thing in which the machine was another, after the read, than at the round's first launch on it.
        pub machine_difference: Option<String>,
        /// What could not be known of the machine, in alphabetical order: the checks that need it were not made.
        pub machine_unknown: Option<String>,
        /// Release of the machine's kernel.
        pub machine_kernel: Option<String>,
        /// What sets the processors' frequency; none where the kernel sets none.
        pub cpu_governor: Option<String>,
        /// What the kernel tells the time by.
        pub clock_source: Option<String>,
        /// What was free on the disk of the round before the launch.
        pub disk_free_bytes: Option<i64>,
        /// Number of GPUs of the machine; none where nothing is known of any, as all that follows.
        pub gpus: Option<u32>,
        /// Model of the GPUs, more than one in the order of the alphabet.
        pub gpu_model: Option<String>,
        /// Size of the smallest GPU's memory.
        pub gpu_memory_bytes: Option<i64>,
        /// Version of the GPUs' driver.
        pub gpu_driver: Option<String>,
        /// What the GPUs are connected to, and by what: `0: switch: 18 NVLinks; 1: switch: 18 NVLinks`.
        pub gpu_topology: Option<String>,
        /// Largest memory in use of a GPU before the launch, without what the driver reserves.
        pub gpu_used_before_bytes: Option<i64>,
        /// Highest temperature of a GPU before the launch, in degrees Celsius.
        pub gpu_celsius_before: Option<u32>,
        /// Highest temperature of a GPU while it was measured, in degrees Celsius.
        pub gpu_celsius_max: Option<u32>,
        /// Lowest frequency of a GPU's processors while it was measured.
        pub gpu_min_mhz: Option<u32>,
        /// Mean frequency of the GPUs' processors while it was measured.
        pub gpu_mean_mhz: Option<f64>,
        /// Reasons why a GPU's frequency was not higher while it was measured, in NVML's order.
        pub gpu_throttle: Option<String>,
        /// Energy that all GPUs used while it was measured, by trapezoids between samples of one a second; none where it is not known.
        pub gpu_energy_joules: Option<f64>,
        /// Why the energy is not known: `gap`, where no sample was taken for more than 3 s, `no-power` or `no-window`.
        pub gpu_energy_unknown: Option<String>,
        /// Most processes that computed on a GPU at an instant of the benchmark and were not the server's.
        pub gpu_foreign: Option<u32>,
        /// Errors of the GPUs' memories that could not be corrected, from before the launch to after the benchmark.
        pub gpu_uncorrected: Option<i64>,
        /// Number of faults (Xid) of GPUs in the kernel's log before the launch, since the machine started.
        pub gpu_xids_before: Option<u32>,
        /// Numbers of the faults (Xid) that came from before the launch to after the benchmark, with commas between them.
        pub gpu_xids: Option<String>,
        /// What broke on a GPU, or in its driver, from before the launch to after the benchmark.
        pub gpu_failure: Option<String>,
    }
}

impl ReadRow {
    /// The row of a read of which nothing is known but its plan: failed, without a reason.
    pub fn planned(round_id: &RoundId, spec: &ReadSpec) -> Self {
        Self {
            round_id: round_id.to_string(),
            read_key: spec.key.clone(),
            arm: spec.arm,
            hotkey: spec.hotkey.as_ref().map(ToString::to_string),
            image: spec.image.to_string(),
            digest: spec.digest.to_string(),
            position: spec.position,
            sequence: spec.sequence.clone(),
            repeats: spec.repeats.clone(),
            attempt: 0,
            runner: String::new(),
            started_at_us: 0,
            status: ReadStatus::Failed,
            requests: 0,
            failed_requests: 0,
            boot_id: None,
            boot_ns: None,
            warm_up_ns: None,
            benchmark_ns: None,
            fault: None,
            reason: None,
            detail: None,
            client_lag_p50_ns: None,
            client_lag_p99_ns: None,
            client_cpu_ns: None,
            machine_cpu: None,
            machine_cpus: None,
            machine_memory_bytes: None,
            tokenizer_digest: None,
            ttft_trend: None,
            is_cold: None,
            content_digest: None,
            foreign_cpu: None,
            floor_pass_ns: None,
            floor_token_ns: None,
            floor_step_tokens: None,
            memory_stall: None,
            io_stall: None,
            machine_fingerprint: None,
            machine_difference: None,
            machine_unknown: None,
            machine_kernel: None,
            cpu_governor: None,
            clock_source: None,
            disk_free_bytes: None,
            gpus: None,
            gpu_model: None,
            gpu_memory_bytes: None,
            gpu_driver: None,
            gpu_topology: None,
            gpu_used_before_bytes: None,
            gpu_celsius_before: None,
            gpu_celsius_max: None,
            gpu_min_mhz: None,
            gpu_mean_mhz: None,
            gpu_throttle: None,
            gpu_energy_joules: None,
            gpu_energy_unknown: None,
            gpu_foreign: None,
            gpu_uncorrected: None,
            gpu_xids_before: None,
            gpu_xids: None,
            gpu_failure: None,
        }
    }
}
