//! What a correctness check found.

use serde::{Deserialize, Serialize};

/// Result of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckOutcome {
    /// Within its threshold.
    Pass,
    /// Beyond its threshold: the score is zero.
    Fail,
    /// Could not be made: the scorer, the control or the sample is missing. Never costs a miner.
    Void,
}

impl CheckOutcome {
    /// The word used in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Void => "void",
        }
    }
}

/// A row of `verdicts`: one check of one submission (or of the baseline against itself).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerdictRow {
    /// The round.
    pub round_id: String,
    /// Read whose answers were judged.
    pub read_key: String,
    /// Submission, none for the baseline.
    pub hotkey: Option<String>,
    /// Name of the check.
    pub check: String,
    /// `pass`, `fail` or `void`.
    pub outcome: String,
    /// What was measured.
    pub value: Option<f64>,
    /// The same of the baseline's own answers.
    pub control_value: Option<f64>,
    /// Beyond this the check fails.
    pub threshold: Option<f64>,
    /// Tokens or requests the value rests on.
    pub samples: u32,
    /// In words a miner can act on.
    pub reason: String,
    /// The worst positions as JSON: `[{"prompt_index":..,"position":..,..}]`.
    pub evidence: String,
}
