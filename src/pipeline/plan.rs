//! A pipeline before it runs: jobs in the order of their needs, legs as far as they are known.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use serde::Serialize;

use super::code::Code;
use super::contexts::{ContextName, KnownContexts, Site};
use super::definition::{InputDecl, InputType, Job, Pipeline, Schedule, Step, StepAction};
use super::diagnostic::Diagnostic;
use super::expr::{ExprError, Status, TermKind, Value};
use super::known::input;
use super::matrix::{self, Emptiness};
use super::stage::StageName;
use super::template::{self, Template, TemplateTree};
use crate::judge::{Detect, LaunchPlan, RankPolicy, ScorePolicy};

/// What would run if the pipeline were started.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Name of the pipeline.
    pub name: String,
    /// The schedules by which rounds start.
    pub schedules: Vec<PlannedSchedule>,
    /// The inputs that can be set when it is started.
    pub inputs: Vec<PlannedInput>,
    /// The jobs; each stands after all it needs.
    pub jobs: Vec<PlannedJob>,
}

/// A schedule by which rounds start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlannedSchedule {
    /// The cron line.
    pub cron: String,
    /// Name of the time zone.
    pub timezone: String,
    /// When rounds start, in words.
    pub runs: String,
}

/// Something that can be set when the pipeline is started.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlannedInput {
    /// Name of the input.
    pub name: String,
    /// Type of the input; of a choice also its options.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether the input must be given.
    pub is_required: bool,
    /// Value of the input if it is not given.
    pub default: Option<Value>,
    /// What the input is for.
    pub description: Option<String>,
}

/// A job that would run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlannedJob {
    /// Id of the job.
    pub id: String,
    /// What the job is called, as written, if not by its id.
    pub name: Option<String>,
    /// The jobs that the job waits for.
    pub needs: Vec<String>,
    /// Labels of where the job runs, as written.
    pub runs_on: Vec<String>,
    /// Why the job can run nowhere now, where the only runners with its labels are out of service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_of_service: Option<String>,
    /// The legs of the job.
    pub legs: Legs,
    /// The steps of the job: for each the name of its stage, or its own.
    pub steps: Vec<String>,
    /// What a round needs to see the effect that its `plan-reads` is told, by the number of submissions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub launches: Vec<PlannedLaunches>,
}

/// What a round needs to see an effect among so many submissions.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PlannedLaunches {
    /// Number of submissions.
    pub submissions: u32,
    /// The launches and prompts; none where the effect cannot be seen.
    pub needs: Option<LaunchPlan>,
    /// The same in words.
    pub words: String,
}

impl PlannedLaunches {
    /// For a few numbers of submissions; none where nothing is to be seen, or it is not known yet.
    fn of(step: &Step, known: &KnownContexts) -> Vec<Self> {
        let StepAction::Stage { stage: StageName::PlanReads, .. } = step.action else { return Vec::new() };
        let parameter = |name: &str| Some(serde_json::Value::from(input(step, name, known)?));
        let policies = || {
            let score: ScorePolicy = serde_json::from_value(parameter("score")?).ok()?;
            let rank: RankPolicy = serde_json::from_value(parameter("rank")?).ok()?;
            let detect: Detect = serde_json::from_value(parameter("detect")?).ok()?;
            Some((score, rank, detect))
        };
        let Some((score, rank, detect)) = policies() else { return Vec::new() };
        let planned = |submissions: u32| {
            let plan = detect.plan((&score, &rank), submissions);
            let words = match &plan {
                Ok(plan) => format!(
                    "{submissions} submissions: {} launches each and {} of each finalist, {} prompts a launch, to see {:.1}% in {:.0}% of rounds at a noise of {:.1}%",
                    plan.measure,
                    plan.confirm,
                    plan.prompts,
                    detect.effect * 100.0,
                    detect.power * 100.0,
                    detect.noise * 100.0
                ),
                Err(none) => format!("{submissions} submissions: {none}"),
            };
            Self { submissions, needs: plan.ok(), words }
        };
        [1, 8, 41].map(planned).into()
    }
}

/// The legs of a job, as far as they are known before it runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Legs {
    /// The job has no matrix.
    Single,
    /// All legs are known.
    Static(Vec<PlannedLeg>),
    /// The legs depend on these contexts.
    Dynamic(Vec<String>),
}

/// A leg that would run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlannedLeg {
    /// Key of the leg.
    pub key: String,
    /// The leg's matrix values.
    pub matrix: Value,
}

impl Plan {
    /// The plan of a pipeline, as far as these contexts say: `inputs` before the start, with `env` if it can be
    /// computed from them.
    ///
    /// # Errors
    /// Static matrices that cannot be expanded, and keys that cannot be computed or are not unique.
    pub fn new(pipeline: &Pipeline, known: &KnownContexts) -> Result<Self, Vec<Diagnostic>> {
        let mut findings = Vec::new();
        let mut jobs = Vec::new();
        for job in in_order(pipeline) {
            let legs = legs(job, known).unwrap_or_else(|found| {
                findings.push(found);
                Legs::Single
            });
            jobs.push(PlannedJob {
                id: job.id.clone(),
                name: job.name.as_ref().map(|name| written(name, pipeline)),
                needs: job.needs.iter().map(|need| need.job.clone()).collect(),
                runs_on: job.runs_on.labels.iter().map(|label| written(label, pipeline)).collect(),
                out_of_service: None,
                legs,
                steps: job.steps.iter().map(|step| step_name(step, pipeline)).collect(),
                launches: job.steps.iter().flat_map(|step| PlannedLaunches::of(step, known)).collect(),
            });
        }
        let inputs = pipeline.inputs.iter().map(PlannedInput::of).collect();
        if findings.is_empty() {
            let schedules = pipeline.schedules.iter().map(PlannedSchedule::of).collect();
            Ok(Self { name: pipeline.name.clone(), schedules, inputs, jobs })
        } else {
            Err(findings)
        }
    }

    /// The plan as lines of text.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.name);
        for schedule in &self.schedules {
            let _ = writeln!(text, "  {}", schedule.runs);
        }
        if !self.inputs.is_empty() {
            text.push_str("\n  inputs\n");
        }
        for input in &self.inputs {
            let _ = writeln!(text, "    {}", input.text());
        }
        for job in &self.jobs {
            let _ = write!(text, "\n  {}", job.id);
            if let Some(name) = &job.name {
                let _ = write!(text, " ({name})");
            }
            if !job.needs.is_empty() {
                let _ = write!(text, "  needs {}", job.needs.join(", "));
            }
            let _ = writeln!(text, "  on {}", job.runs_on.join(", "));
            if let Some(why) = &job.out_of_service {
                let _ = writeln!(text, "    {why}");
            }
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
            for launches in &job.launches {
                let _ = writeln!(text, "    {}", launches.words);
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

impl PlannedSchedule {
    fn of(schedule: &Schedule) -> Self {
        Self {
            cron: schedule.cron.as_str().to_owned(),
            timezone: schedule.zone_name().to_owned(),
            runs: schedule.runs(),
        }
    }
}

impl PlannedInput {
    fn of(input: &InputDecl) -> Self {
        let kind = match &input.kind {
            InputType::String => "string".to_owned(),
            InputType::Number => "number".to_owned(),
            InputType::Boolean => "boolean".to_owned(),
            InputType::Choice(options) => options.join(" | "),
        };
        Self {
            name: input.name.clone(),
            kind,
            is_required: input.is_required,
            default: input.default.clone(),
            description: input.description.clone(),
        }
    }

    /// The input in one line: name, type, what stands in for it, what it is for.
    fn text(&self) -> String {
        let mut text = format!("{} ({}", self.name, self.kind);
        match &self.default {
            Some(default) => {
                let _ = write!(text, ", default {default}");
            }
            None if self.is_required => text.push_str(", required"),
            None => {}
        }
        text.push(')');
        if let Some(description) = &self.description {
            let _ = write!(text, ": {description}");
        }
        text
    }
}

/// The jobs, each after all it needs, else in file order.
pub fn in_order(pipeline: &Pipeline) -> Vec<&Job> {
    let jobs = &pipeline.jobs;
    let indices: HashMap<&str, usize> =
        jobs.iter().enumerate().map(|(index, job)| (job.id.as_str(), index)).collect();
    let mut waits: Vec<usize> = jobs.iter().map(|job| job.needs.len()).collect();
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); jobs.len()];
    for (index, job) in jobs.iter().enumerate() {
        for need in job.needs.iter().filter_map(|need| indices.get(need.job.as_str())) {
            dependents[*need].push(index);
        }
    }
    let mut ready: BTreeSet<usize> = (0..jobs.len()).filter(|index| waits[*index] == 0).collect();
    let mut ordered = Vec::with_capacity(jobs.len());
    while let Some(index) = ready.pop_first() {
        ordered.push(&jobs[index]);
        for dependent in &dependents[index] {
            waits[*dependent] -= 1;
            if waits[*dependent] == 0 {
                ready.insert(*dependent);
            }
        }
    }
    ordered
}

/// The legs of a job, as known now: the matrix evaluated and expanded, each leg with its key. Used before the start
/// for what is static, and again by the scheduler once the needs of a dynamic matrix are there.
///
/// # Errors
/// A matrix that cannot be evaluated or expanded, and keys that cannot be computed or are not unique.
pub fn expand(job: &Job, known: &KnownContexts) -> Result<Vec<PlannedLeg>, Diagnostic> {
    let Some(strategy) = &job.strategy else { return Ok(Vec::new()) };
    let span = strategy.matrix.span();
    let emptiness = if strategy.allow_empty { Emptiness::Allowed } else { Emptiness::Refused };
    let scope = known.at(Site::Matrix, Status::Success);
    let value = strategy.matrix.evaluate(&scope).map_err(|error| template::diagnostic(&error))?;
    let legs = matrix::expand(&value, emptiness)
        .map_err(|error| Diagnostic::error(Code::Matrix, span, format!("job `{}`: {error}", job.id)))?;
    let mut planned: Vec<PlannedLeg> = Vec::with_capacity(legs.len());
    let mut seen = std::collections::HashSet::new();
    for leg in legs {
        let matrix = Value::from(leg.clone());
        let key = match &strategy.key {
            Some(key) => {
                leg_text(key, Site::Key, &matrix, known).map_err(|error| template::diagnostic(&error))?
            }
            None => matrix::default_key(&leg),
        };
        if !seen.insert(key.clone()) {
            let message = format!("two legs of `{}` have the key `{key:.80}`", job.id);
            let at = strategy.key.as_ref().map_or(strategy.span, |key| key.span);
            return Err(Diagnostic::error(Code::MatrixKey, at, message).help("a key must tell legs apart"));
        }
        planned.push(PlannedLeg { key, matrix });
    }
    Ok(planned)
}

/// The text of a template that is computed for a leg.
///
/// # Errors
/// An expression that fails.
pub(crate) fn leg_text(
    template: &Template,
    site: Site,
    matrix: &Value,
    known: &KnownContexts,
) -> Result<String, ExprError> {
    let known = known.clone().with(ContextName::Matrix, matrix.clone());
    template.text(&known.at(site, Status::Success))
}

/// The legs of a job as far as they are known.
pub(crate) fn legs(job: &Job, known: &KnownContexts) -> Result<Legs, Diagnostic> {
    let Some(strategy) = &job.strategy else { return Ok(Legs::Single) };
    let mut unknown = unknown_contexts(&strategy.matrix, known);
    unknown
        .extend(strategy.key.iter().flat_map(|key| unknown_in(key, known)).filter(|name| name != "matrix"));
    if unknown.is_empty() {
        return expand(job, known).map(Legs::Static);
    }
    unknown.sort();
    unknown.dedup();
    Ok(Legs::Dynamic(unknown))
}

fn unknown_contexts(tree: &TemplateTree, known: &KnownContexts) -> Vec<String> {
    tree.templates().into_iter().flat_map(|template| unknown_in(template, known)).collect()
}

/// The paths of a template whose context is not known, at most two names deep.
fn unknown_in(template: &Template, known: &KnownContexts) -> Vec<String> {
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
            let is_known = ContextName::named(context).is_some_and(|name| known.get(name).is_some());
            if !is_known && !inner.contains(&of.span) {
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
        (StepAction::Stage { stage, .. }, Some(name)) if name != stage.as_str() => {
            format!("{stage} ({name})")
        }
        (StepAction::Stage { stage, .. }, _) => stage.to_string(),
        (StepAction::Run { .. }, Some(name)) => format!("run ({name})"),
        (StepAction::Run { script, .. }, None) => {
            let script = written(script, pipeline);
            format!("run `{:.60}`", script.lines().next().unwrap_or_default())
        }
    }
}
