//! `cacheon export` and `cacheon import`: a round that goes elsewhere is the same there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const PIPELINE: &str = "
name: t
jobs:
  make:
    runs-on: controller
    outputs: { what: '${{ steps.it.outputs.what }}' }
    steps:
      - { id: it, run: 'echo what=1 >> \"$CACHEON_OUTPUT\"' }
";

struct Place(tempfile::TempDir);

impl Place {
    fn empty() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    /// The round `first` has run.
    fn new() -> Self {
        let place = Self::empty();
        fs::write(place.path("t.yml"), PIPELINE).expect("pipeline");
        fs::create_dir(place.path("runners")).expect("runners");
        place.cacheon(&["run", "t.yml", "--round", "first"], 0);
        place
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.0.path().join(relative)
    }

    fn round(&self) -> PathBuf {
        self.path("data/rounds/round=first")
    }

    fn cacheon(&self, arguments: &[&str], code: i32) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cacheon"));
        command.current_dir(self.0.path()).env_remove("CACHEON_DATA").env("NO_COLOR", "1").args(arguments);
        let output = command.output().expect("starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        output
    }

    /// What is said on stderr by a call that ends with this code.
    fn says(&self, arguments: &[&str], code: i32) -> String {
        String::from_utf8_lossy(&self.cacheon(arguments, code).stderr).into_owned()
    }

    /// All files of the round but its lock, with their bytes.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn look(root: &Path, path: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in fs::read_dir(path).expect("lists") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    look(root, &path, found);
                } else {
                    let relative = path.strip_prefix(root).expect("below").to_owned();
                    found.insert(relative, fs::read(&path).expect("reads"));
                }
            }
        }
        let mut found = BTreeMap::new();
        look(&self.round(), &self.round(), &mut found);
        found.remove(Path::new("lock"));
        found
    }

    fn has_nothing_half(&self) {
        let rounds = fs::read_dir(self.path("data/rounds")).into_iter().flatten();
        let names: Vec<_> = rounds.chain(fs::read_dir(self.0.path()).expect("lists")).collect();
        for entry in names {
            let name = entry.expect("an entry").file_name();
            assert!(!name.to_string_lossy().starts_with(".part-"), "{}", name.display());
        }
    }
}

#[test]
fn a_round_is_the_same_elsewhere() {
    let (here, there) = (Place::new(), Place::empty());
    let said = here.cacheon(&["export", "latest"], 0);
    assert_eq!(String::from_utf8_lossy(&said.stdout), "round-first.tar.zst\n");
    let archive = here.path("round-first.tar.zst");
    let bytes = fs::read(&archive).expect("reads");
    let piped = here.cacheon(&["export", "first", "-"], 0);
    assert_eq!(piped.stdout, bytes, "the same bytes again");

    let archive = archive.to_str().expect("text");
    let imported = there.cacheon(&["import", archive], 0);
    assert_eq!(String::from_utf8_lossy(&imported.stdout), "first\n");
    assert!(String::from_utf8_lossy(&imported.stderr).contains("next: cacheon audit first"));
    assert_eq!(here.files(), there.files());
    there.cacheon(&["audit", "first"], 0);
    let again = there.cacheon(&["export", "first", "-"], 0);
    assert_eq!(again.stdout, bytes, "the same bytes from there");

    let said = there.says(&["import", archive], 2);
    assert!(said.contains("round `first` is already here, with the same seal"), "{said}");
    here.has_nothing_half();
    there.has_nothing_half();
}

#[test]
fn the_reports_are_json() {
    let (here, there) = (Place::new(), Place::empty());
    let report = |output: Output| serde_json::from_slice::<Value>(&output.stdout).expect("JSON");
    let out = report(here.cacheon(&["export", "first", "r", "--json"], 0));
    let archive = here.path("r");
    let back = report(there.cacheon(&["import", archive.to_str().expect("text"), "--json"], 0));
    for key in ["round_id", "seal", "files", "bytes", "removed"] {
        assert!(out[key] == back[key] && !out[key].is_null(), "{key}: {out} {back}");
    }
    assert_eq!((&out["path"], &back["path"]), (&"r".into(), &"data/rounds/round=first".into()));
    assert_eq!(back["next"], "cacheon audit first");
    here.cacheon(&["export", "first", "-", "--json"], 2);
}

#[test]
fn what_is_not_exported() {
    let here = Place::new();
    fs::write(here.path("r"), "mine").expect("writes");
    assert!(here.says(&["export", "first", "r"], 2).contains("`--force` replaces it"));
    assert_eq!(fs::read(here.path("r")).expect("reads"), b"mine");
    here.cacheon(&["export", "first", "r", "--force"], 0);
    assert_ne!(fs::read(here.path("r")).expect("reads"), b"mine");

    fs::write(here.round().join("summary.md"), "changed").expect("writes");
    let said = here.says(&["export", "first", "r", "--force"], 6);
    assert!(said.contains("`summary.md` was"), "{said}");
    fs::remove_file(here.round().join("SEAL")).expect("removes");
    assert!(here.says(&["export", "first", "s"], 2).contains("round `first` has no seal"));
    assert!(!here.path("s").exists());
    here.has_nothing_half();
}

#[test]
fn what_is_not_imported() {
    let (here, there) = (Place::new(), Place::empty());
    here.cacheon(&["export", "first", "r"], 0);
    let archive = here.path("r").to_str().expect("text").to_owned();
    assert!(there.says(&["import", "nowhere"], 3).contains("cannot read `nowhere`"));
    assert!(there.says(&["import", &archive, "--max-bytes", "10"], 2).contains("`--max-bytes` allows more"));
    let mut bytes = fs::read(&archive).expect("reads");
    fs::write(there.path("cut"), &bytes[..bytes.len() / 2]).expect("writes");
    assert!(there.says(&["import", "cut"], 3).contains("damaged since"));
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(there.path("flipped"), &bytes).expect("writes");
    there.cacheon(&["import", "flipped"], 3);
    fs::write(there.path("text"), "no archive").expect("writes");
    assert!(there.says(&["import", "text"], 3).contains("not an archive"));
    assert!(!there.path("data").exists(), "nothing is left");

    let other = Place::new();
    let said = other.says(&["import", &archive], 4);
    assert!(said.contains("another round of this id is here"), "{said}");
}
