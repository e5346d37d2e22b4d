//! Who stands before whom: order by proof.
//!
//! Places are held in the order of commitment. A later commitment takes a place only where it is proven faster than
//! everyone whom it passes, head to head: a copy is never proven faster than its original, so it gains nothing by
//! luck. [`finalists`] says who could take a paid place after the first look and is measured again, [`order`] puts in
//! order those that the last look leaves.

use super::score::{BaselineNoise, BracketGain, Estimate, ScorePolicy};
use super::split::RankPolicy;
use crate::model::{Component, HeadToHeadRow, Look};
use crate::stats::{Sample, student_t_quantile};

/// A submission that looks faster than the bar: it holds a place until somebody is proven faster, and is paid for it
/// where it is proven faster than the bar itself.
#[derive(Debug, Clone)]
pub struct Contender<'a> {
    /// Hotkey of the submission.
    pub hotkey: &'a str,
    /// Block of its commitment: the earlier holds the place.
    pub block: i64,
    /// What its reads say of its score.
    pub estimate: Estimate,
    /// What each of its measured reads in the look gained on the baseline reads beside it.
    pub gains: Vec<BracketGain<'a>>,
}

/// A look that puts contenders in order, and its rules.
#[derive(Debug, Clone, Copy)]
pub struct Contest<'a> {
    /// Id of the round.
    pub round_id: &'a str,
    /// The look.
    pub look: Look,
    /// One-sided error probability of one comparison.
    pub alpha: f64,
    /// Rules of the speed comparison.
    pub score: &'a ScorePolicy,
    /// Rules of the places.
    pub rank: &'a RankPolicy,
    /// The noise of the round's baseline reads.
    pub noise: &'a BaselineNoise,
}

/// The comparisons among so many submissions that decide about places: each with the baseline, each pair once.
///
/// A round's error probability is split over them by Bonferroni's inequality, so it holds for any number of images and
/// whatever their reads have in common.
pub const fn comparisons(submissions: usize) -> usize {
    submissions * (submissions + 1) / 2
}

/// The hotkeys of those that could take a paid place, in the order of commitment.
///
/// Whoever is not ahead of as many earlier finalists as there are paid places can take none of these; `slack` standard
/// errors are allowed for, so that a good submission with a bad first look is not lost. Beyond `max-finalists` the
/// earliest stays, who holds the place until somebody is proven faster, with those that looked fastest.
pub fn finalists<'a>(policy: &RankPolicy, contenders: &[Contender<'a>]) -> Vec<&'a str> {
    let bar = (1.0 + policy.lead.max(0.0)).ln();
    let is_ahead = |later: &Contender<'_>, earlier: &Contender<'_>| {
        let slack = policy.slack.max(0.0) * later.estimate.error.hypot(earlier.estimate.error);
        later.estimate.value - earlier.estimate.value + slack > bar
    };
    let mut finalists: Vec<Contender<'a>> = Vec::new();
    for contender in by_commitment(contenders) {
        let holders = finalists.iter().filter(|earlier| !is_ahead(&contender, earlier)).count();
        if holders < policy.split.paid_places() {
            finalists.push(contender);
        }
    }
    let most = policy.max_finalists.max(1) as usize;
    if finalists.len() > most {
        let later = finalists.get_mut(1..).unwrap_or_default();
        later.sort_by(|left, right| right.estimate.value.total_cmp(&left.estimate.value));
        finalists.truncate(most);
    }
    by_commitment(&finalists).into_iter().map(|finalist| finalist.hotkey).collect()
}

fn by_commitment<'a>(contenders: &[Contender<'a>]) -> Vec<Contender<'a>> {
    let mut sorted = contenders.to_vec();
    sorted.sort_by_key(|contender| (contender.block, contender.hotkey));
    sorted
}

/// The hotkeys in the order of their places, and the comparisons that it rests on.
///
/// In the order of commitment each goes past those before whom it is proven faster, from the last place up, and stops
/// at the first for whom that is not so. So whoever stands before an earlier commitment is proven faster than it.
pub fn order<'a>(contest: &Contest<'_>, contenders: &[Contender<'a>]) -> (Vec<&'a str>, Vec<HeadToHeadRow>) {
    let mut places: Vec<Contender<'a>> = Vec::new();
    let mut rows = Vec::new();
    for later in by_commitment(contenders) {
        let mut place = places.len();
        while let Some(earlier) = place.checked_sub(1).and_then(|last| places.get(last)) {
            let row = head_to_head(contest, &later, earlier);
            let is_proven = row.is_proven;
            rows.push(row);
            if !is_proven {
                break;
            }
            place -= 1;
        }
        places.insert(place, later);
    }
    (places.into_iter().map(|contender| contender.hotkey).collect(), rows)
}

/// ln(earlier / later) of two submissions.
struct Lead {
    value: f64,
    error: f64,
    degrees: f64,
    brackets: usize,
}

/// Whether a submission is proven faster than one that was committed before it.
fn head_to_head(contest: &Contest<'_>, later: &Contender<'_>, earlier: &Contender<'_>) -> HeadToHeadRow {
    let bar = (1.0 + contest.rank.lead.max(0.0)).ln();
    let lead = direct(contest, later, earlier).unwrap_or_else(|| through_baseline(later, earlier));
    let bound = |quantile: f64| lead.value - quantile * lead.error;
    let lower = student_t_quantile(1.0 - contest.alpha, lead.degrees).map(bound);
    let is_proven = lower.is_some_and(|lower| lower > bar);
    let verdict = if is_proven { "proven" } else { "not proven" };
    let reason = format!(
        "{verdict} faster than {}, committed earlier: {:.3} times as fast{}, the bar is {:.3}",
        earlier.hotkey,
        lead.value.exp(),
        lower.map(|lower| format!(", at least {:.3}", lower.exp())).unwrap_or_default(),
        bar.exp()
    );
    HeadToHeadRow {
        round_id: contest.round_id.to_owned(),
        look: contest.look,
        later: later.hotkey.to_owned(),
        earlier: earlier.hotkey.to_owned(),
        brackets: lead.brackets as u32,
        log_ratio: Some(lead.value).filter(|value| value.is_finite()),
        standard_error: Some(lead.error).filter(|error| error.is_finite()),
        lower: lower.filter(|lower| lower.is_finite()),
        bar,
        is_proven,
        reason,
    }
}

/// By what each gained on the very same baseline reads, where there are any: those two launches are in both, and cancel. A prompt
/// that the earlier one failed is left out, as it is where a baseline fails it; one that the later one failed counts at
/// the deadline.
fn direct(contest: &Contest<'_>, later: &Contender<'_>, earlier: &Contender<'_>) -> Option<Lead> {
    let compared = |own: &BracketGain<'_>| {
        let other = earlier.gains.iter().find(|other| other.is_beside_the_same(own))?;
        own.charged.zip(other.answered)
    };
    let brackets: Vec<_> = later.gains.iter().filter_map(compared).collect();
    let values = Sample::new(brackets.iter().map(|(later, earlier)| later.value - earlier.value))?;
    let count = brackets.len() as f64;
    let (noise, noise_degrees) = contest.noise.get(Component::Score)?;
    let squares = brackets.iter().map(|(later, earlier)| later.within.powi(2) + earlier.within.powi(2));
    let within = squares.sum::<f64>().sqrt() / count;
    let between = values.standard_deviation().map_or(0.0, |deviation| deviation / count.sqrt());
    let launches = noise * (2.0 / count).sqrt();
    Some(Lead {
        value: values.mean(),
        error: within.max(between).max(launches),
        degrees: count - 1.0 + noise_degrees,
        brackets: brackets.len(),
    })
}

/// By what each gained on the baseline beside it, where they were never beside the same.
fn through_baseline(later: &Contender<'_>, earlier: &Contender<'_>) -> Lead {
    let (later, earlier) = (&later.estimate, &earlier.estimate);
    Lead {
        value: later.value - earlier.value,
        error: later.error.hypot(earlier.error),
        degrees: later.degrees.min(earlier.degrees),
        brackets: 0,
    }
}
