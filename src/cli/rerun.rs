//! `cacheon rerun`: a round done again, from what another has measured.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::{ArgGroup, Args};
use serde_json::Value;

use super::conduct::conduct;
use super::resume::settings_of;
use super::run::{default_round_id, random_bytes};
use super::show::find_round;
use super::{Session, say};
use crate::adapters::store::RoundDirectory;
use crate::artifact::{ParentRound, RoundFile, RoundState};
use crate::error::{Error, ExitCode};
use crate::model::{Fault, RoundId};
use crate::pipeline::definition::{Pipeline, StepAction};
use crate::pipeline::edit::{Place, with_value};
use crate::pipeline::source::Source;
use crate::pipeline::stage::StageName;
use crate::pipeline::yaml_value;
use crate::round::{Beginning, Origin, RoundSettings};
use crate::schedule::Again;

#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("what").required(true).multiple(true),
    after_long_help = "\
The new round names its parent and shares, by digest, the files of every leg that stands; nothing of the parent changes.
What runs again, runs with the parent's pipeline, runners, inputs and seed, and so does all that needs it. Ranking and
publishing need nothing but these files: no GPU, no model, no chain.

A leg that is measured again gets the prompts of the legs it is compared with, on a fresh launch.

Examples:
  cacheon rerun latest --from rank --with score.margin=0.05   another policy over the same measurements
  cacheon rerun latest --from verify                          score and judge the sealed answers again
  cacheon rerun latest --fault infra                          only what failed by the machine's fault
  cacheon rerun latest --leg 0003-candidate-5Grwva            one read"
)]
pub(super) struct Arguments {
    /// The round: its id, the beginning of its id if no other begins so, or `latest`.
    round: String,
    /// Run this job again: its id, or the name of its stage, as `verify`, `rank`, `publish`.
    #[arg(long, value_name = "JOB", group = "what")]
    from: Option<String>,
    /// Set a value under `with:` of a step, and run its job again; may be repeated. The key may begin with a job's id.
    #[arg(long = "with", value_name = "KEY=VALUE", group = "what")]
    with: Vec<String>,
    /// Run every leg again that failed, whosever fault it was.
    #[arg(long, group = "what")]
    failed: bool,
    /// Run every leg again that failed by this fault; may be repeated.
    #[arg(long, value_name = "FAULT", group = "what", conflicts_with = "failed")]
    fault: Vec<Fault>,
    /// Run the leg of this key again, `JOB/KEY` where several jobs have it; may be repeated.
    #[arg(long, value_name = "KEY", group = "what")]
    leg: Vec<String>,
    /// Name of the new round. Made from the pipeline's name and the time where absent.
    #[arg(long = "round", value_name = "ID")]
    name: Option<RoundId>,
    /// Print the new round's result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Result<ExitCode, Error> {
    let parent_id = find_round(&arguments.round, session)?;
    let directory = RoundDirectory::open(&session.data, &parent_id)?;
    if let Some(process) = directory.running()? {
        return Err(Error::Usage(format!(
            "round `{parent_id}` is run by process {process}: wait for its end, or `cacheon cancel {parent_id}`"
        )));
    }
    let settings = settings(&arguments, directory, session)?;
    say(&format!("round {} is made from {parent_id}", settings.round_id));
    conduct(settings, arguments.json, session).await
}

fn settings(
    arguments: &Arguments,
    directory: RoundDirectory,
    session: &Session,
) -> Result<RoundSettings, Error> {
    let parent_id = directory.round_id().clone();
    let file = directory.read_round_file()?;
    let state = RoundState::of(&directory.read_journal()?.lines);
    let Edited { source, jobs: changed, values: with } = edited(&file, &arguments.with, session)?;
    let edited_file = RoundFile { pipeline_text: source.text.to_string(), ..file.clone() };
    let random = random_bytes()?;
    let settings = settings_of(parent_id.clone(), edited_file, session)?;
    let round_id = match &arguments.name {
        Some(name) => name.clone(),
        None => default_round_id(&settings.pipeline.name, (settings.now)(), &random)?,
    };
    let again = again(arguments, (&settings.pipeline, &state), changed)?;
    let renewed = again.renewed(&settings.pipeline);
    let taken =
        again.standing(&settings.pipeline, &state).map_err(|error| Error::Usage(error.to_string()))?;
    let boots = |step: &crate::pipeline::definition::Step| {
        matches!(&step.action, StepAction::Stage { stage: StageName::Boot, .. })
    };
    let is_measuring =
        renewed.iter().filter_map(|job| settings.pipeline.job(job)).any(|job| job.steps.iter().any(boots));
    let parent = ParentRound {
        round_id: parent_id,
        seal: None,
        jobs: again.jobs.into_iter().collect(),
        legs: again.legs.into_iter().collect(),
        with,
        shared: Vec::new(),
    };
    let origin = Origin { directory, file, parent, taken, renewed, is_measuring };
    Ok(RoundSettings { beginning: Beginning::Derived(Box::new(origin)), round_id, ..settings })
}

/// What the arguments say is to run again, and the jobs of which something was changed.
fn again(
    arguments: &Arguments,
    (pipeline, state): (&Arc<Pipeline>, &RoundState),
    changed: Vec<String>,
) -> Result<Again, Error> {
    let usage = |error: crate::schedule::AgainError| Error::Usage(error.to_string());
    let mut again = Again::default();
    again.jobs.extend(changed);
    if let Some(name) = &arguments.from {
        again.jobs.insert(Again::job(pipeline, name).map_err(usage)?.id.clone());
    }
    for key in &arguments.leg {
        again.add_leg(state, key).map_err(usage)?;
    }
    if arguments.failed {
        again.add_failed(state, None).map_err(usage)?;
    }
    for fault in &arguments.fault {
        again.add_failed(state, Some(*fault)).map_err(usage)?;
    }
    Ok(again)
}

/// A pipeline with other values.
struct Edited {
    source: Source,
    /// The jobs they are set in.
    jobs: Vec<String>,
    /// The values as they were given, by key.
    values: BTreeMap<String, String>,
}

/// The pipeline with these values set.
fn edited(file: &RoundFile, with: &[String], session: &Session) -> Result<Edited, Error> {
    let mut source = Source::new(&file.pipeline_path, &file.pipeline_text);
    let (mut jobs, mut values) = (Vec::new(), BTreeMap::new());
    let drawn = |found: crate::pipeline::Diagnostics| Error::Invalid(found.render(session.diagnostics()));
    for text in with {
        let usage = |why: String| Error::Usage(format!("`--with {text}`: {why}"));
        let (key, value) = text.split_once('=').ok_or_else(|| usage("want KEY=VALUE".to_owned()))?;
        let json =
            if value.is_empty() { Value::from("") } else { yaml_value("--with", value).map_err(usage)? };
        let pipeline = Pipeline::parse(&source).map_err(drawn)?.value;
        let (job, place) = place_of(&pipeline, key).map_err(usage)?;
        source = with_value(&source, &place, &json).map_err(|error| usage(error.to_string()))?;
        jobs.push(job);
        values.insert(key.to_owned(), value.to_owned());
    }
    Ok(Edited { source, jobs, values })
}

/// Where in the pipeline's text the value of a key stands, and in which job.
fn place_of(pipeline: &Pipeline, key: &str) -> Result<(String, Vec<Place>), String> {
    let found = |key: &str, job_id: Option<&str>| {
        let name = key.split('.').next().unwrap_or_default().to_owned();
        let jobs = pipeline.jobs.iter().filter(move |job| job_id.is_none_or(|id| job.id == id));
        let steps =
            jobs.flat_map(|job| job.steps.iter().enumerate().map(move |(index, step)| (job, index, step)));
        let takes = move |step: &crate::pipeline::definition::Step| match &step.action {
            StepAction::Stage { stage, .. } => stage.spec().inputs.iter().any(|input| input.name == name),
            StepAction::Run { .. } => false,
        };
        steps.filter(move |(_, _, step)| takes(step)).map(|(job, index, _)| (job.id.clone(), index)).collect()
    };
    let mut steps: Vec<(String, usize)> = found(key, None);
    let mut path = key;
    if steps.is_empty()
        && let Some((job, rest)) = key.split_once('.')
    {
        (steps, path) = (found(rest, Some(job)), rest);
    }
    let (job, index) = match steps.as_slice() {
        [] => return Err("no step takes such a value under `with:`".to_owned()),
        [one] => one.clone(),
        several => {
            let jobs: std::collections::BTreeSet<&str> =
                several.iter().map(|(job, _)| job.as_str()).collect();
            let choices: Vec<String> = jobs.iter().map(|job| format!("`{job}.{path}`")).collect();
            let (count, choices) = (several.len(), choices.join(", "));
            return Err(format!(
                "{count} steps take such a value: write {choices}, where one step of the job does"
            ));
        }
    };
    let mut place: Vec<Place> = ["jobs", &job, "steps"].map(|name| Place::Key(name.to_owned())).to_vec();
    place.extend([Place::Item(index), Place::Key("with".to_owned())]);
    place.extend(path.split('.').map(|name| Place::Key(name.to_owned())));
    Ok((job, place))
}
