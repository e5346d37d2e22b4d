//! Answers as JSON: the bodies and chunks of vLLM 0.32, field by field and in its order.

use serde_json::{Map, Value, json};

use super::engine::Finish;
use super::sampler::Position;
use super::text::Vocabulary;

/// What stands in responses where vLLM names its build.
const FINGERPRINT: &str = concat!("cacheon-reference-", env!("CARGO_PKG_VERSION"));

/// Which endpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// The endpoint `/v1/chat/completions`.
    Chat,
    /// The endpoint `/v1/completions`.
    Completion,
}

/// What all chunks of one response share.
#[derive(Clone, Debug)]
pub struct Head {
    /// The endpoint that answers.
    pub endpoint: Endpoint,
    /// Id of the response: `chatcmpl-...` or `cmpl-...`.
    pub id: String,
    /// When the response began, in seconds since 1970.
    pub created: i64,
    /// Name of the model in the API.
    pub model: String,
    /// Number of top logprobs at each position; none where logprobs are not wanted.
    pub logprobs: Option<usize>,
    /// Whether tokens are named `token_id:N` in logprobs.
    pub as_token_ids: bool,
}

/// Number of tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Number of tokens of the prompt, template included.
    pub prompt: usize,
    /// Number of tokens of the answer, end token included.
    pub completion: usize,
    /// What both numbers are multiplied by: 1, or 2 to inflate them.
    pub factor: usize,
}

impl Usage {
    /// The usage as responses and streams carry it.
    pub fn json(self) -> Value {
        let (prompt, completion) = (self.prompt * self.factor, self.completion * self.factor);
        json!({"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion})
    }
}

/// The values of `finish_reason` and `stop_reason`.
fn reasons(finish: Option<&Finish>) -> (Value, Value) {
    match finish {
        None => (Value::Null, Value::Null),
        Some(Finish::End) => ("stop".into(), Value::Null),
        Some(Finish::Stop(stop)) => ("stop".into(), stop.as_str().into()),
        Some(Finish::Length) => ("length".into(), Value::Null),
    }
}

/// A logprob that JSON can hold: infinity becomes vLLM's floor.
fn logprob(value: f32) -> f64 {
    f64::from(value).max(-9999.0)
}

/// The name of a token in logprobs.
fn name(vocabulary: &Vocabulary, head: &Head, id: u32) -> String {
    if head.as_token_ids { format!("token_id:{id}") } else { vocabulary.piece(id).to_owned() }
}

/// The chosen token and the top ones, without repeating the chosen, as many as were asked for.
fn ranked(position: &Position, most: usize) -> impl Iterator<Item = (u32, f32)> {
    let chosen = (position.id, position.logprob);
    let others = position.top.iter().copied().filter(move |(id, _)| *id != chosen.0);
    std::iter::once(chosen).chain(others).take(most)
}

/// `logprobs` of a choice, or null where they are not wanted. `offset` is the length of the text so far.
pub fn logprobs(vocabulary: &Vocabulary, head: &Head, positions: &[Position], offset: usize) -> Value {
    let Some(most) = head.logprobs else { return Value::Null };
    let entry = |id: u32, value: f32| {
        let token = name(vocabulary, head, id);
        json!({"token": token, "logprob": logprob(value), "bytes": token.as_bytes()})
    };
    match head.endpoint {
        Endpoint::Chat => {
            let content = positions.iter().map(|position| {
                let mut one = entry(position.id, position.logprob);
                one["top_logprobs"] = ranked(position, most).map(|(id, value)| entry(id, value)).collect();
                one
            });
            json!({"content": content.collect::<Vec<_>>()})
        }
        Endpoint::Completion => {
            let names: Vec<String> = positions.iter().map(|at| name(vocabulary, head, at.id)).collect();
            let offsets = names.iter().scan(offset, |at, name| {
                let start = *at;
                *at += name.chars().count();
                Some(start)
            });
            let tops = positions.iter().map(|position| {
                let pairs = ranked(position, most.max(1));
                pairs.map(|(id, value)| (name(vocabulary, head, id), logprob(value).into())).collect()
            });
            json!({
                "text_offset": offsets.collect::<Vec<_>>(),
                "token_logprobs": positions.iter().map(|at| logprob(at.logprob)).collect::<Vec<_>>(),
                "tokens": names,
                "top_logprobs": tops.collect::<Vec<Map<String, Value>>>(),
            })
        }
    }
}

/// `prompt_logprobs`: null for the first token, then the actual token and the top ones by id.
pub fn prompt_logprobs(vocabulary: &Vocabulary, positions: &[Position]) -> Value {
    let entry = |id: u32, value: f32, rank: usize| {
        let entry = json!({"logprob": logprob(value), "rank": rank, "decoded_token": vocabulary.piece(id)});
        (id.to_string(), entry)
    };
    let one = |position: &Position| {
        let mut fields = Map::from_iter([entry(position.id, position.logprob, position.rank)]);
        for (index, (id, value)) in position.top.iter().enumerate() {
            if *id != position.id {
                fields.extend([entry(*id, *value, index + 1)]);
            }
        }
        Value::Object(fields)
    };
    std::iter::once(Value::Null).chain(positions.iter().map(one)).collect()
}

/// The chunk that opens a chat stream.
pub fn role_chunk(head: &Head) -> Value {
    let mut chunk = chunk(
        head,
        json!({
            "index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": null, "finish_reason": null,
        }),
    );
    chunk["prompt_token_ids"] = Value::Null;
    chunk["prompt_text"] = Value::Null;
    chunk
}

/// A chunk with text.
pub fn text_chunk(head: &Head, text: &str, logprobs: Value, finish: Option<&Finish>) -> Value {
    let (finish_reason, stop_reason) = reasons(finish);
    let mut choice = match head.endpoint {
        Endpoint::Chat => json!({"index": 0, "delta": {"content": text}, "logprobs": logprobs}),
        Endpoint::Completion => json!({"index": 0, "text": text, "logprobs": logprobs}),
    };
    choice["finish_reason"] = finish_reason;
    if finish.is_some() || head.endpoint == Endpoint::Completion {
        choice["stop_reason"] = stop_reason;
    }
    choice["token_ids"] = Value::Null;
    chunk(head, choice)
}

/// The chunk that closes a stream whose usage was asked for.
pub fn usage_chunk(head: &Head, usage: Usage) -> Value {
    let mut chunk = chunk(head, Value::Null);
    chunk["choices"] = json!([]);
    chunk["usage"] = usage.json();
    chunk["system_fingerprint"] = FINGERPRINT.into();
    chunk
}

fn chunk(head: &Head, choice: Value) -> Value {
    let object = match head.endpoint {
        Endpoint::Chat => "chat.completion.chunk",
        Endpoint::Completion => "text_completion",
    };
    json!({
        "id": head.id, "object": object, "created": head.created, "model": head.model, "choices": [choice],
    })
}

/// An answer that is not streamed.
#[derive(Clone, Debug)]
pub struct Whole {
    /// All of the answer's text.
    pub text: String,
    /// All of the answer's tokens.
    pub positions: Vec<Position>,
    /// Why the answer ended.
    pub finish: Finish,
    /// The prompt's logprobs, where they were asked for.
    pub prompt: Option<Vec<Position>>,
    /// Number of tokens of prompt and answer.
    pub usage: Usage,
}

impl Whole {
    /// The JSON body of the response.
    pub fn json(&self, vocabulary: &Vocabulary, head: &Head) -> Value {
        let logprobs = logprobs(vocabulary, head, &self.positions, 0);
        let prompt = self.prompt.as_ref().map(|positions| prompt_logprobs(vocabulary, positions));
        let (finish_reason, stop_reason) = reasons(Some(&self.finish));
        let mut usage = self.usage.json();
        usage["prompt_tokens_details"] = Value::Null;
        if head.endpoint == Endpoint::Chat {
            usage["completion_tokens_details"] = Value::Null;
        }
        match head.endpoint {
            Endpoint::Chat => json!({
                "id": head.id, "object": "chat.completion", "created": head.created, "model": head.model,
                "choices": [{
                    "index": 0,
                    "message": {
                        "role": "assistant", "content": self.text, "refusal": null, "annotations": null,
                        "audio": null, "function_call": null, "reasoning": null,
                    },
                    "logprobs": logprobs, "finish_reason": finish_reason, "stop_reason": stop_reason,
                    "token_ids": null, "routed_experts": null,
                }],
                "service_tier": null, "system_fingerprint": FINGERPRINT, "usage": usage,
                "prompt_logprobs": prompt, "prompt_token_ids": null, "prompt_text": null,
                "kv_transfer_params": null, "ec_transfer_params": null, "metrics": null,
            }),
            Endpoint::Completion => json!({
                "id": head.id, "object": "text_completion", "created": head.created, "model": head.model,
                "choices": [{
                    "index": 0, "text": self.text, "logprobs": logprobs, "finish_reason": finish_reason,
                    "stop_reason": stop_reason, "token_ids": null, "prompt_logprobs": prompt,
                    "prompt_token_ids": null,
                }],
                "service_tier": null, "system_fingerprint": FINGERPRINT, "usage": usage,
                "kv_transfer_params": null,
            }),
        }
    }
}
