//! No stranger stops a round: answers that are too long, answers that the scorer refuses, and a server that says nothing
//! cost their own submission, and a scorer that dies is launched anew and goes on where it was.

use super::arena::Arena;

/// The attempts of the first look's scoring, and how often the scorer was launched anew in them.
fn scoring(arena: &Arena) -> (Vec<String>, usize) {
    let sql = "SELECT outcome FROM step_attempts WHERE job = 'verify' AND step = 'score' ORDER BY attempt";
    let outcomes = arena.round.rows(sql);
    let outcomes = outcomes.iter().filter_map(|row| row["outcome"].as_str().map(str::to_owned)).collect();
    let journal = std::fs::read_to_string(arena.round.data().join("rounds/round=r/journal.jsonl"));
    let journal = journal.expect("a journal");
    let anew = journal.lines().filter(|line| {
        line.contains("\"event\":\"server-launched-anew\"") && line.contains("\"job\":\"verify\"")
    });
    (outcomes, anew.count())
}

/// The scorer dies of whatever is longer than 270 tokens, each time, which is more than any prompt and honest answer here
/// have; three hotkeys give nothing else.
#[test]
fn answers_that_kill_the_scorer_every_time_are_refused_and_the_round_goes_on() {
    let mut arena = Arena::with_scorer("--prefill block --max-model-len 270 --cheat crash-beyond-length");
    let killers = ["killer", "second-killer", "third-killer"];
    arena.serve(killers[0], "--prefill block --cheat hidden-text");
    arena.serve("swift", "--prefill block --speculate 5 --history 2048");
    arena.serve(killers[1], "--prefill token --cheat hidden-text");
    arena.serve(killers[2], "--prefill block --history 64 --cheat hidden-text");
    let output = arena.run(8, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    for killer in killers {
        arena.check(killer, "disqualified", "failed-answered");
    }
    arena.is_judged_by_speed("swift");
    // In one attempt: each of them costs two launches at the most.
    let (outcomes, anew) = scoring(&arena);
    assert_eq!(outcomes, ["success"]);
    assert!((2..=2 * killers.len()).contains(&anew), "{anew} launches");
    let failed = "SELECT * FROM verdicts WHERE hotkey IS NULL AND outcome <> 'pass'";
    assert!(arena.round.rows(failed).is_empty());
    let audited = arena.round.output(&["audit", "r"]);
    assert_eq!(audited.status.code(), Some(0), "{}", String::from_utf8_lossy(&audited.stdout));
    arena.round.wait_until_empty();
}

/// The scorer refuses what has more than 270 tokens, and dies at the twentieth question of each of its lives.
#[test]
fn a_round_ends_whatever_strangers_send() {
    let mut arena = Arena::with_scorer(
        "--prefill block --max-model-len 270 --cheat crash-mid-scoring --trigger-stream 20",
    );
    arena.serve("long", "--prefill block --cheat long-text");
    arena.serve("hidden", "--prefill block --cheat hidden-text");
    arena.serve("mute", "--prefill block --cheat never-answers --trigger-stream 4");
    arena.serve("swift", "--prefill block --speculate 5 --history 2048");
    // Little patience: the mute one uses up all of it.
    let output =
        arena.run(8, &[("deadline: 20s", "deadline: 4s"), ("request-deadline: 10s", "request-deadline: 5s")]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));

    arena.check("long", "disqualified", "failed-answered");
    let detail = arena.verdict("long").detail;
    assert!(detail.contains("protocol_error"), "{detail}");
    arena.check("hidden", "disqualified", "failed-answered");
    let detail = arena.verdict("hidden").detail;
    assert!(detail.contains("the scorer takes 8 of 8 answers for none of the model's"), "{detail}");
    arena.check("mute", "failed", "no-answer");
    let detail = arena.verdict("mute").detail;
    assert!(detail.contains("no byte came from the server to 8 of 8 requests"), "{detail}");
    arena.is_judged_by_speed("swift");

    // The scorer died, was launched anew, and was asked for the rest: nobody but `hidden` was refused anything.
    let (outcomes, anew) = scoring(&arena);
    assert_eq!(outcomes, ["success"]);
    assert!(anew > 0);
    let round = &arena.round;
    let audited = round.output(&["audit", "r"]);
    assert_eq!(audited.status.code(), Some(0), "{}", String::from_utf8_lossy(&audited.stdout));
    round.wait_until_empty();
}
