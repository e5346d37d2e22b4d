//! Concurrency groups: rounds of one group run one after another, whoever starts them.
//!
//! Each round of a group has a place in the group's queue: a file with a number, locked for as long as the round waits or
//! runs. The lowest number that is locked is the round that runs. A process that ends, however it ends, loses its lock and
//! with it its place. Places are given and looked at in turns, under the lock of the group.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{StoreError, disk, io_error, turn_at, whole};
use crate::artifact::{digest, layout};
use crate::model::RoundId;

/// Most rounds of a group that wait, as GitHub's `queue: max` has it.
const MOST_WAITING: usize = 100;
/// Largest file of a place that is read, in bytes.
const MAX_PLACE: u64 = 64 << 10;

/// A concurrency group of a data directory, or the rounds of a machine that need the same engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    directory: PathBuf,
    name: String,
}

/// A round that has a place in a group's queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Name of the group, for people: the directory's name is its digest.
    pub group: String,
    /// Id of the round.
    pub round_id: RoundId,
    /// Id of the process that has the round.
    pub pid: u32,
}

/// Which rounds of its group a new one puts out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Displaces {
    /// None: it waits behind them all.
    Nothing,
    /// Those that wait.
    Waiting,
    /// Those that wait, and the one that runs.
    All,
}

/// A place in a group's queue; given up when this is dropped.
#[derive(Debug)]
pub struct Place {
    group: Group,
    number: u64,
    _lock: File,
}

/// A place as it is found.
struct Taken {
    number: u64,
    member: Member,
    /// Whether another round put it out, and it is about to leave.
    is_displaced: bool,
}

/// A group's queue as it is found.
struct Queue {
    /// The places that somebody has, the oldest first.
    places: Vec<Taken>,
    /// The number that is free.
    next: u64,
}

/// What a place is behind.
#[derive(Debug)]
pub struct Ahead {
    /// The round that runs.
    pub running: Member,
    /// Ends when the round right before this one has left; the round that runs may be another one by then.
    pub leaves: oneshot::Receiver<()>,
}

impl Group {
    /// The group of this name; nothing is read or made yet. Upper and lower case are the same, as on GitHub.
    pub fn of(data_dir: &Path, name: &str) -> Self {
        let digest = digest::sha256(name.to_lowercase().as_bytes());
        let directory = digest.as_str().trim_start_matches("sha256:").to_owned();
        Self { directory: data_dir.join(layout::GROUPS_DIR).join(directory), name: name.to_owned() }
    }

    /// The rounds of this machine that need the engine at this address, whatever their data directories: its queue lies where
    /// the machine keeps locks until it is booted again.
    pub fn of_engine(address: &str) -> Self {
        Self::of(Path::new(layout::MACHINE_LOCKS), &format!("engine {address}"))
    }

    /// Gives a round the last place of the queue, and says which rounds it puts out.
    ///
    /// # Errors
    /// When 100 rounds wait already, or the disk refuses.
    pub fn enter(
        &self,
        round_id: &RoundId,
        displaces: Displaces,
    ) -> Result<(Place, Vec<Member>), StoreError> {
        let _turn = turn_at(&self.directory)?;
        let Queue { places, next } = self.queue(Dead::Remove)?;
        let first = match displaces {
            Displaces::Nothing => places.len(),
            Displaces::Waiting => 1,
            Displaces::All => 0,
        };
        let displaced: Vec<&Taken> = places.iter().skip(first).filter(|place| !place.is_displaced).collect();
        let staying = places.iter().take(first).filter(|place| !place.is_displaced).count();
        if staying > MOST_WAITING {
            return Err(StoreError::GroupFull { group: self.name.clone(), waiting: staying - 1 });
        }
        for place in &displaced {
            let path = self.mark(place.number);
            whole::write(&path, round_id.as_str().as_bytes(), whole::Existing::Replace)?;
        }
        let place = self.place(next, round_id)?;
        Ok((place, displaced.iter().map(|place| place.member.clone()).collect()))
    }

    fn place(&self, number: u64, round_id: &RoundId) -> Result<Place, StoreError> {
        let path = self.path(number);
        let member = Member { group: self.name.clone(), round_id: round_id.clone(), pid: std::process::id() };
        let text = serde_json::to_vec(&member).unwrap_or_default();
        let lock = disk::open_or_create(&path).map_err(io_error("open", &path))?;
        // Nobody else has it: its number is new, and this is our turn.
        disk::lock(&lock, &path).map_err(io_error("lock", &path))?;
        disk::write_all(&lock, &path, &text).map_err(io_error("write", &path))?;
        Ok(Place { group: self.clone(), number, _lock: lock })
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number:016}"))
    }

    /// The file that says by which round a place was taken away.
    fn mark(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number:016}.displaced"))
    }

    fn queue(&self, dead: Dead) -> Result<Queue, StoreError> {
        let entries = disk::list(&self.directory).map_err(io_error("list", &self.directory))?;
        let number = |entry: &std::fs::DirEntry| entry.file_name().to_str()?.parse::<u64>().ok();
        let mut numbers: Vec<u64> = entries.iter().filter_map(number).collect();
        numbers.sort_unstable();
        let next = numbers.last().map_or(0, |last| last.saturating_add(1));
        let mut places = Vec::new();
        for number in numbers {
            let path = self.path(number);
            let file = match disk::open(&path) {
                // It left of its own accord.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                opened => opened.map_err(io_error("open", &path))?,
            };
            if disk::is_locked(&file, &path).map_err(io_error("lock", &path))? {
                let text = disk::read(file, &path, MAX_PLACE).map_err(io_error("read", &path))?;
                let mark = self.mark(number);
                let is_displaced = disk::exists(&mark).map_err(io_error("look at", &mark))?;
                match serde_json::from_slice(&text) {
                    Ok(member) => places.push(Taken { number, member, is_displaced }),
                    // Outside a turn it may be about to be written.
                    Err(_) if dead == Dead::Leave => {}
                    Err(_) => return Err(io_error("read", &path)(std::io::ErrorKind::InvalidData.into())),
                }
            } else if dead == Dead::Remove {
                for path in [path, self.mark(number)] {
                    remove(&path)?;
                }
            }
        }
        Ok(Queue { places, next })
    }
}

/// What is done with places that nobody has any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dead {
    Remove,
    Leave,
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match disk::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(io_error("remove", path)),
    }
}

impl Place {
    /// What this place is behind; none when it is its turn.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn ahead(&self) -> Result<Option<Ahead>, StoreError> {
        let _turn = turn_at(&self.group.directory)?;
        let Queue { places, .. } = self.group.queue(Dead::Remove)?;
        let mut before = places.into_iter().take_while(|place| place.number < self.number);
        let Some(Taken { member: running, number: first, .. }) = before.next() else { return Ok(None) };
        let path = self.group.path(before.last().map_or(first, |place| place.number));
        let file = disk::open(&path).map_err(io_error("open", &path))?;
        let (left, leaves) = oneshot::channel();
        // A thread of its own that nobody waits for: it ends with the program, or when that round has gone.
        let wait = move || {
            let _ = disk::wait_for_shared_lock(&file, &path);
            let _ = left.send(());
        };
        std::thread::Builder::new()
            .name("group".to_owned())
            .spawn(wait)
            .map_err(io_error("wait in", &self.group.directory))?;
        Ok(Some(Ahead { running, leaves }))
    }

    /// The round that took the place away, if one did.
    pub fn displaced_by(&self) -> Option<RoundId> {
        let name = self.group.mark(self.number);
        let text = whole::read(&self.group.directory, name.file_name()?.to_str()?, MAX_PLACE).ok()?;
        String::from_utf8(text).ok()?.parse().ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // While it is still locked: nobody can mistake a place that is given next for this one.
        let _ = disk::remove_file(&self.group.path(self.number));
        let _ = disk::remove_file(&self.group.mark(self.number));
    }
}

/// Whether a round waits for its turn in a group, found without writing anything.
///
/// # Errors
/// When the queues cannot be read.
pub fn is_waiting(data_dir: &Path, round_id: &RoundId) -> Result<bool, StoreError> {
    let groups = data_dir.join(layout::GROUPS_DIR);
    let entries = match disk::list(&groups) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        listed => listed.map_err(io_error("list", &groups))?,
    };
    for entry in entries {
        let group = Group { directory: entry.path(), name: String::new() };
        let places = group.queue(Dead::Leave)?.places;
        if places.iter().skip(1).any(|place| place.member.round_id == *round_id) {
            return Ok(true);
        }
    }
    Ok(false)
}
