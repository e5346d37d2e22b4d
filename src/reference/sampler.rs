//! Logits of one position to a chosen token and its logprobs.
//!
//! Logprobs are natural logarithms of the raw distribution: a log-softmax in f32 over the unscaled logits, whatever
//! the temperature. Penalties, top-p and top-k are deliberately absent: the API refuses them.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::Rng;

/// What is known about one position of a sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Position {
    /// Id of the token that stands there.
    pub id: u32,
    /// Logprob of that token.
    pub logprob: f32,
    /// Rank of that token among all by logprob: 1 is the most likely.
    pub rank: usize,
    /// The most likely tokens with their logprobs, best first, as many as were asked for.
    pub top: Vec<(u32, f32)>,
}

/// Index of the largest logit; of equal ones the first.
pub fn greedy(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().reduce(|best, next| if *next.1 > *best.1 { next } else { best });
    best.map_or(0, |(id, _)| id as u32)
}

/// Draws a token from the softmax of `logits / temperature`; temperature 0 is greedy.
pub fn sample(logits: &[f32], temperature: f64, rng: &mut ChaCha12Rng) -> u32 {
    if temperature <= 0.0 {
        return greedy(logits);
    }
    let best = f64::from(logits[greedy(logits) as usize]);
    let weights: Vec<f64> =
        logits.iter().map(|logit| ((f64::from(*logit) - best) / temperature).exp()).collect();
    let uniform = (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    let mut left = uniform * weights.iter().sum::<f64>();
    for (id, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return id as u32;
        }
    }
    greedy(logits)
}

/// The logprobs of the position where `id` was chosen, with the `top` most likely tokens.
pub fn position(logits: &[f32], id: u32, top: usize) -> Position {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let normaliser = best + logits.iter().map(|logit| (logit - best).exp()).sum::<f32>().ln();
    let chosen = logits.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
    let rank = 1 + logits.iter().filter(|logit| **logit > chosen).count();
    let mut order: Vec<(u32, f32)> =
        if top == 0 { Vec::new() } else { (0..).zip(logits.iter().copied()).collect() };
    let descending = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if top < order.len() {
        order.select_nth_unstable_by(top, descending);
        order.truncate(top);
    }
    order.sort_unstable_by(descending);
    let top = order.into_iter().map(|(id, logit)| (id, logit - normaliser)).collect();
    Position { id, logprob: chosen - normaliser, rank, top }
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    #[test]
    fn ranks_and_tops_follow_the_logits() {
        let logits = [0.0, 3.0, 1.0, 2.0];
        let found = position(&logits, 2, 2);
        assert_eq!((found.id, found.rank), (2, 3));
        assert_eq!(found.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3]);
        let total: f32 = (0..4).map(|id| position(&logits, id, 0).logprob.exp()).sum();
        assert!((total - 1.0).abs() < 1e-6);
    }

    #[test]
    fn temperature_zero_is_the_first_best() {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        assert_eq!(sample(&[1.0, 4.0, 4.0], 0.0, &mut rng), 1);
        let drawn: Vec<u32> = (0..200).map(|_| sample(&[0.0, 0.7], 1.0, &mut rng)).collect();
        let ones = drawn.iter().filter(|id| **id == 1).count();
        assert!((100..170).contains(&ones), "{ones} of 200, about 134 expected");
    }
}
