//! Checks `runs-on` against the runners there are.

use crate::pipeline::code::Code;
use crate::pipeline::definition::{Job, Pipeline};
use crate::pipeline::diagnostic::Diagnostic;
use crate::pipeline::runner::{RunnerSpec, wants_controller};

impl Pipeline {
    /// Finds the jobs whose labels no runner has. Labels that are computed are known only when the pipeline runs.
    pub fn unanswered(&self, runners: &[RunnerSpec]) -> Vec<Diagnostic> {
        self.jobs.iter().filter_map(|job| unanswered(job, runners)).collect()
    }
}

fn unanswered(job: &Job, runners: &[RunnerSpec]) -> Option<Diagnostic> {
    let labels = job.runs_on.labels.iter().map(|label| label.as_literal().map(ToString::to_string));
    let labels = labels.collect::<Option<Vec<String>>>()?;
    if wants_controller(&labels) || runners.iter().any(|runner| runner.has_labels(&labels)) {
        return None;
    }
    let message = format!("no runner has the labels {} that job `{}` asks for", labels.join(", "), job.id);
    let span = job.runs_on.labels.first().map_or(job.span, |label| label.span);
    let known: Vec<String> =
        runners.iter().map(|runner| format!("{} ({})", runner.name, runner.labels.join(", "))).collect();
    let help = format!("there are: {}; or `controller`", known.join(", "));
    Some(Diagnostic::error(Code::NoRunner, span, message).label(job.span, "this job").help(help))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Source;

    #[test]
    fn labels_that_no_runner_has_are_found() {
        let runner = "name: box\nlabels: [gpu, h200]\nengine: docker\n";
        let runners = [RunnerSpec::parse(&Source::new("r.yml", runner)).unwrap().value];
        let check = |runs_on: &str, expected: usize| {
            let text = format!("jobs:\n  a:\n    {runs_on}\n    steps: [{{run: echo}}]\n");
            let pipeline = Pipeline::parse(&Source::new("t.yml", &text)).unwrap().value;
            assert_eq!(pipeline.unanswered(&runners).len(), expected, "{runs_on}");
        };
        check("runs-on: box", 0);
        check("runs-on: [H200, gpu]", 0);
        check("runs-on: [gpu, a100]", 1);
        check("runs-on: controller", 0);
        check("runs-on: [controller, gpu]", 1);
        check("runs-on: ${{ run.id }}", 0);
        check("name: x", 1);
    }
}
