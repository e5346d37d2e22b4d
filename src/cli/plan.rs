//! `cacheon plan`: what a pipeline would do, without doing it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::Value as Json;

use super::run::{bind, load_pipeline};
use super::{Session, print};
use crate::error::{Error, ExitCode};
use crate::pipeline::contexts::{ContextName, KnownContexts};
use crate::pipeline::diagnostic::Diagnostics;
use crate::pipeline::expr::Value;
use crate::pipeline::plan::Plan;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The pipeline.
    pipeline: PathBuf,
    /// Sets an input of the pipeline; may be repeated.
    #[arg(short, long = "input", value_name = "NAME=VALUE")]
    inputs: Vec<String>,
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
    let plan = Plan::new(&pipeline, &known).map_err(|found| {
        Error::Invalid(Diagnostics::new(&pipeline.source, found).render(session.diagnostics()))
    })?;
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
