//! Guesses the next tokens from the sequence itself: prompt lookup (Saxena 2023), a draft without a draft model.

/// Longest run of tokens that has to match.
const LONGEST: usize = 3;
/// Shortest run of tokens that has to match.
const SHORTEST: usize = 2;

/// Up to `most` tokens that followed the last earlier occurrence of the sequence's own end; longer matches first.
pub fn guess(sequence: &[u32], most: usize) -> &[u32] {
    if most == 0 {
        return &[];
    }
    for length in (SHORTEST..=LONGEST).rev() {
        let Some(start) = sequence.len().checked_sub(length) else { continue };
        let found = sequence[..sequence.len() - 1].windows(length).rposition(|run| run == &sequence[start..]);
        if let Some(at) = found {
            let next = at + length;
            return &sequence[next..sequence.len().min(next + most)];
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::guess;

    #[test]
    fn the_longest_last_match_is_continued() {
        assert_eq!(guess(&[1, 2, 3, 4, 5, 9, 1, 2, 3], 2), [4, 5]);
        assert_eq!(guess(&[7, 2, 3, 8, 1, 2, 3, 4, 0, 2, 3], 1), [4]);
        assert_eq!(guess(&[1, 2, 3, 9, 2, 3, 4, 1, 2, 3], 3), [9, 2, 3]);
        assert!(guess(&[1, 2, 3], 4).is_empty());
        assert!(guess(&[1, 2, 1, 2], 0).is_empty());
        assert!(guess(&[], 4).is_empty());
    }
}
