//! From a job and what came before it to its legs.

use std::collections::BTreeSet;

use rand_chacha::rand_core::Rng as _;
use serde_json::Value as Json;

use crate::model::{Fault, Reason, Seed};
use crate::pipeline::expr::{Contexts, Object, Scope, Value};
use crate::pipeline::matrix::{Emptiness, default_key, expand};
use crate::pipeline::definition::{Job, LegOrder, Strategy};

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
pub(super) fn legs_of(job: &Job, scope: &Contexts, seed: &Seed) -> Result<Vec<Leg>, Reason> {
    let Some(strategy) = &job.strategy else {
        return Ok(vec![Leg { key: String::new(), matrix: Json::Object(serde_json::Map::new()), sequence: None }]);
    };
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Reason::new(Fault::Pipeline, "bad-matrix", format!("{what} of job `{}`: {error}", job.id))
    };
    let value = strategy.matrix.evaluate(scope).map_err(|error| failed("`matrix`", &error))?;
    let emptiness = if strategy.allow_empty { Emptiness::Allowed } else { Emptiness::Refused };
    let rows = expand(&value, emptiness).map_err(|error| failed("`matrix`", &error))?;
    let mut legs = Vec::with_capacity(rows.len());
    let mut keys = BTreeSet::new();
    for row in rows {
        let leg = leg_of(strategy, row, scope).map_err(|error| failed("a leg", &error))?;
        if !keys.insert(leg.key.clone()) {
            return Err(failed("`key`", &format!("two legs have the key `{}`", leg.key)));
        }
        legs.push(leg);
    }
    if strategy.order == LegOrder::Shuffle {
        shuffle(&mut legs, &seed.derive(&["order", &job.id]));
    }
    Ok(legs)
}

fn leg_of(
    strategy: &Strategy,
    row: Object,
    scope: &Contexts,
) -> Result<Leg, crate::pipeline::expr::ExprError> {
    let scope = scope.clone().with("matrix", Value::from(row.clone()));
    let scope: &dyn Scope = &scope;
    let key = strategy.key.as_ref().map(|key| key.text(scope)).transpose()?.unwrap_or_else(|| default_key(&row));
    let sequence = strategy.sequence.as_ref().map(|sequence| sequence.text(scope)).transpose()?;
    Ok(Leg { key, matrix: Json::from(Value::from(row)), sequence })
}

/// Shuffles by Fisher and Yates.
fn shuffle<T>(items: &mut [T], seed: &Seed) {
    let mut generator = seed.generator();
    for end in (1..items.len()).rev() {
        // The bias of the remainder is below 2^-40 for any matrix that is allowed.
        let pick = (generator.next_u64() % (end as u64 + 1)) as usize;
        items.swap(end, pick);
    }
}
