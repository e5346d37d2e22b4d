//! `cacheon plan`: what a pipeline would do, without doing it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::Value as Json;

use super::conduct::data_argument;
use super::lint::runners_in;
use super::run::{bind, load_pipeline};
use super::{Session, print};
use crate::adapters::store::list_runners;
use crate::artifact::Quarantine;
use crate::error::{Error, ExitCode};
use crate::pipeline::contexts::{ContextName, KnownContexts};
use crate::pipeline::diagnostic::Diagnostics;
use crate::pipeline::expr::Value;
use crate::pipeline::plan::Plan;
use crate::report::quarantine_sentence;
use crate::round::slot;
use crate::schedule::{Choice, RunnerSlot, Service};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The pipeline.
    pipeline: PathBuf,
    /// Sets an input of the pipeline; may be repeated.
    #[arg(short, long = "input", value_name = "NAME=VALUE")]
    inputs: Vec<String>,
    /// Folder of runner files, to say which jobs wait for a runner that is out of service.
    #[arg(long, value_name = "DIR", default_value = "runners")]
    runners: PathBuf,
    /// Print a graph instead.
    #[arg(long, value_enum)]
    graph: Option<Graph>,
    /// Print JSON.
    #[arg(long, conflicts_with = "graph")]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Graph {
    /// Text that Mermaid draws.
    Mermaid,
}

pub(super) fn run(arguments: &Arguments, session: &Session) -> Result<ExitCode, Error> {
    let pipeline = load_pipeline(&arguments.pipeline, session)?;
    let inputs = bind(&pipeline, &arguments.inputs)?;
    let known = KnownContexts::default().with(ContextName::Inputs, Value::from(Json::Object(inputs)));
    // What the round's own name enters is not known yet.
    let known = match pipeline.env(&known) {
        Ok(env) => known.with(ContextName::Env, env),
        Err(_) => known,
    };
    let mut plan = Plan::new(&pipeline, &known).map_err(|found| {
        Error::Invalid(Diagnostics::new(&pipeline.source, found).render(session.diagnostics()))
    })?;
    let out: BTreeMap<String, Quarantine> = list_runners(&session.data)?
        .into_iter()
        .filter_map(|state| Some((state.runner, state.quarantine?)))
        .collect();
    if !out.is_empty() {
        let slots: Vec<RunnerSlot> = runners_in(&arguments.runners)?.iter().map(slot).collect();
        let is_out = |name: &str| out.contains_key(name);
        let service = Service { runners: &slots, is_out: &is_out, choice: Choice::Any };
        for blocked in service.blocked(&pipeline.jobs, &known) {
            let job = plan.jobs.iter_mut().find(|job| job.id == blocked.job);
            if let (Some(job), Some(quarantine)) = (job, out.get(blocked.runner)) {
                let sentence = quarantine_sentence(blocked.runner, quarantine);
                let lift = format!("cacheon runner lift {}{}", blocked.runner, data_argument(session));
                job.out_of_service = Some(format!("{sentence}; next: {lift}"));
            }
        }
    }
    let text = match arguments.graph {
        Some(Graph::Mermaid) => plan.mermaid(),
        None if arguments.json => {
            let json = serde_json::to_string_pretty(&plan).unwrap_or_default();
            format!("{json}\n")
        }
        None => plan.text(),
    };
    print(&text)?;
    Ok(ExitCode::Done)
}
