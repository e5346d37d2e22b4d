//! One entry of the tar: a plain file or a link, its path, its size. Nothing else is written, and nothing else read.
//!
//! Paths that do not fit a POSIX header stand in an extended header before it (`path`, `linkpath`; POSIX.1-2001 pax).

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

pub(super) use tar::Archive;
use tar::{Builder, Entries, EntryType, Header};

use super::frame::damaged;
use super::{ArchiveError, Deviation, MAX_PATH};
use crate::artifact::seal::path_text;

/// Most bytes of an extended header: two paths and what belongs to them.
const MAX_EXTENDED: u64 = 2 * (MAX_PATH as u64 + 64);
/// Number of bytes of a block.
const BLOCK: usize = 512;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A plain file of so many bytes.
    File(u64),
    /// A link with this target.
    Link(Vec<u8>),
}

impl Kind {
    /// Number of bytes that the seal counts: of a link, those of its target.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::File(size) => *size,
            Self::Link(target) => target.len() as u64,
        }
    }
}

/// One entry, without the bytes of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
}

/// Writes entries.
pub(super) struct EntryWriter<W: Write>(Builder<W>);

impl<W: Write> EntryWriter<W> {
    pub(super) fn new(out: W) -> Self {
        Self(Builder::new(out))
    }

    /// Writes an entry with the bytes of the file.
    pub(super) fn append(&mut self, entry: &Entry, bytes: impl Read) -> io::Result<()> {
        let mut header = Header::new_ustar();
        let mut extended: Vec<(&str, &[u8])> = Vec::new();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        if header.set_path(Path::new(OsStr::from_bytes(&entry.path))).is_err() {
            header.set_path("path-in-extended-header")?;
            extended.push(("path", &entry.path));
        }
        match &entry.kind {
            Kind::File(size) => {
                header.set_entry_type(EntryType::Regular);
                header.set_size(*size);
            }
            Kind::Link(target) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_size(0);
                if header.set_link_name_literal(target).is_err() {
                    header.set_link_name_literal("target-in-extended-header")?;
                    extended.push(("linkpath", target));
                }
            }
        }
        header.set_cksum();
        self.0.append_pax_extensions(extended)?;
        self.0.append(&header, bytes)
    }

    /// Writes the end of the tar; gives back what was written to.
    pub(super) fn finish(self) -> io::Result<W> {
        self.0.into_inner()
    }
}

/// The bytes of a file in an archive.
pub(super) type Body<'a, R> = tar::Entry<'a, R>;

/// Reads entries.
pub(super) struct EntryReader<'a, R: Read>(Entries<'a, R>);

impl<'a, R: Read> EntryReader<'a, R> {
    /// Reads the entries one by one as they stand, so that nobody reads a long name into memory before it is measured.
    pub(super) fn new(archive: &'a mut Archive<R>) -> Result<Self, ArchiveError> {
        Ok(Self(archive.entries().map_err(ArchiveError::Damaged)?.raw(true)))
    }

    /// The next entry; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<(Entry, Body<'a, R>)>, ArchiveError> {
        let Some(mut found) = self.raw()? else { return Ok(None) };
        let mut extended = Extended::default();
        if found.header().entry_type() == EntryType::XHeader {
            extended = Extended::read(&mut found)?;
            found = self.raw()?.ok_or_else(|| damage("an extended header is the last entry"))?;
        }
        let header = found.header();
        let path = extended.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let refused = |why| Err(Deviation::path(&path_text(&path), why).into());
        let size = header.entry_size().map_err(ArchiveError::Damaged)?;
        let linked = || header.link_name_bytes().unwrap_or_default().into_owned();
        let kind = match (header.entry_type(), extended.target) {
            (EntryType::Regular, None) => Kind::File(size),
            (EntryType::Symlink, target) if size == 0 => Kind::Link(target.unwrap_or_else(linked)),
            (EntryType::Link, _) => {
                return refused("is a hard link: an archive holds plain files and symbolic links");
            }
            _ => return refused("is neither a plain file nor a symbolic link"),
        };
        Ok(Some((Entry { path, kind }, found)))
    }

    fn raw(&mut self) -> Result<Option<Body<'a, R>>, ArchiveError> {
        self.0.next().transpose().map_err(ArchiveError::Damaged)
    }
}

/// Checks what stands behind the last entry: of the two empty blocks the second, and no more.
pub(super) fn finish<R: Read>(archive: Archive<R>) -> Result<R, ArchiveError> {
    let mut source = archive.into_inner();
    let mut rest = Vec::new();
    source.by_ref().take(BLOCK as u64 + 1).read_to_end(&mut rest).map_err(ArchiveError::Damaged)?;
    match rest.len() {
        BLOCK if rest.iter().all(|byte| *byte == 0) => Ok(source),
        0..BLOCK => Err(damage("it is cut off")),
        _ => Err(Deviation::Trailing.into()),
    }
}

fn damage(why: &'static str) -> ArchiveError {
    ArchiveError::Damaged(damaged(why))
}

/// What an extended header says.
#[derive(Debug, Default)]
struct Extended {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
}

impl Extended {
    fn read(found: &mut Body<'_, impl Read>) -> Result<Self, ArchiveError> {
        let size = found.header().entry_size().map_err(ArchiveError::Damaged)?;
        if size > MAX_EXTENDED {
            return Err(damage("an extended header is larger than two paths"));
        }
        let mut bytes = Vec::new();
        found.read_to_end(&mut bytes).map_err(ArchiveError::Damaged)?;
        let mut extended = Self::default();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (key, value, behind) =
                record(rest).ok_or_else(|| damage("an extended header is malformed"))?;
            let slot = match key {
                b"path" => &mut extended.path,
                b"linkpath" => &mut extended.target,
                _ => return Err(damage("an extended header says more than a path")),
            };
            if slot.replace(value.to_vec()).is_some() {
                return Err(damage("an extended header says a path twice"));
            }
            rest = behind;
        }
        Ok(extended)
    }
}

/// The first record of an extended header, `<length> <key>=<value>\n`, and what stands behind it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(8).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], rest))
}
