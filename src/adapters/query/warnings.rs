//! What was left out of an answer, for people.

use crate::adapters::store::RoundDirectory;

/// Most warnings that are told; the rest is counted.
const MAX_WARNINGS: usize = 20;

/// Warnings on their way to the user, of which only so many are told.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    told: Vec<String>,
    untold: usize,
}

impl Warnings {
    pub(super) fn add(&mut self, warning: String) {
        if self.told.len() < MAX_WARNINGS {
            self.told.push(warning);
        } else {
            self.untold += 1;
        }
    }

    pub(super) fn left_out(&mut self, round: &RoundDirectory, table: &str, why: &str) {
        self.add(format!("table `{table}` of round {} is left out: {why}", round.round_id()));
    }

    pub(super) fn told(mut self) -> Vec<String> {
        if self.untold > 0 {
            self.told.push(format!("and {} more warnings", self.untold));
        }
        self.told
    }
}
