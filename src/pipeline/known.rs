//! What a pipeline says of a step before it runs.

use super::contexts::{ContextName, KnownContexts, Site};
use super::definition::{Pipeline, Step, StepAction};
use super::expr::{Object, Status, Value};

/// The inputs at their defaults. What depends on inputs without a default is not known before the start.
pub(super) fn defaults(pipeline: &Pipeline) -> KnownContexts {
    let mut inputs = Object::new();
    for input in &pipeline.inputs {
        if let Some(default) = &input.default {
            inputs.insert(&input.name, default.clone());
        }
    }
    KnownContexts::default().with(ContextName::Inputs, inputs)
}

/// The value of an input as far as it is known before the start; the stage's own where none is given.
pub(super) fn input(step: &Step, name: &str, known: &KnownContexts) -> Option<Value> {
    let StepAction::Stage { stage, with, .. } = &step.action else { return None };
    let spec = stage.spec().input(name)?;
    match with.iter().find(|(key, _)| key.name == name) {
        Some((_, tree)) => {
            let value = tree.evaluate(&known.at(Site::Step, Status::Success)).ok()?;
            spec.kind.accept(&value)
        }
        None => spec.default.map(|default| Value::from(default())),
    }
}
