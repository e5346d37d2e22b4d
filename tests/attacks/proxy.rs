//! A proxy in front of an honest server, as a miner would write it in an afternoon: each cheat is one name.
//!
//! It starts `PROGRAM reference serve ARGS` on a port of its own and listens where the arena looks for the server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use cacheon::artifact::digest::sha256;
use clap::{Parser, ValueEnum};
use futures_util::StreamExt as _;
use tokio::process::{Child, Command};

/// What the proxy does besides passing on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Cheat {
    /// Nothing: the control.
    None,
    /// Keeps each prompt with its answer in a folder that all launches and accomplices share, and answers what it finds there
    /// at once.
    Remember,
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
    /// Folder of `remember`.
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
        Cheat::Remember => {
            let key =
                proxy.memory.as_ref().map(|folder| folder.join(sha256(&body).as_str().replace(':', "-")));
            if let Some(known) = key.as_ref().and_then(|path| std::fs::read(path).ok()) {
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
