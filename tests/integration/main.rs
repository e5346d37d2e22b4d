//! Drives the built program from outside.

#[cfg(feature = "reference")]
mod reference;
