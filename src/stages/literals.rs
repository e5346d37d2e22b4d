//! Policies that are written out in a pipeline, typed before anything runs.
//!
//! The table of stages knows the kinds of inputs; what stands inside a policy only its own type knows. A
//! misspelt threshold must not show itself after hours of measuring.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Span, fetch_commitments, plan_reads};
use crate::judge::{RankPolicy, ScorePolicy, VerifyPolicy};
use crate::model::{Arm, Digest, ImageReference};
use crate::pipeline::code::Code;
use crate::pipeline::definition::{Action, Pipeline};
use crate::pipeline::diagnostic::Diagnostic;
use crate::pipeline::expr::Contexts;
use crate::pipeline::stage::StageName;

/// What is wrong with the literal values under `with:`, each in its place.
pub fn lint_literals(pipeline: &Pipeline) -> Vec<Diagnostic> {
    let nothing = Contexts::new();
    let mut findings = Vec::new();
    for step in pipeline.jobs.iter().flat_map(|job| &job.steps) {
        let Action::Stage { stage, with, .. } = &step.action else { continue };
        for (key, tree) in with {
            let is_literal = tree.templates().iter().all(|template| template.as_literal().is_some());
            let Some(check) = check_of(*stage, &key.name).filter(|_| is_literal) else { continue };
            let Ok(value) = tree.evaluate(&nothing) else { continue };
            if let Err(why) = check(Value::from(value)) {
                let message = format!("`{}` of `{stage}`: {why}", key.name);
                findings.push(Diagnostic::error(Code::InputType, tree.span(), message));
            }
        }
    }
    findings
}

type Check = fn(Value) -> Result<(), String>;

fn check_of(stage: StageName, key: &str) -> Option<Check> {
    Some(match (stage, key) {
        (StageName::FetchCommitments, "source") => typed::<fetch_commitments::Source>,
        (StageName::PlanReads, "baseline") => typed::<plan_reads::Baseline>,
        (StageName::Pull | StageName::Boot, "image") => typed::<ImageReference>,
        (StageName::Pull | StageName::Boot, "digest") => typed::<Digest>,
        (StageName::Pull | StageName::Boot, "arm") => typed::<Arm>,
        (StageName::VerifyLogprobs, "policy") => typed::<VerifyPolicy>,
        (StageName::Rank, "score") => typed::<ScorePolicy>,
        (StageName::Rank, "rank") => typed::<RankPolicy>,
        (_, "deadline" | "poll" | "request-deadline" | "max-client-lag") => typed::<Span>,
        _ => return None,
    })
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<(), String> {
    serde_json::from_value::<T>(value).map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{Color, Diagnostics, Source};

    #[test]
    fn a_misspelt_threshold_is_found_before_anything_runs() {
        let text = "\
jobs:
  rank:
    runs-on: controller
    steps:
      - uses: rank
        with:
          commitments: jobs/a
          reads: []
          verdicts: jobs/b
          score: { margn: 0.01 }
      - uses: pull
        with: { image: 'A:latest', digest: sha256:12, arm: baseline }
";
        let source = Source::new("t.yml", text);
        let pipeline = Pipeline::parse(&source).expect("no other finding").value;
        insta::assert_snapshot!(Diagnostics::new(&source, lint_literals(&pipeline)).render(Color::Never));
    }
}
