//! `rank`: from kept rows to decisions, scores and the leaderboard.
//!
//! Everything it uses is on disk: the requests of each read, the verdicts, the commitments. It measures
//! nothing, so it can be done again, by anybody, with this policy or another.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::verify_logprobs::{SealedRead, read_spec, sealed_reads};
use super::{JobContext, StageError, read_rows, write_table};
use crate::judge::round::decisions;
use crate::judge::{MeasuredRead, RankPolicy, ScorePolicy, Standings, leaderboard};
use crate::model::{
    CommitmentRow, Fault, LegSummary, ReadRow, ReadStatus, Reason, Standing, SubmissionRow, VerdictRow,
};

/// Parameters of the stage.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Parameters {
    /// Where `fetch-commitments` left its rows: its output `data`.
    pub commitments: String,
    /// The measured legs, as `needs.<job>.legs`.
    pub reads: Vec<LegSummary>,
    /// Where `verify-logprobs` left its rows: its output `data`.
    pub verdicts: String,
    /// Formula, margins and gates of the speed comparison.
    #[serde(default)]
    pub score: ScorePolicy,
    /// How the reward is split.
    #[serde(default)]
    pub rank: RankPolicy,
}

pub(super) fn run(
    parameters: &Parameters,
    context: &JobContext<'_>,
) -> Result<Map<String, Value>, StageError> {
    let round_id = context.round.round_id.as_str();
    let commitments: Vec<CommitmentRow> = read_rows(context, &parameters.commitments, "commitments.parquet")?;
    let submissions: Vec<SubmissionRow> = read_rows(context, &parameters.commitments, "submissions.parquet")?;
    let verdicts: Vec<VerdictRow> = read_rows(context, &parameters.verdicts, "verdicts.parquet")?;
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
    let mut outputs = Map::new();
    outputs.insert("held".to_owned(), json!(held));
    outputs.insert("winner".to_owned(), json!(winner));
    outputs.insert("leaderboard".to_owned(), serde_json::to_value(rows)?);
    Ok(outputs)
}

/// One row a read: what the benchmark left, or what is known of one that did not come so far.
fn read_rows_of(legs: &[LegSummary], context: &JobContext<'_>) -> Result<Vec<ReadRow>, StageError> {
    let mut rows = Vec::with_capacity(legs.len());
    for leg in legs {
        if let Some(data) = leg.outputs.get("data").and_then(Value::as_str) {
            rows.extend(read_rows::<ReadRow>(context, data, "read.parquet")?);
            continue;
        }
        let spec = read_spec(leg)?;
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
