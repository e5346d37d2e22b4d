//! Checks that the correctness checks get what they need: the limit that the requests asked for, and answers enough.

use crate::judge::{SampleNeed, VerifyPolicy, sample_needs};
use crate::pipeline::code::Code;
use crate::pipeline::contexts::KnownContexts;
use crate::pipeline::definition::{Job, Pipeline, Step, StepAction};
use crate::pipeline::diagnostic::Diagnostic;
use crate::pipeline::known::{defaults, input};
use crate::pipeline::stage::StageName;
use crate::pipeline::template::TemplateTree;

/// Findings over the whole pipeline.
pub(super) fn findings(pipeline: &Pipeline) -> Vec<Diagnostic> {
    let known = defaults(pipeline);
    let is_paid = pipeline.jobs.iter().flat_map(|job| &job.steps).any(super::workloads::sets_weights);
    let mut found = Vec::new();
    for job in &pipeline.jobs {
        for verify in steps(job, StageName::VerifyLogprobs) {
            for measure in needed_by(pipeline, job) {
                for benchmark in steps(measure, StageName::Benchmark) {
                    found.extend(other_limit((verify, benchmark), &known));
                    let asked = Asked::of(pipeline, (measure, benchmark), &known);
                    found.extend(
                        asked.and_then(|asked| {
                            too_few(&Asked { is_paid, ..asked }, (verify, benchmark), &known)
                        }),
                    );
                }
            }
        }
    }
    found
}

fn steps(job: &Job, wanted: StageName) -> impl Iterator<Item = &Step> {
    job.steps.iter().filter(move |step| match &step.action {
        StepAction::Stage { stage, .. } => *stage == wanted,
        StepAction::Run { .. } => false,
    })
}

fn needed_by<'p>(pipeline: &'p Pipeline, job: &'p Job) -> impl Iterator<Item = &'p Job> {
    job.needs.iter().filter_map(|need| pipeline.jobs.iter().find(|other| other.id == need.job))
}

/// A policy's `max-tokens` that is not the benchmark's: answers would be judged by a limit that nobody was given.
fn other_limit((verify, benchmark): (&Step, &Step), known: &KnownContexts) -> Option<Diagnostic> {
    let policy = input(verify, "policy", known)?;
    let limit = policy.get("max-tokens").filter(|limit| limit.is_truthy())?.to_number();
    let asked = input(benchmark, "max-tokens", known)?.to_number();
    if limit.to_bits() == asked.to_bits() {
        return None;
    }
    let message =
        format!("answers are judged by `max-tokens` {limit}, and the benchmark's requests ask for {asked}");
    let help = "leave it out of the policy: each request says what it asked for";
    let finding = Diagnostic::error(Code::OtherLimit, verify.span, message);
    Some(finding.label(benchmark.span, "asked here").help(help))
}

/// What one submission is asked in one look.
struct Asked {
    prompts: f64,
    reads: f64,
    max_tokens: f64,
    /// Whether the number of prompts stands in the file, so that no input changes it.
    is_fixed: bool,
    /// Whether weights are set by what comes of it.
    is_paid: bool,
}

impl Asked {
    /// As far as it is known before the start; none where a number is not.
    fn of(pipeline: &Pipeline, (measure, benchmark): (&Job, &Step), known: &KnownContexts) -> Option<Self> {
        let number = |step, name| input(step, name, known).map(|value| value.to_number());
        let plan = needed_by(pipeline, measure).find_map(|job| {
            steps(job, StageName::PlanReads).chain(steps(job, StageName::PlanConfirm)).next()
        })?;
        let is_given = |name| input(plan, name, known).is_some_and(|value| value.is_truthy());
        let reads = match number(plan, "rounds") {
            Some(rounds) if rounds >= 1.0 => rounds,
            _ if given(plan, "detect") || given(plan, "rounds") && !is_given("rounds") => return None,
            _ => 1.0,
        };
        Some(Self {
            prompts: number(benchmark, "prompts")?,
            reads,
            max_tokens: number(benchmark, "max-tokens")?,
            is_fixed: is_literal(benchmark, "prompts"),
            is_paid: false,
        })
    }

    fn samples(&self, need: &SampleNeed) -> f64 {
        self.prompts * self.reads * if need.is_by_answer { 1.0 } else { self.max_tokens }
    }
}

/// Fewer answers than a check needs: refused where weights are set, a warning elsewhere unless an input may still ask for more.
fn too_few(asked: &Asked, (verify, benchmark): (&Step, &Step), known: &KnownContexts) -> Option<Diagnostic> {
    if !asked.is_paid && !asked.is_fixed {
        return None;
    }
    let policy = input(verify, "policy", known)?.to_json_text();
    let policy: VerifyPolicy = serde_json::from_str(&policy).ok()?;
    let needs = sample_needs(&policy);
    let lacking = |need: &&SampleNeed| need.samples.is_none_or(|least| asked.samples(need) < least as f64);
    let need = needs.iter().filter(lacking).max_by_key(|need| (need.is_by_answer, need.samples))?;
    let least = need.samples.map_or("more than there can be".to_owned(), |least| least.to_string());
    let message = format!(
        "a submission gives {} {} ({} prompts, {} read(s)), and the checks need {least}",
        asked.samples(need),
        need.what,
        asked.prompts,
        asked.reads
    );
    let help = format!(
        "with fewer, a server that takes {}% of them from elsewhere is found with less than a probability of {} (an honest \
         one is failed with at most {}): raise `prompts` or `rounds`",
        need.cheat * 100.0,
        need.power,
        need.level
    );
    let finding = if asked.is_paid { Diagnostic::error } else { Diagnostic::warning };
    Some(finding(Code::TooFewAnswers, benchmark.span, message).label(verify.span, "checked here").help(help))
}

fn tree<'s>(step: &'s Step, name: &str) -> Option<&'s TemplateTree> {
    let StepAction::Stage { with, .. } = &step.action else { return None };
    with.iter().find(|(key, _)| key.name == name).map(|(_, tree)| tree)
}

fn given(step: &Step, name: &str) -> bool {
    tree(step, name).is_some()
}

/// Whether an input is a plain value or left out.
fn is_literal(step: &Step, name: &str) -> bool {
    tree(step, name)
        .is_none_or(|tree| matches!(tree, TemplateTree::Scalar(scalar) if scalar.as_literal().is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::source::Source;

    /// A pipeline of one look: `plan-reads`, the benchmark, the policy, the weights.
    fn said(plan: &str, benchmark: &str, policy: &str, weights: &str) -> Vec<String> {
        let text = format!(
            "on: {{dispatch: {{inputs: {{n: {{type: number, default: 16}}, m: {{type: number, required: true}}}}}}}}
jobs:
  plan:
    runs-on: controller
    steps:
      - {{id: p, uses: plan-reads, with: {{submissions: [], baseline: {{image: a/b, digest: 'sha256:{zeros}'}}{plan}}}}}
  measure:
    needs: plan
    runs-on: r
    strategy: {{matrix: {{read: [1]}}}}
    steps:
      - {{uses: benchmark, with: {{endpoint: x, read: '${{{{ matrix.read }}}}', workload: [{{source: passages}}]{benchmark}}}}}
  verify:
    needs: measure
    runs-on: r
    steps:
      - {{uses: verify-logprobs, with: {{endpoint: x, reads: []{policy}}}}}
  publish:
    runs-on: controller
    steps:
      - {{uses: set-weights, with: {{leaderboard: [], netuid: 1{weights}}}}}
",
            zeros = "0".repeat(64)
        );
        let items = match Pipeline::parse(&Source::new("t.yml", &text)) {
            Ok(parsed) => parsed.warnings.items,
            Err(found) => found.items,
        };
        items
            .iter()
            .filter(|finding| finding.code != Code::AskedAgain)
            .map(|finding| format!("{} {} {}", finding.severity, finding.code, finding.message))
            .collect()
    }

    fn check(found: &[String], expected: &[&str]) {
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}, want {expected}");
        }
    }

    const PAID: &str = ", dry-run: false";

    #[test]
    fn the_checks_get_the_answers_that_they_need() {
        let few =
            "error L073 a submission gives 16 first tokens (16 prompts, 1 read(s)), and the checks need 85";
        let said = |plan: &str, benchmark: &str, weights: &str| said(plan, benchmark, "", weights);
        check(&said("", ", prompts: 16", PAID), &[few]);
        check(&said("", ", prompts: 16", ""), &[&few.replace("error", "warning")]);
        // Another input may be given: what is not paid is let be, what is paid is not.
        check(&said("", ", prompts: '${{ inputs.n }}'", ""), &[]);
        check(&said("", ", prompts: '${{ inputs.n }}'", PAID), &[few]);
        check(&said("", ", prompts: '${{ inputs.m }}'", PAID), &[]);
        // By the number of all reads of one look; the default of 128 prompts is enough.
        check(&said("", "", PAID), &[]);
        check(&said("", ", prompts: 84", PAID), &["error L073"]);
        check(&said("", ", prompts: 85", PAID), &[]);
        check(&said(", rounds: 6", ", prompts: 16", PAID), &[]);
        check(
            &said(", rounds: 5", ", prompts: 16", PAID),
            &["error L073 a submission gives 80 first tokens"],
        );
        check(&said(", rounds: '${{ inputs.m }}'", ", prompts: 16", PAID), &[]);
        check(
            &said("", ", prompts: 100, max-tokens: 4", PAID),
            &["error L073 a submission gives 400 tokens"],
        );
    }

    #[test]
    fn a_policy_may_ask_for_more_or_less() {
        let said = |policy: &str| said("", ", prompts: 100", policy, PAID);
        check(&said(""), &[]);
        check(&said(", policy: {cheat-share: 0.1}"), &["error L073"]);
        check(&said(", policy: {power: 0.9999999}"), &["error L073"]);
        check(&said(", policy: {cheat-share: 0.3}"), &[]);
        check(&said(", policy: {cheat-share: 0.001}"), &["error L073 a submission gives 100 "]);
    }

    #[test]
    fn the_limit_of_answers_is_the_benchmarks() {
        let said = |benchmark: &str, policy: &str| said("", benchmark, policy, "");
        check(&said(", max-tokens: 128", ""), &[]);
        check(&said(", max-tokens: 128", ", policy: {max-tokens: 128}"), &[]);
        check(&said(", max-tokens: 128", ", policy: {max-tokens: 64}"), &["error L072"]);
        check(&said("", ", policy: {max-tokens: 64}"), &["error L072"]);
        check(&said("", ", policy: {max-tokens: 256}"), &[]);
        check(&said(", max-tokens: '${{ inputs.m }}'", ", policy: {max-tokens: 64}"), &[]);
    }
}
