//! L2, the load client: HTTP requests to a server under test, every byte kept with the time it came.
//!
//! One request is one [`Capture`](crate::measure::Capture): what was sent when, what came when, how it ended. Nothing is parsed
//! here: the stamping path reads and stamps, `measure::observe` judges afterwards. A failing request is a
//! capture too, never an error, and nothing is retried.

mod exchange;
mod load;
mod plain;
mod stamped;
#[cfg(test)]
mod tests;

pub use exchange::{Deadline, Limits, Target};
pub use load::{ClientHealth, LoadPlan, LoadResult, run_single_stream};
pub use plain::{AskError, Reply, Request, ask};
