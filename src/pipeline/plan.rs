//! A pipeline before it runs: jobs in the order of their needs, legs as far as they are known.

use std::fmt::Write as _;

use serde::Serialize;

use super::code::Code;
use super::definition::{Action, Job, Pipeline, Step};
use super::diagnostic::Diagnostic;
use super::expr::{Contexts, Object, Scope, TermKind, Value};
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
    let mut waiting: Vec<&Job> = pipeline.jobs.iter().collect();
    let mut ordered: Vec<&Job> = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let is_ready =
            |job: &&Job| job.needs.iter().all(|need| ordered.iter().any(|done| done.id == need.job));
        let Some(next) = waiting.iter().position(is_ready) else { break };
        ordered.push(waiting.remove(next));
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

fn legs(job: &Job, scope: &dyn Scope) -> Result<Legs, Diagnostic> {
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

impl Pipeline {
    /// The values of all inputs: as given (text is read by the input's type), else the default.
    ///
    /// # Errors
    /// The first input that is missing, unknown or of the wrong type.
    pub fn inputs(&self, given: &[(String, String)]) -> Result<Value, InputError> {
        if let Some((name, _)) =
            given.iter().find(|(name, _)| !self.inputs.iter().any(|input| input.name == *name))
        {
            let known = super::suggest::closest(name, self.inputs.iter().map(|input| input.name.as_str()));
            return Err(InputError::Unknown { name: name.clone(), known });
        }
        let mut values = Object::new();
        for input in &self.inputs {
            let text = given.iter().rev().find(|(name, _)| *name == input.name).map(|(_, text)| text);
            let value = match (text, &input.default) {
                (Some(text), _) => input.read(text)?,
                (None, Some(default)) => default.clone(),
                (None, None) if input.is_required => {
                    return Err(InputError::Missing { name: input.name.clone() });
                }
                (None, None) => input.blank(),
            };
            values.insert(&input.name, value);
        }
        Ok(Value::from(values))
    }
}

/// Why the inputs of a round cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum InputError {
    #[error("the input `{name}` is required")]
    Missing { name: String },
    #[error("there is no input `{name}`{}", known.first().map(|offer| format!("; did you mean `{offer}`?")).unwrap_or_default())]
    Unknown { name: String, known: Vec<String> },
    #[error("the input `{name}` is {wanted}; `{text}` is not")]
    Type { name: String, wanted: String, text: String },
}

impl super::definition::InputDecl {
    fn read(&self, text: &str) -> Result<Value, InputError> {
        use super::definition::InputType;
        let fails =
            |wanted: String| InputError::Type { name: self.name.clone(), wanted, text: text.to_owned() };
        match &self.kind {
            InputType::String => Ok(Value::from(text)),
            InputType::Number => {
                let number = text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
                number.map(Value::Number).ok_or_else(|| fails("a number".to_owned()))
            }
            InputType::Boolean => {
                text.parse().map(Value::Bool).map_err(|_| fails("`true` or `false`".to_owned()))
            }
            InputType::Choice(options) if options.iter().any(|option| option == text) => {
                Ok(Value::from(text))
            }
            InputType::Choice(options) => Err(fails(format!("one of {}", options.join(", ")))),
        }
    }

    /// The value of an input that was neither given nor has a default.
    fn blank(&self) -> Value {
        use super::definition::InputType;
        match &self.kind {
            InputType::String | InputType::Choice(_) => Value::from(""),
            InputType::Number => Value::Number(0.0),
            InputType::Boolean => Value::Bool(false),
        }
    }
}

/// A scope of what is known before any round: nothing but these inputs.
pub fn scope_of_inputs(inputs: Value) -> Contexts {
    Contexts::new().with("inputs", inputs)
}
