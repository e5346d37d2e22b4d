//! Gathers what `cacheon doctor` looks at: the data directory, its disk, rounds, runners, processes, the clock.
//!
//! Nothing is changed but for one empty file that is made in the data directory and removed at once. What a file says
//! of itself is not believed; a link is not followed into a round.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::guard::MARK;
use super::machine::ThisMachine;
use super::store::{self, RoundDirectory};
use crate::artifact::layout::PARTIAL_PREFIX;
use crate::judge::machine::{not_as_stated, not_clean};
use crate::model::{MachineLook, MachineSpec};
use crate::pipeline::diagnostic::Color;
use crate::pipeline::runner::{EngineKind, RunnerSpec};
use crate::pipeline::source::Source;
use crate::ports::Machine as _;
use crate::report::doctor::checks::{
    ClockFacts, ContainerFacts, DataFacts, DataState, DiskFacts, EngineFailure, LeftoverFacts, ModelFacts,
    ProcessFacts, RunnerFacts, RunnerFound,
};

/// How long an engine may take to answer.
#[cfg(feature = "docker")]
const ENGINE_DEADLINE: Duration = Duration::from_secs(5);
/// Largest runner file that is read, one byte beyond what its parser takes.
const MAX_RUNNER_BYTES: u64 = 1024 * 1024 + 1;
/// A half-written file younger than this may have a living writer.
const WRITING: Duration = Duration::from_hours(1);
/// Most of a process's environment that is read; the kernel's own bound is larger.
const MAX_ENVIRONMENT: u64 = 1 << 20;

/// The data directory, tried by writing.
pub fn data(data_dir: &Path) -> DataFacts {
    let state = match fs::metadata(data_dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => DataState::Absent,
        Err(error) => DataState::Unusable(error.to_string()),
        Ok(metadata) if !metadata.is_dir() => DataState::Unusable("it is no directory".to_owned()),
        Ok(metadata) => {
            let tried = tempfile::Builder::new().prefix(PARTIAL_PREFIX).tempfile_in(data_dir);
            let tried = tried.and_then(tempfile::NamedTempFile::close);
            DataState::Directory {
                unwritable: tried.err().map(|error| error.to_string()),
                mode: metadata.mode() & 0o7777,
                owner: metadata.uid(),
                own: rustix::process::geteuid().as_raw(),
            }
        }
    };
    DataFacts { path: data_dir.display().to_string(), state }
}

/// What is free on the file system of the data directory, or of the directory where it will be made.
pub fn disk(data_dir: &Path) -> Option<DiskFacts> {
    let path = std::path::absolute(data_dir).ok()?;
    let there = path.ancestors().find(|path| path.exists())?;
    let found = rustix::fs::statvfs(there).ok()?;
    Some(DiskFacts {
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        free_inodes: (found.f_files > 0).then_some(found.f_favail),
    })
}

/// What dead writers left in the data directory and beside the rounds, by path.
///
/// # Errors
/// When the directory of the rounds is there but cannot be listed.
pub fn leftovers(data_dir: &Path, now: Timestamp) -> Result<Vec<LeftoverFacts>, store::StoreError> {
    let removals = store::leftovers(data_dir)?.into_iter().map(|rest| LeftoverFacts::Removal(rest.path));
    let is_old = |path: &Path| {
        let written = fs::symlink_metadata(path).and_then(|metadata| metadata.modified()).ok();
        let written = written.and_then(|written| Timestamp::try_from(written).ok());
        written.is_some_and(|written| {
            Duration::try_from(now.duration_since(written)).is_ok_and(|ago| ago > WRITING)
        })
    };
    let mut files: Vec<PathBuf> = fs::read_dir(data_dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PARTIAL_PREFIX.as_bytes()))
        .map(|entry| entry.path())
        .filter(|path| is_old(path))
        .collect();
    files.sort();
    Ok(removals
        .chain(files.into_iter().map(|path| LeftoverFacts::File(path.display().to_string())))
        .collect())
}

/// What this machine is, and how it is.
pub fn machine() -> MachineLook {
    ThisMachine::default().look()
}

/// The runners of a folder, by path; none if there is no such folder.
pub async fn runners(folder: &Path, program: &Path) -> Vec<RunnerFacts> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "yml" || ending == "yaml"));
    paths.sort();
    let mut facts = Vec::new();
    let look = machine();
    for path in paths {
        let ((name, labels), found) = match parse(&path) {
            Ok(spec) => {
                let model = spec.model_dir.as_deref().map(model);
                let engine = engine(&spec, program).await;
                let has_containers = spec.engine == EngineKind::Docker && engine.is_ok();
                let other_machine = not_as_stated(&spec.machine, &look.facts);
                let has_gpus = spec.gpus.is_some() || spec.machine != MachineSpec::default();
                let unclean = not_clean(&look.state).filter(|_| has_gpus && other_machine.is_none());
                let found = RunnerFound { model, engine, has_containers, other_machine, unclean };
                ((spec.name, spec.labels), Ok(found))
            }
            Err(why) => (Default::default(), Err(why)),
        };
        facts.push(RunnerFacts { path: path.display().to_string(), name, labels, found });
    }
    facts
}

fn parse(path: &Path) -> Result<RunnerSpec, String> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(MAX_RUNNER_BYTES).read_to_string(&mut text));
    read.map_err(|error| error.to_string())?;
    let source = Source::new(&path.to_string_lossy(), &text);
    let parsed = RunnerSpec::parse(&source).map_err(|found| found.render(Color::Never))?;
    Ok(parsed.value)
}

fn model(path: &str) -> ModelFacts {
    let folder = Path::new(path);
    ModelFacts {
        path: path.to_owned(),
        is_there: folder.is_dir(),
        has_tokenizer: folder.join("tokenizer.json").is_file(),
    }
}

async fn engine(spec: &RunnerSpec, program: &Path) -> Result<String, EngineFailure> {
    match spec.engine {
        EngineKind::Process => match fs::File::open(program) {
            Ok(_) => Ok("starts processes of this machine".to_owned()),
            Err(error) => Err(EngineFailure {
                why: format!("starts processes by `{}`, which cannot be read: {error}", program.display()),
                mend: "build or install cacheon again".to_owned(),
            }),
        },
        EngineKind::Docker => docker(spec).await,
    }
}

#[cfg(feature = "docker")]
async fn docker(spec: &RunnerSpec) -> Result<String, EngineFailure> {
    use super::docker::{DockerEngine, DockerSettings, own_processors, why_shared};
    use crate::report::text::{bytes, error_chain};
    let facts = DockerEngine::new(DockerSettings::default()).daemon_facts(ENGINE_DEADLINE).await;
    let facts = facts.map_err(|error| EngineFailure {
        why: format!("starts containers, and Docker does not answer: {}", error_chain(&error)),
        mend: "start the daemon (systemctl start docker), join its group, or name it by DOCKER_HOST"
            .to_owned(),
    })?;
    if let (Some(runtime), Some(there)) = (&spec.runtime, &facts.runtimes)
        && !there.contains(runtime)
    {
        let there: Vec<&str> = there.iter().map(String::as_str).collect();
        return Err(EngineFailure {
            why: format!("starts containers by `{runtime}`, and Docker has {} only", there.join(", ")),
            mend: format!(
                "add `{runtime}` to the `runtimes` in /etc/docker/daemon.json and restart the daemon"
            ),
        });
    }
    let shared = spec.limits.cpuset.as_ref().zip(own_processors().ok());
    if let Some(why) = shared.and_then(|(servers, own)| why_shared(&own, servers)) {
        let mend = "start cacheon by `taskset`, or change `limits.cpuset`".to_owned();
        return Err(EngineFailure { why: format!("shares processors with its servers: {why}"), mend });
    }
    let restarts = match facts.has_live_restore {
        Some(false) => {
            "; containers end with it (`live-restore` in /etc/docker/daemon.json lets them outlive it)"
        }
        Some(true) | None => "",
    };
    let images = facts.image_bytes.map_or_else(|| "an unknown size".to_owned(), bytes);
    Ok(format!("starts containers; Docker {} answers, its images take {images}{restarts}", facts.version))
}

#[cfg(not(feature = "docker"))]
#[expect(clippy::unused_async, reason = "stands for one that asks the daemon")]
async fn docker(_: &RunnerSpec) -> Result<String, EngineFailure> {
    Err(EngineFailure {
        why: "starts containers, and this program was built without the feature `docker`".to_owned(),
        mend: "build cacheon with the feature `docker`, or move the file away".to_owned(),
    })
}

/// The containers of this program's that the daemon has, by name; why they cannot be listed, otherwise.
///
/// # Errors
/// What the daemon says, as text.
#[cfg(feature = "docker")]
pub async fn containers() -> Result<Vec<ContainerFacts>, String> {
    use super::docker::{DockerEngine, DockerSettings, Life};
    let found = DockerEngine::new(DockerSettings::default()).containers().await;
    let found = found.map_err(|error| crate::report::text::error_chain(&error))?;
    let facts = |found: super::docker::Found| ContainerFacts {
        is_held: match found.life() {
            Life::Alive => Some(true),
            Life::Dead => Some(false),
            Life::Unknown => None,
        },
        is_running: found.is_running,
        round: found.round,
        name: found.name,
    };
    Ok(found.into_iter().map(facts).collect())
}

/// Without the feature there are none.
///
/// # Errors
/// None.
#[cfg(not(feature = "docker"))]
#[expect(clippy::unused_async, reason = "stands for one that asks the daemon")]
pub async fn containers() -> Result<Vec<ContainerFacts>, String> {
    Ok(Vec::new())
}

/// All processes of this machine, by id; only those of this user say what they are.
pub fn processes(program: &Path) -> BTreeMap<u32, ProcessFacts> {
    let own = rustix::process::geteuid().as_raw();
    let name = program.file_name();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let process = |path: &Path| {
        let stat = fs::read_to_string(path.join("stat")).ok()?;
        // The name stands in brackets and may hold anything.
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        let is_own = fs::metadata(path).is_ok_and(|metadata| metadata.uid() == own);
        let environment = if is_own { environment(path) } else { Vec::new() };
        let value = |name: &str| {
            let variables = environment.split(|byte| *byte == 0);
            variables
                .into_iter()
                .find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        };
        let mark = value(MARK).and_then(|mark| std::str::from_utf8(mark).ok()?.parse().ok());
        let is_server = value("CACHEON_PORT").is_some() && value("CACHEON_MODEL_DIR").is_some();
        let executable = fs::read_link(path.join("exe")).unwrap_or_default();
        // A program that was replaced while it runs has words after its name.
        let is_ours = executable.file_name().is_some_and(|found| {
            let found = found.to_string_lossy();
            name.is_some_and(|name| found.trim_end_matches(" (deleted)") == name.to_string_lossy())
        });
        Some(ProcessFacts { parent, is_ours, mark, is_server })
    };
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            (pid != std::process::id()).then_some(())?;
            Some((pid, process(&entry.path())?))
        })
        .collect()
}

fn environment(process: &Path) -> Vec<u8> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    // One that has just ended has none.
    let read = fs::File::open(process.join("environ"))
        .map(|file| file.take(MAX_ENVIRONMENT).read_to_end(&mut bytes));
    drop(read);
    bytes
}

/// What the clock can be held against; `newest` is the newest line of any journal.
pub fn clock(now: Timestamp, program: &Path, newest: Option<(Timestamp, String)>) -> ClockFacts {
    let built_at = fs::metadata(program).and_then(|metadata| metadata.modified()).ok();
    let is_synchronised = Path::new("/run/systemd/timesync/synchronized").exists();
    ClockFacts {
        now,
        built_at: built_at.and_then(|at| Timestamp::try_from(at).ok()),
        newest,
        is_synchronised: is_synchronised.then_some(true),
    }
}

/// How it stands with every round, and the newest line of all their journals with the round it is of.
///
/// # Errors
/// When the directory of the rounds is there but cannot be listed.
pub fn rounds(data_dir: &Path) -> Result<store::RoundsHealth, store::StoreError> {
    let directories: Vec<RoundDirectory> = store::directories(data_dir)?;
    Ok(store::health(&directories))
}
