//! YAML scalars with `${{ }}` in them; trees of them ([`TemplateTree`]) and conditions ([`Condition`]).
//!
//! One expression and nothing else keeps its type; any text beside it, even a blank, makes text. Every
//! expression remembers where its bytes stand in the file, so that a failure at run time is drawn like one
//! found by lint.

mod condition;
#[cfg(test)]
mod tests;
mod tree;

pub use condition::Condition;
pub use tree::TemplateTree;

use super::code::Code;
use super::diagnostic::Diagnostic;
use super::expr::{Absence, ExprError, ExprFault, Expression, MAX_OUTPUT, Scope, Value};
use super::scalar;
use super::source::{Source, Span};
use super::yaml::{Kind, Node};

/// A scalar that may contain expressions.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// Where the scalar stands in the file.
    pub span: Span,
    form: Form,
}

#[derive(Debug, Clone, PartialEq)]
enum Form {
    Literal(Value),
    Whole(Placed),
    Text(Vec<Part>),
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Expression(Placed),
}

/// An expression, and where it stands in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// The expression that was read.
    pub expression: Expression,
    /// For each byte of the expression's text, and its end, the offset of that byte in the file.
    offsets: Vec<usize>,
}

impl Placed {
    /// The span in the file of a span of the expression's text.
    pub fn in_file(&self, span: Span) -> Span {
        in_file(&self.offsets, span)
    }

    fn evaluate(&self, scope: &dyn Scope) -> Result<Value, ExprError> {
        self.expression
            .evaluate(scope)
            .map_err(|error| ExprError { span: self.in_file(error.span), fault: error.fault })
    }
}

fn in_file(offsets: &[usize], span: Span) -> Span {
    let at = |byte: usize| offsets.get(byte).or(offsets.last()).copied().unwrap_or(0);
    let start = at(span.start);
    let end = if span.end > span.start { at(span.end - 1) + 1 } else { start };
    Span::new(start, end.max(at(span.end).min(end)))
}

impl Template {
    /// A scalar without expressions.
    pub fn literal(value: impl Into<Value>, span: Span) -> Self {
        Self { span, form: Form::Literal(value.into()) }
    }

    /// Reads text that stands in no file; spans are bytes of the text.
    ///
    /// # Errors
    /// Every expression that cannot be read, and a `${{` that is not closed.
    pub fn parse(text: &str) -> Result<Self, Vec<ExprError>> {
        Self::read(text, Span::new(0, text.len()), &(0..=text.len()).collect::<Vec<_>>())
    }

    /// Reads a scalar of a file.
    ///
    /// # Errors
    /// As [`Template::parse`], with spans in the file; a collection is taken for an empty literal.
    pub fn of_node(source: &Source, node: &Node) -> Result<Self, Vec<ExprError>> {
        let literal = |value: Value| Ok(Self::literal(value, node.span));
        match &node.kind {
            Kind::Str(text) if text.contains("${{") => {
                Self::read(text, node.span, &scalar::offsets(source, node.span, text))
            }
            Kind::Str(text) => literal(Value::from(text.as_str())),
            Kind::Bool(value) => literal(Value::Bool(*value)),
            Kind::Int(value) => literal(Value::Number(*value as f64)),
            Kind::Float(value) => literal(Value::Number(*value)),
            Kind::Null | Kind::Seq(_) | Kind::Map(_) => literal(Value::Null),
        }
    }

    fn read(text: &str, span: Span, offsets: &[usize]) -> Result<Self, Vec<ExprError>> {
        let mut errors = Vec::new();
        let mut parts = Vec::new();
        let mut at = 0;
        while let Some(open) = text[at..].find("${{").map(|found| at + found) {
            if open > at {
                parts.push(Part::Text(text[at..open].to_owned()));
            }
            let inner = open + 3;
            let Some(length) = closing(&text[inner..]) else {
                errors.push(ExprError {
                    fault: ExprFault::Unclosed,
                    span: in_file(offsets, Span::new(open, inner)),
                });
                return Err(errors);
            };
            at = inner + length + 2;
            match expression(&text[inner..inner + length], &offsets[inner..=inner + length]) {
                Ok(placed) => parts.push(Part::Expression(placed)),
                Err(mut error) => {
                    if error.fault == ExprFault::Empty {
                        error.span = in_file(offsets, Span::new(open, at));
                    }
                    errors.push(error);
                }
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        if at < text.len() {
            parts.push(Part::Text(text[at..].to_owned()));
        }
        let form = match parts.pop() {
            None => Form::Literal(Value::from("")),
            Some(Part::Text(text)) if parts.is_empty() => Form::Literal(Value::from(text)),
            Some(Part::Expression(placed)) if parts.is_empty() => Form::Whole(placed),
            Some(last) => {
                parts.push(last);
                Form::Text(parts)
            }
        };
        Ok(Self { span, form })
    }

    /// The value of the scalar, if it has no expressions.
    pub fn as_literal(&self) -> Option<&Value> {
        if let Form::Literal(value) = &self.form { Some(value) } else { None }
    }

    /// The literal's text, if it is text.
    pub fn as_str(&self) -> Option<&str> {
        self.as_literal().and_then(Value::as_str)
    }

    /// Whether there is text beside an expression.
    pub fn is_mixed(&self) -> bool {
        matches!(self.form, Form::Text(_))
    }

    /// The expressions in their order.
    pub fn expressions(&self) -> Vec<&Placed> {
        match &self.form {
            Form::Literal(_) => Vec::new(),
            Form::Whole(placed) => vec![placed],
            Form::Text(parts) => parts
                .iter()
                .filter_map(|part| if let Part::Expression(placed) = part { Some(placed) } else { None })
                .collect(),
        }
    }

    /// The value: of the one expression, or text.
    ///
    /// # Errors
    /// What an expression fails with, and null in text where the scope refuses what is absent; the span is in
    /// the file.
    pub fn evaluate(&self, scope: &dyn Scope) -> Result<Value, ExprError> {
        let parts = match &self.form {
            Form::Literal(value) => return Ok(value.clone()),
            Form::Whole(placed) => return placed.evaluate(scope),
            Form::Text(parts) => parts,
        };
        let mut text = String::new();
        for part in parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Expression(placed) => text.push_str(&printed(placed, scope)?),
            }
            if text.len() > MAX_OUTPUT {
                return Err(ExprError { fault: ExprFault::TooLarge, span: self.span });
            }
        }
        Ok(Value::from(text))
    }

    /// The value as text.
    ///
    /// # Errors
    /// As [`Template::evaluate`]; null is an error too, where the scope refuses what is absent.
    pub fn text(&self, scope: &dyn Scope) -> Result<String, ExprError> {
        match &self.form {
            Form::Whole(placed) => printed(placed, scope),
            _ => self.evaluate(scope).map(|value| value.to_string()),
        }
    }
}

fn printed(placed: &Placed, scope: &dyn Scope) -> Result<String, ExprError> {
    let value = placed.evaluate(scope)?;
    if value == Value::Null && scope.absence() == Absence::Refused {
        let term = placed.expression.term();
        let fault = ExprFault::NullInText { path: super::expr::path(term) };
        return Err(ExprError { fault, span: placed.in_file(term.span) });
    }
    Ok(value.to_string())
}

fn expression(text: &str, offsets: &[usize]) -> Result<Placed, ExprError> {
    if text.trim().is_empty() {
        return Err(ExprError { fault: ExprFault::Empty, span: in_file(offsets, Span::new(0, text.len())) });
    }
    match Expression::parse(text) {
        Ok(expression) => Ok(Placed { expression, offsets: offsets.to_vec() }),
        Err(error) => Err(ExprError { span: in_file(offsets, error.span), fault: error.fault }),
    }
}

/// Where the `}}` stands that is not inside a string.
fn closing(text: &str) -> Option<usize> {
    let mut is_quoted = false;
    let mut previous = ' ';
    for (at, character) in text.char_indices() {
        match character {
            '\'' => is_quoted = !is_quoted,
            '}' if !is_quoted && previous == '}' => return Some(at - 1),
            _ => {}
        }
        previous = if is_quoted { ' ' } else { character };
    }
    None
}

/// The finding for an expression that failed; its span is in the file.
pub fn diagnostic(error: &ExprError) -> Diagnostic {
    let found = |code: Code| Diagnostic::error(code, error.span, error.to_string());
    match &error.fault {
        ExprFault::UnknownContext { name, known } => {
            let message = format!("there is no context `{name}`");
            Diagnostic::error(Code::UnknownContext, error.span, message).did_you_mean(known)
        }
        ExprFault::UnknownFunction { name, known } => {
            let message = format!("there is no function `{name}`");
            Diagnostic::error(Code::UnknownFunction, error.span, message).did_you_mean(known)
        }
        ExprFault::DoubleQuotes { symbol } => {
            let quoted = symbol.trim_matches('"').replace('\'', "''");
            Diagnostic::error(Code::DoubleQuotes, error.span, "strings in expressions use single quotes")
                .help(format!("write `'{quoted}'`"))
        }
        ExprFault::Absent { known, path } if known.is_empty() => {
            found(error.code()).help(format!("write `{path} || ''` where it may be absent"))
        }
        ExprFault::Absent { known, .. } => found(error.code()).did_you_mean(known),
        ExprFault::NullInText { path } => {
            found(error.code()).help(format!("write `{path} || ''` to mean empty"))
        }
        ExprFault::UnexpectedSymbol { symbol } if is_arithmetic(symbol) => {
            found(error.code()).help("expressions have no arithmetic")
        }
        ExprFault::UnexpectedSymbol { symbol } | ExprFault::UnexpectedToken { symbol } => {
            let message = format!("unexpected `{symbol}` in this expression");
            Diagnostic::error(error.code(), error.span, message)
        }
        _ => found(error.code()),
    }
}

fn is_arithmetic(symbol: &str) -> bool {
    matches!(symbol, "+" | "-" | "*" | "/" | "%")
}
