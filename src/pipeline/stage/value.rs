//! The types of inputs and outputs: as pipelines write them, and as stages take them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;

use super::{Handle, LeavesData};
use crate::judge::{Detect, RankPolicy, ScorePolicy, VerifyPolicy};
use crate::model::{Digest, ImageReference, ReadSpec, Role, Workload};
use crate::pipeline::duration;
use crate::pipeline::expr::Value;

/// The type of a stage's input or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// Text; a number or boolean is taken as the text it prints as.
    String,
    /// A number, or text that is one.
    Number,
    /// A whole number, or text that is one.
    Integer,
    /// `true` or `false`, also as text.
    Boolean,
    /// Any value.
    Json,
    /// A duration as text, such as `90m`.
    Duration,
}

impl fmt::Display for ValueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::String => "a string",
            Self::Number => "a number",
            Self::Integer => "an integer",
            Self::Boolean => "a boolean",
            Self::Json => "any value",
            Self::Duration => "a duration such as `90m`",
        })
    }
}

impl ValueKind {
    /// The value in this type; `None` if it is of another.
    pub fn accept(self, value: &Value) -> Option<Value> {
        let is_integer = |number: f64| number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
        match (self, value) {
            (Self::Json, value) => Some(value.clone()),
            (Self::String, Value::String(_) | Value::Number(_) | Value::Bool(_)) => {
                Some(Value::from(value.to_string()))
            }
            (Self::Number | Self::Integer, Value::Number(_) | Value::String(_)) => {
                let is_blank = value.as_str().is_some_and(|text| text.trim().is_empty());
                let number = value.to_number();
                let is_right = number.is_finite() && (self == Self::Number || is_integer(number));
                if is_right && !is_blank { Some(Value::Number(number)) } else { None }
            }
            (Self::Boolean, Value::Bool(_)) => Some(value.clone()),
            (Self::Boolean, Value::String(text)) => text.parse().ok().map(Value::Bool),
            (Self::Duration, Value::String(text)) => duration::parse(text).ok().map(|_| value.clone()),
            _ => None,
        }
    }
}

/// What a field of a stage's `Parameters` or `Output` can be.
pub trait StageValue: Serialize + DeserializeOwned {
    /// The type as pipelines write it.
    const KIND: ValueKind;
    /// Whether it may be left out although it has no default.
    const IS_OPTIONAL: bool = false;
}

macro_rules! stage_values {
    ($($kind:ident: $($type:ty),+;)+) => {
        $($(impl StageValue for $type {
            const KIND: ValueKind = ValueKind::$kind;
        })+)+
    };
}

stage_values! {
    String: String, PathBuf, ImageReference, Digest, Role;
    Integer: u16, u32, u64;
    Number: f64;
    Boolean: bool;
    Duration: TimeSpan;
    Json: ReadSpec, Workload, VerifyPolicy, ScorePolicy, RankPolicy, Detect;
}

impl<T: StageValue> StageValue for Option<T> {
    const KIND: ValueKind = T::KIND;
    const IS_OPTIONAL: bool = true;
}

impl<T: Serialize + DeserializeOwned> StageValue for Vec<T> {
    const KIND: ValueKind = ValueKind::Json;
}

impl<S: LeavesData> StageValue for Handle<S> {
    const KIND: ValueKind = ValueKind::String;
}

/// A span of time as pipelines write it: `90s`, `2m`, `1h30m` ([`duration::parse`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeSpan(pub Duration);

impl<'de> Deserialize<'de> for TimeSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let text = String::deserialize(deserializer)?;
        duration::parse(&text).map(Self).map_err(|error| D::Error::custom(format!("`{text}`: {error}")))
    }
}

impl Serialize for TimeSpan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&duration::print(self.0))
    }
}

/// The JSON of a default.
pub(super) fn written<T: StageValue>(value: T) -> Json {
    // The values of this trait have no maps with keys that are no text, which alone JSON cannot hold.
    serde_json::to_value(value).unwrap_or_default()
}

/// Why a value in JSON is none of this type.
pub(super) fn check<T: StageValue>(value: Json) -> Result<(), String> {
    serde_json::from_value::<T>(value).map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_written_as_everywhere_in_a_pipeline() {
        let check = |json: &str, expected: Option<Duration>| {
            assert_eq!(serde_json::from_str::<TimeSpan>(json).ok().map(|span| span.0), expected, "{json}");
        };
        check("\"90s\"", Some(Duration::from_secs(90)));
        check("\"1h30m\"", Some(Duration::from_mins(90)));
        check("\"1d\"", Some(Duration::from_hours(24)));
        check("\"PT90S\"", None);
        check("\"90 seconds\"", None);
        check("\"-1s\"", None);
        check("90", None);
    }
}
