//! Who commits what somebody else has made: under a name that nothing stands behind, under another name, under another
//! manifest.

use super::arena::Arena;

const SERVER: &str = "--prefill block --speculate 5 --history 2048";

#[test]
fn a_digest_that_was_committed_first_and_is_not_there_keeps_nobody_out() {
    let mut arena = Arena::new();
    arena.serve("owner", SERVER);
    arena.claim("nothing", "owner");
    arena.goes_first();
    arena.copy("relabelled", SERVER);
    let output = arena.run(8, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    arena.check("nothing", "failed", "image-unavailable");
    arena.is_judged_by_speed("owner");
    arena.check("relabelled", "ignored", "duplicate-content");
    for name in ["nothing", "relabelled"] {
        arena.gains_nothing(name);
    }
}
