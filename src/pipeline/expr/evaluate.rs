//! Tree and scope -> value.

use std::cell::Cell;
use std::cmp::Ordering;

use super::ast::{Comparison, Term, TermKind};
use super::error::{ExprError, ExprFault};
use super::functions::{self, FormatPiece, Function};
use super::scope::{Absence, Scope, Status};
use super::value::{Object, Value};

/// The most bytes one evaluation may make.
pub const MAX_OUTPUT: usize = 10 << 20;

/// Checks that every context and status function of the tree can be used in the scope.
pub(crate) fn check_names(term: &Term, scope: &dyn Scope) -> Result<(), ExprError> {
    let mut found = Ok(());
    term.walk(&mut |part| {
        let fault = match &part.kind {
            TermKind::Context(name) if scope.context(name).is_none() => {
                let contexts = scope.contexts();
                let known = super::suggest(name, contexts.iter().map(String::as_str));
                ExprFault::UnknownContext { name: name.clone(), known }
            }
            TermKind::Call(function, arguments)
                if function.is_status() && arguments.is_empty() && scope.status().is_none() =>
            {
                ExprFault::NoStatus { function: function.name() }
            }
            _ => return,
        };
        if found.is_ok() {
            found = Err(ExprError::new(fault, part.span));
        }
    });
    found
}

/// Computes the tree's value.
pub(crate) fn evaluate(term: &Term, scope: &dyn Scope) -> Result<Value, ExprError> {
    check_names(term, scope)?;
    Evaluation { scope, made: Cell::new(0) }.value(term)
}

struct Evaluation<'s> {
    scope: &'s dyn Scope,
    made: Cell<usize>,
}

/// A value on its way, with what the value alone does not say.
enum Operand {
    Plain(Value),
    /// The items under a `*`: what is indexed next is each of them.
    Filtered(Vec<Value>),
    /// A property that is not there, and the error it is if nobody deals with it.
    Absent(Box<ExprError>),
}

impl Operand {
    fn settle(self) -> Result<Value, ExprError> {
        match self {
            Self::Plain(value) => Ok(value),
            Self::Filtered(items) => Ok(Value::from(items)),
            Self::Absent(error) => Err(*error),
        }
    }

    fn is_truthy(&self) -> bool {
        match self {
            Self::Plain(value) => value.is_truthy(),
            Self::Filtered(_) => true,
            Self::Absent(_) => false,
        }
    }
}

impl Evaluation<'_> {
    fn value(&self, term: &Term) -> Result<Value, ExprError> {
        self.operand(term)?.settle()
    }

    fn spend(&self, bytes: usize, term: &Term) -> Result<(), ExprError> {
        self.made.set(self.made.get().saturating_add(bytes));
        if self.made.get() > MAX_OUTPUT {
            return Err(ExprError::new(ExprFault::TooLarge, term.span));
        }
        Ok(())
    }

    fn text(&self, text: String, term: &Term) -> Result<Value, ExprError> {
        self.spend(text.len(), term)?;
        Ok(Value::from(text))
    }

    fn operand(&self, term: &Term) -> Result<Operand, ExprError> {
        let plain = match &term.kind {
            TermKind::Literal(value) => value.clone(),
            TermKind::Context(name) => self.scope.context(name).unwrap_or_default(),
            TermKind::Property(of, name) => return self.index(term, of, &Value::from(name.as_str())),
            TermKind::Index(of, index) => {
                let index = self.value(index)?;
                return self.index(term, of, &index);
            }
            TermKind::Star(of) => return self.star(term, of),
            TermKind::Not(of) => Value::Bool(!self.value(of)?.is_truthy()),
            TermKind::And(terms) => return self.chain(terms, Decides::False),
            TermKind::Or(terms) => return self.chain(terms, Decides::True),
            TermKind::Compare(left, comparison, right) => {
                Value::Bool(compare(&self.value(left)?, *comparison, &self.value(right)?))
            }
            TermKind::Call(Function::Case, arguments) => return self.case(arguments),
            TermKind::Call(function, arguments) => self.call(term, *function, arguments)?,
        };
        Ok(Operand::Plain(plain))
    }

    fn chain(&self, terms: &[Term], decides: Decides) -> Result<Operand, ExprError> {
        let mut last = Operand::Plain(Value::Null);
        for term in terms {
            last = self.operand(term)?;
            if last.is_truthy() == (decides == Decides::True) {
                break;
            }
        }
        Ok(last)
    }

    fn case(&self, arguments: &[Term]) -> Result<Operand, ExprError> {
        for pair in arguments.chunks(2) {
            match pair {
                [test, value] if self.test(test)? => return self.operand(value),
                [default] => return self.operand(default),
                _ => {}
            }
        }
        Ok(Operand::Plain(Value::Null))
    }

    /// A test of `case`, which is strict as GitHub's is: nothing but true and false.
    fn test(&self, term: &Term) -> Result<bool, ExprError> {
        match self.value(term)? {
            Value::Bool(is_met) => Ok(is_met),
            other => Err(ExprError::new(ExprFault::NoBoolean { kind: other.kind() }, term.span)),
        }
    }

    fn index(&self, term: &Term, of: &Term, index: &Value) -> Result<Operand, ExprError> {
        match self.operand(of)? {
            Operand::Plain(value) => match lookup(&value, index) {
                Some(found) => Ok(Operand::Plain(found)),
                None => Ok(self.absent(term, of, &value)),
            },
            Operand::Filtered(items) => {
                let found: Vec<_> = items.iter().filter_map(|item| lookup(item, index)).collect();
                self.spend(found.len() * size_of::<Value>(), term)?;
                Ok(Operand::Filtered(found))
            }
            absent @ Operand::Absent(_) => Ok(absent),
        }
    }

    fn absent(&self, term: &Term, of: &Term, value: &Value) -> Operand {
        if self.scope.absence() == Absence::Null {
            return Operand::Plain(Value::Null);
        }
        let names: Vec<_> = value.as_object().map(|object| object.names().collect()).unwrap_or_default();
        let last = match &term.kind {
            TermKind::Property(_, name) => name.as_str(),
            _ => "",
        };
        let known = super::suggest(last, names);
        let span = crate::pipeline::source::Span::new(of.span.start, term.span.end);
        Operand::Absent(Box::new(ExprError::new(ExprFault::Absent { path: path(term), known }, span)))
    }

    fn star(&self, term: &Term, of: &Term) -> Result<Operand, ExprError> {
        let mut items = Vec::new();
        match self.operand(of)? {
            Operand::Plain(value) => extend_with_items(&mut items, &value),
            Operand::Filtered(inner) => inner.iter().for_each(|value| extend_with_items(&mut items, value)),
            absent @ Operand::Absent(_) => return Ok(absent),
        }
        self.spend(items.len() * size_of::<Value>(), term)?;
        Ok(Operand::Filtered(items))
    }

    fn call(&self, term: &Term, function: Function, arguments: &[Term]) -> Result<Value, ExprError> {
        let fails = |fault| ExprError::new(fault, term.span);
        let argument = |index: usize| arguments.get(index).map_or(Ok(Value::Null), |term| self.value(term));
        match function {
            Function::Contains => Ok(Value::Bool(functions::contains(&argument(0)?, &argument(1)?))),
            Function::StartsWith => Ok(Value::Bool(functions::starts_with(&argument(0)?, &argument(1)?))),
            Function::EndsWith => Ok(Value::Bool(functions::ends_with(&argument(0)?, &argument(1)?))),
            Function::Format => self.format(term, arguments),
            Function::Join => self.join(term, arguments),
            Function::ToJson => self.text(argument(0)?.to_json_text(), term),
            Function::FromJson => {
                let text = argument(0)?.to_string();
                self.spend(text.len(), term)?;
                let json: serde_json::Value = serde_json::from_str(&text)
                    .map_err(|error| fails(ExprFault::NotJson { message: error.to_string() }))?;
                Ok(Value::from(json))
            }
            Function::HashFiles => {
                let patterns: Result<Vec<_>, _> =
                    arguments.iter().map(|term| self.value(term).map(|value| value.to_string())).collect();
                let digest = self.scope.hash_files(&patterns?).ok_or_else(|| fails(ExprFault::NoFiles))?;
                Ok(Value::from(digest))
            }
            Function::Length => {
                functions::length(&argument(0)?).map(|length| Value::Number(length as f64)).map_err(fails)
            }
            Function::Required => {
                let given =
                    arguments.first().map_or(Ok(Operand::Plain(Value::Null)), |term| self.operand(term))?;
                match given {
                    Operand::Absent(_) | Operand::Plain(Value::Null) => {}
                    Operand::Plain(Value::String(text)) if text.is_empty() => {}
                    present => return present.settle(),
                }
                Err(fails(ExprFault::Required { message: argument(1)?.to_string() }))
            }
            Function::Success if !arguments.is_empty() => {
                Ok(Value::Bool(self.all_needs(arguments, "success")?))
            }
            Function::Failure if !arguments.is_empty() => {
                Ok(Value::Bool(self.needs_results(arguments)?.iter().any(|result| result == "failure")))
            }
            Function::Success => Ok(Value::Bool(self.scope.status() == Some(Status::Success))),
            Function::Failure => Ok(Value::Bool(self.scope.status() == Some(Status::Failure))),
            Function::Cancelled => Ok(Value::Bool(self.scope.status() == Some(Status::Cancelled))),
            Function::Always => Ok(Value::Bool(true)),
            Function::Case => self.case(arguments)?.settle(),
        }
    }

    fn all_needs(&self, jobs: &[Term], wanted: &str) -> Result<bool, ExprError> {
        Ok(self.needs_results(jobs)?.iter().all(|result| result == wanted))
    }

    /// The results of the needed jobs of these names; a job that is not needed is an error.
    fn needs_results(&self, jobs: &[Term]) -> Result<Vec<String>, ExprError> {
        let needs = self.scope.context("needs").unwrap_or_default();
        let result = |term: &Term| {
            let name = self.value(term)?.to_string();
            let result = needs.get(&name).and_then(|need| need.get("result")).map(Value::to_string);
            result.ok_or_else(|| {
                let known = super::suggest(&name, needs.as_object().into_iter().flat_map(Object::names));
                ExprError::new(ExprFault::Absent { path: format!("needs.{name}.result"), known }, term.span)
            })
        };
        jobs.iter().map(result).collect()
    }

    fn format(&self, term: &Term, arguments: &[Term]) -> Result<Value, ExprError> {
        let fails = |fault| ExprError::new(fault, term.span);
        let Some((format, arguments)) = arguments.split_first() else { return Ok(Value::Null) };
        let format = self.value(format)?.to_string();
        let mut values: Vec<Option<String>> = vec![None; arguments.len()];
        let mut text = String::new();
        for piece in functions::format_pieces(&format).map_err(fails)? {
            let made = text.len();
            match piece {
                FormatPiece::Text(piece) => text.push_str(&piece),
                FormatPiece::Argument(index) => {
                    let (Some(argument), Some(slot)) = (arguments.get(index), values.get_mut(index)) else {
                        return Err(fails(ExprFault::FormatArguments { format }));
                    };
                    if slot.is_none() {
                        *slot = Some(self.value(argument)?.to_string());
                    }
                    text.push_str(slot.as_deref().unwrap_or_default());
                }
            }
            self.spend(text.len() - made, term)?;
        }
        Ok(Value::from(text))
    }

    fn join(&self, term: &Term, arguments: &[Term]) -> Result<Value, ExprError> {
        let argument = |index: usize| arguments.get(index).map(|term| self.value(term)).transpose();
        let items = argument(0)?.unwrap_or_default();
        let separator = argument(1)?.map_or_else(|| ",".to_owned(), |value| value.to_string());
        let Value::Array(items) = items else {
            return Ok(if items.is_primitive() { Value::from(items.to_string()) } else { Value::from("") });
        };
        let mut text = String::new();
        for (index, item) in items.iter().enumerate() {
            let made = text.len();
            if index > 0 {
                text.push_str(&separator);
            }
            text.push_str(&item.to_string());
            self.spend(text.len() - made, term)?;
        }
        Ok(Value::from(text))
    }
}

/// Which truth ends a chain.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Decides {
    True,
    False,
}

fn compare(left: &Value, comparison: Comparison, right: &Value) -> bool {
    let equal = || left.loosely_equals(right);
    let order = || left.loosely_compares(right);
    match comparison {
        Comparison::Equal => equal(),
        Comparison::NotEqual => !equal(),
        Comparison::Less => order() == Some(Ordering::Less),
        Comparison::LessOrEqual => order() == Some(Ordering::Less) || equal(),
        Comparison::Greater => order() == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => order() == Some(Ordering::Greater) || equal(),
    }
}

fn lookup(value: &Value, index: &Value) -> Option<Value> {
    match value {
        Value::Object(object) if index.is_primitive() => object.get(&index.to_string()).cloned(),
        Value::Array(items) => {
            let index = index.to_number().floor();
            if index >= 0.0 && index < items.len() as f64 { items.get(index as usize).cloned() } else { None }
        }
        _ => None,
    }
}

fn extend_with_items(items: &mut Vec<Value>, value: &Value) {
    match value {
        Value::Array(inner) => items.extend(inner.iter().cloned()),
        Value::Object(object) => items.extend(object.iter().map(|(_, value)| value.clone())),
        _ => {}
    }
}

/// The path a term names, as it would be written; `..` stands for what is computed.
pub(crate) fn path(term: &Term) -> String {
    match &term.kind {
        TermKind::Context(name) => name.clone(),
        TermKind::Property(of, name) => format!("{}.{name}", path(of)),
        TermKind::Star(of) => format!("{}.*", path(of)),
        TermKind::Index(of, index) => match &index.kind {
            TermKind::Literal(Value::String(name)) => format!("{}['{name}']", path(of)),
            TermKind::Literal(value) => format!("{}[{value}]", path(of)),
            _ => format!("{}[{}]", path(of), path(index)),
        },
        TermKind::Call(function, _) => format!("{}(..)", function.name()),
        _ => "(..)".to_owned(),
    }
}
