//! The journal's writer: a line is on disk before anything that follows from it happens.
//!
//! Lines that come together share one wait for the disk. A power cut leaves some of the last ones, in order, and
//! perhaps half of the next: nothing followed from any of them yet.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::path::PathBuf;

use jiff::Timestamp;

use super::{StoreError, artifact_error, disk, io_error, whole};
use crate::artifact::journal::{Event, encode_line};
use crate::artifact::{JournalLine, Replay};

/// What a journal is written to: a file, or in tests one that remembers and fails.
pub(crate) trait JournalFile: std::fmt::Debug + Send {
    /// Writes bytes at the end.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Waits until all that was written is on disk.
    fn sync(&mut self) -> io::Result<()>;
    /// Takes back what stands after the first `len` bytes.
    fn cut(&mut self, len: u64) -> io::Result<()>;
}

/// The journal on disk.
#[derive(Debug)]
struct OnDisk {
    file: File,
    path: PathBuf,
}

impl JournalFile for OnDisk {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        disk::write_all(&self.file, &self.path, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        disk::sync_data(&self.file, &self.path)
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        disk::truncate(&self.file, &self.path, len)?;
        self.file.seek(SeekFrom::Start(len)).map(drop)
    }
}

/// Appends events to `journal.jsonl`; made by [`super::RoundDirectory::open_journal`].
#[derive(Debug)]
pub struct JournalWriter {
    file: Box<dyn JournalFile>,
    path: PathBuf,
    /// Number of the line that is written next.
    next_seq: u64,
    /// Number of bytes that are known to be whole lines: a failed append is cut back to them.
    valid_bytes: u64,
    /// Whether an append failed and could not be undone.
    is_broken: bool,
}

impl JournalWriter {
    /// Cuts the file to its whole lines and goes on after them.
    pub(super) fn open<E>(path: PathBuf, replay: &Replay<E>) -> Result<Self, StoreError> {
        let file = disk::open_or_create(&path).map_err(io_error("open", &path))?;
        let mut file = OnDisk { file, path: path.clone() };
        let valid_bytes = replay.valid_bytes as u64;
        file.cut(valid_bytes).and_then(|()| file.sync()).map_err(io_error("repair", &path))?;
        if let Some(directory) = path.parent() {
            whole::sync_dir(directory)?;
        }
        Ok(Self {
            file: Box::new(file),
            path,
            next_seq: replay.lines.len() as u64,
            valid_bytes,
            is_broken: false,
        })
    }

    /// Wraps the writer's file, so that a test can see and fail what is written.
    #[cfg(test)]
    pub(crate) fn through(self, wrap: impl FnOnce(Box<dyn JournalFile>) -> Box<dyn JournalFile>) -> Self {
        Self { file: wrap(self.file), ..self }
    }

    /// Number of bytes of the whole lines.
    pub(super) const fn valid_bytes(&self) -> u64 {
        self.valid_bytes
    }

    /// Whether an append failed and could not be undone.
    pub(super) const fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Appends events, each with the time at which it happened, and waits once until all are on disk.
    ///
    /// # Errors
    /// When an event is no line of a journal, or the disk refuses. All lines are then taken back; if even that
    /// fails, the writer takes no more.
    pub fn append<E: Event>(
        &mut self,
        events: Vec<(Timestamp, E)>,
    ) -> Result<Vec<JournalLine<E>>, StoreError> {
        if self.is_broken {
            return Err(StoreError::JournalBroken { path: self.path.clone() });
        }
        let number = |(seq, (at, event))| JournalLine { seq, at, event };
        let lines: Vec<JournalLine<E>> = (self.next_seq..).zip(events).map(number).collect();
        let mut bytes = Vec::new();
        for line in &lines {
            bytes.extend(encode_line(line).map_err(artifact_error(&self.path))?);
        }
        if bytes.is_empty() {
            return Ok(lines);
        }
        if let Err(error) = self.file.append(&bytes).and_then(|()| self.file.sync()) {
            self.is_broken = self.file.cut(self.valid_bytes).is_err();
            return Err(io_error("append to", &self.path)(error));
        }
        self.next_seq += lines.len() as u64;
        self.valid_bytes += bytes.len() as u64;
        Ok(lines)
    }
}
