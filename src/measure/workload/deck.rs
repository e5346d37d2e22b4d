//! A deck of cards: what is dealt comes in a drawn order and in exact proportion.

use crate::model::Seed;

/// Deals cards without end: all of them in an order that the seed draws, then all again in another.
#[derive(Debug, Clone)]
pub struct Deck {
    seed: Seed,
    cards: Vec<usize>,
    left: Vec<usize>,
    dealt: u64,
}

impl Deck {
    /// A deck with card `i` so often as the weight of this number says, after all are divided by what they have in common.
    pub fn new(seed: Seed, weights: &[u32]) -> Self {
        let common = weights.iter().copied().fold(0, gcd).max(1);
        let copies = |(card, weight): (usize, &u32)| std::iter::repeat_n(card, (weight / common) as usize);
        let cards = weights.iter().enumerate().flat_map(copies).collect();
        Self { seed, cards, left: Vec::new(), dealt: 0 }
    }

    /// The next card; 0 of a deck without cards.
    pub fn deal(&mut self) -> usize {
        if self.left.is_empty() {
            self.left.clone_from(&self.cards);
            self.seed.derive(&["deck", &self.dealt.to_string()]).shuffle(&mut self.left);
            self.dealt += 1;
        }
        self.left.pop().unwrap_or_default()
    }

    /// Most cards of a kind among the first `count`.
    pub fn most(&self, card: usize, count: u64) -> u64 {
        let all = (self.cards.len() as u64).max(1);
        let own = self.cards.iter().filter(|other| **other == card).count() as u64;
        count / all * own + own.min(count % all)
    }
}

fn gcd(left: u32, right: u32) -> u32 {
    if right == 0 { left } else { gcd(right, left % right) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_come_in_proportion_and_in_a_drawn_order() {
        let dealt = |seed: &str, weights: &[u32], count: usize| -> Vec<usize> {
            let mut deck = Deck::new(Seed::from_text(seed), weights);
            (0..count).map(|_| deck.deal()).collect()
        };
        let cards = dealt("a", &[20, 10, 10], 400);
        for four in cards.chunks(4) {
            assert_eq!(four.iter().filter(|card| **card == 0).count(), 2);
        }
        assert_ne!(cards, dealt("b", &[20, 10, 10], 400));
        assert_eq!(cards[..9], dealt("a", &[20, 10, 10], 9));
        assert!(cards.chunks(4).any(|four| four != &cards[..4]));
        let deck = Deck::new(Seed::from_text("a"), &[2, 1]);
        assert_eq!([0, 1, 2, 3, 4, 5].map(|count| deck.most(0, count)), [0, 1, 2, 2, 3, 4]);
        assert_eq!([0, 1, 2, 3, 4].map(|count| deck.most(1, count)), [0, 1, 1, 1, 2]);
    }
}
