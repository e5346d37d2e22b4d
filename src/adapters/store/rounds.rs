//! All rounds of a data directory, and one of them in full. What cannot be read is said, never fatal.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::{RoundDirectory, StoreError, io_error};
use crate::artifact::{JournalEvent, JournalLine, layout};
use crate::model::{Conclusion, LeaderboardRow};
use crate::report::text::error_chain;
use crate::report::{JobState, LegState, RoundDetail, RoundState, RoundSummary, TableCount, Winner};

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
    let lines = match directory.read_journal() {
        Ok(replay) => replay.lines,
        Err(error) => {
            note(error);
            Vec::new()
        }
    };
    let file = directory.read_round_file().map_err(&mut note).ok();
    let leaderboard = match directory.read_table::<LeaderboardRow>() {
        Ok(rows) => rows,
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            note(error);
            Vec::new()
        }
    };
    let started = lines.iter().find_map(|line| match &line.event {
        JournalEvent::RoundStarted { pipeline, runner, .. } => Some((pipeline.clone(), runner.clone())),
        _ => None,
    });
    let (pipeline, runner) = started.unzip();
    let state = state(&lines, directory);
    let winner = leaderboard.first().filter(|row| row.score > 0.0).map(|row| Winner {
        hotkey: row.hotkey.clone(),
        image: row.image.clone(),
        score: row.score,
    });
    let summary = RoundSummary {
        round_id: directory.round_id().clone(),
        path: directory.path().display().to_string(),
        pipeline: pipeline.or_else(|| file.as_ref().map(|file| file.pipeline_path.clone())),
        started_at: file.map(|file| file.started_at).or_else(|| lines.first().map(|line| line.at.clone())),
        ended_at: lines.last().filter(|_| matches!(state, RoundState::Ended(_))).map(|line| line.at.clone()),
        state,
        winner,
        is_sealed: directory.is_sealed(),
        problem: warnings.first().cloned(),
    };
    RoundDetail {
        summary,
        runner,
        jobs: job_states(&lines),
        leaderboard,
        tables: published(&lines),
        warnings,
    }
}

fn state(lines: &[JournalLine], directory: &RoundDirectory) -> RoundState {
    match lines.last().map(|line| &line.event) {
        Some(JournalEvent::RoundEnded { conclusion, .. }) => RoundState::Ended(*conclusion),
        _ if directory.holder().is_some() => RoundState::Running,
        _ => RoundState::Interrupted,
    }
}

/// The tables published, by name; of one published again the last counts.
fn published(lines: &[JournalLine]) -> Vec<TableCount> {
    let mut rows = BTreeMap::new();
    for line in lines {
        if let JournalEvent::Published { tables } = &line.event {
            rows.extend(tables.iter().map(|table| (table.table.clone(), table.rows)));
        }
    }
    rows.into_iter().map(|(table, rows)| TableCount { table, rows }).collect()
}

/// How far each job and leg came, in the order in which the jobs started.
pub fn job_states(lines: &[JournalLine]) -> Vec<JobState> {
    let mut jobs: Vec<JobState> = Vec::new();
    for line in lines {
        match &line.event {
            JournalEvent::JobStarted { job } => state_of_job(&mut jobs, job).conclusion = None,
            JournalEvent::JobPlanned { job, legs } => {
                let job = state_of_job(&mut jobs, job);
                for leg in legs {
                    state_of_leg(job, leg);
                }
            }
            JournalEvent::LegStarted { job, leg, attempt, .. } => {
                let leg = state_of_leg(state_of_job(&mut jobs, job), leg);
                *leg = LegState { leg: leg.leg.clone(), attempts: *attempt, conclusion: None, reason: None };
            }
            JournalEvent::LegEnded { job, leg, conclusion, reason, .. } => {
                let leg = state_of_leg(state_of_job(&mut jobs, job), leg);
                leg.conclusion = Some(*conclusion);
                leg.reason.clone_from(reason);
            }
            JournalEvent::LegSkipped { job, leg, .. } => {
                state_of_leg(state_of_job(&mut jobs, job), leg).conclusion = Some(Conclusion::Skipped);
            }
            JournalEvent::JobEnded { job, conclusion, reason, .. } => {
                let job = state_of_job(&mut jobs, job);
                job.conclusion = Some(*conclusion);
                job.reason.clone_from(reason);
            }
            JournalEvent::RoundStarted { .. }
            | JournalEvent::StepStarted { .. }
            | JournalEvent::StepEnded { .. }
            | JournalEvent::RetryScheduled { .. }
            | JournalEvent::Published { .. }
            | JournalEvent::RoundEnded { .. }
            | JournalEvent::Interrupted { .. } => {}
        }
    }
    jobs
}

fn state_of_job<'a>(jobs: &'a mut Vec<JobState>, name: &str) -> &'a mut JobState {
    let place = jobs.iter().position(|job| job.job == name).unwrap_or_else(|| {
        jobs.push(JobState { job: name.to_owned(), conclusion: None, reason: None, legs: Vec::new() });
        jobs.len() - 1
    });
    &mut jobs[place]
}

fn state_of_leg<'a>(job: &'a mut JobState, key: &str) -> &'a mut LegState {
    let place = job.legs.iter().position(|leg| leg.leg == key).unwrap_or_else(|| {
        job.legs.push(LegState { leg: key.to_owned(), attempts: 0, conclusion: None, reason: None });
        job.legs.len() - 1
    });
    &mut job.legs[place]
}
