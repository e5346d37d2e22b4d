//! The folder in which the layers of an image lie while it is pulled: one image at a time.
//!
//! What an interrupted pull has left is gone on with where the next one is of the same image, and removed where it is not. A file is
//! named by the digest that its bytes should have; that they have it is looked at each time.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};

use super::RegistryError;
use super::manifest::Blob;
use crate::adapters::machine::free_disk;
use crate::model::Digest;

/// How often is looked whether another pull has ended.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// The folder, while nobody else has it.
#[derive(Debug)]
pub(in crate::adapters) struct Vault {
    dir: PathBuf,
    /// Held until this is dropped, or this program ends.
    _lock: File,
}

impl Vault {
    /// Waits until no other pull has the folder, which is made where it is missing, and for nobody else to read.
    ///
    /// # Errors
    /// It cannot be made or locked.
    ///
    /// # Cancel safety
    /// Nothing is kept where the future is dropped.
    pub(super) async fn open(dir: &Path) -> Result<Self, RegistryError> {
        let disk = |source| RegistryError::Disk {
            attempted: "lock the folder of pulls",
            path: dir.to_owned(),
            source,
        };
        let open = || -> io::Result<File> {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(dir.join("lock"))
        };
        let lock = open().map_err(disk)?;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { dir: dir.to_owned(), _lock: lock }),
                Err(rustix::io::Errno::WOULDBLOCK) => tokio::time::sleep(LOOK_PAUSE).await,
                Err(error) => return Err(disk(error.into())),
            }
        }
    }

    /// Where a blob lies, or would.
    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.as_str().trim_start_matches("sha256:"))
    }

    /// Removes everything but these.
    ///
    /// # Errors
    /// What is there cannot be listed or removed.
    pub(super) fn keep_only(&self, blobs: &[Blob]) -> Result<(), RegistryError> {
        let kept: Vec<PathBuf> = blobs.iter().map(|blob| self.path(&blob.digest)).collect();
        let remove = || -> io::Result<()> {
            for entry in std::fs::read_dir(&self.dir)? {
                let path = entry?.path();
                if path.file_name().is_some_and(|name| name != "lock") && !kept.contains(&path) {
                    std::fs::remove_file(&path)?;
                }
            }
            Ok(())
        };
        remove().map_err(|source| RegistryError::Disk {
            attempted: "remove layers of an older pull",
            path: self.dir.clone(),
            source,
        })
    }

    /// Removes everything: the daemon has it. What cannot be removed is so by the next pull.
    pub(in crate::adapters) fn clear(&self) {
        if let Err(error) = self.keep_only(&[]) {
            tracing::warn!("layers of a pull were not removed: {error}");
        }
    }

    /// Whether these find room on the disk, what is there of them already counted.
    ///
    /// # Errors
    /// They do not.
    pub(super) fn has_room(&self, blobs: &[Blob]) -> Result<(), RegistryError> {
        let missing = blobs.iter().map(|blob| {
            let there = std::fs::metadata(self.path(&blob.digest)).map_or(0, |found| found.len());
            blob.size.saturating_sub(there)
        });
        let needed = missing.fold(super::SPARE_BYTES, u64::saturating_add);
        match free_disk(&self.dir) {
            Some(free) if free < needed => {
                Err(RegistryError::NoRoom { path: self.dir.clone(), needed, free })
            }
            _ => Ok(()),
        }
    }

    /// Removes a blob.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(super) fn remove(&self, digest: &Digest) -> Result<(), RegistryError> {
        let path = self.path(digest);
        std::fs::remove_file(&path).map_err(|source| RegistryError::Disk {
            attempted: "remove a layer",
            path,
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::digest::sha256;

    #[tokio::test]
    async fn room_is_for_what_is_missing_and_some_to_spare() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(&dir.path().join("pulls")).await.unwrap();
        let blob = |size| Blob { digest: sha256(b"x"), size };
        vault.has_room(&[]).unwrap();
        match vault.has_room(&[blob(1 << 60), blob(1 << 60)]) {
            Err(RegistryError::NoRoom { needed, free, .. }) => assert!(needed > 2 << 60 && free > 0),
            other => panic!("{other:?}"),
        }
        assert!(vault.has_room(&[blob(u64::MAX), blob(1)]).is_err());
        // A file with a hole of that size: all of it is there.
        let there = File::create(vault.path(&blob(0).digest)).unwrap();
        there.set_len(1 << 40).unwrap();
        vault.has_room(&[blob(1 << 40)]).unwrap();
        vault.clear();
        assert!(vault.has_room(&[blob(1 << 60)]).is_err());
    }
}
