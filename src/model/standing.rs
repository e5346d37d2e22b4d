//! Who stands where, and what they are paid.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Outcome of comparing a submission's speed with the baseline's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecisionOutcome {
    /// Proven faster than the bar.
    Pass,
    /// Proven not faster, or not proven at the last look.
    Fail,
    /// This machine's noise does not allow a decision.
    NoDecision,
}

impl DecisionOutcome {
    /// The word used in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::NoDecision => "no-decision",
        }
    }
}

/// A row of `decisions`: one component of one submission's speed against the baseline reads around it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionRow {
    /// The round.
    pub round_id: String,
    /// Submission.
    pub hotkey: String,
    /// `ttft`, `e2e`, `mdt` or `score`.
    pub component: String,
    /// Mean over rounds of the trimmed mean over prompts of ln(baseline / candidate); above 0 is faster.
    pub log_ratio: Option<f64>,
    /// Its standard error.
    pub standard_error: Option<f64>,
    /// Lower confidence bound.
    pub lower: Option<f64>,
    /// Upper confidence bound.
    pub upper: Option<f64>,
    /// What `lower` must exceed.
    pub bar: f64,
    /// Prompts that entered.
    pub prompts: u32,
    /// `pass`, `fail` or `no-decision`.
    pub outcome: String,
    /// Why, in words.
    pub reason: String,
}

/// What became of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Correct and proven faster: has a score above zero.
    Scored,
    /// Correct, not proven faster than the bar.
    NotFaster,
    /// A correctness check failed.
    Disqualified,
    /// Its own fault kept it from being measured.
    Failed,
    /// Not decided: infrastructure, noise or an unexplained failure.
    Held,
    /// The commitment never became a submission.
    Ignored,
}

impl Standing {
    /// The word used in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scored => "scored",
            Self::NotFaster => "not-faster",
            Self::Disqualified => "disqualified",
            Self::Failed => "failed",
            Self::Held => "held",
            Self::Ignored => "ignored",
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A row of `leaderboard`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeaderboardRow {
    /// The round.
    pub round_id: String,
    /// Place from 1; total, ties go to the earlier commitment.
    pub rank: u32,
    /// Miner.
    pub hotkey: String,
    /// The chain's uid, where known.
    pub uid: Option<u32>,
    /// Block of the commitment.
    pub block: Option<i64>,
    /// Image.
    pub image: Option<String>,
    /// Digest.
    pub digest: Option<String>,
    /// `exp(lower bound) - 1` of the composite where it passed, else 0: noise pays nobody.
    pub score: f64,
    /// Share of the reward, 0 to 1; the shares of a round sum to at most 1.
    pub share: f64,
    /// Measured speed-up of the end-to-end time: baseline / candidate.
    pub speedup_e2e: Option<f64>,
    /// Measured speed-up of the time to first token.
    pub speedup_ttft: Option<f64>,
    /// See [`Standing`].
    pub standing: String,
    /// Whose fault, where it failed.
    pub fault: Option<String>,
    /// Reason code.
    pub reason: String,
    /// Reason in words.
    pub detail: String,
}

/// A row of `weights`: what is to be set on chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeightRow {
    /// The round.
    pub round_id: String,
    /// Subnet.
    pub netuid: u32,
    /// Miner.
    pub hotkey: String,
    /// The chain's uid, where known.
    pub uid: Option<u32>,
    /// Share of the reward, 0 to 1.
    pub share: f64,
    /// Max-upscaled to 65535, as the chain stores it.
    pub weight: u16,
    /// Whether nothing was sent.
    pub is_dry_run: bool,
    /// What the chain answered; none in a dry run.
    pub receipt: Option<String>,
}
