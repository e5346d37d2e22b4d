//! `cacheon schedule`: when the schedules of pipelines fire.

mod next;

use clap::Subcommand;

use super::Session;
use crate::error::{Error, ExitCode};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Shows the next instants of a pipeline's schedules, or of a cron line.
    Next(next::Arguments),
}

pub(super) fn run(command: &Command, session: &Session) -> Result<ExitCode, Error> {
    match command {
        Command::Next(arguments) => next::run(arguments, session),
    }
}
