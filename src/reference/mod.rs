//! The embedded reference inference server: a real small transformer behind the API that a miner must serve.
//!
//! It is the demo's baseline, its candidates and its scorer, so it can also misbehave on demand. The straight line of a
//! request: `server` (HTTP) -> `request` (checked) -> `engine` (on its own thread: `model`, `sampler`, `lookup`) ->
//! `stream` or `response` (vLLM's JSON). Nothing else in the crate imports this folder; it is a feature. Batching, GPUs
//! and other architectures are deliberately absent: it has to be honest and exact, not fast.

pub mod cheats;
mod cli;
pub mod engine;
pub mod linear;
pub mod lookup;
pub mod model;
pub mod refusal;
pub mod request;
pub mod response;
pub mod sampler;
pub mod server;
pub mod stream;
pub mod text;

use std::io;
use std::path::PathBuf;

pub use cli::{CorpusArguments, Number, ReferenceCommand, ServeArguments, Summation, run};

/// What can go wrong around the reference server; requests that fail are answers, not errors.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// A file of the model cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file that could not be read.
        path: PathBuf,
        /// Why it could not be read.
        source: io::Error,
    },
    /// `config.json` does not describe a Qwen2 model.
    #[error("{} does not describe a Qwen2 model", path.display())]
    Config {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// `tokenizer.json` is not a tokenizer.
    #[error("{} is not a tokenizer", path.display())]
    Tokenizer {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with it.
        source: tokenizers::Error,
    },
    /// The weights do not make the model.
    #[error("cannot build the model from {}", path.display())]
    Model {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with it.
        source: candle_core::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address that was tried.
        address: String,
        /// Why it cannot be listened on.
        source: io::Error,
    },
    /// The program could not start itself again with another number of threads.
    #[error("cannot restart with another number of threads")]
    Restart(#[source] io::Error),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signal(#[source] io::Error),
    /// The listener failed.
    #[error("serving failed")]
    Serve(#[source] io::Error),
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Write(#[source] io::Error),
}
