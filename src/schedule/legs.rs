//! From a job and what came before it to its legs.

use crate::model::{Fault, Reason, Seed};
use crate::pipeline::contexts::{ContextName, KnownContexts, Site};
use crate::pipeline::definition::{Flag, Job, LegOrder};
use crate::pipeline::diagnostic::Diagnostic;
use crate::pipeline::expr::{ExprError, Object, Status, Value};
use crate::pipeline::plan::{expand, leg_text};
use crate::pipeline::source::Source;
use crate::pipeline::template::diagnostic;

/// One leg before it runs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Leg {
    pub(super) key: String,
    pub(super) matrix: Value,
    pub(super) sequence: Option<String>,
    /// Whether a failure of the leg lets the job go on.
    pub(super) is_tolerated: bool,
}

/// The legs of a job in the order they are to start; one without key for a job without matrix.
///
/// # Errors
/// The pipeline's fault: an expression that fails, a matrix that is none, two legs with one key.
pub(super) fn legs_of(
    job: &Job,
    source: &Source,
    known: &KnownContexts,
    seed: &Seed,
) -> Result<Vec<Leg>, Reason> {
    let misread = |error| reason(source, &diagnostic(&error));
    let Some(strategy) = &job.strategy else {
        let matrix = Value::from(Object::new());
        let is_tolerated = tolerates_failure(job, known, &matrix).map_err(misread)?;
        return Ok(vec![Leg { key: String::new(), matrix, sequence: None, is_tolerated }]);
    };
    let planned = expand(job, known).map_err(|found| reason(source, &found))?;
    let mut legs = Vec::with_capacity(planned.len());
    for leg in planned {
        let sequence = strategy.sequence.as_ref();
        let sequence = sequence.map(|sequence| leg_text(sequence, Site::Sequence, &leg.matrix, known));
        let sequence = sequence.transpose().map_err(misread)?;
        let is_tolerated = tolerates_failure(job, known, &leg.matrix).map_err(misread)?;
        legs.push(Leg { key: leg.key, matrix: leg.matrix, sequence, is_tolerated });
    }
    if strategy.order == LegOrder::Shuffle {
        seed.derive(&["order", &job.id]).shuffle(&mut legs);
    }
    Ok(legs)
}

/// Whether a failure of this leg lets the job, and the round, go on.
fn tolerates_failure(job: &Job, known: &KnownContexts, matrix: &Value) -> Result<bool, ExprError> {
    match &job.continue_on_error {
        Flag::Fixed(value) => Ok(*value),
        Flag::Template(template) => {
            let known = known.clone().with(ContextName::Matrix, matrix.clone());
            Ok(template.evaluate(&known.at(Site::JobFlag, Status::Success))?.is_truthy())
        }
    }
}

/// A finding as the reason of a failure at run time: the pipeline's fault, with line and column.
pub(crate) fn reason(source: &Source, found: &Diagnostic) -> Reason {
    let at = source.line_column(found.span.start);
    let message = format!("{}:{}:{}: {}", source.path, at.line, at.column, found.message);
    Reason::new(Fault::Pipeline, "bad-expression", message)
}
