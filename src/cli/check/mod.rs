//! `cacheon check`: what a validator would say of an image, before it is committed.
//!
//! It is a round by the very same code, of one submission that stands in no chain. This verb writes the commitment, finds
//! the runner, runs the round and shows the report of it (`report::check`); it judges nothing.

mod command;

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value as Json, json};

use self::command::{IMAGE, Manifest};
use super::conduct::watched;
use super::run::{Drawn, bind, load_pipeline, load_runners, new_round};
use super::{Session, print, say};
use crate::adapters::store::{RoundDirectory, round_detail};
use crate::artifact::{RoundState, layout};
use crate::error::{Error, ExitCode};
use crate::model::{DecisionRow, RoundId, Standing, VerdictRow};
use crate::pipeline::Pipeline;
use crate::pipeline::contexts::{ContextName, KnownContexts};
use crate::pipeline::definition::Job;
use crate::pipeline::expr::Value;
use crate::pipeline::runner::{EngineKind, RunnerSpec, wants_controller};
use crate::pipeline::source::Source;
use crate::report::{CheckInput, CheckReport, ServerLog, check_json, check_text, server_log};
use crate::round::{Machines, RoundEnd, RoundSettings};

/// Stands for the hotkey that is not known before there is a commitment.
const HOTKEY: &str = "5YourHotkeyStandsHereWhenYouCommitThisxxxxxxxxxx";
/// The input by which a pipeline takes the file of commitments.
const COMMITMENTS: &str = "commitments";
/// The input by which a pipeline is told where its servers are booted, where it can be.
const RUNNER: &str = "runner";
/// Most bytes of the end of a log that are looked at, and most lines of it that are shown.
const LOG_BYTES: u64 = 64 * 1024;
const LOG_LINES: usize = 8;

#[derive(Debug, Args)]
#[command(after_long_help = "\
It is a round by the validator's own code, of one submission that stands in no chain: launches of it between launches of
the baseline, on this machine; its answers are scored, its speed is compared, and nothing leaves the data directory. The
report is made of the round's tables, which stay: `cacheon show` and `cacheon query` know it as any other round.

A command gets what an image of the process engine gets: the address by CACHEON_HOST and CACHEON_PORT, the model by
CACHEON_MODEL_DIR and CACHEON_MODEL_NAME, PATH, and nothing else of your environment; `{port}`, `{model-dir}` and
`{model-name}` in its words stand for the same. `cacheon` is this program. It runs without any isolation.

  cacheon check --engine process --command \"cacheon reference serve --prefill block\"

An image is pulled from its registry by its digest, as a validator does: push it first. All servers are containers then, so
say which are baseline and scorer, with the digests that they have:

  cacheon check --image NAME@sha256:.. --baseline NAME@sha256:..

The baseline has to serve the model of the runner's `model-dir` honestly, with vLLM's `prompt_logprobs` if it is the scorer
too. A runner in `runners` says `engine: docker`; the daemon is that of DOCKER_HOST, and reaching its containers needs root.

Another pipeline takes the one commitment by its input `commitments`, `--runner` by its input `runner`, and
baseline and scorer by `baseline-image`, `baseline-digest`, `scorer-image` and `scorer-digest`. One that would set weights is
refused.

Exit codes of this verb:
  0    the validator would score it: correct, and proven faster than the baseline
  6    it would not: failed, disqualified, ignored, or not proven faster
  4    nothing is decided: something of this machine failed, or it is too noisy; the report says what
  2, 3 nothing ran: the command line, the pipeline or a runner is wrong
  130  interrupted; `cacheon resume` takes the round up")]
pub(super) struct Arguments {
    /// The image that is to be committed, with its digest: `NAME@sha256:..`.
    #[arg(long, value_name = "NAME@DIGEST", required_unless_present = "command", conflicts_with = "command")]
    image: Option<String>,
    /// What boots servers.
    #[arg(long, value_enum, default_value_t = Engine::Docker)]
    engine: Engine,
    /// A command instead of an image, for `--engine process`: parted into words as a shell does, nothing is expanded.
    #[arg(long, value_name = "WORDS")]
    command: Option<String>,
    /// The image of the server that it is compared with, where it is another than the pipeline's.
    #[arg(long, value_name = "NAME@DIGEST")]
    baseline: Option<String>,
    /// The image of the server that says how probable each token is; the baseline's where only that is given.
    #[arg(long, value_name = "NAME@DIGEST")]
    scorer: Option<String>,
    /// The pipeline that measures and judges.
    #[arg(long, value_name = "PATH", default_value = "pipelines/check.yml")]
    pipeline: PathBuf,
    /// Sets an input of the pipeline; may be repeated.
    #[arg(short, long = "input", value_name = "NAME=VALUE")]
    inputs: Vec<String>,
    /// The runner on which servers are booted. The pipeline's own where absent, or the only one with the engine.
    #[arg(long, value_name = "NAME")]
    runner: Option<String>,
    /// Folder of runner files.
    #[arg(long, value_name = "DIR", default_value = "runners")]
    runners: PathBuf,
    /// Text from which all randomness is drawn; the same text gives the same prompts. Drawn anew where absent.
    #[arg(long, value_name = "TEXT")]
    seed: Option<String>,
    /// Name of the round: lower-case letters, digits and `-`. Made from the pipeline's name and the time where absent.
    #[arg(long, value_name = "ID")]
    round: Option<RoundId>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// Containers of the Docker daemon.
    Docker,
    /// Processes of this machine, without any isolation.
    Process,
}

impl Engine {
    const fn kind(self) -> EngineKind {
        match self {
            Self::Docker => EngineKind::Docker,
            Self::Process => EngineKind::Process,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Process => "process",
        }
    }
}

/// What would be committed.
struct Committed {
    image: String,
    digest: String,
    /// How to start it, where it is a command.
    manifest: Option<Manifest>,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Result<ExitCode, Error> {
    let committed = Committed::of(&arguments)?;
    let pipeline = load_pipeline(&arguments.pipeline, session)?;
    let takes = |name: &str| pipeline.inputs.iter().any(|input| input.name == name);
    if !takes(COMMITMENTS) {
        return Err(Error::Usage(format!(
            "`{}` has no input `{COMMITMENTS}`, and takes no commitment from elsewhere than it says itself",
            arguments.pipeline.display()
        )));
    }
    let runners = load_runners(&arguments.runners, session)?;
    let chosen = choose(&arguments, &pipeline, &runners)?;
    let drawn = Drawn::new(&pipeline, arguments.seed.as_deref(), arguments.round.clone())?;
    let folder = session.absolute_data()?.join(layout::CHECKS_DIR).join(drawn.round_id.as_str());
    let mut given = arguments.inputs.clone();
    given.extend(servers(&arguments, &pipeline)?);
    given.extend(chosen.iter().map(|name| format!("{RUNNER}={name}")));
    given.push(format!("{COMMITMENTS}={}", folder.join("commitments.json").display()));
    let inputs = bind(&pipeline, &given)?;
    let known = KnownContexts::default().with(ContextName::Inputs, Value::from(Json::Object(inputs.clone())));
    if let Some(job) = pipeline.sets_weights(&known) {
        return Err(Error::Usage(format!(
            "`{}` is no pipeline for a check: its job `{}` sets weights, and is not known to be a dry run; say `dry-run: true` there",
            arguments.pipeline.display(),
            job.id
        )));
    }

    make(&folder, &committed)?;
    let mut used = Vec::new();
    for (spec, source) in runners {
        let is_chosen = chosen.as_ref().is_none_or(|name| spec.name == *name);
        if !is_chosen && !is_named(&pipeline, &spec) {
            continue;
        }
        used.push(match &committed.manifest {
            Some(manifest) if spec.engine == EngineKind::Process && is_chosen => {
                let images = folder.join("images").join(&spec.name);
                manifest.beside((spec, source), &images)?
            }
            _ => (spec, source),
        });
    }
    let round_id = drawn.round_id.clone();
    let settings = new_round(pipeline, inputs, (used, drawn), session)?;
    // Nobody's own machine is put out of service because their image, or their baseline, fails on it.
    let settings = RoundSettings { machines: Machines::Left, ..settings };
    let end = watched(settings, session).await?;
    report((&arguments, &committed), (&round_id, &end), session)
}

impl Committed {
    fn of(arguments: &Arguments) -> Result<Self, Error> {
        if let Some(command) = &arguments.command {
            if arguments.engine != Engine::Process {
                let why = "a command runs as a process of this machine: add `--engine process`";
                return Err(Error::Usage(why.to_owned()));
            }
            let manifest = Manifest::of(command)?;
            let digest = manifest.digest.to_string();
            return Ok(Self { image: IMAGE.to_owned(), digest, manifest: Some(manifest) });
        }
        let (image, digest) = pinned(arguments.image.as_deref().unwrap_or_default())?;
        Ok(Self { image, digest, manifest: None })
    }
}

/// The name and the digest of an image that is written with both.
fn pinned(text: &str) -> Result<(String, String), Error> {
    let Some((name, digest)) = text.split_once('@') else {
        return Err(Error::Usage(format!(
            "`{text}` has no digest, and a digest is what is committed. After a push it is shown by\n\n    \
             docker buildx imagetools inspect {text}\n\nand written behind the name: `{text}@sha256:..`"
        )));
    };
    // A tag says nothing beside a digest.
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    let usage = |error: crate::model::InvalidIdentity| Error::Usage(error.to_string());
    let name: crate::model::ImageReference = name.parse().map_err(usage)?;
    let digest: crate::model::Digest = digest.parse().map_err(usage)?;
    Ok((name.to_string(), digest.to_string()))
}

/// The inputs that say which images are baseline and scorer.
fn servers(arguments: &Arguments, pipeline: &Pipeline) -> Result<Vec<String>, Error> {
    let takes = |role: &str| pipeline.inputs.iter().any(|input| input.name == format!("{role}-image"));
    let is_given = |role: &str| {
        let input = format!("{role}-image=");
        arguments.inputs.iter().any(|given| given.starts_with(&input))
    };
    let own = arguments.scorer.as_ref().or(arguments.baseline.as_ref().filter(|_| takes("scorer")));
    let mut inputs = Vec::new();
    for (role, image) in [("baseline", arguments.baseline.as_ref()), ("scorer", own)] {
        match image {
            Some(image) if takes(role) => {
                let (image, digest) = pinned(image)?;
                inputs.extend([format!("{role}-image={image}"), format!("{role}-digest={digest}")]);
            }
            Some(_) => {
                return Err(Error::Usage(format!(
                    "`{}` has no input `{role}-image`: it says itself which image that is",
                    arguments.pipeline.display()
                )));
            }
            // What stands there by default are images of the process engine.
            None if arguments.engine == Engine::Docker && takes(role) && !is_given(role) => {
                return Err(Error::Usage(format!(
                    "with `--engine docker` the {role} is an image too: say which by `--{role} NAME@sha256:..`"
                )));
            }
            None => {}
        }
    }
    Ok(inputs)
}

/// The runner that the servers are booted on; none where the pipeline says so itself.
fn choose(
    arguments: &Arguments,
    pipeline: &Pipeline,
    runners: &[(RunnerSpec, Source)],
) -> Result<Option<String>, Error> {
    let engine = arguments.engine.name();
    let Some(input) = pipeline.inputs.iter().find(|input| input.name == RUNNER) else {
        return match &arguments.runner {
            None => Ok(None),
            Some(_) => Err(Error::Usage(format!(
                "`{}` has no input `{RUNNER}`: it says itself where its servers are booted",
                arguments.pipeline.display()
            ))),
        };
    };
    let has_engine = |spec: &&RunnerSpec| spec.engine == arguments.engine.kind();
    let specs = || runners.iter().map(|(spec, _)| spec);
    let fitting: Vec<&str> = specs().filter(has_engine).map(|spec| spec.name.as_str()).collect();
    let default = input.default.as_ref().and_then(|value| value.as_str().map(str::to_owned));
    let found = match &arguments.runner {
        Some(name) => {
            let spec = specs().find(|spec| spec.name == *name).ok_or_else(|| {
                let known: Vec<&str> = specs().map(|spec| spec.name.as_str()).collect();
                Error::Usage(format!("there is no runner `{name}`; there are: {}", known.join(", ")))
            })?;
            Some(spec).filter(has_engine).map(|spec| spec.name.clone())
        }
        None => match (default.filter(|name| fitting.contains(&name.as_str())), fitting.as_slice()) {
            (Some(name), _) => Some(name),
            (None, [only]) => Some((*only).to_owned()),
            (None, _) => None,
        },
    };
    let folder = arguments.runners.display();
    found.map(Some).ok_or_else(|| {
        Error::Usage(match fitting.as_slice() {
            [] => format!("no runner in `{folder}` has `engine: {engine}`: write one (README, \"Pipelines and runners\")"),
            several => format!("servers of `--engine {engine}` can be booted on {}: say which by `--runner`", several.join(", ")),
        })
    })
}

/// Whether a job of the pipeline names this runner by labels that stand there.
fn is_named(pipeline: &Pipeline, spec: &RunnerSpec) -> bool {
    let names = |job: &Job| {
        let labels = job.runs_on.labels.iter().map(|label| label.as_literal().map(ToString::to_string));
        let labels = labels.collect::<Option<Vec<String>>>();
        labels.is_some_and(|labels| !wants_controller(&labels) && spec.has_labels(&labels))
    };
    pipeline.jobs.iter().any(names)
}

/// Makes the folder of what the round is handed, with the one commitment in it.
fn make(folder: &Path, committed: &Committed) -> Result<(), Error> {
    let machine = |source| Error::Machine { attempted: "write the commitment", source };
    std::fs::create_dir_all(folder.parent().unwrap_or(folder)).map_err(machine)?;
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::Usage(format!(
                "`{}` exists: choose another id by `--round`, or none",
                folder.display()
            )));
        }
        made => made.map_err(machine)?,
    }
    let Committed { image, digest, .. } = committed;
    let entry = json!({ "hotkey": HOTKEY, "block": 0, "image": image, "digest": digest });
    let view = json!({ "block": "none: a check", "commitments": [entry] });
    std::fs::write(folder.join("commitments.json"), format!("{view:#}\n")).map_err(machine)
}

/// Shows what the round came to.
fn report(
    (arguments, committed): (&Arguments, &Committed),
    (round_id, end): (&RoundId, &RoundEnd),
    session: &Session,
) -> Result<ExitCode, Error> {
    let directory = RoundDirectory::open(&session.data, round_id)?;
    let state = RoundState::of(&directory.read_journal()?.lines);
    let detail = round_detail(&directory);
    let row = detail.leaderboard.iter().find(|row| row.hotkey == HOTKEY);
    let rows = || -> Result<(Vec<VerdictRow>, Vec<DecisionRow>), Error> {
        Ok((directory.read_table()?, directory.read_table()?))
    };
    // A round that was cut short has published none.
    let (verdicts, decisions) = if detail.is_leaderboard_published { rows()? } else { Default::default() };
    let report = CheckReport::of(&CheckInput {
        round_id: round_id.as_str(),
        directory: &detail.summary.path,
        pipeline: &arguments.pipeline.to_string_lossy(),
        image: &committed.image,
        digest: &committed.digest,
        state: &state,
        standing: row,
        verdicts: &verdicts,
        decisions: &decisions,
        reason: end.reason.as_ref(),
        log: server_log(&state).and_then(|path| log_end(&directory, &path)),
    });
    if arguments.json {
        print(&check_json(&report))?;
    } else {
        say("");
        print(&check_text(&report, session.style().width))?;
    }
    Ok(match (end.exit_code, report.standing) {
        (ExitCode::Done, Some(Standing::Scored)) => ExitCode::Done,
        (ExitCode::Done, None | Some(Standing::Held)) => ExitCode::Incomplete,
        (ExitCode::Done, Some(_)) => ExitCode::Differs,
        (code, _) => code,
    })
}

/// The last lines of a log, from at most its last 64 KiB; none where it cannot be read.
fn log_end(directory: &RoundDirectory, relative: &str) -> Option<ServerLog> {
    let (mut file, path) = directory.open_file(relative).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES))).ok()?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.iter().skip(lines.len().saturating_sub(LOG_LINES));
    let last_lines = last.map(|line| line.chars().take(400).collect()).collect();
    Some(ServerLog { path: path.display().to_string(), last_lines })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_with_its_digest() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let check = |name: &str, expected: &str| {
            let found = pinned(&format!("{name}@{digest}")).map_err(|error| error.to_string());
            assert_eq!(found, Ok((expected.to_owned(), digest.clone())), "{name}");
        };
        check("m/a", "m/a");
        check("m/a:v1", "m/a");
        check("localhost:5000/m/a", "localhost:5000/m/a");
        check("localhost:5000/m/a:v1", "localhost:5000/m/a");
        for wrong in ["", "m/a", "m/a:v1", "m/a@", "m/a@latest", "M/A@sha256:00", "@sha256:00"] {
            assert!(pinned(wrong).is_err(), "{wrong}");
        }
        let said = pinned("m/a:v1").map_err(|error| error.to_string()).unwrap_err();
        assert!(said.contains("docker buildx imagetools inspect m/a:v1"), "{said}");
    }

    #[test]
    fn the_placeholder_is_taken_for_a_hotkey() {
        assert!(HOTKEY.parse::<crate::model::Hotkey>().is_ok());
    }
}
