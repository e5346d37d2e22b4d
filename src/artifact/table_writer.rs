//! Rows to a Parquet file some at a time, for a table that need not fit into memory.

use std::io::Write;
use std::marker::PhantomData;
use std::sync::Arc;

use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::errors::ParquetError;

use super::parquet_file::properties;
use super::{ArtifactError, Table, TableContext};

/// A row group is written once it holds this many bytes, if it does not have its full number of rows before.
const GROUP_BYTES: usize = 8 << 20;
/// Number of rows laid out as columns at a time.
const BATCH_ROWS: usize = 4096;

/// Writes one table as [`super::encode`] does, row group by row group as each fills. The same calls give the same
/// bytes.
pub struct TableWriter<T, W: Write + Send> {
    writer: ArrowWriter<W>,
    table: PhantomData<T>,
}

impl<T: Table, W: Write + Send> TableWriter<T, W> {
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
        Ok(Self { writer, table: PhantomData })
    }

    /// Takes the next rows, in the published order.
    ///
    /// # Errors
    /// Where `out` refuses what is written.
    pub fn write(&mut self, rows: &[T]) -> Result<(), ArtifactError> {
        for batch in rows.chunks(BATCH_ROWS) {
            let batch: Vec<&T> = batch.iter().collect();
            self.writer.write(&T::to_batch(&batch)?).map_err(refused::<T>)?;
            if self.writer.in_progress_size() >= GROUP_BYTES {
                self.writer.flush().map_err(refused::<T>)?;
            }
        }
        Ok(())
    }

    /// Takes the next full row group, or the last one: as [`super::encode`] lays it out, to the byte.
    ///
    /// # Errors
    /// Where `out` refuses what is written.
    pub fn write_group(&mut self, rows: &[T]) -> Result<(), ArtifactError> {
        if rows.is_empty() {
            return Ok(());
        }
        let rows: Vec<&T> = rows.iter().collect();
        self.writer.write(&T::to_batch(&rows)?).map_err(refused::<T>)?;
        self.writer.flush().map_err(refused::<T>)
    }

    /// Ends the file and gives back what it was written to.
    ///
    /// # Errors
    /// Where `out` refuses what is written.
    pub fn finish(self) -> Result<W, ArtifactError> {
        self.writer.into_inner().map_err(refused::<T>)
    }
}

fn refused<T: Table>(source: ParquetError) -> ArtifactError {
    ArtifactError::Write { table: T::NAME, source }
}

#[cfg(test)]
mod tests {
    use super::super::parquet_file::GROUP_ROWS;
    use super::*;
    use crate::artifact::decode;
    use crate::model::StreamRow;

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

    #[test]
    fn what_is_written_is_read() {
        let file = |rows: &[StreamRow]| {
            let round_id = "r".parse().expect("an id");
            let mut writer =
                TableWriter::new(Vec::new(), &TableContext { round_id: &round_id }).expect("opens");
            rows.chunks(37).for_each(|rows| writer.write(rows).expect("writes"));
            writer.finish().expect("closes")
        };
        let rows: Vec<StreamRow> = pieces(10_000, 3).collect();
        let bytes = file(&rows);
        assert_eq!(decode::<StreamRow>(&bytes).expect("decodes"), rows);
        assert_eq!(file(&rows), bytes);
        assert_eq!(decode::<StreamRow>(&file(&[])).expect("decodes"), []);
    }

    #[test]
    fn row_groups_are_written_as_they_fill() {
        let check = |rows: u32, bytes: usize| {
            let round_id = "r".parse().expect("an id");
            let mut writer =
                TableWriter::new(Vec::new(), &TableContext { round_id: &round_id }).expect("opens");
            let mut rows_left = pieces(rows, bytes);
            loop {
                let some: Vec<StreamRow> = rows_left.by_ref().take(2000).collect();
                if some.is_empty() {
                    break;
                }
                writer.write(&some).expect("writes");
            }
            assert!(writer.writer.in_progress_rows() < GROUP_ROWS);
            assert!(writer.writer.in_progress_size() < GROUP_BYTES);
            assert!(!writer.writer.flushed_row_groups().is_empty(), "{rows} rows of {bytes} bytes");
        };
        check(60_000, 1);
        check(700, 50_000);
    }

    #[test]
    fn groups_give_the_bytes_of_the_whole_table() {
        let round_id = "r".parse().expect("an id");
        let context = TableContext { round_id: &round_id };
        let rows: Vec<StreamRow> = pieces(120_000, 1).collect();
        let mut writer = TableWriter::new(Vec::new(), &context).expect("opens");
        rows.chunks(GROUP_ROWS).for_each(|rows| writer.write_group(rows).expect("writes"));
        writer.write_group(&[]).expect("writes nothing");
        assert!(
            writer.finish().expect("closes") == crate::artifact::encode(&rows, &context).expect("encodes")
        );
    }
}
