//! SQL over the tables of all rounds; the only folder that names polars.
//!
//! A query sees one frame a table, all rounds below one another, and nothing else: no other files, no network, nothing
//! to change. The files of sealed rounds are scanned where they lie, and only the columns and groups of rows that the
//! query needs are read; `table` says what makes a file trusted and what becomes of an unsealed round. A file that is
//! damaged, changed or foreign is left out with a warning. The dialect is the SQL of polars, a subset (no scalar
//! subqueries, no `EXISTS`); the files open in DuckDB for the rest.
//!
//! Deliberately absent: an order that nobody asked for. Without `ORDER BY`, rows come as the engine finds them.

mod describe;
mod digests;
mod sql;
mod table;
mod value;
mod warnings;

use std::path::Path;
use std::thread;

use polars::prelude::{Engine, IdxSize, PolarsError};
use polars::sql::SQLContext;

use super::store::{self, StoreError};
use crate::artifact::{ArtifactError, TABLE_NAMES, TABLES_BESIDE};
use crate::report::QueryResult;

pub use describe::{list, schema};
use digests::Digests;
use table::{QueriedRound, Tables, beside};
use warnings::Warnings;

/// Size of the stack of the thread that parses, plans and asks: the engine recurses over the statement.
const STACK_BYTES: usize = 32 << 20;

/// How much a query may read and return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryLimits {
    /// Most rows returned; more are cut off with a warning.
    pub rows: usize,
    /// Most bytes read of unsealed files, which are read whole; what is beyond is left out with a warning.
    pub unsealed_bytes: u64,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self { rows: 1_000_000, unsealed_bytes: 512 << 20 }
    }
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The statement would change something.
    #[error(
        "only reading is allowed: a query begins with SELECT, WITH, FROM, VALUES, TABLE, SHOW or EXPLAIN"
    )]
    NotReading,
    /// The statement calls a function that opens a file.
    #[error("`{name}` is not allowed: a query reads the tables of the rounds ({})", table_names().join(", "))]
    TableFunction {
        /// Name of the function.
        name: String,
    },
    /// The statement names a table that does not exist.
    #[error("there is no table `{name}`; the tables are {}", table_names().join(", "))]
    UnknownTable {
        /// Name of the table.
        name: String,
    },
    /// The engine refuses the query.
    #[error("the query cannot be answered")]
    Sql(#[source] PolarsError),
    /// The engine panicked over the query.
    #[error(
        "the query engine failed on this query: write it in a simpler way, or use DuckDB on the same files"
    )]
    Engine,
    /// The rounds could not be listed.
    #[error("the rounds cannot be read")]
    Rounds(#[from] StoreError),
    /// An empty table could not be made.
    #[error("a table cannot be prepared")]
    Table(#[from] ArtifactError),
    /// A table has more rows than the engine can number.
    #[error("table `{table}` has more than {limit} rows in all rounds together")]
    TooLarge {
        /// Name of the table.
        table: &'static str,
        /// Most rows that it may have.
        limit: u64,
    },
}

/// Answers a query over all rounds of a data directory.
///
/// # Errors
/// When the query is not one that only reads, names an unknown table, or the engine refuses it.
pub fn query(data_dir: &Path, sql: &str, limits: QueryLimits) -> Result<QueryResult, QueryError> {
    // A thread of its own: the engine brings a runtime, which cannot be entered from ours, and asserts some of what it
    // meets; neither a query nor a file must end the program.
    let answer = || answer(data_dir, sql, limits);
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, answer);
        thread.ok().and_then(|thread| thread.join().ok()).unwrap_or(Err(QueryError::Engine))
    })
}

/// Names of all tables: those of the rounds, and those beside them.
fn table_names() -> Vec<&'static str> {
    TABLE_NAMES.into_iter().chain(TABLES_BESIDE).collect()
}

fn answer(data_dir: &Path, sql: &str, limits: QueryLimits) -> Result<QueryResult, QueryError> {
    let named = sql::tables_named(sql)?;
    let mut warnings = Warnings::default();
    let mut context = SQLContext::new();
    let is_show = sql::is_show(sql);
    let rounds = if is_show { Vec::new() } else { store::directories(data_dir)? };
    let mut tables = Tables {
        rounds: rounds.into_iter().map(QueriedRound::open).collect(),
        digests: Digests::load(data_dir),
        unsealed_bytes: limits.unsealed_bytes,
    };
    for table in TABLE_NAMES.into_iter().filter(|table| is_show || named.iter().any(|name| name == table)) {
        context.register(table, tables.frame(table, &mut warnings)?);
    }
    for table in TABLES_BESIDE.into_iter().filter(|table| is_show || named.iter().any(|name| name == table)) {
        context.register(table, beside(table, data_dir, &mut warnings)?);
    }
    tables.digests.save();
    let explain = |error: PolarsError| sql::explain(error, &named);
    let limit = IdxSize::try_from(limits.rows.saturating_add(1)).unwrap_or(IdxSize::MAX);
    let asked = context.execute(sql).map_err(explain)?.limit(limit);
    let mut frame = asked.collect_with_engine(Engine::Streaming).map_err(explain)?.unwrap_single();
    if frame.height() > limits.rows {
        frame = frame.head(Some(limits.rows));
        warnings.add(format!("only the first {} rows are shown", limits.rows));
    }
    Ok(value::result(&frame, warnings.told()))
}

#[cfg(test)]
mod tests;
