//! What can be wrong with a pipeline whose every part is right by itself.

mod answers;
mod expressions;
mod graph;
mod inputs;
mod matrices;
mod paths;
mod repeats;
mod runners;
mod schedules;
mod scripts;
mod times;
mod workloads;

use super::definition::Pipeline;
use super::diagnostic::Diagnostic;

/// All findings over the whole pipeline, in no order.
pub(crate) fn findings(pipeline: &Pipeline) -> Vec<Diagnostic> {
    let mut found = graph::findings(pipeline);
    found.extend(answers::findings(pipeline));
    found.extend(inputs::findings(pipeline));
    found.extend(matrices::findings(pipeline));
    found.extend(repeats::findings(pipeline));
    found.extend(schedules::findings(pipeline));
    found.extend(scripts::findings(pipeline));
    found.extend(times::findings(pipeline));
    found.extend(workloads::findings(pipeline));
    found.extend(expressions::findings(pipeline));
    found
}
