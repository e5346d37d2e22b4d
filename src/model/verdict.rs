//! What a correctness check found.

use super::{row, words};

words! {
    /// A correctness check, the most telling first: where several fail, the first one names the reason.
    pub enum Check {
        /// Whether requests ended `ok`.
        Answered = "answered",
        /// Tokens that the model would hardly have said.
        HardMargin = "hard-margin",
        /// Tokens that are clearly not the model's first choice.
        Flips = "flips",
        /// How far below the model's own choice the tokens are on average.
        MeanMargin = "mean-margin",
        /// [`Check::HardMargin`] of first tokens alone.
        FirstHardMargin = "first-hard-margin",
        /// [`Check::Flips`] of first tokens alone.
        FirstFlips = "first-flips",
        /// [`Check::MeanMargin`] of first tokens alone.
        FirstMeanMargin = "first-mean-margin",
        /// Log probabilities as claimed against the model's own.
        CommittedLogprobs = "committed-logprobs",
        /// Whether answers end by themselves or at the token limit.
        Finish = "finish",
        /// Ends of answers where the model would hardly have ended.
        EndMargin = "end-margin",
        /// Ends of answers where the model would rather have gone on.
        EndFlips = "end-flips",
        /// Mean length of the answers.
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
    /// Result of one check.
    pub enum CheckOutcome {
        /// Within its threshold.
        Pass = "pass",
        /// Beyond its threshold: the score is zero.
        Fail = "fail",
        /// Could not be made: the scorer, the control or the sample is missing. Never costs a miner.
        Void = "void",
    }
}

row! {
    /// A row of `verdicts`: one check of one submission (or of the baseline against itself).
    pub struct VerdictRow {
        /// The round.
        pub round_id: String,
        /// Read whose answers were judged.
        pub read_key: String,
        /// Submission, none for the baseline.
        pub hotkey: Option<String>,
        /// What was checked.
        pub check: Check,
        /// What was found.
        pub outcome: CheckOutcome,
        /// What was measured.
        pub value: Option<f64>,
        /// The same of the baseline's own answers.
        pub control_value: Option<f64>,
        /// Beyond this the check fails.
        pub threshold: Option<f64>,
        /// Tokens or requests the value rests on.
        pub samples: u32,
        /// In words a miner can act on.
        pub reason: String,
        /// The worst positions as JSON: `[{"prompt_index":..,"position":..,..}]`.
        pub evidence: String,
    }
}
