//! How much of an answer is read: what an honest answer within `max-tokens` can take, and no more.
//!
//! The bounds hold while the answer arrives. The load client gives every piece to a [`Meter`] once its stamp is taken, and
//! stops reading at the first bound that is exceeded, so that a server that floods costs its own request and neither the
//! client's memory nor its time. What the bytes mean is [`mod@super::observe`]'s; the meter only counts.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, Visitor};

use super::few::Few;
use super::sse::{BoundExceeded, EventStream, StreamBounds};

/// Bytes of text for each token. The longest tokens of the vocabularies in use have 128 bytes (runs of spaces or signs),
/// and no answer is made of these alone.
const TEXT_BYTES_PER_TOKEN: usize = 128;
/// Bytes of text whatever `max-tokens` is: it is all tokenised at once, which takes far more memory than the text itself.
const MAX_TEXT_BYTES: usize = 128 << 10;
/// Events for each token: its text and its log probability may come apart, and its text character by character.
const EVENTS_PER_TOKEN: usize = 16;
/// Events beside the tokens': the role, the finish reason, usage, `[DONE]`, and what a server adds to these.
const EVENTS_BESIDE: usize = 64;
/// Comments of one answer: one a second keeps a connection alive for longer than any answer may take.
const COMMENTS: usize = 1024;
/// What is kept of each token, beside its alternatives: the envelopes of its events (about 300 bytes each), its own entry
/// and the pieces they come in. One token of an ordinary server takes about 1 KiB, one sent character by character four.
const KEPT_BYTES_PER_TOKEN: usize = 4096;
/// What is kept of each alternative in `top_logprobs`: usually 60 to 130 bytes, several times that where its text is
/// escaped and its bytes are listed.
const KEPT_BYTES_PER_ALTERNATIVE: usize = 256;
/// What is kept beside the tokens: comments and events without text.
const KEPT_BYTES_BESIDE: usize = 64 << 10;
/// What is kept of one answer whatever `max-tokens` is: about 1,500 tokens with 20 alternatives each, or 4,000 with 5.
const MAX_KEPT_BYTES: usize = 5 << 20;
/// Most choices of one event: one is asked for.
pub(super) const MAX_CHOICES: usize = 64;
/// Most tool calls of one event: none is asked for.
pub(super) const MAX_CALLS: usize = 1024;
/// Most log probability entries of one event: an ordinary one has a hundred bytes.
pub(super) const MAX_ENTRIES: usize = 16 << 10;
/// Bytes of one event: many tokens may come in one, a whole long answer never does.
const MAX_EVENT_BYTES: usize = 1 << 20;
/// Bytes that are kept of a body that is no event stream: enough for an error message.
const OTHER_BODY_BYTES: usize = 64 << 10;
/// What one piece costs beside its bytes: an answer that comes byte by byte takes the more memory for it.
pub(crate) const PIECE_BYTES: usize = 256;

/// The most of one answer that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerBounds {
    /// Log probability entries, of all choices.
    pub tokens: usize,
    /// Bytes of text, of all choices and channels.
    pub text_bytes: usize,
    /// Bounds of the event stream.
    pub stream: StreamBounds,
    /// Bytes of the body, each piece counted with what it costs beside them.
    pub kept_bytes: usize,
}

impl AnswerBounds {
    /// What an answer of at most `max_tokens` tokens, with so many alternatives each, can take.
    pub fn of(max_tokens: u32, top_logprobs: u32) -> Self {
        let [tokens, alternatives] = [max_tokens, top_logprobs].map(|count| count as usize);
        let per_token =
            alternatives.saturating_mul(KEPT_BYTES_PER_ALTERNATIVE).saturating_add(KEPT_BYTES_PER_TOKEN);
        let kept_bytes =
            tokens.saturating_mul(per_token).saturating_add(KEPT_BYTES_BESIDE).min(MAX_KEPT_BYTES);
        Self {
            tokens,
            text_bytes: tokens.saturating_mul(TEXT_BYTES_PER_TOKEN).min(MAX_TEXT_BYTES),
            stream: StreamBounds {
                event_bytes: kept_bytes.min(MAX_EVENT_BYTES),
                events: tokens.saturating_mul(EVENTS_PER_TOKEN).saturating_add(EVENTS_BESIDE),
                comments: COMMENTS,
            },
            kept_bytes,
        }
    }

    /// The most tokens that an answer's text may be worth: the tokenizer may take a few more for a text than the model did, never
    /// twice as many.
    pub const fn most_of_text(&self) -> usize {
        self.tokens.saturating_mul(2).saturating_add(16)
    }

    /// Whether an answer that came to its end is worth more tokens than it may have: its text says more than its log
    /// probability entries.
    pub fn excess_of_text(&self, tokens: usize) -> Option<Excess> {
        (tokens > self.most_of_text()).then_some(Excess::Tokens { came: tokens, allowed: self.tokens })
    }
}

/// Which bound an answer went over, and by how much as far as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// More tokens, by the log probability entries or by the text, than were asked for.
    #[error("{came} tokens where max-tokens allows {allowed}")]
    Tokens {
        /// How many had come.
        came: usize,
        /// How many there may be.
        allowed: usize,
    },
    /// More text than so many tokens can spell.
    #[error("{came} bytes of text where max-tokens allows {allowed}")]
    Text {
        /// How many bytes had come.
        came: usize,
        /// How many there may be.
        allowed: usize,
    },
    /// The event stream itself went over a bound.
    #[error("{0}, which is what max-tokens allows")]
    Stream(#[from] BoundExceeded),
    /// More bytes, or more pieces, than such an answer takes.
    #[error("stopped reading after {body_bytes} bytes of body in {pieces} pieces")]
    Bytes {
        /// How many bytes of the body had come.
        body_bytes: usize,
        /// In how many pieces they came.
        pieces: usize,
        /// Whether the answer had said that it is done: what comes then takes nothing from it.
        is_done: bool,
    },
}

/// Whether a body is read as an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// The event stream of an answer.
    Events,
    /// Anything else: an error's message, or nothing that was asked for.
    Other,
}

/// Counts an answer while it arrives.
#[derive(Debug)]
pub struct Meter {
    bounds: AnswerBounds,
    kind: BodyKind,
    stream: EventStream,
    tokens: usize,
    text_bytes: usize,
    body_bytes: usize,
    pieces: usize,
    is_done: bool,
}

impl Meter {
    /// A meter at the start of a body.
    pub fn new(bounds: AnswerBounds, kind: BodyKind) -> Self {
        let kept_bytes = match kind {
            BodyKind::Events => bounds.kept_bytes,
            BodyKind::Other => OTHER_BODY_BYTES,
        };
        Self {
            bounds: AnswerBounds { kept_bytes, ..bounds },
            kind,
            stream: EventStream::new(bounds.stream),
            tokens: 0,
            text_bytes: 0,
            body_bytes: 0,
            pieces: 0,
            is_done: false,
        }
    }

    /// Counts the next piece of the body.
    ///
    /// # Errors
    /// The first bound that the body exceeds with it.
    pub fn take(&mut self, piece: &[u8]) -> Result<(), Excess> {
        self.body_bytes += piece.len();
        self.pieces += 1;
        if self.body_bytes + self.pieces * PIECE_BYTES > self.bounds.kept_bytes {
            let Self { body_bytes, pieces, is_done, .. } = *self;
            return Err(Excess::Bytes { body_bytes, pieces, is_done });
        }
        if self.is_done || self.kind == BodyKind::Other {
            return Ok(());
        }
        for event in self.stream.push(piece) {
            if event.data.trim() == "[DONE]" {
                self.is_done = true;
                return Ok(());
            }
            self.count(&event.data)?;
        }
        self.stream.exceeded().map_or(Ok(()), |exceeded| Err(exceeded.into()))
    }

    fn count(&mut self, data: &str) -> Result<(), Excess> {
        // What cannot be read is the protocol's matter: it ends no better for being read on.
        let Ok(chunk) = serde_json::from_str::<Counted>(data) else { return Ok(()) };
        for choice in chunk.choices.into_iter().flat_map(|Few(choices)| choices) {
            self.tokens += choice.logprobs.and_then(|logprobs| logprobs.content).map_or(0, |all| all.len());
            self.text_bytes += choice.delta.map_or(0, |delta| delta.bytes());
        }
        let AnswerBounds { tokens, text_bytes, .. } = self.bounds;
        if self.tokens > tokens {
            return Err(Excess::Tokens { came: self.tokens, allowed: tokens });
        }
        if self.text_bytes > text_bytes {
            return Err(Excess::Text { came: self.text_bytes, allowed: text_bytes });
        }
        Ok(())
    }
}

/// What is counted of a chunk.
#[derive(Deserialize)]
struct Counted {
    choices: Option<Few<CountedChoice, MAX_CHOICES>>,
}

#[derive(Deserialize)]
struct CountedChoice {
    delta: Option<CountedDelta>,
    logprobs: Option<CountedLogprobs>,
}

#[derive(Deserialize)]
struct CountedLogprobs {
    content: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize)]
struct CountedDelta {
    content: Option<Length>,
    reasoning_content: Option<Length>,
    reasoning: Option<Length>,
    tool_calls: Option<Few<CountedCall, MAX_CALLS>>,
}

#[derive(Deserialize)]
struct CountedCall {
    function: Option<CountedFunction>,
}

#[derive(Deserialize)]
struct CountedFunction {
    name: Option<Length>,
    arguments: Option<Length>,
}

impl CountedDelta {
    /// Bytes of text on all channels; a server that gives its reasoning two names has it counted once, as it is read.
    fn bytes(&self) -> usize {
        let of = |text: &Option<Length>| text.as_ref().map_or(0, |Length(bytes)| *bytes);
        let functions =
            self.tool_calls.iter().flat_map(|Few(calls)| calls).filter_map(|call| call.function.as_ref());
        let calls: usize = functions.map(|function| of(&function.name) + of(&function.arguments)).sum();
        of(&self.content) + of(&self.reasoning_content).max(of(&self.reasoning)) + calls
    }
}

/// The length of a text, which itself is not kept.
struct Length(usize);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfText;
        impl Visitor<'_> for OfText {
            type Value = Length;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E>(self, text: &str) -> Result<Length, E> {
                Ok(Length(text.len()))
            }
        }
        deserializer.deserialize_str(OfText)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_TOKENS: u32 = 32;

    fn event(text: &str, entries: usize) -> String {
        let alternative = r#"{"token":"\u00e9","logprob":-12.345678901234567,"bytes":[195,169]}"#;
        let alternatives = [alternative; 5].join(",");
        let entry = format!(
            r#"{{"token":"\u00e9","logprob":-0.1234567890123456,"bytes":[195,169],"top_logprobs":[{alternatives}]}}"#
        );
        let entries = vec![entry; entries].join(",");
        format!(
            "data: {{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"choices\":[{{\"index\":0,\
             \"delta\":{{\"content\":\"{text}\"}},\"logprobs\":{{\"content\":[{entries}]}},\"finish_reason\":null}}]}}\n\n"
        )
    }

    fn metered(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Result<(), String> {
        let mut meter = Meter::new(AnswerBounds::of(MAX_TOKENS, 5), BodyKind::Events);
        pieces
            .into_iter()
            .try_for_each(|piece| meter.take(piece.as_ref()))
            .map_err(|excess| excess.to_string())
    }

    #[test]
    fn an_honest_answer_of_all_its_tokens_passes() {
        let role =
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
        let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":32}}\n\n";
        let finish = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}]}\n\n";
        let check = |name: &str, events: Vec<String>| {
            let around = |events: Vec<String>| {
                let before = [": hello\n\n", role, "data:\n\n", ": still here\n\n"].map(str::to_owned);
                let after = [finish, usage, "data: [DONE]\n\n", "data: {}\n\n"].map(str::to_owned);
                [before.to_vec(), events, after.to_vec()].concat()
            };
            assert_eq!(metered(around(events)), Ok(()), "{name}");
        };
        check("a token an event", vec![event("é", 1); 32]);
        check("all tokens in one event", vec![event(&"long text ".repeat(30), 32)]);
        check("several tokens an event", vec![event("four words are here", 4); 8]);
        let apart: Vec<String> = (0..32).flat_map(|_| [event("word", 0), event("", 1)]).collect();
        check("text and entries apart", apart);
        let characters = (0..32).flat_map(|_| (0..8).map(|n| event("x", usize::from(n == 0))));
        check("character by character", characters.collect());
        check("kept alive", (0..32).flat_map(|_| [": waiting\n\n".to_owned(), event("w", 1)]).collect());
        let lines = |event: String| event.split_inclusive('\n').map(str::to_owned).collect::<Vec<_>>();
        check("line by line", vec![event("é", 1); 32].into_iter().flat_map(lines).collect());
    }

    #[test]
    fn what_is_beyond_max_tokens_is_named() {
        let check = |pieces: Vec<String>, expected: &str| {
            assert_eq!(metered(pieces), Err(expected.to_owned()));
        };
        check(vec![event("a", 1); 33], "33 tokens where max-tokens allows 32");
        check(vec![event("a", 42)], "42 tokens where max-tokens allows 32");
        check(vec![event(&"a".repeat(8000), 1)], "8000 bytes of text where max-tokens allows 4096");
        let reasoning = event(&"a".repeat(4097), 0).replace("\"content\":\"a", "\"reasoning\":\"a");
        check(vec![reasoning], "4097 bytes of text where max-tokens allows 4096");
        check(
            vec!["data: {}\n\n".repeat(600)],
            "the stream has more than 576 events, which is what max-tokens allows",
        );
        check(
            vec![":\n".repeat(1025)],
            "the stream has more than 1024 comments, which is what max-tokens allows",
        );
        check(vec!["x".repeat(1 << 16); 9], "stopped reading after 262144 bytes of body in 4 pieces");
        check(vec!["x".to_owned(); 5000], "stopped reading after 925 bytes of body in 925 pieces");
    }

    #[test]
    fn what_comes_after_the_answer_counts_as_bytes_alone() {
        let done = "data: [DONE]\n\n".to_owned();
        let after = |pieces: Vec<String>| metered([vec![event("a", 32), done.clone()], pieces].concat());
        assert_eq!(after(vec![event("a", 32)]), Ok(()));
        assert!(after(vec!["x".repeat(1 << 20)]).is_err());
    }

    #[test]
    fn no_max_tokens_lets_more_than_a_few_megabytes_in() {
        for max_tokens in [0, 1, 4096, u32::MAX] {
            let bounds = AnswerBounds::of(max_tokens, u32::MAX);
            assert!(bounds.kept_bytes <= MAX_KEPT_BYTES && bounds.stream.event_bytes <= MAX_EVENT_BYTES);
        }
    }

    #[test]
    fn an_error_message_is_read_and_no_more() {
        let mut meter = Meter::new(AnswerBounds::of(4096, 20), BodyKind::Other);
        assert_eq!(meter.take(&[b'x'; 1000]), Ok(()));
        assert!(meter.take(&vec![b'x'; 1 << 16]).is_err());
    }
}
