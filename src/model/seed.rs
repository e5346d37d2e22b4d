//! Where all randomness of a round comes from.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};

/// 32 bytes from which a round's prompts and orders are drawn.
///
/// Every use derives its own seed, so that no two uses share a stream and adding one changes no other.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl Seed {
    /// The root seed of a round from any text: SHA-256 of `cacheon seed v1` and the text.
    pub fn from_text(text: &str) -> Self {
        Self(hash(&[b"cacheon seed v1", text.as_bytes()]))
    }

    /// The seed of one use, named by its path, for example `["benchmark", "prompts"]`.
    #[must_use]
    pub fn derive(&self, path: &[&str]) -> Self {
        let mut parts: Vec<&[u8]> = vec![&self.0];
        parts.extend(path.iter().map(|part| part.as_bytes()));
        Self(hash(&parts))
    }

    /// The generator of this seed; the one generator of the program.
    pub fn generator(&self) -> ChaCha12Rng {
        ChaCha12Rng::from_seed(self.0)
    }

    /// Puts items into the order this seed draws (Fisher and Yates).
    pub fn shuffle<T>(&self, items: &mut [T]) {
        let mut generator = self.generator();
        for end in (1..items.len()).rev() {
            // The bias of the remainder is below 2^-40 for any list that a round has.
            let pick = (generator.next_u64() % (end as u64 + 1)) as usize;
            items.swap(end, pick);
        }
    }

    /// The seed as 64 hexadecimal digits: a secret until the round is over.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Reads a seed that [`Seed::to_hex`] wrote; none if the text is anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(****)")
    }
}

/// SHA-256 over parts, each preceded by its length so that no two lists of parts collide.
fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_do_not_collide() {
        let root = Seed::from_text("1");
        assert_ne!(root.derive(&["a", "bc"]), root.derive(&["ab", "c"]));
        assert_ne!(root.derive(&[]), root);
        assert_eq!(Seed::from_hex(&root.to_hex()).as_ref(), Some(&root));
    }

    #[test]
    fn every_order_comes_up() {
        let orders: std::collections::BTreeSet<[u8; 3]> = (0..200)
            .map(|n| {
                let mut items = [1, 2, 3];
                Seed::from_text(&n.to_string()).shuffle(&mut items);
                items
            })
            .collect();
        assert_eq!(orders.len(), 6);
    }

    #[test]
    fn the_root_seed_is_pinned() {
        insta::assert_snapshot!(Seed::from_text("1").derive(&["x"]).to_hex());
    }
}
