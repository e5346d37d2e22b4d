//! One request of the benchmark and the tokens of its answer.

use std::collections::BTreeSet;

use super::{row, words};

words! {
    /// How a request ended. A failing request is data, not an error.
    pub enum RequestStatus {
        /// A whole answer with a finish reason came.
        Ok = "ok",
        /// A well-formed stream came, without any visible text.
        NoTokens = "no_tokens",
        /// The stream ended without a finish reason.
        Truncated = "truncated",
        /// What came does not follow the protocol.
        ProtocolError = "protocol_error",
        /// An HTTP error status came, or an error event in the stream.
        ServerError = "server_error",
        /// The connection could not be made, or was lost.
        TransportError = "transport_error",
        /// The request's absolute deadline passed.
        Timeout = "timeout",
    }
}

words! {
    /// Something noticed about an answer that its status does not say; declared in the order of the words.
    pub enum RequestFlag {
        /// An event's data was not a chat completion chunk in JSON.
        BadJson = "bad_json",
        /// The claimed tokens' bytes are not the text, or are no tokens: the canonical ones are scored instead.
        BytesMismatch = "bytes_mismatch",
        /// The body was compressed, which hides when tokens came; it is not read.
        ContentEncoding = "content_encoding",
        /// The length was announced before the body: the answer was complete before it was sent.
        ContentLength = "content_length",
        /// Events came after `[DONE]`.
        DataAfterDone = "data_after_done",
        /// `[DONE]` was the very end of the stream, without the blank line that closes an event; it counts as done.
        DoneUnclosed = "done_unclosed",
        /// `[DONE]` came without a finish reason.
        DoneWithoutFinish = "done_without_finish",
        /// There were bytes that are not UTF-8; the text holds replacement characters.
        InvalidUtf8 = "invalid_utf8",
        /// A whole answer came without `[DONE]`.
        NoDone = "no_done",
        /// No log probabilities came at all.
        NoLogprobs = "no_logprobs",
        /// The claimed tokens spell the text, but not as the tokenizer does.
        NonCanonical = "non_canonical",
        /// The response was not an event stream.
        NotEventStream = "not_event_stream",
        /// The pinned tokenizer does not take the text.
        NotTokenizable = "not_tokenizable",
        /// Text came on another channel (reasoning, tool calls) or choice than the answer's.
        OtherChannel = "other_channel",
        /// The stream ended inside an event.
        PartialEventAtEof = "partial_event_at_eof",
        /// Text came after the finish reason.
        TextAfterFinish = "text_after_finish",
        /// There were log probabilities of tokens that made no text visible.
        TokenWithoutText = "token_without_text",
        /// More bytes or events came than the client reads.
        TooLarge = "too_large",
        /// After `[DONE]` the connection did not end as HTTP ends it.
        UncleanEnd = "unclean_end",
        /// A choice came that was not asked for.
        UnrequestedChoice = "unrequested_choice",
        /// `usage` and the number of log probability entries differ by more than one.
        UsageMismatch = "usage_mismatch",
    }
}

row! {
    /// A row of `requests`. All `*_ns` time points are monotonic nanoseconds since the request's own send.
    pub struct RequestRow {
        /// Id of the round.
        pub round_id: String,
        /// Key of the read that the request belongs to.
        pub read_key: String,
        /// Number of the prompt in the round: 100,000 times its bracket, plus its number there, from 0.
        pub prompt_index: u32,
        /// SHA-256 of the prompt's text, hexadecimal.
        pub prompt_sha256: String,
        /// How the request ended.
        pub status: RequestStatus,
        /// What else was noticed about the answer.
        pub flags: BTreeSet<RequestFlag>,
        /// HTTP status; none if no headers came.
        pub http_status: Option<u32>,
        /// When the first byte was sent, since the benchmark's start.
        pub send_offset_ns: i64,
        /// When the kernel had accepted the last byte of the request.
        pub sent_ns: Option<i64>,
        /// When the response's headers were complete.
        pub headers_ns: Option<i64>,
        /// When the first byte of the body came.
        pub first_byte_ns: Option<i64>,
        /// When the first event was complete, whatever it holds.
        pub first_event_ns: Option<i64>,
        /// When the first credited token had arrived, its text and its log probability: the time to first token; the body's
        /// end if the log probability never came.
        pub ttft_ns: Option<i64>,
        /// When the last text, the last log probability and the finish reason had come: the end-to-end time; the body's end
        /// if a log probability never came.
        pub e2e_ns: Option<i64>,
        /// When the event with the finish reason was complete.
        pub finish_ns: Option<i64>,
        /// When `[DONE]` was complete.
        pub done_ns: Option<i64>,
        /// When the body ended.
        pub end_ns: Option<i64>,
        /// Time per credited token that arrived after the first burst; none if there was only one burst.
        pub tpot_ns: Option<f64>,
        /// Mean delivery time: mean over the credited tokens of the times at which they had arrived.
        pub mdt_ns: Option<f64>,
        /// Longest gap between two bursts of arriving tokens; none if there was only one.
        pub stall_ns: Option<i64>,
        /// Number of tokens credited: the pinned tokenizer's count of the visible text.
        pub tokens: u32,
        /// Number of entries in `logprobs.content`.
        pub logprob_tokens: u32,
        /// Number of completion tokens the server claims in `usage`.
        pub usage_tokens: Option<u32>,
        /// Finish reason as the server sent it.
        pub finish_reason: Option<String>,
        /// Number of complete events.
        pub events: u32,
        /// Number of bytes of the body.
        pub body_bytes: i64,
        /// Visible text of choice 0, which is the answer.
        pub text: String,
        /// Number of the prompt's tokens that no other prompt of the read begins with, at the least: what a server has to read
        /// that keeps the beginnings of prompts. None where its text cannot be tokenized, and in files before 1.1.
        pub new_prompt_tokens: Option<u32>,
        /// The `max_tokens` that the request asked for; none in files before 1.1.
        pub max_tokens: Option<u32>,
    }
}

/// What of a request's row its speed is decided by: a quarter of its columns, and none of its texts.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(Default))]
pub struct RequestTimes {
    /// Key of the read.
    pub read_key: String,
    /// Index of the prompt in the round.
    pub prompt_index: u32,
    /// How the request ended.
    pub status: RequestStatus,
    /// Time to first token, ns; see [`RequestRow::ttft_ns`].
    pub ttft_ns: Option<i64>,
    /// End-to-end latency, ns; see [`RequestRow::e2e_ns`].
    pub e2e_ns: Option<i64>,
    /// Mean delivery time, ns; see [`RequestRow::mdt_ns`].
    pub mdt_ns: Option<f64>,
    /// Number of tokens credited; see [`RequestRow::tokens`].
    pub tokens: u32,
    /// Number of the prompt's new tokens; see [`RequestRow::new_prompt_tokens`].
    pub new_prompt_tokens: Option<u32>,
}

impl From<&RequestRow> for RequestTimes {
    fn from(row: &RequestRow) -> Self {
        Self {
            read_key: row.read_key.clone(),
            prompt_index: row.prompt_index,
            status: row.status,
            ttft_ns: row.ttft_ns,
            e2e_ns: row.e2e_ns,
            mdt_ns: row.mdt_ns,
            tokens: row.tokens,
            new_prompt_tokens: row.new_prompt_tokens,
        }
    }
}

row! {
    /// A row of `tokens`: one token of one sealed answer.
    pub struct TokenRow {
        /// Id of the round.
        pub round_id: String,
        /// Key of the read that the answer belongs to.
        pub read_key: String,
        /// Number of the prompt in the round: 100,000 times its bracket, plus its number there, from 0.
        pub prompt_index: u32,
        /// Position of the token in the answer, from 0.
        pub position: u32,
        /// Id of the token in the pinned tokenizer's vocabulary.
        pub token_id: u32,
        /// Whether this is the end-of-answer token, which carries no text.
        pub is_end: bool,
        /// Log probability that the server claimed, natural logarithm.
        pub server_logprob: Option<f64>,
        /// Log probability by the trusted scorer, natural logarithm.
        pub scorer_logprob: Option<f64>,
        /// Rank by the trusted scorer; 1 is the most probable, and 0 says that it refused the answer as a whole.
        pub scorer_rank: Option<u32>,
        /// Log probability of the scorer's most probable token there, natural logarithm.
        pub scorer_top_logprob: Option<f64>,
        /// When the token had arrived, with its text and its log probability, since the request's send.
        pub arrival_ns: Option<i64>,
        /// When the token's text had come, for the end token the finish reason; none in files before 1.1.
        pub text_ns: Option<i64>,
        /// When the log probability entries had come that spell the text up to the token's end; none if they never did, and in
        /// files before 1.1.
        pub logprob_ns: Option<i64>,
    }
}

impl TokenRow {
    /// The rank that stands in all tokens of an answer that the scorer refused.
    pub const REFUSED_RANK: u32 = 0;

    /// Whether the token is one of an answer that the scorer refused.
    pub fn is_refused(&self) -> bool {
        self.scorer_rank == Some(Self::REFUSED_RANK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row's flags are published sorted as text, and a set is in the order of the declaration.
    #[test]
    fn flags_are_declared_in_the_order_of_their_words() {
        assert!(RequestFlag::ALL.is_sorted_by_key(|flag| flag.as_str()));
    }
}
