//! `cacheon lint`: every mistake of a file, underlined, before anything runs.

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
    /// Folder of runner files, to find jobs whose labels no runner has.
    #[arg(long, value_name = "DIR", default_value = "runners")]
    runners: PathBuf,
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
    let runners = runners_in(&arguments.runners)?;
    let mut findings = Vec::new();
    for file in &files {
        findings.push(diagnostics_of(file, &runners)?);
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

/// The runners of a folder that can be read; none where there is no folder.
fn runners_in(folder: &Path) -> Result<Vec<RunnerSpec>, Error> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut runners = Vec::new();
    for file in yaml_files(folder)? {
        runners.extend(RunnerSpec::parse(&read_source(&file)?).ok().map(|parsed| parsed.value));
    }
    Ok(runners)
}

fn diagnostics_of(file: &Path, runners: &[RunnerSpec]) -> Result<Diagnostics, Error> {
    let source = read_source(file)?;
    let is_runner = file.parent().is_some_and(|folder| folder.ends_with("runners"));
    Ok(if is_runner {
        RunnerSpec::parse(&source).map_or_else(|errors| errors, |parsed| parsed.warnings)
    } else {
        match Pipeline::parse(&source) {
            Err(errors) => errors,
            // Where no runner is known, nothing can be said about labels.
            Ok(parsed) if runners.is_empty() => parsed.warnings,
            Ok(parsed) => {
                let unanswered = parsed.value.unanswered(runners);
                Diagnostics::new(&source, unanswered.into_iter().chain(parsed.warnings.items).collect())
            }
        }
    })
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
