//! Are these the model's answers? The answers that were timed, teacher-forced on the trusted scorer, against the
//! baseline's own answers scored in the same way (section 4.4 of the measurement notes).
//!
//! The control makes the thresholds: whatever noise kernels, batching and the scorer's prefill add, the
//! baseline's answers have it too. Position 0 is judged apart as well, because a draft model that answers only
//! the first token would vanish in the mean. What is missing on our side (scorer, control) voids a check; what
//! is missing on the server's side fails it.
//!
//! Not here yet: the slope of residuals over positions, further strata, perturbed weights.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::finding::Finding;
use super::{claim, conduct, margin};
use crate::model::{RequestRow, RequestStatus, TokenRow, VerdictRow};

/// Thresholds of the checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct VerifyPolicy {
    /// A token this many nat below the scorer's top is a hard miss.
    pub hard_margin: f64,
    /// So is one of a higher rank.
    pub hard_rank: u32,
    /// Share of hard misses expected of an honest server; three times this is still excused.
    pub hard_share: f64,
    /// Hard misses fail below this probability.
    pub hard_level: f64,
    /// A token this many nat below the top is a flip: two bf16 steps of logits in 16 to 32.
    pub flip_margin: f64,
    /// Share of flips an honest server may have, whatever the control has.
    pub flip_share: f64,
    /// Flips fail only if their share exceeds the control's by this.
    pub flip_excess: f64,
    /// Tests other than hard misses fail below this probability.
    pub level: f64,
    /// Neighbouring tokens count as one independent token in so many.
    pub design_effect: f64,
    /// The mean clipped margin may be so many times the control's.
    pub mean_margin_factor: f64,
    /// And this many nat in any case.
    pub mean_margin_floor: f64,
    /// The residual of claimed log probabilities may be so many times the control's.
    pub residual_factor: f64,
    /// And this many nat (root mean square) in any case.
    pub residual_floor: f64,
    /// Share of the largest residuals that is left out.
    pub residual_trim: f64,
    /// Standard errors granted on top of a multiple of the control's value.
    pub standard_errors: f64,
    /// The end token may be this many nat below the scorer's top.
    pub end_margin: f64,
    /// Mean answer length may differ from the control's by this share.
    pub length_tolerance: f64,
    /// Share of requests whose counts or bytes may disagree.
    pub mismatch_share: f64,
    /// Share of requests that may fail.
    pub failed_share: f64,
    /// And so many more than the control's.
    pub failed_excess: usize,
    /// The requests' `max_tokens`; where given, an answer cut for length must have exactly that many tokens.
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
            max_tokens: None,
        }
    }
}

/// Whose answers are judged.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The round.
    pub round_id: &'a str,
    /// The read.
    pub read_key: &'a str,
    /// The submission; none where the baseline is judged against itself.
    pub hotkey: Option<&'a str>,
}

/// Answers of one or several reads: their requests and their tokens, scorer's columns filled.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answers<'a> {
    /// Rows of `requests`.
    pub requests: &'a [RequestRow],
    /// Rows of `tokens`.
    pub tokens: &'a [TokenRow],
}

impl<'a> Answers<'a> {
    /// The requests that ended `ok`.
    pub(super) fn ok(&self) -> impl Iterator<Item = &'a RequestRow> {
        self.requests.iter().filter(|row| row.status == RequestStatus::Ok)
    }

    /// Values of tokens, summed by answer: (sum, number).
    pub(super) fn clusters(values: impl Iterator<Item = (&'a TokenRow, f64)>) -> Vec<(f64, f64)> {
        let mut clusters: BTreeMap<(&str, u32), (f64, f64)> = BTreeMap::new();
        for (row, value) in values {
            let cluster = clusters.entry((&row.read_key, row.prompt_index)).or_default();
            cluster.0 += value;
            cluster.1 += 1.0;
        }
        clusters.into_values().collect()
    }
}

/// Makes every check of one read's answers against the control's. Always the same checks in the same order.
pub fn judge_answers(
    policy: &VerifyPolicy,
    subject: &Subject<'_>,
    control: &Answers<'_>,
    candidate: &Answers<'_>,
) -> Vec<VerdictRow> {
    let mut findings = conduct::findings(policy, control, candidate);
    findings.extend(margin::findings(policy, control, candidate));
    findings.extend(claim::findings(policy, control, candidate));
    findings.into_iter().map(|finding| row(subject, finding)).collect()
}

fn row(subject: &Subject<'_>, finding: Finding) -> VerdictRow {
    let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
    VerdictRow {
        round_id: subject.round_id.to_owned(),
        read_key: subject.read_key.to_owned(),
        hotkey: subject.hotkey.map(str::to_owned),
        check: finding.check,
        outcome: finding.outcome,
        value: finite(finding.value),
        control_value: finite(finding.control),
        threshold: finite(finding.threshold),
        samples: u32::try_from(finding.samples).unwrap_or(u32::MAX),
        reason: finding.reason,
        // Numbers and nothing else: serialising cannot fail.
        evidence: serde_json::to_string(&finding.worst).unwrap_or_else(|_| "[]".to_owned()),
    }
}
