//! All rounds of a data directory, and one of them in full. What cannot be read is said, never fatal.

use std::cmp::Reverse;
use std::fs;
use std::io;
use std::path::Path;

use super::{RoundDirectory, StoreError, io_error};
use crate::artifact::{LegAttempt, RoundState, layout};
use crate::model::{Conclusion, LeaderboardRow};
use crate::pipeline::stage::StageName;
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

/// What `rank` came to in a round that has not published it; none where no `rank` succeeded.
fn ranked(directory: &RoundDirectory, state: &RoundState) -> Option<Vec<LeaderboardRow>> {
    let legs = state.jobs.iter().flat_map(|job| job.legs.iter().map(move |leg| (job, leg)));
    let mut ranked = legs.filter(|(_, leg)| {
        leg.conclusion() == Some(Conclusion::Success)
            && leg.last().is_some_and(|attempt| attempt.has_begun(StageName::Rank))
    });
    let (job, leg) = ranked.next_back()?;
    let at = LegAttempt { job: job.job.clone(), leg: leg.key.clone(), attempt: leg.attempt() };
    directory.read_rows(&at).ok()
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
    let published = match directory.read_table::<LeaderboardRow>() {
        Ok(rows) => Some(rows),
        Err(error) if error.is_absence() => None,
        Err(error) => {
            note(error);
            Some(Vec::new())
        }
    };
    let is_leaderboard_published = published.is_some();
    let leaderboard = published.or_else(|| ranked(directory, &journal)).unwrap_or_default();
    let phase = match journal.end {
        Some(end) => RoundPhase::Ended(end.conclusion),
        None if directory.holder().is_none() => RoundPhase::Interrupted,
        None if journal.group_wait.is_some() => RoundPhase::Waiting,
        None => RoundPhase::Running,
    };
    let waits_for = journal.group_wait.filter(|_| phase == RoundPhase::Waiting);
    let first = leaderboard.first().filter(|row| is_leaderboard_published && row.score > 0.0);
    let winner =
        first.map(|row| Winner { hotkey: row.hotkey.clone(), image: row.image.clone(), score: row.score });
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
        is_leaderboard_published,
        tables: journal.tables.into_values().map(TableCount::from).collect(),
        warnings,
    }
}
