//! Reads `steps`, and `retry`, which jobs have too.

use super::decoder::{Decoder, Fields, Slot};
use super::{env, flag, shell};
use crate::pipeline::code::Code;
use crate::pipeline::definition::{Backoff, BackoffKind, Defaults, FaultName, Retry, Step, StepAction};
use crate::pipeline::diagnostic::Diagnostic;
use crate::pipeline::source::Span;
use crate::pipeline::stage::StageName;
use crate::pipeline::template::{Template, TemplateTree};
use crate::pipeline::yaml::{Key, Node};

pub(super) fn steps(decoder: &mut Decoder<'_>, slot: Slot<'_>, defaults: &Defaults) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut ids: Vec<(String, Span)> = Vec::new();
    for (index, node) in decoder.items(slot).iter().enumerate() {
        let Some(step) =
            step(decoder, node, &StepPosition { number: index + 1, at: slot.key.span, defaults }, &mut ids)
        else {
            continue;
        };
        steps.push(step);
    }
    steps
}

struct StepPosition<'d> {
    number: usize,
    at: Span,
    defaults: &'d Defaults,
}

fn step(
    decoder: &mut Decoder<'_>,
    node: &Node,
    position: &StepPosition<'_>,
    ids: &mut Vec<(String, Span)>,
) -> Option<Step> {
    let what = format!("step {}", position.number);
    let mut fields = decoder.fields(node, &what, position.at)?;
    fields.at = node.underlined();
    let id = fields.take("id").and_then(|slot| step_id(decoder, slot, ids));
    let name = fields.take("name").and_then(|slot| decoder.text(slot));
    let condition = fields.take("if").and_then(|slot| decoder.condition(slot)).unwrap_or_default();
    let env = fields.take("env").map(|slot| env(decoder, slot)).unwrap_or_default();
    let timeout = decoder.timeout(&mut fields);
    let continue_on_error = flag(decoder, &mut fields);
    let retry = fields.take("retry").and_then(|slot| retry(decoder, slot)).unwrap_or_default();
    let action = action(decoder, &mut fields, position.defaults);
    let span = fields.at;
    fields.finish(decoder);
    // A step whose action is wrong stays, so that what refers to its id is not reported too.
    let unread = || StepAction::Run { script: Template::literal("", span), shell: position.defaults.shell };
    let action = action.unwrap_or_else(unread);
    Some(Step { id, span, name, condition, env, timeout, continue_on_error, retry, action })
}

fn step_id(decoder: &mut Decoder<'_>, slot: Slot<'_>, ids: &mut Vec<(String, Span)>) -> Option<String> {
    let id = decoder.string(slot)?;
    decoder.check_id("step", &id, slot.underlined());
    if let Some((first, span)) = ids.iter().find(|(first, _)| first.eq_ignore_ascii_case(&id)) {
        let message = format!("step id `{id}` repeats `{first}` (ids ignore case)");
        decoder.report(
            Diagnostic::error(Code::RepeatedId, slot.underlined(), message)
                .label(*span, "first here")
                .help("rename one"),
        );
    }
    ids.push((id.clone(), slot.underlined()));
    Some(id)
}

fn action(decoder: &mut Decoder<'_>, fields: &mut Fields<'_>, defaults: &Defaults) -> Option<StepAction> {
    let (uses, run) = (fields.take("uses"), fields.take("run"));
    let (with, own_shell) = (fields.take("with"), fields.take("shell"));
    let kind = own_shell.and_then(|slot| shell(decoder, slot)).unwrap_or(defaults.shell);
    let inputs = with.map(|slot| with_inputs(decoder, slot)).unwrap_or_default();
    match (uses, run) {
        (Some(uses), Some(run)) => {
            let (first, second) = if uses.key.span < run.key.span { (uses, run) } else { (run, uses) };
            let message = "a step has `uses` or `run`, not both";
            decoder.report(
                Diagnostic::error(Code::UsesAndRun, second.key.span, message)
                    .label(first.key.span, "the other one")
                    .help("make two steps of it"),
            );
            None
        }
        (Some(uses), None) => {
            misplaced(decoder, own_shell, "run");
            let name = decoder.string(uses)?;
            match name.parse::<StageName>() {
                Ok(stage) => Some(StepAction::Stage { stage, with: inputs, span: uses.underlined() }),
                Err(error) => {
                    let found = Diagnostic::error(Code::UnknownStage, uses.underlined(), error.to_string());
                    decoder.report(found.did_you_mean(&error.known));
                    None
                }
            }
        }
        (None, Some(run)) => {
            misplaced(decoder, with, "uses");
            Some(StepAction::Run { script: decoder.text(run)?, shell: kind })
        }
        (None, None) => {
            let message = format!("{} has neither `uses` nor `run`", fields.what);
            decoder.report(Diagnostic::error(Code::MissingKey, fields.at, message));
            None
        }
    }
}

fn misplaced(decoder: &mut Decoder<'_>, slot: Option<Slot<'_>>, belongs_to: &str) {
    if let Some(slot) = slot {
        let message = format!("`{}` belongs to steps with `{belongs_to}`", slot.key.name);
        decoder.report(Diagnostic::error(Code::UnknownKey, slot.key.span, message));
    }
}

fn with_inputs(decoder: &mut Decoder<'_>, slot: Slot<'_>) -> Vec<(Key, TemplateTree)> {
    let entries = decoder.entries(slot);
    let tree = |entry: Slot<'_>| {
        // An input that cannot be read is reported already; it is there, of a type nobody knows.
        let unread = || Template::parse("${{ null }}").ok().map(TemplateTree::Scalar);
        Some((entry.key.clone(), decoder.tree(entry).or_else(unread)?))
    };
    entries.into_iter().filter_map(tree).collect()
}

/// Reads `retry` of a step or job.
pub(super) fn retry(decoder: &mut Decoder<'_>, slot: Slot<'_>) -> Option<Retry> {
    let mut fields = decoder.fields(slot.node, "`retry`", slot.key.span)?;
    let max = fields.require("max", decoder).and_then(|slot| decoder.integer(slot, 0));
    let on = fields.take("on").map_or_else(|| vec![FaultName::Infra], |slot| faults(decoder, slot));
    let backoff = fields.take("backoff").and_then(|slot| backoff(decoder, slot)).unwrap_or_default();
    fields.finish(decoder);
    Some(Retry { max: max?, on, backoff })
}

fn faults(decoder: &mut Decoder<'_>, slot: Slot<'_>) -> Vec<FaultName> {
    let mut faults = Vec::new();
    for item in decoder.one_or_more(slot) {
        let words = &[
            ("infra", Some(FaultName::Infra)),
            ("pipeline", Some(FaultName::Pipeline)),
            ("operator", Some(FaultName::Operator)),
            ("unknown", Some(FaultName::Unknown)),
            ("submission", None),
        ];
        match decoder.word(item, words) {
            Some(Some(fault)) => faults.push(fault),
            Some(None) => decoder.report(
                Diagnostic::error(
                    Code::RetrySubmission,
                    item.underlined(),
                    "retrying submission faults would hide failing submissions",
                )
                .help("remove `submission`"),
            ),
            None => {}
        }
    }
    faults
}

fn backoff(decoder: &mut Decoder<'_>, slot: Slot<'_>) -> Option<Backoff> {
    let mut backoff = Backoff::default();
    let mut fields = decoder.fields(slot.node, "`backoff`", slot.key.span)?;
    let kind = fields.take("kind").and_then(|slot| {
        let words = &[
            ("exponential", BackoffKind::Exponential),
            ("linear", BackoffKind::Linear),
            ("fixed", BackoffKind::Fixed),
        ];
        decoder.word(slot, words)
    });
    backoff.kind = kind.unwrap_or_default();
    backoff.delay = fields.take("delay").and_then(|slot| decoder.duration(slot)).unwrap_or(backoff.delay);
    backoff.max_delay =
        fields.take("max-delay").and_then(|slot| decoder.duration(slot)).unwrap_or(backoff.max_delay);
    fields.finish(decoder);
    Some(backoff)
}
