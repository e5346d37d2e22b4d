//! How the server behaved: whether it answered, how its answers end, how long they are.

use std::collections::BTreeMap;

use super::answers::Answers;
use super::finding::{Count, Evidence, Finding, is_too_many, worst};
use super::thresholds::VerifyPolicy;
use crate::model::{Check, CheckOutcome, RequestStatus};
use crate::stats::{Sample, student_t_cdf};

/// Fewest prompts on which a difference in length is tested.
const LENGTH_PROMPTS: usize = 8;

pub(super) fn findings(
    policy: &VerifyPolicy,
    control: &Answers<'_>,
    candidate: &Answers<'_>,
) -> Vec<Finding> {
    let judge = |check, judged: fn(&VerifyPolicy, &Answers<'_>, &Answers<'_>) -> Finding| {
        if candidate.requests().next().is_none() {
            return Finding::void(check, "no request of this read is recorded");
        }
        if control.ok().next().is_none() {
            return Finding::void(check, "the baseline has no answer to compare with");
        }
        judged(policy, control, candidate)
    };
    vec![judge(Check::Answered, answered), judge(Check::Finish, finish), judge(Check::Length, length)]
}

fn answered(policy: &VerifyPolicy, control: &Answers<'_>, candidate: &Answers<'_>) -> Finding {
    let failed = |answers: &Answers<'_>| {
        let of = answers.requests().count();
        Count { hits: of - answers.ok().count(), of }
    };
    let (ours, theirs) = (failed(candidate), failed(control));
    // Of several control reads, as many as one read would have had.
    let expected = (theirs.share() * ours.of as f64).ceil() as usize;
    let refused = candidate.refused();
    if let Some(finding) = refused_by_scorer(&refused, ours.of) {
        return finding;
    }
    let is_fail = ours.share() > policy.failed_share && ours.hits > expected + policy.failed_excess;
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for row in candidate.requests().filter(|row| row.status != RequestStatus::Ok) {
        *kinds.entry(row.status.as_str()).or_default() += 1;
    }
    let kinds: Vec<String> = kinds.iter().map(|(status, count)| format!("{count} {status}")).collect();
    let reason = match (ours.hits, is_fail) {
        (0, _) => format!("all {} requests ended ok", ours.of),
        (hits, true) => format!(
            "{hits} of {} requests did not end ok ({}); the baseline had {} of {}",
            ours.of,
            kinds.join(", "),
            theirs.hits,
            theirs.of
        ),
        (hits, false) => format!(
            "{hits} of {} requests did not end ok ({}), within what is tolerated; each counts at the deadline",
            ours.of,
            kinds.join(", ")
        ),
    };
    let evidence = candidate.requests().filter(|row| row.status != RequestStatus::Ok);
    Finding {
        check: Check::Answered,
        outcome: if is_fail { CheckOutcome::Fail } else { CheckOutcome::Pass },
        value: Some(ours.share()),
        control: Some(theirs.share()),
        threshold: Some(
            policy.failed_share.max((expected + policy.failed_excess) as f64 / ours.of.max(1) as f64),
        ),
        samples: ours.of,
        reason,
        worst: worst(evidence.map(|row| Evidence::of_request(row.prompt_index, 1.0)).collect()),
    }
}

/// What the checks find of a control beside which nothing is known: no end of an answer needs a comparison to be wrong.
pub(super) fn alone(policy: &VerifyPolicy, answers: &Answers<'_>) -> Vec<Finding> {
    vec![finish(policy, &Answers::default(), answers)]
}

/// What it means that the scorer refused answers, if it did. It took all of the control's, or nothing is judged at all: so
/// these are none of the model's, and not one is tolerated.
fn refused_by_scorer(refused: &[u32], requests: usize) -> Option<Finding> {
    let count = Count { hits: refused.len(), of: requests };
    (!refused.is_empty()).then(|| Finding {
        check: Check::Answered,
        outcome: CheckOutcome::Fail,
        value: Some(count.share()),
        control: Some(0.0),
        threshold: Some(0.0),
        samples: requests,
        reason: format!(
            "the scorer takes {} of {requests} answers for none of the model's, and all of the baseline's for its answers",
            refused.len()
        ),
        worst: worst(refused.iter().map(|prompt| Evidence::of_request(*prompt, 1.0)).collect()),
    })
}

/// Checks that each answer ends by itself, or is cut at exactly the `max_tokens` that its request asked for. Whether the
/// model would have ended where an answer ends by itself is the scorer's to say (`margin`).
fn finish(policy: &VerifyPolicy, control: &Answers<'_>, candidate: &Answers<'_>) -> Finding {
    let count = |answers: &Answers<'_>| Count { hits: answers.cut(policy).count(), of: answers.ok().count() };
    let (ours, theirs) = (count(candidate), count(control));
    let is_fail = is_too_many(ours, theirs, (policy.mismatch_share, policy.level));
    Finding {
        check: Check::Finish,
        outcome: if is_fail { CheckOutcome::Fail } else { CheckOutcome::Pass },
        value: Some(ours.share()),
        control: Some(theirs.share()),
        threshold: Some(policy.mismatch_share),
        samples: ours.of,
        reason: format!(
            "{} of {} answers end neither by themselves (`stop`) nor at the token limit (`length`) (baseline {} of {})",
            ours.hits, ours.of, theirs.hits, theirs.of
        ),
        worst: worst(
            candidate
                .cut(policy)
                .map(|row| Evidence::of_request(row.prompt_index, f64::from(row.tokens)))
                .collect(),
        ),
    }
}

/// Compares the mean length with the control's on the same prompts. One answer may well differ; a whole run shorter or
/// longer by more than the tolerance, and surely so (paired t test over prompts), is another way to answer.
fn length(policy: &VerifyPolicy, control: &Answers<'_>, candidate: &Answers<'_>) -> Finding {
    let by_prompt = |answers: &Answers<'_>| {
        let mut lengths: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        for row in answers.ok() {
            lengths.entry(row.prompt_index).or_default().push(f64::from(row.tokens));
        }
        lengths
    };
    let theirs = by_prompt(control);
    let pairs: Vec<(u32, f64, f64)> = by_prompt(candidate)
        .into_iter()
        .filter_map(|(prompt, ours)| {
            let mean = |lengths: &[f64]| lengths.iter().sum::<f64>() / lengths.len() as f64;
            Some((prompt, mean(&ours), mean(theirs.get(&prompt)?)))
        })
        .collect();
    let total: (f64, f64) = pairs.iter().fold((0.0, 0.0), |sum, pair| (sum.0 + pair.1, sum.1 + pair.2));
    let Some(differences) = Sample::new(pairs.iter().map(|pair| pair.1 - pair.2)).filter(|_| total.1 > 0.0)
    else {
        return Finding::void(Check::Length, "no prompt was answered by both the candidate and the baseline");
    };
    let n = differences.len();
    let ratio = total.0 / total.1;
    let error = differences.standard_deviation().map_or(0.0, |deviation| deviation / (n as f64).sqrt());
    let probability = match differences.mean().abs() {
        0.0 => 1.0,
        _ if error == 0.0 => 0.0,
        mean => student_t_cdf(-mean / error, (n - 1) as f64),
    };
    let is_off = (ratio - 1.0).abs() > policy.length_tolerance;
    let is_fail = is_off && n >= LENGTH_PROMPTS && probability < policy.level;
    let deviations =
        pairs.iter().map(|(prompt, ours, theirs)| Evidence::of_request(*prompt, (ours - theirs).abs()));
    Finding {
        check: Check::Length,
        outcome: if is_fail { CheckOutcome::Fail } else { CheckOutcome::Pass },
        value: Some(ratio),
        control: Some(1.0),
        threshold: Some(1.0 - policy.length_tolerance.copysign(1.0 - ratio)),
        samples: n,
        reason: format!(
            "answers have {:.1} tokens on average, the baseline's {:.1} on the same prompts{}",
            total.0 / n as f64,
            total.1 / n as f64,
            if is_off && !is_fail { "; too few or too varied to be sure" } else { "" }
        ),
        worst: worst(deviations.collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RequestRow, TokenRow};

    #[test]
    fn one_answer_that_the_scorer_refuses_is_one_too_many() {
        let request = |prompt_index| RequestRow {
            prompt_index,
            status: RequestStatus::Ok,
            finish_reason: Some("stop".to_owned()),
            tokens: 2,
            ..RequestRow::default()
        };
        let token = |prompt_index, position| TokenRow { prompt_index, position, ..TokenRow::default() };
        let requests: Vec<RequestRow> = (0..16).map(request).collect();
        let scored: Vec<TokenRow> = (0..16)
            .flat_map(|prompt| [token(prompt, 0), token(prompt, 1)])
            .map(|row| TokenRow { scorer_rank: Some(1), scorer_logprob: Some(-0.1), ..row })
            .collect();
        let refused: Vec<TokenRow> = scored
            .iter()
            .map(|row| match row.prompt_index {
                3 => TokenRow { scorer_rank: Some(TokenRow::REFUSED_RANK), ..token(3, row.position) },
                _ => row.clone(),
            })
            .collect();
        let control = Answers::of([(&requests[..], &scored[..])]);
        let judged = |tokens: &[TokenRow]| {
            let candidate = Answers::of([(&requests[..], tokens)]);
            answered(&VerifyPolicy::default(), &control, &candidate)
        };
        assert_eq!(judged(&scored).outcome, CheckOutcome::Pass);
        let finding = judged(&refused);
        assert_eq!((finding.outcome, finding.samples), (CheckOutcome::Fail, 16));
        assert!(finding.reason.starts_with("the scorer takes 1 of 16 answers"), "{}", finding.reason);
        assert_eq!(finding.worst, [Evidence::of_request(3, 1.0)]);
    }
}
