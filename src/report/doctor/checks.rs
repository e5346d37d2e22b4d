//! What is wrong with the data directory, its disk, the runners, the clock, and processes that were left.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Finding, Severity, shell_word};
use crate::artifact::RunnerState;
use crate::model::{GpusFound, MachineLook, Xid};
use crate::report::quarantine_sentence;
use crate::report::text::bytes;

/// Below this much free disk a round of the demo does not fit any more.
const LEAST_BYTES: u64 = 1 << 30;
/// Below this much the raw streams of one large round may not fit.
const FEW_BYTES: u64 = 20 << 30;
/// Below these many free inodes a round with a matrix of some thousand legs does not fit.
const LEAST_INODES: u64 = 10_000;
/// Below these many, few such rounds do.
const FEW_INODES: u64 = 100_000;
/// Most leftovers and processes that are named.
const NAMED: usize = 20;

/// The data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFacts {
    /// Its path.
    pub path: String,
    /// What of it there is.
    pub state: DataState,
}

/// What there is of the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataState {
    /// Nothing yet.
    Absent,
    /// Something that cannot be looked at, or is no directory; why.
    Unusable(String),
    /// A directory.
    Directory {
        /// Why no file can be written in it; none if one can.
        unwritable: Option<String>,
        /// Its permission bits.
        mode: u32,
        /// User id of its owner.
        owner: u32,
        /// User id of this process.
        own: u32,
    },
}

/// Checks the data directory.
pub fn check_data(facts: &DataFacts) -> Vec<Finding> {
    let path = &facts.path;
    let finding = |severity, found: String| Finding::new("data", severity, found);
    let (unwritable, mode, owner, own) = match &facts.state {
        DataState::Absent => {
            return vec![finding(
                Severity::Ok,
                format!("`{path}` is not there yet: the first round makes it"),
            )];
        }
        DataState::Unusable(why) => {
            return vec![
                finding(Severity::Problem, format!("`{path}` cannot be used: {why}"))
                    .mend("name another directory by --data or CACHEON_DATA"),
            ];
        }
        DataState::Directory { unwritable, mode, owner, own } => (unwritable, mode, owner, own),
    };
    let mut findings = vec![match unwritable {
        Some(why) => finding(Severity::Problem, format!("`{path}` cannot be written to: {why}")).mend(
            format!("make room, or run as its owner, user {owner}, or: chown -R {own} {}", shell_word(path)),
        ),
        None => finding(Severity::Ok, format!("`{path}` can be written to")),
    }];
    if mode & 0o002 != 0 {
        findings.push(
            finding(Severity::Problem, format!("everybody on this machine may write to `{path}`"))
                .mend(format!("chmod o-w {}", shell_word(path))),
        );
    }
    if owner != own {
        let found = format!("`{path}` belongs to user {owner}, this is user {own}");
        findings.push(finding(Severity::Warning, found).mend(format!("run as user {owner}")));
    }
    findings
}

/// What is free on the file system of the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskFacts {
    /// Bytes that this user may still write.
    pub free_bytes: u64,
    /// Inodes that this user may still make; none where the file system does not count them.
    pub free_inodes: Option<u64>,
}

/// Checks the room on the disk; `data` as in [`super::rounds::check_rounds`].
pub fn check_disk(facts: DiskFacts, data: &str) -> Vec<Finding> {
    let judged = |free: u64, least: u64, few: u64| match free {
        free if free < least => Severity::Problem,
        free if free < few => Severity::Warning,
        _ => Severity::Ok,
    };
    let mend = |finding: Finding| match finding.severity {
        Severity::Ok => finding,
        _ => finding.mend(format!("cacheon gc --older-than 30d --streams{data}")),
    };
    let severity = judged(facts.free_bytes, LEAST_BYTES, FEW_BYTES);
    let mut findings =
        vec![mend(Finding::new("disk", severity, format!("{} free", bytes(facts.free_bytes))))];
    if let Some(free) = facts.free_inodes {
        let severity = judged(free, LEAST_INODES, FEW_INODES);
        findings.push(mend(Finding::new("disk", severity, format!("{free} inodes free"))));
    }
    findings
}

/// What a dead writer left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeftoverFacts {
    /// A round whose removal was cut short, by path.
    Removal(String),
    /// A half-written file in the data directory, by path.
    File(String),
}

/// Checks what dead writers left.
pub fn check_leftovers(facts: &[LeftoverFacts], data: &str) -> Vec<Finding> {
    let finding = |found| Finding::new("leftovers", Severity::Warning, found);
    let named = facts.iter().take(NAMED).map(|leftover| match leftover {
        LeftoverFacts::Removal(path) => {
            finding(format!("`{path}` is the rest of a round that was being removed"))
                .mend(format!("cacheon gc --keep 1000000{data}"))
        }
        LeftoverFacts::File(path) => {
            finding(format!("`{path}` was left half-written")).mend(format!("rm {}", shell_word(path)))
        }
    });
    let mut findings: Vec<Finding> = named.collect();
    if facts.len() > NAMED {
        findings.push(finding(format!("and {} more", facts.len() - NAMED)));
    }
    findings
}

/// A runner's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerFacts {
    /// Path of the file.
    pub path: String,
    /// The runner's name; empty where it is no runner.
    pub name: String,
    /// The runner's labels; none where it is no runner.
    pub labels: Vec<String>,
    /// What was found; the reason where it is no runner.
    pub found: Result<RunnerFound, String>,
}

/// What a runner needs, as far as it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerFound {
    /// The model's directory, where the runner names one.
    pub model: Option<ModelFacts>,
    /// Its engine: a sentence about it, or why it cannot start anything.
    pub engine: Result<String, EngineFailure>,
    /// Whether that is a daemon, which may have containers.
    pub has_containers: bool,
    /// In what this machine is not what the file says.
    pub other_machine: Option<String>,
    /// What keeps a server from being launched now, and may pass.
    pub unclean: Option<String>,
}

impl RunnerFacts {
    /// Whether jobs of this runner can run on this machine, as far as that is seen.
    pub fn is_usable(&self) -> bool {
        self.found.as_ref().is_ok_and(|found| found.engine.is_ok() && found.other_machine.is_none())
    }
}

/// A model's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFacts {
    /// Its path.
    pub path: String,
    /// Whether it is a directory.
    pub is_there: bool,
    /// Whether it has `tokenizer.json`.
    pub has_tokenizer: bool,
}

/// Why an engine cannot start anything, and what mends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineFailure {
    /// Why.
    pub why: String,
    /// What mends it.
    pub mend: String,
}

/// Checks whether runners are in service, by what is known of them from round to round, or why that cannot be read; `data` as in
/// [`super::rounds::check_rounds`].
pub fn check_service(states: &Result<Vec<RunnerState>, String>, data: &str) -> Vec<Finding> {
    let finding = |found| Finding::new("runners", Severity::Problem, found);
    let states = match states {
        Ok(states) => states,
        Err(why) => {
            let found = format!("whether a runner is in service is not known: {why}");
            return vec![finding(found).mend("mend the file by hand; without it the runner is in service")];
        }
    };
    let out = states.iter().filter_map(|state| Some((&state.runner, state.quarantine.as_ref()?)));
    out.map(|(runner, quarantine)| {
        let lift = format!("look at its machine, then: cacheon runner lift {}{data}", shell_word(runner));
        finding(quarantine_sentence(runner, quarantine)).mend(lift)
    })
    .collect()
}

/// Checks a runner. A model that is missing is a warning, for a step may name another; what keeps every job off this machine
/// is a problem where the runner is needed.
pub fn check_runner(facts: &RunnerFacts, is_needed: bool) -> Vec<Finding> {
    let unusable = if is_needed { Severity::Problem } else { Severity::Warning };
    let path = &facts.path;
    let finding = |severity, found: String| Finding::new("runners", severity, format!("`{path}` {found}"));
    let found = match &facts.found {
        Ok(found) => found,
        Err(why) => {
            let broken = finding(Severity::Problem, format!("is no runner: {why}"));
            return vec![broken.mend(format!("cacheon lint {}", shell_word(path)))];
        }
    };
    let mut findings = vec![match &found.engine {
        Ok(engine) => finding(Severity::Ok, engine.clone()),
        Err(failure) => finding(unusable, failure.why.clone()).mend(failure.mend.clone()),
    }];
    if let Some(why) = &found.other_machine {
        let other = finding(unusable, format!("states another machine than this: {why}"));
        findings.push(
            other.mend(format!("look by `nvidia-smi`, and change `machine` in {path} where that is right")),
        );
    }
    if let Some(why) = &found.unclean {
        findings.push(
            finding(Severity::Warning, format!("cannot launch a server now: {why}"))
                .mend("end what uses the GPUs: `nvidia-smi` shows it"),
        );
    }
    if let Some(ModelFacts { path: model, is_there, has_tokenizer }) = &found.model {
        if !is_there {
            let absent =
                finding(Severity::Warning, format!("names the model `{model}`, which is no directory here"));
            findings.push(absent.mend(format!("put the model there, or change `model-dir` in {path}")));
        } else if !has_tokenizer {
            let absent =
                finding(Severity::Warning, format!("names the model `{model}`, which has no tokenizer.json"));
            findings.push(absent.mend(format!("put the model's tokenizer.json into {model}")));
        }
    }
    findings
}

/// Checks what the machine is.
pub fn check_machine(look: &MachineLook) -> Vec<Finding> {
    let MachineLook { facts, state } = look;
    let of = |severity, found: String| Finding::new("machine", severity, found);
    let processors = facts.cpus.map_or_else(
        || "processors that nobody counted".to_owned(),
        |count| format!("{count} processors ({})", facts.cpu.as_deref().unwrap_or("of unknown model")),
    );
    let memory = facts.memory_bytes.map_or_else(|| "unknown".to_owned(), bytes);
    let kernel = facts.kernel.as_deref().unwrap_or("unknown");
    let mut findings = vec![of(Severity::Ok, format!("{processors}, memory {memory}, kernel {kernel}"))];
    match &facts.gpus {
        GpusFound::Unknown(why) => {
            findings.push(of(Severity::Note, format!("nothing is known of GPUs: {why}")));
        }
        GpusFound::Known { driver, list, .. } => {
            let mut models: BTreeMap<&str, usize> = BTreeMap::new();
            for gpu in list {
                *models.entry(gpu.name.as_deref().unwrap_or("GPU without a name")).or_default() += 1;
            }
            let models: Vec<String> =
                models.iter().map(|(name, count)| format!("{count} x {name}")).collect();
            let models = if models.is_empty() { "no GPU".to_owned() } else { models.join(", ") };
            findings.push(of(Severity::Ok, format!("{models}, driver {driver}")));
            for (number, links) in list.iter().map(|gpu| gpu.links.join(", ")).enumerate() {
                if !links.is_empty() {
                    findings.push(of(Severity::Note, format!("GPU {number} is connected: {links}")));
                }
            }
        }
    }
    let faults = state.xids.iter().flatten().filter(|xid| Xid::is_of_the_machine(xid.code));
    for Xid { pci, code } in faults.take(NAMED) {
        let found = format!("the driver reported Xid {code} of the GPU at {pci} since the machine started");
        findings.push(of(Severity::Warning, found).mend("see what NVIDIA's catalogue of Xid errors says of it; restart the machine where it asks for that"));
    }
    if let Some(governor) = facts.cpu_governor.as_deref().filter(|governor| *governor != "performance") {
        let found =
            format!("the processors' frequency is set by `{governor}`: two reads may get different ones");
        findings.push(of(Severity::Warning, found).mend("cpupower frequency-set -g performance"));
    }
    if let Some(source) =
        facts.clock_source.as_deref().filter(|source| ["hpet", "acpi_pm", "jiffies"].contains(source))
    {
        let found = format!("the kernel tells the time by `{source}`, which is slow to ask");
        findings.push(of(Severity::Warning, found).mend("see by `dmesg` why the kernel does not use tsc"));
    }
    findings
}

/// A process of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Id of its parent.
    pub parent: u32,
    /// Whether its program is this one.
    pub is_ours: bool,
    /// The process that started it as a script, by its mark.
    pub mark: Option<u32>,
    /// Whether its environment is that of a server.
    pub is_server: bool,
}

/// Checks for scripts and servers whose round is gone, among all processes by id.
pub fn check_processes(processes: &BTreeMap<u32, ProcessFacts>) -> Vec<Finding> {
    let is_ours = |pid: u32| processes.get(&pid).is_some_and(|process| process.is_ours);
    let has_ours_above = |process: &ProcessFacts| {
        let above = std::iter::successors(Some(process.parent), |pid| processes.get(pid).map(|it| it.parent));
        // Bounded: ids are read one after another, and may make a circle.
        above.take(64).any(is_ours)
    };
    let strays: Vec<(u32, &str)> = processes
        .iter()
        .filter_map(|(pid, process)| match process.mark {
            Some(mark) if !is_ours(mark) => Some((*pid, "script")),
            None if process.is_server && !has_ours_above(process) => Some((*pid, "server")),
            _ => None,
        })
        .collect();
    if strays.is_empty() {
        return vec![Finding::new("processes", Severity::Ok, "none was left by a round that is gone")];
    }
    let named = strays.iter().take(NAMED).map(|(pid, what)| {
        let found = format!("process {pid} is a {what} whose round is gone");
        Finding::new("processes", Severity::Warning, found).mend(format!("kill {pid}"))
    });
    let mut findings: Vec<Finding> = named.collect();
    if strays.len() > NAMED {
        let more = format!("and {} more", strays.len() - NAMED);
        findings.push(Finding::new("processes", Severity::Warning, more));
    }
    findings
}

/// A container of this program's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerFacts {
    /// Its name.
    pub name: String,
    /// The round it is of.
    pub round: String,
    /// Whether it runs.
    pub is_running: bool,
    /// Whether the program that started it still runs; none where that cannot be seen.
    pub is_held: Option<bool>,
}

/// Checks for containers that nobody holds any more; why they could not be listed, otherwise.
pub fn check_containers(containers: &Result<Vec<ContainerFacts>, String>) -> Vec<Finding> {
    let found = match containers {
        Ok(found) => found,
        Err(why) => {
            let found = format!("they cannot be listed: {why}");
            return vec![
                Finding::new("containers", Severity::Problem, found).mend("look at the daemon's log"),
            ];
        }
    };
    let left: Vec<&ContainerFacts> = found.iter().filter(|found| found.is_held != Some(true)).collect();
    if left.is_empty() {
        return vec![Finding::new("containers", Severity::Ok, "none was left by a program that has ended")];
    }
    let named = left.iter().take(NAMED).map(|left| {
        let state = if left.is_running { "runs" } else { "is there" };
        let of = if left.round.is_empty() { String::new() } else { format!(" of round `{}`", left.round) };
        let why = match left.is_held {
            None => "whether its program still runs cannot be seen from here, so no round boots a server",
            Some(_) => "its program has ended; the next server that is booted removes it",
        };
        let found = format!("`{}`{of} {state}: {why}", left.name);
        Finding::new("containers", Severity::Warning, found).mend(format!("docker rm -f {}", left.name))
    });
    let mut findings: Vec<Finding> = named.collect();
    if left.len() > NAMED {
        let more = format!("and {} more", left.len() - NAMED);
        findings.push(Finding::new("containers", Severity::Warning, more));
    }
    findings
}

/// The clock and what it can be held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockFacts {
    /// What the clock says.
    pub now: Timestamp,
    /// When this program's file was written.
    pub built_at: Option<Timestamp>,
    /// The newest line of any journal, and whose.
    pub newest: Option<(Timestamp, String)>,
    /// Whether the clock is known to be synchronised; none where nobody says.
    pub is_synchronised: Option<bool>,
}

/// Checks the clock.
pub fn check_clock(facts: &ClockFacts) -> Vec<Finding> {
    const MEND: &str = "set the clock, for example: timedatectl set-ntp true";
    let problem = |found: String| Finding::new("clock", Severity::Problem, found).mend(MEND);
    let now = facts.now.strftime("%Y-%m-%dT%H:%M:%SZ");
    let mut findings = Vec::new();
    if let Some((at, round)) = facts.newest.as_ref().filter(|(at, _)| *at > facts.now) {
        findings
            .push(problem(format!("it is {now} here, and the journal of `{round}` was written on at {at}")));
    }
    if facts.built_at.is_some_and(|at| at > facts.now) {
        findings.push(problem(format!("it is {now} here, before this program was made")));
    }
    if findings.is_empty() {
        findings.push(Finding::new(
            "clock",
            Severity::Ok,
            format!("it is {now}, after all that was written"),
        ));
    }
    findings.push(match facts.is_synchronised {
        Some(true) => Finding::new("clock", Severity::Ok, "it is synchronised"),
        _ => Finding::new("clock", Severity::Note, "nothing here says that it is synchronised"),
    });
    findings
}

#[cfg(test)]
mod tests;
