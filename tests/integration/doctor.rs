//! `cacheon doctor`: what it finds, the command that mends it, and that it changes nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Output;

use assert_cmd::Command;
use cacheon::adapters::store::RoundDirectory;
use serde_json::Value;

struct Place(tempfile::TempDir);

impl Place {
    /// A place with a pipeline of one step, a runner and an empty data directory.
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a temporary directory"));
        place.write("p.yml", "jobs: { a: { runs-on: controller, steps: [{ run: 'true' }] } }\n");
        place.write("runners/here.yml", "name: here\nengine: process\nimages: images\nmodel-dir: model\n");
        place.write("model/tokenizer.json", "{}");
        fs::create_dir(place.0.path().join("data")).expect("makes");
        place
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
        fs::write(path, text).expect("writes");
    }

    fn round(&self, name: &str) -> PathBuf {
        self.0.path().join(format!("data/rounds/round={name}"))
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cacheon"));
        command.current_dir(self.0.path()).env_remove("CACHEON_DATA").env("NO_COLOR", "1").args(args);
        // No daemon, whatever this machine has.
        command.env("DOCKER_HOST", "unix:///nowhere/docker.sock");
        command.output().expect("the program starts")
    }

    /// What is found when it ends with this code: check, severity, words and what mends it.
    fn findings(&self, code: i32) -> Vec<[String; 4]> {
        let output = self.run(&["doctor", "--json"]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{said}");
        let answer: Value = serde_json::from_str(&said).expect("JSON");
        let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let rows = answer["findings"].as_array().expect("an array");
        rows.iter().map(|row| ["check", "severity", "found", "mend"].map(|key| text(row, key))).collect()
    }

    /// Asserts that there is a finding of this check and severity with these words and this mend, and one only.
    fn check(&self, code: i32, [check, severity, words, mend]: [&str; 4]) {
        let findings = self.findings(code);
        let is_it = |found: &&[String; 4]| {
            found[0] == check && found[1] == severity && found[2].contains(words) && found[3].contains(mend)
        };
        assert_eq!(findings.iter().filter(is_it).count(), 1, "{findings:#?}");
    }
}

#[test]
fn where_all_is_well() {
    let place = Place::new();
    assert_eq!(place.run(&["run", "p.yml", "--round", "r"]).status.code(), Some(0));
    let before = fs::read_dir(place.0.path().join("data")).expect("lists").count();
    let findings = place.findings(0);
    for check in ["data", "disk", "rounds", "runners", "processes", "clock"] {
        assert!(findings.iter().any(|found| found[0] == check), "{check}: {findings:#?}");
    }
    assert!(findings.iter().any(|found| found[2] == "1 round, 1 sealed"), "{findings:#?}");
    assert_eq!(fs::read_dir(place.0.path().join("data")).expect("lists").count(), before);
    let output = place.run(&["doctor"]);
    assert!(
        String::from_utf8_lossy(&output.stdout).starts_with("ok       data       `data` can be written to\n")
    );
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("0 problems, "));
}

#[test]
fn rounds_that_are_not_done() {
    let place = Place::new();
    let data = place.0.path().join("data");
    let make =
        |name: &str| RoundDirectory::create(&data, &name.parse().expect("an id")).expect("a new round");
    assert_eq!(place.run(&["run", "p.yml", "--round", "cut"]).status.code(), Some(0));
    let journal = fs::read_to_string(place.round("cut").join("journal.jsonl")).expect("reads");
    fs::remove_file(place.round("cut").join("SEAL")).expect("removes");
    place.check(0, ["rounds", "warning", "`cut` is done and has no seal", "cacheon resume cut"]);
    let half: String = journal.split_inclusive('\n').take(2).collect();
    fs::write(place.round("cut").join("journal.jsonl"), half).expect("writes");
    fs::write(place.round("cut").join("lock"), "4194305\n").expect("writes");
    fs::write(place.round("cut").join(".part-x"), "").expect("writes");
    place.check(0, ["rounds", "warning", "process 4194305, which is dead: harmless", "cacheon resume cut"]);
    place.check(
        0,
        ["rounds", "warning", "half-written files, swept when it is taken up: 1", "cacheon resume cut"],
    );
    assert!(place.round("cut").join(".part-x").exists(), "nothing is changed");

    let held = make("held");
    let lock = held.lock().expect("free");
    let words = format!("`held` is held by process {}", std::process::id());
    place.check(0, ["rounds", "note", &words, ""]);
    drop(lock);
    place.check(3, ["rounds", "problem", "round.json", "`held`"]);
    fs::remove_dir_all(held.path()).expect("removes");
    fs::write(place.round("cut").join("journal.jsonl"), format!("x{journal}")).expect("writes");
    place.check(3, ["rounds", "problem", "journal.jsonl", "`cut`"]);
    place.write("data/rounds/round=cut/SEAL", "junk\n");
    place.check(3, ["rounds", "problem", "SEAL", "`cut`"]);
}

#[test]
fn what_was_left_by_a_removal() {
    let place = Place::new();
    fs::create_dir_all(place.0.path().join("data/rounds/.part-removed-old")).expect("makes");
    place.check(0, ["leftovers", "warning", ".part-removed-old", "cacheon gc"]);
    let mend = place.findings(0).into_iter().find(|found| found[0] == "leftovers").expect("found")[3].clone();
    let words: Vec<&str> = mend.split(' ').skip(1).collect();
    assert_eq!(place.run(&words).status.code(), Some(0));
    assert!(place.findings(0).iter().all(|found| found[0] != "leftovers"));
}

#[test]
fn the_data_directory() {
    let place = Place::new();
    let data = place.0.path().join("data");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).expect("changes");
    place.check(3, ["data", "problem", "everybody", "chmod o-w data"]);
    fs::remove_dir(&data).expect("removes");
    place.check(0, ["data", "ok", "not there yet", ""]);
    assert!(!data.exists(), "nothing is made");
    fs::write(&data, "").expect("writes");
    place.check(3, ["data", "problem", "no directory", "CACHEON_DATA"]);
}

#[test]
fn runners() {
    let place = Place::new();
    fs::remove_file(place.0.path().join("model/tokenizer.json")).expect("removes");
    place.check(0, ["runners", "warning", "no tokenizer.json", "tokenizer.json into model"]);
    fs::remove_dir(place.0.path().join("model")).expect("removes");
    place.check(0, ["runners", "warning", "no directory here", "model-dir"]);
    place.write("runners/bad.yml", "engine: steam\n");
    place.check(3, ["runners", "problem", "`runners/bad.yml` is no runner", "cacheon lint runners/bad.yml"]);
    fs::remove_file(place.0.path().join("runners/bad.yml")).expect("removes");
    place.write("runners/box.yml", "name: box\nengine: docker\n");
    // Another can be used; where this one is what the machine is for, it is a problem.
    place.check(0, ["runners", "warning", "`runners/box.yml` starts containers", "ocker"]);
    let code = |args: &[&str]| place.run(&[&["doctor"], args].concat()).status.code();
    assert_eq!(code(&["--runner", "here"]), Some(0));
    assert_eq!(code(&["--runner", "here", "--runner", "box"]), Some(3));
    assert_eq!(code(&["--runner", "there"]), Some(2));
    fs::remove_file(place.0.path().join("runners/here.yml")).expect("removes");
    place.check(3, ["runners", "problem", "`runners/box.yml` starts containers", "ocker"]);
    fs::remove_dir_all(place.0.path().join("runners")).expect("removes");
    place.check(0, ["runners", "note", "no runner files in `runners`", "--runners"]);
}

#[test]
fn a_script_whose_round_is_gone() {
    let place = Place::new();
    let mut command = std::process::Command::new("sleep");
    // The mark of a process that cannot be: ids end below it.
    let mut child =
        command.arg("600").env("CACHEON_GUARD", "4194305").process_group(0).spawn().expect("starts");
    let mend = format!("kill {}", child.id());
    place.check(0, ["processes", "warning", "is a script whose round is gone", &mend]);
    child.kill().expect("kills");
    child.wait().expect("ends");
    assert!(place.findings(0).iter().all(|found| found[3] != mend));
}

#[test]
fn a_clock_before_what_was_written() {
    let place = Place::new();
    assert_eq!(place.run(&["run", "p.yml", "--round", "r"]).status.code(), Some(0));
    let path = place.round("r").join("journal.jsonl");
    let bytes = fs::read(&path).expect("reads");
    let last = cacheon::artifact::journal::replay::<cacheon::artifact::JournalEvent>(&bytes)
        .expect("whole")
        .lines
        .pop()
        .expect("a line");
    let at = "2999-01-01T00:00:00Z".parse().expect("a time");
    let line = cacheon::artifact::JournalLine { seq: last.seq + 1, at, ..last };
    let more = cacheon::artifact::journal::encode_line(&line).expect("encodes");
    fs::write(&path, [bytes, more].concat()).expect("writes");
    place.check(3, ["clock", "problem", "the journal of `r`", "timedatectl"]);
}
