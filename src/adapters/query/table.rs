//! One table in all rounds as a frame that is not read yet.
//!
//! A file of a sealed round is trusted if it is what its `SEAL` says: its digest is taken once and remembered, and the
//! end of the file is checked against the table before the engine sees it. It is then scanned where it lies.
//!
//! A round without a seal is running, or was interrupted. What it has published so far is part of the answer, as long
//! as it is small: its files are read whole by the strict reader and rewritten in memory, since nothing vouches for
//! them. They are few and end with the round's seal.

use std::fs::File;
use std::io::Cursor;
use std::path::Path;

use polars::io::HiveOptions;
use polars::prelude::{
    DataFrame, IdxSize, IntoLazy as _, LazyFrame, ParquetReader, PlRefPath, PolarsError, ScanArgsParquet,
    SchemaRef, SerReader as _, UnionArgs, concat,
};

use super::QueryError;
use super::digests::Digests;
use super::warnings::Warnings;
use crate::adapters::store::{RoundDirectory, StoreError, read_ticks};
use crate::artifact::{
    self, ArtifactError, Seal, SealDifference, SealEntry, TABLE_NAMES, TableContext, TableFooter, layout,
};
use crate::model::TickRow;
use crate::report::text::error_chain;

/// A round, with what its seal says of its tables if it has one.
#[derive(Debug)]
pub(super) struct QueriedRound {
    directory: RoundDirectory,
    seal: Result<Option<Seal>, StoreError>,
}

impl QueriedRound {
    /// Opens a round: reads the seal and keeps what it says of the tables alone, since a round has many other files.
    pub(super) fn open(directory: RoundDirectory) -> Self {
        let seal = directory.read_seal().map(|seal| seal.as_ref().map(of_tables));
        Self { directory, seal }
    }
}

fn of_tables(seal: &Seal) -> Seal {
    let entry = |path: String| {
        let (digest, size) = seal.get(&path)?;
        Some(SealEntry { digest: digest.clone(), size, path })
    };
    TABLE_NAMES.into_iter().filter_map(|table| entry(layout::table_path(table))).collect()
}

/// Why a file is left out of an answer.
#[derive(Debug, thiserror::Error)]
enum LeftOut {
    #[error("{0}")]
    Changed(SealDifference),
    #[error("`{path}` was sealed with {sealed} bytes and has {found}")]
    Size { path: String, sealed: u64, found: u64 },
    #[error("it holds rows of another round")]
    OtherRound,
    #[error(
        "the round is not sealed, and its file of {bytes} bytes is larger than what is read of such rounds at once"
    )]
    TooMuchUnsealed { bytes: u64 },
    #[error("its path is no text")]
    Path(#[source] PolarsError),
    #[error("it cannot be read")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the round has no usable seal: {0}")]
    Seal(String),
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error("the engine does not read it")]
    Engine(#[source] PolarsError),
}

/// Where the rows of a table of one round come from.
enum RowSource {
    Nothing,
    /// A sealed file, to be scanned where it lies, with its number of rows.
    Sealed(PlRefPath, u64),
    /// A file that was read whole already.
    Unsealed(DataFrame),
}

/// All tables of all rounds, as far as a query may still read them.
pub(super) struct Tables {
    pub(super) rounds: Vec<QueriedRound>,
    pub(super) digests: Digests,
    /// Number of bytes of unsealed files that may still be read.
    pub(super) unsealed_bytes: u64,
}

impl Tables {
    /// The table in all rounds, one below the other.
    pub(super) fn frame(
        &mut self,
        table: &'static str,
        warnings: &mut Warnings,
    ) -> Result<LazyFrame, QueryError> {
        let empty = empty(table)?;
        let (mut paths, mut frames, mut rows) = (Vec::new(), Vec::new(), 0);
        for round in &self.rounds {
            match source(table, round, &mut self.digests, &mut self.unsealed_bytes) {
                Ok(RowSource::Nothing) => {}
                Ok(RowSource::Sealed(path, count)) => {
                    paths.push(path);
                    rows += count;
                }
                Ok(RowSource::Unsealed(frame)) => {
                    rows += frame.height() as u64;
                    frames.push(frame.lazy());
                }
                Err(why) => warnings.left_out(&round.directory, table, &error_chain(&why)),
            }
        }
        let limit = u64::from(IdxSize::MAX);
        if rows >= limit {
            return Err(QueryError::TooLarge { table, limit });
        }
        if !paths.is_empty() {
            frames.insert(0, scan(paths, empty.schema()).map_err(QueryError::Sql)?);
        }
        if frames.is_empty() {
            frames.push(empty.lazy());
        }
        if frames.len() == 1 {
            return Ok(frames.remove(0));
        }
        concat(frames, UnionArgs::default()).map_err(QueryError::Sql)
    }
}

/// A table that lies beside the rounds.
pub(super) fn beside(
    table: &'static str,
    data_dir: &Path,
    warnings: &mut Warnings,
) -> Result<LazyFrame, QueryError> {
    let rows = ticks(data_dir).unwrap_or_else(|why| {
        warnings.add(format!("`{table}` is left out: {}", error_chain(&why)));
        Vec::new()
    });
    if rows.is_empty() {
        return Ok(empty(table)?.lazy());
    }
    let nowhere = "none".parse().expect("a round id");
    let bytes = artifact::encode(&rows, &TableContext { round_id: &nowhere })?;
    Ok(parse(bytes).map_err(QueryError::Sql)?.lazy())
}

/// What became of every tick.
pub(super) fn ticks(data_dir: &Path) -> Result<Vec<TickRow>, StoreError> {
    Ok(artifact::tick_rows(&read_ticks(data_dir)?))
}

/// The table without rows: it says what its columns must be.
pub(super) fn empty(table: &str) -> Result<DataFrame, QueryError> {
    let nowhere = "none".parse().expect("a round id");
    let bytes = artifact::encode_empty(table, &TableContext { round_id: &nowhere }).transpose()?;
    parse(bytes.unwrap_or_default()).map_err(QueryError::Sql)
}

fn source(
    table: &'static str,
    round: &QueriedRound,
    digests: &mut Digests,
    unsealed_bytes: &mut u64,
) -> Result<RowSource, LeftOut> {
    let relative = layout::table_path(table);
    let seal = round.seal.as_ref().map_err(|error| LeftOut::Seal(error_chain(error)))?;
    let sealed = seal.as_ref().and_then(|seal| seal.get(&relative));
    let (file, path) = match round.directory.open_file(&relative) {
        Err(error) if error.is_absence() => {
            return match sealed {
                Some(_) => Err(LeftOut::Changed(SealDifference::Missing(relative))),
                None => Ok(RowSource::Nothing),
            };
        }
        opened => opened?,
    };
    let size = file.metadata()?.len();
    if seal.is_none() {
        let frame = read_unsealed(table, round, size, unsealed_bytes)?;
        return Ok(RowSource::Unsealed(frame));
    }
    let Some((sealed, sealed_size)) = sealed else {
        return Err(LeftOut::Changed(SealDifference::Unsealed(relative)));
    };
    if size != sealed_size {
        return Err(LeftOut::Size { path: relative, sealed: sealed_size, found: size });
    }
    let key = format!("{}/{}/{relative}", layout::ROUNDS_DIR, layout::round_dir(round.directory.round_id()));
    let found = digests.digest(key, &file)?;
    if found != *sealed {
        return Err(LeftOut::Changed(SealDifference::Changed {
            path: relative,
            sealed: sealed.clone(),
            found,
        }));
    }
    let rows = inspect(table, round, &file)?.rows;
    // From the root, so that no name of a directory is taken for an address.
    let path = PlRefPath::try_from_path(&path.canonicalize()?).map_err(LeftOut::Path)?;
    Ok(RowSource::Sealed(path, rows))
}

/// Checks what the end of a sealed file says, and returns it.
fn inspect(table: &str, round: &QueriedRound, file: &File) -> Result<TableFooter, ArtifactError> {
    artifact::inspect(table, round.directory.round_id(), file).expect("the name of a table")
}

/// Reads a file that nothing vouches for. A crafted one can make the engine's own reader abort the program: it only
/// sees files of our making.
fn read_unsealed(
    table: &str,
    round: &QueriedRound,
    size: u64,
    bytes_left: &mut u64,
) -> Result<DataFrame, LeftOut> {
    let bytes = match round.directory.read(&layout::table_path(table), *bytes_left) {
        Err(StoreError::TooLarge { .. }) => return Err(LeftOut::TooMuchUnsealed { bytes: size }),
        read => read?,
    };
    *bytes_left -= bytes.len() as u64;
    let rewritten = artifact::rewrite(table, &bytes).transpose()?.unwrap_or_default();
    let frame = parse(rewritten).map_err(LeftOut::Engine)?;
    let column = frame.column("round_id").and_then(|column| column.str().cloned());
    let id = round.directory.round_id().as_str();
    if column.is_ok_and(|column| column.iter().all(|found| found == Some(id))) {
        Ok(frame)
    } else {
        Err(LeftOut::OtherRound)
    }
}

fn parse(bytes: Vec<u8>) -> Result<DataFrame, PolarsError> {
    ParquetReader::new(Cursor::new(bytes)).finish()
}

/// Files below one another; columns that older ones lack have no values there.
fn scan(paths: Vec<PlRefPath>, schema: &SchemaRef) -> Result<LazyFrame, PolarsError> {
    let arguments = ScanArgsParquet {
        schema: Some(SchemaRef::clone(schema)),
        hive_options: HiveOptions::new_disabled(),
        glob: false,
        cache: false,
        allow_missing_columns: true,
        ..ScanArgsParquet::default()
    };
    LazyFrame::scan_parquet_files(paths.into(), arguments)
}

#[cfg(test)]
mod tests {
    use polars::prelude::{DataType, Engine, PlSmallStr, Schema};

    use super::*;
    use crate::model::WeightRow;

    /// The schema of a newer minor version over the file of an older one.
    #[test]
    fn columns_that_a_file_lacks_are_null() {
        let data = tempfile::tempdir().expect("a directory");
        let row = WeightRow { round_id: "demo-1".to_owned(), share: 0.5, ..WeightRow::default() };
        let round_id = "demo-1".parse().expect("an id");
        let bytes = artifact::encode(&[row], &TableContext { round_id: &round_id }).expect("encodes");
        let path = data.path().join("weights.parquet");
        std::fs::write(&path, bytes).expect("writes");
        let mut schema = Schema::clone(empty("weights").expect("a table").schema());
        schema.insert(PlSmallStr::from_static("bonus"), DataType::Float64);
        let path = PlRefPath::try_from_path(&path).expect("a path");
        let scanned = scan(vec![path], &SchemaRef::new(schema)).expect("scans");
        let frame = scanned.collect_with_engine(Engine::Streaming).expect("reads").unwrap_single();
        assert_eq!(frame.shape(), (1, 9));
        assert_eq!(frame.column("bonus").expect("is there").null_count(), 1);
        assert_eq!(frame.column("share").expect("is there").null_count(), 0);
    }
}
