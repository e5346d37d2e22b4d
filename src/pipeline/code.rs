//! The closed list of checks, each with a stable code.
//!
//! A code is never given a second meaning; what each means is [`Code::summary`].

use std::fmt;

macro_rules! codes {
    ($($variant:ident = $code:literal: $summary:literal,)+) => {
        /// The check that made a finding.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $summary] $variant,)+
        }

        impl Code {
            /// All checks, by code.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The stable code of the check, such as `L002`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// What the check looks for, in one line.
            pub const fn summary(self) -> &'static str {
                match self { $(Self::$variant => $summary,)+ }
            }
        }
    };
}

codes! {
    YamlSyntax = "L001": "the file is not YAML, or more of it than is allowed",
    UnknownKey = "L002": "a key that does not exist here",
    MissingKey = "L003": "a required key is missing",
    DuplicateKey = "L004": "a key stands twice in one mapping (case is ignored)",
    WrongType = "L005": "a value of the wrong type, or none of those allowed",
    EmptyCollection = "L006": "an empty mapping or sequence",
    MergeKey = "L007": "a YAML merge key",
    BothSpellings = "L009": "two spellings of one setting",
    BadId = "L010": "an id against the grammar of ids",
    RepeatedId = "L011": "an id used twice (case is ignored)",
    UnknownNeed = "L012": "a job needs a job that does not exist",
    Cycle = "L013": "jobs need each other in a circle",
    RepeatedNeed = "L014": "a need listed twice",
    QueueAndCancel = "L018": "`queue: max` together with `cancel-in-progress: true`",
    UnknownStage = "L019": "a stage that does not exist",
    MissingInput = "L021": "a stage misses an input it requires",
    UnknownInput = "L022": "a stage has no such input",
    InputType = "L023": "an input of the wrong type",
    UsesAndRun = "L024": "a step has both `uses` and `run`",
    ExpressionSyntax = "L025": "an expression that cannot be read",
    DoubleQuotes = "L026": "a double-quoted string in an expression",
    UnknownContext = "L027": "a context that does not exist",
    UnknownProperty = "L028": "a property that cannot exist",
    ContextUnavailable = "L029": "a context that is not available here",
    UnknownFunction = "L030": "a function that does not exist, or the wrong number of arguments",
    TextAroundCondition = "L036": "text around the expression of an `if`",
    MatrixOutputs = "L040": "plain outputs of a matrix job",
    ScriptInjection = "L041": "outside data pasted into a script",
    MatrixKey = "L044": "a matrix whose legs need `strategy.key`",
    Cron = "L045": "a cron line that cannot be read",
    TimeZone = "L046": "a time zone that does not exist",
    RetrySubmission = "L048": "a retry that would hide failing submissions",
    TimeoutNesting = "L054": "a step's timeout longer than its job's",
    InputDefault = "L057": "a default that its input would refuse",
    Matrix = "L059": "a matrix that cannot be expanded",
    Unsupported = "L060": "a setting that is planned and not supported yet",
    NoRunner = "L061": "labels that no runner has",
    ScheduleInputs = "L062": "a schedule whose rounds would lack an input, or have a wrong one",
    RepeatedSchedule = "L063": "a schedule that stands twice",
    EitherDay = "L064": "a cron line that restricts both day fields: a day of either counts",
    FullHour = "L065": "a schedule that fires at minute 0, when many others do",
    ClockChanges = "L066": "a schedule one of whose next ticks a clock change moves or repeats",
    ShortInterval = "L067": "a schedule whose ticks are closer together than its rounds usually take",
    TimesDoNotFit = "L068": "what a job's boot, warm-up and requests may take is more than its timeout",
    UnknownSource = "L069": "a workload names a source of prompts that does not exist",
    UnpinnedCorpus = "L070": "a corpus without a digest",
    ToyWorkload = "L071": "weights are set by prompts of the toy grammar alone",
    OtherLimit = "L072": "answers are judged by another `max-tokens` than the requests ask for",
    TooFewAnswers = "L073": "fewer answers of a submission than the correctness checks need for their error rates",
    AskedAgain = "L074": "weights are set by reads that may be asked their prompts twice",
    NothingRepeated = "L075": "reads that are asked once, and nothing that measures again what the machine loses",
    ImpossibleFacts = "L080": "facts of a machine or model that none has",
    Evaluation = "E001": "an expression failed while the pipeline ran",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique() {
        let mut codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Code::ALL.len());
    }
}
