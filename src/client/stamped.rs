//! A socket that remembers when bytes passed.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// When bytes passed a socket, in monotonic nanoseconds since an origin; 0 means not yet.
#[derive(Debug)]
pub(super) struct Stamps {
    origin: Instant,
    first_write: AtomicU64,
    last_write: AtomicU64,
    last_read: AtomicU64,
}

impl Stamps {
    pub(super) fn new(origin: Instant) -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        Arc::new(Self { origin, first_write: zero(), last_write: zero(), last_read: zero() })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    fn get(stamp: &AtomicU64) -> Option<u64> {
        Some(stamp.load(Ordering::Relaxed)).filter(|ns| *ns != 0)
    }

    /// When the first byte was about to be written.
    pub(super) fn first_write(&self) -> Option<u64> {
        Self::get(&self.first_write)
    }

    /// When the kernel had taken the last byte written so far.
    pub(super) fn last_write(&self) -> Option<u64> {
        Self::get(&self.last_write)
    }

    /// When the latest read that brought bytes had returned.
    pub(super) fn last_read(&self) -> Option<u64> {
        Self::get(&self.last_read)
    }
}

/// A TCP stream whose reads and writes are stamped, before anything looks at the bytes.
pub(super) struct StampedStream {
    inner: TcpStream,
    stamps: Arc<Stamps>,
}

impl StampedStream {
    pub(super) fn new(inner: TcpStream, stamps: Arc<Stamps>) -> Self {
        Self { inner, stamps }
    }
}

impl AsyncRead for StampedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.stamps.last_read.store(self.stamps.now(), Ordering::Relaxed);
        }
        result
    }
}

impl AsyncWrite for StampedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let before = self.stamps.now();
        let _ = self.stamps.first_write.compare_exchange(0, before, Ordering::Relaxed, Ordering::Relaxed);
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        if matches!(result, Poll::Ready(Ok(count)) if count > 0) {
            self.stamps.last_write.store(self.stamps.now(), Ordering::Relaxed);
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
