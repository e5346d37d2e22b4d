//! Inputs of a dispatch: text from a command line becomes values of the declared types.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::definition::{InputDecl, InputType};
use super::suggest;

/// Why an input cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// The pipeline declares no such input.
    #[error("the pipeline has no input `{name}`{}", hint(.close, .known))]
    Unknown {
        /// What was given.
        name: String,
        /// Close names.
        close: Vec<String>,
        /// All names.
        known: Vec<String>,
    },
    /// A required one is not given.
    #[error("the pipeline needs the input `{name}`: give it by `-i {name}=VALUE`")]
    Missing {
        /// Which.
        name: String,
    },
    /// The text is not of the declared type.
    #[error("input `{name}` is `{value}`, want {wanted}")]
    Type {
        /// Which.
        name: String,
        /// What was given.
        value: String,
        /// What is wanted.
        wanted: String,
    },
}

fn hint(close: &[String], known: &[String]) -> String {
    match (close.first(), known.is_empty()) {
        (Some(name), _) => format!(": did you mean `{name}`?"),
        (None, true) => ": it has none".to_owned(),
        (None, false) => format!("; it has {}", known.join(", ")),
    }
}

/// Types given inputs by their declarations and fills in the defaults.
///
/// # Errors
/// [`InputError`] names the first input that is unknown, missing or of the wrong type.
pub fn bind_inputs(declared: &[InputDecl], given: &BTreeMap<String, String>) -> Result<Map<String, Json>, InputError> {
    let find = |name: &str| declared.iter().find(|input| input.name.eq_ignore_ascii_case(name));
    if let Some(name) = given.keys().find(|name| find(name).is_none()) {
        let known: Vec<String> = declared.iter().map(|input| input.name.clone()).collect();
        let close = suggest::closest(name, known.iter().map(String::as_str));
        return Err(InputError::Unknown { name: name.clone(), close, known });
    }
    let mut bound = Map::new();
    for input in declared {
        let text = given.iter().find(|(name, _)| input.name.eq_ignore_ascii_case(name)).map(|(_, text)| text);
        let value = match (text, &input.default) {
            (Some(text), _) => typed(input, text)?,
            (None, Some(default)) => Json::from(default.clone()),
            (None, None) if input.is_required => return Err(InputError::Missing { name: input.name.clone() }),
            (None, None) => zero(&input.kind),
        };
        bound.insert(input.name.clone(), value);
    }
    Ok(bound)
}

fn typed(input: &InputDecl, text: &str) -> Result<Json, InputError> {
    let wrong = |wanted: String| InputError::Type { name: input.name.clone(), value: text.to_owned(), wanted };
    match &input.kind {
        InputType::String => Ok(json!(text)),
        InputType::Number => {
            let number: f64 = text.trim().parse().map_err(|_| wrong("a number".to_owned()))?;
            if !number.is_finite() {
                return Err(wrong("a finite number".to_owned()));
            }
            Ok(Json::from(super::expr::Value::Number(number)))
        }
        InputType::Boolean => text.parse::<bool>().map(Json::Bool).map_err(|_| wrong("`true` or `false`".to_owned())),
        InputType::Choice(options) if options.iter().any(|option| option == text) => Ok(json!(text)),
        InputType::Choice(options) => Err(wrong(format!("one of {}", options.join(", ")))),
    }
}

/// What GitHub gives for an input that is neither required nor given.
fn zero(kind: &InputType) -> Json {
    match kind {
        InputType::String | InputType::Choice(_) => json!(""),
        InputType::Number => json!(0),
        InputType::Boolean => json!(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::expr::Value;
    use crate::pipeline::source::Span;

    fn check(given: &[(&str, &str)], expected: Result<Json, &str>) {
        let input = |name: &str, kind: InputType, default: Option<Value>| InputDecl {
            name: name.to_owned(),
            is_required: default.is_none(),
            kind,
            description: None,
            default,
            span: Span::default(),
        };
        let declared = [
            input("netuid", InputType::Number, Some(Value::Number(14.0))),
            input("dry", InputType::Boolean, Some(Value::Bool(true))),
            input("profile", InputType::Choice(vec!["smoke".into(), "full".into()]), None),
        ];
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let found = bind_inputs(&declared, &given).map(Json::Object).map_err(|error| error.to_string());
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn inputs_are_typed() {
        check(&[("profile", "full")], Ok(json!({"netuid": 14, "dry": true, "profile": "full"})));
        check(&[("PROFILE", "smoke"), ("netuid", "1"), ("dry", "false")], Ok(json!({"netuid": 1, "dry": false, "profile": "smoke"})));
        check(&[], Err("the pipeline needs the input `profile`: give it by `-i profile=VALUE`"));
        check(&[("profile", "x")], Err("input `profile` is `x`, want one of smoke, full"));
        check(&[("profile", "full"), ("netuid", "NaN")], Err("input `netuid` is `NaN`, want a finite number"));
        check(&[("netuidd", "1")], Err("the pipeline has no input `netuidd`: did you mean `netuid`?"));
    }
}
