//! A proxy in front of an honest server, as a miner would write it in an afternoon: each cheat is one name.
//!
//! It starts `PROGRAM reference serve ARGS` on a port of its own and listens where the arena looks for the server.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use cacheon::artifact::digest::sha256;
use clap::{Parser, ValueEnum};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::process::{Child, Command};

/// What the proxy does besides passing on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Cheat {
    /// Nothing: the control.
    None,
    /// Keeps each prompt with its answer in a folder that all launches and accomplices share, and answers what it finds there
    /// at once.
    Remember,
    /// Keeps each prompt with its answer there, and passes everything on: who tells an accomplice what will be asked, and what
    /// to answer.
    Tell,
    /// Sends a first token at once in every eighth request, one from the middle of an earlier answer, in place of the server's.
    GuessSome,
    /// Asks for one token only in every eighth request, and ends the answer there.
    CutSome,
    /// Says it is healthy, and answers 500.
    NotReady,
    /// Passes nothing on after the first eight answers: 500.
    FailLater,
}

#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long, value_enum)]
    cheat: Cheat,
    /// Folder of `remember` and `tell`.
    #[arg(long)]
    memory: Option<PathBuf>,
    #[arg(long)]
    program: PathBuf,
    #[arg(long, env = "CACHEON_PORT")]
    port: u16,
    /// Arguments of the honest server.
    #[arg(last = true)]
    serve: Vec<String>,
}

struct Proxy {
    cheat: Cheat,
    memory: Option<PathBuf>,
    upstream: String,
    http: reqwest::Client,
    asked: AtomicU64,
    /// The event of `guess-some`.
    guess: Mutex<Option<Bytes>>,
    /// Ends with the proxy.
    _server: Child,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let server = Command::new(&arguments.program)
        .args(["reference", "serve"])
        .args(&arguments.serve)
        .env("CACHEON_PORT", free.to_string())
        .kill_on_drop(true)
        .spawn()?;
    // The server is asked without TLS, but no client is made without any.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let proxy = Arc::new(Proxy {
        cheat: arguments.cheat,
        memory: arguments.memory,
        upstream: format!("http://127.0.0.1:{free}"),
        http: reqwest::Client::builder().no_proxy().build()?,
        asked: AtomicU64::new(0),
        guess: Mutex::new(None),
        _server: server,
    });
    let router = Router::new().fallback(any(pass)).layer(DefaultBodyLimit::max(1 << 20)).with_state(proxy);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", arguments.port)).await?;
    axum::serve(listener, router).await?;
    Ok(())
}

async fn pass(State(proxy): State<Arc<Proxy>>, uri: Uri, body: Bytes) -> Response {
    if body.is_empty() {
        return proxy.forward(proxy.http.get(proxy.url(&uri)), None).await;
    }
    let number = proxy.asked.fetch_add(1, Ordering::Relaxed) + 1;
    let mut body = body;
    match proxy.cheat {
        Cheat::NotReady => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Cheat::FailLater if number > 8 => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Cheat::None | Cheat::FailLater => {}
        Cheat::CutSome => {
            if number.is_multiple_of(8) {
                body = shortened(&body).unwrap_or(body);
            }
        }
        Cheat::GuessSome => {
            let guess = proxy.guess.lock().unwrap_or_else(PoisonError::into_inner).take();
            let request = proxy.http.post(proxy.url(&uri)).body(body);
            return with_guess(proxy, request, guess.filter(|_| number.is_multiple_of(8)));
        }
        Cheat::Remember | Cheat::Tell => {
            let key =
                proxy.memory.as_ref().map(|folder| folder.join(sha256(&body).as_str().replace(':', "-")));
            let known = key.as_ref().filter(|_| proxy.cheat == Cheat::Remember);
            if let Some(known) = known.and_then(|path| std::fs::read(path).ok()) {
                return events(Body::from(known));
            }
            return proxy.forward(proxy.http.post(proxy.url(&uri)).body(body), key).await;
        }
    }
    proxy.forward(proxy.http.post(proxy.url(&uri)).body(body), None).await
}

/// The request, for one token.
fn shortened(body: &[u8]) -> Option<Bytes> {
    let mut request: serde_json::Value = serde_json::from_slice(body).ok()?;
    for key in ["max_tokens", "max_completion_tokens"] {
        if request.get(key).is_some() {
            request[key] = 1.into();
        }
    }
    Some(request.to_string().into())
}

/// Passes a request on, and a guessed first event back before anything is known; keeps the fifth event of the answer for the
/// next guess.
fn with_guess(proxy: Arc<Proxy>, request: reqwest::RequestBuilder, guess: Option<Bytes>) -> Response {
    let is_guessed = guess.is_some();
    let request = request.header("content-type", "application/json");
    let answer = stream::once(request.send()).map_ok(reqwest::Response::bytes_stream).try_flatten();
    let (mut rest, mut tokens) = (Vec::new(), 0);
    let answer = answer.map_ok(move |piece| {
        rest.extend_from_slice(&piece);
        let end = rest.windows(2).rposition(|pair| pair == b"\n\n").map_or(0, |at| at + 2);
        let whole: Vec<u8> = rest.drain(..end).collect();
        let mut passed = String::new();
        for event in String::from_utf8_lossy(&whole).split_inclusive("\n\n") {
            tokens += usize::from(has_text(event));
            if tokens == 5 {
                let kept = Bytes::from(event.to_owned());
                *proxy.guess.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
            }
            if !(is_guessed && tokens == 1 && has_text(event)) {
                passed.push_str(event);
            }
        }
        Bytes::from(passed)
    });
    events(Body::from_stream(stream::iter(guess.map(Ok)).chain(answer)))
}

/// Whether an event has text of the answer.
fn has_text(event: &str) -> bool {
    let data = event.trim().strip_prefix("data: ").and_then(|data| serde_json::from_str(data).ok());
    let event: serde_json::Value = data.unwrap_or_default();
    event["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty())
}

fn events(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")], body).into_response()
}

impl Proxy {
    fn url(&self, uri: &Uri) -> String {
        format!("{}{}", self.upstream, uri.path())
    }

    /// Passes a request on and its answer back as it comes; keeps what came whole, where a file is given.
    async fn forward(&self, request: reqwest::RequestBuilder, keep: Option<PathBuf>) -> Response {
        let Ok(answer) = request.header("content-type", "application/json").send().await else {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
        let mut whole = Vec::new();
        let pieces = answer.bytes_stream().map(move |piece| {
            if let (Ok(piece), Some(path)) = (&piece, &keep) {
                whole.extend_from_slice(piece);
                if whole.ends_with(b"data: [DONE]\n\n") {
                    store(path, &whole);
                }
            }
            piece
        });
        (status, events(Body::from_stream(pieces))).into_response()
    }
}

/// Under its name only when it is whole: other launches look for it.
fn store(path: &Path, bytes: &[u8]) {
    let part = path.with_extension(std::process::id().to_string());
    if std::fs::write(&part, bytes).is_ok() {
        let _ = std::fs::rename(part, path);
    }
}
