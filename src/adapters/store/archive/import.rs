//! An archive into a round, beside which it is unpacked, checked and then given its name.
//!
//! Whoever made the archive is not trusted. The seal comes first, and nothing is unpacked that it does not list with
//! this path and size; each file's digest is compared when it is written. A path that could lead out is refused before
//! anything is made, links included. What is read into memory is bounded: the seal, the record of what was removed,
//! two paths at a time, and the window of the decoder.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::entry::{self, Archive, Body, Entry, EntryReader, Kind};
use super::frame::{FrameReader, damaged};
use super::{ArchiveError, CHUNK, Deviation, Pulse, check_identity, leads_out, seal, unfit};
use crate::adapters::store::{MAX_ROUND_FILE, RoundDirectory, disk, io_error, whole};
use crate::artifact::digest::{Hasher, sha256};
use crate::artifact::seal::path_text;
use crate::artifact::{Seal, SealDifference, SealEntry, layout};
use crate::model::{Digest, RoundId};
use crate::report::Carried;

/// What an archive may come to.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most bytes that the round's files may have together.
    pub max_bytes: u64,
}

/// Unpacks an archive as a round of the data directory, whole or not at all.
///
/// # Errors
/// When it is no archive or damaged, holds anything but the round that its seal describes, is larger than allowed, or
/// such a round is there; when the disk refuses; when it was stopped.
pub fn import(
    data_dir: &Path,
    source: impl Read,
    limits: Limits,
    pulse: &Pulse,
) -> Result<Carried, ArchiveError> {
    let rounds = data_dir.join(layout::ROUNDS_DIR);
    let missing: Vec<&Path> = rounds.ancestors().take_while(|path| !path.exists()).collect();
    let imported = unpack(&rounds, source, limits, pulse);
    if imported.is_err() {
        // Those that are empty, from the deepest on.
        for path in missing {
            drop(std::fs::remove_dir(path));
        }
    }
    imported
}

fn unpack(rounds: &Path, source: impl Read, limits: Limits, pulse: &Pulse) -> Result<Carried, ArchiveError> {
    let mut archive = Archive::new(FrameReader::new(source).map_err(ArchiveError::Damaged)?);
    let mut entries = EntryReader::new(&mut archive)?;
    let (round_id, seal_bytes, sealed) = first(&mut entries)?;
    refuse_known(rounds, &round_id, &seal_bytes)?;
    pulse.expect(sealed.bytes());
    disk::create_dir_all(rounds).map_err(io_error("create", rounds))?;
    let building = tempfile::Builder::new()
        .prefix(layout::PARTIAL_PREFIX)
        .permissions(std::fs::Permissions::from_mode(0o777))
        .tempdir_in(rounds)
        .map_err(io_error("create a directory in", rounds))?;
    let room =
        Room { taken: 0, limit: limits.max_bytes, free: free_bytes(rounds)?, rounds: rounds.to_owned() };
    let round = RoundDirectory { round_id: round_id.clone(), path: building.path().to_owned() };
    let mut unpacking =
        Unpacking { round, sealed, removed: None, found: Vec::new(), room, last: None, pulse };
    unpacking.write(Path::new(layout::SEAL_FILE), &*seal_bytes)?;
    while let Some((entry, body)) = entries.next()? {
        unpacking.take(&entry, body)?;
    }
    entry::finish(archive)?.finish().map_err(ArchiveError::Damaged)?;
    let carried = unpacking.finish(&seal_bytes)?;
    publish(building, &rounds.join(layout::round_dir(&round_id)))?;
    Ok(carried)
}

/// Reads the first entry, which must be the seal: it says whose round it is.
fn first<R: Read>(entries: &mut EntryReader<'_, R>) -> Result<(RoundId, Vec<u8>, Seal), ArchiveError> {
    let not_first = |path: &[u8]| Deviation::SealNotFirst(path_text(path));
    let (entry, body) = entries.next()?.ok_or_else(|| not_first(b""))?;
    let name = std::str::from_utf8(&entry.path).ok();
    let round_id = name
        .and_then(|name| name.strip_suffix(layout::SEAL_FILE)?.strip_suffix('/'))
        .and_then(layout::round_of_dir)
        .ok_or_else(|| not_first(&entry.path))?;
    let Kind::File(size) = entry.kind else { return Err(not_first(&entry.path).into()) };
    let bytes = read_small(layout::SEAL_FILE, size, body)?;
    let sealed = Seal::parse(&bytes).map_err(Deviation::SealUnusable)?;
    if sealed.len() > seal::MAX_FILES {
        return Err(Deviation::TooMany(sealed.len()).into());
    }
    Ok((round_id, bytes, sealed))
}

/// Reads a file that is kept in memory.
fn read_small(name: &str, size: u64, mut body: impl Read) -> Result<Vec<u8>, ArchiveError> {
    if size > MAX_ROUND_FILE {
        return Err(Deviation::path(name, "is larger than any that this program writes").into());
    }
    let mut bytes = Vec::new();
    body.read_to_end(&mut bytes).map_err(ArchiveError::Damaged)?;
    if bytes.len() as u64 != size {
        return Err(ArchiveError::Damaged(damaged("it is cut off")));
    }
    Ok(bytes)
}

/// Refuses a round whose name is taken, and says whether by the same round.
fn refuse_known(rounds: &Path, round_id: &RoundId, seal_bytes: &[u8]) -> Result<(), ArchiveError> {
    let path = rounds.join(layout::round_dir(round_id));
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let known = RoundDirectory { round_id: round_id.clone(), path: path.clone() };
    match known.read(layout::SEAL_FILE, MAX_ROUND_FILE) {
        Ok(bytes) if bytes == seal_bytes => Err(ArchiveError::AlreadyHere(round_id.clone())),
        _ => Err(ArchiveError::AnotherIsHere(path)),
    }
}

/// Bytes that the disk has free.
fn free_bytes(path: &Path) -> Result<u64, ArchiveError> {
    let stat =
        rustix::fs::statvfs(path).map_err(|error| io_error("look at the disk of", path)(error.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Gives the round its name, if nothing has it.
fn publish(building: TempDir, path: &Path) -> Result<(), ArchiveError> {
    whole::sync_file_system(building.path())?;
    match disk::rename_new(building.path(), path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(ArchiveError::AnotherIsHere(path.to_owned()));
        }
        renamed => renamed.map_err(io_error("rename a directory to", path))?,
    }
    // It has its name, there is nothing to clear away.
    let _ = building.keep();
    Ok(whole::sync_dir(path.parent().unwrap_or(path))?)
}

/// How many bytes there may be.
struct Room {
    taken: u64,
    limit: u64,
    free: u64,
    rounds: PathBuf,
}

impl Room {
    /// Takes room for a file before any of it is written.
    fn take(&mut self, size: u64) -> Result<(), ArchiveError> {
        self.taken = self.taken.saturating_add(size);
        if self.taken > self.limit {
            return Err(ArchiveError::TooLarge(self.limit));
        }
        if self.taken > self.free {
            return Err(ArchiveError::NoRoom { path: self.rounds.clone(), free: self.free });
        }
        Ok(())
    }
}

/// A round that is being unpacked.
struct Unpacking<'a> {
    /// Where it is unpacked.
    round: RoundDirectory,
    sealed: Seal,
    /// The record of what was removed, where there is one.
    removed: Option<Seal>,
    found: Vec<SealEntry>,
    room: Room,
    /// Path of the last entry: they come in order, so none comes twice.
    last: Option<String>,
    pulse: &'a Pulse,
}

impl Unpacking<'_> {
    /// Takes the next entry: it must come in order, be listed in the seal, and be what the seal says of it.
    fn take(&mut self, entry: &Entry, body: Body<'_, impl Read>) -> Result<(), ArchiveError> {
        let refused = |why| Deviation::path(&path_text(&entry.path), why);
        let directory = layout::round_dir(&self.round.round_id);
        let relative = entry.path.strip_prefix(directory.as_bytes()).and_then(|path| path.strip_prefix(b"/"));
        let relative = relative
            .ok_or_else(|| refused("does not lie in the directory of the round whose seal came first"))?;
        if let Some(why) = unfit(relative) {
            return Err(refused(why).into());
        }
        let path = path_text(relative);
        if path == layout::SEAL_FILE || self.last.as_ref().is_some_and(|last| *last >= path) {
            return Err(refused("comes twice, or in another place than its path gives it").into());
        }
        self.last = Some(path.clone());
        let target = Path::new(OsStr::from_bytes(relative));
        if path == layout::REMOVED_FILE {
            return self.take_removed(target, (&entry.kind, body));
        }
        let Some((sealed, size)) = self.sealed.get(&path) else {
            return Err(Deviation::Seal(SealDifference::Unsealed(path)).into());
        };
        let sealed = sealed.clone();
        if path.match_indices('/').any(|(end, _)| self.sealed.get(&path[..end]).is_some()) {
            return Err(refused("lies below what is a file").into());
        }
        if entry.kind.size() != size {
            return Err(Deviation::Size { path, sealed: size, found: entry.kind.size() }.into());
        }
        self.room.take(size)?;
        let found = match &entry.kind {
            Kind::File(_) => self.write(target, body)?,
            Kind::Link(link) => self.link(target, link)?,
        };
        if found != sealed {
            return Err(Deviation::Seal(SealDifference::Changed { path, sealed, found }).into());
        }
        self.found.push(SealEntry { path, digest: found, size });
        Ok(())
    }

    /// Takes the record of what was removed.
    fn take_removed(
        &mut self,
        target: &Path,
        (kind, body): (&Kind, Body<'_, impl Read>),
    ) -> Result<(), ArchiveError> {
        let Kind::File(size) = *kind else {
            return Err(Deviation::path(layout::REMOVED_FILE, "is a link").into());
        };
        let bytes = read_small(layout::REMOVED_FILE, size, body)?;
        self.removed = Some(Seal::parse(&bytes).map_err(Deviation::RemovedUnusable)?);
        self.write(target, &*bytes).map(drop)
    }

    /// The path of a new file, whose directory is made.
    fn place(&self, relative: &Path) -> Result<PathBuf, ArchiveError> {
        let path = self.round.path.join(relative);
        let parent = path.parent().unwrap_or(&path);
        disk::create_dir_all(parent).map_err(io_error("create", parent))?;
        Ok(path)
    }

    /// Writes a new file and gives the digest of what was written.
    fn write(&self, relative: &Path, mut bytes: impl Read) -> Result<Digest, ArchiveError> {
        let path = self.place(relative)?;
        let file = disk::create_new(&path).map_err(io_error("create", &path))?;
        let mut hasher = Hasher::default();
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = bytes.read(&mut chunk).map_err(ArchiveError::Damaged)?;
            if count == 0 {
                return Ok(hasher.finish());
            }
            self.pulse.advance(count as u64)?;
            hasher.update(&chunk[..count]);
            disk::write_all(&file, &path, &chunk[..count]).map_err(io_error("write", &path))?;
        }
    }

    /// Makes a link that stays inside the round, and gives the digest of its target.
    fn link(&self, relative: &Path, link: &[u8]) -> Result<Digest, ArchiveError> {
        if let Some(why) = leads_out(relative, link) {
            return Err(Deviation::path(&path_text(relative.as_os_str().as_bytes()), why).into());
        }
        let path = self.place(relative)?;
        self.pulse.advance(link.len() as u64)?;
        disk::create_link(Path::new(OsStr::from_bytes(link)), &path).map_err(io_error("create", &path))?;
        Ok(sha256(link))
    }

    /// Checks that nothing is missing and that the round is the one that it is named by.
    fn finish(self, seal_bytes: &[u8]) -> Result<Carried, ArchiveError> {
        let found: Seal = self.found.into_iter().collect();
        let left = self.sealed.left_after(&self.removed.unwrap_or_default(), &found);
        if let Some(difference) = left.first_difference(&found) {
            return Err(Deviation::Seal(difference).into());
        }
        check_identity(&self.round)?;
        Ok(Carried {
            round_id: self.round.round_id,
            seal: sha256(seal_bytes),
            files: found.len() as u64,
            bytes: found.bytes(),
            removed: (self.sealed.len() - found.len()) as u64,
        })
    }
}
