//! Checks expressions against the pipeline around them: contexts, properties, and where functions may be called.

use super::matrices;
use super::paths::{PathStep, steps_of};
use crate::pipeline::code::Code;
use crate::pipeline::contexts::{self, ContextName, Site};
use crate::pipeline::definition::{Env, Flag, Job, Pipeline, Step, StepAction};
use crate::pipeline::diagnostic::Diagnostic;
use crate::pipeline::expr::{Function, Term, TermKind, Value, same_name};
use crate::pipeline::source::Span;
use crate::pipeline::suggest;
use crate::pipeline::template::{Placed, Template};

pub(super) fn findings(pipeline: &Pipeline) -> Vec<Diagnostic> {
    let mut lint = Lint { pipeline, found: Vec::new() };
    let top = Surroundings { site: Site::RunName, job: None, steps: &[] };
    lint.templates(&top, pipeline.run_name.as_ref());
    let group = pipeline.concurrency.as_ref().map(|concurrency| &concurrency.group);
    lint.templates(&Surroundings { site: Site::Group, ..top }, group);
    lint.env(&Surroundings { site: Site::PipelineEnv, ..top }, &pipeline.env);
    for job in &pipeline.jobs {
        lint.job(job);
    }
    lint.found
}

/// Number of findings after which nothing more is looked for: the file is not meant for us.
const ENOUGH: usize = 1_000;

/// Where an expression stands, and what stands around it.
#[derive(Clone, Copy)]
struct Surroundings<'p> {
    site: Site,
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
        let at = |site| Surroundings { site, job: Some(job), steps: &[] };
        self.templates(&at(Site::JobName), job.name.as_ref());
        self.templates(&at(Site::JobIf), Some(job.condition.template()));
        self.templates(&at(Site::RunsOn), &job.runs_on.labels);
        self.env(&at(Site::JobEnv), &job.env);
        if let Flag::Template(template) = &job.continue_on_error {
            self.templates(&at(Site::JobFlag), Some(template));
        }
        if let Some(strategy) = &job.strategy {
            self.templates(&at(Site::Matrix), strategy.matrix.templates());
            self.templates(&at(Site::Key), strategy.key.as_ref());
            self.templates(&at(Site::Sequence), strategy.sequence.as_ref());
        }
        for (number, step) in job.steps.iter().enumerate() {
            let around = Surroundings { site: Site::Step, job: Some(job), steps: &job.steps[..number] };
            self.step(&around, step);
        }
        let around = Surroundings { site: Site::Output, job: Some(job), steps: &job.steps };
        self.templates(&around, job.outputs.iter().map(|output| &output.value));
    }

    fn step(&mut self, around: &Surroundings<'p>, step: &'p Step) {
        self.templates(around, step.name.as_ref());
        self.templates(&Surroundings { site: Site::StepIf, ..*around }, Some(step.condition.template()));
        self.env(around, &step.env);
        if let Flag::Template(template) = &step.continue_on_error {
            self.templates(around, Some(template));
        }
        match &step.action {
            StepAction::Stage { with, .. } => {
                for (_, tree) in with {
                    self.templates(around, tree.templates());
                }
            }
            StepAction::Run { script, .. } => {
                self.templates(&Surroundings { site: Site::Script, ..*around }, Some(script));
            }
        }
    }

    fn env(&mut self, around: &Surroundings<'p>, env: &'p Env) {
        self.templates(around, env.iter().map(|(_, value)| value));
    }

    fn templates(&mut self, around: &Surroundings<'p>, templates: impl IntoIterator<Item = &'p Template>) {
        for placed in templates.into_iter().flat_map(Template::expressions) {
            if self.found.len() > ENOUGH {
                return;
            }
            self.term(around, placed, placed.expression.term());
        }
    }

    /// Visits a part of an expression: looks up the longest path at its head, and visits the parts inside.
    fn term(&mut self, around: &Surroundings<'p>, placed: &Placed, term: &Term) {
        self.call(around, placed, term);
        match steps_of(term) {
            Some(steps) => self.look_up(around, placed, &steps),
            None => term.parts().into_iter().for_each(|part| self.term(around, placed, part)),
        }
        // What is computed between brackets is an expression of its own.
        let mut inner = term;
        while let TermKind::Property(of, _) | TermKind::Star(of) | TermKind::Index(of, _) = &inner.kind {
            if let TermKind::Index(_, index) = &inner.kind
                && steps_of(term).is_some()
            {
                self.term(around, placed, index);
            }
            inner = of;
        }
    }

    /// Reports functions that cannot be called here, and jobs that `success` and `failure` cannot ask about.
    fn call(&mut self, around: &Surroundings<'p>, placed: &Placed, term: &Term) {
        let TermKind::Call(function, arguments) = &term.kind else { return };
        let span = placed.in_file(term.span);
        if function.is_status() && !around.site.has_status() {
            let message = format!(
                "`{}()` can be asked in an `if` only, not in {}",
                function.name(),
                around.site.name()
            );
            self.found.push(Diagnostic::error(Code::UnknownFunction, span, message));
        }
        if *function == Function::HashFiles {
            let finding = Diagnostic::error(Code::Unsupported, span, "`hashFiles` is not supported yet");
            self.found.push(finding.help("compute the digest in a `run` step and hand it on as an output"));
        }
        if matches!(function, Function::Success | Function::Failure) {
            for argument in arguments {
                if let TermKind::Literal(Value::String(name)) = &argument.kind {
                    self.need(around, name, placed.in_file(argument.span));
                }
            }
        }
    }

    fn look_up(&mut self, around: &Surroundings<'p>, placed: &Placed, steps: &[PathStep<'_>]) {
        let [PathStep { name: Some(context), span, .. }, rest @ ..] = steps else { return };
        let span = placed.in_file(*span);
        let Some(known) = ContextName::named(context) else {
            let is_meant = |(name, _): &&(&str, &str)| same_name(name, context);
            let finding =
                Diagnostic::error(Code::UnknownContext, span, format!("there is no context `{context}`"));
            let foreign = contexts::FOREIGN.iter().find(is_meant);
            let offers = || suggest::closest(context, ContextName::ALL.iter().map(|name| name.as_str()));
            self.found.push(foreign.map_or_else(
                || finding.clone().did_you_mean(&offers()),
                |(_, hint)| finding.clone().help(*hint),
            ));
            return;
        };
        if !around.site.contexts().contains(&known) {
            let message = format!("`{}` cannot be used in {}", known.as_str(), around.site.name());
            let usable: Vec<_> = around.site.contexts().iter().map(|name| name.as_str()).collect();
            let usable = usable.join("`, `");
            let finding = Diagnostic::error(Code::ContextUnavailable, span, message);
            self.found.push(finding.help(format!("there it can be `{usable}`")));
            return;
        }
        let names: Vec<(&str, Span)> =
            rest.iter().map_while(|step| step.name.map(|name| (name, placed.in_file(step.span)))).collect();
        match known {
            ContextName::Needs => self.needs(around, &names),
            ContextName::Steps => self.steps(around, &names),
            ContextName::Matrix => self.matrix(around, &names, span),
            ContextName::Inputs => {
                let inputs = self.pipeline.inputs.iter().map(|input| input.name.as_str());
                let _ = self.property("inputs", &names, inputs);
            }
            // Any name may come from the environment.
            ContextName::Env => {}
            ContextName::Run
            | ContextName::Tick
            | ContextName::Strategy
            | ContextName::Job
            | ContextName::Machine => {
                self.fixed_property(known, &names);
            }
        }
    }

    /// Checks a property of a context that holds the same for every pipeline.
    fn fixed_property(&mut self, context: ContextName, names: &[(&str, Span)]) {
        if let Some((name, span)) = names.first()
            && context.planned_properties().iter().any(|planned| same_name(planned, name))
        {
            let path = format!("{}.{name}", context.as_str());
            self.found.push(unsupported(*span, &path, "nothing fills it in"));
            return;
        }
        let known = context.properties().unwrap_or_default();
        let _ = self.property(context.as_str(), names, known.iter().copied());
    }

    /// Whether the first of `names`, if there is one, is among `known`; reports it if not.
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

    /// The job of this id, if the site's job needs it; reports it if not.
    fn need(&mut self, around: &Surroundings<'p>, name: &str, span: Span) -> Option<&'p Job> {
        let job = around.job?;
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

    fn needs(&mut self, around: &Surroundings<'p>, names: &[(&str, Span)]) {
        let Some((name, span)) = names.first() else { return };
        let Some(need) = self.need(around, name, *span) else { return };
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

    fn steps(&mut self, around: &Surroundings<'p>, names: &[(&str, Span)]) {
        let (Some((name, span)), Some(job)) = (names.first(), around.job) else { return };
        let is_named = |step: &&Step| step.id.as_deref().is_some_and(|id| same_name(id, name));
        let Some(step) = around.steps.iter().find(is_named) else {
            let message = match job.steps.iter().find(is_named) {
                Some(_) => format!("step `{name}` has not run by then"),
                None => format!("job `{}` has no step `{name}`", job.id),
            };
            let ids = around.steps.iter().filter_map(|step| step.id.as_deref());
            let offers = suggest::closest(name, ids);
            self.found.push(Diagnostic::error(Code::UnknownProperty, *span, message).did_you_mean(&offers));
            return;
        };
        let of = format!("steps.{name}");
        let rest = &names[1..];
        let is_known = self.property(&of, rest, ["outputs", "outcome", "conclusion"]);
        if let (true, StepAction::Stage { stage, .. }, [(outputs, _), output @ ..]) =
            (is_known, &step.action, rest)
            && same_name(outputs, "outputs")
        {
            let outputs = stage.spec().outputs.iter().map(|output| output.name);
            let _ = self.property(&format!("{of}.outputs"), output, outputs);
        }
    }

    fn matrix(&mut self, around: &Surroundings<'p>, names: &[(&str, Span)], span: Span) {
        let Some(job) = around.job else { return };
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

/// The finding for what is planned and not there yet.
fn unsupported(span: Span, what: &str, why: &str) -> Diagnostic {
    Diagnostic::error(Code::Unsupported, span, format!("`{what}` is not supported yet: {why}"))
}
