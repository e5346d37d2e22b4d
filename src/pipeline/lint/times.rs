//! Checks that what a read may take fits its timeouts: else a slow server ends as nobody's fault, and not by its own.

use std::time::Duration;

use crate::pipeline::code::Code;
use crate::pipeline::contexts::KnownContexts;
use crate::pipeline::definition::{Job, Pipeline, Step, StepAction};
use crate::pipeline::diagnostic::Diagnostic;
use crate::pipeline::duration;
use crate::pipeline::known::{defaults, input};
use crate::pipeline::stage::StageName;

pub(super) fn findings(pipeline: &Pipeline) -> Vec<Diagnostic> {
    let known = defaults(pipeline);
    let mut found = Vec::new();
    for job in &pipeline.jobs {
        let needs: Vec<(&Step, Need)> =
            job.steps.iter().filter_map(|step| Some((step, need(step, &known)?))).collect();
        for (step, need) in &needs {
            found.extend(step.timeout.and_then(|limit| short_step(step, need, limit)));
        }
        found.extend(job.timeout.and_then(|limit| short_job(job, &needs, limit)));
    }
    found
}

/// The longest that a step may take before the server is at fault.
struct Need {
    longest: Duration,
    /// What it is made of, in words.
    words: String,
}

fn need(step: &Step, known: &KnownContexts) -> Option<Need> {
    let StepAction::Stage { stage, .. } = &step.action else { return None };
    let span = |name: &str| duration::parse(input(step, name, known)?.as_str()?).ok();
    match stage {
        StageName::Boot | StageName::WarmUp => {
            let longest = span("deadline")?;
            Some(Need { longest, words: format!("{stage} {}", duration::print(longest)) })
        }
        StageName::Benchmark => {
            let (each, prompts) = (span("request-deadline")?, input(step, "prompts", known)?.to_number());
            let longest = Duration::try_from_secs_f64(each.as_secs_f64() * prompts).ok()?;
            let words = format!("{stage} {prompts} requests of {}", duration::print(each));
            Some(Need { longest, words })
        }
        _ => None,
    }
}

fn short_step(step: &Step, need: &Need, limit: Duration) -> Option<Diagnostic> {
    let (longest, own) = (duration::print(need.longest), duration::print(limit));
    let message = format!("this step may take {longest} ({}), and its timeout is {own}", need.words);
    let finding = Diagnostic::warning(Code::TimesDoNotFit, step.span, message).help(HELP);
    (need.longest > limit).then_some(finding)
}

fn short_job(job: &Job, needs: &[(&Step, Need)], limit: Duration) -> Option<Diagnostic> {
    let longest =
        |(step, need): &(&Step, Need)| step.timeout.map_or(need.longest, |own| own.min(need.longest));
    let total: Duration = needs.iter().map(longest).fold(Duration::ZERO, Duration::saturating_add);
    let words: Vec<&str> = needs.iter().map(|(_, need)| need.words.as_str()).collect();
    let message = format!(
        "the steps of `{}` may take {} ({}), and its timeout is {}",
        job.id,
        duration::print(total),
        words.join(", "),
        duration::print(limit)
    );
    let finding = Diagnostic::warning(Code::TimesDoNotFit, job.span, message).help(HELP);
    (total > limit).then_some(finding)
}

const HELP: &str =
    "a read that its timeout ends is held, whoever was slow: raise the timeout or lower the deadlines";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::source::Source;

    fn said(job: &str, benchmark: &str) -> Vec<String> {
        let text = format!(
            "on: {{dispatch: {{inputs: {{n: {{type: number, default: 16}}, m: {{type: number, required: true}}}}}}}}
jobs:
  measure:
    runs-on: r
    strategy: {{matrix: {{read: [1]}}}}
{job}
    steps:
      - {{id: boot, uses: boot, with: {{image: a/b, digest: 'sha256:{zeros}', role: candidate, deadline: 6s}}}}
      - {{uses: warm-up, with: {{endpoint: x, deadline: 20s}}}}
      - {{uses: benchmark, with: {{endpoint: x, read: '${{{{ matrix.read }}}}', {benchmark}}}}}
",
            zeros = "0".repeat(64)
        );
        let parsed =
            Pipeline::parse(&Source::new("t.yml", &text)).unwrap_or_else(|errors| panic!("{errors}"));
        let own = |finding: &&Diagnostic| finding.code == Code::TimesDoNotFit;
        parsed.warnings.items.iter().filter(own).map(|finding| finding.message.clone()).collect()
    }

    #[test]
    fn what_a_read_may_take_fits_its_timeout() {
        let short = "request-deadline: 10s";
        let none: [&str; 0] = [];
        assert_eq!(said("    timeout: 3m6s", &format!("{short}, prompts: 16")), none);
        assert_eq!(
            said("    timeout: 3m", &format!("{short}, prompts: 16")),
            [
                "the steps of `measure` may take 3m6s (boot 6s, warm-up 20s, benchmark 16 requests of 10s), and its timeout is 3m"
            ]
        );
        // As with the inputs' defaults; what is not known before the start is let be.
        assert_eq!(said("    timeout: 3m", &format!("{short}, prompts: '${{{{ inputs.n }}}}'")).len(), 1);
        assert_eq!(said("    timeout: 1m", &format!("{short}, prompts: '${{{{ inputs.m }}}}'")), none);
        assert_eq!(said("", &format!("{short}, prompts: 16")), none);
        // The stage's own: 128 requests of two minutes.
        assert_eq!(said("    timeout: 4h", "top-logprobs: 2").len(), 1);
    }
}
