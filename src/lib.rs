//! Evaluation arena for LLM inference servers.

pub mod adapters;
pub mod artifact;
pub mod cli;
pub mod client;
pub mod error;
pub mod job;
pub mod judge;
pub mod measure;
pub mod model;
pub mod pipeline;
pub mod ports;
#[cfg(feature = "reference")]
pub mod reference;
pub mod report;
pub mod round;
pub mod schedule;
pub mod stages;
pub mod stats;
