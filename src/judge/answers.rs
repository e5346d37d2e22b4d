//! What the checks look at: the answers of one read, or of all reads of the control.

use std::collections::BTreeMap;

use crate::model::{RequestRow, RequestStatus, TokenRow};

/// Answers of one or several reads: their requests, and their tokens with the scorer's columns filled.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answers<'a> {
    /// The rows of `requests` of these reads.
    pub requests: &'a [RequestRow],
    /// The rows of `tokens` of these answers.
    pub tokens: &'a [TokenRow],
}

impl<'a> Answers<'a> {
    /// The requests that ended `ok`.
    pub(super) fn ok(&self) -> impl Iterator<Item = &'a RequestRow> {
        self.requests.iter().filter(|row| row.status == RequestStatus::Ok)
    }

    /// Numbers of the prompts whose answers the scorer refused, once for each answer.
    pub(super) fn refused(&self) -> Vec<u32> {
        let answers = self.tokens.chunk_by(|left, right| {
            left.prompt_index == right.prompt_index && left.read_key == right.read_key
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
