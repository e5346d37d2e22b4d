//! The closed list of stages: each with what it takes under `with:` and what it gives as outputs.
//!
//! One file a stage: its `Parameters` and its `Output`. From these two come the tables that lint checks pipelines
//! against, the defaults, the decoding of evaluated inputs, and the documentation; nothing of them is written
//! twice. What stages do stands in the room `stages`, where the compiler asks for every stage of this list.

mod declare;
mod handle;
mod value;

pub mod benchmark;
pub mod boot;
pub mod fetch_commitments;
pub mod plan_confirm;
pub mod plan_reads;
pub mod plan_repeats;
pub mod publish;
pub mod pull;
pub mod rank;
pub mod set_weights;
pub mod verify_logprobs;
pub mod warm_up;

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use serde_json::{Map, Value as Json};

pub use handle::{Handle, HandleError, LeavesData};
pub use value::{StageValue, TimeSpan, ValueKind};

use super::expr::{Object, Value};
use super::suggest;

macro_rules! stages {
    ($($variant:ident = $name:literal $module:ident $summary:literal)+) => {
        /// A built-in stage.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum StageName {
            $(#[doc = $summary] $variant,)+
        }

        impl StageName {
            /// All stages, in the order of a round.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Name of the stage, as written after `uses:`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What the stage takes and gives.
            pub const fn spec(self) -> &'static StageSpec {
                match self {
                    $(Self::$variant => const {
                        &StageSpec {
                            name: Self::$variant,
                            summary: $summary,
                            inputs: $module::Parameters::INPUTS,
                            outputs: $module::Output::OUTPUTS,
                        }
                    },)+
                }
            }
        }

        /// A stage with its parameters.
        #[derive(Debug, Clone)]
        pub enum StageCall {
            $(#[doc = $summary] $variant($module::Parameters),)+
        }

        impl StageCall {
            fn decode(stage: StageName, with: Map<String, Json>) -> serde_json::Result<Self> {
                let with = Json::Object(with);
                Ok(match stage {
                    $(StageName::$variant => Self::$variant(serde_json::from_value(with)?),)+
                })
            }
        }

        /// A stage's outputs.
        #[derive(Debug, Clone, PartialEq)]
        pub enum StageOutput {
            $(#[doc = $summary] $variant($module::Output),)+
        }

        impl StageOutput {
            /// The outputs as expressions read them.
            ///
            /// # Errors
            /// A value that JSON cannot hold.
            pub fn to_json(&self) -> serde_json::Result<Map<String, Json>> {
                let json = match self {
                    $(Self::$variant(output) => serde_json::to_value(output)?,)+
                };
                Ok(if let Json::Object(outputs) = json { outputs } else { Map::new() })
            }
        }
    };
}

stages! {
    FetchCommitments = "fetch-commitments" fetch_commitments "Reads the commitments and the submissions in them."
    PlanReads = "plan-reads" plan_reads "Lays out which image is read when, with baseline reads around each candidate."
    Pull = "pull" pull "Makes an image present and checks its digest."
    Boot = "boot" boot "Starts the server and waits until it answers; the job's end stops it."
    WarmUp = "warm-up" warm_up "Sends requests that are not measured."
    Benchmark = "benchmark" benchmark "Sends the measured requests and records every time point."
    VerifyLogprobs = "verify-logprobs" verify_logprobs "Checks by teacher forcing that the answers are the model's own."
    PlanRepeats = "plan-repeats" plan_repeats "Lays out reads with fresh prompts for those that the machine lost."
    PlanConfirm = "plan-confirm" plan_confirm "Lays out a second look for those that could still take a paid place."
    Rank = "rank" rank "Turns measurements and verdicts into decisions, scores and the leaderboard."
    Publish = "publish" publish "Writes the tables, the leaderboard and the summary."
    SetWeights = "set-weights" set_weights "Turns the leaderboard into weights; a dry run only, so far."
}

/// What a stage takes and gives.
#[derive(Debug, Clone, Copy)]
pub struct StageSpec {
    /// The stage that is specified.
    pub name: StageName,
    /// What the stage does, in one line.
    pub summary: &'static str,
    /// The inputs that stand under `with:`.
    pub inputs: &'static [InputSpec],
    /// The outputs that stand under `steps.<id>.outputs`.
    pub outputs: &'static [OutputSpec],
}

/// One input of a stage.
#[derive(Debug, Clone, Copy)]
pub struct InputSpec {
    /// Key of the input.
    pub name: &'static str,
    /// Type of the input.
    pub kind: ValueKind,
    /// Whether the input must be given.
    pub is_required: bool,
    /// Default of the input, if it has one of its own.
    pub default: Option<fn() -> Json>,
    /// What the input is, as documentation says it.
    pub doc: &'static str,
    /// Why a value of the right kind is none that the stage takes.
    check: fn(Json) -> Result<(), String>,
}

/// One output of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputSpec {
    /// Name of the output.
    pub name: &'static str,
    /// Type of the output.
    pub kind: ValueKind,
    /// What the output is, as documentation says it.
    pub doc: &'static str,
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
    #[error("`{input}` of `{stage}`: {why}")]
    Value { stage: StageName, input: &'static str, why: String },
    #[error("`with:` of `{stage}`: {why}")]
    Together { stage: StageName, why: String },
}

impl InputSpec {
    /// A value of this input as its stage takes it, in JSON.
    ///
    /// # Errors
    /// Another type, or a value of this type that the stage does not take.
    pub fn accept(&self, stage: StageName, value: &Value) -> Result<Json, BindError> {
        let accepted = self.kind.accept(value).ok_or(BindError::Type {
            stage,
            input: self.name,
            wanted: self.kind,
            found: value.kind(),
        })?;
        let json = Json::from(accepted);
        (self.check)(json.clone()).map_err(|why| BindError::Value { stage, input: self.name, why })?;
        Ok(json)
    }
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

    /// The stage with evaluated inputs as its parameters, defaults filled in. Null is not given.
    ///
    /// # Errors
    /// The first input that is missing, unknown, of the wrong type, or not what the stage takes.
    pub fn bind(&self, given: &Object) -> Result<StageCall, BindError> {
        let stage = self.name;
        if let Some(input) = given.names().find(|name| self.input(name).is_none()) {
            return Err(BindError::Unknown { stage, input: input.to_owned() });
        }
        let mut bound = Map::new();
        for spec in self.inputs {
            let value = given.get(spec.name).filter(|value| **value != Value::Null);
            let json = match (value, spec.default) {
                (Some(value), _) => spec.accept(stage, value)?,
                (None, Some(default)) => default(),
                (None, None) if spec.is_required => {
                    return Err(BindError::Missing { stage, input: spec.name });
                }
                (None, None) => continue,
            };
            bound.insert(spec.name.to_owned(), json);
        }
        StageCall::decode(stage, bound).map_err(|error| BindError::Together { stage, why: error.to_string() })
    }

    /// The stage as documentation, in Markdown.
    pub fn markdown(&self) -> String {
        let mut page = format!("## `{}`\n\n{}\n", self.name, self.summary);
        if !self.inputs.is_empty() {
            page.push_str("\n| input | type | default | what it is |\n|---|---|---|---|\n");
        }
        for input in self.inputs {
            let default = match input.default.map(|default| default()) {
                Some(Json::String(text)) => format!("`{text}`"),
                Some(Json::Object(_)) => "its own".to_owned(),
                Some(json) => format!("`{json}`"),
                None if input.is_required => "required".to_owned(),
                None => "none".to_owned(),
            };
            let _ = writeln!(page, "| `{}` | {} | {default} | {} |", input.name, input.kind, input.doc);
        }
        if !self.outputs.is_empty() {
            page.push_str("\n| output | type | what it is |\n|---|---|---|\n");
        }
        for output in self.outputs {
            let _ = writeln!(page, "| `{}` | {} | {} |", output.name, output.kind, output.doc);
        }
        page
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
    /// The name that was written.
    pub name: String,
    /// Names of stages that are close to it.
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
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_is_sound() {
        for stage in StageName::ALL {
            assert_eq!(stage.as_str().parse(), Ok(*stage));
            for input in stage.spec().inputs {
                let Some(default) = input.default else { continue };
                let default = Value::from(default());
                assert!(input.accept(*stage, &default).is_ok(), "default of {} of {stage}", input.name);
            }
        }
        assert_eq!("boot@1".parse::<StageName>().unwrap_err().known, ["boot"]);
        assert_eq!("benchmrk".parse::<StageName>().unwrap_err().known, ["benchmark"]);
    }

    fn bind(stage: StageName, given: Json) -> Result<StageCall, String> {
        let given = Value::from(given);
        stage.spec().bind(given.as_object().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn inputs_are_bound_in_their_types() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let pull = bind(StageName::Pull, json!({"image": "a", "digest": digest}));
        let StageCall::Pull(pull) = pull.unwrap() else { panic!("another stage") };
        assert_eq!((pull.image.to_string().as_str(), pull.role.as_str()), ("a", "candidate"));
        let weights = json!({"leaderboard": [], "netuid": "14", "dry-run": null});
        let weights = bind(StageName::SetWeights, weights).unwrap();
        let StageCall::SetWeights(weights) = weights else { panic!("another stage") };
        assert_eq!((weights.netuid, weights.dry_run), (14, true));
    }

    #[test]
    fn what_a_stage_cannot_take_is_named() {
        let check = |stage: StageName, given: Json, expected: &str| {
            assert_eq!(bind(stage, given).map(|_| ()).unwrap_err(), expected);
        };
        check(StageName::Pull, json!({}), "`pull` needs the input `image`");
        check(StageName::Pull, json!({"image": [1]}), "`image` of `pull` is a string; this is an array");
        check(StageName::Publish, json!({"to": 1}), "`publish` has no input `to`");
        check(
            StageName::WarmUp,
            json!({"endpoint": "e", "requests": 1.5}),
            "`requests` of `warm-up` is an integer; this is a number",
        );
        check(
            StageName::Rank,
            json!({"commitments": "fetch-commitments:jobs/c/_/attempt-1", "reads": [], "verdicts": "fetch-commitments:jobs/c/_/attempt-1"}),
            "`verdicts` of `rank`: this is the `data` of `fetch-commitments`, want that of `verify-logprobs`",
        );
        check(
            StageName::WarmUp,
            json!({"endpoint": "e", "requests": -1}),
            "`requests` of `warm-up`: invalid value: integer `-1`, expected u32",
        );
    }

    #[test]
    fn outputs_are_named_as_the_table_says() {
        let output = StageOutput::Boot(boot::Output {
            endpoint: "http://127.0.0.1:1".to_owned(),
            boot_id: "b".to_owned(),
            ready_ms: 5,
        });
        let outputs = output.to_json().unwrap();
        assert_eq!(
            Json::Object(outputs.clone()),
            json!({"endpoint": "http://127.0.0.1:1", "boot-id": "b", "ready-ms": 5})
        );
        let spec = StageName::Boot.spec();
        assert!(outputs.keys().all(|name| spec.output(name).is_some()));
        assert_eq!(outputs.len(), spec.outputs.len());
    }
}
