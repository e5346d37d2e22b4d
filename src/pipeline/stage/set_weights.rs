//! `set-weights`: the leaderboard as weights.

use super::declare::{outputs, parameters};
use crate::model::{LeaderboardRow, PublishedTable, WeightRow};

parameters! {
    /// Which leaderboard, for which subnet.
    {
        /// the leaderboard, as `rank` gave it
        "leaderboard" leaderboard: Vec<LeaderboardRow>,
        /// the subnet's number
        "netuid" netuid: u32,
        /// whether the weights are only computed
        "dry-run" dry_run: bool = true,
    }
}

outputs! {
    /// The weights that were computed.
    {
        /// the weights as computed
        "weights" weights: Vec<WeightRow>,
        /// the table with its digest and row count
        "tables" tables: Vec<PublishedTable>,
    }
}
