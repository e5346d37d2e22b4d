//! Whether the machine is what it has to be, before a server is launched and after it was measured, and what its GPUs do
//! meanwhile.
//!
//! Before a launch nothing is timed, so a machine that is not clean is waited for. What the machine is, the round keeps of the
//! first launch on it; every later look is held against that. A difference, a GPU that breaks, and a stranger's process on a
//! GPU void a read whoever it is of: nothing that was measured there can be compared. A GPU that is slowed down, by heat for
//! example, voids the baseline's reads alone, as a stall does: a candidate may have done it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{JobContext, StageError, nanos};
use crate::adapters::machine::free_disk;
use crate::adapters::store::StoreError;
use crate::artifact::digest::sha256;
use crate::artifact::layout;
use crate::judge::machine::{
    all_uncorrected, broken, difference, not_as_stated, not_clean, unknown_checks, xids_since,
};
use crate::measure::Telemetry;
use crate::model::{Arm, GpuSampleRow, GpuState, GpusFound, MachineFacts, MachineLook, ReadRow, Throttle};
use crate::ports::{IsStranger, Machine};

/// How long a machine's GPUs may take to be clean: those of a server that was killed give their memory back within seconds.
const CLEAN_WITHIN: Duration = Duration::from_secs(30);
/// How often they are looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the GPUs are sampled while a read is timed.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Most samples of a read, of all GPUs together; later ones are not taken.
const MAX_SAMPLES: usize = 1_000_000;
/// Largest file of what a machine is.
const MAX_FACTS_BYTES: u64 = 1 << 20;

/// What was seen of the machine before a server was launched.
#[derive(Debug, Clone)]
pub struct Before {
    /// What the machine was and how it was.
    pub look: MachineLook,
    /// Bytes that were free on the disk of the round.
    pub disk_free_bytes: Option<u64>,
}

/// Looks at the machine before a server is launched, and waits until it is clean.
///
/// # Errors
/// [`StageError::OtherMachine`] where it is not what the runner's file says, or not what it was; [`StageError::NotClean`] where
/// its GPUs are not free in time, and the runner's servers use GPUs.
pub(super) async fn before_launch(context: &mut JobContext<'_>) -> Result<(), StageError> {
    let begun = Instant::now();
    let look = loop {
        let look = look(&context.runner.machine).await?;
        if let Some(why) = not_as_stated(&context.runner.stated, &look.facts) {
            return Err(StageError::OtherMachine(format!(
                "it is not what the file of runner `{}` says: {why}",
                context.runner.name
            )));
        }
        let unclean = not_clean(&look.state).filter(|_| context.runner.uses_gpus());
        let Some(why) = unclean else { break look };
        if begun.elapsed() >= CLEAN_WITHIN {
            return Err(StageError::NotClean { why, waited: begun.elapsed() });
        }
        context.tell("wait for clean GPUs", 0, 0);
        tokio::time::sleep(LOOK_EVERY).await;
    };
    if let Some(why) = differs_from_the_first(&look.facts, context)? {
        return Err(StageError::OtherMachine(of_another(&why)));
    }
    let disk_free_bytes = free_disk(context.round.directory.path());
    context.notes.before = Some(Before { look, disk_free_bytes });
    Ok(())
}

/// What is said of a machine that is another than it was.
fn of_another(why: &str) -> String {
    format!("it is another than at the round's first launch on it: {why}")
}

async fn look(machine: &Arc<dyn Machine>) -> Result<MachineLook, StageError> {
    let machine = Arc::clone(machine);
    tokio::task::spawn_blocking(move || machine.look()).await.map_err(no_look)
}

fn no_look(error: JoinError) -> StageError {
    StageError::Machine { attempted: "look at the machine".to_owned(), source: error.into() }
}

/// In what the machine is another than at the round's first launch on it; the first look is kept.
fn differs_from_the_first(
    facts: &MachineFacts,
    context: &JobContext<'_>,
) -> Result<Option<String>, StageError> {
    let relative = layout::machine_path(&context.runner.name);
    match context.round.directory.write_once(&relative, &bytes_of(facts)) {
        Ok(_) => return Ok(None),
        Err(StoreError::Exists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let kept = context.round.directory.read(&relative, MAX_FACTS_BYTES)?;
    let first: MachineFacts = serde_json::from_slice(&kept)
        .map_err(|error| StageError::NotAsPlanned(format!("`{relative}` of the round: {error}")))?;
    Ok(difference(&first, facts))
}

/// What a machine is, as the round keeps it.
fn bytes_of(facts: &MachineFacts) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(facts).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// What broke on the machine's GPUs since the job's server was launched; none where nothing did, or nobody can know.
pub(super) async fn broken_since_launch(context: &JobContext<'_>) -> Option<String> {
    let before = context.notes.before.as_ref().filter(|_| context.runner.uses_gpus())?;
    let after = look(&context.runner.machine).await.ok()?;
    broken(&before.look.state, &after.state)
}

/// A watch of the machine's GPUs while a read is timed; dropping it ends it.
pub(super) struct GpuWatch {
    task: tokio::task::JoinSet<Vec<Sample>>,
    stop: CancellationToken,
}

impl GpuWatch {
    /// Begins to sample the GPUs; none where nothing is known of any, or the runner's servers use none.
    ///
    /// # Errors
    /// Where the job has no server.
    pub(super) fn begin(context: &JobContext<'_>) -> Result<Option<Self>, StageError> {
        let server = &context.server()?.server;
        let has_known = |before: &Before| !before.look.state.gpus.is_empty();
        if !(context.runner.uses_gpus() && context.notes.before.as_ref().is_some_and(has_known)) {
            return Ok(None);
        }
        let (machine, stop) = (Arc::clone(&context.runner.machine), CancellationToken::new());
        let mut task = tokio::task::JoinSet::new();
        task.spawn(sample(machine, server.strangers(), stop.clone()));
        Ok(Some(Self { task, stop }))
    }

    /// Takes a last sample, and ends.
    ///
    /// # Errors
    /// Where the GPUs could not be looked at.
    async fn end(mut self) -> Result<Vec<Sample>, StageError> {
        self.stop.cancel();
        self.task.join_next().await.transpose().map_err(no_look).map(Option::unwrap_or_default)
    }
}

/// The GPUs at an instant, with the number of processes on each that are strangers'.
struct Sample {
    /// Since the watch began.
    at: Duration,
    gpus: Vec<(GpuState, Option<u32>)>,
}

/// Samples the GPUs once a period, first at once and last when it is to stop.
async fn sample(machine: Arc<dyn Machine>, is_stranger: IsStranger, stop: CancellationToken) -> Vec<Sample> {
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut samples, mut count) = (Vec::new(), 0);
    let mut is_last = false;
    while !is_last && count < MAX_SAMPLES {
        tokio::select! {
            biased;
            () = stop.cancelled() => is_last = true,
            _ = ticks.tick() => {}
        }
        let (machine, is_stranger) = (Arc::clone(&machine), Arc::clone(&is_stranger));
        let at = begun.elapsed();
        let looked = tokio::task::spawn_blocking(move || {
            let count = |pids: &Vec<u32>| pids.iter().filter(|pid| is_stranger(**pid)).count();
            let strangers =
                |gpu: &GpuState| Some(u32::try_from(count(gpu.processes.as_ref()?)).unwrap_or(u32::MAX));
            machine
                .gpus()
                .into_iter()
                .map(|gpu| (strangers(&gpu), gpu))
                .map(|(count, gpu)| (gpu, count))
                .collect()
        });
        // A driver that panics has no sample, and the energy says that there is a gap.
        let gpus: Vec<(GpuState, Option<u32>)> = looked.await.unwrap_or_default();
        count += gpus.len().max(1);
        samples.push(Sample { at, gpus });
    }
    samples
}

/// What was seen of the machine while a read was measured, and when it had been.
pub(super) struct After {
    samples: Vec<Sample>,
    look: MachineLook,
    /// In what it is another than at the round's first launch on it.
    difference: Option<String>,
}

/// Looks at the machine when a read has been measured; none where nobody looked before it.
///
/// # Errors
/// Where the machine could not be looked at.
pub(super) async fn after_read(
    watch: Option<GpuWatch>,
    context: &JobContext<'_>,
) -> Result<Option<After>, StageError> {
    let samples = match watch {
        Some(watch) => watch.end().await?,
        None => Vec::new(),
    };
    if context.notes.before.is_none() {
        return Ok(None);
    }
    let look = look(&context.runner.machine).await?;
    let difference = differs_from_the_first(&look.facts, context)?;
    Ok(Some(After { samples, look, difference }))
}

/// Writes into the row of a read what was seen of its machine; the samples of the GPUs, for the round to keep.
pub(super) fn keep(after: Option<After>, read: &mut ReadRow, context: &JobContext<'_>) -> Vec<GpuSampleRow> {
    let (Some(before), Some(After { samples, look, difference })) = (&context.notes.before, after) else {
        return Vec::new();
    };
    read.machine_difference = difference;
    describe(before, &look, read);
    if context.runner.uses_gpus() {
        read.gpu_failure = broken(&before.look.state, &look.state);
    }
    let row = |at: Duration, (number, (gpu, foreign)): (usize, &(GpuState, Option<u32>))| GpuSampleRow {
        round_id: read.round_id.clone(),
        read_key: read.read_key.clone(),
        at_ns: nanos(at),
        gpu: u32::try_from(number).unwrap_or(u32::MAX),
        used_bytes: gpu.used_bytes.map(signed),
        power_mw: gpu.power_mw,
        sm_mhz: gpu.sm_mhz,
        memory_mhz: gpu.memory_mhz,
        celsius: gpu.celsius,
        throttle: gpu.throttle.map(|Throttle(bits)| bits.cast_signed()),
        foreign: *foreign,
    };
    let of_sample = |sample: &Sample| -> Vec<GpuSampleRow> {
        sample.gpus.iter().enumerate().map(|gpu| row(sample.at, gpu)).collect()
    };
    let rows: Vec<GpuSampleRow> = samples.iter().flat_map(of_sample).collect();
    keep_telemetry(&rows, read);
    rows
}

/// Writes into a row what the samples of its read come to.
pub(super) fn keep_telemetry(samples: &[GpuSampleRow], read: &mut ReadRow) {
    let found = Telemetry::of(samples, read.benchmark_ns.unwrap_or_default());
    read.gpu_celsius_max = found.celsius_max;
    read.gpu_min_mhz = found.sm_mhz_min;
    read.gpu_mean_mhz = found.sm_mhz_mean;
    read.gpu_throttle = found.throttle.map(|throttle| throttle.to_string());
    read.gpu_energy_joules = found.joules.and_then(Result::ok);
    read.gpu_energy_unknown = found.joules.and_then(Result::err).map(|why| why.to_string());
    read.gpu_foreign = found.foreign_max;
}

/// Writes into a row what the machine is, how it was before, and what became of it.
fn describe(before: &Before, after: &MachineLook, read: &mut ReadRow) {
    let MachineLook { facts, state } = &before.look;
    read.machine_fingerprint = Some(sha256(&bytes_of(&after.facts)).to_string());
    read.machine_unknown = Some(unknown_checks(&before.look).join(",")).filter(|text| !text.is_empty());
    read.machine_cpu.clone_from(&facts.cpu);
    read.machine_cpus = facts.cpus;
    read.machine_memory_bytes = facts.memory_bytes.map(signed);
    read.machine_kernel.clone_from(&facts.kernel);
    read.cpu_governor.clone_from(&facts.cpu_governor);
    read.clock_source.clone_from(&facts.clock_source);
    read.disk_free_bytes = before.disk_free_bytes.map(signed);
    if let GpusFound::Known { driver, list, .. } = &facts.gpus {
        let mut models: Vec<&str> = list.iter().filter_map(|gpu| gpu.name.as_deref()).collect();
        models.sort_unstable();
        models.dedup();
        let topology: Vec<String> = list
            .iter()
            .enumerate()
            .filter(|(_, gpu)| !gpu.links.is_empty())
            .map(|(number, gpu)| format!("{number}: {}", gpu.links.join(", ")))
            .collect();
        read.gpus = u32::try_from(list.len()).ok();
        read.gpu_model = Some(models.join(", ")).filter(|text| !text.is_empty());
        read.gpu_memory_bytes = list.iter().filter_map(|gpu| gpu.memory_bytes).min().map(signed);
        read.gpu_driver = Some(driver.clone());
        read.gpu_topology = Some(topology.join("; ")).filter(|text| !text.is_empty());
    }
    read.gpu_used_before_bytes = state.gpus.iter().filter_map(|gpu| gpu.used_bytes).max().map(signed);
    read.gpu_celsius_before = state.gpus.iter().filter_map(|gpu| gpu.celsius).max();
    read.gpu_uncorrected = all_uncorrected(state, &after.state).map(signed);
    read.gpu_xids_before = state.xids.as_ref().and_then(|xids| u32::try_from(xids.len()).ok());
    let new: Vec<String> = xids_since(state, &after.state).iter().map(ToString::to_string).collect();
    read.gpu_xids = Some(new.join(",")).filter(|text| !text.is_empty());
}

/// A count as the tables have it.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Whether the machine was fit all over the read, by what its row says.
///
/// # Errors
/// [`StageError::OtherMachine`], [`StageError::GpuFailed`], [`StageError::GpuShared`] or [`StageError::GpuSlowed`] where it was
/// not.
pub(super) fn check(arm: Arm, read: &ReadRow) -> Result<(), StageError> {
    // One that has failed is another machine too, and this says why.
    if let Some(why) = &read.gpu_failure {
        return Err(StageError::GpuFailed(why.clone()));
    }
    if let Some(why) = &read.machine_difference {
        return Err(StageError::OtherMachine(of_another(why)));
    }
    if let Some(processes) = read.gpu_foreign.filter(|count| *count > 0) {
        return Err(StageError::GpuShared { processes });
    }
    let unwell = read.gpu_throttle.as_deref().map(Throttle::named).unwrap_or_default().unwell();
    match arm {
        Arm::Baseline if !unwell.is_empty() => Err(StageError::GpuSlowed { reasons: unwell }),
        Arm::Baseline | Arm::Candidate => Ok(()),
    }
}
