//! `cacheon gc`: what goes, what stays for which reason, and that a removal that was cut short is gone on with.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use cacheon::adapters::store::RoundDirectory;
use cacheon::artifact::digest::sha256;
use cacheon::artifact::{JournalEvent, ParentRound, RoundFile, RoundStart, journal};
use cacheon::model::{Conclusion, RoundId};
use serde_json::Value;

const STREAMS: &str = "jobs/measure/_/attempt-1/streams.parquet";
const EXCHANGES: &str = "jobs/measure/_/attempt-1/exchanges.parquet";

struct Place(tempfile::TempDir);

/// A round made by hand.
struct Made<'a> {
    name: &'a str,
    /// Day of the year 2025 on which it ran.
    day: &'a str,
    parent: Option<&'a str>,
}

const fn of(name: &'static str, day: &'static str) -> Made<'static> {
    Made { name, day, parent: None }
}

fn id(text: &str) -> RoundId {
    text.parse().expect("an id")
}

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn rounds(&self) -> PathBuf {
        self.0.path().join("data/rounds")
    }

    fn round(&self, name: &str) -> PathBuf {
        self.rounds().join(format!("round={name}"))
    }

    fn open(&self, name: &str) -> RoundDirectory {
        RoundDirectory::open(&self.0.path().join("data"), &id(name)).expect("the round")
    }

    /// A round with raw streams, a table and no seal.
    fn unsealed(&self, made: &Made<'_>) -> RoundDirectory {
        let directory =
            RoundDirectory::create(&self.0.path().join("data"), &id(made.name)).expect("a new round");
        let parent = made.parent.map(|parent| ParentRound {
            round_id: id(parent),
            seal: None,
            jobs: Vec::new(),
            legs: Vec::new(),
            with: BTreeMap::new(),
            shared: Vec::new(),
        });
        let file = RoundFile {
            schema: RoundFile::SCHEMA,
            round_id: id(made.name),
            pipeline_path: "p.yml".to_owned(),
            pipeline_text: String::new(),
            pipeline_digest: sha256(b""),
            runners: Vec::new(),
            inputs: BTreeMap::new(),
            seed_hex: "00".repeat(32),
            tool_version: "0.1.0".to_owned(),
            tool_digest: None,
            started_at: format!("2025-{}T01:00:00Z", made.day),
            tick: None,
            parent,
        };
        directory.write_round_file(&file).expect("writes");
        let start = JournalEvent::RoundStarted(RoundStart {
            schema: journal::SCHEMA,
            round_id: id(made.name),
            pipeline: "demo".to_owned(),
            run_name: None,
            pipeline_digest: sha256(b""),
            runners: Vec::new(),
            seed_commitment: sha256(b""),
        });
        let end = JournalEvent::RoundEnded { conclusion: Conclusion::Success, exit_code: 0 };
        let at = |hour: &str| format!("2025-{}T{hour}:00:00Z", made.day).parse().expect("a time");
        let (mut writer, _) = directory.open_journal().expect("opens");
        writer.append(vec![(at("01"), start), (at("02"), end)]).expect("appends");
        directory.write_whole(STREAMS, &[b'x'; 4000]).expect("writes");
        directory.write_whole(EXCHANGES, &[b'y'; 1000]).expect("writes");
        directory.write_whole("results/leaderboard.parquet", b"rows").expect("writes");
        directory
    }

    fn sealed(&self, made: &Made<'_>) -> RoundDirectory {
        let directory = self.unsealed(made);
        directory.seal().expect("seals");
        directory
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cacheon"));
        command
            .current_dir(self.0.path())
            .env_remove("CACHEON_DATA")
            .env_remove("COLUMNS")
            .env("NO_COLOR", "1")
            .args(args);
        command.output().expect("the program starts")
    }

    /// What `gc --json` with these arguments says when it ends with this code.
    fn gc(&self, args: &[&str], code: i32) -> Value {
        let output = self.run(&[&["gc", "--json"], args].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Every path below the place, with the bytes of plain files.
    fn all(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn look(path: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in fs::read_dir(path).expect("lists") {
                let path = entry.expect("an entry").path();
                if path.is_dir() && !path.is_symlink() {
                    look(&path, found);
                }
                let bytes = if path.is_file() { fs::read(&path).expect("reads") } else { Vec::new() };
                found.insert(path, bytes);
            }
        }
        let mut found = BTreeMap::new();
        look(self.0.path(), &mut found);
        found
    }
}

/// The ids under a key of the answer.
fn ids<'a>(answer: &'a Value, key: &str) -> Vec<&'a str> {
    let rows = answer[key].as_array().expect("an array");
    rows.iter().filter_map(|row| row["round_id"].as_str()).collect()
}

/// The words for which rounds stay.
fn reasons(answer: &Value) -> Vec<(&str, &str)> {
    let rows = answer["stays"].as_array().expect("an array");
    rows.iter().filter_map(|row| Some((row["round_id"].as_str()?, row["reason"].as_str()?))).collect()
}

#[test]
fn a_dry_run_says_what_a_run_then_does() {
    let place = Place::new();
    for made in [of("c", "03-01"), of("a", "03-03"), of("b", "03-02")] {
        place.sealed(&made);
    }
    let before = place.all();
    let dry = place.gc(&["--keep", "1", "--dry-run"], 0);
    assert_eq!(place.all(), before, "nothing was touched");
    assert_eq!(ids(&dry, "goes"), ["b", "c"]);
    assert_eq!(reasons(&dry), [("a", "newest")]);
    let files: Vec<&Vec<u8>> = before
        .iter()
        .filter(|(path, _)| path.starts_with(place.round("b")) && path.is_file())
        .map(|(_, bytes)| bytes)
        .collect();
    assert_eq!(dry["goes"][0]["files"], files.len());
    let size: u64 = files.iter().map(|bytes| bytes.len() as u64).sum();
    assert_eq!((&dry["goes"][0]["bytes"], &dry["goes"][0]["what"]), (&size.into(), &"round".into()));
    let done = place.gc(&["--keep", "1"], 0);
    assert_eq!((&done["goes"], &done["bytes"]), (&dry["goes"], &dry["bytes"]));
    let left: Vec<_> = fs::read_dir(place.rounds()).expect("lists").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(place.open("a").check_seal().expect("checks"), None);
    let again = place.gc(&["--keep", "1"], 0);
    assert_eq!(ids(&again, "goes"), [""; 0]);
}

#[test]
fn the_list_is_for_people_and_the_talk_on_stderr() {
    let place = Place::new();
    place.sealed(&of("old", "03-01"));
    place.unsealed(&of("cut", "03-02"));
    let output = place.run(&["gc", "--older-than", "30d", "--streams", "--dry-run"]);
    insta::assert_snapshot!(String::from_utf8_lossy(&output.stdout));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "2 files of 1 round would go, 4.9 KiB; 1 stays\n");
}

#[test]
fn what_a_check_handed_to_a_round_goes_with_it() {
    let place = Place::new();
    place.sealed(&of("goes", "03-01"));
    place.sealed(&of("stays", "03-03"));
    place.unsealed(&of("cut", "03-02"));
    let checks = place.0.path().join("data/checks");
    let outside = place.0.path().join("outside");
    fs::create_dir_all(&outside).expect("makes");
    fs::write(outside.join("mine"), "").expect("writes");
    let old = std::time::SystemTime::now() - std::time::Duration::from_hours(2);
    for name in ["goes", "stays", "cut", "orphan", "begins", "NOT VALID"] {
        fs::create_dir_all(checks.join(name).join("images/here")).expect("makes");
        symlink(&outside, checks.join(name).join("images/here/own")).expect("links");
        if name != "begins" {
            fs::File::open(checks.join(name)).expect("opens").set_modified(old).expect("is older");
        }
    }
    symlink(&outside, checks.join("link")).expect("links");
    let before = place.all();
    assert_eq!(ids(&place.gc(&["--keep", "1", "--streams", "--dry-run"], 0), "checks"), [""; 0]);
    let dry = place.gc(&["--keep", "1", "--dry-run"], 0);
    assert_eq!(place.all(), before, "nothing was touched");
    assert_eq!(ids(&dry, "checks"), ["goes", "orphan"]);
    let done = place.gc(&["--keep", "1"], 0);
    assert_eq!((ids(&done, "checks"), ids(&done, "goes")), (vec!["goes", "orphan"], vec!["goes"]));
    let mut left: Vec<_> =
        fs::read_dir(&checks).expect("lists").flatten().map(|entry| entry.file_name()).collect();
    left.sort();
    assert_eq!(left, ["NOT VALID", "begins", "cut", "link", "stays"]);
    assert!(outside.join("mine").exists(), "no link is followed");
    // They go by themselves too, also where nothing is left of the rounds.
    fs::remove_dir_all(place.rounds()).expect("removes");
    assert_eq!(ids(&place.gc(&["--older-than", "30d"], 0), "checks"), ["cut", "stays"]);
    assert!(!checks.join("stays").exists());
}

#[test]
fn what_stays_whatever_its_age() {
    let place = Place::new();
    let _held = place.sealed(&of("held", "03-01")).lock().expect("free");
    place.unsealed(&of("cut", "03-02"));
    place.sealed(&of("grandparent", "03-03"));
    place.sealed(&Made { parent: Some("grandparent"), ..of("parent", "03-04") });
    place.unsealed(&Made { parent: Some("parent"), ..of("child", "03-05") });
    fs::write(place.sealed(&of("scratched", "03-06")).path().join("SEAL"), "junk").expect("writes");
    fs::create_dir_all(place.rounds().join("other")).expect("makes");
    fs::create_dir_all(place.rounds().join("round=NOT VALID")).expect("makes");
    symlink(place.round("held"), place.rounds().join("round=link")).expect("links");
    let before = place.all();
    for extent in [&[][..], &["--streams"]] {
        for keep in [&["--keep", "0"], &["--older-than", "1d"]] {
            let done = place.gc(&[keep, extent].concat(), 0);
            let stays = [
                ("child", "unsealed"),
                ("cut", "unsealed"),
                ("grandparent", "parent"),
                ("held", "held"),
                ("parent", "parent"),
                ("scratched", "unreadable"),
            ];
            assert_eq!(reasons(&done), stays);
        }
    }
    assert_eq!(place.all(), before);
}

#[test]
fn a_round_without_its_raw_streams_is_still_what_was_sealed() {
    let place = Place::new();
    let round = place.sealed(&of("a", "03-01"));
    let done = place.gc(&["--keep", "0", "--streams"], 0);
    assert_eq!((&done["files"], &done["bytes"]), (&2.into(), &5000.into()));
    assert_eq!(done["goes"][0]["what"], "streams");
    assert!(!round.path().join(STREAMS).exists() && !round.path().join(EXCHANGES).exists());
    assert_eq!(round.check_seal().expect("checks"), None);
    let record = fs::read_to_string(round.path().join("REMOVED")).expect("reads");
    assert_eq!(record.lines().count(), 3, "{record}");
    assert!(record.contains(&format!("{}  4000  {STREAMS}\n", sha256(&[b'x'; 4000]))), "{record}");
    let again = place.gc(&["--keep", "0", "--streams"], 0);
    assert_eq!(reasons(&again), [("a", "nothing-left")]);

    let difference = || round.check_seal().expect("checks").map(|difference| difference.to_string());
    let table = round.path().join("results/leaderboard.parquet");
    fs::write(&table, b"rowt").expect("writes");
    assert!(difference().is_some_and(|text| text.contains("leaderboard.parquet` was sealed as")));
    fs::remove_file(&table).expect("removes");
    assert!(difference().is_some_and(|text| text.contains("leaderboard.parquet` was sealed and is gone")));
    // The record excuses raw streams alone.
    let line = format!("{}  4  results/leaderboard.parquet\n", sha256(b"rows"));
    fs::write(round.path().join("REMOVED"), record + &line).expect("writes");
    assert!(difference().is_some_and(|text| text.contains("leaderboard.parquet` was sealed and is gone")));
    fs::write(&table, b"rows").expect("writes");
    assert_eq!(difference(), None);
    fs::remove_file(round.path().join("REMOVED")).expect("removes");
    assert!(difference().is_some_and(|text| text.contains("exchanges.parquet` was sealed and is gone")));
}

#[test]
fn what_is_not_as_it_was_sealed_is_left_and_said() {
    let place = Place::new();
    let round = place.sealed(&of("a", "03-01"));
    fs::write(round.path().join(STREAMS), [b'z'; 4000]).expect("writes");
    let done = place.gc(&["--keep", "0", "--streams"], 4);
    assert!(done["failed"][0]["why"].as_str().is_some_and(|why| why.contains("is not what was sealed")));
    assert!(round.path().join(STREAMS).exists() && !round.path().join(EXCHANGES).exists());
    assert!(round.check_seal().expect("checks").is_some());
}

#[test]
fn a_removal_that_was_cut_short_is_gone_on_with() {
    let place = Place::new();
    place.sealed(&of("a", "03-01"));
    let whole = place.open("a");
    // Cut between the record and the second file.
    let removed = place.gc(&["--keep", "0", "--streams", "--dry-run"], 0);
    assert_eq!(removed["goes"][0]["files"], 2);
    place.gc(&["--keep", "0", "--streams"], 0);
    fs::write(whole.path().join(STREAMS), [b'x'; 4000]).expect("writes");
    assert_eq!(whole.check_seal().expect("checks"), None);
    place.gc(&["--keep", "0", "--streams"], 0);
    assert!(!whole.path().join(STREAMS).exists());
    assert_eq!(whole.check_seal().expect("checks"), None);
    // Cut after the name was taken away, with some of the files gone.
    fs::remove_file(whole.path().join("round.json")).expect("removes");
    fs::rename(whole.path(), place.rounds().join(".part-removed-a")).expect("renames");
    let dry = place.gc(&["--keep", "5", "--dry-run"], 0);
    assert_eq!(ids(&dry, "leftovers"), ["a"]);
    assert_eq!(place.run(&["rounds", "--json"]).stdout, b"[]\n");
    place.gc(&["--keep", "5"], 0);
    assert_eq!(fs::read_dir(place.rounds()).expect("lists").count(), 0);
}

#[test]
fn no_link_is_followed() {
    let place = Place::new();
    let outside = place.0.path().join("outside");
    fs::create_dir_all(outside.join("_/attempt-1")).expect("makes");
    fs::write(outside.join("_/attempt-1/streams.parquet"), "mine").expect("writes");
    let round = place.unsealed(&of("a", "03-01"));
    fs::create_dir_all(round.path().join("jobs/x/_/attempt-1")).expect("makes");
    symlink(&outside, round.path().join("jobs/out")).expect("links");
    symlink(
        outside.join("_/attempt-1/streams.parquet"),
        round.path().join("jobs/x/_/attempt-1/streams.parquet"),
    )
    .expect("links");
    round.seal().expect("seals");
    let done = place.gc(&["--keep", "0", "--streams"], 0);
    assert_eq!(done["files"], 2);
    assert_eq!(round.check_seal().expect("checks"), None);
    // A link in the place of the lock is not written through.
    let _ = fs::remove_file(round.path().join("lock"));
    symlink(outside.join("lock"), round.path().join("lock")).expect("links");
    assert_eq!(reasons(&place.gc(&["--keep", "0"], 0)), [("a", "unreadable")]);
    fs::remove_file(round.path().join("lock")).expect("removes");
    place.gc(&["--keep", "0"], 0);
    assert!(!round.path().exists() && !outside.join("lock").exists());
    assert_eq!(fs::read(outside.join("_/attempt-1/streams.parquet")).expect("stays"), b"mine");
}

#[test]
fn a_round_that_ran_is_removed() {
    let place = Place::new();
    let text = "jobs: { a: { runs-on: controller, steps: [{ run: 'true' }] } }\n";
    fs::write(place.0.path().join("p.yml"), text).expect("writes");
    fs::create_dir(place.0.path().join("runners")).expect("makes");
    assert_eq!(place.run(&["run", "p.yml", "--round", "r"]).status.code(), Some(0));
    let stays = place.gc(&["--older-than", "1h"], 0);
    assert_eq!(reasons(&stays), [("r", "recent")]);
    assert_eq!(ids(&place.gc(&["--keep", "0"], 0), "goes"), ["r"]);
    assert!(!place.round("r").exists());
}

#[test]
fn one_of_two_policies_is_asked_for() {
    let place = Place::new();
    for args in [
        &["gc"][..],
        &["gc", "--streams"],
        &["gc", "--keep", "1", "--older-than", "1d"],
        &["gc", "--keep", "-1"],
        &["gc", "--older-than", "30"],
    ] {
        assert_eq!(place.run(args).status.code(), Some(2), "{args:?}");
    }
    let output = place.run(&["gc", "--keep", "1"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
    assert!(!place.0.path().join("data").exists(), "nothing is made");
}
