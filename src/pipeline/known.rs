//! What a pipeline says of a step before it runs.

use super::contexts::{ContextName, KnownContexts, Site};
use super::definition::{Job, Pipeline, Step, StepAction};
use super::expr::{Object, Status, Value};
use super::stage::StageName;

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

impl Pipeline {
    /// The first job that would set weights in earnest as far as is known before the start: one with a `set-weights` that is not
    /// known to be a dry run.
    pub fn sets_weights(&self, known: &KnownContexts) -> Option<&Job> {
        let is_earnest = |step: &Step| {
            matches!(step.action, StepAction::Stage { stage: StageName::SetWeights, .. })
                && input(step, "dry-run", known) != Some(Value::Bool(true))
        };
        self.jobs.iter().find(|job| job.steps.iter().any(is_earnest))
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Source;

    #[test]
    fn a_job_sets_weights_unless_it_is_known_to_rehearse() {
        let check = |dry_run: &str, expected: [bool; 2]| {
            let text = format!(
                "on: {{ dispatch: {{ inputs: {{ dry: {{ type: boolean, default: true }} }} }} }}
jobs:
  first: {{ runs-on: controller, outputs: {{ dry: 'yes' }}, steps: [{{ run: 'true' }}] }}
  last:
    runs-on: controller
    needs: first
    steps: [{{ uses: set-weights, with: {{ leaderboard: [], netuid: 14{dry_run} }} }}]
"
            );
            let parsed = Pipeline::parse(&Source::new("t.yml", &text));
            let pipeline = parsed.unwrap_or_else(|found| panic!("{found}")).value;
            let found = |dry: bool| {
                let inputs = Object::new().with("dry", dry);
                let known = KnownContexts::default().with(ContextName::Inputs, inputs);
                pipeline.sets_weights(&known).map(|job| job.id.clone())
            };
            assert_eq!([found(true), found(false)].map(|job| job.is_some()), expected, "{dry_run}");
            assert!([true, false].into_iter().filter_map(found).all(|job| job == "last"));
        };
        check("", [false, false]);
        check(", dry-run: true", [false, false]);
        check(", dry-run: false", [true, true]);
        check(", dry-run: '${{ inputs.dry }}'", [false, true]);
        // What is not known before the start may be anything.
        check(", dry-run: '${{ needs.first.outputs.dry == ''yes'' }}'", [true, true]);
    }
}
