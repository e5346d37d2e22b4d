//! From a job and what came before it to its legs.

use serde_json::Value as Json;

use crate::model::{Fault, Reason, Seed};
use crate::pipeline::definition::{Job, LegOrder};
use crate::pipeline::diagnostic::Diagnostic;
use crate::pipeline::expr::Contexts;
use crate::pipeline::plan::expand;
use crate::pipeline::source::Source;
use crate::pipeline::template::diagnostic;

/// One leg before it runs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Leg {
    pub(super) key: String,
    pub(super) matrix: Json,
    pub(super) sequence: Option<String>,
}

/// The legs of a job in the order they are to start; one without key for a job without matrix.
///
/// # Errors
/// The pipeline's fault: an expression that fails, a matrix that is none, two legs with one key.
pub(super) fn legs_of(job: &Job, source: &Source, scope: &Contexts, seed: &Seed) -> Result<Vec<Leg>, Reason> {
    let Some(strategy) = &job.strategy else {
        return Ok(vec![Leg {
            key: String::new(),
            matrix: Json::Object(serde_json::Map::new()),
            sequence: None,
        }]);
    };
    let planned = expand(job, scope).map_err(|found| reason(source, &found))?;
    let mut legs = Vec::with_capacity(planned.len());
    for leg in planned {
        let sequence = match &strategy.sequence {
            None => None,
            Some(sequence) => {
                let scope = scope.clone().with("matrix", leg.matrix.clone());
                Some(sequence.text(&scope).map_err(|error| reason(source, &diagnostic(&error)))?)
            }
        };
        legs.push(Leg { key: leg.key, matrix: Json::from(leg.matrix), sequence });
    }
    if strategy.order == LegOrder::Shuffle {
        seed.derive(&["order", &job.id]).shuffle(&mut legs);
    }
    Ok(legs)
}

/// A finding as the reason of a failure at run time: the pipeline's fault, with its place.
pub(crate) fn reason(source: &Source, found: &Diagnostic) -> Reason {
    let place = source.line_column(found.span.start);
    let message = format!("{}:{}:{}: {}", source.path, place.line, place.column, found.message);
    Reason::new(Fault::Pipeline, "bad-expression", message)
}
