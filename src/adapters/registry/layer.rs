//! A layer as Docker unpacks it: whether its bytes are those of its digest, what is in it, and how much that is.
//!
//! What a layer is compressed by is told by its first bytes, as Docker tells it, and never by its media type. The archive within is
//! walked by its headers as Go's reader does it, in which Docker is written: a file with holes (a sparse file) takes as much of the disk
//! as it says and none of the layer, so a layer with one is refused.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::bufread::MultiGzDecoder;
use tar::{EntryType, Header};

use crate::artifact::digest::Hasher;
use crate::model::Digest;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
/// Logarithm of the bytes that a zstd frame may look back on: 128 MiB, as every reader of zstd takes without being told more.
const WINDOW_LOG: u32 = 27;
/// Bytes of a header, and what everything in an archive is a multiple of.
const BLOCK: usize = 512;
/// Longest name or list of attributes of a file, as Go reads it.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;

/// What a layer may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Bytes that it may have unpacked, headers and all.
    pub(super) bytes: u64,
    /// Files, folders and links that may be in it.
    pub(super) entries: u64,
}

/// What a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layer {
    /// Digest of what is in it, unpacked.
    pub(super) content: Digest,
    /// Bytes that it has unpacked.
    pub(super) bytes: u64,
    /// Files, folders and links in it.
    pub(super) entries: u64,
    /// Whether it is packed by zstd, which not every daemon unpacks.
    pub(super) is_zstd: bool,
}

/// Why a layer is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum Flaw {
    /// Its bytes are not those of its digest.
    #[error("it has digest {0}")]
    Damaged(Digest),
    /// It has more bytes than it may have; so many were counted.
    #[error("it has more than {0} bytes")]
    TooLarge(u64),
    /// It cannot be unpacked.
    #[error("{0}")]
    Invalid(String),
    /// It cannot be read here.
    #[error("{0}")]
    Unreadable(#[source] io::Error),
}

/// Reads a layer to its end. `is_unwanted` ends that early, as unreadable.
///
/// # Errors
/// [`Flaw`]: that the bytes are others comes before everything that is wrong with them.
pub(super) fn read(
    layer: impl Read,
    digest: &Digest,
    bounds: Bounds,
    is_unwanted: &AtomicBool,
) -> Result<Layer, Flaw> {
    let mut source = Source { layer, hasher: Hasher::default(), failure: None, is_unwanted };
    let outcome = unpacked(&mut source, bounds);
    let rest = io::copy(&mut source, &mut io::sink());
    if let Some(error) = source.failure.or(rest.err()) {
        return Err(Flaw::Unreadable(error));
    }
    let found = source.hasher.finish();
    if found == *digest { outcome } else { Err(Flaw::Damaged(found)) }
}

/// The layer as it is kept.
struct Source<'a, R> {
    layer: R,
    hasher: Hasher,
    /// Why it cannot be read, which is nothing that is wrong with it.
    failure: Option<io::Error>,
    is_unwanted: &'a AtomicBool,
}

impl<R: Read> Read for Source<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = if self.is_unwanted.load(Ordering::Relaxed) {
            Err(io::Error::other("nobody wants it any more"))
        } else {
            self.layer.read(buffer)
        };
        match read {
            Ok(count) => {
                self.hasher.update(&buffer[..count]);
                Ok(count)
            }
            Err(error) => {
                let kind = error.kind();
                self.failure.get_or_insert(error);
                Err(kind.into())
            }
        }
    }
}

/// The layer as it is unpacked.
struct Unpacked<R> {
    layer: R,
    hasher: Hasher,
    bytes: u64,
    limit: u64,
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.layer.read(buffer)?;
        self.bytes += count as u64;
        if self.bytes > self.limit {
            return Err(io::Error::other("it is too large"));
        }
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

fn unpacked(source: &mut impl Read, bounds: Bounds) -> Result<Layer, Flaw> {
    let cannot = |error: io::Error| Flaw::Invalid(format!("it cannot be unpacked: {error}"));
    let mut input = BufReader::with_capacity(1 << 16, source);
    let mut start = Vec::new();
    input.by_ref().take(ZSTD.len() as u64).read_to_end(&mut start).map_err(cannot)?;
    let (is_gzip, is_zstd) = (start.starts_with(&GZIP), start.starts_with(&ZSTD));
    let input = Cursor::new(start).chain(input);
    if is_gzip {
        archive(MultiGzDecoder::new(input), bounds)
    } else if is_zstd {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(cannot)?;
        decoder.window_log_max(WINDOW_LOG).map_err(cannot)?;
        archive(decoder, bounds).map(|layer| Layer { is_zstd, ..layer })
    } else {
        archive(input, bounds)
    }
}

fn archive(layer: impl Read, bounds: Bounds) -> Result<Layer, Flaw> {
    let mut layer = BufReader::with_capacity(
        1 << 16,
        Unpacked { layer, hasher: Hasher::default(), bytes: 0, limit: bounds.bytes },
    );
    let walked = walk(&mut layer, bounds.entries).and_then(|entries| {
        // What follows the end of an archive is unpacked too, and thrown away.
        io::copy(&mut layer, &mut io::sink())?;
        Ok(entries)
    });
    let Unpacked { hasher, bytes, limit, .. } = layer.into_inner();
    if bytes > limit {
        return Err(Flaw::TooLarge(bytes));
    }
    match walked {
        Ok(entries) => Ok(Layer { content: hasher.finish(), bytes, entries, is_zstd: false }),
        Err(error) => Err(Flaw::Invalid(format!("it cannot be unpacked: {error}"))),
    }
}

/// Walks over all entries of an archive and says how many there are.
fn walk(layer: &mut impl BufRead, most: u64) -> io::Result<u64> {
    let wrong = |why: &str| Err(io::Error::other(why.to_owned()));
    let mut entries = 0;
    // What an entry of attributes says of the size of the next one, and whether one says something of its name.
    let (mut size_said, mut is_named) = (None, false);
    while let Some(header) = next_header(layer)? {
        entries += 1;
        if entries > most {
            return wrong(&format!("it has more than {most} files"));
        }
        let mut size = header.entry_size()?;
        let kind = header.entry_type();
        if kind.is_pax_local_extensions()
            || kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_global_extensions()
        {
            if size > MAX_EXTENSION_BYTES {
                return wrong("the name of a file in it is too long");
            }
            let mut said = vec![0; size as usize];
            layer.read_exact(&mut said)?;
            skip(layer, padding(size))?;
            is_named |= !kind.is_pax_global_extensions();
            if kind.is_pax_local_extensions() {
                size_said = said_size(&said)?;
            }
            continue;
        }
        if kind.is_gnu_sparse() {
            return wrong("it has a file with holes: pack it without `tar --sparse`");
        }
        size = size_said.take().unwrap_or(size);
        let has_content = match kind {
            EntryType::Link
            | EntryType::Symlink
            | EntryType::Char
            | EntryType::Block
            | EntryType::Directory
            | EntryType::Fifo => false,
            // An old archive has no other mark of a folder than its name.
            EntryType::Regular if header.as_bytes()[156] == 0 && size > 0 => {
                if is_named || header.path_bytes().ends_with(b"/") {
                    return wrong("it has a folder of an old format");
                }
                true
            }
            _ => true,
        };
        is_named = false;
        if has_content {
            skip(layer, size)?;
            skip(layer, padding(size))?;
        }
    }
    Ok(entries)
}

/// The next header; none at the end of the archive.
fn next_header(layer: &mut impl BufRead) -> io::Result<Option<Header>> {
    let mut block = [0; BLOCK];
    for is_second in [false, true] {
        if layer.fill_buf()?.is_empty() {
            return Ok(None);
        }
        layer.read_exact(&mut block)?;
        if block.iter().any(|byte| *byte != 0) {
            if is_second {
                return Err(io::Error::other("its archive ends, and goes on"));
            }
            let header = Header::from_byte_slice(&block);
            let sum = header.cksum()?;
            // The sum is of bytes, which some writers took for signed.
            let fields = || {
                block
                    .iter()
                    .enumerate()
                    .map(|(place, byte)| if (148..156).contains(&place) { b' ' } else { *byte })
            };
            let unsigned: i64 = fields().map(i64::from).sum();
            let signed: i64 = fields().map(|byte| i64::from(byte.cast_signed())).sum();
            if ![unsigned, signed].contains(&i64::from(sum)) {
                return Err(io::Error::other(
                    "it is no archive that is known here: gzip, zstd and plain tar are",
                ));
            }
            return Ok(Some(header.clone()));
        }
    }
    Ok(None)
}

/// The size of the next entry, where its attributes say it: records of `LENGTH KEY=VALUE\n` (POSIX pax), in whose values every byte
/// may stand.
fn said_size(mut attributes: &[u8]) -> io::Result<Option<u64>> {
    let wrong = |why: &str| io::Error::other(why.to_owned());
    let mut size = None;
    while !attributes.is_empty() {
        let record =
            record(attributes).ok_or_else(|| wrong("the attributes of a file in it cannot be read"))?;
        let (key, value, rest) = record;
        attributes = rest;
        if key.starts_with(b"GNU.sparse.") {
            return Err(wrong("it has a file with holes: pack it without `tar --sparse`"));
        }
        if key == b"size" {
            let said = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            size = Some(said.ok_or_else(|| wrong("the size of a file in it is no number"))?);
        }
    }
    Ok(size)
}

/// Key and value of the first record, and what follows it.
fn record(attributes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let digits = attributes.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&attributes[..digits]).ok()?.parse().ok()?;
    let (record, rest) = attributes.split_at_checked(length)?;
    let text = record.get(digits + 1..)?.strip_suffix(b"\n")?;
    let equals = text.iter().position(|byte| *byte == b'=')?;
    Some((&text[..equals], &text[equals + 1..], rest))
}

/// The bytes that follow so many up to the next block.
fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

fn skip(layer: &mut impl Read, bytes: u64) -> io::Result<()> {
    let skipped = io::copy(&mut layer.take(bytes), &mut io::sink())?;
    if skipped == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::write::GzEncoder;

    use super::*;
    use crate::artifact::digest::sha256;

    const BOUNDS: Bounds = Bounds { bytes: 1 << 20, entries: 100 };

    fn found(layer: &[u8], bounds: Bounds) -> Result<Layer, Flaw> {
        super::read(layer, &sha256(layer), bounds, &AtomicBool::new(false))
    }

    /// An archive of these entries: type, size as the header says it, content.
    fn tar(entries: &[(u8, u64, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, size, content) in entries {
            let mut header = Header::new_ustar();
            header.set_path("a/b").unwrap();
            header.set_size(*size);
            // As it is: the type of an old archive's file is no letter.
            header.as_mut_bytes()[156] = *kind;
            header.set_cksum();
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        }
        bytes.extend_from_slice(&[0; 2 * BLOCK]);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(bytes, 1).unwrap()
    }

    #[track_caller]
    fn refused(layer: &[u8], words: &str) {
        let error = found(layer, BOUNDS).expect_err(words);
        assert!(matches!(error, Flaw::Invalid(_)) && error.to_string().contains(words), "{error}");
    }

    #[test]
    fn a_layer_is_what_it_unpacks_to_however_it_is_packed() {
        let plain = tar(&[(b'5', 0, b""), (b'0', 700, &[1; 700]), (b'2', 0, b"")]);
        let expected =
            Layer { content: sha256(&plain), bytes: plain.len() as u64, entries: 3, is_zstd: false };
        let (start, end) = plain.split_at(600);
        let packed = [
            plain.clone(),
            gzip(&plain),
            zstd(&plain),
            // As many programs write them: piece by piece.
            [gzip(start), gzip(end)].concat(),
            [zstd(start), zstd(end)].concat(),
            gzip(&[plain.as_slice(), &[0; 5000]].concat()),
        ];
        for layer in &packed[..5] {
            let is_zstd = layer.starts_with(&ZSTD);
            assert_eq!(found(layer, BOUNDS).unwrap(), Layer { is_zstd, ..expected.clone() });
        }
        // What follows the end counts too.
        let padded = found(&packed[5], BOUNDS).unwrap();
        assert_eq!((padded.bytes, padded.entries), (expected.bytes + 5000, 3));
        assert_eq!(found(b"", BOUNDS).unwrap().bytes, 0);
        assert_eq!(found(&[0; 1024], BOUNDS).unwrap().entries, 0);
    }

    #[test]
    fn a_layer_that_grows_too_large_is_not_unpacked_to_its_end() {
        let large = tar(&[(b'0', 4 << 20, &vec![0; 4 << 20])]);
        for layer in [large.clone(), gzip(&large), zstd(&large)] {
            match found(&layer, BOUNDS) {
                Err(Flaw::TooLarge(bytes)) => {
                    assert!((BOUNDS.bytes..BOUNDS.bytes + (1 << 17)).contains(&bytes), "{bytes}");
                }
                other => panic!("{other:?}"),
            }
        }
        let whole = Bounds { bytes: large.len() as u64, ..BOUNDS };
        assert_eq!(found(&gzip(&large), whole).unwrap().bytes, whole.bytes);
        let less = Bounds { bytes: whole.bytes - 1, ..BOUNDS };
        assert!(matches!(found(&gzip(&large), less), Err(Flaw::TooLarge(_))));
        // Behind the end of the archive.
        let hidden = gzip(&[tar(&[]), vec![0; 4 << 20]].concat());
        assert!(matches!(found(&hidden, BOUNDS), Err(Flaw::TooLarge(_))));
        let many = tar(&vec![(b'5', 0, &b""[..]); 101]);
        refused(&many, "more than 100 files");
    }

    #[test]
    fn files_that_are_larger_than_their_bytes_are_refused() {
        refused(&tar(&[(b'S', 0, b"")]), "a file with holes");
        let attributes = |text: &[u8]| (b'x', text.len() as u64, text.to_vec());
        let record = |text: &str| format!("{} {text}\n", text.len() + 4).into_bytes();
        let with = |text: &str, size: u64, content: &[u8]| {
            let (kind, length, said) = attributes(&record(text));
            tar(&[(kind, length, &said), (b'0', size, content)])
        };
        refused(&with("GNU.sparse.major=1", 0, b""), "a file with holes");
        refused(&with("GNU.sparse.size=99", 0, b""), "a file with holes");
        // The size of the attributes is the one that counts.
        assert_eq!(found(&with("size=00000700", 0, &[1; 700]), BOUNDS).unwrap().entries, 2);
        refused(&with("size=no number", 0, b""), "no number");
        assert_eq!(found(&with("SCHILY.xattr.a=1\n2\n", 0, b""), BOUNDS).unwrap().entries, 2);
        for broken in ["", "5", "9 a=b\n", "6 a=bc\n", "99999999999999999999 a=b\n", "5 ab\n", "0 a=b\n"] {
            let (kind, length, said) = attributes(broken.as_bytes());
            let layer = tar(&[(kind, length, &said), (b'0', 0, b"")]);
            assert_eq!(found(&layer, BOUNDS).is_ok(), broken.is_empty(), "{broken:?}");
        }
        // A hidden one behind a link that says it has content: it has none.
        let hidden = tar(&[(b'2', 512, b""), (b'S', 0, b"")]);
        refused(&hidden, "a file with holes");
        let old = tar(&[(0, 512, &[1; 512])]);
        assert_eq!(found(&old, BOUNDS).unwrap().entries, 1);
        let (kind, length, said) = attributes(&record("path=folder/x/"));
        refused(&tar(&[(kind, length, &said), (0, 512, &[1; 512])]), "a folder of an old format");
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        let good = tar(&[(b'0', 700, &[1; 700])]);
        let packed = gzip(&good);
        refused(b"some text", "it cannot be unpacked");
        refused(&[b'x'; 1024], "it cannot be unpacked");
        refused(&[&b"\xfd7zXZ\0"[..], &[1; 1024]].concat(), "it cannot be unpacked");
        refused(&packed[..packed.len() - 4], "it cannot be unpacked");
        refused(&[packed, b"trailing".to_vec()].concat(), "it cannot be unpacked");
        refused(&zstd(&good)[..20], "it cannot be unpacked");
        refused(&good[..700], "it cannot be unpacked");
        refused(&tar(&[(b'0', u64::MAX >> 1, b"")]), "it cannot be unpacked");
        refused(&tar(&[(b'L', 2 << 20, b"")]), "too long");
        let mut broken = good.clone();
        broken[0] ^= 1;
        refused(&broken, "it is no archive");
        refused(&[&[0; BLOCK][..], &good].concat(), "ends, and goes on");
    }

    #[test]
    fn other_bytes_come_before_what_is_wrong_with_them() {
        let good = gzip(&tar(&[(b'0', 700, &[1; 700])]));
        let mut flipped = good.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 4;
        let unwanted = AtomicBool::new(false);
        let read = |layer: &[u8]| super::read(layer, &sha256(&good), BOUNDS, &unwanted);
        assert!(read(&good).is_ok());
        assert!(matches!(read(&flipped), Err(Flaw::Damaged(_))));
        assert!(matches!(read(&good[..50]), Err(Flaw::Damaged(_))));
        unwanted.store(true, Ordering::Relaxed);
        assert!(matches!(read(&good), Err(Flaw::Unreadable(_))));
    }
}
