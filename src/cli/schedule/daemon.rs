//! `cacheon schedule daemon`: looks after schedules until it is told to stop.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};

use super::metrics::Observer;
use super::{GRACE, Rounds, say_look};
use crate::cli::{Session, say};
use crate::error::{Error, ExitCode};
use crate::report::text::error_chain;
use crate::ticks::Keeper;

/// How long it never goes without looking: a changed file, a changed clock and a round of somebody else's are seen then.
const LOOK: Duration = Duration::from_secs(2);

/// The least time between two looks.
const SHORTEST: Duration = Duration::from_millis(10);

#[derive(Debug, Args)]
#[command(after_long_help = "\
Starts each pipeline of the folder at the instants of its `on.schedule`. Files are read again when they change; one that
is broken keeps its last good version in force. A round that was left unfinished is taken up before the next one
starts. What became of every tick is in the journal of ticks: `cacheon query \"SELECT * FROM ticks\"`.

Several daemons and `schedule tick` may look after one data directory: each tick starts one round.

The first Ctrl-C or SIGTERM lets the running rounds stop gently, and the daemon ends with them; a second one kills what they
run. They are taken up when the daemon runs again.

`--metrics 127.0.0.1:9464` serves `/metrics` to Prometheus and `/healthz`: 200 while the daemon looks, 503 and why when it does
not. Port 0 takes a free one; the address is said. Where systemd started it (Type=notify), it is told of readiness, of each
look and of the stop.")]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    rounds: Rounds,
    /// Serve metrics and health over HTTP at this address and port.
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,
    /// Rehearses: the clock runs `--rate` times as fast from this instant on.
    #[arg(long, value_name = "INSTANT", hide = true)]
    rehearse: Option<Timestamp>,
    /// How fast the clock of a rehearsal runs.
    #[arg(long, value_name = "RATE", default_value_t = 60, hide = true, value_parser = clap::value_parser!(u16).range(1..=3600))]
    rate: u16,
}

pub(super) async fn run(arguments: &Arguments, session: &Session) -> Result<ExitCode, Error> {
    let rate = if arguments.rehearse.is_some() { i32::from(arguments.rate) } else { 1 };
    let now = || {
        let now = Timestamp::now();
        let Some(since) = arguments.rehearse else { return now };
        since.saturating_add(now.duration_since(since) * rate).unwrap_or(Timestamp::MAX)
    };
    let mut settings = arguments.rounds.settings(now(), session)?;
    (settings.grace, settings.is_printing) = (GRACE * rate, false);
    let mut observer = Observer::begin(arguments.metrics, &settings.data_dir).await?;
    let mut keeper = Keeper::new(settings);
    let failed = |source| Error::Machine { attempted: "listen for signals", source };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let (mut is_stopping, mut has_begun) = (false, false);
    let mut trouble = String::new();
    loop {
        if is_stopping {
            observer.stopping();
        }
        if is_stopping && !keeper.has_children() {
            for note in keeper.hooks_ended().await {
                say(&note);
            }
            return Ok(ExitCode::Interrupted);
        }
        if !is_stopping {
            match keeper.look(now()).await {
                Ok(look) => {
                    say_look(&look);
                    trouble.clear();
                    observer.looked(&keeper, now());
                }
                // What is wrong at the beginning is for whoever starts it; later it may pass, and is said once.
                Err(error) if !has_begun => return Err(error),
                Err(error) => {
                    let found = error_chain(&error);
                    observer.failed(&found);
                    if found != trouble {
                        say(&format!("cannot look after the schedules for now: {found}"));
                    }
                    trouble = found;
                }
            }
            if !has_begun {
                has_begun = true;
                let count = keeper.pipelines().len();
                let next = keeper.next_look(now()).map_or("none".to_owned(), |at| at.to_string());
                say(&format!("looking after {count} scheduled pipelines; next tick: {next}"));
            }
        }
        let due = keeper.next_look(now()).map(|at| at.duration_since(now()) / rate);
        let due = due.map_or(LOOK, |wait| Duration::try_from(wait).unwrap_or_default());
        let wait = if trouble.is_empty() && !is_stopping { due.clamp(SHORTEST, LOOK) } else { LOOK };
        tokio::select! {
            _ = keeper.child_ended() => {}
            () = tokio::time::sleep(wait) => {}
            _ = interrupt.recv() => is_stopping = stop(&keeper),
            _ = terminate.recv() => is_stopping = stop(&keeper),
        }
    }
}

fn stop(keeper: &Keeper) -> bool {
    say("stopping: the running rounds are asked to stop, and are taken up the next time");
    keeper.stop();
    true
}
