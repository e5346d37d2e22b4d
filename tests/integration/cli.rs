//! The command line on good and on bad input: clear words, documented exit codes, nothing half-written.

use std::path::Path;
use std::process::Output;

use assert_cmd::Command;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("temp dir"))
    }

    fn with(self, path: &str, text: impl AsRef<[u8]>) -> Self {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
        std::fs::write(path, text).expect("write");
        self
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cacheon"));
        command.current_dir(self.0.path()).env_remove("CACHEON_DATA").env("NO_COLOR", "1").args(args);
        command.output().expect("the program starts")
    }

    /// Exit code and stderr; nothing may be left in `data`, and nothing may have panicked.
    fn check(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        assert!(!self.0.path().join("data").exists(), "nothing ran, nothing is written");
        said
    }
}

const FOUR_MISTAKES: &str = "\
name: broken
jobs:
  measure:
    need: rank
    steps:
      - uses: benchmrk
  rank:
    needs: [publish]
    strategy: { max-parallel: four, matrix: { n: [1] } }
    steps:
      - run: 'true'
  publish:
    needs: rank
    steps:
      - run: 'true'
";

#[test]
fn all_mistakes_of_a_pipeline_are_shown_in_one_pass() {
    let place = Place::new().with("p.yml", FOUR_MISTAKES).with("runners/.keep", "");
    let said = place.check(&["run", "p.yml"], 3);
    insta::assert_snapshot!(said);
    for args in [&["plan", "p.yml"][..], &["run", "p.yml", "--json"]] {
        assert_eq!(place.check(args, 3), said);
    }
    let output = place.run(&["lint", "--format", "json", "p.yml"]);
    assert_eq!(output.status.code(), Some(3));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(found.as_array().is_some_and(|found| found.len() >= 4), "{found:#}");
}

#[test]
fn lint_ends_its_findings_before_it_counts_them() {
    let place = Place::new().with("a.yml", FOUR_MISTAKES).with("b.yml", FOUR_MISTAKES);
    let output = place.run(&["lint", "a.yml", "b.yml"]);
    let drawn = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(drawn.ends_with('\n') && !drawn.ends_with("\n\n"), "{drawn}");
    let errors = drawn.matches("error[").count();
    assert_eq!(drawn.matches("\n\nerror[").count(), errors - 1, "a blank line between any two: {drawn}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, format!("2 files looked at, {errors} findings\n"));
    let clean = place.with("c.yml", "jobs: { a: { runs-on: controller, steps: [{ run: 'true' }] } }\n");
    let output = clean.run(&["lint", "c.yml"]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "1 file looked at, 0 findings\n");
}

#[test]
fn what_cannot_be_read_is_said() {
    let place = Place::new()
        .with("p.yml", [0xff, 0xfe, 0x00])
        .with("junk.yml", "x".repeat(10_000_000))
        .with("runners/.keep", "");
    assert!(place.check(&["run", "nowhere.yml"], 3).contains("nowhere.yml"));
    assert!(place.check(&["run", "p.yml"], 3).contains("not UTF-8"));
    place.check(&["run", "junk.yml"], 3);
    place.check(&["run"], 2);
    place.check(&["dance"], 2);
    place.check(&["show"], 2);
}

#[test]
fn inputs_are_checked_before_anything_runs() {
    let pipeline = "on: { dispatch: { inputs: { count: { type: number, default: 1 } } } }\njobs: { a: { runs-on: controller, steps: [{ run: 'true' }] } }\n";
    let place = Place::new().with("p.yml", pipeline).with("runners/.keep", "");
    assert!(place.check(&["run", "p.yml", "-i", "cuont=1"], 2).contains("`count`"));
    assert!(place.check(&["run", "p.yml", "-i", "count=many"], 2).contains("a number"));
    assert!(place.check(&["run", "p.yml", "-i", "count"], 2).contains("NAME=VALUE"));
    assert!(place.check(&["run", "p.yml", "--round", "../x"], 2).contains("round id"));
}

const SHELL: &str = "\
name: shell
on: { dispatch: { inputs: { who: { type: string, default: world } } } }
env: { GREETING: hello }
jobs:
  make:
    runs-on: controller
    outputs:
      names: { type: json, value: '${{ steps.list.outputs.names }}' }
    steps:
      - id: list
        run: echo 'names=[\"a\", \"b\"]' >> \"$CACHEON_OUTPUT\"
      - if: failure()
        run: exit 1
  greet:
    needs: make
    runs-on: controller
    strategy:
      matrix: { name: '${{ needs.make.outputs.names }}' }
      key: ${{ matrix.name }}
      max-parallel: 1
    outputs:
      said: ${{ steps.say.outputs.said }}
    steps:
      - id: say
        env: { NAME: '${{ matrix.name }}', WHO: '${{ inputs.who }}' }
        run: echo \"said=$GREETING $NAME $WHO\" >> \"$CACHEON_OUTPUT\"
  check:
    needs: greet
    runs-on: controller
    steps:
      - env: { ALL: '${{ join(needs.greet.legs.*.outputs.said, \";\") }}' }
        run: test \"$ALL\" = 'hello a $(id);hello b $(id)'
";

#[test]
fn a_pipeline_of_shell_steps_hands_values_on_and_never_runs_outside_data() {
    let place = Place::new().with("p.yml", SHELL.replace("\";\"", "'';''")).with("runners/.keep", "");
    let output = place.run(&["run", "p.yml", "--round", "r", "-i", "who=$(id)", "--json"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(result["round_id"], "r");
    let shown = place.run(&["show", "r", "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!(shown["jobs"].as_array().map(Vec::len), Some(3), "{shown:#}");
    assert!(place.0.path().join("data/rounds/round=r/SEAL").exists());
}

#[test]
fn a_round_is_called_as_its_pipeline_says() {
    let text = "run-name: ${{ run.id }} for ${{ inputs.who }}\non: { dispatch: { inputs: { who: { default: all } } } }\njobs: { a: { runs-on: controller, steps: [{ run: 'true' }] } }\n";
    let place = Place::new().with("p.yml", text).with("runners/.keep", "");
    assert_eq!(place.run(&["run", "p.yml", "--round", "r"]).status.code(), Some(0));
    let shown = place.run(&["show", "r"]);
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.contains("r for all"), "{shown}");
}

#[test]
fn a_failing_step_leaves_the_round_incomplete_and_says_why() {
    let text = "jobs: { a: { runs-on: controller, steps: [{ run: 'echo cannot go on >&2; exit 3' }] }, b: { needs: a, runs-on: controller, steps: [{ run: 'true' }] } }\n";
    let place = Place::new().with("p.yml", text).with("runners/.keep", "");
    let output = place.run(&["run", "p.yml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("cannot go on") && said.contains("exit code 3"), "{said}");
}

#[test]
fn a_job_that_no_runner_answers_is_found_by_lint() {
    let text = "jobs: { a: { runs-on: [gpu, h200], steps: [{ run: 'true' }] } }\n";
    let runner = "name: box\nlabels: [gpu]\nengine: docker\n";
    let place = Place::new().with("p.yml", text).with("runners/box.yml", runner);
    let output = place.run(&["lint", "p.yml"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("no runner has the labels gpu, h200"), "{said}");
    assert!(said.contains("there are: box (box, gpu)"), "{said}");
}

#[test]
fn no_runner_is_a_clear_end() {
    let text = "jobs: { a: { runs-on: [gpu, h200], steps: [{ run: 'true' }] } }\n";
    let place = Place::new().with("p.yml", text).with("runners/.keep", "");
    let output = place.run(&["run", "p.yml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("gpu, h200"), "{said}");
}

#[test]
fn a_query_without_rounds_answers_and_a_bad_one_is_refused() {
    let place = Place::new();
    assert_eq!(place.run(&["query", "SELECT COUNT(*) AS n FROM leaderboard"]).status.code(), Some(0));
    assert!(place.check(&["query", "SELECT * FROM leaderbord"], 3).contains("leaderboard"));
    place.check(&["query", "DROP TABLE leaderboard"], 3);
    place.check(&["query", "SELECT * FROM read_parquet('/etc/passwd')"], 3);
}

/// A file that is wrong inside and was sealed as it is: the engine aborts on some of these, the program says so.
#[test]
fn a_query_over_a_crafted_file_ends_with_a_documented_code() {
    use cacheon::adapters::store::RoundDirectory;
    use cacheon::model::WeightRow;

    let place = Place::new();
    let data = place.0.path().join("data");
    let round_id = "demo-1".parse().expect("an id");
    let row = |uid: u32| WeightRow {
        round_id: "demo-1".to_owned(),
        netuid: 14,
        hotkey: format!("miner {uid}"),
        uid: Some(uid),
        share: 0.25,
        weight: 9,
        is_dry_run: true,
        receipt: None,
    };
    let round = RoundDirectory::create(&data, &round_id).expect("a new round");
    round.write_table(&[row(1), row(2)]).expect("writes");
    let path = round.path().join("results/weights.parquet");
    let good = std::fs::read(&path).expect("reads");
    let mut failed = 0;
    // The pages come first, the end of the file is checked before the engine sees any of it.
    for position in (4..good.len()).step_by(good.len() / 60) {
        let mut bytes = good.clone();
        bytes[position] ^= [0x01, 0x80, 0xff][position % 3];
        std::fs::write(&path, &bytes).expect("writes");
        std::fs::remove_file(round.path().join("SEAL")).ok();
        round.seal().expect("seals");
        let output = place.run(&["query", "SELECT * FROM weights"]);
        let code = output.status.code();
        assert!([Some(0), Some(3)].contains(&code), "{position}: {:?}", output.status);
        failed += usize::from(code == Some(3));
    }
    assert!(failed > 0, "some of the damage is seen by the engine alone");
}

/// A runner whose own model directory does not exist, and an image that says everything by its manifest.
#[cfg(feature = "reference")]
#[test]
fn a_boot_steps_model_brings_its_tokenizer() {
    use sha2::Digest as _;
    let manifest = r#"{"command": ["cacheon", "reference", "serve"], "env": {"CACHEON_MODEL_DIR": "{model-dir}"},
        "args": ["--port", "{port}", "--served-model-name", "{model-name}"], "health-path": "/v1/models"}"#;
    let digest = format!("sha256:{}", hex::encode(sha2::Sha256::digest(manifest.as_bytes())));
    let pipeline = format!(
        "\
jobs:
  measure:
    runs-on: here
    steps:
      - id: boot
        uses: boot
        with: {{ image: tiny, digest: '{digest}', model-dir: model, deadline: 60s }}
      - id: benchmark
        uses: benchmark
        with:
          endpoint: ${{{{ steps.boot.outputs.endpoint }}}}
          read: {{ key: '0', arm: candidate, hotkey: null, image: tiny, digest: '{digest}', position: 0, sequence: '0' }}
          prompts: 1
          max-tokens: 2
          max-client-lag: 60s
          max-foreign-cpu: 1
          max-stall: 1
      - run: test \"$FAILED\" = 0
        env: {{ FAILED: '${{{{ steps.benchmark.outputs.failed }}}}' }}
"
    );
    let runner = "name: here\nengine: process\nimages: images\nmodel-dir: nowhere\n";
    let place = Place::new()
        .with("images/tiny.json", manifest)
        .with("p.yml", pipeline)
        .with("runners/here.yml", runner);
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/reference");
    std::os::unix::fs::symlink(model, place.0.path().join("model")).expect("link");
    let output = place.run(&["run", "p.yml"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[cfg(not(feature = "docker"))]
#[test]
fn a_docker_runner_is_refused_by_a_program_without_docker() {
    let text = "jobs: { a: { runs-on: box, steps: [{ run: 'true' }] } }\n";
    let place = Place::new().with("p.yml", text).with("runners/box.yml", "name: box\nengine: docker\n");
    assert!(place.check(&["run", "p.yml"], 3).contains("built without the feature `docker`"));
}

#[test]
fn every_verb_has_a_help_text() {
    let place = Place::new();
    for verb in [
        "run",
        "check",
        "resume",
        "rerun",
        "cancel",
        "audit",
        "explain",
        "lint",
        "plan",
        "schedule",
        "rounds",
        "show",
        "query",
        "gc",
        "runner",
        "export",
        "import",
        "doctor",
        "reference",
    ] {
        let output = place.run(&[verb, "--help"]);
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("Usage: cacheon"), "{verb}");
    }
    let output = place.run(&["--help"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("130  interrupted"));
}

#[test]
fn what_is_shipped_has_no_findings() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_cacheon"));
    let output = command.current_dir(root).arg("lint").output().expect("starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A pipeline that takes a commitment and a runner, and two runners, one for each engine.
fn place_to_check() -> Place {
    let pipeline = "on: { dispatch: { inputs: { commitments: { type: string }, runner: { type: string, default: desk } } } }\njobs: { a: { runs-on: '${{ inputs.runner }}', steps: [{ run: 'true' }] } }\n";
    let place = Place::new().with("pipelines/check.yml", pipeline).with("images/a.json", "{}");
    let place = place.with("own.yml", "jobs: { a: { runs-on: controller, steps: [{ run: 'true' }] } }\n");
    place.with("runners/desk.yml", "name: desk\nengine: process\nimages: images\n")
}

#[test]
fn a_check_that_cannot_run_says_why_before_anything_does() {
    let place = place_to_check();
    let pinned = format!("m/a@sha256:{}", "0".repeat(64));
    let check = |args: &[&str], expected: &str| {
        let said = place.check(&[&["check"], args].concat(), 2);
        assert!(said.contains(expected), "{args:?}: {said}");
    };
    check(&[], "--image <NAME@DIGEST>");
    check(&["--image", "m/a:v1"], "docker buildx imagetools inspect m/a:v1");
    check(&["--image", "m/a@sha256:12"], "is not a digest");
    check(&["--image", &pinned, "--command", "a"], "cannot be used with");
    check(&["--command", "a"], "add `--engine process`");
    check(&["--engine", "process", "--command", " "], "it is empty");
    check(&["--engine", "process", "--command", "a", "-i", "prompts=4"], "prompts");
    check(&["--image", &pinned], "no runner in `runners` has `engine: docker`");
    check(&["--engine", "process", "--command", "a", "--runner", "desq"], "there are: desk");
    check(&["--engine", "process", "--command", "a 'b"], "a quote has no other half");
    check(&["--engine", "process", "--command", "a", "--pipeline", "own.yml"], "no input `commitments`");
    let earnest = "on: { dispatch: { inputs: { commitments: { type: string } } } }\njobs: { pay: { runs-on: controller, steps: [{ uses: set-weights, with: { leaderboard: [], netuid: 14, dry-run: false } }] } }\n";
    let place = place.with("earnest.yml", earnest);
    let check = |args: &[&str], expected: &str| {
        let said = place.check(&[&["check", "--engine", "process", "--command", "a"], args].concat(), 2);
        assert!(said.contains(expected), "{args:?}: {said}");
    };
    check(&["--pipeline", "earnest.yml"], "its job `pay` sets weights, and is not known to be a dry run");

    let other = "on: { dispatch: { inputs: { commitments: { type: string }, baseline-image: { type: string, default: a/b }, baseline-digest: { type: string, default: '' } } } }\njobs: { a: { runs-on: desk, steps: [{ run: 'true' }] } }\n";
    let place = place.with("other.yml", other);
    let check = |args: &[&str], expected: &str| {
        let said = place.check(&[&["check", "--image", &pinned], args].concat(), 2);
        assert!(said.contains(expected), "{args:?}: {said}");
    };
    check(&["--pipeline", "other.yml"], "say which by `--baseline NAME@sha256:..`");
    check(&["--pipeline", "other.yml", "--baseline", "m/b"], "imagetools inspect m/b");
    check(
        &["--pipeline", "other.yml", "--baseline", &pinned, "--scorer", &pinned],
        "no input `scorer-image`",
    );

    let place = place.with("runners/shelf.yml", "name: shelf\nengine: process\nimages: images\n");
    let place = place.with("runners/box.yml", "name: box\nengine: docker\n");
    let place = place.with("runners/crate.yml", "name: crate\nengine: docker\n");
    let said = place.check(&["check", "--image", &pinned], 2);
    assert!(said.contains("box, crate") && said.contains("--runner"), "{said}");
}

#[test]
fn a_check_whose_pipeline_judges_nothing_comes_to_no_verdict() {
    let place = place_to_check();
    let output = place.run(&["check", "--engine", "process", "--command", "a", "--round", "r"]);
    let (said, shown) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(shown.contains("The validator would say nothing yet"), "{shown}");
    let handed =
        std::fs::read_to_string(place.0.path().join("data/checks/r/commitments.json")).expect("file");
    let handed: serde_json::Value = serde_json::from_str(&handed).expect("JSON");
    assert_eq!(handed["commitments"][0]["image"], "check/command");
    // A second one of that name would share its files.
    let again = place.run(&["check", "--engine", "process", "--command", "a", "--round", "r"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("--round"));
}
