//! Reads `on` and `concurrency`.

use super::decoder::{Decoder, Slot};
use crate::pipeline::code::Code;
use crate::pipeline::cron::{self, Cron};
use crate::pipeline::definition::{CatchUp, Concurrency, InputDecl, InputType, Overlap, Queue, Schedule};
use crate::pipeline::diagnostic::Diagnostic;
use crate::pipeline::expr::Value;
use crate::pipeline::scalar;
use crate::pipeline::source::Span;
use crate::pipeline::yaml::{Kind, Node};

/// The parts of a pipeline that say when its rounds start.
#[derive(Default)]
pub(super) struct Triggers {
    pub(super) schedules: Vec<Schedule>,
    pub(super) inputs: Vec<InputDecl>,
    pub(super) on_failure: Option<String>,
}

pub(super) fn triggers(decoder: &mut Decoder<'_>, slot: Slot<'_>) -> Triggers {
    let mut triggers = Triggers::default();
    if matches!(slot.node.kind, Kind::Str(_) | Kind::Seq(_)) {
        for item in decoder.one_or_more(slot) {
            let _ = decoder.word(item, &[("dispatch", ()), ("workflow_dispatch", ())]);
        }
        return triggers;
    }
    let Some(mut fields) = decoder.fields(slot.node, "`on`", slot.key.span) else { return triggers };
    if let Some(schedule) = fields.take("schedule") {
        for item in decoder.items(schedule) {
            triggers.schedules.extend(one_schedule(decoder, item, schedule.key.span));
        }
    }
    let (ours, theirs) = (fields.take("dispatch"), fields.take("workflow_dispatch"));
    if let (Some(ours), Some(theirs)) = (ours, theirs) {
        let message = "`dispatch` and `workflow_dispatch` are two spellings of one key";
        decoder.report(
            Diagnostic::error(Code::BothSpellings, theirs.key.span, message)
                .label(ours.key.span, "the other one"),
        );
    }
    if let Some(dispatch) = ours.or(theirs).filter(|slot| slot.node.kind != Kind::Null)
        && let Some(mut fields) = decoder.fields(dispatch.node, "`dispatch`", dispatch.key.span)
    {
        if let Some(inputs) = fields.take("inputs") {
            for entry in decoder.entries(inputs) {
                triggers.inputs.extend(one_input(decoder, entry));
            }
        }
        fields.finish(decoder);
    }
    if let Some(failure) = fields.take("failure")
        && let Some(mut fields) = decoder.fields(failure.node, "`failure`", failure.key.span)
    {
        triggers.on_failure = fields.require("run", decoder).and_then(|slot| hook(decoder, slot));
        fields.finish(decoder);
    }
    fields.finish(decoder);
    triggers
}

/// The script of `on.failure`: it runs outside every round, so there is nothing for an expression to name.
fn hook(decoder: &mut Decoder<'_>, slot: Slot<'_>) -> Option<String> {
    let script = decoder.string(slot)?;
    if script.contains("${{") {
        let message = "`on.failure` takes no expressions: it runs outside the round";
        let finding = Diagnostic::error(Code::ContextUnavailable, slot.underlined(), message);
        decoder.report(
            finding.help("what happened is in `$CACHEON_EVENT`, `$CACHEON_ROUND` and `$CACHEON_EXIT_CODE`"),
        );
        return None;
    }
    Some(script)
}

fn one_schedule(decoder: &mut Decoder<'_>, node: &Node, at: Span) -> Option<Schedule> {
    let mut fields = decoder.fields(node, "a schedule", at)?;
    fields.at = node.underlined();
    let line = fields.require("cron", decoder);
    let cron = line.and_then(|slot| cron_line(decoder, slot));
    let timezone = fields.take("timezone").and_then(|slot| {
        let name = decoder.string(slot)?;
        let zone = cron::time_zone(&name);
        zone.map_err(|offers| {
            let message = format!("unknown time zone `{name:.60}`");
            decoder
                .report(Diagnostic::error(Code::TimeZone, slot.underlined(), message).did_you_mean(&offers));
        })
        .ok()
    });
    let overlap = fields.take("overlap").and_then(|slot| {
        decoder
            .word(slot, &[("skip", Overlap::Skip), ("queue", Overlap::Queue), ("replace", Overlap::Replace)])
    });
    let catch_up = fields.take("catch-up").and_then(|slot| {
        decoder.word(slot, &[("none", CatchUp::None), ("latest", CatchUp::Latest), ("all", CatchUp::All)])
    });
    let deadline = fields.take("deadline").and_then(|slot| decoder.duration(slot));
    let jitter = fields.take("jitter").and_then(|slot| decoder.duration(slot));
    let inputs = fields.take("inputs").map(|slot| decoder.entries(slot)).unwrap_or_default();
    let inputs =
        inputs.into_iter().filter_map(|entry| Some((entry.key.name.clone(), decoder.string(entry)?)));
    let inputs = inputs.collect();
    fields.finish(decoder);
    Some(Schedule {
        cron: cron?,
        timezone: timezone.unwrap_or(jiff::tz::TimeZone::UTC),
        overlap: overlap.unwrap_or_default(),
        catch_up: catch_up.unwrap_or_default(),
        deadline,
        jitter: jitter.unwrap_or_default(),
        inputs,
        span: line.map_or(at, |slot| slot.node.span),
    })
}

fn cron_line(decoder: &mut Decoder<'_>, slot: Slot<'_>) -> Option<Cron> {
    let line = decoder.string(slot)?;
    let found = Cron::parse(&line);
    found
        .map_err(|error| {
            let offsets = scalar::offsets(decoder.source, slot.node.span, &line);
            let at = |byte: usize| offsets.get(byte).copied().unwrap_or(slot.node.span.end);
            let span = Span::new(at(error.span.start), at(error.span.end));
            decoder.report(Diagnostic::error(Code::Cron, span, error.to_string()));
        })
        .ok()
}

fn one_input(decoder: &mut Decoder<'_>, entry: Slot<'_>) -> Option<InputDecl> {
    let name = entry.key.name.clone();
    decoder.check_id("input", &name, entry.key.span);
    if entry.node.kind == Kind::Null {
        let kind = InputType::String;
        return Some(InputDecl {
            name,
            kind,
            description: None,
            is_required: false,
            default: None,
            span: entry.key.span,
        });
    }
    let what = format!("input `{name}`");
    let mut fields = decoder.fields(entry.node, &what, entry.key.span)?;
    let word = fields.take("type").and_then(|slot| {
        decoder.word(
            slot,
            &[("string", "string"), ("number", "number"), ("boolean", "boolean"), ("choice", "choice")],
        )
    });
    let options: Option<Vec<String>> = fields.take("options").map(|slot| {
        let items = decoder.items(slot).iter();
        items.filter_map(|node| decoder.string(Slot { key: slot.key, node })).collect()
    });
    let kind = match word.unwrap_or("string") {
        "number" => InputType::Number,
        "boolean" => InputType::Boolean,
        "choice" => {
            if options.is_none() {
                let message = format!("{what} is a choice and has no `options`");
                decoder.report(Diagnostic::error(Code::MissingKey, entry.key.span, message));
            }
            InputType::Choice(options.unwrap_or_default())
        }
        _ => InputType::String,
    };
    let default = fields.take("default").and_then(|slot| default_value(decoder, slot, &kind));
    let is_required = fields.take("required").and_then(|slot| decoder.boolean(slot)).unwrap_or(false);
    let description = fields.take("description").and_then(|slot| decoder.string(slot));
    fields.finish(decoder);
    Some(InputDecl { name, kind, description, is_required, default, span: entry.key.span })
}

fn default_value(decoder: &mut Decoder<'_>, slot: Slot<'_>, kind: &InputType) -> Option<Value> {
    let wanted = match (kind, &slot.node.kind) {
        (InputType::Number, Kind::Int(number)) => return Some(Value::Number(*number as f64)),
        (InputType::Number, Kind::Float(number)) => return Some(Value::Number(*number)),
        (InputType::Boolean, Kind::Bool(value)) => return Some(Value::Bool(*value)),
        (InputType::String, _) => return decoder.string(slot).map(Value::from),
        (InputType::Choice(options), _) => {
            let text = decoder.string(slot)?;
            if options.contains(&text) {
                return Some(Value::from(text));
            }
            format!("one of {}", options.join(", "))
        }
        (InputType::Number, _) => "a number".to_owned(),
        (InputType::Boolean, _) => "`true` or `false`".to_owned(),
    };
    let raw = decoder.source.slice(slot.node.span);
    let message = format!("the default `{raw:.40}` is not {wanted}");
    decoder.report(Diagnostic::error(Code::InputDefault, slot.underlined(), message));
    None
}

pub(super) fn concurrency(decoder: &mut Decoder<'_>, slot: Slot<'_>) -> Option<Concurrency> {
    if !matches!(slot.node.kind, Kind::Map(_)) {
        let group = decoder.text(slot)?;
        return Some(Concurrency { group, cancel_in_progress: false, queue: Queue::Single });
    }
    let mut fields = decoder.fields(slot.node, "`concurrency`", slot.key.span)?;
    let group = fields.require("group", decoder).and_then(|slot| decoder.text(slot));
    let cancel = fields.take("cancel-in-progress");
    let is_cancelling = cancel.and_then(|slot| decoder.boolean(slot)).unwrap_or(false);
    let queue = fields.take("queue");
    let kind = queue.and_then(|slot| decoder.word(slot, &[("single", Queue::Single), ("max", Queue::Max)]));
    if let (Some(cancel), Some(queue), true, Some(Queue::Max)) = (cancel, queue, is_cancelling, kind) {
        let message = "`queue: max` cannot be combined with `cancel-in-progress: true`";
        decoder.report(
            Diagnostic::error(Code::QueueAndCancel, queue.underlined(), message)
                .label(cancel.underlined(), "cancels what would wait")
                .help("pick one"),
        );
    }
    fields.finish(decoder);
    Some(Concurrency { group: group?, cancel_in_progress: is_cancelling, queue: kind.unwrap_or_default() })
}
