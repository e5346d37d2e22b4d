//! Walks a round's directory: for its seal, and to sweep what was never finished.
//!
//! A symbolic link is sealed as the text of its target and never followed; sockets, pipes and devices have no
//! content and are left out.

use std::ffi::OsStr;
use std::fs::FileType;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::{StoreError, disk, io_error};
use crate::artifact::digest::Hasher;
use crate::artifact::{Seal, SealEntry, layout, seal};

/// Most files that a round may have.
pub(super) const MAX_FILES: usize = 500_000;
/// Most directories of a round that may lie within one another.
pub(super) const MAX_DEPTH: usize = 32;

/// Digests of all files of a round but its seal, its lock and the record of what was removed.
pub(super) fn digests(root: &Path) -> Result<Seal, StoreError> {
    files(root)?.into_iter().map(|(relative, kind)| entry(root, &relative, kind)).collect()
}

/// All plain files and links of a round that its seal lists.
pub(super) fn files(root: &Path) -> Result<Vec<(PathBuf, FileType)>, StoreError> {
    let outside = [layout::SEAL_FILE, layout::LOCK_FILE, layout::REMOVED_FILE].map(Path::new);
    let is_outside = |path: &Path| outside.contains(&path);
    Ok(walk(root)?.into_iter().filter(|(path, _)| !is_outside(path)).collect())
}

pub(super) fn entry(root: &Path, relative: &Path, kind: FileType) -> Result<SealEntry, StoreError> {
    let path = root.join(relative);
    let mut hasher = Hasher::default();
    let size = if kind.is_symlink() {
        let target = disk::read_link(&path).map_err(io_error("read", &path))?;
        let bytes = target.as_os_str().as_bytes();
        hasher.update(bytes);
        bytes.len() as u64
    } else {
        disk::open(&path).and_then(|file| hasher.read(file)).map_err(io_error("read", &path))?
    };
    Ok(SealEntry { path: seal::path_text(relative.as_os_str().as_bytes()), digest: hasher.finish(), size })
}

/// Removes files that a dead process was writing.
pub(super) fn remove_partial_files(root: &Path) -> Result<(), StoreError> {
    for path in partial_files(root)? {
        disk::remove_file(&path).map_err(io_error("remove", &path))?;
    }
    Ok(())
}

/// Files below `root` that are still being written, or that a dead process was writing.
pub(super) fn partial_files(root: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let is_partial = |relative: &Path| {
        let name = relative.file_name().map_or(&[] as &[u8], OsStr::as_bytes);
        name.starts_with(layout::PARTIAL_PREFIX.as_bytes())
    };
    let found = walk(root)?.into_iter().filter(|(relative, _)| is_partial(relative));
    Ok(found.map(|(relative, _)| root.join(relative)).collect())
}

/// All plain files and links below `root`, by relative path.
pub(super) fn walk(root: &Path) -> Result<Vec<(PathBuf, FileType)>, StoreError> {
    let too_many = || StoreError::TooMany { path: root.to_owned(), limit: MAX_FILES, depth: MAX_DEPTH };
    let mut found = Vec::new();
    let mut open = vec![(PathBuf::new(), 0)];
    while let Some((relative, depth)) = open.pop() {
        let directory = root.join(&relative);
        for entry in disk::list(&directory).map_err(io_error("list", &directory))? {
            let kind = entry.file_type().map_err(io_error("look at", &entry.path()))?;
            let relative = relative.join(entry.file_name());
            if kind.is_dir() {
                open.push((relative, depth + 1));
            } else if kind.is_file() || kind.is_symlink() {
                found.push((relative, kind));
            }
            if depth > MAX_DEPTH || found.len() + open.len() > MAX_FILES {
                return Err(too_many());
            }
        }
    }
    Ok(found)
}
