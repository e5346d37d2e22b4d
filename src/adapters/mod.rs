//! L3, the outside world: each heavy crate is named in one file only.

pub mod query;
pub mod store;
