use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Deadline, Limits, LoadPlan, Target, run_single_stream};
use crate::measure::{AnswerBounds, Capture, End, ResponseBounds, observe};
use crate::model::RequestStatus;

/// What a scripted server does with a connection, after it has read the request.
#[derive(Clone, Copy)]
enum Then {
    Close,
    Hang,
    Flood,
}

async fn serve(answer: &'static [&'static str], then: Then) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = vec![0; 65536];
            let _ = socket.read(&mut request).await;
            for piece in answer {
                let _ = socket.write_all(piece.as_bytes()).await;
                let _ = socket.flush().await;
            }
            match then {
                Then::Close => {}
                Then::Hang => {
                    // Until the client gives up and closes.
                    while socket.read(&mut request).await.is_ok_and(|count| count > 0) {}
                }
                Then::Flood => {
                    let junk = vec![b'x'; 1 << 16];
                    while socket.write_all(b"10000\r\n").await.is_ok()
                        && socket.write_all(&junk).await.is_ok()
                    {
                        if socket.write_all(b"\r\n").await.is_err() {
                            break;
                        }
                    }
                }
            }
        }
    });
    (address, tasks)
}

/// What an answer of 32 tokens may take.
fn limits(limit: Duration) -> Limits {
    Limits { deadline: Deadline(limit), answer: AnswerBounds::of(32, 2) }
}

async fn run(address: SocketAddr, count: usize, limit: Duration) -> Vec<Capture> {
    let plan = LoadPlan {
        target: Target { connector: Arc::new(address), path: "/v1/chat/completions".to_owned() },
        bodies: vec![Bytes::from_static(b"{}"); count],
        limits: limits(limit),
        until: None,
    };
    captures_of(plan, CancellationToken::new()).await
}

async fn captures_of(plan: LoadPlan, cancel: CancellationToken) -> Vec<Capture> {
    let (sender, mut ended) = tokio::sync::mpsc::channel(1);
    let take_all = async {
        let mut captures = Vec::new();
        while let Some(capture) = ended.recv().await {
            captures.push(capture);
        }
        captures
    };
    let (result, captures) = tokio::join!(run_single_stream(plan, sender, cancel), take_all);
    result.expect("the client runs");
    captures
}

async fn check(answer: &'static [&'static str], then: Then, end: End, status: RequestStatus) {
    let (address, _tasks) = serve(answer, then).await;
    let limit = if matches!(then, Then::Hang) { Duration::from_millis(200) } else { Duration::from_secs(20) };
    let capture = &run(address, 1, limit).await[0];
    assert_eq!(
        (capture.end, observe(capture, &ResponseBounds::default()).status),
        (end, status),
        "{answer:?} {}",
        capture.end_detail
    );
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const HELLO: &str =
    "47\r\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hello\"}}]}          \n\n\r\n";
const STOP: &str =
    "47\r\ndata: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}    \n\n\r\n";
const REFUSAL: &str =
    "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n";
const PAGE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ntransfer-encoding: chunked\r\n\r\n";
/// The flood goes on with what could be the header's value, or more headers without end.
const ENDLESS_HEAD: &str = "HTTP/1.1 200 OK\r\nx: ";
const CLOSED: &str = "e\r\ndata: [DONE]\n\n\r\n";
const DONE: &str = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";

#[tokio::test]
async fn whatever_a_server_does_is_data() {
    check(&[HEAD, HELLO, STOP, DONE], Then::Close, End::Eof, RequestStatus::Ok).await;
    check(&[HEAD, HELLO], Then::Close, End::Reset, RequestStatus::TransportError).await;
    check(&[HEAD, HELLO], Then::Hang, End::Timeout, RequestStatus::Timeout).await;
    check(&[], Then::Close, End::Reset, RequestStatus::TransportError).await;
    check(&["not http at all\r\n\r\n"], Then::Close, End::BadHttp, RequestStatus::ProtocolError).await;
    check(&[HEAD], Then::Flood, End::BeyondMaxTokens, RequestStatus::ProtocolError).await;
    check(&[HEAD, HELLO, STOP, CLOSED], Then::Flood, End::TooLarge, RequestStatus::Ok).await;
    check(&[NOT_FOUND], Then::Flood, End::TooLarge, RequestStatus::ServerError).await;
    check(&[PAGE], Then::Flood, End::TooLarge, RequestStatus::ProtocolError).await;
    check(&[ENDLESS_HEAD], Then::Flood, End::BadHttp, RequestStatus::ProtocolError).await;
    check(&[REFUSAL], Then::Close, End::Eof, RequestStatus::ServerError).await;
}

#[tokio::test]
async fn reading_stops_where_an_answer_goes_beyond_max_tokens() {
    /// An event of three entries: eleven of them are more than 32 tokens.
    const THREE: &str = "74\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"abc\"},\"logprobs\":{\"content\":[{\"token\":\"a\"},\
                         {\"token\":\"b\"},{\"token\":\"c\"}]}}]}\n\n\r\n";
    let (address, _tasks) = serve(
        &[HEAD, THREE, THREE, THREE, THREE, THREE, THREE, THREE, THREE, THREE, THREE, THREE, STOP, DONE],
        Then::Close,
    )
    .await;
    for capture in run(address, 2, Duration::from_secs(20)).await {
        assert_eq!(capture.end, End::BeyondMaxTokens, "{}", capture.end_detail);
        assert_eq!(capture.end_detail, "33 tokens where max-tokens allows 32");
        // Whole as it looks where one read brought all of it.
        assert_eq!(observe(&capture, &ResponseBounds::default()).status, RequestStatus::ProtocolError);
    }
}

#[tokio::test]
async fn nobody_there_is_data_too() {
    let address = TcpListener::bind("127.0.0.1:0").await.expect("bind").local_addr().expect("address");
    let captures = run(address, 2, Duration::from_secs(5)).await;
    assert_eq!(captures.len(), 2);
    assert_eq!(captures[1].end, End::ConnectFailed);
    assert_eq!(captures[1].prompt_index, 1);
}

#[tokio::test]
async fn stamps_are_in_order_and_start_at_the_send() {
    let (address, _tasks) = serve(&[HEAD, HELLO, STOP, DONE], Then::Close).await;
    let captures = run(address, 3, Duration::from_secs(20)).await;
    for pair in captures.windows(2) {
        assert!(pair[0].send_offset_ns + pair[0].end_ns <= pair[1].send_offset_ns, "one at a time");
    }
    for capture in &captures {
        let sent = capture.sent_ns.expect("sent");
        let headers = capture.headers_ns.expect("headers");
        assert!(sent <= headers && headers <= capture.pieces[0].at_ns, "{capture:?}");
        assert!(capture.pieces.is_sorted_by_key(|read| read.at_ns));
        assert!(capture.pieces.last().expect("a read").at_ns <= capture.end_ns);
    }
}

#[tokio::test]
async fn cancelling_ends_the_load_with_what_it_has() {
    let (address, _tasks) = serve(&[HEAD], Then::Hang).await;
    let cancel = CancellationToken::new();
    let plan = LoadPlan {
        target: Target { connector: Arc::new(address), path: "/".to_owned() },
        bodies: vec![Bytes::from_static(b"{}"); 5],
        limits: limits(Duration::from_mins(1)),
        until: None,
    };
    cancel.cancel();
    assert_eq!(captures_of(plan, cancel).await, []);
}

#[tokio::test]
async fn when_the_run_is_over_the_request_under_way_ends_as_at_its_deadline() {
    let (address, _tasks) = serve(&[HEAD], Then::Hang).await;
    let plan = LoadPlan {
        target: Target { connector: Arc::new(address), path: "/".to_owned() },
        bodies: vec![Bytes::from_static(b"{}"); 5],
        limits: limits(Duration::from_mins(1)),
        until: Some(std::time::Instant::now() + Duration::from_millis(200)),
    };
    let captures = captures_of(plan, CancellationToken::new()).await;
    assert_eq!(captures.iter().map(|capture| capture.end).collect::<Vec<_>>(), [End::Timeout]);
    // What had come by then is kept.
    assert_eq!(captures[0].http_status, Some(200));
}
