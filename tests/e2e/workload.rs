//! Prompts from the operator's own files, JSON lines and Parquet, beside the grammar's: a whole round that is audited,
//! done again and carried elsewhere after the files are gone.

use std::fmt::Write as _;
use std::process::Command;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use cacheon::artifact::decode;
use cacheon::artifact::digest::sha256;
use cacheon::model::ExchangeRow;
use parquet::arrow::ArrowWriter;

use super::round::{Round, root};

/// Forty lines, every second one long.
fn lines() -> Vec<u8> {
    let mut text = String::new();
    for row in 0..40 {
        let more =
            if row % 2 == 0 { "" } else { " Say also who sold the bread and the honey near the old bridge." };
        writeln!(text, "{{\"id\": {row}, \"prompt\": \"Tell me about lamp {row} in the market.{more}\"}}")
            .expect("text");
    }
    text.into_bytes()
}

fn table() -> Vec<u8> {
    let texts: Vec<String> = (0..30).map(|row| format!("Who lives in house {row} by the river?")).collect();
    let column: ArrayRef = Arc::new(StringArray::from(texts));
    let batch = RecordBatch::try_from_iter([("question", column)]).expect("a batch");
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("writes");
    writer.close().expect("closes");
    bytes
}

/// The demo with two submissions, one launch each, and prompts of two files.
fn pipeline(round: &Round) -> std::path::PathBuf {
    let dir = round.dir.path();
    std::fs::write(dir.join("own.jsonl"), lines()).expect("a corpus");
    std::fs::write(dir.join("own.parquet"), table()).expect("a corpus");
    let corpora = [
        ("own.jsonl", lines(), "prompt, strata: [60, 200], weight: 2"),
        ("own.parquet", table(), "question"),
    ];
    let mut workload = "          workload:\n            - source: grammar\n".to_owned();
    for (name, bytes, more) in corpora {
        let (path, digest) = (dir.join(name), sha256(&bytes));
        let path = path.display();
        writeln!(
            workload,
            "            - {{ source: corpus, path: '{path}', digest: '{digest}', column: {more} }}"
        )
        .expect("text");
    }
    let commitments = std::fs::read_to_string(root().join("data/demo/commitments.yml")).expect("commitments");
    let (head, rest) = commitments.split_once("  - {").expect("entries");
    let two: String =
        rest.split("  - {").skip(1).take(2).fold(String::new(), |text, entry| text + "  - {" + entry);
    std::fs::write(dir.join("commitments.yml"), format!("{head}{two}")).expect("commitments");
    let demo = std::fs::read_to_string(root().join("pipelines/demo.yml")).expect("the demo");
    let text = demo
        .replace("rounds: 2", "rounds: 1")
        .replace("          requests: 2\n", &format!("          requests: 2\n{workload}"))
        .replace("          prompts: ${{ inputs.prompts }}\n", &format!("          prompts: 8\n{workload}"));
    assert_eq!(text.matches("source: corpus").count(), 4);
    let path = dir.join("workload.yml");
    std::fs::write(&path, text).expect("pipeline");
    path
}

#[test]
fn a_round_of_own_prompts_needs_their_files_no_more() {
    let round = Round::new();
    let pipeline = pipeline(&round);
    let commitments = format!("commitments={}", round.dir.path().join("commitments.yml").display());
    let output = round
        .cacheon(&["run", "--round", "r", "-i", &commitments])
        .arg("--runners")
        .arg(round.dir.path().join("runners"))
        .arg(&pipeline)
        .output()
        .expect("starts");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let board = round.rows("SELECT standing, detail FROM leaderboard");
    assert_eq!(board.len(), 2);
    for row in &board {
        let standing = row["standing"].as_str().unwrap_or_default();
        assert!(["scored", "not-faster", "held"].contains(&standing), "{row}");
    }
    assert!(round.rows("SELECT * FROM verdicts WHERE outcome <> 'pass'").is_empty());

    // Both files are kept, and no two brackets asked the same.
    let directory = round.data().join("rounds/round=r");
    assert_eq!(std::fs::read_dir(directory.join("corpora")).expect("lists").count(), 2);
    let mut asked: Vec<(u32, String)> = Vec::new();
    for leg in std::fs::read_dir(directory.join("jobs/measure")).expect("legs") {
        let attempt = leg.expect("a leg").path().join("attempt-1");
        assert!(attempt.join("workload.json").is_file());
        let rows: Vec<ExchangeRow> =
            decode(&std::fs::read(attempt.join("exchanges.parquet")).expect("reads")).expect("decodes");
        asked.extend(rows.into_iter().map(|row| (row.prompt_index, row.prompt_sha256)));
    }
    asked.sort();
    asked.dedup();
    let mut texts: Vec<&str> = asked.iter().map(|(_, text)| text.as_str()).collect();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!((asked.len(), texts.len()), (16, 16));

    std::fs::remove_file(round.dir.path().join("own.jsonl")).expect("removes");
    std::fs::remove_file(round.dir.path().join("own.parquet")).expect("removes");
    let succeeds = |args: &[&str]| {
        let output = round.output(args);
        let said = [&output.stdout, &output.stderr]
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .concat();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {said}");
    };
    succeeds(&["audit", "r"]);
    // The scorer is asked about the same prompts, drawn again.
    succeeds(&["rerun", "r", "--from", "verify", "--round", "again"]);
    succeeds(&["audit", "again"]);
    let carried = round.dir.path().join("r.tar.zst").display().to_string();
    succeeds(&["export", "r", &carried]);
    let elsewhere = round.dir.path().join("elsewhere");
    for args in [["import", carried.as_str()], ["audit", "r"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cacheon"));
        let output = command.arg("--data").arg(&elsewhere).args(args).output().expect("starts");
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    round.wait_until_empty();
}
