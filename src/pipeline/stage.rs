//! The closed list of stages: their names, inputs and outputs, as data.
//!
//! Lint checks pipelines against this table, and [`StageSpec::bind`] checks evaluated inputs against it again at
//! run time, so that a stage never sees a missing or mistyped input. What stages do stands elsewhere.

use std::fmt;
use std::str::FromStr;

use super::expr::{Object, Value};
use super::{duration, suggest};

macro_rules! stages {
    ($($variant:ident = $name:literal $summary:literal [$($input:expr),* $(,)?] [$($output:expr),* $(,)?])+) => {
        /// A built-in stage.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum StageName {
            $(#[doc = $summary] $variant,)+
        }

        impl StageName {
            /// All stages, in the order of a round.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name as written after `uses:`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What the stage takes and gives.
            pub const fn spec(self) -> &'static StageSpec {
                match self {
                    $(Self::$variant => const {
                        &StageSpec { name: Self::$variant, summary: $summary, inputs: &[$($input,)*], outputs: &[$($output,)*] }
                    },)+
                }
            }
        }
    };
}

use ValueKind::{Boolean, Duration, Integer, Json, Number, String as Text};

stages! {
    FetchCommitments = "fetch-commitments" "Reads the commitments and the submissions in them." [
        input("source", Text, "file", "where commitments are read: `file` or `chain`"),
        input("path", Text, "", "the commitments file, JSON or YAML; for `file`"),
        input("endpoint", Text, "", "the node's address, `wss://host:port`; for `chain`"),
        input("netuid", Integer, "", "the subnet's number; for `chain`"),
    ] [
        output("submissions", Json, "the submissions in force, the earliest commitment first"),
        output("ignored", Number, "how many commitments became no submission"),
        output("block", Text, "the block that was read"),
        output("data", Text, "where its rows are"),
    ]
    PlanReads = "plan-reads" "Lays out which image is read when, with baseline reads around each candidate." [
        required("submissions", Json, "the submissions to read"),
        required("baseline", Json, "the baseline: its image and digest"),
        input("rounds", Integer, "1", "how often each submission is read"),
    ] [
        output("reads", Json, "a list of {key, arm, hotkey, image, digest, position, sequence}"),
        output("count", Number, "how many reads there are"),
    ]
    Pull = "pull" "Makes an image present and checks its digest." [
        required("image", Text, "the image's name, without tag"),
        required("digest", Text, "the digest it must have"),
        input("arm", Text, "candidate", "whose image it is: `candidate` or `baseline`"),
    ] [
        output("digest", Text, "the digest of what was fetched"),
        output("reference", Text, "image and digest in one"),
    ]
    Boot = "boot" "Starts the server and waits until it is healthy; the job's end stops it." [
        required("image", Text, "the image's name, without tag"),
        required("digest", Text, "the image's digest"),
        input("arm", Text, "candidate", "whose image it is: `candidate` or `baseline`"),
        input("model-name", Text, "reference", "the name under which the model is served"),
        input("model-dir", Text, "", "the model's directory; the runner's by default"),
        input("deadline", Duration, "120s", "how long the server may take to become healthy"),
        input("health-path", Text, "", "the path that answers 200 when healthy; the image's own by default"),
        input("poll", Duration, "100ms", "the time between two looks"),
        input("max-log-bytes", Integer, "1048576", "how much of the server's log is kept"),
    ] [
        output("endpoint", Text, "the server's base URL"),
        output("boot-id", Text, "the identity of this launch"),
        output("ready-ms", Number, "the time from start to healthy"),
    ]
    WarmUp = "warm-up" "Sends requests that are not measured." [
        required("endpoint", Text, "the server's base URL"),
        input("requests", Integer, "4", "how many requests"),
        input("max-tokens", Integer, "256", "the longest answer"),
        input("top-logprobs", Integer, "2", "how many alternatives are asked for at each position"),
        input("deadline", Duration, "60s", "how long all of it may take"),
    ] [
        output("requests", Number, "how many were answered"),
        output("duration-ms", Number, "how long they took"),
    ]
    Benchmark = "benchmark" "Sends the measured requests and records every time point." [
        required("endpoint", Text, "the server's base URL"),
        required("read", Json, "the read this is, from `plan-reads`"),
        input("prompts", Integer, "128", "how many prompts"),
        input("max-tokens", Integer, "256", "the longest answer"),
        input("top-logprobs", Integer, "2", "how many alternatives are asked for at each position"),
        input("request-deadline", Duration, "120s", "how long one request may take"),
        input("max-client-lag", Duration, "50ms", "the client's own lateness (99th percentile) that voids the read"),
    ] [
        output("requests", Number, "how many requests were sent"),
        output("failed", Number, "how many failed"),
        output("data", Text, "where its rows and raw streams are"),
    ]
    VerifyLogprobs = "verify-logprobs" "Checks by teacher forcing that the answers are the model's own." [
        required("endpoint", Text, "the trusted scorer's base URL"),
        required("reads", Json, "the measured legs: `needs.<job>.legs`"),
        input("policy", Json, "", "thresholds of the checks, by name"),
    ] [
        output("failed", Number, "how many checks failed"),
        output("data", Text, "where its rows are"),
    ]
    Rank = "rank" "Turns measurements and verdicts into decisions, scores and the leaderboard." [
        required("commitments", Text, "where `fetch-commitments` left its rows: its output `data`"),
        required("reads", Json, "the measured legs: `needs.<job>.legs`"),
        required("verdicts", Text, "where `verify-logprobs` left its rows: its output `data`"),
        input("score", Json, "", "formula, margins and gates of the speed comparison, by name"),
        input("rank", Json, "", "how the reward is split"),
    ] [
        output("leaderboard", Json, "the leaderboard"),
        output("winner", Text, "the winner's hotkey, empty if there is none"),
        output("held", Number, "how many submissions could not be decided"),
    ]
    Publish = "publish" "Writes the tables, the leaderboard and the summary." [
    ] [
        output("tables", Json, "the tables with their digests and row counts"),
        output("path", Text, "where the results are"),
    ]
    SetWeights = "set-weights" "Turns the leaderboard into weights; a dry run only, so far." [
        required("leaderboard", Json, "what `rank` gave"),
        required("netuid", Integer, "the subnet's number"),
        input("dry-run", Boolean, "true", "whether the weights are only computed"),
    ] [
        output("weights", Json, "the weights as computed"),
        output("tables", Json, "the table with its digest and row count"),
    ]
}

/// What a stage takes and gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageSpec {
    /// Which stage.
    pub name: StageName,
    /// What it does, in one line.
    pub summary: &'static str,
    /// What stands under `with:`.
    pub inputs: &'static [InputSpec],
    /// What stands under `steps.<id>.outputs`.
    pub outputs: &'static [OutputSpec],
}

/// One input of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputSpec {
    /// Its key.
    pub name: &'static str,
    /// Its type.
    pub kind: ValueKind,
    /// Whether it must be given.
    pub is_required: bool,
    /// Its default as written; empty if it has none of its own.
    pub default: &'static str,
    /// What it is.
    pub doc: &'static str,
}

/// One output of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputSpec {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: ValueKind,
    /// What it is.
    pub doc: &'static str,
}

const fn input(name: &'static str, kind: ValueKind, default: &'static str, doc: &'static str) -> InputSpec {
    InputSpec { name, kind, is_required: false, default, doc }
}

const fn required(name: &'static str, kind: ValueKind, doc: &'static str) -> InputSpec {
    InputSpec { name, kind, is_required: true, default: "", doc }
}

const fn output(name: &'static str, kind: ValueKind, doc: &'static str) -> OutputSpec {
    OutputSpec { name, kind, doc }
}

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
    /// Text such as `90m`.
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

/// Why a stage cannot take its inputs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum BindError {
    #[error("`{stage}` needs the input `{input}`")]
    Missing { stage: StageName, input: &'static str },
    #[error("`{stage}` has no input `{input}`")]
    Unknown { stage: StageName, input: String },
    #[error("`{input}` of `{stage}` is {wanted}; this is {found}")]
    Type { stage: StageName, input: &'static str, wanted: ValueKind, found: &'static str },
}

impl StageSpec {
    /// The input of this name.
    pub fn input(&self, name: &str) -> Option<&'static InputSpec> {
        self.inputs.iter().find(|input| input.name == name)
    }

    /// The output of this name.
    pub fn output(&self, name: &str) -> Option<&'static OutputSpec> {
        self.outputs.iter().find(|output| output.name == name)
    }

    /// Evaluated inputs in their types, with the defaults of those that are not given. Null is not given.
    ///
    /// # Errors
    /// The first input that is missing, unknown or of the wrong type.
    pub fn bind(&self, given: &Object) -> Result<Object, BindError> {
        let stage = self.name;
        if let Some(input) = given.names().find(|name| self.input(name).is_none()) {
            return Err(BindError::Unknown { stage, input: input.to_owned() });
        }
        let mut bound = Object::new();
        for spec in self.inputs {
            let value = given.get(spec.name).filter(|value| **value != Value::Null);
            match value {
                Some(value) => {
                    let accepted = spec.kind.accept(value).ok_or(BindError::Type {
                        stage,
                        input: spec.name,
                        wanted: spec.kind,
                        found: value.kind(),
                    })?;
                    bound.insert(spec.name, accepted);
                }
                None if spec.is_required => return Err(BindError::Missing { stage, input: spec.name }),
                None if spec.default.is_empty() => {}
                None => {
                    let default = spec.kind.accept(&Value::from(spec.default));
                    bound.insert(spec.name, default.unwrap_or_default());
                }
            }
        }
        Ok(bound)
    }
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A stage that does not exist, and the names close to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no stage `{name}`")]
pub struct UnknownStage {
    /// What was written.
    pub name: String,
    /// Close names.
    pub known: Vec<String>,
}

impl FromStr for StageName {
    type Err = UnknownStage;

    fn from_str(name: &str) -> Result<Self, UnknownStage> {
        let found = Self::ALL.iter().copied().find(|stage| stage.as_str() == name);
        found.ok_or_else(|| {
            let bare = name.split('@').next().unwrap_or(name);
            let names = Self::ALL.iter().map(|stage| stage.as_str());
            let known = match Self::ALL.iter().find(|stage| stage.as_str() == bare) {
                Some(stage) => vec![stage.as_str().to_owned()],
                None => suggest::closest(bare, names),
            };
            UnknownStage { name: name.to_owned(), known }
        })
    }
}

impl serde::Serialize for StageName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    #[test]
    fn the_table_is_sound() {
        for stage in StageName::ALL {
            assert_eq!(stage.as_str().parse(), Ok(*stage));
            for input in stage.spec().inputs {
                let is_typed =
                    input.default.is_empty() || input.kind.accept(&Value::from(input.default)).is_some();
                assert!(is_typed, "default of {} of {stage}", input.name);
            }
        }
        assert_eq!("boot@1".parse::<StageName>().unwrap_err().known, ["boot"]);
        assert_eq!("benchmrk".parse::<StageName>().unwrap_err().known, ["benchmark"]);
    }

    #[test]
    fn inputs_are_bound_in_their_types() {
        let check = |stage: StageName, given: Json, expected: Result<Json, &str>| {
            let given = Value::from(given);
            let found = stage.spec().bind(given.as_object().unwrap());
            let found = found.map(|bound| Json::from(Value::from(bound))).map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned));
        };
        check(
            StageName::Pull,
            json!({"image": "a", "digest": "d"}),
            Ok(json!({"image": "a", "digest": "d", "arm": "candidate"})),
        );
        check(
            StageName::SetWeights,
            json!({"leaderboard": [], "netuid": "14", "dry-run": null}),
            Ok(json!({"leaderboard": [], "netuid": 14, "dry-run": true})),
        );
        check(StageName::Pull, json!({}), Err("`pull` needs the input `image`"));
        check(StageName::Pull, json!({"image": [1]}), Err("`image` of `pull` is a string; this is an array"));
        check(StageName::Publish, json!({"to": 1}), Err("`publish` has no input `to`"));
        check(
            StageName::WarmUp,
            json!({"endpoint": "e", "requests": 1.5}),
            Err("`requests` of `warm-up` is an integer; this is a number"),
        );
    }
}
