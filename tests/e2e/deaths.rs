//! Programs that die, meet, or find no disk: one of them runs a round, and whoever comes later ends it the same way.
//!
//! The rounds are scripts and stages on the controller, so no model and no server is needed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::round::{Round, root};

/// A list, two legs that keep a process of their own for the time, and tables; the legs wait for the gate.
struct Scripted {
    round: Round,
    gate: PathBuf,
}

impl Scripted {
    fn new() -> Self {
        let round = Round::new();
        let gate = round.dir.path().join("gate");
        let pipeline = format!(
            "name: scripted
env: {{ GATE: {gate} }}
jobs:
  list:
    runs-on: controller
    steps:
      - uses: fetch-commitments
        with: {{ source: file, path: {commitments} }}
  each:
    runs-on: controller
    needs: list
    strategy: {{ matrix: {{ n: [1, 2] }}, sequence: one }}
    steps:
      - run: until [ -e \"$GATE\" ]; do sleep 0.02; done
      - uses: fetch-commitments
        with: {{ source: file, path: {commitments} }}
  publish:
    runs-on: controller
    needs: each
    steps:
      - uses: publish
",
            gate = gate.display(),
            commitments = root().join("data/demo/commitments.yml").display(),
        );
        std::fs::write(round.dir.path().join("scripted.yml"), pipeline).expect("pipeline");
        std::fs::create_dir(round.dir.path().join("no-runners")).expect("a folder");
        Self { round, gate }
    }

    fn run(&self) -> Command {
        let mut command = self.round.cacheon(&["run", "--round", "r", "--seed", "1", "--runners"]);
        command.arg(self.round.dir.path().join("no-runners")).arg(self.round.dir.path().join("scripted.yml"));
        command
    }

    fn resume(&self) -> Command {
        self.round.cacheon(&["resume", "r"])
    }

    fn open(&self) {
        std::fs::write(&self.gate, "").expect("gate");
    }

    fn path(&self) -> PathBuf {
        self.round.data().join("rounds/round=r")
    }

    /// Number of whole lines of the journal.
    fn lines(&self) -> usize {
        let journal = std::fs::read_to_string(self.path().join("journal.jsonl")).unwrap_or_default();
        journal.split('\n').count() - 1
    }

    /// The published tables; that of the steps says how long each took.
    fn tables(&self) -> BTreeMap<String, Vec<u8>> {
        let files = std::fs::read_dir(self.path().join("results")).expect("results").flatten();
        let named = files.map(|file| (file.file_name().into_string().expect("a name"), file.path()));
        named
            .filter(|(name, _)| name != "step_attempts.parquet")
            .map(|(name, path)| (name, std::fs::read(path).expect("reads")))
            .collect()
    }

    /// Runs the round, or what is left of it, to its end.
    fn is_done(&self) {
        self.open();
        if !self.path().join("SEAL").exists() {
            let command = if self.path().join("round.json").exists() { self.resume() } else { self.run() };
            let (status, said) = end(start(command));
            assert_eq!(status.code(), Some(0), "{said}");
        }
        let names: Vec<PathBuf> = std::fs::read_dir(self.path())
            .expect("a round")
            .chain(std::fs::read_dir(self.path().join("results")).expect("results"))
            .map(|entry| entry.expect("entry").path())
            .collect();
        assert!(!names.iter().any(|path| path.to_string_lossy().contains(".part-")), "{names:?}");
        assert_eq!(std::fs::read_to_string(self.path().join("lock")).expect("lock"), "");
        let audited = self.round.output(&["audit", "r"]);
        assert_eq!(audited.status.code(), Some(0), "{}", String::from_utf8_lossy(&audited.stdout));
        self.round.wait_until_empty();
    }
}

fn start(mut command: Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

fn end(child: Child) -> (ExitStatus, String) {
    let output = child.wait_with_output().expect("ends");
    (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Of two programs that start at once on a round that waits for its gate, one is told at once that the other has it.
fn one_of(scripted: &Scripted, command: impl Fn() -> Command) {
    let mut programs = vec![start(command()), start(command())];
    let refused = loop {
        let ended = programs.iter_mut().position(|child| child.try_wait().expect("waits").is_some());
        if let Some(first) = ended {
            break programs.remove(first);
        }
        std::thread::yield_now();
    };
    let runs = programs.remove(0);
    let (status, said) = end(refused);
    assert_eq!(status.code(), Some(4), "{said}");
    assert!(said.contains(&format!("held by process {}", runs.id())), "{said}");
    scripted.open();
    let (status, said) = end(runs);
    assert_eq!(status.code(), Some(0), "{said}");
    std::fs::remove_file(&scripted.gate).expect("gate");
}

#[test]
fn of_two_programs_on_one_round_one_runs_it() {
    let scripted = Scripted::new();
    one_of(&scripted, || scripted.run());
    std::fs::remove_dir_all(scripted.path()).expect("removes");
    kill_at(&scripted, start(scripted.run()), 9);
    one_of(&scripted, || scripted.resume());
    scripted.is_done();
}

/// Kills a program once the journal has so many lines, or it has ended.
fn kill_at(scripted: &Scripted, mut child: Child, lines: usize) {
    while scripted.lines() < lines && child.try_wait().expect("waits").is_none() {
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), Signal::KILL).ok();
    child.wait().expect("ends");
}

#[test]
fn a_program_killed_at_a_line_leaves_a_round_that_goes_on_to_the_same_tables() {
    let whole = Scripted::new();
    whole.is_done();
    let (expected, lines) = (whole.tables(), whole.lines());
    drop(whole);
    for at in (1..lines).step_by(7) {
        let scripted = Scripted::new();
        scripted.open();
        kill_at(&scripted, start(scripted.run()), at);
        // And again, while it goes on.
        if scripted.path().join("round.json").exists() && !scripted.path().join("SEAL").exists() {
            kill_at(&scripted, start(scripted.resume()), scripted.lines() + at % 5);
        }
        scripted.is_done();
        assert!(scripted.tables() == expected, "killed at line {at}: other tables");
    }
}

#[test]
fn a_disk_without_room_stops_the_round_with_what_to_do_next() {
    let scripted = Scripted::new();
    scripted.open();
    // No file may grow beyond so many KiB: a journal does on its way, and a disk that is full refuses in the same place.
    let run = scripted.run();
    let mut limited = Command::new("bash");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 7; exec \"$0\" \"$@\""]).arg(run.get_program());
    limited.args(run.get_args()).current_dir(root()).env_remove("CACHEON_DATA").env("NO_COLOR", "1");
    let (status, said) = end(start(limited));
    assert_eq!(status.code(), Some(4), "{said}");
    let expected = ["cannot append to `", "journal.jsonl`", "File too large", "then `cacheon resume r"];
    assert!(expected.iter().all(|words| said.contains(words)), "{said}");
    scripted.is_done();
}
