//! The program as a whole: its layers, its command line, its reference server.

mod cli;
mod docs;
mod layers;
mod process;
#[cfg(feature = "reference")]
mod reference;
