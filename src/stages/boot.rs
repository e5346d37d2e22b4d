//! `boot`: starts a server and waits until it says it is healthy, and answers.
//!
//! Health is the server's own word; it is ready when one real answer of the right shape has come.
//!
//! The server then belongs to the job, which stops it when it ends, whatever happens. A later step of the job may have it
//! launched anew, by the same parameters.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::load::what_failed;
use super::symptoms::words_of;
use super::{CHAT_PATH, JobContext, STOP_GRACE, StageError, preflight};
use crate::artifact::{JournalEvent, LegAttempt};
use crate::client::{AskError, Deadline, Limits, LoadPlan, Reply, Request, Target, ask, run_single_stream};
use crate::measure::{AnswerBounds, End, RequestShape, ResponseBounds, observe, request_body};
use crate::model::RequestStatus;
use crate::pipeline::stage::TimeSpan;
use crate::pipeline::stage::boot::{Output, Parameters};
use crate::ports::{Connector, Exit, JobNews, Launch, LaunchId, Server};

/// A server that is ready.
pub struct BootedServer {
    /// The server itself, which the job stops.
    pub server: Box<dyn Server>,
    /// What the `boot` step was told.
    pub boot: Parameters,
    /// The base URL that the `boot` step gave; one that is launched anew may listen elsewhere.
    pub endpoint: String,
    /// How often it was launched.
    pub launches: u32,
}

impl BootedServer {
    /// Whether a base URL is the one that the `boot` step gave.
    pub(super) fn is_at(&self, endpoint: &str) -> bool {
        self.endpoint.trim_end_matches('/') == endpoint.trim_end_matches('/')
    }
}

/// Most arguments of a server.
const MAX_ARGS: usize = 256;
/// Most bytes of a server's arguments together.
const MAX_ARGS_BYTES: usize = 16 * 1024;
/// Most bytes of what a server says of its health.
const MAX_HEALTH_BYTES: usize = 1 << 20;

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
        /// Last line of the server's log, and what in it is known.
        last_words: String,
    },
    /// The server was healthy, and had not answered when the deadline had passed.
    #[error("`{health_path}` answered 200, and no answer came within {:.0} s ({last}); the server's last words: {last_words}", deadline.as_secs_f64())]
    NotAnswering {
        /// How long it was waited for.
        deadline: Duration,
        /// Path of the health check.
        health_path: String,
        /// What became of the last request.
        last: String,
        /// Last line of the server's log, and what in it is known.
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
        /// Last line of the server's log, and what in it is known.
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
    let bytes = parameters.args.iter().map(String::len).sum::<usize>();
    if parameters.args.len() > MAX_ARGS || bytes > MAX_ARGS_BYTES {
        return Err(StageError::Parameter(format!(
            "`args` has {} words of {bytes} bytes, want at most {MAX_ARGS} of {MAX_ARGS_BYTES}",
            parameters.args.len()
        )));
    }
    if parameters.args.iter().any(|word| word.contains('\0')) {
        return Err(StageError::Parameter("`args` has a word with a NUL in it".to_owned()));
    }
    launch(parameters, None, context).await
}

/// Ends the job's server and launches it anew: the same image by the same parameters, and it is ready as it was at first.
/// `why` stands in the journal.
///
/// # Errors
/// As `boot` itself.
pub(super) async fn again(context: &mut JobContext<'_>, why: &str) -> Result<(), StageError> {
    context.server()?;
    let Some(BootedServer { server, boot, endpoint, launches }) = context.server.take() else {
        return Ok(());
    };
    server.stop(STOP_GRACE).await;
    let Output { boot_id, ready_ms, .. } = launch(boot, Some((endpoint, launches)), context).await?;
    let at = LegAttempt { job: context.job.clone(), leg: context.leg.clone(), attempt: context.attempt };
    let event = JournalEvent::ServerLaunchedAnew { at, boot_id, ready_ms, why: why.to_owned() };
    // Whoever ordered the job listens for as long as it runs.
    let _ = context.news.send(JobNews::Journal(event));
    Ok(())
}

/// Launches a server that was launched `before`: the base URL that it had at first, and how often.
async fn launch(
    parameters: Parameters,
    before: Option<(String, u32)>,
    context: &mut JobContext<'_>,
) -> Result<Output, StageError> {
    let launches = before.as_ref().map_or(1, |(_, launches)| launches + 1);
    let name = |name: &str| if launches == 1 { name.to_owned() } else { format!("{name}-{launches}") };
    let model_dir = match &parameters.model_dir {
        Some(given) => std::path::absolute(given).map_err(|source| StageError::Machine {
            attempted: "find the working directory".to_owned(),
            source,
        })?,
        None => context.runner.model_dir.clone(),
    };
    let id = LaunchId {
        round_id: context.round.round_id.clone(),
        at: LegAttempt { job: context.job.clone(), leg: context.leg.clone(), attempt: context.attempt },
        number: launches,
    };
    let launch = Launch {
        id,
        image: parameters.image.clone(),
        digest: parameters.digest.clone(),
        model_dir: model_dir.clone(),
        model_name: parameters.model_name.clone(),
        args: parameters.args.clone(),
        log_path: context.attempt_dir.join(format!("{}.log", name("server"))),
        max_log_bytes: parameters.max_log_bytes.min(context.runner.max_log_bytes),
        scratch_dir: context.scratch_dir.join(name("server")),
    };
    preflight::before_launch(context).await?;
    let started = Instant::now();
    let server = context.engine()?.launch(&launch).await?;
    context.notes.model_dir = Some(model_dir);
    let connector = server.connector();
    let boot_id = server.boot_id().to_owned();
    // From here on the job owns the server, so that every way out stops it.
    let listens = format!("http://{}", connector.address());
    let endpoint = before.map_or_else(|| listens.clone(), |(endpoint, _)| endpoint);
    let booted = context.server.insert(BootedServer { server, boot: parameters, endpoint, launches });
    wait_until_ready(&booted.boot, &mut *booted.server, connector).await?;
    let took = started.elapsed();
    context.notes.boot = Some((boot_id.clone(), took));
    Ok(Output { endpoint: listens, boot_id, ready_ms: took.as_millis() as u64 })
}

async fn wait_until_ready(
    parameters: &Parameters,
    server: &mut dyn Server,
    connector: Arc<dyn Connector>,
) -> Result<(), StageError> {
    let TimeSpan(deadline) = parameters.deadline;
    let started = Instant::now();
    let health_path = parameters.health_path.clone().unwrap_or_else(|| server.health_path().to_owned());
    let health = Request {
        path: health_path.clone(),
        body: None,
        within: Duration::from_secs(5),
        max_bytes: MAX_HEALTH_BYTES,
    };
    let (mut is_healthy, mut last) = (false, "nothing answered yet".to_owned());
    let looking = async {
        let mut ticks = tokio::time::interval(parameters.poll.0.max(Duration::from_millis(10)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !is_healthy {
                match ask(&*connector, &health).await {
                    Ok(Reply { status: 200, .. }) => is_healthy = true,
                    Ok(Reply { status, .. }) => last = format!("last answer {status}"),
                    Err(AskError::Connect(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        "connection refused".clone_into(&mut last);
                    }
                    Err(error) => last = format!("last error: {error}"),
                }
            }
            if is_healthy {
                match first_answer(&parameters.model_name, &connector, deadline).await {
                    Ok(()) => return,
                    Err(why) => last = format!("last request: {why}"),
                }
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
    let last_words = words_of(&server.log_tail());
    Err(match outcome {
        Some(exit) => BootError::Exited { exit, after: started.elapsed(), health_path, last_words },
        None if is_healthy => BootError::NotAnswering { deadline, health_path, last, last_words },
        None => BootError::NotReady { deadline, health_path, last, last_words },
    }
    .into())
}

/// Asks for one token, as the benchmark asks; why what came is no answer.
async fn first_answer(model: &str, connector: &Arc<dyn Connector>, within: Duration) -> Result<(), String> {
    let shape = RequestShape { model: model.to_owned(), max_tokens: 1, top_logprobs: 1, seed: 0 };
    let target = Target { connector: Arc::clone(connector), path: CHAT_PATH.to_owned() };
    let bodies = vec![Bytes::from(request_body(&shape, "Say one word."))];
    let answer = AnswerBounds::of(shape.max_tokens, shape.top_logprobs);
    let limits = Limits { deadline: Deadline(within), answer };
    let plan = LoadPlan { target, bodies, limits, until: Instant::now().checked_add(within) };
    let (sender, mut ended) = tokio::sync::mpsc::channel(1);
    // Dropping this future ends the load's thread too.
    let cancel = CancellationToken::new().drop_guard();
    let running = run_single_stream(plan, sender, cancel.token().clone());
    let (ran, capture) = tokio::join!(running, ended.recv());
    ran.map_err(|error| format!("the client: {error}"))?;
    let capture = capture.ok_or_else(|| "nothing came".to_owned())?;
    let seen = observe(&capture, &ResponseBounds::default());
    // An answer that goes on for too long is one: what it is worth is judged where it is measured.
    let is_answer = seen.status == RequestStatus::Ok || capture.end == End::BeyondMaxTokens;
    if is_answer { Ok(()) } else { Err(what_failed(&capture, &seen)) }
}
