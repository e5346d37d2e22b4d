//! What the client keeps of a request: the facts of its HTTP exchange, and the body as it arrived.
//!
//! These rows are the evidence. Everything else that the client says of a request is derived from them.

use super::{row, words};

words! {
    /// How a response ended.
    pub enum ExchangeEnd {
        /// The whole body came, as the HTTP framing announced it.
        Eof = "eof",
        /// No connection could be made.
        ConnectFailed = "connect_failed",
        /// The connection was lost or closed before the framing was complete.
        Reset = "reset",
        /// What came was not HTTP at all.
        BadHttp = "bad_http",
        /// The absolute deadline of the request passed.
        Timeout = "timeout",
        /// The body was longer than the client reads.
        TooLarge = "too_large",
        /// More tokens, text, events or bytes came than an answer within `max-tokens` has; reading stopped there.
        BeyondMaxTokens = "beyond_max_tokens",
    }
}

row! {
    /// A row of `exchanges`: one request as HTTP saw it. All `*_ns` time points are monotonic nanoseconds since the
    /// request's own send, which is the moment before its first byte was handed to the kernel on an open connection.
    pub struct ExchangeRow {
        /// Id of the round.
        pub round_id: String,
        /// Key of the read that the request belongs to.
        pub read_key: String,
        /// Number of the prompt in the round: 100,000 times its bracket, plus its number there, from 0.
        pub prompt_index: u32,
        /// SHA-256 of the prompt's text, hexadecimal.
        pub prompt_sha256: String,
        /// When the request was sent, since the benchmark's start.
        pub send_offset_ns: i64,
        /// How long connecting took, which is before the send.
        pub connect_ns: Option<i64>,
        /// When the kernel had accepted the last byte of the request.
        pub sent_ns: Option<i64>,
        /// When the response's headers were complete.
        pub headers_ns: Option<i64>,
        /// When the response ended, or the client gave up.
        pub end_ns: i64,
        /// HTTP status; none if no headers came.
        pub http_status: Option<u32>,
        /// `Content-Type` as the server sent it, cut to 1,024 bytes as all texts here.
        pub content_type: Option<String>,
        /// `Content-Encoding` as the server sent it.
        pub content_encoding: Option<String>,
        /// `Content-Length` as the server sent it, bytes.
        pub content_length: Option<i64>,
        /// How the response ended.
        pub ended: ExchangeEnd,
        /// The client's own words about an end other than `eof`.
        pub end_detail: String,
        /// Number of pieces the body came in: so many rows of `streams` are this request's.
        pub pieces: u32,
        /// Number of the prompt's tokens that no other prompt of the read begins with, at the least: what a server has to read
        /// that keeps the beginnings of prompts. None where its text cannot be tokenized, and in files before 1.1.
        pub new_prompt_tokens: Option<u32>,
        /// The `max_tokens` that the request asked for; none in files before 1.1.
        pub max_tokens: Option<u32>,
    }
}

row! {
    /// A row of `streams`: one piece of one response's body, after the HTTP framing was removed, as it arrived.
    pub struct StreamRow {
        /// Id of the round.
        pub round_id: String,
        /// Key of the read that the request belongs to.
        pub read_key: String,
        /// Number of the prompt in the round: 100,000 times its bracket, plus its number there, from 0.
        pub prompt_index: u32,
        /// Number of the piece in the body, from 0.
        pub sequence: u32,
        /// When the `read()` that brought it returned, nanoseconds since the request's own send; pieces with one
        /// stamp arrived together.
        pub at_ns: i64,
        /// The bytes of the piece, never decoded or trimmed.
        pub bytes: Vec<u8>,
    }
}
