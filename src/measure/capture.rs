//! What the client observed of one request.
//!
//! A capture is the evidence: every time and every text of a round can be derived again from it. It holds the
//! body after the HTTP framing was removed, cut as it arrived, each piece with the stamp of the `read()` that
//! brought it; pieces with one stamp arrived together. Of the HTTP layer it keeps the facts that decide whether
//! the body is an answer at all. How captures are kept on disk is the next room's matter ([`super::streams`]).

use super::bounds::PIECE_BYTES;
pub use crate::model::ExchangeEnd as End;

/// One piece of the body, as one `read()` brought it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Piece {
    /// When that `read()` returned, nanoseconds since the request's send.
    pub at_ns: u64,
    /// The bytes of the piece, never decoded or trimmed.
    pub bytes: Vec<u8>,
}

/// Everything the client observed of one request. Stamps are monotonic nanoseconds since the request's send,
/// which is the moment before its first byte was handed to the kernel on an open connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// Number of the prompt in the read, from 0.
    pub prompt_index: u32,
    /// When the request was sent, nanoseconds since the benchmark's start.
    pub send_offset_ns: u64,
    /// How long connecting took, where a connection was opened for this request; before the send.
    pub connect_ns: Option<u64>,
    /// When the kernel had accepted the last byte of the request.
    pub sent_ns: Option<u64>,
    /// When status line and headers were complete.
    pub headers_ns: Option<u64>,
    /// When the response ended, or the client gave up.
    pub end_ns: u64,
    /// HTTP status; none if no headers came.
    pub http_status: Option<u16>,
    /// `Content-Type` as the server sent it.
    pub content_type: Option<String>,
    /// `Content-Encoding` as the server sent it.
    pub content_encoding: Option<String>,
    /// `Content-Length` as the server sent it, bytes: a stream whose length is known beforehand is no stream.
    pub content_length: Option<u64>,
    /// The pieces of the body, in the order of their arrival.
    pub pieces: Vec<Piece>,
    /// How the response ended.
    pub end: End,
    /// The client's own words about an end other than [`End::Eof`].
    pub end_detail: String,
}

impl Capture {
    /// Whether one byte came from the server.
    pub fn was_heard(&self) -> bool {
        self.http_status.is_some() || !self.pieces.is_empty()
    }

    /// Bytes that the capture takes in memory: its pieces with what they cost beside their bytes, and its texts.
    pub fn held_bytes(&self) -> usize {
        let texts = [self.content_type.as_ref(), self.content_encoding.as_ref(), Some(&self.end_detail)];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        let pieces: usize = self.pieces.iter().map(|piece| PIECE_BYTES + piece.bytes.len()).sum();
        size_of::<Self>() + texts + pieces
    }

    /// Whether the response's head announces the event stream of an answer.
    pub fn is_event_stream(&self) -> bool {
        self.http_status == Some(200) && self.is_of_event_stream_type()
    }

    /// Whether the response's type is that of an event stream.
    pub fn is_of_event_stream_type(&self) -> bool {
        let content_type = self.content_type.as_deref().unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        media_type.eq_ignore_ascii_case("text/event-stream")
    }
}

/// A request of which nothing is known yet, and whose response ended as HTTP says.
impl Default for Capture {
    fn default() -> Self {
        Self {
            prompt_index: 0,
            send_offset_ns: 0,
            connect_ns: None,
            sent_ns: None,
            headers_ns: None,
            end_ns: 0,
            http_status: None,
            content_type: None,
            content_encoding: None,
            content_length: None,
            pieces: Vec::new(),
            end: End::Eof,
            end_detail: String::new(),
        }
    }
}
