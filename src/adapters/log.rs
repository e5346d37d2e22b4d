//! A server's log: a bounded file that is kept as evidence, and its last words in memory.
//!
//! Engines share it, so that every server's log is cut by the same rule whatever runs the server. Who writes more than a server
//! that serves waits: what is not taken stays in the server's own pipe, and so a flood costs this machine's processors nothing
//! while others are measured.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

/// Number of bytes of a log that are kept in memory for messages: an engine's causes stand pages above its last line.
const TAIL_BYTES: usize = 64 * 1024;

/// Bytes that are taken at once, from a server that has been quiet: an engine writes hundreds of KiB while it boots.
const BURST_BYTES: f64 = 4.0 * 1024.0 * 1024.0;
/// Bytes a second that are taken beyond these.
const BYTES_PER_S: f64 = 256.0 * 1024.0;

/// How fast a log is taken: a bucket that fills with time.
#[derive(Debug)]
struct Pace {
    /// Bytes that may still be taken at once; below zero, what is owed.
    credit: f64,
    at: Instant,
}

impl Pace {
    /// How long nothing more is taken after so many bytes.
    fn take(&mut self, bytes: usize, now: Instant) -> Duration {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * BYTES_PER_S;
        self.at = now;
        self.credit = (self.credit + gained).min(BURST_BYTES) - bytes as f64;
        Duration::from_secs_f64((-self.credit).max(0.0) / BYTES_PER_S)
    }
}

/// The last 64 KiB of a log; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct LogTail {
    last: Arc<Mutex<VecDeque<u8>>>,
    /// Cancelled once the rest may come as fast as it can.
    is_over: CancellationToken,
}

impl LogTail {
    /// The server has ended: what it has written is taken at once.
    pub(super) fn take_the_rest(&self) {
        self.is_over.cancel();
    }

    fn push(&self, bytes: &[u8]) {
        let mut tail = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(bytes);
        let surplus = tail.len().saturating_sub(TAIL_BYTES);
        tail.drain(..surplus);
    }

    /// The tail as text: one without terminal escapes and control characters, line feeds kept.
    pub(super) fn text(&self) -> String {
        let bytes: Vec<u8> =
            self.last.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let mut plain = String::with_capacity(text.len());
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            if character == '\u{1b}' && characters.next_if_eq(&'[').is_some() {
                // A control sequence ends with the first character from `@` to `~` (ECMA-48, 5.4).
                while characters.next().is_some_and(|inner| !('@'..='~').contains(&inner)) {}
            } else if character == '\n' || !character.is_control() {
                plain.push(character);
            }
        }
        plain
    }
}

/// The file of a log: takes everything, keeps at most `limit` bytes, and says at its end what it dropped.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    limit: u64,
    kept: u64,
    dropped: u64,
    tail: LogTail,
    pace: Pace,
}

impl LogFile {
    /// A log over an empty file that keeps at most `limit` bytes.
    pub(super) fn new(file: File, limit: u64) -> Self {
        let pace = Pace { credit: BURST_BYTES, at: Instant::now() };
        Self { file, limit, kept: 0, dropped: 0, tail: LogTail::default(), pace }
    }

    /// The tail of the log, which goes on following it.
    pub(super) fn tail(&self) -> LogTail {
        self.tail.clone()
    }

    /// Takes what the server wrote next; returns when more may come.
    pub(super) async fn keep(&mut self, bytes: &[u8]) {
        self.tail.push(bytes);
        let room = usize::try_from(self.limit - self.kept).unwrap_or(usize::MAX).min(bytes.len());
        // The log is evidence but not the verdict: a full disk shows itself where results are written.
        let is_kept = room > 0 && self.file.write_all(&bytes[..room]).await.is_ok();
        let kept = if is_kept { room } else { 0 };
        self.kept += kept as u64;
        self.dropped += (bytes.len() - kept) as u64;
        let wait = self.pace.take(bytes.len(), Instant::now());
        if !wait.is_zero() {
            // Nothing is lost when the server ends meanwhile: it is told so, and the rest comes.
            let _ = tokio::time::timeout(wait, self.tail.is_over.cancelled()).await;
        }
    }

    /// Writes what was dropped, and ends the log.
    pub(super) async fn close(mut self) {
        if self.dropped > 0 {
            let note = format!("\n[cacheon: {} more bytes were not kept]\n", self.dropped);
            let _ = self.file.write_all(note.as_bytes()).await;
        }
        let _ = self.file.flush().await;
    }
}

/// The last line of a log with something in it, cut to what a table row can bear.
pub fn last_words(log: &str) -> String {
    let line = log.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("(nothing)");
    line.chars().filter(|c| !c.is_control()).take(240).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_too_much_waits_and_a_pause_is_credited() {
        let start = Instant::now();
        let mut pace = Pace { credit: BURST_BYTES, at: start };
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(pace.take(4 << 20, after(0)), Duration::ZERO);
        assert_eq!(pace.take(256 << 10, after(0)), Duration::from_secs(1));
        assert_eq!(pace.take(256 << 10, after(1)), Duration::from_secs(1));
        // An hour is worth no more than the burst.
        assert_eq!(pace.take((4 << 20) + (512 << 10), after(3600)), Duration::from_secs(2));
    }

    async fn check(limit: u64, written: &[&str], file: &str, tail: &str) {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("server.log");
        let mut log = LogFile::new(File::create(&path).await.expect("file"), limit);
        let found = log.tail();
        for text in written {
            log.keep(text.as_bytes()).await;
        }
        log.close().await;
        assert_eq!(tokio::fs::read_to_string(&path).await.expect("log"), file);
        assert_eq!(found.text(), tail);
    }

    #[tokio::test]
    async fn the_file_is_cut_and_the_tail_goes_on() {
        check(100, &["one\n", "two\n"], "one\ntwo\n", "one\ntwo\n").await;
        check(6, &["one\n", "two\n"], "one\ntw\n[cacheon: 2 more bytes were not kept]\n", "one\ntwo\n").await;
        check(0, &["a\u{1b}[2Jb\0"], "\n[cacheon: 7 more bytes were not kept]\n", "ab").await;
        let long = "x".repeat(TAIL_BYTES + 1000);
        check(
            long.len() as u64,
            &[&long, "end"],
            &format!("{long}\n[cacheon: 3 more bytes were not kept]\n"),
            &format!("{}end", &long[..TAIL_BYTES - 3]),
        )
        .await;
    }

    #[test]
    fn last_words_are_one_plain_line() {
        let check = |log: &str, expected: &str| assert_eq!(last_words(log), expected, "{log:?}");
        check("one\n two\t \n\n", "two");
        check("\u{1b}[31mred\u{7}", "[31mred");
        check(" \n", "(nothing)");
        check(&"x".repeat(999), &"x".repeat(240));
    }
}
