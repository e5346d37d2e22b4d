//! What can be wrong with an artifact.

use arrow_schema::{ArrowError, DataType};
use parquet::errors::ParquetError;

use super::FormatVersion;
use crate::model::UnknownWord;

/// Why bytes are not the artifact they should be, or cannot be made into one.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Rows could not be laid out as columns.
    #[error("the rows of table `{table}` cannot be laid out as columns")]
    Columns {
        /// Name of the table.
        table: &'static str,
        /// What the Arrow library says.
        source: ArrowError,
    },
    /// Columns could not be written as Parquet.
    #[error("table `{table}` cannot be written as Parquet")]
    Write {
        /// Name of the table.
        table: &'static str,
        /// What the Parquet library says.
        source: ParquetError,
    },
    /// The file is not Parquet, or is damaged.
    #[error("table `{table}` is not a readable Parquet file")]
    Read {
        /// Name of the table.
        table: &'static str,
        /// What the Parquet library says.
        source: ParquetError,
    },
    /// A page of the file is damaged.
    #[error("table `{table}` has a damaged page")]
    Page {
        /// Name of the table.
        table: &'static str,
        /// What the Arrow library says.
        source: ArrowError,
    },
    /// The file is so damaged that the Parquet library panicked over it.
    #[error("table `{table}` is damaged beyond what the Parquet reader can describe")]
    Damaged {
        /// Name of the table.
        table: &'static str,
    },
    /// The file says that it is another table.
    #[error("want table `{table}`, the file holds `{found}`")]
    OtherTable {
        /// Name of the table that was asked for.
        table: &'static str,
        /// Name of the table in the file.
        found: String,
    },
    /// The file has a version of the schema that this program does not know.
    #[error(
        "table `{table}` has schema version `{found}`, this program reads {expected} and older minor versions of it"
    )]
    OtherVersion {
        /// Name of the table that was asked for.
        table: &'static str,
        /// Version that the file says.
        found: String,
        /// Version that this program reads.
        expected: FormatVersion,
    },
    /// The file holds rows of another round, or does not say of which they are.
    #[error("table `{table}` is not known to hold the rows of round {round} and no others")]
    OtherRound {
        /// Name of the table.
        table: &'static str,
        /// Id of the round whose directory it lies in.
        round: String,
    },
    /// The end of the file says what no file of this program would.
    #[error("table `{table}` is not laid out as this program does it: {why}")]
    Layout {
        /// Name of the table.
        table: &'static str,
        /// What is wrong with the end of the file.
        why: &'static str,
    },
    /// A column is not there.
    #[error("table `{table}` lacks the column `{column}`")]
    MissingColumn {
        /// Name of the table.
        table: &'static str,
        /// Name of the column.
        column: String,
    },
    /// A column should not be there.
    #[error("table `{table}` has a column `{column}` that is not in its schema")]
    UnexpectedColumn {
        /// Name of the table.
        table: &'static str,
        /// Name of the column.
        column: String,
    },
    /// A column has another type.
    #[error("column `{column}` of table `{table}` has type {found}, want {expected}")]
    ColumnType {
        /// Name of the table.
        table: &'static str,
        /// Name of the column.
        column: String,
        /// Type of the column in the file.
        found: Box<DataType>,
        /// Type of the column in the schema.
        expected: Box<DataType>,
    },
    /// A column that always has a value lacks one.
    #[error("column `{column}` of table `{table}` has no value in some row, and must have one in all")]
    NullValue {
        /// Name of the table.
        table: &'static str,
        /// Name of the column.
        column: String,
    },
    /// A column of a closed vocabulary holds another word.
    #[error("row {row} of table `{table}`, column `{column}`: {unknown}")]
    UnknownWord {
        /// Name of the table.
        table: &'static str,
        /// Name of the column.
        column: String,
        /// Number of the row in the file, from 1.
        row: usize,
        /// The word that was found, beside those that may stand there.
        unknown: Box<UnknownWord>,
    },
    /// A table is larger than this program is willing to hold.
    #[error("table `{table}` is too large: more than {limit} {unit}")]
    TooLarge {
        /// Name of the table.
        table: &'static str,
        /// The most that it may be.
        limit: u64,
        /// The unit of that limit.
        unit: &'static str,
    },
    /// An event of the journal could not be written as JSON.
    #[error("a journal event cannot be written as JSON")]
    JournalWrite(#[source] serde_json::Error),
    /// An event of the journal could be written, but not read again.
    #[error("a journal event could not be read back: {why}")]
    JournalEvent {
        /// What is wrong with the event.
        why: &'static str,
    },
    /// A line of the journal is damaged and others follow it: this is not a write that was cut short.
    #[error("line {line} of the journal is damaged ({why}) and is not the last: repair or remove the round")]
    JournalDamaged {
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with the line.
        why: &'static str,
    },
    /// The journal is of a format that this program does not know.
    #[error("the journal is of version {found}, this program reads {expected} and older: use a newer one")]
    JournalVersion {
        /// Version that the journal says.
        found: FormatVersion,
        /// Version that this program reads.
        expected: FormatVersion,
    },
    /// The journal can be read, but its format is no longer written.
    #[error(
        "the journal is of version {found}: this program shows such rounds, and goes on only with {expected}"
    )]
    JournalOlder {
        /// Version that the journal says.
        found: FormatVersion,
        /// Version that this program writes.
        expected: FormatVersion,
    },
    /// `round.json` is not what it should be.
    #[error("`round.json` is not of the form of a round")]
    RoundFile(#[source] serde_json::Error),
    /// `round.json` is of a version that this program does not know.
    #[error("`round.json` has schema {found}, this program reads {expected} and older: use a newer one")]
    RoundFileVersion {
        /// Version that the file says.
        found: FormatVersion,
        /// Version that this program reads.
        expected: FormatVersion,
    },
    /// What is known of a runner is not of its form.
    #[error("the file is not of the form of what is known of a runner")]
    RunnerState(#[source] serde_json::Error),
    /// What is known of a runner is of a version that this program does not know.
    #[error("the file has schema {found}, this program reads {expected} and older: use a newer one")]
    RunnerStateVersion {
        /// Version that the file says.
        found: FormatVersion,
        /// Version that this program reads.
        expected: FormatVersion,
    },
    /// The file is named after another runner than the one it speaks of.
    #[error("the file speaks of the runner `{found:.100}`, after which it is not named")]
    OtherRunner {
        /// Name of the runner that it speaks of.
        found: String,
    },
    /// `SEAL` is not what it should be.
    #[error("line {line} of SEAL is not a seal: {why}")]
    Seal {
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with the line.
        why: &'static str,
    },
}
