//! Rounds that were left unfinished are taken up again; rounds that run are stopped by name.

use std::path::PathBuf;
use std::process::{Child, Command};

use rustix::process::{Pid, Signal, kill_process};

use super::round::{Round, root, start_until};

/// Three legs in a row, each with a server; the second waits for a file.
struct Gated {
    round: Round,
    gate: PathBuf,
}

impl Gated {
    fn new() -> Self {
        let round = Round::new();
        let gate = round.dir.path().join("gate");
        let demo = std::fs::read_to_string(root().join("pipelines/demo.yml")).expect("demo");
        let scorer = demo.lines().skip_while(|line| !line.contains("image: embedded/scorer"));
        let scorer: Vec<&str> = scorer.take(2).map(str::trim).collect();
        let pipeline = format!(
            "name: gated
env: {{ GATE: {} }}
jobs:
  each:
    runs-on: embedded
    strategy: {{ matrix: {{ n: [1, 2, 3] }}, sequence: one }}
    steps:
      - uses: boot
        with: {{ {}, role: scorer, deadline: 60s }}
      - if: ${{{{ matrix.n == 2 }}}}
        run: until [ -e \"$GATE\" ]; do sleep 0.05; done
",
            gate.display(),
            scorer.join(", ")
        );
        std::fs::write(round.dir.path().join("gated.yml"), pipeline).expect("pipeline");
        Self { round, gate }
    }

    fn run(&self) -> Command {
        let mut command = self.round.cacheon(&["run"]);
        command.arg(self.round.dir.path().join("gated.yml"));
        command.arg("--runners").arg(self.round.dir.path().join("runners"));
        command
    }

    fn open(&self) {
        std::fs::write(&self.gate, "").expect("gate");
    }

    /// Takes the round up again with the gate open.
    fn resume(&self) {
        self.open();
        let output = self.round.output(&["resume", "latest"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains("resumed: "), "{said}");
        self.is_done();
    }

    /// The round is over, and only what was cut ran again.
    fn is_done(&self) {
        let shown = self.round.output(&["show", "--json"]);
        let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("JSON");
        let legs = shown["jobs"][0]["legs"].as_array().expect("legs");
        let attempts: Vec<u64> = legs.iter().map(|leg| leg["attempts"].as_u64().expect("attempts")).collect();
        assert_eq!(attempts, [1, 2, 1], "{shown:#}");
        let audited = self.round.output(&["audit", "latest"]);
        assert_eq!(audited.status.code(), Some(0), "{}", String::from_utf8_lossy(&audited.stdout));
        let again = self.round.output(&["resume", "latest"]);
        assert_eq!(again.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&again.stderr).contains("nothing to take up"));
        self.round.wait_until_empty();
    }
}

fn exit_code(mut child: Child, rest: std::thread::JoinHandle<String>) -> (Option<i32>, String) {
    let status = child.wait().expect("wait");
    (status.code(), rest.join().expect("stderr"))
}

#[test]
fn a_killed_round_goes_on_where_it_was_and_one_program_at_a_time() {
    let gated = Gated::new();
    let (child, rest) = start_until(gated.run(), "PASS   each[1]");
    kill_process(Pid::from_child(&child), Signal::KILL).expect("kill");
    exit_code(child, rest);
    gated.round.wait_until_empty();
    let nobody = gated.round.output(&["cancel"]);
    assert_eq!(nobody.status.code(), Some(2), "{}", String::from_utf8_lossy(&nobody.stderr));
    // Two programs on one round: the second is told who has it.
    let (child, rest) = start_until(gated.round.cacheon(&["resume", "latest"]), "resumed: ");
    let second = gated.round.output(&["resume", "latest"]);
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(4), "{said}");
    assert!(said.contains(&format!("held by process {}", child.id())), "{said}");
    gated.open();
    let (code, said) = exit_code(child, rest);
    assert_eq!(code, Some(0), "{said}");
    gated.is_done();
}

#[test]
fn a_round_is_cancelled_by_name_and_goes_on() {
    let check = |args: &[&str]| {
        let gated = Gated::new();
        let (child, rest) = start_until(gated.run(), "PASS   each[1]");
        let cancelled = gated.round.output(args);
        let said = String::from_utf8_lossy(&cancelled.stderr);
        assert_eq!(cancelled.status.code(), Some(0), "{said}");
        assert!(said.contains("has stopped"), "{said}");
        let (code, said) = exit_code(child, rest);
        assert_eq!(code, Some(130), "{said}");
        assert!(said.contains("cacheon resume gated-"), "{said}");
        gated.round.wait_until_empty();
        gated.resume();
    };
    check(&["cancel"]);
    check(&["cancel", "gated", "--now"]);
}
