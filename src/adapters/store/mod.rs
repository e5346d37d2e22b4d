//! The round's directory on a local disk: `data/rounds/round=<id>/`.
//!
//! A file appears whole or not at all, a sealed round does not change, one process at a time runs a round,
//! and nothing is written or read outside the directory, whatever links a job left in it. What the bytes mean
//! is `artifact`'s business.
#![expect(clippy::disallowed_methods, reason = "this is the module that touches files")]

pub mod archive;
mod derive;
mod disk;
mod groups;
mod health;
mod journal;
mod removal;
mod rounds;
mod runners;
mod seal;
mod ticks;
mod whole;

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::artifact::{
    self, ArtifactError, LegAttempt, Projection, PublishedTable, Replay, RoundFile, SealDifference, Table,
    TableContext, layout,
};
use crate::artifact::{Seal, digest, journal as journal_format};
use crate::model::RoundId;

pub use derive::Derivation;
#[cfg(test)]
pub(crate) use disk::faults;
pub use groups::{Ahead, Displaces, Group, Member, Place, is_waiting};
pub use health::RoundsHealth;
pub(super) use health::health;
#[cfg(test)]
pub(crate) use journal::JournalFile;
pub use journal::JournalWriter;
pub(super) use removal::leftovers;
pub use removal::{plan_removal, remove};
pub(super) use rounds::directories;
pub use rounds::{list_rounds, round_detail};
pub use runners::{change_runner, list_runners, read_runner};
pub use ticks::{TickJournal, TickTurn, read_ticks};
pub use whole::{Existing, PartialFile};

/// How often a lock is tried whose holder is not known yet.
const LOCK_TRIES: u32 = 100;
/// How long its holder is waited for each time.
const LOCK_WAIT: Duration = Duration::from_millis(2);
/// Largest `round.json` that is read, in bytes.
const MAX_ROUND_FILE: u64 = 64 << 20;
/// Largest journal that is read, in bytes.
const MAX_JOURNAL: u64 = 1 << 30;
/// Largest table that is read, in bytes.
const MAX_TABLE: u64 = 1 << 30;

/// Why something could not be stored or read back.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused: the disk is full, a permission is missing, ...
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or directory it was attempted on.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A round of this name exists.
    #[error("the round `{path}` exists: choose another id by `--round`, or none")]
    RoundExists {
        /// Directory of the round.
        path: PathBuf,
    },
    /// There is no such round.
    #[error("there is no round at `{path}`")]
    RoundMissing {
        /// Where its directory would be.
        path: PathBuf,
    },
    /// Another process runs the round.
    #[error("the round is held by {}: see `{path}`", match .holder {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    })]
    Locked {
        /// Path of the lock file.
        path: PathBuf,
        /// Id of the process, where the lock file names it.
        holder: Option<u32>,
    },
    /// A concurrency group has as many waiting rounds as it may have.
    #[error(
        "{waiting} rounds of the concurrency group `{group}` wait already: start this one when some of them are done"
    )]
    GroupFull {
        /// Name of the group.
        group: String,
        /// How many rounds wait.
        waiting: usize,
    },
    /// A path leads out of the round's directory, or through something that is neither file nor directory.
    #[error("`{path}` is not a path inside the round's directory")]
    Escapes {
        /// The path that was refused.
        path: PathBuf,
    },
    /// A file that is written once exists.
    #[error("`{path}` exists and is written only once")]
    Exists {
        /// The file that exists.
        path: PathBuf,
    },
    /// A file of a sealed round was to be written.
    #[error("the round is sealed: `{path}` was not written")]
    Sealed {
        /// The file that should have been written.
        path: PathBuf,
    },
    /// A file of a sealed round is not what was sealed.
    #[error("`{path}` cannot be taken over: {difference}")]
    NotAsSealed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        difference: Box<SealDifference>,
    },
    /// A file is larger than anything this program writes.
    #[error("`{path}` is larger than {limit} bytes")]
    TooLarge {
        /// The file that is too large.
        path: PathBuf,
        /// Most bytes it may have.
        limit: u64,
    },
    /// A round has more files, or deeper directories, than any of this program's.
    #[error("`{path}` holds more than {limit} files, or directories more than {depth} deep")]
    TooMany {
        /// The directory where that was found.
        path: PathBuf,
        /// Most files that a round may have.
        limit: usize,
        /// Most directories that may lie within one another.
        depth: usize,
    },
    /// The bytes of a file are not what they should be.
    #[error("`{path}` is not usable")]
    Artifact {
        /// The file that could not be understood.
        path: PathBuf,
        /// What is wrong with its bytes.
        source: ArtifactError,
    },
    /// Another process removes rounds.
    #[error("another process removes rounds in `{path}`: wait until it has ended")]
    Removing {
        /// The directory of the rounds.
        path: PathBuf,
    },
    /// A file of a sealed round is not what was sealed.
    #[error("`{path}` is not what was sealed: it was left where it is")]
    AlteredStream {
        /// The file.
        path: PathBuf,
    },
    /// An earlier append failed and could not be undone.
    #[error("`{path}` may end in half a line since an append failed: nothing more is written to it")]
    JournalBroken {
        /// Path of the journal.
        path: PathBuf,
    },
}

impl StoreError {
    /// What somebody can do about it before the round is taken up again; none where nothing is wrong with the disk.
    pub fn remedy(&self) -> Option<&'static str> {
        use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        match self {
            Self::Io { source, .. } => Some(match source.kind() {
                StorageFull | QuotaExceeded => "free space",
                ReadOnlyFilesystem | PermissionDenied => "make the directory writable",
                _ => "look after the disk",
            }),
            Self::JournalBroken { .. } => Some("look after the disk"),
            _ => None,
        }
    }

    /// Whether the error says that a file is not there.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Asks a process that has a round to end gently; one that has ended is what was wanted.
pub fn ask_to_stop(pid: u32) {
    if let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(process, Signal::TERM);
    }
}

/// Waits for a turn at a directory that several processes write, and makes the directory; nobody else has a turn until the
/// file is dropped.
fn turn_at(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join(layout::LOCK_FILE);
    disk::create_dir_all(directory).map_err(io_error("create", directory))?;
    let lock = disk::open_or_create(&path).map_err(io_error("open", &path))?;
    disk::wait_for_lock(&lock, &path).map_err(io_error("lock", &path))?;
    Ok(lock)
}

/// Makes the error of a system call.
fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { action, path: path.to_owned(), source }
}

/// Makes the error of a bad artifact.
fn artifact_error(path: &Path) -> impl FnOnce(ArtifactError) -> StoreError {
    move |source| StoreError::Artifact { path: path.to_owned(), source }
}

/// The directory of one round.
#[derive(Debug, Clone)]
pub struct RoundDirectory {
    round_id: RoundId,
    path: PathBuf,
}

/// Held while a process runs a round; released when dropped, or when the process dies.
#[derive(Debug)]
pub struct RoundLock {
    /// The lock lives as long as this open file.
    file: File,
}

impl Drop for RoundLock {
    fn drop(&mut self) {
        // Nobody holds it now; if this fails, the process in it will soon be seen to be dead.
        drop(self.file.set_len(0));
    }
}

impl RoundDirectory {
    /// Makes the directory of a new round.
    ///
    /// # Errors
    /// When the round exists, or the disk refuses.
    pub fn create(data_dir: &Path, round_id: &RoundId) -> Result<Self, StoreError> {
        let rounds = data_dir.join(layout::ROUNDS_DIR);
        disk::create_dir_all(&rounds).map_err(io_error("create", &rounds))?;
        let path = rounds.join(layout::round_dir(round_id));
        let round = Self { round_id: round_id.clone(), path };
        let path = &round.path;
        match disk::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => round.refuse_begun()?,
            result => result.map_err(io_error("create", path))?,
        }
        whole::sync_dir(&rounds)?;
        Ok(round)
    }

    /// Refuses a round that has begun. A program that ended before it said what its round is made of left a name with
    /// nothing behind it, which may be taken: who has the lock has the round.
    fn refuse_begun(&self) -> Result<(), StoreError> {
        let entries = disk::list(&self.path).map_err(io_error("list", &self.path))?;
        let is_trace = |name: &str| name == layout::LOCK_FILE || name.starts_with(layout::PARTIAL_PREFIX);
        if entries.iter().all(|entry| entry.file_name().to_str().is_some_and(is_trace)) {
            return Ok(());
        }
        Err(match self.holder() {
            holder @ Some(_) => StoreError::Locked { path: self.path.join(layout::LOCK_FILE), holder },
            None => StoreError::RoundExists { path: self.path.clone() },
        })
    }

    /// The directory of a round that exists.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn open(data_dir: &Path, round_id: &RoundId) -> Result<Self, StoreError> {
        let path = data_dir.join(layout::ROUNDS_DIR).join(layout::round_dir(round_id));
        match disk::kind(&path) {
            Ok(kind) if kind.is_dir() || kind.is_symlink() && path.is_dir() => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("look at", &path)(error));
            }
            _ => return Err(StoreError::RoundMissing { path }),
        }
        Ok(Self { round_id: round_id.clone(), path })
    }

    /// Id of the round.
    pub fn round_id(&self) -> &RoundId {
        &self.round_id
    }

    /// Path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the round for this process, without waiting, and removes what a dead one left half-written.
    ///
    /// # Errors
    /// When another process holds it; the error names the process.
    pub fn lock(&self) -> Result<RoundLock, StoreError> {
        let path = self.path.join(layout::LOCK_FILE);
        let mut lock = self.claim()?;
        let pid = format!("{}\n", std::process::id());
        disk::truncate(&lock.file, &path, 0)
            .and_then(|()| lock.file.rewind())
            .and_then(|()| disk::write_all(&lock.file, &path, pid.as_bytes()))
            .map_err(io_error("write", &path))?;
        seal::remove_partial_files(&self.path)?;
        Ok(lock)
    }

    /// Takes the round without a word of who holds it, and leaves all its files as they are.
    fn claim(&self) -> Result<RoundLock, StoreError> {
        let path = self.path.join(layout::LOCK_FILE);
        Ok(RoundLock { file: self.lock_file(&path)? })
    }

    /// Whether a process holds the round, found without writing anything; in the way of others for a moment.
    ///
    /// # Errors
    /// When the lock cannot be tried.
    pub fn is_held(&self) -> Result<bool, StoreError> {
        let path = self.path.join(layout::LOCK_FILE);
        let file = match disk::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened.map_err(io_error("open", &path))?,
        };
        disk::is_locked(&file, &path).map_err(io_error("lock", &path))
    }

    /// The lock's file, locked. Who holds it has not said so at once: it is asked again until it says who it is.
    fn lock_file(&self, path: &Path) -> Result<File, StoreError> {
        let mut tries = 0;
        loop {
            let file = disk::open_or_create(path).map_err(io_error("open", path))?;
            if disk::lock(&file, path).map_err(io_error("lock", path))? {
                return Ok(file);
            }
            let holder = self.holder();
            tries += 1;
            if holder.is_some() || tries == LOCK_TRIES {
                return Err(StoreError::Locked { path: path.to_owned(), holder });
            }
            std::thread::sleep(LOCK_WAIT);
        }
    }

    /// Id of the process that runs the round, found by trying to take it: none if nobody runs it. Surer than
    /// [`RoundDirectory::holder`], whose number may be that of another process by now, but in the way of others for a
    /// moment.
    ///
    /// # Errors
    /// When the lock cannot be tried, or does not name who holds it.
    pub fn running(&self) -> Result<Option<u32>, StoreError> {
        match self.lock() {
            Ok(_) => Ok(None),
            Err(StoreError::Locked { holder: Some(pid), .. }) => Ok(Some(pid)),
            Err(error) => Err(error),
        }
    }

    /// Id of the living process that holds the round; none if none does.
    pub fn holder(&self) -> Option<u32> {
        let pid = read_pid(File::open(self.path.join(layout::LOCK_FILE)).ok()?)?;
        let process = Pid::from_raw(i32::try_from(pid).ok()?)?;
        (test_kill_process(process) != Err(rustix::io::Errno::SRCH)).then_some(pid)
    }

    /// Writes a file, or replaces it: afterwards it holds all of `bytes`, or what it held before.
    ///
    /// # Errors
    /// When the path leaves the directory, the round is sealed, or the disk refuses.
    pub fn write_whole(&self, relative: &str, bytes: &[u8]) -> Result<PathBuf, StoreError> {
        self.write(relative, bytes, whole::Existing::Replace)
    }

    /// Writes a file that must not exist yet.
    ///
    /// # Errors
    /// As [`RoundDirectory::write_whole`], and when it exists.
    pub fn write_once(&self, relative: &str, bytes: &[u8]) -> Result<PathBuf, StoreError> {
        self.write(relative, bytes, whole::Existing::Refuse)
    }

    /// Begins a file that is written some bytes at a time, and appears, or replaces the old one, when it is
    /// finished.
    ///
    /// # Errors
    /// As [`RoundDirectory::write_whole`].
    pub fn begin_whole(&self, relative: &str) -> Result<PartialFile, StoreError> {
        PartialFile::begin(self.target(relative)?, whole::Existing::Replace)
    }

    fn write(&self, relative: &str, bytes: &[u8], existing: whole::Existing) -> Result<PathBuf, StoreError> {
        let target = self.target(relative)?;
        whole::write(&target, bytes, existing)?;
        Ok(target)
    }

    fn target(&self, relative: &str) -> Result<PathBuf, StoreError> {
        let target = whole::target(&self.path, relative)?;
        self.refuse_sealed(&target)?;
        Ok(target)
    }

    /// Refuses to write a file of a sealed round, or of one of which it cannot be seen.
    fn refuse_sealed(&self, target: &Path) -> Result<(), StoreError> {
        let seal = self.path.join(layout::SEAL_FILE);
        if disk::exists(&seal).map_err(io_error("look at", &seal))? {
            return Err(StoreError::Sealed { path: target.to_owned() });
        }
        Ok(())
    }

    /// Reads a file of at most `limit` bytes.
    ///
    /// # Errors
    /// When it is absent, larger, not a plain file, or reached through a link.
    pub fn read(&self, relative: &str, limit: u64) -> Result<Vec<u8>, StoreError> {
        whole::read(&self.path, relative, limit)
    }

    /// Opens a plain file of the round, through no link, and says where it lies.
    ///
    /// # Errors
    /// When it is absent, not a plain file, or reached through a link.
    pub fn open_file(&self, relative: &str) -> Result<(File, PathBuf), StoreError> {
        whole::open(&self.path, relative)
    }

    /// The seal of the round; none if it is not sealed.
    ///
    /// # Errors
    /// When there is a seal that cannot be read.
    pub fn read_seal(&self) -> Result<Option<Seal>, StoreError> {
        match self.sealed() {
            Err(error) if error.is_absence() => Ok(None),
            sealed => sealed.map(Some),
        }
    }

    /// Makes the directory of one attempt of a leg; see [`layout::attempt_path`].
    ///
    /// # Errors
    /// When it is there already, for no attempt runs twice; when the round is sealed, or the disk refuses.
    pub fn new_attempt_dir(&self, job: &str, leg: &str, attempt: u32) -> Result<PathBuf, StoreError> {
        let relative = layout::attempt_path(job, leg, attempt);
        self.refuse_sealed(&self.path.join(&relative))?;
        whole::new_directory(&self.path, &relative)
    }

    /// Writes `round.json`, once.
    ///
    /// # Errors
    /// When it exists, or the disk refuses.
    pub fn write_round_file(&self, file: &RoundFile) -> Result<PathBuf, StoreError> {
        let path = self.path.join(layout::ROUND_FILE);
        self.write_once(layout::ROUND_FILE, &file.encode().map_err(artifact_error(&path))?)
    }

    /// Reads `round.json`.
    ///
    /// # Errors
    /// When it is absent or damaged.
    pub fn read_round_file(&self) -> Result<RoundFile, StoreError> {
        let path = self.path.join(layout::ROUND_FILE);
        RoundFile::decode(&self.read(layout::ROUND_FILE, MAX_ROUND_FILE)?).map_err(artifact_error(&path))
    }

    /// Writes a table and says what was written.
    ///
    /// # Errors
    /// When the rows cannot be encoded, the round is sealed, or the disk refuses.
    pub fn write_table<T: Table>(&self, rows: &[T]) -> Result<PublishedTable, StoreError> {
        let relative = layout::table_path(T::NAME);
        let context = TableContext { round_id: &self.round_id };
        let bytes = artifact::encode(rows, &context).map_err(artifact_error(&self.path.join(&relative)))?;
        self.write_whole(&relative, &bytes)?;
        let digest = digest::sha256(&bytes);
        Ok(PublishedTable { table: T::NAME.to_owned(), path: relative, digest, rows: rows.len() as u64 })
    }

    /// Reads a table, or what a projection takes of it.
    ///
    /// # Errors
    /// When it is absent, damaged, or not this table.
    pub fn read_table<P: Projection>(&self) -> Result<Vec<P>, StoreError> {
        self.read_rows_at(&layout::table_path(P::Row::NAME))
    }

    /// Reads the rows of a table that an attempt left.
    ///
    /// # Errors
    /// When they are absent or damaged.
    pub fn read_rows<P: Projection>(&self, at: &LegAttempt) -> Result<Vec<P>, StoreError> {
        let directory = layout::attempt_path(&at.job, &at.leg, at.attempt);
        self.read_rows_at(&format!("{directory}/{}.parquet", P::Row::NAME))
    }

    fn read_rows_at<P: Projection>(&self, relative: &str) -> Result<Vec<P>, StoreError> {
        let bytes = self.read(relative, MAX_TABLE)?;
        artifact::decode(&bytes).map_err(artifact_error(&self.path.join(relative)))
    }

    /// Reads the journal without touching it; empty if there is none yet.
    ///
    /// # Errors
    /// When it is damaged before its last line, or of a newer format.
    pub fn read_journal(&self) -> Result<Replay, StoreError> {
        let path = self.path.join(layout::JOURNAL_FILE);
        let bytes = match self.read(layout::JOURNAL_FILE, MAX_JOURNAL) {
            Err(error) if error.is_absence() => Vec::new(),
            result => result?,
        };
        journal_format::replay(&bytes).map_err(artifact_error(&path))
    }

    /// Opens the journal to go on writing: cuts off what was never finished and returns what is there. Hold the
    /// [`RoundLock`] while the writer lives.
    ///
    /// # Errors
    /// When it is damaged before its last line or of an older format, the round is sealed, or the disk refuses.
    pub fn open_journal(&self) -> Result<(JournalWriter, Replay), StoreError> {
        let path = self.path.join(layout::JOURNAL_FILE);
        self.refuse_sealed(&path)?;
        let replay = self.read_journal()?;
        let (found, expected) = (replay.schema, journal_format::SCHEMA);
        if found < expected {
            return Err(artifact_error(&path)(ArtifactError::JournalOlder { found, expected }));
        }
        Ok((JournalWriter::open(path, &replay)?, replay))
    }

    /// Whether the round has a seal.
    pub fn is_sealed(&self) -> bool {
        self.path.join(layout::SEAL_FILE).exists()
    }

    /// Writes `SEAL`: the digests of every file but itself and the lock. From then on the round is read-only.
    ///
    /// # Errors
    /// When there is a seal already, a file cannot be read, or the disk refuses.
    pub fn seal(&self) -> Result<Seal, StoreError> {
        // At once, for a round may have many thousands of small files.
        whole::sync_file_system(&self.path)?;
        let seal = seal::digests(&self.path)?;
        let target = whole::target(&self.path, layout::SEAL_FILE)?;
        whole::write(&target, seal.to_string().as_bytes(), whole::Existing::Refuse)?;
        Ok(seal)
    }

    /// Paths of all plain files below a directory of the round, relative to the round's, in order.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn files_below(&self, relative: &str) -> Result<Vec<String>, StoreError> {
        let found = seal::walk(&self.path.join(relative))?;
        let mut paths: Vec<String> =
            found.into_iter().map(|(path, _)| format!("{relative}/{}", path.display())).collect();
        paths.sort_unstable();
        Ok(paths)
    }

    /// Digest of a file of the round.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file_digest(&self, relative: &str) -> Result<crate::model::Digest, StoreError> {
        let (file, path) = self.open_file(relative)?;
        let mut hasher = digest::Hasher::default();
        hasher.read(file).map_err(io_error("read", &path))?;
        Ok(hasher.finish())
    }

    /// The first difference between the round and its seal; none if it is what was sealed. Raw streams may be gone whose
    /// removal is on record in `REMOVED`.
    ///
    /// # Errors
    /// When there is no readable seal, the record cannot be read, or a file cannot be read.
    pub fn check_seal(&self) -> Result<Option<SealDifference>, StoreError> {
        let sealed = self.sealed()?;
        let found = seal::digests(&self.path)?;
        Ok(sealed.left_after(&self.read_removed()?, &found).first_difference(&found))
    }

    /// The seal of a sealed round.
    fn sealed(&self) -> Result<Seal, StoreError> {
        let bytes = self.read(layout::SEAL_FILE, MAX_ROUND_FILE)?;
        Seal::parse(&bytes).map_err(artifact_error(&self.path.join(layout::SEAL_FILE)))
    }

    /// What was removed since the round was sealed; empty where nothing was.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn read_removed(&self) -> Result<Seal, StoreError> {
        match self.read(layout::REMOVED_FILE, MAX_ROUND_FILE) {
            Err(error) if error.is_absence() => Ok(Seal::default()),
            read => Seal::parse(&read?).map_err(artifact_error(&self.path.join(layout::REMOVED_FILE))),
        }
    }
}

/// Reads a file that lies in the data directory itself.
///
/// # Errors
/// As [`RoundDirectory::read`].
pub(super) fn read_data_file(data_dir: &Path, name: &str, limit: u64) -> Result<Vec<u8>, StoreError> {
    whole::read(data_dir, name, limit)
}

/// Writes a file that lies in the data directory itself, whole, over the one that is there.
///
/// # Errors
/// As [`RoundDirectory::write_whole`].
pub(super) fn write_data_file(data_dir: &Path, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    whole::write(&whole::target(data_dir, name)?, bytes, whole::Existing::Replace)
}

/// The process id in a lock file; none if there is none.
fn read_pid(file: File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests;
