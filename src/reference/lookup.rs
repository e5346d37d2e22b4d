//! Guesses the next tokens from text that is there already: prompt lookup (Saxena 2023), a draft without a draft model.
//!
//! A guess costs nothing but the time to check it: the engine keeps only what greedy decoding confirms.

/// Longest run of tokens that is looked for.
const LONGEST: usize = 4;

/// Up to `most` tokens that followed the last earlier occurrence of the sequence's own end, in the sequence itself or
/// else in `history`; longer matches first.
pub fn guess<'t>(sequence: &'t [u32], history: &'t [u32], most: usize) -> &'t [u32] {
    if most == 0 {
        return &[];
    }
    for length in (1..=LONGEST.min(sequence.len())).rev() {
        let end = &sequence[sequence.len() - length..];
        for text in [sequence, history] {
            // The last token of a text has nothing after it to guess.
            let before = &text[..text.len().saturating_sub(1)];
            if let Some(at) = before.windows(length).rposition(|run| run == end) {
                let next = at + length;
                return &text[next..text.len().min(next + most)];
            }
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::guess;

    #[test]
    fn the_longest_last_match_is_continued() {
        assert_eq!(guess(&[1, 2, 3, 4, 5, 9, 1, 2, 3], &[], 2), [4, 5]);
        assert_eq!(guess(&[7, 2, 3, 8, 1, 2, 3, 4, 0, 2, 3], &[], 1), [4]);
        assert_eq!(guess(&[1, 2, 3, 9, 2, 3, 4, 1, 2, 3], &[], 3), [9, 2, 3]);
        assert_eq!(guess(&[6, 6], &[], 4), [6]);
        assert!(guess(&[1, 2, 3], &[], 4).is_empty());
        assert!(guess(&[1, 2, 1, 2], &[], 0).is_empty());
        assert!(guess(&[], &[1, 2], 4).is_empty());
    }

    #[test]
    fn history_helps_where_the_sequence_has_nothing_as_long() {
        assert_eq!(guess(&[1, 2, 3, 1, 2], &[9, 1, 2, 4], 1), [3]);
        assert_eq!(guess(&[2, 3, 1, 2], &[9, 1, 2, 4], 2), [4]);
        assert_eq!(guess(&[1, 2], &[1, 2], 2).len(), 0);
    }
}
