//! What a row is that is published as a table.
//!
//! The tables themselves, with their columns, are in `table`; their files in `parquet_file`.

use std::cmp::Ordering;

use arrow_array::RecordBatch;
use arrow_schema::Schema;

use super::ArtifactError;

/// A row that is published as a Parquet table.
pub trait Table: Sized {
    /// Name of the table: its file is `<NAME>.parquet`, in `results` where the table is published.
    const NAME: &'static str;
    /// Version of the schema, raised with every change.
    const VERSION: u32;

    /// Columns in the order of the struct's fields.
    fn schema() -> Schema;

    /// The published order: by round, then by what identifies a row in it.
    fn compare(left: &Self, right: &Self) -> Ordering;

    /// Rows as columns.
    ///
    /// # Errors
    /// When Arrow refuses them, which takes more than 2 GiB of text in one batch.
    fn to_batch(rows: &[&Self]) -> Result<RecordBatch, ArtifactError>;

    /// Columns as rows; `rows_before` in the file precede them.
    ///
    /// # Errors
    /// When a column is missing, has another type, lacks a value it must have, or holds a word that is none of
    /// its vocabulary.
    fn from_batch(batch: &RecordBatch, rows_before: usize) -> Result<Vec<Self>, ArtifactError>;

    /// Sorts rows as they are published; equal rows keep their order.
    fn sort(rows: &mut [Self]) {
        rows.sort_by(Self::compare);
    }
}
