//! What the reads of one look say of everybody's speed.

use std::collections::BTreeMap;

use super::order::{Contender, comparisons};
use super::score::{
    BaselineNoise, BracketGain, Estimate, ReadLogs, ReadTimes, ScorePolicy, SpeedComparison, decide,
};
use crate::model::{Arm, Component, DecisionOutcome, DecisionRow, Look, SubmissionRow};

/// The times of one measured read, and whose they are: all that speed is decided by.
#[derive(Debug, Clone, Copy)]
pub struct TimedRead<'a> {
    /// Side of the comparison the read is on.
    pub arm: Arm,
    /// Hotkey of the submission; none for the baseline.
    pub hotkey: Option<&'a str>,
    /// The times of the read's requests.
    pub times: ReadTimes<'a>,
}

/// The measured reads of one look, with the logarithms of their times.
#[derive(Debug, Clone)]
pub struct LookReads<'a>(Vec<(TimedRead<'a>, ReadLogs<'a>)>);

impl<'a> LookReads<'a> {
    /// These reads.
    pub fn of(policy: &ScorePolicy, reads: &[TimedRead<'a>]) -> Self {
        Self(reads.iter().map(|read| (*read, ReadLogs::of(policy, &read.times))).collect())
    }

    fn of_arm(&self, arm: Arm, hotkey: Option<&str>) -> Vec<&ReadLogs<'a>> {
        let is_of = |(read, _): &&(TimedRead<'_>, ReadLogs<'_>)| read.arm == arm && read.hotkey == hotkey;
        self.0.iter().filter(is_of).map(|(_, logs)| logs).collect()
    }
}

/// Which look is decided, and by which error probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LookRules {
    /// The look.
    pub look: Look,
    /// One-sided error probability of one comparison.
    pub alpha: f64,
}

impl LookRules {
    /// The first look, where nothing follows: it decides about every place.
    pub fn only(policy: &ScorePolicy, submissions: usize) -> Self {
        Self { look: Look::Measure, alpha: split(policy, submissions) }
    }

    /// The first of two looks: it decides who is measured again.
    pub const fn screen(policy: &ScorePolicy) -> Self {
        Self { look: Look::Measure, alpha: policy.screen_alpha }
    }

    /// The second look: it decides about the places of the finalists. Its reads are fresh, so that what was lucky in the
    /// first look is no luckier here, and the error probability is split over the finalists alone.
    pub fn confirm(policy: &ScorePolicy, finalists: usize) -> Self {
        Self { look: Look::Confirm, alpha: split(policy, finalists) }
    }
}

fn split(policy: &ScorePolicy, submissions: usize) -> f64 {
    policy.alpha / comparisons(submissions).max(1) as f64
}

/// Every submission's speed in one look.
#[derive(Debug, Clone)]
pub struct Speeds<'a> {
    /// The look and its rules.
    pub rules: LookRules,
    /// The noise of the baseline reads.
    pub noise: BaselineNoise,
    /// Every component of every measured submission's speed.
    pub decisions: Vec<DecisionRow>,
    reads: &'a LookReads<'a>,
    estimates: BTreeMap<&'a str, Estimate>,
}

impl<'a> Speeds<'a> {
    /// Decides the speed of every submission that was measured in a look; the baseline reads of earlier looks of the
    /// round tell the noise as well as its own.
    pub fn of(
        policy: &ScorePolicy,
        (round_id, rules): (&str, LookRules),
        submissions: &'a [SubmissionRow],
        (reads, earlier): (&'a LookReads<'a>, Option<&LookReads<'a>>),
    ) -> Self {
        let baseline = reads.of_arm(Arm::Baseline, None);
        let before = earlier.map(|reads| reads.of_arm(Arm::Baseline, None)).unwrap_or_default();
        let noise = BaselineNoise::of(policy, &[&before[..], &baseline].concat());
        let (mut decisions, mut estimates) = (Vec::new(), BTreeMap::new());
        for SubmissionRow { hotkey, .. } in submissions {
            let candidate = reads.of_arm(Arm::Candidate, Some(hotkey));
            if candidate.is_empty() {
                continue;
            }
            let LookRules { look, alpha } = rules;
            let comparison = SpeedComparison {
                round_id,
                hotkey,
                look,
                alpha,
                candidate: &candidate,
                baseline: &baseline,
                noise: &noise,
            };
            let (rows, estimate) = decide(policy, &comparison);
            decisions.extend(rows);
            estimates.extend(estimate.map(|estimate| (hotkey.as_str(), estimate)));
        }
        Self { rules, noise, decisions, reads, estimates }
    }

    /// What was decided about one component of a submission's speed.
    pub fn decision(&self, hotkey: &str, component: Component) -> Option<&DecisionRow> {
        self.decisions.iter().find(|row| row.hotkey == hotkey && row.component == component)
    }

    /// A submission as one that holds a place until somebody is proven faster; none where it looks no faster than the
    /// bar, or is too slow in a component.
    ///
    /// It need not be proven faster than the bar itself, nor decided at all: an original with bad luck still stands
    /// before its copies.
    pub fn contender(&self, policy: &ScorePolicy, submission: &'a SubmissionRow) -> Option<Contender<'a>> {
        let hotkey = submission.hotkey.as_str();
        let estimate = *self.estimates.get(hotkey)?;
        let is_fail = |row: &&DecisionRow| row.outcome == DecisionOutcome::Fail;
        let mut failed = self.decisions.iter().filter(|row| row.hotkey == hotkey).filter(is_fail);
        let has_regressed = failed.any(|row| row.component != Component::Score);
        if has_regressed || estimate.value <= policy.margin.max(0.0).ln_1p() {
            return None;
        }
        let baseline = self.reads.of_arm(Arm::Baseline, None);
        let own = self.reads.of_arm(Arm::Candidate, Some(hotkey));
        let gains = own.iter().filter_map(|read| BracketGain::of(policy, (&baseline, read))).collect();
        Some(Contender { hotkey, block: submission.block, estimate, gains })
    }
}

#[cfg(test)]
impl Speeds<'_> {
    /// Speeds that were decided already: each submission's estimate is its row's, with ten degrees of freedom.
    pub(super) fn decided(rules: LookRules, decisions: &[DecisionRow]) -> Speeds<'_> {
        const NO_READS: &LookReads<'static> = &LookReads(Vec::new());
        let noise = BaselineNoise::of(&ScorePolicy::default(), &[]);
        let estimates = decisions
            .iter()
            .filter(|row| row.component == Component::Score)
            .filter_map(|row| Some((row.hotkey.as_str(), Estimate::of_row(row)?)))
            .collect();
        Speeds { rules, noise, decisions: decisions.to_vec(), reads: NO_READS, estimates }
    }
}
