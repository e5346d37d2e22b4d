//! One HTTP request, and everything that came back.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use super::stamped::{StampedStream, Stamps};
use crate::measure::capture::{Capture, End, Piece};
use crate::measure::{AnswerBounds, BodyKind, Excess, Meter};
use crate::ports::Connector;

/// Status line and headers of more bytes than this are no answer, and no single read brings more.
pub(super) const MAX_HEAD_BYTES: usize = 64 << 10;

/// The server and the path that requests are sent to.
#[derive(Debug, Clone)]
pub struct Target {
    /// The way to the server.
    pub connector: Arc<dyn Connector>,
    /// Path of the endpoint, for example `/v1/chat/completions`.
    pub path: String,
}

/// The most time that one request may take, connecting included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(pub Duration);

/// The most that one request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of time.
    pub deadline: Deadline,
    /// Of the answer.
    pub answer: AnswerBounds,
}

/// Sends one request on a fresh connection and keeps all that comes back.
///
/// The connection is open and the body serialised before the clock starts, so nothing about the prompt
/// reaches the server earlier. `origin` is the benchmark's start.
///
/// # Cancel safety
/// Dropping the future closes the connection; what had come is lost.
pub(super) async fn exchange(target: &Target, body: Bytes, origin: Instant, limits: Limits) -> Capture {
    let Limits { deadline: Deadline(limit), answer } = limits;
    let started = Instant::now();
    let stamps = Stamps::new(origin);
    let mut capture = Capture::default();
    let receiving = Receiving { stamps: &stamps, answer, capture: &mut capture };
    let outcome = tokio::time::timeout(limit, attempt(target, body, receiving)).await;
    let (end, detail) = match outcome {
        Ok(Ok(())) => (End::Eof, String::new()),
        Ok(Err((end, detail))) => (end, detail),
        Err(_) => (End::Timeout, format!("no complete answer within {limit:?}")),
    };
    let now = nanos(origin.elapsed());
    let send = stamps.first_write().unwrap_or(now);
    let since_send = |stamp: u64| stamp.saturating_sub(send);
    capture.send_offset_ns = send;
    capture.connect_ns = capture.connect_ns.or_else(|| Some(nanos(started.elapsed())));
    capture.sent_ns = stamps.last_write().map(since_send);
    capture.headers_ns = capture.headers_ns.map(since_send);
    for read in &mut capture.pieces {
        read.at_ns = since_send(read.at_ns);
    }
    capture.end_ns = since_send(if end == End::Eof { stamps.last_read().unwrap_or(now) } else { now });
    capture.end = end;
    capture.end_detail = detail;
    capture
}

type Ended = (End, String);

/// Where what comes goes, and how much of it.
struct Receiving<'a> {
    stamps: &'a Arc<Stamps>,
    answer: AnswerBounds,
    capture: &'a mut Capture,
}

/// Makes the exchange and fills the capture with stamps since the origin; the caller shifts them to the send.
async fn attempt(target: &Target, body: Bytes, receiving: Receiving<'_>) -> Result<(), Ended> {
    let Receiving { stamps, answer, capture } = receiving;
    let connecting = Instant::now();
    let connect_failed = |error: std::io::Error| (End::ConnectFailed, error.to_string());
    let stream = target.connector.connect().await.map_err(connect_failed)?;
    stream.set_nodelay(true).map_err(connect_failed)?;
    let io = TokioIo::new(StampedStream::new(stream, Arc::clone(stamps)));
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(io)
        .await
        .map_err(|error| ended(&error))?;
    let mut connection = pin!(connection);
    capture.connect_ns = Some(nanos(connecting.elapsed()));

    let request = Request::post(&target.path)
        .header(HOST, target.connector.address().to_string())
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "text/event-stream")
        .header(ACCEPT_ENCODING, "identity")
        .body(Full::new(body))
        .map_err(|error| (End::BadHttp, error.to_string()))?;
    let response =
        driven(&mut connection, sender.send_request(request)).await.map_err(|error| ended(&error))?;
    capture.headers_ns = stamps.last_read();
    keep_head(&response, capture);

    let kind = if capture.is_event_stream() { BodyKind::Events } else { BodyKind::Other };
    let mut meter = Meter::new(answer, kind);
    let mut body = response.into_body();
    while let Some(frame) = driven(&mut connection, body.frame()).await {
        let Ok(bytes) = frame.map_err(|error| ended(&error))?.into_data() else { continue };
        capture.pieces.push(Piece { at_ns: stamps.last_read().unwrap_or_default(), bytes: bytes.to_vec() });
        meter.take(&bytes).map_err(|excess| (end_of(&excess, kind), excess.to_string()))?;
    }
    Ok(())
}

/// How a response ended of which too much came.
const fn end_of(excess: &Excess, kind: BodyKind) -> End {
    match (excess, kind) {
        (Excess::Bytes { is_done: true, .. }, _) | (_, BodyKind::Other) => End::TooLarge,
        _ => End::BeyondMaxTokens,
    }
}

fn keep_head(response: &Response<Incoming>, capture: &mut Capture) {
    let header = |name| {
        response.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    capture.http_status = Some(response.status().as_u16());
    capture.content_type = header(CONTENT_TYPE);
    capture.content_encoding = header(CONTENT_ENCODING);
    capture.content_length = header(CONTENT_LENGTH).and_then(|text| text.trim().parse().ok());
}

/// Polls the connection in the same task as what waits for it, so that no other task stands between a read
/// and its stamp being used.
pub(super) async fn driven<C: Future<Output = hyper::Result<()>>, F: Future>(
    connection: &mut std::pin::Pin<&mut C>,
    work: F,
) -> F::Output {
    let mut work = pin!(work);
    let mut is_open = true;
    loop {
        tokio::select! {
            biased;
            output = &mut work => return output,
            _ = connection.as_mut(), if is_open => is_open = false,
        }
    }
}

fn ended(error: &hyper::Error) -> Ended {
    let mut detail = error.to_string();
    if let Some(source) = std::error::Error::source(error) {
        detail = format!("{detail}: {source}");
    }
    let end = if error.is_parse() { End::BadHttp } else { End::Reset };
    (end, detail)
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
