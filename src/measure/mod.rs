//! L1, measuring: from seeded prompts and captured bytes to rows of `requests` and `tokens`.
//!
//! The line is [`Draw`] (what is asked) -> [`Capture`] (what the client saw, bytes and stamps) -> [`keep`] (the
//! same as rows) -> [`Observation`] (what the bytes say) -> [`Record`] (rows of tables). Everything after the capture is
//! pure and is repeated from the kept rows by [`derive_records`], which the measurement itself calls; nothing here
//! opens a socket or reads a clock, and no number that a server states about itself (usage, log probabilities, its
//! own stamps) enters a time or a token count.
//!
//! Sockets are `client`'s; whether an answer is right is `judge`'s.
#![deny(clippy::disallowed_methods)]

pub mod arrival;
pub mod bounds;
pub mod capture;
mod few;
pub mod language;
pub mod metrics;
pub mod observe;
pub mod prefix;
pub mod sse;
pub mod streams;
pub mod telemetry;
pub mod tokenizer;
pub mod workload;

#[cfg(test)]
mod vectors;

pub use bounds::{AnswerBounds, BodyKind, Excess, Meter};
pub use capture::{Capture, End, Piece};
pub use metrics::{Record, RecordContext, record};
pub use observe::{Observation, ResponseBounds, observe};
pub use prefix::new_prompt_tokens;
pub use streams::{InvalidStreams, StreamContext, derive_records, keep, measured, pieces};
pub use telemetry::Telemetry;
pub use tokenizer::PinnedTokenizer;
pub use workload::draw::{Draw, DrawError, Drawn, Share};
pub use workload::index::CorpusIndex;
pub use workload::{Prompt, RequestShape, request_body};
