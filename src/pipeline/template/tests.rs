//! The conformance vectors, and what they do not cover: strictness and spans.

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::pipeline::expr::{Contexts, Status};

const VECTORS: &str = include_str!("../../../tests/fixtures/vectors/expressions.json");

fn scope(row: &Json) -> Contexts {
    let status = match row["status"].as_str() {
        Some("failure") => Status::Failure,
        Some("cancelled") => Status::Cancelled,
        _ => Status::Success,
    };
    let contexts = row["context"].as_object().into_iter().flatten();
    contexts
        .fold(Contexts::new(), |scope, (name, value)| scope.with(name, value))
        .with_status(status)
        .with_absence(Absence::Null)
}

fn evaluate(row: &Json) -> Result<Value, ExprError> {
    let text = row["expr"].as_str().unwrap();
    let scope = scope(row);
    let first = |mut errors: Vec<ExprError>| errors.remove(0);
    match row["mode"].as_str() {
        Some("expr") => Expression::parse(text)?.evaluate(&scope),
        Some("template") => Template::parse(text).map_err(first)?.evaluate(&scope),
        Some("if") => Condition::parse(text).map_err(first)?.holds(&scope).map(Value::Bool),
        other => panic!("unknown mode {other:?}"),
    }
}

#[test]
fn expression_vectors_all_pass() {
    let rows: Vec<Json> = serde_json::from_str(VECTORS).unwrap();
    let mut wrong = Vec::new();
    for row in &rows {
        let found = evaluate(row);
        let is_right = match (row.get("error"), &found) {
            (None, Ok(value)) => *value == Value::from(&row["expected"]),
            (Some(error), Err(found)) => {
                found.kind().as_str() == error["kind"]
                    && found.to_string().contains(error["contains"].as_str().unwrap())
                    && error["at"].as_u64().is_none_or(|at| found.span.start as u64 + 1 == at)
            }
            _ => false,
        };
        if !is_right {
            wrong.push(format!("{} `{}` gave {found:?}: {}", row["id"], row["expr"], row["why"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows are wrong:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

fn strict() -> Contexts {
    let needs = serde_json::json!({"a": {"result": "success", "outputs": {"speed": 3, "none": null}}});
    Contexts::new().with("needs", needs).with_status(Status::Success)
}

#[test]
fn absent_is_refused_and_names_the_path() {
    let check = |text: &str, expected: Result<&str, &str>| {
        let found = Template::parse(text).unwrap().text(&strict());
        let found = found.as_deref().map_err(ToString::to_string);
        assert_eq!(found, expected.map_err(str::to_owned), "{text}");
    };
    check("${{ needs.a.outputs.speed }}", Ok("3"));
    check("${{ needs.a.outputs.sped }}", Err("`needs.a.outputs.sped` is absent"));
    check("${{ needs.b.outputs.x }}", Err("`needs.b` is absent"));
    check("${{ needs.b.outputs.x || '' }}", Ok(""));
    check("${{ needs.b.outputs.x && 'x' || 'y' }}", Ok("y"));
    check("${{ needs.b.outputs.x == '' }}", Err("`needs.b` is absent"));
    check("${{ !needs.b }}", Err("`needs.b` is absent"));
    check("${{ needs['b'] }}", Err("`needs['b']` is absent"));
    check("${{ join(needs.*.outputs.nothing) }}", Ok(""));
    check("${{ needs.a.outputs.none }}", Err("`needs.a.outputs.none` is null, which prints as nothing"));
    check("x${{ needs.a.outputs.none }}", Err("`needs.a.outputs.none` is null, which prints as nothing"));
    check("${{ needs.a.outputs.none || '-' }}", Ok("-"));
    check("${{ case(true, needs.a.gone, 1) || 'z' }}", Ok("z"));
    check("${{ required(needs.a.gone, 'a must go') }}", Err("a must go"));
    check("${{ required(needs.a.result, 'a must go') }}", Ok("success"));
    check("${{ length(needs.a.outputs) }}", Ok("2"));
    check("${{ success('a') }}", Ok("true"));
    check("${{ failure('b') }}", Err("`needs.b.result` is absent"));
}

#[test]
fn a_test_of_case_is_a_boolean() {
    let check = |text: &str, expected: Result<&str, &str>| {
        let found = Template::parse(&format!("${{{{ {text} }}}}")).unwrap().text(&strict());
        assert_eq!(found.as_deref().map_err(ToString::to_string), expected.map_err(str::to_owned), "{text}");
    };
    let refused = |kind: &str| format!("the test of `case` must be a boolean; this is {kind}");
    check("case(needs.a.result == 'success', 1, 2)", Ok("1"));
    check("case(false, 1, !needs.a, 2, 3)", Ok("3"));
    check("case(true, 1, 'never looked at', 2, 3)", Ok("1"));
    check("case('true', 1, 2)", Err(&refused("a string")));
    check("case(false, 1, 0, 2, 3)", Err(&refused("a number")));
    check("case(needs.a.outputs.none, 1, 2)", Err(&refused("null")));
    check("case(needs, 1, 2)", Err(&refused("an object")));
}

#[test]
fn output_is_bounded() {
    let text = "x".repeat(1 << 20);
    let scope = Contexts::new().with("inputs", serde_json::json!({ "x": text }));
    let format = "{0}".repeat(11);
    let error =
        Expression::parse(&format!("format('{format}', inputs.x)")).unwrap().evaluate(&scope).unwrap_err();
    assert_eq!(error.fault, ExprFault::TooLarge);
}

#[test]
fn places_are_those_of_the_file() {
    let source = Source::new("t.yml", "run: |\n  one\n  two ${{ needs.b.x }}\n");
    let Kind::Map(entries) = crate::pipeline::yaml::parse(&source).unwrap().kind else { panic!("a mapping") };
    let error = Template::of_node(&source, &entries[0].1).unwrap().text(&strict()).unwrap_err();
    assert_eq!(source.slice(error.span), "needs.b");
}

proptest! {
    #[test]
    fn never_panics(text in "[${} ab.'()|&!=\n\"é]{0,80}") {
        for read in [Template::parse(&text).map(|_| ()), Condition::parse(&text).map(|_| ())] {
            let _ = read;
        }
    }
}
