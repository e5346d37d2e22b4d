//! How a leg of a matrix went, as later jobs see it in `needs.<job>.legs`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Conclusion, Reason};

/// One leg of a job and what came of it. The types of its matrix values and outputs are JSON for any job, or types
/// of their own for a job whose legs are all alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LegSummary<Matrix = Value, Outputs = Map<String, Value>> {
    /// Key of the leg; empty for a job without matrix.
    pub key: String,
    /// How the leg's last attempt ended.
    pub result: Conclusion,
    /// Number of the last attempt, from 1; 0 if none was made.
    pub attempt: u32,
    /// Name of the runner that ran the last attempt.
    pub runner: String,
    /// Wall time of the last attempt's start, microseconds since 1970 UTC.
    pub started_at_us: i64,
    /// Why the leg did not succeed; none if it did.
    pub reason: Option<Reason>,
    /// The leg's matrix values.
    pub matrix: Matrix,
    /// The job's outputs as this leg gave them.
    pub outputs: Outputs,
}
