//! The samples that the checks need for their error rates.
//!
//! A check that is made of few answers passes a cheat that cheats in few of them. How many it takes follows from the policy: the
//! test fails an honest server with at most its level, and must find the smallest cheat there is to be found with the
//! policy's power. Exact binomial tails on both sides; nothing is approximated.

use super::thresholds::VerifyPolicy;
use crate::stats::binomial_upper_tail;

/// The largest sample that is looked for.
const LARGEST: u64 = 100_000;

/// How many of a kind a check needs of one submission, over all its reads of one look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleNeed {
    /// What is counted, in words.
    pub what: &'static str,
    /// Whether there is one for each answer, rather than one for each token.
    pub is_by_answer: bool,
    /// The least number; none where no number does.
    pub samples: Option<u64>,
    /// Share of them that the smallest cheat to be found takes from elsewhere.
    pub cheat: f64,
    /// Largest probability of failing an honest server.
    pub level: f64,
    /// Probability of finding that cheat.
    pub power: f64,
}

/// What the checks of tokens, of first tokens and of ends need, in this order.
///
/// Tokens and first tokens by the flips that an honest server may have, ends by its hard misses.
pub fn sample_needs(policy: &VerifyPolicy) -> [SampleNeed; 3] {
    let need = |what, (level, honest, cheat): (f64, f64, f64)| {
        let samples = smallest(honest, cheat, (level, policy.power));
        SampleNeed { what, is_by_answer: true, samples, cheat, level, power: policy.power }
    };
    let tokens = need("tokens", (policy.level, policy.flip_share, policy.cheat_token_share));
    // Neighbouring tokens count for less than one each.
    let spread = |samples: u64| (samples as f64 * policy.design_effect.max(1.0)).ceil() as u64;
    [
        SampleNeed { is_by_answer: false, samples: tokens.samples.map(spread), ..tokens },
        need("first tokens", (policy.level, policy.flip_share, policy.cheat_share)),
        need("ends of answers", (policy.hard_level, 3.0 * policy.hard_share, policy.cheat_share)),
    ]
}

/// The least number of trials in which a share of `honest` fails the test with less than the level and one of `cheat` with the
/// power or more.
fn smallest(honest: f64, cheat: f64, (level, power): (f64, f64)) -> Option<u64> {
    if !(cheat > honest && level > 0.0 && power < 1.0) {
        return None;
    }
    let mut critical = 0;
    (1..=LARGEST).find(|trials| {
        while binomial_upper_tail(critical, *trials, honest) >= level {
            critical += 1;
        }
        binomial_upper_tail(critical, *trials, cheat) >= power
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_ninety_first_tokens() {
        let samples = sample_needs(&VerifyPolicy::default()).map(|need| need.samples);
        assert_eq!(samples[1..], [Some(85), Some(52)]);
        assert!(samples[0].is_some_and(|tokens| (1_000..2_500).contains(&tokens)), "{samples:?}");
        // From 2% to 20%: what the normal approximation puts at 95.
        let doubled = VerifyPolicy { flip_share: 0.02, ..VerifyPolicy::default() };
        assert_eq!(sample_needs(&doubled)[1].samples, Some(107));
    }

    #[test]
    fn a_smaller_cheat_or_a_surer_test_needs_more_and_what_cannot_be_told_apart_has_no_sample() {
        let of = |honest, cheat, level, power| smallest(honest, cheat, (level, power));
        let usual = of(0.01, 0.2, 1e-4, 0.999);
        assert!(of(0.01, 0.1, 1e-4, 0.999) > usual);
        assert!(of(0.01, 0.2, 1e-6, 0.999) > usual);
        assert!(of(0.01, 0.2, 1e-4, 0.9) < usual);
        for (honest, cheat, level, power) in
            [(0.2, 0.2, 1e-4, 0.9), (0.2, 0.1, 1e-4, 0.9), (0.01, 0.2, 0.0, 0.9), (0.01, 0.2, 1e-4, 1.0)]
        {
            assert_eq!(of(honest, cheat, level, power), None);
        }
        assert_eq!(of(f64::NAN, 0.2, 1e-4, 0.9), None);
    }
}
