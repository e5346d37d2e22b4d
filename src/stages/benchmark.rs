//! `benchmark`: sends the round's prompts and keeps every byte of the answers with the time it came.
//!
//! All reads of a round get the same prompts, drawn from the round's secret seed. The answers that are timed
//! here are the answers that are judged later: `answers.parquet` is what `verify-logprobs` scores, and
//! `streams.parquet` with `exchanges.parquet` holds what came, from which all of it is derived.

use std::time::Duration;

use bytes::Bytes;

use super::kept_streams::{KeptStreams, Measured};
use super::{JobContext, StageError, handle, write_rows, write_table};
use crate::client::{Deadline, LoadPlan, LoadResult, Target, run_single_stream};
use crate::measure::{PinnedTokenizer, Prompt, RequestShape, Workload, request_body};
use crate::model::{Arm, ReadRow, ReadSpec, ReadStatus, RequestRow, RequestStatus};
use crate::pipeline::stage::TimeSpan;
use crate::pipeline::stage::benchmark::{Output, Parameters};

/// Most prompts of one read; more are a mistake.
pub(super) const MAX_PROMPTS: u32 = 100_000;

/// The prompts of a round: the same for every read, so that reads can be compared prompt by prompt.
pub(super) fn prompts(context: &JobContext<'_>, count: u32) -> Vec<Prompt> {
    Workload::prompts(&context.round.seed.derive(&["benchmark", "prompts"]), count)
}

/// The chat endpoint below `http://host:port`.
pub(super) fn target(endpoint: &str) -> Result<Target, StageError> {
    let address = endpoint.strip_prefix("http://").and_then(|rest| rest.trim_end_matches('/').parse().ok());
    let address = address.ok_or_else(|| {
        StageError::Parameter(format!("`endpoint` is `{endpoint}`, want `http://address:port`"))
    })?;
    Ok(Target { address, path: "/v1/chat/completions".to_owned() })
}

pub(super) async fn run(parameters: Parameters, context: &mut JobContext<'_>) -> Result<Output, StageError> {
    if !(1..=MAX_PROMPTS).contains(&parameters.prompts) {
        return Err(StageError::Parameter(format!(
            "`prompts` is {}, want 1 to {MAX_PROMPTS}",
            parameters.prompts
        )));
    }
    let tokenizer = load_tokenizer(context)?;
    let shape = RequestShape {
        model: context.server()?.model_name.clone(),
        max_tokens: parameters.max_tokens,
        top_logprobs: parameters.top_logprobs,
        seed: 0,
    };
    let prompts = prompts(context, parameters.prompts);
    let bodies = prompts.iter().map(|prompt| Bytes::from(request_body(&shape, &prompt.text))).collect();
    let plan = LoadPlan {
        target: target(&parameters.endpoint)?,
        bodies,
        deadline: Deadline(parameters.request_deadline.0),
    };
    let measured = Measured { read_key: &parameters.read.key, prompts: &prompts, tokenizer: &tokenizer };
    let mut kept = KeptStreams::begin(measured, context)?;
    let result = load(plan, &mut kept, context).await?;
    let (requests, answers) = kept.finish(context)?;
    let failed: Vec<&RequestRow> =
        requests.iter().filter(|request| request.status != RequestStatus::Ok).collect();
    let read = read_row(&parameters.read, &result, (requests.len(), failed.len()), context);
    let failure = failed.first().map(|request| {
        let flags = request.flags.iter().map(|flag| flag.as_str()).collect::<Vec<_>>().join(", ");
        format!("prompt {} ended {} {flags}", request.prompt_index, request.status)
    });
    let (request_count, failed_count) = (requests.len(), failed.len());
    write_rows(context, "read.parquet", &[read])?;
    write_rows(context, "answers.parquet", &answers)?;
    write_table(context, &requests)?;

    let TimeSpan(limit) = parameters.max_client_lag;
    if let Some(lag) = result.health.lag_p99.filter(|lag| *lag > limit) {
        return Err(StageError::ClientLag { lag, limit });
    }
    if let Some(first) = failure.filter(|_| parameters.read.arm == Arm::Baseline) {
        return Err(StageError::BaselineFailed { failed: failed_count, requests: request_count, first });
    }
    Ok(Output { requests: request_count as u64, failed: failed_count as u64, data: handle(context)? })
}

/// Runs the load, keeps what comes and tells how far it is; an early end of the server ends it by its failing
/// requests.
async fn load(
    plan: LoadPlan,
    kept: &mut KeptStreams<'_>,
    context: &JobContext<'_>,
) -> Result<LoadResult, StageError> {
    let total = plan.bodies.len();
    let (sender, mut ended) = tokio::sync::mpsc::channel(1);
    // Dropping this stage's future, as cancellation does, stops the load's thread too.
    let cancel = context.cancel.child_token().drop_guard();
    let mut running = std::pin::pin!(run_single_stream(plan, sender, cancel.token().clone()));
    let (mut result, mut done) = (None, 0);
    loop {
        tokio::select! {
            capture = ended.recv() => {
                let Some(capture) = capture else { break };
                kept.take(capture)?;
                done += 1;
                context.tell("benchmark", done, total);
            }
            ran = &mut running, if result.is_none() => result = Some(ran),
        }
    }
    let result = match result {
        Some(ran) => ran,
        None => running.await,
    };
    result.map_err(|source| StageError::Machine { attempted: "run the load client".to_owned(), source })
}

fn read_row(
    read: &ReadSpec,
    result: &LoadResult,
    (requests, failed_requests): (usize, usize),
    context: &JobContext<'_>,
) -> ReadRow {
    let nanos = |span: Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
    let machine = crate::adapters::machine::facts();
    ReadRow {
        round_id: context.round.round_id.to_string(),
        read_key: read.key.clone(),
        arm: read.arm,
        hotkey: read.hotkey.as_ref().map(ToString::to_string),
        image: read.image.to_string(),
        digest: read.digest.to_string(),
        position: read.position,
        sequence: read.sequence.clone(),
        attempt: context.attempt,
        runner: context.runner.name.clone(),
        boot_id: context.notes.boot.as_ref().map(|(id, _)| id.clone()),
        boot_ns: context.notes.boot.as_ref().map(|(_, took)| nanos(*took)),
        warm_up_ns: context.notes.warm_up.map(nanos),
        benchmark_ns: Some(nanos(result.duration)),
        started_at_us: context.started_at_us,
        status: ReadStatus::Measured,
        fault: None,
        reason: None,
        detail: None,
        requests: requests as u32,
        failed_requests: failed_requests as u32,
        client_lag_p50_ns: result.health.lag_p50.map(nanos),
        client_lag_p99_ns: result.health.lag_p99.map(nanos),
        client_cpu_ns: Some(nanos(result.health.cpu)),
        machine_cpu: machine.cpu,
        machine_cpus: machine.cpus,
        machine_memory_bytes: machine.memory_bytes,
    }
}

/// The tokenizer of the model that the job's server was booted with; the runner's before that.
pub(super) fn load_tokenizer(context: &JobContext<'_>) -> Result<PinnedTokenizer, StageError> {
    let model_dir = context.notes.model_dir.as_ref().unwrap_or(&context.runner.model_dir);
    let path = model_dir.join("tokenizer.json");
    let bytes = std::fs::read(&path)
        .map_err(|source| StageError::Tokenizer { path: path.clone(), why: source.to_string() })?;
    PinnedTokenizer::from_bytes(&bytes)
        .map_err(|error| StageError::Tokenizer { path, why: error.to_string() })
}
