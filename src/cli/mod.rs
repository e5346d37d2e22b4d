//! The command line: clap types, one file a verb.
//!
//! stdout is data, stderr is talk. A verb turns arguments into a call of the library and its result into text;
//! it decides nothing.

mod audit;
mod cancel;
mod carry;
mod check;
mod conduct;
mod doctor;
mod engines;
mod explain;
mod export;
mod gc;
mod guard;
mod import;
mod job;
mod keep;
mod launch;
mod lint;
mod plan;
mod query;
mod rerun;
mod resume;
mod rounds;
mod run;
mod runner;
mod schedule;
mod show;
mod signals;
mod watch;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand, ValueEnum};

use crate::error::{Error, ExitCode};
use crate::pipeline::diagnostic::Color;
use crate::pipeline::source::Source;
use crate::report::{Paint, TextStyle};

/// The end of the help text.
fn exit_codes() -> String {
    let line = |code: ExitCode| format!("\n  {:<4} {}", code.code(), code.meaning());
    format!("Exit codes:{}", ExitCode::ALL.map(line).concat())
}

/// Evaluation arena for LLM inference servers: boots them, measures them, verifies their answers, ranks them.
#[derive(Debug, Parser)]
#[command(name = "cacheon", version, after_help = exit_codes(), arg_required_else_help = true)]
pub struct Cli {
    /// Directory in which rounds live.
    #[arg(long, global = true, env = "CACHEON_DATA", default_value = "data", value_name = "DIR")]
    data: PathBuf,
    /// Whether output is coloured.
    #[arg(long, global = true, value_enum, default_value_t = ColorChoice::Auto, value_name = "WHEN")]
    color: ColorChoice,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a round of a pipeline, here and now.
    Run(run::Arguments),
    /// Takes up a round that was left unfinished: runs what of it is not done.
    Resume(resume::Arguments),
    /// Does a round again from some point on, or some of its legs, as a new round that shares the rest.
    Rerun(rerun::Arguments),
    /// Says of an image, before it is committed, what a validator would say: pulls, boots, measures and judges it here.
    Check(check::Arguments),
    /// Recomputes a published round from its files and compares: exit code 6 where it is not what it says.
    Audit(audit::Arguments),
    /// Writes a sealed round into one file, to carry it elsewhere.
    Export(export::Arguments),
    /// Unpacks a round that `export` wrote, and checks every file of it.
    Import(import::Arguments),
    /// Starts rounds at the times that their pipelines say.
    #[command(subcommand)]
    Schedule(schedule::Command),
    /// Stops a round that runs now, and waits until it has ended.
    Cancel(cancel::Arguments),
    /// Finds the mistakes in pipelines and runners before anything runs.
    Lint(lint::Arguments),
    /// Shows what a pipeline would do, in which order, without doing it.
    Plan(plan::Arguments),
    /// Lists the rounds in the data directory.
    Rounds(rounds::Arguments),
    /// Shows one round: its jobs, its leaderboard, each verdict's reason.
    Show(show::Arguments),
    /// Says what is wrong with this machine and its rounds, and the command that mends it.
    Doctor(doctor::Arguments),
    /// Says which runners are in service, and puts them out of it or back.
    #[command(subcommand)]
    Runner(runner::Command),
    /// Frees disk: removes old rounds, or their raw streams alone.
    Gc(gc::Arguments),
    /// Says why each leg of a round did or did not run, and what is different from the round it was made from.
    Explain(explain::Arguments),
    /// Asks all rounds' tables a question in SQL.
    Query(query::Arguments),
    /// The built-in reference server: a small real model behind the API that a submission must serve.
    #[cfg(feature = "reference")]
    #[command(subcommand)]
    Reference(crate::reference::ReferenceCommand),
    /// Runs one job of a round by its order; how `run` starts the jobs of a runner.
    Job(job::Arguments),
    /// Becomes a program that ends when its parent does; used by the process engine.
    #[command(hide = true)]
    Launch(launch::Arguments),
    /// Runs a program, and ends with it all that it started; used by the process engine.
    #[command(hide = true)]
    Keep(keep::Arguments),
    /// Makes sockets of a container's network for this program; used by the Docker engine.
    #[cfg(feature = "docker")]
    #[command(hide = true)]
    Sockets,
    /// Waits for the end of its standard input and then ends the scripts of a process, or its containers; used by `run:` steps
    /// and the Docker engine.
    #[command(hide = true)]
    Guard(guard::Arguments),
}

/// What all verbs know.
#[derive(Debug)]
struct Session {
    data: PathBuf,
    color: ColorChoice,
}

impl Session {
    /// The data directory as every process of this machine sees it.
    fn absolute_data(&self) -> Result<PathBuf, Error> {
        std::path::absolute(&self.data)
            .map_err(|source| Error::Machine { attempted: "find the working directory", source })
    }

    fn is_coloured(&self, is_terminal: bool) -> bool {
        match self.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        }
    }

    /// How diagnostics look on stderr.
    fn diagnostics(&self) -> Color {
        if self.is_coloured(std::io::stderr().is_terminal()) { Color::Always } else { Color::Never }
    }

    /// How tables for people look on stdout.
    fn style(&self) -> TextStyle {
        let is_terminal = std::io::stdout().is_terminal();
        let paint = if self.is_coloured(is_terminal) { Paint::Ansi } else { Paint::Plain };
        TextStyle { width: Some(terminal_width()), paint }
    }
}

/// Columns of the terminal, `COLUMNS`, or 120 where there is none.
fn terminal_width() -> u16 {
    let given = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let measured = || rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|size| size.ws_col);
    given.or_else(measured).filter(|width| *width > 0).map_or(120, |width| width.clamp(60, 240))
}

/// Does what the command line says.
///
/// # Errors
/// [`Error`] where it could not be done; its exit code is documented.
pub async fn dispatch(cli: Cli) -> Result<ExitCode, Error> {
    let session = Session { data: cli.data, color: cli.color };
    match cli.command {
        Command::Run(arguments) => run::run(arguments, &session).await,
        Command::Resume(arguments) => resume::run(arguments, &session).await,
        Command::Rerun(arguments) => rerun::run(arguments, &session).await,
        Command::Check(arguments) => check::run(arguments, &session).await,
        Command::Audit(arguments) => audit::run(arguments, &session).await,
        Command::Export(arguments) => export::run(arguments, &session).await,
        Command::Import(arguments) => import::run(arguments, &session).await,
        Command::Cancel(arguments) => cancel::run(&arguments, &session).await,
        Command::Schedule(command) => schedule::run(command, &session).await,
        Command::Job(arguments) => job::run(arguments, &session).await,
        Command::Lint(arguments) => lint::run(&arguments, &session),
        Command::Plan(arguments) => plan::run(&arguments, &session),
        Command::Rounds(arguments) => rounds::run(&arguments, &session),
        Command::Show(arguments) => show::run(&arguments, &session),
        Command::Doctor(arguments) => doctor::run(&arguments, &session).await,
        Command::Runner(command) => runner::run(&command, &session),
        Command::Gc(arguments) => gc::run(&arguments, &session),
        Command::Explain(arguments) => explain::run(&arguments, &session),
        Command::Query(arguments) => query::run(&arguments, &session),
        #[cfg(feature = "reference")]
        Command::Reference(command) => {
            crate::reference::run(command).await?;
            Ok(ExitCode::Done)
        }
        Command::Launch(arguments) => Err(launch::run(&arguments)),
        Command::Keep(arguments) => keep::run(&arguments).await,
        #[cfg(feature = "docker")]
        Command::Sockets => {
            crate::adapters::namespace::make_sockets()
                .map_err(|source| Error::Machine { attempted: "hand over sockets", source })?;
            Ok(ExitCode::Done)
        }
        Command::Guard(arguments) => guard::run(&arguments).await,
    }
}

/// The file of this executable.
fn this_program() -> Result<PathBuf, Error> {
    std::env::current_exe()
        .map_err(|source| Error::Machine { attempted: "find this program's own file", source })
}

/// Writes data to stdout; a reader that has gone away is no error.
fn print(text: &str) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::Machine { attempted: "write to standard output", source: error })
        }
        _ => Ok(()),
    }
}

/// Says something on stderr.
fn say(text: &str) {
    let mut stderr = std::io::stderr().lock();
    // Nobody to tell is not worth ending for.
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.write_all(b"\n"));
}

/// A pipeline or runner file is read up to here, one byte beyond what a parser takes; most have a few KiB.
const MAX_SOURCE_BYTES: u64 = 1024 * 1024 + 1;

/// Reads a file named on the command line, at most so many bytes of it.
fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    use std::io::Read as _;
    let unreadable = |source| Error::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// Reads a pipeline or runner file.
fn read_source(path: &Path) -> Result<Source, Error> {
    let text = String::from_utf8(read_file(path, MAX_SOURCE_BYTES)?).map_err(|error| {
        let why = format!("not UTF-8 text from byte {} on", error.utf8_error().valid_up_to());
        let source = std::io::Error::new(std::io::ErrorKind::InvalidData, why);
        Error::Unreadable { path: path.to_owned(), source }
    })?;
    Ok(Source::new(&path.to_string_lossy(), &text))
}

/// The YAML files of a folder in the order of their names.
fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let unreadable = |source| Error::Unreadable { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
