//! The journal's writer: a line is on disk before anything that follows from it happens.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;

use jiff::Timestamp;

use super::{StoreError, artifact_error, io_error, whole};
use crate::artifact::journal::encode_line;
use crate::artifact::{JournalEvent, JournalLine, Replay};

/// Appends events to `journal.jsonl`; made by [`super::RoundDirectory::open_journal`].
#[derive(Debug)]
pub struct JournalWriter {
    file: File,
    path: PathBuf,
    /// Number of the next line.
    next_seq: u64,
    /// Bytes that are known to be whole lines: what a failed append is cut back to.
    valid_bytes: u64,
    /// Whether an append failed and could not be undone.
    is_broken: bool,
}

impl JournalWriter {
    /// Cuts the file to its whole lines and goes on after them.
    pub(super) fn open(path: PathBuf, replay: &Replay) -> Result<Self, StoreError> {
        let open = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(io_error("open", &path))?;
        let valid_bytes = replay.valid_bytes as u64;
        file.set_len(valid_bytes)
            .and_then(|()| file.seek(SeekFrom::Start(valid_bytes)))
            .and_then(|_| file.sync_all())
            .map_err(io_error("repair", &path))?;
        if let Some(directory) = path.parent() {
            whole::sync_dir(directory)?;
        }
        Ok(Self { file, path, next_seq: replay.lines.len() as u64, valid_bytes, is_broken: false })
    }

    /// Appends an event that happened at `at` and waits until it is on disk.
    ///
    /// # Errors
    /// When the disk refuses. The line is then taken back; if even that fails, the writer takes no more.
    pub fn append(&mut self, at: Timestamp, event: JournalEvent) -> Result<JournalLine, StoreError> {
        if self.is_broken {
            return Err(StoreError::JournalBroken { path: self.path.clone() });
        }
        let line = JournalLine { seq: self.next_seq, at, event };
        let bytes = encode_line(&line).map_err(artifact_error(&self.path))?;
        if let Err(error) = self.file.write_all(&bytes).and_then(|()| self.file.sync_data()) {
            let undone = self.file.set_len(self.valid_bytes);
            self.is_broken = undone.and_then(|()| self.file.seek(SeekFrom::Start(self.valid_bytes))).is_err();
            return Err(io_error("append to", &self.path)(error));
        }
        self.next_seq += 1;
        self.valid_bytes += bytes.len() as u64;
        Ok(line)
    }
}
