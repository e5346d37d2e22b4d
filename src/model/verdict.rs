//! What a correctness check found.

use super::{row, words};

words! {
    /// A correctness check, the most telling first: where several fail, the first one names the reason.
    pub enum Check {
        /// Whether the requests ended `ok`, with answers that the scorer takes.
        Answered = "answered",
        /// Tokens that the model would hardly have said.
        HardMargin = "hard-margin",
        /// Tokens that are clearly not the model's first choice.
        Flips = "flips",
        /// How far below the model's own choice the tokens are on average.
        MeanMargin = "mean-margin",
        /// The same as [`Check::HardMargin`], of first tokens alone.
        FirstHardMargin = "first-hard-margin",
        /// The same as [`Check::Flips`], of first tokens alone.
        FirstFlips = "first-flips",
        /// The same as [`Check::MeanMargin`], of first tokens alone.
        FirstMeanMargin = "first-mean-margin",
        /// How far claimed log probabilities are from the model's own.
        CommittedLogprobs = "committed-logprobs",
        /// Whether answers end by themselves or at the token limit.
        Finish = "finish",
        /// Ends of answers where the model would hardly have ended.
        EndMargin = "end-margin",
        /// Ends of answers where the model would rather have gone on.
        EndFlips = "end-flips",
        /// How long the answers are on average.
        Length = "length",
        /// Whether the claimed tokens' bytes are the text.
        TextBytes = "text-bytes",
        /// Whether the claimed tokens are the tokenizer's.
        Segmentation = "segmentation",
        /// Whether the counts of tokens agree.
        Counts = "counts",
    }
}

words! {
    /// How one check ended.
    pub enum CheckOutcome {
        /// What was measured is within the threshold.
        Pass = "pass",
        /// What was measured is beyond the threshold: the score is zero.
        Fail = "fail",
        /// The check could not be made: scorer, control or sample is missing. That never costs a miner.
        Void = "void",
    }
}

row! {
    /// A row of `verdicts`: one check of one submission, of one read of the baseline beside its others, or of all of these by
    /// the scorer alone.
    pub struct VerdictRow {
        /// Id of the round.
        pub round_id: String,
        /// Key of the read whose answers were judged; `first..last` where all reads of one look were, together.
        pub read_key: String,
        /// Hotkey of the submission; none for the baseline.
        pub hotkey: Option<String>,
        /// Which check this is.
        pub check: Check,
        /// How the check ended.
        pub outcome: CheckOutcome,
        /// What was measured, in the check's own unit; none if nothing could be.
        pub value: Option<f64>,
        /// What was measured of the baseline's own answers.
        pub control_value: Option<f64>,
        /// Threshold of `value`, beyond which the check fails.
        pub threshold: Option<f64>,
        /// Number of tokens or requests the value rests on.
        pub samples: u32,
        /// What was found, in words a miner can act on.
        pub reason: String,
        /// The worst positions as JSON: `[{"prompt_index":..,"position":..,..}]`.
        pub evidence: String,
    }
}
