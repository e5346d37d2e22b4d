//! The language between `${{` and `}}`: GitHub's, as its C# runner executes it.
//!
//! Text becomes an [`Expression`] once; [`Expression::evaluate`] then gives a [`Value`] in a [`Scope`]. Absent
//! properties are the one deliberate difference: see [`Absence`]. Absent on purpose: arithmetic, literals of
//! collections, comments. What surrounds expressions, in YAML scalars, is [`super::template`]'s.

mod ast;
mod error;
mod evaluate;
mod fold;
mod functions;
mod lexer;
mod number;
mod scope;
mod value;

pub use ast::{Comparison, MAX_DEPTH, MAX_LENGTH, Term, TermKind};
pub use error::{ExprError, ExprErrorKind, ExprFault};
pub use evaluate::MAX_OUTPUT;
pub use functions::Function;
pub use scope::{Absence, Contexts, Scope, Status};
pub use value::{Object, Value};

pub(crate) use super::suggest::closest as suggest;
pub(crate) use evaluate::path;
pub(crate) use fold::equal as same_name;

/// A checked expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    term: Term,
}

impl Expression {
    /// Reads an expression; blank text is null.
    ///
    /// # Errors
    /// What is wrong first, and where in the text. Names of contexts are not checked here.
    pub fn parse(text: &str) -> Result<Self, ExprError> {
        ast::parse(text).map(|term| Self { term })
    }

    /// The expression's value.
    ///
    /// # Errors
    /// A context or status function that the scope has not, even where it would not be evaluated; an absent
    /// property, where the scope refuses those; a function's own failure.
    pub fn evaluate(&self, scope: &dyn Scope) -> Result<Value, ExprError> {
        evaluate::evaluate(&self.term, scope)
    }

    /// The expression's outermost part.
    pub fn term(&self) -> &Term {
        &self.term
    }

    /// Whether the expression calls `success`, `failure`, `always` or `cancelled` anywhere.
    pub fn asks_status(&self) -> bool {
        let mut asks = false;
        self.term.walk(&mut |part| {
            asks |= matches!(&part.kind, TermKind::Call(function, _) if function.is_status());
        });
        asks
    }

    /// The names of the contexts it uses, as written, repeated as often as used.
    pub fn contexts(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.term.walk(&mut |part| {
            if let TermKind::Context(name) = &part.kind {
                names.push(name.as_str());
            }
        });
        names
    }
}
