//! No stranger stops a round: answers that are too long, answers that the scorer refuses, and a server that says nothing
//! cost their own submission, and a scorer that dies goes on where it was.

use std::fmt::Write as _;
use std::path::Path;

use cacheon::artifact::digest::sha256;

use super::round::{Round, root};

const SWIFT: &str = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty";
const LONG: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
const HIDDEN: &str = "5FLSigC9HGRKVhB9FiEo4Y3koPsNmBmLJbpXg2mp1hXcS59Y";

const MUTE: &str = "5DAAnrj7VHTznn2AWBemMuyBwZWs6FNFjdyVXUeYum3PTXFy";

/// Writes an image of the reference server, and gives its digest.
fn image(folder: &Path, name: &str, args: &str) -> String {
    let args: Vec<&str> = args.split(' ').collect();
    let command = ["cacheon", "reference", "serve"];
    let text = serde_json::json!({ "description": name, "command": command, "args": args }).to_string();
    std::fs::write(folder.join(format!("{name}.json")), &text).expect("image");
    sha256(text.as_bytes()).to_string()
}

/// The demo with other submissions, and with a scorer that takes no more than 270 tokens, which is more than any prompt and
/// answer here have, and dies at the twentieth question of each of its lives.
fn pipeline(round: &Round) -> std::path::PathBuf {
    let dir = round.dir.path();
    let images = dir.join("images/embedded");
    std::fs::create_dir_all(&images).expect("images");
    let baseline = image(&images, "baseline", "--prefill token");
    let scorer = image(
        &images,
        "scorer",
        "--prefill block --max-model-len 270 --cheat crash-mid-scoring --trigger-stream 20",
    );
    let mut commitments = "block: test\ncommitments:\n".to_owned();
    let submissions = [
        (LONG, "long", "--prefill block --cheat long-text"),
        (HIDDEN, "hidden", "--prefill block --cheat hidden-text"),
        (MUTE, "mute", "--prefill block --cheat never-answers --trigger-stream 3"),
        (SWIFT, "swift", "--prefill block --speculate 5 --history 2048"),
    ];
    for (uid, (hotkey, name, args)) in (1..).zip(submissions) {
        let digest = image(&images, name, args);
        writeln!(
            commitments,
            "  - {{ hotkey: {hotkey}, uid: {uid}, block: {uid}, image: embedded/{name}, digest: \"{digest}\" }}"
        )
        .expect("text");
    }
    std::fs::write(dir.join("commitments.yml"), commitments).expect("commitments");
    let runner = std::fs::read_to_string(dir.join("runners/embedded.yml")).expect("runner");
    let runner = runner.replace("data/demo/images", &dir.join("images").display().to_string());
    std::fs::write(dir.join("runners/embedded.yml"), runner).expect("runner");

    let demo = std::fs::read_to_string(root().join("pipelines/demo.yml")).expect("the demo");
    let mut after = "";
    let lines: Vec<String> = demo
        .lines()
        .map(|line| {
            let line = match line.split_once("digest: sha256:") {
                Some((indent, _)) if after.contains("embedded/scorer") => format!("{indent}digest: {scorer}"),
                Some((indent, _)) => format!("{indent}digest: {baseline}"),
                None => line.to_owned(),
            };
            after = if line.contains("embedded/scorer") { "embedded/scorer" } else { "" };
            line
        })
        .collect();
    let text = lines.join("\n");
    // One launch each, and little patience: the mute one uses up all of it.
    let text = text
        .replace("rounds: 2", "rounds: 1")
        .replace("deadline: 20s", "deadline: 4s")
        .replace("request-deadline: 10s", "request-deadline: 5s");
    let path = dir.join("strangers.yml");
    std::fs::write(&path, text).expect("pipeline");
    path
}

#[test]
fn a_round_ends_whatever_strangers_send() {
    let round = Round::new();
    let pipeline = pipeline(&round);
    let commitments = format!("commitments={}", round.dir.path().join("commitments.yml").display());
    let output = round
        .cacheon(&["run", "--round", "r", "--seed", "1", "-i", "prompts=8", "-i", &commitments])
        .arg("--runners")
        .arg(round.dir.path().join("runners"))
        .arg(&pipeline)
        .output()
        .expect("starts");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));

    let reason = |hotkey: &str| {
        let rows = round
            .rows(&format!("SELECT standing, reason, detail FROM leaderboard WHERE hotkey = '{hotkey}'"));
        assert_eq!(rows.len(), 1, "{hotkey}");
        ["standing", "reason", "detail"].map(|column| rows[0][column].as_str().unwrap_or_default().to_owned())
    };
    let [standing, code, detail] = reason(LONG);
    assert_eq!((standing.as_str(), code.as_str()), ("disqualified", "failed-answered"), "{detail}");
    assert!(detail.contains("protocol_error"), "{detail}");
    let [standing, code, detail] = reason(HIDDEN);
    assert_eq!((standing.as_str(), code.as_str()), ("disqualified", "failed-answered"), "{detail}");
    assert!(detail.contains("the scorer takes 8 of 8 answers for none of the model's"), "{detail}");
    let [standing, code, detail] = reason(MUTE);
    assert_eq!((standing.as_str(), code.as_str()), ("failed", "no-answer"), "{detail}");
    assert!(detail.contains("no byte came from the server to 8 of 8 requests"), "{detail}");
    let [standing, _, detail] = reason(SWIFT);
    assert!(["scored", "not-faster", "held"].contains(&standing.as_str()), "{standing}: {detail}");
    let failed = format!("SELECT * FROM verdicts WHERE hotkey = '{SWIFT}' AND outcome <> 'pass'");
    assert!(round.rows(&failed).is_empty());

    // The scorer died once, and was asked only for the rest.
    let verify =
        round.rows("SELECT attempt, outcome FROM step_attempts WHERE job = 'verify' AND step = 'score'");
    let outcomes: Vec<&str> = verify.iter().filter_map(|row| row["outcome"].as_str()).collect();
    assert_eq!(outcomes, ["failure", "success"]);
    let audited = round.output(&["audit", "r"]);
    assert_eq!(audited.status.code(), Some(0), "{}", String::from_utf8_lossy(&audited.stdout));
    round.wait_until_empty();
}
