//! One table in three stages of its growth, for tests.

use super::*;
use crate::model::row;

row! {
    /// A row before anything was added.
    pub(in crate::artifact) struct FirstRow {
        /// The round.
        pub(in crate::artifact) round_id: String,
        /// A number.
        pub(in crate::artifact) number: u32,
    }
}

row! {
    /// A row as this program reads it.
    pub(in crate::artifact) struct GrownRow {
        /// The round.
        pub(in crate::artifact) round_id: String,
        /// A number.
        pub(in crate::artifact) number: u32,
        /// Added by 1.1.
        pub(in crate::artifact) added_ns: Option<i64>,
        /// Added by 1.2.
        pub(in crate::artifact) note: Option<String>,
    }
}

row! {
    /// A row as a newer program writes it.
    pub(in crate::artifact) struct NewerRow {
        /// The round.
        pub(in crate::artifact) round_id: String,
        /// A number.
        pub(in crate::artifact) number: u32,
        /// Added by 1.1.
        pub(in crate::artifact) added_ns: Option<i64>,
        /// Added by 1.2.
        pub(in crate::artifact) note: Option<String>,
        /// Added by 1.3.
        pub(in crate::artifact) newest: Option<u32>,
    }
}

table! { FirstRow = "grown" v 1 by (number) { round_id, number } }
table! { GrownRow = "grown" v 1 by (number) { round_id, number } + { added_ns } + { note } }
table! { NewerRow = "grown" v 1 by (number) { round_id, number } + { added_ns } + { note } + { newest } }
