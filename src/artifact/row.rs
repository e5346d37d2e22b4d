//! What a row is that is published as a table.
//!
//! The tables themselves, with their columns, are in `table`; their files in `parquet_file`.

use std::cmp::Ordering;

use arrow_array::RecordBatch;
use arrow_schema::Schema;

use super::{ArtifactError, FormatVersion};
use crate::model::Described;

/// A row that is published as a Parquet table.
pub trait Table: Described + Sized {
    /// Name of the table: its file is `<NAME>.parquet`, in `results` where the table is published.
    const NAME: &'static str;
    /// Columns that later minor versions added, one list for each from minor 1 on. They may lack values.
    const ADDED: &'static [&'static [&'static str]];
    /// Version of the schema: a new minor for columns that are added, a new major for any other change.
    const VERSION: FormatVersion;

    /// The columns, in the order of the struct's fields.
    fn schema() -> Schema;

    /// Compares two rows in the published order: by round, then by what identifies a row in it.
    fn compare(left: &Self, right: &Self) -> Ordering;

    /// Lays rows out as columns.
    ///
    /// # Errors
    /// When Arrow refuses them, which takes more than 2 GiB of text in one batch.
    fn to_batch(rows: &[&Self]) -> Result<RecordBatch, ArtifactError>;

    /// Reads columns as rows; `rows_before` rows of the file precede them. A column that a later minor version
    /// added may be missing: its rows have no value there.
    ///
    /// # Errors
    /// When another column is missing, one has another type, lacks a value it must have, or holds a word that is none of
    /// its vocabulary.
    fn from_batch(batch: &RecordBatch, rows_before: usize) -> Result<Vec<Self>, ArtifactError>;

    /// Number of bytes of the row's values that may be long: texts and bytes that a stranger sends. A row of a table without such
    /// values has none.
    fn long_bytes(&self) -> usize;

    /// Makes the row one of this round: what a round shares with another is its own where it is published.
    fn set_round(&mut self, round_id: &str);

    /// The minor version that added a column; 0 for those that were always there.
    fn minor_of(column: &str) -> u32 {
        let added = Self::ADDED.iter().position(|added| added.contains(&column));
        added.map_or(0, |index| index as u32 + 1)
    }

    /// Sorts rows as they are published; equal rows keep their order.
    fn sort(rows: &mut [Self]) {
        rows.sort_by(Self::compare);
    }
}

/// What is read of each row of a table: the whole row, or some of its columns without touching the others.
pub trait Projection: Sized {
    /// The table's row.
    type Row: Table;
    /// The columns that are read; none for all of them.
    const COLUMNS: Option<&'static [&'static str]>;

    /// Reads columns as [`Table::from_batch`] does.
    ///
    /// # Errors
    /// As [`Table::from_batch`], for the columns that are read.
    fn project(batch: &RecordBatch, rows_before: usize) -> Result<Vec<Self>, ArtifactError>;
}

impl<T: Table> Projection for T {
    type Row = T;
    const COLUMNS: Option<&'static [&'static str]> = None;

    fn project(batch: &RecordBatch, rows_before: usize) -> Result<Vec<Self>, ArtifactError> {
        T::from_batch(batch, rows_before)
    }
}
