//! What the client observed of one request, and the file format in which it is kept.
//!
//! A capture is the evidence: every time and every text of a round can be derived again from it. It holds the
//! body after the HTTP framing was removed, cut as it arrived, each piece with the stamp of the `read()` that
//! brought it; pieces with one stamp arrived together. Of the HTTP layer it keeps the facts that decide whether
//! the body is an answer at all.
//!
//! The format is ours and small: a magic line, then one zstd frame holding each capture as a byte length and
//! its fields in order, numbers as LEB128, texts and pieces as length and bytes, absent values as a 0 byte.

use std::io::Read as _;

/// The first bytes of a file of captures, version included.
pub const MAGIC: &[u8] = b"cacheon captures 1\n";

/// Most bytes of a header value or a detail that are kept.
const TEXT_BYTES: usize = 1024;

/// How the response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum End {
    /// The whole body came, as the HTTP framing announced it.
    #[default]
    Eof,
    /// No connection could be made.
    ConnectFailed,
    /// The connection was lost or closed before the framing was complete.
    Reset,
    /// What came was not HTTP.
    BadHttp,
    /// The absolute deadline of the request passed.
    Timeout,
    /// The body was longer than the client reads.
    TooLarge,
}

impl End {
    const ALL: [Self; 6] =
        [Self::Eof, Self::ConnectFailed, Self::Reset, Self::BadHttp, Self::Timeout, Self::TooLarge];
}

/// One piece of the body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Read {
    /// When the `read()` that brought it returned, nanoseconds since the request's send.
    pub at_ns: u64,
    /// The bytes, never decoded or trimmed.
    pub bytes: Vec<u8>,
}

/// Everything the client observed of one request. Stamps are monotonic nanoseconds since the request's send,
/// which is the moment before its first byte was handed to the kernel on an open connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capture {
    /// Number of the prompt in the read.
    pub prompt_index: u32,
    /// The request's send, nanoseconds since the benchmark's start.
    pub send_offset_ns: u64,
    /// How long connecting took, where a connection was opened for this request; before the send.
    pub connect_ns: Option<u64>,
    /// The kernel had accepted the last byte of the request.
    pub sent_ns: Option<u64>,
    /// Status line and headers were complete.
    pub headers_ns: Option<u64>,
    /// The end: clean, or when the client gave up.
    pub end_ns: u64,
    /// HTTP status, once headers came.
    pub http_status: Option<u16>,
    /// `Content-Type` as sent.
    pub content_type: Option<String>,
    /// `Content-Encoding` as sent.
    pub content_encoding: Option<String>,
    /// `Content-Length` as sent: a stream whose length is known beforehand is no stream.
    pub content_length: Option<u64>,
    /// The body as it arrived.
    pub reads: Vec<Read>,
    /// How it ended.
    pub end: End,
    /// The client's own words about an end other than [`End::Eof`].
    pub end_detail: String,
}

/// Why bytes are not a file of captures.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCaptures {
    /// The magic line is another.
    #[error("not a file of captures of version 1")]
    Magic,
    /// The zstd frame is damaged.
    #[error("the compressed data are damaged")]
    Compression,
    /// It unpacks to more than the reader accepts.
    #[error("the captures are longer than {0} bytes")]
    TooLarge(u64),
    /// A capture is cut short or holds an impossible value.
    #[error("capture {0} is damaged")]
    Record(usize),
}

/// Writes captures in the order given; same captures, same bytes.
pub fn encode_captures(captures: &[Capture]) -> Vec<u8> {
    let mut plain = Vec::new();
    for capture in captures {
        let mut record = Vec::new();
        encode(&mut record, capture);
        put_bytes(&mut plain, &record);
    }
    let mut out = MAGIC.to_vec();
    match zstd::bulk::compress(&plain, 3) {
        Ok(packed) => out.extend(packed),
        // Compression of memory into memory has no way to fail; a stored file without its frame would be refused.
        Err(_) => out.clear(),
    }
    out
}

/// Reads captures that unpack to at most `max_bytes`.
///
/// # Errors
/// [`InvalidCaptures`] says which bound or form was broken; nothing is guessed.
pub fn decode_captures(bytes: &[u8], max_bytes: u64) -> Result<Vec<Capture>, InvalidCaptures> {
    let packed = bytes.strip_prefix(MAGIC).ok_or(InvalidCaptures::Magic)?;
    let mut plain = Vec::new();
    zstd::stream::read::Decoder::new(packed)
        .and_then(|decoder| decoder.take(max_bytes.saturating_add(1)).read_to_end(&mut plain))
        .map_err(|_| InvalidCaptures::Compression)?;
    if plain.len() as u64 > max_bytes {
        return Err(InvalidCaptures::TooLarge(max_bytes));
    }
    let mut rest = &plain[..];
    let mut captures = Vec::new();
    while !rest.is_empty() {
        let capture = take_bytes(&mut rest)
            .and_then(decode)
            .map_err(|Damaged| InvalidCaptures::Record(captures.len()))?;
        captures.push(capture);
    }
    Ok(captures)
}

fn encode(out: &mut Vec<u8>, capture: &Capture) {
    put_number(out, capture.prompt_index.into());
    put_number(out, capture.send_offset_ns);
    put_option(out, capture.connect_ns);
    put_option(out, capture.sent_ns);
    put_option(out, capture.headers_ns);
    put_number(out, capture.end_ns);
    put_option(out, capture.http_status.map(u64::from));
    put_text(out, capture.content_type.as_deref());
    put_text(out, capture.content_encoding.as_deref());
    put_option(out, capture.content_length);
    put_number(out, capture.reads.len() as u64);
    for read in &capture.reads {
        put_number(out, read.at_ns);
        put_bytes(out, &read.bytes);
    }
    put_number(out, capture.end as u64);
    put_text(out, Some(&capture.end_detail));
}

/// A record that is cut short or holds an impossible value.
struct Damaged;

fn decode(mut record: &[u8]) -> Result<Capture, Damaged> {
    let from = &mut record;
    let mut capture = Capture {
        prompt_index: take_number(from)?.try_into().map_err(|_| Damaged)?,
        send_offset_ns: take_number(from)?,
        connect_ns: take_option(from)?,
        sent_ns: take_option(from)?,
        headers_ns: take_option(from)?,
        end_ns: take_number(from)?,
        http_status: take_option(from)?.map(u16::try_from).transpose().map_err(|_| Damaged)?,
        content_type: take_text(from)?,
        content_encoding: take_text(from)?,
        content_length: take_option(from)?,
        ..Capture::default()
    };
    for _ in 0..take_number(from)? {
        capture.reads.push(Read { at_ns: take_number(from)?, bytes: take_bytes(from)?.to_vec() });
    }
    let end = usize::try_from(take_number(from)?).map_err(|_| Damaged)?;
    capture.end = *End::ALL.get(end).ok_or(Damaged)?;
    capture.end_detail = take_text(from)?.unwrap_or_default();
    if record.is_empty() { Ok(capture) } else { Err(Damaged) }
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_option(out: &mut Vec<u8>, number: Option<u64>) {
    out.push(u8::from(number.is_some()));
    if let Some(number) = number {
        put_number(out, number);
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_text(out: &mut Vec<u8>, text: Option<&str>) {
    out.push(u8::from(text.is_some()));
    if let Some(text) = text {
        put_bytes(out, &text.as_bytes()[..text.floor_char_boundary(TEXT_BYTES)]);
    }
}

fn take_number(from: &mut &[u8]) -> Result<u64, Damaged> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first().ok_or(Damaged)?;
        *from = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(Damaged)
}

fn take_option(from: &mut &[u8]) -> Result<Option<u64>, Damaged> {
    Ok(if take_flag(from)? { Some(take_number(from)?) } else { None })
}

fn take_flag(from: &mut &[u8]) -> Result<bool, Damaged> {
    let (&byte, rest) = from.split_first().ok_or(Damaged)?;
    *from = rest;
    if byte <= 1 { Ok(byte == 1) } else { Err(Damaged) }
}

fn take_bytes<'a>(from: &mut &'a [u8]) -> Result<&'a [u8], Damaged> {
    let len = usize::try_from(take_number(from)?).map_err(|_| Damaged)?;
    let (bytes, rest) = from.split_at_checked(len).ok_or(Damaged)?;
    *from = rest;
    Ok(bytes)
}

fn take_text(from: &mut &[u8]) -> Result<Option<String>, Damaged> {
    if !take_flag(from)? {
        return Ok(None);
    }
    String::from_utf8(take_bytes(from)?.to_vec()).map(Some).map_err(|_| Damaged)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> Capture {
        Capture {
            prompt_index: 3,
            send_offset_ns: u64::MAX,
            connect_ns: Some(0),
            sent_ns: Some(200),
            headers_ns: None,
            end_ns: 9,
            http_status: Some(200),
            content_type: Some("text/event-stream".into()),
            content_encoding: None,
            content_length: Some(1 << 40),
            reads: vec![
                Read { at_ns: 127, bytes: b"data: \xff".to_vec() },
                Read { at_ns: 128, bytes: Vec::new() },
            ],
            end: End::TooLarge,
            end_detail: "é".repeat(600),
        }
    }

    #[test]
    fn there_and_back() {
        let mut captures = vec![example(), Capture::default()];
        let bytes = encode_captures(&captures);
        assert_eq!(bytes, encode_captures(&captures));
        captures[0].end_detail.truncate(TEXT_BYTES);
        assert_eq!(decode_captures(&bytes, 1 << 20), Ok(captures));
        assert_eq!(decode_captures(&encode_captures(&[]), 0), Ok(vec![]));
    }

    #[test]
    fn bombs_and_junk_are_refused() {
        let bomb = encode_captures(&[Capture {
            reads: vec![Read { at_ns: 0, bytes: vec![0; 1 << 20] }],
            ..Capture::default()
        }]);
        assert!(bomb.len() < 1000);
        assert_eq!(decode_captures(&bomb, 1 << 16), Err(InvalidCaptures::TooLarge(1 << 16)));
        assert_eq!(decode_captures(b"PAR1", 9), Err(InvalidCaptures::Magic));
        assert_eq!(decode_captures(&[MAGIC, b"junk"].concat(), 9), Err(InvalidCaptures::Compression));
        let long = [MAGIC, &zstd::bulk::compress(&[0xff; 5], 3).expect("compress")[..]].concat();
        assert_eq!(decode_captures(&long, 99), Err(InvalidCaptures::Record(0)));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_panic(plain in proptest::collection::vec(any::<u8>(), 0..60)) {
            let packed = zstd::bulk::compress(&plain, 1).expect("compress");
            let _ = decode_captures(&[MAGIC, &packed[..]].concat(), 1 << 16);
        }
    }
}
