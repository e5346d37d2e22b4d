//! Who stands where, and what they are paid.

use super::{Fault, row, words};

words! {
    /// Outcome of comparing a submission's speed with the baseline's.
    pub enum DecisionOutcome {
        /// Proven faster than the bar.
        Pass = "pass",
        /// Proven not faster, or not proven at the last look.
        Fail = "fail",
        /// This machine's noise does not allow a decision.
        NoDecision = "no-decision",
    }
}

words! {
    /// What of a submission's speed is compared.
    pub enum Component {
        /// Time to first token.
        Ttft = "ttft",
        /// End-to-end time.
        E2e = "e2e",
        /// Mean delivery time.
        Mdt = "mdt",
        /// The weighted mean of the others, which decides.
        Score = "score",
    }
}

row! {
    /// A row of `decisions`: one component of one submission's speed against the baseline reads around it.
    pub struct DecisionRow {
        /// The round.
        pub round_id: String,
        /// Submission.
        pub hotkey: String,
        /// What is compared.
        pub component: Component,
        /// Mean over rounds of the trimmed mean over prompts of ln(baseline / candidate); above 0 is faster.
        pub log_ratio: Option<f64>,
        /// Its standard error.
        pub standard_error: Option<f64>,
        /// Lower confidence bound.
        pub lower: Option<f64>,
        /// Upper confidence bound.
        pub upper: Option<f64>,
        /// What `lower` must exceed.
        pub bar: f64,
        /// Prompts that entered.
        pub prompts: u32,
        /// What was decided.
        pub outcome: DecisionOutcome,
        /// Why, in words.
        pub reason: String,
    }
}

words! {
    /// What became of a submission, the best standing first.
    pub enum Standing {
        /// Correct and proven faster: has a score above zero.
        Scored = "scored",
        /// Correct, not proven faster than the bar.
        NotFaster = "not-faster",
        /// A correctness check failed.
        Disqualified = "disqualified",
        /// Its own fault kept it from being measured.
        Failed = "failed",
        /// Not decided: infrastructure, noise or an unexplained failure.
        Held = "held",
        /// The commitment never became a submission.
        Ignored = "ignored",
    }
}

row! {
    /// A row of `leaderboard`.
    pub struct LeaderboardRow {
        /// The round.
        pub round_id: String,
        /// Place from 1; total, ties go to the earlier commitment.
        pub rank: u32,
        /// Miner.
        pub hotkey: String,
        /// The chain's uid, where known.
        pub uid: Option<u32>,
        /// Block of the commitment.
        pub block: Option<i64>,
        /// Image.
        pub image: Option<String>,
        /// Digest.
        pub digest: Option<String>,
        /// `exp(lower bound) - 1` of the composite where it passed, else 0: noise pays nobody.
        pub score: f64,
        /// Share of the reward, 0 to 1; the shares of a round sum to at most 1.
        pub share: f64,
        /// Measured speed-up of the end-to-end time: baseline / candidate.
        pub speedup_e2e: Option<f64>,
        /// Measured speed-up of the time to first token.
        pub speedup_ttft: Option<f64>,
        /// What became of it.
        pub standing: Standing,
        /// Whose fault, where it failed.
        pub fault: Option<Fault>,
        /// Reason code.
        pub reason: String,
        /// Reason in words.
        pub detail: String,
    }
}

row! {
    /// A row of `weights`: what is to be set on chain.
    pub struct WeightRow {
        /// The round.
        pub round_id: String,
        /// Subnet.
        pub netuid: u32,
        /// Miner.
        pub hotkey: String,
        /// The chain's uid, where known.
        pub uid: Option<u32>,
        /// Share of the reward, 0 to 1.
        pub share: f64,
        /// Max-upscaled to 65535, as the chain stores it.
        pub weight: u16,
        /// Whether nothing was sent.
        pub is_dry_run: bool,
        /// What the chain answered; none in a dry run.
        pub receipt: Option<String>,
    }
}
