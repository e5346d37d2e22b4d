//! Whose answers kill the scorer: where it failed, attempt by attempt, and what follows from that.
//!
//! A scorer that fails is the machine's fault and its step is tried again. But an answer that kills it each time would end the
//! round for all, so each attempt leaves what it had asked when the scorer failed. The next one asks everybody else's answers
//! first; if the scorer takes them all and fails at an answer of the same submission again, that submission's answers are
//! refused like any that the scorer does not take. What the baseline answered too is never suspected.

use std::collections::{BTreeMap, BTreeSet};

use super::{JobContext, StageError};
use crate::artifact::layout;
use crate::judge::Question;

/// What an attempt leaves where the scorer failed at a question: the question, as JSON.
const FAILED_AT_FILE: &str = "scorer-failed-at.json";
/// Most bytes of it: an answer has no more tokens than its bound.
const MAX_BYTES: u64 = 16 << 20;
/// The failures at one submission's answers after which they are refused.
const ENOUGH: usize = 2;

/// Who gave an answer: hotkeys, none for the baseline.
pub(super) type Givers<'a> = BTreeMap<Question, BTreeSet<Option<&'a str>>>;

/// The questions at which the scorer failed, one for each attempt that did.
#[derive(Debug, Default)]
pub(super) struct Suspects(Vec<Question>);

impl Suspects {
    /// What earlier attempts of this step left.
    pub(super) fn left_before(context: &JobContext<'_>) -> Result<Self, StageError> {
        let mut found = Vec::new();
        for attempt in 1..=context.attempt {
            let path = layout::attempt_path(&context.job, &context.leg, attempt);
            let relative = format!("{path}/{FAILED_AT_FILE}");
            if context.round.directory.path().join(&relative).is_file() {
                let bytes = context.round.directory.read(&relative, MAX_BYTES)?;
                let question = serde_json::from_slice(&bytes)
                    .map_err(|error| StageError::NotAsPlanned(format!("`{relative}`: {error}")))?;
                found.push(question);
            }
        }
        Ok(Self(found))
    }

    /// Notes a failure, and leaves it for the next attempt.
    pub(super) fn add(&mut self, question: Question, context: &JobContext<'_>) -> Result<(), StageError> {
        let bytes = serde_json::to_vec(&question)
            .map_err(|error| StageError::NotAsPlanned(format!("a question that is no JSON: {error}")))?;
        let path = layout::attempt_path(&context.job, &context.leg, context.attempt);
        context.round.directory.write_once(&format!("{path}/{FAILED_AT_FILE}"), &bytes)?;
        self.0.push(question);
        Ok(())
    }

    /// How often the scorer failed at answers of each submission that gave them.
    fn failures<'a>(&self, givers: &Givers<'a>) -> BTreeMap<&'a str, usize> {
        let mut failures = BTreeMap::new();
        for question in &self.0 {
            let by = givers.get(question).filter(|by| !by.contains(&None));
            for hotkey in by.into_iter().flatten().copied().flatten() {
                *failures.entry(hotkey).or_default() += 1;
            }
        }
        failures
    }

    /// The questions that are not asked any more: all who gave that answer had the scorer fail often enough.
    pub(super) fn refused(&self, givers: &Givers<'_>) -> Vec<Question> {
        let failures = self.failures(givers);
        let is_out = |hotkey: Option<&str>| {
            hotkey.is_some_and(|hotkey| failures.get(hotkey).is_some_and(|count| *count >= ENOUGH))
        };
        let out = givers.iter().filter(|(_, by)| by.iter().copied().all(is_out));
        out.map(|(question, _)| question.clone()).collect()
    }

    /// When a question is asked: everybody's first, then those of whom the scorer failed at, then what it failed at.
    pub(super) fn turn(&self, givers: &Givers<'_>) -> impl Fn(&Question) -> u8 + use<> {
        let failures = self.failures(givers);
        let is_suspected = |by: &BTreeSet<Option<&str>>| {
            !by.contains(&None) && by.iter().flatten().any(|hotkey| failures.contains_key(hotkey))
        };
        let suspected: BTreeSet<Question> =
            givers.iter().filter(|(_, by)| is_suspected(by)).map(|(question, _)| question.clone()).collect();
        let failed_at: BTreeSet<Question> = self.0.iter().cloned().collect();
        move |question| u8::from(suspected.contains(question)) + u8::from(failed_at.contains(question))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn givers() -> Givers<'static> {
        let given = [
            (1, vec![None, Some("honest")]),
            (2, vec![Some("honest")]),
            (3, vec![Some("killer")]),
            (4, vec![Some("killer"), Some("honest")]),
            (5, vec![Some("killer")]),
        ];
        given.into_iter().map(|(prompt, by)| ((prompt, vec![7]), by.into_iter().collect())).collect()
    }

    /// After failures at these prompts: who is asked last, and who is not asked.
    fn check(failed_at: &[u32], last: &[u32], refused: &[u32]) {
        let suspects = Suspects(failed_at.iter().map(|prompt| (*prompt, vec![7])).collect());
        let givers = givers();
        let turn = suspects.turn(&givers);
        let mut order: Vec<&Question> = givers.keys().collect();
        order.sort_by_key(|question| turn(question));
        let order: Vec<u32> = order.into_iter().map(|(prompt, _)| *prompt).collect();
        assert_eq!(&order[order.len() - last.len()..], last, "{failed_at:?}");
        let found: Vec<u32> = suspects.refused(&givers).into_iter().map(|(prompt, _)| prompt).collect();
        assert_eq!(found, refused, "{failed_at:?}");
    }

    #[test]
    fn who_has_the_scorer_fail_twice_is_not_asked_for_any_more() {
        check(&[], &[], &[]);
        check(&[3], &[4, 5, 3], &[]);
        check(&[3, 5], &[4, 3, 5], &[3, 5]);
        check(&[3, 3], &[4, 5, 3], &[3, 5]);
        // What the baseline answered too says nothing about anybody.
        check(&[1, 1], &[1], &[]);
        // Who gave the same answer is asked for all others of his.
        check(&[4, 4], &[2, 3, 5, 4], &[2, 3, 4, 5]);
        check(&[2, 3], &[4, 5, 2, 3], &[]);
    }
}
