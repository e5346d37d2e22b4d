//! `publish`: the tables of the round.

use super::declare::{outputs, parameters};
use crate::model::PublishedTable;

parameters! {
    /// There are no parameters: what is published is what the round's jobs left.
    {}
}

outputs! {
    /// The tables that were published.
    {
        /// the tables with their digests and row counts
        "tables" tables: Vec<PublishedTable>,
        /// where the tables are, in the round's directory
        "path" path: String,
    }
}
