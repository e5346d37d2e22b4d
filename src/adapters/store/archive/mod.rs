//! A sealed round as one file that travels: a POSIX tar in zstd, `SEAL` first, then every sealed file by its path.
//!
//! The bytes depend on the round alone: fixed modes, owners and times, a fixed level. Behind the compressed frame stands
//! a frame that zstd skips, with the digest of the first; so `tar --zstd -xf` opens the file with nothing of ours, and no
//! byte of it can change unseen. What comes in is taken for hostile: see [`import()`]. The lock does not travel, and
//! directories only where a file lies in them.

mod entry;
mod export;
mod frame;
mod import;
mod pulse;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use super::{RoundDirectory, StoreError, seal};
use crate::artifact::{ArtifactError, SealDifference, layout};
use crate::model::RoundId;
use crate::report::text::bytes;

pub use export::{export, export_file};
pub use import::{Limits, import};
pub use pulse::Pulse;

/// Longest path of a file in an archive, and longest target of a link, in bytes: what Linux takes.
const MAX_PATH: usize = 4096;
/// Longest name of a file or directory, in bytes: what Linux takes.
const MAX_NAME: usize = 255;
/// Number of bytes that are copied at a time.
const CHUNK: usize = 128 << 10;

/// Why a round was not carried.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The disk refused something.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The round has no seal.
    #[error("round `{0}` has no seal: it is not done, and only a sealed round can be exported")]
    Unsealed(RoundId),
    /// The round that was to be exported is not what was sealed, or cannot be one in an archive.
    #[error("round `{round_id}` was not exported")]
    NotAsSealed {
        /// Id of the round.
        round_id: RoundId,
        /// The first difference.
        #[source]
        difference: Box<Deviation>,
    },
    /// The file that was to be written is there.
    #[error("`{0}` exists: `--force` replaces it")]
    FileExists(PathBuf),
    /// The file was to be written into the round.
    #[error("`{0}` lies in the round itself: choose another place")]
    Inside(PathBuf),
    /// The archive cannot be written.
    #[error("cannot write the archive")]
    Unwritable(#[source] io::Error),
    /// The file is no archive of a round, or damaged.
    #[error("not an archive that `cacheon export` wrote, or damaged since")]
    Damaged(#[source] io::Error),
    /// The archive holds something else than the round that its seal describes.
    #[error("nothing was imported")]
    Deviates(#[source] Box<Deviation>),
    /// The round is larger than was allowed.
    #[error("nothing was imported: the round has more than {}: `--max-bytes` allows more", bytes(*.0))]
    TooLarge(u64),
    /// The round is larger than the room that is left.
    #[error("nothing was imported: the round has more than the {} that are free in `{path}`", bytes(*.free))]
    NoRoom {
        /// The directory of the rounds.
        path: PathBuf,
        /// Bytes that were free.
        free: u64,
    },
    /// The same round is there already.
    #[error("round `{0}` is already here, with the same seal")]
    AlreadyHere(RoundId),
    /// Another round of the same id is there.
    #[error("another round of this id is here: `{0}`")]
    AnotherIsHere(PathBuf),
    /// Somebody stopped it.
    #[error("stopped before it was done: nothing half is left")]
    Stopped,
}

/// In what an archive, or a round, is not as sealed: the first such thing.
#[derive(Debug, thiserror::Error)]
pub enum Deviation {
    /// A file is missing, changed, or not sealed.
    #[error("{0}")]
    Seal(SealDifference),
    /// The first entry is another file.
    #[error("the first entry must be `round=<id>/SEAL` and is `{0}`")]
    SealNotFirst(String),
    /// The seal cannot be read.
    #[error("`SEAL` is not usable: {0}")]
    SealUnusable(ArtifactError),
    /// The seal lists more files than a round may have.
    #[error("`SEAL` lists {0} files, more than a round may have")]
    TooMany(usize),
    /// The record of what was removed cannot be read.
    #[error("`REMOVED` is not usable: {0}")]
    RemovedUnusable(ArtifactError),
    /// `round.json` cannot be read.
    #[error("`round.json` is not usable: {0}")]
    RoundFile(StoreError),
    /// `round.json` is of another round.
    #[error("`round.json` is that of round `{stands}`, and the directory that of round `{named}`")]
    Identity {
        /// The id that stands in the file.
        stands: RoundId,
        /// The id by which the round is named.
        named: RoundId,
    },
    /// A path is none that a round can have.
    #[error("`{path}` {why}")]
    Path {
        /// The path, as it stands in the archive.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file has another size than was sealed.
    #[error("`{path}` was sealed with {sealed} bytes and has {found}")]
    Size {
        /// Path of the file.
        path: String,
        /// Number of bytes that were sealed.
        sealed: u64,
        /// Number of bytes that it has.
        found: u64,
    },
    /// Something stands behind the last file.
    #[error("something stands behind the last file")]
    Trailing,
}

impl From<Deviation> for ArchiveError {
    fn from(deviation: Deviation) -> Self {
        Self::Deviates(Box::new(deviation))
    }
}

impl Deviation {
    fn path(path: &str, why: &'static str) -> Self {
        Self::Path { path: path.to_owned(), why }
    }
}

/// What is wrong with a path below the round's directory; none if a sealed file may have it.
fn unfit(relative: &[u8]) -> Option<&'static str> {
    let names: Vec<&[u8]> = relative.split(|byte| *byte == b'/').collect();
    let is_own = |name: &str| names[0] == name.as_bytes();
    Some(if relative.len() > MAX_PATH || names.iter().any(|name| name.len() > MAX_NAME) {
        "is longer than a path may be"
    } else if names.len() > seal::MAX_DEPTH + 1 {
        "lies deeper than a file of a round may"
    } else if names.iter().any(|name| matches!(*name, b"" | b"." | b"..") || name.contains(&0)) {
        "is not a plain path below the round's directory"
    } else if is_own(layout::LOCK_FILE) {
        "is the lock of a running round, which does not travel"
    } else if names.len() > 1 && (is_own(layout::SEAL_FILE) || is_own(layout::REMOVED_FILE)) {
        "lies below what is a file"
    } else {
        return None;
    })
}

/// What is wrong with a link; none if it leads to a place in the round: relative, upwards only at its start, and not
/// above the round's directory. Then no way through other such links leads out either, since each starts in a real
/// directory of the round.
fn leads_out(link: &Path, target: &[u8]) -> Option<&'static str> {
    let parts = || Path::new(OsStr::from_bytes(target)).components();
    let above = parts().take_while(|part| *part == Component::ParentDir).count();
    let is_down = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if target.is_empty() || target.len() > MAX_PATH || target.contains(&0) {
        Some("is a link to what is no path")
    } else if above >= link.components().count() || !parts().skip(above).all(is_down) {
        Some("is a link that leads out of the round")
    } else {
        None
    }
}

/// Checks that the round is the one that it is named by.
fn check_identity(round: &RoundDirectory) -> Result<(), Deviation> {
    let file = round.read_round_file().map_err(Deviation::RoundFile)?;
    if file.round_id == *round.round_id() {
        return Ok(());
    }
    Err(Deviation::Identity { stands: file.round_id, named: round.round_id().clone() })
}

#[cfg(test)]
mod tests;
