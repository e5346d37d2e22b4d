//! Checks for outside data in scripts: what a miner writes must never be pasted into bash.

use crate::pipeline::code::Code;
use crate::pipeline::definition::{Job, Pipeline, Step, StepAction};
use crate::pipeline::diagnostic::Diagnostic;
use crate::pipeline::expr::{TermKind, path, same_name};
use crate::pipeline::template::Placed;

const OUTSIDE: [&str; 4] = ["matrix", "needs", "steps", "inputs"];

pub(super) fn findings(pipeline: &Pipeline) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for job in &pipeline.jobs {
        for step in &job.steps {
            let StepAction::Run { script, .. } = &step.action else { continue };
            let is_env_outside = has_computed_env(pipeline, job, step);
            let is_outside = |context: &str| {
                OUTSIDE.iter().any(|name| same_name(name, context))
                    || is_env_outside && same_name(context, "env")
            };
            let pasted = script.expressions().into_iter().filter(|placed| uses(placed, is_outside));
            found.extend(pasted.map(injection));
        }
    }
    found
}

fn uses(placed: &Placed, is_outside: impl Fn(&str) -> bool) -> bool {
    placed.expression.contexts().into_iter().any(is_outside)
}

/// Whether a variable that the step sees is computed, and so may hold outside data itself.
fn has_computed_env(pipeline: &Pipeline, job: &Job, step: &Step) -> bool {
    let all = pipeline.env.iter().chain(&job.env).chain(&step.env);
    all.into_iter().any(|(_, value)| value.as_literal().is_none())
}

fn injection(placed: &Placed) -> Diagnostic {
    let term = placed.expression.term();
    let span = placed.in_file(term.span);
    let is_path = matches!(term.kind, TermKind::Context(_) | TermKind::Property(..) | TermKind::Index(..));
    if !is_path {
        let message = "this comes from outside; pasting it into a script runs it";
        let help = "move the expression to `env:` and write the variable in double quotes";
        return Diagnostic::error(Code::ScriptInjection, span, message).help(help);
    }
    let named = path(term);
    let variable = variable(&named);
    let message = format!("`{named}` comes from outside; pasting it into a script runs it");
    let help =
        format!("move it to `env: {{ {variable}: '${{{{ {named} }}}}' }}` and write `\"${variable}\"`");
    Diagnostic::error(Code::ScriptInjection, span, message).help(help)
}

/// Name for a variable, made from the last name of a path.
fn variable(path: &str) -> String {
    let last = path.rsplit(['.', '[']).next().unwrap_or(path);
    let name: String = last.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')).collect();
    let name = name.to_ascii_uppercase().replace('-', "_");
    if name.is_empty() { "VALUE".to_owned() } else { name }
}
