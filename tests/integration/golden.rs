//! Golden rounds: recorded streams, a scorer's answers and a policy in; every table, the leaderboard and the weights
//! out, byte for byte.
//!
//! A case is a folder of `tests/golden`: `in/` is what the round knew, `out/` what it must come to. The way from one to
//! the other is the program's own: [`derive_records`] as in `benchmark`, [`fill_scores`] as in `verify-logprobs`,
//! [`evaluate`], whose parts `verify-logprobs`, `rank` and `set-weights` call. `CACHEON_GOLDEN=accept` writes `out/`
//! anew, `CACHEON_GOLDEN=generate` makes `in/` first.

mod generate;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cacheon::artifact::{self, Table, TableContext};
use cacheon::judge::{AnswerScores, Policies, Question, RoundEvidence, TokenScore, evaluate, fill_scores};
use cacheon::measure::{PinnedTokenizer, derive_records};
use cacheon::model::{
    ExchangeEnd, ExchangeRow, ReadRow, RequestRow, RoundId, StreamRow, SubmissionRow, TokenRow, admit,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What `in/round.json` says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Setup {
    /// What the case is about, for its readers.
    about: String,
    round_id: RoundId,
    policies: Policies,
    /// What stands on the chain, as found.
    commitments: Vec<serde_json::Value>,
}

/// A line of `in/streams.jsonl`: one request and its body as it arrived.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stream {
    read_key: String,
    prompt_index: u32,
    http_status: Option<u32>,
    ended: ExchangeEnd,
    end_ns: i64,
    pieces: Vec<(i64, String)>,
}

/// A line of `in/scores.jsonl`: one answer and what the scorer says of each of its tokens: log probability, rank, log
/// probability of the most probable token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScoredAnswer {
    prompt_index: u32,
    token_ids: Vec<u32>,
    scores: Vec<(f64, u32, f64)>,
}

/// All of a case's `in/`.
#[derive(Debug, Clone)]
struct Case {
    round: Setup,
    reads: Vec<ReadRow>,
    streams: Vec<Stream>,
    scores: Vec<ScoredAnswer>,
}

impl Case {
    fn read(folder: &Path) -> Self {
        let text = std::fs::read_to_string(folder.join("in/round.json")).expect("round.json");
        Self {
            round: serde_json::from_str(&text).expect("round.json"),
            reads: lines(&folder.join("in/reads.jsonl")),
            streams: lines(&folder.join("in/streams.jsonl")),
            scores: lines(&folder.join("in/scores.jsonl")),
        }
    }

    fn write(&self, folder: &Path) {
        let mut round = serde_json::to_string_pretty(&self.round).expect("JSON");
        round.push('\n');
        write(&folder.join("in/round.json"), &round);
        write(&folder.join("in/reads.jsonl"), &jsonl(&self.reads));
        write(&folder.join("in/streams.jsonl"), &jsonl(&self.streams));
        write(&folder.join("in/scores.jsonl"), &jsonl(&self.scores));
    }

    /// The rows of `requests` and `tokens`, derived from streams that went through their files.
    fn records(&self) -> (Vec<RequestRow>, Vec<TokenRow>) {
        let (mut exchanges, mut pieces) = (Vec::new(), Vec::new());
        let round_id = self.round.round_id.to_string();
        for stream in &self.streams {
            exchanges.push(ExchangeRow {
                round_id: round_id.clone(),
                read_key: stream.read_key.clone(),
                prompt_index: stream.prompt_index,
                prompt_sha256: format!("{:064x}", stream.prompt_index),
                send_offset_ns: i64::from(stream.prompt_index) * 1_000_000_000,
                connect_ns: Some(100_000),
                sent_ns: Some(20_000),
                headers_ns: stream.http_status.map(|_| 1_000_000),
                end_ns: stream.end_ns,
                http_status: stream.http_status,
                content_type: stream.http_status.map(|_| "text/event-stream".to_owned()),
                content_encoding: None,
                content_length: None,
                ended: stream.ended,
                end_detail: String::new(),
                pieces: stream.pieces.len() as u32,
                new_prompt_tokens: None,
                max_tokens: None,
            });
            pieces.extend((0..).zip(&stream.pieces).map(|(sequence, (at_ns, text))| StreamRow {
                round_id: round_id.clone(),
                read_key: stream.read_key.clone(),
                prompt_index: stream.prompt_index,
                sequence,
                at_ns: *at_ns,
                bytes: text.clone().into_bytes(),
            }));
        }
        let (exchanges, pieces) = (self.filed(&exchanges), self.filed(&pieces));
        let records = derive_records(&tokenizer(), &exchanges, &pieces).expect("whole streams");
        let (requests, tokens): (_, Vec<_>) =
            records.into_iter().map(|record| (record.request, record.tokens)).unzip();
        (requests, tokens.concat())
    }

    /// Rows as they come back from their file.
    fn filed<T: Table>(&self, rows: &[T]) -> Vec<T> {
        let bytes =
            artifact::encode(rows, &TableContext { round_id: &self.round.round_id }).expect("encodes");
        artifact::decode(&bytes).expect("decodes")
    }

    /// Every table of the round by the name of its file.
    fn outcome(&self) -> BTreeMap<String, String> {
        let round_id = self.round.round_id.as_str();
        let admission = admit(round_id, &self.round.commitments);
        let submissions = admission.submissions.iter();
        let submissions: Vec<_> =
            submissions.map(|submission| SubmissionRow::new(round_id, submission)).collect();
        let (requests, mut tokens) = self.records();
        let score = |(logprob, rank, top_logprob): &(f64, u32, f64)| TokenScore {
            logprob: *logprob,
            rank: *rank,
            top_logprob: *top_logprob,
        };
        let scores: BTreeMap<Question, AnswerScores> = self
            .scores
            .iter()
            .map(|row| {
                let scores = row.scores.iter().map(score).collect();
                ((row.prompt_index, row.token_ids.clone()), AnswerScores::Scored(scores))
            })
            .collect();
        fill_scores(&mut tokens, &scores);
        let evidence = RoundEvidence {
            round_id,
            commitments: &admission.commitments,
            submissions: &submissions,
            reads: &self.reads,
            requests: &requests,
            tokens: &tokens,
        };
        let outcome = evaluate(&self.round.policies, &evidence);
        let mut tables = BTreeMap::new();
        dump(&mut tables, admission.commitments.clone());
        dump(&mut tables, submissions.clone());
        dump(&mut tables, requests.clone());
        dump(&mut tables, tokens.clone());
        dump(&mut tables, outcome.verdicts);
        dump(&mut tables, outcome.decisions);
        dump(&mut tables, outcome.head_to_head);
        dump(&mut tables, outcome.leaderboard);
        dump(&mut tables, outcome.weights);
        tables
    }
}

fn dump<T: Table + Serialize>(tables: &mut BTreeMap<String, String>, mut rows: Vec<T>) {
    T::sort(&mut rows);
    tables.insert(format!("{}.jsonl", T::NAME), jsonl(&rows));
}

fn jsonl<T: Serialize>(rows: &[T]) -> String {
    rows.iter().map(|row| serde_json::to_string(row).expect("JSON") + "\n").collect()
}

fn lines<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    let text = std::fs::read_to_string(path).expect("a file of the case");
    let row = |(number, line): (usize, &str)| {
        serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("{}:{}: {error}", path.display(), number + 1))
    };
    text.lines().enumerate().map(row).collect()
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("creates");
    std::fs::write(path, text).expect("writes");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The tokenizer of the reference model, which the cases' texts are segmented by.
fn tokenizer() -> PinnedTokenizer {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/reference/tokenizer.json");
    PinnedTokenizer::from_bytes(&std::fs::read(path).expect("tokenizer.json")).expect("a tokenizer")
}

fn folders() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root()).expect("tests/golden");
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    folders.sort();
    folders
}

/// How a table differs from what was accepted, in one line; none if it does not.
fn difference(path: &Path, found: &str) -> Option<String> {
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    if expected == found {
        return None;
    }
    let line = expected.lines().zip(found.lines()).take_while(|(left, right)| left == right).count();
    let at = |text: &str| text.lines().nth(line).unwrap_or("(no line)").to_owned();
    Some(format!(
        "{}:{}:\n  accepted {}\n  now      {}",
        path.strip_prefix(root()).unwrap_or(path).display(),
        line + 1,
        at(&expected),
        at(found)
    ))
}

#[test]
fn golden_rounds_come_to_what_was_accepted() {
    let mode = std::env::var("CACHEON_GOLDEN").unwrap_or_default();
    assert!(["", "accept", "generate"].contains(&mode.as_str()), "CACHEON_GOLDEN is `accept` or `generate`");
    if mode == "generate" {
        for (name, case) in generate::cases() {
            case.write(&root().join(name));
        }
    }
    let mut differences = Vec::new();
    for folder in folders() {
        for (name, text) in Case::read(&folder).outcome() {
            let path = folder.join("out").join(name);
            if mode.is_empty() {
                differences.extend(difference(&path, &text));
            } else {
                write(&path, &text);
            }
        }
    }
    assert!(
        differences.is_empty(),
        "{}\nif this is meant, accept it and read the diff:\n  CACHEON_GOLDEN=accept cargo test --test integration golden",
        differences.join("\n")
    );
}

#[test]
fn golden_cases_are_small_and_say_what_they_are_about() {
    let folders = folders();
    assert!(folders.len() >= 6, "{folders:?}");
    for folder in folders {
        assert!(!Case::read(&folder).round.about.is_empty());
        let size = |part: &str| -> u64 {
            let entries = std::fs::read_dir(folder.join(part)).expect("a folder of the case");
            entries.map(|entry| entry.expect("an entry").metadata().expect("metadata").len()).sum()
        };
        let bytes = size("in") + size("out");
        assert!(bytes < 250_000, "{}: {bytes} bytes", folder.display());
    }
}
