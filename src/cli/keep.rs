//! `cacheon keep`: what the process engine's servers run below.

use std::ffi::OsString;

use clap::Args;

use super::this_program;
use crate::adapters::keeper::{end_like, keep};
use crate::error::{Error, ExitCode};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Process whose end ends the program and all that it started.
    #[arg(long)]
    parent: u32,
    /// The program and its arguments.
    #[arg(required = true, last = true)]
    argv: Vec<OsString>,
}

/// Returns only if the program could not be started or ended.
pub(super) async fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    let ended = keep(&this_program()?, arguments.parent, &arguments.argv).await;
    end_like(&ended.map_err(|source| Error::Machine { attempted: "keep the image's program", source })?)
}
