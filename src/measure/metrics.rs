//! From an observation to the rows of `requests` and `tokens`: the metrics of one request.
//!
//! All times are anchored at the request's send. Tokens are those of the canonical segmentation of the *answer's* text, and
//! each is credited to the event that completed both its text and its log probability ([`super::arrival`]); neither chunks nor
//! the server's counts are tokens. Text on another channel (reasoning, tool calls) stops no clock: nobody judges it, so it
//! could be sent at once. There is no decode-window rate: it rewards holding an answer back.

use super::arrival::Arrivals;
use super::capture::{Capture, End};
use super::observe::Observation;
use super::tokenizer::{AnswerTokens, HasStopped, PinnedTokenizer, TokenizerError};
use crate::model::{RequestFlag, RequestRow, RequestStatus, TokenRow};

/// Most bytes of text that are kept of an answer that went beyond its bounds: the whole lies in the streams.
const BEYOND_TEXT_BYTES: usize = 4096;

/// What is known of a request before it is sent, and the tokenizer of the round.
#[derive(Debug, Clone, Copy)]
pub struct RecordContext<'a> {
    /// Id of the round.
    pub round_id: &'a str,
    /// Key of the read that the request belongs to.
    pub read_key: &'a str,
    /// SHA-256 of the prompt's text, hexadecimal.
    pub prompt_sha256: &'a str,
    /// Number of the prompt's tokens that no other prompt of the read begins with; none where nobody knows.
    pub new_prompt_tokens: Option<u32>,
    /// The tokenizer that every token of the round is counted by.
    pub tokenizer: &'a PinnedTokenizer,
    /// The `max_tokens` that the request asked for, where that is known.
    pub max_tokens: Option<u32>,
}

/// The rows of one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The row of `requests`.
    pub request: RequestRow,
    /// The rows of `tokens`, without the scorer's columns; empty unless the request ended `ok`.
    pub tokens: Vec<TokenRow>,
}

/// The tokens that arrived at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When that was, nanoseconds since the request's send.
    pub at_ns: u64,
    /// How many canonical tokens had arrived then that had not before.
    pub tokens: u32,
}

/// The times of one answer, nanoseconds since the request's send.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Timing {
    /// When the first token arrived: the time to first token.
    pub ttft_ns: Option<u64>,
    /// When the answer was whole: the end-to-end time.
    pub e2e_ns: Option<u64>,
    /// Time per token after the first burst; none where nothing came after it.
    pub tpot_ns: Option<f64>,
    /// Mean delivery time: the mean of the arrival times, weighted by tokens.
    pub mdt_ns: Option<f64>,
    /// Longest gap between two bursts; none where there was only one.
    pub stall_ns: Option<u64>,
}

/// The times of an answer from its arrivals, in order of time. `whole_ns` is when all else of the answer had come.
///
/// - E2E is the last arrival or `whole_ns`, whichever is later.
/// - TPOT = (last - first) / (N - `n_first`), where `n_first` tokens came with the first stamp. Dividing by N - 1,
///   as is usual, is biased as soon as the first burst holds more than one token.
/// - MDT = sum(n t) / sum(n). For a smooth stream it is TTFT + (N - 1) / 2 TPOT; it falls when either falls and
///   is not improved by buffering, early empty chunks or a final flush.
pub fn timing(arrivals: &[Arrival], whole_ns: u64) -> Timing {
    let (Some(first), Some(last)) = (arrivals.first(), arrivals.last()) else {
        return Timing::default();
    };
    let tokens_of =
        |arrivals: &[Arrival]| arrivals.iter().map(|arrival| u64::from(arrival.tokens)).sum::<u64>();
    let total = tokens_of(arrivals);
    let first_burst = arrivals.iter().take_while(|arrival| arrival.at_ns == first.at_ns).count();
    let later = total - tokens_of(&arrivals[..first_burst]);
    let span = last.at_ns.saturating_sub(first.at_ns);
    let weighted: f64 = arrivals.iter().map(|arrival| arrival.at_ns as f64 * f64::from(arrival.tokens)).sum();
    Timing {
        ttft_ns: Some(first.at_ns),
        e2e_ns: Some(last.at_ns.max(whole_ns)),
        tpot_ns: (later > 0 && span > 0).then(|| span as f64 / later as f64),
        mdt_ns: (total > 0).then(|| weighted / total as f64),
        stall_ns: arrivals
            .windows(2)
            .map(|pair| pair[1].at_ns.saturating_sub(pair[0].at_ns))
            .filter(|&gap| gap > 0)
            .max(),
    }
}

/// Makes the rows of one request from its capture and what was read out of it.
pub fn record(context: &RecordContext<'_>, capture: &Capture, seen: &Observation) -> Record {
    rows(context, (capture, seen), aligned(context.tokenizer, capture, seen))
}

/// The answer's text, or as much of it as is kept.
pub(super) fn text<'a>(capture: &Capture, seen: &'a Observation) -> &'a str {
    let text = seen.answer();
    if capture.end == End::BeyondMaxTokens {
        &text[..text.floor_char_boundary(BEYOND_TEXT_BYTES)]
    } else {
        text
    }
}

/// The tokens of what was read out of a capture.
pub(super) fn aligned(
    tokenizer: &PinnedTokenizer,
    capture: &Capture,
    seen: &Observation,
) -> Result<AnswerTokens, TokenizerError> {
    let has_stopped =
        if seen.finish_reason.as_deref() == Some("stop") { HasStopped::Yes } else { HasStopped::No };
    tokenizer.tokens_of_answer(text(capture, seen), seen.claimed.as_deref(), has_stopped)
}

/// Makes the rows of one request from its capture, what was read out of it, and its tokens as [`aligned`] gives them.
pub(super) fn rows(
    context: &RecordContext<'_>,
    (capture, seen): (&Capture, &Observation),
    aligned: Result<AnswerTokens, TokenizerError>,
) -> Record {
    let text = text(capture, seen);
    let mut flags = seen.flags.clone();
    if seen.visible.iter().any(|event| !event.is_answer) {
        flags.insert(RequestFlag::OtherChannel);
    }
    let mut status = seen.status;
    if status == RequestStatus::Ok && text.is_empty() {
        status = RequestStatus::NoTokens;
    }
    // A text that no tokenizer takes is no answer of the model's.
    let aligned = aligned.unwrap_or_else(|_| {
        status = RequestStatus::ProtocolError;
        flags.insert(RequestFlag::NotTokenizable);
        AnswerTokens::default()
    });
    flags.extend(&aligned.flags);

    let ended_ns = capture.pieces.last().map_or(capture.end_ns, |piece| capture.end_ns.max(piece.at_ns));
    let arrivals = Arrivals::of(text, seen, ended_ns);
    let timing = timing(&bursts(&arrivals, &aligned.canonical.ends), arrivals.last_ns());
    let tokens = if status == RequestStatus::Ok {
        token_rows(context, (capture, seen), (&aligned, &arrivals))
    } else {
        Vec::new()
    };
    let request = RequestRow {
        round_id: context.round_id.to_owned(),
        read_key: context.read_key.to_owned(),
        prompt_index: capture.prompt_index,
        prompt_sha256: context.prompt_sha256.to_owned(),
        status,
        flags,
        http_status: capture.http_status.map(u32::from),
        send_offset_ns: nanoseconds(capture.send_offset_ns),
        sent_ns: capture.sent_ns.map(nanoseconds),
        headers_ns: capture.headers_ns.map(nanoseconds),
        first_byte_ns: seen.first_byte_ns.map(nanoseconds),
        first_event_ns: seen.first_event_ns.map(nanoseconds),
        ttft_ns: timing.ttft_ns.map(nanoseconds),
        e2e_ns: timing.e2e_ns.map(nanoseconds),
        finish_ns: seen.finish_ns.map(nanoseconds),
        done_ns: seen.done_ns.map(nanoseconds),
        end_ns: Some(nanoseconds(capture.end_ns)),
        tpot_ns: timing.tpot_ns,
        mdt_ns: timing.mdt_ns,
        stall_ns: timing.stall_ns.map(nanoseconds),
        tokens: count(aligned.canonical.ids.len() as u64),
        logprob_tokens: count(seen.claimed.as_ref().map_or(0, Vec::len) as u64),
        usage_tokens: seen.usage_completion_tokens.map(count),
        finish_reason: seen.finish_reason.as_ref().map(|reason| reason.chars().take(40).collect()),
        events: seen.events,
        body_bytes: nanoseconds(seen.body_bytes),
        text: text.to_owned(),
        new_prompt_tokens: context.new_prompt_tokens,
        max_tokens: context.max_tokens,
    };
    Record { request, tokens }
}

/// The arrivals of the tokens with these ends, one for each moment.
fn bursts(arrivals: &Arrivals, ends: &[usize]) -> Vec<Arrival> {
    let moments: Vec<u64> = ends.iter().map(|&end| arrivals.token_ns(end)).collect();
    let burst = |same: &[u64]| Some(Arrival { at_ns: *same.first()?, tokens: same.len() as u32 });
    moments.chunk_by(|a, b| a == b).filter_map(burst).collect()
}

fn token_rows(
    context: &RecordContext<'_>,
    (capture, seen): (&Capture, &Observation),
    (answer, arrivals): (&AnswerTokens, &Arrivals),
) -> Vec<TokenRow> {
    let end_entry_ns = seen.claimed.as_ref().and_then(|claimed| claimed.last()).map(|entry| entry.at_ns);
    (0..)
        .zip(&answer.tokens)
        .map(|(position, token)| {
            let (text_ns, logprob_ns, arrival_ns) = if token.is_end {
                let entry_ns = end_entry_ns.filter(|_| token.logprob.is_some());
                (seen.finish_ns, entry_ns, seen.finish_ns.max(entry_ns))
            } else {
                let end = token.end;
                (arrivals.text_ns(end), arrivals.logprob_ns(end), Some(arrivals.token_ns(end)))
            };
            TokenRow {
                round_id: context.round_id.to_owned(),
                read_key: context.read_key.to_owned(),
                prompt_index: capture.prompt_index,
                position,
                token_id: token.id,
                is_end: token.is_end,
                server_logprob: token.logprob,
                scorer_logprob: None,
                scorer_rank: None,
                scorer_top_logprob: None,
                arrival_ns: arrival_ns.map(nanoseconds),
                text_ns: text_ns.map(nanoseconds),
                logprob_ns: logprob_ns.map(nanoseconds),
            }
        })
        .collect()
}

fn nanoseconds(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn count(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::capture::Piece;
    use super::super::observe::{ResponseBounds, observe};
    use super::super::tokenizer::tests::tiny;
    use super::*;

    fn at(at_ns: u64, tokens: u32) -> Arrival {
        Arrival { at_ns, tokens }
    }

    #[test]
    fn times() {
        let check = |arrivals: &[Arrival], tpot, mdt, stall| {
            let timing = timing(arrivals, 0);
            assert_eq!((timing.tpot_ns, timing.mdt_ns, timing.stall_ns), (tpot, mdt, stall), "{arrivals:?}");
        };
        check(&[], None, None, None);
        check(&[at(100, 1)], None, Some(100.0), None);
        check(&[at(100, 1), at(110, 1), at(120, 1)], Some(10.0), Some(110.0), Some(10));
        check(&[at(100, 3), at(120, 2)], Some(10.0), Some(108.0), Some(20));
        // One burst in two events: nothing came after it.
        check(&[at(100, 3), at(100, 2)], None, Some(100.0), None);
        // The second event is of the first burst, so its tokens are not divided by.
        check(&[at(100, 1), at(100, 3), at(140, 4)], Some(10.0), Some(120.0), Some(40));
        check(&[at(100, 0), at(130, 1)], Some(30.0), Some(130.0), Some(30));
        check(&[at(100, 1), at(150, 0)], None, Some(100.0), Some(50));
        let smooth: Vec<Arrival> = (0..50).map(|k| at(1000 + 20 * k, 1)).collect();
        let all = timing(&smooth, 0);
        assert_eq!((all.ttft_ns, all.e2e_ns), (Some(1000), Some(1980)));
        assert_eq!(Timing { e2e_ns: Some(2000), ..all }, timing(&smooth, 2000));
        assert_eq!(all.mdt_ns, all.tpot_ns.map(|tpot| 1000.0 + 49.0 / 2.0 * tpot));
    }

    fn event(content: &str, tokens: &[&str], rest: &str) -> Vec<u8> {
        let entries: Vec<serde_json::Value> = tokens
            .iter()
            .map(|token| serde_json::json!({"token": token, "logprob": -0.25, "bytes": token.as_bytes()}))
            .collect();
        format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{content:?}}},\
             \"logprobs\":{{\"content\":{}}}{rest}}}]}}\n\n",
            serde_json::Value::from(entries)
        )
        .into_bytes()
    }

    fn recorded(reads: Vec<(u64, Vec<u8>)>) -> Record {
        let capture = Capture {
            prompt_index: 4,
            http_status: Some(200),
            content_type: Some("text/event-stream".into()),
            pieces: reads.into_iter().map(|(at_ns, bytes)| Piece { at_ns, bytes }).collect(),
            ..Capture::default()
        };
        let tokenizer = tiny();
        let context = RecordContext {
            round_id: "r",
            read_key: "k",
            prompt_sha256: "",
            new_prompt_tokens: None,
            tokenizer: &tokenizer,
            max_tokens: None,
        };
        record(&context, &capture, &observe(&capture, &ResponseBounds::default()))
    }

    #[test]
    fn rows_of_a_whole_answer() {
        let record = recorded(vec![
            (5, event("", &[], "")),
            (10, event("He", &["He"], "")),
            (30, event("llo w", &["llo", " w"], "")),
            (40, event("", &["<|im_end|>"], ",\"finish_reason\":\"stop\"")),
            (41, b"data: {\"choices\":[],\"usage\":{\"completion_tokens\":4}}\n\ndata: [DONE]\n\n".to_vec()),
        ]);
        let row = &record.request;
        assert_eq!((row.status, row.flags.len()), (RequestStatus::Ok, 0), "{:?}", row.flags);
        assert_eq!(
            (row.ttft_ns, row.e2e_ns, row.finish_ns, row.done_ns),
            (Some(10), Some(40), Some(40), Some(41))
        );
        assert_eq!((row.tokens, row.logprob_tokens, row.usage_tokens), (3, 4, Some(4)));
        assert_eq!((row.tpot_ns, row.first_event_ns), (Some(10.0), Some(5)));
        let tokens: Vec<_> = record
            .tokens
            .iter()
            .map(|row| (row.position, row.token_id, row.is_end, row.arrival_ns))
            .collect();
        assert_eq!(
            tokens,
            [
                (0, 256, false, Some(10)),
                (1, 258, false, Some(30)),
                (2, 259, false, Some(30)),
                (3, 261, true, Some(40))
            ]
        );
        assert!(record.tokens.iter().all(|row| row.server_logprob == Some(-0.25)));
    }

    #[test]
    fn other_channels_stop_no_clock() {
        let reasoning =
            b"data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n".to_vec();
        let end = b"data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n".to_vec();
        let record =
            recorded(vec![(1, reasoning.clone()), (90, event("He", &["He"], "")), (91, end.clone())]);
        assert_eq!((record.request.ttft_ns, record.request.e2e_ns), (Some(90), Some(91)));
        assert_eq!(record.request.flags, [RequestFlag::OtherChannel].into());
        let record = recorded(vec![(1, reasoning), (91, end)]);
        assert_eq!((record.request.status, record.tokens.len()), (RequestStatus::NoTokens, 0));
    }
}
