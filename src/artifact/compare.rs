//! Where two files of one table differ: the first row, in the published order, and the first column of it.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::{ArtifactError, Table, decode};

/// The first cell at which a table is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CellDifference {
    /// Name of the table.
    pub table: &'static str,
    /// Number of the row in the file, from 0.
    pub row: usize,
    /// Name of the column; none where one file has no such row.
    pub column: Option<String>,
    /// What is recorded there.
    pub recorded: String,
    /// What should be there.
    pub recomputed: String,
}

impl fmt::Display for CellDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, row, column, recorded, recomputed } = self;
        write!(f, "table `{table}`, row {row}")?;
        if let Some(column) = column {
            write!(f, ", column `{column}`")?;
        }
        write!(f, ": recorded is {recorded}, recomputed {recomputed}")
    }
}

/// The first difference between the rows of two files; none if they hold the same rows.
///
/// # Errors
/// When one of them is no file of the table.
pub(super) fn first_cell<T>(
    recorded: &[u8],
    recomputed: &[u8],
) -> Result<Option<CellDifference>, ArtifactError>
where
    T: Table + PartialEq + Serialize,
{
    let (recorded, recomputed) = (decode::<T>(recorded)?, decode::<T>(recomputed)?);
    let json = |rows: &[T], row: usize| rows.get(row).and_then(|row| serde_json::to_value(row).ok());
    let longest = recorded.len().max(recomputed.len());
    for row in (0..longest).filter(|row| recorded.get(*row) != recomputed.get(*row)) {
        let found = match (json(&recorded, row), json(&recomputed, row)) {
            (Some(Value::Object(left)), Some(Value::Object(right))) => {
                // What differs only as a number that JSON does not have is the same to read.
                let differing = left.into_iter().find(|(column, value)| right.get(column) != Some(value));
                differing.map(|(column, value)| {
                    let other = right.get(&column).unwrap_or(&Value::Null);
                    (Some(column), value.to_string(), other.to_string())
                })
            }
            (left, right) => {
                let text =
                    |row: Option<Value>| row.map_or_else(|| "no row".to_owned(), |row| row.to_string());
                Some((None, text(left), text(right)))
            }
        };
        if let Some((column, recorded, recomputed)) = found {
            let (recorded, recomputed) = (excerpt(recorded), excerpt(recomputed));
            return Ok(Some(CellDifference { table: T::NAME, row, column, recorded, recomputed }));
        }
    }
    Ok(None)
}

/// A long value, cut.
fn excerpt(mut text: String) -> String {
    const LONGEST: usize = 300;
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push_str("..");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::{TableContext, encode, table};
    use crate::model::WeightRow;

    fn file(rows: &[(&str, f64)]) -> Vec<u8> {
        let row = |&(hotkey, share): &(&str, f64)| WeightRow {
            round_id: "r".to_owned(),
            hotkey: hotkey.to_owned(),
            share,
            ..WeightRow::default()
        };
        let rows: Vec<WeightRow> = rows.iter().map(row).collect();
        encode(&rows, &TableContext { round_id: &"r".parse().expect("an id") }).expect("encodes")
    }

    #[test]
    fn the_first_cell_that_differs() {
        let check = |recorded: &[(&str, f64)], recomputed: &[(&str, f64)], expected: Option<&str>| {
            let found = table::difference("weights", &file(recorded), &file(recomputed));
            let found = found.expect("a table").expect("readable").map(|found| found.to_string());
            assert_eq!(found.as_deref(), expected);
        };
        check(&[("a", 0.5)], &[("a", 0.5)], None);
        check(
            &[("a", 0.5), ("b", 0.25)],
            &[("b", 0.5), ("a", 0.5)],
            Some("table `weights`, row 1, column `share`: recorded is 0.25, recomputed 0.5"),
        );
        check(
            &[("a", f64::NAN), ("b", 1.0)],
            &[("a", f64::NAN), ("c", 1.0)],
            Some("table `weights`, row 1, column `hotkey`: recorded is \"b\", recomputed \"c\""),
        );
        let found = table::difference("weights", &file(&[]), &file(&[("a", 1.0)])).expect("a table");
        let found = found.expect("readable").expect("differs");
        assert_eq!((found.row, found.column, found.recorded.as_str()), (0, None, "no row"));
        assert!(table::difference("weights", b"x", &file(&[])).expect("a table").is_err());
        assert!(table::difference("none", b"", b"").is_none());
    }
}
