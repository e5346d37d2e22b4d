//! Evaluation arena for LLM inference servers.
//!
//! # The straight line
//!
//! ```text
//! YAML text -> Pipeline -> Plan -> Scheduler (Event -> Action) -> Job -> stages
//!   -> Capture* -> RequestRow* -> VerdictRow* + DecisionRow* -> LeaderboardRow* -> WeightRow* -> publish
//! ```
//!
//! Everything from a capture on is pure: measured once, judged as often as anybody likes, from the files of a
//! round, without a GPU.
//!
//! # Layers
//!
//! A module imports only what stands below it; `tests/integration/layers.rs` holds it to that and keeps each
//! heavy crate in one place.
//!
//! | layer | rooms |
//! |---|---|
//! | 0 | [`model`]: the nouns and the rows of the tables |
//! | 1, pure | [`stats`], [`pipeline`], [`schedule`], [`measure`], [`judge`], [`artifact`], [`report`] |
//! | 2 | [`ports`]: the seams, a job's order and report; [`client`]: the load generator |
//! | 3 | [`adapters`]: engines, shell, processes of jobs, chain, store, query; [`stages`]: the built-in actions |
//! | 4 | [`job`]: one attempt of one leg; [`round`]: the only event loop; [`serve`]: metrics and health over HTTP |
//! | beside | `reference`: the embedded reference server, used by the command line only |
//! | 5 | [`audit`]: a round done again from its files, and compared; [`ticks`]: scheduled rounds |
//! | top | [`error`], [`cli`] |
//!
//! # Invariants
//!
//! - Nothing about a prompt reaches a server before its clock starts, and no two arms get different prompts.
//! - Nothing a server says about itself is believed unchecked: tokens are counted by the pinned tokenizer,
//!   times by our clock, log probabilities against the trusted scorer.
//! - A failing request is data. A failing stage has a [`model::Fault`], and only a submission's own costs it.
//! - What can only be one of a few words is an enum in every row; the words stand in files alone, and a file with
//!   any other is refused with its table, column and row.
//! - All randomness of a round comes from one [`model::Seed`]; clocks are arguments.
//! - The journal has one writer, files appear whole, and a sealed round does not change.
//! - A machine on which the baseline failed, and was not measured any more, takes no job until a person has looked at it; no
//!   submission's read enters that decision.
//! - A job is an order and a report, plain data both, whether it runs in this process or in one of its own.
//! - No server outlives its job, whatever ends the job; if the program is killed, the kernel ends jobs and servers,
//!   and a guard ends scripts.

pub mod adapters;
pub mod artifact;
pub mod audit;
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
pub mod serve;
pub mod stages;
pub mod stats;
pub mod ticks;
