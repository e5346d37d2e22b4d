//! Whole rounds of the built program, as a user runs them: real servers, real processes, real signals.
//!
//! They measure, so they run one after the other, and nothing else of the suite beside them.

mod audit;
mod check;
mod deaths;
mod demo;
mod gpus;
mod interrupt;
#[path = "../fixtures/nvml/mod.rs"]
mod nvml;
mod resume;
mod round;
mod runner;
mod schedule;
mod workload;
