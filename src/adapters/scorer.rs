//! The trusted scorer: a server that says how probable each token of a given text is.
//!
//! It speaks vLLM's API: `/tokenize` for the prompt's token ids, and `/v1/completions` with `prompt_logprobs`
//! over token ids, so that exactly the tokens in question are forced, whatever text they spell.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{AskError, Reply, Request, ask};
use crate::judge::TokenScore;
use crate::ports::Connector;

/// A scorer's answer of more bytes than this is none: 4096 tokens with a few alternatives take less than 2 MiB.
const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;
/// The most time that one scoring request may take.
const REQUEST_LIMIT: Duration = Duration::from_mins(2);

/// Why the scorer's answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScorerError {
    /// The request failed.
    #[error("{path}: {source}")]
    Http {
        /// Path of the request.
        path: &'static str,
        /// Why the request failed.
        source: AskError,
    },
    /// The scorer answered with an error status.
    #[error("{path}: status {status}: {body}")]
    Status {
        /// Path of the request.
        path: &'static str,
        /// HTTP status that came.
        status: u16,
        /// The beginning of the answer's body.
        body: String,
    },
    /// The answer's body is not what the API promises.
    #[error("{path}: {why}")]
    Shape {
        /// Path of the request.
        path: &'static str,
        /// What is wrong with the body.
        why: String,
    },
}

impl ScorerError {
    /// Whether the scorer refused what it was asked, and is well: the question is at fault, not the scorer.
    pub fn is_refusal(&self) -> bool {
        // Bad request, content too large, unprocessable content: the statuses that speak of the request's content.
        matches!(self, Self::Status { status: 400 | 413 | 422, .. })
    }
}

/// A connection to a scorer.
#[derive(Debug, Clone)]
pub struct Scorer {
    connector: Arc<dyn Connector>,
    model: String,
}

#[derive(Deserialize)]
struct Tokenized {
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    prompt_logprobs: Option<Vec<Option<BTreeMap<String, Alternative>>>>,
}

#[derive(Deserialize)]
struct Alternative {
    logprob: f64,
    rank: u32,
}

impl Scorer {
    /// The scorer that `connector` leads to, and that serves `model`.
    pub fn new(connector: Arc<dyn Connector>, model: &str) -> Self {
        Self { connector, model: model.to_owned() }
    }

    /// Token ids of a chat prompt up to where the answer begins.
    ///
    /// # Errors
    /// [`ScorerError`] where the scorer does not answer as vLLM's `/tokenize`.
    pub async fn prompt_tokens(&self, prompt: &str) -> Result<Vec<u32>, ScorerError> {
        const PATH: &str = "/tokenize";
        let messages = json!([{"role": "user", "content": prompt}]);
        let body = json!({"model": self.model, "messages": messages, "add_generation_prompt": true});
        let answer: Tokenized = self.post(PATH, &body).await?;
        Ok(answer.tokens)
    }

    /// Scores of the tokens of `answer` after `prompt`, one for each.
    ///
    /// # Errors
    /// [`ScorerError`] where a score is missing: a scorer's failure is never taken for a verdict.
    pub async fn score(&self, prompt: &[u32], answer: &[u32]) -> Result<Vec<TokenScore>, ScorerError> {
        const PATH: &str = "/v1/completions";
        let tokens: Vec<u32> = prompt.iter().chain(answer).copied().collect();
        let body = json!({
            "model": self.model, "prompt": tokens, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 1,
        });
        let completion: Completion = self.post(PATH, &body).await?;
        let shape = |why: String| ScorerError::Shape { path: PATH, why };
        let positions = completion
            .choices
            .into_iter()
            .next()
            .and_then(|choice| choice.prompt_logprobs)
            .ok_or_else(|| shape("no `choices[0].prompt_logprobs`".to_owned()))?;
        if positions.len() != tokens.len() {
            return Err(shape(format!("{} positions for {} tokens", positions.len(), tokens.len())));
        }
        let scored = positions.into_iter().zip(&tokens).enumerate().skip(prompt.len());
        scored
            .map(|(position, (alternatives, token))| {
                let missing = || shape(format!("no score for token {token} at position {position}"));
                let alternatives = alternatives.ok_or_else(missing)?;
                let own = alternatives.get(&token.to_string()).ok_or_else(missing)?;
                let top = alternatives.values().find(|other| other.rank == 1).ok_or_else(missing)?;
                if !own.logprob.is_finite() || !top.logprob.is_finite() || own.rank == 0 {
                    return Err(shape(format!(
                        "score of token {token} at position {position} is not a number"
                    )));
                }
                Ok(TokenScore { logprob: own.logprob, rank: own.rank, top_logprob: top.logprob })
            })
            .collect()
    }

    async fn post<T: for<'de> Deserialize<'de>>(
        &self,
        path: &'static str,
        body: &Value,
    ) -> Result<T, ScorerError> {
        let request = Request {
            path: path.to_owned(),
            body: Some(body.to_string().into()),
            within: REQUEST_LIMIT,
            max_bytes: MAX_BODY_BYTES,
        };
        let Reply { status, body } = match ask(&*self.connector, &request).await {
            Ok(reply) => reply,
            Err(too_long @ AskError::TooLong(_)) => {
                return Err(ScorerError::Shape { path, why: too_long.to_string() });
            }
            Err(source) => return Err(ScorerError::Http { path, source }),
        };
        if status != 200 {
            let body = String::from_utf8_lossy(&body).chars().filter(|c| !c.is_control()).take(300).collect();
            return Err(ScorerError::Status { path, status, body });
        }
        serde_json::from_slice(&body).map_err(|error| ScorerError::Shape { path, why: error.to_string() })
    }
}
