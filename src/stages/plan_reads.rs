//! `plan-reads`: puts the reads of a round in order, baseline reads around each candidate.
//!
//! `B C1 B C2 B ..`: every candidate stands between two fresh launches of the baseline, so drift of the
//! machine shows, and linear drift cancels. The order of the candidates is drawn from the
//! round's seed, so nobody can commit himself into a good position.
//!
//! A candidate and the baselines beside it are a bracket, which has prompts of its own: no candidate is asked what another
//! one, or an earlier launch of its own, was asked. A baseline between two candidates answers the prompts of both.

use super::{JobContext, StageError};
use crate::model::{Arm, Digest, Hotkey, ImageReference, MAX_BRACKETS, ReadSpec, Seed, Submission};
use crate::pipeline::stage::plan_reads::{Baseline, Output, Parameters};

/// Most launches of one candidate; more are a mistake.
const MAX_ROUNDS: u32 = 64;

pub(super) fn run(parameters: &Parameters, context: &JobContext<'_>) -> Result<Output, StageError> {
    let count = parameters.submissions.len();
    let needs = match (&parameters.detect, parameters.rounds) {
        (Some(_), Some(_)) => {
            let why = "`rounds` follows from `detect`: leave one of them out";
            return Err(StageError::Parameter(why.to_owned()));
        }
        (Some(detect), None) => Some(
            detect
                .plan((&parameters.score, &parameters.rank), u32::try_from(count).unwrap_or(u32::MAX))
                .map_err(|none| StageError::Parameter(format!("`detect`: {none}")))?,
        ),
        (None, _) => None,
    };
    let rounds = needs.map_or(parameters.rounds.unwrap_or(1), |needs| needs.measure);
    check_brackets((rounds, count), 0)?;
    let reads = plan(parameters, rounds, &context.round.seed);
    Ok(Output {
        count: reads.len() as u64,
        reads,
        rounds,
        confirm_rounds: needs.map(|needs| needs.confirm),
        prompts: needs.map(|needs| needs.prompts),
    })
}

/// Whether so many brackets of each round may follow those that there are.
pub(super) fn check_brackets((rounds, each): (u32, usize), before: u32) -> Result<(), StageError> {
    if !(1..=MAX_ROUNDS).contains(&rounds) {
        return Err(StageError::Parameter(format!("`rounds` is {rounds}, want 1 to {MAX_ROUNDS}")));
    }
    let brackets = u64::from(before) + u64::from(rounds) * each as u64;
    if brackets > u64::from(MAX_BRACKETS) {
        return Err(StageError::Parameter(format!(
            "the round would have {brackets} brackets, want at most {MAX_BRACKETS}: fewer submissions or `rounds`"
        )));
    }
    Ok(())
}

/// The reads in the order of measurement; none where there is no submission.
fn plan(parameters: &Parameters, rounds: u32, seed: &Seed) -> Vec<ReadSpec> {
    let mut candidates = Vec::new();
    for round in 0..rounds {
        let mut order: Vec<&Submission> = parameters.submissions.iter().collect();
        seed.derive(&["plan-reads", &round.to_string()]).shuffle(&mut order);
        candidates.extend(order.into_iter().map(|Submission { hotkey, image, digest, .. }| Candidate {
            hotkey: Some(hotkey),
            image,
            digest,
            repeats: None,
        }));
    }
    InTurn { baseline: &parameters.baseline, prefix: "", sequence: "0", first: 0 }.plan(&candidates)
}

/// A read of a submission that is to be planned.
pub(super) struct Candidate<'a> {
    pub(super) hotkey: Option<&'a Hotkey>,
    pub(super) image: &'a ImageReference,
    pub(super) digest: &'a Digest,
    /// Key of the read that it is measured for.
    pub(super) repeats: Option<&'a str>,
}

/// Reads of submissions and of the baseline in turn: `B C1 B C2 B ..`.
pub(super) struct InTurn<'a> {
    pub(super) baseline: &'a Baseline,
    /// What the keys of the reads begin with.
    pub(super) prefix: &'a str,
    /// Name of the sequence.
    pub(super) sequence: &'a str,
    /// The first bracket.
    pub(super) first: u32,
}

impl InTurn<'_> {
    /// The reads in the order of measurement; none where there is no candidate.
    pub(super) fn plan(&self, candidates: &[Candidate<'_>]) -> Vec<ReadSpec> {
        let Baseline { image, digest } = self.baseline;
        let count = candidates.len() as u32;
        let read = |position: u32| {
            // Candidates have the odd positions: the bracket of position 2 b + 1 is b.
            let own = position / 2;
            let candidate = candidates.get(own as usize).filter(|_| !position.is_multiple_of(2));
            let (image, digest) = candidate.map_or((image, digest), |own| (own.image, own.digest));
            let hotkey = candidate.and_then(|own| own.hotkey);
            let name = hotkey.map_or("baseline", |hotkey| hotkey.as_str().get(..8).unwrap_or_default());
            let brackets = match candidate {
                Some(_) => vec![own],
                None => own.checked_sub(1).into_iter().chain((own < count).then_some(own)).collect(),
            };
            ReadSpec {
                key: format!("{}{position:04}-{name}", self.prefix),
                arm: if candidate.is_some() { Arm::Candidate } else { Arm::Baseline },
                hotkey: hotkey.cloned(),
                image: image.clone(),
                digest: digest.clone(),
                position,
                sequence: self.sequence.to_owned(),
                brackets: brackets.into_iter().map(|bracket: u32| self.first + bracket).collect(),
                repeats: candidate.and_then(|own| own.repeats).map(ToOwned::to_owned),
            }
        };
        let positions = if candidates.is_empty() { 0 } else { 2 * count + 1 };
        (0..positions).map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{RankPolicy, ScorePolicy};

    fn submission(name: char, block: i64) -> Submission {
        Submission {
            hotkey: format!("5{}", name.to_string().repeat(47)).parse().expect("hotkey"),
            uid: None,
            block,
            image: format!("m/{}", name.to_ascii_lowercase()).parse().expect("image"),
            digest: format!("sha256:{}", "0".repeat(64)).parse().expect("digest"),
        }
    }

    fn check(count: usize, rounds: u32) -> Vec<ReadSpec> {
        drawn(count, rounds, "1")
    }

    fn drawn(count: usize, rounds: u32, seed: &str) -> Vec<ReadSpec> {
        let names = ['A', 'B', 'C', 'D', 'E'];
        let parameters = Parameters {
            submissions: names.iter().take(count).map(|name| submission(*name, 1)).collect(),
            baseline: Baseline {
                image: "base".parse().expect("image"),
                digest: format!("sha256:{}", "1".repeat(64)).parse().expect("digest"),
            },
            rounds: Some(rounds),
            detect: None,
            score: ScorePolicy::default(),
            rank: RankPolicy::default(),
        };
        plan(&parameters, rounds, &Seed::from_text(seed))
    }

    #[test]
    fn every_candidate_stands_between_two_baselines() {
        for (count, rounds) in [(0, 1), (1, 1), (5, 1), (3, 4)] {
            let reads = check(count, rounds);
            let candidates: Vec<usize> = reads
                .iter()
                .enumerate()
                .filter(|(_, read)| read.arm == Arm::Candidate)
                .map(|(i, _)| i)
                .collect();
            assert_eq!(candidates.len(), count * rounds as usize);
            for position in candidates {
                assert_eq!(reads[position - 1].arm, Arm::Baseline);
                assert_eq!(reads[position + 1].arm, Arm::Baseline);
                let [bracket] = reads[position].brackets[..] else { panic!("{:?}", reads[position]) };
                let those: Vec<usize> = reads
                    .iter()
                    .enumerate()
                    .filter(|(_, read)| read.brackets.contains(&bracket))
                    .map(|(i, _)| i)
                    .collect();
                assert_eq!(those, [position - 1, position, position + 1]);
            }
            assert!(reads.iter().all(|read| read.brackets.is_sorted() && !read.brackets.is_empty()));
            let mut keys: Vec<&str> = reads.iter().map(|read| read.key.as_str()).collect();
            keys.dedup();
            assert_eq!(keys.len(), reads.len());
            assert!(keys.is_sorted());
        }
    }

    #[test]
    fn the_order_is_drawn_from_the_seed() {
        let order = |seed: &str| -> Vec<String> {
            let reads = drawn(5, 1, seed);
            reads.into_iter().filter_map(|read| Some(read.hotkey?.to_string())).collect()
        };
        assert_eq!(order("1"), order("1"));
        assert_ne!(order("1"), order("2"));
        let sorted = |seed: &str| {
            let mut hotkeys = order(seed);
            hotkeys.sort();
            hotkeys
        };
        assert_eq!(sorted("1"), sorted("2"), "another order of the same submissions");
    }
}
