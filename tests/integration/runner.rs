//! `cacheon runner`: what it lists, and how a runner goes out of service and comes back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use cacheon::judge::machine_sign;
use serde_json::Value;

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
    assert!(unknown.is_empty(), "add to the table of src/judge/machine.rs: {unknown:#?}");
}
