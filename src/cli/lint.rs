//! `cacheon lint`: every mistake of a file, in its place, before anything runs.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{Session, print, read_source, say, yaml_files};
use crate::error::{Error, ExitCode};
use crate::pipeline::Pipeline;
use crate::pipeline::diagnostic::Diagnostics;
use crate::pipeline::runner::RunnerSpec;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Files to look at; a file below a folder `runners` is a runner, any other a pipeline. All of `pipelines/`
    /// and `runners/` where none is named.
    files: Vec<PathBuf>,
    /// Form of the findings.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// Print JSON; the same as `--format json`.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The source, underlined.
    Human,
    /// An array of findings with places.
    Json,
}

pub(super) fn run(arguments: &Arguments, session: &Session) -> Result<ExitCode, Error> {
    let mut files = arguments.files.clone();
    if files.is_empty() {
        for folder in ["pipelines", "runners"].map(Path::new).into_iter().filter(|folder| folder.is_dir()) {
            files.extend(yaml_files(folder)?);
        }
    }
    if files.is_empty() {
        return Err(Error::Usage("no files named, and no `pipelines/` or `runners/` here".to_owned()));
    }
    let mut findings = Vec::new();
    for file in &files {
        findings.push(diagnostics_of(file)?);
    }
    let has_errors = findings.iter().any(Diagnostics::has_errors);
    match if arguments.json { Format::Json } else { arguments.format } {
        Format::Human => {
            let color = session.diagnostics();
            let drawn = findings.iter().filter(|found| !found.items.is_empty());
            let drawn: Vec<String> = drawn.map(|found| found.render(color) + "\n").collect();
            print(&drawn.join("\n"))?;
            let count: usize = findings.iter().map(|found| found.items.len() + found.omitted).sum();
            say(&format!("{} looked at, {}", plural(files.len(), "file"), plural(count, "finding")));
        }
        Format::Json => {
            let all: Vec<Value> = findings
                .iter()
                .flat_map(|found| found.to_json().as_array().cloned().unwrap_or_default())
                .collect();
            print(&format!("{:#}\n", Value::Array(all)))?;
        }
    }
    Ok(if has_errors { ExitCode::Invalid } else { ExitCode::Done })
}

fn diagnostics_of(file: &Path) -> Result<Diagnostics, Error> {
    let source = read_source(file)?;
    let is_runner = file.parent().is_some_and(|folder| folder.ends_with("runners"));
    Ok(if is_runner {
        RunnerSpec::parse(&source).map_or_else(|errors| errors, |parsed| parsed.warnings)
    } else {
        Pipeline::parse(&source).map_or_else(|errors| errors, |parsed| parsed.warnings)
    })
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
