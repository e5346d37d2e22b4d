//! The scorer of a step: asked until every answer is scored or refused, and launched anew where it dies.
//!
//! What is asked when, and whose answers are not asked any more, is decided by `suspects`. Each death is noted before
//! anything else is done, beside what was scored until then, so that a later attempt goes on from there. A scorer that this
//! job did not boot is not launched anew: its death ends the attempt.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::suspects::{Givers, Suspects};
use super::{JobContext, MAX_TABLE_BYTES, StageError, boot, write_rows};
use crate::adapters::scorer::{Scorer, ScorerError};
use crate::artifact::layout;
use crate::judge::{AnswerScores, Question, fill_scores, kept_scores};
use crate::measure::Prompt;
use crate::model::TokenRow;

/// What an attempt leaves of its work where the scorer failed: the rows of all answers, those scored so far filled in.
const SCORED_FILE: &str = "scored.parquet";
/// What an attempt leaves where the scorer failed at a question first, and the name of those after it without number and
/// extension: the question, as JSON.
const FAILED_AT: &str = "scorer-failed-at";
/// Most bytes of it: an answer has no more tokens than its bound.
const MAX_BYTES: u64 = 16 << 20;

/// What the answers that are to be scored are.
pub(super) struct Answers<'a> {
    /// Who gave each.
    pub(super) givers: &'a Givers<'a>,
    /// The prompts that they answer.
    pub(super) prompts: &'a [Prompt],
    /// The rows of all of them.
    pub(super) rows: &'a [TokenRow],
    /// The scorer's base URL.
    pub(super) endpoint: &'a str,
}

/// That the scorer failed, and the question at which it did.
struct Failed {
    error: ScorerError,
    at: Option<Question>,
}

/// What the scorer says of every answer.
///
/// # Errors
/// Where the scorer dies without a submission to blame, more often than submissions explain, or cannot be launched anew.
pub(super) async fn scores(
    answers: &Answers<'_>,
    context: &mut JobContext<'_>,
) -> Result<BTreeMap<Question, AnswerScores>, StageError> {
    let mut scores = scored_before(context)?;
    let mut order: Vec<&Question> = answers.givers.keys().collect();
    context.round.seed.derive(&["verify-logprobs", "order"]).shuffle(&mut order);
    order.retain(|question| !scores.contains_key(*question));
    let mut suspects = Suspects::new(answers.givers, order, &failed_before(context)?);
    let mut prompt_tokens = BTreeMap::new();
    loop {
        let scorer = scorer(answers.endpoint, context)?;
        let asking = Asking { scorer: &scorer, answers, context };
        let asked = asking.ask(&mut suspects, &mut prompt_tokens, &mut scores).await;
        let Err(Failed { error, at }) = asked else { break };
        suspects.died(at.as_ref());
        leave(&scores, answers, context)?;
        if let Some(question) = &at {
            leave_failed_at(question, context)?;
        }
        if !is_own(answers.endpoint, context) || !suspects.may_launch() {
            return Err(StageError::Scorer(error.to_string()));
        }
        tracing::warn!(%error, prompt = at.map(|(prompt, _)| prompt), "the scorer died: it is launched anew");
        boot::again(context, &error.to_string()).await?;
    }
    for question in answers.givers.keys().filter(|question| suspects.is_refused(question)) {
        scores.entry(question.clone()).or_insert(AnswerScores::Refused);
    }
    let refused = suspects.refused();
    if refused > 0 {
        tracing::warn!(
            submissions = refused,
            "the scorer dies of the answers of submissions: they are refused"
        );
    }
    Ok(scores)
}

/// Whether the scorer is the server of this job.
fn is_own(endpoint: &str, context: &JobContext<'_>) -> bool {
    context.server.as_ref().is_some_and(|booted| booted.is_at(endpoint))
}

/// The scorer, where it listens now.
fn scorer(endpoint: &str, context: &JobContext<'_>) -> Result<Scorer, StageError> {
    Ok(Scorer::new(context.connector(endpoint)?, &context.server()?.boot.model_name))
}

/// One launch of the scorer at work.
struct Asking<'a> {
    scorer: &'a Scorer,
    answers: &'a Answers<'a>,
    context: &'a JobContext<'a>,
}

impl Asking<'_> {
    /// Asks until nothing is left, or the scorer fails.
    async fn ask(
        &self,
        suspects: &mut Suspects<'_>,
        prompt_tokens: &mut BTreeMap<u32, Vec<u32>>,
        scores: &mut BTreeMap<Question, AnswerScores>,
    ) -> Result<(), Failed> {
        let failed = |error, at| Failed { error, at };
        for prompt in self.answers.prompts {
            if let Entry::Vacant(entry) = prompt_tokens.entry(prompt.index) {
                let tokens = self.scorer.prompt_tokens(&prompt.text).await;
                entry.insert(tokens.map_err(|error| failed(error, None))?);
            }
        }
        while let Some(question) = suspects.next() {
            self.context.tell("score answers", scores.len(), self.answers.givers.len());
            let (prompt, ids) = question;
            if let Some(prompt_ids) = prompt_tokens.get(prompt) {
                let answer = match self.scorer.score(prompt_ids, ids).await {
                    Ok(scored) => AnswerScores::Scored(scored),
                    Err(error) if error.is_refusal() => {
                        tracing::warn!(prompt, tokens = ids.len(), %error, "the scorer refused an answer");
                        AnswerScores::Refused
                    }
                    Err(error) => return Err(failed(error, Some(question.clone()))),
                };
                // What is asked again, to see that the scorer is well, keeps its first scores.
                scores.entry(question.clone()).or_insert(answer);
            }
            suspects.answered(question);
        }
        Ok(())
    }
}

/// Leaves what was scored so far for the next attempt.
fn leave(
    scores: &BTreeMap<Question, AnswerScores>,
    answers: &Answers<'_>,
    context: &JobContext<'_>,
) -> Result<(), StageError> {
    let mut rows = answers.rows.to_vec();
    fill_scores(&mut rows, scores);
    write_rows(context, SCORED_FILE, &rows)
}

/// What earlier tries of this step had scored when the scorer failed; what was refused is asked again.
fn scored_before(context: &JobContext<'_>) -> Result<BTreeMap<Question, AnswerScores>, StageError> {
    let mut scores = BTreeMap::new();
    for attempt in 1..=context.attempt {
        let relative = format!("{}/{SCORED_FILE}", layout::attempt_path(&context.job, &context.leg, attempt));
        if context.round.directory.path().join(&relative).is_file() {
            let bytes = context.round.directory.read(&relative, MAX_TABLE_BYTES)?;
            scores.extend(kept_scores(&crate::artifact::decode::<TokenRow>(&bytes)?));
        }
    }
    scores.retain(|_, answer| *answer != AnswerScores::Refused);
    Ok(scores)
}

/// Where an attempt leaves the question at which the scorer failed for the `number`th time, from 1.
fn failed_at(context: &JobContext<'_>, attempt: u32, number: usize) -> String {
    let path = layout::attempt_path(&context.job, &context.leg, attempt);
    match number {
        1 => format!("{path}/{FAILED_AT}.json"),
        _ => format!("{path}/{FAILED_AT}-{number}.json"),
    }
}

/// Leaves the question at which the scorer failed for the next attempt.
fn leave_failed_at(question: &Question, context: &JobContext<'_>) -> Result<(), StageError> {
    let bytes = serde_json::to_vec(question)
        .map_err(|error| StageError::NotAsPlanned(format!("a question that is no JSON: {error}")))?;
    let root = context.round.directory.path();
    let free = (1..).map(|number| failed_at(context, context.attempt, number));
    if let Some(relative) = free.into_iter().find(|relative| !root.join(relative).exists()) {
        context.round.directory.write_once(&relative, &bytes)?;
    }
    Ok(())
}

/// The questions at which the scorer failed in this attempt and those before it.
fn failed_before(context: &JobContext<'_>) -> Result<Vec<Question>, StageError> {
    let directory = &context.round.directory;
    let mut found = Vec::new();
    for attempt in 1..=context.attempt {
        let left = (1..).map(|number| failed_at(context, attempt, number));
        for relative in left.take_while(|relative| directory.path().join(relative).is_file()) {
            let question = serde_json::from_slice(&directory.read(&relative, MAX_BYTES)?)
                .map_err(|error| StageError::NotAsPlanned(format!("`{relative}`: {error}")))?;
            found.push(question);
        }
    }
    Ok(found)
}
