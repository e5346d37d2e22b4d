//! `cacheon launch`: how the process engine starts a program.

use std::ffi::OsString;

use clap::Args;

use crate::adapters::process::{become_program, begin_session};
use crate::error::Error;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Process whose end ends the program.
    #[arg(long)]
    parent: u32,
    /// Begin a session: nothing that the program starts can join another one's process group.
    #[arg(long)]
    session: bool,
    /// The program and its arguments.
    #[arg(required = true, last = true)]
    argv: Vec<OsString>,
}

/// Returns only if the program could not be started.
pub(super) fn run(arguments: &Arguments) -> Error {
    let begun = if arguments.session { begin_session() } else { Ok(()) };
    let source = begun.err().unwrap_or_else(|| become_program(arguments.parent, &arguments.argv));
    Error::Machine { attempted: "start the image's program", source }
}
