//! `benchmark`: the measured requests of one read.

use std::ops::Deref;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value as Json;

use super::declare::{outputs, parameters};
use super::{Handle, LeavesData, StageName, StageValue, TimeSpan, ValueKind};
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
        "max-stall" max_stall: f64 = 0.2,
        /// the memory in MiB that has to be free before the read
        "min-free-memory-mib" min_free_memory_mib: Option<u64>,
        /// how long the machine may take to become idle before the read is void
        "idle-within" idle_within: TimeSpan = TimeSpan(Duration::from_secs(10)),
        /// whether a submission's read that was cut or is void after its first request is tried again with the prompts that were
        /// asked; false where `plan-repeats` has it measured with fresh ones
        "ask-again" ask_again: bool = true,
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

/// The measured legs of one look: a list of legs, or of such lists, where what was lost was measured again by a job of its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct MeasuredLegs(Vec<MeasuredLeg>);

impl MeasuredLegs {
    /// The first bracket that none of them was asked.
    pub fn first_bracket_after(&self) -> u32 {
        let asked = self.iter().flat_map(|leg| &leg.matrix.read.brackets);
        asked.max().map_or(0, |last| last.saturating_add(1))
    }
}

impl Deref for MeasuredLegs {
    type Target = [MeasuredLeg];

    fn deref(&self) -> &[MeasuredLeg] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for MeasuredLegs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut legs = Vec::new();
        for item in Vec::<Json>::deserialize(deserializer)? {
            match item {
                // A job that was skipped has none.
                Json::Null => {}
                Json::Array(own) => {
                    for leg in own {
                        legs.push(serde_json::from_value(leg).map_err(D::Error::custom)?);
                    }
                }
                leg => legs.push(serde_json::from_value(leg).map_err(D::Error::custom)?),
            }
        }
        Ok(Self(legs))
    }
}

impl StageValue for MeasuredLegs {
    const KIND: ValueKind = ValueKind::Json;
}

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn legs_are_a_list_or_lists_of_them() {
        let leg = |key: &str, bracket: u32| {
            json!({
                "key": key, "result": "success", "attempt": 1, "runner": "r", "started_at_us": 0, "reason": null,
                "matrix": {"read": {
                    "key": key, "arm": "baseline", "hotkey": null, "image": "m/i",
                    "digest": format!("sha256:{}", "0".repeat(64)), "position": 0, "sequence": "0",
                    "brackets": [bracket]
                }},
                "outputs": {"data": null}
            })
        };
        let of = |legs: &Json| {
            let legs: MeasuredLegs =
                serde_json::from_value(legs.clone()).map_err(|error| error.to_string())?;
            let keys: Vec<String> = legs.iter().map(|leg| leg.key.clone()).collect();
            Ok::<_, String>((keys.join(" "), legs.first_bracket_after()))
        };
        let (a, b, c) = (leg("a", 4), leg("b", 2), leg("c", 5));
        assert_eq!(of(&json!([a, b])), Ok(("a b".to_owned(), 5)));
        assert_eq!(of(&json!([[a, b], [c]])), Ok(("a b c".to_owned(), 6)));
        assert_eq!(of(&json!([[a], [], null, c])), Ok(("a c".to_owned(), 6)));
        assert_eq!(of(&json!([])), Ok((String::new(), 0)));
        for wrong in [json!([[[a]]]), json!([1]), json!({"a": a}), json!([{"key": "a"}])] {
            assert!(of(&wrong).is_err(), "{wrong}");
        }
    }
}
