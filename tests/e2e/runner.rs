//! A machine on which the baseline dies: its runner takes no more jobs until somebody has looked, and then goes on as before.

use std::process::Output;

use cacheon::artifact::digest::sha256;
use serde_json::{Value, json};

use super::round::Round;

/// Rounds of three launches of one baseline, which dies while there is a file `broken`.
struct Bench(Round);

impl Bench {
    fn new() -> Self {
        let bench = Self(Round::new());
        let broken = bench.0.dir.path().join("broken");
        let script = format!(
            "test ! -e {} || exit 7; exec {} reference serve",
            broken.display(),
            env!("CARGO_BIN_EXE_cacheon")
        );
        let image = json!({ "command": ["/bin/sh", "-c", script] }).to_string();
        let digest = sha256(image.as_bytes());
        bench.write("images/bench/baseline.json", &image);
        let model = bench.0.dir.path().join("model");
        let (images, model) = (bench.0.dir.path().join("images"), model.display());
        bench.write(
            "runners/embedded.yml",
            &format!("name: bench\nengine: process\nimages: {}\nmodel-dir: {model}\n", images.display()),
        );
        let read = |position: u32| {
            json!({
                "key": format!("{position:04}-baseline"), "arm": "baseline", "hotkey": null, "image": "bench/baseline",
                "digest": digest.to_string(), "position": position, "sequence": "0", "brackets": [position],
            })
        };
        let reads: Vec<Value> = (0..3).map(read).collect();
        bench.write(
            "bench.yml",
            &format!(
                "name: bench
jobs:
  measure:
    runs-on: bench
    timeout: 2m
    strategy: {{ matrix: {{ read: {reads} }}, key: '${{{{ matrix.read.key }}}}', sequence: one }}
    outputs: {{ data: '${{{{ steps.benchmark.outputs.data }}}}' }}
    steps:
      - uses: pull
        with: {{ image: bench/baseline, digest: '{digest}', role: baseline }}
      - id: boot
        uses: boot
        with: {{ image: bench/baseline, digest: '{digest}', role: baseline, deadline: 30s }}
      - id: benchmark
        uses: benchmark
        with:
          endpoint: ${{{{ steps.boot.outputs.endpoint }}}}
          read: ${{{{ matrix.read }}}}
          prompts: 2
          max-tokens: 16
          max-client-lag: 10s
          max-foreign-cpu: 1
          max-stall: 1
  dies:
    runs-on: controller
    needs: measure
    steps: [{{ run: 'test ! -e {broken}.after || touch {broken}' }}]
  again:
    runs-on: bench
    needs: dies
    timeout: 2m
    strategy: {{ matrix: {{ read: {last} }}, key: '${{{{ matrix.read.key }}}}' }}
    steps:
      - uses: boot
        with: {{ image: bench/baseline, digest: '{digest}', role: baseline, deadline: 30s }}
",
                reads = json!(reads),
                last = json!([read(3)]),
                broken = broken.display(),
            ),
        );
        bench
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("writes");
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.0.dir.path().join(name)).expect("removes");
    }

    fn run(&self, round: &str) -> Output {
        let mut command = self.0.cacheon(&["run", "--round", round, "--seed", "1", "--runners"]);
        command.arg(self.0.dir.path().join("runners")).arg(self.0.dir.path().join("bench.yml"));
        command.output().expect("the program starts")
    }

    fn is_out(&self) -> bool {
        let path = self.0.data().join("quarantine/bench.json");
        let Ok(text) = std::fs::read_to_string(path) else { return false };
        let state: Value = serde_json::from_str(&text).expect("JSON");
        !state["quarantine"].is_null()
    }
}

fn ends(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for words in words {
        assert!(said.contains(words), "`{words}` is not in:\n{said}");
    }
}

#[test]
fn a_machine_on_which_the_baseline_dies_is_out_of_service_until_it_is_lifted() {
    let bench = Bench::new();
    ends(&bench.run("sound"), 0, &[]);
    assert!(!bench.is_out());
    // It dies before anything is measured.
    bench.write("broken", "");
    let words = ["runner `bench` is out of service since", "in round `broken` the baseline failed on it"];
    ends(&bench.run("broken"), 4, &words);
    assert!(bench.is_out());
    bench.remove("broken");
    // The machine would be well again, but nobody has said so.
    ends(
        &bench.run("next"),
        4,
        &["runner `bench` is out of service", "job `measure` can run nowhere else", "runner lift bench"],
    );
    assert!(!bench.0.data().join("rounds/round=next").exists());
    ends(&bench.0.output(&["resume", "broken"]), 4, &["runner `bench` is out of service"]);
    ends(
        &bench.0.output(&["runner", "lift", "bench", "--reason", "a cable"]),
        0,
        &["in service again", "lifted: a cable"],
    );
    // Taken up, its baselines are measured: what failed before is not held against the machine.
    ends(&bench.0.output(&["resume", "broken"]), 0, &[]);
    assert!(!bench.is_out());
    ends(&bench.run("next"), 0, &[]);
    // One that dies after others were measured counts, for none was measured after it.
    bench.write("broken.after", "");
    ends(&bench.run("late"), 4, &["read `0003-baseline`: server-exited-before-ready"]);
    assert!(bench.is_out());
    bench.0.wait_until_empty();
}
