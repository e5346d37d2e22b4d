//! What a miner is told by `cacheon check`: that it would be scored, or why not, by the code that scripts read.

use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;

use super::round::Round;

/// Checks of commands by the shipped pipeline, on a machine that also does other things.
struct Checked(Round);

impl Checked {
    fn output(&self, id: &str, command: &str, args: &[&str]) -> Output {
        let busy = ["-i", "max-foreign-cpu=1"];
        let mut check = self.0.cacheon(&["check", "--engine", "process", "--seed", "1", "--round", id]);
        check.arg("--command").arg(command).args(busy).args(args);
        check.arg("--runners").arg(self.0.dir.path().join("runners"));
        check.output().expect("starts")
    }

    /// The exit code of a check and its report.
    fn report(&self, id: &str, command: &str, args: &[&str]) -> (Option<i32>, Value) {
        let output = self.output(id, command, &[args, &["--json"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{said}");
        (output.status.code(), serde_json::from_slice(&output.stdout).expect("JSON"))
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn states(report: &Value) -> Vec<(&str, &str)> {
    let steps = report["steps"].as_array().expect("steps");
    steps.iter().map(|step| (text(&step["stage"]), text(&step["state"]))).collect()
}

#[test]
fn an_honest_server_that_is_faster_is_told_that_it_would_be_scored() {
    let checked = Checked(Round::new());
    let command = "cacheon reference serve --prefill block --speculate 5 --history 2048";
    // On a noisy machine nothing may be decided, as it should: then it is checked again.
    let (mut code, mut report) = (None, Value::Null);
    for id in ["honest-1", "honest-2", "honest-3"] {
        (code, report) = checked.report(id, command, &[]);
        if code == Some(0) {
            break;
        }
        assert!(
            ["held", "not-faster"].contains(&report["standing"].as_str().unwrap_or_default()),
            "{report:#}"
        );
    }
    checked.0.wait_until_empty();
    assert_eq!(code, Some(0), "three checks decided nothing: {report:#}");
    let stages = ["pull", "boot", "warm-up", "benchmark", "verify-logprobs", "rank"];
    assert_eq!(states(&report), stages.map(|stage| (stage, "ok")), "{report:#}");
    assert_eq!(report["steps"][3]["times"], 4, "{report:#}");
    let checks = report["checks"].as_array().expect("checks");
    assert!(checks.len() >= 12 && checks.iter().all(|check| check["outcome"] == "pass"), "{report:#}");
    let score = report["speeds"].as_array().and_then(|speeds| speeds.last()).expect("speeds");
    assert_eq!((&score["component"], &score["outcome"]), (&Value::from("score"), &Value::from("pass")));
    assert!(score["lower"].as_f64() > score["bar"].as_f64(), "{report:#}");
    let verdict = report["verdict"].as_str().expect("a sentence");
    assert!(verdict.starts_with("The validator would score it: "), "{verdict}");
    let log = PathBuf::from(report["log"]["path"].as_str().expect("a log"));
    assert!(log.is_file(), "{}", log.display());
    // It is a round as any other: audited from its files alone.
    let id = report["round_id"].as_str().expect("an id");
    let audited = checked.0.output(&["audit", id]);
    assert_eq!(audited.status.code(), Some(0), "{}", String::from_utf8_lossy(&audited.stdout));
}

#[test]
fn what_would_not_be_scored_is_told_why() {
    let checked = Checked(Round::new());
    let few = ["-i", "rounds=1", "-i", "prompts=8"];
    // The first request is the boot's, two warm up.
    let command = "cacheon reference serve --cheat crash-mid-stream --trigger-stream 5";
    let (code, report) = checked.report("dies", command, &few);
    assert_eq!(code, Some(6), "{report:#}");
    assert_eq!(
        states(&report)[..4],
        [("pull", "ok"), ("boot", "ok"), ("warm-up", "ok"), ("benchmark", "failed")]
    );
    let published = ["standing", "fault", "code"].map(|name| report[name].as_str().unwrap_or_default());
    assert_eq!(published, ["failed", "submission", "server-exited"], "{report:#}");
    assert!(report["message"].as_str().is_some_and(|words| words.contains("exit code 139")), "{report:#}");
    assert!(report["log"]["last_lines"].as_array().is_some_and(|lines| !lines.is_empty()), "{report:#}");

    let output = checked.output("gone", "cacheon reference serve --cheat exit-at-boot", &few);
    assert_eq!(output.status.code(), Some(6));
    let shown = String::from_utf8_lossy(&output.stdout);
    for words in
        ["warm-up             not reached", "server-exited-before-ready", "| RuntimeError: Engine core"]
    {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert!(
        shown.trim_end().lines().any(|line| line.starts_with("The validator would count it as failed")),
        "{shown}"
    );

    let command = "cacheon reference serve --prefill block --cheat int4-weights";
    let (code, report) = checked.report("cheats", command, &["-i", "rounds=1"]);
    assert_eq!(code, Some(6), "{report:#}");
    assert_eq!(report["standing"], "disqualified", "{report:#}");
    assert!(report["code"].as_str().is_some_and(|code| code.starts_with("failed-")), "{report:#}");
    checked.0.wait_until_empty();
}
