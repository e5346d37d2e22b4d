//! What a server has to read of a prompt that keeps the beginnings of prompts it has seen.

use super::tokenizer::PinnedTokenizer;
use super::workload::Prompt;

/// Tokens at the edges of a prompt that may be others within a chat template than they are alone.
const EDGE_TOKENS: usize = 2;

/// The number of each prompt's tokens that no other of these prompts begins with, at least 1; none for a text that the
/// tokenizer does not take.
///
/// It errs downwards: of two prompts that begin alike both count without their beginning, though a server has to read it once,
/// and so do the template's own tokens, and two at the edges.
pub fn new_prompt_tokens(tokenizer: &PinnedTokenizer, prompts: &[Prompt]) -> Vec<Option<u32>> {
    let ids: Vec<Option<Vec<u32>>> = prompts
        .iter()
        .map(|prompt| tokenizer.segment(&prompt.text).ok().map(|segmentation| segmentation.ids))
        .collect();
    // In alphabetical order the prompt with the longest common beginning is a neighbour.
    let mut order: Vec<(usize, &[u32])> =
        ids.iter().enumerate().filter_map(|(place, ids)| Some((place, ids.as_deref()?))).collect();
    order.sort_by_key(|(_, ids)| *ids);
    let mut shared = vec![0; prompts.len()];
    for pair in order.windows(2) {
        let [(left, left_ids), (right, right_ids)] = [pair[0], pair[1]];
        let common = left_ids.iter().zip(right_ids).take_while(|(left, right)| left == right).count();
        for place in [left, right] {
            shared[place] = common.max(shared[place]);
        }
    }
    let new = |(ids, shared): (&Option<Vec<u32>>, usize)| {
        let new = ids.as_ref()?.len().saturating_sub(shared + EDGE_TOKENS).max(1);
        u32::try_from(new).ok()
    };
    ids.iter().zip(shared).map(new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::tokenizer::tests::tiny;

    #[test]
    fn a_beginning_that_another_prompt_has_is_not_new() {
        let tokenizer = tiny();
        let count = |texts: &[&str]| -> Vec<u32> {
            let prompts: Vec<Prompt> =
                (0..).zip(texts).map(|(index, text)| Prompt::new(index, (*text).to_owned())).collect();
            new_prompt_tokens(&tokenizer, &prompts).into_iter().map(|count| count.expect("a count")).collect()
        };
        let tokens = |text: &str| tokenizer.segment(text).expect("tokens").ids.len() as u32;
        let long = "Hello world Hello world Hello world";
        assert!(tokens(long) > 4, "{}", tokens(long));
        assert_eq!(count(&[long]), [tokens(long) - 2]);
        assert_eq!(count(&[long, long]), [1, 1], "the same text is known");
        assert_eq!(count(&[]), [0; 0]);
        let other = "world Hello world Hello world";
        assert_eq!(count(&[long, other]), [tokens(long) - 2, tokens(other) - 2]);
        // Whatever lies between them in the list.
        let [first, _, last] = count(&[long, other, long])[..] else { panic!("three counts") };
        assert_eq!((first, last), (1, 1));
    }
}
