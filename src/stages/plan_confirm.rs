//! `plan-confirm`: lays out the second look, for those that could still take a paid place.
//!
//! `B F1 F2 B F2 F1 B ..`: all finalists stand in every bracket and answer the same prompts, so that they are compared head to
//! head; the order is drawn from the round's seed and turned from one bracket to the next, so that linear drift cancels. The
//! brackets go on where those of the first look end: nobody has seen their prompts.

use std::collections::BTreeMap;

use super::plan_reads::check_brackets;
use super::ranking::Ranking;
use super::{JobContext, StageError};
use crate::judge::{LookReads, LookRules, Speeds, Standings, finalists_of};
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
    let standings = Standings {
        round_id,
        submissions: &ranking.submissions,
        commitments: &ranking.commitments,
        reads: &ranking.reads,
        verdicts: &ranking.verdicts,
        floors: &floors,
        measure: &measure,
        confirm: None,
    };
    let names = finalists_of((score, rank), &standings);
    let rows: BTreeMap<&str, &SubmissionRow> =
        ranking.submissions.iter().map(|row| (row.hotkey.as_str(), row)).collect();
    let finalists: Vec<Finalist> = names.iter().filter_map(|name| Finalist::of(rows.get(name)?)).collect();
    let asked = parameters.reads.iter().flat_map(|leg| &leg.matrix.read.brackets);
    let first = asked.max().map_or(0, |last| last.saturating_add(1));
    check_brackets((parameters.rounds, 1), first)?;
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
            });
        };
        let mut order: Vec<&Finalist> = finalists.iter().collect();
        for round in 0..self.rounds {
            let bracket = self.first + round;
            if round % 2 == 0 {
                seed.derive(&["plan-confirm", &round.to_string()]).shuffle(&mut order);
            } else {
                order.reverse();
            }
            let before = bracket.checked_sub(1).filter(|_| round > 0);
            push(None, before.into_iter().chain([bracket]).collect());
            for finalist in &order {
                push(Some(finalist), vec![bracket]);
            }
        }
        push(None, vec![self.first + self.rounds - 1]);
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
    fn all_finalists_stand_in_every_bracket_between_two_baselines_and_their_order_turns() {
        assert_eq!(shown(&planned(1, 2, "1")), "-[7] A[7] -[7, 8] A[8] -[8]");
        assert_eq!(shown(&planned(0, 2, "1")), "");
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
    fn keys_are_unique_and_in_the_order_of_measurement() {
        let keys: Vec<String> = planned(3, 3, "1").into_iter().map(|read| read.key).collect();
        assert!(keys.is_sorted() && keys.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(keys[0].starts_with("confirm-0000-"), "{}", keys[0]);
    }
}
