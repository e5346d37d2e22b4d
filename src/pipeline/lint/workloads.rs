//! Checks what a workload names, and that no money depends on prompts that everybody can know.

use crate::pipeline::code::Code;
use crate::pipeline::definition::{Pipeline, Step, StepAction};
use crate::pipeline::diagnostic::Diagnostic;
use crate::pipeline::expr::Value;
use crate::pipeline::stage::StageName;
use crate::pipeline::suggest;
use crate::pipeline::template::TemplateTree;

/// The sources there are.
const SOURCES: [&str; 4] = ["grammar", "passages", "instructions", "corpus"];

/// Findings in the value of a stage's input `workload`.
pub(super) fn of_input(tree: &TemplateTree) -> Vec<Diagnostic> {
    let TemplateTree::List(items, _) = tree else { return Vec::new() };
    items.iter().filter_map(of_source).collect()
}

fn of_source(item: &TemplateTree) -> Option<Diagnostic> {
    let source = key(item, "source")?;
    let name = literal(source)?.to_string();
    if !SOURCES.contains(&name.as_str()) {
        let message = format!("there is no source `{name:.40}` of prompts");
        let found = Diagnostic::error(Code::UnknownSource, source.span(), message);
        return Some(found.did_you_mean(&suggest::closest(&name, SOURCES)));
    }
    let is_pinned = key(item, "digest").is_some_and(|digest| literal(digest) != Some(&Value::Null));
    if name != "corpus" || is_pinned {
        return None;
    }
    let message = "this corpus has no digest: another file of its name would be taken for it";
    let help = "add `digest: sha256:..`, as `sha256sum` prints it";
    Some(Diagnostic::error(Code::UnpinnedCorpus, item.span(), message).help(help))
}

/// Findings over the whole pipeline.
pub(super) fn findings(pipeline: &Pipeline) -> Vec<Diagnostic> {
    let steps = || pipeline.jobs.iter().flat_map(|job| &job.steps);
    let Some(weights) = steps().find(|step| sets_weights(step)) else { return Vec::new() };
    let toy = steps().filter(|step| {
        inputs(step, StageName::Benchmark).is_some() && is_toy(input(step, StageName::Benchmark, "workload"))
    });
    let message = "these prompts decide about weights that are set, and all come from the toy grammar: everybody can read it, and a server could be built to answer it";
    let help = "give `workload` a `corpus` of your own, `passages` or `instructions`";
    toy.map(|step| {
        let span = input(step, StageName::Benchmark, "workload").map_or(step.span, TemplateTree::span);
        Diagnostic::error(Code::ToyWorkload, span, message).label(weights.span, "set here").help(help)
    })
    .collect()
}

pub(super) fn sets_weights(step: &Step) -> bool {
    let dry_run = input(step, StageName::SetWeights, "dry-run").and_then(literal);
    dry_run.is_some_and(|value| value.to_string() == "false")
}

/// Whether all sources are the grammar, as far as they stand there; so it is where nothing is said.
fn is_toy(workload: Option<&TemplateTree>) -> bool {
    match workload {
        None => true,
        Some(TemplateTree::List(items, _)) => items.iter().all(|item| {
            key(item, "source").and_then(literal).is_some_and(|name| name.to_string() == "grammar")
        }),
        Some(tree) => literal(tree) == Some(&Value::Null),
    }
}

type Inputs = [(crate::pipeline::yaml::Key, TemplateTree)];

fn inputs(step: &Step, wanted: StageName) -> Option<&Inputs> {
    match &step.action {
        StepAction::Stage { stage, with, .. } if *stage == wanted => Some(with),
        StepAction::Stage { .. } | StepAction::Run { .. } => None,
    }
}

fn input<'s>(step: &'s Step, stage: StageName, name: &str) -> Option<&'s TemplateTree> {
    inputs(step, stage)?.iter().find(|(key, _)| key.name == name).map(|(_, tree)| tree)
}

fn key<'t>(tree: &'t TemplateTree, name: &str) -> Option<&'t TemplateTree> {
    let TemplateTree::Map(entries, _) = tree else { return None };
    entries.iter().find(|(key, _)| key.name == name).map(|(_, value)| value)
}

fn literal(tree: &TemplateTree) -> Option<&Value> {
    if let TemplateTree::Scalar(template) = tree { template.as_literal() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::source::Source;

    fn said(workload: &str, weights: &str) -> Vec<String> {
        let text = format!(
            "on: {{dispatch: {{inputs: {{w: {{type: string, default: '[]'}}}}}}}}
jobs:
  measure:
    runs-on: r
    strategy: {{matrix: {{read: [1]}}}}
    steps:
      - {{uses: benchmark, with: {{endpoint: x, read: '${{{{ matrix.read }}}}'{workload}}}}}
  publish:
    runs-on: controller
    steps:
      - {{uses: set-weights, with: {{leaderboard: [], netuid: 1{weights}}}}}
"
        );
        let items = match Pipeline::parse(&Source::new("t.yml", &text)) {
            Ok(parsed) => parsed.warnings.items,
            Err(found) => found.items,
        };
        // What is said of reads that are lost is not of interest here.
        let own = |finding: &&Diagnostic| finding.code != Code::AskedAgain;
        items.iter().filter(own).map(|finding| format!("{} {}", finding.code, finding.message)).collect()
    }

    #[test]
    fn a_workload_names_what_there_is_and_is_no_toy_where_money_is() {
        let check = |workload: &str, weights: &str, expected: &[&str]| {
            let found = said(workload, weights);
            assert_eq!(found.len(), expected.len(), "{found:#?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.starts_with(expected), "{found}, want {expected}");
            }
        };
        let digest = format!("'sha256:{}'", "0".repeat(64));
        let paid = ", dry-run: false";
        check("", "", &[]);
        check("", ", dry-run: true", &[]);
        check("", paid, &["L071 these prompts decide"]);
        check(", workload: [{source: grammar, weight: 3}]", paid, &["L071"]);
        check(", workload: [{source: grammar}, {source: passages}]", paid, &[]);
        check(", workload: '${{ fromJSON(inputs.w) }}'", paid, &[]);
        check(", workload: [{source: pasages}]", "", &["L069 there is no source `pasages`"]);
        check(", workload: [{source: corpus, path: a}]", "", &["L070 this corpus has no digest"]);
        check(&format!(", workload: [{{source: corpus, path: a, digest: {digest}}}]"), paid, &[]);
        check(", workload: [{source: corpus, path: a, digest: x}]", "", &["L023"]);
        check(", workload: [{source: passages, weight: 0}]", "", &["L023"]);
        check(", workload: [{source: passages, wieght: 1}]", "", &["L023"]);
        check(", workload: [{weight: 1}]", "", &["L023"]);
        check(", workload: []", "", &["L023"]);
    }
}
