//! Who cheats in few answers of many, and who knows the answers before they are asked for.

use super::arena::Arena;

/// The checks that a submission failed over both of its reads together.
fn failed_together(arena: &Arena, name: &str) -> Vec<String> {
    let hotkey = arena.hotkey_of(name);
    let rows = arena.round.rows(&format!(
        "SELECT check FROM verdicts WHERE outcome = 'fail' AND hotkey = '{hotkey}' AND read_key LIKE '%..%'"
    ));
    rows.iter().filter_map(|row| row["check"].as_str().map(str::to_owned)).collect()
}

#[test]
fn what_is_rare_adds_up_and_what_is_impossible_is_held() {
    // The baseline's answers are told to whoever remembers: the same server as theirs, and asked the same prompts before them.
    let mut arena = Arena::new().with_told_baseline();
    arena.proxy("control", "none");
    arena.proxy("told", "remember");
    arena.proxy("cuts-some", "cut-some");
    arena.proxy("guesses-some", "guess-some");
    // Who is how much faster does not matter here, so a machine that does other things will do.
    let edits = [
        ("rounds: 1", "rounds: 2"),
        ("max-foreign-cpu: 0.2", "max-foreign-cpu: 1"),
        ("max-client-lag: 100ms", "max-client-lag: 2s"),
    ];
    let output = arena.run(16, &edits);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    arena.is_judged_by_speed("control");
    // Each answer is right, so nothing but its time speaks against it; the control behind the same proxy is not held.
    arena.check("told", "held", "impossible-time");
    let detail = arena.verdict("told").detail;
    assert!(detail.starts_with("faster than its machine can run the model: "), "{detail}");
    assert!(failed_together(&arena, "told").is_empty());
    // Two answers of 16 in each read.
    for (name, check) in [("cuts-some", "finish"), ("guesses-some", "first-hard-margin")] {
        assert_eq!(arena.verdict(name).standing, "disqualified", "{name}");
        let failed = failed_together(&arena, name);
        assert!(failed.iter().any(|failed| failed == check), "{name}: {failed:?}, {:?}", arena.verdict(name));
        arena.gains_nothing(name);
    }
    arena.gains_nothing("told");
}
