//! The functions of expressions: names, arity, and those that look only at their arguments.

use super::error::ExprFault;
use super::fold;
use super::value::Value;

/// A function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each is GitHub's function of that name, or documented beside its name below"
)]
pub enum Function {
    Contains,
    StartsWith,
    EndsWith,
    Format,
    Join,
    ToJson,
    FromJson,
    Case,
    HashFiles,
    Success,
    Failure,
    Always,
    Cancelled,
    /// Ours: how many characters, items or entries.
    Length,
    /// Ours: the value, or an error with this message if it is absent, null or empty.
    Required,
}

impl Function {
    /// All functions.
    pub const ALL: &[Self] = &[
        Self::Contains,
        Self::StartsWith,
        Self::EndsWith,
        Self::Format,
        Self::Join,
        Self::ToJson,
        Self::FromJson,
        Self::Case,
        Self::HashFiles,
        Self::Success,
        Self::Failure,
        Self::Always,
        Self::Cancelled,
        Self::Length,
        Self::Required,
    ];

    /// The function's name in its usual spelling.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Contains => "contains",
            Self::StartsWith => "startsWith",
            Self::EndsWith => "endsWith",
            Self::Format => "format",
            Self::Join => "join",
            Self::ToJson => "toJSON",
            Self::FromJson => "fromJSON",
            Self::Case => "case",
            Self::HashFiles => "hashFiles",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Always => "always",
            Self::Cancelled => "cancelled",
            Self::Length => "length",
            Self::Required => "required",
        }
    }

    /// The function of this name, whatever its case.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|function| function.name().eq_ignore_ascii_case(name))
    }

    /// Whether the function asks how things went so far.
    pub const fn is_status(self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Always | Self::Cancelled)
    }

    pub(crate) fn check_arity(self, given: usize) -> Result<(), ExprFault> {
        let (least, most) = match self {
            Self::Contains | Self::StartsWith | Self::EndsWith | Self::Required => (2, 2),
            Self::Format | Self::HashFiles => (1, 255),
            Self::Join => (1, 2),
            Self::ToJson | Self::FromJson | Self::Length => (1, 1),
            Self::Case => (3, 255),
            Self::Success | Self::Failure => (0, 255),
            Self::Always | Self::Cancelled => (0, 0),
        };
        let function = self.name();
        if given < least {
            return Err(ExprFault::TooFewArguments { function, least, given });
        }
        if given > most {
            return Err(ExprFault::TooManyArguments { function, most, given });
        }
        if self == Self::Case && given.is_multiple_of(2) {
            return Err(ExprFault::EvenCase);
        }
        Ok(())
    }
}

/// Whether an array has an item loosely equal, or a text has a part.
pub(crate) fn contains(within: &Value, wanted: &Value) -> bool {
    match within {
        Value::Array(items) => items.iter().any(|item| item.loosely_equals(wanted)),
        Value::Object(_) => false,
        text => {
            wanted.is_primitive() && fold::fold(&text.to_string()).contains(&fold::fold(&wanted.to_string()))
        }
    }
}

/// Whether a text begins with another; collections never do.
pub(crate) fn starts_with(text: &Value, wanted: &Value) -> bool {
    let is_text = text.is_primitive() && wanted.is_primitive();
    is_text && fold::fold(&text.to_string()).starts_with(&fold::fold(&wanted.to_string()))
}

/// Whether a text ends with another; collections never do.
pub(crate) fn ends_with(text: &Value, wanted: &Value) -> bool {
    let is_text = text.is_primitive() && wanted.is_primitive();
    is_text && fold::fold(&text.to_string()).ends_with(&fold::fold(&wanted.to_string()))
}

/// How many characters, items or entries.
pub(crate) fn length(value: &Value) -> Result<usize, ExprFault> {
    match value {
        Value::String(text) => Ok(text.chars().count()),
        Value::Array(items) => Ok(items.len()),
        Value::Object(object) => Ok(object.len()),
        Value::Null | Value::Bool(_) | Value::Number(_) => Err(ExprFault::NoLength { kind: value.kind() }),
    }
}

/// A piece of a format string.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FormatPiece {
    /// Text as it stands.
    Text(String),
    /// The argument of this number.
    Argument(usize),
}

/// Splits a format string: `{0}` to `{255}`, `{{` and `}}`.
pub(crate) fn format_pieces(format: &str) -> Result<Vec<FormatPiece>, ExprFault> {
    let invalid = || ExprFault::FormatInvalid { format: format.chars().take(200).collect() };
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = format;
    while let Some(offset) = rest.find(['{', '}']) {
        text.push_str(&rest[..offset]);
        let brace = &rest[offset..=offset];
        rest = &rest[offset + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            text.push_str(brace);
            rest = after;
            continue;
        }
        let close = rest.find('}').filter(|_| brace == "{").ok_or_else(invalid)?;
        let digits = &rest[..close];
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let index: u8 = digits.parse().ok().filter(|_| is_number).ok_or_else(invalid)?;
        if !text.is_empty() {
            pieces.push(FormatPiece::Text(std::mem::take(&mut text)));
        }
        pieces.push(FormatPiece::Argument(usize::from(index)));
        rest = &rest[close + 1..];
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(FormatPiece::Text(text));
    }
    Ok(pieces)
}
