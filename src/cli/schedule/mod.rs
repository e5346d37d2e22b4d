//! `cacheon schedule`: rounds at the times that their pipelines say.

mod daemon;
mod metrics;
mod next;
mod status;
mod tick;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{Session, say, this_program};
use crate::error::{Error, ExitCode};
use crate::ticks::{KeeperSettings, Look, Scope};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Looks after the schedules of a folder, until it is told to stop.
    Daemon(daemon::Arguments),
    /// Does what is due now, once: for a crontab line or a timer.
    Tick(tick::Arguments),
    /// Shows what is scheduled, what runs, and what came last.
    Status(status::Arguments),
    /// Shows the next instants of a pipeline's schedules, or of a cron line.
    Next(next::Arguments),
}

pub(super) async fn run(command: Command, session: &Session) -> Result<ExitCode, Error> {
    match command {
        Command::Daemon(arguments) => daemon::run(&arguments, session).await,
        Command::Status(arguments) => status::run(&arguments, session),
        Command::Next(arguments) => next::run(&arguments, session),
        Command::Tick(arguments) => tick::run(&arguments, session).await,
    }
}

/// What the verbs that start rounds know of them.
#[derive(Debug, Args)]
struct Rounds {
    /// A folder of pipelines, or one pipeline.
    #[arg(value_name = "DIR|PIPELINE", default_value = "pipelines")]
    path: PathBuf,
    /// Folder of runner files.
    #[arg(long, value_name = "DIR", default_value = "runners")]
    runners: PathBuf,
}

impl Rounds {
    fn settings(&self, from: jiff::Timestamp, session: &Session) -> Result<KeeperSettings, Error> {
        Ok(KeeperSettings {
            scope: scope(&self.path)?,
            data_dir: session.absolute_data()?,
            runners: absolute(&self.runners)?,
            program: this_program()?,
            from,
            grace: GRACE,
            is_printing: true,
        })
    }
}

/// How long somebody else who wrote that a round starts has to start it.
const GRACE: jiff::SignedDuration = jiff::SignedDuration::from_secs(10);

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|source| Error::Unreadable { path: path.to_owned(), source })
}

fn scope(path: &Path) -> Result<Scope, Error> {
    let unreadable = |source| Error::Unreadable { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    let path = absolute(path)?;
    Ok(if metadata.is_dir() { Scope::Folder(path) } else { Scope::File(path) })
}

/// Says what a look came to.
fn say_look(look: &Look) {
    for note in &look.notes {
        say(note);
    }
    for line in look.decided.iter().filter_map(crate::report::tick_line) {
        say(&line);
    }
}
