//! Jobs in processes of their own on this machine: `cacheon job -`, told its order by standard input.
//!
//! The process is started through `cacheon launch`, so that the kernel kills it when we die, and the servers it
//! started with it. Its standard output is our wire: one [`JobMessage`] a line. Its standard error is ours.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};

use super::process::launch_command;
use crate::model::{Fault, Reason};
use crate::ports::{Exit, JobCommand, JobMessage, JobNews, JobOrder, JobRunner, JobStop};
use crate::schedule::AttemptEnd;

/// How long a process may take to end once it was told to end at once, or has said that it is done.
const KILL_GRACE: Duration = Duration::from_secs(10);

/// Runs each job in a process of its own.
#[derive(Debug, Clone)]
pub struct JobProcess {
    program: PathBuf,
}

impl JobProcess {
    /// Jobs run by `program`, which is this executable.
    pub const fn new(program: PathBuf) -> Self {
        Self { program }
    }
}

impl JobRunner for JobProcess {
    fn run(
        &self,
        order: JobOrder,
        news: UnboundedSender<JobNews>,
        stop: JobStop,
    ) -> BoxFuture<'static, AttemptEnd> {
        let program = self.program.clone();
        async move {
            let started_at_us = order.started_at_us;
            let end = run(&program, &order, &news, &stop).await;
            end.unwrap_or_else(|error| AttemptEnd::failed(error.reason(), started_at_us))
        }
        .boxed()
    }
}

/// Why the process of a job gave no report.
#[derive(Debug, thiserror::Error)]
enum JobProcessError {
    #[error("start `{program}` for a job: {source}")]
    Start { program: PathBuf, source: std::io::Error },
    #[error("write a job's order: {0}")]
    Order(serde_json::Error),
    #[error("the job's process ended with {0} before it said how the job ended")]
    Lost(Exit),
    #[error("the job's process said what is not of its job: {0}")]
    Garbled(String),
}

impl JobProcessError {
    /// It is this program that failed, or the machine: never a submission.
    fn reason(&self) -> Reason {
        let code = match self {
            Self::Start { .. } => "machine",
            Self::Order(_) => "job-order",
            Self::Lost(_) => "job-lost",
            Self::Garbled(_) => "job-garbled",
        };
        Reason::new(Fault::Infra, code, self.to_string())
    }
}

async fn run(
    program: &Path,
    order: &JobOrder,
    news: &UnboundedSender<JobNews>,
    stop: &JobStop,
) -> Result<AttemptEnd, JobProcessError> {
    let mut text = serde_json::to_vec(order).map_err(JobProcessError::Order)?;
    text.push(b'\n');
    let failed = |source| JobProcessError::Start { program: program.to_owned(), source };
    // Dropping the child kills it.
    let mut child = command(program).spawn().map_err(failed)?;
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(failed(std::io::ErrorKind::BrokenPipe.into()));
    };
    let mut wire =
        Wire { stdin, stdout: FramedRead::new(stdout, LinesCodec::new_with_max_length(JobOrder::MAX_BYTES)) };
    tokio::select! {
        // A process that does not take its order has ended, and will be seen to say nothing.
        _ = wire.stdin.write_all(&text) => {}
        () = stop.kill.cancelled() => {}
    }
    drop(text);
    let end = wire.listen(order, news, stop).await;
    let exit = ended(&mut child, wire).await;
    match end? {
        Some(end) => Ok(end),
        None => Err(JobProcessError::Lost(exit)),
    }
}

fn command(program: &Path) -> Command {
    let mut command = launch_command(program);
    command.arg(program).args(["job", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    // Of its own group: what a terminal interrupts is the round, and the round tells its jobs.
    command.kill_on_drop(true).process_group(0);
    command
}

/// Waits for the process, which has nothing left to say; its standard input closes, which tells it to end too.
async fn ended(child: &mut Child, wire: Wire) -> Exit {
    drop(wire);
    let mut status = tokio::time::timeout(KILL_GRACE, child.wait()).await;
    if status.is_err() {
        // Gone already is what was wanted.
        let _ = child.start_kill();
        status = Ok(child.wait().await);
    }
    status.ok().and_then(Result::ok).map_or(Exit::default(), Exit::from)
}

/// Both directions of the talk with a job's process.
struct Wire {
    stdin: ChildStdin,
    stdout: FramedRead<ChildStdout, LinesCodec>,
}

impl Wire {
    /// Passes news on until the report; none where the process ends, or has to be ended, without one.
    async fn listen(
        &mut self,
        order: &JobOrder,
        news: &UnboundedSender<JobNews>,
        stop: &JobStop,
    ) -> Result<Option<AttemptEnd>, JobProcessError> {
        let (mut is_cancelled, mut deadline) = (false, None);
        loop {
            let line = tokio::select! {
                biased;
                line = self.stdout.next() => line,
                () = stop.kill.cancelled(), if deadline.is_none() => {
                    deadline = Some(Instant::now() + KILL_GRACE);
                    self.tell(JobCommand::Kill).await;
                    continue;
                }
                () = stop.cancel.cancelled(), if !is_cancelled => {
                    is_cancelled = true;
                    self.tell(JobCommand::Cancel).await;
                    continue;
                }
                () = until(deadline) => return Ok(None),
            };
            let message = match line {
                None | Some(Err(LinesCodecError::Io(_))) => return Ok(None),
                Some(Err(LinesCodecError::MaxLineLengthExceeded)) => {
                    let message = format!("a line of more than {} bytes", JobOrder::MAX_BYTES);
                    return Err(JobProcessError::Garbled(message));
                }
                Some(Ok(line)) => serde_json::from_str(&line).map_err(|error| {
                    JobProcessError::Garbled(format!("a line that is no message: {error}"))
                })?,
            };
            match message {
                JobMessage::Ended(end) => return Ok(Some(end)),
                JobMessage::News(item) if item.is_of(&order.at) => {
                    // Whoever ordered the job may have gone.
                    let _ = news.send(item);
                }
                JobMessage::News(_) => {
                    return Err(JobProcessError::Garbled("news of something else".to_owned()));
                }
            }
        }
    }

    async fn tell(&mut self, command: JobCommand) {
        let Ok(mut line) = serde_json::to_vec(&command) else { return };
        line.push(b'\n');
        // A process that does not listen has ended.
        let _ = self.stdin.write_all(&line).await;
    }
}

/// Waits until the instant, or for ever.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
