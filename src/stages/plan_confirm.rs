//! `plan-confirm`: lays out the second look, for those that could still take a paid place.
//!
//! `B F1 F2 B F2 F1 B ..`: all finalists stand between the same two launches of the baseline, whose noise is in all of them and
//! cancels where they are compared head to head; the order is drawn from the round's seed and turned from one round to the next, so
//! that linear drift cancels too. Each read has a bracket of its own, and the baselines on either side answer those of all: no
//! submission is asked what another one was. The brackets go on where those of the first look end.

use std::collections::BTreeMap;

use super::plan_reads::check_brackets;
use super::ranking::Ranking;
use super::{JobContext, StageError};
use crate::judge::{LookReads, LookRules, Speeds, finalists_of};
use crate::model::{Arm, Digest, Hotkey, ImageReference, ReadSpec, Seed, SubmissionRow};
use crate::pipeline::stage::plan_confirm::{Output, Parameters};
use crate::pipeline::stage::plan_reads::Baseline;

/// Name of the sequence of the second look's reads.
const SEQUENCE: &str = "confirm";

pub(super) fn run(parameters: &Parameters, context: &JobContext<'_>) -> Result<Output, StageError> {
    let Parameters { score, rank, .. } = parameters;
    let ranking =
        Ranking::load(&parameters.commitments, &[(&parameters.reads, Some(&parameters.verdicts))], context)?;
    let round_id = context.round.round_id.as_str();
    let timed = ranking.timed(&parameters.reads);
    let reads = LookReads::of(score, &timed);
    let measure =
        Speeds::of(score, (round_id, LookRules::screen(score)), &ranking.submissions, (&reads, None));
    let floors = ranking.floors(score);
    let standings = ranking.standings(round_id, (&floors, &measure), None);
    let names = finalists_of((score, rank), &standings);
    let rows: BTreeMap<&str, &SubmissionRow> =
        ranking.submissions.iter().map(|row| (row.hotkey.as_str(), row)).collect();
    let finalists: Vec<Finalist> = names.iter().filter_map(|name| Finalist::of(rows.get(name)?)).collect();
    let first = parameters.reads.first_bracket_after();
    check_brackets((parameters.rounds, finalists.len()), first)?;
    let layout = Layout { baseline: &parameters.baseline, rounds: parameters.rounds, first };
    let reads = layout.plan(&finalists, &context.round.seed);
    let finalists = finalists.into_iter().map(|finalist| finalist.hotkey).collect();
    Ok(Output { count: reads.len() as u64, reads, finalists })
}

/// One that is measured again.
#[derive(Debug, Clone)]
struct Finalist {
    hotkey: Hotkey,
    image: ImageReference,
    digest: Digest,
}

impl Finalist {
    /// None for a row that is no submission: what was measured before has these.
    fn of(row: &SubmissionRow) -> Option<Self> {
        Some(Self {
            hotkey: row.hotkey.parse().ok()?,
            image: row.image.parse().ok()?,
            digest: row.digest.parse().ok()?,
        })
    }
}

/// How the second look is laid out.
struct Layout<'a> {
    baseline: &'a Baseline,
    rounds: u32,
    /// The first bracket that nobody was asked before.
    first: u32,
}

impl Layout<'_> {
    /// The reads in the order of measurement; none where there is no finalist.
    fn plan(&self, finalists: &[Finalist], seed: &Seed) -> Vec<ReadSpec> {
        let mut reads: Vec<ReadSpec> = Vec::new();
        if finalists.is_empty() {
            return reads;
        }
        let mut push = |finalist: Option<&Finalist>, brackets: Vec<u32>| {
            let position = reads.len() as u32;
            let name =
                finalist.map_or("baseline", |finalist| finalist.hotkey.as_str().get(..8).unwrap_or_default());
            let (image, digest) = finalist
                .map_or((&self.baseline.image, &self.baseline.digest), |own| (&own.image, &own.digest));
            reads.push(ReadSpec {
                key: format!("{SEQUENCE}-{position:04}-{name}"),
                arm: if finalist.is_some() { Arm::Candidate } else { Arm::Baseline },
                hotkey: finalist.map(|finalist| finalist.hotkey.clone()),
                image: image.clone(),
                digest: digest.clone(),
                position,
                sequence: SEQUENCE.to_owned(),
                brackets,
                repeats: None,
            });
        };
        let mut order: Vec<&Finalist> = finalists.iter().collect();
        let each = finalists.len() as u32;
        // Brackets of a round: one of each finalist, in the order of their numbers.
        let of = |round: u32| (0..each).map(move |place| self.first + round * each + place);
        for round in 0..self.rounds {
            if round % 2 == 0 {
                seed.derive(&["plan-confirm", &round.to_string()]).shuffle(&mut order);
            } else {
                order.reverse();
            }
            let before = round.checked_sub(1).into_iter().flat_map(of);
            push(None, before.chain(of(round)).collect());
            for (finalist, bracket) in order.iter().zip(of(round)) {
                push(Some(finalist), vec![bracket]);
            }
        }
        push(None, of(self.rounds - 1).collect());
        reads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(count: usize, rounds: u32, seed: &str) -> Vec<ReadSpec> {
        let digest = |digit: &str| format!("sha256:{}", digit.repeat(64)).parse::<Digest>().expect("digest");
        let finalists: Vec<Finalist> = ["A", "B", "C"][..count]
            .iter()
            .map(|name| Finalist {
                hotkey: format!("5{}", name.repeat(47)).parse().expect("hotkey"),
                image: "m/image".parse().expect("image"),
                digest: digest("0"),
            })
            .collect();
        let baseline = Baseline { image: "base".parse().expect("image"), digest: digest("1") };
        Layout { baseline: &baseline, rounds, first: 7 }.plan(&finalists, &Seed::from_text(seed))
    }

    fn shown(reads: &[ReadSpec]) -> String {
        let name =
            |read: &ReadSpec| read.hotkey.as_ref().map_or("-", |hotkey| &hotkey.as_str()[1..2]).to_owned();
        reads.iter().map(|read| format!("{}{:?}", name(read), read.brackets)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn all_finalists_stand_between_the_same_baselines_and_their_order_turns() {
        assert_eq!(shown(&planned(1, 2, "1")), "-[7] A[7] -[7, 8] A[8] -[8]");
        assert_eq!(shown(&planned(0, 2, "1")), "");
        let two = shown(&planned(2, 2, "1"));
        let names: Vec<char> = two.chars().filter(|c| "AB".contains(*c)).collect();
        let [one, other] = [names[0], names[1]];
        assert_eq!(two, format!("-[7, 8] {one}[7] {other}[8] -[7, 8, 9, 10] {other}[9] {one}[10] -[9, 10]"));
        let orders: Vec<String> = (0..6).map(|seed| shown(&planned(3, 2, &seed.to_string()))).collect();
        assert!(orders.iter().any(|order| *order != orders[0]), "the order is drawn from the seed");
        for order in orders {
            let names: String = order.chars().filter(|c| "-ABC".contains(*c)).collect();
            let (first, second) = (&names[1..4], &names[5..8]);
            assert_eq!(first.chars().rev().collect::<String>(), second);
            assert_eq!((&names[0..1], &names[4..5], &names[8..]), ("-", "-", "-"));
        }
    }

    #[test]
    fn nobody_is_asked_what_another_was_and_the_baselines_beside_it_are() {
        let reads = planned(3, 4, "1");
        let candidates: Vec<&ReadSpec> = reads.iter().filter(|read| read.arm == Arm::Candidate).collect();
        let asked: Vec<u32> = candidates.iter().flat_map(|read| read.brackets.clone()).collect();
        assert_eq!(asked, (7..19).collect::<Vec<_>>());
        for read in candidates {
            let beside = |arm: &&&ReadSpec| arm.arm == Arm::Baseline;
            let before =
                reads[..read.position as usize].iter().rev().find(|read| beside(&read)).expect("before");
            let after = reads[read.position as usize..].iter().find(|read| beside(&read)).expect("after");
            assert!([before, after].iter().all(|other| other.brackets.contains(&read.brackets[0])));
        }
    }

    #[test]
    fn keys_are_unique_and_in_the_order_of_measurement() {
        let keys: Vec<String> = planned(3, 3, "1").into_iter().map(|read| read.key).collect();
        assert!(keys.is_sorted() && keys.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(keys[0].starts_with("confirm-0000-"), "{}", keys[0]);
    }
}
