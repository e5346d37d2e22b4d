//! `publish`: gathers what the legs left into the round's tables and writes the summary.
//!
//! A stage leaves rows of a table as `<table>.parquet`. Of every leg that succeeded in the jobs that this one needs,
//! directly or through others, the last attempt's rows enter, and what earlier steps of this one left; what a failed
//! attempt left stays where it is, as a diagnostic, and is never mixed in. So what is published follows from the
//! pipeline, not from what else happens to run at the same time.

use std::collections::BTreeSet;

use super::{JobContext, StageError, data_dir, read_table};
use crate::artifact::{JobState, LegState, PublishedTable, RoundState, Table, layout};
use crate::judge::{first_missing, places};
use crate::model::{
    AccountRow, CommitmentRow, Conclusion, DecisionRow, HeadToHeadRow, LeaderboardRow, ReadRow, RequestRow,
    SubmissionRow, TokenRow, VerdictRow,
};
use crate::pipeline::stage::StageName;
use crate::pipeline::stage::publish::{Output, Parameters};
use crate::report::{SummaryInput, TableCount, summary_markdown};

pub(super) fn run(Parameters {}: &Parameters, context: &JobContext<'_>) -> Result<Output, StageError> {
    let state = RoundState::of(&context.round.kept.read_journal()?.lines);
    let is_needed = |job: &&JobState| context.upstream.contains(&job.job);
    let jobs: Vec<JobState> = state.jobs.iter().filter(is_needed).cloned().collect();
    let mut attempts = succeeded(&jobs);
    attempts.push(data_dir(context));
    let mut gathered = Gathered { context, attempts, tables: Vec::new() };
    let accounts = if jobs.iter().any(has_ranked) { gathered.accounts()? } else { Vec::new() };
    let commitments = gathered.publish::<CommitmentRow>()?;
    gathered.publish::<SubmissionRow>()?;
    let reads = gathered.publish::<ReadRow>()?;
    gathered.publish::<RequestRow>()?;
    gathered.publish::<TokenRow>()?;
    let verdicts = gathered.publish::<VerdictRow>()?;
    let decisions = gathered.publish::<DecisionRow>()?;
    gathered.publish::<HeadToHeadRow>()?;
    let leaderboard = gathered.publish::<LeaderboardRow>()?;
    gathered.write(&accounts)?;
    let tables = gathered.tables;

    let round = context.round.kept.read_round_file()?;
    let pipeline = state.start.as_ref().map_or(&round.pipeline_path, |start| &start.pipeline);
    let counts: Vec<TableCount> = tables.iter().cloned().map(TableCount::from).collect();
    let summary = summary_markdown(&SummaryInput {
        round_id: &context.round.round_id,
        pipeline,
        runner: &runner_names(&reads),
        started_at: &round.started_at,
        commitments: &commitments,
        leaderboard: &leaderboard,
        reads: &reads,
        decisions: &decisions,
        verdicts: &verdicts,
        weights: &[],
        jobs: &jobs,
        tables: &counts,
    });
    context.round.directory.write_whole(layout::SUMMARY_FILE, summary.as_bytes())?;
    Ok(Output { tables, path: context.round.directory.path().to_string_lossy().into_owned() })
}

/// The directory of the last attempt of every leg that succeeded, by job and leg.
fn succeeded(jobs: &[JobState]) -> Vec<String> {
    let legs = jobs.iter().flat_map(|job| job.legs.iter().map(move |leg| (job, leg)));
    let mut found: Vec<(&str, &str, u32)> = legs
        .filter(|(_, leg)| leg.conclusion() == Some(Conclusion::Success))
        .map(|(job, leg)| (job.job.as_str(), leg.key.as_str(), leg.attempt()))
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(job, leg, attempt)| layout::attempt_path(job, leg, attempt)).collect()
}

/// Whether a job has put submissions in order: then each has a place.
fn has_ranked(job: &JobState) -> bool {
    job.legs.iter().filter_map(LegState::last).any(|attempt| attempt.has_begun(StageName::Rank))
}

fn runner_names(reads: &[ReadRow]) -> String {
    let names: BTreeSet<&str> = reads.iter().map(|read| read.runner.as_str()).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

struct Gathered<'a> {
    context: &'a JobContext<'a>,
    attempts: Vec<String>,
    tables: Vec<PublishedTable>,
}

impl Gathered<'_> {
    /// What arrived against what was planned: of what was ranked, and of the places.
    fn accounts(&self) -> Result<Vec<AccountRow>, StageError> {
        let commitments = self.gather::<CommitmentRow>()?;
        let (submissions, leaderboard) = (self.gather::<SubmissionRow>()?, self.gather::<LeaderboardRow>()?);
        let mut rows = self.gather::<AccountRow>()?;
        let round_id = self.context.round.round_id.as_str();
        rows.extend(places(round_id, &commitments, (&submissions, &leaderboard)));
        match first_missing(&rows) {
            Some((count, first)) => Err(StageError::Missing { count, first }),
            // Whoever read no commitment at all has not read the chain.
            None if rows.is_empty() => Err(StageError::Missing { count: 1, first: "commitment".to_owned() }),
            None => Ok(rows),
        }
    }

    /// Gathers one table from all attempts, writes it, and hands its rows back.
    fn publish<T: Table>(&mut self) -> Result<Vec<T>, StageError> {
        let rows = self.gather()?;
        self.write(&rows)?;
        Ok(rows)
    }

    fn write<T: Table>(&mut self, rows: &[T]) -> Result<(), StageError> {
        self.tables.push(self.context.round.directory.write_table(rows)?);
        Ok(())
    }

    /// The rows of one table from all attempts.
    fn gather<T: Table>(&self) -> Result<Vec<T>, StageError> {
        let mut rows = Vec::new();
        for attempt in &self.attempts {
            match read_table::<T>(self.context, &format!("{attempt}/{}.parquet", T::NAME)) {
                Err(StageError::Store(error)) if error.is_absence() => {}
                found => rows.extend(found?),
            }
        }
        Ok(rows)
    }
}
