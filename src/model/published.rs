//! What is said of a table that was published.

use serde::{Deserialize, Serialize};

use super::Digest;

/// A table as it was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedTable {
    /// Name of the table.
    pub table: String,
    /// Path of its file, below the round's directory.
    pub path: String,
    /// Digest of its file.
    pub digest: Digest,
    /// Number of rows in it.
    pub rows: u64,
}
