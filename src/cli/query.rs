//! `cacheon query`: SQL over all rounds, and what there is to ask.

use std::io::IsTerminal as _;
use std::process::Command;

use clap::{Args, ValueEnum};

use super::{Session, print, say};
use crate::adapters::query::{self, QueryError, QueryLimits};
use crate::error::{Error, ExitCode};
use crate::report::query_output::{JsonLayout, to_csv, to_json, to_table};

#[derive(Debug, Args)]
#[command(after_help = "\
Tables: commitments, submissions, reads, requests, tokens, verdicts, decisions, leaderboard, weights,
step_attempts, accounts; each holds the rows of all rounds, told apart by `round_id`. Beside them `ticks`:
every instant of every schedule and what became of it. Without ORDER BY, rows come in no particular order.

Examples:
  cacheon query --schema requests
  cacheon query \"SELECT rank, hotkey, score, detail FROM leaderboard ORDER BY round_id, rank\"
  cacheon query --format csv \"SELECT read_key, prompt_index, ttft_ns FROM requests\" > ttft.csv")]
pub(super) struct Arguments {
    /// The question, in Polars' SQL.
    #[arg(required_unless_present_any = ["list", "schema"], conflicts_with_all = ["list", "schema"])]
    sql: Option<String>,
    /// Shows the tables with their numbers of rounds and rows.
    #[arg(long, conflicts_with = "schema")]
    list: bool,
    /// Shows the columns of a table: type, unit and meaning.
    #[arg(long, value_name = "TABLE")]
    schema: Option<String>,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// The answer as JSON; the same as `--format json`.
    #[arg(long)]
    json: bool,
    /// Asks the engine in this process.
    #[arg(long, hide = true, env = IN_PROCESS)]
    in_process: bool,
}

/// Name of the variable that is set for the process that asks the engine.
const IN_PROCESS: &str = "CACHEON_QUERY_IN_PROCESS";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// Comma-separated values with a header.
    Csv,
    /// An array of objects.
    Json,
}

/// Asks in a process of its own: a file that was crafted for it can make the engine abort, which no thread survives.
pub(super) fn run(arguments: &Arguments, session: &Session) -> Result<ExitCode, Error> {
    if arguments.in_process || arguments.sql.is_none() {
        return answer(arguments, session);
    }
    let machine = |source| Error::Machine { attempted: "start the query engine", source };
    let mut command = Command::new(std::env::current_exe().map_err(machine)?);
    command.args(std::env::args_os().skip(1)).env(IN_PROCESS, "true");
    let code = command.status().map_err(machine)?.code();
    let said = ExitCode::ALL.into_iter().find(|known| code == Some(i32::from(known.code())));
    said.ok_or_else(|| QueryError::Engine.into())
}

fn answer(arguments: &Arguments, session: &Session) -> Result<ExitCode, Error> {
    let result = match (&arguments.sql, &arguments.schema) {
        (Some(sql), _) => query::query(&session.data, sql, QueryLimits::default()),
        (None, Some(table)) => query::schema(table),
        (None, None) => query::list(&session.data),
    }?;
    for warning in &result.warnings {
        say(&format!("warning: {warning}"));
    }
    // A line a row where a script may read it.
    let mut style = session.style();
    style.width = style.width.filter(|_| std::io::stdout().is_terminal());
    let text = match if arguments.json { Format::Json } else { arguments.format } {
        Format::Table => to_table(&result, style),
        Format::Csv => to_csv(&result),
        Format::Json => to_json(&result, JsonLayout::Pretty),
    };
    print(&text)?;
    Ok(ExitCode::Done)
}
