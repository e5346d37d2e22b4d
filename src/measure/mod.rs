//! L1, measuring: from seeded prompts and captured bytes to rows of `requests` and `tokens`.
//!
//! The line is [`Workload`] (what is asked) -> [`Capture`] (what the client saw, bytes and stamps) ->
//! [`Observation`] (what the bytes say) -> [`Record`] (rows). Everything after the capture is pure and can be
//! repeated from the kept bytes; nothing here opens a socket or reads a clock, and no number that a server
//! states about itself (usage, log probabilities, its own stamps) enters a time or a token count.
//!
//! Sockets are `client`'s; whether an answer is right is `judge`'s.
#![deny(clippy::disallowed_methods)]

pub mod capture;
pub mod language;
pub mod metrics;
pub mod observe;
pub mod sse;
pub mod tokenizer;
pub mod workload;

#[cfg(test)]
mod vectors;

pub use capture::{Capture, End, Read, decode_captures, encode_captures};
pub use metrics::{Record, RecordContext, record};
pub use observe::{Caps, Observation, observe};
pub use tokenizer::PinnedTokenizer;
pub use workload::{Prompt, RequestShape, Workload, request_body};
