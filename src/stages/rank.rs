//! `rank`: from kept rows to decisions, scores and the leaderboard.
//!
//! Everything it uses is on disk: the requests of each read, the verdicts, the commitments. It measures
//! nothing, so it can be done again, by anybody, with this policy or another.

use super::{JobContext, StageError, load, load_columns, write_table};
use crate::judge::{
    Arrived, LookReads, LookRules, ReadTimes, Speeds, Standings, TimedRead, accounts, first_missing,
    leaderboard,
};
use crate::model::{
    CommitmentRow, Fault, Hotkey, ReadRow, ReadSpec, ReadStatus, Reason, RequestTimes, Standing,
    SubmissionRow, VerdictRow,
};
use crate::pipeline::stage::benchmark::MeasuredLeg;
use crate::pipeline::stage::rank::{Output, Parameters};

pub(super) fn run(parameters: &Parameters, context: &JobContext<'_>) -> Result<Output, StageError> {
    let round_id = context.round.round_id.as_str();
    let commitments: Vec<CommitmentRow> = load(context, &parameters.commitments, "commitments.parquet")?;
    let submissions: Vec<SubmissionRow> = load(context, &parameters.commitments, "submissions.parquet")?;
    let verdicts: Vec<VerdictRow> = load(context, &parameters.verdicts, "verdicts.parquet")?;
    let requests = requests_of(&parameters.reads, context)?;
    let reads = read_rows_of(&parameters.reads, context)?;
    account(parameters, (&submissions, &reads, &verdicts), (&requests, context))?;
    let timed: Vec<TimedRead<'_>> = requests.iter().map(|(read, requests)| timed(read, requests)).collect();
    let measured = LookReads::of(&parameters.score, &timed);
    let rules = LookRules::only(&parameters.score, submissions.len());
    let measure = Speeds::of(&parameters.score, (round_id, rules), &submissions, (&measured, None));
    let standings = Standings {
        round_id,
        submissions: &submissions,
        commitments: &commitments,
        reads: &reads,
        verdicts: &verdicts,
        measure: &measure,
        confirm: None,
    };
    let (rows, head_to_head) = leaderboard((&parameters.score, &parameters.rank), &standings);
    write_table(context, &reads)?;
    write_table(context, &measure.decisions)?;
    write_table(context, &head_to_head)?;
    write_table(context, &rows)?;
    let held = rows.iter().filter(|row| row.standing == Standing::Held).count();
    let winner = rows.iter().find(|row| row.share > 0.0).map(|row| row.hotkey.clone()).unwrap_or_default();
    Ok(Output { held: held as u64, winner, leaderboard: rows })
}

/// What arrived against what was planned, before anything is ranked.
fn account(
    parameters: &Parameters,
    (submissions, reads, verdicts): (&[SubmissionRow], &[ReadRow], &[VerdictRow]),
    (requests, context): (&[(&ReadSpec, Vec<RequestTimes>)], &JobContext<'_>),
) -> Result<(), StageError> {
    let planned: Vec<&ReadSpec> = parameters.reads.iter().map(|leg| &leg.matrix.read).collect();
    let requests: Vec<&RequestTimes> = requests.iter().flat_map(|(_, requests)| requests).collect();
    let round_id = context.round.round_id.as_str();
    let rows =
        accounts(&Arrived { round_id, submissions, planned: &planned, reads, requests: &requests, verdicts });
    write_table(context, &rows)?;
    match first_missing(&rows) {
        None => Ok(()),
        Some((count, first)) => Err(StageError::Missing { count, first }),
    }
}

/// The requests of each measured read. Its answers, many times as large, do not enter its speed.
fn requests_of<'a>(
    legs: &'a [MeasuredLeg],
    context: &JobContext<'_>,
) -> Result<Vec<(&'a ReadSpec, Vec<RequestTimes>)>, StageError> {
    let measured = legs.iter().filter_map(|leg| Some((&leg.matrix.read, leg.outputs.data.as_ref()?)));
    measured.map(|(read, data)| Ok((read, load_columns(context, data, "requests.parquet")?))).collect()
}

fn timed<'a>(read: &'a ReadSpec, requests: &'a [RequestTimes]) -> TimedRead<'a> {
    let times = ReadTimes { sequence: &read.sequence, position: read.position, requests };
    TimedRead { arm: read.arm, hotkey: read.hotkey.as_ref().map(Hotkey::as_str), times }
}

/// One row for each read: what the benchmark left, or what is known of one that did not come so far.
fn read_rows_of(legs: &[MeasuredLeg], context: &JobContext<'_>) -> Result<Vec<ReadRow>, StageError> {
    let mut rows = Vec::with_capacity(legs.len());
    for leg in legs {
        if let Some(data) = &leg.outputs.data {
            rows.extend(load::<ReadRow, _>(context, data, "read.parquet")?);
            continue;
        }
        let spec = leg.matrix.read.clone();
        let unexplained = || Reason::new(Fault::Unknown, "not-measured", "the read ended without a reason");
        let reason = leg.reason.clone().unwrap_or_else(unexplained);
        rows.push(ReadRow {
            round_id: context.round.round_id.to_string(),
            read_key: spec.key,
            arm: spec.arm,
            hotkey: spec.hotkey.map(String::from),
            image: spec.image.into(),
            digest: spec.digest.into(),
            position: spec.position,
            sequence: spec.sequence,
            attempt: leg.attempt,
            runner: leg.runner.clone(),
            boot_id: None,
            boot_ns: None,
            warm_up_ns: None,
            benchmark_ns: None,
            started_at_us: leg.started_at_us,
            status: ReadStatus::Failed,
            fault: Some(reason.fault),
            reason: Some(reason.code),
            detail: Some(reason.message),
            requests: 0,
            failed_requests: 0,
            client_lag_p50_ns: None,
            client_lag_p99_ns: None,
            client_cpu_ns: None,
            machine_cpu: None,
            machine_cpus: None,
            machine_memory_bytes: None,
            tokenizer_digest: None,
        });
    }
    Ok(rows)
}
