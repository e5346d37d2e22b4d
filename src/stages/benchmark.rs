//! `benchmark`: sends the round's prompts and keeps every byte of the answers with the time it came.
//!
//! The reads of a bracket get the same prompts, drawn from the round's secret seed. The answers that are timed
//! here are the answers that are judged later: `answers.parquet` is what `verify-logprobs` scores, and
//! `streams.parquet` with `exchanges.parquet` holds what came, from which all of it is derived.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::ended;
use super::idle::{Idle, Others, Watch};
use super::kept_streams::{Answered, KeptStreams, Measured};
use super::load::run_load;
use super::preflight::GpuWatch;
use super::prompts::{Asked, keep_corpora};
use super::{
    CHAT_PATH, JobContext, StageError, data_dir, handle, nanos, preflight, read_kept, read_table, write_file,
    write_rows, write_table,
};
use crate::adapters::store::StoreError;
use crate::adapters::{machine_speed, model_size};
use crate::artifact::digest::sha256;
use crate::artifact::layout;
use crate::client::{Deadline, Limits, LoadPlan, LoadResult, Target};
use crate::judge::{Facts, Floor};
use crate::measure::{
    AnswerBounds, PinnedTokenizer, Prompt, RequestShape, derive_records, new_prompt_tokens, request_body,
};
use crate::model::{
    Arm, Digest, ExchangeRow, GpuSampleRow, MAX_PROMPTS, ReadRow, ReadSpec, ReadStatus, StreamRow, TokenRow,
};
use crate::pipeline::floor::FloorSource;
use crate::pipeline::stage::TimeSpan;
use crate::pipeline::stage::benchmark::{Output, Parameters};
use crate::stats::Trend;

/// A tokenizer's file may not be larger than this; Qwen2.5's has 7 MB.
const MAX_TOKENIZER_BYTES: u64 = 256 << 20;

/// The prompts of a read's brackets; what was to be asked is left, for whoever needs them again.
fn asked(parameters: &Parameters, context: &JobContext<'_>) -> Result<Vec<Prompt>, StageError> {
    let asked = Asked { workload: parameters.workload.clone(), prompts: parameters.prompts };
    let mut wanted: Vec<(u32, u32)> =
        parameters.read.brackets.iter().map(|bracket| (*bracket, parameters.prompts)).collect();
    // The rows are written as the answers end, in the published order.
    wanted.sort_unstable();
    let prompts = asked.prompts(&wanted, context)?;
    asked.leave(context)?;
    Ok(prompts)
}

/// The chat endpoint of a server.
pub(super) fn target(endpoint: &str, context: &JobContext<'_>) -> Result<Target, StageError> {
    Ok(Target { connector: context.connector(endpoint)?, path: CHAT_PATH.to_owned() })
}

pub(super) async fn run(parameters: Parameters, context: &mut JobContext<'_>) -> Result<Output, StageError> {
    if !(1..=MAX_PROMPTS).contains(&parameters.prompts) {
        return Err(StageError::Parameter(format!(
            "`prompts` is {}, want 1 to {MAX_PROMPTS}",
            parameters.prompts
        )));
    }
    let shares = [("max-foreign-cpu", parameters.max_foreign_cpu), ("max-stall", parameters.max_stall)];
    if let Some((name, share)) = shares.iter().find(|(_, share)| !(0.0..=1.0).contains(share)) {
        return Err(StageError::Parameter(format!("`{name}` is {share}, want 0 to 1")));
    }
    let is_asked_once = parameters.read.arm == Arm::Candidate && !parameters.ask_again;
    let asked_in = (1..=context.attempt).find(|attempt| is_asked_once && has_asked(*attempt, context));
    if let Some(attempt) = asked_in {
        return Err(StageError::Final(Box::new(StageError::AskedBefore { attempt })));
    }
    let measured = measure(&parameters, context).await;
    measured.map_err(|error| {
        let is_final = is_asked_once && has_asked(context.attempt, context);
        if is_final { StageError::Final(Box::new(error)) } else { error }
    })
}

/// The file that a submission's read leaves before its first request.
const ASKED_FILE: &str = "asked.json";

/// Whether an attempt of this leg sent requests, as far as is known.
fn has_asked(attempt: u32, context: &JobContext<'_>) -> bool {
    let attempt = layout::attempt_path(&context.job, &context.leg, attempt);
    context.round.directory.path().join(attempt).join(ASKED_FILE).exists()
}

async fn measure(parameters: &Parameters, context: &mut JobContext<'_>) -> Result<Output, StageError> {
    let (tokenizer, tokenizer_digest) = load_tokenizer(context)?;
    let shape = RequestShape {
        model: context.server()?.boot.model_name.clone(),
        max_tokens: parameters.max_tokens,
        top_logprobs: parameters.top_logprobs,
        seed: 0,
    };
    keep_corpora(&parameters.workload, context)?;
    let prompts = asked(parameters, context)?;
    let bodies = prompts.iter().map(|prompt| Bytes::from(request_body(&shape, &prompt.text))).collect();
    let bounds = AnswerBounds::of(shape.max_tokens, shape.top_logprobs);
    let limits = Limits { deadline: Deadline(parameters.request_deadline.0), answer: bounds };
    let plan =
        LoadPlan { target: target(&parameters.endpoint, context)?, bodies, limits, until: context.ends };
    let read_key = &parameters.read.key;
    let measured = Measured { read_key, prompts: &prompts, tokenizer: &tokenizer, bounds };
    let mut kept = KeptStreams::begin(measured, context)?;
    idle(parameters).wait(context).await?;
    if parameters.read.arm == Arm::Candidate {
        // On disk before anything is sent: whoever comes after a crash must know.
        let asked = serde_json::json!({ "brackets": parameters.read.brackets });
        write_file(context, ASKED_FILE, asked.to_string().as_bytes())?;
    }
    let watch = Watch::begin(context).await?;
    let gpu_watch = GpuWatch::begin(context)?;
    let result = run_load(plan, "benchmark", context, |capture| kept.take(capture)).await?;
    let others = match watch {
        Some(watch) => watch.others(context).await?,
        None => None,
    };
    let was_heard = kept.was_heard();
    let (answered, requests) = kept.finish()?;
    let (sent, planned) = (answered.requests as usize, prompts.len());
    if !was_heard {
        return Err(StageError::Silent { sent, planned, waited: result.duration });
    }
    if sent < planned {
        // The last one was cut.
        return Err(StageError::OutOfTime { ended: sent.saturating_sub(1), planned });
    }
    let failed = answered.failed;
    if failed > 0
        && let Some(ending) = ended::ending(context).await
    {
        let seen = format!("{failed} of {planned} requests failed");
        return Err(StageError::Ended { ending, seen });
    }
    let after = preflight::after_read(gpu_watch, context).await?;
    let floor = floor(context).await?;
    let mut read = read_row(&parameters.read, &result, &answered, context);
    let samples = preflight::keep(after, &mut read, context);
    if !samples.is_empty() {
        write_table(context, &samples)?;
    }
    read.tokenizer_digest = Some(tokenizer_digest.to_string());
    read.foreign_cpu = others.map(|others| others.cpu);
    read.memory_stall = others.and_then(|others| others.memory_stall);
    read.io_stall = others.and_then(|others| others.io_stall);
    (read.ttft_trend, read.is_cold) = warming(&answered);
    if let Some(floor) = floor {
        keep_floor(&mut read, floor);
    }
    requests.finish()?;
    leave(parameters, (&read, &answered), context)
}

/// The floor of the job's runner; none where nothing is known of its machine.
///
/// It is measured when the requests are over, so that they do not notice. A server that keeps the machine busy meanwhile makes the
/// floor higher for itself alone: the lowest of a runner counts.
async fn floor(context: &JobContext<'_>) -> Result<Option<Floor>, StageError> {
    let longest_draft = match &context.runner.floor {
        None => return Ok(None),
        Some(FloorSource::Stated(facts)) => return Ok(Some(facts.floor())),
        Some(FloorSource::Measured { longest_draft }) => *longest_draft,
    };
    let path = model_dir(context).to_owned();
    let size =
        model_size::of_folder(&path).map_err(|error| StageError::Weights { path, why: error.to_string() })?;
    let measuring = tokio::task::spawn_blocking(move || machine_speed::measure(size.pass_bytes as u64));
    let machine = |error: tokio::task::JoinError| StageError::Machine {
        attempted: "measure the machine's speed".to_owned(),
        source: error.into(),
    };
    let speed = measuring.await.map_err(machine)?;
    let facts = Facts {
        parameters: size.pass_bytes,
        bytes_per_parameter: 1.0,
        gpus: 1,
        gpu_cache_bytes: 0.0,
        gpu_bytes_per_s: speed.bytes_per_s,
        gpu_operations_per_s: speed.operations_per_s,
        operations_per_token: size.token_operations,
        longest_draft,
    };
    tracing::info!(
        bytes_per_s = speed.bytes_per_s,
        operations_per_s = speed.operations_per_s,
        pass_bytes = size.pass_bytes,
        token_operations = size.token_operations,
        "measured the machine"
    );
    Ok(Some(facts.floor()))
}

/// The model that the job's server was booted with, the runner's before that.
fn model_dir<'a>(context: &'a JobContext<'_>) -> &'a Path {
    context.notes.model_dir.as_ref().unwrap_or(&context.runner.model_dir)
}

/// Keeps what the read is held against, so that it can be judged where its machine is not known.
fn keep_floor(read: &mut ReadRow, floor: Floor) {
    read.floor_pass_ns = Some(floor.pass_ns);
    read.floor_token_ns = Some(floor.token_ns);
    read.floor_step_tokens = Some(floor.step_tokens);
}

/// Leaves the row of the read, whose requests lie there, and says whether the read is a measurement.
fn leave(
    parameters: &Parameters,
    (read, answered): (&ReadRow, &Answered),
    context: &JobContext<'_>,
) -> Result<Output, StageError> {
    write_rows(context, "read.parquet", std::slice::from_ref(read))?;

    let TimeSpan(limit) = parameters.max_client_lag;
    let span = |nanos: i64| Duration::from_nanos(u64::try_from(nanos).unwrap_or_default());
    if let Some(lag) = read.client_lag_p99_ns.map(span).filter(|lag| *lag > limit) {
        return Err(StageError::ClientLag { lag, limit });
    }
    if let Some(share) = read.foreign_cpu {
        idle(parameters).check(share, "during the read")?;
    }
    check_stalls(parameters.read.arm, read, idle(parameters))?;
    preflight::check(parameters.read.arm, read)?;
    let (requests, failed) = (answered.requests, answered.failed);
    if let Some(first) = answered.first_failed.clone().filter(|_| parameters.read.arm == Arm::Baseline) {
        return Err(StageError::BaselineFailed {
            failed: failed as usize,
            requests: requests as usize,
            first,
        });
    }
    Ok(Output { requests: requests.into(), failed: failed.into(), data: handle(context)? })
}

/// A stall voids the baseline's read. A candidate's may be its own doing, by which it would choose between attempts: it is slower
/// for it, and no more.
fn check_stalls(arm: Arm, read: &ReadRow, idle: Idle) -> Result<(), StageError> {
    let (memory_stall, io_stall) = (read.memory_stall, read.io_stall);
    match arm {
        Arm::Candidate => Ok(()),
        Arm::Baseline => {
            let others = Others { memory_stall, io_stall, ..Others::default() };
            idle.check_stalls(&others, "during the read")
        }
    }
}

/// Derives the rows again from the streams that are kept of the read, and leaves them.
pub(super) fn again(parameters: &Parameters, context: &JobContext<'_>) -> Result<Output, StageError> {
    let reads: Vec<ReadRow> = read_kept(context, "read.parquet")?;
    let [read] = <[ReadRow; 1]>::try_from(reads)
        .map_err(|rows| StageError::NotAsPlanned(format!("{} rows of the read are kept", rows.len())))?;
    let tokenizer = kept_tokenizer(&read, context)?;
    let mut exchanges: Vec<ExchangeRow> = read_kept(context, "exchanges.parquet")?;
    let pieces: Vec<StreamRow> = read_kept(context, "streams.parquet")?;
    let prompts = asked(parameters, context)?;
    if exchanges.len() != prompts.len() {
        let (kept, planned) = (exchanges.len(), prompts.len());
        return Err(StageError::NotAsPlanned(format!(
            "{kept} requests of read `{}` are kept, and {planned} were to be sent",
            parameters.read.key
        )));
    }
    let new_tokens = new_prompt_tokens(&tokenizer, &prompts);
    for ((exchange, prompt), new_tokens) in exchanges.iter_mut().zip(&prompts).zip(new_tokens) {
        exchange.read_key.clone_from(&parameters.read.key);
        exchange.prompt_index = prompt.index;
        exchange.prompt_sha256.clone_from(&prompt.sha256);
        // Rounds of older programs did not count them.
        exchange.new_prompt_tokens = exchange.new_prompt_tokens.and(new_tokens);
    }
    write_table(context, &exchanges)?;
    let mut answered = Answered::default();
    let mut requests = Vec::with_capacity(exchanges.len());
    let mut answers: Vec<TokenRow> = Vec::new();
    for record in derive_records(&tokenizer, &exchanges, &pieces)? {
        answered.take(&record.request);
        requests.push(record.request);
        answers.extend(record.tokens);
    }
    let (ttft_trend, is_cold) = warming(&answered);
    let mut read = ReadRow {
        ttft_trend,
        is_cold,
        requests: answered.requests,
        failed_requests: answered.failed,
        status: ReadStatus::Measured,
        attempt: context.attempt,
        runner: context.runner.name.clone(),
        started_at_us: context.started_at_us,
        ..of_spec(&parameters.read, read)
    };
    let samples = layout::gpu_samples_path(&data_dir(context));
    if context.round.kept.path().join(&samples).is_file() {
        let samples: Vec<GpuSampleRow> = read_table(context, &samples)?;
        preflight::keep_telemetry(&samples, &mut read);
    }
    write_rows(context, "answers.parquet", &answers)?;
    write_table(context, &requests)?;
    leave(parameters, (&read, &answered), context)
}

/// The row with all that the plan says of its read.
fn of_spec(spec: &ReadSpec, row: ReadRow) -> ReadRow {
    ReadRow {
        read_key: spec.key.clone(),
        arm: spec.arm,
        hotkey: spec.hotkey.as_ref().map(ToString::to_string),
        image: spec.image.to_string(),
        digest: spec.digest.to_string(),
        position: spec.position,
        sequence: spec.sequence.clone(),
        repeats: spec.repeats.clone(),
        ..row
    }
}

/// The tokenizer that the round keeps for a read.
fn kept_tokenizer(read: &ReadRow, context: &JobContext<'_>) -> Result<PinnedTokenizer, StageError> {
    let digest = read.tokenizer_digest.as_ref().and_then(|text| text.parse::<Digest>().ok());
    let digest = digest.ok_or_else(|| {
        let key = &read.read_key;
        StageError::NotAsPlanned(format!(
            "the round keeps no tokenizer for read `{key}`: it is an older round"
        ))
    })?;
    let relative = layout::tokenizer_path(&digest);
    let path = context.round.kept.path().join(&relative);
    let bytes = context.round.kept.read(&relative, MAX_TOKENIZER_BYTES)?;
    if sha256(&bytes) != digest {
        return Err(StageError::Tokenizer { path, why: "it is not the one that its name says".to_owned() });
    }
    PinnedTokenizer::from_bytes(&bytes)
        .map_err(|error| StageError::Tokenizer { path, why: error.to_string() })
}

/// What the machine has to be for a measurement.
fn idle(parameters: &Parameters) -> Idle {
    Idle {
        max_share: parameters.max_foreign_cpu,
        max_stall: parameters.max_stall,
        min_free_mib: parameters.min_free_memory_mib,
        within: parameters.idle_within.0,
    }
}

/// How far a trend has to be from none, in standard deviations: one series in 1,000 without trend falls so.
const COLD: f64 = -3.09;

/// The trend of the times to first token in the order of the requests, and whether it says that the server was still
/// warming up.
fn warming(answered: &Answered) -> (Option<f64>, Option<bool>) {
    let trend = Trend::of(&answered.ttft_ns);
    (trend.map(|trend| trend.tau), trend.map(|trend| trend.z < COLD))
}

fn read_row(read: &ReadSpec, result: &LoadResult, answered: &Answered, context: &JobContext<'_>) -> ReadRow {
    ReadRow {
        attempt: context.attempt,
        runner: context.runner.name.clone(),
        boot_id: context.notes.boot.as_ref().map(|(id, _)| id.clone()),
        boot_ns: context.notes.boot.as_ref().map(|(_, took)| nanos(*took)),
        warm_up_ns: context.notes.warm_up.map(nanos),
        benchmark_ns: Some(nanos(result.duration)),
        started_at_us: context.started_at_us,
        status: ReadStatus::Measured,
        requests: answered.requests,
        failed_requests: answered.failed,
        client_lag_p50_ns: result.health.lag_p50.map(nanos),
        client_lag_p99_ns: result.health.lag_p99.map(nanos),
        client_cpu_ns: Some(nanos(result.health.cpu)),
        content_digest: context.notes.content.as_ref().map(ToString::to_string),
        ..ReadRow::planned(&context.round.round_id, read)
    }
}

/// The tokenizer of the model that the job's server was booted with, the runner's before that; the round keeps a copy,
/// for whoever counts its tokens again.
fn load_tokenizer(context: &JobContext<'_>) -> Result<(PinnedTokenizer, Digest), StageError> {
    let path = model_dir(context).join("tokenizer.json");
    let bytes = std::fs::read(&path)
        .map_err(|source| StageError::Tokenizer { path: path.clone(), why: source.to_string() })?;
    let tokenizer = PinnedTokenizer::from_bytes(&bytes)
        .map_err(|error| StageError::Tokenizer { path: path.clone(), why: error.to_string() })?;
    let digest = sha256(&bytes);
    let relative = layout::tokenizer_path(&digest);
    let directory = &context.round.directory;
    let is_kept = directory.path().join(&relative).is_file();
    match if is_kept { Ok(path) } else { directory.write_once(&relative, &bytes) } {
        // Another read, at the same time, was counted by it too.
        Ok(_) | Err(StoreError::Exists { .. }) => Ok((tokenizer, digest)),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::RunnerContext;
    use crate::stages::kept_streams::tests::{context, round};

    async fn kept(source: Option<FloorSource>) -> Result<Option<Floor>, StageError> {
        let data = tempfile::tempdir().expect("a directory");
        let round = round(data.path());
        let model_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/reference");
        let runner = RunnerContext { floor: source, model_dir, ..RunnerContext::controller() };
        let mut row = ReadRow::default();
        if let Some(floor) = floor(&context(&round, &runner)).await? {
            keep_floor(&mut row, floor);
        }
        Ok(Floor::of_row(&row))
    }

    #[test]
    fn a_stall_voids_no_candidate_read() {
        let idle = Idle { max_share: 0.0, max_stall: 0.05, min_free_mib: None, within: Duration::ZERO };
        let check = |arm, memory_stall, io_stall| {
            check_stalls(arm, &ReadRow { memory_stall, io_stall, ..ReadRow::default() }, idle).is_ok()
        };
        for (memory_stall, io_stall) in [(Some(0.5), None), (Some(0.0), Some(0.5))] {
            assert!(!check(Arm::Baseline, memory_stall, io_stall));
            assert!(check(Arm::Candidate, memory_stall, io_stall));
        }
        assert!(check(Arm::Baseline, Some(0.05), Some(0.0)) && check(Arm::Baseline, None, None));
    }

    #[tokio::test]
    async fn a_read_keeps_the_floor_of_its_runner() {
        let facts = Facts {
            parameters: 71.46e9,
            bytes_per_parameter: 2.0,
            gpus: 4,
            gpu_cache_bytes: 0.132e9,
            gpu_bytes_per_s: 4.814e12,
            gpu_operations_per_s: 1.0705e15,
            operations_per_token: 138.7e9,
            longest_draft: 3,
        };
        assert_eq!(kept(None).await.expect("no floor"), None);
        let stated = kept(Some(FloorSource::Stated(facts.clone()))).await.expect("a floor");
        assert_eq!(stated, Some(facts.floor()));
    }

    #[tokio::test]
    async fn the_reference_model_has_a_floor_on_this_machine() {
        let source = FloorSource::Measured { longest_draft: 5 };
        let floor = kept(Some(source)).await.expect("measured").expect("a floor");
        assert_eq!(floor.step_tokens, 6);
        // 1.4 MB: between a nanosecond, and a millisecond at 1.4 GB/s, which no machine that runs this is slower than.
        assert!((1.0..1e6).contains(&floor.pass_ns), "{floor:?}");
        assert!((1e-3..1e6).contains(&floor.token_ns), "{floor:?}");
    }
}
