//! Is it faster, and is that proven? A candidate's reads against the baseline reads around them.
//!
//! Times enter as ln(baseline / candidate) prompt by prompt, which pairs the prompts' difficulty out; a read's value
//! is the 10% trimmed mean over prompts. Prompts are not replicates, launches are: the standard error is at least
//! what two launches of the very same baseline differ by, measured in the same round between consecutive baseline
//! reads. What is published is the lower bound, so that noise pays nobody.
//!
//! Not here yet: several looks with split alpha, replaced brackets, head to head with the incumbent.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{Component, DecisionOutcome, DecisionRow, RequestStatus, RequestTimes};
use crate::stats::{Sample, TrimmedMean, student_t_quantile};

/// How the speed of a submission is judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ScorePolicy {
    /// What the components weigh in the score; only their ratio matters. The default counts the end-to-end time
    /// alone, since it holds the time to first token already and cannot be bought with it; the gate below
    /// protects the others.
    pub weights: ComponentWeights,
    /// What a failed request counts as, milliseconds: the request's deadline.
    pub deadline_ms: u64,
    /// Share of prompts trimmed at each end, 0 to below 0.5.
    pub trim: f64,
    /// Fewest prompts on which a read is compared.
    pub min_prompts: u32,
    /// One-sided error probability of a pass.
    pub alpha: f64,
    /// The lower bound must exceed ln(1 + margin).
    pub margin: f64,
    /// No component may be proven slower, or look slower, by more than this share.
    pub max_regression: f64,
    /// Largest speed-up or slow-down factor that counts: bounds what one broken clock can pay.
    pub cap: f64,
    /// Baseline reads around a candidate may differ by this in ln; beyond it nothing is decided.
    pub max_drift: f64,
    /// Noise of one read (standard deviation of ln) beyond which nothing is decided.
    pub max_noise: f64,
    /// Noise of one read that is assumed at least.
    pub noise_floor: f64,
    /// Noise of one read from earlier calibration of this kind of machine.
    pub pooled_noise: Option<f64>,
    /// Degrees of freedom of that calibration.
    pub pooled_degrees: f64,
}

/// Weight of each component in the score; only their ratio matters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ComponentWeights {
    /// Weight of the time to first token.
    pub ttft: f64,
    /// Weight of the end-to-end time.
    pub e2e: f64,
    /// Weight of the mean delivery time.
    pub mdt: f64,
}

impl Default for ComponentWeights {
    fn default() -> Self {
        Self { ttft: 0.0, e2e: 1.0, mdt: 0.0 }
    }
}

impl Default for ScorePolicy {
    fn default() -> Self {
        Self {
            weights: ComponentWeights::default(),
            deadline_ms: 120_000,
            trim: 0.1,
            min_prompts: 8,
            alpha: 0.025,
            margin: 0.0,
            max_regression: 0.05,
            cap: 4.0,
            max_drift: 0.1,
            max_noise: 0.05,
            noise_floor: 0.002,
            pooled_noise: None,
            pooled_degrees: 0.0,
        }
    }
}

/// The requests of one measured read, and its position among the others.
#[derive(Debug, Clone, Copy)]
pub struct ReadTimes<'a> {
    /// Name of the sequence; only reads of one sequence are compared.
    pub sequence: &'a str,
    /// Position in the order of measurement, from 0.
    pub position: u32,
    /// The times of the read's requests.
    pub requests: &'a [RequestTimes],
}

/// One submission's reads and all measured baseline reads of the round.
#[derive(Debug, Clone, Copy)]
pub struct SpeedComparison<'a> {
    /// Id of the round.
    pub round_id: &'a str,
    /// Hotkey of the submission.
    pub hotkey: &'a str,
    /// The submission's measured reads.
    pub candidate: &'a [ReadTimes<'a>],
    /// Every measured baseline read: the nearest before and after each candidate read bracket it, all
    /// neighbouring pairs tell the noise.
    pub baseline: &'a [ReadTimes<'a>],
    /// The noise of these baseline reads.
    pub noise: &'a BaselineNoise,
}

/// The words for a component in a sentence.
const fn words(component: Component) -> &'static str {
    match component {
        Component::Ttft => "time to first token",
        Component::E2e => "end-to-end time",
        Component::Mdt => "mean delivery time",
        Component::Score => "score",
    }
}

/// An estimate of ln(baseline / candidate).
#[derive(Debug, Clone, Copy, PartialEq)]
struct Estimate {
    value: f64,
    error: f64,
    lower: f64,
    upper: f64,
    prompts: usize,
    /// Noise of one read: the standard deviation of ln of its times.
    noise: f64,
    /// Largest |ln(B'/B)| of the brackets used.
    drift: f64,
    /// ln(baseline / candidate) of the best read against the slower of its own baseline reads.
    best: f64,
}

/// Why there is no estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum NoEstimate {
    #[error("no read of this submission was measured")]
    NoRead,
    #[error("no baseline read next to this submission's was measured")]
    NoBracket,
    #[error("only {0} prompts were answered by the baseline reads around it")]
    FewPrompts(usize),
    #[error("there are too few baseline reads to tell this machine's noise")]
    NoNoise,
}

/// Decides a submission's speed: rows for `ttft`, `e2e`, `mdt` and `score`, in this order.
///
/// The verdict is the score's: first a regression beyond the worst baseline read fails whatever the noise; then
/// drift or noise beyond the policy's bounds leave it undecided; then the component gate; then the bar.
pub fn decide(policy: &ScorePolicy, comparison: &SpeedComparison<'_>) -> Vec<DecisionRow> {
    let gate = -(1.0 + policy.max_regression.max(0.0)).ln();
    let bar = (1.0 + policy.margin.max(0.0)).ln();
    let mut rows = Vec::new();
    let mut gates = Vec::new();
    for component in [Component::Ttft, Component::E2e, Component::Mdt] {
        let estimate = estimate(policy, comparison, component);
        let (outcome, reason) = match &estimate {
            Ok(estimate) => judge_component(component, estimate, gate),
            Err(none) => (DecisionOutcome::NoDecision, none.to_string()),
        };
        gates.push((outcome, reason.clone()));
        rows.push(row(comparison, component, Judged { estimate: estimate.ok(), bar: gate, outcome, reason }));
    }
    let estimate = estimate(policy, comparison, Component::Score);
    let (outcome, reason) = match &estimate {
        Ok(estimate) => judge_score(policy, estimate, &gates),
        Err(none) => (DecisionOutcome::NoDecision, none.to_string()),
    };
    rows.push(row(comparison, Component::Score, Judged { estimate: estimate.ok(), bar, outcome, reason }));
    rows
}

fn judge_component(component: Component, estimate: &Estimate, gate: f64) -> (DecisionOutcome, String) {
    let what = format!(
        "{}: {:.3} times as fast as the baseline ({:.3} to {:.3})",
        words(component),
        estimate.value.exp(),
        estimate.lower.exp(),
        estimate.upper.exp()
    );
    if estimate.lower > gate {
        (DecisionOutcome::Pass, what)
    } else if estimate.value <= gate {
        (DecisionOutcome::Fail, format!("{what}, below the least allowed {:.3}", gate.exp()))
    } else {
        (DecisionOutcome::NoDecision, format!("{what}; a fall below {:.3} cannot be excluded", gate.exp()))
    }
}

fn judge_score(
    policy: &ScorePolicy,
    estimate: &Estimate,
    gates: &[(DecisionOutcome, String)],
) -> (DecisionOutcome, String) {
    let gate = -(1.0 + policy.max_regression.max(0.0)).ln();
    let bar = (1.0 + policy.margin.max(0.0)).ln();
    let speed = format!("{:.3} times as fast as the baseline", estimate.value.exp());
    if estimate.best < gate {
        return (
            DecisionOutcome::Fail,
            format!("{speed}: slower even than the slowest baseline read beside it"),
        );
    }
    if estimate.drift > policy.max_drift {
        let drift = (estimate.drift.exp() - 1.0) * 100.0;
        return (
            DecisionOutcome::NoDecision,
            format!("the baseline reads around it differ by {drift:.1}%: this machine was not steady"),
        );
    }
    if estimate.noise > policy.max_noise {
        let noise = estimate.noise * 100.0;
        return (
            DecisionOutcome::NoDecision,
            format!(
                "launches of the same baseline differ by {noise:.1}% (standard deviation): too noisy to decide"
            ),
        );
    }
    if let Some((_, reason)) = gates.iter().find(|(outcome, _)| *outcome == DecisionOutcome::Fail) {
        return (DecisionOutcome::Fail, reason.clone());
    }
    if estimate.lower <= bar {
        let words = if estimate.upper < bar { "proven not to reach" } else { "not proven to exceed" };
        return (
            DecisionOutcome::Fail,
            format!("{speed} (at least {:.3}), {words} the bar of {:.3}", estimate.lower.exp(), bar.exp()),
        );
    }
    if let Some((_, reason)) = gates.iter().find(|(outcome, _)| *outcome == DecisionOutcome::NoDecision) {
        return (DecisionOutcome::NoDecision, reason.clone());
    }
    (DecisionOutcome::Pass, format!("{speed}, at least {:.3}", estimate.lower.exp()))
}

struct Judged {
    estimate: Option<Estimate>,
    bar: f64,
    outcome: DecisionOutcome,
    reason: String,
}

fn row(comparison: &SpeedComparison<'_>, component: Component, judged: Judged) -> DecisionRow {
    let number =
        |pick: fn(&Estimate) -> f64| judged.estimate.as_ref().map(pick).filter(|value| value.is_finite());
    DecisionRow {
        round_id: comparison.round_id.to_owned(),
        hotkey: comparison.hotkey.to_owned(),
        component,
        log_ratio: number(|estimate| estimate.value),
        standard_error: number(|estimate| estimate.error),
        lower: number(|estimate| estimate.lower),
        upper: number(|estimate| estimate.upper),
        bar: judged.bar,
        prompts: judged.estimate.map_or(0, |estimate| estimate.prompts as u32),
        outcome: judged.outcome,
        reason: judged.reason,
    }
}

/// ln of a component's time by prompt; for a failed request none, or the deadline where one is given.
type LogTimes = BTreeMap<u32, f64>;

fn log_times(
    policy: &ScorePolicy,
    read: &ReadTimes<'_>,
    component: Component,
    on_failure: Option<f64>,
) -> LogTimes {
    let weights = policy.weights;
    let total = weights.ttft + weights.e2e + weights.mdt;
    read.requests
        .iter()
        .filter_map(|request| {
            let is_ok = request.status == RequestStatus::Ok;
            let ln = |time: Option<f64>| match time.filter(|time| is_ok && *time > 0.0 && time.is_finite()) {
                Some(time) => Some(time.ln()),
                None => on_failure,
            };
            let ttft = ln(request.ttft_ns.map(|time| time as f64));
            let e2e = ln(request.e2e_ns.map(|time| time as f64));
            let mdt = ln(request.mdt_ns);
            let value = match component {
                Component::Ttft => ttft?,
                Component::E2e => e2e?,
                Component::Mdt => mdt?,
                Component::Score => (weights.ttft * ttft? + weights.e2e * e2e? + weights.mdt * mdt?) / total,
            };
            Some((request.prompt_index, value))
        })
        .collect()
}

/// Trimmed mean over the prompts both have of `reference` - `other`.
fn difference(policy: &ScorePolicy, reference: &LogTimes, other: &LogTimes) -> Option<(TrimmedMean, usize)> {
    let sample = Sample::new(reference.iter().filter_map(|(prompt, time)| Some(time - other.get(prompt)?)))?;
    Some((sample.trimmed_mean(policy.trim), sample.len()))
}

/// The noise of a round's baseline reads: the same for every submission, so it is computed once a round.
#[derive(Debug, Clone, PartialEq)]
pub struct BaselineNoise(BTreeMap<Component, Option<(f64, f64)>>);

impl BaselineNoise {
    /// The noise of these reads, all of the round's baseline.
    pub fn of(policy: &ScorePolicy, baseline: &[ReadTimes<'_>]) -> Self {
        let of = |component: &Component| (*component, noise(policy, baseline, *component));
        Self(Component::ALL.iter().map(of).collect())
    }

    /// Noise of one read and its degrees of freedom; none where neither the reads nor the policy say any.
    fn get(&self, component: Component) -> Option<(f64, f64)> {
        self.0.get(&component).copied().flatten()
    }
}

/// Noise of one read and its degrees of freedom, from neighbouring baseline reads.
///
/// Half the mean square of successive differences (von Neumann, Annals of Mathematical Statistics 12, 1941), which
/// a drift of the machine hardly touches; m differences of a chain carry 2 m^2 / (3 m - 1) degrees.
fn noise(policy: &ScorePolicy, baseline: &[ReadTimes<'_>], component: Component) -> Option<(f64, f64)> {
    let mut reads: Vec<&ReadTimes<'_>> = baseline.iter().collect();
    reads.sort_by_key(|read| (read.sequence, read.position));
    let squares: Vec<f64> = reads
        .windows(2)
        .filter(|pair| pair[0].sequence == pair[1].sequence)
        .filter_map(|pair| {
            let [first, second] = [pair[0], pair[1]].map(|read| log_times(policy, read, component, None));
            difference(policy, &first, &second).map(|(trimmed, _)| trimmed.mean * trimmed.mean)
        })
        .collect();
    let pairs = squares.len() as f64;
    let own_degrees = if pairs > 0.0 { 2.0 * pairs * pairs / (3.0 * pairs - 1.0) } else { 0.0 };
    let own = if pairs > 0.0 { squares.iter().sum::<f64>() / pairs / 2.0 } else { 0.0 };
    let (pooled, pooled_degrees) =
        policy.pooled_noise.map_or((0.0, 0.0), |s| (s * s, policy.pooled_degrees.max(0.0)));
    let degrees = own_degrees + pooled_degrees;
    (degrees > 0.0).then(|| {
        let variance = (own * own_degrees + pooled * pooled_degrees) / degrees;
        (variance.sqrt().max(policy.noise_floor), degrees)
    })
}

/// What one candidate read says of the speed.
struct ReadValue {
    value: f64,
    within: f64,
    prompts: usize,
    drift: f64,
    /// Variance of the comparison in variances of one read: 3/2 between two baseline reads, 2 beside one.
    reads: f64,
}

fn read_value(
    policy: &ScorePolicy,
    comparison: &SpeedComparison<'_>,
    component: Component,
    read: &ReadTimes<'_>,
) -> Result<ReadValue, NoEstimate> {
    let beside = |pick: fn(u32, u32) -> bool| {
        let same = comparison.baseline.iter().filter(|other| other.sequence == read.sequence);
        same.filter(move |other| pick(other.position, read.position))
    };
    let before = beside(|other, own| other < own).max_by_key(|other| other.position);
    let after = beside(|other, own| other > own).min_by_key(|other| other.position);
    // Only a read that was asked the same can be compared; where the next baseline is missing, the one behind it was not.
    let asked: BTreeSet<u32> = read.requests.iter().map(|request| request.prompt_index).collect();
    let is_of_bracket =
        |other: &&ReadTimes<'_>| other.requests.iter().any(|request| asked.contains(&request.prompt_index));
    let bracket: Vec<LogTimes> = [before, after]
        .into_iter()
        .flatten()
        .filter(is_of_bracket)
        .map(|read| log_times(policy, read, component, None))
        .collect();
    // ln of the geometric mean is the mean of the logs; a prompt that one of them failed is left out.
    let (reference, drift) = match &bracket[..] {
        [] => return Err(NoEstimate::NoBracket),
        [one] => (one.clone(), 0.0),
        [before, after, ..] => {
            let mean =
                |(prompt, time): (&u32, &f64)| Some((*prompt, f64::midpoint(*time, *after.get(prompt)?)));
            let reference = before.iter().filter_map(mean).collect();
            (reference, difference(policy, before, after).map_or(0.0, |(trimmed, _)| trimmed.mean.abs()))
        }
    };
    let deadline = (policy.deadline_ms.max(1) as f64 * 1e6).ln();
    let own = log_times(policy, read, component, Some(deadline));
    let (trimmed, prompts) = difference(policy, &reference, &own).ok_or(NoEstimate::FewPrompts(0))?;
    if prompts < policy.min_prompts as usize {
        return Err(NoEstimate::FewPrompts(prompts));
    }
    let cap = policy.cap.max(1.0).ln();
    Ok(ReadValue {
        value: trimmed.mean.clamp(-cap, cap),
        within: trimmed.standard_error.unwrap_or(0.0),
        prompts,
        drift,
        reads: if bracket.len() > 1 { 1.5 } else { 2.0 },
    })
}

/// The estimate of one component: the mean over reads, with the largest of the errors that its prompts, its reads,
/// its own brackets and the round's noise each suggest.
fn estimate(
    policy: &ScorePolicy,
    comparison: &SpeedComparison<'_>,
    component: Component,
) -> Result<Estimate, NoEstimate> {
    let reads: Vec<ReadValue> = comparison
        .candidate
        .iter()
        .map(|read| read_value(policy, comparison, component, read))
        .collect::<Result<_, _>>()?;
    let values = Sample::new(reads.iter().map(|read| read.value)).ok_or(NoEstimate::NoRead)?;
    let (noise, noise_degrees) = comparison.noise.get(component).ok_or(NoEstimate::NoNoise)?;
    let count = reads.len() as f64;
    let largest = |pick: fn(&ReadValue) -> f64| reads.iter().map(pick).fold(0.0, f64::max);
    let within = reads.iter().map(|read| read.within * read.within).sum::<f64>().sqrt() / count;
    let between = values.standard_deviation().map_or(0.0, |deviation| deviation / count.sqrt());
    let launches = noise * (largest(|read| read.reads) / count).sqrt();
    let bracket = largest(|read| read.drift) / 2.0 / count.sqrt();
    let error = within.max(between).max(launches).max(bracket);
    let quantile =
        student_t_quantile(1.0 - policy.alpha, count - 1.0 + noise_degrees).ok_or(NoEstimate::NoNoise)?;
    let value = values.mean();
    Ok(Estimate {
        value,
        error,
        lower: value - quantile * error,
        upper: value + quantile * error,
        prompts: reads.iter().map(|read| read.prompts).min().unwrap_or(0),
        noise,
        drift: largest(|read| read.drift),
        best: reads.iter().map(|read| read.value + read.drift / 2.0).fold(f64::MIN, f64::max),
    })
}
