//! Who says that he is ready and is not, and who works only as long as nobody counts.

use super::arena::Arena;

#[test]
fn health_is_not_readiness_and_a_good_beginning_no_answer() {
    let mut arena = Arena::new();
    arena.proxy("control", "none");
    arena.proxy("not-ready", "not-ready");
    arena.proxy("fails-later", "fail-later");
    let output = arena.run(8, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    arena.is_judged_by_speed("control");
    arena.check("not-ready", "failed", "not-ready-in-time");
    let detail = arena.verdict("not-ready").detail;
    assert!(detail.contains("`/health` answered 200, and no answer came within"), "{detail}");
    arena.check("fails-later", "disqualified", "failed-answered");
}
