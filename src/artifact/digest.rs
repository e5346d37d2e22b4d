//! Digests as OCI writes them: the names of everything that must not change.

use std::{fmt, io};

use sha2::{Digest as _, Sha256};

use crate::model::Digest;

/// Number of bytes read at a time.
const CHUNK: usize = 64 << 10;

/// The digest of bytes at hand.
pub fn sha256(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.finish()
}

/// The digest of bytes that arrive piece by piece.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Takes all that a reader gives, piece by piece, and says how many bytes that was.
    ///
    /// # Errors
    /// When the reader fails.
    pub fn read(&mut self, mut reader: impl io::Read) -> io::Result<u64> {
        let mut chunk = vec![0; CHUNK];
        let mut size = 0;
        loop {
            match reader.read(&mut chunk)? {
                0 => return Ok(size),
                count => {
                    self.update(&chunk[..count]);
                    size += count as u64;
                }
            }
        }
    }

    /// The digest of all pieces.
    pub fn finish(self) -> Digest {
        format!("sha256:{}", hex::encode(self.0.finalize()))
            .parse()
            .expect("64 lower-case hexadecimal digits")
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digests() {
        let check =
            |input: &[u8], expected: &str| assert_eq!(sha256(input).as_str(), format!("sha256:{expected}"));
        // FIPS 180-4 example values.
        check(b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let mut read = Hasher::default();
        let long = vec![7; 200_000];
        assert_eq!(read.read(long.as_slice()).unwrap(), 200_000);
        assert_eq!(read.finish(), sha256(&long));
        check(b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
