//! The HTTP API: routes, checks that need the model, and the line of requests in front of the engine.
//!
//! One port, HTTP/1.1, the endpoints that the arena drives and no others. Requests wait in one line, first come,
//! first served; a client that goes away cancels its answer. Authentication and TLS are deliberately absent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::cheats::{Cheat, Cheats};
use super::engine::{EngineEvent, Request};
use super::refusal::Refusal;
use super::request::{BodyFields, Completion, CompletionPrompt, Generation, TokenizeText};
use super::response::{Endpoint, Head, Usage, Whole};
use super::stream::Streamer;
use super::text::{Vocabulary, render};

/// Longest body of a request, in bytes.
const LONGEST_BODY: usize = 1 << 20;

/// What is known once the model is loaded.
#[derive(Debug)]
pub struct Loaded {
    /// The tokenizer of the model.
    pub vocabulary: Arc<Vocabulary>,
    /// Longest sequence, in tokens.
    pub context: usize,
    /// The line in front of the engine.
    pub queue: SyncSender<Request>,
}

/// What the routes share.
#[derive(Debug)]
pub struct ServerState {
    /// What is known once the model is loaded; empty before.
    pub loaded: OnceLock<Loaded>,
    /// The model's name in the API.
    pub name: String,
    /// Where the model's files are, as shown by `/v1/models`.
    pub root: String,
    /// The ways to misbehave.
    pub cheats: Cheats,
    /// Number of the stream from which `Cheat::CrashMidStream`, `Cheat::HoardMidStream`, `Cheat::StallMidStream` and
    /// `Cheat::NeverAnswers` act; 1 is the first.
    pub trigger_stream: u64,
    /// When the server started, in seconds since 1970.
    pub created: i64,
    /// Number of responses that were begun.
    pub responses: AtomicU64,
    /// Number of streams that were begun.
    pub streams: AtomicU64,
    /// Number of requests for a prompt's log probabilities.
    pub scorings: AtomicU64,
    /// Number of requests for an answer so far, for `Cheat::NeverAnswers`.
    pub asked: AtomicU64,
}

type Reply = Result<Response, Refusal>;

/// The routes of the API.
pub fn router(server: Arc<ServerState>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/v1/models", get(models))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completion))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(LONGEST_BODY))
        .with_state(server)
}

async fn health(State(server): State<Arc<ServerState>>) -> StatusCode {
    let is_ready = server.loaded.get().is_some() && !server.cheats.has(Cheat::NeverHealthy);
    if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn models(State(server): State<Arc<ServerState>>) -> Reply {
    let permission = json!({
        "id": "modelperm-reference", "object": "model_permission", "created": server.created,
        "allow_create_engine": false, "allow_sampling": true, "allow_logprobs": true,
        "allow_search_indices": false, "allow_view": true, "allow_fine_tuning": false, "organization": "*",
        "group": null, "is_blocking": false,
    });
    let model = json!({
        "id": server.name, "object": "model", "created": server.created, "owned_by": "cacheon",
        "root": server.root, "parent": null, "max_model_len": server.loaded()?.context,
        "permission": [permission],
    });
    Ok(axum::Json(json!({"object": "list", "data": [model]})).into_response())
}

async fn chat(State(server): State<Arc<ServerState>>, body: Bytes) -> Reply {
    let fields = BodyFields::new(&body)?;
    server.check_name(fields.model()?.as_deref())?;
    let chat = fields.chat()?;
    let tokens = server.loaded()?.encode(&render(&chat.messages, chat.ending))?;
    server.respond(Endpoint::Chat, tokens, chat.generation).await
}

async fn completion(State(server): State<Arc<ServerState>>, body: Bytes) -> Reply {
    let fields = BodyFields::new(&body)?;
    server.check_name(fields.model()?.as_deref())?;
    let Completion { prompt, generation } = fields.completion()?;
    let loaded = server.loaded()?;
    let tokens = match prompt {
        CompletionPrompt::Text(text) => loaded.encode(&text)?,
        CompletionPrompt::Tokens(tokens) => loaded.known(tokens, "prompt")?,
    };
    server.respond(Endpoint::Completion, tokens, generation).await
}

async fn tokenize(State(server): State<Arc<ServerState>>, body: Bytes) -> Reply {
    let fields = BodyFields::new(&body)?;
    server.check_name(fields.model()?.as_deref())?;
    let asked = fields.tokenize()?;
    let loaded = server.loaded()?;
    let tokens = match asked.text {
        TokenizeText::Prompt(text) => loaded.encode(&text)?,
        TokenizeText::Chat(messages, ending) => loaded.encode(&render(&messages, ending))?,
    };
    let spellings: Option<Vec<String>> =
        asked.with_spellings.then(|| tokens.iter().map(|id| loaded.vocabulary.raw(*id)).collect());
    let body = json!({
        "count": tokens.len(), "max_model_len": loaded.context, "tokens": tokens, "token_strs": spellings,
    });
    Ok(axum::Json(body).into_response())
}

async fn detokenize(State(server): State<Arc<ServerState>>, body: Bytes) -> Reply {
    let fields = BodyFields::new(&body)?;
    server.check_name(fields.model()?.as_deref())?;
    let loaded = server.loaded()?;
    let tokens = loaded.known(fields.tokens()?, "tokens")?;
    Ok(axum::Json(json!({"prompt": loaded.vocabulary.decode_all(&tokens)})).into_response())
}

impl Loaded {
    fn encode(&self, text: &str) -> Result<Vec<u32>, Refusal> {
        self.vocabulary.encode(text).map_err(|error| Refusal::value("prompt", error.to_string()))
    }

    fn known(&self, tokens: Vec<u32>, param: &str) -> Result<Vec<u32>, Refusal> {
        match tokens.iter().find(|id| **id as usize >= self.vocabulary.len()) {
            Some(id) => Err(Refusal::value(param, format!("Token id {id} is out of vocabulary"))),
            None => Ok(tokens),
        }
    }

    /// The most tokens that the answer to a prompt may have.
    fn room(&self, prompt: usize, asked: Option<usize>) -> Result<usize, Refusal> {
        let context = self.context;
        if prompt == 0 {
            return Err(Refusal::value("prompt", "The decoder prompt cannot be empty"));
        }
        if let Some(asked) = asked.filter(|asked| *asked > context) {
            return Err(Refusal::value(
                "max_tokens",
                format!(
                    "max_tokens={asked} cannot be greater than max_model_len={context}. Please request fewer \
                     output tokens. (parameter=max_tokens, value={asked})"
                ),
            ));
        }
        let output = asked.unwrap_or(1);
        if prompt + output > context {
            return Err(Refusal::value(
                "input_tokens",
                format!(
                    "This model's maximum context length is {context} tokens. However, you requested {output} \
                     output tokens and your prompt contains at least {prompt} input tokens, for a total of at \
                     least {} tokens. Please reduce the length of the input prompt or the number of requested \
                     output tokens. (parameter=input_tokens, value={prompt})",
                    prompt + output
                ),
            ));
        }
        Ok(asked.unwrap_or(context - prompt))
    }
}

impl ServerState {
    fn loaded(&self) -> Result<&Loaded, Refusal> {
        let loading = || Refusal::server(StatusCode::SERVICE_UNAVAILABLE, "The model is being loaded.");
        self.loaded.get().ok_or_else(loading)
    }

    fn check_name(&self, name: Option<&str>) -> Result<(), Refusal> {
        match name {
            Some(name) if name != self.name => Err(Refusal {
                status: StatusCode::NOT_FOUND,
                message: format!("The model `{name}` does not exist. Valid aliases: {}.", self.name),
                kind: "NotFoundError",
                param: Some("model".into()),
            }),
            _ => Ok(()),
        }
    }

    async fn respond(&self, endpoint: Endpoint, tokens: Vec<u32>, generation: Generation) -> Reply {
        if self.cheats.has(Cheat::NeverAnswers) {
            let number = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
            if number >= self.trigger_stream {
                std::future::pending::<()>().await;
            }
        }
        let loaded = self.loaded()?;
        let room = loaded.room(tokens.len(), generation.max_tokens);
        if room.is_err() && self.cheats.has(Cheat::CrashBeyondLength) {
            std::process::exit(139);
        }
        let max_tokens = room?;
        if generation.prompt_logprobs.is_some() && self.cheats.has(Cheat::CrashMidScoring) {
            let number = self.scorings.fetch_add(1, Ordering::Relaxed) + 1;
            if number >= self.trigger_stream {
                std::process::exit(139);
            }
        }
        let factor = if self.cheats.has(Cheat::InflateUsage) { 2 } else { 1 };
        let usage = Usage { prompt: tokens.len(), completion: 0, factor };
        let head = self.head(endpoint, &generation);
        let (sender, events) = unbounded_channel();
        let request = Request {
            tokens,
            max_tokens,
            temperature: generation.temperature,
            seed: generation.seed,
            ignore_eos: generation.ignore_eos,
            stops: generation.stops,
            top: generation.logprobs.unwrap_or(0),
            prompt_top: generation.prompt_logprobs,
            events: sender,
        };
        let full = |_| Refusal::server(StatusCode::SERVICE_UNAVAILABLE, "Too many requests are waiting.");
        loaded.queue.try_send(request).map_err(full)?;
        let vocabulary = Arc::clone(&loaded.vocabulary);
        let Some(options) = generation.stream else {
            let whole = whole(events, usage).await?;
            return Ok(axum::Json(whole.json(&vocabulary, &head)).into_response());
        };
        let cheats = self.cheats_of_stream(self.streams.fetch_add(1, Ordering::Relaxed) + 1);
        let body = Streamer { head, options, usage, cheats, vocabulary, events }.body();
        Ok(([(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")], body).into_response())
    }

    fn head(&self, endpoint: Endpoint, generation: &Generation) -> Head {
        let number = self.responses.fetch_add(1, Ordering::Relaxed);
        let prefix = if endpoint == Endpoint::Chat { "chatcmpl" } else { "cmpl" };
        Head {
            endpoint,
            id: format!("{prefix}-{:08x}{number:08x}", self.created),
            created: jiff::Timestamp::now().as_second(),
            model: self.name.clone(),
            logprobs: generation.logprobs,
            as_token_ids: generation.as_token_ids,
        }
    }

    /// The cheats of one stream: without those that wait for a later one.
    fn cheats_of_stream(&self, number: u64) -> Cheats {
        let waits = |cheat: &Cheat| {
            matches!(cheat, Cheat::CrashMidStream | Cheat::HoardMidStream | Cheat::StallMidStream)
        };
        self.cheats.iter().filter(|cheat| number >= self.trigger_stream || !waits(cheat)).collect()
    }
}

/// Waits for the whole answer and counts its tokens.
async fn whole(mut events: UnboundedReceiver<EngineEvent>, mut usage: Usage) -> Result<Whole, Refusal> {
    let failed = |message: String| Refusal::server(StatusCode::INTERNAL_SERVER_ERROR, message);
    let (mut text, mut positions, mut prompt) = (String::new(), Vec::new(), None);
    loop {
        match events.recv().await {
            None => return Err(failed("the engine has stopped".into())),
            Some(EngineEvent::Failed(message)) => return Err(failed(message)),
            Some(EngineEvent::Prompt(found)) => prompt = Some(found),
            Some(EngineEvent::Step(step)) => {
                text.push_str(&step.text);
                positions.extend(step.tokens);
                if let Some(finish) = step.finish {
                    usage.completion = positions.len();
                    return Ok(Whole { text, positions, finish, prompt, usage });
                }
            }
        }
    }
}

/// Answers what no route knows, as vLLM does.
async fn not_found() -> (StatusCode, axum::Json<Value>) {
    (StatusCode::NOT_FOUND, axum::Json(json!({"detail": "Not Found"})))
}
