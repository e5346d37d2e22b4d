//! One check's result on its way to a row, and the tests that several checks share.

use serde::Serialize;

use crate::model::{Check, CheckOutcome, TokenRow};
use crate::stats::binomial_upper_tail;

/// Number of positions that are kept as evidence.
const WORST: usize = 10;

/// What a check found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Finding {
    /// Which check this is.
    pub(super) check: Check,
    /// How the check ended.
    pub(super) outcome: CheckOutcome,
    /// What was measured of the candidate, in the check's own unit.
    pub(super) value: Option<f64>,
    /// What was measured of the control, in the same unit.
    pub(super) control: Option<f64>,
    /// The threshold of `value`, beyond which the check fails.
    pub(super) threshold: Option<f64>,
    /// Number of tokens or requests the value rests on.
    pub(super) samples: usize,
    /// What was found, in words a miner can act on.
    pub(super) reason: String,
    /// The worst positions, the worst first.
    pub(super) worst: Vec<Evidence>,
}

impl Finding {
    /// The finding of a check that could not be made.
    pub(super) fn void(check: Check, reason: impl Into<String>) -> Self {
        Self {
            check,
            outcome: CheckOutcome::Void,
            value: None,
            control: None,
            threshold: None,
            samples: 0,
            reason: reason.into(),
            worst: Vec::new(),
        }
    }
}

/// One position of an answer, or a whole request, that speaks against it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Evidence {
    /// Number of the prompt in the read.
    pub(super) prompt_index: u32,
    /// Position in the answer; none for the request as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) position: Option<u32>,
    /// Id of the token emitted there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token_id: Option<u32>,
    /// How far it is off, in the check's unit.
    pub(super) value: f64,
    /// Log probability that the server claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server_logprob: Option<f64>,
    /// Log probability by the trusted scorer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scorer_logprob: Option<f64>,
    /// Rank by the trusted scorer; 1 is the most probable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scorer_rank: Option<u32>,
}

impl Evidence {
    /// The evidence of one token.
    pub(super) fn of_token(row: &TokenRow, value: f64) -> Self {
        Self {
            prompt_index: row.prompt_index,
            position: Some(row.position),
            token_id: Some(row.token_id),
            value,
            server_logprob: row.server_logprob.filter(|value| value.is_finite()),
            scorer_logprob: row.scorer_logprob.filter(|value| value.is_finite()),
            scorer_rank: row.scorer_rank,
        }
    }

    /// The evidence of one request as a whole.
    pub(super) const fn of_request(prompt_index: u32, value: f64) -> Self {
        Self {
            prompt_index,
            position: None,
            token_id: None,
            value,
            server_logprob: None,
            scorer_logprob: None,
            scorer_rank: None,
        }
    }
}

/// The worst positions, worst first; equal ones in order of prompt and position.
pub(super) fn worst(mut all: Vec<Evidence>) -> Vec<Evidence> {
    all.sort_by(|a, b| {
        b.value.total_cmp(&a.value).then((a.prompt_index, a.position).cmp(&(b.prompt_index, b.position)))
    });
    all.truncate(WORST);
    all
}

/// How often something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    /// Number of times it happened.
    pub(super) hits: usize,
    /// Number of times it could have happened.
    pub(super) of: usize,
}

impl Count {
    /// The share of hits among all; 0 where nothing could have happened.
    pub(super) fn share(self) -> f64 {
        if self.of == 0 { 0.0 } else { self.hits as f64 / self.of as f64 }
    }
}

/// Probability that a server like the control hits as often as the candidate did, one-sided.
///
/// The lesser of two exact tests: against the control (given all hits, the candidate's are binomial with its
/// share of the trials: Fisher's conditioning in the Poisson limit, Przyborowski & Wilenski, Biometrika 31, 1940)
/// and against the share `allowed` to an honest server, or twice the control's where that is more. `design`
/// divides the counts because neighbouring tokens are not independent (Kish's design effect).
pub(super) fn excess_probability(candidate: Count, control: Count, allowed: f64, design: f64) -> f64 {
    let design = design.max(1.0);
    let hits = (candidate.hits as f64 / design).floor() as u64;
    let control_hits = (control.hits as f64 / design).ceil() as u64;
    let trials = (candidate.of as f64 / design).floor() as u64;
    let share_of_trials = candidate.of as f64 / (candidate.of + control.of).max(1) as f64;
    let against_control = binomial_upper_tail(hits, hits + control_hits, share_of_trials);
    let against_allowed = binomial_upper_tail(hits, trials, allowed.max(2.0 * control.share()));
    against_control.min(against_allowed)
}

/// Whether requests of one kind are too many: more than one, a larger share than `share`, and so many that a server with
/// the control's share has them with a probability below `level` (exact binomial test, one-sided).
///
/// Shares are compared, never counts: the control has several reads. Where it has none at all, two are too many.
pub(super) fn is_too_many(candidate: Count, control: Count, (share, level): (f64, f64)) -> bool {
    let probability = binomial_upper_tail(candidate.hits as u64, candidate.of as u64, control.share());
    candidate.hits > 1 && candidate.share() > share && probability < level
}

/// Mean of per-token values and its standard error with prompts as clusters: the ratio estimator of Cochran,
/// *Sampling Techniques*, 3rd ed., 6.4. `clusters` holds (sum of values, number of values) of each prompt.
pub(super) fn clustered_mean(clusters: &[(f64, f64)]) -> (f64, f64) {
    let count = clusters.len() as f64;
    let total: f64 = clusters.iter().map(|cluster| cluster.1).sum();
    if total <= 0.0 {
        return (0.0, 0.0);
    }
    let mean = clusters.iter().map(|cluster| cluster.0).sum::<f64>() / total;
    let squares: f64 = clusters.iter().map(|(sum, n)| (sum - mean * n) * (sum - mean * n)).sum();
    let error = if count > 1.0 { (squares * count / (count - 1.0)).sqrt() / total } else { 0.0 };
    (mean, error)
}

/// Standard error of (candidate - `factor` control) if the candidate is like the control, from the control's own.
///
/// The candidate's own spread is not asked: a cheat on few prompts would widen it until nothing is significant.
pub(super) fn null_error(control_error: f64, control: usize, candidate: usize, factor: f64) -> f64 {
    let scale = control as f64 / candidate.max(1) as f64;
    control_error * (scale + factor * factor).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters() {
        // Equal clusters: the standard error of the clusters' means.
        let (mean, error) = clustered_mean(&[(2.0, 2.0), (4.0, 2.0), (6.0, 2.0)]);
        assert!((mean - 2.0).abs() < 1e-12 && (error - 1.0 / 3f64.sqrt()).abs() < 1e-12);
        assert_eq!(clustered_mean(&[]), (0.0, 0.0));
        assert_eq!(clustered_mean(&[(3.0, 3.0)]), (1.0, 0.0));
    }

    #[test]
    fn excess() {
        let count = |hits, of| Count { hits, of };
        let p = |a, b| excess_probability(a, b, 0.01, 1.0);
        assert!(p(count(0, 24), count(0, 24)) > 0.99);
        assert!(p(count(2, 24), count(0, 24)) > 1e-2);
        assert!(p(count(5, 24), count(0, 24)) < 1e-4);
        assert!(p(count(40, 1000), count(38, 1000)) > 0.3);
        assert!(p(count(80, 10_000), count(20, 10_000)) < 1e-4);
        assert!(p(count(0, 0), count(0, 0)) > 0.99);
        assert!(excess_probability(count(14, 1000), count(0, 1000), 0.01, 2.0) > 1e-3);
    }

    #[test]
    fn too_many() {
        let check = |hits, of, (control_hits, control_of), expected| {
            let (ours, theirs) = (Count { hits, of }, Count { hits: control_hits, of: control_of });
            assert_eq!(is_too_many(ours, theirs, (0.01, 1e-4)), expected, "{ours:?} beside {theirs:?}");
        };
        // The control's reads are many: its six among them excuse no seven in one.
        check(7, 16, (6, 160), true);
        check(7, 16, (1, 16), true);
        check(1, 16, (6, 160), false);
        check(2, 16, (6, 160), false);
        check(6, 160, (6, 160), false);
        check(16, 160, (6, 160), false);
        check(20, 160, (6, 160), true);
        // A control without any: two are too many in a small sample, the allowed share in a large one.
        check(1, 16, (0, 160), false);
        check(2, 16, (0, 160), true);
        check(2, 16, (0, 0), true);
        check(2, 200, (0, 160), false);
        check(3, 200, (0, 160), true);
        check(0, 0, (0, 0), false);
        // As bad as a bad control: the control itself is judged elsewhere.
        check(7, 16, (70, 160), false);
    }

    #[test]
    fn evidence_is_ordered() {
        let all = (0..30).map(|i| Evidence::of_request(i, f64::from(i % 3))).collect();
        let kept: Vec<u32> = worst(all).iter().map(|evidence| evidence.prompt_index).collect();
        assert_eq!(kept, [2, 5, 8, 11, 14, 17, 20, 23, 26, 29]);
    }
}
