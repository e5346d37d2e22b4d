//! Rows to a Parquet file one at a time, for a table that need not fit into memory.
//!
//! Where batches and row groups end depends on the rows alone, so that the same rows give the same bytes, whoever writes them
//! and however many are at hand: [`super::encode`] goes the same way.

use std::borrow::Borrow;
use std::io::Write;
use std::marker::PhantomData;
use std::sync::Arc;

use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::{ArtifactError, Table};
use crate::model::RoundId;

/// Most rows of a row group: small enough to skip by statistics, large enough to compress.
const GROUP_ROWS: usize = 50_000;
/// A row group ends with the row whose long values fill so many bytes, if it does not have its full number of rows before: a
/// writer keeps a row group in memory, and a stranger may send what nothing compresses.
const GROUP_BYTES: usize = 2 << 20;
/// Most rows that are laid out as columns at a time.
const BATCH_ROWS: usize = 4096;
/// Rows are laid out as columns once their long values have this many bytes.
const BATCH_BYTES: usize = 256 << 10;

/// Compression level of zstd: the file is written once and read often.
const ZSTD_LEVEL: i32 = 6;
/// The name of the program that wrote the file, in the form that Parquet readers parse.
pub(super) const CREATED_BY: &str = concat!("cacheon version ", env!("CARGO_PKG_VERSION"));
pub(super) const KEY_ROUND: &str = "cacheon.round_id";
pub(super) const KEY_VERSION: &str = "cacheon.schema_version";
pub(super) const KEY_TABLE: &str = "cacheon.table";

/// What the metadata of a file says besides its columns.
#[derive(Debug, Clone)]
pub struct TableContext<'a> {
    /// Id of the round whose results these are.
    pub round_id: &'a RoundId,
}

/// Writes one table: batch by batch and row group by row group, as each fills.
pub struct TableWriter<T, W: Write + Send, R = T> {
    writer: ArrowWriter<W>,
    /// The rows of the batch.
    batch: Vec<R>,
    /// Bytes of the batch's long values.
    batch_bytes: usize,
    group_rows: usize,
    /// Bytes of the row group's long values, those of the batch among them.
    group_bytes: usize,
    table: PhantomData<T>,
}

impl<T: Table, W: Write + Send, R: Borrow<T>> TableWriter<T, W, R> {
    /// Begins a file.
    ///
    /// # Errors
    /// Where `out` refuses what is written.
    pub fn new(out: W, context: &TableContext<'_>) -> Result<Self, ArtifactError> {
        let options = ArrowWriterOptions::new()
            .with_properties(properties::<T>(context)?)
            .with_skip_arrow_metadata(true);
        let writer =
            ArrowWriter::try_new_with_options(out, Arc::new(T::schema()), options).map_err(refused::<T>)?;
        Ok(Self {
            writer,
            batch: Vec::new(),
            batch_bytes: 0,
            group_rows: 0,
            group_bytes: 0,
            table: PhantomData,
        })
    }

    /// Takes the next row, in the published order.
    ///
    /// # Errors
    /// Where `out` refuses what is written.
    pub fn write(&mut self, row: R) -> Result<(), ArtifactError> {
        let long_bytes = row.borrow().long_bytes();
        self.batch.push(row);
        self.batch_bytes += long_bytes;
        self.group_rows += 1;
        self.group_bytes += long_bytes;
        let is_full = self.group_rows >= GROUP_ROWS || self.group_bytes >= GROUP_BYTES;
        if is_full || self.batch.len() >= BATCH_ROWS || self.batch_bytes >= BATCH_BYTES {
            self.write_batch()?;
        }
        if is_full {
            (self.group_rows, self.group_bytes) = (0, 0);
            self.writer.flush().map_err(refused::<T>)?;
        }
        Ok(())
    }

    fn write_batch(&mut self) -> Result<(), ArtifactError> {
        self.batch_bytes = 0;
        let batch: Vec<&T> = self.batch.iter().map(Borrow::borrow).collect();
        self.writer.write(&T::to_batch(&batch)?).map_err(refused::<T>)?;
        self.batch.clear();
        Ok(())
    }

    /// Ends the file and gives back what it was written to.
    ///
    /// # Errors
    /// Where `out` refuses what is written.
    pub fn finish(mut self) -> Result<W, ArtifactError> {
        self.write_batch()?;
        self.writer.into_inner().map_err(refused::<T>)
    }
}

fn properties<T: Table>(context: &TableContext<'_>) -> Result<WriterProperties, ArtifactError> {
    let level =
        ZstdLevel::try_new(ZSTD_LEVEL).map_err(|source| ArtifactError::Write { table: T::NAME, source })?;
    let metadata = vec![
        KeyValue::new(KEY_ROUND.to_owned(), context.round_id.to_string()),
        KeyValue::new(KEY_VERSION.to_owned(), T::VERSION.to_string()),
        KeyValue::new(KEY_TABLE.to_owned(), T::NAME.to_owned()),
    ];
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_created_by(CREATED_BY.to_owned())
        .set_key_value_metadata(Some(metadata))
        .build())
}

fn refused<T: Table>(source: ParquetError) -> ArtifactError {
    ArtifactError::Write { table: T::NAME, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{decode, encode};
    use crate::model::StreamRow;

    type Writer = TableWriter<StreamRow, Vec<u8>>;

    /// Pieces that nothing compresses, as a hostile server would have it.
    fn pieces(count: u32, bytes: usize) -> impl Iterator<Item = StreamRow> {
        let mut state = 1_u32;
        let mut byte = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..count).map(move |sequence| StreamRow {
            round_id: "r".into(),
            sequence,
            at_ns: i64::from(sequence) * 1000,
            bytes: (0..bytes).map(|_| byte()).collect(),
            ..StreamRow::default()
        })
    }

    fn begun() -> Writer {
        let round_id = "r".parse().expect("an id");
        Writer::new(Vec::new(), &TableContext { round_id: &round_id }).expect("opens")
    }

    #[test]
    fn one_row_at_a_time_gives_the_bytes_of_the_whole_table() {
        let check = |count: u32, bytes: usize| {
            let rows: Vec<StreamRow> = pieces(count, bytes).collect();
            let mut writer = begun();
            for row in &rows {
                writer.write(row.clone()).expect("writes");
            }
            let file = writer.finish().expect("closes");
            assert_eq!(decode::<StreamRow>(&file).expect("decodes"), rows);
            let round_id = "r".parse().expect("an id");
            let whole = encode(&rows, &TableContext { round_id: &round_id }).expect("encodes");
            assert!(file == whole, "{count} rows of {bytes} bytes");
        };
        check(0, 0);
        check(10_000, 3);
        check(120_000, 1);
        check(200, 50_000);
    }

    #[test]
    fn no_more_than_a_row_group_is_in_memory() {
        let check = |rows: u32, bytes: usize, groups: usize| {
            let mut writer = begun();
            for row in pieces(rows, bytes) {
                writer.write(row).expect("writes");
                assert!(writer.batch.len() < BATCH_ROWS && writer.batch_bytes < BATCH_BYTES);
                assert!(writer.writer.in_progress_rows() < GROUP_ROWS);
                assert!(writer.writer.in_progress_size() < GROUP_BYTES + GROUP_BYTES / 8);
            }
            assert_eq!(writer.writer.flushed_row_groups().len(), groups, "{rows} rows of {bytes} bytes");
        };
        check(60_000, 1, 1);
        check(60_000, 100, 2);
        check(700, 50_000, 16);
    }
}
