//! The event stream grammar of the WHATWG HTML standard, section 9.2, incremental over bytes.
//!
//! Reads may be cut anywhere, inside a character or between CR and LF: an event is complete at the byte that
//! ends its blank line, which for CRLF is the CR. Lines end in CR, LF or CRLF and in nothing else; bytes are
//! decoded only once an event is whole, with replacement, as the standard says. Fields `id` and `retry`, which
//! are about reconnecting, are ignored: no request is ever retried.
//!
//! Absent on purpose: JSON and the meaning of events ([`mod@super::observe`]).

/// Bounds on what a hostile stream may make the parser hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamBounds {
    /// Most bytes that one event may have, its line ends not counted.
    pub event_bytes: usize,
    /// Most events that one stream may have.
    pub events: usize,
    /// Most comments, which keep a connection alive, that one stream may have.
    pub comments: usize,
}

impl Default for StreamBounds {
    fn default() -> Self {
        Self { event_bytes: 4 << 20, events: 1 << 20, comments: usize::MAX }
    }
}

/// Which bound a stream went over. The parser gives no events after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BoundExceeded {
    /// One event had more bytes than this.
    #[error("an event is longer than {0} bytes")]
    EventBytes(usize),
    /// The stream had more events than this.
    #[error("the stream has more than {0} events")]
    Events(usize),
    /// The stream had more comments than this.
    #[error("the stream has more than {0} comments")]
    Comments(usize),
}

/// One complete event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEvent {
    /// The `event` field; empty where there was none.
    pub name: String,
    /// The `data` fields joined by LF, decoded with replacement.
    pub data: String,
    /// Number of the stream's bytes up to and including the one that completed the event.
    pub end_offset: u64,
    /// Whether bytes had to be replaced in decoding: the text is then not what the server wrote.
    pub is_lossy: bool,
}

/// The parser of a stream: push what was read, take what it completed.
#[derive(Debug, Clone)]
pub struct EventStream {
    bounds: StreamBounds,
    offset: u64,
    line: Vec<u8>,
    name: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    after_cr: bool,
    is_first_line: bool,
    events: usize,
    comments: usize,
    exceeded: Option<BoundExceeded>,
}

impl EventStream {
    /// A parser at the start of a stream.
    pub const fn new(bounds: StreamBounds) -> Self {
        Self {
            bounds,
            offset: 0,
            line: Vec::new(),
            name: Vec::new(),
            data: Vec::new(),
            has_data: false,
            after_cr: false,
            is_first_line: true,
            events: 0,
            comments: 0,
            exceeded: None,
        }
    }

    /// Takes the next bytes of the stream and returns the events they complete, in order.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<StreamEvent> {
        let mut events = Vec::new();
        let mut rest = bytes;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            if rest[0] == b'\n' {
                rest = &rest[1..];
                self.offset += 1;
            }
        }
        while self.exceeded.is_none() && !rest.is_empty() {
            let Some(end) = rest.iter().position(|&byte| byte == b'\n' || byte == b'\r') else {
                self.extend_line(rest);
                self.offset += rest.len() as u64;
                break;
            };
            self.extend_line(&rest[..end]);
            self.offset += end as u64 + 1;
            let is_cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
            events.extend(self.end_line());
            if is_cr {
                match rest.first() {
                    Some(b'\n') => {
                        rest = &rest[1..];
                        self.offset += 1;
                    }
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
        }
        events
    }

    /// The bound that was exceeded, if one was.
    pub const fn exceeded(&self) -> Option<BoundExceeded> {
        self.exceeded
    }

    /// Whether the stream, were it to end here, would end inside an event, which is then lost.
    pub fn has_partial_event(&self) -> bool {
        self.has_data || !(self.line.is_empty() || self.line.starts_with(b":"))
    }

    /// The event the stream would have ended with, had it written the blank line that closes one. The grammar
    /// discards such an event: it is no event, and only tells what was meant.
    pub fn unfinished(&self) -> Option<StreamEvent> {
        let mut closed = self.clone();
        if !closed.line.is_empty() {
            closed.end_line();
        }
        closed.end_line()
    }

    fn extend_line(&mut self, bytes: &[u8]) {
        if self.line.len() + self.data.len() + bytes.len() > self.bounds.event_bytes {
            self.exceeded = Some(BoundExceeded::EventBytes(self.bounds.event_bytes));
            self.line = Vec::new();
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self) -> Option<StreamEvent> {
        if self.exceeded.is_some() {
            return None;
        }
        let mut line = std::mem::take(&mut self.line);
        let start =
            if std::mem::take(&mut self.is_first_line) && line.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        let event = if line.len() == start { self.dispatch() } else { self.field(&line[start..]) };
        line.clear();
        self.line = line;
        event
    }

    fn field(&mut self, line: &[u8]) -> Option<StreamEvent> {
        let (name, value) = match line.iter().position(|&byte| byte == b':') {
            Some(0) => {
                self.comments += 1;
                if self.comments > self.bounds.comments {
                    self.exceeded = Some(BoundExceeded::Comments(self.bounds.comments));
                }
                return None;
            }
            Some(colon) => {
                let value = &line[colon + 1..];
                (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &b""[..]),
        };
        match name {
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            b"event" => value.clone_into(&mut self.name),
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<StreamEvent> {
        let name = std::mem::take(&mut self.name);
        if !std::mem::take(&mut self.has_data) {
            return None;
        }
        let data = std::mem::take(&mut self.data);
        if self.events == self.bounds.events {
            self.exceeded = Some(BoundExceeded::Events(self.bounds.events));
            return None;
        }
        self.events += 1;
        let (data, is_lossy) = match String::from_utf8(data) {
            Ok(text) => (text, false),
            Err(error) => (String::from_utf8_lossy(error.as_bytes()).into_owned(), true),
        };
        let name = String::from_utf8_lossy(&name).into_owned();
        Some(StreamEvent { name, data, end_offset: self.offset, is_lossy })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(bytes: &[u8], cut: usize) -> Vec<StreamEvent> {
        let mut stream = EventStream::new(StreamBounds::default());
        bytes.chunks(cut.max(1)).flat_map(|read| stream.push(read)).collect()
    }

    fn data(bytes: &str) -> Vec<String> {
        parse(bytes.as_bytes(), usize::MAX).into_iter().map(|event| event.data).collect()
    }

    #[test]
    fn the_standards_own_examples() {
        let first =
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
        assert_eq!(data(first), ["first event", "second event", " third event"]);
        assert_eq!(data("data\n\ndata\ndata\n\ndata:"), ["", "\n"]);
        assert_eq!(data("data:test\n\ndata: test\n\n"), ["test", "test"]);
        assert_eq!(data("data: YHOO\ndata: +2\ndata: 10\n\n"), ["YHOO\n+2\n10"]);
    }

    #[test]
    fn offsets_are_of_the_byte_that_completes() {
        let events = parse(b"data: a\n\nevent: e\r\ndata: b\r\n\r\ndata: c\r\r", usize::MAX);
        let ends: Vec<u64> = events.iter().map(|event| event.end_offset).collect();
        assert_eq!(ends, [9, 29, 39]);
        assert_eq!(events[1].name, "e");
        assert_eq!(events[2].name, "");
    }

    #[test]
    fn only_cr_and_lf_end_a_line() {
        assert_eq!(data("data: a\u{2028}b\u{85}c\u{b}d\n\n"), ["a\u{2028}b\u{85}c\u{b}d"]);
    }

    #[test]
    fn what_is_unfinished_can_be_asked_for_and_is_no_event() {
        let check = |bytes: &str, expected: Option<&str>| {
            let mut stream = EventStream::new(StreamBounds::default());
            stream.push(bytes.as_bytes());
            let found = stream.unfinished();
            assert_eq!(found.map(|event| event.data).as_deref(), expected, "{bytes:?}");
        };
        check("data: a\n\ndata: [DONE]", Some("[DONE]"));
        check("data: a\n\ndata: [DONE]\n", Some("[DONE]"));
        check("data: a\n\ndata: [DONE]\r", Some("[DONE]"));
        check("data: a\r\n\r\ndata: [DONE]\r\n", Some("[DONE]"));
        check("\u{feff}data: [DONE]", Some("[DONE]"));
        check("data: x\ndata: [DONE]", Some("x\n[DONE]"));
        check("data: a\n\ndata: [DO", Some("[DO"));
        check("data: [DONE]\n\n", None);
        check("data: [DONE]\n\n: bye", None);
        check("event: e", None);
        check("", None);
    }

    #[test]
    fn bounds() {
        let mut stream = EventStream::new(StreamBounds { event_bytes: 10, events: 2, comments: 1 });
        assert_eq!(stream.push(b"data: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\n").len(), 2);
        assert_eq!(stream.exceeded(), Some(BoundExceeded::Events(2)));
        let mut stream = EventStream::new(StreamBounds { event_bytes: 10, events: 2, comments: 1 });
        for _ in 0..100 {
            assert!(stream.push(b"data").is_empty());
        }
        assert_eq!(stream.exceeded(), Some(BoundExceeded::EventBytes(10)));
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_events(
            text in "(data: ?[aé😀]{0,3}|event: x|: c|\r|\n|\r\n|\u{feff}|id: 1|[a-z ]{0,3}){0,40}",
            cut in 1_usize..7,
        ) {
            prop_assert_eq!(parse(text.as_bytes(), cut), parse(text.as_bytes(), usize::MAX));
        }

        #[test]
        fn junk_is_bounded_and_harmless(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 1_usize..9) {
            for event in parse(&bytes, cut) {
                prop_assert!(event.data.len() <= 3 * bytes.len());
                prop_assert!(event.end_offset <= bytes.len() as u64);
            }
        }
    }
}
