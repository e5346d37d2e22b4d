//! When the tokens of an answer have arrived: a token has once its text and its log probability have.
//!
//! A log probability that comes later than its text says that the text came before the model had been run, or at least that
//! nobody can tell; so the later of the two counts. Both are found by bytes: the text's from its start up to the token's end,
//! and those that the entries of `logprobs.content` spell, in their order. So it does not matter whether the server's tokens
//! are the canonical ones, nor how many come in one event. An entry ahead of its text gains nothing.
//!
//! The entries reach as far as they spell the text with usable log probabilities. An empty one (a special token, or a part of
//! a character whose last part names all of it) is passed over. A part of a character that the server could only write as
//! U+FFFD stands for at most one character beyond ASCII, and reaches nothing until the entry after it fits. What the entries do
//! not reach when the body has ended has not come before that.

use super::observe::Observation;

/// What stands for a part of a character that is no text by itself.
const REPLACEMENT: char = '\u{fffd}';

/// The bytes of a text up to `end` had come at `at_ns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reach {
    end: usize,
    at_ns: u64,
}

/// When what part of an answer's text had come, and the log probabilities of what part. All stamps are nanoseconds since
/// the request's send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrivals {
    text: Vec<Reach>,
    entries: Vec<Reach>,
    ended_ns: u64,
    last_ns: u64,
}

impl Arrivals {
    /// Reads the arrivals of `text`, the answer's text or its beginning, out of what was seen. `ended_ns` is when the body
    /// ended.
    pub fn of(text: &str, seen: &Observation, ended_ns: u64) -> Self {
        let text_reach =
            rising(seen.answer_events().map(|event| Reach { end: event.text_end, at_ns: event.at_ns }));
        let claimed = seen.claimed.as_deref().unwrap_or_default();
        let mut spelled = Spelled { text, end: 0, parts: 0 };
        let fitting = claimed.iter().map_while(|entry| {
            let is_usable = entry.as_bytes().is_empty() || entry.logprob.is_some_and(|value| !value.is_nan());
            (is_usable && spelled.take(entry.as_bytes()))
                .then_some(Reach { end: spelled.end, at_ns: entry.at_ns })
        });
        let mut entries = rising(fitting);
        if spelled.ends_inside_the_last_character()
            && let Some(last) = claimed.last()
        {
            entries.push(Reach { end: text.len(), at_ns: last.at_ns });
        }
        let last = [
            text_reach.last().map(|reach| reach.at_ns),
            claimed.last().map(|entry| entry.at_ns),
            seen.finish_ns,
        ];
        let last_ns = last.into_iter().flatten().max().unwrap_or(0);
        Self { text: text_reach, entries, ended_ns: ended_ns.max(last_ns), last_ns }
    }

    /// When the text up to `end`, bytes from its start, had come; none if it never did.
    pub fn text_ns(&self, end: usize) -> Option<u64> {
        reached(&self.text, end)
    }

    /// When the log probabilities of the text up to `end` had come; none if they never did.
    pub fn logprob_ns(&self, end: usize) -> Option<u64> {
        reached(&self.entries, end)
    }

    /// When a token that ends at `end` had arrived: the later of both, and the end of the body if one never came.
    pub fn token_ns(&self, end: usize) -> u64 {
        self.text_ns(end).zip(self.logprob_ns(end)).map_or(self.ended_ns, |(text, entry)| text.max(entry))
    }

    /// The latest of the last text, the last log probability entry and the finish reason.
    pub const fn last_ns(&self) -> u64 {
        self.last_ns
    }
}

/// The steps with stamps that never fall.
fn rising(steps: impl Iterator<Item = Reach>) -> Vec<Reach> {
    let mut latest = 0;
    steps
        .map(|step| {
            latest = step.at_ns.max(latest);
            Reach { at_ns: latest, ..step }
        })
        .collect()
}

fn reached(steps: &[Reach], end: usize) -> Option<u64> {
    steps.get(steps.partition_point(|step| step.end < end)).map(|step| step.at_ns)
}

/// How far entries spell a text.
struct Spelled<'a> {
    text: &'a str,
    /// Bytes of the text that are spelled.
    end: usize,
    /// Parts of characters after them that could not be written.
    parts: usize,
}

impl Spelled<'_> {
    /// Takes the next entry's bytes; false where the text goes on otherwise.
    fn take(&mut self, bytes: &[u8]) -> bool {
        let rest = self.text.as_bytes().get(self.end..).unwrap_or_default();
        // An entry may go beyond the text: a stop string was cut off there.
        if self.parts == 0 && (rest.starts_with(bytes) || bytes.starts_with(rest)) {
            self.end += bytes.len().min(rest.len());
            return true;
        }
        String::from_utf8_lossy(bytes).split_inclusive(REPLACEMENT).all(|run| {
            let literal = run.trim_end_matches(REPLACEMENT);
            let fits = literal.is_empty() || self.take_literal(literal);
            self.parts += usize::from(literal.len() < run.len());
            fits
        })
    }

    /// Takes text that stands behind as many characters beyond ASCII as the parts before it can make.
    fn take_literal(&mut self, literal: &str) -> bool {
        let Some(rest) = self.text.get(self.end..) else { return false };
        let least = usize::from(self.parts > 0);
        let mut characters = rest.chars();
        for skipped in 0..=self.parts {
            let after = characters.as_str();
            if skipped >= least && (after.starts_with(literal) || literal.starts_with(after)) {
                self.end += rest.len() - after.len() + literal.len().min(after.len());
                self.parts = 0;
                return true;
            }
            if characters.next().is_none_or(|character| character.is_ascii()) {
                return false;
            }
        }
        false
    }

    /// Whether the parts left over are those of the text's last character, or of what replaces it where it was cut.
    fn ends_inside_the_last_character(&self) -> bool {
        let mut rest = self.text.get(self.end..).unwrap_or_default().chars();
        self.parts > 0 && rest.next().is_some_and(|character| !character.is_ascii()) && rest.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::capture::{Capture, Piece};
    use super::super::metrics::{Record, RecordContext, record};
    use super::super::observe::{ResponseBounds, observe};
    use super::super::tokenizer::tests::tiny;
    use super::*;
    use crate::model::{RequestFlag, RequestStatus};

    /// Streams of real servers, each an answer that ended at its token limit: one event to a pass of vLLM with speculation
    /// (several tokens each), and one to a token of llama.cpp's Python server, whose entries name no bytes and whose last
    /// event has the finish reason alone.
    const RECORDED: [&str; 2] = [
        include_str!("../../tests/fixtures/streams/vllm.txt"),
        include_str!("../../tests/fixtures/streams/llama-cpp.txt"),
    ];

    fn capture(events: impl IntoIterator<Item = (u64, String)>) -> Capture {
        let piece = |(at_ns, data)| Piece { at_ns, bytes: format!("data: {data}\n\n").into_bytes() };
        Capture {
            http_status: Some(200),
            content_type: Some("text/event-stream".into()),
            pieces: events.into_iter().map(piece).collect(),
            end_ns: 9000,
            ..Capture::default()
        }
    }

    fn measured(capture: &Capture) -> Record {
        let tokenizer = tiny();
        let context = RecordContext {
            round_id: "r",
            read_key: "k",
            prompt_sha256: "",
            new_prompt_tokens: None,
            tokenizer: &tokenizer,
            max_tokens: None,
        };
        record(&context, capture, &observe(capture, &ResponseBounds::default()))
    }

    /// An event: its stamp, its text and its entries, each the token's text.
    type Event<'a> = (u64, &'a str, &'a [&'a str]);

    fn entry(token: &str) -> Value {
        json!({"token": token, "logprob": -0.5})
    }

    fn stream(events: &[Event<'_>], entry: impl Fn(&str) -> Value) -> Capture {
        let data = |&(at_ns, text, tokens): &Event<'_>| {
            let entries: Vec<Value> = tokens.iter().map(|token| entry(token)).collect();
            let choice = json!({"delta": {"content": text}, "logprobs": {"content": entries}});
            (at_ns, json!({"choices": [choice]}).to_string())
        };
        let finish = |reason: &str| json!({"choices": [{"delta": {}, "finish_reason": reason}]}).to_string();
        let end = [(50, finish("length")), (60, "[DONE]".to_owned())];
        capture(events.iter().map(data).chain(end))
    }

    /// The arrivals of the canonical tokens of a text in `tiny`: `He`, `llo` and ` w` are tokens, and else each byte is one.
    fn moments(capture: &Capture) -> Vec<u64> {
        let seen = observe(capture, &ResponseBounds::default());
        let arrivals = Arrivals::of(seen.answer(), &seen, capture.end_ns);
        let ends = tiny().segment(seen.answer()).expect("segments").ends;
        ends.into_iter().map(|end| arrivals.token_ns(end)).collect()
    }

    #[track_caller]
    fn check(events: &[Event<'_>], expected: &[u64]) {
        assert_eq!(moments(&stream(events, entry)), expected, "{events:?}");
    }

    #[test]
    fn a_token_has_arrived_with_the_later_of_text_and_entry() {
        check(&[(10, "He", &["He"]), (20, "llo", &["llo"])], &[10, 20]);
        check(&[(10, "Hello", &["He", "llo"])], &[10, 10]);
        // Entries behind their text, and ahead of it.
        check(&[(10, "Hello", &[]), (30, "", &["He"]), (40, "", &["llo"])], &[30, 40]);
        check(&[(10, "", &["He", "llo"]), (30, "He", &[]), (40, "llo", &[])], &[30, 40]);
        // A first character is no token.
        check(&[(1, "H", &[]), (20, "ello", &["He", "llo"])], &[20, 20]);
        check(&[(1, "H", &["H"]), (20, "ello", &["ello"])], &[20, 20]);
        // The server's tokens are not the canonical ones.
        check(&[(10, "Hel", &["Hel"]), (20, "lo w", &["lo", " w"])], &[10, 20, 20]);
        check(&[(10, "Hello", &["H", "e"]), (20, "", &["l", "l"]), (30, "", &["o"])], &[10, 30]);
        // Held back before a stop string that then was cut off.
        check(&[(10, "He", &["He"]), (20, "", &["l"]), (30, "l", &["l"])], &[10, 30]);
        check(&[(10, "He", &["He"]), (20, "", &["llo"]), (30, "l", &["END"])], &[10, 30]);
    }

    #[test]
    fn entries_of_other_bytes_are_no_cover() {
        const NEVER: u64 = 9000;
        check(&[(10, "He", &[]), (20, "llo", &[])], &[NEVER, NEVER]);
        check(&[(10, "He", &["He"]), (20, "llo", &["no"])], &[10, NEVER]);
        check(&[(10, "He", &["no", "He"]), (20, "llo", &["llo"])], &[NEVER, NEVER]);
        check(&[(10, "He", &["He", "He"]), (20, "llo", &["llo"])], &[10, NEVER]);
        check(&[(10, "He", &["", "", ""]), (20, "llo", &["He"])], &[20, NEVER]);
        check(&[(10, "He", &["\u{fffd}", "\u{fffd}"]), (20, "llo", &["llo"])], &[NEVER, NEVER]);
        // An entry without a number is none.
        let events: [Event<'_>; 2] = [(10, "He", &["He"]), (20, "llo", &["llo"])];
        let unnamed = stream(&events, |token| json!({"token": token, "logprob": null}));
        assert_eq!(moments(&unnamed), [NEVER, NEVER]);
        let record = measured(&stream(&[(10, "He", &["He"]), (20, "llo", &[])], entry));
        assert_eq!((record.request.ttft_ns, record.request.e2e_ns), (Some(10), Some(9000)));
        assert_eq!(record.request.flags, [RequestFlag::BytesMismatch].into());
        let record = measured(&stream(&[(10, "He", &[]), (20, "llo", &[])], entry));
        assert_eq!((record.request.ttft_ns, record.request.e2e_ns), (Some(9000), Some(9000)));
        let rows: Vec<_> = record.tokens.iter().map(|row| (row.text_ns, row.logprob_ns)).collect();
        assert_eq!(rows, [(Some(10), None), (Some(20), None)]);
    }

    #[test]
    fn characters_in_parts() {
        let by_bytes = |parts: &[&[u8]], text_at: u64| {
            let entries = (10..).zip(parts).map(|(at_ns, bytes)| {
                let entry = json!({"token": "\u{fffd}", "logprob": -0.5, "bytes": bytes});
                let text = if at_ns == text_at { "\u{e9}" } else { "" };
                let choice = json!({"delta": {"content": text}, "logprobs": {"content": [entry]}});
                (at_ns, json!({"choices": [choice]}).to_string())
            });
            moments(&capture(entries))
        };
        assert_eq!(by_bytes(&[&[0xc3], &[0xa9]], 11), [11, 11]);
        // What a token is the bytes of is complete only with the character's text.
        assert_eq!(by_bytes(&[&[0xc3], &[0xa9], &[]], 12), [12, 12]);
        assert_eq!(by_bytes(&[&[0xc3], &[0xa9]], 10), [10, 11]);
        // Servers that name no bytes: nothing and then the whole character, or U+FFFD for each part.
        check(&[(10, "", &[""]), (20, "\u{e9}", &["\u{e9}"]), (30, "He", &["He"])], &[20, 20, 30]);
        let part = "\u{fffd}";
        check(&[(10, "", &[part]), (20, "\u{e9}", &[part]), (30, "He", &["He"])], &[30, 30, 30]);
        check(&[(10, "He", &["He"]), (20, "", &[part]), (30, "\u{e9}", &[part])], &[10, 30, 30]);
        check(&[(10, "", &["He\u{fffd}"]), (20, "He\u{e9}", &[part])], &[20, 20, 20]);
        // Cut at the token limit inside a character, which the text replaces.
        check(&[(10, "He", &["He"]), (20, part, &[part])], &[10, 20, 20, 20]);
    }

    /// The events of a recorded stream, the first at 1.
    fn events(recorded: &str) -> Vec<(u64, String)> {
        let data = recorded.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        (1..).zip(data.map(str::to_owned)).collect()
    }

    fn has_text(data: &str) -> bool {
        let event: Value = serde_json::from_str(data).unwrap_or_default();
        event["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty())
    }

    #[test]
    fn honest_streams_lose_nothing() {
        for recorded in RECORDED {
            let events = events(recorded);
            let stamp = |is_it: &dyn Fn(&str) -> bool| {
                events
                    .iter()
                    .filter(|(_, data)| is_it(data))
                    .map(|(at_ns, _)| at_ns.cast_signed())
                    .collect::<Vec<_>>()
            };
            let texts = stamp(&has_text);
            let finish = stamp(&|data| data.contains("\"length\""));
            let record = measured(&capture(events.clone()));
            let request = &record.request;
            assert_eq!(request.status, RequestStatus::Ok);
            assert_eq!(request.ttft_ns.as_ref(), texts.first());
            assert_eq!(request.e2e_ns.as_ref(), finish.last());
            for token in &record.tokens {
                assert_eq!((token.arrival_ns, token.logprob_ns), (token.text_ns, token.text_ns));
            }
            let last = record.tokens.last().expect("tokens");
            assert_eq!(last.arrival_ns.as_ref(), texts.last());
        }
    }

    /// The same streams with all entries moved to the event with the finish reason.
    #[test]
    fn log_probabilities_in_the_last_event_are_as_late_as_it() {
        for recorded in RECORDED {
            let mut late = Vec::new();
            let moved = events(recorded).into_iter().map(|(at_ns, data)| {
                let Ok(mut event) = serde_json::from_str::<Value>(&data) else { return (at_ns, data) };
                if let Some(entries) = event["choices"][0]["logprobs"]["content"].as_array() {
                    late.extend(entries.clone());
                    event["choices"][0]["logprobs"] = Value::Null;
                }
                if event["choices"][0]["finish_reason"].is_string() {
                    event["choices"][0]["logprobs"] = json!({"content": late});
                }
                (at_ns, event.to_string())
            });
            let capture = capture(moved);
            let request = measured(&capture).request;
            let finish = request.finish_ns;
            assert_eq!((request.ttft_ns, request.e2e_ns), (finish, finish));
            assert_eq!((request.tpot_ns, request.mdt_ns), (None, finish.map(|at_ns| at_ns as f64)));
        }
    }
}
