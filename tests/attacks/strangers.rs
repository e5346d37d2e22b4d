//! No stranger stops a round: answers that are too long, answers that the scorer refuses, and a server that says nothing
//! cost their own submission, and a scorer that dies goes on where it was.

use super::arena::Arena;

/// The scorer takes no more than 270 tokens, which is more than any prompt and answer here have, and dies at the twentieth
/// question of each of its lives.
/// The scorer dies of whatever is longer than 270 tokens, each time.
#[test]
fn answers_that_kill_the_scorer_every_time_are_refused_and_the_round_goes_on() {
    let mut arena = Arena::with_scorer("--prefill block --max-model-len 270 --cheat crash-beyond-length");
    arena.serve("killer", "--prefill block --cheat hidden-text");
    arena.serve("swift", "--prefill block --speculate 5 --history 2048");
    let output = arena.run(8, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    arena.check("killer", "disqualified", "failed-answered");
    arena.is_judged_by_speed("swift");
    let failed = "SELECT * FROM verdicts WHERE hotkey IS NULL AND outcome <> 'pass'";
    assert!(arena.round.rows(failed).is_empty());
    let audited = arena.round.output(&["audit", "r"]);
    assert_eq!(audited.status.code(), Some(0), "{}", String::from_utf8_lossy(&audited.stdout));
    arena.round.wait_until_empty();
}

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

    // The scorer died once, and was asked only for the rest.
    let round = &arena.round;
    let verify =
        round.rows("SELECT attempt, outcome FROM step_attempts WHERE job = 'verify' AND step = 'score'");
    let outcomes: Vec<&str> = verify.iter().filter_map(|row| row["outcome"].as_str()).collect();
    assert_eq!(outcomes, ["failure", "success"]);
    let audited = round.output(&["audit", "r"]);
    assert_eq!(audited.status.code(), Some(0), "{}", String::from_utf8_lossy(&audited.stdout));
    round.wait_until_empty();
}
