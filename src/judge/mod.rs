//! L1, judging: from rows of what was measured to verdicts, decisions, places and weights.
//!
//! The line is [`verdicts`] (are they the model's answers?) -> [`decide`] (is it faster, and is that
//! proven?) -> [`leaderboard`] (who stands where, and why: in the order of proof) -> [`mod@weights`] (what the chain is told). Every step
//! takes rows and a policy and returns rows, so that anybody can judge a published round again: [`evaluate`] takes
//! all steps at once.
//!
//! The rules of a contest are policies: serde structs with our defaults, read from a pipeline's `with:`. No
//! number of a contest stands in the code. Whatever cannot be judged is void or held and never costs a miner.
#![deny(clippy::disallowed_methods)]

mod account;
mod answers;
mod claim;
mod conduct;
mod finding;
pub mod floor;
mod launches;
pub mod machine;
mod margin;
pub mod order;
pub mod pool;
pub mod rank;
pub mod repeats;
pub mod round;
mod samples;
pub mod score;
pub mod scores;
mod service;
#[cfg(test)]
mod simulate;
#[cfg(test)]
mod simulate_rounds;
pub mod speeds;
pub mod split;
mod thresholds;
pub mod verify;
pub mod weights;

pub use account::{Arrived, accounts, first_missing, places};
pub use answers::Answers;
pub use floor::{Facts, Floor, Floors};
pub use launches::{Detect, LaunchPlan};
pub use order::comparisons;
pub use pool::{MeasuredRead, verdicts};
pub use rank::{Confirm, Standings, finalists_of, leaderboard};
pub use repeats::{EndedRead, NO_ANSWER, to_repeat, uncounted};
pub use round::{Policies, RoundEvidence, RoundOutcome, evaluate};
pub use samples::{SampleNeed, sample_needs};
pub use score::{BaselineNoise, ReadLogs, ReadTimes, ScorePolicy, SpeedComparison, decide};
pub use scores::{AnswerScores, Question, TokenScore, fill_scores, kept_scores, questions};
pub use service::{MachineRead, MachineSign, broken_machines, machine_sign};
pub use speeds::{LookReads, LookRules, Speeds, TimedRead};
pub use split::{RankPolicy, Split};
pub use thresholds::VerifyPolicy;
pub use verify::{Subject, judge_answers};
pub use weights::{WeightsPolicy, weights};
