//! How far it is, for somebody who watches from another thread, and the word to stop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::ArchiveError;

/// Shared by what carries a round and by who watches it.
#[derive(Debug, Default)]
pub struct Pulse {
    done: AtomicU64,
    total: AtomicU64,
    is_stopped: AtomicBool,
}

impl Pulse {
    /// Bytes that were seen so far, and bytes that there are in all, as far as known.
    pub fn position(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// Asks what carries the round to end with [`ArchiveError::Stopped`].
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn expect(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// Counts bytes, and fails where somebody said to stop.
    pub(super) fn advance(&self, count: u64) -> Result<(), ArchiveError> {
        self.done.fetch_add(count, Ordering::Relaxed);
        if self.is_stopped.load(Ordering::Relaxed) { Err(ArchiveError::Stopped) } else { Ok(()) }
    }
}
