//! `set-weights`: turns the leaderboard's shares into the weights the chain would store.
//!
//! A dry run so far: the vector is computed and published, nothing is sent.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{JobContext, StageError};
use crate::judge::{WeightsPolicy, weights};
use crate::model::LeaderboardRow;

/// Parameters of the stage.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Parameters {
    /// What `rank` gave.
    pub leaderboard: Vec<LeaderboardRow>,
    /// Subnet.
    pub netuid: u32,
    /// Whether nothing is sent.
    #[serde(default = "yes")]
    pub dry_run: bool,
}

fn yes() -> bool {
    true
}

pub(super) fn run(
    parameters: &Parameters,
    context: &JobContext<'_>,
) -> Result<Map<String, Value>, StageError> {
    if !parameters.dry_run {
        let why =
            "`dry-run: false` needs a chain, and no runner here has one: leave it out, or set it to true";
        return Err(StageError::Parameter(why.to_owned()));
    }
    let policy = WeightsPolicy { netuid: parameters.netuid, is_dry_run: parameters.dry_run };
    let rows = weights(&policy, &parameters.leaderboard);
    let table = context.round.directory.write_table(&rows)?;
    let mut outputs = Map::new();
    outputs.insert("tables".to_owned(), serde_json::to_value([table])?);
    outputs.insert("weights".to_owned(), serde_json::to_value(rows)?);
    Ok(outputs)
}
