//! `cacheon run`: one round, here and now.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::{Map, Value};

use super::conduct::conduct;
use super::{Session, engines, read_source, say, this_program, yaml_files};
use crate::adapters::job_process::JobProcess;
use crate::error::{Error, ExitCode};
use crate::model::{RoundId, RoundTick, Seed};
use crate::pipeline::definition::Pipeline;
use crate::pipeline::runner::{EngineKind, RunnerSpec};
use crate::pipeline::source::Source;
use crate::round::{Beginning, Machines, RoundRunner, RoundSettings};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The pipeline.
    pipeline: PathBuf,
    /// Sets an input of the pipeline; may be repeated.
    #[arg(short, long = "input", value_name = "NAME=VALUE")]
    inputs: Vec<String>,
    /// Text from which all randomness is drawn; the same text gives the same prompts. Drawn anew where absent.
    #[arg(long, value_name = "TEXT")]
    seed: Option<String>,
    /// Name of the round: lower-case letters, digits and `-`. Made from the pipeline's name and the time where absent.
    #[arg(long, value_name = "ID")]
    round: Option<RoundId>,
    /// Folder of runner files.
    #[arg(long, value_name = "DIR", default_value = "runners")]
    runners: PathBuf,
    /// What the pipeline's file is called, where another one holds its text; how schedules start rounds.
    #[arg(long, value_name = "PATH", hide = true)]
    called: Option<PathBuf>,
    /// The tick that starts the round, as JSON; how schedules start rounds.
    #[arg(long, value_name = "JSON", hide = true, value_parser = tick)]
    tick: Option<RoundTick>,
    /// Print the round's result as JSON.
    #[arg(long)]
    json: bool,
}

fn tick(text: &str) -> Result<RoundTick, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Result<ExitCode, Error> {
    let called = arguments.called.as_ref().unwrap_or(&arguments.pipeline);
    let text = read_source(&arguments.pipeline)?;
    let pipeline = parse_pipeline(&Source::new(&called.to_string_lossy(), &text.text), session)?;
    let runners = load_runners(&arguments.runners, session)?;
    let inputs = bind(&pipeline, &arguments.inputs)?;
    let drawn = Drawn::new(&pipeline, arguments.seed.as_deref(), arguments.round.clone())?;
    let settings = new_round(pipeline, inputs, (runners, drawn), session)?;
    conduct(RoundSettings { tick: arguments.tick, ..settings }, arguments.json, session).await
}

/// What of a new round is drawn where nobody says it.
pub(super) struct Drawn {
    pub(super) round_id: RoundId,
    seed: Seed,
}

impl Drawn {
    pub(super) fn new(
        pipeline: &Pipeline,
        seed: Option<&str>,
        round_id: Option<RoundId>,
    ) -> Result<Self, Error> {
        let random = random_bytes()?;
        let seed = seed.map_or_else(|| Seed::from_text(&hex::encode(random)), Seed::from_text);
        let round_id = match round_id {
            Some(round_id) => round_id,
            None => default_round_id(&pipeline.name, jiff::Timestamp::now(), &random)?,
        };
        Ok(Self { round_id, seed })
    }
}

/// A new round on runners of this machine.
pub(super) fn new_round(
    pipeline: Pipeline,
    inputs: Map<String, Value>,
    (runners, Drawn { round_id, seed }): (Vec<(RunnerSpec, Source)>, Drawn),
    session: &Session,
) -> Result<RoundSettings, Error> {
    let program = this_program()?;
    Ok(RoundSettings {
        beginning: Beginning::New,
        pipeline: Arc::new(pipeline),
        inputs,
        tick: None,
        runners: runners.into_iter().map(|(spec, source)| round_runner(spec, source, &program)).collect(),
        machines: Machines::Judged,
        controller: Arc::new(engines::controller(&program)),
        data_dir: session.absolute_data()?,
        round_id,
        seed,
        program,
        now: jiff::Timestamp::now,
    })
}

/// A runner of this machine: each of its jobs is a process of its own.
pub(super) fn round_runner(spec: RunnerSpec, source: Source, program: &Path) -> RoundRunner {
    let queue = engines::queue(&spec);
    RoundRunner { spec, source, jobs: Arc::new(JobProcess::new(program.to_owned())), queue }
}

/// Reads and checks a pipeline; warnings are said, errors end.
pub(super) fn load_pipeline(path: &Path, session: &Session) -> Result<Pipeline, Error> {
    parse_pipeline(&read_source(path)?, session)
}

fn parse_pipeline(source: &Source, session: &Session) -> Result<Pipeline, Error> {
    let parsed = Pipeline::parse(source).map_err(|errors| {
        let count = errors.items.len();
        let rendered = errors.render(session.diagnostics());
        let plural = if count == 1 { "" } else { "s" };
        Error::Invalid(format!(
            "{rendered}\nerror: `{}` has {count} finding{plural}; nothing ran",
            source.path
        ))
    })?;
    if parsed.warnings.items.iter().any(|item| item.severity != crate::pipeline::diagnostic::Severity::Note) {
        say(&parsed.warnings.render(session.diagnostics()));
    }
    Ok(parsed.value)
}

/// Reads and checks all runners of a folder.
pub(super) fn load_runners(folder: &Path, session: &Session) -> Result<Vec<(RunnerSpec, Source)>, Error> {
    let mut runners = Vec::new();
    for file in yaml_files(folder)? {
        let source = read_source(&file)?;
        let parsed = RunnerSpec::parse(&source)
            .map_err(|errors| Error::Invalid(errors.render(session.diagnostics())))?;
        if parsed.value.engine == EngineKind::Docker && !cfg!(feature = "docker") {
            return Err(Error::Invalid(format!(
                "`{}` asks for `engine: docker`, and this program was built without the feature `docker`",
                file.display()
            )));
        }
        runners.push((parsed.value, source));
    }
    Ok(runners)
}

/// Types the `-i` arguments by the pipeline's declarations.
pub(super) fn bind(pipeline: &Pipeline, given: &[String]) -> Result<Map<String, Value>, Error> {
    let mut inputs = Vec::new();
    for text in given {
        let (name, value) =
            text.split_once('=').ok_or_else(|| Error::Usage(format!("`-i {text}`: want NAME=VALUE")))?;
        inputs.push((name.to_owned(), value.to_owned()));
    }
    let inputs = pipeline.inputs(&inputs).map_err(|error| Error::Usage(error.to_string()))?;
    Ok(if let Value::Object(inputs) = Value::from(inputs) { inputs } else { Map::new() })
}

pub(super) fn random_bytes() -> Result<[u8; 32], Error> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|source| Error::Machine { attempted: "draw a seed from /dev/urandom", source })?;
    Ok(bytes)
}

/// `<pipeline>-<utc time>-<4 digits>`.
pub(super) fn default_round_id(
    pipeline: &str,
    now: jiff::Timestamp,
    random: &[u8; 32],
) -> Result<RoundId, Error> {
    let name = RoundId::readable(pipeline);
    let time = now.strftime("%Y%m%dt%H%M%Sz");
    format!("{name}-{time}-{}", hex::encode(&random[30..]))
        .parse()
        .map_err(|error| Error::Usage(format!("{error}")))
}
