//! `cacheon job`: one attempt of one job, by an order.

use std::io::{BufRead as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;

use super::{Session, engines, read_file, signals, this_program};
use crate::adapters::shell::Shell;
use crate::adapters::tree;
use crate::error::{Error, ExitCode};
use crate::job::InProcess;
use crate::pipeline::runner::RunnerSpec;
use crate::ports::{ContainerEngine, JobCommand, JobMessage, JobNews, JobOrder, JobRunner as _, JobStop};
use crate::round::Control;
use crate::schedule::AttemptEnd;
use crate::stages::RunnerContext;

/// An order is read up to here, one byte beyond what it may have, so that a longer one is seen to be longer.
const MAX_ORDER_BYTES: u64 = JobOrder::MAX_BYTES as u64 + 1;
/// How long what the job left may take to end.
const END_WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
#[command(after_long_help = "\
The order is one JSON object: the round's directory and seed, the texts of the pipeline and of the runner, the
attempt (job, leg, number), and what the job's expressions see. Standard output has one JSON object a line:
`{\"news\": ..}` while the job runs, and last `{\"ended\": ..}` with its conclusion, reason and outputs. Tables, logs
and streams are left in the attempt's directory of the round. An attempt runs once: a directory that is there
already is refused.

With `-` the order is the first line of standard input; the lines `\"cancel\"` and `\"kill\"` may follow, and the end
of the input stops the job at once.")]
pub(super) struct Arguments {
    /// File with the job's order, or `-` for standard input.
    #[arg(value_name = "ORDER")]
    order: PathBuf,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Result<ExitCode, Error> {
    let control = Control::default();
    let mut helpers = JoinSet::new();
    helpers.spawn(signals::listen(control.clone())?);
    let order = if arguments.order == Path::new("-") {
        let order = next_line()
            .map_err(|source| Error::Machine { attempted: "read an order from standard input", source })?;
        obey(control.stop.clone());
        order
    } else {
        read_file(&arguments.order, MAX_ORDER_BYTES)?
    };
    let order = JobOrder::from_json(&order).map_err(|error| Error::Invalid(format!("error: {error}")))?;
    let program = this_program()?;
    // What the job starts comes to us when its parents end, so that none of it is there when the job has ended.
    keep_orphans()?;
    let runner = match &order.runner {
        None => RunnerContext::controller(),
        Some(source) => {
            let spec = RunnerSpec::parse(source)
                .map_err(|found| Error::Invalid(found.render(session.diagnostics())))?;
            engines::runner(&spec.value, &program, &order.data_dir)
        }
    };
    let (news, heard) = unbounded_channel();
    let telling = tell_on(heard, control.stop.clone());
    let engine = runner.engine.clone();
    let end = InProcess::new(runner, Shell::guarded_by(program)).run(order, news, control.stop.clone()).await;
    let end = close(engine, end).await;
    // The channel is closed: the thread ends by itself.
    let is_told = telling.await.unwrap_or(false);
    end_orphans().await;
    if is_told {
        write_message(&JobMessage::Ended(end))?;
    }
    let is_interrupted = control.signal.get().is_some() || !is_told;
    Ok(if is_interrupted { ExitCode::Interrupted } else { ExitCode::Done })
}

/// Waits until all that the engine started is gone. Where something stays, the attempt has failed: what runs next would not have
/// the machine for itself.
async fn close(engine: Option<Arc<dyn ContainerEngine>>, end: AttemptEnd) -> AttemptEnd {
    let Some(engine) = engine else { return end };
    match engine.close().await {
        Ok(()) => end,
        Err(error) => AttemptEnd::failed(error.reason(), end.started_at_us),
    }
}

fn keep_orphans() -> Result<(), Error> {
    tree::keep_orphans()
        .map_err(|source| Error::Machine { attempted: "become the parent of what the job leaves", source })
}

/// Ends whatever the job has left.
async fn end_orphans() {
    let ending = tokio::task::spawn_blocking(tree::end_all_below);
    match tokio::time::timeout(END_WITHIN, ending).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::warn!("what the job left may still be there: {error}"),
        Ok(Err(_)) | Err(_) => tracing::warn!("what the job left does not end"),
    }
}

/// The next line of standard input, whole or as much of it as an order may have.
fn next_line() -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let stdin = std::io::stdin().lock();
    stdin.take(MAX_ORDER_BYTES).read_until(b'\n', &mut line)?;
    Ok(line)
}

/// Does what the lines of standard input say, on a thread that may wait for them; when they end, or are none of
/// ours, nobody wants the job any more.
fn obey(stop: JobStop) {
    tokio::task::spawn_blocking(move || {
        while let Ok(JobCommand::Cancel) = next_line().and_then(|line| Ok(serde_json::from_slice(&line)?)) {
            stop.cancel.cancel();
        }
        stop.now();
    });
}

/// Writes news to standard output on a thread of its own, which may wait for a slow reader, until there are no
/// more; says whether all were written. When nobody reads them, nobody wants the job any more.
fn tell_on(mut heard: UnboundedReceiver<JobNews>, stop: JobStop) -> tokio::task::JoinHandle<bool> {
    tokio::task::spawn_blocking(move || {
        while let Some(news) = heard.blocking_recv() {
            if write_message(&JobMessage::News(news)).is_err() {
                stop.now();
                return false;
            }
        }
        true
    })
}

fn write_message(message: &JobMessage) -> Result<(), Error> {
    let failed = |source| Error::Machine { attempted: "write to standard output", source };
    let mut line = serde_json::to_vec(message).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&line).and_then(|()| stdout.flush()).map_err(failed)
}
