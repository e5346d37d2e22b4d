//! Is it faster, and is that proven? A candidate's reads against the baseline reads around them.
//!
//! Times enter as ln(baseline / candidate) prompt by prompt, which pairs the prompts' difficulty out; each component is bounded
//! there before they are combined, and a read's value is the 10% trimmed mean over prompts. Prompts are not replicates, launches are: the standard error is at least
//! what two launches of the very same baseline differ by, measured in the same round between consecutive baseline
//! reads. What is published is the lower bound, so that noise pays nobody.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{Component, DecisionOutcome, DecisionRow, Look, RequestStatus, RequestTimes};
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
    /// Probability that a round puts anybody before somebody who is not slower: it is split over all comparisons
    /// that decide about a place.
    pub alpha: f64,
    /// One-sided error probability of passing the first of two looks: it only says who is measured again.
    pub screen_alpha: f64,
    /// The lower bound must exceed ln(1 + margin).
    pub margin: f64,
    /// No component may be proven slower, or look slower, by more than this share.
    pub max_regression: f64,
    /// Largest speed-up or slow-down factor of one component on one prompt that counts: components are bounded before they are
    /// combined, so that an absurd one cannot carry the score alone.
    pub component_cap: f64,
    /// Largest speed-up or slow-down factor of a read that counts: bounds what one broken clock can pay.
    pub cap: f64,
    /// Baseline reads around a candidate may differ by this in ln; beyond it nothing is decided.
    pub max_drift: f64,
    /// Noise of one read (standard deviation of ln) beyond which nothing is decided.
    pub max_noise: f64,
    /// Noise of one read that is assumed at least.
    pub noise_floor: f64,
    /// Share of the floor of the time per answer, 0 to 1, below which a time counts as impossible; 0 lets every time pass.
    pub floor: f64,
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
            alpha: 0.001,
            screen_alpha: 0.025,
            margin: 0.01,
            max_regression: 0.05,
            component_cap: 16.0,
            cap: 4.0,
            max_drift: 0.1,
            max_noise: 0.05,
            noise_floor: 0.002,
            floor: 1.0,
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

/// The logarithms of one request's times.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Logs {
    /// ln of the times to first token, end to end, and of mean delivery; those that a comparison does not weigh are 0.
    times: [f64; 3],
    /// Whether the request failed, so that all of them are the deadline's.
    has_failed: bool,
}

/// A prompt and the logarithms of its times.
type PromptLogs = (u32, Logs);

/// The logarithms of a component's times by prompt, ascending.
type LogTimes = Vec<PromptLogs>;

/// A measured read with the logarithms of its times, which every comparison with it starts from.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadLogs<'a> {
    sequence: &'a str,
    position: u32,
    /// By component: the prompts that it answered.
    answered: [LogTimes; Component::ALL.len()],
    /// By component: all prompts, those that failed at the deadline.
    charged: [LogTimes; Component::ALL.len()],
}

impl<'a> ReadLogs<'a> {
    /// The logarithms of a read's times.
    pub fn of(policy: &ScorePolicy, read: &ReadTimes<'a>) -> Self {
        let deadline = (policy.deadline_ms.max(1) as f64 * 1e6).ln();
        let logs = |on_failure| {
            let mut logs: [LogTimes; Component::ALL.len()] = Default::default();
            for (logs, component) in logs.iter_mut().zip(Component::ALL) {
                *logs = log_times((read.requests, *component), on_failure);
            }
            logs
        };
        Self {
            sequence: read.sequence,
            position: read.position,
            answered: logs(None),
            charged: logs(Some(deadline)),
        }
    }

    /// ln of the times by prompt; only of prompts that it answered.
    fn answered(&self, component: Component) -> &[PromptLogs] {
        &self.answered[component as usize]
    }

    /// ln of the times by prompt, that of a failed one the deadline's.
    fn charged(&self, component: Component) -> &[PromptLogs] {
        &self.charged[component as usize]
    }

    /// Whether both were asked some prompt of the round.
    fn shares_prompts(&self, other: &Self) -> bool {
        // Every request is charged, answered or not.
        let (own, others) = (self.charged(Component::Score), other.charged(Component::Score));
        self.sequence == other.sequence && merged(own, others).next().is_some()
    }
}

/// One submission's reads and all measured baseline reads of a look.
#[derive(Debug, Clone, Copy)]
pub struct SpeedComparison<'a> {
    /// Id of the round.
    pub round_id: &'a str,
    /// Hotkey of the submission.
    pub hotkey: &'a str,
    /// The pass of measuring that the reads are of.
    pub look: Look,
    /// One-sided error probability of a pass.
    pub alpha: f64,
    /// The submission's measured reads.
    pub candidate: &'a [&'a ReadLogs<'a>],
    /// Every measured baseline read: the nearest before and after each candidate read bracket it, all
    /// neighbouring pairs tell the noise.
    pub baseline: &'a [&'a ReadLogs<'a>],
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
pub struct Estimate {
    pub(super) value: f64,
    /// Standard error of the value.
    pub(super) error: f64,
    /// Degrees of freedom of the error.
    pub(super) degrees: f64,
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

#[cfg(test)]
impl Estimate {
    /// The estimate that a row says, with ten degrees of freedom; none where it says none.
    pub(super) fn of_row(row: &DecisionRow) -> Option<Self> {
        let (value, error) = (row.log_ratio?, row.standard_error?);
        Some(Self {
            value,
            error,
            degrees: 10.0,
            lower: row.lower.unwrap_or(value),
            upper: row.upper.unwrap_or(value),
            prompts: 24,
            noise: error,
            drift: 0.0,
            best: value,
        })
    }
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

/// Decides a submission's speed: rows for `ttft`, `e2e`, `mdt` and `score`, in this order, and the estimate of the
/// score.
///
/// The verdict is the score's: first a regression beyond the worst baseline read fails whatever the noise; then
/// drift or noise beyond the policy's bounds leave it undecided; then the component gate; then the bar.
pub fn decide(
    policy: &ScorePolicy,
    comparison: &SpeedComparison<'_>,
) -> (Vec<DecisionRow>, Option<Estimate>) {
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
    let estimate = estimate.ok();
    rows.push(row(comparison, Component::Score, Judged { estimate, bar, outcome, reason }));
    (rows, estimate)
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
        look: Some(comparison.look),
    }
}

/// ln of a component's time by prompt; for a failed request none, or the deadline where one is given.
fn log_times((requests, component): (&[RequestTimes], Component), on_failure: Option<f64>) -> LogTimes {
    let by_prompt: BTreeMap<u32, Logs> = requests
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
            let times = match component {
                Component::Ttft => [ttft?, 0.0, 0.0],
                Component::E2e => [0.0, e2e?, 0.0],
                Component::Mdt => [0.0, 0.0, mdt?],
                Component::Score => [ttft?, e2e?, mdt?],
            };
            Some((request.prompt_index, Logs { times, has_failed: !is_ok }))
        })
        .collect();
    by_prompt.into_iter().collect()
}

/// The values of the prompts that both have.
fn merged(left: &[PromptLogs], right: &[PromptLogs]) -> impl Iterator<Item = (u32, Logs, Logs)> {
    let mut rest = right;
    left.iter().filter_map(move |(prompt, value)| {
        let before = rest.iter().take_while(|(other, _)| other < prompt).count();
        rest = rest.get(before..)?;
        let (other, right) = rest.first()?;
        (other == prompt).then_some((*prompt, *value, *right))
    })
}

/// ln(reference / other) of a component on one prompt: the weighted mean over what it is made of, each bounded first. What a
/// failed request costs is not bounded.
fn log_ratio(policy: &ScorePolicy, component: Component, (reference, other): (Logs, Logs)) -> f64 {
    let ComponentWeights { ttft, e2e, mdt } = policy.weights;
    let weights = match component {
        Component::Ttft => [1.0, 0.0, 0.0],
        Component::E2e => [0.0, 1.0, 0.0],
        Component::Mdt => [0.0, 0.0, 1.0],
        Component::Score => [ttft, e2e, mdt],
    };
    let has_failed = reference.has_failed || other.has_failed;
    let bound = if has_failed { f64::INFINITY } else { policy.component_cap.max(1.0).ln() };
    let ratios = reference.times.iter().zip(other.times).map(|(reference, other)| reference - other);
    let sum: f64 =
        weights.iter().zip(ratios).map(|(weight, ratio)| weight * ratio.clamp(-bound, bound)).sum();
    sum / weights.iter().sum::<f64>()
}

/// Trimmed mean over the prompts both have of ln(`reference` / `other`).
fn difference(
    policy: &ScorePolicy,
    component: Component,
    (reference, other): (&[PromptLogs], &[PromptLogs]),
) -> Option<(TrimmedMean, usize)> {
    let ratios = merged(reference, other).map(|(_, time, other)| log_ratio(policy, component, (time, other)));
    let sample = Sample::new(ratios)?;
    Some((sample.trimmed_mean(policy.trim), sample.len()))
}

/// The noise of a round's baseline reads: the same for every submission, so it is computed once a round.
#[derive(Debug, Clone, PartialEq)]
pub struct BaselineNoise(BTreeMap<Component, Option<(f64, f64)>>);

impl BaselineNoise {
    /// The noise of these reads, all of the round's baseline.
    pub fn of(policy: &ScorePolicy, baseline: &[&ReadLogs<'_>]) -> Self {
        let of = |component: &Component| (*component, noise(policy, baseline, *component));
        Self(Component::ALL.iter().map(of).collect())
    }

    /// Noise of one read and its degrees of freedom; none where neither the reads nor the policy say any.
    pub(super) fn get(&self, component: Component) -> Option<(f64, f64)> {
        self.0.get(&component).copied().flatten()
    }
}

/// Noise of one read and its degrees of freedom, from neighbouring baseline reads.
///
/// Half the mean square of successive differences (von Neumann, Annals of Mathematical Statistics 12, 1941), which
/// a drift of the machine hardly touches; their degrees are [`chain_degrees`].
fn noise(policy: &ScorePolicy, baseline: &[&ReadLogs<'_>], component: Component) -> Option<(f64, f64)> {
    let mut reads = baseline.to_vec();
    reads.sort_by_key(|read| (read.sequence, read.position));
    let squares: Vec<f64> = reads
        .windows(2)
        .filter(|pair| pair[0].sequence == pair[1].sequence)
        .filter_map(|pair| {
            let [first, second] = [pair[0], pair[1]].map(|read| read.answered(component));
            difference(policy, component, (first, second)).map(|(trimmed, _)| trimmed.mean * trimmed.mean)
        })
        .collect();
    let pairs = squares.len() as f64;
    let own_degrees = chain_degrees(pairs);
    let own = if pairs > 0.0 { squares.iter().sum::<f64>() / pairs / 2.0 } else { 0.0 };
    let (pooled, pooled_degrees) =
        policy.pooled_noise.map_or((0.0, 0.0), |s| (s * s, policy.pooled_degrees.max(0.0)));
    let degrees = own_degrees + pooled_degrees;
    (degrees > 0.0).then(|| {
        let variance = (own * own_degrees + pooled * pooled_degrees) / degrees;
        (variance.sqrt().max(policy.noise_floor), degrees)
    })
}

/// Degrees of freedom of a chain of so many differences: 2 m^2 / (3 m - 1).
pub(super) fn chain_degrees(pairs: f64) -> f64 {
    if pairs > 0.0 { 2.0 * pairs * pairs / (3.0 * pairs - 1.0) } else { 0.0 }
}

/// What the baseline reads beside a read took for its prompts.
struct Beside {
    /// Positions of the one before and of the one after; none for one that was not measured or not asked the same.
    positions: [Option<u32>; 2],
    /// Geometric mean of theirs, by prompt; a prompt that one of them failed is left out.
    reference: LogTimes,
    /// |ln(B'/B)|; 0 for one alone.
    drift: f64,
}

impl Beside {
    /// The nearest of these baseline reads on either side that were asked what the read was; none where neither was.
    fn of(
        policy: &ScorePolicy,
        component: Component,
        (baseline, read): (&[&ReadLogs<'_>], &ReadLogs<'_>),
    ) -> Option<Self> {
        let beside = |pick: fn(u32, u32) -> bool| {
            let same = baseline.iter().copied().filter(|other| other.sequence == read.sequence);
            same.filter(move |other| pick(other.position, read.position))
        };
        let before = beside(|other, own| other < own).max_by_key(|other| other.position);
        let after = beside(|other, own| other > own).min_by_key(|other| other.position);
        // Where the next baseline is missing, the one behind it was not asked the same.
        let bracket = [before, after].map(|other| other.filter(|other| other.shares_prompts(read)));
        let positions = bracket.map(|other| other.map(|other| other.position));
        let (reference, drift) = match bracket.map(|other| other.map(|other| other.answered(component))) {
            [None, None] => return None,
            [Some(one), None] | [None, Some(one)] => (one.to_vec(), 0.0),
            // ln of the geometric mean is the mean of the logs.
            [Some(before), Some(after)] => {
                let mean = |(prompt, before, after): (u32, Logs, Logs)| {
                    let mean = |place: usize| f64::midpoint(before.times[place], after.times[place]);
                    (prompt, Logs { times: std::array::from_fn(mean), has_failed: false })
                };
                let reference = merged(before, after).map(mean).collect();
                let drift = difference(policy, component, (before, after));
                (reference, drift.map_or(0.0, |(trimmed, _)| trimmed.mean.abs()))
            }
        };
        Some(Self { positions, reference, drift })
    }

    /// ln(baseline / read) of these times of the read, bounded by the cap.
    fn gain(
        &self,
        policy: &ScorePolicy,
        component: Component,
        own: &[PromptLogs],
    ) -> Result<Gain, NoEstimate> {
        let (trimmed, prompts) =
            difference(policy, component, (&self.reference, own)).ok_or(NoEstimate::FewPrompts(0))?;
        if prompts < policy.min_prompts as usize {
            return Err(NoEstimate::FewPrompts(prompts));
        }
        let cap = policy.cap.max(1.0).ln();
        let within = trimmed.standard_error.unwrap_or(0.0);
        Ok(Gain { value: trimmed.mean.clamp(-cap, cap), within, prompts })
    }
}

/// ln(baseline / read) of one read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Gain {
    pub(super) value: f64,
    /// Standard error of the value, from its prompts.
    pub(super) within: f64,
    prompts: usize,
}

/// What one read gained on the baseline reads beside it, for the comparison with another read beside the same two.
#[derive(Debug, Clone, PartialEq)]
pub struct BracketGain<'a> {
    sequence: &'a str,
    positions: [Option<u32>; 2],
    /// Over all its prompts, those that it failed at the deadline; none where there are too few.
    pub(super) charged: Option<Gain>,
    /// Over the prompts that it answered; none where there are too few.
    pub(super) answered: Option<Gain>,
}

impl<'a> BracketGain<'a> {
    /// The gain in the score of a read, beside these baseline reads; none where none beside it was asked the same.
    pub(super) fn of(
        policy: &ScorePolicy,
        (baseline, read): (&[&ReadLogs<'_>], &ReadLogs<'a>),
    ) -> Option<Self> {
        let component = Component::Score;
        let beside = Beside::of(policy, component, (baseline, read))?;
        let gain = |own: &[PromptLogs]| beside.gain(policy, component, own).ok();
        let (charged, answered) = (gain(read.charged(component)), gain(read.answered(component)));
        Some(Self { sequence: read.sequence, positions: beside.positions, charged, answered })
    }

    /// Whether both were measured beside the very same baseline reads, whose own noise is then in both.
    pub(super) fn is_beside_the_same(&self, other: &Self) -> bool {
        (self.sequence, self.positions) == (other.sequence, other.positions)
    }
}

/// What one candidate read says of the speed.
struct ReadValue {
    gain: Gain,
    drift: f64,
    /// Variance of the comparison in variances of one read: 3/2 between two baseline reads, 2 beside one.
    reads: f64,
}

fn read_value(
    policy: &ScorePolicy,
    comparison: &SpeedComparison<'_>,
    component: Component,
    read: &ReadLogs<'_>,
) -> Result<ReadValue, NoEstimate> {
    let beside = Beside::of(policy, component, (comparison.baseline, read)).ok_or(NoEstimate::NoBracket)?;
    let gain = beside.gain(policy, component, read.charged(component))?;
    let is_between = beside.positions.iter().all(Option::is_some);
    Ok(ReadValue { gain, drift: beside.drift, reads: if is_between { 1.5 } else { 2.0 } })
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
    let values = Sample::new(reads.iter().map(|read| read.gain.value)).ok_or(NoEstimate::NoRead)?;
    let (noise, noise_degrees) = comparison.noise.get(component).ok_or(NoEstimate::NoNoise)?;
    let count = reads.len() as f64;
    let largest = |pick: fn(&ReadValue) -> f64| reads.iter().map(pick).fold(0.0, f64::max);
    let within = reads.iter().map(|read| read.gain.within.powi(2)).sum::<f64>().sqrt() / count;
    let between = values.standard_deviation().map_or(0.0, |deviation| deviation / count.sqrt());
    let launches = noise * (largest(|read| read.reads) / count).sqrt();
    let bracket = largest(|read| read.drift) / 2.0 / count.sqrt();
    let error = within.max(between).max(launches).max(bracket);
    let degrees = count - 1.0 + noise_degrees;
    let quantile = student_t_quantile(1.0 - comparison.alpha, degrees).ok_or(NoEstimate::NoNoise)?;
    let value = values.mean();
    Ok(Estimate {
        value,
        error,
        degrees,
        lower: value - quantile * error,
        upper: value + quantile * error,
        prompts: reads.iter().map(|read| read.gain.prompts).min().unwrap_or(0),
        noise,
        drift: largest(|read| read.drift),
        best: reads.iter().map(|read| read.gain.value + read.drift / 2.0).fold(f64::MIN, f64::max),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn times(prompt_index: u32, times: [f64; 3]) -> RequestTimes {
        RequestTimes {
            prompt_index,
            status: RequestStatus::Ok,
            ttft_ns: Some(times[0] as i64),
            e2e_ns: Some(times[1] as i64),
            mdt_ns: Some(times[2]),
            ..RequestTimes::default()
        }
    }

    /// ln(baseline / candidate) of the score of two reads of 20 prompts, each of which takes these times.
    fn score(policy: &ScorePolicy, baseline: [f64; 3], candidate: [f64; 3]) -> f64 {
        let requests = [baseline, candidate].map(|own| (0..20).map(|n| times(n, own)).collect::<Vec<_>>());
        let logs = requests
            .each_ref()
            .map(|requests| ReadLogs::of(policy, &ReadTimes { sequence: "0", position: 0, requests }));
        let sides = (logs[0].answered(Component::Score), logs[1].charged(Component::Score));
        difference(policy, Component::Score, sides).expect("prompts in common").0.mean
    }

    const HONEST: [f64; 3] = [50e6, 1000e6, 500e6];

    fn of_weights(ttft: f64, e2e: f64, mdt: f64) -> ScorePolicy {
        ScorePolicy { weights: ComponentWeights { ttft, e2e, mdt }, ..ScorePolicy::default() }
    }

    #[test]
    fn one_absurd_component_does_not_carry_the_score() {
        let policy = of_weights(1.0, 1.0, 1.0);
        let bound = policy.component_cap.ln();
        let check = |candidate: [f64; 3], expected: f64| {
            let found = score(&policy, HONEST, candidate);
            assert!((found - expected).abs() < 1e-9, "{candidate:?}: {found}, want {expected}");
        };
        check(HONEST, 0.0);
        check([25e6, 500e6, 250e6], 2.0_f64.ln());
        // A nanosecond to the first token is 50 million times as fast, and counts as the bound.
        check([1.0, 1000e6, 500e6], bound / 3.0);
        // It cannot pay for an answer that is half as fast, where it could before: ln(5e7) / 3 is 5.9.
        check([1.0, 16_000e6, 8000e6], (bound - bound - bound) / 3.0);
        check([50e6, 1000e6, 1e-300], bound / 3.0);
        check([50e6, 1e18, 500e6], -bound / 3.0);
        // No time and no number are no answer: the deadline stands for them.
        let deadline = |time: f64| -(120e9 / time).ln().min(bound) / 3.0;
        check([0.0, 1000e6, 500e6], deadline(HONEST[0]));
        check([50e6, 1000e6, f64::INFINITY], deadline(HONEST[2]));
        check([50e6, 1000e6, f64::NAN], deadline(HONEST[2]));
        // A request that failed costs all of its deadline.
        let failed = [RequestTimes { status: RequestStatus::Timeout, ..times(0, HONEST) }];
        let whole = [times(0, HONEST)];
        let sides = [&whole, &failed]
            .map(|requests| ReadLogs::of(&policy, &ReadTimes { sequence: "0", position: 0, requests }));
        let sides = (sides[0].answered(Component::E2e), sides[1].charged(Component::E2e));
        let cost = difference(&policy, Component::E2e, sides).expect("a prompt").0.mean;
        assert!((cost + 120.0_f64.ln()).abs() < 1e-9, "{cost}");
        let strict = ScorePolicy { component_cap: 2.0, ..policy.clone() };
        assert!((score(&strict, HONEST, [1.0, 1.0, 1e-9]) - 2.0_f64.ln()).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn a_component_changes_the_score_by_no_more_than_its_bound(
            weights in (0.0_f64..1.0, 0.1_f64..1.0, 0.0_f64..1.0),
            honest in (1e6_f64..1e9, 1e7_f64..1e10, 1e6_f64..1e10),
            absurd in prop_oneof![Just(1.0), Just(9e18), 1.0_f64..1e18],
            place in 0_usize..3,
        ) {
            let policy = of_weights(weights.0, weights.1, weights.2);
            let (honest, own) = ([honest.0, honest.1, honest.2], [weights.0, weights.1, weights.2]);
            let mut candidate = honest;
            candidate[place] = absurd;
            let changed = score(&policy, honest, candidate).abs();
            let share = own[place] / own.iter().sum::<f64>();
            prop_assert!(changed <= share * policy.component_cap.ln() + 1e-9, "{}", changed);
        }
    }
}
