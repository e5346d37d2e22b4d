//! What is left of containers whose holder has ended: found by label, removed, and confirmed to be gone.
//!
//! A container outlives the program that started it. So each has its holder in a label, and whoever starts another one
//! removes first what nobody holds. Nothing else with these labels is touched.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
};
use tokio::time::Instant;

use super::holder::{Holder, Life};
use super::{MAX_WORDS, daemon};
use crate::ports::EngineError;
use crate::report::text::{error_chain, excerpt};

/// The label of every container of this program's.
pub(super) const LABEL: &str = "cacheon";
/// The label that says who holds it.
pub(super) const HOLDER: &str = "cacheon.holder";
/// The label that says of which round it is.
pub(super) const ROUND: &str = "cacheon.round";
/// How long the daemon may take to remove a container, and how often it is asked whether one is gone.
const REMOVE_DEADLINE: Duration = Duration::from_secs(30);
const GONE_PAUSE: Duration = Duration::from_millis(100);
/// How long the daemon may take to list containers.
const LIST_DEADLINE: Duration = Duration::from_secs(30);

/// A container of this program's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name, without the daemon's slash.
    pub name: String,
    /// The round it is of; empty where it does not say.
    pub round: String,
    /// Whether it runs.
    pub is_running: bool,
    /// Who holds it; none where the label is none of this version's.
    pub holder: Option<Holder>,
    id: String,
}

impl Found {
    /// Whether its holder still runs. Who cannot be asked is unknown.
    pub fn life(&self) -> Life {
        self.holder.as_ref().and_then(|holder| holder.life().ok()).unwrap_or(Life::Unknown)
    }
}

/// All containers of this program's, running or not, by name.
pub(super) async fn all(docker: &Docker) -> Result<Vec<Found>, EngineError> {
    let ours = HashMap::from([("label", vec![format!("{LABEL}=1")])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&ours).build();
    let listed = tokio::time::timeout(LIST_DEADLINE, docker.list_containers(Some(options))).await;
    let listed = listed.map_err(|_| EngineError::Daemon {
        attempted: "list containers",
        why: format!("no answer within {} s", LIST_DEADLINE.as_secs()),
    })?;
    let listed = listed.map_err(|error| daemon("list containers", &error))?;
    let mut found: Vec<Found> = listed
        .into_iter()
        .filter_map(|one| {
            let labels = one.labels.unwrap_or_default();
            let id = one.id?;
            let name = one.names.unwrap_or_default().into_iter().next();
            let name = name.map_or_else(|| id.clone(), |name| name.trim_start_matches('/').to_owned());
            Some(Found {
                name,
                round: labels.get(ROUND).cloned().unwrap_or_default(),
                is_running: one.state.is_some_and(|state| state.to_string() == "running"),
                holder: labels.get(HOLDER).and_then(|holder| holder.parse().ok()),
                id,
            })
        })
        .collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// Removes what nobody holds any more.
///
/// # Errors
/// When the daemon does not answer, one could not be removed, or nobody can say whether one is held: a server that runs
/// beside it would not have the machine for itself.
pub(super) async fn sweep(docker: &Docker) -> Result<(), EngineError> {
    for found in all(docker).await? {
        match found.life() {
            Life::Alive => {}
            Life::Dead => {
                remove(docker, &found.id).await.map_err(|why| not_removed(&found.name, &why))?;
                let (container, round) = (&found.name, &found.round);
                tracing::info!(container, round, "removed a container that an ended program left");
            }
            Life::Unknown => {
                let why = format!(
                    "container `{0}` is cacheon's, and whether its program still runs cannot be seen from here; `docker rm -f {0}` if it does not",
                    found.name
                );
                return Err(EngineError::Daemon { attempted: "find what runs already", why });
            }
        }
    }
    Ok(())
}

/// Removes all that this holder holds.
///
/// # Errors
/// When the daemon does not answer, or one could not be removed.
pub(super) async fn remove_held(docker: &Docker, holder: &Holder) -> Result<(), EngineError> {
    let held = all(docker).await?.into_iter().filter(|found| found.holder.as_ref() == Some(holder));
    for found in held {
        remove(docker, &found.id).await.map_err(|why| not_removed(&found.name, &why))?;
    }
    Ok(())
}

fn not_removed(name: &str, why: &str) -> EngineError {
    let why = format!("container `{name}` could not be removed: {why}");
    EngineError::Daemon { attempted: "remove a container", why: excerpt(&why, MAX_WORDS) }
}

/// Kills and removes a container with its anonymous volumes, and sees that it is gone; that it was gone already is what was
/// wanted. Why it is not, otherwise.
pub(super) async fn remove(docker: &Docker, id: &str) -> Result<(), String> {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    let until = Instant::now() + REMOVE_DEADLINE;
    let late = || format!("it is still there after {} s", REMOVE_DEADLINE.as_secs());
    let removal = tokio::time::timeout_at(until, docker.remove_container(id, Some(options))).await;
    match removal.map_err(|_| late())? {
        Ok(()) | Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => return Ok(()),
        // Somebody else removes it already.
        Err(DockerError::DockerResponseServerError { status_code: 409, .. }) => {}
        Err(error) => return Err(error_chain(&error)),
    }
    let gone = async {
        loop {
            match docker.inspect_container(id, None::<InspectContainerOptions>).await {
                Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => return Ok(()),
                Err(error) => return Err(error_chain(&error)),
                Ok(_) => tokio::time::sleep(GONE_PAUSE).await,
            }
        }
    };
    tokio::time::timeout_at(until, gone).await.map_err(|_| late())?
}
