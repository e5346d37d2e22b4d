//! What can be wrong with an expression, and where.

use crate::pipeline::code::Code;
use crate::pipeline::source::Span;

/// When a fault shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExprErrorKind {
    /// While the text is split into tokens.
    Lexing,
    /// While the tokens are put together, names included.
    Parsing,
    /// While the value is computed.
    Evaluation,
    /// In the text around the `${{ }}`.
    Template,
}

impl ExprErrorKind {
    /// The kind's word in the conformance vectors.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lexing => "lexing",
            Self::Parsing => "parsing",
            Self::Evaluation => "evaluation",
            Self::Template => "template",
        }
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum ExprFault {
    #[error("Unexpected symbol: '{symbol}'")]
    UnexpectedSymbol { symbol: String },
    #[error("Unexpected symbol: '{symbol}'; strings in expressions use single quotes")]
    DoubleQuotes { symbol: String },
    #[error("Unexpected symbol: '{symbol}'; the string is not closed")]
    OpenString { symbol: String },
    #[error("Unexpected symbol: '{symbol}'")]
    UnexpectedToken { symbol: String },
    #[error("Unexpected end of expression")]
    UnexpectedEnd,
    #[error("Unrecognized named-value: '{name}'")]
    UnknownContext { name: String, known: Vec<String> },
    #[error("Unrecognized function: '{name}'")]
    UnknownFunction { name: String, known: Vec<String> },
    #[error("Too few parameters supplied: `{function}` takes at least {least}, {given} given")]
    TooFewArguments { function: &'static str, least: usize, given: usize },
    #[error("Too many parameters supplied: `{function}` takes at most {most}, {given} given")]
    TooManyArguments { function: &'static str, most: usize, given: usize },
    #[error("`case` takes an odd number of parameters: pairs of a test and a value, and a default")]
    EvenCase,
    #[error("Exceeded max expression depth 50")]
    TooDeep,
    #[error("Exceeded max expression length 21000")]
    TooLong,
    #[error("`{function}` cannot be used here: there is no status to ask for")]
    NoStatus { function: &'static str },
    #[error("`hashFiles` cannot be used here: there are no files to look at")]
    NoFiles,
    #[error("The following format string references more arguments than were supplied: {format}")]
    FormatArguments { format: String },
    #[error("The following format string is invalid: {format}")]
    FormatInvalid { format: String },
    #[error("fromJSON was given text that is not JSON: {message}")]
    NotJson { message: String },
    #[error("`{path}` is absent")]
    Absent { path: String, known: Vec<String> },
    #[error("`{path}` is null, which prints as nothing")]
    NullInText { path: String },
    #[error("{message}")]
    Required { message: String },
    #[error("the test of `case` must be a boolean; this is {kind}")]
    NoBoolean { kind: &'static str },
    #[error("`length` takes a string, an array or an object; this is {kind}")]
    NoLength { kind: &'static str },
    #[error("the value is over the limit of 10 MiB")]
    TooLarge,
    #[error("an expression was expected between `${{{{` and `}}}}`")]
    Empty,
    #[error("`}}}}` was expected: this `${{{{` is never closed")]
    Unclosed,
}

/// A fault and its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct ExprError {
    /// What is wrong.
    pub fault: ExprFault,
    /// Where, in bytes of the expression's own text.
    pub span: Span,
}

impl ExprError {
    /// A fault at a place.
    pub(crate) fn new(fault: ExprFault, span: Span) -> Self {
        Self { fault, span }
    }

    /// When the fault shows.
    pub fn kind(&self) -> ExprErrorKind {
        use ExprFault as F;
        match &self.fault {
            F::UnexpectedSymbol { .. } | F::DoubleQuotes { .. } | F::OpenString { .. } => {
                ExprErrorKind::Lexing
            }
            F::UnexpectedToken { .. }
            | F::UnexpectedEnd
            | F::UnknownContext { .. }
            | F::UnknownFunction { .. }
            | F::TooFewArguments { .. }
            | F::TooManyArguments { .. }
            | F::EvenCase
            | F::TooDeep
            | F::TooLong
            | F::NoStatus { .. } => ExprErrorKind::Parsing,
            F::NoFiles
            | F::FormatArguments { .. }
            | F::FormatInvalid { .. }
            | F::NotJson { .. }
            | F::Absent { .. }
            | F::NullInText { .. }
            | F::Required { .. }
            | F::NoBoolean { .. }
            | F::NoLength { .. }
            | F::TooLarge => ExprErrorKind::Evaluation,
            F::Empty | F::Unclosed => ExprErrorKind::Template,
        }
    }

    /// The check that reports the fault.
    pub fn code(&self) -> Code {
        use ExprFault as F;
        match &self.fault {
            F::DoubleQuotes { .. } => Code::DoubleQuotes,
            F::UnknownContext { .. } => Code::UnknownContext,
            F::UnknownFunction { .. }
            | F::TooFewArguments { .. }
            | F::TooManyArguments { .. }
            | F::EvenCase
            | F::NoStatus { .. } => Code::UnknownFunction,
            _ if self.kind() == ExprErrorKind::Evaluation => Code::Evaluation,
            _ => Code::ExpressionSyntax,
        }
    }
}
