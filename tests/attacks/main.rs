//! Attacks, run as whole rounds: each opponent is one cheat, beside an honest server that must not be taken for one.
//!
//! `docs/threats.md` says which attack stands where.

mod arena;
mod copies;
mod machine;
mod rare;
mod ready;
#[path = "../e2e/round.rs"]
#[expect(dead_code, reason = "the other rounds use more of it")]
mod round;
mod strangers;
mod times;
