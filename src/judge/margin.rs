//! How the scorer would have answered at the same position: hard misses, flips, mean margin, ends.
//!
//! The margin of a token is the scorer's log probability of its own first choice minus that of the token that
//! was emitted, in nat: 0 where they agree, some hundredths where honest kernels differ, large where another
//! model spoke. Text tokens and ends are judged apart. An end is the end token of an answer that ends by itself, or the place
//! where an answer was cut before the limit that its request asked for: no model ends there, so however a server shortens
//! its answers, they are counted together.

use super::answers::Answers;
use super::finding::{Count, Evidence, Finding, clustered_mean, excess_probability, null_error, worst};
use super::thresholds::VerifyPolicy;
use crate::model::{Check, CheckOutcome, TokenRow};
use crate::stats::binomial_upper_tail;

/// Margins are cut at this value, in nat: beyond it nothing more is learnt, and sums stay finite.
const LARGEST: f64 = 100.0;

/// Share of tokens that the scorer must have scored; less is a failure of the scorer.
const COVERAGE: f64 = 0.99;

/// A token with its margin.
#[derive(Clone, Copy)]
struct Scored<'a> {
    row: &'a TokenRow,
    margin: f64,
}

/// Margin of a token in nat, 0 to [`LARGEST`]; none where the scorer has not said enough.
fn margin(row: &TokenRow) -> Option<f64> {
    let emitted = row.scorer_logprob.filter(|value| !value.is_nan())?;
    match row.scorer_top_logprob {
        Some(top) if top.is_finite() => Some((top - emitted).clamp(0.0, LARGEST)),
        _ => (row.scorer_rank == Some(1)).then_some(0.0),
    }
}

fn scored<'a>(answers: &Answers<'a>) -> Option<Vec<Scored<'a>>> {
    // An answer that the scorer refused speaks against the server elsewhere, and takes nothing from the others.
    let asked = || answers.tokens().filter(|row| !row.is_refused());
    let scored: Vec<Scored<'a>> =
        asked().filter_map(|row| margin(row).map(|margin| Scored { row, margin })).collect();
    (!scored.is_empty() && scored.len() as f64 >= COVERAGE * asked().count() as f64).then_some(scored)
}

/// One kind of tokens, and the checks that are made of it.
struct Stratum {
    hard: Check,
    flips: Check,
    mean: Option<Check>,
    what: &'static str,
    contains: fn(&TokenRow) -> bool,
    hard_margin: fn(&VerifyPolicy) -> f64,
    is_independent: bool,
    /// Whether an answer that was cut before its limit counts as one more, of the largest margin.
    has_cuts: bool,
}

const STRATA: [Stratum; 3] = [
    Stratum {
        hard: Check::HardMargin,
        flips: Check::Flips,
        mean: Some(Check::MeanMargin),
        what: "tokens",
        contains: |row| !row.is_end,
        hard_margin: |policy| policy.hard_margin,
        is_independent: false,
        has_cuts: false,
    },
    Stratum {
        hard: Check::FirstHardMargin,
        flips: Check::FirstFlips,
        mean: Some(Check::FirstMeanMargin),
        what: "first tokens",
        contains: |row| !row.is_end && row.position == 0,
        hard_margin: |policy| policy.hard_margin,
        is_independent: true,
        has_cuts: false,
    },
    Stratum {
        hard: Check::EndMargin,
        flips: Check::EndFlips,
        mean: None,
        what: "ends of answers",
        contains: |row| row.is_end,
        hard_margin: |policy| policy.end_margin,
        is_independent: true,
        has_cuts: true,
    },
];

impl Stratum {
    /// The margins of its tokens and cuts, each with whether it is a hard miss.
    fn margins(
        &self,
        policy: &VerifyPolicy,
        (scored, answers): (&[Scored<'_>], &Answers<'_>),
    ) -> Vec<(f64, bool)> {
        let tokens = scored.iter().filter(|token| (self.contains)(token.row));
        let cut = answers.cut(policy).filter(|_| self.has_cuts).map(|_| (LARGEST, true));
        tokens.map(|token| (token.margin, is_hard(policy, self, token))).chain(cut).collect()
    }

    /// The worst of its tokens and cuts.
    fn worst(
        &self,
        policy: &VerifyPolicy,
        (scored, answers): (&[Scored<'_>], &Answers<'_>),
    ) -> Vec<Evidence> {
        let missed = scored.iter().filter(|token| (self.contains)(token.row) && token.margin > 0.0);
        let cut = answers.cut(policy).filter(|_| self.has_cuts);
        let cut = cut.map(|row| Evidence::of_request(row.prompt_index, LARGEST));
        worst(missed.map(|token| Evidence::of_token(token.row, token.margin)).chain(cut).collect())
    }
}

pub(super) fn findings(
    policy: &VerifyPolicy,
    control: &Answers<'_>,
    candidate: &Answers<'_>,
) -> Vec<Finding> {
    let (theirs, ours) = (scored(control), scored(candidate));
    let mut findings = Vec::new();
    for stratum in &STRATA {
        let checks = [Some(stratum.hard), Some(stratum.flips), stratum.mean];
        let (Some(theirs), Some(ours)) = (&theirs, &ours) else {
            let side = if theirs.is_none() { "the baseline's" } else { "these" };
            let reason = format!("the scorer has no log probabilities for {side} answers");
            findings.extend(checks.into_iter().flatten().map(|check| Finding::void(check, reason.clone())));
            continue;
        };
        let sides = Sides {
            theirs: stratum.margins(policy, (theirs, control)),
            ours: stratum.margins(policy, (ours, candidate)),
        };
        let evidence = || stratum.worst(policy, (ours, candidate));
        findings.push(Finding { worst: evidence(), ..hard(policy, stratum, &sides) });
        findings.push(Finding { worst: evidence(), ..flips(policy, stratum, &sides) });
        if let Some(check) = stratum.mean {
            let clusters = Answers::clusters(
                theirs
                    .iter()
                    .filter(|token| (stratum.contains)(token.row))
                    .map(|token| (token.row, token.margin.min(1.0))),
            );
            findings.push(Finding { worst: evidence(), ..mean(policy, check, &sides, &clusters) });
        }
    }
    findings
}

/// What the checks find of a control beside which nothing is known: hard misses and flips against the shares that the policy
/// allows to any server; nothing where the scorer has not said enough.
pub(super) fn alone(policy: &VerifyPolicy, answers: &Answers<'_>) -> Vec<Finding> {
    let Some(scored) = scored(answers) else { return Vec::new() };
    let made = |stratum: &Stratum| {
        let sides = Sides { theirs: Vec::new(), ours: stratum.margins(policy, (&scored, answers)) };
        let worst = stratum.worst(policy, (&scored, answers));
        [hard(policy, stratum, &sides), flips(policy, stratum, &sides)]
            .map(|finding| Finding { worst: worst.clone(), ..finding })
    };
    STRATA.iter().flat_map(made).collect()
}

fn is_hard(policy: &VerifyPolicy, stratum: &Stratum, token: &Scored<'_>) -> bool {
    token.margin > (stratum.hard_margin)(policy)
        || token.row.scorer_rank.is_some_and(|rank| rank > policy.hard_rank)
}

/// The margins of a stratum on both sides, each with whether it is a hard miss.
struct Sides {
    theirs: Vec<(f64, bool)>,
    ours: Vec<(f64, bool)>,
}

impl Sides {
    fn count(side: &[(f64, bool)], is_hit: impl Fn(&(f64, bool)) -> bool) -> Count {
        Count { hits: side.iter().filter(|token| is_hit(token)).count(), of: side.len() }
    }
}

fn hard(policy: &VerifyPolicy, stratum: &Stratum, sides: &Sides) -> Finding {
    let ours = Sides::count(&sides.ours, |token| token.1);
    let theirs = Sides::count(&sides.theirs, |token| token.1);
    let share = 3.0 * policy.hard_share.max(theirs.share());
    let probability = binomial_upper_tail(ours.hits as u64, ours.of as u64, share.min(1.0));
    let is_fail = probability < policy.hard_level;
    Finding {
        check: stratum.hard,
        outcome: if is_fail { CheckOutcome::Fail } else { CheckOutcome::Pass },
        value: Some(ours.share()),
        control: Some(theirs.share()),
        threshold: Some(share),
        samples: ours.of,
        reason: format!(
            "{} of {} {} are more than {} nat below the model's own choice or below rank {} (baseline {} of {}); \
             chance of so many in honest answers {probability:.1e}",
            ours.hits,
            ours.of,
            stratum.what,
            (stratum.hard_margin)(policy),
            policy.hard_rank,
            theirs.hits,
            theirs.of
        ),
        worst: Vec::new(),
    }
}

fn flips(policy: &VerifyPolicy, stratum: &Stratum, sides: &Sides) -> Finding {
    let ours = Sides::count(&sides.ours, |token| token.0 > policy.flip_margin);
    let theirs = Sides::count(&sides.theirs, |token| token.0 > policy.flip_margin);
    let design = if stratum.is_independent { 1.0 } else { policy.design_effect };
    let probability = excess_probability(ours, theirs, policy.flip_share, design);
    let threshold = theirs.share() + policy.flip_excess;
    let is_fail = ours.share() > threshold && probability < policy.level;
    Finding {
        check: stratum.flips,
        outcome: if is_fail { CheckOutcome::Fail } else { CheckOutcome::Pass },
        value: Some(ours.share()),
        control: Some(theirs.share()),
        threshold: Some(threshold),
        samples: ours.of,
        reason: format!(
            "{} of {} {} are more than {} nat below the model's own choice (baseline {} of {}); chance of that \
             {probability:.1e}",
            ours.hits, ours.of, stratum.what, policy.flip_margin, theirs.hits, theirs.of
        ),
        worst: Vec::new(),
    }
}

fn mean(policy: &VerifyPolicy, check: Check, sides: &Sides, control: &[(f64, f64)]) -> Finding {
    let (expected, error) = clustered_mean(control);
    let n = sides.ours.len();
    if n == 0 || sides.theirs.is_empty() {
        return Finding::void(check, "there are no tokens to compare");
    }
    let value = sides.ours.iter().map(|token| token.0.min(1.0)).sum::<f64>() / n as f64;
    let factor = policy.mean_margin_factor;
    let spread = policy.standard_errors * null_error(error, sides.theirs.len(), n, factor);
    // The spread of rare flips is itself badly known from a few of them: three whole nat are excused in any sample.
    let threshold = (factor * expected + spread + 3.0 / n as f64).max(policy.mean_margin_floor);
    Finding {
        check,
        outcome: if value > threshold { CheckOutcome::Fail } else { CheckOutcome::Pass },
        value: Some(value),
        control: Some(expected),
        threshold: Some(threshold),
        samples: n,
        reason: format!(
            "on average {value:.2e} nat below the model's own choice (each cut at 1), baseline {expected:.2e}, at most \
             {threshold:.2e}"
        ),
        worst: Vec::new(),
    }
}
