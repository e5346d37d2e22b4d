//! L1, judging: from rows of what was measured to verdicts, decisions, places and weights.
//!
//! The line is [`judge_answers`] (are they the model's answers?) -> [`decide`] (is it faster, and is that
//! proven?) -> [`leaderboard`] (who stands where, and why) -> [`mod@weights`] (what the chain is told). Every step
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
mod margin;
pub mod rank;
pub mod round;
pub mod score;
pub mod scores;
#[cfg(test)]
mod simulate;
mod thresholds;
pub mod verify;
pub mod weights;

pub use account::{Arrived, accounts, first_missing, places};
pub use answers::Answers;
pub use rank::{NO_ANSWER, RankPolicy, Split, Standings, leaderboard};
pub use round::{MeasuredRead, Policies, RoundEvidence, RoundOutcome, evaluate};
pub use score::{BaselineNoise, ReadTimes, ScorePolicy, SpeedComparison, decide};
pub use scores::{AnswerScores, Question, TokenScore, fill_scores, kept_scores, questions};
pub use thresholds::VerifyPolicy;
pub use verify::{Subject, judge_answers};
pub use weights::{WeightsPolicy, weights};
