//! From a source to a [`Pipeline`], with every finding in one pass.
//!
//! The tree is decoded room by room (`trigger`, `job`, `step`), each going on after a mistake; the whole is then
//! looked at by `lint`. This is the one door: nothing else builds a [`Pipeline`].

pub(crate) mod decoder;
mod job;
mod step;
mod trigger;

use decoder::{Decoder, Fields, Slot};

use super::code::Code;
use super::definition::{Defaults, Env, Flag, Pipeline, Schedule, Shell};
use super::diagnostic::{Diagnostic, Diagnostics, Parsed};
use super::source::{Source, Span};
use super::{lint, yaml};

impl Pipeline {
    /// Reads and checks a pipeline.
    ///
    /// # Errors
    /// Everything that is wrong with the file, warnings included, in the order of their spans.
    pub fn parse(source: &Source) -> Result<Parsed<Self>, Diagnostics> {
        let (pipeline, findings) = read(source)?;
        checked(pipeline, findings)
    }

    /// Reads the schedules of a pipeline, to say what they mean: that no round starts by them yet is no error here.
    ///
    /// # Errors
    /// Everything else that is wrong with the file, as [`Pipeline::parse`] says it.
    pub fn parse_schedules(source: &Source) -> Result<Parsed<Vec<Schedule>>, Diagnostics> {
        let (pipeline, mut findings) = read(source)?;
        let is_refusal = |found: &Diagnostic| {
            let key = source.slice(found.span).trim_matches(['"', '\'']);
            found.code == Code::Unsupported && key == "schedule"
        };
        findings.items.retain(|found| !is_refusal(found));
        checked(pipeline.map(|pipeline| pipeline.schedules), findings)
    }
}

/// What can be read of a pipeline, and everything there is to say about it.
fn read(source: &Source) -> Result<(Option<Pipeline>, Diagnostics), Diagnostics> {
    let node = yaml::parse(source).map_err(|found| Diagnostics::new(source, found))?;
    let mut decoder = Decoder::new(source);
    let pipeline = pipeline(&mut decoder, &node);
    let mut findings = decoder.findings;
    if let Some(pipeline) = &pipeline {
        findings.extend(lint::findings(pipeline));
    }
    Ok((pipeline, Diagnostics::new(source, findings)))
}

/// What was read, unless an error was found in it.
fn checked<T>(read: Option<T>, findings: Diagnostics) -> Result<Parsed<T>, Diagnostics> {
    match read {
        Some(value) if !findings.has_errors() => Ok(Parsed { value, warnings: findings }),
        _ => Err(findings),
    }
}

fn pipeline(decoder: &mut Decoder<'_>, node: &yaml::Node) -> Option<Pipeline> {
    let mut fields = decoder.fields(node, "the pipeline", Span::at(node.span.start))?;
    let name = fields.take("name").and_then(|slot| decoder.string(slot));
    let run_name = fields.take("run-name").and_then(|slot| decoder.text(slot));
    let triggers = fields.take("on").map(|slot| trigger::triggers(decoder, slot)).unwrap_or_default();
    let env = fields.take("env").map(|slot| env(decoder, slot)).unwrap_or_default();
    let defaults = fields.take("defaults").map(|slot| defaults(decoder, slot)).unwrap_or_default();
    let concurrency = fields.take("concurrency").and_then(|slot| trigger::concurrency(decoder, slot));
    let jobs =
        fields.require("jobs", decoder).map(|slot| job::jobs(decoder, slot, &defaults)).unwrap_or_default();
    fields.finish(decoder);
    Some(Pipeline {
        source: decoder.source.clone(),
        name: name.unwrap_or_else(|| stem(&decoder.source.path)),
        run_name,
        schedules: triggers.schedules,
        inputs: triggers.inputs,
        on_failure: triggers.on_failure,
        env,
        defaults,
        concurrency,
        jobs,
    })
}

fn stem(path: &str) -> String {
    let file = path.rsplit(['/', '\\']).next().unwrap_or(path);
    file.rsplit_once('.').map_or(file, |(stem, _)| stem).to_owned()
}

fn env(decoder: &mut Decoder<'_>, slot: Slot<'_>) -> Env {
    let entries = decoder.entries(slot);
    entries
        .into_iter()
        .filter_map(|entry| decoder.text(entry).map(|value| (entry.key.name.clone(), value)))
        .collect()
}

fn defaults(decoder: &mut Decoder<'_>, slot: Slot<'_>) -> Defaults {
    let mut defaults = Defaults::default();
    let Some(mut fields) = decoder.fields(slot.node, "`defaults`", slot.key.span) else { return defaults };
    if let Some(run) = fields.take("run")
        && let Some(mut run_fields) = decoder.fields(run.node, "`defaults.run`", run.key.span)
    {
        defaults.shell = run_fields.take("shell").and_then(|slot| shell(decoder, slot)).unwrap_or_default();
        run_fields.finish(decoder);
    }
    defaults.timeout = decoder.timeout(&mut fields);
    fields.finish(decoder);
    defaults
}

fn shell(decoder: &mut Decoder<'_>, slot: Slot<'_>) -> Option<Shell> {
    decoder.word(slot, &[("bash", Shell::Bash)])
}

/// Reads `continue-on-error`.
fn flag(decoder: &mut Decoder<'_>, fields: &mut Fields<'_>) -> Flag {
    let Some(slot) = fields.take("continue-on-error") else { return Flag::Fixed(false) };
    match slot.node.kind {
        yaml::Kind::Str(_) => match decoder.template(slot) {
            Some(template) if template.as_literal().is_none() => Flag::Template(template),
            Some(_) => Flag::Fixed(decoder.boolean(slot).unwrap_or(false)),
            None => Flag::Fixed(false),
        },
        _ => Flag::Fixed(decoder.boolean(slot).unwrap_or(false)),
    }
}

#[cfg(test)]
mod grammar;
#[cfg(test)]
mod tests;
