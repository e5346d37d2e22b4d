//! L1, how a round lies on disk: bytes in, bytes out.
//!
//! Tables are Parquet ([`encode`], [`decode`]), the journal is JSON lines that notice damage
//! ([`journal`]) and come to a [`RoundState`], `round.json` says what the round was made of ([`RoundFile`]), `SEAL` lists what all of
//! it hashes to ([`seal`]), a [`RunnerState`] says of a runner whether it is in service, [`layout`] says which file is where, and an operator's file of texts is read by [`read_corpus`]. Nothing here opens a file: reading
//! and writing is `adapters::store`'s business, and what the rows mean is `model`'s.
#![deny(clippy::disallowed_methods)]

mod cell;
mod compare;
mod corpus;
pub mod digest;
#[cfg(test)]
mod drawn;
mod error;
mod footer;
pub mod journal;
pub mod layout;
mod parquet_file;
mod retention;
mod round_file;
mod round_state;
mod row;
mod runner_state;
pub mod seal;
mod table;
mod table_writer;
mod tick_journal;
mod version;

pub use compare::CellDifference;
pub use corpus::{CorpusError, MAX_CORPUS_BYTES, read_corpus};
pub use error::ArtifactError;
pub use footer::TableFooter;
pub use journal::{
    JobStep, JournalEvent, JournalLine, LegAttempt, Publication, PublishedTable, Replay, RoundStart,
    StepKind, Tail, TakenLeg,
};
pub use parquet_file::{decode, encode};
pub use retention::{Extent, Fate, Keep, KnownRound, Retention, StayReason, fates};
pub use round_file::{ParentRound, RoundFile, RunnerFile, SharedFile};
pub use round_state::{
    AttemptState, Ending, Interruption, JobState, LegCounts, LegState, RetryWait, RoundEnding, RoundState,
    StepEnding, StepState,
};
pub use row::{Projection, Table};
pub use runner_state::{FailedRead, PastQuarantine, Quarantine, QuarantineCause, RunnerState};
pub use seal::{Seal, SealDifference, SealEntry};
pub use table::{
    ColumnInfo, TABLE_NAMES, TABLES_BESIDE, TableInfo, difference, encode_empty, inspect, rewrite, tables,
    tables_beside,
};
pub use table_writer::{TableContext, TableWriter};
pub use tick_journal::{TickEvent, jitter_of, round_of, tick_rows};
pub use version::FormatVersion;
