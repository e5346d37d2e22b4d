//! The demo round ends as its pipeline says, and says the same again.

use std::collections::BTreeMap;

use serde_json::Value;

use super::audit;
use super::round::Round;

const TABLES: [&str; 11] = [
    "commitments",
    "submissions",
    "reads",
    "requests",
    "tokens",
    "verdicts",
    "decisions",
    "leaderboard",
    "weights",
    "step_attempts",
    "accounts",
];

fn text(row: &Value, column: &str) -> String {
    row[column].as_str().unwrap_or_default().to_owned()
}

/// What must not depend on timing: the prompts, and what each check and each miner came to.
fn verdicts(round: &Round, id: &str) -> (Vec<Value>, Vec<Value>, Vec<Value>) {
    (
        round.rows(&format!("SELECT DISTINCT prompt_index, prompt_sha256 FROM requests WHERE round_id = '{id}' ORDER BY prompt_index")),
        round.rows(&format!("SELECT DISTINCT hotkey, \"check\", outcome FROM verdicts WHERE round_id = '{id}' ORDER BY hotkey, \"check\"")),
        round.rows(&format!("SELECT hotkey, image, standing FROM leaderboard WHERE round_id = '{id}' ORDER BY hotkey")),
    )
}

/// Runs the demo until a round decides that both honest ones are faster, and returns that round. On a noisy machine
/// a round may decide nothing, as it should: then it is run again, at most three times in all.
fn decided(round: &Round, name: &str) -> String {
    for attempt in 1..=3 {
        let id = format!("{name}-{attempt}");
        let output = round.run_demo(&["--seed", "1", "--round", &id]).output().expect("starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(shown.contains("embedded/swift"), "{shown}");
        let faster = format!("SELECT image FROM leaderboard WHERE round_id = '{id}' AND standing = 'scored'");
        if round.rows(&faster).len() == 2 {
            return id;
        }
    }
    panic!("three rounds decided nothing: the machine is too noisy to tell twice as fast from as fast")
}

/// Ranks a round again, from its files alone: every table is the same but for the round's name.
fn ranked_again(round: &Round, id: &str) {
    let output = round.output(&["rerun", id, "--from", "rank", "--round", "again"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    for table in TABLES.iter().filter(|table| **table != "step_attempts") {
        let rows = |id: &str| format!("SELECT * EXCLUDE (round_id) FROM {table} WHERE round_id = '{id}'");
        let (parent, child) = (rows(id), rows("again"));
        let differing = format!(
            "SELECT COUNT(*) AS n FROM (({parent}) EXCEPT ({child}) UNION ({child}) EXCEPT ({parent})) AS d"
        );
        assert_eq!(round.rows(&differing)[0]["n"].as_u64(), Some(0), "{table}");
    }
    let audited = round.output(&["audit", "again"]);
    assert_eq!(audited.status.code(), Some(0), "{}", String::from_utf8_lossy(&audited.stdout));
    let ran = round.rows("SELECT DISTINCT job FROM step_attempts WHERE round_id = 'again' ORDER BY job");
    assert_eq!(ran.iter().map(|row| text(row, "job")).collect::<Vec<_>>(), ["publish", "rank"]);
}

#[test]
fn the_demo_round_ends_as_described_and_again_the_same() {
    let round = Round::new();
    let (first, second) = (decided(&round, "first"), decided(&round, "second"));
    round.wait_until_empty();

    let leaderboard =
        round.rows(&format!("SELECT * FROM leaderboard WHERE round_id = '{first}' ORDER BY rank"));
    let by_image: BTreeMap<String, &Value> =
        leaderboard.iter().map(|row| (text(row, "image"), row)).collect();
    let check = |image: &str, standing: &str, reason: &str| {
        let row = by_image[&format!("embedded/{image}")];
        assert_eq!(text(row, "standing"), standing, "{image}: {row:#}");
        assert!(text(row, "reason").contains(reason), "{image}: {row:#}");
        assert!(!text(row, "detail").is_empty(), "{image} has a reason in words");
    };
    // Both are faster than the baseline by far; which of the two is ahead is the machine's to say.
    let mut winners: Vec<String> = leaderboard[..2].iter().map(|row| text(row, "image")).collect();
    winners.sort();
    assert_eq!(winners, ["embedded/brisk", "embedded/swift"], "the honest ones win: {leaderboard:#?}");
    assert_eq!(leaderboard[0]["share"].as_f64(), Some(1.0), "winner takes all");
    check("swift", "scored", "");
    check("brisk", "scored", "");
    check("same", "not-faster", "");
    check("swift-copy", "ignored", "duplicate-digest");
    check("squeezed", "disqualified", "committed-logprobs");
    check("impostor", "disqualified", "");
    check("stillborn", "failed", "server-exited-before-ready");
    check("sleeper", "failed", "not-ready-in-time");

    let weights = round.rows(&format!("SELECT hotkey, weight FROM weights WHERE round_id = '{first}'"));
    assert_eq!(weights.len(), 1);
    assert_eq!(weights[0]["weight"].as_u64(), Some(65_535));
    for table in TABLES {
        let rows = round.rows(&format!("SELECT COUNT(*) AS n FROM {table} WHERE round_id = '{first}'"));
        assert!(rows[0]["n"].as_u64().is_some_and(|count| count > 0), "{table} has rows");
    }
    let directory = round.data().join(format!("rounds/round={first}"));
    for file in ["round.json", "journal.jsonl", "summary.md", "SEAL"] {
        assert!(directory.join(file).metadata().is_ok_and(|file| file.len() > 0), "{file}");
    }
    ranked_again(&round, &first);
    audit::holds(&round, &first);
    let (first, second) = (verdicts(&round, &first), verdicts(&round, &second));
    // Who is measured again is the machine's to say, so one round may have brackets that the other has not.
    let shared = |own: &[Value], other: &[Value]| {
        let is_shared = |row: &&Value| other.iter().any(|there| there["prompt_index"] == row["prompt_index"]);
        own.iter().filter(is_shared).cloned().collect::<Vec<_>>()
    };
    let (own, other) = (shared(&first.0, &second.0), shared(&second.0, &first.0));
    assert!(own.len() >= 7 * 16, "{} prompts in both", own.len());
    assert_eq!(own, other, "one seed, the same prompts");
    assert_eq!(first.1, second.1, "the same verdicts");
    assert_eq!(first.2, second.2, "the same standings");
}

#[test]
fn bad_commitments_are_recorded_and_a_round_without_submissions_publishes_that() {
    let round = Round::new();
    let file = round.dir.path().join("commitments.yml");
    let hotkey = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
    let yaml = format!(
        "block: 1\ncommitments:\n  - {{ hotkey: {hotkey}, block: 5, image: a/b, digest: 'sha256:zz' }}\n  - {{ hotkey: {hotkey}, block: 6, payload: '{{bad json' }}\n  - junk\n"
    );
    std::fs::write(&file, yaml).expect("write");
    let input = format!("commitments={}", file.display());
    let output = round.run_demo(&["--round", "bad", "-i", &input]).output().expect("starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "a round without submissions is a round: {said}");
    let found = round.rows("SELECT ignored_code FROM commitments ORDER BY position");
    let codes: Vec<String> = found.iter().map(|row| text(row, "ignored_code")).collect();
    assert_eq!(codes, ["bad-field", "bad-payload", "bad-payload"]);
    let standings = round.rows("SELECT DISTINCT standing FROM leaderboard");
    assert_eq!(standings.iter().map(|row| text(row, "standing")).collect::<Vec<_>>(), ["ignored"]);
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn commitments_that_are_none_are_a_located_error() {
    let check = |name: &str, bytes: &[u8], expected: &str| {
        let round = Round::new();
        let file = round.dir.path().join(name);
        std::fs::write(&file, bytes).expect("write");
        let input = format!("commitments={}", file.display());
        let output = round.run_demo(&["-i", &input]).output().expect("starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{name}: {said}");
        assert!(said.contains(expected), "{name}: {said}");
        assert!(!said.contains("panicked"), "{name}: {said}");
        assert!(
            !round
                .data()
                .join("rounds")
                .read_dir()
                .expect("rounds")
                .any(|entry| { entry.expect("entry").path().join("results").exists() })
        );
    };
    check("a.json", b"{\"block\": 1, \"commitments\": [", "a.json:1:");
    check("a.yml", b"block: 1\ncommitments: [", "a.yml");
    check("b.yml", &vec![b'x'; 10_000_000], "at most");
    check("c.json", &[0xff; 100], "not UTF-8");
    check("d.yml", b"block: 1\n", "`commitments` is missing");
}
