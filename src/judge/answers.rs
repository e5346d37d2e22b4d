//! What the checks look at: the answers of one read, of all reads of a submission, or of all reads of the control.

use std::collections::BTreeMap;

use super::thresholds::VerifyPolicy;
use crate::model::{RequestRow, RequestStatus, TokenRow};

/// Answers of one or several reads, each with its rows of `requests` and of `tokens`, the scorer's columns filled.
#[derive(Debug, Clone, Default)]
pub struct Answers<'a>(Vec<(&'a [RequestRow], &'a [TokenRow])>);

impl<'a> Answers<'a> {
    /// The answers of these reads, judged together.
    pub fn of(reads: impl IntoIterator<Item = (&'a [RequestRow], &'a [TokenRow])>) -> Self {
        Self(reads.into_iter().collect())
    }

    /// All requests.
    pub(super) fn requests(&self) -> impl Iterator<Item = &'a RequestRow> {
        self.0.iter().flat_map(|(requests, _)| requests.iter())
    }

    /// The tokens of all answers.
    pub(super) fn tokens(&self) -> impl Iterator<Item = &'a TokenRow> {
        self.0.iter().flat_map(|(_, tokens)| tokens.iter())
    }

    /// The requests that ended `ok`.
    pub(super) fn ok(&self) -> impl Iterator<Item = &'a RequestRow> {
        self.requests().filter(|row| row.status == RequestStatus::Ok)
    }

    /// The answers whose end is neither their own (`stop`) nor the limit that the request asked for: no model ends there.
    pub(super) fn cut(&self, policy: &VerifyPolicy) -> impl Iterator<Item = &'a RequestRow> {
        let asked = policy.max_tokens;
        // The credited count may differ from the server's by a character that the cut has split.
        let is_whole = move |row: &RequestRow| match row.finish_reason.as_deref() {
            Some("stop") => true,
            Some("length") => {
                let limit = row.max_tokens.or(asked);
                limit.is_none_or(|limit| row.tokens.max(row.logprob_tokens).saturating_add(1) >= limit)
            }
            _ => false,
        };
        self.ok().filter(move |row| !is_whole(row))
    }

    /// Numbers of the prompts whose answers the scorer refused, once for each answer.
    pub(super) fn refused(&self) -> Vec<u32> {
        let answers = self.0.iter().flat_map(|(_, tokens)| {
            tokens.chunk_by(|left, right| {
                left.prompt_index == right.prompt_index && left.read_key == right.read_key
            })
        });
        answers
            .filter_map(|rows| rows.first())
            .filter(|row| row.is_refused())
            .map(|row| row.prompt_index)
            .collect()
    }

    /// Sums values of tokens by answer: (sum, number of values) for each.
    pub(super) fn clusters(values: impl Iterator<Item = (&'a TokenRow, f64)>) -> Vec<(f64, f64)> {
        let mut clusters: BTreeMap<(&str, u32), (f64, f64)> = BTreeMap::new();
        for (row, value) in values {
            let cluster = clusters.entry((&row.read_key, row.prompt_index)).or_default();
            cluster.0 += value;
            cluster.1 += 1.0;
        }
        clusters.into_values().collect()
    }
}
