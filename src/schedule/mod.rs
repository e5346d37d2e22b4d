//! L1, what happens next: decides, never acts.
//!
//! [`Scheduler::on_event`] takes what happened and returns what is to be done; sockets, clocks and files are
//! elsewhere, so every decision is tested without them. The rules are GitHub's (needs, `if`, matrix,
//! `max-parallel`, `fail-fast`) and ours: retry by fault, sequences, seeded order.

#![deny(clippy::disallowed_methods)]

mod event;
mod explain;
mod legs;
mod placement;
mod rerun;
mod scheduler;
mod service;
#[cfg(test)]
mod tests;
pub mod timetable;

pub use event::{Action, AttemptEnd, AttemptOrder, Event, JobOutcome, SchedulerSettings};
pub use explain::{Explained, Explanation, PathDifference, explain};
pub(crate) use legs::reason as pipeline_reason;
pub use placement::{Placement, PlacementError, RunnerSlot, placement_of};
pub use rerun::{Again, AgainError};
pub use scheduler::Scheduler;
pub(crate) use scheduler::fault_of;
pub use service::{Blocked, Choice, Service, still_to_run};
