//! SQL over the tables of all rounds; the only file that names polars.
//!
//! A query sees one frame a table, all rounds below one another, and nothing else: no files, no network, nothing
//! to change. A round whose file is unreadable or foreign is left out with a warning. The dialect is the SQL of
//! polars, a subset (no scalar subqueries, no `EXISTS`); the files open in DuckDB for the rest.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use polars::prelude::{AnyValue, DataFrame, IdxSize, ParquetReader, PolarsError, SerReader as _, TimeUnit};
use polars::sql::{SQLContext, extract_table_identifiers};
use polars_lazy::frame::IntoLazy as _;
use serde_json::{Map, Value};

use super::store::{self, RoundDirectory, StoreError};
use crate::artifact::{self, ArtifactError, TABLE_NAMES, TableContext, layout};
use crate::report::QueryResult;
use crate::report::text::error_chain;

/// Words with which a statement that only reads begins.
const READING: [&str; 6] = ["SELECT", "WITH", "FROM", "VALUES", "TABLE", "SHOW"];
/// Warnings that are told; the rest is counted.
const MAX_WARNINGS: usize = 20;

/// How much a query may read and return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryLimits {
    /// Rows returned; more are cut off with a warning.
    pub rows: usize,
    /// Bytes of one table's files in all rounds together.
    pub table_bytes: u64,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self { rows: 1_000_000, table_bytes: 4 << 30 }
    }
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// A statement that would change something.
    #[error(
        "only reading is allowed: a query begins with SELECT, WITH, FROM, VALUES, TABLE, SHOW or EXPLAIN"
    )]
    NotReading,
    /// A function that opens a file.
    #[error("`{name}` is not allowed: a query reads the tables of the rounds ({})", TABLE_NAMES.join(", "))]
    TableFunction {
        /// Its name.
        name: String,
    },
    /// A table that does not exist.
    #[error("there is no table `{name}`; the tables are {}", TABLE_NAMES.join(", "))]
    UnknownTable {
        /// Its name.
        name: String,
    },
    /// The engine refuses the query.
    #[error("the query cannot be answered")]
    Sql(#[source] PolarsError),
    /// The engine fell over the query.
    #[error(
        "the query engine failed on this query: write it in a simpler way, or use DuckDB on the same files"
    )]
    Engine,
    /// The rounds cannot be listed.
    #[error("the rounds cannot be read")]
    Rounds(#[from] StoreError),
    /// An empty table could not be made.
    #[error("a table cannot be prepared")]
    Table(#[from] ArtifactError),
    /// More data than the limit.
    #[error("table `{table}` has more than {limit} bytes in all rounds together")]
    TooLarge {
        /// Table.
        table: &'static str,
        /// The bound.
        limit: u64,
    },
}

/// Answers a query over all rounds of a data directory.
///
/// # Errors
/// When the query is not one that only reads, names an unknown table, or the engine refuses it.
pub fn query(data_dir: &Path, sql: &str, limits: QueryLimits) -> Result<QueryResult, QueryError> {
    // The engine asserts some of what it meets; neither a query nor a file must end the program.
    catch_unwind(AssertUnwindSafe(|| answer(data_dir, sql, limits))).unwrap_or(Err(QueryError::Engine))
}

fn answer(data_dir: &Path, sql: &str, limits: QueryLimits) -> Result<QueryResult, QueryError> {
    check_reads_only(sql)?;
    let named = extract_table_identifiers(sql, true, true).map_err(QueryError::Sql)?;
    for name in named.iter().flat_map(|name| name.split('.')) {
        let lower = name.to_lowercase();
        if lower.starts_with("read_") || lower.starts_with("scan_") {
            return Err(QueryError::TableFunction { name: name.to_owned() });
        }
    }
    let rounds = store::directories(data_dir)?;
    let mut warnings = Warnings::default();
    let mut context = SQLContext::new();
    let is_show = leading_words(sql).first().is_some_and(|word| word == "SHOW");
    for table in TABLE_NAMES.into_iter().filter(|table| is_show || named.iter().any(|name| name == table)) {
        let rounds = if is_show { &[][..] } else { &rounds };
        context.register(table, load(table, rounds, limits, &mut warnings)?.lazy());
    }
    let explain = |error: PolarsError| explain(error, &named);
    let limit = IdxSize::try_from(limits.rows.saturating_add(1)).unwrap_or(IdxSize::MAX);
    let mut frame = context.execute(sql).and_then(|frame| frame.limit(limit).collect()).map_err(explain)?;
    if frame.height() > limits.rows {
        frame = frame.head(Some(limits.rows));
        warnings.add(format!("only the first {} rows are shown", limits.rows));
    }
    Ok(result(&frame, warnings.told()))
}

/// Refuses statements that would change something; parsing is left to the engine.
fn check_reads_only(sql: &str) -> Result<(), QueryError> {
    let words = leading_words(sql);
    let mut words = words.iter().map(String::as_str).skip_while(|word| ["EXPLAIN", "ANALYZE"].contains(word));
    match words.next() {
        Some(word) if !READING.contains(&word) => Err(QueryError::NotReading),
        _ => Ok(()),
    }
}

/// The first words in upper case, past comments and opening brackets.
fn leading_words(sql: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = sql.trim_start();
    while words.len() < 3 && !rest.is_empty() {
        let after = if let Some(comment) = rest.strip_prefix("--") {
            comment.split_once('\n').map_or("", |(_, after)| after)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, after)| after)
        } else if let Some(after) = rest.strip_prefix('(') {
            after
        } else {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            if end == 0 {
                break;
            }
            words.push(rest[..end].to_uppercase());
            &rest[end..]
        };
        rest = after.trim_start();
    }
    words
}

/// The table in all rounds, one below the other. The file of no rows says what its columns must be.
fn load(
    table: &'static str,
    rounds: &[RoundDirectory],
    limits: QueryLimits,
    warnings: &mut Warnings,
) -> Result<DataFrame, QueryError> {
    let nowhere = "none".parse().expect("a round id");
    let empty = artifact::encode_empty(table, &TableContext { round_id: &nowhere }).transpose()?;
    let mut all = parse(empty.unwrap_or_default()).map_err(QueryError::Sql)?;
    let mut bytes_left = limits.table_bytes;
    let path = layout::table_path(table);
    for round in rounds {
        let bytes = match round.read(&path, bytes_left) {
            Ok(bytes) => bytes,
            Err(StoreError::TooLarge { .. }) => {
                return Err(QueryError::TooLarge { table, limit: limits.table_bytes });
            }
            Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                warnings.left_out(round, table, &error_chain(&error));
                continue;
            }
        };
        bytes_left -= bytes.len() as u64;
        // A crafted file can make the engine's own reader abort the program: it only sees files of our making.
        let rewritten = match artifact::rewrite(table, &bytes).transpose() {
            Ok(rewritten) => rewritten.unwrap_or_default(),
            Err(error) => {
                warnings.left_out(round, table, &error_chain(&error));
                continue;
            }
        };
        let frame = parse(rewritten).map_err(QueryError::Sql)?;
        if is_of_round(&frame, round) {
            all.vstack_mut_owned(frame).map_err(QueryError::Sql)?;
        } else {
            warnings.left_out(round, table, "it holds rows of another round");
        }
    }
    Ok(all)
}

fn parse(bytes: Vec<u8>) -> Result<DataFrame, PolarsError> {
    ParquetReader::new(Cursor::new(bytes)).finish()
}

fn is_of_round(frame: &DataFrame, round: &RoundDirectory) -> bool {
    let column = frame.column("round_id").and_then(|column| column.str().cloned());
    column.is_ok_and(|column| column.iter().all(|id| id == Some(round.round_id().as_str())))
}

/// Finds out whether the engine's complaint is about a table that does not exist.
fn explain(error: PolarsError, named: &[String]) -> QueryError {
    let message = error.to_string();
    let is_unknown = |name: &&String| {
        !TABLE_NAMES.contains(&name.as_str()) && message.contains(&format!("relation '{name}' was not found"))
    };
    match named.iter().find(is_unknown) {
        Some(name) => QueryError::UnknownTable { name: name.clone() },
        None => QueryError::Sql(error),
    }
}

/// Warnings, not too many of them.
#[derive(Default)]
struct Warnings {
    told: Vec<String>,
    untold: usize,
}

impl Warnings {
    fn add(&mut self, warning: String) {
        if self.told.len() < MAX_WARNINGS {
            self.told.push(warning);
        } else {
            self.untold += 1;
        }
    }

    fn left_out(&mut self, round: &RoundDirectory, table: &str, why: &str) {
        self.add(format!("table `{table}` of round {} is left out: {why}", round.round_id()));
    }

    fn told(mut self) -> Vec<String> {
        if self.untold > 0 {
            self.told.push(format!("and {} more warnings", self.untold));
        }
        self.told
    }
}

fn result(frame: &DataFrame, warnings: Vec<String>) -> QueryResult {
    let columns: Vec<String> = frame.get_column_names().iter().map(ToString::to_string).collect();
    let types = frame.dtypes().iter().map(ToString::to_string).collect();
    let mut rows = vec![Vec::with_capacity(columns.len()); frame.height()];
    for column in frame.columns() {
        for (row, value) in rows.iter_mut().zip(column.as_materialized_series().iter()) {
            row.push(json_value(&value));
        }
    }
    QueryResult { columns, types, rows, warnings }
}

/// A value as JSON: instants and dates as ISO 8601 text, what is not a number as null.
fn json_value(value: &AnyValue<'_>) -> Value {
    match value {
        AnyValue::Null => Value::Null,
        AnyValue::Boolean(value) => Value::from(*value),
        AnyValue::String(text) => Value::from(*text),
        AnyValue::StringOwned(text) => Value::from(text.as_str()),
        AnyValue::Int8(number) => Value::from(*number),
        AnyValue::Int16(number) => Value::from(*number),
        AnyValue::Int32(number) => Value::from(*number),
        AnyValue::Int64(number) => Value::from(*number),
        AnyValue::UInt8(number) => Value::from(*number),
        AnyValue::UInt16(number) => Value::from(*number),
        AnyValue::UInt32(number) => Value::from(*number),
        AnyValue::UInt64(number) => Value::from(*number),
        AnyValue::Float32(number) => Value::from(f64::from(*number)),
        AnyValue::Float64(number) => Value::from(*number),
        AnyValue::Date(days) => Value::from(instant(i64::from(*days) * 86_400_000_000, "%Y-%m-%d")),
        AnyValue::Datetime(count, unit, zone) => Value::from(datetime(*count, *unit, zone.is_some())),
        AnyValue::DatetimeOwned(count, unit, zone) => Value::from(datetime(*count, *unit, zone.is_some())),
        AnyValue::List(items) => items.iter().map(|item| json_value(&item)).collect(),
        AnyValue::StructOwned(parts) => {
            let names = parts.1.iter().map(|field| field.name().to_string());
            Value::Object(names.zip(parts.0.iter().map(json_value)).collect::<Map<_, _>>())
        }
        AnyValue::Struct(..) => json_value(&value.clone().into_static()),
        other => Value::from(other.to_string()),
    }
}

fn datetime(count: i64, unit: TimeUnit, has_zone: bool) -> String {
    let microseconds = match unit {
        TimeUnit::Nanoseconds => count.div_euclid(1000),
        TimeUnit::Microseconds => count,
        TimeUnit::Milliseconds => count.saturating_mul(1000),
    };
    instant(microseconds, if has_zone { "%Y-%m-%dT%H:%M:%S%.fZ" } else { "%Y-%m-%dT%H:%M:%S%.f" })
}

/// An instant in UTC, or its microseconds where they are beyond the calendar.
fn instant(microseconds: i64, format: &str) -> String {
    jiff::Timestamp::from_microsecond(microseconds)
        .map_or_else(|_| microseconds.to_string(), |instant| instant.strftime(format).to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{LeaderboardRow, RequestFlag, RequestRow, RoundId, StepAttemptRow, WeightRow};

    fn id(text: &str) -> RoundId {
        text.parse().expect("an id")
    }

    fn weight(round: &str, hotkey: &str, share: f64) -> WeightRow {
        WeightRow {
            round_id: round.to_owned(),
            hotkey: hotkey.to_owned(),
            share,
            weight: 65535,
            is_dry_run: true,
            ..WeightRow::default()
        }
    }

    fn request(round: &str, prompt_index: u32) -> RequestRow {
        RequestRow {
            round_id: round.to_owned(),
            read_key: "0001".to_owned(),
            prompt_index,
            flags: [RequestFlag::TooLarge, RequestFlag::NoDone].into(),
            ttft_ns: Some(1000 * i64::from(prompt_index + 1)),
            ..RequestRow::default()
        }
    }

    fn step(round: &str) -> StepAttemptRow {
        StepAttemptRow {
            round_id: round.to_owned(),
            started_at_us: 1_795_300_000_250_000,
            duration_ns: 5,
            ..StepAttemptRow::default()
        }
    }

    /// Two rounds with weights, requests and steps.
    fn data() -> tempfile::TempDir {
        let data = tempfile::tempdir().expect("a temporary directory");
        for (round, share) in [("demo-1", 0.5), ("demo-2", 1.0)] {
            let directory = RoundDirectory::create(data.path(), &id(round)).expect("a new round");
            directory
                .write_table(&[weight(round, "alice", share), weight(round, "bob", 0.25)])
                .expect("writes");
            directory.write_table(&(0..4).map(|n| request(round, n)).collect::<Vec<_>>()).expect("writes");
            directory.write_table(&[step(round)]).expect("writes");
        }
        data
    }

    fn ask(data: &tempfile::TempDir, sql: &str) -> QueryResult {
        query(data.path(), sql, QueryLimits::default())
            .unwrap_or_else(|error| panic!("{sql}: {}", error_chain(&error)))
    }

    fn refusal(sql: &str) -> String {
        error_chain(&query(data().path(), sql, QueryLimits::default()).expect_err(sql))
    }

    #[test]
    fn answers() {
        let data = data();
        let check = |sql: &str, expected: Value| {
            let result = ask(&data, sql);
            assert_eq!(result.warnings, Vec::<String>::new(), "{sql}");
            assert_eq!(json!(result.rows), expected, "{sql}");
        };
        check(
            "SELECT round_id, hotkey, share, weight, uid, is_dry_run FROM weights WHERE share >= 0.5 ORDER BY share DESC",
            json!([["demo-2", "alice", 1.0, 65535, null, true], ["demo-1", "alice", 0.5, 65535, null, true]]),
        );
        check(
            "SELECT r.round_id, COUNT(*) AS n, AVG(r.ttft_ns) AS mean FROM requests r \
             JOIN weights w ON w.round_id = r.round_id WHERE w.hotkey = 'alice' GROUP BY r.round_id ORDER BY r.round_id",
            json!([["demo-1", 4, 2500.0], ["demo-2", 4, 2500.0]]),
        );
        check("SELECT flags FROM requests LIMIT 1", json!([[["no_done", "too_large"]]]));
        check(
            "SELECT started_at_us, duration_ns FROM step_attempts LIMIT 1",
            json!([["2026-11-21T22:26:40.25Z", 5]]),
        );
        check("SELECT COUNT(*) AS n FROM leaderboard", json!([[0]]));
        check(
            "WITH best AS (SELECT hotkey, MAX(share) AS s FROM weights GROUP BY hotkey) SELECT hotkey FROM best ORDER BY s",
            json!([["bob"], ["alice"]]),
        );
        check("-- why\n/* not */ SELECT 1 AS one", json!([[1]]));
        check("SELECT QUANTILE_CONT(ttft_ns, 0.5) AS median FROM requests", json!([[2500.0]]));
        check(
            "SELECT hotkey FROM weights WHERE hotkey LIKE 'al%' AND round_id = 'demo-1'",
            json!([["alice"]]),
        );
    }

    #[test]
    fn types_are_told() {
        let result = ask(&data(), "SELECT hotkey, weight, share FROM weights");
        assert_eq!(result.types, ["str", "u16", "f64"]);
        assert_eq!(ask(&data(), "SHOW TABLES").rows.len(), TABLE_NAMES.len());
    }

    #[test]
    fn what_is_refused() {
        let check = |sql: &str, expected: &str| {
            let error = refusal(sql);
            assert!(error.contains(expected), "{sql}: {error}");
        };
        check(
            "SELECT * FROM nothing",
            "there is no table `nothing`; the tables are commitments, submissions",
        );
        check("SELECT * FROM read_parquet('/etc/passwd')", "`read_parquet` is not allowed");
        check("SELECT * FROM READ_CSV('/etc/passwd')", "`READ_CSV` is not allowed");
        check("SELECT * FROM \"read_parquet\"('/etc/passwd')", "is not allowed");
        check("SELECT * FROM read_parquet.x('/etc/passwd')", "is not allowed");
        check("SELECT * FROM weights JOIN (SELECT * FROM scan_parquet('/x')) t ON true", "is not allowed");
        check("WITH t AS (SELECT * FROM read_json('/x')) SELECT * FROM t", "is not allowed");
        check("EXPLAIN SELECT * FROM read_parquet('/x')", "is not allowed");
        for sql in [
            "DROP TABLE weights",
            "CREATE TABLE x AS SELECT * FROM weights",
            "DELETE FROM weights",
            "INSERT INTO weights VALUES (1)",
            "UPDATE weights SET share = 1",
            "TRUNCATE TABLE weights",
            "COPY weights TO '/tmp/x'",
            "/* SELECT */ -- SELECT\n drop table weights",
            "EXPLAIN DELETE FROM weights",
        ] {
            check(sql, "only reading is allowed");
        }
        check("SELECT 1; DROP TABLE weights", "one (and only one) statement");
        check("SELECT nothing FROM weights", "the query cannot be answered: ");
        check("SELECT (FROM weights", "the query cannot be answered: ");
        check("", "one (and only one) statement");
    }

    #[test]
    fn bad_files_are_left_out() {
        let data = data();
        let mut directories = Vec::new();
        for round in ["bad-1", "bad-2", "bad-3", "bad-4", "bad-5"] {
            directories.push(RoundDirectory::create(data.path(), &id(round)).expect("a new round"));
        }
        let path = layout::table_path("weights");
        let context =
            |round| artifact::encode(&[weight("demo-1", "eve", 9.0)], &TableContext { round_id: round });
        let foreign = context(&id("bad-2")).expect("encodes");
        directories[0].write_whole(&path, b"junk").expect("writes");
        directories[1].write_whole(&path, &foreign).expect("writes");
        let other = artifact::encode::<LeaderboardRow>(&[], &TableContext { round_id: &id("bad-3") });
        directories[2].write_whole(&path, &other.expect("encodes")).expect("writes");
        directories[3].write_whole(&path, &foreign[..foreign.len() / 2]).expect("writes");
        std::fs::create_dir_all(directories[4].path().join(&path)).expect("makes");

        let result = ask(&data, "SELECT * FROM weights");
        assert_eq!(result.rows.len(), 4);
        assert_eq!(result.warnings.len(), 5, "{:?}", result.warnings);
        assert!(result.warnings[0].starts_with("table `weights` of round bad-1 is left out: "));
        assert!(result.warnings[1].ends_with("it holds rows of another round"));
        assert!(result.warnings[2].ends_with("want table `weights`, the file holds `leaderboard`"));
        assert_eq!(ask(&data, "SELECT * FROM requests").warnings.len(), 0);
    }

    #[test]
    fn limits() {
        let data = data();
        let ask = |limits| query(data.path(), "SELECT * FROM weights", limits);
        let result = ask(QueryLimits { rows: 3, ..QueryLimits::default() }).expect("answers");
        assert_eq!((result.rows.len(), result.warnings.len()), (3, 1));
        let error = ask(QueryLimits { table_bytes: 10, ..QueryLimits::default() }).expect_err("too large");
        assert_eq!(error.to_string(), "table `weights` has more than 10 bytes in all rounds together");
    }

    #[test]
    fn no_rounds_are_no_error() {
        let data = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(ask(&data, "SELECT rank FROM leaderboard").rows.len(), 0);
    }

    /// The engine's own reader aborts on some of these: an allocation of exabytes cannot be caught.
    #[test]
    fn a_crafted_file_ends_nothing() {
        let data = data();
        let path = layout::table_path("weights");
        let good = RoundDirectory::open(data.path(), &id("demo-1")).expect("is there").read(&path, 1 << 20);
        let good = good.expect("reads");
        let bad = RoundDirectory::create(data.path(), &id("bad-1")).expect("a new round");
        for place in (good.len() * 3 / 4..good.len()).step_by(7) {
            let mut bytes = good.clone();
            bytes[place] ^= [0x01, 0x80, 0xff][place % 3];
            bad.write_whole(&path, &bytes).expect("writes");
            let rows = ask(&data, "SELECT * FROM weights").rows.len();
            assert!(rows == 4 || rows == 6, "{place}: {rows}");
        }
    }
}
