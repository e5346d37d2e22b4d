//! L3, the outside world: each heavy crate is named in one file here and nowhere else.
//!
//! Deliberately absent: decisions. An adapter does what it is asked and says what happened.

pub mod query;
pub mod store;
