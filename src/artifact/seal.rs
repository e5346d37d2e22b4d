//! `SEAL`: what every file of a finished round hashes to.
//!
//! A first line with the format's version, then a line a file, sorted by path:
//! `sha256:<hex>  <size>  <path>`. Bytes of a path that cannot stand in a line of text (control characters,
//! `\`, what is not UTF-8) are written `\xNN`.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::{ArtifactError, layout};
use crate::model::Digest;

/// The first line of the file.
const HEADER: &str = "cacheon-seal v1";

/// One sealed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealEntry {
    /// Path of the file in the round's directory, as [`path_text`] writes it.
    pub path: String,
    /// Digest of the file's bytes.
    pub digest: Digest,
    /// Number of the file's bytes.
    pub size: u64,
}

/// Digests and sizes of all files of a round, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seal(BTreeMap<String, (Digest, u64)>);

/// The first path at which a round is not what was sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealDifference {
    /// The file of this path was sealed, but is not there.
    Missing(String),
    /// The file of this path is there, but was not sealed.
    Unsealed(String),
    /// The file has other bytes than were sealed.
    Changed {
        /// Path of the file.
        path: String,
        /// Digest that was sealed.
        sealed: Digest,
        /// Digest of what is there.
        found: Digest,
    },
}

impl fmt::Display for SealDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(f, "`{path}` was sealed and is gone"),
            Self::Unsealed(path) => write!(f, "`{path}` was not there when the round was sealed"),
            Self::Changed { path, sealed, found } => {
                write!(f, "`{path}` was sealed as {sealed} and is {found}")
            }
        }
    }
}

impl FromIterator<SealEntry> for Seal {
    fn from_iter<I: IntoIterator<Item = SealEntry>>(entries: I) -> Self {
        Self(entries.into_iter().map(|entry| (entry.path, (entry.digest, entry.size))).collect())
    }
}

impl Seal {
    /// Number of files that are sealed.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no file is sealed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of all files' bytes together; the largest number where they are more.
    pub fn bytes(&self) -> u64 {
        self.0.values().fold(0, |sum, (_, size)| u64::saturating_add(sum, *size))
    }

    /// Digest and size that were sealed at a path.
    pub fn get(&self, path: &str) -> Option<(&Digest, u64)> {
        self.0.get(path).map(|(digest, size)| (digest, *size))
    }

    /// Reads the file `SEAL`.
    ///
    /// # Errors
    /// When a line is not of the form, or the paths are not in order, which also excludes doubles.
    pub fn parse(bytes: &[u8]) -> Result<Self, ArtifactError> {
        let bad = |line, why| ArtifactError::Seal { line, why };
        let text = std::str::from_utf8(bytes).map_err(|_| bad(1, "not UTF-8"))?;
        let body = text.strip_suffix('\n').ok_or(bad(text.lines().count().max(1), "no end of line"))?;
        let mut lines = body.split('\n').zip(1..);
        if lines.next().map(|(line, _)| line) != Some(HEADER) {
            return Err(bad(1, "want `cacheon-seal v1`"));
        }
        let mut entries = BTreeMap::new();
        for (line, number) in lines {
            let mut parts = line.splitn(3, "  ");
            let mut next = || parts.next().ok_or(bad(number, "want digest, size and path"));
            let digest: Digest = next()?.parse().map_err(|_| bad(number, "not a digest"))?;
            let size: u64 = next()?.parse().map_err(|_| bad(number, "not a size"))?;
            let path = next()?.to_owned();
            if entries.last_key_value().is_some_and(|(last, _)| *last >= path) {
                return Err(bad(number, "paths out of order"));
            }
            entries.insert(path, (digest, size));
        }
        Ok(Self(entries))
    }

    /// The files of both, those of `other` where both have one of the same path.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// What of this seal must still be there when `removed` is the record of what was removed since: all but raw
    /// streams that it names with the digest and size that were sealed, as far as they are gone from `found`. Nothing
    /// else is excused, whatever the record says.
    #[must_use]
    pub fn left_after(&self, removed: &Self, found: &Self) -> Self {
        let is_excused = |path: &String, sealed: &(Digest, u64)| {
            layout::is_raw_streams(path) && removed.0.get(path) == Some(sealed) && !found.0.contains_key(path)
        };
        let left = self.0.iter().filter(|(path, sealed)| !is_excused(path, sealed));
        Self(left.map(|(path, sealed)| (path.clone(), sealed.clone())).collect())
    }

    /// The first difference, by path, between what was sealed (`self`) and what is there.
    pub fn first_difference(&self, found: &Self) -> Option<SealDifference> {
        let missing = self.0.iter().find_map(|(path, (sealed, size))| match found.0.get(path) {
            None => Some((path, SealDifference::Missing(path.clone()))),
            Some((digest, found_size)) if (digest, found_size) != (sealed, size) => {
                let (sealed, found) = (sealed.clone(), digest.clone());
                Some((path, SealDifference::Changed { path: path.clone(), sealed, found }))
            }
            Some(_) => None,
        });
        let unsealed = found.0.keys().find(|path| !self.0.contains_key(*path));
        let unsealed = unsealed.map(|path| (path, SealDifference::Unsealed(path.clone())));
        missing.into_iter().chain(unsealed).min_by_key(|(path, _)| *path).map(|(_, difference)| difference)
    }
}

impl fmt::Display for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        self.0.iter().try_for_each(|(path, (digest, size))| writeln!(f, "{digest}  {size}  {path}"))
    }
}

/// A path as it stands in the file: any bytes as one line of text, different for different bytes.
pub fn path_text(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || character == '\\' {
                let mut buffer = [0; 4];
                escape(character.encode_utf8(&mut buffer).as_bytes(), &mut text);
            } else {
                text.push(character);
            }
        }
        escape(chunk.invalid(), &mut text);
    }
    text
}

fn escape(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        write!(text, "\\x{byte:02x}").expect("writes to a string");
    }
}

#[cfg(test)]
mod tests {
    use super::super::digest::sha256;
    use super::*;

    fn seal(files: &[(&str, &str)]) -> Seal {
        let entry = |&(path, text): &(&str, &str)| SealEntry {
            path: path.to_owned(),
            digest: sha256(text.as_bytes()),
            size: text.len() as u64,
        };
        files.iter().map(entry).collect()
    }

    #[test]
    fn the_file() {
        let sealed = seal(&[("results/reads.parquet", "x"), ("a  b", ""), ("journal.jsonl", "{}\n")]);
        insta::assert_snapshot!(sealed);
        assert_eq!(Seal::parse(sealed.to_string().as_bytes()).expect("reads back"), sealed);
    }

    #[test]
    fn what_is_no_seal() {
        let line = format!("{}  1  a", sha256(b""));
        for (bad, why) in [
            (String::new(), "no end of line"),
            ("x\n".to_owned(), "want `cacheon-seal v1`"),
            (format!("{HEADER}\n{line}"), "no end of line"),
            (format!("{HEADER}\n\n"), "not a digest"),
            (format!("{HEADER}\nsha256:0  1  a\n"), "not a digest"),
            (format!("{HEADER}\n{}  -1  a\n", sha256(b"")), "not a size"),
            (format!("{HEADER}\n{}  1\n", sha256(b"")), "want digest, size and path"),
            (format!("{HEADER}\n{line}\n{line}\n"), "paths out of order"),
        ] {
            let error = Seal::parse(bad.as_bytes()).expect_err(&bad).to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
        assert!(Seal::parse(b"\xff\n").is_err());
    }

    #[test]
    fn differences() {
        let sealed = seal(&[("a", "1"), ("c", "1")]);
        let check = |files: &[(&str, &str)], expected: Option<&str>| {
            let difference = sealed.first_difference(&seal(files)).map(|difference| difference.to_string());
            assert_eq!(difference.as_deref().map(|text| &text[..16.min(text.len())]), expected);
        };
        check(&[("a", "1"), ("c", "1")], None);
        check(&[("a", "1")], Some("`c` was sealed a"));
        check(&[("a", "1"), ("b", "1")], Some("`b` was not ther"));
        check(&[("a", "2"), ("b", "1")], Some("`a` was sealed a"));
    }

    #[test]
    fn what_is_left_after_a_removal() {
        let streams = "jobs/m/_/attempt-1/streams.parquet";
        let sealed = seal(&[(streams, "1"), ("a", "1")]);
        let check = |removed: &[(&str, &str)], found: &[(&str, &str)], expected: Option<&str>| {
            let found = seal(found);
            let difference = sealed.left_after(&seal(removed), &found).first_difference(&found);
            let path = difference.map(|difference| match difference {
                SealDifference::Missing(path)
                | SealDifference::Unsealed(path)
                | SealDifference::Changed { path, .. } => path,
            });
            assert_eq!(path.as_deref(), expected, "{removed:?} {found}");
        };
        let whole = [(streams, "1"), ("a", "1")];
        check(&[], &whole, None);
        check(&[(streams, "1")], &[("a", "1")], None);
        check(&[(streams, "1")], &whole, None);
        check(&[(streams, "1")], &[(streams, "2"), ("a", "1")], Some(streams));
        check(&[(streams, "2")], &[("a", "1")], Some(streams));
        check(&[], &[("a", "1")], Some(streams));
        check(&[("a", "1")], &[(streams, "1")], Some("a"));
    }

    #[test]
    fn paths() {
        let check = |input: &[u8], expected: &str| assert_eq!(path_text(input), expected);
        check(b"jobs/m/a%2Fb/log.txt", "jobs/m/a%2Fb/log.txt");
        check(b"a\nb", "a\\x0ab");
        check(b"a\\x0ab", "a\\x5cx0ab");
        check(b"\xff\xc3\xa9", "\\xff\u{e9}");
        check("\u{85}".as_bytes(), "\\xc2\\x85");
    }
}
