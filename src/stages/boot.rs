//! `boot`: starts a server and waits until it says it is healthy.
//!
//! The server then belongs to the job, which stops it when it ends, whatever happens.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{JobContext, StageError};
use crate::adapters::log::last_words;
use crate::model::Role;
use crate::pipeline::stage::TimeSpan;
use crate::pipeline::stage::boot::{Output, Parameters};
use crate::ports::{Exit, Launch, Server};

/// A server that answered its health check.
pub struct BootedServer {
    /// The server itself, which the job stops.
    pub server: Box<dyn Server>,
    /// Name that the model is served under.
    pub model_name: String,
    /// Whose server it is.
    pub role: Role,
}

/// Why a server did not become ready.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The server ended by itself.
    #[error("the server ended with {exit} after {:.1} s, before `{health_path}` answered 200; its last words: {last_words}", after.as_secs_f64())]
    Exited {
        /// How the process exited.
        exit: Exit,
        /// How long after its start it ended.
        after: Duration,
        /// Path of the health check.
        health_path: String,
        /// Last line of the server's log.
        last_words: String,
    },
    /// The server was not healthy when the deadline had passed.
    #[error("`{health_path}` did not answer 200 within {:.0} s ({last}); the server's last words: {last_words}", deadline.as_secs_f64())]
    NotReady {
        /// How long it was waited for.
        deadline: Duration,
        /// Path of the health check.
        health_path: String,
        /// What the last look at the health check saw.
        last: String,
        /// Last line of the server's log.
        last_words: String,
    },
}

pub(super) async fn run(parameters: Parameters, context: &mut JobContext<'_>) -> Result<Output, StageError> {
    if context.server.is_some() {
        return Err(StageError::Parameter(
            "this job has booted a server already; a job boots one".to_owned(),
        ));
    }
    if let Some(path) = parameters.health_path.as_deref().filter(|path| !path.starts_with('/')) {
        return Err(StageError::Parameter(format!("`health-path` is `{path}`, and a path begins with `/`")));
    }
    let model_dir = match &parameters.model_dir {
        Some(given) => std::path::absolute(given).map_err(|source| StageError::Machine {
            attempted: "find the working directory".to_owned(),
            source,
        })?,
        None => context.runner.model_dir.clone(),
    };
    let launch = Launch {
        image: parameters.image.clone(),
        digest: parameters.digest.clone(),
        model_dir: model_dir.clone(),
        model_name: parameters.model_name.clone(),
        log_path: context.attempt_dir.join("server.log"),
        max_log_bytes: parameters.max_log_bytes.min(context.runner.max_log_bytes),
        scratch_dir: context.scratch_dir.join("server"),
    };
    let started = Instant::now();
    let server = context.engine()?.launch(&launch).await?;
    context.notes.model_dir = Some(model_dir);
    let address = server.address();
    let boot_id = server.boot_id().to_owned();
    // From here on the job owns the server, so that every way out stops it.
    let booted = context.server.insert(BootedServer {
        server,
        model_name: parameters.model_name.clone(),
        role: parameters.role,
    });
    wait_until_ready(&parameters, &mut *booted.server, address).await?;
    let took = started.elapsed();
    context.notes.boot = Some((boot_id.clone(), took));
    Ok(Output { endpoint: format!("http://{address}"), boot_id, ready_ms: took.as_millis() as u64 })
}

async fn wait_until_ready(
    parameters: &Parameters,
    server: &mut dyn Server,
    address: SocketAddr,
) -> Result<(), StageError> {
    let TimeSpan(deadline) = parameters.deadline;
    let started = Instant::now();
    let http = super::http_client()?;
    let health_path = parameters.health_path.clone().unwrap_or_else(|| server.health_path().to_owned());
    let url = format!("http://{address}{health_path}");
    let mut last = "nothing answered yet".to_owned();
    let looking = async {
        let mut ticks = tokio::time::interval(parameters.poll.0.max(Duration::from_millis(10)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match http.get(&url).timeout(Duration::from_secs(5)).send().await {
                Ok(response) if response.status() == reqwest::StatusCode::OK => return,
                Ok(response) => last = format!("last answer {}", response.status()),
                Err(error) if error.is_connect() => "connection refused".clone_into(&mut last),
                Err(error) => last = format!("last error: {error}"),
            }
        }
    };
    let outcome = tokio::select! {
        biased;
        exit = server.exited() => Some(exit),
        ready = tokio::time::timeout(deadline, looking) => match ready {
            Ok(()) => return Ok(()),
            Err(_) => None,
        },
    };
    let last_words = last_words(&server.log_tail());
    Err(match outcome {
        Some(exit) => BootError::Exited { exit, after: started.elapsed(), health_path, last_words },
        None => BootError::NotReady { deadline, health_path, last, last_words },
    }
    .into())
}
