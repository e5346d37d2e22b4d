//! L1, results for people: terminal tables, Markdown, JSON, CSV.
//!
//! Values in, text out. What strangers wrote (hotkeys, images, log lines in reasons) passes [`text::plain`] or
//! its Markdown siblings first, so that it can neither move the cursor nor become markup. Where the values
//! come from is `adapters::store`'s and `adapters::query`'s business.
#![deny(clippy::disallowed_methods)]

mod audit;
mod carried;
mod check;
pub mod doctor;
mod leaderboard;
pub mod metrics;
pub mod query_output;
mod removal;
mod rounds;
mod runners;
mod summary;
pub mod text;
mod ticks;

pub use audit::{AuditReport, Difference, audit_json, audit_text};
pub use carried::{Carried, export_json, import_json};
pub use check::{CheckInput, CheckReport, ServerLog, check_json, check_text, server_log};
pub use leaderboard::leaderboard_table;
pub use query_output::QueryResult;
pub use removal::{
    Going, Leftover, Removal, RemovalFailure, RemovalPlan, Staying, removal_json, removal_sentence,
    removal_table,
};
pub use rounds::{
    RoundDetail, RoundPhase, RoundSummary, TableCount, Winner, round_json, rounds_json, rounds_table,
    show_round,
};
pub use runners::{
    KnownRunner, RunnerWords, past_sentence, quarantine_sentence, runners_json, runners_table,
};
pub use summary::{SummaryInput, summary_markdown};
pub use text::{Paint, TextStyle};
pub use ticks::{PipelineStatus, ScheduleStatus, meaning, status_json, status_text, tick_line};
