//! All rounds of a data directory, and one of them in full. What cannot be read is said, never fatal.

use std::cmp::Reverse;
use std::fs;
use std::io;
use std::path::Path;

use super::{RoundDirectory, StoreError, io_error};
use crate::artifact::{RoundState, layout};
use crate::model::LeaderboardRow;
use crate::report::text::error_chain;
use crate::report::{RoundDetail, RoundPhase, RoundSummary, TableCount, Winner};

/// All rounds, the newest first. Other things that lie beside them are passed over.
///
/// # Errors
/// When the directory of the rounds is there but cannot be listed.
pub fn list_rounds(data_dir: &Path) -> Result<Vec<RoundSummary>, StoreError> {
    let mut summaries: Vec<RoundSummary> =
        directories(data_dir)?.iter().map(|directory| round_detail(directory).summary).collect();
    let started = |round: &RoundSummary| round.started_at.as_deref()?.parse::<jiff::Timestamp>().ok();
    summaries.sort_by_key(|round| Reverse((started(round), round.round_id.clone())));
    Ok(summaries)
}

/// The directories of all rounds, by id.
pub(in crate::adapters) fn directories(data_dir: &Path) -> Result<Vec<RoundDirectory>, StoreError> {
    let path = data_dir.join(layout::ROUNDS_DIR);
    let entries = match fs::read_dir(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.map_err(io_error("list", &path))?,
    };
    let mut found: Vec<RoundDirectory> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| {
            let round_id = layout::round_of_dir(entry.file_name().to_str()?)?;
            Some(RoundDirectory { round_id, path: entry.path() })
        })
        .collect();
    found.sort_by(|left, right| left.round_id.cmp(&right.round_id));
    Ok(found)
}

/// All that can be read of a round.
pub fn round_detail(directory: &RoundDirectory) -> RoundDetail {
    let mut warnings = Vec::new();
    let mut note = |error: StoreError| warnings.push(error_chain(&error));
    let journal = match directory.read_journal() {
        Ok(replay) => RoundState::of(&replay.lines),
        Err(error) => {
            note(error);
            RoundState::default()
        }
    };
    let file = directory.read_round_file().map_err(&mut note).ok();
    let leaderboard = match directory.read_table::<LeaderboardRow>() {
        Ok(rows) => rows,
        Err(error) if error.is_absence() => Vec::new(),
        Err(error) => {
            note(error);
            Vec::new()
        }
    };
    let phase = match journal.end {
        Some(end) => RoundPhase::Ended(end.conclusion),
        None if directory.holder().is_none() => RoundPhase::Interrupted,
        None if journal.group_wait.is_some() => RoundPhase::Waiting,
        None => RoundPhase::Running,
    };
    let waits_for = journal.group_wait.map(|wait| wait.behind).filter(|_| phase == RoundPhase::Waiting);
    let winner = leaderboard.first().filter(|row| row.score > 0.0).map(|row| Winner {
        hotkey: row.hotkey.clone(),
        image: row.image.clone(),
        score: row.score,
    });
    let summary = RoundSummary {
        round_id: directory.round_id().clone(),
        path: directory.path().display().to_string(),
        pipeline: journal
            .start
            .as_ref()
            .map(|start| start.pipeline.clone())
            .or_else(|| file.as_ref().map(|file| file.pipeline_path.clone())),
        run_name: journal.start.as_ref().and_then(|start| start.run_name.clone()),
        parent: file.as_ref().and_then(|file| Some(file.parent.as_ref()?.round_id.clone())),
        started_at: file.map(|file| file.started_at).or_else(|| journal.started_at.map(|at| at.to_string())),
        ended_at: journal.end.map(|end| end.at.to_string()),
        state: phase,
        waits_for,
        winner,
        is_sealed: directory.is_sealed(),
        problem: warnings.first().cloned(),
    };
    RoundDetail {
        summary,
        runner: journal.start.map(|start| start.runners.join(",")),
        jobs: journal.jobs,
        leaderboard,
        tables: journal.tables.into_values().map(TableCount::from).collect(),
        warnings,
    }
}
