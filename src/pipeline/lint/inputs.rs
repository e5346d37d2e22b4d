//! `with:` against the stage's table.

use crate::pipeline::code::Code;
use crate::pipeline::definition::{Action, Pipeline, Step};
use crate::pipeline::diagnostic::Diagnostic;
use crate::pipeline::expr::{Contexts, Value};
use crate::pipeline::stage::{InputSpec, StageName};
use crate::pipeline::suggest;
use crate::pipeline::template::TemplateTree;

pub(super) fn findings(pipeline: &Pipeline) -> Vec<Diagnostic> {
    pipeline.jobs.iter().flat_map(|job| job.steps.iter().flat_map(step_findings)).collect()
}

fn step_findings(step: &Step) -> Vec<Diagnostic> {
    let Action::Stage { stage, with, span } = &step.action else { return Vec::new() };
    let spec = stage.spec();
    let mut found = Vec::new();
    for missing in spec
        .inputs
        .iter()
        .filter(|input| input.is_required && !with.iter().any(|(key, _)| key.name == input.name))
    {
        let message = format!("`{stage}` needs the input `{}`: {}", missing.name, missing.doc);
        let edit = format!("add `{}:` under `with:`", missing.name);
        found.push(Diagnostic::error(Code::MissingInput, *span, message).help(edit));
    }
    for (key, tree) in with {
        match spec.input(&key.name) {
            Some(input) => found.extend(mistyped(*stage, input, tree)),
            None => {
                let message = format!("`{stage}` has no input `{:.60}`", key.name);
                let offers = suggest::closest(&key.name, spec.inputs.iter().map(|input| input.name));
                found.push(Diagnostic::error(Code::UnknownInput, key.span, message).did_you_mean(&offers));
            }
        }
    }
    found
}

/// A literal of the wrong type; what is computed is checked when it is known.
fn mistyped(stage: StageName, input: &InputSpec, tree: &TemplateTree) -> Option<Diagnostic> {
    if tree.templates().iter().any(|template| template.as_literal().is_none())
        && !matches!(tree, TemplateTree::Map(..))
    {
        return None;
    }
    let is_collection = !matches!(tree, TemplateTree::Scalar(_));
    let value = if is_collection { Value::from(Vec::new()) } else { tree.evaluate(&Contexts::new()).ok()? };
    if value == Value::Null || input.kind.accept(&value).is_some() {
        return None;
    }
    let found =
        if is_collection { "a collection".to_owned() } else { format!("`{:.40}`", value.to_string()) };
    let message = format!("`{}` of `{stage}` is {}, {found} is not", input.name, input.kind);
    Some(Diagnostic::error(Code::InputType, tree.span(), message))
}
