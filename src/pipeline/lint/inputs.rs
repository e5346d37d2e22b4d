//! Checks what stands under `with:` against the stage's table.

use super::workloads;
use crate::pipeline::code::Code;
use crate::pipeline::definition::{Pipeline, Step, StepAction};
use crate::pipeline::diagnostic::Diagnostic;
use crate::pipeline::expr::{Contexts, Value};
use crate::pipeline::stage::{BindError, InputSpec, StageName, ValueKind};
use crate::pipeline::suggest;
use crate::pipeline::template::TemplateTree;

pub(super) fn findings(pipeline: &Pipeline) -> Vec<Diagnostic> {
    pipeline.jobs.iter().flat_map(|job| job.steps.iter().flat_map(step_findings)).collect()
}

fn step_findings(step: &Step) -> Vec<Diagnostic> {
    let StepAction::Stage { stage, with, span } = &step.action else { return Vec::new() };
    let spec = stage.spec();
    let mut found = Vec::new();
    let is_given = |name: &str| with.iter().any(|(key, tree)| key.name == name && !is_null(tree));
    for missing in spec.inputs.iter().filter(|input| input.is_required && !is_given(input.name)) {
        let message = format!("`{stage}` needs the input `{}`: {}", missing.name, missing.doc);
        let edit = format!("add `{}:` under `with:`", missing.name);
        found.push(Diagnostic::error(Code::MissingInput, *span, message).help(edit));
    }
    for (key, tree) in with {
        let Some(input) = spec.input(&key.name) else {
            let message = format!("`{stage}` has no input `{:.60}`", key.name);
            let offers = suggest::closest(&key.name, spec.inputs.iter().map(|input| input.name));
            found.push(Diagnostic::error(Code::UnknownInput, key.span, message).did_you_mean(&offers));
            continue;
        };
        let named = if input.name == "workload" { workloads::of_input(tree) } else { Vec::new() };
        if named.is_empty() {
            found.extend(mistyped(*stage, input, tree));
        }
        found.extend(named);
    }
    found
}

fn is_null(tree: &TemplateTree) -> bool {
    matches!(tree, TemplateTree::Scalar(template) if template.as_literal() == Some(&Value::Null))
}

/// Finds a literal or collection of the wrong type; what is computed is checked when it is known.
fn mistyped(stage: StageName, input: &InputSpec, tree: &TemplateTree) -> Option<Diagnostic> {
    let (value, found) = match tree {
        TemplateTree::Scalar(template) => {
            let value = template.as_literal()?.clone();
            let text = value.to_string();
            (value, format!("`{text:.40}`"))
        }
        TemplateTree::List(..) | TemplateTree::Map(..) => {
            let is_literal = tree.templates().iter().all(|template| template.as_literal().is_some());
            let value =
                if is_literal { tree.evaluate(&Contexts::new()).ok()? } else { Value::from(Vec::new()) };
            if !is_literal && input.kind == ValueKind::Json {
                return None;
            }
            (value, "a collection".to_owned())
        }
    };
    if value == Value::Null {
        return None;
    }
    let why = match input.accept(stage, &value).err()? {
        BindError::Type { .. } => {
            format!("`{}` of `{stage}` is {}, {found} is not", input.name, input.kind)
        }
        other => other.to_string(),
    };
    Some(Diagnostic::error(Code::InputType, tree.span(), why))
}
