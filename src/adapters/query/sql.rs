//! What a statement may do: read, by name, the tables of the rounds.
//!
//! Parsing is left to the engine; here is only what the engine would do and a query may not.

use polars::prelude::PolarsError;
use polars::sql::extract_table_identifiers;

use super::QueryError;

/// Words with which a statement that only reads begins.
const READING: [&str; 6] = ["SELECT", "WITH", "FROM", "VALUES", "TABLE", "SHOW"];

/// The names of the tables a statement asks for, where it only reads and opens nothing.
pub(super) fn tables_named(sql: &str) -> Result<Vec<String>, QueryError> {
    check_reads_only(sql)?;
    let named = extract_table_identifiers(sql, true, true).map_err(QueryError::Sql)?;
    for name in named.iter().flat_map(|name| name.split('.')) {
        let lower = name.to_lowercase();
        if lower.starts_with("read_") || lower.starts_with("scan_") {
            return Err(QueryError::TableFunction { name: name.to_owned() });
        }
    }
    Ok(named)
}

/// Whether the statement asks which tables there are.
pub(super) fn is_show(sql: &str) -> bool {
    leading_words(sql).first().is_some_and(|word| word == "SHOW")
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

/// Finds out whether the engine's complaint is about a table that does not exist.
pub(super) fn explain(error: PolarsError, named: &[String]) -> QueryError {
    let message = error.to_string();
    let is_unknown = |name: &&String| {
        !super::table_names().contains(&name.as_str())
            && message.contains(&format!("relation '{name}' was not found"))
    };
    match named.iter().find(is_unknown) {
        Some(name) => QueryError::UnknownTable { name: name.clone() },
        None => QueryError::Sql(error),
    }
}
