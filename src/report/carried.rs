//! What `cacheon export` and `cacheon import` carried.

use serde::Serialize;

use super::query_output::{JsonLayout, json};
use super::text::bytes;
use crate::model::{Digest, RoundId};

/// A round that was carried from or to a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Carried {
    /// Id of the round.
    pub round_id: RoundId,
    /// Digest of its seal.
    pub seal: Digest,
    /// Number of sealed files that were carried.
    pub files: u64,
    /// Number of their bytes.
    pub bytes: u64,
    /// Number of sealed files that were removed on record and are not among them.
    pub removed: u64,
}

impl Carried {
    /// What it is, in words.
    pub fn sentence(&self) -> String {
        let removed = match self.removed {
            0 => String::new(),
            count => format!(", without {count} that were removed on record"),
        };
        let plural = if self.files == 1 { "" } else { "s" };
        format!("round {}: {} file{plural}, {}{removed}", self.round_id, self.files, bytes(self.bytes))
    }
}

#[derive(Serialize)]
struct CarriedJson<'a> {
    #[serde(flatten)]
    carried: &'a Carried,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// The report as JSON: what was written, and where.
pub fn export_json(carried: &Carried, path: &str) -> String {
    json(&CarriedJson { carried, path, next: None }, JsonLayout::Pretty)
}

/// The report as JSON: what was unpacked, where, and what comes next.
pub fn import_json(carried: &Carried, path: &str) -> String {
    let next = Some(format!("cacheon audit {}", carried.round_id));
    json(&CarriedJson { carried, path, next }, JsonLayout::Pretty)
}
