//! TODO
pub mod language;
