//! The compressed frame, and behind it the digest of its bytes in a frame that every reader of zstd skips.

use std::io::{self, BufRead, BufReader, Read, Write};

use zstd::stream::{read, write};

use crate::artifact::digest::Hasher;
use crate::model::Digest;

/// What a frame begins with (RFC 8878, 3.1.1): anything else is refused before the decoder sees it.
const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
/// What the skipped frame begins with (RFC 8878, 3.1.2), and the number of its bytes.
const TRAILER: [u8; 8] = [0x50, 0x2A, 0x4D, 0x18, 64, 0, 0, 0];
/// Part of the format: another level gives other bytes.
const LEVEL: i32 = 3;
/// Logarithm of the bytes that are looked back on, written and read: 2 MiB, which bounds a reader's memory.
const WINDOW_LOG: u32 = 21;

/// Takes bytes and writes them compressed.
pub(super) struct FrameWriter<W: Write>(write::Encoder<'static, Hashing<W>>);

struct Hashing<W> {
    out: W,
    hasher: Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The digits of a digest.
fn digits(digest: &Digest) -> &[u8] {
    digest.as_str().trim_start_matches("sha256:").as_bytes()
}

impl<W: Write> FrameWriter<W> {
    pub(super) fn new(out: W) -> io::Result<Self> {
        let mut encoder = write::Encoder::new(Hashing { out, hasher: Hasher::default() }, LEVEL)?;
        encoder.include_checksum(true)?;
        encoder.window_log(WINDOW_LOG)?;
        Ok(Self(encoder))
    }

    /// Ends the frame and writes its digest; gives back what was written to.
    pub(super) fn finish(self) -> io::Result<W> {
        let Hashing { mut out, hasher } = self.0.finish()?;
        out.write_all(&TRAILER)?;
        out.write_all(digits(&hasher.finish()))?;
        out.flush()?;
        Ok(out)
    }
}

impl<W: Write> Write for FrameWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Gives the bytes of one frame.
pub(super) struct FrameReader<R: Read>(read::Decoder<'static, Tapped<R>>);

/// Takes the digest of what the decoder takes.
struct Tapped<R> {
    source: BufReader<R>,
    hasher: Hasher,
}

impl<R: Read> Read for Tapped<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }
}

impl<R: Read> BufRead for Tapped<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.source.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.hasher.update(&self.source.buffer()[..count]);
        self.source.consume(count);
    }
}

/// An error that says in which way the bytes are not what was written.
pub(super) fn damaged(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl<R: Read> FrameReader<R> {
    pub(super) fn new(source: R) -> io::Result<Self> {
        let mut source = BufReader::with_capacity(super::CHUNK, source);
        if source.fill_buf()?.first_chunk() != Some(&MAGIC) {
            return Err(damaged("it does not begin as zstd does"));
        }
        let tapped = Tapped { source, hasher: Hasher::default() };
        let mut decoder = read::Decoder::with_buffer(tapped)?.single_frame();
        decoder.window_log_max(WINDOW_LOG)?;
        Ok(Self(decoder))
    }

    /// Checks that the frame is at its end and what stands behind it.
    pub(super) fn finish(self) -> io::Result<()> {
        let Tapped { mut source, hasher } = self.0.finish();
        let mut trailer = Vec::new();
        source.by_ref().take(TRAILER.len() as u64 + 64).read_to_end(&mut trailer)?;
        if trailer != [&TRAILER, digits(&hasher.finish())].concat() {
            return Err(damaged("its bytes are not those that its own digest is of"));
        }
        if source.read(&mut [0])? != 0 {
            return Err(damaged("something stands behind its end"));
        }
        Ok(())
    }
}

impl<R: Read> Read for FrameReader<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}
