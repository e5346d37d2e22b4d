//! Who stands where, and what they are paid.

use super::{Fault, row, words};

words! {
    /// What comparing a submission's speed with the baseline's came to.
    pub enum DecisionOutcome {
        /// It is proven faster than the bar.
        Pass = "pass",
        /// It is proven not faster, or not proven faster at the last look.
        Fail = "fail",
        /// The noise of this machine does not allow a decision.
        NoDecision = "no-decision",
    }
}

words! {
    /// What of a submission's speed is compared.
    pub enum Component {
        /// The time to first token.
        Ttft = "ttft",
        /// The end-to-end time.
        E2e = "e2e",
        /// The mean delivery time.
        Mdt = "mdt",
        /// The weighted mean of the others, which decides.
        Score = "score",
    }
}

words! {
    /// One of the passes of measuring after which something is decided.
    pub enum Look {
        /// The first pass: every submission.
        Measure = "measure",
        /// The second pass: those that could take a paid place, with fresh prompts.
        Confirm = "confirm",
    }
}

row! {
    /// A row of `decisions`: one component of one submission's speed against the baseline reads around it.
    pub struct DecisionRow {
        /// Id of the round.
        pub round_id: String,
        /// Hotkey of the submission.
        pub hotkey: String,
        /// What of the speed is compared.
        pub component: Component,
        /// Mean over its reads of the trimmed mean over prompts of ln(baseline / candidate); above 0 is faster.
        pub log_ratio: Option<f64>,
        /// Standard error of `log_ratio`.
        pub standard_error: Option<f64>,
        /// Lower confidence bound of `log_ratio`.
        pub lower: Option<f64>,
        /// Upper confidence bound of `log_ratio`.
        pub upper: Option<f64>,
        /// What `lower` must exceed to pass.
        pub bar: f64,
        /// Number of prompts that were compared.
        pub prompts: u32,
        /// What was decided.
        pub outcome: DecisionOutcome,
        /// Why it was decided so, in words.
        pub reason: String,
        /// The pass of measuring whose reads are compared; none before version 1.1, where there was one.
        pub look: Option<Look>,
    }
}

row! {
    /// A row of `head_to_head`: whether a submission is proven faster than one that was committed before it.
    pub struct HeadToHeadRow {
        /// Id of the round.
        pub round_id: String,
        /// The pass of measuring whose reads are compared.
        pub look: Look,
        /// Hotkey of the one that was committed later, and would take the place.
        pub later: String,
        /// Hotkey of the one that was committed earlier, and holds it.
        pub earlier: String,
        /// Number of times both were measured beside the very same baseline reads; 0 where that never was so.
        pub brackets: u32,
        /// Mean of ln(earlier / later) of their times; above 0 the later one is faster.
        pub log_ratio: Option<f64>,
        /// Standard error of `log_ratio`.
        pub standard_error: Option<f64>,
        /// Lower confidence bound of `log_ratio`.
        pub lower: Option<f64>,
        /// What `lower` must exceed for the later one to go before the earlier one.
        pub bar: f64,
        /// Whether it does.
        pub is_proven: bool,
        /// The comparison in words.
        pub reason: String,
    }
}

words! {
    /// What became of a submission, the best standing first.
    pub enum Standing {
        /// It is correct and proven faster: it has a score above zero.
        Scored = "scored",
        /// It is correct, but not proven faster than the bar.
        NotFaster = "not-faster",
        /// It failed a correctness check.
        Disqualified = "disqualified",
        /// Its own fault kept it from being measured.
        Failed = "failed",
        /// It was not decided: infrastructure, noise or an unexplained failure.
        Held = "held",
        /// It was a commitment that never became a submission, or a copy of an earlier one.
        Ignored = "ignored",
    }
}

row! {
    /// A row of `leaderboard`: what became of one miner, and why.
    pub struct LeaderboardRow {
        /// Id of the round.
        pub round_id: String,
        /// Place on the leaderboard, from 1; no two share one, ties go to the earlier commitment.
        pub rank: u32,
        /// Hotkey of the miner.
        pub hotkey: String,
        /// The chain's number (uid) of the hotkey, where known.
        pub uid: Option<u32>,
        /// Block at which it was committed.
        pub block: Option<i64>,
        /// Image, named without a tag.
        pub image: Option<String>,
        /// Digest of the image.
        pub digest: Option<String>,
        /// `exp(lower bound) - 1` of the composite where it passed, else 0: noise pays nobody.
        pub score: f64,
        /// Share of the reward, 0 to 1; the shares of a round sum to at most 1.
        pub share: f64,
        /// Measured speed-up of the end-to-end time: the baseline's over the candidate's.
        pub speedup_e2e: Option<f64>,
        /// Measured speed-up of the time to first token: the baseline's over the candidate's.
        pub speedup_ttft: Option<f64>,
        /// What became of the miner's commitment.
        pub standing: Standing,
        /// Whose fault it was, where it failed.
        pub fault: Option<Fault>,
        /// Code of the reason for the standing.
        pub reason: String,
        /// The reason for the standing, in words.
        pub detail: String,
    }
}

row! {
    /// A row of `weights`: what is to be set on chain.
    pub struct WeightRow {
        /// Id of the round.
        pub round_id: String,
        /// Number of the subnet.
        pub netuid: u32,
        /// Hotkey of the miner.
        pub hotkey: String,
        /// The chain's number (uid) of the hotkey, where known.
        pub uid: Option<u32>,
        /// Share of the reward, 0 to 1.
        pub share: f64,
        /// Weight as the chain stores it: the shares scaled so that the largest is 65535.
        pub weight: u16,
        /// Whether the weights were only written down, and nothing was sent.
        pub is_dry_run: bool,
        /// What the chain answered; none in a dry run.
        pub receipt: Option<String>,
    }
}
