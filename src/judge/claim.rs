//! What the server says of its own answers, against what they are: log probabilities, segmentation, counts.
//!
//! A claimed log probability is worthless as truth and strong as a commitment: to name what the scorer will
//! find, to bf16 noise, a server must have run the model. So one that names none has not kept the contract.

use std::collections::{BTreeMap, BTreeSet};

use super::answers::Answers;
use super::finding::{
    Count, Evidence, Finding, clustered_mean, excess_probability, is_too_many, null_error, worst,
};
use super::thresholds::VerifyPolicy;
use crate::model::{Check, CheckOutcome, RequestFlag, RequestRow, TokenRow};

/// Residuals are cut at this value, in nat.
const LARGEST: f64 = 30.0;

pub(super) fn findings(
    policy: &VerifyPolicy,
    control: &Answers<'_>,
    candidate: &Answers<'_>,
) -> Vec<Finding> {
    let compare = |check, compared: fn(&VerifyPolicy, &Answers<'_>, &Answers<'_>) -> Finding| {
        if candidate.ok().next().is_none() || control.ok().next().is_none() {
            return Finding::void(check, "there are no answers to compare");
        }
        compared(policy, control, candidate)
    };
    vec![
        committed(policy, control, candidate),
        compare(Check::Segmentation, segmentation),
        compare(Check::TextBytes, text_bytes),
        compare(Check::Counts, counts),
    ]
}

/// What the checks find of a control beside which nothing is known.
pub(super) fn alone(policy: &VerifyPolicy, answers: &Answers<'_>) -> Vec<Finding> {
    let nothing = Answers::default();
    vec![text_bytes(policy, &nothing, answers), counts(policy, &nothing, answers)]
}

/// Answers in which a text token has no claimed log probability, or one that is no number.
fn unclaimed(answers: &Answers<'_>) -> Count {
    let mut by_answer: BTreeMap<(&str, u32), bool> = BTreeMap::new();
    for row in answers.tokens().filter(|row| !row.is_end) {
        *by_answer.entry((&row.read_key, row.prompt_index)).or_default() |=
            row.server_logprob.is_none_or(f64::is_nan);
    }
    Count { hits: by_answer.values().filter(|is_unclaimed| **is_unclaimed).count(), of: by_answer.len() }
}

/// The residuals (claimed minus scored log probability) of all scored tokens, without the worst `trim` share.
fn residuals<'a>(answers: &Answers<'a>, trim: f64) -> Vec<(&'a TokenRow, f64)> {
    let mut all: Vec<(&TokenRow, f64)> = answers
        .tokens()
        .filter_map(|row| {
            let difference = row.server_logprob? - row.scorer_logprob?;
            (!difference.is_nan()).then(|| (row, difference.clamp(-LARGEST, LARGEST).abs()))
        })
        .collect();
    all.sort_by(|a, b| a.1.total_cmp(&b.1));
    all.truncate(all.len() - (trim.clamp(0.0, 1.0) * all.len() as f64).floor() as usize);
    all
}

fn committed(policy: &VerifyPolicy, control: &Answers<'_>, candidate: &Answers<'_>) -> Finding {
    const CHECK: Check = Check::CommittedLogprobs;
    let (ours, theirs) = (unclaimed(candidate), unclaimed(control));
    if ours.of == 0 || theirs.of == 0 || theirs.hits as f64 > 0.01 * theirs.of as f64 {
        return Finding::void(CHECK, "the baseline's answers carry no log probabilities to compare with");
    }
    if is_too_many(ours, Count { hits: 0, of: 0 }, (policy.mismatch_share, policy.level)) {
        return Finding {
            check: CHECK,
            outcome: CheckOutcome::Fail,
            value: Some(ours.share()),
            control: Some(theirs.share()),
            threshold: Some(policy.mismatch_share),
            samples: ours.of,
            reason: format!(
                "{} of {} answers carry no usable log probabilities, which the request asks for",
                ours.hits, ours.of
            ),
            worst: Vec::new(),
        };
    }
    let (expected, found) =
        (residuals(control, policy.residual_trim), residuals(candidate, policy.residual_trim));
    let scored = |answers: &Answers<'_>| answers.tokens().filter(|row| row.scorer_logprob.is_some()).count();
    if expected.is_empty() || found.is_empty() || scored(candidate) * 100 < candidate.tokens().count() * 99 {
        return Finding::void(
            CHECK,
            "the scorer has no log probabilities for these answers or the baseline's",
        );
    }
    let squares = |all: &[(&TokenRow, f64)]| all.iter().map(|(_, e)| e * e).sum::<f64>() / all.len() as f64;
    let value = squares(&found).sqrt();
    let (mean_square, error) =
        clustered_mean(&Answers::clusters(expected.iter().map(|&(row, e)| (row, e * e))));
    let control_value = mean_square.sqrt();
    // Error of a root: half the error of the square, over the root.
    let error = if control_value > 0.0 { error / (2.0 * control_value) } else { 0.0 };
    let factor = policy.residual_factor;
    let spread = policy.standard_errors * null_error(error, expected.len(), found.len(), factor);
    let threshold = (factor * control_value + spread).max(policy.residual_floor);
    Finding {
        check: CHECK,
        outcome: if value > threshold { CheckOutcome::Fail } else { CheckOutcome::Pass },
        value: Some(value),
        control: Some(control_value),
        threshold: Some(threshold),
        samples: found.len(),
        reason: format!(
            "claimed log probabilities are {value:.2e} nat (root mean square) from the model's own, the baseline's \
             {control_value:.2e}, at most {threshold:.2e}"
        ),
        worst: worst(residuals(candidate, 0.0).iter().map(|(row, e)| Evidence::of_token(row, *e)).collect()),
    }
}

fn flagged(answers: &Answers<'_>, is_hit: impl Fn(&RequestRow) -> bool) -> Count {
    Count { hits: answers.ok().filter(|row| is_hit(row)).count(), of: answers.ok().count() }
}

fn requests(answers: &Answers<'_>, is_hit: impl Fn(&RequestRow) -> bool) -> Vec<Evidence> {
    worst(
        answers
            .ok()
            .filter(|row| is_hit(row))
            .map(|row| Evidence::of_request(row.prompt_index, 1.0))
            .collect(),
    )
}

/// The model itself may once spell a word otherwise than the tokenizer does; a server that does so always is
/// claiming tokens it did not generate.
fn segmentation(policy: &VerifyPolicy, control: &Answers<'_>, candidate: &Answers<'_>) -> Finding {
    let is_hit = |row: &RequestRow| row.flags.contains(&RequestFlag::NonCanonical);
    let (ours, theirs) = (flagged(candidate, is_hit), flagged(control, is_hit));
    let threshold = theirs.share() + policy.flip_excess;
    let probability = excess_probability(ours, theirs, policy.flip_share, 1.0);
    let is_fail = ours.share() > threshold && probability < policy.level;
    Finding {
        check: Check::Segmentation,
        outcome: if is_fail { CheckOutcome::Fail } else { CheckOutcome::Pass },
        value: Some(ours.share()),
        control: Some(theirs.share()),
        threshold: Some(threshold),
        samples: ours.of,
        reason: format!(
            "{} of {} answers claim tokens other than the tokenizer's for the same text (baseline {} of {})",
            ours.hits, ours.of, theirs.hits, theirs.of
        ),
        worst: requests(candidate, is_hit),
    }
}

fn text_bytes(policy: &VerifyPolicy, control: &Answers<'_>, candidate: &Answers<'_>) -> Finding {
    let is_hit = |row: &RequestRow| {
        row.flags.contains(&RequestFlag::BytesMismatch) || row.flags.contains(&RequestFlag::OtherChannel)
    };
    let (ours, theirs) = (flagged(candidate, is_hit), flagged(control, is_hit));
    let is_fail = is_too_many(ours, theirs, (policy.mismatch_share, policy.level));
    Finding {
        check: Check::TextBytes,
        outcome: if is_fail { CheckOutcome::Fail } else { CheckOutcome::Pass },
        value: Some(ours.share()),
        control: Some(theirs.share()),
        threshold: Some(policy.mismatch_share),
        samples: ours.of,
        reason: format!(
            "in {} of {} answers the bytes of the claimed tokens are not the text, or text came on another channel \
             (baseline {} of {})",
            ours.hits, ours.of, theirs.hits, theirs.of
        ),
        worst: requests(candidate, is_hit),
    }
}

/// Whether the counts of tokens disagree by more than an end token, or a character cut at the limit.
fn disagrees(row: &RequestRow) -> bool {
    let slack = if row.finish_reason.as_deref() == Some("length") { 3 } else { 1 };
    let claimed = (row.logprob_tokens > 0).then_some(row.logprob_tokens);
    let from_usage = row.usage_tokens.is_some_and(|usage| usage.abs_diff(claimed.unwrap_or(row.tokens)) > 1);
    let from_claim = claimed.is_some_and(|claimed| claimed.abs_diff(row.tokens) > slack);
    from_usage || (from_claim && !row.flags.contains(&RequestFlag::NonCanonical))
}

fn counts(policy: &VerifyPolicy, control: &Answers<'_>, candidate: &Answers<'_>) -> Finding {
    let (ours, theirs) = (flagged(candidate, disagrees), flagged(control, disagrees));
    let is_fail = is_too_many(ours, theirs, (policy.mismatch_share, policy.level));
    let prompts: BTreeSet<u32> =
        candidate.ok().filter(|row| disagrees(row)).map(|row| row.prompt_index).collect();
    let example = candidate.ok().find(|row| prompts.first() == Some(&row.prompt_index)).map(|row| {
        format!(
            "; in prompt {} `usage` says {}, log probabilities {}, the text {}",
            row.prompt_index,
            row.usage_tokens.map_or("nothing".to_owned(), |usage| usage.to_string()),
            row.logprob_tokens,
            row.tokens
        )
    });
    Finding {
        check: Check::Counts,
        outcome: if is_fail { CheckOutcome::Fail } else { CheckOutcome::Pass },
        value: Some(ours.share()),
        control: Some(theirs.share()),
        threshold: Some(policy.mismatch_share),
        samples: ours.of,
        reason: format!(
            "token counts disagree in {} of {} answers (baseline {} of {}){}",
            ours.hits,
            ours.of,
            theirs.hits,
            theirs.of,
            example.unwrap_or_default()
        ),
        worst: requests(candidate, disagrees),
    }
}
