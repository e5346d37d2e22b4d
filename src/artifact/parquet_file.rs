//! Rows to Parquet bytes and back.
//!
//! The same rows give the same bytes: sorted, one row group layout ([`TableWriter`]'s), no clock in the metadata. What comes
//! back is checked as a stranger's file: bounded in bytes and rows, each column by name and type.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_schema::Schema;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::table_writer::{KEY_TABLE, KEY_VERSION, TableContext, TableWriter};
use super::{ArtifactError, FormatVersion, Projection, Table};

/// Number of rows decoded at a time: bounds what one crafted page can unfold into.
const BATCH_ROWS: usize = 4096;
/// Largest file that is decoded, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// Most rows that one file may have.
const MAX_ROWS: u64 = 50_000_000;
/// Most memory that the columns of one file may take, in bytes.
const MAX_DECODED_BYTES: u64 = 8 << 30;

/// A table as the bytes of its file: sorted, zstd, deterministic. No rows give a file with a schema.
///
/// # Errors
/// When Arrow or Parquet refuse the rows, which takes more than 2 GiB of text in one of them.
pub fn encode<T: Table>(rows: &[T], context: &TableContext<'_>) -> Result<Vec<u8>, ArtifactError> {
    let mut sorted: Vec<&T> = rows.iter().collect();
    sorted.sort_by(|left, right| T::compare(left, right));
    let mut writer = TableWriter::<T, Vec<u8>, &T>::new(Vec::new(), context)?;
    for row in sorted {
        writer.write(row)?;
    }
    writer.finish()
}

/// The rows of a file that anybody may have written, or what a projection takes of each.
///
/// # Errors
/// When the bytes are no Parquet file, or one of another table, version or schema, or beyond the bounds, or when
/// a row holds a word that is none of its column's vocabulary.
pub fn decode<P: Projection>(bytes: &[u8]) -> Result<Vec<P>, ArtifactError> {
    let mut rows = Vec::new();
    each_batch::<P>(bytes, |batch| {
        rows.extend(batch);
        Ok(())
    })?;
    Ok(rows)
}

/// The same table as a plain file: no compression, dictionaries or statistics.
pub(super) fn rewrite_as<T: Table>(bytes: &[u8]) -> Result<Vec<u8>, ArtifactError> {
    let write = |source: ParquetError| ArtifactError::Write { table: T::NAME, source };
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .build();
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut plain = Vec::new();
    let mut writer =
        ArrowWriter::try_new_with_options(&mut plain, Arc::new(T::schema()), options).map_err(write)?;
    each_batch::<T>(bytes, |rows| {
        writer.write(&T::to_batch(&rows.iter().collect::<Vec<_>>())?).map_err(write)
    })?;
    writer.close().map_err(write)?;
    Ok(plain)
}

/// Reads a stranger's file some rows at a time.
fn each_batch<P: Projection>(
    bytes: &[u8],
    mut act: impl FnMut(Vec<P>) -> Result<(), ArtifactError>,
) -> Result<(), ArtifactError> {
    bound::<P::Row>(bytes.len() as u64, MAX_FILE_BYTES, "bytes")?;
    let bytes = Bytes::copy_from_slice(bytes);
    // The Parquet reader asserts some of what it reads; a crafted file must not end the program.
    catch_unwind(AssertUnwindSafe(|| each_batch_unguarded::<P>(bytes, &mut act)))
        .unwrap_or(Err(ArtifactError::Damaged { table: P::Row::NAME }))
}

fn each_batch_unguarded<P: Projection>(
    bytes: Bytes,
    act: &mut impl FnMut(Vec<P>) -> Result<(), ArtifactError>,
) -> Result<(), ArtifactError> {
    let read = |source: ParquetError| ArtifactError::Read { table: P::Row::NAME, source };
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options).map_err(read)?;
    let version = check_identity::<P::Row>(builder.metadata().file_metadata().key_value_metadata())?;
    check_schema::<P::Row>(builder.schema(), version)?;
    let claimed = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(u64::MAX);
    bound::<P::Row>(claimed, MAX_ROWS, "rows")?;
    let columns = builder.parquet_schema();
    let columns = P::COLUMNS
        .map_or_else(ProjectionMask::all, |wanted| ProjectionMask::columns(columns, wanted.iter().copied()));
    let (mut rows, mut decoded_bytes) = (0, 0);
    for batch in builder.with_projection(columns).with_batch_size(BATCH_ROWS).build().map_err(read)? {
        let batch = batch.map_err(|source| ArtifactError::Page { table: P::Row::NAME, source })?;
        let rows_before = rows;
        rows += batch.num_rows();
        bound::<P::Row>(rows as u64, MAX_ROWS, "rows")?;
        decoded_bytes += batch.get_array_memory_size() as u64;
        bound::<P::Row>(decoded_bytes, MAX_DECODED_BYTES, "bytes in memory")?;
        act(P::project(&batch, rows_before)?)?;
    }
    Ok(())
}

fn bound<T: Table>(value: u64, limit: u64, unit: &'static str) -> Result<(), ArtifactError> {
    if value > limit { Err(ArtifactError::TooLarge { table: T::NAME, limit, unit }) } else { Ok(()) }
}

/// What the file says it is: the version of its schema, if it says one.
pub(super) fn check_identity<T: Table>(
    metadata: Option<&Vec<KeyValue>>,
) -> Result<Option<FormatVersion>, ArtifactError> {
    let said = |key: &str| {
        let pair = metadata.into_iter().flatten().find(|pair| pair.key == key)?;
        Some(pair.value.clone().unwrap_or_default().chars().take(80).collect::<String>())
    };
    if let Some(found) = said(KEY_TABLE).filter(|found| found != T::NAME) {
        return Err(ArtifactError::OtherTable { table: T::NAME, found });
    }
    let Some(found) = said(KEY_VERSION) else { return Ok(None) };
    // The first files say `1`.
    let version = found.parse().ok().or_else(|| Some(FormatVersion::new(found.parse().ok()?, 0)));
    match version {
        Some(version) if version.major == T::VERSION.major && version <= T::VERSION => Ok(Some(version)),
        _ => Err(ArtifactError::OtherVersion { table: T::NAME, found, expected: T::VERSION }),
    }
}

/// Checks the columns by name and type, in any order. What was added after the file's version may be missing; a file
/// that says no version is judged by its columns alone.
pub(super) fn check_schema<T: Table>(
    found: &Schema,
    version: Option<FormatVersion>,
) -> Result<(), ArtifactError> {
    let (table, expected) = (T::NAME, T::schema());
    let minor = version.map_or(0, |version| version.minor);
    for field in expected.fields() {
        let column = field.name().clone();
        match found.field_with_name(&column) {
            Err(_) if T::minor_of(&column) > minor => {}
            Err(_) => return Err(ArtifactError::MissingColumn { table, column }),
            Ok(other) if other.data_type() != field.data_type() => {
                let (found, expected) =
                    (Box::new(other.data_type().clone()), Box::new(field.data_type().clone()));
                return Err(ArtifactError::ColumnType { table, column, found, expected });
            }
            Ok(_) => {}
        }
    }
    match found.fields().iter().find(|field| expected.field_with_name(field.name()).is_err()) {
        None => Ok(()),
        Some(field) => {
            let column = field.name().chars().take(80).collect();
            Err(ArtifactError::UnexpectedColumn { table, column })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use arrow_array::builder::{ListBuilder, StringBuilder};
    use arrow_array::{ArrayRef, RecordBatch, StringArray};
    use arrow_schema::DataType;
    use parquet::file::metadata::RowGroupMetaData;
    use proptest::prelude::*;

    use super::super::cell::Scalar as _;
    use super::super::drawn::{DrawnRow, DrawnValues};
    use super::super::table::grown::{FirstRow, GrownRow, NewerRow};
    use super::super::table_writer::{CREATED_BY, KEY_ROUND};
    use super::*;
    use crate::model::{
        Check, CommitmentRow, DecisionRow, ExchangeRow, LeaderboardRow, ReadRow, RequestFlag, RequestRow,
        RequestTimes, RoundId, StepAttemptRow, StreamRow, SubmissionRow, TokenRow, VerdictRow, WeightRow,
    };

    /// Rows of any table, drawn from the values by index, so that neighbouring columns differ.
    fn rows<T: DrawnRow>(values: &[DrawnValues]) -> Vec<T> {
        let row = |row: usize| T::drawn_row((row..).step_by(3).map(|index| &values[index % values.len()]));
        (0..values.len()).map(row).collect()
    }

    fn round_id() -> RoundId {
        "demo-1".parse().expect("an id")
    }

    fn file<T: Table>(rows: &[T]) -> Vec<u8> {
        encode(rows, &TableContext { round_id: &round_id() }).expect("encodes")
    }

    fn round_trip<T: Table + DrawnRow + Clone + PartialEq + Debug>(values: &[DrawnValues]) {
        let mut rows = rows::<T>(values);
        let bytes = file(&rows);
        T::sort(&mut rows);
        assert_eq!(decode::<T>(&bytes).expect("decodes"), rows);
        assert_eq!(decode::<T>(&rewrite_as::<T>(&bytes).expect("rewrites")).expect("decodes"), rows);
        assert_eq!(file(&rows), bytes, "same rows, same bytes");
    }

    /// For each table: the macro's argument is what to do with it.
    macro_rules! with_each_table {
        ($act:ident($($argument:expr),*)) => {{
            $act::<CommitmentRow>($($argument),*);
            $act::<SubmissionRow>($($argument),*);
            $act::<ReadRow>($($argument),*);
            $act::<RequestRow>($($argument),*);
            $act::<TokenRow>($($argument),*);
            $act::<VerdictRow>($($argument),*);
            $act::<DecisionRow>($($argument),*);
            $act::<LeaderboardRow>($($argument),*);
            $act::<WeightRow>($($argument),*);
            $act::<StepAttemptRow>($($argument),*);
            $act::<ExchangeRow>($($argument),*);
            $act::<StreamRow>($($argument),*);
        }};
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_written_is_read(values in prop::collection::vec(any::<DrawnValues>(), 0..12)) {
            with_each_table!(round_trip(&values));
        }

        #[test]
        fn some_columns_are_read_without_the_others(values in prop::collection::vec(any::<DrawnValues>(), 1..12)) {
            let mut rows = rows::<RequestRow>(&values);
            let bytes = file(&rows);
            RequestRow::sort(&mut rows);
            let times: Vec<RequestTimes> = rows.iter().map(RequestTimes::from).collect();
            prop_assert_eq!(decode::<RequestTimes>(&bytes).expect("decodes"), times);
        }

        #[test]
        fn junk_is_an_error(junk in prop::collection::vec(any::<u8>(), 0..256)) {
            prop_assert!(decode::<TokenRow>(&junk).is_err());
        }
    }

    fn weights(count: u32) -> Vec<WeightRow> {
        let row = |number: u32| WeightRow {
            round_id: "demo-1".to_owned(),
            hotkey: format!("{:05}", count - number),
            uid: number.is_multiple_of(2).then_some(number),
            share: 1.0 / f64::from(number + 1),
            weight: (number % 65536) as u16,
            ..WeightRow::default()
        };
        (0..count).map(row).collect()
    }

    #[test]
    fn an_empty_table_has_its_schema() {
        let bytes = file::<RequestRow>(&[]);
        assert_eq!(decode::<RequestRow>(&bytes).expect("decodes"), []);
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).expect("opens");
        assert_eq!(reader.schema().fields(), RequestRow::schema().fields());
    }

    #[test]
    fn the_file_says_what_it_is() {
        let reader =
            ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file(&weights(120_000)))).expect("opens");
        let metadata = reader.metadata().file_metadata();
        assert_eq!(metadata.created_by(), Some(CREATED_BY));
        let groups: Vec<i64> =
            reader.metadata().row_groups().iter().map(RowGroupMetaData::num_rows).collect();
        assert_eq!(groups, [50_000, 50_000, 20_000]);
        let pairs = metadata.key_value_metadata().expect("has some").iter();
        let pairs: Vec<_> =
            pairs.map(|pair| (pair.key.as_str(), pair.value.as_deref().unwrap_or(""))).collect();
        assert_eq!(pairs, [(KEY_ROUND, "demo-1"), (KEY_VERSION, "1.0"), (KEY_TABLE, "weights")]);
    }

    #[test]
    fn rows_are_sorted_whatever_their_order() {
        let rows = weights(1000);
        let mut reversed = rows.clone();
        reversed.reverse();
        assert_eq!(file(&rows), file(&reversed));
        assert_eq!(decode::<WeightRow>(&file(&rows)).expect("decodes")[0].hotkey, "00001");
    }

    #[test]
    fn another_table_is_refused_by_name() {
        let error = decode::<TokenRow>(&file(&weights(1))).expect_err("weights");
        assert_eq!(error.to_string(), "want table `tokens`, the file holds `weights`");
        let error = decode::<RequestTimes>(&file(&weights(1))).expect_err("weights");
        assert_eq!(error.to_string(), "want table `requests`, the file holds `weights`");
    }

    /// A file that says nothing of itself, as any other tool would write it.
    fn foreign(fields: Vec<arrow_schema::Field>, columns: Vec<ArrayRef>) -> Vec<u8> {
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("a batch");
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("opens");
        writer.write(&batch).expect("writes");
        writer.close().expect("closes");
        bytes
    }

    #[test]
    fn another_schema_is_refused_by_column() {
        let check = |change: fn(&mut Vec<arrow_schema::Field>, &mut Vec<ArrayRef>), expected: &str| {
            let refs = weights(2);
            let batch = WeightRow::to_batch(&refs.iter().collect::<Vec<_>>()).expect("a batch");
            let mut fields: Vec<_> = batch.schema().fields().iter().map(|field| (**field).clone()).collect();
            let mut columns = batch.columns().to_vec();
            change(&mut fields, &mut columns);
            let result = decode::<WeightRow>(&foreign(fields, columns));
            assert_eq!(result.map_err(|error| error.to_string()).err().unwrap_or_default(), expected);
        };
        check(|_, _| (), "");
        check(
            |fields, columns| {
                fields.remove(2);
                columns.remove(2);
            },
            "table `weights` lacks the column `hotkey`",
        );
        check(
            |fields, columns| {
                fields.push(arrow_schema::Field::new("bribe", DataType::UInt32, false));
                columns.push(columns[1].clone());
            },
            "table `weights` has a column `bribe` that is not in its schema",
        );
        check(
            |fields, columns| {
                fields[5] = arrow_schema::Field::new("weight", DataType::UInt32, false);
                columns[5] = columns[1].clone();
            },
            "column `weight` of table `weights` has type UInt32, want UInt16",
        );
        check(
            |fields, columns| {
                fields[1] = arrow_schema::Field::new("netuid", DataType::UInt32, true);
                columns[1] = u32::array("netuid", [None, None].into_iter());
            },
            "column `netuid` of table `weights` has no value in some row, and must have one in all",
        );
    }

    /// The file of these rows with one column exchanged, as a stranger may write it.
    fn with_column<T: Table>(rows: &[T], name: &str, column: ArrayRef) -> Vec<u8> {
        let batch = T::to_batch(&rows.iter().collect::<Vec<_>>()).expect("a batch");
        let (index, _) = T::schema().column_with_name(name).expect("a column");
        let mut columns = batch.columns().to_vec();
        columns[index] = column;
        foreign(T::schema().fields().iter().map(|field| (**field).clone()).collect(), columns)
    }

    #[test]
    fn an_unknown_word_is_refused_where_it_stands() {
        fn check<T: Table + Debug>(file: &[u8], expected: &str) {
            let message = |error: ArtifactError| error.to_string();
            assert_eq!(decode::<T>(file).map_err(message).expect_err("an unknown word"), expected);
            assert_eq!(rewrite_as::<T>(file).map_err(message).expect_err("an unknown word"), expected);
        }
        let words = |wrong: usize, word: &'static str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(
                (0..5000).map(|row| if row == wrong { word } else { "pass" }),
            ))
        };
        let decisions = vec![DecisionRow::default(); 5000];
        check::<DecisionRow>(
            &with_column(&decisions, "outcome", words(4700, "passed")),
            "row 4701 of table `decisions`, column `outcome`: `passed` is none of `pass`, `fail`, `no-decision`",
        );
        let known = with_column(&decisions, "outcome", words(0, "pass"));
        assert_eq!(decode::<DecisionRow>(&known).expect("decodes"), decisions);

        let row = |flags: &[RequestFlag]| RequestRow {
            flags: flags.iter().copied().collect(),
            ..RequestRow::default()
        };
        let requests = [row(&[]), row(&[RequestFlag::TooLarge])];
        let mut lists = ListBuilder::new(StringBuilder::new()).with_field(arrow_schema::Field::new(
            "element",
            DataType::Utf8,
            false,
        ));
        lists.append_value([Some("bad_json")]);
        lists.append_value([Some("no_done"), Some("")]);
        let file = with_column(&requests, "flags", Arc::new(lists.finish()));
        let error = decode::<RequestRow>(&file).expect_err("an empty flag").to_string();
        assert!(
            error.starts_with("row 2 of table `requests`, column `flags`: `` is none of `bad_json`"),
            "{error}"
        );
    }

    #[test]
    fn a_table_grows_by_columns() {
        let round_id = "demo-1".to_owned();
        let first = FirstRow { round_id: round_id.clone(), number: 7 };
        let grown = GrownRow { round_id: round_id.clone(), number: 7, added_ns: None, note: None };
        assert_eq!(
            (FirstRow::VERSION, GrownRow::VERSION),
            (FormatVersion::new(1, 0), FormatVersion::new(1, 2))
        );
        let older = file(&[first]);
        assert_eq!(decode::<GrownRow>(&older).expect("reads the older minor"), std::slice::from_ref(&grown));
        assert_eq!(
            decode::<GrownRow>(&rewrite_as::<GrownRow>(&older).expect("rewrites")).expect("reads"),
            [grown]
        );

        let newer = NewerRow { round_id, number: 7, added_ns: Some(1), note: None, newest: Some(2) };
        assert_eq!(
            decode::<GrownRow>(&file(&[newer])).expect_err("a newer minor").to_string(),
            "table `grown` has schema version `1.3`, this program reads 1.2 and older minor versions of it"
        );
    }

    #[test]
    fn versions_that_are_read() {
        let check = |version: &str, expected: bool| {
            let pairs = vec![KeyValue::new(KEY_VERSION.to_owned(), version.to_owned())];
            assert_eq!(check_identity::<GrownRow>(Some(&pairs)).is_ok(), expected, "{version}");
        };
        for version in ["1", "1.0", "1.2"] {
            check(version, true);
        }
        for version in ["", "0", "0.9", "1.3", "2", "2.0", "x"] {
            check(version, false);
        }
    }

    /// A file that says that it is complete, and is not.
    #[test]
    fn a_column_of_the_files_own_version_must_be_there() {
        let found = FirstRow::schema();
        let check = |version, expected: bool| {
            assert_eq!(check_schema::<GrownRow>(&found, version).is_ok(), expected, "{version:?}");
        };
        check(None, true);
        check(Some(FormatVersion::new(1, 0)), true);
        check(Some(FormatVersion::new(1, 1)), false);
        check(Some(FormatVersion::new(1, 2)), false);
    }

    #[test]
    fn words_are_sorted_as_text() {
        let row = |check: Check| VerdictRow { check, ..VerdictRow::default() };
        let verdicts: Vec<VerdictRow> = Check::ALL.iter().copied().map(row).collect();
        let published = decode::<VerdictRow>(&file(&verdicts)).expect("decodes");
        assert!(published.is_sorted_by_key(|row| row.check.as_str()));
        assert_ne!(published, verdicts, "the order of the enum is another");
    }

    #[test]
    fn damage_at_any_byte_unwinds_nobody() {
        let bytes = file(&weights(3));
        for cut in (0..bytes.len()).step_by(7) {
            assert!(decode::<WeightRow>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for offset in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[offset] ^= [0x01, 0x80, 0xff][offset % 3];
            // A flipped value may read as another value: telling those apart is the seal's work.
            drop(decode::<WeightRow>(&damaged));
        }
    }
}
