//! The thresholds of the checks: a policy of the pipeline's, with our defaults.
//!
//! What each is compared with stands in the checks themselves (`margin`, `claim`, `conduct`).

use serde::{Deserialize, Serialize};

/// The thresholds of all correctness checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct VerifyPolicy {
    /// A token this many nat below the scorer's first choice is a hard miss.
    pub hard_margin: f64,
    /// A token whose rank by the scorer is higher than this is a hard miss too.
    pub hard_rank: u32,
    /// Share of hard misses expected of an honest server; three times this is still excused.
    pub hard_share: f64,
    /// The check of hard misses fails below this probability of an honest server having as many.
    pub hard_level: f64,
    /// A token this many nat below the scorer's first choice is a flip: two bf16 steps of logits in 16 to 32.
    pub flip_margin: f64,
    /// Share of flips an honest server may have, whatever the control has.
    pub flip_share: f64,
    /// The check of flips fails only if their share exceeds the control's by this.
    pub flip_excess: f64,
    /// All tests but that of hard misses fail below this probability.
    pub level: f64,
    /// So many neighbouring tokens count as one independent token.
    pub design_effect: f64,
    /// The mean clipped margin may be so many times the control's.
    pub mean_margin_factor: f64,
    /// The mean clipped margin may be this many nat in any case.
    pub mean_margin_floor: f64,
    /// The residual of claimed log probabilities may be so many times the control's.
    pub residual_factor: f64,
    /// The residual (root mean square) may be this many nat in any case.
    pub residual_floor: f64,
    /// Share of the largest residuals that is left out.
    pub residual_trim: f64,
    /// Number of standard errors granted on top of a multiple of the control's value.
    pub standard_errors: f64,
    /// The end token may be this many nat below the scorer's first choice.
    pub end_margin: f64,
    /// Mean answer length may differ from the control's by this share.
    pub length_tolerance: f64,
    /// Share of requests whose counts or bytes may disagree.
    pub mismatch_share: f64,
    /// Share of requests that may fail.
    pub failed_share: f64,
    /// Number of requests that may fail beyond the control's.
    pub failed_excess: usize,
    /// Share of the first tokens, or of the ends of answers, that the smallest cheat to be found takes from elsewhere.
    pub cheat_share: f64,
    /// Share of the tokens that the smallest cheat to be found takes from elsewhere.
    pub cheat_token_share: f64,
    /// Probability with which such a cheat is to be found: the samples that the checks need follow from it.
    pub power: f64,
    /// The `max_tokens` of requests that do not say theirs, in rounds from before they did; an answer cut for length must
    /// have exactly that many tokens. Never another number than the benchmark's.
    pub max_tokens: Option<u32>,
}

impl Default for VerifyPolicy {
    fn default() -> Self {
        Self {
            hard_margin: 2.0,
            hard_rank: 20,
            hard_share: 1e-4,
            hard_level: 1e-5,
            flip_margin: 0.25,
            flip_share: 0.01,
            flip_excess: 0.005,
            level: 1e-4,
            design_effect: 2.0,
            mean_margin_factor: 1.5,
            mean_margin_floor: 1e-3,
            residual_factor: 1.5,
            residual_floor: 1e-3,
            residual_trim: 1e-3,
            standard_errors: 3.0,
            end_margin: 2.0,
            length_tolerance: 0.1,
            mismatch_share: 0.01,
            failed_share: 0.005,
            failed_excess: 2,
            cheat_share: 0.2,
            cheat_token_share: 0.05,
            power: 0.999,
            max_tokens: None,
        }
    }
}
