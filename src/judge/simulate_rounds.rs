//! Simulated rounds of two looks: how often luck is crowned, how often a copy goes before its original, how often an
//! advantage is seen.
//!
//! `CACHEON_SIMULATIONS` is how many times as many rounds are simulated as in the tests.

use std::collections::BTreeSet;

use super::floor::Floors;
use super::simulate::Dice;
use super::*;
use crate::model::{
    Arm, Check, CheckOutcome, HeadToHeadRow, LeaderboardRow, ReadRow, RequestStatus, RequestTimes, Standing,
    SubmissionRow, VerdictRow, prompt_of_round,
};

/// A machine: how launches of the same image differ on it.
#[derive(Clone, Copy)]
struct Machine {
    /// Standard deviation of ln of the times between launches.
    noise: f64,
    /// Standard deviation of a drift on top, an AR(1) process from read to read.
    drift: f64,
}

/// What of the drift is left from one read to the next.
const PERSISTENCE: f64 = 0.9;
const PROMPTS: u32 = 8;
/// Standard deviation of ln of one prompt's time in a launch.
const PROMPT_NOISE: f64 = 0.01;

/// A round under way on a machine.
struct Bench<'d> {
    machine: Machine,
    drift: f64,
    dice: &'d mut Dice,
}

struct Read {
    number: Option<usize>,
    position: u32,
    requests: Vec<RequestTimes>,
}

impl Bench<'_> {
    fn read(&mut self, speedup: f64, brackets: &[u32]) -> Vec<RequestTimes> {
        let Machine { noise, drift } = self.machine;
        let innovation = drift * (1.0 - PERSISTENCE * PERSISTENCE).sqrt();
        self.drift = PERSISTENCE * self.drift + innovation * self.dice.normal();
        let factor = (noise * self.dice.normal() + self.drift).exp() / speedup;
        let prompts = brackets.iter().flat_map(|bracket| (0..PROMPTS).map(|n| prompt_of_round(*bracket, n)));
        prompts
            .map(|prompt_index| {
                let difficulty = 1.0 + f64::from(prompt_index % 7) / 10.0;
                let time = 2e8 * difficulty * factor * (PROMPT_NOISE * self.dice.normal()).exp();
                RequestTimes {
                    ttft_ns: Some((time / 10.0) as i64),
                    e2e_ns: Some(time as i64),
                    mdt_ns: Some(time / 2.0),
                    prompt_index,
                    status: RequestStatus::Ok,
                    ..RequestTimes::default()
                }
            })
            .collect()
    }

    /// `B C1 B C2 .. B`, the order of the candidates drawn for each launch.
    fn measure(&mut self, speedups: &[f64], launches: u32) -> Vec<Read> {
        let mut order: Vec<usize> = Vec::new();
        for _ in 0..launches {
            let mut numbers: Vec<usize> = (0..speedups.len()).collect();
            for last in (1..numbers.len()).rev() {
                numbers.swap(last, (self.dice.uniform() * (last + 1) as f64) as usize);
            }
            order.extend(numbers);
        }
        let mut reads = Vec::new();
        for (bracket, number) in (0_u32..).zip(order.iter().copied()) {
            let beside: Vec<u32> = [bracket.checked_sub(1), Some(bracket)].into_iter().flatten().collect();
            self.push(&mut reads, (None, 1.0), &beside);
            self.push(&mut reads, (Some(number), speedups[number]), &[bracket]);
        }
        self.push(&mut reads, (None, 1.0), &[order.len() as u32 - 1]);
        reads
    }

    /// `B F1 F2 .. B F2 F1 .. B`: all finalists between each two baselines, each with prompts of its own, which both
    /// baselines answer; the order turned from one to the next.
    fn confirm(&mut self, finalists: &[(usize, f64)], launches: u32, first: u32) -> Vec<Read> {
        let mut reads = Vec::new();
        let mut order = finalists.to_vec();
        let each = finalists.len() as u32;
        for launch in 0..launches {
            let next = first + launch * each;
            let beside: Vec<u32> = (next - if launch == 0 { 0 } else { each }..next + each).collect();
            self.push(&mut reads, (None, 1.0), &beside);
            for (bracket, (number, speedup)) in (next..).zip(&order) {
                self.push(&mut reads, (Some(*number), *speedup), &[bracket]);
            }
            order.reverse();
        }
        let last: Vec<u32> = (first + (launches - 1) * each..first + launches * each).collect();
        self.push(&mut reads, (None, 1.0), &last);
        reads
    }

    fn push(&mut self, reads: &mut Vec<Read>, (number, speedup): (Option<usize>, f64), brackets: &[u32]) {
        let requests = self.read(speedup, brackets);
        reads.push(Read { number, position: reads.len() as u32, requests });
    }
}

fn timed<'a>(reads: &'a [Read], submissions: &'a [SubmissionRow], sequence: &'a str) -> Vec<TimedRead<'a>> {
    let timed = |read: &'a Read| TimedRead {
        arm: if read.number.is_some() { Arm::Candidate } else { Arm::Baseline },
        hotkey: read.number.map(|number| submissions[number].hotkey.as_str()),
        times: ReadTimes { sequence, position: read.position, requests: &read.requests },
    };
    reads.iter().map(timed).collect()
}

struct Rules {
    score: ScorePolicy,
    rank: RankPolicy,
    launches: LaunchPlan,
}

/// The default rules, with the launches that see 5% on a machine of this noise.
fn rules(noise: f64, submissions: usize) -> Rules {
    let (score, rank) = (ScorePolicy::default(), RankPolicy::default());
    let detect = Detect { effect: 0.05, power: 0.9, noise, prompt_noise: PROMPT_NOISE, finalists: 4 };
    let launches = detect.plan((&score, &rank), submissions as u32).expect("a plan");
    Rules { score, rank, launches }
}

/// One round of both looks: the leaderboard and the comparisons it rests on.
fn round(
    rules: &Rules,
    speedups: &[f64],
    (machine, dice): (Machine, &mut Dice),
) -> (Vec<LeaderboardRow>, Vec<HeadToHeadRow>) {
    let names: Vec<SubmissionRow> = (0..speedups.len())
        .map(|number| SubmissionRow {
            hotkey: format!("h{number:02}"),
            block: i64::try_from(number).expect("few"),
            ..SubmissionRow::default()
        })
        .collect();
    let verdict = |row: &SubmissionRow| VerdictRow {
        hotkey: Some(row.hotkey.clone()),
        check: Check::Flips,
        outcome: CheckOutcome::Pass,
        ..VerdictRow::default()
    };
    let verdicts: Vec<VerdictRow> = names.iter().map(verdict).collect();
    let row = |row: &SubmissionRow| ReadRow { hotkey: Some(row.hotkey.clone()), ..ReadRow::default() };
    let rows: Vec<ReadRow> = names.iter().map(row).collect();

    let drift = machine.drift * dice.normal();
    let mut bench = Bench { machine, drift, dice };
    let first = bench.measure(speedups, rules.launches.measure);
    let first = timed(&first, &names, "measure");
    let first = LookReads::of(&rules.score, &first);
    let measure = Speeds::of(&rules.score, ("r", LookRules::screen(&rules.score)), &names, (&first, None));
    let standings = Standings {
        round_id: "r",
        submissions: &names,
        commitments: &[],
        reads: &rows,
        verdicts: &verdicts,
        floors: Floors::NONE,
        measure: &measure,
        confirm: None,
    };
    let finalists: BTreeSet<&str> =
        finalists_of((&rules.score, &rules.rank), &standings).into_iter().collect();
    let again: Vec<(usize, f64)> = (0..speedups.len())
        .filter(|number| finalists.contains(names[*number].hotkey.as_str()))
        .map(|number| (number, speedups[number]))
        .collect();
    let first_bracket = rules.launches.measure * speedups.len() as u32;
    let second = if again.is_empty() {
        Vec::new()
    } else {
        bench.confirm(&again, rules.launches.confirm, first_bracket)
    };
    let second = timed(&second, &names, "confirm");
    let second = LookReads::of(&rules.score, &second);
    let look = LookRules::confirm(&rules.score, finalists.len());
    let speeds = Speeds::of(&rules.score, ("r", look), &names, (&second, Some(&first)));
    let confirm = Some(Confirm { finalists: &finalists, speeds: &speeds });
    leaderboard((&rules.score, &rules.rank), &Standings { confirm, ..standings })
}

fn simulations() -> usize {
    std::env::var("CACHEON_SIMULATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// In how many of so many rounds something happens, said on stdout.
#[expect(clippy::print_stdout, reason = "the figures are for people, who run this with `--nocapture`")]
fn count(
    (about, rounds): (&str, usize),
    (machine, speedups): (Machine, &[f64]),
    happens: impl Fn(&[LeaderboardRow]) -> bool,
) -> (usize, usize) {
    let rules = rules(machine.noise, speedups.len());
    let rounds = rounds * simulations();
    let seen = (0..rounds)
        .filter(|number| {
            let name = format!("{about}{}{}", machine.noise, machine.drift);
            let mut dice = Dice::new(&name, *number);
            happens(&round(&rules, speedups, (machine, &mut dice)).0)
        })
        .count();
    println!(
        "{about}: {} images, noise {}, drift {}, {} + {} launches: {seen} of {rounds}",
        speedups.len(),
        machine.noise,
        machine.drift,
        rules.launches.measure,
        rules.launches.confirm
    );
    (seen, rounds)
}

/// So many that a probability of 1e-3 is not refuted by them at three standard errors.
fn at_most_one_in_a_thousand(rounds: usize) -> usize {
    let expected = rounds as f64 * 1e-3;
    (expected + 3.0 * expected.sqrt()) as usize
}

fn winner(rows: &[LeaderboardRow]) -> Option<&str> {
    rows.iter().find(|row| row.share > 0.0).map(|row| row.hotkey.as_str())
}

const MACHINES: [Machine; 3] = [
    Machine { noise: 0.003, drift: 0.003 },
    Machine { noise: 0.01, drift: 0.01 },
    Machine { noise: 0.02, drift: 0.02 },
];

#[test]
fn images_equal_to_the_baseline_are_not_crowned() {
    let (mut seen, mut rounds) = (0, 0);
    for machine in MACHINES {
        for (images, number) in [(1, 600), (8, 200), (41, 40)] {
            let (crowned, of) = count(("crowned by luck", number), (machine, &vec![1.0; images]), |rows| {
                winner(rows).is_some()
            });
            assert!(crowned <= at_most_one_in_a_thousand(of), "{images} images: {crowned} of {of}");
            (seen, rounds) = (seen + crowned, rounds + of);
        }
    }
    assert!(seen <= at_most_one_in_a_thousand(rounds), "{seen} of {rounds}");
}

#[test]
fn a_copy_does_not_go_before_its_original() {
    let (mut seen, mut rounds) = (0, 0);
    for machine in MACHINES {
        let mut speedups = vec![1.0, 1.0, 1.05, 1.05, 1.05, 1.05, 1.05, 1.05];
        let (wrong, of) = count(("copy before its original", 200), (machine, &speedups), |rows| {
            let place = |name: &str| rows.iter().position(|row| row.hotkey == name);
            rows.iter()
                .take_while(|row| row.standing == Standing::Scored && row.share > 0.0)
                .any(|row| row.hotkey.as_str() > "h02" && place(&row.hotkey) < place("h02"))
        });
        (seen, rounds) = (seen + wrong, rounds + of);
        speedups = vec![1.1; 8];
        let (wrong, of) = count(("later of equals crowned", 100), (machine, &speedups), |rows| {
            winner(rows).is_some_and(|winner| winner != "h00")
        });
        (seen, rounds) = (seen + wrong, rounds + of);
    }
    assert!(seen <= at_most_one_in_a_thousand(rounds), "{seen} of {rounds}");
}

#[test]
fn an_advantage_of_five_percent_is_crowned() {
    for (about, speedups, best) in [
        ("5% alone", vec![1.05], "h00"),
        ("5% before its copies", vec![1.0, 1.0, 1.05, 1.05, 1.05, 1.05, 1.05, 1.05], "h02"),
        ("5% before the holder of the place", vec![1.0, 1.10, 1.0, 1.0, 1.0, 1.155], "h05"),
    ] {
        for drift in [0.0, 0.01] {
            let machine = Machine { noise: 0.01, drift };
            let (crowned, of) = count((about, 100), (machine, &speedups), |rows| winner(rows) == Some(best));
            assert!(crowned as f64 >= 0.9 * of as f64, "{about}: {crowned} of {of}");
        }
    }
}

#[test]
fn a_slower_server_fails_whatever_the_noise() {
    let rules = Rules { launches: LaunchPlan { measure: 1, confirm: 1, prompts: 8 }, ..rules(0.01, 4) };
    let machine = Machine { noise: 0.1, drift: 0.0 };
    let standings = (0..100).flat_map(|number| {
        round(&rules, &[0.6; 4], (machine, &mut Dice::new("slow", number)))
            .0
            .into_iter()
            .map(|row| row.standing)
    });
    let failed = standings.filter(|standing| *standing == Standing::NotFaster).count();
    assert!(failed >= 395, "{failed}");
}
