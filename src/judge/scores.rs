//! What the trusted scorer is asked, and its answers in the rows of `tokens`.
//!
//! A question is an answer that was given, whoever gave it: identical ones are asked once, and the scorer never
//! learns whose they are.

use std::collections::BTreeMap;

use crate::model::TokenRow;

/// How probable one forced token is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenScore {
    /// Log probability of the token, natural logarithm.
    pub logprob: f64,
    /// Rank of the token; 1 is the most probable.
    pub rank: u32,
    /// Log probability of the most probable token there, natural logarithm.
    pub top_logprob: f64,
}

/// What the scorer said of one answer.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerScores {
    /// The score of each of its tokens.
    Scored(Vec<TokenScore>),
    /// The scorer takes no such answer: it is longer than any that the model gives, or no text of the model's at all.
    Refused,
}

/// One answer: the prompt's number and the answer's token ids.
pub type Question = (u32, Vec<u32>);

fn is_same_answer(left: &TokenRow, right: &TokenRow) -> bool {
    left.prompt_index == right.prompt_index && left.read_key == right.read_key
}

fn question(rows: &[TokenRow]) -> Option<Question> {
    Some((rows.first()?.prompt_index, rows.iter().map(|row| row.token_id).collect()))
}

/// Every different answer of these reads once; the rows of an answer lie together and in order.
pub fn questions<'a>(reads: impl IntoIterator<Item = &'a [TokenRow]>) -> Vec<Question> {
    let answers = reads.into_iter().flat_map(|rows| rows.chunk_by(is_same_answer));
    let mut questions: Vec<Question> = answers.filter_map(question).collect();
    questions.sort_unstable();
    questions.dedup();
    questions
}

/// Fills the scorer's columns of the answers that were scored or refused; the others stay as they are.
pub fn fill_scores(rows: &mut [TokenRow], scores: &BTreeMap<Question, AnswerScores>) {
    for answer in rows.chunk_by_mut(is_same_answer) {
        match question(answer).and_then(|question| scores.get(&question)) {
            None => {}
            Some(AnswerScores::Refused) => {
                for row in answer {
                    row.scorer_rank = Some(TokenRow::REFUSED_RANK);
                }
            }
            Some(AnswerScores::Scored(scores)) => {
                for (row, score) in answer.iter_mut().zip(scores) {
                    row.scorer_logprob = Some(score.logprob);
                    row.scorer_rank = Some(score.rank);
                    row.scorer_top_logprob = Some(score.top_logprob);
                }
            }
        }
    }
}

/// What stands in the rows of answers that were asked for, by question: what [`fill_scores`] filled them with.
pub fn kept_scores(rows: &[TokenRow]) -> BTreeMap<Question, AnswerScores> {
    let score = |row: &TokenRow| {
        Some(TokenScore {
            logprob: row.scorer_logprob?,
            rank: row.scorer_rank?,
            top_logprob: row.scorer_top_logprob?,
        })
    };
    let scored = |answer: &[TokenRow]| {
        if answer.iter().all(TokenRow::is_refused) {
            return Some((question(answer)?, AnswerScores::Refused));
        }
        let scores = answer.iter().map(score).collect::<Option<Vec<TokenScore>>>()?;
        Some((question(answer)?, AnswerScores::Scored(scores)))
    };
    rows.chunk_by(is_same_answer).filter_map(scored).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_question_an_answer_and_its_scores_for_all_who_gave_it() {
        let row = |read: &str, prompt_index, position, token_id| TokenRow {
            read_key: read.to_owned(),
            prompt_index,
            position,
            token_id,
            ..TokenRow::default()
        };
        let mut rows = [
            row("a", 0, 0, 7),
            row("a", 0, 1, 8),
            row("a", 1, 0, 7),
            row("b", 1, 0, 7),
            row("b", 2, 0, 9),
            row("b", 3, 0, 9),
        ];
        let asked = questions([&rows[..3], &rows[3..]]);
        assert_eq!(asked, [(0, vec![7, 8]), (1, vec![7]), (2, vec![9]), (3, vec![9])]);
        let score = |logprob| TokenScore { logprob, rank: 1, top_logprob: -0.5 };
        let scores = BTreeMap::from([
            ((0, vec![7, 8]), AnswerScores::Scored(vec![score(-1.0), score(-2.0)])),
            ((1, vec![7]), AnswerScores::Scored(vec![score(-3.0)])),
            ((3, vec![9]), AnswerScores::Refused),
        ]);
        fill_scores(&mut rows, &scores);
        let filled: Vec<_> = rows.iter().map(|row| row.scorer_logprob).collect();
        assert_eq!(filled, [Some(-1.0), Some(-2.0), Some(-3.0), Some(-3.0), None, None]);
        assert_eq!(rows.each_ref().map(TokenRow::is_refused), [false, false, false, false, false, true]);
        assert_eq!(kept_scores(&rows), scores, "and nothing of what was never asked");
    }
}
