//! What a miner is told of an image, before it is committed.

use serde_json::Value;

use super::bench::{Bench, Test};
use super::image::Pushed;
use super::round::Round;

pub(crate) const TESTS: &[Test] = &[
    ("check::an_honest_image_is_measured_and_found_correct", honest),
    ("check::an_image_that_ends_while_it_boots_is_told_so", ends),
    ("check::an_image_that_is_not_there_is_told_so", absent),
];

struct Checked {
    round: Round,
    bench: &'static Bench,
}

impl Checked {
    fn new(bench: &'static Bench) -> Self {
        let round = Round::new();
        let model = round.dir.path().join("model");
        let runner = format!(
            "name: desk\nengine: docker\nmodel-dir: {}\nlimits: {{ memory-mib: 512, pids: 256, log-kib: 64 }}\n",
            model.display()
        );
        std::fs::write(round.dir.path().join("runners/desk.yml"), runner).expect("runner");
        Self { round, bench }
    }

    /// The exit code of a check of an image, and its report.
    fn report(&self, image: &Pushed) -> (Option<i32>, Value) {
        let pinned = |Pushed { image, digest }: &Pushed| format!("{image}@{digest}");
        let reference = |name: &str, prefill: &str| {
            self.bench.image(name, &["/bin/cacheon", "reference", "serve", "--prefill", prefill])
        };
        let (baseline, scorer) = (reference("baseline", "token"), reference("scorer", "block"));
        // This machine also runs a daemon, a registry and this test: what is measured decides nothing.
        let inputs = ["rounds=1", "prompts=8", "max-foreign-cpu=1"].map(|input| ["-i", input]).concat();
        let mut check = self.round.cacheon(&["check", "--round", "r", "--seed", "1", "--json"]);
        check.args(inputs).arg("--image").arg(pinned(image)).arg("--runners");
        check.arg(self.round.dir.path().join("runners"));
        check.arg("--baseline").arg(pinned(&baseline)).arg("--scorer").arg(pinned(&scorer));
        // Scratch directories are of this round then, and so its containers can be told from others.
        check.env("DOCKER_HOST", &self.bench.docker_host).env("TMPDIR", self.round.dir.path());
        let output = check.output().expect("starts");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(!words.contains("panicked"), "{words}");
        let left = self.bench.containers(self.round.dir.path());
        assert!(left.is_empty(), "left behind: {left:?}");
        let report = serde_json::from_slice(&output.stdout);
        (output.status.code(), report.unwrap_or_else(|error| panic!("{error}: {words}")))
    }
}

fn states(report: &Value) -> Vec<&str> {
    let steps = report["steps"].as_array().expect("steps");
    steps.iter().map(|step| step["state"].as_str().unwrap_or_default()).collect()
}

/// Fault and code, as they would be published.
fn published(report: &Value) -> [&str; 2] {
    ["fault", "code"].map(|name| report[name].as_str().unwrap_or_default())
}

fn honest(bench: &'static Bench) {
    let checked = Checked::new(bench);
    let image = bench.image("honest", &["/bin/cacheon", "reference", "serve", "--prefill", "block"]);
    let (code, report) = checked.report(&image);
    assert_eq!(states(&report), ["ok"; 6], "{report:#}");
    let checks = report["checks"].as_array().expect("checks");
    assert!(!checks.is_empty() && checks.iter().all(|check| check["outcome"] == "pass"), "{report:#}");
    let expected = match report["standing"].as_str().expect("a standing") {
        "scored" => 0,
        "not-faster" => 6,
        "held" if report["code"] == "no-decision" => 4,
        other => panic!("{other}: {report:#}"),
    };
    assert_eq!(code, Some(expected), "{report:#}");
    assert_eq!(report["image"], image.image.as_str());
}

fn ends(bench: &'static Bench) {
    let image = bench.image("exits", &["/bin/opponent", "exit", "3"]);
    let (code, report) = Checked::new(bench).report(&image);
    assert_eq!(code, Some(6), "{report:#}");
    assert_eq!(published(&report), ["submission", "server-exited-before-ready"], "{report:#}");
    assert_eq!(states(&report)[..4], ["ok", "failed", "not-reached", "not-reached"], "{report:#}");
    assert!(report["message"].as_str().is_some_and(|words| words.contains("exit code 3 ")), "{report:#}");
    assert!(report["log"]["path"].as_str().is_some_and(|path| path.ends_with("server.log")), "{report:#}");
}

fn absent(bench: &'static Bench) {
    let there = bench.image("exits", &["/bin/opponent", "exit", "3"]);
    let digest = cacheon::artifact::digest::sha256(b"nothing");
    let (code, report) = Checked::new(bench).report(&Pushed { digest, ..there });
    assert_eq!(code, Some(6), "{report:#}");
    assert_eq!(published(&report), ["submission", "image-unavailable"], "{report:#}");
    assert_eq!(states(&report)[..2], ["failed", "not-reached"], "{report:#}");
    assert_eq!(report["log"], Value::Null, "{report:#}");
}
