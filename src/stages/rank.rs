//! `rank`: from kept rows to decisions, scores and the leaderboard.
//!
//! Everything it uses is on disk: the requests of each read, the verdicts, the commitments. It measures
//! nothing, so it can be done again, by anybody, with this policy or another.

use super::verify_logprobs::{SealedRead, sealed_reads};
use super::{JobContext, StageError, load, write_table};
use crate::judge::round::decisions;
use crate::judge::{MeasuredRead, Standings, leaderboard};
use crate::model::{CommitmentRow, Fault, ReadRow, ReadStatus, Reason, Standing, SubmissionRow, VerdictRow};
use crate::pipeline::stage::benchmark::MeasuredLeg;
use crate::pipeline::stage::rank::{Output, Parameters};

pub(super) fn run(parameters: &Parameters, context: &JobContext<'_>) -> Result<Output, StageError> {
    let round_id = context.round.round_id.as_str();
    let commitments: Vec<CommitmentRow> = load(context, &parameters.commitments, "commitments.parquet")?;
    let submissions: Vec<SubmissionRow> = load(context, &parameters.commitments, "submissions.parquet")?;
    let verdicts: Vec<VerdictRow> = load(context, &parameters.verdicts, "verdicts.parquet")?;
    let sealed = sealed_reads(&parameters.reads, context)?;
    let reads = read_rows_of(&parameters.reads, context)?;
    let measured: Vec<MeasuredRead<'_>> = sealed.iter().map(SealedRead::measured).collect();
    let decisions = decisions(&parameters.score, round_id, &submissions, &measured);
    let standings = Standings {
        round_id,
        submissions: &submissions,
        commitments: &commitments,
        reads: &reads,
        verdicts: &verdicts,
        decisions: &decisions,
    };
    let rows = leaderboard(&parameters.rank, &standings);
    write_table(context, &reads)?;
    write_table(context, &decisions)?;
    write_table(context, &rows)?;
    let held = rows.iter().filter(|row| row.standing == Standing::Held).count();
    let winner = rows.iter().find(|row| row.share > 0.0).map(|row| row.hotkey.clone()).unwrap_or_default();
    Ok(Output { held: held as u64, winner, leaderboard: rows })
}

/// One row a read: what the benchmark left, or what is known of one that did not come so far.
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
        });
    }
    Ok(rows)
}
