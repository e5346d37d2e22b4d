//! A round is what it says, wherever it lies; and whatever is changed in it is found, though it was sealed anew.

use std::path::{Path, PathBuf};
use std::process::Command;

use cacheon::adapters::store::RoundDirectory;
use cacheon::artifact::journal::{encode_line, replay};
use cacheon::artifact::{JournalEvent, RoundFile, Table, TableContext, decode, digest, encode};
use cacheon::model::{
    ExchangeRow, LeaderboardRow, ReadRow, RequestRow, RoundId, StreamRow, TokenRow, VerdictRow, WeightRow,
};
use serde_json::Value;

use super::round::{Round, root};

/// Copies of one round, each in a data directory of its own.
struct Copies {
    id: RoundId,
    original: PathBuf,
    dir: tempfile::TempDir,
}

impl Copies {
    fn new(round: &Round, id: &str) -> Self {
        let original = round.data().join(format!("rounds/round={id}"));
        Self { id: id.parse().expect("id"), original, dir: tempfile::tempdir().expect("temp dir") }
    }

    /// A copy that was changed.
    fn changed(&self, change: impl FnOnce(&Path)) {
        let data = self.dir.path().join("data");
        let _ = std::fs::remove_dir_all(&data);
        std::fs::create_dir_all(data.join("rounds")).expect("rounds");
        let copied = Command::new("cp").arg("-r").arg(&self.original).arg(data.join("rounds")).status();
        assert!(copied.expect("cp").success());
        change(&data.join(format!("rounds/round={}", self.id)));
    }

    /// Seals the copy as it is now.
    fn seal(&self) {
        let directory = RoundDirectory::open(&self.dir.path().join("data"), &self.id).expect("the copy");
        std::fs::remove_file(directory.path().join("SEAL")).expect("SEAL");
        directory.seal().expect("seals");
    }

    /// The report on the copy, from a directory that has nothing of the project.
    fn audit(&self) -> (Option<i32>, Value) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cacheon"));
        let output = command.current_dir(self.dir.path()).args(["audit", "latest", "--json"]).output();
        let output = output.expect("starts");
        let report = serde_json::from_slice(&output.stdout);
        (
            output.status.code(),
            report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))),
        )
    }

    /// Changes a copy, seals it anew, and finds the first difference.
    fn found(&self, change: impl FnOnce(&Path)) -> Value {
        self.changed(change);
        self.seal();
        let (code, report) = self.audit();
        assert_eq!(code, Some(6), "{report:#}");
        assert_eq!(report["differences"].as_array().map(Vec::len), Some(1), "{report:#}");
        report["differences"][0].clone()
    }

    /// Changes rows of a table's file.
    fn rows<T: Table>(&self, path: &str, change: impl FnOnce(&mut Vec<T>)) -> Value {
        self.found(|round| {
            let path = round.join(path);
            let mut rows: Vec<T> = decode(&std::fs::read(&path).expect("reads")).expect("decodes");
            change(&mut rows);
            let bytes = encode(&rows, &TableContext { round_id: &self.id }).expect("encodes");
            std::fs::write(&path, bytes).expect("writes");
        })
    }

    /// Changes events of the journal.
    fn journal(&self, change: impl FnOnce(&mut Vec<JournalEvent>)) -> Value {
        self.found(|round| {
            let path = round.join("journal.jsonl");
            let lines = replay::<JournalEvent>(&std::fs::read(&path).expect("reads")).expect("replays").lines;
            let mut events: Vec<JournalEvent> = lines.iter().map(|line| line.event.clone()).collect();
            change(&mut events);
            let line = |(line, event): (_, JournalEvent)| {
                encode_line(&cacheon::artifact::JournalLine { event, ..line }).expect("encodes")
            };
            std::fs::write(&path, lines.into_iter().zip(events).flat_map(line).collect::<Vec<u8>>())
                .expect("writes");
        })
    }
}

/// The attempt that measured the first read of an arm.
fn measured(copies: &Copies, key: &str) -> String {
    let legs = std::fs::read_dir(copies.original.join("jobs/measure")).expect("legs");
    let mut names: Vec<String> =
        legs.map(|leg| leg.expect("leg").file_name().into_string().expect("a name")).collect();
    names.sort();
    let has =
        |name: &String| copies.original.join(format!("jobs/measure/{name}/attempt-1/read.parquet")).is_file();
    let found = names.into_iter().find(|name| name.contains(key) && has(name));
    format!("jobs/measure/{}/attempt-1", found.expect("a measured leg"))
}

fn is_cell(found: &Value, path: &str, table: &str, column: &str) {
    assert_eq!(found["path"], path, "{found:#}");
    assert_eq!((&found["table"], &found["column"]), (&Value::from(table), &Value::from(column)), "{found:#}");
    assert_ne!(found["recorded"], found["recomputed"], "{found:#}");
    assert!(found["row"].is_u64());
}

/// Checks a demo round and what becomes of copies of it.
pub(super) fn holds(round: &Round, id: &str) {
    let copies = Copies::new(round, id);
    copies.changed(|_| {});
    let (code, report) = copies.audit();
    assert_eq!((code, &report["agrees"]), (Some(0), &Value::from(true)), "{report:#}");
    assert!(report["attempts"].as_u64().is_some_and(|count| count > 20), "{report:#}");

    // One bit, anywhere, is found by the seal.
    for path in ["journal.jsonl", "round.json", "SEAL", "results/tokens.parquet", "summary.md"] {
        copies.changed(|round| {
            let path = round.join(path);
            let mut bytes = std::fs::read(&path).expect("reads");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).expect("writes");
        });
        let output = Command::new(env!("CARGO_BIN_EXE_cacheon"))
            .current_dir(copies.dir.path())
            .args(["audit", "latest"])
            .output()
            .expect("starts");
        assert_eq!(output.status.code(), Some(6), "{path}: {}", String::from_utf8_lossy(&output.stderr));
        // Of a seal that was changed, the file is named that it no longer fits.
        assert!(path == "SEAL" || String::from_utf8_lossy(&output.stdout).contains(path), "{path}");
    }

    // What was changed before it was sealed is found by doing it again.
    let board =
        copies.rows("results/leaderboard.parquet", |rows: &mut Vec<LeaderboardRow>| rows[2].score = 0.9);
    is_cell(&board, "results/leaderboard.parquet", "leaderboard", "score");
    let weights = copies.rows("results/weights.parquet", |rows: &mut Vec<WeightRow>| rows[0].weight -= 1);
    is_cell(&weights, "results/weights.parquet", "weights", "weight");
    let read = measured(&copies, "baseline");
    let path = format!("{read}/requests.parquet");
    let slower =
        copies.rows(&path, |rows: &mut Vec<RequestRow>| rows[0].e2e_ns = rows[0].e2e_ns.map(|ns| ns * 2));
    is_cell(&slower, &path, "requests", "e2e_ns");
    let path = format!("{read}/answers.parquet");
    let token = copies.rows(&path, |rows: &mut Vec<TokenRow>| rows[3].token_id += 1);
    is_cell(&token, &path, "tokens", "token_id");
    let path = format!("{read}/exchanges.parquet");
    let prompt = copies.rows(&path, |rows: &mut Vec<ExchangeRow>| rows[0].prompt_sha256 = "0".repeat(64));
    is_cell(&prompt, &path, "exchanges", "prompt_sha256");
    let path = format!("{read}/read.parquet");
    let image =
        copies.rows(&path, |rows: &mut Vec<ReadRow>| rows[0].digest = format!("sha256:{}", "0".repeat(64)));
    is_cell(&image, &path, "reads", "digest");
    let path = format!("{read}/streams.parquet");
    let cut = copies.rows(&path, |rows: &mut Vec<StreamRow>| drop(rows.pop()));
    assert!(cut.to_string().contains("is missing"), "{cut:#}");
    let path = "jobs/verify/_/attempt-1/verdicts.parquet";
    let acquitted = copies.rows(path, |rows: &mut Vec<VerdictRow>| {
        let failed = rows.iter_mut().find(|row| row.outcome == cacheon::model::CheckOutcome::Fail);
        failed.expect("a failed check").outcome = cacheon::model::CheckOutcome::Pass;
    });
    is_cell(&acquitted, path, "verdicts", "outcome");

    let planned = copies.journal(|events| {
        let legs = events.iter_mut().find_map(|event| match event {
            JournalEvent::JobPlanned { legs, .. } if legs.len() > 1 => Some(legs),
            _ => None,
        });
        drop(legs.expect("the reads").pop());
    });
    assert!(planned["line"].is_u64() && planned["recorded"] != planned["recomputed"], "{planned:#}");
    let policy = copies.found(|round| {
        let path = round.join("round.json");
        let mut file = RoundFile::decode(&std::fs::read(&path).expect("reads")).expect("decodes");
        file.pipeline_text = file.pipeline_text.replace("margin: 0.1", "margin: 0.2");
        file.pipeline_digest = digest::sha256(file.pipeline_text.as_bytes());
        std::fs::write(&path, file.encode().expect("encodes")).expect("writes");
    });
    assert_eq!((&policy["path"], &policy["line"]), (&"journal.jsonl".into(), &0.into()), "{policy:#}");
    let added =
        copies.found(|round| std::fs::write(round.join("results/extra.parquet"), "x").expect("writes"));
    assert_eq!(added["path"], "results/extra.parquet", "{added:#}");
    // A check that nobody made is missing, and holds the round.
    copies.changed(|round| {
        std::fs::remove_file(round.join("SEAL")).expect("SEAL");
        let path = round.join(path);
        let mut rows: Vec<VerdictRow> = decode(&std::fs::read(&path).expect("reads")).expect("decodes");
        let last = rows.iter().rposition(|row| row.hotkey.is_some()).expect("a submission's verdict");
        let dropped = rows.remove(last);
        std::fs::write(&path, encode(&rows, &TableContext { round_id: &copies.id }).expect("encodes"))
            .expect("writes");
        assert!(!dropped.read_key.is_empty());
    });
    let held = Command::new(env!("CARGO_BIN_EXE_cacheon"))
        .current_dir(copies.dir.path())
        .args(["rerun", "latest", "--from", "rank"])
        .output()
        .expect("starts");
    let said = String::from_utf8_lossy(&held.stderr);
    assert_eq!(held.status.code(), Some(4), "{said}");
    assert!(said.contains("1 of what was planned are missing, first checks of"), "{said}");
    let unsealed = round.cacheon(&["audit", "none"]).current_dir(root()).output().expect("starts");
    assert_eq!(unsealed.status.code(), Some(2));
}
