//! The program as a whole: its layers, its command line, its golden rounds, its reference server.

mod audit;
mod carry;
mod cli;
mod docs;
mod doctor;
mod gc;
mod golden;
mod groups;
mod job;
mod layers;
mod machine;
mod metrics;
#[path = "../fixtures/nvml/mod.rs"]
mod nvml;
mod process;
#[cfg(feature = "reference")]
mod reference;
mod rerun;
mod runner;
mod schedule;
mod schedule_next;
mod shipped;
