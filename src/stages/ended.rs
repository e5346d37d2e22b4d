//! What became of the job's server, where a step failed beside it: requests that fail say little, an exit code much.
//!
//! Also whether the engine was sound all the time: who restarts a daemon ends containers, and no submission is blamed for that.

use std::fmt;
use std::time::Duration;

use super::symptoms::words_of;
use super::{JobContext, StageError, preflight};
use crate::judge::repeats::GPU_FAILED;
use crate::model::Fault;
use crate::ports::Exit;

/// How long an exit may take to be known after the requests that it failed.
const EXIT_WITHIN: Duration = Duration::from_secs(3);

/// What became of a server, beside what was seen of it from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It ended by itself.
    Exited {
        /// How.
        exit: Exit,
        /// Last line of its log, and what in it is known.
        last_words: String,
    },
    /// Its engine failed meanwhile, as it says here: what became of the server says nothing of the server.
    EngineFailed(String),
    /// A GPU of the machine failed meanwhile, or its driver, as it says here.
    GpuFailed(String),
}

impl Ending {
    /// Whose fault that is, and its published code.
    pub(super) fn fault(&self) -> (Fault, &'static str) {
        match self {
            Self::EngineFailed(_) => (Fault::Infra, "container-engine"),
            Self::GpuFailed(_) => (Fault::Infra, GPU_FAILED),
            // Gone without a trace: the container or its daemon was lost, and nobody saw it exit.
            Self::Exited { exit: Exit { code: None, signal: None, .. }, .. } => {
                (Fault::Unknown, "server-lost")
            }
            Self::Exited { .. } => (Fault::Submission, "server-exited"),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { exit, last_words } => {
                write!(f, "the server ended with {exit}; its last words: {last_words}")
            }
            Self::EngineFailed(why) => write!(f, "the container engine failed meanwhile: {why}"),
            Self::GpuFailed(why) => write!(f, "the machine failed meanwhile: {why}"),
        }
    }
}

/// What became of the job's server; none where it runs, and its engine is well.
pub(super) async fn ending(context: &mut JobContext<'_>) -> Option<Ending> {
    let server = &mut context.server.as_mut()?.server;
    let exit = tokio::time::timeout(EXIT_WITHIN, server.exited()).await.ok();
    if let Some(why) = server.engine_failure().await {
        return Some(Ending::EngineFailed(why));
    }
    if let Some(why) = preflight::broken_since_launch(context).await {
        return Some(Ending::GpuFailed(why));
    }
    let server = &mut context.server.as_mut()?.server;
    let last_words = words_of(&server.log_tail());
    exit.map(|exit| Ending::Exited { exit, last_words })
}

/// The error of a step, with what became of the server where that is the better reason for it.
pub(super) async fn explain(error: StageError, context: &mut JobContext<'_>) -> StageError {
    match error {
        StageError::Final(error) => StageError::Final(Box::new(Box::pin(explain(*error, context)).await)),
        StageError::Boot(_)
        | StageError::WarmUp { .. }
        | StageError::Silent { .. }
        | StageError::OutOfTime { .. }
        | StageError::BaselineFailed { .. } => match ending(context).await {
            // The boot has watched for that, and says it in its own words.
            Some(Ending::Exited { .. }) if matches!(error, StageError::Boot(_)) => error,
            Some(ending) => StageError::Ended { ending, seen: error.to_string() },
            None => error,
        },
        other => other,
    }
}
