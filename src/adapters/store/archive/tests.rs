//! What goes out comes in again, and nothing else does.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use proptest::prelude::*;
use rustix::io::Errno;
use tar::{EntryType, Header};
use tempfile::TempDir;

use super::frame::FrameWriter;
use super::*;
use crate::adapters::store::Existing;
use crate::adapters::store::faults::{Failing, Plan};
use crate::artifact::digest::sha256;
use crate::artifact::{RoundFile, Seal, SealEntry};
use crate::report::Carried;
use crate::report::text::error_chain;

const LOG: &str = "jobs/m/_/attempt-1/log.txt";
const STREAMS: &str = "jobs/m/_/attempt-1/streams.parquet";
const LINK: &str = "jobs/m/_/attempt-1/latest";

fn place() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn id() -> RoundId {
    "demo-1".parse().expect("an id")
}

fn round_file(id: &str) -> Vec<u8> {
    let file = RoundFile {
        schema: RoundFile::SCHEMA,
        round_id: id.parse().expect("an id"),
        pipeline_path: "p.yml".to_owned(),
        pipeline_text: String::new(),
        pipeline_digest: sha256(b""),
        runners: Vec::new(),
        inputs: BTreeMap::new(),
        seed_hex: "00".repeat(32),
        tool_version: "0.1.0".to_owned(),
        tool_digest: None,
        started_at: "2026-11-21T21:27:00Z".to_owned(),
        tick: None,
        parent: None,
    };
    file.encode().expect("encodes")
}

/// A round with a log, a link, raw streams, names that are long or odd, and no seal.
fn unsealed(place: &TempDir) -> RoundDirectory {
    let round = RoundDirectory::create(place.path(), &id()).expect("a new round");
    round.write_whole("round.json", &round_file("demo-1")).expect("writes");
    round.write_whole(LOG, b"it began\n").expect("writes");
    round.write_whole(STREAMS, &[7; 3000]).expect("writes");
    round.write_whole(&format!("jobs/{}empty", "directory-name/".repeat(20)), b"").expect("writes");
    round.write_whole(&format!("jobs/{}/\n", "n".repeat(200)), b"x").expect("writes");
    symlink("log.txt", round.path().join(LINK)).expect("a link");
    symlink(format!("../{}", "t".repeat(150)), round.path().join("jobs/far")).expect("a link");
    fs::write(round.path().join("lock"), "1").expect("writes");
    round
}

fn sealed(place: &TempDir) -> RoundDirectory {
    let round = unsealed(place);
    round.seal().expect("seals");
    round
}

fn exported(round: &RoundDirectory) -> Result<Vec<u8>, ArchiveError> {
    let mut out = Vec::new();
    export(round, &mut out, &Pulse::default()).map(|_| out)
}

fn take(data: &Path, bytes: &[u8]) -> Result<Carried, ArchiveError> {
    import(data, bytes, Limits { max_bytes: 1 << 40 }, &Pulse::default())
}

/// The error of an import into nowhere, of which nothing is left.
fn error_of(bytes: &[u8]) -> ArchiveError {
    let place = place();
    let error = take(&place.path().join("data"), bytes).expect_err("is refused");
    assert_eq!(fs::read_dir(place.path()).expect("lists").count(), 0, "{error:?}");
    error
}

fn check(bytes: &[u8], why: &str) {
    let error = error_chain(&error_of(bytes));
    assert!(error.contains(why), "want `{why}`: {error}");
}

fn header(path: &str, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_cksum();
    header
}

fn link(path: &str, target: &str) -> Header {
    let mut header = header(path, EntryType::Symlink, 0);
    header.set_link_name_literal(target).expect("fits");
    header.set_cksum();
    header
}

/// A tar that is written by hand, and sealed as ours are.
#[derive(Clone, Default)]
struct Crafted(Vec<(Header, Vec<u8>)>);

impl Crafted {
    /// The seal of these files, each with its content.
    fn sealing(files: &[(&str, &[u8])]) -> Self {
        let entry = |(path, bytes): &(&str, &[u8])| SealEntry {
            path: (*path).to_owned(),
            digest: sha256(bytes),
            size: bytes.len() as u64,
        };
        let seal: Seal = files.iter().map(entry).collect();
        Self::default().file("round=demo-1/SEAL", seal.to_string().as_bytes())
    }

    fn file(self, path: &str, bytes: &[u8]) -> Self {
        self.raw(header(path, EntryType::Regular, bytes.len() as u64), bytes)
    }

    fn raw(mut self, header: Header, bytes: &[u8]) -> Self {
        self.0.push((header, bytes.to_owned()));
        self
    }

    fn tar(&self) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (header, bytes) in &self.0 {
            builder.append(header, bytes.as_slice()).expect("writes");
        }
        builder.into_inner().expect("ends")
    }

    fn check(&self, why: &str) {
        check(&framed(&self.tar()), why);
    }
}

fn framed(tar: &[u8]) -> Vec<u8> {
    let mut writer = FrameWriter::new(Vec::new()).expect("begins");
    io::Write::write_all(&mut writer, tar).expect("writes");
    writer.finish().expect("ends")
}

#[test]
fn a_round_comes_in_as_it_went_out() {
    let (here, there) = (place(), place());
    let round = sealed(&here);
    let bytes = exported(&round).expect("exports");
    assert_eq!(bytes, exported(&round).expect("exports"), "the same bytes again");
    let carried = take(there.path(), &bytes).expect("imports");
    assert_eq!((carried.files, carried.removed), (7, 0));
    let other = RoundDirectory::open(there.path(), &id()).expect("is there");
    assert_eq!(other.check_seal().expect("reads"), None);
    assert_eq!(other.read_seal().expect("reads"), round.read_seal().expect("reads"));
    assert!(!other.path().join("lock").exists());
    assert_eq!(fs::read_link(other.path().join(LINK)).expect("a link"), Path::new("log.txt"));
    assert_eq!(exported(&other).expect("exports"), bytes, "and the same bytes from there");
    assert_eq!(fs::read_dir(there.path().join("rounds")).expect("lists").count(), 1);
}

#[test]
fn other_readers_of_tar_and_zstd_open_it() {
    let here = place();
    let bytes = exported(&sealed(&here)).expect("exports");
    let mut archive = tar::Archive::new(zstd::Decoder::new(bytes.as_slice()).expect("a frame"));
    let paths: Vec<String> = archive
        .entries()
        .expect("entries")
        .map(|entry| String::from_utf8_lossy(&entry.expect("an entry").path_bytes()).into_owned())
        .collect();
    assert_eq!(paths[0], "round=demo-1/SEAL");
    assert_eq!(paths.len(), 8);
    assert!(
        paths[1..].is_sorted() && paths.iter().all(|path| path.starts_with("round=demo-1/")),
        "{paths:?}"
    );
}

#[test]
fn no_byte_of_an_archive_can_change() {
    let here = place();
    let bytes = exported(&sealed(&here)).expect("exports");
    let there = place();
    for offset in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[offset] ^= 1 << (offset % 8);
        take(there.path(), &changed).expect_err(&format!("byte {offset} of {}", bytes.len()));
    }
    assert_eq!(fs::read_dir(there.path()).expect("lists").count(), 0);
}

#[test]
fn a_part_of_an_archive_is_none() {
    let here = place();
    let bytes = exported(&sealed(&here)).expect("exports");
    for length in (0..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
        let error = error_of(&bytes[..length]);
        assert!(matches!(error, ArchiveError::Damaged(_)), "{length}: {error:?}");
    }
    check(&[&*bytes, b"x"].concat(), "something stands behind its end");
    check(&[&*bytes, &*bytes].concat(), "something stands behind its end");
    check(b"", "does not begin as zstd does");
    check(b"\x1f\x8b\x08 gzip", "does not begin as zstd does");
    check(&zstd::encode_all(&b"x"[..], 3).expect("a frame"), "");
}

#[test]
fn what_leads_out_is_refused() {
    let evil = |path: &str| Crafted::sealing(&[("x", b"x")]).file(path, b"x");
    evil("round=demo-1/../x").check("`round=demo-1/../x` is not a plain path below the round's directory");
    evil("round=demo-1//x").check("is not a plain path");
    evil("round=demo-1/./x").check("is not a plain path");
    evil("round=demo-1/").check("is not a plain path");
    evil("/etc/x").check("does not lie in the directory of the round");
    evil("../round=demo-1/x").check("does not lie in the directory of the round");
    evil("round=demo-2/x").check("does not lie in the directory of the round");
    evil("round=demo-1/lock").check("the lock of a running round");
    evil("round=demo-1/SEAL/x").check("lies below what is a file");
    evil(&format!("round=demo-1/{}x", "d/".repeat(33))).check("lies deeper");
    for target in ["/etc", "../out", "a/../../out", "a/../b", ""] {
        Crafted::sealing(&[("x", target.as_bytes())])
            .raw(link("round=demo-1/x", target), b"")
            .check("is a link");
    }
    Crafted::sealing(&[("a", b"."), ("a/x", b"x")])
        .raw(link("round=demo-1/a", "."), b"")
        .file("round=demo-1/a/x", b"x")
        .check("`round=demo-1/a/x` lies below what is a file");
    Crafted::sealing(&[("a", b"b")]).raw(link("round=demo-1/a", "c"), b"").check("`a` was sealed as");
    let mut hard = header("round=demo-1/x", EntryType::Link, 0);
    hard.set_link_name_literal("/etc/passwd").expect("fits");
    hard.set_cksum();
    Crafted::sealing(&[("x", b"")]).raw(hard, b"").check("is a hard link");
    for kind in
        [EntryType::Fifo, EntryType::Char, EntryType::Block, EntryType::Directory, EntryType::GNUSparse]
    {
        let odd = header("round=demo-1/x", kind, 0);
        Crafted::sealing(&[("x", b"")]).raw(odd, b"").check("is neither a plain file nor a symbolic link");
    }
}

#[test]
fn what_is_not_as_sealed_is_refused() {
    let files: &[(&str, &[u8])] = &[("a", b"1"), ("b", b"2")];
    let crafted = || Crafted::sealing(files);
    let (a, b) = ("round=demo-1/a", "round=demo-1/b");
    crafted().file(a, b"1").check("`b` was sealed and is gone");
    crafted().file(b, b"2").check("`a` was sealed and is gone");
    crafted()
        .file(a, b"1")
        .file("round=demo-1/aa", b"3")
        .check("`aa` was not there when the round was sealed");
    crafted().file(a, b"3").check("`a` was sealed as sha256:");
    crafted().file(a, b"12").check("`a` was sealed with 1 bytes and has 2");
    crafted().file(a, b"1").file(a, b"1").check("`round=demo-1/a` comes twice");
    crafted().file(b, b"2").file(a, b"1").check("`round=demo-1/a` comes twice, or in another place");
    crafted().file("round=demo-1/SEAL", b"").check("`round=demo-1/SEAL` comes twice");
    crafted().file("round=demo-1/REMOVED", b"x").check("`REMOVED` is not usable");
    crafted().file(a, b"1").file(b, b"2").check("`round.json` is not usable");
    let other = round_file("demo-2");
    Crafted::sealing(&[("round.json", &other)])
        .file("round=demo-1/round.json", &other)
        .check("`round.json` is that of round `demo-2`, and the directory that of round `demo-1`");
    Crafted::default()
        .file(a, b"1")
        .check("the first entry must be `round=<id>/SEAL` and is `round=demo-1/a`");
    Crafted::default().check("the first entry must be");
    Crafted::default().file("round=../SEAL", b"").check("the first entry must be");
    Crafted::default().file("round=demo-1/SEAL", b"x").check("`SEAL` is not usable");
    Crafted::default()
        .raw(header("round=demo-1/SEAL", EntryType::Regular, 1 << 32), b"")
        .check("`SEAL` is larger");
    let excess = framed(&[crafted().file(a, b"1").file(b, b"2").tar(), vec![1; 512]].concat());
    check(&excess, "something stands behind the last file");
}

#[test]
fn what_is_too_large_is_refused_before_it_is_written() {
    let seal = |size: u64| {
        let text = format!("cacheon-seal v1\n{}  {size}  x\n", sha256(b""));
        let huge = header("round=demo-1/x", EntryType::Regular, size);
        framed(&Crafted::default().file("round=demo-1/SEAL", text.as_bytes()).raw(huge, b"").tar())
    };
    check(&seal(1 << 41), "the round has more than 1.0 TiB: `--max-bytes` allows more");
    let place = place();
    let limits = Limits { max_bytes: u64::MAX };
    let error = import(place.path(), &*seal(1 << 62), limits, &Pulse::default()).expect_err("has no room");
    assert!(matches!(error, ArchiveError::NoRoom { .. }), "{error:?}");
    check(&seal(u64::MAX), "");
    let bomb =
        Crafted::sealing(&[("x", b"")]).raw(header("y", EntryType::XHeader, 1 << 30), &vec![0; 1 << 20]);
    bomb.check("an extended header is larger than two paths");
}

#[test]
fn what_is_there_stays() {
    let (here, there, elsewhere) = (place(), place(), place());
    let bytes = exported(&sealed(&here)).expect("exports");
    take(there.path(), &bytes).expect("imports");
    let again = take(there.path(), &bytes).expect_err("is there");
    assert!(matches!(again, ArchiveError::AlreadyHere(_)), "{again:?}");
    let other = unsealed(&elsewhere);
    let error = take(elsewhere.path(), &bytes).expect_err("is there");
    assert!(matches!(error, ArchiveError::AnotherIsHere(_)), "{error:?}");
    other.write_whole(LOG, b"another\n").expect("writes");
    other.seal().expect("seals");
    let error = take(elsewhere.path(), &bytes).expect_err("is there");
    assert!(matches!(error, ArchiveError::AnotherIsHere(_)), "{error:?}");
}

#[test]
fn what_was_removed_on_record_need_not_travel() {
    let (here, there) = (place(), place());
    let round = sealed(&here);
    let (digest, size) = (round.file_digest(STREAMS).expect("reads"), 3000);
    fs::remove_file(round.path().join(STREAMS)).expect("removes");
    let refused = exported(&round).expect_err("is not as sealed");
    assert!(error_chain(&refused).contains("streams.parquet` was sealed and is gone"), "{refused:?}");
    let record: Seal = [SealEntry { path: STREAMS.to_owned(), digest, size }].into_iter().collect();
    fs::write(round.path().join("REMOVED"), record.to_string()).expect("writes");
    let carried = take(there.path(), &exported(&round).expect("exports")).expect("imports");
    assert_eq!((carried.files, carried.removed), (6, 1));
    let other = RoundDirectory::open(there.path(), &id()).expect("is there");
    assert_eq!(other.check_seal().expect("reads"), None);
    assert_eq!(other.read_removed().expect("reads"), record);
}

#[test]
fn what_cannot_be_exported_says_why() {
    let here = place();
    let round = unsealed(&here);
    let check = |why: &str| {
        let error = error_chain(&exported(&round).expect_err(why));
        assert!(error.contains(why), "want `{why}`: {error}");
    };
    check("has no seal");
    symlink("/etc/passwd", round.path().join("jobs/out")).expect("a link");
    round.seal().expect("seals");
    check("`jobs/out` is a link that leads out of the round");
    fs::write(round.path().join(LOG), "changed").expect("writes");
    check("log.txt` was sealed as");
}

#[test]
fn a_file_appears_whole_or_not_at_all() {
    let here = place();
    let round = sealed(&here);
    let out = place();
    let target = out.path().join("r.tar.zst");
    let write = |existing| export_file(&round, &target, existing, &Pulse::default());
    write(Existing::Refuse).expect("exports");
    let bytes = fs::read(&target).expect("reads");
    assert!(matches!(write(Existing::Refuse), Err(ArchiveError::FileExists(_))));
    write(Existing::Replace).expect("replaces");
    let stopped = Pulse::default();
    stopped.stop();
    let error = export_file(&round, &target, Existing::Replace, &stopped).expect_err("stops");
    assert!(matches!(error, ArchiveError::Stopped), "{error:?}");
    assert_eq!(fs::read(&target).expect("reads"), bytes);
    assert_eq!(fs::read_dir(out.path()).expect("lists").count(), 1, "no temporary file is left");
    let inside = export_file(&round, &round.path().join("r"), Existing::Refuse, &Pulse::default());
    assert!(matches!(inside, Err(ArchiveError::Inside(_))));
    let error = import(out.path(), &*bytes, Limits { max_bytes: 1 << 40 }, &stopped).expect_err("stops");
    assert!(matches!(error, ArchiveError::Stopped), "{error:?}");
    assert_eq!(fs::read_dir(out.path()).expect("lists").count(), 1, "nothing is left");
}

#[test]
fn a_disk_that_fails_leaves_no_half_round() {
    let here = place();
    let bytes = exported(&sealed(&here)).expect("exports");
    for failing in [Failing::Once(Errno::IO), Failing::Full] {
        for at in 0.. {
            let there = place();
            let plan = Plan::new(there.path(), Some((at, failing)));
            let imported = take(there.path(), &bytes);
            drop(plan);
            if imported.is_ok() {
                assert!(at > 20);
                break;
            }
            let found = fs::read_dir(there.path().join("rounds")).map_or(0, Iterator::count);
            match RoundDirectory::open(there.path(), &id()) {
                Ok(round) => assert_eq!(round.check_seal().expect("reads"), None, "operation {at}"),
                Err(_) => assert_eq!(found, 0, "operation {at}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        error_of(&bytes);
        error_of(&[&0xFD2F_B528_u32.to_le_bytes(), &*bytes].concat());
        error_of(&framed(&bytes));
    }

    /// A tar with other bytes here and there, each header with its right checksum.
    #[test]
    fn a_changed_tar_is_refused_or_comes_to_the_same(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let file = round_file("demo-1");
        let crafted = Crafted::sealing(&[("a", b"1"), ("round.json", &file)]);
        let mut crafted = crafted.file("round=demo-1/a", b"1").file("round=demo-1/round.json", &file);
        for (at, byte) in changes {
            let (header, _) = &mut crafted.0[at.index(3)];
            header.as_mut_bytes()[at.index(512)] = byte;
            header.set_cksum();
        }
        let tar: Vec<u8> = crafted.0.iter().flat_map(|(header, bytes)| {
            let padding = bytes.len().next_multiple_of(512) - bytes.len();
            [&header.as_bytes()[..], bytes, &vec![0; padding]].concat()
        }).chain(vec![0; 1024]).collect();
        let there = place();
        if take(there.path(), &framed(&tar)).is_ok() {
            let round = RoundDirectory::open(there.path(), &id()).expect("is there");
            prop_assert_eq!(round.check_seal().expect("reads"), None);
        }
    }
}

#[test]
fn where_links_may_lead() {
    let check = |path: &str, target: &str, expected: bool| {
        assert_eq!(leads_out(Path::new(path), target.as_bytes()).is_none(), expected, "{path} -> {target}");
    };
    check("a", "b", true);
    check("a", "./b/c", true);
    check("a", "..", false);
    check("d/a", "..", true);
    check("d/a", "../b", true);
    check("d/a", "../../b", false);
    check("d/e/a", "../../b", true);
    check("d/a", "b/../c", false);
    check("d/a", "/b", false);
    check("d/a", "", false);
}
