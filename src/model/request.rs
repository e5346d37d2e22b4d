//! One request of the benchmark and the tokens of its answer.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a request ended. A failing request is data, not an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestStatus {
    /// A whole answer with a finish reason.
    Ok,
    /// A well-formed stream without any visible text.
    NoTokens,
    /// The stream ended without a finish reason.
    Truncated,
    /// Bytes that are not the protocol.
    ProtocolError,
    /// An HTTP error status or an error event in the stream.
    ServerError,
    /// The connection failed.
    TransportError,
    /// The absolute deadline passed.
    Timeout,
}

impl RequestStatus {
    /// The word used in tables and vectors.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NoTokens => "no_tokens",
            Self::Truncated => "truncated",
            Self::ProtocolError => "protocol_error",
            Self::ServerError => "server_error",
            Self::TransportError => "transport_error",
            Self::Timeout => "timeout",
        }
    }
}

impl fmt::Display for RequestStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A row of `requests`. All `*_ns` time points are monotonic nanoseconds since the request's own send.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestRow {
    /// The round.
    pub round_id: String,
    /// Key of the read.
    pub read_key: String,
    /// Number of the prompt in the read, from 0; the same prompt has the same number in every read.
    pub prompt_index: u32,
    /// Digest of the prompt's text.
    pub prompt_sha256: String,
    /// How it ended.
    pub status: String,
    /// What else was noticed, sorted.
    pub flags: Vec<String>,
    /// HTTP status, once headers came.
    pub http_status: Option<u32>,
    /// Send of the first byte, since the benchmark's start.
    pub send_offset_ns: i64,
    /// Last byte of the request accepted by the kernel.
    pub sent_ns: Option<i64>,
    /// Response headers complete.
    pub headers_ns: Option<i64>,
    /// First byte of the body.
    pub first_byte_ns: Option<i64>,
    /// First complete event, whatever it holds.
    pub first_event_ns: Option<i64>,
    /// First event with visible text complete: the time to first token.
    pub ttft_ns: Option<i64>,
    /// Last event with visible text complete: the end-to-end time.
    pub e2e_ns: Option<i64>,
    /// Event with the finish reason.
    pub finish_ns: Option<i64>,
    /// `[DONE]`.
    pub done_ns: Option<i64>,
    /// End of the body.
    pub end_ns: Option<i64>,
    /// Time per output token after the first event; none if there was only one burst.
    pub tpot_ns: Option<f64>,
    /// Mean delivery time: token-weighted mean of the arrival times.
    pub mdt_ns: Option<f64>,
    /// Longest gap between two bursts.
    pub stall_ns: Option<i64>,
    /// Tokens credited: the pinned tokenizer's count of the visible text.
    pub tokens: u32,
    /// Entries in `logprobs.content`.
    pub logprob_tokens: u32,
    /// Completion tokens the server claims.
    pub usage_tokens: Option<u32>,
    /// Finish reason as sent.
    pub finish_reason: Option<String>,
    /// Complete events.
    pub events: u32,
    /// Body bytes.
    pub body_bytes: i64,
    /// Visible text of choice 0.
    pub text: String,
}

/// A row of `tokens`: one token of one sealed answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenRow {
    /// The round.
    pub round_id: String,
    /// Key of the read.
    pub read_key: String,
    /// Number of the prompt.
    pub prompt_index: u32,
    /// Position in the answer, from 0.
    pub position: u32,
    /// Token id by the pinned tokenizer.
    pub token_id: u32,
    /// Whether this is the end-of-answer token, which carries no text.
    pub is_end: bool,
    /// Log probability the server claimed, natural logarithm.
    pub server_logprob: Option<f64>,
    /// Log probability by the trusted scorer.
    pub scorer_logprob: Option<f64>,
    /// Rank by the trusted scorer, 1 is the most probable.
    pub scorer_rank: Option<u32>,
    /// Log probability of the scorer's most probable token.
    pub scorer_top_logprob: Option<f64>,
    /// Arrival of the event that carried it, since the request's send.
    pub arrival_ns: Option<i64>,
}
