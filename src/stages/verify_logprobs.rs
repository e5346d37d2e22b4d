//! `verify-logprobs`: scores the sealed answers by teacher forcing and judges them against the baseline's own.
//!
//! It runs when all candidates are gone. The trusted scorer is asked, for every token of every answer that was
//! timed, how probable the model finds it; the baseline's answers go through the same scorer in the same
//! round and are the control. The scorer sees token ids in an order drawn from the seed and never learns whose
//! they are; two identical questions are asked once. A scorer that fails voids, it never fails a miner.

use std::collections::BTreeMap;

use super::{JobContext, StageError, handle, load, read_kept, write_table};
use crate::adapters::scorer::Scorer;
use crate::judge::round::verdicts;
use crate::judge::{MeasuredRead, Question, TokenScore, fill_scores, kept_scores, questions};
use crate::model::{CheckOutcome, Hotkey, ReadSpec, RequestRow, TokenRow};
use crate::pipeline::stage::benchmark::MeasuredLeg;
use crate::pipeline::stage::verify_logprobs::{Output, Parameters};

/// The sealed answers of one read.
struct SealedRead {
    spec: ReadSpec,
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
            requests: load(context, data, "requests.parquet")?,
            answers: load(context, data, "answers.parquet")?,
        });
    }
    Ok(reads)
}

pub(super) async fn run(parameters: Parameters, context: &mut JobContext<'_>) -> Result<Output, StageError> {
    let scorer = Scorer::new(super::http_client()?, &parameters.endpoint, &context.server()?.model_name);
    let reads = sealed_reads(&parameters.reads, context)?;
    let questions = questions(reads.iter().map(|read| read.answers.as_slice()));
    let scores = ask(&scorer, &questions, context).await?;
    judge(&parameters, (reads, &scores), context)
}

/// Judges the answers again by the scores that are kept of them.
pub(super) fn again(parameters: &Parameters, context: &JobContext<'_>) -> Result<Output, StageError> {
    let kept: Vec<TokenRow> = read_kept(context, "tokens.parquet")?;
    judge(parameters, (sealed_reads(&parameters.reads, context)?, &kept_scores(&kept)), context)
}

/// Fills in the scores, judges, and leaves the rows.
fn judge(
    parameters: &Parameters,
    (mut reads, scores): (Vec<SealedRead>, &BTreeMap<Question, Vec<TokenScore>>),
    context: &JobContext<'_>,
) -> Result<Output, StageError> {
    for read in &mut reads {
        fill_scores(&mut read.answers, scores);
    }
    let measured: Vec<MeasuredRead<'_>> = reads.iter().map(SealedRead::measured).collect();
    let verdicts = verdicts(&parameters.policy, context.round.round_id.as_str(), &measured);
    let failed = verdicts.iter().filter(|verdict| verdict.outcome == CheckOutcome::Fail).count();
    let tokens: Vec<TokenRow> = reads.into_iter().flat_map(|read| read.answers).collect();
    write_table(context, &verdicts)?;
    write_table(context, &tokens)?;
    Ok(Output { failed: failed as u64, data: handle(context)? })
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
