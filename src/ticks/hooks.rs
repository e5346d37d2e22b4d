//! `on.failure`: tells somebody that a scheduled round is not done.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::task::JoinSet;

use super::pipelines::ScheduledPipeline;
use crate::artifact::TickEvent;
use crate::model::{RoundId, TickReason};
use crate::report::tick_line;

/// How long a script may take.
const LIMIT: Duration = Duration::from_mins(1);

/// The scripts that run.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    running: JoinSet<Option<String>>,
}

impl Hooks {
    /// Starts the pipeline's script, if the line is one that somebody should know of.
    pub(super) fn tell(&mut self, event: &TickEvent, pipeline: &ScheduledPipeline) {
        let (round_id, exit_code) = match event {
            TickEvent::TickEnded { round_id, exit_code, .. } if *exit_code != 0 => {
                (Some(round_id), exit_code.to_string())
            }
            TickEvent::TickMissed { reason: TickReason::Deadline, .. } => (None, String::new()),
            _ => return,
        };
        let Some(script) = &pipeline.on_failure else { return };
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc", "-eo", "pipefail", "-c", script]);
        command.env("CACHEON_PIPELINE", &pipeline.name);
        command.env("CACHEON_EVENT", tick_line(event).unwrap_or_default());
        command.env("CACHEON_ROUND", round_id.map_or("", RoundId::as_str));
        command.env("CACHEON_EXIT_CODE", exit_code);
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).process_group(0);
        let name = pipeline.name.clone();
        self.running.spawn(async move {
            let why = match tokio::time::timeout(LIMIT, command.status()).await {
                Ok(Ok(status)) if status.success() => return None,
                Ok(Ok(status)) => status.to_string(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("not done after {} s", LIMIT.as_secs()),
            };
            Some(format!("`on.failure` of `{name}` told nobody: {why}"))
        });
    }

    /// What went wrong with the scripts that have ended.
    pub(super) fn ended(&mut self) -> Vec<String> {
        let mut notes = Vec::new();
        while let Some(ended) = self.running.try_join_next() {
            notes.extend(ended.ok().flatten());
        }
        notes
    }

    /// Waits for all scripts; gives what went wrong with them.
    pub(super) async fn all_ended(&mut self) -> Vec<String> {
        let mut notes = Vec::new();
        while let Some(ended) = self.running.join_next().await {
            notes.extend(ended.ok().flatten());
        }
        notes
    }
}
