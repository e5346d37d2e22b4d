//! Kept streams: captures as the rows of `exchanges` and `streams`, and all that is derived from these rows.
//!
//! The line is [`Capture`] -> [`keep`] -> rows on disk -> [`derive_records`] -> rows of `requests` and `tokens`. A measurement
//! goes the same way as whoever recomputes it: nothing is derived from anything but what the rows that are kept give back.

use super::bounds::{AnswerBounds, Excess};
use super::capture::{Capture, End, Piece};
use super::metrics::{Record, RecordContext, aligned, record, rows, text};
use super::observe::{Observation, ResponseBounds, observe};
use super::tokenizer::{AnswerTokens, PinnedTokenizer, TokenizerError};
use crate::model::{ExchangeRow, StreamRow};

/// Most bytes that are kept of a header value or a detail.
const TEXT_BYTES: usize = 1024;

/// Which read a capture belongs to, and what it was an answer to.
#[derive(Debug, Clone, Copy)]
pub struct StreamContext<'a> {
    /// Id of the round.
    pub round_id: &'a str,
    /// Key of the read.
    pub read_key: &'a str,
    /// SHA-256 of the prompt's text, hexadecimal.
    pub prompt_sha256: &'a str,
    /// Number of the prompt's tokens that no other prompt of the read begins with; none where nobody knows.
    pub new_prompt_tokens: Option<u32>,
    /// The `max_tokens` that the request asked for.
    pub max_tokens: u32,
}

/// Why rows are not the kept streams of a read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidStreams {
    /// The pieces of a request are not there, or not in their order.
    #[error("piece {sequence} of prompt {prompt_index} of read `{read_key}` is missing")]
    Missing {
        /// Key of the read.
        read_key: String,
        /// Number of the request's prompt in the read.
        prompt_index: u32,
        /// Number of the piece that should be there.
        sequence: usize,
    },
    /// A piece belongs to no request.
    #[error("there is a piece of prompt {prompt_index} of read `{read_key}` that no request has")]
    Stray {
        /// Key of the read.
        read_key: String,
        /// Number of the prompt that the piece names.
        prompt_index: u32,
    },
}

/// The row to keep of a capture, and the capture as the rows give it back; [`pieces`] makes those of its body.
pub fn keep(context: &StreamContext<'_>, mut capture: Capture) -> (ExchangeRow, Capture) {
    for piece in &mut capture.pieces {
        piece.at_ns = unsigned(signed(piece.at_ns));
    }
    let exchange = ExchangeRow {
        round_id: context.round_id.to_owned(),
        read_key: context.read_key.to_owned(),
        prompt_index: capture.prompt_index,
        prompt_sha256: context.prompt_sha256.to_owned(),
        send_offset_ns: signed(capture.send_offset_ns),
        connect_ns: capture.connect_ns.map(signed),
        sent_ns: capture.sent_ns.map(signed),
        headers_ns: capture.headers_ns.map(signed),
        end_ns: signed(capture.end_ns),
        http_status: capture.http_status.map(u32::from),
        content_type: capture.content_type.map(cut),
        content_encoding: capture.content_encoding.map(cut),
        content_length: capture.content_length.map(signed),
        ended: capture.end,
        end_detail: cut(capture.end_detail),
        pieces: u32::try_from(capture.pieces.len()).unwrap_or(u32::MAX),
        new_prompt_tokens: context.new_prompt_tokens,
        max_tokens: Some(context.max_tokens),
    };
    let capture = self::capture(&exchange, capture.pieces);
    (exchange, capture)
}

/// The rows to keep of a capture's body, beside the one that [`keep`] made of it.
pub fn pieces<'a>(
    exchange: &'a ExchangeRow,
    capture: &'a Capture,
) -> impl ExactSizeIterator<Item = StreamRow> + 'a {
    capture.pieces.iter().enumerate().map(|(sequence, piece)| StreamRow {
        round_id: exchange.round_id.clone(),
        read_key: exchange.read_key.clone(),
        prompt_index: exchange.prompt_index,
        sequence: u32::try_from(sequence).unwrap_or(u32::MAX),
        at_ns: signed(piece.at_ns),
        bytes: piece.bytes.clone(),
    })
}

/// The rows of `requests` and `tokens` of a request that was measured just now, from what [`keep`] gave.
///
/// An answer whose text is worth more tokens than the bounds allow went beyond them: the row that is kept says so from here on,
/// and whoever derives the rows again finds the same. No rows are made of its tokens, however many they are.
pub fn measured(
    tokenizer: &PinnedTokenizer,
    bounds: &AnswerBounds,
    (exchange, capture): (&mut ExchangeRow, &mut Capture),
) -> Record {
    let seen = observe(capture, &ResponseBounds::default());
    match within(tokenizer, bounds, (capture, &seen)) {
        Ok(answer) => rows(&context_of(tokenizer, exchange), (capture, &seen), answer),
        Err(excess) => {
            drop(seen);
            exchange.ended = End::BeyondMaxTokens;
            exchange.end_detail = excess.to_string();
            (capture.end, capture.end_detail) = (exchange.ended, exchange.end_detail.clone());
            derived(tokenizer, exchange, capture)
        }
    }
}

/// The tokens of an answer, or by how much its text goes beyond the bounds.
fn within(
    tokenizer: &PinnedTokenizer,
    bounds: &AnswerBounds,
    (capture, seen): (&Capture, &Observation),
) -> Result<Result<AnswerTokens, TokenizerError>, Excess> {
    let check = |tokens: usize| bounds.excess_of_text(tokens).map_or(Ok(()), Err);
    let counted = tokenizer.count_long(text(capture, seen), bounds.most_of_text());
    check(counted.unwrap_or_default())?;
    let answer = aligned(tokenizer, capture, seen);
    check(answer.as_ref().map_or(0, |answer| answer.tokens.len()))?;
    Ok(answer)
}

fn derived(tokenizer: &PinnedTokenizer, exchange: &ExchangeRow, capture: &Capture) -> Record {
    let seen = observe(capture, &ResponseBounds::default());
    record(&context_of(tokenizer, exchange), capture, &seen)
}

fn context_of<'a>(tokenizer: &'a PinnedTokenizer, exchange: &'a ExchangeRow) -> RecordContext<'a> {
    RecordContext {
        round_id: &exchange.round_id,
        read_key: &exchange.read_key,
        prompt_sha256: &exchange.prompt_sha256,
        new_prompt_tokens: exchange.new_prompt_tokens,
        tokenizer,
        max_tokens: exchange.max_tokens,
    }
}

/// The rows of `requests` and `tokens` of these requests, one record each, from the rows that were kept of them. Both lie in
/// their published order; the pieces are those of these requests and no others, of one read or of several.
///
/// The same rows and tokenizer always give the same records: there is no other input, and the bounds on hostile
/// streams are the program's own ([`ResponseBounds::default`]).
///
/// # Errors
/// [`InvalidStreams`] where the pieces are not exactly those of the requests.
pub fn derive_records(
    tokenizer: &PinnedTokenizer,
    exchanges: &[ExchangeRow],
    pieces: &[StreamRow],
) -> Result<Vec<Record>, InvalidStreams> {
    let mut rest = pieces;
    let mut records = Vec::with_capacity(exchanges.len());
    for exchange in exchanges {
        let (own, later) = rest.split_at(rest.len().min(exchange.pieces as usize));
        let is_own = |(sequence, piece): (usize, &StreamRow)| {
            piece.sequence as usize == sequence
                && piece.prompt_index == exchange.prompt_index
                && piece.read_key == exchange.read_key
        };
        let present = own.iter().enumerate().take_while(|piece| is_own(*piece)).count();
        if present < exchange.pieces as usize {
            return Err(InvalidStreams::Missing {
                read_key: exchange.read_key.clone(),
                prompt_index: exchange.prompt_index,
                sequence: present,
            });
        }
        rest = later;
        let pieces =
            own.iter().map(|piece| Piece { at_ns: unsigned(piece.at_ns), bytes: piece.bytes.clone() });
        records.push(derived(tokenizer, exchange, &capture(exchange, pieces.collect())));
    }
    match rest.first() {
        None => Ok(records),
        Some(piece) => {
            Err(InvalidStreams::Stray { read_key: piece.read_key.clone(), prompt_index: piece.prompt_index })
        }
    }
}

/// The capture that the rows give back.
fn capture(exchange: &ExchangeRow, pieces: Vec<Piece>) -> Capture {
    Capture {
        prompt_index: exchange.prompt_index,
        send_offset_ns: unsigned(exchange.send_offset_ns),
        connect_ns: exchange.connect_ns.map(unsigned),
        sent_ns: exchange.sent_ns.map(unsigned),
        headers_ns: exchange.headers_ns.map(unsigned),
        end_ns: unsigned(exchange.end_ns),
        // A row may say what no server can: that is no status of an answer either.
        http_status: exchange.http_status.map(|status| u16::try_from(status).unwrap_or_default()),
        content_type: exchange.content_type.clone(),
        content_encoding: exchange.content_encoding.clone(),
        content_length: exchange.content_length.map(unsigned),
        pieces,
        end: exchange.ended,
        end_detail: exchange.end_detail.clone(),
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use super::super::tokenizer::tests::tiny;
    use super::*;
    use crate::model::RequestStatus;

    const CONTEXT: StreamContext<'_> = StreamContext {
        round_id: "r",
        read_key: "k",
        prompt_sha256: "00",
        new_prompt_tokens: None,
        max_tokens: 64,
    };

    fn answered(prompt_index: u32) -> Capture {
        let event = |at_ns: u64, rest: &str| Piece {
            at_ns,
            bytes: format!("data: {{\"choices\":[{{\"index\":0,{rest}}}]}}\n\n").into_bytes(),
        };
        Capture {
            prompt_index,
            send_offset_ns: 1000,
            connect_ns: Some(0),
            sent_ns: Some(2),
            headers_ns: Some(3),
            end_ns: 50,
            http_status: Some(200),
            content_type: Some("text/event-stream".into()),
            pieces: vec![
                event(10, "\"delta\":{\"content\":\"He\"}"),
                event(20, "\"delta\":{\"content\":\"llo w\"}"),
                event(30, "\"delta\":{},\"finish_reason\":\"stop\""),
                Piece { at_ns: 31, bytes: b"data: [DONE]\n\n".to_vec() },
            ],
            ..Capture::default()
        }
    }

    fn refused(prompt_index: u32) -> Capture {
        Capture { prompt_index, end: End::ConnectFailed, end_detail: "é".repeat(600), ..Capture::default() }
    }

    /// The rows that are kept of captures, which are all that is known of them.
    fn kept(captures: Vec<Capture>) -> (Vec<ExchangeRow>, Vec<StreamRow>) {
        let (mut exchanges, mut rows) = (Vec::new(), Vec::new());
        for capture in captures {
            let (exchange, kept) = keep(&CONTEXT, capture);
            let own: Vec<StreamRow> = pieces(&exchange, &kept).collect();
            assert_eq!(given_back(&exchange, &own), kept);
            exchanges.push(exchange);
            rows.extend(own);
        }
        (exchanges, rows)
    }

    fn given_back(exchange: &ExchangeRow, rows: &[StreamRow]) -> Capture {
        let piece = |row: &StreamRow| Piece { at_ns: unsigned(row.at_ns), bytes: row.bytes.clone() };
        capture(exchange, rows.iter().map(piece).collect())
    }

    #[test]
    fn what_is_kept_is_all_that_a_capture_holds() {
        let whole = Capture {
            content_encoding: Some("identity".into()),
            content_length: Some(1 << 40),
            end: End::TooLarge,
            end_detail: "stopped".into(),
            ..answered(3)
        };
        assert_eq!(keep(&CONTEXT, whole.clone()).1, whole);
        let cut = Capture { end_detail: "é".repeat(TEXT_BYTES / 2), ..refused(0) };
        assert_eq!(keep(&CONTEXT, refused(0)).1, cut);
        let late =
            Capture { end_ns: u64::MAX, pieces: vec![Piece { at_ns: u64::MAX, bytes: vec![1] }], ..whole };
        kept(vec![late]);
    }

    #[test]
    fn what_is_measured_is_what_the_rows_give_again() {
        let check = |letters: usize, tokens: usize, expected: (RequestStatus, End, usize)| {
            let bounds = AnswerBounds { tokens, ..AnswerBounds::of(64, 0) };
            let text = format!(
                "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{}\"}},\"finish_reason\":\"length\"}}]}}\n\ndata: [DONE]\n\n",
                "x".repeat(letters)
            );
            let whole = Capture { pieces: vec![Piece { at_ns: 9, bytes: text.into_bytes() }], ..answered(0) };
            let (mut exchange, mut capture) = keep(&CONTEXT, whole);
            let record = measured(&tiny(), &bounds, (&mut exchange, &mut capture));
            assert_eq!((record.request.status, exchange.ended, record.tokens.len()), expected);
            let rows: Vec<StreamRow> = pieces(&exchange, &capture).collect();
            assert_eq!(derive_records(&tiny(), &[exchange], &rows).expect("whole"), [record]);
        };
        check(100, 42, (RequestStatus::Ok, End::Eof, 100));
        check(50_000, 24_992, (RequestStatus::Ok, End::Eof, 50_000));
        check(50_000, 24_991, (RequestStatus::ProtocolError, End::BeyondMaxTokens, 0));
        check(100, 41, (RequestStatus::ProtocolError, End::BeyondMaxTokens, 0));
    }

    #[test]
    fn records_are_those_of_the_captures() {
        let (exchanges, pieces) = kept(vec![answered(0), refused(1), answered(2)]);
        let records = derive_records(&tiny(), &exchanges, &pieces).expect("whole");
        // They name no log probabilities, so no token has arrived before the body's end.
        let of = |record: &Record| (record.request.status, record.request.ttft_ns, record.tokens.len());
        assert_eq!(
            records.iter().map(of).collect::<Vec<_>>(),
            [
                (RequestStatus::Ok, Some(50), 4),
                (RequestStatus::TransportError, None, 0),
                (RequestStatus::Ok, Some(50), 4)
            ]
        );
        let parts = [
            derive_records(&tiny(), &exchanges[..1], &pieces[..4]).expect("whole"),
            derive_records(&tiny(), &exchanges[1..], &pieces[4..]).expect("whole"),
        ];
        assert_eq!(parts.concat(), records, "some at a time or all at once");
        assert_eq!(
            (records[2].request.read_key.as_str(), records[2].request.prompt_sha256.as_str()),
            ("k", "00")
        );
        assert!(records.iter().all(|record| record.request.max_tokens == Some(64)));
        let before = [ExchangeRow { max_tokens: None, ..exchanges[0].clone() }];
        let records = derive_records(&tiny(), &before, &pieces[..4]).expect("whole");
        assert_eq!(records[0].request.max_tokens, None, "of an exchange from before it was kept");
    }

    #[test]
    fn pieces_that_do_not_fit_are_named() {
        let check = |change: fn(&mut Vec<StreamRow>), expected: &str| {
            let (exchanges, mut pieces) = kept(vec![answered(0), refused(1), answered(2)]);
            change(&mut pieces);
            let error = derive_records(&tiny(), &exchanges, &pieces).expect_err("does not fit");
            assert_eq!(error.to_string(), expected);
        };
        check(|pieces| drop(pieces.remove(1)), "piece 1 of prompt 0 of read `k` is missing");
        check(|pieces| drop(pieces.pop()), "piece 3 of prompt 2 of read `k` is missing");
        check(|pieces| pieces.swap(0, 4), "piece 0 of prompt 0 of read `k` is missing");
        check(|pieces| pieces[5].read_key.push('x'), "piece 1 of prompt 2 of read `k` is missing");
        check(
            |pieces| pieces.push(pieces[7].clone()),
            "there is a piece of prompt 2 of read `k` that no request has",
        );
    }
}
