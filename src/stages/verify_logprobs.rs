//! `verify-logprobs`: scores the sealed answers by teacher forcing and judges them against the baseline's own.
//!
//! It runs when all candidates are gone. The trusted scorer is asked, for every token of every answer that was
//! timed, how probable the model finds it; the baseline's answers go through the same scorer in the same
//! round and are the control. The scorer sees token ids in an order drawn from the seed and never learns whose
//! they are; two identical questions are asked once. A scorer that fails voids, it never fails a miner.

use std::collections::BTreeMap;

use super::{JobContext, StageError, handle, load, write_table};
use crate::adapters::scorer::{Scorer, TokenScore};
use crate::judge::{Answers, Subject, VerifyPolicy, judge_answers};
use crate::model::{Arm, CheckOutcome, ReadSpec, RequestRow, TokenRow, VerdictRow};
use crate::pipeline::stage::benchmark::MeasuredLeg;
use crate::pipeline::stage::verify_logprobs::{Output, Parameters};

/// The sealed answers of one read.
pub(super) struct SealedRead {
    pub(super) spec: ReadSpec,
    pub(super) requests: Vec<RequestRow>,
    pub(super) answers: Vec<TokenRow>,
}

/// Reads back what the benchmark of each measured leg left; legs that were not measured are left out.
pub(super) fn sealed_reads(
    legs: &[MeasuredLeg],
    context: &JobContext<'_>,
) -> Result<Vec<SealedRead>, StageError> {
    let mut reads = Vec::new();
    for leg in legs {
        let Some(data) = &leg.outputs.data else { continue };
        reads.push(SealedRead {
            spec: leg.matrix.read.clone(),
            requests: load(context, data, "requests.parquet")?,
            answers: load(context, data, "answers.parquet")?,
        });
    }
    Ok(reads)
}

pub(super) async fn run(parameters: Parameters, context: &mut JobContext<'_>) -> Result<Output, StageError> {
    let scorer = Scorer::new(super::http_client()?, &parameters.endpoint, &context.server()?.model_name);
    let mut reads = sealed_reads(&parameters.reads, context)?;
    let questions = questions(&reads);
    let scores = ask(&scorer, &questions, context).await?;
    for read in &mut reads {
        for (prompt_index, rows) in answers_of(&mut read.answers) {
            let ids: Vec<u32> = rows.iter().map(|row| row.token_id).collect();
            let Some(scores) = scores.get(&(prompt_index, ids)) else { continue };
            for (row, score) in rows.iter_mut().zip(scores) {
                row.scorer_logprob = Some(score.logprob);
                row.scorer_rank = Some(score.rank);
                row.scorer_top_logprob = Some(score.top_logprob);
            }
        }
    }
    let verdicts = verdicts(&parameters.policy, &reads, context.round.round_id.as_str());
    let failed = verdicts.iter().filter(|verdict| verdict.outcome == CheckOutcome::Fail).count();
    let tokens: Vec<TokenRow> = reads.into_iter().flat_map(|read| read.answers).collect();
    write_table(context, &verdicts)?;
    write_table(context, &tokens)?;
    Ok(Output { failed: failed as u64, data: handle(context)? })
}

type Question = (u32, Vec<u32>);

/// Every different answer once: the prompt's number and the answer's token ids.
fn questions(reads: &[SealedRead]) -> Vec<Question> {
    let mut answers: BTreeMap<(usize, u32), Vec<u32>> = BTreeMap::new();
    for (index, read) in reads.iter().enumerate() {
        for row in &read.answers {
            answers.entry((index, row.prompt_index)).or_default().push(row.token_id);
        }
    }
    let mut questions: Vec<Question> = answers.into_iter().map(|((_, prompt), ids)| (prompt, ids)).collect();
    questions.sort_unstable();
    questions.dedup();
    questions
}

/// The rows of each answer of a read; rows lie in the order of prompts and positions.
fn answers_of(rows: &mut [TokenRow]) -> impl Iterator<Item = (u32, &mut [TokenRow])> {
    rows.chunk_by_mut(|left, right| left.prompt_index == right.prompt_index)
        .filter_map(|rows| Some((rows.first()?.prompt_index, rows)))
}

async fn ask(
    scorer: &Scorer,
    questions: &[Question],
    context: &JobContext<'_>,
) -> Result<BTreeMap<Question, Vec<TokenScore>>, StageError> {
    let count = questions.iter().map(|(prompt, _)| prompt + 1).max().unwrap_or(0);
    let mut prompt_tokens = Vec::new();
    for prompt in super::benchmark::prompts(context, count) {
        let tokens = scorer.prompt_tokens(&prompt.text).await;
        prompt_tokens.push(tokens.map_err(|error| StageError::Scorer(error.to_string()))?);
    }
    let mut order: Vec<&Question> = questions.iter().collect();
    context.round.seed.derive(&["verify-logprobs", "order"]).shuffle(&mut order);
    let mut scores = BTreeMap::new();
    for (done, question) in order.into_iter().enumerate() {
        context.tell("score answers", done, questions.len());
        let (prompt, ids) = question;
        let Some(prompt_ids) = prompt_tokens.get(*prompt as usize) else { continue };
        let answer = scorer.score(prompt_ids, ids).await;
        scores.insert(question.clone(), answer.map_err(|error| StageError::Scorer(error.to_string()))?);
    }
    Ok(scores)
}

/// Judges every candidate's read against all of the baseline's answers.
fn verdicts(policy: &VerifyPolicy, reads: &[SealedRead], round_id: &str) -> Vec<VerdictRow> {
    let is_baseline = |read: &&SealedRead| read.spec.arm == Arm::Baseline;
    let requests: Vec<RequestRow> =
        reads.iter().filter(is_baseline).flat_map(|read| read.requests.iter().cloned()).collect();
    let tokens: Vec<TokenRow> =
        reads.iter().filter(is_baseline).flat_map(|read| read.answers.iter().cloned()).collect();
    let control = Answers { requests: &requests, tokens: &tokens };
    let judge = |read: &SealedRead| {
        let hotkey = read.spec.hotkey.as_ref().map(crate::model::Hotkey::as_str);
        let subject = Subject { round_id, read_key: &read.spec.key, hotkey };
        judge_answers(
            policy,
            &subject,
            &control,
            &Answers { requests: &read.requests, tokens: &read.answers },
        )
    };
    reads.iter().filter(|read| !is_baseline(read)).flat_map(judge).collect()
}
