//! `cacheon guard`: what ends the scripts of a process that was killed, and removes its containers.

use clap::Args;

use crate::adapters::guard::stand_guard;
use crate::error::{Error, ExitCode};

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Arguments {
    /// What the scripts have in their environment.
    mark: Option<String>,
    /// Remove the containers of this holder.
    #[cfg(feature = "docker")]
    #[arg(long, value_name = "HOLDER")]
    containers: Option<String>,
}

#[cfg_attr(
    not(feature = "docker"),
    expect(clippy::unused_async, reason = "asks a daemon where there may be one")
)]
pub(super) async fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    #[cfg(feature = "docker")]
    if let Some(holder) = &arguments.containers {
        return containers(holder).await;
    }
    let mark = arguments.mark.as_deref().unwrap_or_default();
    stand_guard(mark).map_err(|source| Error::Machine { attempted: "list processes", source })?;
    Ok(ExitCode::Done)
}

#[cfg(feature = "docker")]
async fn containers(holder: &str) -> Result<ExitCode, Error> {
    use std::time::Duration;

    use crate::adapters::docker::{DockerEngine, DockerSettings, Holder};
    use crate::adapters::guard::wait_for_end;

    /// A daemon that was killed with us is back by then, where anything brings it back.
    const DEADLINE: Duration = Duration::from_mins(2);

    let holder: Holder =
        holder.parse().map_err(|()| Error::Usage(format!("`{holder}` is no holder of containers")))?;
    // Nothing else is to be done meanwhile.
    let _ = tokio::task::spawn_blocking(wait_for_end).await;
    let engine = DockerEngine::new(DockerSettings::default());
    engine.remove_held(&holder, DEADLINE).await.map_err(|error| Error::Machine {
        attempted: "remove containers",
        source: std::io::Error::other(error),
    })?;
    Ok(ExitCode::Done)
}
