//! What is known of a corpus before anything is drawn from it: which rows hold texts of which length.

use std::collections::HashSet;

use sha2::{Digest as _, Sha256};

/// The rows of a corpus by stratum, in the order of the file; a text that stands twice counts once.
#[derive(Debug, Clone, Default)]
pub struct CorpusIndex {
    bounds: Vec<u32>,
    strata: Vec<Vec<u32>>,
    known: HashSet<[u8; 16]>,
}

impl CorpusIndex {
    /// An index without rows, with strata of these upper bounds (ascending, in bytes); without bounds there is one of all
    /// texts.
    pub fn new(bounds: &[u32]) -> Self {
        let strata = vec![Vec::new(); bounds.len().max(1)];
        Self { bounds: bounds.to_vec(), strata, known: HashSet::new() }
    }

    /// Takes in a row.
    pub fn add(&mut self, row: u32, text: &str) {
        let stratum = match self.bounds.as_slice() {
            [] => 0,
            bounds => bounds.partition_point(|bound| (*bound as usize) < text.len()),
        };
        let Some(rows) = self.strata.get_mut(stratum) else { return };
        // Half of a digest: among a million texts, two with one by chance are less likely than a broken disk.
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        if self.known.insert(half) {
            rows.push(row);
        }
    }

    /// The rows of each stratum.
    pub fn strata(&self) -> &[Vec<u32>] {
        &self.strata
    }

    /// A stratum in words, for example ` of 257 to 1024 bytes`; nothing where there is only one of all texts.
    pub fn words(&self, stratum: usize) -> String {
        let Some(upper) = self.bounds.get(stratum) else { return String::new() };
        let lower =
            stratum.checked_sub(1).and_then(|below| self.bounds.get(below)).map_or(1, |bound| bound + 1);
        format!(" of {lower} to {upper} bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_lie_in_their_strata_once() {
        let mut index = CorpusIndex::new(&[2, 4]);
        for (row, text) in ["a", "ab", "abc", "a", "abcd", "abcde", "é", "éé", "x"].into_iter().enumerate()
        {
            index.add(row as u32, text);
        }
        assert_eq!(index.strata(), [vec![0, 1, 6, 8], vec![2, 4, 7]]);
        assert_eq!(
            [0, 1, 2].map(|stratum| index.words(stratum)),
            [" of 1 to 2 bytes", " of 3 to 4 bytes", ""]
        );
        let mut whole = CorpusIndex::new(&[]);
        whole.add(4, "any");
        assert_eq!((whole.strata(), whole.words(0)), (&[vec![4]][..], String::new()));
    }
}
