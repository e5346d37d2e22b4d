//! Rounds done again from what another has: what runs, what is shared, and what is refused.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cacheon");

/// `a` succeeds, `b` fails by the machine's fault until the file `mended` is there, `c` by its own. The exit status 75
/// is `EX_TEMPFAIL`: the machine's fault.
const JOBS: &str = "
jobs:
  measure:
    runs-on: controller
    strategy: { matrix: { n: [a, b, c] }, key: '${{ matrix.n }}' }
    outputs: { what: '${{ steps.it.outputs.what }}' }
    steps:
      - id: it
        env: { N: '${{ matrix.n }}' }
        run: |
          echo \"$N\" >> \"$WITNESS\"
          [ \"$N\" != b ] || [ -e \"$WITNESS.mended\" ] || exit 75
          [ \"$N\" != c ] || exit 1
          echo \"what=$N\" >> \"$CACHEON_OUTPUT\"
  judge:
    runs-on: controller
    needs: measure
    if: ${{ !cancelled() }}
    steps:
      - env: { COUNT: '${{ needs.measure.counts.success }}' }
        run: echo \"judged $COUNT\" >> \"$WITNESS\"
      - uses: set-weights
        with: { leaderboard: [], netuid: 1 }
";

struct Rounds {
    dir: tempfile::TempDir,
}

impl Rounds {
    /// The round `first` has run.
    fn new() -> Self {
        let rounds = Self { dir: tempfile::tempdir().expect("temp dir") };
        let witness = rounds.witness();
        let yaml = format!("name: t\nenv: {{ WITNESS: {} }}{JOBS}", witness.display());
        std::fs::write(rounds.dir.path().join("t.yml"), yaml).expect("pipeline");
        std::fs::create_dir(rounds.dir.path().join("runners")).expect("runners");
        rounds.cacheon(&["run", "t.yml", "--round", "first"], 4);
        assert_eq!(rounds.ran(), "a b c judged 1");
        rounds
    }

    fn witness(&self) -> PathBuf {
        self.dir.path().join("witness")
    }

    /// What ran since this was last asked.
    fn ran(&self) -> String {
        let text = std::fs::read_to_string(self.witness()).unwrap_or_default();
        std::fs::write(self.witness(), "").expect("witness");
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines.join(" ")
    }

    fn cacheon(&self, arguments: &[&str], code: i32) -> Output {
        let mut command = Command::new(PROGRAM);
        command
            .current_dir(self.dir.path())
            .args(arguments)
            .env("CACHEON_DATA", self.dir.path().join("data"));
        let output = command.output().expect("starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        output
    }

    fn refused(&self, arguments: &[&str], why: &str) {
        let output = self.cacheon(arguments, 2);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(why), "{said}");
        assert_eq!(self.ran(), "");
    }

    fn round(&self, id: &str) -> PathBuf {
        self.dir.path().join(format!("data/rounds/round={id}"))
    }

    fn file(&self, id: &str) -> Value {
        let bytes = std::fs::read(self.round(id).join("round.json")).expect("round.json");
        serde_json::from_slice(&bytes).expect("JSON")
    }
}

#[test]
fn what_is_asked_for_runs_again_and_the_rest_stands() {
    let rounds = Rounds::new();
    rounds.cacheon(&["rerun", "first", "--from", "judge", "--round", "second"], 4);
    assert_eq!(rounds.ran(), "judged 1");
    rounds.cacheon(&["rerun", "first", "--leg", "a", "--round", "third"], 4);
    assert_eq!(rounds.ran(), "a judged 1");
    rounds.cacheon(&["rerun", "first", "--failed", "--round", "fourth"], 4);
    assert_eq!(rounds.ran(), "b c judged 1");
    std::fs::write(rounds.witness().with_extension("mended"), "").expect("mended");
    rounds.cacheon(&["rerun", "first", "--fault", "infra", "--round", "fifth"], 4);
    assert_eq!(rounds.ran(), "b judged 2");
    // A round that was made so can be the parent of another.
    rounds.cacheon(&["rerun", "fifth", "--from", "measure", "--round", "sixth"], 4);
    assert_eq!(rounds.ran(), "a b c judged 2");

    let file = rounds.file("third");
    assert_eq!(file["parent"]["round_id"], "first");
    assert_eq!(file["parent"]["legs"], serde_json::json!([["measure", "a"]]));
    let shared: Vec<&str> = file["parent"]["shared"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|file| file["path"].as_str())
        .collect();
    assert!(
        !shared.is_empty()
            && shared.iter().all(|path| path.starts_with("jobs/measure/b/attempt-1/")
                || path.starts_with("jobs/measure/c/attempt-1/")),
        "{shared:?}"
    );
    for path in shared {
        let [mine, parents] =
            ["third", "first"].map(|id| std::fs::read(rounds.round(id).join(path)).expect(path));
        assert_eq!(mine, parents, "{path}");
    }
}

#[test]
fn another_value_is_in_the_new_rounds_pipeline() {
    let rounds = Rounds::new();
    let output = rounds.cacheon(&["rerun", "first", "--with", "netuid=7", "--round", "second"], 4);
    assert!(String::from_utf8_lossy(&output.stderr).contains("round second is made from first"));
    assert_eq!(rounds.ran(), "judged 1", "what the value is for");
    let (first, second) = (rounds.file("first"), rounds.file("second"));
    let text = |file: &Value| file["pipeline_text"].as_str().expect("text").to_owned();
    assert_eq!(text(&second), text(&first).replace("netuid: 1", "netuid: 7"));
    assert_eq!(second["parent"]["with"], serde_json::json!({ "netuid": "7" }));
    assert_eq!(second["seed_hex"], first["seed_hex"]);
    let explained = rounds.cacheon(&["explain", "second", "--json"], 0);
    let explained: Value = serde_json::from_slice(&explained.stdout).expect("JSON");
    let of = |job: &str, leg: &str| {
        let all = explained.as_array().expect("a list").iter();
        all.clone().find(|found| found["job"] == job && found["leg"] == leg).expect("the leg").clone()
    };
    let stands = of("measure", "b");
    assert_eq!(stands["has_run"], false);
    assert_eq!(
        stands["why"][0],
        "did not run again: attempt 1 stands as it ended in round `first` (failure)"
    );
    let judged = of("judge", "");
    assert_eq!(judged["why"][0], "ran again: job `judge` was asked for, with `netuid=7`");
    let expected =
        serde_json::json!([{ "path": "jobs.judge.steps[1].with.netuid", "parent": 1, "round": 7 }]);
    assert_eq!(judged["differences"], expected);
    let shown = rounds.cacheon(&["explain", "second", "judge"], 0);
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert!(
        shown.contains("jobs.judge.steps[1].with.netuid: 1 -> 7") && !shown.contains("measure"),
        "{shown}"
    );
    rounds.cacheon(&["explain", "second", "none"], 2);
    // As it is taken up, it is the changed pipeline that goes on.
    rounds.cacheon(&["rerun", "second", "--with", "judge.dry-run=false", "--round", "third"], 4);
    assert!(text(&rounds.file("third")).contains("{ dry-run: false, leaderboard: [], netuid: 7 }"));
}

#[test]
fn what_cannot_be_done_again_is_refused_by_name() {
    let rounds = Rounds::new();
    rounds.refused(&["rerun", "first"], "required arguments were not provided");
    rounds.refused(&["rerun", "first", "--from", "rank"], "its jobs are `measure`, `judge`");
    rounds.refused(&["rerun", "first", "--leg", "d"], "no leg of the round has the key `d`");
    rounds.refused(
        &["rerun", "first", "--fault", "operator"],
        "no leg of the round failed by the fault `operator`",
    );
    rounds.refused(&["rerun", "first", "--with", "netuid"], "want KEY=VALUE");
    rounds.refused(&["rerun", "first", "--with", "margin=1"], "no step takes such a value");
    rounds.refused(&["rerun", "none", "--from", "judge"], "no round begins with `none`");
    rounds.cacheon(&["rerun", "first", "--with", "netuid=x"], 3);
    rounds.cacheon(&["rerun", "first", "--from", "judge", "--round", "first"], 4);
    assert_eq!(std::fs::read_dir(rounds.dir.path().join("data/rounds")).expect("rounds").count(), 1);
}
