//! Answers of a query as a table, CSV or JSON.

use std::fmt::Write as _;

use comfy_table::Cell;
use serde::Serialize;
use serde_json::{Map, Value};

use super::text::{RowLines, TextStyle, plain, render, right, table};

/// What a query found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QueryResult {
    /// Names of the columns, in order.
    pub columns: Vec<String>,
    /// Types of the columns, as the query engine names them.
    pub types: Vec<String>,
    /// The rows, with one value for each column.
    pub rows: Vec<Vec<Value>>,
    /// What was left out of the answer and why, for people.
    pub warnings: Vec<String>,
}

/// How JSON is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonLayout {
    /// All on one line.
    Compact,
    /// Indented, over several lines.
    Pretty,
}

/// A table for the terminal, numbers to the right, absent values empty.
pub fn to_table(result: &QueryResult, style: TextStyle) -> String {
    let is_number: Vec<bool> = (0..result.columns.len())
        .map(|column| {
            result.rows.iter().all(|row| matches!(row.get(column), Some(Value::Number(_) | Value::Null)))
        })
        .collect();
    let cell = |text: String, column: usize| {
        if is_number.get(column) == Some(&true) { right(text) } else { Cell::new(text) }
    };
    let mut out = table(style, RowLines::One);
    out.set_header(result.columns.iter().zip(0..).map(|(name, column)| cell(plain(name), column)));
    for row in &result.rows {
        out.add_row(row.iter().zip(0..).map(|(value, column)| cell(plain(&value_text(value)), column)));
    }
    let count = result.rows.len();
    let rows = if count == 1 { "row" } else { "rows" };
    format!("{}({count} {rows})\n", render(&out))
}

/// CSV with a header (RFC 4180, lines end in `\n`). Lists are JSON; an absent value is an empty field.
///
/// Values are written as they are: what a stranger wrote may hold control characters.
pub fn to_csv(result: &QueryResult) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let records = result.rows.iter().map(|row| row.iter().map(value_text).collect::<Vec<_>>());
    for record in std::iter::once(result.columns.clone()).chain(records) {
        writer.write_record(&record).expect("records of one length go to memory");
    }
    String::from_utf8(writer.into_inner().expect("memory is flushed")).expect("text makes text")
}

/// An array with an object a row. Control characters are escaped, so it is safe on a terminal.
pub fn to_json(result: &QueryResult, layout: JsonLayout) -> String {
    let rows: Vec<Map<String, Value>> = result
        .rows
        .iter()
        .map(|row| result.columns.iter().cloned().zip(row.iter().cloned()).collect())
        .collect();
    json(&rows, layout)
}

/// Any value as JSON text with an end of line, the control characters above ASCII escaped too.
pub(super) fn json<T: Serialize>(value: &T, layout: JsonLayout) -> String {
    let text = match layout {
        JsonLayout::Compact => serde_json::to_string(value),
        JsonLayout::Pretty => serde_json::to_string_pretty(value),
    };
    let text = text.expect("keys are text");
    let mut out = String::with_capacity(text.len() + 1);
    for character in text.chars() {
        match character {
            '\n' => out.push('\n'),
            '\u{7f}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                write!(out, "\\u{:04x}", u32::from(character)).expect("writes to a string");
            }
            character => out.push(character),
        }
    }
    out.push('\n');
    out
}

fn value_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn result() -> QueryResult {
        QueryResult {
            columns: ["hotkey", "score", "flags"].map(str::to_owned).to_vec(),
            types: ["str", "f64", "list[str]"].map(str::to_owned).to_vec(),
            rows: vec![
                vec![json!("5Grwva, \"quoted\""), json!(0.25), json!(["a", "b"])],
                vec![json!("\u{1b}[31m\u{9b}2J"), json!(null), json!([])],
                vec![json!("x"), json!(12.5), json!(null)],
            ],
            warnings: Vec::new(),
        }
    }

    #[test]
    fn forms() {
        insta::assert_snapshot!("table", to_table(&result(), TextStyle::PLAIN));
        insta::assert_snapshot!("pretty", to_json(&result(), JsonLayout::Pretty));
        insta::assert_snapshot!("compact", to_json(&result(), JsonLayout::Compact));
        assert_eq!(
            to_csv(&result()),
            "hotkey,score,flags\n\"5Grwva, \"\"quoted\"\"\",0.25,\"[\"\"a\"\",\"\"b\"\"]\"\n\u{1b}[31m\u{9b}2J,,[]\nx,12.5,\n"
        );
    }

    #[test]
    fn json_keeps_its_values() {
        let text = to_json(&result(), JsonLayout::Compact);
        assert!(!text.trim_end().chars().any(char::is_control), "{text:?}");
        let rows: Vec<Value> = serde_json::from_str(&text).expect("JSON");
        assert_eq!(rows[1]["hotkey"], "\u{1b}[31m\u{9b}2J");
    }

    #[test]
    fn no_rows() {
        let empty = QueryResult { rows: Vec::new(), ..result() };
        assert_eq!(to_csv(&empty), "hotkey,score,flags\n");
        assert_eq!(to_json(&empty, JsonLayout::Compact), "[]\n");
        assert!(to_table(&empty, TextStyle::PLAIN).ends_with("(0 rows)\n"));
    }
}
