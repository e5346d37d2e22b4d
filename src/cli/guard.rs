//! `cacheon guard`: what ends the scripts of a process that was killed.

use clap::Args;

use crate::adapters::guard::stand_guard;
use crate::error::{Error, ExitCode};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What the scripts have in their environment.
    mark: String,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    stand_guard(&arguments.mark).map_err(|source| Error::Machine { attempted: "list processes", source })?;
    Ok(ExitCode::Done)
}
