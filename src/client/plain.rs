//! One request whose time does not matter: whether a server is healthy, and what the scorer says.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Method;
use hyper::header::{ACCEPT_ENCODING, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;

use super::exchange::{MAX_HEAD_BYTES, driven};
use crate::ports::Connector;

/// What is asked, and what the answer may take.
#[derive(Debug, Clone)]
pub struct Request {
    /// Path, which begins with `/`.
    pub path: String,
    /// JSON that is posted; it is a GET without.
    pub body: Option<Bytes>,
    /// The most time, connecting included.
    pub within: Duration,
    /// The most bytes of the answer's body.
    pub max_bytes: usize,
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// Why nothing came that can be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum AskError {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("no request can be made of it: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("more than {0} bytes of answer")]
    TooLong(usize),
    #[error("no answer within {0:?}")]
    Late(Duration),
}

/// Asks on a connection of its own, without redirects, proxies or cookies.
///
/// # Errors
/// Nobody listens, what comes is no HTTP, or it is too long or late.
pub async fn ask(connector: &dyn Connector, request: &Request) -> Result<Reply, AskError> {
    tokio::time::timeout(request.within, attempt(connector, request))
        .await
        .map_err(|_| AskError::Late(request.within))?
}

async fn attempt(connector: &dyn Connector, asked: &Request) -> Result<Reply, AskError> {
    let stream = connector.connect().await.map_err(AskError::Connect)?;
    let mut builder = hyper::client::conn::http1::Builder::new();
    let (mut sender, connection) =
        builder.max_buf_size(MAX_HEAD_BYTES).handshake(TokioIo::new(stream)).await?;
    let mut connection = std::pin::pin!(connection);
    let method = if asked.body.is_some() { Method::POST } else { Method::GET };
    let request = hyper::Request::builder()
        .method(method)
        .uri(&asked.path)
        .header(HOST, connector.address().to_string())
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT_ENCODING, "identity")
        .body(Full::new(asked.body.clone().unwrap_or_default()))?;
    let response = driven(&mut connection, sender.send_request(request)).await?;
    let status = response.status().as_u16();
    let (mut incoming, mut body) = (response.into_body(), Vec::new());
    while let Some(frame) = driven(&mut connection, incoming.frame()).await {
        if let Ok(bytes) = frame?.into_data() {
            body.extend_from_slice(&bytes);
        }
        if body.len() > asked.max_bytes {
            return Err(AskError::TooLong(asked.max_bytes));
        }
    }
    Ok(Reply { status, body })
}
