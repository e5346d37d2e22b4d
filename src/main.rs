//! The program: builds the runtime, does what the command line says, prints the error, returns the exit code.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use cacheon::cli::{Cli, dispatch};
use cacheon::error::Error;
use cacheon::report::text::error_chain;
use clap::Parser as _;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("CACHEON_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,cacheon::reference=info"));
    let is_coloured =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_coloured)
        .with_target(false)
        .init();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Machine { attempted: "start the runtime", source })
        .and_then(|runtime| {
            let outcome = runtime.block_on(dispatch(cli));
            // A thread that still reads a dead socket must not hold the exit up.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(code) => code.into(),
        Err(error) => {
            let text = match &error {
                // Diagnostics are drawn already.
                Error::Invalid(drawn) => drawn.clone(),
                error => format!("error: {}", error_chain(error)),
            };
            // Nobody to tell is not worth a panic.
            let _ = writeln!(std::io::stderr(), "{text}");
            error.exit_code().into()
        }
    }
}
