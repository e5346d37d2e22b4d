//! How a leg of a matrix went, as later jobs see it in `needs.<job>.legs`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Conclusion, Reason};

/// One leg and what came of it; of any job, or, with types of their own for what tells it from the other legs and
/// what it hands on, of a job whose legs are all alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LegSummary<Matrix = Value, Outputs = Map<String, Value>> {
    /// Key of the leg; empty for a job without matrix.
    pub key: String,
    /// How its last attempt ended.
    pub result: Conclusion,
    /// Number of the last attempt, from 1; 0 if none was made.
    pub attempt: u32,
    /// Runner of the last attempt.
    pub runner: String,
    /// Wall time of the last attempt's start, microseconds since 1970 UTC.
    pub started_at_us: i64,
    /// Why it did not succeed.
    pub reason: Option<Reason>,
    /// The leg's matrix values.
    pub matrix: Matrix,
    /// The job's outputs as this leg gave them.
    pub outputs: Outputs,
}
