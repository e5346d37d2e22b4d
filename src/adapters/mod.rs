//! L3, the outside world: each heavy crate is named in one file here and nowhere else.
//!
//! Deliberately absent: decisions. An adapter does what it is asked and says what happened.

pub mod chain_file;
#[cfg(feature = "docker")]
pub mod docker;
pub mod doctor;
pub mod guard;
pub mod job_process;
pub mod keeper;
pub mod log;
pub mod machine;
pub mod machine_speed;
mod manifest;
pub mod model_files;
pub mod model_size;
#[cfg(feature = "docker")]
pub(crate) mod namespace;
pub mod process;
pub mod query;
#[cfg(feature = "docker")]
pub mod registry;
pub mod scorer;
pub mod shell;
pub mod store;
#[cfg(feature = "chain")]
pub mod subtensor;
pub mod tree;
