//! Steps of the engine to server-sent events, one event to a step; and the cheats that live in the stream.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use super::cheats::{Cheat, Cheats};
use super::engine::{EngineEvent, EngineStep};
use super::request::StreamOptions;
use super::response::{Endpoint, Head, Usage, logprobs, role_chunk, text_chunk, usage_chunk};
use super::sampler::Position;
use super::text::Vocabulary;

/// Number of steps that go out before a cheat stops the stream.
const MIDDLE: usize = 8;
/// Memory that one who hoards takes, in MiB.
const HOARD_MIB: usize = 4096;
/// Number of entries that `Cheat::EmptyLogprobsFirst` sends.
const EMPTY_ENTRIES: usize = 64;
/// Number of characters that `Cheat::LongText` sends.
const LONG_CHARACTERS: usize = 8000;
/// Number of words that `Cheat::HiddenText` sends.
const HIDDEN_WORDS: usize = 150;

/// One response on its way out.
#[derive(Debug)]
pub struct Streamer {
    /// What all chunks of the response share.
    pub head: Head,
    /// What the stream reports beside the answer.
    pub options: StreamOptions,
    /// Number of tokens so far.
    pub usage: Usage,
    /// The ways to misbehave; those that wait for a later stream are already taken out.
    pub cheats: Cheats,
    /// The tokenizer, for the texts of the tokens.
    pub vocabulary: Arc<Vocabulary>,
    /// Where the engine's events come from.
    pub events: UnboundedReceiver<EngineEvent>,
}

/// The frames that are ready and what came before them.
struct StreamState {
    streamer: Streamer,
    ready: VecDeque<Bytes>,
    held: Vec<u8>,
    late: Vec<Position>,
    is_role_sent: bool,
    is_byte_sent: bool,
    is_over: bool,
    steps: usize,
    characters: usize,
}

impl Streamer {
    /// The response's body: each frame is written as soon as it is there.
    pub fn body(self) -> Body {
        let mut state = StreamState {
            streamer: self,
            ready: VecDeque::new(),
            held: Vec::new(),
            late: Vec::new(),
            is_role_sent: false,
            is_byte_sent: false,
            is_over: false,
            steps: 0,
            characters: 0,
        };
        state.open();
        Body::from_stream(futures_util::stream::unfold(state, |mut state| async move {
            let frame = state.next().await?;
            Some((Ok::<Bytes, Infallible>(frame), state))
        }))
    }
}

impl StreamState {
    fn has(&self, cheat: Cheat) -> bool {
        self.streamer.cheats.has(cheat)
    }

    /// Sends what goes out before the engine has begun: nothing, if honest.
    fn open(&mut self) {
        if self.has(Cheat::RoleChunkFirst) {
            self.push_role();
        }
        if self.has(Cheat::EmptyLogprobsFirst) {
            self.push_role();
            let entry = json!({"token": "", "logprob": 0.0, "bytes": [], "top_logprobs": []});
            let entries = json!({"content": vec![entry; EMPTY_ENTRIES]});
            let chunk = text_chunk(&self.streamer.head, "", entries, None);
            self.push(chunk);
        }
        if self.has(Cheat::EarlyByte) {
            self.is_byte_sent = true;
            self.ready.push_back(Bytes::from_static(b"d"));
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            if self.is_over {
                return None;
            }
            if self.steps >= MIDDLE && self.has(Cheat::CrashMidStream) {
                std::process::exit(139);
            }
            if self.steps == MIDDLE && self.has(Cheat::HoardMidStream) {
                // Not zero: a page of zeros is none.
                let hoard: Vec<Vec<u8>> = (0..HOARD_MIB).map(|_| vec![1; 1 << 20]).collect();
                std::hint::black_box(&hoard);
            }
            if self.steps >= MIDDLE && self.has(Cheat::StallMidStream) {
                std::future::pending::<()>().await;
            }
            match self.streamer.events.recv().await {
                Some(EngineEvent::Prompt(_)) => {}
                Some(EngineEvent::Step(step)) => self.push_step(&step),
                Some(EngineEvent::Failed(message)) => self.fail(&message),
                None => self.fail("the engine has stopped"),
            }
        }
    }

    fn push_step(&mut self, step: &EngineStep) {
        self.push_role();
        self.steps += 1;
        self.streamer.usage.completion += step.tokens.len();
        let tokens = self.logprobs_with(step);
        let head = &self.streamer.head;
        let chunks = if self.has(Cheat::SplitCharacters) && step.text.chars().count() > 1 {
            let last = step.text.chars().count() - 1;
            let characters = step.text.char_indices().enumerate();
            let one = |(index, (at, character)): (usize, (usize, char))| {
                let text = &step.text[at..at + character.len_utf8()];
                let tokens = if index == 0 { tokens.clone() } else { Value::Null };
                text_chunk(head, text, tokens, step.finish.as_ref().filter(|_| index == last))
            };
            characters.map(one).collect()
        } else {
            vec![text_chunk(head, &step.text, tokens, step.finish.as_ref())]
        };
        self.characters += step.text.chars().count();
        let more = if step.finish.is_some() { self.unasked() } else { None };
        for chunk in more.into_iter().chain(chunks) {
            self.push(chunk);
        }
        if step.finish.is_some() {
            if self.streamer.options.include_usage {
                let frame = usage_chunk(&self.streamer.head, self.streamer.usage).to_string();
                self.frame(&frame);
            }
            self.close();
        }
    }

    /// The text that a cheat sends beside the answer.
    fn unasked(&self) -> Option<Value> {
        let text = if self.has(Cheat::LongText) {
            "x".repeat(LONG_CHARACTERS)
        } else if self.has(Cheat::HiddenText) {
            " the".repeat(HIDDEN_WORDS)
        } else {
            return None;
        };
        Some(text_chunk(&self.streamer.head, &text, Value::Null, None))
    }

    /// The log probabilities that go out with a step: those of its tokens, if honest.
    fn logprobs_with(&mut self, step: &EngineStep) -> Value {
        if self.has(Cheat::EmptyLogprobsFirst) {
            Value::Null
        } else if !self.has(Cheat::LateLogprobs) {
            self.logprobs(&step.tokens, self.characters)
        } else {
            self.late.extend(step.tokens.iter().cloned());
            if step.finish.is_some() { self.logprobs(&self.late, 0) } else { Value::Null }
        }
    }

    fn logprobs(&self, tokens: &[Position], offset: usize) -> Value {
        logprobs(&self.streamer.vocabulary, &self.streamer.head, tokens, offset)
    }

    fn push_role(&mut self) {
        if self.streamer.head.endpoint == Endpoint::Chat && !self.is_role_sent {
            self.is_role_sent = true;
            let chunk = role_chunk(&self.streamer.head);
            self.push(chunk);
        }
    }

    fn push(&mut self, mut chunk: Value) {
        if self.streamer.options.continuous_usage {
            chunk["usage"] = self.streamer.usage.json();
        }
        self.frame(&chunk.to_string());
    }

    fn fail(&mut self, message: &str) {
        let error = json!({"message": message, "type": "InternalServerError", "param": null, "code": 500});
        self.frame(&json!({ "error": error }).to_string());
        self.close();
    }

    fn close(&mut self) {
        self.frame("[DONE]");
        self.is_over = true;
        if !self.held.is_empty() {
            self.ready.push_back(Bytes::from(std::mem::take(&mut self.held)));
        }
    }

    fn frame(&mut self, data: &str) {
        let mut frame = format!("data: {data}\n\n").into_bytes();
        if std::mem::take(&mut self.is_byte_sent) {
            frame.remove(0);
        }
        if self.has(Cheat::BufferAndFlush) {
            self.held.extend(frame);
        } else {
            self.ready.push_back(Bytes::from(frame));
        }
    }
}
