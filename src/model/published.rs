//! What is said of a table that was published.

use serde::{Deserialize, Serialize};

use super::Digest;

/// A table as it was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedTable {
    /// Its name.
    pub table: String,
    /// Its file, in the round's directory.
    pub path: String,
    /// Digest of the file.
    pub digest: Digest,
    /// Rows in it.
    pub rows: u64,
}
