//! Reads `jobs`: everything of a job but its steps.

use super::decoder::{Decoder, Slot};
use super::{env, flag, step};
use crate::pipeline::code::Code;
use crate::pipeline::definition::{
    Defaults, Flag, Job, LegOrder, Need, OutputDecl, OutputType, RunsOn, Strategy,
};
use crate::pipeline::diagnostic::Diagnostic;
use crate::pipeline::source::Span;
use crate::pipeline::template::{Template, TemplateTree};
use crate::pipeline::yaml::Kind;

pub(super) fn jobs(decoder: &mut Decoder<'_>, slot: Slot<'_>, defaults: &Defaults) -> Vec<Job> {
    if matches!(&slot.node.kind, Kind::Map(entries) if entries.is_empty()) {
        let message = "the pipeline has no jobs";
        decoder.report(Diagnostic::error(Code::EmptyCollection, slot.key.span, message));
        return Vec::new();
    }
    let entries = decoder.entries(slot);
    entries.into_iter().map(|entry| job(decoder, entry, defaults)).collect()
}

/// Reads a job; of one that is no mapping at all, only the name.
fn job(decoder: &mut Decoder<'_>, entry: Slot<'_>, defaults: &Defaults) -> Job {
    let mut job = Job {
        id: entry.key.name.clone(),
        span: entry.key.span,
        name: None,
        needs: Vec::new(),
        condition: crate::pipeline::template::Condition::default(),
        runs_on: RunsOn { labels: vec![Template::literal("local", entry.key.span)] },
        strategy: None,
        env: Vec::new(),
        outputs: Vec::new(),
        timeout: defaults.timeout,
        retry: crate::pipeline::definition::Retry::default(),
        continue_on_error: Flag::Fixed(false),
        steps: Vec::new(),
    };
    decoder.check_id("job", &job.id, job.span);
    let what = format!("job `{}`", job.id);
    let Some(mut fields) = decoder.fields(entry.node, &what, entry.key.span) else { return job };
    job.name = fields.take("name").and_then(|slot| decoder.text(slot));
    job.needs = fields.take("needs").map(|slot| needs(decoder, slot)).unwrap_or_default();
    job.condition = fields.take("if").and_then(|slot| decoder.condition(slot)).unwrap_or_default();
    if let Some(slot) = fields.take("runs-on") {
        let labels = decoder.one_or_more(slot).into_iter().filter_map(|item| decoder.text(item));
        job.runs_on = RunsOn { labels: labels.collect() };
    }
    job.strategy = fields.take("strategy").and_then(|slot| strategy(decoder, slot, &what));
    job.env = fields.take("env").map(|slot| env(decoder, slot)).unwrap_or_default();
    job.outputs = fields.take("outputs").map(|slot| outputs(decoder, slot)).unwrap_or_default();
    job.timeout = decoder.timeout(&mut fields).or(defaults.timeout);
    job.retry = fields.take("retry").and_then(|slot| step::retry(decoder, slot)).unwrap_or_default();
    job.continue_on_error = flag(decoder, &mut fields);
    if let Some(slot) = fields.require("steps", decoder) {
        if matches!(&slot.node.kind, Kind::Seq(items) if items.is_empty()) {
            let message = format!("{what} has no steps");
            decoder.report(Diagnostic::error(Code::EmptyCollection, slot.key.span, message));
            fields.finish(decoder);
            return job;
        }
        job.steps = step::steps(decoder, slot, defaults);
    }
    fields.finish(decoder);
    job
}

fn needs(decoder: &mut Decoder<'_>, slot: Slot<'_>) -> Vec<Need> {
    let mut needs: Vec<Need> = Vec::new();
    for item in decoder.one_or_more(slot) {
        let Some(job) = decoder.string(item) else { continue };
        if let Some(first) = needs.iter().find(|need| need.job == job) {
            let message = format!("`{job}` is listed twice");
            decoder.report(
                Diagnostic::error(Code::RepeatedNeed, item.underlined(), message)
                    .label(first.span, "first here")
                    .help("delete one"),
            );
            continue;
        }
        needs.push(Need { job, span: item.underlined() });
    }
    needs
}

fn strategy(decoder: &mut Decoder<'_>, slot: Slot<'_>, job: &str) -> Option<Strategy> {
    let what = format!("`strategy` of {job}");
    let mut fields = decoder.fields(slot.node, &what, slot.key.span)?;
    let matrix = fields.require("matrix", decoder).and_then(|slot| matrix(decoder, slot));
    let key = fields.take("key").and_then(|slot| decoder.text(slot));
    let max_parallel = fields.take("max-parallel").and_then(|slot| decoder.integer(slot, 1));
    let fail_fast = fields.take("fail-fast").and_then(|slot| decoder.boolean(slot)).unwrap_or(false);
    let order = fields
        .take("order")
        .and_then(|slot| decoder.word(slot, &[("file", LegOrder::File), ("shuffle", LegOrder::Shuffle)]));
    let sequence = fields.take("sequence").and_then(|slot| decoder.text(slot));
    let allow_empty = fields.take("allow-empty").and_then(|slot| decoder.boolean(slot)).unwrap_or(false);
    fields.finish(decoder);
    Some(Strategy {
        matrix: matrix?,
        key,
        max_parallel,
        fail_fast,
        order: order.unwrap_or_default(),
        sequence,
        allow_empty,
        span: slot.key.span,
    })
}

fn matrix(decoder: &mut Decoder<'_>, slot: Slot<'_>) -> Option<TemplateTree> {
    let tree = decoder.tree(slot)?;
    match &tree {
        TemplateTree::Scalar(template) if template.as_literal().is_some() || template.is_mixed() => {
            let message = "`matrix` wants a mapping of lists, or one expression that gives such a mapping";
            decoder.report(Diagnostic::error(Code::WrongType, slot.underlined(), message));
            None
        }
        TemplateTree::List(..) => {
            let message = "`matrix` wants a mapping of lists, found a list";
            decoder.report(Diagnostic::error(Code::WrongType, slot.key.span, message));
            None
        }
        TemplateTree::Map(entries, _) if entries.is_empty() => {
            let message = "`matrix` is empty";
            decoder.report(Diagnostic::error(Code::EmptyCollection, slot.key.span, message));
            None
        }
        _ => Some(tree),
    }
}

fn outputs(decoder: &mut Decoder<'_>, slot: Slot<'_>) -> Vec<OutputDecl> {
    let mut outputs = Vec::new();
    for entry in decoder.entries(slot) {
        decoder.check_id("output", &entry.key.name, entry.key.span);
        outputs.extend(output(decoder, entry));
    }
    outputs
}

fn output(decoder: &mut Decoder<'_>, entry: Slot<'_>) -> Option<OutputDecl> {
    let name = entry.key.name.clone();
    if !matches!(entry.node.kind, Kind::Map(_)) {
        let value = decoder.template(entry)?;
        return Some(OutputDecl { name, kind: OutputType::String, value });
    }
    let at: Span = entry.key.span;
    let mut fields = decoder.fields(entry.node, &format!("output `{name}`"), at)?;
    let kind = fields.take("type").and_then(|slot| {
        let words = &[
            ("string", OutputType::String),
            ("json", OutputType::Json),
            ("number", OutputType::Number),
            ("boolean", OutputType::Boolean),
        ];
        decoder.word(slot, words)
    });
    let value = fields.require("value", decoder).and_then(|slot| decoder.template(slot));
    fields.finish(decoder);
    Some(OutputDecl { name, kind: kind.unwrap_or_default(), value: value? })
}
