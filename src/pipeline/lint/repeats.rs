//! Checks that no submission is asked its prompts twice where money depends on it, and that what the machine loses is
//! measured again.

use super::workloads::sets_weights;
use crate::pipeline::code::Code;
use crate::pipeline::definition::{Pipeline, Step, StepAction};
use crate::pipeline::diagnostic::Diagnostic;
use crate::pipeline::expr::Value;
use crate::pipeline::known::{defaults, input};
use crate::pipeline::stage::StageName;

pub(super) fn findings(pipeline: &Pipeline) -> Vec<Diagnostic> {
    let known = defaults(pipeline);
    let steps = || pipeline.jobs.iter().flat_map(|job| &job.steps);
    let weights = steps().find(|step| sets_weights(step));
    let is_repeated = steps().any(|step| is(step, StageName::PlanRepeats));
    let finding = |step: &Step| {
        let value = input(step, "ask-again", &known)?;
        let asks_again = value == Value::Bool(true) || value.as_str() == Some("true");
        if let (true, Some(weights)) = (asks_again, weights) {
            let message = "a submission's read that was cut or void is asked the same prompts again, and weights are set by it: it may have the answers from the first time";
            let help = "add `ask-again: false`, and a job with `plan-repeats` that lays out fresh reads for what was lost";
            let found = Diagnostic::error(Code::AskedAgain, step.span, message);
            return Some(found.label(weights.span, "set here").help(help));
        }
        let message =
            "a submission's read that the machine loses here is held, and nothing measures it again";
        let help = "add a job with `plan-repeats`, one that measures the reads it gives, and these legs to those that are judged";
        (!asks_again && !is_repeated)
            .then(|| Diagnostic::warning(Code::NothingRepeated, step.span, message).help(help))
    };
    steps().filter(|step| is(step, StageName::Benchmark)).filter_map(finding).collect()
}

fn is(step: &Step, wanted: StageName) -> bool {
    matches!(&step.action, StepAction::Stage { stage, .. } if *stage == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::source::Source;

    fn said(benchmark: &str, dry_run: bool, repeats: &str) -> Vec<String> {
        let text = format!(
            "on: {{dispatch: {{inputs: {{a: {{type: boolean, default: true}}}}}}}}
jobs:
  measure:
    runs-on: r
    strategy: {{matrix: {{read: [1]}}}}
    steps:
      - {{uses: benchmark, with: {{endpoint: x, read: '${{{{ matrix.read }}}}', workload: [{{source: passages}}], prompts: 256{benchmark}}}}}
{repeats}
  publish:
    runs-on: controller
    steps:
      - {{uses: set-weights, with: {{leaderboard: [], netuid: 1, dry-run: {dry_run}}}}}
"
        );
        let items = match Pipeline::parse(&Source::new("t.yml", &text)) {
            Ok(parsed) => parsed.warnings.items,
            Err(found) => found.items,
        };
        let codes = [Code::AskedAgain, Code::NothingRepeated];
        items.iter().filter(|found| codes.contains(&found.code)).map(|found| found.code.to_string()).collect()
    }

    #[test]
    fn where_weights_are_set_nobody_is_asked_twice() {
        let none: [&str; 0] = [];
        let zeros = "0".repeat(64);
        let repeats = format!(
            "  repeats:
    runs-on: controller
    steps:
      - {{uses: plan-repeats, with: {{reads: [], baseline: {{image: a/b, digest: 'sha256:{zeros}'}}}}}}"
        );
        assert_eq!(said("", true, ""), none);
        assert_eq!(said("", false, ""), ["L074"]);
        assert_eq!(said("", false, &repeats), ["L074"]);
        assert_eq!(said(", ask-again: true", false, &repeats), ["L074"]);
        assert_eq!(said(", ask-again: '${{ inputs.a }}'", false, &repeats), ["L074"]);
        assert_eq!(said(", ask-again: false", false, &repeats), none);
        for dry_run in [true, false] {
            assert_eq!(said(", ask-again: false", dry_run, ""), ["L075"]);
        }
        assert_eq!(said(", ask-again: false", true, &repeats), none);
    }
}
