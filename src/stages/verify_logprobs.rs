//! `verify-logprobs`: scores the sealed answers by teacher forcing and judges them against the baseline's own.
//!
//! It runs when all candidates are gone. The trusted scorer is asked, for every token of every answer that was
//! timed, how probable the model finds it; the baseline's answers go through the same scorer in the same
//! round and are the control. The scorer sees token ids in an order drawn from the seed and never learns whose
//! they are; two identical questions are asked once. A scorer that fails is launched anew, and where that does not help it
//! voids, it never fails a miner: what it had scored is left as `scored.parquet` of the attempt, and a later attempt does
//! not ask it again (`scoring`). An answer that the scorer refuses, while it takes the baseline's, is evidence against the
//! read that gave it, and against no other; so are the answers of which it dies alone (`suspects`).

use std::collections::BTreeMap;

use super::prompts::Asked;
use super::scoring::{Answers, scores};
use super::suspects::Givers;
use super::{JobContext, StageError, handle, load, read_kept, write_table};
use crate::judge::{AnswerScores, MeasuredRead, Question, fill_scores, kept_scores, questions, verdicts};
use crate::measure::Prompt;
use crate::model::{
    Arm, CheckOutcome, Hotkey, ReadSpec, RequestRow, TokenRow, VerdictRow, prompt_of_bracket,
};
use crate::pipeline::stage::benchmark::MeasuredLeg;
use crate::pipeline::stage::verify_logprobs::{Output, Parameters};

/// The sealed answers of one read.
struct SealedRead {
    spec: ReadSpec,
    asked: Asked,
    requests: Vec<RequestRow>,
    answers: Vec<TokenRow>,
}

impl SealedRead {
    /// The sealed read, as it is judged.
    fn measured(&self) -> MeasuredRead<'_> {
        MeasuredRead {
            read_key: &self.spec.key,
            arm: self.spec.arm,
            hotkey: self.spec.hotkey.as_ref().map(Hotkey::as_str),
            sequence: &self.spec.sequence,
            position: self.spec.position,
            requests: &self.requests,
            tokens: &self.answers,
        }
    }
}

/// Reads back what the benchmark of each measured leg left; legs that were not measured are left out.
fn sealed_reads(legs: &[MeasuredLeg], context: &JobContext<'_>) -> Result<Vec<SealedRead>, StageError> {
    let mut reads = Vec::new();
    for leg in legs {
        let Some(data) = &leg.outputs.data else { continue };
        reads.push(SealedRead {
            spec: leg.matrix.read.clone(),
            asked: Asked::left_in(data.attempt(), context)?,
            requests: load(context, data, "requests.parquet")?,
            answers: load(context, data, "answers.parquet")?,
        });
    }
    Ok(reads)
}

pub(super) async fn run(parameters: Parameters, context: &mut JobContext<'_>) -> Result<Output, StageError> {
    let reads = sealed_reads(&parameters.reads, context)?;
    check_limit(parameters.policy.max_tokens, reads.iter().flat_map(|read| &read.requests))?;
    let questions = questions(reads.iter().map(|read| read.answers.as_slice()));
    let answers = Answers {
        givers: &givers(&reads),
        prompts: &prompts(&reads, &questions, context)?,
        rows: &reads.iter().flat_map(|read| read.answers.iter().cloned()).collect::<Vec<TokenRow>>(),
        endpoint: &parameters.endpoint,
    };
    let scores = scores(&answers, context).await?;
    let control = reads.iter().filter(|read| read.spec.arm == Arm::Baseline);
    let control = crate::judge::questions(control.map(|read| read.answers.as_slice()));
    let is_refused = |question: &&Question| scores.get(*question) == Some(&AnswerScores::Refused);
    match control.iter().filter(is_refused).count() {
        0 => judge(&parameters, (reads, &scores), context),
        refused => Err(StageError::Scorer(format!(
            "it refused {refused} of the baseline's {} answers",
            control.len()
        ))),
    }
}

/// Who gave each answer.
fn givers(reads: &[SealedRead]) -> Givers<'_> {
    let mut givers = Givers::new();
    for read in reads {
        let by = read.spec.hotkey.as_ref().map(Hotkey::as_str);
        for question in questions(std::iter::once(read.answers.as_slice())) {
            givers.entry(question).or_default().insert(by);
        }
    }
    givers
}

/// Judges the answers again by the scores that are kept of them.
pub(super) fn again(parameters: &Parameters, context: &JobContext<'_>) -> Result<Output, StageError> {
    let kept: Vec<TokenRow> = read_kept(context, "tokens.parquet")?;
    let reads = sealed_reads(&parameters.reads, context)?;
    check_limit(parameters.policy.max_tokens, reads.iter().flat_map(|read| &read.requests))?;
    judge(parameters, (reads, &kept_scores(&kept)), context)
}

/// What a request asked for is its row's to say; a policy that says otherwise would judge by a limit that nobody was given.
fn check_limit<'a>(
    limit: Option<u32>,
    requests: impl IntoIterator<Item = &'a RequestRow>,
) -> Result<(), StageError> {
    let Some(limit) = limit else { return Ok(()) };
    match requests.into_iter().filter_map(|request| request.max_tokens).find(|asked| *asked != limit) {
        None => Ok(()),
        Some(asked) => Err(StageError::Parameter(format!(
            "`policy.max-tokens` is {limit}, the requests asked for {asked}: leave it out"
        ))),
    }
}

/// Fills in the scores, judges, and leaves the rows.
fn judge(
    parameters: &Parameters,
    (mut reads, scores): (Vec<SealedRead>, &BTreeMap<Question, AnswerScores>),
    context: &JobContext<'_>,
) -> Result<Output, StageError> {
    for read in &mut reads {
        fill_scores(&mut read.answers, scores);
    }
    let measured: Vec<MeasuredRead<'_>> = reads.iter().map(SealedRead::measured).collect();
    let verdicts = verdicts(&parameters.policy, context.round.round_id.as_str(), &measured);
    let is_failed = |row: &&VerdictRow| row.outcome == CheckOutcome::Fail && row.hotkey.is_some();
    let failed = verdicts.iter().filter(is_failed).count();
    let tokens: Vec<TokenRow> = reads.into_iter().flat_map(|read| read.answers).collect();
    write_table(context, &verdicts)?;
    write_table(context, &tokens)?;
    Ok(Output { failed: failed as u64, data: handle(context)? })
}

/// The prompts that the questions are about, drawn again.
fn prompts(
    reads: &[SealedRead],
    questions: &[Question],
    context: &JobContext<'_>,
) -> Result<Vec<Prompt>, StageError> {
    let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
    for (prompt, _) in questions {
        let (bracket, number) = prompt_of_bracket(*prompt);
        let count = counts.entry(bracket).or_default();
        *count = (*count).max(number + 1);
    }
    let mut by_asked: Vec<(&Asked, Vec<(u32, u32)>)> = Vec::new();
    for (bracket, count) in counts {
        let mut those = reads.iter().filter(|read| read.spec.brackets.contains(&bracket));
        let Some(first) = those.next() else { continue };
        if let Some(other) = those.find(|read| read.asked != first.asked) {
            let (one, other) = (&first.spec.key, &other.spec.key);
            return Err(StageError::NotAsPlanned(format!(
                "reads `{one}` and `{other}` of bracket {bracket} were asked from different workloads"
            )));
        }
        match by_asked.iter_mut().find(|(asked, _)| *asked == &first.asked) {
            Some((_, wanted)) => wanted.push((bracket, count)),
            None => by_asked.push((&first.asked, vec![(bracket, count)])),
        }
    }
    let mut prompts = Vec::new();
    for (asked, wanted) in by_asked {
        prompts.extend(asked.prompts(&wanted, context)?);
    }
    Ok(prompts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_names_no_other_limit_than_the_requests() {
        let asked = |max_tokens| RequestRow { max_tokens, ..RequestRow::default() };
        let check = |limit, requests: &[RequestRow], expected: Option<&str>| {
            let found = check_limit(limit, requests).err().map(|error| error.to_string());
            assert_eq!(found.is_some(), expected.is_some(), "{found:?}");
            assert!(found.zip(expected).is_none_or(|(found, expected)| found.contains(expected)));
        };
        let said = [asked(Some(128)), asked(Some(128))];
        check(None, &said, None);
        check(Some(128), &said, None);
        check(Some(64), &said, Some("`policy.max-tokens` is 64, the requests asked for 128"));
        check(Some(64), &[asked(None)], None);
        check(Some(64), &[asked(None), asked(Some(65))], Some("asked for 65"));
    }
}
