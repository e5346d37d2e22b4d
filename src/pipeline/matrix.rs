//! From a matrix to its legs, by the rules of GitHub's builder.
//!
//! The product of the vectors, the first key slowest; `exclude` before `include`; both match by the loose
//! `==`. An include entry extends the rows of the product whose own keys it does not contradict, or becomes a
//! row that is never extended itself.

use super::expr::{Object, Value};

/// The most legs one matrix may have.
pub const MAX_LEGS: usize = 10_000;

/// Whether a matrix without legs is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emptiness {
    /// It is an error.
    Refused,
    /// It is fine and gives no legs (`strategy.allow-empty`).
    Allowed,
}

/// Why a matrix has no legs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum MatrixError {
    #[error("the matrix must be a mapping; this is {kind}")]
    NotAMapping { kind: &'static str },
    #[error("matrix.{key} must be a list; this is {kind}")]
    NotAList { key: String, kind: &'static str },
    #[error("Matrix must define at least one vector")]
    NoVector,
    #[error("Matrix vector '{key}' does not contain any values")]
    EmptyVector { key: String },
    #[error("Matrix {list} must be a list of mappings; item {item} is {kind}")]
    NotAnEntry { list: &'static str, item: usize, kind: &'static str },
    #[error("Matrix {list} mapping does not contain any values")]
    EmptyEntry { list: &'static str },
    #[error("Matrix exclude key '{key}' does not match any key within the matrix")]
    UnknownExcludeKey { key: String },
    #[error("the matrix has more than {MAX_LEGS} legs")]
    TooManyLegs,
    #[error("no leg is left: the matrix is empty")]
    NoLegs,
}

/// The legs of an evaluated matrix: an object of lists, with `include` and `exclude` if there are any.
///
/// # Errors
/// A matrix of the wrong shape, one with too many legs, and one with none unless that is allowed.
pub fn expand(matrix: &Value, emptiness: Emptiness) -> Result<Vec<Object>, MatrixError> {
    let object = matrix.as_object().ok_or(MatrixError::NotAMapping { kind: matrix.kind() })?;
    let include = entries(object, "include")?;
    let exclude = entries(object, "exclude")?;
    let is_vector = |name: &str| !is_reserved(name);
    let mut vectors = Vec::new();
    for (key, value) in object.iter().filter(|(name, _)| is_vector(name)) {
        let items = value
            .as_array()
            .ok_or_else(|| MatrixError::NotAList { key: key.to_owned(), kind: value.kind() })?;
        if items.is_empty() && emptiness == Emptiness::Refused {
            return Err(MatrixError::EmptyVector { key: key.to_owned() });
        }
        vectors.push((key, items));
    }
    if vectors.is_empty() && include.is_none() {
        return Err(MatrixError::NoVector);
    }
    let include = include.unwrap_or_default();
    for entry in exclude.iter().flatten() {
        if let Some(key) = entry.names().find(|name| object.get(name).is_none() || is_reserved(name)) {
            return Err(MatrixError::UnknownExcludeKey { key: key.to_owned() });
        }
    }
    let mut legs = product(&vectors)?;
    legs.retain(|leg| !exclude.iter().flatten().any(|entry| entry.iter().all(|(k, v)| agrees(leg, k, v))));
    let legs = include_all(legs, &vectors, &include);
    if legs.len() > MAX_LEGS {
        return Err(MatrixError::TooManyLegs);
    }
    if legs.is_empty() && emptiness == Emptiness::Refused {
        return Err(MatrixError::NoLegs);
    }
    Ok(legs)
}

/// The identity of a leg for which `strategy.key` gives none: its values, joined by `-`.
pub fn default_key(leg: &Object) -> String {
    let values: Vec<_> = leg.iter().map(|(_, value)| value.to_string()).collect();
    values.join("-")
}

fn is_reserved(name: &str) -> bool {
    name.eq_ignore_ascii_case("include") || name.eq_ignore_ascii_case("exclude")
}

fn entries<'m>(matrix: &'m Object, list: &'static str) -> Result<Option<Vec<&'m Object>>, MatrixError> {
    let Some(value) = matrix.get(list) else { return Ok(None) };
    let items =
        value.as_array().ok_or_else(|| MatrixError::NotAList { key: list.to_owned(), kind: value.kind() })?;
    let entry = |(item, value): (usize, &'m Value)| match value.as_object() {
        None => Err(MatrixError::NotAnEntry { list, item: item + 1, kind: value.kind() }),
        Some(entry) if entry.is_empty() => Err(MatrixError::EmptyEntry { list }),
        Some(entry) => Ok(entry),
    };
    items.iter().enumerate().map(entry).collect::<Result<_, _>>().map(Some)
}

fn product(vectors: &[(&str, &[Value])]) -> Result<Vec<Object>, MatrixError> {
    if vectors.is_empty() {
        return Ok(Vec::new());
    }
    let count = vectors.iter().try_fold(1usize, |count, (_, items)| count.checked_mul(items.len()));
    if count.is_none_or(|count| count > MAX_LEGS) {
        return Err(MatrixError::TooManyLegs);
    }
    let mut legs = vec![Object::new()];
    for (key, items) in vectors {
        let extend =
            |leg: &Object| items.iter().map(|item| leg.clone().with(key, item.clone())).collect::<Vec<_>>();
        legs = legs.iter().flat_map(extend).collect();
    }
    Ok(legs)
}

fn include_all(mut legs: Vec<Object>, vectors: &[(&str, &[Value])], include: &[&Object]) -> Vec<Object> {
    let own = |name: &str| vectors.iter().any(|(key, _)| super::expr::same_name(key, name));
    let mut added = Vec::new();
    for entry in include {
        let mut is_used = false;
        for leg in &mut legs {
            if entry.iter().filter(|(name, _)| own(name)).all(|(name, value)| agrees(leg, name, value)) {
                is_used = true;
                for (name, value) in entry.iter().filter(|(name, _)| !own(name)) {
                    leg.insert(name, value.clone());
                }
            }
        }
        if !is_used {
            added.push((*entry).clone());
        }
    }
    legs.extend(added);
    legs
}

fn agrees(leg: &Object, name: &str, wanted: &Value) -> bool {
    leg.get(name).is_some_and(|value| matches(value, wanted))
}

/// Whether all leaves of `wanted` are loosely equal to those of `value`.
fn matches(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::Object(value), Value::Object(wanted)) => {
            wanted.iter().all(|(name, wanted)| value.get(name).is_some_and(|value| matches(value, wanted)))
        }
        (Value::Array(value), Value::Array(wanted)) => {
            value.len() == wanted.len()
                && value.iter().zip(wanted.iter()).all(|(value, wanted)| matches(value, wanted))
        }
        _ => value.loosely_equals(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    const VECTORS: &str = include_str!("../../tests/fixtures/vectors/matrix.json");

    fn check(matrix: &Json, expected: &Result<Json, String>) {
        let found = expand(&Value::from(matrix), Emptiness::Refused);
        let legs =
            found.map(|legs| legs.into_iter().map(|leg| Json::from(Value::from(leg))).collect::<Json>());
        match (&legs, expected) {
            (Err(error), Err(expected)) => {
                assert!(error.to_string().starts_with(expected.as_str()), "{error}");
            }
            (Ok(legs), Ok(expected)) => assert_eq!(legs, expected, "{matrix}"),
            _ => panic!("{matrix} gave {legs:?}, not {expected:?}"),
        }
    }

    #[test]
    fn matrix_vectors_all_pass() {
        let rows: Vec<Json> = serde_json::from_str(VECTORS).unwrap();
        for row in rows {
            let expected = match row.get("error") {
                Some(error) => Err(error.as_str().unwrap().to_owned()),
                None => Ok(row["expected"].clone()),
            };
            check(&row["matrix"], &expected);
        }
    }

    #[test]
    fn what_the_vectors_do_not_cover() {
        check(&json!({"include": [{"a": 1}, {"a": 2}]}), &Ok(json!([{"a": 1}, {"a": 2}])));
        check(
            &json!({"a": [{"x": 1, "y": 2}], "exclude": [{"a": {"x": "1"}}]}),
            &Err("no leg is left".to_owned()),
        );
        check(&json!({"a": [1], "include": [{"A": 1, "b": 2}]}), &Ok(json!([{"a": 1, "b": 2}])));
        check(
            &json!({"a": [1], "include": [3]}),
            &Err("Matrix include must be a list of mappings".to_owned()),
        );
        let many: Vec<_> = (0..101).collect();
        check(&json!({"a": many, "b": many}), &Err("the matrix has more than 10000 legs".to_owned()));
        let none = expand(&Value::from(json!({"a": []})), Emptiness::Allowed).unwrap();
        assert_eq!(none, Vec::new());
        let leg = Object::new().with("a", "x").with("n", 2.0);
        assert_eq!(default_key(&leg), "x-2");
    }
}
