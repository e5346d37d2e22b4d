//! Which tables there are, and what their columns mean.

use std::path::Path;

use serde_json::{Value, json};

use super::table::{empty, ticks};
use super::warnings::Warnings;
use super::{QueryError, store};
use crate::adapters::store::RoundDirectory;
use crate::artifact::{self, TableInfo, layout};
use crate::report::QueryResult;
use crate::report::text::error_chain;

/// All tables, with how many rounds have them and how many rows, as the ends of the files say: no seal is checked.
///
/// # Errors
/// When the rounds cannot be listed.
pub fn list(data_dir: &Path) -> Result<QueryResult, QueryError> {
    let rounds = store::directories(data_dir)?;
    let mut warnings = Warnings::default();
    let mut count = |table: TableInfo| {
        let (mut files, mut rows) = (0, 0);
        for round in &rounds {
            match rows_of(table.name, round) {
                Ok(None) => {}
                Ok(Some(count)) => {
                    files += 1;
                    rows += count;
                }
                Err(why) => warnings.left_out(round, table.name, &why),
            }
        }
        vec![json!(table.name), json!(table.version), json!(files), json!(rows), json!(table.about)]
    };
    let mut rows: Vec<Vec<Value>> = artifact::tables().into_iter().map(&mut count).collect();
    for table in artifact::tables_beside() {
        let count = ticks(data_dir).map(|rows| rows.len());
        let count = count.unwrap_or_else(|why| {
            warnings.add(format!("`{}` is left out: {}", table.name, error_chain(&why)));
            0
        });
        rows.push(vec![json!(table.name), json!(table.version), json!(0), json!(count), json!(table.about)]);
    }
    let columns =
        [("table", "str"), ("version", "str"), ("rounds", "u64"), ("rows", "u64"), ("meaning", "str")];
    Ok(result(&columns, rows, warnings.told()))
}

fn rows_of(table: &str, round: &RoundDirectory) -> Result<Option<u64>, String> {
    let file = match round.open_file(&layout::table_path(table)) {
        Err(error) if error.is_absence() => return Ok(None),
        opened => opened.map_err(|error| error_chain(&error))?.0,
    };
    let footer = artifact::inspect(table, round.round_id(), &file).transpose();
    footer.map(|footer| footer.map(|footer| footer.rows)).map_err(|error| error_chain(&error))
}

/// The columns of a table: type as the answers of queries name it, unit and meaning.
///
/// # Errors
/// When there is no such table.
pub fn schema(table: &str) -> Result<QueryResult, QueryError> {
    let Some(info) =
        artifact::tables().into_iter().chain(artifact::tables_beside()).find(|info| info.name == table)
    else {
        return Err(QueryError::UnknownTable { name: table.to_owned() });
    };
    let empty = empty(info.name)?;
    let version = info.version;
    let row = |column: artifact::ColumnInfo| {
        let name = column.name;
        let data_type = empty.column(name).map_or(column.data_type, |found| found.dtype().to_string());
        let since = format!("{}.{}", version.major, column.minor);
        let unit = column.unit.map_or(Value::Null, Value::from);
        vec![
            json!(name),
            json!(data_type),
            json!(column.is_nullable),
            unit,
            json!(since),
            json!(column.meaning),
        ]
    };
    let columns = [
        ("column", "str"),
        ("type", "str"),
        ("may_be_null", "bool"),
        ("unit", "str"),
        ("since", "str"),
        ("meaning", "str"),
    ];
    Ok(result(&columns, info.columns.into_iter().map(row).collect(), Vec::new()))
}

fn result(columns: &[(&str, &str)], rows: Vec<Vec<Value>>, warnings: Vec<String>) -> QueryResult {
    let (columns, types) =
        columns.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).unzip();
    QueryResult { columns, types, rows, warnings }
}
