//! `rank`: decisions, scores and the leaderboard.

use super::benchmark::MeasuredLegs;
use super::declare::{outputs, parameters};
use super::{Handle, fetch_commitments, verify_logprobs};
use crate::judge::{RankPolicy, ScorePolicy};
use crate::model::LeaderboardRow;

parameters! {
    /// What is ranked, and by which rules.
    {
        /// the handle to the commitments: the output `data` of `fetch-commitments`
        "commitments" commitments: Handle<fetch_commitments::Output>,
        /// the measured legs: `needs.<job>.legs`, or a list of such lists
        "reads" reads: MeasuredLegs,
        /// the handle to the verdicts: the output `data` of `verify-logprobs`
        "verdicts" verdicts: Handle<verify_logprobs::Output>,
        /// the legs of the second look, as `reads`; without it the first look decides about the places
        "confirm" confirm: Option<MeasuredLegs>,
        /// the handle to the verdicts of the second look; none where nobody was measured again
        "confirm-verdicts" confirm_verdicts: Option<Handle<verify_logprobs::Output>>,
        /// formula, margins and gates of the speed comparison, by name
        "score" score: ScorePolicy = ScorePolicy::default(),
        /// how the reward is split
        "rank" rank: RankPolicy = RankPolicy::default(),
    }
}

outputs! {
    /// Who stands where.
    {
        /// the leaderboard
        "leaderboard" leaderboard: Vec<LeaderboardRow>,
        /// the winner's hotkey, empty if there is none
        "winner" winner: String,
        /// how many submissions could not be decided
        "held" held: u64,
    }
}
