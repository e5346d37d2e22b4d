//! The journal of ticks: one for all schedules of a data directory, whoever looks after them.
//!
//! A process reads and writes it in turns. A turn is short and holds the lock, so what one decides the next one knows,
//! and two that look at the same instant do not both start its round.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{JournalWriter, StoreError, artifact_error, disk, io_error, turn_at, whole};
use crate::artifact::journal::{self, Event as _};
use crate::artifact::{JournalLine, Replay, TickEvent, digest, layout};
use crate::model::RoundId;

/// Largest journal of ticks that is read, in bytes: some millions of ticks.
const MAX_TICKS: u64 = 1 << 30;
/// Largest copy of a pipeline that is read, in bytes.
const MAX_TEXT: u64 = 16 << 20;

/// The journal of ticks of a data directory, as far as this process has read it.
#[derive(Debug)]
pub struct TickJournal {
    directory: PathBuf,
    writer: Option<JournalWriter>,
    lines: Vec<JournalLine<TickEvent>>,
}

/// A turn at the journal: nobody else reads or writes it until this is dropped.
#[derive(Debug)]
pub struct TickTurn<'a> {
    journal: &'a mut TickJournal,
    _lock: File,
}

/// What a data directory's schedules have come to, without a turn: an instant later there may be more.
///
/// # Errors
/// When the journal cannot be read, or is damaged before its last line.
pub fn read_ticks(data_dir: &Path) -> Result<Vec<JournalLine<TickEvent>>, StoreError> {
    Ok(replay(&data_dir.join(layout::TICKS_DIR))?.lines)
}

fn replay(directory: &Path) -> Result<Replay<TickEvent>, StoreError> {
    let bytes = match whole::read(directory, layout::JOURNAL_FILE, MAX_TICKS) {
        Err(error) if error.is_absence() => Vec::new(),
        result => result?,
    };
    journal::replay(&bytes).map_err(artifact_error(&directory.join(layout::JOURNAL_FILE)))
}

/// Path of the kept copy of a pipeline, relative to the journal's directory.
fn copy_of(path: &str) -> String {
    let digest = digest::sha256(path.as_bytes());
    format!("pipelines/{}.yml", digest.as_str().trim_start_matches("sha256:"))
}

impl TickJournal {
    /// The journal of a data directory; nothing is read or made yet.
    pub fn of(data_dir: &Path) -> Self {
        Self { directory: data_dir.join(layout::TICKS_DIR), writer: None, lines: Vec::new() }
    }

    /// The lines that this process has read or written.
    pub fn lines(&self) -> &[JournalLine<TickEvent>] {
        &self.lines
    }

    /// The directory of the journal.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Keeps a copy of a pipeline's text beside the journal, by the path of its file, and gives the copy's path.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn keep_pipeline(&self, path: &str, text: &str) -> Result<PathBuf, StoreError> {
        let relative = copy_of(path);
        if whole::read(&self.directory, &relative, MAX_TEXT).is_ok_and(|kept| kept == text.as_bytes()) {
            return Ok(self.directory.join(relative));
        }
        disk::create_dir_all(&self.directory).map_err(io_error("create", &self.directory))?;
        let target = whole::target(&self.directory, &relative)?;
        whole::write(&target, text.as_bytes(), whole::Existing::Replace)?;
        Ok(target)
    }

    /// The copy of a pipeline's text that was kept last, and its path; none if none was.
    ///
    /// # Errors
    /// When it cannot be read, or is no text.
    pub fn kept_pipeline(&self, path: &str) -> Result<Option<(PathBuf, String)>, StoreError> {
        let relative = copy_of(path);
        let target = self.directory.join(&relative);
        match whole::read(&self.directory, &relative, MAX_TEXT) {
            Err(error) if error.is_absence() => Ok(None),
            Err(error) => Err(error),
            Ok(bytes) => {
                let invalid = |_| io_error("read", &target)(io::ErrorKind::InvalidData.into());
                let text = String::from_utf8(bytes).map_err(invalid)?;
                Ok(Some((target, text)))
            }
        }
    }

    /// Marks a round as one that is not to be taken up again, if a tick started it.
    ///
    /// # Errors
    /// When the journal cannot be read, or the disk refuses the line.
    pub fn cancel_round(data_dir: &Path, round_id: &RoundId, now: Timestamp) -> Result<(), StoreError> {
        let mut journal = Self::of(data_dir);
        if !journal.directory.exists() {
            return Ok(());
        }
        let mut turn = journal.turn()?;
        let is_its = |line: &JournalLine<TickEvent>| match &line.event {
            TickEvent::TickFired { round_id: started, .. } => started == round_id,
            _ => false,
        };
        if turn.lines().iter().any(is_its) {
            turn.append(now, &[TickEvent::RoundCancelled { round_id: round_id.clone(), tick: None }])?;
        }
        Ok(())
    }

    /// Waits for a turn, and reads what others wrote since the last one.
    ///
    /// # Errors
    /// When the journal is damaged before its last line, of another version, or the disk refuses.
    pub fn turn(&mut self) -> Result<TickTurn<'_>, StoreError> {
        let lock = turn_at(&self.directory)?;
        let path = self.directory.join(layout::JOURNAL_FILE);
        let is_current = self.writer.as_ref().is_some_and(|writer| {
            !writer.is_broken() && disk::len(&path).is_ok_and(|len| len == writer.valid_bytes())
        });
        if !is_current {
            let replay = replay(&self.directory)?;
            self.writer = Some(JournalWriter::open(path, &replay)?);
            self.lines = replay.lines;
        }
        Ok(TickTurn { journal: self, _lock: lock })
    }
}

impl TickTurn<'_> {
    /// All lines of the journal.
    pub fn lines(&self) -> &[JournalLine<TickEvent>] {
        &self.journal.lines
    }

    /// Appends events; they are on disk when this returns.
    ///
    /// # Errors
    /// When the disk refuses: then none of them is there.
    pub fn append(&mut self, at: Timestamp, events: &[TickEvent]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let journal = &mut *self.journal;
        let Some(writer) = &mut journal.writer else {
            let path = journal.directory.join(layout::JOURNAL_FILE);
            return Err(io_error("append to", &path)(io::ErrorKind::NotConnected.into()));
        };
        let mut dated = Vec::with_capacity(events.len() + 1);
        if journal.lines.is_empty() {
            dated.push((at, TickEvent::TicksStarted { schema: TickEvent::SCHEMA }));
        }
        dated.extend(events.iter().map(|event| (at, event.clone())));
        journal.lines.extend(writer.append(dated)?);
        Ok(())
    }
}
