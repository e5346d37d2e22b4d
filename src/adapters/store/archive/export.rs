//! A sealed round into an archive.
//!
//! The round is compared with its seal before the first byte is written, and each file again on its way, so that one
//! that changes in between fails the export. No file is held in memory.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::entry::{Entry, EntryWriter, Kind};
use super::frame::FrameWriter;
use super::{ArchiveError, Deviation, Pulse, check_identity, leads_out, seal, unfit};
use crate::adapters::store::{
    Existing, MAX_ROUND_FILE, PartialFile, RoundDirectory, StoreError, artifact_error, disk, io_error,
};
use crate::artifact::digest::{Hasher, sha256};
use crate::artifact::{Seal, SealDifference, SealEntry, layout};
use crate::model::Digest;
use crate::report::Carried;

/// Writes a round into a file, which appears whole or not at all.
///
/// # Errors
/// As [`export`], and when the file exists and must not be replaced, lies in the round, or cannot be written.
pub fn export_file(
    round: &RoundDirectory,
    target: &Path,
    existing: Existing,
    pulse: &Pulse,
) -> Result<Carried, ArchiveError> {
    let exists = || ArchiveError::FileExists(target.to_owned());
    if existing == Existing::Refuse && target.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let real = |path: &Path| path.canonicalize().map_err(io_error("find", path));
    if real(target.parent().unwrap_or(target))?.starts_with(real(round.path())?) {
        return Err(ArchiveError::Inside(target.to_owned()));
    }
    let travellers = Travellers::of(round, pulse)?;
    let mut file = PartialFile::begin(target.to_owned(), existing)?;
    let carried = travellers.write(&mut file, pulse)?;
    match file.finish() {
        Err(StoreError::Exists { .. }) => Err(exists()),
        finished => Ok(finished.map(|()| carried)?),
    }
}

/// Writes a round as an archive.
///
/// # Errors
/// When the round has no seal or is not what was sealed, a link of it leads out of it, or something cannot be read or
/// written. What was written by then is no archive.
pub fn export(round: &RoundDirectory, out: impl Write, pulse: &Pulse) -> Result<Carried, ArchiveError> {
    Travellers::of(round, pulse)?.write(out, pulse)
}

/// What goes into the archive.
struct Travellers<'a> {
    round: &'a RoundDirectory,
    seal_bytes: Vec<u8>,
    /// All but the seal, by their paths as the seal writes them.
    files: Vec<Traveller>,
    /// Number of sealed files that were removed since.
    removed: u64,
}

/// One file or link.
struct Traveller {
    entry: SealEntry,
    relative: PathBuf,
    /// The target of a link.
    target: Option<Vec<u8>>,
}

impl Traveller {
    fn read(root: &Path, relative: PathBuf, kind: std::fs::FileType) -> Result<Self, ArchiveError> {
        let entry = seal::entry(root, &relative, kind)?;
        let path = root.join(&relative);
        let target = kind.is_symlink().then(|| disk::read_link(&path)).transpose();
        let target = target.map_err(io_error("read", &path))?;
        Ok(Self { entry, relative, target: target.map(|target| target.as_os_str().as_bytes().to_owned()) })
    }

    /// Why an archive cannot hold it.
    fn hindrance(&self) -> Option<&'static str> {
        let link = self.target.as_ref().and_then(|target| leads_out(&self.relative, target));
        unfit(self.relative.as_os_str().as_bytes()).or(link)
    }
}

impl<'a> Travellers<'a> {
    /// Takes the digest of every file, and refuses a round that is not as sealed.
    fn of(round: &'a RoundDirectory, pulse: &Pulse) -> Result<Self, ArchiveError> {
        if !round.is_sealed() {
            return Err(ArchiveError::Unsealed(round.round_id().clone()));
        }
        let root = round.path();
        let seal_bytes = round.read(layout::SEAL_FILE, MAX_ROUND_FILE)?;
        let sealed = Seal::parse(&seal_bytes).map_err(artifact_error(&root.join(layout::SEAL_FILE)))?;
        let record = round.read_removed()?;
        // Each is read twice.
        pulse.expect(sealed.bytes().saturating_mul(2));
        let mut files = Vec::new();
        for (relative, kind) in seal::files(root)? {
            let file = Traveller::read(root, relative, kind)?;
            pulse.advance(file.entry.size)?;
            files.push(file);
        }
        let found: Seal = files.iter().map(|file| file.entry.clone()).collect();
        let refused = |difference| refused(round, difference);
        if let Some(difference) = sealed.left_after(&record, &found).first_difference(&found) {
            return Err(refused(Deviation::Seal(difference)));
        }
        for file in &files {
            if let Some(why) = file.hindrance() {
                return Err(refused(Deviation::path(&file.entry.path, why)));
            }
        }
        check_identity(round).map_err(refused)?;
        if record != Seal::default() {
            let relative = PathBuf::from(layout::REMOVED_FILE);
            let path = root.join(&relative);
            files.push(Traveller::read(root, relative, disk::kind(&path).map_err(io_error("read", &path))?)?);
        }
        files.sort_by(|left, right| left.entry.path.cmp(&right.entry.path));
        Ok(Self { round, seal_bytes, files, removed: (sealed.len() - found.len()) as u64 })
    }

    fn write(&self, out: impl Write, pulse: &Pulse) -> Result<Carried, ArchiveError> {
        let directory = layout::round_dir(self.round.round_id());
        let entry =
            |relative: &[u8], kind| Entry { path: [directory.as_bytes(), b"/", relative].concat(), kind };
        let mut writer = EntryWriter::new(FrameWriter::new(out).map_err(ArchiveError::Unwritable)?);
        let seal = entry(layout::SEAL_FILE.as_bytes(), Kind::File(self.seal_bytes.len() as u64));
        writer.append(&seal, &*self.seal_bytes).map_err(ArchiveError::Unwritable)?;
        for file in &self.files {
            let relative = file.relative.as_os_str().as_bytes();
            if let Some(target) = &file.target {
                let link = entry(relative, Kind::Link(target.clone()));
                writer.append(&link, io::empty()).map_err(ArchiveError::Unwritable)?;
                pulse.advance(file.entry.size)?;
                continue;
            }
            let path = self.round.path().join(&file.relative);
            let source = disk::open(&path).map_err(io_error("read", &path))?;
            let mut watched = Watched::new(source, file.entry.size, pulse);
            let appended = writer.append(&entry(relative, Kind::File(file.entry.size)), &mut watched);
            let found = watched.finish(appended, &path)?;
            if found != file.entry.digest {
                let (path, sealed) = (file.entry.path.clone(), file.entry.digest.clone());
                let difference = SealDifference::Changed { path, sealed, found };
                return Err(refused(self.round, Deviation::Seal(difference)));
            }
        }
        writer.finish().and_then(FrameWriter::finish).map_err(ArchiveError::Unwritable)?;
        let sealed = || self.files.iter().filter(|file| file.entry.path != layout::REMOVED_FILE);
        Ok(Carried {
            round_id: self.round.round_id().clone(),
            seal: sha256(&self.seal_bytes),
            files: sealed().count() as u64,
            bytes: sealed().map(|file| file.entry.size).sum(),
            removed: self.removed,
        })
    }
}

fn refused(round: &RoundDirectory, difference: Deviation) -> ArchiveError {
    ArchiveError::NotAsSealed { round_id: round.round_id().clone(), difference: Box::new(difference) }
}

/// A file on its way: its bytes are hashed, and no more of them given than were sealed.
struct Watched<'a, R> {
    source: R,
    left: u64,
    hasher: Hasher,
    pulse: &'a Pulse,
    /// Why it could not be read to its end.
    failure: Option<Failure>,
}

/// Why a file was not read to its end.
enum Failure {
    Stopped,
    Unreadable(io::Error),
}

impl<'a, R: Read> Watched<'a, R> {
    fn new(source: R, size: u64, pulse: &'a Pulse) -> Self {
        Self { source, left: size, hasher: Hasher::default(), pulse, failure: None }
    }

    fn fail(&mut self, failure: Failure) -> io::Error {
        self.failure = Some(failure);
        io::ErrorKind::Other.into()
    }

    /// The digest of the whole file, once it was written.
    fn finish(mut self, appended: io::Result<()>, path: &Path) -> Result<Digest, ArchiveError> {
        match self.failure.take() {
            Some(Failure::Stopped) => return Err(ArchiveError::Stopped),
            Some(Failure::Unreadable(error)) => return Err(io_error("read", path)(error).into()),
            None => appended.map_err(ArchiveError::Unwritable)?,
        }
        // Where a byte more is there than was sealed, the digest is another.
        self.hasher.read(self.source.take(1)).map_err(io_error("read", path))?;
        Ok(self.hasher.finish())
    }
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let most = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = match self.source.read(&mut bytes[..most]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => return Err(self.fail(Failure::Unreadable(error))),
            Ok(count) => count,
        };
        self.hasher.update(&bytes[..count]);
        self.left -= count as u64;
        self.pulse.advance(count as u64).map_err(|_| self.fail(Failure::Stopped))?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::text::error_chain;

    #[test]
    fn a_file_that_changes_under_way_fails_the_export() {
        let check = |bytes: &[u8], sealed: u64, why: &str| {
            let pulse = Pulse::default();
            let mut watched = Watched::new(bytes, sealed, &pulse);
            let mut written = Vec::new();
            let appended = io::copy(&mut watched, &mut written).map(drop);
            let found = watched.finish(appended, Path::new("x")).expect("reads");
            assert!(written.len() as u64 <= sealed, "{why}");
            assert_eq!(found == sha256(b"abc"), why.is_empty(), "{why}");
        };
        check(b"abc", 3, "");
        check(b"abd", 3, "changed");
        check(b"ab", 3, "shorter");
        check(b"abcd", 3, "longer");
    }

    #[test]
    fn a_round_that_changes_after_it_was_checked_is_not_written() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let id: crate::model::RoundId = "demo-1".parse().expect("an id");
        let round = RoundDirectory::create(place.path(), &id).expect("a new round");
        round.write_whole("a", b"abc").expect("writes");
        let seal_bytes = round.seal().expect("seals").to_string().into_bytes();
        let kind = disk::kind(&round.path().join("a")).expect("is there");
        let file = Traveller::read(round.path(), "a".into(), kind).expect("reads");
        let travellers = Travellers { round: &round, seal_bytes, files: vec![file], removed: 0 };
        travellers.write(io::sink(), &Pulse::default()).expect("writes");
        for changed in ["abd", "ab", "abcd"] {
            std::fs::write(round.path().join("a"), changed).expect("writes");
            let error = travellers.write(io::sink(), &Pulse::default()).expect_err("changed");
            assert!(error_chain(&error).contains("`a` was sealed as"), "{error:?}");
        }
    }
}
