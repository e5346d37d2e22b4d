//! Who looks faster than he is: by answers that were given before, by a first sign of life, by ends that the model would not
//! have chosen.

use super::arena::Arena;

#[test]
fn who_only_looks_faster_gains_nothing() {
    let mut arena = Arena::new();
    // The cheats stand on a server like the baseline, so that all they could gain is by cheating. An accomplice and its heir share their memory; the honest server has none.
    arena.proxy("accomplice", "remember");
    arena.proxy("heir", "remember");
    arena.proxy("control", "none");
    arena.serve("first-character", "--prefill token --cheat first-character");
    arena.serve("draft-first-token", "--prefill token --cheat draft-first-token");
    arena.serve("late-logprobs", "--prefill token --cheat late-logprobs");
    arena.serve("empty-logprobs", "--prefill token --cheat empty-logprobs-first");
    arena.serve("cached", "--prefill token --cheat cached-answers");
    arena.serve("cut-short", "--prefill token --cheat cut-short");
    let output = arena.run(8, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    arena.is_judged_by_speed("control");
    for name in
        ["first-character", "draft-first-token", "late-logprobs", "empty-logprobs", "cached", "cut-short"]
    {
        arena.gains_nothing(name);
    }
    // Whoever passes on is as fast as what stands behind him, and no faster: nobody is asked what another one was asked.
    arena.is_judged_by_speed("accomplice");
    arena.is_judged_by_speed("heir");
    let asked = arena.round.rows(
        "SELECT count(*) AS asked, count(DISTINCT r.prompt_index) AS different FROM requests r JOIN reads d ON r.read_key = d.read_key WHERE d.arm = 'candidate'",
    );
    let [asked, different] = ["asked", "different"].map(|column| asked[0][column].as_u64().expect("a count"));
    assert!(
        asked >= 9 * 8 && asked == different,
        "{asked} questions to candidates, {different} of them different"
    );
}
