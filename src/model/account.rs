//! What was planned, and what became of it.

use super::{Fault, row, words};

words! {
    /// What is accounted for.
    pub enum AccountKind {
        /// The reads of a submission: each has as many as the others.
        Reads = "reads",
        /// A leg that was to measure a read.
        Leg = "leg",
        /// The requests of a measured read.
        Requests = "requests",
        /// The correctness checks of a measured read of a submission.
        Checks = "checks",
        /// The place of a submission, or of an ignored commitment, on the leaderboard.
        Place = "place",
    }
}

row! {
    /// A row of `accounts`: something that was planned, and how much of it is done, failed, or missing. Nothing is
    /// published while anything is missing.
    pub struct AccountRow {
        /// Id of the round.
        pub round_id: String,
        /// What is accounted for.
        pub kind: AccountKind,
        /// Whose it is: the key of the read, or the hotkey.
        pub name: String,
        /// How many were planned.
        pub planned: u32,
        /// How many are done.
        pub done: u32,
        /// How many failed, for a known reason.
        pub failed: u32,
        /// How many are missing: nothing says what became of them.
        pub missing: u32,
        /// Whose fault it was, where any failed.
        pub fault: Option<Fault>,
        /// Code of the reason, where any failed.
        pub reason: Option<String>,
        /// The first of those that are missing, by name.
        pub first_missing: Option<String>,
    }
}
