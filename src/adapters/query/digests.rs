//! Digests of files that were hashed before, so that a sealed file is read through once and not for every query.
//!
//! What is remembered is what a file hashed to, never that it is trusted: each query holds it against the seal again.
//! A file is known by its path, size and time of change, as build tools know theirs; who can change those without a
//! trace can also write a round of their own with its seal.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::adapters::store;
use crate::artifact::digest::Hasher;
use crate::artifact::{FormatVersion, layout};
use crate::model::Digest;

/// Version of the cache's file: another one is ignored, as is anything that is no such file.
const VERSION: FormatVersion = FormatVersion::new(1, 0);
/// Largest cache file that is read, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// The cache of one data directory.
#[derive(Debug)]
pub(super) struct Digests {
    data_dir: PathBuf,
    /// The files that were hashed, by path below the data directory.
    files: BTreeMap<String, Known>,
    is_changed: bool,
}

/// A file that was hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    size: u64,
    mtime_ns: i64,
    digest: Digest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CacheFile {
    version: FormatVersion,
    files: BTreeMap<String, Known>,
}

#[derive(Serialize)]
struct CacheFileRef<'a> {
    version: FormatVersion,
    files: &'a BTreeMap<String, Known>,
}

impl Digests {
    /// Reads what is remembered; nothing where the cache is absent or damaged.
    pub(super) fn load(data_dir: &Path) -> Self {
        let read = || {
            let bytes = store::read_data_file(data_dir, layout::QUERY_CACHE_FILE, MAX_BYTES).ok()?;
            let file: CacheFile = serde_json::from_slice(&bytes).ok()?;
            (file.version == VERSION).then_some(file.files)
        };
        Self { data_dir: data_dir.to_owned(), files: read().unwrap_or_default(), is_changed: false }
    }

    /// The digest of an open file, which lies at this path below the data directory.
    pub(super) fn digest(&mut self, path: String, file: &File) -> io::Result<Digest> {
        let metadata = file.metadata()?;
        let size = metadata.len();
        let mtime_ns = metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
        let known = self.files.get(&path).filter(|known| (known.size, known.mtime_ns) == (size, mtime_ns));
        if let Some(known) = known {
            return Ok(known.digest.clone());
        }
        let mut hasher = Hasher::default();
        hasher.read(file)?;
        let digest = hasher.finish();
        self.files.insert(path, Known { size, mtime_ns, digest: digest.clone() });
        self.is_changed = true;
        Ok(digest)
    }

    /// Writes down what was learned, without the files that are gone. A directory that cannot be written to costs the
    /// next query its time and nothing else.
    pub(super) fn save(&mut self) {
        if !std::mem::take(&mut self.is_changed) {
            return;
        }
        self.files.retain(|path, _| self.data_dir.join(path).is_file());
        let file = CacheFileRef { version: VERSION, files: &self.files };
        let bytes = serde_json::to_vec(&file).expect("keys are text");
        if let Err(error) = store::write_data_file(&self.data_dir, layout::QUERY_CACHE_FILE, &bytes) {
            tracing::debug!(%error, "the digests of the tables are not remembered");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::digest::sha256;

    #[test]
    fn a_file_is_hashed_once_and_again_when_it_changes() {
        let data = tempfile::tempdir().expect("a directory");
        let path = data.path().join("x");
        let digest_of = |content: &[u8], mtime: u64| {
            std::fs::write(&path, content).expect("writes");
            let file = File::options().read(true).write(true).open(&path).expect("opens");
            let at = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_nanos(mtime);
            file.set_modified(at).expect("sets the time");
            let mut digests = Digests::load(data.path());
            let digest = digests.digest("x".to_owned(), &file).expect("reads");
            digests.save();
            digest
        };
        assert_eq!(digest_of(b"abc", 5_000_000_001), sha256(b"abc"));
        assert_eq!(digest_of(b"xyz", 5_000_000_001), sha256(b"abc"), "known by size and time");
        assert_eq!(digest_of(b"xyz", 5_000_000_002), sha256(b"xyz"), "another time");
        assert_eq!(digest_of(b"long", 5_000_000_002), sha256(b"long"), "another size");

        for damaged in ["", "{", "[]", r#"{"version":"1.0"}"#, r#"{"version":"9.0","files":{}}"#] {
            std::fs::write(data.path().join(layout::QUERY_CACHE_FILE), damaged).expect("writes");
            assert_eq!(digest_of(b"other", 7), sha256(b"other"), "{damaged}");
        }
    }

    #[test]
    fn files_that_are_gone_are_forgotten() {
        let data = tempfile::tempdir().expect("a directory");
        for name in ["a", "b"] {
            std::fs::write(data.path().join(name), name).expect("writes");
            let mut digests = Digests::load(data.path());
            digests
                .digest(name.to_owned(), &File::open(data.path().join(name)).expect("opens"))
                .expect("reads");
            std::fs::remove_file(data.path().join("a")).ok();
            digests.save();
        }
        assert_eq!(Digests::load(data.path()).files.into_keys().collect::<Vec<_>>(), ["b"]);
    }
}
