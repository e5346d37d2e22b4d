//! What the bytes of a capture say: status, text, tokens, each with the stamp of the read that completed it.
//!
//! A visible event is one with text, reasoning text or a tool call; an *answer* event is one with text of the answer
//! itself, and only those are timed ([`super::metrics`]), because only that text is judged. Whatever the server says
//! beyond that (usage, log probabilities, the moment it names) is kept as its claim.
//!
//! Nothing a server sends makes this fail: what is not the protocol is a status and a [`RequestFlag`].

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::bounds::{MAX_CALLS, MAX_CHOICES, MAX_ENTRIES};
use super::capture::{Capture, End};
use super::few::Few;
use super::sse::{EventStream, StreamBounds, StreamEvent};
use crate::model::{RequestFlag, RequestStatus};

/// Bounds on what of one response is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseBounds {
    /// Bounds of the event stream.
    pub stream: StreamBounds,
    /// Choices that were asked for (`n`): one with a higher index is not the protocol.
    pub choices: u32,
}

impl Default for ResponseBounds {
    fn default() -> Self {
        Self { stream: StreamBounds::default(), choices: 1 }
    }
}

/// One visible event, however many choices it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VisibleEvent {
    /// Stamp of the read that completed the event.
    pub at_ns: u64,
    /// Length of the answer's text (choice 0) after the event, bytes.
    pub text_end: usize,
    /// Number of log probability entries the event carried.
    pub logprob_tokens: u32,
    /// Whether the event added to the answer's text, rather than only to another channel or choice.
    pub is_answer: bool,
}

/// One entry of `logprobs.content` of choice 0, as claimed.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimedToken {
    /// The token's text as the server writes it.
    pub token: String,
    /// Natural logarithm of its probability; none where the server sent null.
    pub logprob: Option<f64>,
    /// The token's bytes, where the server names them.
    pub bytes: Option<Vec<u8>>,
    /// Stamp of the read that completed the entry's event.
    pub at_ns: u64,
}

impl ClaimedToken {
    /// The token's bytes: those the server names, else those of its text.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or(self.token.as_bytes())
    }
}

/// What a capture says. All stamps are nanoseconds since the request's send.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// How the request ended.
    pub status: RequestStatus,
    /// What else was noticed about the answer.
    pub flags: BTreeSet<RequestFlag>,
    /// Text of each choice by its index; a choice that was named has an entry.
    pub text: BTreeMap<u32, String>,
    /// Arguments of the tool calls of choice 0, by the index of the call.
    pub tool_args: BTreeMap<u32, String>,
    /// The visible events, in the order of their arrival.
    pub visible: Vec<VisibleEvent>,
    /// The claimed tokens of choice 0; none where no event carried `logprobs.content`.
    pub claimed: Option<Vec<ClaimedToken>>,
    /// Finish reason of choice 0, as the server sent it.
    pub finish_reason: Option<String>,
    /// `usage.completion_tokens`, the last value sent.
    pub usage_completion_tokens: Option<u64>,
    /// `usage.prompt_tokens`, the last value sent.
    pub usage_prompt_tokens: Option<u64>,
    /// Whether the event `[DONE]` came.
    pub is_done: bool,
    /// Number of events that could not be read.
    pub bad_json: u32,
    /// Number of complete events up to and including `[DONE]`.
    pub events: u32,
    /// Number of bytes of the body.
    pub body_bytes: u64,
    /// The server's own error message, cut to 300 characters.
    pub error: Option<String>,
    /// When the first byte of the body came.
    pub first_byte_ns: Option<u64>,
    /// When the first event was complete, whatever it holds.
    pub first_event_ns: Option<u64>,
    /// When the first event with a log probability entry was complete.
    pub first_logprob_ns: Option<u64>,
    /// When the event with the finish reason was complete.
    pub finish_ns: Option<u64>,
    /// When `[DONE]` was complete.
    pub done_ns: Option<u64>,
}

impl Observation {
    const fn empty() -> Self {
        Self {
            status: RequestStatus::NoTokens,
            flags: BTreeSet::new(),
            text: BTreeMap::new(),
            tool_args: BTreeMap::new(),
            visible: Vec::new(),
            claimed: None,
            finish_reason: None,
            usage_completion_tokens: None,
            usage_prompt_tokens: None,
            is_done: false,
            bad_json: 0,
            events: 0,
            body_bytes: 0,
            error: None,
            first_byte_ns: None,
            first_event_ns: None,
            first_logprob_ns: None,
            finish_ns: None,
            done_ns: None,
        }
    }

    /// Text of the answer, which is choice 0.
    pub fn answer(&self) -> &str {
        self.text.get(&0).map_or("", String::as_str)
    }

    /// When the first visible event of any channel was complete.
    pub fn first_visible_ns(&self) -> Option<u64> {
        self.visible.first().map(|event| event.at_ns)
    }

    /// When the last visible event of any channel was complete.
    pub fn last_visible_ns(&self) -> Option<u64> {
        self.visible.last().map(|event| event.at_ns)
    }

    /// The events that added to the answer's text.
    pub fn answer_events(&self) -> impl DoubleEndedIterator<Item = &VisibleEvent> {
        self.visible.iter().filter(|event| event.is_answer)
    }

    /// Sizes of the groups of visible events that share a stamp.
    pub fn bursts(&self) -> Vec<usize> {
        self.visible.chunk_by(|a, b| a.at_ns == b.at_ns).map(<[_]>::len).collect()
    }
}

/// Reads a capture. Any bytes give an observation.
pub fn observe(capture: &Capture, bounds: &ResponseBounds) -> Observation {
    let mut seen = Observation::empty();
    seen.body_bytes = capture.pieces.iter().map(|read| read.bytes.len() as u64).sum();
    seen.first_byte_ns = capture.pieces.iter().find(|read| !read.bytes.is_empty()).map(|read| read.at_ns);
    if matches!(capture.end, End::TooLarge | End::BeyondMaxTokens) {
        seen.flags.insert(RequestFlag::TooLarge);
    }
    if let Some(status) = head_fault(capture, &mut seen.flags) {
        seen.status = status;
        if status == RequestStatus::ServerError {
            let bytes = capture.pieces.iter().flat_map(|read| &read.bytes).copied();
            let body: Vec<u8> = bytes.take(1 << 16).collect();
            seen.error = Some(error_message(&String::from_utf8_lossy(&body)));
        }
    } else {
        read_stream(capture, bounds, &mut seen);
        seen.status = status_of_stream(capture.end, &mut seen);
    }
    seen
}

/// What is wrong with the response before its first event, if anything is.
fn head_fault(capture: &Capture, flags: &mut BTreeSet<RequestFlag>) -> Option<RequestStatus> {
    let Some(http_status) = capture.http_status else {
        return Some(match capture.end {
            End::Timeout => RequestStatus::Timeout,
            End::BadHttp | End::TooLarge | End::BeyondMaxTokens => RequestStatus::ProtocolError,
            End::Eof | End::ConnectFailed | End::Reset => RequestStatus::TransportError,
        });
    };
    if http_status != 200 {
        return Some(RequestStatus::ServerError);
    }
    if capture.content_length.is_some() {
        flags.insert(RequestFlag::ContentLength);
    }
    let encoding = capture.content_encoding.as_deref().unwrap_or_default().trim();
    if !(encoding.is_empty() || encoding.eq_ignore_ascii_case("identity")) {
        flags.insert(RequestFlag::ContentEncoding);
        return Some(RequestStatus::ProtocolError);
    }
    if !capture.is_of_event_stream_type() {
        flags.insert(RequestFlag::NotEventStream);
        return Some(RequestStatus::ProtocolError);
    }
    None
}

fn read_stream(capture: &Capture, bounds: &ResponseBounds, seen: &mut Observation) {
    let mut stream = EventStream::new(bounds.stream);
    for read in &capture.pieces {
        for event in stream.push(&read.bytes) {
            seen.take(&event, read.at_ns, bounds);
        }
    }
    if stream.exceeded().is_some() {
        seen.flags.insert(RequestFlag::TooLarge);
    } else if stream.has_partial_event() {
        let is_done = |event: StreamEvent| event.name != "error" && event.data.trim() == "[DONE]";
        let at_ns = capture.pieces.iter().rev().find(|read| !read.bytes.is_empty()).map(|read| read.at_ns);
        if capture.end == End::Eof && !seen.is_done && stream.unfinished().is_some_and(is_done) {
            seen.is_done = true;
            seen.done_ns = at_ns;
            seen.flags.insert(RequestFlag::DoneUnclosed);
        } else {
            seen.flags.insert(RequestFlag::PartialEventAtEof);
        }
    }
}

fn status_of_stream(end: End, seen: &mut Observation) -> RequestStatus {
    if seen.error.is_some() {
        return RequestStatus::ServerError;
    }
    let violations = [
        RequestFlag::BadJson,
        RequestFlag::TextAfterFinish,
        RequestFlag::UnrequestedChoice,
        RequestFlag::TooLarge,
    ];
    let is_whole = seen.is_done && seen.finish_reason.is_some() && end != End::BeyondMaxTokens;
    // A client may stop reading at [DONE], so what goes wrong after it takes nothing from the answer.
    if violations
        .iter()
        .any(|flag| seen.flags.contains(flag) && !(is_whole && *flag == RequestFlag::TooLarge))
    {
        return RequestStatus::ProtocolError;
    }
    match end {
        End::Eof => {}
        _ if is_whole => {
            seen.flags.insert(RequestFlag::UncleanEnd);
        }
        End::Reset | End::ConnectFailed => return RequestStatus::TransportError,
        End::Timeout => return RequestStatus::Timeout,
        End::BadHttp | End::TooLarge | End::BeyondMaxTokens => return RequestStatus::ProtocolError,
    }
    if seen.is_done && seen.finish_reason.is_none() {
        seen.flags.insert(RequestFlag::DoneWithoutFinish);
    }
    if seen.visible.is_empty() {
        return RequestStatus::NoTokens;
    }
    if seen.finish_reason.is_none() {
        return RequestStatus::Truncated;
    }
    if !seen.is_done {
        seen.flags.insert(RequestFlag::NoDone);
    }
    match (&seen.claimed, seen.usage_completion_tokens) {
        (Some(claimed), Some(usage)) if usage.abs_diff(claimed.len() as u64) > 1 => {
            seen.flags.insert(RequestFlag::UsageMismatch);
        }
        _ => {}
    }
    RequestStatus::Ok
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    object: Option<String>,
    choices: Option<Few<Choice, MAX_CHOICES>>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Choice {
    index: Option<u32>,
    delta: Option<Delta>,
    logprobs: Option<Logprobs>,
    finish_reason: Option<String>,
}

/// What a choice of a chunk, or all of them, brought into sight.
#[derive(Default)]
struct SeenChoice {
    is_visible: bool,
    is_answer: bool,
    logprob_tokens: u32,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    tool_calls: Option<Few<ToolCall, MAX_CALLS>>,
}

#[derive(Deserialize)]
struct ToolCall {
    index: Option<u32>,
    function: Option<Function>,
}

#[derive(Deserialize)]
struct Function {
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Deserialize)]
struct Logprobs {
    content: Option<Few<Entry, MAX_ENTRIES>>,
}

#[derive(Deserialize)]
struct Entry {
    token: String,
    logprob: Option<f64>,
    bytes: Option<Vec<u8>>,
}

impl Observation {
    fn take(&mut self, event: &StreamEvent, at_ns: u64, bounds: &ResponseBounds) {
        if self.is_done {
            self.flags.insert(RequestFlag::DataAfterDone);
            return;
        }
        self.events = self.events.saturating_add(1);
        self.first_event_ns.get_or_insert(at_ns);
        if event.is_lossy {
            self.flags.insert(RequestFlag::InvalidUtf8);
        }
        if event.name == "error" {
            self.error.get_or_insert_with(|| error_message(&event.data));
            return;
        }
        match event.data.trim() {
            "" => return,
            "[DONE]" => {
                self.is_done = true;
                self.done_ns = Some(at_ns);
                return;
            }
            _ => {}
        }
        let Ok(chunk) = serde_json::from_str::<Chunk<'_>>(&event.data) else {
            self.bad_json += 1;
            self.flags.insert(RequestFlag::BadJson);
            return;
        };
        if chunk.error.is_some() || chunk.object.as_deref() == Some("error") {
            self.error.get_or_insert_with(|| error_message(&event.data));
            return;
        }
        if let Some(usage) = chunk.usage {
            self.usage_completion_tokens = usage.completion_tokens.or(self.usage_completion_tokens);
            self.usage_prompt_tokens = usage.prompt_tokens.or(self.usage_prompt_tokens);
        }
        let mut seen = SeenChoice::default();
        for choice in chunk.choices.into_iter().flat_map(|Few(choices)| choices) {
            if choice.index.unwrap_or(0) < bounds.choices {
                let one = self.take_choice(choice, at_ns);
                seen.is_visible |= one.is_visible;
                seen.is_answer |= one.is_answer;
                seen.logprob_tokens += one.logprob_tokens;
            } else {
                self.flags.insert(RequestFlag::UnrequestedChoice);
            }
        }
        if seen.is_visible {
            let SeenChoice { logprob_tokens, is_answer, .. } = seen;
            let text_end = self.answer().len();
            self.visible.push(VisibleEvent { at_ns, text_end, logprob_tokens, is_answer });
        }
    }

    fn take_choice(&mut self, choice: Choice, at_ns: u64) -> SeenChoice {
        let index = choice.index.unwrap_or(0);
        let (content, has_other_channel) =
            choice.delta.map_or((None, false), |delta| self.take_delta(index, delta));
        let content = content.unwrap_or_default();
        self.text.entry(index).or_default().push_str(&content);
        let is_visible = has_other_channel || !content.is_empty();
        if is_visible && self.finish_reason.is_some() && index == 0 {
            self.flags.insert(RequestFlag::TextAfterFinish);
        }
        let entries = choice.logprobs.and_then(|logprobs| logprobs.content);
        let mut logprob_tokens = 0;
        if let Some(Few(entries)) = entries.filter(|_| index == 0) {
            logprob_tokens = entries.len() as u32;
            if logprob_tokens > 0 {
                self.first_logprob_ns.get_or_insert(at_ns);
                if !is_visible && choice.finish_reason.is_none() {
                    self.flags.insert(RequestFlag::TokenWithoutText);
                }
            }
            let claimed = self.claimed.get_or_insert_default();
            claimed.extend(entries.into_iter().map(|Entry { token, logprob, bytes }| ClaimedToken {
                token,
                logprob,
                bytes,
                at_ns,
            }));
        }
        if let Some(reason) = choice.finish_reason.filter(|_| index == 0) {
            self.finish_ns.get_or_insert(at_ns);
            self.finish_reason.get_or_insert(reason);
        }
        SeenChoice { is_visible, is_answer: index == 0 && !content.is_empty(), logprob_tokens }
    }

    /// Takes in a delta: gives its content, and whether it carries anything on another channel.
    fn take_delta(&mut self, index: u32, delta: Delta) -> (Option<String>, bool) {
        let reasoning = delta.reasoning_content.or(delta.reasoning).unwrap_or_default();
        let mut has_other_channel = !reasoning.is_empty();
        for call in delta.tool_calls.into_iter().flat_map(|Few(calls)| calls) {
            let Some(function) = call.function else { continue };
            let arguments = function.arguments.unwrap_or_default();
            has_other_channel |= !arguments.is_empty() || function.name.is_some_and(|name| !name.is_empty());
            if index == 0 {
                self.tool_args.entry(call.index.unwrap_or(0)).or_default().push_str(&arguments);
            }
        }
        (delta.content, has_other_channel)
    }
}

/// The message of an error body in any of the shapes in use, else its beginning; at most 300 characters.
fn error_message(body: &str) -> String {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        error: Option<&'a RawValue>,
        message: Option<String>,
        detail: Option<String>,
    }
    let parsed = serde_json::from_str::<Body<'_>>(body).ok();
    let inner = parsed.as_ref().and_then(|body| body.error).map(|error| {
        let nested = serde_json::from_str::<Body<'_>>(error.get()).ok().and_then(|error| error.message);
        nested.or_else(|| serde_json::from_str(error.get()).ok()).unwrap_or_else(|| error.get().to_owned())
    });
    let message = inner.or_else(|| parsed.and_then(|body| body.message.or(body.detail)));
    message.as_deref().unwrap_or(body).trim().chars().filter(|c| !c.is_control()).take(300).collect()
}
