//! Sentences of the built-in language: the text of a prompt from a seeded generator.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::Rng as _;

/// The text of one prompt.
pub fn prompt(rng: &mut ChaCha12Rng) -> String {
    format!("Say {:08x}.", rng.next_u32())
}
