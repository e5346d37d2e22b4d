//! L0, the nouns: what a round is about, without I/O, clock or randomness.
//!
//! Rows of the published tables are here, one struct a table, because they are what every other room
//! talks about; how they lie in Parquet is `artifact`'s business. Checked values ([`Digest`],
//! [`Hotkey`], [`ImageReference`]) can only be made from text that passed their one door.
#![deny(clippy::disallowed_methods)]

mod admission;
mod commitment;
mod fault;
mod identity;
mod leg;
mod outcome;
mod read;
mod request;
mod seed;
mod standing;
mod verdict;

pub use admission::{Admission, admit};
pub use commitment::{CommitmentRow, IgnoreReason, Submission, SubmissionRow};
pub use fault::{Fault, Reason};
pub use identity::{Digest, Hotkey, ImageReference, InvalidIdentity, RoundId};
pub use leg::LegSummary;
pub use outcome::{Conclusion, StepAttemptRow};
pub use read::{Arm, ReadRow, ReadSpec, ReadStatus};
pub use request::{RequestRow, RequestStatus, TokenRow};
pub use seed::Seed;
pub use standing::{DecisionOutcome, DecisionRow, LeaderboardRow, Standing, WeightRow};
pub use verdict::{CheckOutcome, VerdictRow};
