//! Expressions against the pipeline around them: contexts, properties, and functions in their places.

use super::contexts::{self, Place};
use super::matrices;
use super::paths::{PathStep, steps_of};
use crate::pipeline::code::Code;
use crate::pipeline::definition::{Action, Env, Flag, Job, Pipeline, Step};
use crate::pipeline::diagnostic::Diagnostic;
use crate::pipeline::expr::{Function, Term, TermKind, Value, same_name};
use crate::pipeline::source::Span;
use crate::pipeline::suggest;
use crate::pipeline::template::{Placed, Template};

pub(super) fn findings(pipeline: &Pipeline) -> Vec<Diagnostic> {
    let mut lint = Lint { pipeline, found: Vec::new() };
    let top = Site { place: Place::RunName, job: None, steps: &[] };
    lint.templates(&top, pipeline.run_name.as_ref());
    let group = pipeline.concurrency.as_ref().map(|concurrency| &concurrency.group);
    lint.templates(&Site { place: Place::Group, ..top }, group);
    lint.env(&Site { place: Place::PipelineEnv, ..top }, &pipeline.env);
    for job in &pipeline.jobs {
        lint.job(job);
    }
    lint.found
}

/// After so many findings nothing more is looked for: the file is not meant for us.
const ENOUGH: usize = 1_000;

/// Where an expression stands, and what stands around it.
#[derive(Clone, Copy)]
struct Site<'p> {
    place: Place,
    job: Option<&'p Job>,
    /// The steps that have run by then; of a step also itself.
    steps: &'p [Step],
}

struct Lint<'p> {
    pipeline: &'p Pipeline,
    found: Vec<Diagnostic>,
}

impl<'p> Lint<'p> {
    fn job(&mut self, job: &'p Job) {
        let at = |place| Site { place, job: Some(job), steps: &[] };
        self.templates(&at(Place::JobName), job.name.as_ref());
        self.templates(&at(Place::JobIf), Some(job.condition.template()));
        self.templates(&at(Place::RunsOn), &job.runs_on.labels);
        self.env(&at(Place::JobEnv), &job.env);
        if let Flag::Template(template) = &job.continue_on_error {
            self.templates(&at(Place::JobFlag), Some(template));
        }
        if let Some(strategy) = &job.strategy {
            self.templates(&at(Place::Matrix), strategy.matrix.templates());
            self.templates(&at(Place::Key), strategy.key.as_ref());
            self.templates(&at(Place::Sequence), strategy.sequence.as_ref());
        }
        for (number, step) in job.steps.iter().enumerate() {
            let site = Site { place: Place::Step, job: Some(job), steps: &job.steps[..number] };
            self.step(&site, step);
        }
        let site = Site { place: Place::Output, job: Some(job), steps: &job.steps };
        self.templates(&site, job.outputs.iter().map(|output| &output.value));
    }

    fn step(&mut self, site: &Site<'p>, step: &'p Step) {
        self.templates(site, step.name.as_ref());
        self.templates(&Site { place: Place::StepIf, ..*site }, Some(step.condition.template()));
        self.env(site, &step.env);
        if let Flag::Template(template) = &step.continue_on_error {
            self.templates(site, Some(template));
        }
        match &step.action {
            Action::Stage { with, .. } => {
                for (_, tree) in with {
                    self.templates(site, tree.templates());
                }
            }
            Action::Run { script, .. } => {
                self.templates(&Site { place: Place::Script, ..*site }, Some(script));
            }
        }
    }

    fn env(&mut self, site: &Site<'p>, env: &'p Env) {
        self.templates(site, env.iter().map(|(_, value)| value));
    }

    fn templates(&mut self, site: &Site<'p>, templates: impl IntoIterator<Item = &'p Template>) {
        for placed in templates.into_iter().flat_map(Template::expressions) {
            if self.found.len() > ENOUGH {
                return;
            }
            self.term(site, placed, placed.expression.term());
        }
    }

    /// A part of an expression: the longest path at its head is looked up, the parts inside are visited.
    fn term(&mut self, site: &Site<'p>, placed: &Placed, term: &Term) {
        self.call(site, placed, term);
        match steps_of(term) {
            Some(steps) => self.look_up(site, placed, &steps),
            None => term.parts().into_iter().for_each(|part| self.term(site, placed, part)),
        }
        // What is computed between brackets is an expression of its own.
        let mut inner = term;
        while let TermKind::Property(of, _) | TermKind::Star(of) | TermKind::Index(of, _) = &inner.kind {
            if let TermKind::Index(_, index) = &inner.kind
                && steps_of(term).is_some()
            {
                self.term(site, placed, index);
            }
            inner = of;
        }
    }

    /// Functions that cannot be called here, and jobs that `success` and `failure` ask about.
    fn call(&mut self, site: &Site<'p>, placed: &Placed, term: &Term) {
        let TermKind::Call(function, arguments) = &term.kind else { return };
        let span = placed.place(term.span);
        if function.is_status() && !site.place.has_status() {
            let message =
                format!("`{}()` can be asked in an `if` only, not in {}", function.name(), site.place.name());
            self.found.push(Diagnostic::error(Code::UnknownFunction, span, message));
        }
        if *function == Function::HashFiles && !site.place.has_files() {
            let message = format!("`hashFiles` can be used in steps only, not in {}", site.place.name());
            self.found.push(Diagnostic::error(Code::UnknownFunction, span, message));
        }
        if matches!(function, Function::Success | Function::Failure) {
            for argument in arguments {
                if let TermKind::Literal(Value::String(name)) = &argument.kind {
                    self.need(site, name, placed.place(argument.span));
                }
            }
        }
    }

    fn look_up(&mut self, site: &Site<'p>, placed: &Placed, steps: &[PathStep<'_>]) {
        let [PathStep { name: Some(context), span, .. }, rest @ ..] = steps else { return };
        let span = placed.place(*span);
        let known = contexts::ALL.iter().find(|name| same_name(name, context));
        let Some(known) = known.copied() else {
            let finding =
                Diagnostic::error(Code::UnknownContext, span, format!("there is no context `{context}`"));
            let foreign = contexts::FOREIGN.iter().find(|(name, _)| same_name(name, context));
            self.found.push(match foreign {
                Some((_, hint)) => finding.help(*hint),
                None => finding.did_you_mean(&suggest::closest(context, contexts::ALL.iter().copied())),
            });
            return;
        };
        if !site.place.contexts().contains(&known) {
            let message = format!("`{known}` cannot be used in {}", site.place.name());
            let usable = site.place.contexts().join("`, `");
            let finding = Diagnostic::error(Code::ContextUnavailable, span, message);
            self.found.push(finding.help(format!("there it can be `{usable}`")));
            return;
        }
        let names: Vec<(&str, Span)> =
            rest.iter().map_while(|step| step.name.map(|name| (name, placed.place(step.span)))).collect();
        match known {
            "needs" => self.needs(site, &names),
            "steps" => self.steps(site, &names),
            "matrix" => self.matrix(site, &names, span),
            "inputs" => {
                let inputs = self.pipeline.inputs.iter().map(|input| input.name.as_str());
                let _ = self.property("inputs", &names, inputs);
            }
            _ => {
                if let Some((_, known)) = contexts::PROPERTIES.iter().find(|(name, _)| *name == known) {
                    let _ = self.property(context, &names, known.iter().copied());
                }
            }
        }
    }

    /// Whether the first of `names`, if there is one, is one of `known`; reports it if not.
    fn property<'k>(
        &mut self,
        of: &str,
        names: &[(&str, Span)],
        known: impl IntoIterator<Item = &'k str>,
    ) -> bool {
        let Some((name, span)) = names.first() else { return true };
        let known: Vec<&str> = known.into_iter().collect();
        if known.iter().any(|known| same_name(known, name)) {
            return true;
        }
        let list = match known.as_slice() {
            [] => String::new(),
            few if few.len() <= 8 => format!(" (it has `{}`)", few.join("`, `")),
            many => format!(" (it has {} others)", many.len()),
        };
        let message = format!("`{of}` has no `{name}`{list}");
        let offers = suggest::closest(name, known);
        self.found.push(Diagnostic::error(Code::UnknownProperty, *span, message).did_you_mean(&offers));
        false
    }

    /// The job of this id, if the site's job needs it.
    fn need(&mut self, site: &Site<'p>, name: &str, span: Span) -> Option<&'p Job> {
        let job = site.job?;
        if let Some(need) = job.needs.iter().find(|need| same_name(&need.job, name)) {
            return self.pipeline.job(&need.job);
        }
        let message = format!("job `{}` does not need `{name}`", job.id);
        let finding = Diagnostic::error(Code::UnknownProperty, span, message).label(job.span, "this job");
        let known = self.pipeline.jobs.iter().find(|other| same_name(&other.id, name) && other.id != job.id);
        self.found.push(match known {
            Some(other) => finding.help(format!("add `{}` to its `needs`", other.id)),
            None => {
                finding.did_you_mean(&suggest::closest(name, job.needs.iter().map(|need| need.job.as_str())))
            }
        });
        None
    }

    fn needs(&mut self, site: &Site<'p>, names: &[(&str, Span)]) {
        let Some((name, span)) = names.first() else { return };
        let Some(need) = self.need(site, name, *span) else { return };
        let of = format!("needs.{}", need.id);
        let rest = &names[1..];
        let is_known = self.property(&of, rest, ["result", "outputs", "legs", "counts", "by-key"]);
        if !is_known || !rest.first().is_some_and(|(name, _)| same_name(name, "outputs")) {
            return;
        }
        let Some((output, span)) = rest.get(1) else { return };
        if need.strategy.is_some() {
            let message = format!("`{}` has many legs: `outputs.{output}` is ambiguous", need.id);
            self.found.push(
                Diagnostic::error(Code::MatrixOutputs, *span, message)
                    .label(need.span, "has a matrix")
                    .help(format!("`needs.{}.legs.*.outputs.{output}`", need.id)),
            );
            return;
        }
        let outputs = need.outputs.iter().map(|output| output.name.as_str());
        let _ = self.property(&format!("{of}.outputs"), &rest[1..], outputs);
    }

    fn steps(&mut self, site: &Site<'p>, names: &[(&str, Span)]) {
        let (Some((name, span)), Some(job)) = (names.first(), site.job) else { return };
        let is_named = |step: &&Step| step.id.as_deref().is_some_and(|id| same_name(id, name));
        let Some(step) = site.steps.iter().find(is_named) else {
            let message = match job.steps.iter().find(is_named) {
                Some(_) => format!("step `{name}` has not run by then"),
                None => format!("job `{}` has no step `{name}`", job.id),
            };
            let ids = site.steps.iter().filter_map(|step| step.id.as_deref());
            let offers = suggest::closest(name, ids);
            self.found.push(Diagnostic::error(Code::UnknownProperty, *span, message).did_you_mean(&offers));
            return;
        };
        let of = format!("steps.{name}");
        let rest = &names[1..];
        let is_known = self.property(&of, rest, ["outputs", "outcome", "conclusion"]);
        if let (true, Action::Stage { stage, .. }, [(outputs, _), output @ ..]) =
            (is_known, &step.action, rest)
            && same_name(outputs, "outputs")
        {
            let outputs = stage.spec().outputs.iter().map(|output| output.name);
            let _ = self.property(&format!("{of}.outputs"), output, outputs);
        }
    }

    fn matrix(&mut self, site: &Site<'p>, names: &[(&str, Span)], span: Span) {
        let Some(job) = site.job else { return };
        let Some(strategy) = &job.strategy else {
            let message = format!("`matrix` cannot be used here: job `{}` has no `strategy`", job.id);
            self.found
                .push(Diagnostic::error(Code::ContextUnavailable, span, message).label(job.span, "this job"));
            return;
        };
        if let Some(keys) = matrices::keys(&strategy.matrix) {
            let _ = self.property("matrix", names, keys);
        }
    }
}
