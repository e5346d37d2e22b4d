//! `cacheon launch`: how the process engine starts a program.

use std::ffi::OsString;

use clap::Args;

use crate::adapters::process::become_program;
use crate::error::Error;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Process whose end ends the program.
    #[arg(long)]
    parent: u32,
    /// The program and its arguments.
    #[arg(required = true, last = true)]
    argv: Vec<OsString>,
}

/// Returns only if the program could not be started.
pub(super) fn run(arguments: &Arguments) -> Error {
    let source = become_program(arguments.parent, &arguments.argv);
    Error::Machine { attempted: "start the image's program", source }
}
