//! `cacheon schedule tick`: what is due, once.

use std::time::Instant;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::{Rounds, say_look};
use crate::artifact::TickEvent;
use crate::cli::{Session, print, say};
use crate::error::{Error, ExitCode};
use crate::schedule::timetable::PUNCTUAL;
use crate::ticks::Keeper;

#[derive(Debug, Args)]
#[command(after_long_help = "\
Starts the round of the tick that is due, takes up one that was left unfinished, and ends when its rounds have
ended, with their exit code. What became of every tick is written to the journal of ticks, so it does no harm to call
this as often as you like, twice at once, or beside a daemon: each tick starts one round.

A schedule that was never seen before counts from a minute before this instant on.

Examples:
  cacheon schedule tick                                   what is due of all in `pipelines`
  cacheon schedule tick pipelines/round.yml               of one pipeline
  17 */6 * * *  cacheon --data /srv/cacheon schedule tick /srv/pipelines     a crontab line")]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    rounds: Rounds,
    /// The instant to look at, RFC 3339; now where absent. Ticks up to it count as handled from then on.
    #[arg(long, value_name = "INSTANT")]
    at: Option<Timestamp>,
    /// Print what was decided as JSON, a line each.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: &Arguments, session: &Session) -> Result<ExitCode, Error> {
    let (began, at) = (Instant::now(), arguments.at.unwrap_or_else(Timestamp::now));
    let now =
        || at.saturating_add(SignedDuration::try_from(began.elapsed()).unwrap_or_default()).unwrap_or(at);
    let from = at.saturating_sub(PUNCTUAL).unwrap_or(at);
    let mut settings = arguments.rounds.settings(from, session)?;
    settings.is_printing = !arguments.json;
    let mut keeper = Keeper::new(settings);
    let failed = |source| Error::Machine { attempted: "listen for signals", source };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let (mut worst, mut is_stopping, mut has_decided) = (0, false, false);
    loop {
        if !is_stopping {
            let look = keeper.look(now()).await?;
            has_decided |= !look.decided.is_empty();
            tell(&look.decided, arguments.json)?;
            if !arguments.json {
                say_look(&look);
            }
        }
        if !keeper.has_children() {
            break;
        }
        tokio::select! {
            end = keeper.child_ended() => worst = worst.max(end.exit_code),
            _ = interrupt.recv() => is_stopping = true,
            _ = terminate.recv() => is_stopping = true,
        }
        if is_stopping {
            keeper.stop();
        }
    }
    for note in keeper.hooks_ended().await {
        say(&note);
    }
    if !has_decided && !arguments.json {
        let next = keeper.next_look(now());
        let when =
            next.map_or("no tick will ever be due".to_owned(), |at| format!("the next tick is due at {at}"));
        say(&format!("nothing is due: {when}"));
    }
    let known = ExitCode::ALL.into_iter().find(|code| code.code() == worst);
    Ok(if is_stopping { ExitCode::Interrupted } else { known.unwrap_or(ExitCode::Bug) })
}

fn tell(decided: &[TickEvent], is_json: bool) -> Result<(), Error> {
    if !is_json {
        return Ok(());
    }
    let lines: Vec<String> = decided.iter().map(|event| json!(event).to_string() + "\n").collect();
    print(&lines.concat())
}
