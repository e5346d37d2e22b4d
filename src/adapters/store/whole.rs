//! Files that are whole: written beside where they will lie, flushed, renamed; read with a bound.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Component, Path, PathBuf};

use tempfile::NamedTempFile;

use super::{StoreError, disk, io_error};
use crate::artifact::layout::PARTIAL_PREFIX;

/// What to do about a file that is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Replace it in one step.
    Replace,
    /// Leave it and fail.
    Refuse,
}

/// The names of a relative path, all of them plain.
fn names(root: &Path, relative: &str) -> Result<Vec<PathBuf>, StoreError> {
    let escapes = || StoreError::Escapes { path: root.join(relative) };
    let names: Option<Vec<PathBuf>> = Path::new(relative)
        .components()
        .map(|component| {
            matches!(component, Component::Normal(_)).then(|| PathBuf::from(component.as_os_str()))
        })
        .collect();
    names.filter(|names| !names.is_empty() && !relative.contains('\0')).ok_or_else(escapes)
}

/// Makes a directory below `root` that is not there yet, and those above it, step by step, through no link.
pub(super) fn new_directory(root: &Path, relative: &str) -> Result<PathBuf, StoreError> {
    let mut names = names(root, relative)?;
    let last = names.pop();
    let parent = descend(root, names)?;
    let path = last.map_or_else(|| parent.clone(), |last| parent.join(last));
    match disk::create_dir(&path) {
        Ok(()) => sync_dir(&parent)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(StoreError::Exists { path });
        }
        Err(error) => return Err(io_error("create", &path)(error)),
    }
    Ok(path)
}

fn descend(root: &Path, names: impl IntoIterator<Item = PathBuf>) -> Result<PathBuf, StoreError> {
    let mut path = root.to_owned();
    for name in names {
        let parent = path.clone();
        path.push(name);
        match disk::create_dir(&path) {
            Ok(()) => sync_dir(&parent)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_is_dir(&path)?,
            Err(error) => return Err(io_error("create", &path)(error)),
        }
    }
    Ok(path)
}

fn check_is_dir(path: &Path) -> Result<(), StoreError> {
    let kind = disk::kind(path).map_err(io_error("look at", path))?;
    if kind.is_dir() { Ok(()) } else { Err(StoreError::Escapes { path: path.to_owned() }) }
}

/// The path of a file below `root`, whose directory is made.
pub(super) fn target(root: &Path, relative: &str) -> Result<PathBuf, StoreError> {
    let mut names = names(root, relative)?;
    let name = names.pop().unwrap_or_default();
    let target = descend(root, names)?.join(name);
    match disk::kind(&target) {
        Ok(kind) if kind.is_file() => Ok(target),
        Ok(_) => Err(StoreError::Escapes { path: target }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(target),
        Err(error) => Err(io_error("look at", &target)(error)),
    }
}

/// Writes all bytes to a file, or leaves it as it was.
pub(super) fn write(target: &Path, bytes: &[u8], existing: Existing) -> Result<(), StoreError> {
    let mut file = PartialFile::begin(target.to_owned(), existing)?;
    file.write_all(bytes).map_err(io_error("write", target))?;
    file.finish()
}

/// A file on its way to its name: a temporary one in the same directory, removed if it is dropped.
#[derive(Debug)]
pub struct PartialFile {
    file: NamedTempFile,
    target: PathBuf,
    existing: Existing,
}

impl PartialFile {
    pub(super) fn begin(target: PathBuf, existing: Existing) -> Result<Self, StoreError> {
        let directory = target.parent().unwrap_or(&target);
        let file = disk::create_temporary(directory, PARTIAL_PREFIX)
            .map_err(io_error("create a file in", directory))?;
        Ok(Self { file, target, existing })
    }

    /// Gives the file its name: flushed to disk, renamed, and the directory flushed, so that after a power cut
    /// the name leads to the whole file or to the old one.
    ///
    /// # Errors
    /// When the disk refuses, or the file exists and must not be replaced.
    pub fn finish(self) -> Result<(), StoreError> {
        let Self { file, target, existing } = self;
        disk::sync(file.as_file(), &target).map_err(io_error("flush", &target))?;
        let named = match existing {
            Existing::Replace => disk::replace(file, &target),
            Existing::Refuse => disk::name(file, &target),
        };
        match named {
            Err(error) if existing == Existing::Refuse && error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(StoreError::Exists { path: target });
            }
            result => result.map_err(io_error("rename a file to", &target))?,
        }
        sync_dir(target.parent().unwrap_or(&target))
    }
}

impl io::Write for PartialFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        disk::write_all(&mut self.file, &self.target, bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Flushes the names in a directory.
pub(super) fn sync_dir(path: &Path) -> Result<(), StoreError> {
    disk::sync_dir(path).map_err(io_error("flush", path))
}

/// Waits until all that was written on the file system of a directory is on disk.
pub(super) fn sync_file_system(path: &Path) -> Result<(), StoreError> {
    disk::sync_file_system(path).map_err(io_error("flush", path))
}

/// Opens a plain file below `root`, through no link.
pub(super) fn open(root: &Path, relative: &str) -> Result<(File, PathBuf), StoreError> {
    let names = names(root, relative)?;
    let mut path = root.to_owned();
    let last = names.len() - 1;
    for (depth, name) in names.into_iter().enumerate() {
        path.push(name);
        let kind = disk::kind(&path).map_err(io_error("read", &path))?;
        let is_right = if depth == last { kind.is_file() } else { kind.is_dir() };
        if !is_right {
            return Err(StoreError::Escapes { path });
        }
    }
    let file = disk::open(&path).map_err(io_error("read", &path))?;
    Ok((file, path))
}

/// Reads a file of at most `limit` bytes.
pub(super) fn read(root: &Path, relative: &str, limit: u64) -> Result<Vec<u8>, StoreError> {
    let (file, path) = open(root, relative)?;
    let bytes = disk::read(file, &path, limit.saturating_add(1)).map_err(io_error("read", &path))?;
    if bytes.len() as u64 > limit {
        return Err(StoreError::TooLarge { path, limit });
    }
    Ok(bytes)
}
