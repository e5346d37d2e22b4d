//! `plan-confirm`: who is measured a second time, and when.

use super::benchmark::MeasuredLegs;
use super::declare::{outputs, parameters};
use super::plan_reads::Baseline;
use super::{Handle, fetch_commitments, verify_logprobs};
use crate::judge::{RankPolicy, ScorePolicy};
use crate::model::{Hotkey, ReadSpec};

parameters! {
    /// What the first look measured, and how the second one is laid out.
    {
        /// the handle to the commitments: the output `data` of `fetch-commitments`
        "commitments" commitments: Handle<fetch_commitments::Output>,
        /// the measured legs: `needs.<job>.legs`, or a list of such lists
        "reads" reads: MeasuredLegs,
        /// the handle to the verdicts: the output `data` of `verify-logprobs`
        "verdicts" verdicts: Handle<verify_logprobs::Output>,
        /// the baseline: its image and digest
        "baseline" baseline: Baseline,
        /// how often each finalist is read
        "rounds" rounds: u32 = 1,
        /// formula, margins and gates of the speed comparison, by name; the same as `rank`'s
        "score" score: ScorePolicy = ScorePolicy::default(),
        /// how places are taken; the same as `rank`'s
        "rank" rank: RankPolicy = RankPolicy::default(),
    }
}

outputs! {
    /// The reads of the second look, in the order of measurement.
    {
        /// a list of {key, arm, hotkey, image, digest, position, sequence}
        "reads" reads: Vec<ReadSpec>,
        /// how many reads there are; 0 where no paid place is in anybody's reach
        "count" count: u64,
        /// the hotkeys of those that are measured again, in the order of commitment
        "finalists" finalists: Vec<Hotkey>,
    }
}
