//! How it stands with each round: whether its files can be read, whether it is done, whether anybody runs it.

use jiff::Timestamp;

use super::{RoundDirectory, StoreError, disk, read_pid, seal};
use crate::artifact::{RoundState, layout};
use crate::report::doctor::rounds::{RoundFacts, RoundHealth};
use crate::report::text::error_chain;

/// How it stands with all rounds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoundsHealth {
    /// Each round.
    pub rounds: Vec<RoundFacts>,
    /// The newest line of all journals, and the round it is of.
    pub newest: Option<(Timestamp, String)>,
}

/// Looks at these rounds; changes nothing.
pub(in crate::adapters) fn health(directories: &[RoundDirectory]) -> RoundsHealth {
    let mut found = RoundsHealth::default();
    for directory in directories {
        let journal = directory.read_journal();
        let last = journal.as_ref().ok().and_then(|replay| replay.lines.last()).map(|line| line.at);
        let last = last.map(|at| (at, directory.round_id().to_string()));
        found.newest = found.newest.max(last);
        let state = journal.map(|replay| RoundState::of(&replay.lines));
        let health = of(directory, state).unwrap_or_else(|error| RoundHealth::Damaged(error_chain(&error)));
        found.rounds.push(RoundFacts { round_id: directory.round_id().clone(), health });
    }
    found
}

fn of(directory: &RoundDirectory, state: Result<RoundState, StoreError>) -> Result<RoundHealth, StoreError> {
    let seal = directory.read_seal()?;
    // Of its running process nobody asks where the round is sealed: nothing more is written to it.
    if seal.is_none() && directory.is_held()? {
        return Ok(RoundHealth::Running(directory.holder()));
    }
    directory.read_round_file()?;
    let state = state?;
    Ok(match (seal, state.end) {
        (Some(_), _) => RoundHealth::Sealed,
        (None, Some(end)) => RoundHealth::Unsealed(end.conclusion),
        (None, None) => {
            let lock = disk::open(&directory.path().join(layout::LOCK_FILE)).ok();
            RoundHealth::Unfinished {
                dead: lock.and_then(read_pid),
                half_written: seal::partial_files(directory.path())?.len(),
            }
        }
    })
}
