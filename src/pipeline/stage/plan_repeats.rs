//! `plan-repeats`: what is measured again for what the machine lost.

use super::benchmark::MeasuredLegs;
use super::declare::{outputs, parameters};
use super::plan_reads::Baseline;
use crate::judge::ScorePolicy;
use crate::model::ReadSpec;

parameters! {
    /// What a look measured, and beside which baseline its repeats are measured.
    {
        /// the measured legs of one look: `needs.<job>.legs`
        "reads" reads: MeasuredLegs,
        /// the baseline: its image and digest
        "baseline" baseline: Baseline,
        /// formula and margins of the speed comparison, by name; the same as `rank`'s. What stood between baselines that differ by more
        /// than `max-drift` is measured again
        "score" score: ScorePolicy = ScorePolicy::default(),
    }
}

outputs! {
    /// The repeats in the order of measurement.
    {
        /// a list of {key, arm, hotkey, image, digest, position, sequence, brackets, repeats}
        "reads" reads: Vec<ReadSpec>,
        /// how many reads there are; 0 where nothing was lost
        "count" count: u64,
        /// the keys of the reads that are measured again
        "repeated" repeated: Vec<String>,
    }
}
