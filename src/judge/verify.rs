//! Are these the model's answers? The answers that were timed, teacher-forced on the trusted scorer, against the
//! baseline's own answers scored in the same way.
//!
//! The control makes the thresholds: whatever noise kernels, batching and the scorer's prefill add, the
//! baseline's answers have it too. Position 0 is judged apart as well, because a draft model that answers only
//! the first token would vanish in the mean. What is missing on our side (scorer, control) voids a check; what
//! is missing on the server's side fails it.
//!
//! Not here yet: the slope of residuals over positions, further strata, perturbed weights.

use super::answers::Answers;
use super::finding::Finding;
use super::thresholds::VerifyPolicy;
use super::{claim, conduct, margin};
use crate::model::{Check, VerdictRow};

/// Whose answers are judged.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Id of the round.
    pub round_id: &'a str,
    /// Key of the read, or of all reads that are judged together.
    pub read_key: &'a str,
    /// Hotkey of the submission; none where the baseline is judged against itself.
    pub hotkey: Option<&'a str>,
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

/// Makes the checks of the control's answers that need nothing to compare them with: against the scorer, by the shares that the
/// policy allows to any server.
pub(super) fn judge_control(
    policy: &VerifyPolicy,
    subject: &Subject<'_>,
    control: &Answers<'_>,
) -> Vec<VerdictRow> {
    let mut findings = conduct::alone(policy, control);
    findings.extend(margin::alone(policy, control));
    findings.extend(claim::alone(policy, control));
    findings.into_iter().map(|finding| row(subject, finding)).collect()
}

/// Every check of a subject, made void for one reason.
pub(super) fn void(subject: &Subject<'_>, reason: &str) -> Vec<VerdictRow> {
    Check::ALL.iter().map(|check| row(subject, Finding::void(*check, reason))).collect()
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
