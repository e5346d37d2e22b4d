//! The reference server as a client sees it: the API's shapes, its honesty, and each cheat's one behaviour.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests may panic and look at the clock")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use cacheon::measure::language::prompt;
use cacheon::measure::{
    Capture, Piece, PinnedTokenizer, Record, RecordContext, ResponseBounds, observe, record,
};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

/// A server process that dies with the test.
struct Served {
    child: Child,
    base: String,
    client: reqwest::Client,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cacheon"));
    command.args(["reference", "serve", "--port", "0", "--model-dir"]);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/data/reference")).args(flags);
    command.env("NO_COLOR", "1").stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Starts a server and waits for the line that names its port.
fn listening(flags: &[&str]) -> Served {
    let mut child = command(flags).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = lines
        .find_map(|line| {
            let line = line.unwrap();
            let (_, after) = line.split_once("listening on ")?;
            Some(after.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect::<String>())
        })
        .expect("a listening line");
    std::thread::spawn(move || lines.for_each(drop));
    // It is asked without TLS, but no client is made without any.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Served { child, base: format!("http://{address}"), client: reqwest::Client::new() }
}

/// Starts a server and waits until it is healthy.
async fn serve(flags: &[&str]) -> Served {
    let served = listening(flags);
    let start = Instant::now();
    while served.get("/health").await.0 != 200 {
        assert!(start.elapsed() < PATIENCE, "not healthy in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    served
}

/// A stream as it came: the frames, and the events in them.
struct Streamed {
    chunks: Vec<Vec<u8>>,
    events: Vec<Value>,
    is_done: bool,
}

impl Streamed {
    fn text(&self) -> String {
        self.events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect()
    }

    fn with_text(&self) -> usize {
        let texts = self.events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
        texts.filter(|text| !text.is_empty()).count()
    }

    fn usage(&self) -> &Value {
        &self.events.last().unwrap()["usage"]
    }
}

impl Served {
    async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.client.get(format!("{}{path}", self.base)).send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null))
    }

    async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> reqwest::Response {
        self.client.post(format!("{}{path}", self.base)).body(body).send().await.unwrap()
    }

    async fn answer(&self, path: &str, body: Value) -> (u16, Value) {
        let response = self.post(path, body.to_string()).await;
        let status = response.status().as_u16();
        (status, response.json().await.unwrap())
    }

    async fn chat(&self, body: Value) -> Value {
        let (status, answer) = self.answer("/v1/chat/completions", body).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    async fn stream(&self, mut body: Value) -> Streamed {
        body["stream"] = true.into();
        body["stream_options"] = json!({"include_usage": true});
        let mut response = self.post("/v1/chat/completions", body.to_string()).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        let mut chunks = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            chunks.push(chunk.to_vec());
        }
        read(chunks)
    }

    async fn exit(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "still running");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn read(chunks: Vec<Vec<u8>>) -> Streamed {
    let text = String::from_utf8(chunks.concat()).unwrap();
    let data = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    let events =
        data.clone().filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap());
    let (events, is_done) = (events.collect(), data.clone().any(|data| data == "[DONE]"));
    Streamed { chunks, events, is_done }
}

/// What is measured of a stream whose events come one millisecond apart.
fn measured(streamed: &Streamed) -> Record {
    let file = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/data/reference/tokenizer.json")).unwrap();
    let tokenizer = PinnedTokenizer::from_bytes(&file).unwrap();
    let data = streamed.events.iter().map(Value::to_string).chain(["[DONE]".to_owned()]);
    let pieces = (1..).zip(data).map(|(number, data)| Piece {
        at_ns: number * 1_000_000,
        bytes: format!("data: {data}\n\n").into_bytes(),
    });
    let capture = Capture {
        http_status: Some(200),
        content_type: Some("text/event-stream".to_owned()),
        pieces: pieces.collect(),
        ..Capture::default()
    };
    let context = RecordContext {
        round_id: "r",
        read_key: "k",
        prompt_sha256: "",
        new_prompt_tokens: None,
        tokenizer: &tokenizer,
        max_tokens: None,
    };
    record(&context, &capture, &observe(&capture, &ResponseBounds::default()))
}

fn ask(seed: u64) -> Value {
    let content = prompt(&mut ChaCha12Rng::seed_from_u64(seed));
    json!({"model": "reference", "messages": [{"role": "user", "content": content}]})
}

fn with(mut body: Value, more: Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

fn content(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap()
}

/// Token ids of an answer that was asked for with `return_tokens_as_token_ids`.
fn ids(answer: &Value) -> Vec<u32> {
    let entries = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let id =
        |entry: &Value| entry["token"].as_str().unwrap().strip_prefix("token_id:").unwrap().parse().unwrap();
    entries.iter().map(id).collect()
}

#[track_caller]
fn keys(value: &Value, expected: &str) {
    let found: BTreeSet<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(found, expected.split(' ').collect(), "{value}");
}

#[tokio::test]
async fn bodies_have_the_fields_of_vllm() {
    let served = serve(&[]).await;
    let (_, models) = served.get("/v1/models").await;
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!("reference")));
    assert_eq!(models["data"][0]["max_model_len"], 1024);
    keys(&models["data"][0], "id object created owned_by root parent max_model_len permission");

    let answer =
        served.chat(with(ask(1), json!({"logprobs": true, "top_logprobs": 2, "prompt_logprobs": 1}))).await;
    keys(
        &answer,
        "id object created model choices service_tier system_fingerprint usage prompt_logprobs prompt_token_ids \
         prompt_text kv_transfer_params ec_transfer_params metrics",
    );
    let choice = &answer["choices"][0];
    keys(choice, "index message logprobs finish_reason stop_reason token_ids routed_experts");
    keys(&choice["message"], "role content refusal annotations audio function_call reasoning");
    let entries = choice["logprobs"]["content"].as_array().unwrap();
    for entry in entries {
        keys(entry, "token logprob bytes top_logprobs");
        keys(&entry["top_logprobs"][1], "token logprob bytes");
        assert_eq!(entry["token"], entry["top_logprobs"][0]["token"], "greedy");
        assert_eq!(entry["bytes"], json!(entry["token"].as_str().unwrap().as_bytes()));
    }
    assert_eq!(entries.last().unwrap()["token"], "<|im_end|>");
    assert_eq!(choice["finish_reason"], "stop");
    keys(
        &answer["usage"],
        "prompt_tokens total_tokens completion_tokens prompt_tokens_details completion_tokens_details",
    );
    assert_eq!(answer["usage"]["completion_tokens"], entries.len());
    let prompt = answer["prompt_logprobs"].as_array().unwrap();
    assert_eq!(answer["usage"]["prompt_tokens"], prompt.len());
    assert!(prompt[0].is_null());
    for position in &prompt[1..] {
        let entries = position.as_object().unwrap();
        assert!((1..=2).contains(&entries.len()));
        assert!(entries.values().any(|entry| entry["rank"] == 1));
        entries.values().for_each(|entry| keys(entry, "logprob rank decoded_token"));
    }

    let (_, answer) =
        served.answer("/v1/completions", json!({"prompt": "In Fata", "max_tokens": 4, "logprobs": 1})).await;
    keys(&answer, "id object created model choices service_tier system_fingerprint usage kv_transfer_params");
    let choice = &answer["choices"][0];
    keys(choice, "index text logprobs finish_reason stop_reason token_ids prompt_logprobs prompt_token_ids");
    keys(&choice["logprobs"], "text_offset token_logprobs tokens top_logprobs");
    assert_eq!(choice["finish_reason"], "length");
}

#[tokio::test]
async fn a_stream_is_a_role_chunk_then_steps_then_usage() {
    let served = serve(&[]).await;
    let streamed = served.stream(with(ask(2), json!({"logprobs": true, "top_logprobs": 1}))).await;
    assert!(streamed.is_done);
    let events = &streamed.events;
    keys(&events[0], "id object created model choices prompt_token_ids prompt_text");
    keys(&events[0]["choices"][0], "index delta logprobs finish_reason");
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let (steps, usage) = events[1..].split_at(events.len() - 2);
    for (index, step) in steps.iter().enumerate() {
        keys(step, "id object created model choices");
        let is_last = index + 1 == steps.len();
        let stop = if is_last { " stop_reason" } else { "" };
        keys(&step["choices"][0], &format!("index delta logprobs finish_reason token_ids{stop}"));
        assert_eq!(step["choices"][0]["finish_reason"].is_string(), is_last);
    }
    keys(&usage[0], "id object created model choices usage system_fingerprint");
    assert_eq!(usage[0]["choices"], json!([]));
    assert_eq!(streamed.usage()["completion_tokens"], steps.len());

    let whole = served.chat(ask(2)).await;
    assert_eq!(streamed.text(), content(&whole));
}

#[tokio::test]
async fn tokens_and_text_convert_both_ways() {
    let served = serve(&[]).await;
    let (_, plain) =
        served.answer("/tokenize", json!({"prompt": "née Tölo 🦀", "return_token_strs": true})).await;
    keys(&plain, "count max_model_len tokens token_strs");
    assert_eq!(plain["count"], plain["tokens"].as_array().unwrap().len());
    let (_, back) = served.answer("/detokenize", json!({"tokens": plain["tokens"]})).await;
    assert_eq!(back["prompt"], "née Tölo 🦀");
    let (_, chat) = served.answer("/tokenize", ask(3)).await;
    let (_, text) = served.answer("/detokenize", json!({"tokens": chat["tokens"]})).await;
    let text = text["prompt"].as_str().unwrap();
    assert!(text.starts_with("<|im_start|>system\n") && text.ends_with("<|im_start|>assistant\n"), "{text}");
    assert_eq!(served.chat(ask(3)).await["usage"]["prompt_tokens"], chat["count"]);
}

#[tokio::test]
async fn wrong_requests_are_refused_and_the_server_lives_on() {
    let served = serve(&[]).await;
    let chat = "/v1/chat/completions";
    let message = json!([{"role": "user", "content": "x"}]);
    for (path, body, status, param) in [
        (chat, json!({"model": "nope", "messages": message}).to_string(), 404, "model"),
        (chat, json!({"messages": message, "max_tokens": 5000}).to_string(), 400, "max_tokens"),
        (chat, json!({"messages": message, "max_tokens": 1020}).to_string(), 400, "input_tokens"),
        (chat, json!({"messages": "bad"}).to_string(), 400, "body.messages"),
        (chat, "{bad json".into(), 400, "body.2"),
        ("/v1/completions", json!({"prompt": []}).to_string(), 400, "prompt"),
        ("/v1/completions", json!({"prompt": [99_999]}).to_string(), 400, "prompt"),
        ("/v1/completions", json!({"prompt": "a ".repeat(5000)}).to_string(), 400, "input_tokens"),
        ("/detokenize", "{}".into(), 400, "body.tokens"),
    ] {
        let response = served.post(path, body.clone()).await;
        assert_eq!(response.status(), status, "{body}");
        let error = response.json::<Value>().await.unwrap();
        keys(&error["error"], "message type param code");
        assert_eq!(error["error"]["param"], param, "{body}");
        assert_eq!(error["error"]["code"], status);
    }
    assert_eq!(served.post(chat, vec![b'['; (1 << 20) + 1]).await.status(), 413);
    assert_eq!(served.post(chat, vec![b'['; 500_000]).await.status(), 400);
    assert_eq!(served.get("/nothing").await.0, 404);
    assert_eq!(served.get("/health").await.0, 200);
}

#[tokio::test]
async fn options_of_a_request_are_honoured() {
    let served = serve(&[]).await;
    let whole = served.chat(ask(4)).await;
    let text = content(&whole);
    let cut = served.chat(with(ask(4), json!({"max_completion_tokens": 5}))).await;
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
    assert!(text.starts_with(content(&cut)));
    let middle = &text[text.char_indices().nth(20).unwrap().0..text.char_indices().nth(26).unwrap().0];
    let stopped = served.chat(with(ask(4), json!({"stop": middle}))).await;
    assert_eq!(content(&stopped), text.split(middle).next().unwrap());
    assert_eq!(stopped["choices"][0]["stop_reason"], middle);
    let long = served.chat(with(ask(4), json!({"ignore_eos": true, "max_tokens": 130}))).await;
    assert_eq!(long["usage"]["completion_tokens"], 130);

    let hot = |seed: u64| with(ask(4), json!({"temperature": 3.0, "seed": seed, "max_tokens": 30}));
    assert_eq!(content(&served.chat(hot(1)).await), content(&served.chat(hot(1)).await));
    assert_ne!(content(&served.chat(hot(1)).await), content(&served.chat(hot(2)).await));

    let mut begun = ask(4);
    let half = &text[..text.char_indices().nth(30).unwrap().0];
    begun["messages"].as_array_mut().unwrap().push(json!({"role": "assistant", "content": half}));
    begun["add_generation_prompt"] = false.into();
    begun["continue_final_message"] = true.into();
    begun["max_tokens"] = 1.into();
    let with_head = served.chat(begun).await["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(with_head > whole["usage"]["prompt_tokens"].as_u64().unwrap());
}

/// Asks for an answer with its token ids and lets `scorer` read it back: (rank, difference of logprobs) per token.
async fn forced(served: &Served, scorer: &Served, seed: u64) -> Vec<(u64, f64)> {
    let more = json!({"logprobs": true, "return_tokens_as_token_ids": true, "max_tokens": 200});
    let answer = served.chat(with(ask(seed), more)).await;
    let answered = ids(&answer);
    let (_, head) = served.answer("/tokenize", ask(seed)).await;
    let mut tokens: Vec<u64> = head["tokens"].as_array().unwrap().iter().filter_map(Value::as_u64).collect();
    let start = tokens.len();
    tokens.extend(answered.iter().map(|id| u64::from(*id)));
    let body = json!({"prompt": tokens, "max_tokens": 0, "prompt_logprobs": 1});
    let (_, scored) = scorer.answer("/v1/completions", body).await;
    let entries = &scored["choices"][0]["prompt_logprobs"].as_array().unwrap()[start..];
    let own = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(entries.len(), own.len());
    let pairs = entries.iter().zip(own).zip(answered);
    let pair = |((entry, own), id): ((&Value, &Value), u32)| {
        let found = &entry[id.to_string()];
        let difference = own["logprob"].as_f64().unwrap() - found["logprob"].as_f64().unwrap();
        (found["rank"].as_u64().unwrap(), difference)
    };
    pairs.map(pair).collect()
}

fn spread(pairs: &[(u64, f64)]) -> f64 {
    (pairs.iter().map(|(_, difference)| difference * difference).sum::<f64>() / pairs.len() as f64).sqrt()
}

#[tokio::test]
async fn greedy_answers_are_the_scorers_own() {
    let scorer = serve(&[]).await;
    let honest: [&[&str]; 7] = [
        &[],
        &["--prefill", "token"],
        &["--speculate", "5"],
        &["--speculate", "5", "--history", "2048"],
        &["--decode", "recompute"],
        &["--summation", "blocked"],
        &["--threads", "2"],
    ];
    for flags in honest {
        let served = serve(flags).await;
        for seed in 10..14 {
            let pairs = forced(&served, &scorer, seed).await;
            assert!(pairs.iter().all(|(rank, _)| *rank == 1), "{flags:?}: {pairs:?}");
            assert!(spread(&pairs) < 1e-4, "{flags:?}: {}", spread(&pairs));
        }
    }
}

#[tokio::test]
async fn speculation_changes_events_and_not_text() {
    let servers = [
        serve(&[]).await,
        serve(&["--speculate", "5"]).await,
        serve(&["--speculate", "5", "--history", "2048"]).await,
    ];
    let mut steps = [0; 3];
    for seed in 20..30 {
        let plain = servers[0].stream(ask(seed)).await;
        for (server, steps) in servers.iter().zip(&mut steps) {
            let streamed = server.stream(ask(seed)).await;
            assert_eq!(streamed.text(), plain.text());
            assert_eq!(streamed.usage(), plain.usage());
            *steps += streamed.events.len();
        }
    }
    assert!(steps[1] * 10 < steps[0] * 9 && steps[2] * 10 < steps[1] * 9, "{steps:?} events");
}

#[tokio::test]
async fn cheats_in_the_weights_show_in_the_logprobs() {
    let scorer = serve(&[]).await;
    let mut spreads = Vec::new();
    for cheat in ["int8-weights", "int4-weights", "other-weights", "temperature", "draft-first-token"] {
        let served = serve(&["--cheat", cheat]).await;
        let mut pairs = Vec::new();
        let mut firsts = Vec::new();
        for seed in 10..16 {
            let found = forced(&served, &scorer, seed).await;
            firsts.push(found[0]);
            pairs.extend(found);
        }
        let off = pairs.iter().filter(|(rank, _)| *rank > 1).count();
        match cheat {
            "temperature" => assert!(off > 0, "sampled tokens are not all the best ones"),
            "draft-first-token" => assert!(spread(&firsts) > 1e-3, "{firsts:?}"),
            _ => spreads.push(spread(&pairs)),
        }
    }
    assert!(spreads[0] > 1e-3 && spreads[1] > spreads[0] && spreads[2] > spreads[1], "{spreads:?}");
}

#[tokio::test]
async fn cheats_in_the_length() {
    let honest = serve(&[]).await.stream(ask(30)).await;
    let short = serve(&["--cheat", "cut-short"]).await.stream(ask(30)).await;
    assert!(honest.text().starts_with(&short.text()) && short.text().len() < honest.text().len());
    assert_eq!(short.usage()["completion_tokens"], 40);
    let padded = serve(&["--cheat", "pad-after-end"]).await.stream(ask(30)).await;
    let count = |streamed: &Streamed| streamed.usage()["completion_tokens"].as_u64().unwrap();
    assert!(padded.text().starts_with(&honest.text()) && count(&padded) > count(&honest) + 10);
    for streamed in [&short, &padded] {
        let last = &streamed.events[streamed.events.len() - 2];
        assert_eq!(last["choices"][0]["finish_reason"], "stop");
    }
    let inflated = serve(&["--cheat", "inflate-usage"]).await.stream(ask(30)).await;
    assert_eq!((inflated.text(), count(&inflated)), (honest.text(), 2 * count(&honest)));
}

#[tokio::test]
async fn cheats_in_the_events() {
    let body = || with(ask(31), json!({"logprobs": true, "top_logprobs": 1}));
    let honest = serve(&[]).await.stream(body()).await;
    for cheat in
        ["role-chunk-first", "early-byte", "buffer-and-flush", "split-characters", "empty-logprobs-first"]
    {
        let streamed = serve(&["--cheat", cheat]).await.stream(body()).await;
        assert_eq!(streamed.text(), honest.text(), "{cheat}");
        assert!(streamed.is_done, "{cheat}");
        match cheat {
            "role-chunk-first" => assert_eq!(read(vec![streamed.chunks[0].clone()]).events.len(), 1),
            "early-byte" => assert_eq!(streamed.chunks[0], b"d"),
            "buffer-and-flush" => {
                let first = String::from_utf8_lossy(&streamed.chunks[0]).into_owned();
                assert!(first.matches("data: ").count() > 1, "{first}");
            }
            "split-characters" => {
                assert_eq!(streamed.with_text(), honest.text().chars().count());
            }
            _ => {
                let entries = streamed.events[1]["choices"][0]["logprobs"]["content"].as_array().unwrap();
                assert!(entries.len() == 64 && entries.iter().all(|entry| entry["token"] == ""));
                assert!(streamed.events[2]["choices"][0]["logprobs"].is_null());
            }
        }
    }
}

/// A token has arrived when its text and its log probability have, so neither half gains anything alone.
#[tokio::test]
async fn half_a_token_gains_no_time() {
    const EVENT: i64 = 1_000_000;
    let body = || with(ask(31), json!({"logprobs": true, "top_logprobs": 1}));
    let honest = serve(&[]).await.stream(body()).await;
    let expected = measured(&honest).request;
    // The role, then an event to a token; the last one says the end.
    assert_eq!(expected.ttft_ns, Some(2 * EVENT));
    assert_eq!((expected.e2e_ns, expected.stall_ns), (expected.finish_ns, Some(EVENT)));

    let late = serve(&["--cheat", "late-logprobs"]).await.stream(body()).await;
    assert_eq!((late.text(), late.events.len()), (honest.text(), honest.events.len()));
    let found = measured(&late);
    let last = expected.finish_ns;
    let (request, flags) = (&found.request, &found.request.flags);
    assert_eq!((request.ttft_ns, request.e2e_ns, request.finish_ns), (last, last, last), "{flags:?}");
    assert_eq!(request.mdt_ns, last.map(|last| last as f64));
    assert!(found.tokens.iter().all(|token| token.arrival_ns == last && token.server_logprob.is_some()));

    let early = serve(&["--cheat", "first-character"]).await.stream(body()).await;
    assert_eq!((early.text(), early.events.len()), (honest.text(), honest.events.len() + 1));
    let first = &early.events[1]["choices"][0];
    assert_eq!(first["delta"]["content"].as_str().map(str::len), Some(1));
    assert_eq!(first["logprobs"]["content"], json!([]));
    let found = measured(&early);
    let one_later = |time: Option<i64>| time.map(|time| time + EVENT);
    assert_eq!(found.request.ttft_ns, one_later(expected.ttft_ns));
    assert_eq!(found.request.e2e_ns, one_later(expected.e2e_ns));
    assert_eq!(found.request.mdt_ns, expected.mdt_ns.map(|mean| mean + EVENT as f64));
    assert_eq!(found.tokens[0].text_ns, found.tokens[0].logprob_ns);
}

#[tokio::test]
async fn a_cached_answer_comes_back_unchanged() {
    let served = serve(&["--cheat", "cached-answers", "--prefill", "token"]).await;
    let start = Instant::now();
    let first = served.stream(ask(32)).await;
    let cold = start.elapsed();
    let start = Instant::now();
    let second = served.stream(ask(32)).await;
    assert!(start.elapsed() * 2 < cold, "{:?} after {cold:?}", start.elapsed());
    assert_eq!(first.text(), second.text());
}

#[tokio::test]
async fn cheats_in_the_process() {
    let output = command(&["--cheat", "exit-at-boot"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("RuntimeError"));

    let sick = listening(&["--cheat", "never-healthy"]);
    let start = Instant::now();
    while sick.get("/v1/models").await.0 != 200 {
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(sick.get("/health").await.0, 503);

    let mut crashing = serve(&["--cheat", "crash-mid-stream", "--trigger-stream", "2"]).await;
    assert!(crashing.stream(ask(33)).await.is_done);
    let crashed = crashing.stream(ask(34)).await;
    assert!(!crashed.is_done);
    assert_eq!(crashing.exit().await.code(), Some(139));

    let stalling = serve(&["--cheat", "stall-mid-stream"]).await;
    let body = with(ask(35), json!({"stream": true}));
    let mut response = stalling.post("/v1/chat/completions", body.to_string()).await;
    let mut seen = Vec::new();
    let stalled = loop {
        match tokio::time::timeout(Duration::from_millis(500), response.chunk()).await {
            Ok(chunk) => seen.extend_from_slice(&chunk.unwrap().expect("the connection stays open")),
            Err(elapsed) => break elapsed,
        }
    };
    assert!(!seen.is_empty() && !String::from_utf8_lossy(&seen).contains("[DONE]"), "{stalled}");
    assert_eq!(stalling.get("/health").await.0, 200);
}

#[tokio::test]
async fn a_signal_ends_the_server_cleanly() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mut served = serve(&[]).await;
        let id = i32::try_from(served.child.id()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(id).unwrap(), signal).unwrap();
        assert_eq!(served.exit().await.code(), Some(0));
    }
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_engine() {
    let served = serve(&["--decode", "recompute"]).await;
    for seed in 0..20 {
        let body = with(ask(seed), json!({"stream": true, "ignore_eos": true, "max_tokens": 800}));
        drop(served.post("/v1/chat/completions", body.to_string()).await);
    }
    let start = Instant::now();
    served.chat(with(ask(36), json!({"max_tokens": 1}))).await;
    assert!(start.elapsed() < PATIENCE);
}
