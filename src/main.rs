//! The program: builds the runtime, does what the command line says, prints the error, returns the exit code.

use std::process::ExitCode;

use cacheon::cli::{Cli, dispatch};
use clap::Parser as _;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("CACHEON_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| cacheon::error::Error::Machine { attempted: "start the runtime", source })
        .and_then(|runtime| {
            let outcome = runtime.block_on(dispatch(cli));
            // A thread that still reads a dead socket must not hold the exit up.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(code) => code.into(),
        Err(error) => {
            use std::io::Write as _;
            let text = cacheon::report::text::error_chain(&error);
            // Diagnostics are drawn already; nobody to tell is not worth a panic.
            let _ = match error {
                cacheon::error::Error::Invalid(_) => writeln!(std::io::stderr(), "{text}"),
                _ => writeln!(std::io::stderr(), "error: {text}"),
            };
            error.exit_code().into()
        }
    }
}
