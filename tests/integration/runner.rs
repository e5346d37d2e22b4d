//! `cacheon runner`: what it lists, and how a runner goes out of service and comes back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use cacheon::artifact::digest::sha256;
use cacheon::judge::machine_sign;
use serde_json::{Value, json};

use super::schedule::wait_for;

struct Place(tempfile::TempDir);

impl Place {
    /// Two runners with a label of both, and an image whose server dies at once.
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a temporary directory"));
        for name in ["left", "right"] {
            let runner =
                format!("name: {name}\nlabels: [bench]\nengine: process\nimages: images\nmodel-dir: model\n");
            place.write(&format!("runners/{name}.yml"), &runner);
        }
        place.write("model/tokenizer.json", "{}");
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, runner: &str) -> PathBuf {
        self.path().join(format!("data/quarantine/{runner}.json"))
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
        fs::write(path, text).expect("writes");
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cacheon"));
        command.current_dir(self.path()).env_remove("CACHEON_DATA").env("NO_COLOR", "1").args(args);
        command.output().expect("the program starts")
    }

    /// What is said on stderr when it ends with this code.
    fn said(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        said
    }

    fn list(&self) -> Value {
        let output = self.run(&["runner", "list", "--json"]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// An image of the process engine; its digest.
    fn image(&self, name: &str, command: &[&str]) -> String {
        let text = json!({ "command": command }).to_string();
        self.write(&format!("images/{name}.json"), &text);
        sha256(text.as_bytes()).to_string()
    }

    /// A pipeline `bench.yml` of one read on a runner with the label `bench`, whose server is this command.
    fn reads(&self, arm: &str, command: &[&str]) {
        let digest = self.image("dead/server", command);
        let hotkey = if arm == "candidate" { format!("5{}", "A".repeat(47)) } else { "null".to_owned() };
        let text = format!(
            "name: bench
on: {{ schedule: [{{ cron: '0 * * * *' }}] }}
jobs:
  measure:
    runs-on: bench
    timeout: 2s
    strategy:
      matrix:
        read:
          - {{ key: 0000-{arm}, arm: {arm}, hotkey: {hotkey}, image: dead/server, digest: '{digest}', position: 0,
               sequence: '0', brackets: [0] }}
      key: ${{{{ matrix.read.key }}}}
    steps:
      - uses: boot
        with: {{ image: dead/server, digest: '{digest}', role: {arm}, deadline: 30s }}
"
        );
        self.write("pipelines/bench.yml", &text);
    }

    /// The names of the runners that a round had.
    fn runners_of(&self, round: &str) -> Vec<String> {
        let text = fs::read_to_string(self.round(round).join("round.json")).expect("reads");
        let file: Value = serde_json::from_str(&text).expect("JSON");
        let runners = file["runners"].as_array().expect("runners").iter();
        runners.map(|runner| runner["name"].as_str().expect("a name").to_owned()).collect()
    }

    fn round(&self, round: &str) -> PathBuf {
        self.path().join(format!("data/rounds/round={round}"))
    }

    fn journal(&self, round: &str) -> String {
        fs::read_to_string(self.round(round).join("journal.jsonl")).unwrap_or_default()
    }

    fn put_out(&self, runners: &[&str]) {
        for runner in runners {
            self.said(0, &["runner", "quarantine", runner, "--reason", "a new driver"]);
        }
    }

    /// The runners that are out of service.
    fn out(&self) -> Vec<String> {
        let list = self.list();
        let rows = list.as_array().expect("an array").iter();
        rows.filter(|row| row["is_in_service"] == false)
            .map(|row| row["name"].as_str().expect("a name").to_owned())
            .collect()
    }
}

fn assert_has(text: &str, words: &[&str]) {
    for words in words {
        assert!(text.contains(words), "`{words}` is not in:\n{text}");
    }
}

#[test]
fn a_runner_goes_out_of_service_by_hand_and_comes_back_on_record() {
    let place = Place::new();
    assert_eq!(place.out(), [""; 0]);
    let said = place.said(0, &["runner", "quarantine", "left", "--reason", "a new driver"]);
    assert_has(
        &said,
        &["runner `left` is out of service since", "by hand: a new driver", "cacheon runner lift left"],
    );
    assert_eq!(place.out(), ["left"]);
    let table = String::from_utf8(place.run(&["runner", "list"]).stdout).expect("text");
    assert_has(&table, &["quarantined since", "a new driver", "in service", "left, bench", "process"]);
    // The first reason stands.
    let said = place.said(2, &["runner", "quarantine", "left", "--reason", "another"]);
    assert_has(&said, &["out of service since", "a new driver", "it stays so"]);

    let said = place.said(0, &["runner", "lift", "left", "--reason", "installed"]);
    assert_has(&said, &["runner `left` is in service again", "a new driver", "lifted: installed"]);
    assert_eq!(place.out(), [""; 0]);
    let list = place.list();
    let past = &list[0]["history"];
    assert_eq!(past.as_array().map(Vec::len), Some(1));
    assert_eq!(past[0]["reason"], "installed");
    assert_eq!(past[0]["quarantine"]["cause"]["by"], "hand");
}

#[test]
fn what_is_not_there_is_said_and_makes_nothing() {
    let place = Place::new();
    let said = place.said(2, &["runner", "lift", "left"]);
    assert_has(&said, &["runner `left` is not out of service", "nothing to lift; no runner is"]);
    let said = place.said(2, &["runner", "quarantine", "lefd", "--reason", "x"]);
    assert_has(&said, &["there is no runner `lefd`; there are: left, right"]);
    place.said(2, &["runner", "quarantine", "left"]);
    place.said(2, &["runner", "quarantine", "left", "--reason", " "]);
    for name in ["../../etc/passwd", "", ".", "a/b", "lock"] {
        assert_has(&place.said(2, &["runner", "lift", name]), &["is not out of service"]);
    }
    assert!(!place.path().join("data").exists(), "nothing is made");
    place.said(0, &["runner", "quarantine", "right", "--reason", "x"]);
    assert_has(&place.said(2, &["runner", "lift", "left"]), &["nothing to lift; `right` is"]);
    // A runner whose file is gone is still listed while it is out.
    fs::remove_file(place.path().join("runners/right.yml")).expect("removes");
    assert_eq!(place.out(), ["right"]);
    place.said(0, &["runner", "lift", "right"]);
    assert_eq!(place.list().as_array().map(Vec::len), Some(1));
}

#[test]
fn a_file_that_is_not_of_the_form_is_an_error_with_its_place() {
    let place = Place::new();
    place.said(0, &["runner", "quarantine", "left", "--reason", "x"]);
    let good = fs::read_to_string(place.file("left")).expect("reads");
    let check = |text: &str, words: &[&str]| {
        fs::write(place.file("left"), text).expect("writes");
        for args in [&["runner", "list"][..], &["runner", "lift", "left"]] {
            let said = place.said(4, args);
            assert_has(&said, &["data/quarantine/left.json` is not usable"]);
            assert_has(&said, words);
        }
        assert_eq!(fs::read_to_string(place.file("left")).expect("reads"), text, "nothing is changed");
    };
    check("", &["line 1 column 0"]);
    check(&good.replace("\"cause\"", "\"clause\""), &["unknown field `clause`", "line "]);
    check(&good.replace("\"left\"", "\"right\""), &["speaks of the runner `right`"]);
    check(&good.replace("\"1.0\"", "\"2.0\""), &["schema 2.0"]);
    check(&"[".repeat(100_000), &["line 1"]);
    fs::write(place.file("left"), vec![b' '; (4 << 20) + 1]).expect("writes");
    assert_has(&place.said(4, &["runner", "list"]), &["is larger than"]);
    fs::remove_file(place.file("left")).expect("removes");
    std::os::unix::fs::symlink("/etc/passwd", place.file("left")).expect("links");
    place.said(4, &["runner", "list"]);
}

const RUN: [&str; 4] = ["run", "pipelines/bench.yml", "--seed", "1"];

#[test]
fn where_the_baseline_dies_nothing_more_runs_until_the_runner_is_lifted() {
    let place = Place::new();
    place.reads("baseline", &["/bin/false"]);
    let run = |round: &str| place.said(4, &[&RUN[..], &["--round", round]].concat());
    let said = run("r1");
    assert_has(&said, &["runner `left` is out of service since", "in round `r1` the baseline failed on it"]);
    assert_has(&said, &["read `0000-baseline`: server-exited-before-ready: ", "cacheon runner lift left"]);
    assert_eq!(place.out(), ["left"]);
    // Another one has the label: the round is its, and says so.
    assert_has(&run("r2"), &["another runner takes its jobs", "runner `left` is out of service"]);
    assert_eq!(
        (place.runners_of("r1"), place.runners_of("r2")),
        (vec!["left".into(), "right".into()], vec!["right".into()])
    );
    assert_eq!(place.out(), ["left", "right"]);
    // Nobody is left.
    let said = run("r3");
    let words = [
        "error: runner `left` is out of service since",
        "in round `r1`",
        "job `measure` can run nowhere else",
    ];
    assert_has(&said, &words);
    assert_has(&said, &["look at its machine, then `cacheon runner lift left`\n"]);
    assert!(!place.round("r3").exists(), "nothing is made");
    let plan = String::from_utf8(place.run(&["plan", "pipelines/bench.yml"]).stdout).expect("text");
    assert_has(
        &plan,
        &["  measure  on bench\n    runner `left` is out of service since", "cacheon runner lift left"],
    );
    let doctor = String::from_utf8(place.run(&["doctor"]).stdout).expect("text");
    assert_has(
        &doctor,
        &["problem  runners    runner `right` is out of service since", "then: cacheon runner lift right"],
    );
    // A round that is taken up, or done again, goes on where it began or nowhere.
    let before = place.journal("r1");
    assert_has(
        &place.said(4, &["resume", "r1"]),
        &["runner `left` is out", "lift left` and `cacheon resume r1`"],
    );
    assert_eq!(place.journal("r1"), before);
    assert_has(&place.said(4, &["rerun", "r1", "--failed", "--round", "again"]), &["runner `left` is out"]);
    assert!(!place.round("again").exists(), "nothing is made");
    // Lifted, it is used; a rerun puts nothing out, and what goes on does.
    place.said(0, &["runner", "lift", "left"]);
    let said = place.said(4, &["rerun", "r1", "--failed", "--round", "again"]);
    assert!(!said.contains("out of service"), "{said}");
    assert_eq!(place.out(), ["right"]);
    assert_has(&place.said(4, &["resume", "r1"]), &["in round `r1` the baseline failed on it"]);
    assert_eq!(place.out(), ["left", "right"]);
    let list = place.list();
    assert_eq!(list[0]["quarantine"]["cause"]["reads"][0]["attempt"], 2);
    assert_eq!(list[0]["history"].as_array().map(Vec::len), Some(1));
}

#[test]
fn what_was_looked_at_is_not_held_against_a_machine_again() {
    let place = Place::new();
    // Nobody can explain that it hangs, so the read stands as it is when the round is taken up.
    place.reads("baseline", &["/bin/sleep", "60"]);
    place.said(4, &[&RUN[..], &["--round", "r1"]].concat());
    assert_eq!(place.out(), ["left"]);
    assert_eq!(place.list()[0]["quarantine"]["cause"]["reads"][0]["code"], "timeout");
    place.said(0, &["runner", "lift", "left"]);
    place.said(4, &["resume", "r1"]);
    assert_eq!(place.out(), [""; 0]);
}

#[test]
fn no_submission_puts_a_runner_out_of_service() {
    let place = Place::new();
    place.reads("candidate", &["/bin/false"]);
    place.said(0, &[&RUN[..], &["--round", "r1"]].concat());
    assert_has(&place.journal("r1"), &["server-exited-before-ready"]);
    assert_eq!(place.out(), [""; 0]);
    assert!(!place.path().join("data/quarantine").exists(), "nothing is made");
}

const SCRIPTS: &str = "name: scripts
jobs:
  a: { runs-on: bench, steps: [{ run: 'true' }] }
  b: { runs-on: controller, needs: a, steps: [{ run: test -e mended || exit 75 }] }
  c: { runs-on: bench, needs: a, if: '${{ false }}', steps: [{ run: 'true' }] }
";

#[test]
fn a_round_that_needs_no_runner_any_more_goes_on() {
    let place = Place::new();
    place.write("pipelines/bench.yml", SCRIPTS);
    place.put_out(&["left"]);
    place.said(4, &[&RUN[..], &["--round", "r1"]].concat());
    assert_eq!(place.runners_of("r1"), ["right"]);
    place.put_out(&["right"]);
    // Nor does it change its runner when another one comes back.
    place.said(0, &["runner", "lift", "left"]);
    place.write("mended", "");
    place.said(0, &["resume", "r1"]);
    assert_eq!(place.journal("r1").matches("\"runner\":\"right\"").count(), 1);
    let audited = place.run(&["audit", "r1"]);
    assert_eq!(audited.status.code(), Some(0), "{}", String::from_utf8_lossy(&audited.stdout));
}

#[test]
fn a_round_that_waited_while_its_runner_was_put_out_does_not_begin() {
    let place = Place::new();
    let scripts = SCRIPTS.replace("jobs:", "concurrency: all\njobs:");
    place.write(
        "pipelines/bench.yml",
        &scripts.replace("run: 'true' }] }\n  b", "run: until test -e gate; do sleep 0.05; done }] }\n  b"),
    );
    place.write("mended", "");
    let start = |round: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cacheon"));
        command.current_dir(place.path()).env_remove("CACHEON_DATA").args(RUN).args(["--round", round]);
        command.stderr(std::process::Stdio::piped()).spawn().expect("starts")
    };
    let first = start("r1");
    wait_for("step", || place.journal("r1").contains("step-started").then_some(()));
    let second = start("r2");
    wait_for("wait", || place.journal("r2").contains("group-awaited").then_some(()));
    place.put_out(&["left"]);
    place.write("gate", "");
    // What runs goes on.
    assert_eq!(first.wait_with_output().expect("ends").status.code(), Some(0));
    let second = second.wait_with_output().expect("ends");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(4), "{said}");
    assert_has(&said, &["runner `left` is out of service", "lift left` and `cacheon resume r2`"]);
    assert!(!place.journal("r2").contains("step-started"), "nothing of it ran");
    place.said(0, &["runner", "lift", "left"]);
    place.said(0, &["resume", "r2"]);
}

#[test]
fn a_tick_waits_until_its_runner_is_lifted() {
    let place = Place::new();
    place.reads("baseline", &["/bin/false"]);
    let tick = |at: &str| {
        let output = place.run(&["schedule", "tick", "--at", at]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let ticks = || -> Vec<[String; 3]> {
        let sql = "SELECT outcome, reason, detail FROM ticks ORDER BY nominal_at_us";
        let output = place.run(&["query", "--json", sql]);
        let rows: Value = serde_json::from_slice(&output.stdout).expect("rows");
        let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let rows = rows.as_array().expect("an array").iter();
        rows.map(|row| ["outcome", "reason", "detail"].map(|name| text(row, name))).collect()
    };
    place.put_out(&["left", "right"]);
    let (code, said) = tick("2026-03-01T01:00:20Z");
    assert_eq!(code, Some(0), "{said}");
    assert_has(&said, &["waits: the machine failed its checks (runner `left` is out of service since"]);
    let found = ticks();
    assert_eq!(found[0][..2], ["waiting", "machine"]);
    assert_has(&found[0][2], &["a new driver", "`cacheon runner lift left`"]);
    assert!(!place.path().join("data/rounds").exists(), "nothing starts");
    // With one of them back it fires; the round finds that one broken, and is not taken up on it again and again.
    place.said(0, &["runner", "lift", "right"]);
    let (code, said) = tick("2026-03-01T01:00:40Z");
    assert_eq!(code, Some(4), "{said}");
    assert_has(&said, &["starts round bench-2026", "runner `right` is out of service since"]);
    assert_eq!(place.out(), ["left", "right"]);
    for at in ["2026-03-01T02:00:00Z", "2026-03-01T03:00:00Z"] {
        tick(at);
    }
    // Nor does it help that another one is back: the round is not its.
    place.said(0, &["runner", "lift", "left"]);
    tick("2026-03-01T04:00:00Z");
    let found = ticks();
    assert_eq!(found.len(), 4, "{found:?}");
    for tick in &found[1..] {
        assert_eq!(tick[..2], ["skipped", "still-running"]);
        assert_has(
            &tick[2],
            &["bench-2026", "runner `right` is out of service", "`cacheon runner lift right`"],
        );
    }
    assert_eq!(place.out(), ["right"]);
}

/// The codes of reasons that stand in the sources: what follows a fault.
fn codes(text: &str) -> Vec<String> {
    let after = text.split("Fault::").skip(1).filter_map(|rest| {
        let rest = rest.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let rest = rest.strip_prefix(',')?.trim_start().strip_prefix('"')?;
        rest.split_once('"').map(|(code, _)| code)
    });
    let is_code = |code: &&str| code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    after.filter(is_code).map(ToOwned::to_owned).collect()
}

fn sources(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).expect("source folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).expect("source");
            let own = text.split("mod tests {").next().unwrap_or_default().to_owned();
            found.push((path, own));
        }
    }
}

#[test]
fn every_reason_code_says_something_of_a_machine_or_nothing_on_purpose() {
    assert_eq!(
        codes("(Fault::Infra, \"a-b\"), Reason::new(Fault::Unknown,\n   \"c\", x), Fault::Infra, \"A b\""),
        ["a-b", "c"]
    );
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let found: Vec<(PathBuf, String)> = files
        .iter()
        .flat_map(|(path, text)| codes(text).into_iter().map(move |code| (path.clone(), code)))
        .collect();
    assert!(found.len() > 40, "the codes were found: {found:?}");
    let unknown: Vec<_> = found.iter().filter(|(_, code)| machine_sign(code).is_none()).collect();
    assert!(unknown.is_empty(), "add to the table of src/judge/service.rs: {unknown:#?}");
}
