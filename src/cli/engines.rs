//! What a runner's file names, built: the one place that knows which engine is which.

use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(feature = "docker")]
use crate::adapters::docker::{DockerEngine, DockerSettings, daemon_address};
use crate::adapters::machine::ThisMachine;
use crate::adapters::process::ProcessEngine;
use crate::adapters::shell::Shell;
use crate::adapters::store::Group;
use crate::job::InProcess;
use crate::pipeline::runner::{EngineKind, RunnerSpec};
use crate::ports::ContainerEngine;
use crate::stages::RunnerContext;

/// Runs the jobs of the controller in this process; `program` is this executable.
pub(super) fn controller(program: &Path) -> InProcess {
    InProcess::new(RunnerContext::controller(), Shell::guarded_by(program.to_owned()))
}

/// The runner with its engine; `program` is this executable, and `data_dir` the folder of all rounds, absolute.
#[cfg_attr(
    not(feature = "docker"),
    expect(unused_variables, reason = "only a daemon's images are kept there")
)]
pub(super) fn runner(spec: &RunnerSpec, program: &Path, data_dir: &Path) -> RunnerContext {
    let absolute = |path: &str| std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    let engine: Option<Arc<dyn ContainerEngine>> = match spec.engine {
        EngineKind::Process => {
            let images = spec.images.as_deref().map(absolute).unwrap_or_default();
            Some(Arc::new(ProcessEngine::new(images, program.to_owned())))
        }
        #[cfg(feature = "docker")]
        EngineKind::Docker => {
            let (limits, program) = (spec.limits.clone(), program.to_owned());
            let pulls_dir = data_dir.join("pulls");
            Some(Arc::new(DockerEngine::new(DockerSettings {
                limits,
                runtime: spec.runtime.clone(),
                gpus: spec.gpus.clone(),
                program,
                pulls_dir,
                ..Default::default()
            })))
        }
        #[cfg(not(feature = "docker"))]
        EngineKind::Docker => None,
    };
    RunnerContext {
        name: spec.name.clone(),
        engine,
        model_dir: spec.model_dir.as_deref().map(absolute).unwrap_or_default(),
        max_log_bytes: spec.limits.log_kib.map_or(u64::MAX, |kib| kib.saturating_mul(1024)),
        floor: spec.floor.clone(),
        machine: Arc::new(ThisMachine::default()),
        stated: spec.machine.clone(),
        has_gpus: spec.gpus.is_some(),
    }
}

/// The queue of the rounds for a runner's engine. Processes have none: two rounds of them are the operator's own choice.
pub(super) fn queue(spec: &RunnerSpec) -> Option<Group> {
    match spec.engine {
        EngineKind::Process => None,
        #[cfg(feature = "docker")]
        EngineKind::Docker => Some(Group::of_engine(&daemon_address())),
        #[cfg(not(feature = "docker"))]
        EngineKind::Docker => None,
    }
}
