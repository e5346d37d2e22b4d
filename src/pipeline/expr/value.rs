//! The values of expressions, and their coercions.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value as Json;

use super::{fold, number};

/// A value. Cloning is cheap: text and collections are shared.
///
/// `==` compares contents, for tests and tables; the language's own `==` is [`Value::loosely_equals`].
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// Nothing.
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// Any number.
    Number(f64),
    /// Text.
    String(Arc<str>),
    /// A list.
    Array(Arc<Vec<Value>>),
    /// Names and values in the order they were put in.
    Object(Arc<Object>),
}

/// Names and values; names are compared without case, and the first spelling and position are kept.
#[derive(Debug, Clone, Default)]
pub struct Object {
    entries: Vec<(Arc<str>, Value)>,
    indices: HashMap<String, usize>,
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Object {
    /// An object without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of a name, whatever its case.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.indices.get(&fold::fold(name)).map(|index| &self.entries[*index].1)
    }

    /// Sets a name's value; a name that is there keeps its spelling and position.
    pub fn insert(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        match self.indices.entry(fold::fold(name)) {
            std::collections::hash_map::Entry::Occupied(index) => self.entries[*index.get()].1 = value,
            std::collections::hash_map::Entry::Vacant(index) => {
                index.insert(self.entries.len());
                self.entries.push((Arc::from(name), value));
            }
        }
    }

    /// The object with one more entry.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.insert(name, value);
        self
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(name, value)| (&**name, value))
    }

    /// The names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(name, _)| &**name)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<N: AsRef<str>, V: Into<Value>> FromIterator<(N, V)> for Object {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(entries: I) -> Self {
        let mut object = Self::new();
        for (name, value) in entries {
            object.insert(name.as_ref(), value);
        }
        object
    }
}

impl Value {
    /// What the value is, in a user's words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }

    /// Whether the value counts as true: not null, false, 0, NaN or the empty string.
    pub fn is_truthy(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(value) => *value,
            Self::Number(value) => *value != 0.0 && !value.is_nan(),
            Self::String(text) => !text.is_empty(),
            Self::Array(_) | Self::Object(_) => true,
        }
    }

    /// The value as a number; NaN where it is none.
    pub fn to_number(&self) -> f64 {
        match self {
            Self::Null => 0.0,
            Self::Bool(value) => f64::from(u8::from(*value)),
            Self::Number(value) => *value,
            Self::String(text) => match text.trim() {
                "" => 0.0,
                trimmed => number::parse(trimmed).unwrap_or(f64::NAN),
            },
            Self::Array(_) | Self::Object(_) => f64::NAN,
        }
    }

    /// The text, if the value is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The items, if the value is an array.
    pub fn as_array(&self) -> Option<&[Self]> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }

    /// The object, if the value is one.
    pub fn as_object(&self) -> Option<&Object> {
        if let Self::Object(object) = self { Some(object) } else { None }
    }

    /// An object's value of this name.
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.as_object().and_then(|object| object.get(name))
    }

    pub(crate) fn is_primitive(&self) -> bool {
        !matches!(self, Self::Array(_) | Self::Object(_))
    }

    /// The language's `==`: text without case, numbers across types, collections by identity.
    pub fn loosely_equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(left), Self::Bool(right)) => left == right,
            (Self::String(left), Self::String(right)) => fold::equal(left, right),
            (Self::Array(left), Self::Array(right)) => Arc::ptr_eq(left, right),
            (Self::Object(left), Self::Object(right)) => Arc::ptr_eq(left, right),
            (left, right) if left.is_primitive() && right.is_primitive() => {
                left.to_number().partial_cmp(&right.to_number()) == Some(std::cmp::Ordering::Equal)
            }
            _ => false,
        }
    }

    /// The language's order; `None` where there is none.
    pub fn loosely_compares(&self, other: &Self) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Self::Null, Self::Null) => None,
            (Self::String(left), Self::String(right)) => Some(fold::compare(left, right)),
            (left, right) if left.is_primitive() && right.is_primitive() => {
                left.to_number().partial_cmp(&right.to_number())
            }
            _ => None,
        }
    }

    /// The value as JSON, two spaces a level, numbers as the language prints them.
    pub fn to_json_text(&self) -> String {
        let mut text = String::new();
        self.write_json(&mut text, 0);
        text
    }

    fn write_json(&self, text: &mut String, depth: usize) {
        let line = |text: &mut String, depth: usize| {
            text.push('\n');
            text.extend(std::iter::repeat_n("  ", depth));
        };
        match self {
            Self::Null => text.push_str("null"),
            Self::String(string) => push_json_string(text, string),
            Self::Bool(_) | Self::Number(_) => text.push_str(&self.to_string()),
            Self::Array(items) if items.is_empty() => text.push_str("[]"),
            Self::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    text.push(if index == 0 { '[' } else { ',' });
                    line(text, depth + 1);
                    item.write_json(text, depth + 1);
                }
                line(text, depth);
                text.push(']');
            }
            Self::Object(object) if object.is_empty() => text.push_str("{}"),
            Self::Object(object) => {
                for (index, (name, value)) in object.iter().enumerate() {
                    text.push(if index == 0 { '{' } else { ',' });
                    line(text, depth + 1);
                    push_json_string(text, name);
                    text.push_str(": ");
                    value.write_json(text, depth + 1);
                }
                line(text, depth);
                text.push('}');
            }
        }
    }
}

fn push_json_string(text: &mut String, string: &str) {
    text.push_str(&Json::from(string).to_string());
}

/// The value as text: null is empty, collections print their kind.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(value) => f.write_str(&number::print(*value)),
            Self::String(text) => f.write_str(text),
            Self::Array(_) => f.write_str("Array"),
            Self::Object(_) => f.write_str("Object"),
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Number(value)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(Arc::from(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(Arc::from(text))
    }
}

impl From<Vec<Value>> for Value {
    fn from(items: Vec<Value>) -> Self {
        Self::Array(Arc::new(items))
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        Self::Object(Arc::new(object))
    }
}

impl From<&Json> for Value {
    fn from(json: &Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => Self::Number(number.as_f64().unwrap_or(f64::NAN)),
            Json::String(text) => Self::from(text.as_str()),
            Json::Array(items) => Self::from(items.iter().map(Self::from).collect::<Vec<_>>()),
            Json::Object(entries) => Self::from(entries.iter().collect::<Object>()),
        }
    }
}

impl From<Json> for Value {
    fn from(json: Json) -> Self {
        Self::from(&json)
    }
}

/// Whole numbers up to 2^53 become JSON integers; NaN and the infinities, which JSON has not, become null.
impl From<&Value> for Json {
    fn from(value: &Value) -> Self {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) if number.fract() == 0.0 && number.abs() <= EXACT => {
                Self::from(*number as i64)
            }
            Value::Number(number) => Self::from(*number),
            Value::String(text) => Self::from(&**text),
            Value::Array(items) => items.iter().map(Self::from).collect(),
            Value::Object(object) => Self::Object(
                object.iter().map(|(name, value)| (name.to_owned(), Self::from(value))).collect(),
            ),
        }
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self::from(&value)
    }
}

impl serde::Serialize for Value {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Json::from(self).serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for Value {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Json::deserialize(deserializer).map(Self::from)
    }
}
