//! The directory of a round that is made from another: what stands of the other is shared, not copied.
//!
//! Files are hard links where the file system can, for nothing of a round is changed in place; so a round keeps what
//! it shares when the other is removed. Each file's digest is taken on the way and, where the other round has a seal,
//! compared with it. The directory appears under its name when all of it is on disk.

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{RoundDirectory, StoreError, disk, io_error, seal, whole};
use crate::artifact::{JournalEvent, RoundFile, SealDifference, SealEntry, SharedFile, digest, layout};
use crate::model::Digest;

/// What a round is made of that is made from another.
#[derive(Debug)]
pub struct Derivation<'a> {
    /// The directory of the other round.
    pub parent: &'a RoundDirectory,
    /// The directories whose files are shared, relative to the round's; those that are there.
    pub directories: Vec<String>,
    /// What the new round is made of; what it shares is filled in.
    pub round_file: RoundFile,
    /// The first events of its journal.
    pub events: Vec<(Timestamp, JournalEvent)>,
}

impl RoundDirectory {
    /// Makes the directory of a round from another's, whole or not at all.
    ///
    /// # Errors
    /// When a round of this name exists, a file that is to be shared is not the one that was sealed, or the disk
    /// refuses.
    pub fn derive(data_dir: &Path, derivation: Derivation<'_>) -> Result<Self, StoreError> {
        let Derivation { parent, directories, mut round_file, events } = derivation;
        let rounds = data_dir.join(layout::ROUNDS_DIR);
        disk::create_dir_all(&rounds).map_err(io_error("create", &rounds))?;
        let round_id = round_file.round_id.clone();
        let path = rounds.join(layout::round_dir(&round_id));
        if path.exists() {
            return Err(StoreError::RoundExists { path });
        }
        let building = tempfile::Builder::new()
            .prefix(layout::PARTIAL_PREFIX)
            .tempdir_in(&rounds)
            .map_err(io_error("create a directory in", &rounds))?;
        let made = Self { round_id: round_id.clone(), path: building.path().to_owned() };
        let (seal, shared) = made.share(parent, &directories)?;
        if let Some(parent) = &mut round_file.parent {
            (parent.seal, parent.shared) = (seal, shared);
        }
        made.write_round_file(&round_file)?;
        let (mut journal, _) = made.open_journal()?;
        journal.append(events)?;
        drop(journal);
        whole::sync_file_system(&made.path)?;
        match renameat_with(CWD, &made.path, CWD, &path, RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::EXIST) => return Err(StoreError::RoundExists { path }),
            result => result.map_err(|error| io_error("rename a directory to", &path)(error.into()))?,
        }
        // It has its name, there is nothing to clear away.
        let _ = building.keep();
        whole::sync_dir(&rounds)?;
        Ok(Self { round_id, path })
    }

    /// Shares the files below these directories; gives the digest of the other's seal, and the files with their digests.
    fn share(
        &self,
        parent: &RoundDirectory,
        directories: &[String],
    ) -> Result<(Option<Digest>, Vec<SharedFile>), StoreError> {
        let sealed = parent.read_seal()?;
        let seal_digest = sealed.as_ref().map(|sealed| digest::sha256(sealed.to_string().as_bytes()));
        let mut shared = Vec::new();
        for relative in directories {
            let directory = parent.path.join(relative);
            if !directory.is_dir() {
                continue;
            }
            for (below, kind) in seal::walk(&directory)? {
                let relative = Path::new(relative).join(below);
                let (from, to) = (parent.path.join(&relative), self.path.join(&relative));
                if let Some(parent) = to.parent() {
                    disk::create_dir_all(parent).map_err(io_error("create", parent))?;
                }
                if kind.is_symlink() {
                    let target = disk::read_link(&from).map_err(io_error("read", &from))?;
                    std::os::unix::fs::symlink(target, &to).map_err(io_error("create", &to))?;
                } else {
                    link_or_copy(&from, &to)?;
                }
                let entry = seal::entry(&self.path, &relative, kind)?;
                let found = Some((&entry.digest, entry.size));
                if let Some(sealed) = sealed.as_ref().filter(|sealed| sealed.get(&entry.path) != found) {
                    return Err(changed(&from, (sealed.get(&entry.path), entry)));
                }
                shared.push(SharedFile { path: entry.path, digest: entry.digest, size: entry.size });
            }
        }
        shared.sort_by(|left, right| left.path.cmp(&right.path));
        Ok((seal_digest, shared))
    }
}

fn changed(path: &Path, (sealed, found): (Option<(&Digest, u64)>, SealEntry)) -> StoreError {
    let difference = match sealed {
        None => SealDifference::Unsealed(found.path),
        Some((sealed, _)) => {
            SealDifference::Changed { path: found.path, sealed: sealed.clone(), found: found.digest }
        }
    };
    StoreError::NotAsSealed { path: path.to_owned(), difference: Box::new(difference) }
}

/// Gives a file a second name, or a copy where the file system will not.
fn link_or_copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    if fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    let mut source = disk::open(from).map_err(io_error("read", from))?;
    let mut target = fs::File::create_new(to).map_err(io_error("create", to))?;
    std::io::copy(&mut source, &mut target).map(drop).map_err(io_error("write", to))
}
