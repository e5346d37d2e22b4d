//! The store's one door to the file system: every operation on a round's files passes here.
//!
//! Each does what the standard library does, for the path that it is told. In unit tests a plan may let any of them fail;
//! in the program nothing stands between.

use std::fs::{self, DirEntry, File, FileType, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags, renameat_with};
use tempfile::NamedTempFile;

#[cfg(test)]
pub(crate) mod faults;
#[cfg(test)]
use faults::pass;

/// What an operation does to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// Reads, or looks what is there.
    Read,
    /// Makes a file or a directory, or opens a file to write.
    Create,
    /// Writes bytes.
    Write,
    /// Waits until something is on disk.
    Flush,
    /// Gives a file its name.
    Rename,
    /// Removes a file, or the end of one.
    Remove,
    /// Takes a lock.
    Lock,
}

/// Where a test's plan may let an operation fail.
#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "fails in tests")]
fn pass(_: Operation, _: &Path) -> io::Result<()> {
    Ok(())
}

/// Makes a directory.
pub(super) fn create_dir(path: &Path) -> io::Result<()> {
    pass(Operation::Create, path)?;
    fs::create_dir(path)
}

/// Makes a directory and those above it that are missing.
pub(super) fn create_dir_all(path: &Path) -> io::Result<()> {
    pass(Operation::Create, path)?;
    fs::create_dir_all(path)
}

/// Whether something lies at a path, a link counted as what it leads to.
pub(super) fn exists(path: &Path) -> io::Result<bool> {
    pass(Operation::Read, path)?;
    path.try_exists()
}

/// What lies at a path; a link is not followed.
pub(super) fn kind(path: &Path) -> io::Result<FileType> {
    pass(Operation::Read, path)?;
    fs::symlink_metadata(path).map(|metadata| metadata.file_type())
}

/// What lies in a directory.
pub(super) fn list(path: &Path) -> io::Result<Vec<DirEntry>> {
    pass(Operation::Read, path)?;
    fs::read_dir(path)?.collect()
}

/// The path that a link leads to.
pub(super) fn read_link(path: &Path) -> io::Result<PathBuf> {
    pass(Operation::Read, path)?;
    fs::read_link(path)
}

/// Opens a file to read, without following a link and without waiting for a pipe's other end.
pub(super) fn open(path: &Path) -> io::Result<File> {
    pass(Operation::Read, path)?;
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

/// Reads an open file to its end, at most `limit` bytes of it.
pub(super) fn read(file: File, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    pass(Operation::Read, path)?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a file to read and write, and makes it if it is missing.
pub(super) fn open_or_create(path: &Path) -> io::Result<File> {
    pass(Operation::Create, path)?;
    let mut options = OpenOptions::new();
    // A job may have put a link in its place.
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options.read(true).write(true).create(true).truncate(false).open(path)
}

/// Makes a file that is not there yet, to write.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    pass(Operation::Create, path)?;
    File::create_new(path)
}

/// Makes a link to a target, which need not be there.
pub(super) fn create_link(target: &Path, path: &Path) -> io::Result<()> {
    pass(Operation::Create, path)?;
    std::os::unix::fs::symlink(target, path)
}

/// Gives a directory another name, if nothing has it.
pub(super) fn rename_new(path: &Path, target: &Path) -> io::Result<()> {
    pass(Operation::Rename, target)?;
    Ok(renameat_with(CWD, path, CWD, target, RenameFlags::NOREPLACE)?)
}

/// Makes a file without a lasting name in a directory.
pub(super) fn create_temporary(directory: &Path, prefix: &str) -> io::Result<NamedTempFile> {
    pass(Operation::Create, directory)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).permissions(Permissions::from_mode(0o666));
    // A program that is killed removes nothing.
    #[cfg(test)]
    builder.disable_cleanup(faults::is_going(directory));
    builder.tempfile_in(directory)
}

/// Writes all bytes to an open file.
pub(super) fn write_all(mut file: impl Write, path: &Path, bytes: &[u8]) -> io::Result<()> {
    // As a disk does that has room for a part.
    #[cfg(test)]
    let mut pass = |operation, path: &Path| {
        pass(operation, path).or_else(|fault| {
            file.write_all(&bytes[..faults::written_before_failing(path, bytes.len())])?;
            Err(fault)
        })
    };
    pass(Operation::Write, path)?;
    file.write_all(bytes)
}

/// Cuts an open file to its first `len` bytes.
pub(super) fn truncate(file: &File, path: &Path, len: u64) -> io::Result<()> {
    pass(Operation::Remove, path)?;
    file.set_len(len)
}

/// Waits until the bytes of an open file are on disk, and its length.
pub(super) fn sync_data(file: &File, path: &Path) -> io::Result<()> {
    pass(Operation::Flush, path)?;
    file.sync_data()
}

/// Waits until an open file is on disk with all that is known of it.
pub(super) fn sync(file: &File, path: &Path) -> io::Result<()> {
    pass(Operation::Flush, path)?;
    file.sync_all()
}

/// Waits until the names in a directory are on disk.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    pass(Operation::Flush, path)?;
    File::open(path)?.sync_all()
}

/// Waits until all that was written on the file system of a directory is on disk.
pub(super) fn sync_file_system(path: &Path) -> io::Result<()> {
    pass(Operation::Flush, path)?;
    Ok(rustix::fs::syncfs(File::open(path)?)?)
}

/// Gives a temporary file its name, in place of the file that has it.
pub(super) fn replace(file: NamedTempFile, target: &Path) -> io::Result<()> {
    pass(Operation::Rename, target)?;
    file.persist(target).map(drop).map_err(|error| error.error)
}

/// Gives a temporary file its name, if no file has it.
pub(super) fn name(file: NamedTempFile, target: &Path) -> io::Result<()> {
    pass(Operation::Rename, target)?;
    file.persist_noclobber(target).map(drop).map_err(|error| error.error)
}

/// Removes a file.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    pass(Operation::Remove, path)?;
    fs::remove_file(path)
}

/// Waits until a lock is free, and takes it.
pub(super) fn wait_for_lock(file: &File, path: &Path) -> io::Result<()> {
    pass(Operation::Lock, path)?;
    Ok(rustix::fs::flock(file, FlockOperation::LockExclusive)?)
}

/// Waits until nobody has a lock for itself.
pub(super) fn wait_for_shared_lock(file: &File, path: &Path) -> io::Result<()> {
    pass(Operation::Lock, path)?;
    Ok(rustix::fs::flock(file, FlockOperation::LockShared)?)
}

/// Whether somebody has a lock for itself; in the way of others for a moment.
pub(super) fn is_locked(file: &File, path: &Path) -> io::Result<bool> {
    try_lock(file, path, FlockOperation::NonBlockingLockShared).map(|is_taken| !is_taken)
}

/// The size of a file, in bytes.
pub(super) fn len(path: &Path) -> io::Result<u64> {
    pass(Operation::Read, path)?;
    fs::symlink_metadata(path).map(|metadata| metadata.len())
}

/// Takes a lock on an open file, without waiting; false if another process has it.
pub(super) fn lock(file: &File, path: &Path) -> io::Result<bool> {
    try_lock(file, path, FlockOperation::NonBlockingLockExclusive)
}

fn try_lock(file: &File, path: &Path, operation: FlockOperation) -> io::Result<bool> {
    pass(Operation::Lock, path)?;
    match rustix::fs::flock(file, operation) {
        Ok(()) => Ok(true),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => Ok(false),
        Err(error) => Err(error.into()),
    }
}
