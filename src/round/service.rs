//! Runners that are out of service: what a round does without them, and which it puts out when it has ended.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize as _;
use serde_json::{Map, Value as Json};

use super::{Beginning, EventLoop, Machines, RoundRunner, RoundSettings, contexts};
use crate::adapters::store::{RoundDirectory, change_runner, read_runner};
use crate::artifact::{FailedRead, Quarantine, RoundState};
use crate::error::{Error, ExitCode};
use crate::judge::{MachineRead, broken_machines};
use crate::model::{LegSummary, RoundId};
use crate::pipeline::contexts::KnownContexts;
use crate::pipeline::definition::{Job, Pipeline};
use crate::pipeline::runner::RunnerSpec;
use crate::pipeline::source::Source;
use crate::pipeline::stage::benchmark::MeasuredMatrix;
use crate::report::quarantine_sentence;
use crate::schedule::{Blocked, Choice, RunnerSlot, Service, still_to_run};

/// The runners of these that are out of service, and why, by name.
fn out_of_service(
    data_dir: &Path,
    slots: &[RunnerSlot],
) -> Result<BTreeMap<String, Quarantine>, crate::adapters::store::StoreError> {
    let mut out = BTreeMap::new();
    for RunnerSlot { name, .. } in slots {
        if let Some(quarantine) = read_runner(data_dir, name)?.quarantine {
            out.insert(name.clone(), quarantine);
        }
    }
    Ok(out)
}

/// Leaves the runners out of a new round that are out of service: others take their jobs.
///
/// # Errors
/// Where none can, or it is not known whether a runner is in service.
pub(super) fn leave_out(settings: &mut RoundSettings, known: &KnownContexts) -> Result<(), Error> {
    let slots: Vec<RunnerSlot> = settings.runners.iter().map(RoundRunner::slot).collect();
    let out = out_of_service(&settings.data_dir, &slots)?;
    let is_out = |name: &str| out.contains_key(name);
    let jobs = || settings.pipeline.jobs.iter();
    let service = Service { runners: &slots, is_out: &is_out, choice: Choice::Any };
    refuse(service.blocked(jobs(), known).first(), &out)?;
    // Those that would have had a job.
    let service = Service { choice: Choice::First, ..service };
    let mut missed: Vec<&str> = service.blocked(jobs(), known).iter().map(|blocked| blocked.runner).collect();
    missed.sort_unstable();
    missed.dedup();
    for (runner, quarantine) in missed.into_iter().filter_map(|name| out.get_key_value(name)) {
        let why = quarantine_sentence(runner, quarantine);
        tracing::warn!(runner, why, "another runner takes its jobs, for it is out of service");
    }
    settings.runners.retain(|runner| !is_out(&runner.spec.name));
    Ok(())
}

/// Sees whether all that is still to run of a round can run where it has to: on the runners that it began with.
///
/// # Errors
/// Where one of them is out of service, or it is not known whether it is.
pub(super) fn check(
    settings: &RoundSettings,
    known: &KnownContexts,
    state: &RoundState,
) -> Result<(), Error> {
    let slots: Vec<RunnerSlot> = settings.runners.iter().map(RoundRunner::slot).collect();
    let jobs: Vec<&Job> = match &settings.beginning {
        Beginning::Derived(origin) => {
            let is_renewed = |job: &&Job| origin.renewed.contains(&job.id);
            settings.pipeline.jobs.iter().filter(is_renewed).collect()
        }
        Beginning::New | Beginning::Resumed => still_to_run(&settings.pipeline, state),
    };
    let out = out_of_service(&settings.data_dir, &slots)?;
    let is_out = |name: &str| out.contains_key(name);
    let service = Service { runners: &slots, is_out: &is_out, choice: Choice::First };
    refuse(service.blocked(jobs, known).first(), &out)
}

fn refuse(blocked: Option<&Blocked<'_>>, out: &BTreeMap<String, Quarantine>) -> Result<(), Error> {
    match blocked.and_then(|blocked| Some((blocked, out.get(blocked.runner)?))) {
        None => Ok(()),
        Some((Blocked { job, runner }, quarantine)) => Err(Error::OutOfService {
            found: format!("{}; job `{job}` can run nowhere else", quarantine_sentence(runner, quarantine)),
            runner: (*runner).to_owned(),
            next: format!("`cacheon runner lift {runner}`"),
        }),
    }
}

/// Why a round that is on disk cannot be taken up now: a runner that it began with is out of service. None where nothing of that kind
/// stands against it.
///
/// # Errors
/// When the round cannot be read.
pub fn held_up(data_dir: &Path, round_id: &RoundId) -> Result<Option<Error>, Error> {
    let directory = RoundDirectory::open(data_dir, round_id)?;
    let file = directory.read_round_file()?;
    let unreadable = |found: crate::pipeline::Diagnostics| Error::Invalid(found.to_string());
    let source = Source::new(&file.pipeline_path, &file.pipeline_text);
    let pipeline = Pipeline::parse(&source).map_err(unreadable)?.value;
    let mut slots = Vec::new();
    for runner in &file.runners {
        let spec = RunnerSpec::parse(&Source::new(&runner.path, &runner.text)).map_err(unreadable)?.value;
        slots.push(slot(&spec));
    }
    let state = RoundState::of(&directory.read_journal()?.lines);
    let inputs: Map<String, Json> = file.inputs.into_iter().collect();
    // What cannot be computed is for whoever takes it up to say.
    let Ok(known) = contexts((&pipeline, &inputs), file.tick.as_ref(), round_id) else { return Ok(None) };
    let out = out_of_service(data_dir, &slots)?;
    let is_out = |name: &str| out.contains_key(name);
    let service = Service { runners: &slots, is_out: &is_out, choice: Choice::First };
    Ok(refuse(service.blocked(still_to_run(&pipeline, &state), &known).first(), &out).err())
}

/// A runner as placement sees it.
pub fn slot(spec: &RunnerSpec) -> RunnerSlot {
    let RunnerSpec { name, labels, capacity, .. } = spec;
    RunnerSlot { name: name.clone(), labels: labels.clone(), capacity: *capacity }
}

impl EventLoop<'_> {
    /// Puts the runners out of service on which the baseline failed and was not measured any more; gives those that were in
    /// service until now. Done again, it changes nothing.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn judge_machines(&self, exit_code: ExitCode) -> Result<Vec<(String, Quarantine)>, Error> {
        // A round that was interrupted has not come to its end.
        if self.settings.machines == Machines::Left || exit_code == ExitCode::Interrupted {
            return Ok(Vec::new());
        }
        let outcome = self.scheduler.outcome();
        let legs = outcome.iter().flat_map(|job| job.legs.iter().map(|leg| (job.job.id.as_str(), *leg)));
        let reads: Vec<(&str, &LegSummary, MachineRead<'_>)> = legs
            .filter_map(|(job, leg)| {
                // Whatever else is a leg measures no read.
                let MeasuredMatrix { read } = MeasuredMatrix::deserialize(&leg.matrix).ok()?;
                let read = MachineRead {
                    arm: read.arm,
                    runner: &leg.runner,
                    started_at_us: leg.started_at_us,
                    is_measured: leg.outputs.get("data").is_some_and(|data| !data.is_null()),
                    code: leg.reason.as_ref().map(|reason| reason.code.as_str()),
                };
                Some((job, leg, read))
            })
            .collect();
        let mut put_out = Vec::new();
        for RoundRunner { spec, .. } in &self.settings.runners {
            let runner = spec.name.as_str();
            let is_its = |(_, _, read): &&(&str, &LegSummary, MachineRead<'_>)| read.runner == runner;
            // Most often all is well, and nothing is read or made.
            let own: Vec<_> = reads.iter().filter(is_its).copied().collect();
            if broken_machines(&own.iter().map(|(_, _, read)| *read).collect::<Vec<_>>()).is_empty() {
                continue;
            }
            let quarantine = change_runner(&self.settings.data_dir, runner, |state| {
                // What somebody has looked at since is not held against the machine.
                let looked_at = state.looked_at().map_or(i64::MIN, jiff::Timestamp::as_microsecond);
                let own: Vec<_> = own.iter().filter(|(_, _, read)| read.started_at_us > looked_at).collect();
                let broken = broken_machines(&own.iter().map(|(_, _, read)| *read).collect::<Vec<_>>());
                let failed = broken.get(runner)?.iter().filter_map(|index| own.get(*index));
                let failed = failed.filter_map(|(job, leg, _)| failed_read(job, leg)).collect();
                let since = (self.settings.now)();
                let quarantine = Quarantine::by_round(since, self.settings.round_id.clone(), failed);
                state.put_out(quarantine.clone()).then_some(quarantine)
            })?;
            put_out.extend(quarantine.map(|quarantine| (runner.to_owned(), quarantine)));
        }
        Ok(put_out)
    }
}

fn failed_read(job: &str, leg: &LegSummary) -> Option<FailedRead> {
    let reason = leg.reason.as_ref()?;
    Some(FailedRead {
        job: job.to_owned(),
        leg: leg.key.clone(),
        attempt: leg.attempt,
        code: reason.code.clone(),
        message: reason.message.clone(),
    })
}
