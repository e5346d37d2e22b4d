//! What an audit found, for people and for programs.

use std::fmt::{self, Write as _};

use serde::Serialize;

use super::text::{excerpt, plain};
use crate::artifact::{CellDifference, SealDifference, layout};
use crate::model::RoundId;

/// What was recorded, what was found by doing it again, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// A file is not what was sealed.
    Seal(SealDifference),
    /// A line of the journal says what the pipeline does not.
    Journal {
        /// Number of the line, from 0; of the one that is missing, the number it would have.
        line: u64,
        /// What stands there, as JSON.
        recorded: String,
        /// What should stand there.
        recomputed: String,
    },
    /// A table has another value.
    Cell {
        /// Path of the table's file in the round's directory.
        path: String,
        /// Where in the table, and both values.
        cell: CellDifference,
    },
    /// A file has the same rows, or is no table, and has other bytes.
    Bytes {
        /// Path of the file in the round's directory.
        path: String,
        /// Offset of the first byte that differs.
        offset: usize,
    },
    /// A file cannot be derived again, or cannot be read.
    Unusable {
        /// Path of the file in the round's directory.
        path: String,
        /// Why not, in words.
        why: String,
    },
    /// Something else that was recorded is not so.
    Value {
        /// Path of the file in which it stands.
        path: String,
        /// What it is.
        what: &'static str,
        /// What is recorded.
        recorded: String,
        /// What it should be.
        recomputed: String,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seal(difference) => write!(f, "{}", plain(&difference.to_string())),
            Self::Journal { line, recorded, recomputed } => {
                let (recorded, recomputed) = (excerpt(recorded, 600), excerpt(recomputed, 600));
                write!(f, "`journal.jsonl`, line {line}: recorded is {recorded}, recomputed {recomputed}")
            }
            Self::Cell { path, cell } => write!(f, "`{}`, {}", plain(path), plain(&cell.to_string())),
            Self::Bytes { path, offset } => {
                write!(
                    f,
                    "`{}` has other bytes from byte {offset} on, and the same rows if it is a table",
                    plain(path)
                )
            }
            Self::Unusable { path, why } => write!(f, "`{}`: {}", plain(path), excerpt(why, 600)),
            Self::Value { path, what, recorded, recomputed } => {
                let (recorded, recomputed) = (excerpt(recorded, 300), excerpt(recomputed, 300));
                write!(f, "`{}`, {what}: recorded is {recorded}, recomputed {recomputed}", plain(path))
            }
        }
    }
}

/// A difference as JSON has it: the same fields for each kind, null where there is no such thing.
#[derive(Default, Serialize)]
struct DifferenceJson {
    path: Option<String>,
    line: Option<u64>,
    table: Option<&'static str>,
    row: Option<usize>,
    column: Option<String>,
    recorded: Option<String>,
    recomputed: Option<String>,
    message: String,
}

impl From<&Difference> for DifferenceJson {
    fn from(difference: &Difference) -> Self {
        let both = |recorded: &str, recomputed: &str| Self {
            recorded: Some(recorded.to_owned()),
            recomputed: Some(recomputed.to_owned()),
            ..Self::default()
        };
        let (path, json) = match difference {
            Difference::Seal(SealDifference::Missing(path) | SealDifference::Unsealed(path))
            | Difference::Bytes { path, .. }
            | Difference::Unusable { path, .. } => (path.as_str(), Self::default()),
            Difference::Seal(SealDifference::Changed { path, sealed, found }) => {
                (path.as_str(), both(sealed.as_str(), found.as_str()))
            }
            Difference::Journal { line, recorded, recomputed } => {
                (layout::JOURNAL_FILE, Self { line: Some(*line), ..both(recorded, recomputed) })
            }
            Difference::Cell { path, cell } => {
                let CellDifference { table, row, column, recorded, recomputed } = cell;
                let (table, row, column) = (Some(*table), Some(*row), column.clone());
                (path.as_str(), Self { table, row, column, ..both(recorded, recomputed) })
            }
            Difference::Value { path, recorded, recomputed, .. } => {
                (path.as_str(), both(recorded, recomputed))
            }
        };
        Self { path: Some(path.to_owned()), message: difference.to_string(), ..json }
    }
}

impl Serialize for Difference {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        DifferenceJson::from(self).serialize(serializer)
    }
}

/// What an audit did and found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditReport {
    /// The round.
    pub round_id: RoundId,
    /// Whether the round is what it says.
    pub agrees: bool,
    /// The first difference of each kind of check, in the order of the checks.
    pub differences: Vec<Difference>,
    /// Number of files whose digest was compared with the seal.
    pub files: usize,
    /// Number of journal lines that were followed.
    pub lines: usize,
    /// Number of attempts that were done again.
    pub attempts: usize,
    /// Number of attempts that were taken as they are recorded: they did not succeed.
    pub attempts_as_recorded: usize,
    /// Number of legs that another round measured.
    pub legs_taken_over: usize,
    /// Number of files that were derived again and compared byte for byte.
    pub files_derived: usize,
    /// Number of raw streams that were removed since, on record: what follows from them is taken as recorded.
    pub streams_removed: usize,
    /// The round that this one was made from: it has an audit of its own.
    pub parent: Option<RoundId>,
    /// Version of the program that ran the round.
    pub tool_version: String,
}

/// The report for people.
pub fn audit_text(report: &AuditReport) -> String {
    let mut out = String::new();
    let mut line = |text: fmt::Arguments<'_>| writeln!(out, "{text}").expect("writes to a string");
    line(format_args!("seal      {} files have the digests that were sealed", report.files));
    line(format_args!("journal   {} lines follow from the pipeline, its inputs and its seed", report.lines));
    line(format_args!(
        "attempts  {} done again; {} that did not succeed taken as recorded",
        report.attempts, report.attempts_as_recorded
    ));
    line(format_args!("files     {} derived again and compared byte for byte", report.files_derived));
    if report.streams_removed > 0 {
        let removed = report.streams_removed;
        line(format_args!("streams   {removed} removed since: what follows from them is taken as recorded"));
    }
    if let Some(parent) = &report.parent {
        line(format_args!(
            "parent    {} legs were run by round {parent}: audit it too",
            report.legs_taken_over
        ));
    }
    if report.agrees {
        line(format_args!("\nround {} is what it says", report.round_id));
        return out;
    }
    // What was counted up to the first difference says nothing about the rest.
    let mut out = String::new();
    for difference in &report.differences {
        writeln!(out, "differs   {difference}").expect("writes to a string");
    }
    writeln!(out, "\nround {} is not what it says", report.round_id).expect("writes to a string");
    out
}

/// The report as JSON, indented.
pub fn audit_json(report: &AuditReport) -> String {
    super::query_output::json(report, super::query_output::JsonLayout::Pretty)
}
