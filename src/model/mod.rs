//! L0, the nouns: what a round is about, without I/O, clock or randomness.
//!
//! Rows of the published tables are here, one struct a table, because they are what every other room
//! talks about; how they lie in Parquet is `artifact`'s business. Checked values ([`Digest`],
//! [`Hotkey`], [`ImageReference`]) can only be made from text that passed their one door, and what can
//! only be one of a few words is an enum ([`Word`]) in every row. What a column means is said once, where its field
//! is declared, and `query --schema` shows that ([`Described`]).
#![deny(clippy::disallowed_methods)]

mod account;
mod admission;
mod commitment;
mod exchange;
mod fault;
mod identity;
mod leg;
mod machine;
mod outcome;
mod published;
mod read;
mod request;
mod role;
mod row;
mod seed;
mod standing;
mod tick;
mod verdict;
mod word;
mod workload;

pub use account::{AccountKind, AccountRow};
pub use admission::{Admission, admit};
pub use commitment::{CommitmentRow, IgnoreCode, IgnoreReason, Submission, SubmissionRow};
pub use exchange::{ExchangeEnd, ExchangeRow, StreamRow};
pub use fault::{Fault, Reason};
pub use identity::{Digest, Hotkey, ImageReference, InvalidIdentity, RoundId};
pub use leg::LegSummary;
pub use machine::{
    GpuFacts, GpuSampleRow, GpuState, GpusFound, MachineFacts, MachineLook, MachineSpec, MachineState,
    Throttle, Xid,
};
pub use outcome::{Conclusion, StepAttemptRow};
pub use published::PublishedTable;
pub use read::{
    Arm, MAX_BRACKETS, MAX_PROMPTS, ReadRow, ReadSpec, ReadStatus, prompt_of_bracket, prompt_of_round,
};
pub use request::{RequestFlag, RequestRow, RequestStatus, RequestTimes, TokenRow};
pub use role::Role;
pub(crate) use row::row;
pub use row::{Column, Described};
pub use seed::Seed;
pub use standing::{
    Component, DecisionOutcome, DecisionRow, HeadToHeadRow, LeaderboardRow, Look, Standing, WeightRow,
};
pub use tick::{RoundTick, ScheduleId, TickId, TickOutcome, TickReason, TickRow};
pub use verdict::{Check, CheckOutcome, VerdictRow};
use word::words;
pub use word::{UnknownWord, Word};
pub use workload::{CorpusSource, InvalidWorkload, MAX_TEXT_BYTES, Source, Workload};
