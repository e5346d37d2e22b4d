//! The rows of a corpus: an operator's file of texts, Parquet or JSON lines.
//!
//! The file is read as a stranger's: bounded in bytes, rows and bytes a text, some rows at a time, and whatever is wrong with
//! it is said with its row. Which rows are asked is drawn elsewhere; what two equal texts count is too.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _};
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_array::{Array, LargeStringArray, RecordBatch, StringArray, StringViewArray};
use arrow_schema::{ArrowError, DataType};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use serde_json::value::RawValue;

use crate::model::MAX_TEXT_BYTES;

/// Largest file of a corpus, in bytes.
pub const MAX_CORPUS_BYTES: u64 = 1 << 30;
/// Most rows of a corpus.
const MAX_ROWS: u32 = 1_000_000;
/// Longest line of a file of JSON lines, in bytes: its other keys may be longer than the text.
const MAX_LINE_BYTES: u64 = 1 << 20;
/// Number of rows of a Parquet file that are decoded at a time.
const BATCH_ROWS: usize = 256;
/// What a Parquet file begins with.
const PARQUET: &[u8; 4] = b"PAR1";

/// Why a file is no corpus. Rows and lines count from 1.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum CorpusError {
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    #[error("it has more than {MAX_CORPUS_BYTES} bytes")]
    TooLarge,
    #[error("it has more than {MAX_ROWS} rows")]
    TooManyRows,
    #[error("it has no rows")]
    NoRows,
    #[error("line {line} is not UTF-8")]
    NotUtf8 { line: u32 },
    #[error("line {line} has more than {MAX_LINE_BYTES} bytes")]
    LineTooLong { line: u32 },
    #[error("line {line} is no JSON object")]
    Json { line: u32, source: serde_json::Error },
    #[error("line {line} has no key `{column}`")]
    NoKey { line: u32, column: String },
    #[error("row {row}: `{column}` is null")]
    Null { row: u32, column: String },
    #[error("row {row}: `{column}` is no text")]
    NoText { row: u32, column: String },
    #[error("row {row}: `{column}` is empty")]
    Empty { row: u32, column: String },
    #[error("row {row}: `{column}` has {bytes} bytes, at most {MAX_TEXT_BYTES} are taken")]
    TextTooLong { row: u32, column: String, bytes: usize },
    #[error("it is no Parquet file that can be read")]
    Parquet(#[source] ParquetError),
    #[error("what follows row {after} cannot be read: a damaged page, or text that is not UTF-8")]
    Page { after: u32, source: ArrowError },
    #[error("it has no column `{column}`: it has {found}")]
    NoColumn { column: String, found: String },
    #[error("its column `{column}` is {found}, want text")]
    ColumnType { column: String, found: Box<DataType> },
    #[error("it is damaged in a way that its reader does not survive")]
    Damaged,
}

/// Reads the texts of a corpus from an open file, in the order of its rows; the rows count from 0.
///
/// # Errors
/// The first thing that is wrong with the file, with its row or line.
pub fn read_corpus(file: &File, column: &str, each: impl FnMut(u32, &str)) -> Result<(), CorpusError> {
    if file.metadata()?.len() > MAX_CORPUS_BYTES {
        return Err(CorpusError::TooLarge);
    }
    let mut file = file.try_clone()?;
    file.rewind()?;
    let mut first = Vec::new();
    io::Read::by_ref(&mut file).take(PARQUET.len() as u64).read_to_end(&mut first)?;
    file.rewind()?;
    let mut rows = Rows { column, count: 0, each };
    if first == PARQUET {
        // The Parquet reader asserts some of what it reads; a crafted file must not end the program.
        catch_unwind(AssertUnwindSafe(|| rows.parquet(file))).unwrap_or(Err(CorpusError::Damaged))?;
    } else {
        rows.lines(file)?;
    }
    if rows.count == 0 { Err(CorpusError::NoRows) } else { Ok(()) }
}

/// The rows that were read so far.
struct Rows<'a, F> {
    column: &'a str,
    count: u32,
    each: F,
}

impl<F: FnMut(u32, &str)> Rows<'_, F> {
    /// Takes in the next row; none is null.
    fn take(&mut self, text: Option<&str>) -> Result<(), CorpusError> {
        if self.count == MAX_ROWS {
            return Err(CorpusError::TooManyRows);
        }
        let (row, column) = (self.count + 1, || self.column.to_owned());
        let text = text.ok_or_else(|| CorpusError::Null { row, column: column() })?;
        if text.trim().is_empty() {
            return Err(CorpusError::Empty { row, column: column() });
        }
        if text.len() > MAX_TEXT_BYTES as usize {
            return Err(CorpusError::TextTooLong { row, column: column(), bytes: text.len() });
        }
        (self.each)(self.count, text);
        self.count += 1;
        Ok(())
    }

    fn lines(&mut self, file: File) -> Result<(), CorpusError> {
        let mut reader = BufReader::new(file);
        let (mut bytes, mut line) = (Vec::new(), 0);
        loop {
            bytes.clear();
            line += 1;
            let mut bounded = io::Read::by_ref(&mut reader).take(MAX_LINE_BYTES + 1);
            if bounded.read_until(b'\n', &mut bytes)? == 0 {
                return Ok(());
            }
            if bytes.len() as u64 > MAX_LINE_BYTES {
                return Err(CorpusError::LineTooLong { line });
            }
            let text = std::str::from_utf8(&bytes).map_err(|_| CorpusError::NotUtf8 { line })?;
            let json = |source| CorpusError::Json { line, source };
            let object: std::collections::BTreeMap<String, &RawValue> =
                serde_json::from_str(text).map_err(json)?;
            let Some(value) = object.get(self.column) else {
                return Err(CorpusError::NoKey { line, column: self.column.to_owned() });
            };
            let value = value.get();
            if value != "null" && !value.starts_with('"') {
                return Err(CorpusError::NoText { row: self.count + 1, column: self.column.to_owned() });
            }
            let value: Option<String> = serde_json::from_str(value).map_err(json)?;
            self.take(value.as_deref())?;
        }
    }

    fn parquet(&mut self, file: File) -> Result<(), CorpusError> {
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
            .map_err(CorpusError::Parquet)?;
        if builder.metadata().file_metadata().num_rows() > i64::from(MAX_ROWS) {
            return Err(CorpusError::TooManyRows);
        }
        let schema = builder.schema();
        let Ok(position) = schema.index_of(self.column) else {
            let names = schema.fields().iter().take(12).map(|field| format!("`{:.60}`", field.name()));
            let found = names.collect::<Vec<_>>().join(", ");
            return Err(CorpusError::NoColumn { column: self.column.to_owned(), found });
        };
        let found = schema.field(position).data_type().clone();
        if !matches!(found, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) {
            return Err(CorpusError::ColumnType { column: self.column.to_owned(), found: Box::new(found) });
        }
        let columns = ProjectionMask::roots(builder.parquet_schema(), [position]);
        let batches = builder.with_projection(columns).with_batch_size(BATCH_ROWS).build();
        for batch in batches.map_err(CorpusError::Parquet)? {
            let after = self.count;
            self.batch(&batch.map_err(|source| CorpusError::Page { after, source })?)?;
        }
        Ok(())
    }

    fn batch(&mut self, batch: &RecordBatch) -> Result<(), CorpusError> {
        let Some(column) = batch.columns().first() else { return Ok(()) };
        let any = column.as_any();
        if let Some(texts) = any.downcast_ref::<StringArray>() {
            texts.iter().try_for_each(|text| self.take(text))
        } else if let Some(texts) = any.downcast_ref::<LargeStringArray>() {
            texts.iter().try_for_each(|text| self.take(text))
        } else if let Some(texts) = any.downcast_ref::<StringViewArray>() {
            texts.iter().try_for_each(|text| self.take(text))
        } else {
            let found = Box::new(column.data_type().clone());
            Err(CorpusError::ColumnType { column: self.column.to_owned(), found })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array};
    use parquet::arrow::ArrowWriter;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("writes");
        file
    }

    fn read(bytes: &[u8]) -> Result<Vec<String>, String> {
        let mut texts = Vec::new();
        let each = |row: u32, text: &str| {
            assert_eq!(row as usize, texts.len());
            texts.push(text.to_owned());
        };
        match read_corpus(&file(bytes), "prompt", each) {
            Ok(()) => Ok(texts),
            Err(error) => Err(error.to_string()),
        }
    }

    fn parquet(name: &str, column: ArrayRef) -> Vec<u8> {
        let other: ArrayRef = Arc::new(Int64Array::from(vec![7; column.len()]));
        let batch = RecordBatch::try_from_iter([("id", other), (name, column)]).expect("a batch");
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("a writer");
        writer.write(&batch).expect("writes");
        writer.close().expect("closes");
        bytes
    }

    #[test]
    fn json_lines() {
        let check = |text: &str, expected: Result<&[&str], &str>| {
            let found = read(text.as_bytes());
            let found = found.as_ref().map(|texts| texts.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(found.as_deref().map_err(|error| error.as_str()), expected, "{text:.80}");
        };
        check("{\"prompt\":\"a\\n\\u00e9\",\"x\":[1]}\n{\"x\":1,\"prompt\":\"b\"}", Ok(&["a\né", "b"]));
        check("{\"prompt\":\"a\"}\r\n{\"prompt\":\"a\"}\n", Ok(&["a", "a"]));
        check("", Err("it has no rows"));
        check("{\"prompt\":\"a\"}\n\n{\"prompt\":\"b\"}", Err("line 2 is no JSON object"));
        check("{\"prompt\":\"a\"}\n[1]", Err("line 2 is no JSON object"));
        check("{\"prompt\":\"a\"}\n{\"prompt\":\"b", Err("line 2 is no JSON object"));
        check("{\"text\":\"a\"}", Err("line 1 has no key `prompt`"));
        check("{\"prompt\":null}", Err("row 1: `prompt` is null"));
        check("{\"prompt\":\"a\"}\n{\"prompt\":7}", Err("row 2: `prompt` is no text"));
        check("{\"prompt\":\"a\"}\n{\"prompt\":\" \\n\"}", Err("row 2: `prompt` is empty"));
        check("{\"prompt\":\"\\ud800\"}", Err("line 1 is no JSON object"));
        let long = format!("{{\"prompt\":\"{}\"}}", "x".repeat(65_537));
        check(&long, Err("row 1: `prompt` has 65537 bytes, at most 65536 are taken"));
        let longest = format!("{{\"prompt\":\"{}\"}}", "x".repeat(65_536));
        assert_eq!(read(longest.as_bytes()).expect("reads")[0].len(), 65_536);
        let line = format!("{{\"prompt\":\"a\",\"x\":\"{}\"}}", "x".repeat(1 << 20));
        check(&line, Err("line 1 has more than 1048576 bytes"));
        assert_eq!(read(b"{\"prompt\":\"a\"}\n{\"prompt\":\"\xff\"}"), Err("line 2 is not UTF-8".to_owned()));
        let many = "{\"prompt\":\"a\"}\n".repeat(1_000_001);
        check(&many, Err("it has more than 1000000 rows"));
    }

    #[test]
    fn a_file_may_not_be_larger_than_the_bound() {
        let sparse = tempfile::tempfile().expect("a file");
        sparse.set_len(MAX_CORPUS_BYTES + 1).expect("grows");
        assert!(matches!(read_corpus(&sparse, "prompt", |_, _| {}), Err(CorpusError::TooLarge)));
    }

    #[test]
    fn parquet_files() {
        let texts = |texts: &[Option<&str>]| -> ArrayRef { Arc::new(StringArray::from(texts.to_vec())) };
        let check = |column: ArrayRef, expected: Result<&[&str], &str>| {
            let found = read(&parquet("prompt", column));
            let found = found.as_ref().map(|texts| texts.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(found.as_deref().map_err(|error| error.as_str()), expected);
        };
        check(texts(&[Some("a"), Some("é")]), Ok(&["a", "é"]));
        check(Arc::new(LargeStringArray::from(vec!["a"])), Ok(&["a"]));
        check(Arc::new(StringViewArray::from(vec!["a"])), Ok(&["a"]));
        check(texts(&[]), Err("it has no rows"));
        check(texts(&[Some("a"), None]), Err("row 2: `prompt` is null"));
        check(texts(&[Some("")]), Err("row 1: `prompt` is empty"));
        check(Arc::new(Int64Array::from(vec![1])), Err("its column `prompt` is Int64, want text"));
        let long = "x".repeat(65_537);
        check(texts(&[Some(&long)]), Err("row 1: `prompt` has 65537 bytes, at most 65536 are taken"));
        let many: ArrayRef = Arc::new(StringArray::from(vec!["a"; 1_000_001]));
        check(many, Err("it has more than 1000000 rows"));
        let named = read(&parquet("text", texts(&[Some("a")])));
        assert_eq!(named, Err("it has no column `prompt`: it has `id`, `text`".to_owned()));
    }

    #[test]
    fn damaged_parquet_files_are_errors() {
        let column: ArrayRef = Arc::new(StringArray::from(vec!["some text"; 300]));
        let whole = parquet("prompt", column);
        assert!(read(&whole[..whole.len() / 2]).is_err());
        assert!(read(b"PAR1").is_err());
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            // Whatever it is, it ends in texts or in an error.
            let _ = read(&bytes);
        }
        let invalid = whole.windows(9).position(|bytes| bytes == b"some text").expect("the dictionary");
        let mut bytes = whole;
        bytes[invalid] = 0xff;
        let said = read(&bytes).expect_err("an error");
        assert!(said.contains("cannot be read"), "{said}");
    }
}
