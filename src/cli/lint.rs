//! `cacheon lint`: every mistake of a file, underlined, before anything runs.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::Value;

use super::{Session, print, read_source, say, yaml_files};
use crate::adapters::store::list_rounds;
use crate::error::{Error, ExitCode};
use crate::model::Conclusion;
use crate::pipeline::diagnostic::Diagnostics;
use crate::pipeline::runner::RunnerSpec;
use crate::pipeline::{Parsed, Pipeline};
use crate::report::{RoundPhase, RoundSummary};

/// How many rounds of the past say how long one takes.
const ROUNDS: usize = 20;

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
    let known = Known { runners, data: &session.data, rounds: OnceCell::new() };
    let (mut findings, mut schedules) = (Vec::new(), Vec::new());
    for file in &files {
        let looked = look_at(file, &known)?;
        findings.push(looked.findings);
        schedules.extend(looked.schedules);
    }
    let has_errors = findings.iter().any(Diagnostics::has_errors);
    match if arguments.json { Format::Json } else { arguments.format } {
        Format::Human => {
            let color = session.diagnostics();
            let drawn = findings.iter().filter(|found| !found.items.is_empty());
            let drawn: Vec<String> = drawn.map(|found| found.render(color) + "\n").collect();
            print(&drawn.join("\n"))?;
            for line in schedules {
                say(&line);
            }
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
pub(super) fn runners_in(folder: &Path) -> Result<Vec<RunnerSpec>, Error> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut runners = Vec::new();
    for file in yaml_files(folder)? {
        runners.extend(RunnerSpec::parse(&read_source(&file)?).ok().map(|parsed| parsed.value));
    }
    Ok(runners)
}

/// What is known beside the files.
struct Known<'a> {
    runners: Vec<RunnerSpec>,
    /// The data directory.
    data: &'a Path,
    /// The rounds there, once a schedule asks for them.
    rounds: OnceCell<Vec<RoundSummary>>,
}

/// What there is to say of a file.
struct Looked {
    findings: Diagnostics,
    /// When its rounds start, a line for each schedule.
    schedules: Vec<String>,
}

fn look_at(file: &Path, known: &Known<'_>) -> Result<Looked, Error> {
    let source = read_source(file)?;
    let only = |findings| Looked { findings, schedules: Vec::new() };
    if file.parent().is_some_and(|folder| folder.ends_with("runners")) {
        return Ok(only(RunnerSpec::parse(&source).map_or_else(|errors| errors, |parsed| parsed.warnings)));
    }
    let Parsed { value: pipeline, warnings } = match Pipeline::parse(&source) {
        Err(errors) => return Ok(only(errors)),
        Ok(parsed) => parsed,
    };
    // Where no runner is known, nothing can be said about labels.
    let runners = &known.runners;
    let mut items = if runners.is_empty() { Vec::new() } else { pipeline.unanswered(runners) };
    items.extend(warnings.items);
    if !pipeline.schedules.is_empty() {
        let usual = known.usual_duration(&pipeline.name);
        items.extend(pipeline.schedule_advice(Timestamp::now(), usual));
    }
    let schedules = pipeline.schedules.iter();
    let schedules = schedules.map(|schedule| format!("{}: {}", source.path, schedule.runs())).collect();
    Ok(Looked { findings: Diagnostics::new(&source, items), schedules })
}

impl Known<'_> {
    /// How long the rounds of a pipeline took, as the median of the last ones that were done; none where there are none.
    fn usual_duration(&self, pipeline: &str) -> Option<Duration> {
        // A data directory that cannot be read is no mistake of the pipeline; `doctor` says what is wrong with it.
        let rounds = self.rounds.get_or_init(|| list_rounds(self.data).unwrap_or_default());
        let is_its = |round: &&RoundSummary| {
            round.pipeline.as_deref() == Some(pipeline)
                && round.parent.is_none()
                && round.state == RoundPhase::Ended(Conclusion::Success)
        };
        let took = |round: &RoundSummary| {
            let at = |text: &Option<String>| text.as_deref()?.parse::<Timestamp>().ok();
            Duration::try_from(at(&round.ended_at)?.duration_since(at(&round.started_at)?)).ok()
        };
        let mut took: Vec<Duration> = rounds.iter().filter(is_its).filter_map(took).take(ROUNDS).collect();
        took.sort_unstable();
        took.get(took.len() / 2).copied()
    }
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
