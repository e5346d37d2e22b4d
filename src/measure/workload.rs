//! What is asked: the prompts of a round from its seed, and the bytes of a request.
//!
//! The reads of a bracket get the same prompts and byte-identical requests, and nobody else gets these, so that nothing can
//! be answered from what an accomplice, or an earlier launch, was asked. Which prompts these are is drawn in [`draw`], from
//! the toy grammar, from generators of natural text ([`natural`]) and from corpora, of which only an [`index`] is known
//! here: their files are `artifact`'s.

pub mod deck;
pub mod draw;
pub mod expand;
pub mod index;
pub mod natural;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// One prompt of a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Number of the prompt, from 0; in a round the same in every read of its bracket.
    pub index: u32,
    /// What the user says in it.
    pub text: String,
    /// SHA-256 of the text, hexadecimal.
    pub sha256: String,
}

impl Prompt {
    /// A prompt with its digest.
    pub fn new(index: u32, text: String) -> Self {
        let sha256 = hex::encode(Sha256::digest(text.as_bytes()));
        Self { index, text, sha256 }
    }
}

/// The shape of a request: everything but the prompt, the same for all reads of a round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestShape {
    /// Name of the served model.
    pub model: String,
    /// Most tokens that an answer may have.
    pub max_tokens: u32,
    /// Number of alternatives asked for at each position.
    pub top_logprobs: u32,
    /// The request's `seed`; at temperature 0 it decides nothing, and is sent so that a sampler cannot plead chance.
    pub seed: u64,
}

/// The exact JSON bytes of a chat request: streamed, greedy, with log probabilities and usage.
///
/// Every parameter of sampling is said, and says that nothing is done to the model's distribution: what a server would take
/// from the model's `generation_config.json` otherwise (a repetition penalty, say) changes which token is the first.
/// `top_k`, `min_p` and `repetition_penalty` are vLLM's and SGLang's additions to OpenAI's parameters.
pub fn request_body(shape: &RequestShape, prompt: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        model: &'a str,
        messages: [Message<'a>; 1],
        stream: bool,
        stream_options: StreamOptions,
        temperature: u8,
        top_p: u8,
        top_k: i8,
        min_p: u8,
        presence_penalty: u8,
        frequency_penalty: u8,
        repetition_penalty: u8,
        n: u8,
        max_tokens: u32,
        logprobs: bool,
        top_logprobs: u32,
        seed: u64,
    }
    #[derive(Serialize)]
    struct Message<'a> {
        role: &'static str,
        content: &'a str,
    }
    #[derive(Serialize)]
    struct StreamOptions {
        include_usage: bool,
    }
    let body = Body {
        model: &shape.model,
        messages: [Message { role: "user", content: prompt }],
        stream: true,
        stream_options: StreamOptions { include_usage: true },
        temperature: 0,
        top_p: 1,
        top_k: -1,
        min_p: 0,
        presence_penalty: 0,
        frequency_penalty: 0,
        repetition_penalty: 1,
        n: 1,
        max_tokens: shape.max_tokens,
        logprobs: true,
        top_logprobs: shape.top_logprobs,
        seed: shape.seed,
    };
    // Texts and numbers only: serialising cannot fail.
    serde_json::to_vec(&body).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_pinned() {
        let shape = RequestShape { model: "m".into(), max_tokens: 64, top_logprobs: 2, seed: 7 };
        insta::assert_snapshot!(String::from_utf8(request_body(&shape, "Say \"é\"\n")).expect("utf8"), @r#"{"model":"m","messages":[{"role":"user","content":"Say \"é\"\n"}],"stream":true,"stream_options":{"include_usage":true},"temperature":0,"top_p":1,"top_k":-1,"min_p":0,"presence_penalty":0,"frequency_penalty":0,"repetition_penalty":1,"n":1,"max_tokens":64,"logprobs":true,"top_logprobs":2,"seed":7}"#);
    }
}
