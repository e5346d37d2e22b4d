//! Audits of rounds that went through retries, skips and forgiven failures: every decision is followed.

use std::path::PathBuf;
use std::process::{Command, Output};

use cacheon::adapters::store::RoundDirectory;
use cacheon::artifact::journal::{encode_line, replay};
use cacheon::artifact::{JournalEvent, JournalLine};
use serde_json::Value;

/// `b` and `c` fail once by the machine's fault, one leg runs at a time; a step fails and is forgiven; a job is skipped.
const JOBS: &str = "
jobs:
  plan:
    runs-on: controller
    outputs: { names: '${{ steps.it.outputs.names }}' }
    steps:
      - id: it
        run: echo 'names=[\"d\",\"c\",\"b\",\"a\"]' >> \"$CACHEON_OUTPUT\"
  each:
    runs-on: controller
    needs: plan
    strategy:
      matrix: { n: '${{ fromJSON(needs.plan.outputs.names) }}' }
      key: '${{ matrix.n }}'
      order: shuffle
      max-parallel: 1
    retry: { max: 2, on: [infra], backoff: { kind: fixed, delay: 1s } }
    outputs: { what: '${{ steps.it.outputs.what }}' }
    steps:
      - id: it
        env: { N: '${{ matrix.n }}' }
        run: |
          case $N in b|c) [ -e \"$WITNESS.$N\" ] || { touch \"$WITNESS.$N\"; exit 75; };; esac
          echo \"what=$N\" >> \"$CACHEON_OUTPUT\"
      - continue-on-error: true
        run: exit 3
  never:
    runs-on: controller
    needs: each
    if: ${{ needs.each.counts.success == 0 }}
    steps: [{ run: 'true' }]
  judge:
    runs-on: controller
    needs: [each, never]
    if: ${{ !cancelled() }}
    outputs: { count: '${{ needs.each.counts.success }}' }
    steps:
      - uses: set-weights
        with: { leaderboard: [], netuid: 1 }
";

struct Rounds {
    dir: tempfile::TempDir,
}

impl Rounds {
    fn new() -> Self {
        let rounds = Self { dir: tempfile::tempdir().expect("temp dir") };
        let yaml = format!("name: t\nenv: {{ WITNESS: {} }}{JOBS}", rounds.dir.path().join("w").display());
        std::fs::write(rounds.dir.path().join("t.yml"), yaml).expect("pipeline");
        std::fs::create_dir(rounds.dir.path().join("runners")).expect("runners");
        rounds
    }

    fn cacheon(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cacheon"));
        command
            .current_dir(self.dir.path())
            .args(arguments)
            .env("CACHEON_DATA", self.dir.path().join("data"));
        command.output().expect("starts")
    }

    fn audit(&self) -> (Option<i32>, Value) {
        let output = self.cacheon(&["audit", "r", "--json"]);
        let said = String::from_utf8_lossy(&output.stderr);
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}")))
    }

    fn round(&self) -> PathBuf {
        self.dir.path().join("data/rounds/round=r")
    }

    /// The line at which the audit finds what was changed in the journal.
    fn changed(&self, change: impl FnOnce(&mut Vec<JournalEvent>)) -> (u64, Value) {
        let path = self.round().join("journal.jsonl");
        let original = std::fs::read(&path).expect("reads");
        let lines = replay::<JournalEvent>(&original).expect("replays").lines;
        let mut events: Vec<JournalEvent> = lines.iter().map(|line| line.event.clone()).collect();
        change(&mut events);
        let at = |index: usize| lines[index.min(lines.len() - 1)].at;
        let line = |(index, event): (usize, JournalEvent)| {
            encode_line(&JournalLine { seq: index as u64, at: at(index), event }).expect("encodes")
        };
        std::fs::write(&path, events.into_iter().enumerate().flat_map(line).collect::<Vec<u8>>())
            .expect("writes");
        self.seal();
        let (code, report) = self.audit();
        assert_eq!(code, Some(6), "{report:#}");
        std::fs::write(&path, original).expect("writes");
        self.seal();
        let found = report["differences"][0].clone();
        (found["line"].as_u64().unwrap_or_else(|| panic!("{report:#}")), found)
    }

    fn seal(&self) {
        std::fs::remove_file(self.round().join("SEAL")).expect("SEAL");
        let id = "r".parse().expect("id");
        RoundDirectory::open(&self.dir.path().join("data"), &id).expect("round").seal().expect("seals");
    }
}

#[test]
fn a_round_with_retries_agrees_and_no_line_of_it_can_be_changed() {
    let rounds = Rounds::new();
    let unsealed = rounds.cacheon(&["audit"]);
    assert_eq!(unsealed.status.code(), Some(2), "there is no round yet");
    let ran = rounds.cacheon(&["run", "t.yml", "--round", "r", "--seed", "1"]);
    assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
    let (code, report) = rounds.audit();
    assert_eq!((code, &report["agrees"]), (Some(0), &Value::from(true)), "{report:#}");
    assert_eq!((&report["attempts"], &report["attempts_as_recorded"]), (&6.into(), &2.into()), "{report:#}");

    let position = |events: &[JournalEvent], wanted: fn(&JournalEvent) -> bool| {
        events.iter().position(wanted).expect("such a line")
    };
    // Another order of the legs than the seed draws.
    let mut expected = 0;
    let (line, _) = rounds.changed(|events| {
        expected =
            position(events, |event| matches!(event, JournalEvent::JobPlanned { job, .. } if job == "each"));
        let JournalEvent::JobPlanned { legs, .. } = &mut events[expected] else { unreachable!("just found") };
        legs.reverse();
    });
    assert_eq!(line, expected as u64);
    // An output of a job that its steps did not give.
    let (line, found) = rounds.changed(|events| {
        expected =
            position(events, |event| matches!(event, JournalEvent::LegEnded { at, .. } if at.job == "judge"));
        let JournalEvent::LegEnded { outputs, .. } = &mut events[expected] else {
            unreachable!("just found")
        };
        outputs.insert("count".to_owned(), "3".into());
    });
    assert_eq!(line, expected as u64);
    assert!(
        found["recorded"].to_string().contains('3') && found["recomputed"].to_string().contains('4'),
        "{found:#}"
    );
    // A step's output that the stage does not give.
    let (line, _) = rounds.changed(|events| {
        expected = position(
            events,
            |event| matches!(event, JournalEvent::StepEnded { at, .. } if at.job == "judge"),
        );
        let JournalEvent::StepEnded { outputs, .. } = &mut events[expected] else {
            unreachable!("just found")
        };
        outputs.insert("weights".to_owned(), serde_json::json!([{}]));
    });
    assert_eq!(line, expected as u64);
    // A retry that the pipeline does not allow for that fault.
    let (line, _) = rounds.changed(|events| {
        let failed = position(events, |event| {
            matches!(event, JournalEvent::LegEnded { conclusion: cacheon::model::Conclusion::Failure, .. })
        });
        let JournalEvent::LegEnded { reason: Some(reason), .. } = &mut events[failed] else {
            unreachable!("just found")
        };
        reason.fault = cacheon::model::Fault::Submission;
        expected = failed + 1;
    });
    assert_eq!(line, expected as u64);
    // A leg that is left out altogether.
    let (line, _) = rounds.changed(|events| {
        expected =
            position(events, |event| matches!(event, JournalEvent::JobStarted { job } if job == "judge"));
        events.remove(expected);
    });
    assert_eq!(line, expected as u64);
    let (code, report) = rounds.audit();
    assert_eq!(code, Some(0), "as it was again: {report:#}");
}
