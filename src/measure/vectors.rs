//! The conformance vectors of `tests/fixtures/vectors/sse.json`: what a client must make of a stream.

use serde_json::Value;

use super::*;
use crate::model::{RequestFlag, RequestStatus};

const VECTORS: &str = include_str!("../../tests/fixtures/vectors/sse.json");

/// The reads of a row: one a segment, unless the row asks for another cut.
fn segments(raw: &Value) -> Vec<Vec<u8>> {
    let mut whole: Vec<(Vec<u8>, bool)> = Vec::new();
    for segment in raw["segments"].as_array().expect("segments") {
        let bytes = match (&segment["utf8"], &segment["hex"]) {
            (Value::String(text), _) => match &raw["repeat"] {
                Value::Null => text.clone().into_bytes(),
                repeat => {
                    let count = repeat["count"].as_u64().expect("count") as usize;
                    let run = repeat["char"].as_str().expect("char").repeat(count);
                    text.replace(repeat["placeholder"].as_str().expect("placeholder"), &run).into_bytes()
                }
            },
            (_, Value::String(digits)) => hex::decode(digits).expect("hex"),
            _ => panic!("a segment without bytes"),
        };
        whole.push((bytes, segment["no_split"] == true));
    }
    let Some(every) = raw["split_every"].as_u64() else {
        return whole.into_iter().map(|(bytes, _)| bytes).collect();
    };
    let mut reads = Vec::new();
    for run in whole.chunk_by(|a, b| !a.1 && !b.1) {
        let bytes: Vec<u8> = run.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        if run[0].1 {
            reads.push(bytes);
        } else {
            reads.extend(bytes.chunks(every as usize).map(<[u8]>::to_vec));
        }
    }
    reads
}

/// The smallest reader of an HTTP/1.1 response that a test needs: head, then a chunked, counted or open body.
fn over_http(reads: &[Vec<u8>]) -> Capture {
    let mut capture = Capture { end: End::Reset, ..Capture::default() };
    let mut head = Vec::new();
    let mut is_chunked = false;
    let mut remaining: Option<u64> = None;
    let mut size_line = Vec::new();
    for (at_ns, bytes) in reads.iter().enumerate() {
        let mut body = Vec::new();
        for &byte in bytes {
            if capture.http_status.is_none() {
                head.push(byte);
                if head.ends_with(b"\r\n\r\n") {
                    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
                    capture.http_status = head[9..12].parse().ok();
                    let value = |name: &str| {
                        head.lines().find_map(|line| line.strip_prefix(name)).map(|v| v.trim().to_owned())
                    };
                    capture.content_type = value("content-type:");
                    capture.content_encoding = value("content-encoding:");
                    capture.content_length = value("content-length:").and_then(|v| v.parse().ok());
                    is_chunked = value("transfer-encoding:").as_deref() == Some("chunked");
                    remaining = capture.content_length;
                }
            } else if !is_chunked {
                body.push(byte);
                remaining = remaining.map(|n| n - 1);
            } else if let Some(left) = remaining.filter(|&left| left > 0) {
                body.push(byte);
                remaining = Some(left - 1);
            } else {
                size_line.push(byte);
                if size_line.len() > 2 && size_line.ends_with(b"\r\n") {
                    let line = String::from_utf8_lossy(&size_line);
                    let size = u64::from_str_radix(line.trim(), 16).expect("chunk size");
                    size_line.clear();
                    remaining = Some(size);
                    if size == 0 {
                        capture.end = End::Eof;
                    }
                }
            }
        }
        capture.pieces.push(Piece { at_ns: at_ns as u64, bytes: body });
    }
    if !is_chunked && remaining.unwrap_or(0) == 0 {
        capture.end = End::Eof;
    }
    capture
}

fn capture(raw: &Value) -> Capture {
    let reads = segments(raw);
    let mut capture = if raw["layer"] == "http" {
        over_http(&reads)
    } else {
        let header = |name: &str| raw["headers"][name].as_str().map(str::to_owned);
        Capture {
            http_status: Some(200),
            content_type: header("content-type").or(Some("text/event-stream".into())),
            content_encoding: header("content-encoding"),
            pieces: (0..).zip(reads).map(|(at_ns, bytes)| Piece { at_ns, bytes }).collect(),
            ..Capture::default()
        }
    };
    if raw["eof"] == "reset" {
        capture.end = End::Reset;
    }
    capture
}

fn check(row: &Value) -> Vec<String> {
    let seen = observe(&capture(&row["raw"]), &ResponseBounds { choices: 8, ..ResponseBounds::default() });
    let want = &row["expected"];
    let mut wrong = Vec::new();
    let mut field = |name: &str, got: Value| {
        if want.get(name).is_some_and(|want| *want != got) {
            wrong.push(format!("{}: {name} is {got}, want {}", row["name"], want[name]));
        }
    };
    let by_index = |map: &std::collections::BTreeMap<u32, String>| -> Value {
        let runs = |text: &str| match text.len() {
            200_000 if text.bytes().all(|b| b == b'x') => "<200000 x>".to_owned(),
            _ => text.to_owned(),
        };
        map.iter().map(|(index, text)| (index.to_string(), Value::from(runs(text)))).collect()
    };
    let flags: Vec<&str> = seen.flags.iter().map(|flag| flag.as_str()).collect();
    let bursts: Vec<usize> = seen.bursts().into_iter().filter(|&size| size > 1).collect();
    let tokens: Vec<u32> = seen.visible.iter().map(|event| event.logprob_tokens).collect();
    field("status", seen.status.as_str().into());
    field("text", by_index(&seen.text));
    field("ttft_segment", seen.first_visible_ns().into());
    field("last_token_segment", seen.last_visible_ns().into());
    field("content_events", seen.visible.len().into());
    field("logprob_tokens", seen.claimed.as_ref().map(Vec::len).into());
    field("finish_reason", seen.finish_reason.clone().into());
    field("usage_completion_tokens", seen.usage_completion_tokens.into());
    field("done", seen.is_done.into());
    field("flags", flags.into());
    field("tokens_per_event", tokens.into());
    field("bursts", bursts.into());
    field("ttfo_segment", seen.answer_events().next().map(|event| event.at_ns).into());
    field("tool_args", by_index(&seen.tool_args));
    field("bad_json", seen.bad_json.into());
    wrong
}

#[test]
fn all_vectors_hold() {
    let rows: Vec<Value> = serde_json::from_str(VECTORS).expect("vectors");
    assert!(rows.len() >= 42);
    let wrong: Vec<String> = rows.iter().flat_map(check).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_fields_of_the_vectors_are_judged() {
    let judged = [
        "status",
        "text",
        "ttft_segment",
        "last_token_segment",
        "content_events",
        "logprob_tokens",
        "finish_reason",
        "usage_completion_tokens",
        "done",
        "flags",
        "tokens_per_event",
        "bursts",
        "ttfo_segment",
        "tool_args",
        "bad_json",
        "why",
    ];
    let rows: Vec<Value> = serde_json::from_str(VECTORS).expect("vectors");
    for row in rows {
        for name in row["expected"].as_object().expect("object").keys() {
            assert!(judged.contains(&name.as_str()), "{name}");
        }
    }
}

fn body(text: &str) -> Capture {
    Capture {
        http_status: Some(200),
        content_type: Some("text/event-stream".into()),
        pieces: vec![Piece { at_ns: 7, bytes: text.as_bytes().to_vec() }],
        ..Capture::default()
    }
}

#[test]
fn what_the_vectors_do_not_say() {
    const HI: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n";
    const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    const DONE: &str = "data: [DONE]\n\n";
    let whole = format!("{HI}{STOP}{DONE}");
    let check = |capture: &Capture, status: RequestStatus, flags: &[RequestFlag]| {
        let seen = observe(capture, &ResponseBounds::default());
        assert_eq!((seen.status, seen.flags.into_iter().collect::<Vec<_>>()), (status, flags.to_vec()));
    };
    check(&body(&whole), RequestStatus::Ok, &[]);
    check(&body(&format!("{STOP}{HI}{DONE}")), RequestStatus::ProtocolError, &[RequestFlag::TextAfterFinish]);
    check(
        &body(&format!("data: {{\"error\":{{\"message\":\"x\"}}}}\n\n{whole}")),
        RequestStatus::ServerError,
        &[],
    );
    check(
        &body(&whole.replace("\"index\":0", "\"index\":1")),
        RequestStatus::ProtocolError,
        &[RequestFlag::UnrequestedChoice],
    );
    check(&Capture { http_status: Some(503), ..body(&whole) }, RequestStatus::ServerError, &[]);
    check(
        &Capture { content_length: Some(9), ..body(&whole) },
        RequestStatus::Ok,
        &[RequestFlag::ContentLength],
    );
    check(&Capture { end: End::Timeout, ..body(&whole) }, RequestStatus::Ok, &[RequestFlag::UncleanEnd]);
    check(&Capture { end: End::Timeout, ..body(HI) }, RequestStatus::Timeout, &[]);
    check(
        &Capture { end: End::TooLarge, ..body(HI) },
        RequestStatus::ProtocolError,
        &[RequestFlag::TooLarge],
    );
    check(&Capture { end: End::ConnectFailed, ..Capture::default() }, RequestStatus::TransportError, &[]);
    check(&Capture { end: End::BadHttp, ..Capture::default() }, RequestStatus::ProtocolError, &[]);
    let deep = format!("data: {{\"choices\":{}{}}}\n\n", "[".repeat(10_000), "]".repeat(10_000));
    check(&body(&format!("{deep}{whole}")), RequestStatus::ProtocolError, &[RequestFlag::BadJson]);
    let twice = HI.replace("\"index\":0", "\"index\":0,\"index\":0");
    check(&body(&format!("{twice}{whole}")), RequestStatus::ProtocolError, &[RequestFlag::BadJson]);
    let huge =
        HI.replace("\"delta\"", "\"logprobs\":{\"content\":[{\"token\":\"a\",\"logprob\":1e999}]},\"delta\"");
    check(&body(&format!("{huge}{whole}")), RequestStatus::ProtocolError, &[RequestFlag::BadJson]);
}

#[test]
fn a_done_without_its_blank_line_counts_and_is_flagged() {
    const HI: &str =
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\n";
    let check = |rest: &str, end: End, (is_done, flags): (bool, &[RequestFlag])| {
        let mut capture = Capture { end, ..body(HI) };
        capture.pieces.push(Piece { at_ns: 9, bytes: rest.as_bytes().to_vec() });
        capture.pieces.push(Piece { at_ns: 11, bytes: Vec::new() });
        let seen = observe(&capture, &ResponseBounds::default());
        assert_eq!((seen.is_done, seen.done_ns), (is_done, is_done.then_some(9)), "{rest:?}");
        assert_eq!(seen.flags.into_iter().collect::<Vec<_>>(), flags, "{rest:?}");
        seen.status
    };
    let flagged: (bool, &[RequestFlag]) = (true, &[RequestFlag::DoneUnclosed]);
    for rest in ["data: [DONE]", "data:[DONE]\n", "data: [DONE]\r\n", ": bye\nid: 1\ndata: [DONE]\r"] {
        assert_eq!(check(rest, End::Eof, flagged), RequestStatus::Ok);
    }
    let lost: (bool, &[RequestFlag]) = (false, &[RequestFlag::NoDone, RequestFlag::PartialEventAtEof]);
    for rest in ["data: [DON", "data: x\ndata: [DONE]", "event: error\ndata: [DONE]"] {
        assert_eq!(check(rest, End::Eof, lost), RequestStatus::Ok);
    }
    check("data: [DONE]\n\n", End::Eof, (true, &[]));
    check("data: [DONE]\n\ndata: [DONE]", End::Eof, (true, &[RequestFlag::PartialEventAtEof]));
    // A stream that broke has no end to speak of.
    assert_eq!(
        check("data: [DONE]", End::Reset, (false, &[RequestFlag::PartialEventAtEof])),
        RequestStatus::TransportError
    );
}

#[test]
fn choices_of_one_chunk_arrive_together() {
    let choice =
        |index: u32, text: &str| format!("{{\"index\":{index},\"delta\":{{\"content\":\"{text}\"}}}}");
    let check = |choices: &[(u32, &str)], expected: &[(usize, bool)]| {
        let choices: Vec<String> = choices.iter().map(|(index, text)| choice(*index, text)).collect();
        let capture = body(&format!("data: {{\"choices\":[{}]}}\n\n", choices.join(",")));
        let seen = observe(&capture, &ResponseBounds { choices: 2, ..ResponseBounds::default() });
        let events: Vec<_> = seen.visible.iter().map(|event| (event.text_end, event.is_answer)).collect();
        assert_eq!(events, expected, "{choices:?}");
    };
    check(&[(0, "Hi"), (1, "Hello")], &[(2, true)]);
    check(&[(1, "Hello"), (0, "Hi")], &[(2, true)]);
    check(&[(0, "Hi"), (0, " you")], &[(6, true)]);
    check(&[(0, ""), (1, "Hello")], &[(0, false)]);
    check(&[(0, ""), (1, "")], &[]);
}

#[test]
fn error_bodies_keep_the_servers_words() {
    let message = |text: &str| {
        observe(&Capture { http_status: Some(400), ..body(text) }, &ResponseBounds::default())
            .error
            .unwrap_or_default()
    };
    assert_eq!(message("{\"error\":{\"message\":\"no model\",\"code\":404}}"), "no model");
    assert_eq!(message("{\"error\":\"no model\"}"), "no model");
    assert_eq!(message("{\"object\":\"error\",\"message\":\"no model\"}"), "no model");
    assert_eq!(message("{\"detail\":\"Not Found\"}"), "Not Found");
    assert_eq!(message("<html>\u{1b}[2J"), "<html>[2J");
    assert_eq!(message(&"x".repeat(9999)).len(), 300);
}
