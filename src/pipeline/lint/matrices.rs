//! Checks matrices: legs without a name of their own, and those that cannot be expanded.

use crate::pipeline::code::Code;
use crate::pipeline::contexts::KnownContexts;
use crate::pipeline::definition::{Job, Pipeline};
use crate::pipeline::diagnostic::Diagnostic;
use crate::pipeline::expr::same_name;
use crate::pipeline::plan;
use crate::pipeline::template::TemplateTree;

pub(super) fn findings(pipeline: &Pipeline) -> Vec<Diagnostic> {
    pipeline.jobs.iter().filter_map(|job| unnamed_legs(job).or_else(|| unexpandable(job))).collect()
}

/// Finds legs without key that are objects, or come from outside.
fn unnamed_legs(job: &Job) -> Option<Diagnostic> {
    let strategy = job.strategy.as_ref().filter(|strategy| strategy.key.is_none())?;
    let has_names = match &strategy.matrix {
        TemplateTree::Map(entries, _) => {
            entries.iter().all(|(key, tree)| is_reserved(&key.name) || is_named(tree))
        }
        _ => false,
    };
    if has_names {
        return None;
    }
    let message = format!("`strategy.key` is required to name the legs of `{}`", job.id);
    let help =
        "legs that are objects or come from outside have no name of their own: add `key: ${{ matrix.. }}`";
    Some(Diagnostic::error(Code::MatrixKey, strategy.span, message).help(help))
}

/// Whether a tree is a list of literals. What is no list at all is reported when the matrix is expanded.
fn is_named(tree: &TemplateTree) -> bool {
    let is_literal =
        |tree: &TemplateTree| matches!(tree, TemplateTree::Scalar(t) if t.as_literal().is_some());
    match tree {
        TemplateTree::List(items, _) => items.iter().all(is_literal),
        scalar => is_literal(scalar),
    }
}

fn is_reserved(name: &str) -> bool {
    same_name(name, "include") || same_name(name, "exclude")
}

/// Expands a matrix that needs nothing from outside. What its key fails with is found by others.
fn unexpandable(job: &Job) -> Option<Diagnostic> {
    plan::legs(job, &KnownContexts::default()).err().filter(|found| found.code != Code::Evaluation)
}

/// The keys of a matrix, if all are written in the file; else none.
pub(super) fn keys(matrix: &TemplateTree) -> Option<Vec<&str>> {
    let TemplateTree::Map(entries, _) = matrix else { return None };
    let mut keys = Vec::new();
    for (key, tree) in entries {
        match key.name.as_str() {
            "exclude" => {}
            "include" => {
                let TemplateTree::List(items, _) = tree else { return None };
                for item in items {
                    let TemplateTree::Map(extra, _) = item else { return None };
                    keys.extend(extra.iter().map(|(key, _)| key.name.as_str()));
                }
            }
            name => keys.push(name),
        }
    }
    keys.sort_unstable();
    keys.dedup();
    Some(keys)
}
