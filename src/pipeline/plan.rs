//! A pipeline before it runs: jobs in the order of their needs, legs as far as they are known.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use serde::Serialize;

use super::code::Code;
use super::definition::{Action, Job, Pipeline, Step};
use super::diagnostic::Diagnostic;
use super::expr::{Object, Scope, TermKind, Value};
use super::matrix::{self, Emptiness};
use super::template::{self, Template, TemplateTree};

/// What would run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The pipeline's name.
    pub name: String,
    /// The jobs; each stands after all it needs.
    pub jobs: Vec<PlannedJob>,
}

/// A job that would run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlannedJob {
    /// Its id.
    pub id: String,
    /// The jobs it waits for.
    pub needs: Vec<String>,
    /// Where it runs, as written.
    pub runs_on: Vec<String>,
    /// Its legs.
    pub legs: Legs,
    /// Its steps: a stage's name, or the step's own.
    pub steps: Vec<String>,
}

/// The legs of a job.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Legs {
    /// The job has no matrix.
    Single,
    /// All are known.
    Static(Vec<PlannedLeg>),
    /// They depend on these contexts.
    Dynamic(Vec<String>),
}

/// A leg that would run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlannedLeg {
    /// Its identity.
    pub key: String,
    /// Its values.
    pub matrix: Value,
}

impl Plan {
    /// The plan of a pipeline. The scope holds what is known before the start: `inputs`, `run`, `tick`, `env`.
    ///
    /// # Errors
    /// Static matrices that cannot be expanded, and keys that cannot be computed or are not unique.
    pub fn new(pipeline: &Pipeline, scope: &dyn Scope) -> Result<Self, Vec<Diagnostic>> {
        let mut findings = Vec::new();
        let mut jobs = Vec::new();
        for job in in_order(pipeline) {
            let legs = legs(job, scope).unwrap_or_else(|found| {
                findings.push(found);
                Legs::Single
            });
            jobs.push(PlannedJob {
                id: job.id.clone(),
                needs: job.needs.iter().map(|need| need.job.clone()).collect(),
                runs_on: job.runs_on.labels.iter().map(|label| written(label, pipeline)).collect(),
                legs,
                steps: job.steps.iter().map(|step| step_name(step, pipeline)).collect(),
            });
        }
        if findings.is_empty() { Ok(Self { name: pipeline.name.clone(), jobs }) } else { Err(findings) }
    }

    /// The plan as lines of text.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.name);
        for job in &self.jobs {
            let _ = write!(text, "\n  {}", job.id);
            if !job.needs.is_empty() {
                let _ = write!(text, "  needs {}", job.needs.join(", "));
            }
            let _ = writeln!(text, "  on {}", job.runs_on.join(", "));
            match &job.legs {
                Legs::Single => {}
                Legs::Dynamic(contexts) => {
                    let _ = writeln!(text, "    legs: known when {} is", contexts.join(", "));
                }
                Legs::Static(legs) => {
                    let keys: Vec<_> = legs.iter().map(|leg| leg.key.as_str()).collect();
                    let _ = writeln!(text, "    legs: {} ({})", legs.len(), keys.join(", "));
                }
            }
            for (number, step) in job.steps.iter().enumerate() {
                let _ = writeln!(text, "    {}. {step}", number + 1);
            }
        }
        text
    }

    /// The plan as a Mermaid graph.
    pub fn mermaid(&self) -> String {
        let mut text = "flowchart TD\n".to_owned();
        let node = |id: &str| self.jobs.iter().position(|job| job.id == id).unwrap_or_default();
        for (number, job) in self.jobs.iter().enumerate() {
            let legs = match &job.legs {
                Legs::Single => String::new(),
                Legs::Static(legs) => format!("<br/>{} legs", legs.len()),
                Legs::Dynamic(_) => "<br/>legs known later".to_owned(),
            };
            let _ = writeln!(text, "  j{number}[\"{}{legs}\"]", job.id);
        }
        for (number, job) in self.jobs.iter().enumerate() {
            for need in &job.needs {
                let _ = writeln!(text, "  j{} --> j{number}", node(need));
            }
        }
        text
    }
}

/// The jobs, each after all it needs, else in file order.
pub fn in_order(pipeline: &Pipeline) -> Vec<&Job> {
    let jobs = &pipeline.jobs;
    let places: HashMap<&str, usize> =
        jobs.iter().enumerate().map(|(place, job)| (job.id.as_str(), place)).collect();
    let mut waits: Vec<usize> = jobs.iter().map(|job| job.needs.len()).collect();
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); jobs.len()];
    for (place, job) in jobs.iter().enumerate() {
        for need in job.needs.iter().filter_map(|need| places.get(need.job.as_str())) {
            dependents[*need].push(place);
        }
    }
    let mut ready: BTreeSet<usize> = (0..jobs.len()).filter(|place| waits[*place] == 0).collect();
    let mut ordered = Vec::with_capacity(jobs.len());
    while let Some(place) = ready.pop_first() {
        ordered.push(&jobs[place]);
        for dependent in &dependents[place] {
            waits[*dependent] -= 1;
            if waits[*dependent] == 0 {
                ready.insert(*dependent);
            }
        }
    }
    ordered
}

/// The legs of a job in a scope: evaluated matrix, expanded, each with its key. Used before the start for what
/// is static, and again by the scheduler once the needs of a dynamic matrix are there.
///
/// # Errors
/// A matrix that cannot be evaluated or expanded, and keys that cannot be computed or are not unique.
pub fn expand(job: &Job, scope: &dyn Scope) -> Result<Vec<PlannedLeg>, Diagnostic> {
    let Some(strategy) = &job.strategy else { return Ok(Vec::new()) };
    let place = strategy.matrix.span();
    let emptiness = if strategy.allow_empty { Emptiness::Allowed } else { Emptiness::Refused };
    let value = strategy.matrix.evaluate(scope).map_err(|error| template::diagnostic(&error))?;
    let legs = matrix::expand(&value, emptiness)
        .map_err(|error| Diagnostic::error(Code::Matrix, place, format!("job `{}`: {error}", job.id)))?;
    let mut planned: Vec<PlannedLeg> = Vec::with_capacity(legs.len());
    let mut seen = std::collections::HashSet::new();
    for leg in legs {
        let key =
            leg_key(strategy.key.as_ref(), &leg, scope).map_err(|error| template::diagnostic(&error))?;
        if !seen.insert(key.clone()) {
            let message = format!("two legs of `{}` have the key `{key:.80}`", job.id);
            let at = strategy.key.as_ref().map_or(strategy.span, |key| key.span);
            return Err(Diagnostic::error(Code::MatrixKey, at, message).help("a key must tell legs apart"));
        }
        planned.push(PlannedLeg { key, matrix: Value::from(leg) });
    }
    Ok(planned)
}

fn leg_key(
    key: Option<&Template>,
    leg: &Object,
    scope: &dyn Scope,
) -> Result<String, super::expr::ExprError> {
    let Some(key) = key else { return Ok(matrix::default_key(leg)) };
    key.text(&LegScope { outer: scope, matrix: Value::from(leg.clone()) })
}

/// A scope with a leg's values in it.
struct LegScope<'s> {
    outer: &'s dyn Scope,
    matrix: Value,
}

impl Scope for LegScope<'_> {
    fn context(&self, name: &str) -> Option<Value> {
        if super::expr::same_name(name, "matrix") {
            Some(self.matrix.clone())
        } else {
            self.outer.context(name)
        }
    }

    fn contexts(&self) -> Vec<String> {
        let mut names = self.outer.contexts();
        names.push("matrix".to_owned());
        names
    }

    fn absence(&self) -> super::expr::Absence {
        self.outer.absence()
    }
}

/// The legs of a job as far as the scope knows them.
pub(crate) fn legs(job: &Job, scope: &dyn Scope) -> Result<Legs, Diagnostic> {
    let Some(strategy) = &job.strategy else { return Ok(Legs::Single) };
    let mut unknown = unknown_contexts(&strategy.matrix, scope);
    unknown
        .extend(strategy.key.iter().flat_map(|key| unknown_in(key, scope)).filter(|name| name != "matrix"));
    if unknown.is_empty() {
        return expand(job, scope).map(Legs::Static);
    }
    unknown.sort();
    unknown.dedup();
    Ok(Legs::Dynamic(unknown))
}

fn unknown_contexts(tree: &TemplateTree, scope: &dyn Scope) -> Vec<String> {
    tree.templates().into_iter().flat_map(|template| unknown_in(template, scope)).collect()
}

/// The paths of a template whose context the scope has not, two names deep.
fn unknown_in(template: &Template, scope: &dyn Scope) -> Vec<String> {
    let mut paths = Vec::new();
    for placed in template.expressions() {
        let mut inner = Vec::new();
        placed.expression.term().walk(&mut |term| {
            let (of, name) = match &term.kind {
                TermKind::Property(of, name) => (&**of, Some(name)),
                TermKind::Context(_) => (term, None),
                _ => return,
            };
            let TermKind::Context(context) = &of.kind else { return };
            if scope.context(context).is_none() && !inner.contains(&of.span) {
                inner.push(of.span);
                paths.push(name.map_or_else(|| context.clone(), |name| format!("{context}.{name}")));
            }
        });
    }
    paths
        .into_iter()
        .map(|path| if path.starts_with("matrix") { "matrix".to_owned() } else { path })
        .collect()
}

fn written(template: &Template, pipeline: &Pipeline) -> String {
    match template.as_literal() {
        Some(value) => value.to_string(),
        None => pipeline.source.slice(template.span).to_owned(),
    }
}

fn step_name(step: &Step, pipeline: &Pipeline) -> String {
    let own = step.name.as_ref().map(|name| written(name, pipeline)).or_else(|| step.id.clone());
    match (&step.action, own) {
        (Action::Stage { stage, .. }, Some(name)) if name != stage.as_str() => format!("{stage} ({name})"),
        (Action::Stage { stage, .. }, _) => stage.to_string(),
        (Action::Run { .. }, Some(name)) => format!("run ({name})"),
        (Action::Run { script, .. }, None) => {
            let script = written(script, pipeline);
            format!("run `{:.60}`", script.lines().next().unwrap_or_default())
        }
    }
}
