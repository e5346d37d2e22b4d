//! The end of a table's file, which says what is in it, checked before anything else of it is read.
//!
//! A query scans files without decoding them first, so what a reader would believe is held against the table here:
//! identity, version and columns, that every piece lies inside the file, and that all rows are of one round. Nothing is
//! decoded; that the pieces are what they were is the seal's work.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};

use parquet::arrow::parquet_to_arrow_schema;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData,
};
use parquet::file::statistics::Statistics;

use super::parquet_file::{check_identity, check_schema};
use super::{ArtifactError, FormatVersion, Table};
use crate::model::RoundId;

/// Number of bytes that every Parquet file begins with.
const MAGIC_BYTES: u64 = 4;
/// Most values, and most unpacked bytes, of one column in one row group: 50,000 rows make far less.
const MAX_CHUNK: i64 = 1 << 31;
/// Name of the column that says of which round a row is.
const ROUND_COLUMN: &str = "round_id";

/// What a file says of the table in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFooter {
    /// Number of rows in the table.
    pub rows: u64,
    /// Version of the table's schema, if the file says one.
    pub version: Option<FormatVersion>,
}

/// Reads and checks the end of a file.
pub(super) fn read_footer<T: Table>(round_id: &RoundId, file: &File) -> Result<TableFooter, ArtifactError> {
    // The Parquet reader asserts some of what it reads; a crafted file must not end the program.
    catch_unwind(AssertUnwindSafe(|| read_footer_unguarded::<T>(round_id, file)))
        .unwrap_or(Err(ArtifactError::Damaged { table: T::NAME }))
}

fn read_footer_unguarded<T: Table>(round_id: &RoundId, file: &File) -> Result<TableFooter, ArtifactError> {
    let read = |source: ParquetError| ArtifactError::Read { table: T::NAME, source };
    let metadata = ParquetMetaDataReader::new().parse_and_finish(file).map_err(read)?;
    let about = metadata.file_metadata();
    let version = check_identity::<T>(about.key_value_metadata())?;
    let schema = parquet_to_arrow_schema(about.schema_descr(), None).map_err(read)?;
    check_schema::<T>(&schema, version)?;
    let bytes = file.metadata().map_err(|error| read(ParquetError::External(Box::new(error))))?.len();
    let rows = check_layout(&metadata, bytes).map_err(|why| ArtifactError::Layout { table: T::NAME, why })?;
    if metadata.row_groups().iter().all(|group| is_of_round(group, round_id)) {
        Ok(TableFooter { rows, version })
    } else {
        Err(ArtifactError::OtherRound { table: T::NAME, round: round_id.to_string() })
    }
}

/// The number of rows in a file, where everything that a reader would believe is possible.
fn check_layout(metadata: &ParquetMetaData, bytes: u64) -> Result<u64, &'static str> {
    let mut rows: u64 = 0;
    for group in metadata.row_groups() {
        let group_rows =
            u64::try_from(group.num_rows()).map_err(|_| "a group of rows has a negative size")?;
        rows = rows.checked_add(group_rows).ok_or("more rows than there are numbers")?;
        for column in group.columns() {
            check_chunk(column, group.num_rows(), bytes)?;
        }
    }
    if u64::try_from(metadata.file_metadata().num_rows()) == Ok(rows) {
        Ok(rows)
    } else {
        Err("the groups do not have as many rows as the file")
    }
}

fn check_chunk(column: &ColumnChunkMetaData, group_rows: i64, bytes: u64) -> Result<(), &'static str> {
    if column.file_path().is_some() {
        return Err("a column lies in another file");
    }
    if !matches!(column.compression(), Compression::ZSTD(_) | Compression::UNCOMPRESSED) {
        return Err("a column is compressed by something else than zstd");
    }
    let offset =
        |offset: i64| u64::try_from(offset).ok().filter(|offset| (MAGIC_BYTES..bytes).contains(offset));
    let first = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
    let end = offset(first)
        .filter(|first| offset(column.data_page_offset()).is_some_and(|data| *first <= data))
        .and_then(|first| first.checked_add(u64::try_from(column.compressed_size()).ok()?));
    if end.is_none_or(|end| end > bytes) {
        return Err("a column does not lie inside the file");
    }
    let is_flat = column.column_descr().max_rep_level() == 0;
    let values = column.num_values();
    if !(group_rows..MAX_CHUNK).contains(&values) || (is_flat && values != group_rows) {
        return Err("a column does not have a value for each row");
    }
    if !(0..MAX_CHUNK).contains(&column.uncompressed_size()) {
        return Err("a column unpacks to more than a group of rows holds");
    }
    Ok(())
}

/// Whether a row group's smallest and greatest round are this one, and none is absent.
fn is_of_round(group: &RowGroupMetaData, round_id: &RoundId) -> bool {
    let column = group.columns().iter().find(|column| column.column_path().string() == ROUND_COLUMN);
    let Some(Statistics::ByteArray(found)) = column.and_then(ColumnChunkMetaData::statistics) else {
        return group.num_rows() == 0;
    };
    let is_round = |value: Option<&parquet::data_type::ByteArray>| {
        value.is_some_and(|value| value.data() == round_id.as_str().as_bytes())
    };
    is_round(found.min_opt()) && is_round(found.max_opt()) && found.null_count_opt().unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::table::grown::{FirstRow, GrownRow, NewerRow};
    use super::super::{TableContext, encode};
    use super::*;
    use crate::model::WeightRow;

    fn id(text: &str) -> RoundId {
        text.parse().expect("an id")
    }

    fn on_disk(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("writes");
        file
    }

    fn file<T: Table>(round: &str, rows: &[T]) -> File {
        on_disk(&encode(rows, &TableContext { round_id: &id(round) }).expect("encodes"))
    }

    fn first(round: &str) -> FirstRow {
        FirstRow { round_id: round.to_owned(), number: 1 }
    }

    #[test]
    fn what_a_file_says() {
        let long = "a".repeat(64);
        let read = |file: &File, round: &str| read_footer::<GrownRow>(&id(round), file);
        let check = |file: &File, round: &str, rows: u64, minor: u32| {
            let expected = TableFooter { rows, version: Some(FormatVersion::new(1, minor)) };
            assert_eq!(read(file, round).expect("a footer"), expected);
        };
        check(&file("demo-1", &[first("demo-1"), first("demo-1")]), "demo-1", 2, 0);
        check(&file(&long, &[first(&long)]), &long, 1, 0);
        check(&file::<GrownRow>("demo-1", &[]), "demo-1", 0, 2);

        let refused = |file: &File, expected: &str| {
            assert_eq!(read(file, "demo-1").expect_err("refused").to_string(), expected);
        };
        let other = "table `grown` is not known to hold the rows of round demo-1 and no others";
        refused(&file("demo-2", &[first("demo-2")]), other);
        refused(&file("demo-1", &[first("demo-1"), first("demo-2")]), other);
        refused(
            &file::<NewerRow>("demo-1", &[]),
            "table `grown` has schema version `1.3`, this program reads 1.2 and older minor versions of it",
        );
        refused(&file::<WeightRow>("demo-1", &[]), "want table `grown`, the file holds `weights`");
        refused(&on_disk(b"junk"), "table `grown` is not a readable Parquet file");
    }

    #[test]
    fn damage_at_any_byte_unwinds_nobody() {
        let rows = [first("demo-1"), first("demo-1")];
        let bytes = encode(&rows, &TableContext { round_id: &id("demo-1") }).expect("encodes");
        for cut in 0..bytes.len() {
            assert!(read_footer::<GrownRow>(&id("demo-1"), &on_disk(&bytes[..cut])).is_err(), "cut at {cut}");
        }
        for offset in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[offset] ^= [0x01, 0x80, 0xff][offset % 3];
            drop(read_footer::<GrownRow>(&id("demo-1"), &on_disk(&damaged)));
        }
    }
}
