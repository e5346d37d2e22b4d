//! Simulated answers: how often honest servers are failed, how often cheats are seen.

use super::*;
use crate::model::{Check, CheckOutcome, RequestFlag, RequestRow, RequestStatus, TokenRow, VerdictRow};

/// SplitMix64 (Steele, Lea & Flood, OOPSLA 2014): the program's own generator is not compiled for millions of draws
/// in the profile of the tests.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(name: &str, number: usize) -> Self {
        Self(
            name.bytes()
                .fold(number as u64, |state, byte| (state << 8 ^ state >> 13).wrapping_add(byte.into())),
        )
    }

    /// Draws a uniform number, above 0 and below 1.
    pub(super) fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        ((mixed >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn is(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// Draws a standard normal number, by Box and Muller.
    pub(super) fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// A server as the scorer sees it.
#[derive(Clone, Copy)]
struct SimulatedServer {
    /// Standard deviation of the difference between claimed and scored log probability, nat.
    residual: f64,
    /// Share of tokens where it does not emit the scorer's first choice.
    flips: f64,
    /// Mean of the margin of such a token, nat; margins are exponential.
    margin: f64,
    /// Share of such tokens at position 0, where it is another.
    first: Option<f64>,
    /// Margin of the end token where answers are cut, nat.
    end_margin: f64,
    /// Length of the answers as a share of the control's; above 1 they are padded.
    length: f64,
    /// Tokens that `usage` claims for each token there is.
    usage: f64,
    /// Share of the requests that fail.
    failed: f64,
    has_logprobs: bool,
    flag: Option<RequestFlag>,
}

/// The embedded reference server against itself: bit-exact but for the text form of floats.
const EXACT: SimulatedServer = SimulatedServer {
    residual: 1e-6,
    flips: 0.0,
    margin: 0.0,
    first: None,
    end_margin: 0.0,
    length: 1.0,
    usage: 1.0,
    failed: 0.0,
    has_logprobs: true,
    flag: None,
};

/// A bf16 engine against a scorer with other kernels, at the noise floors of such pairs.
const BF16: SimulatedServer = SimulatedServer { residual: 0.03, flips: 0.008, margin: 0.08, ..EXACT };

struct Simulated {
    requests: Vec<RequestRow>,
    tokens: Vec<TokenRow>,
}

impl Simulated {
    fn answers(&self) -> Answers<'_> {
        Answers::of([(&self.requests[..], &self.tokens[..])])
    }
}

fn request(prompt_index: u32) -> RequestRow {
    RequestRow {
        prompt_index,
        ttft_ns: Some(20_000_000),
        e2e_ns: Some(200_000_000),
        mdt_ns: Some(110_000_000.0),
        finish_reason: Some("stop".into()),
        ..RequestRow::default()
    }
}

fn serve(server: &SimulatedServer, prompts: u32, dice: &mut Dice) -> Simulated {
    let mut simulated = Simulated { requests: Vec::new(), tokens: Vec::new() };
    for prompt_index in 0..prompts {
        let natural = 40 + prompt_index * 7 % 41;
        let count = (f64::from(natural) * server.length).round() as u32;
        let mut row = request(prompt_index);
        if dice.is(server.failed) {
            row.status = RequestStatus::Truncated;
            simulated.requests.push(row);
            continue;
        }
        for position in 0..=count {
            let is_end = position == count;
            let top = -(-dice.uniform().ln() * 0.05);
            let flips = if position == 0 { server.first.unwrap_or(server.flips) } else { server.flips };
            let margin = match (is_end, position >= natural) {
                (true, _) => server.end_margin,
                (false, true) => 6.0,
                _ if dice.is(flips) => {
                    -dice.uniform().ln()
                        * if position == 0 && server.first.is_some() { 1.5 } else { server.margin }
                }
                _ => 0.0,
            };
            let scorer = top - margin;
            simulated.tokens.push(TokenRow {
                prompt_index,
                position,
                is_end,
                server_logprob: server.has_logprobs.then(|| scorer + server.residual * dice.normal()),
                scorer_logprob: Some(scorer),
                scorer_rank: Some(if margin > 0.0 { 2 } else { 1 }),
                scorer_top_logprob: Some(top),
                ..TokenRow::default()
            });
        }
        row.tokens = count;
        row.logprob_tokens = if server.has_logprobs { count + 1 } else { 0 };
        row.usage_tokens = Some((f64::from(count + 1) * server.usage) as u32);
        row.flags.extend(server.flag);
        simulated.requests.push(row);
    }
    simulated
}

fn judge(control: &Simulated, candidate: &Simulated) -> Vec<VerdictRow> {
    let subject = Subject { round_id: "r", read_key: "k", hotkey: Some("h") };
    judge_answers(&VerifyPolicy::default(), &subject, &control.answers(), &candidate.answers())
}

fn with(verdicts: &[VerdictRow], outcome: CheckOutcome) -> Vec<Check> {
    verdicts.iter().filter(|row| row.outcome == outcome).map(|row| row.check).collect()
}

/// How many of so many evaluations fail this check, or any check where none is given.
fn failures(
    evaluations: usize,
    (control, candidate): (&SimulatedServer, &SimulatedServer),
    prompts: u32,
    check: Option<Check>,
) -> usize {
    (0..evaluations)
        .filter(|number| {
            let mut dice = Dice::new(
                &format!("{}{prompts}{}", check.map_or("", Check::as_str), candidate.residual),
                *number,
            );
            let control = serve(control, prompts, &mut dice);
            let verdicts = judge(&control, &serve(candidate, prompts, &mut dice));
            assert!(with(&verdicts, CheckOutcome::Void).is_empty());
            let failed = with(&verdicts, CheckOutcome::Fail);
            check.map_or(!failed.is_empty(), |check| failed.contains(&check))
        })
        .count()
}

#[test]
fn equal_engines_are_never_failed() {
    for (server, prompts, evaluations) in
        [(EXACT, 24, 1000), (EXACT, 48, 50), (BF16, 24, 300), (BF16, 48, 200)]
    {
        let alarms = failures(evaluations, (&server, &server), prompts, None);
        assert_eq!(alarms, 0, "residual {}, {prompts} prompts", server.residual);
    }
}

#[test]
fn a_bit_exact_control_does_not_condemn_honest_flips() {
    let honest = SimulatedServer { residual: 3e-4, flips: 0.002, margin: 0.02, ..EXACT };
    assert_eq!(failures(200, (&EXACT, &honest), 24, None), 0);
}

#[test]
fn cheats_are_seen() {
    let cases: [(Option<Check>, SimulatedServer, SimulatedServer); 12] = [
        (Some(Check::CommittedLogprobs), EXACT, SimulatedServer { residual: 3e-3, ..EXACT }),
        (Some(Check::CommittedLogprobs), BF16, SimulatedServer { residual: 0.07, ..BF16 }),
        (Some(Check::CommittedLogprobs), EXACT, SimulatedServer { has_logprobs: false, ..EXACT }),
        (Some(Check::HardMargin), EXACT, SimulatedServer { residual: 0.5, flips: 0.3, margin: 1.5, ..EXACT }),
        (Some(Check::Flips), BF16, SimulatedServer { flips: 0.08, margin: 0.6, ..BF16 }),
        (None, EXACT, SimulatedServer { first: Some(0.5), ..EXACT }),
        (Some(Check::EndMargin), EXACT, SimulatedServer { length: 0.8, end_margin: 5.0, ..EXACT }),
        (Some(Check::Length), EXACT, SimulatedServer { length: 0.8, ..EXACT }),
        (Some(Check::HardMargin), EXACT, SimulatedServer { length: 1.2, ..EXACT }),
        (Some(Check::Counts), EXACT, SimulatedServer { usage: 1.3, ..EXACT }),
        (
            Some(Check::Segmentation),
            EXACT,
            SimulatedServer { flag: Some(RequestFlag::NonCanonical), ..EXACT },
        ),
        (Some(Check::TextBytes), EXACT, SimulatedServer { flag: Some(RequestFlag::BytesMismatch), ..EXACT }),
    ];
    for (check, control, cheat) in &cases {
        let seen = failures(60, (control, cheat), 24, *check);
        assert!(seen >= 59, "{check:?}: {seen} of 60");
    }
    assert!(
        failures(60, (&EXACT, &SimulatedServer { failed: 0.5, ..EXACT }), 24, Some(Check::Answered)) >= 59
    );
}

#[test]
fn what_is_missing_on_our_side_is_void() {
    let mut dice = Dice::new("void", 0);
    let (control, mut candidate) = (serve(&EXACT, 24, &mut dice), serve(&EXACT, 24, &mut dice));
    let nothing = Simulated { requests: Vec::new(), tokens: Vec::new() };
    assert_eq!(with(&judge(&nothing, &candidate), CheckOutcome::Void), checks(&judge(&nothing, &candidate)));
    assert_eq!(with(&judge(&control, &nothing), CheckOutcome::Void), checks(&judge(&control, &nothing)));
    for row in &mut candidate.tokens {
        row.scorer_logprob = None;
    }
    let verdicts = judge(&control, &candidate);
    assert_eq!(with(&verdicts, CheckOutcome::Fail), []);
    assert_eq!(with(&verdicts, CheckOutcome::Void).len(), 9);
}

fn checks(verdicts: &[VerdictRow]) -> Vec<Check> {
    verdicts.iter().map(|row| row.check).collect()
}

#[test]
fn every_check_is_made_once() {
    let mut dice = Dice::new("names", 0);
    let served = serve(&EXACT, 24, &mut dice);
    let verdicts = judge(&served, &served);
    let mut made = checks(&verdicts);
    made.sort_unstable();
    assert_eq!(made, Check::ALL);
}

#[test]
fn hostile_numbers_do_no_harm() {
    let mut dice = Dice::new("hostile", 0);
    let control = serve(&EXACT, 24, &mut dice);
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e308, -1e308, 5.0, -0.0] {
        let mut candidate = serve(&EXACT, 24, &mut dice);
        for row in candidate.tokens.iter_mut().step_by(2) {
            row.server_logprob = Some(value);
        }
        let verdicts = judge(&control, &candidate);
        assert!(with(&verdicts, CheckOutcome::Fail).contains(&Check::CommittedLogprobs), "{value}");
        for row in &verdicts {
            assert!(row.value.is_none_or(f64::is_finite) && row.threshold.is_none_or(f64::is_finite));
            assert!(
                serde_json::from_str::<Vec<serde_json::Value>>(&row.evidence)
                    .is_ok_and(|rows| rows.len() <= 10)
            );
        }
    }
}
