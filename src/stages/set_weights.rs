//! `set-weights`: turns the leaderboard's shares into the weights the chain would store.
//!
//! A dry run so far: the vector is computed and published, nothing is sent.

use super::{JobContext, StageError};
use crate::judge::{WeightsPolicy, weights};
use crate::pipeline::stage::set_weights::{Output, Parameters};

pub(super) fn run(parameters: &Parameters, context: &JobContext<'_>) -> Result<Output, StageError> {
    if !parameters.dry_run {
        let why =
            "`dry-run: false` needs a chain, and no runner here has one: leave it out, or set it to true";
        return Err(StageError::Parameter(why.to_owned()));
    }
    let policy = WeightsPolicy { netuid: parameters.netuid, is_dry_run: parameters.dry_run };
    let rows = weights(&policy, &parameters.leaderboard);
    let table = context.round.directory.write_table(&rows)?;
    Ok(Output { weights: rows, tables: vec![table] })
}
