//! Whole rounds on the controller, with real scripts and tokio's paused clock: waits take no time.

mod disk;

use std::io;

use serde_json::json;
use tokio::time::{Duration, Instant};

use super::*;
use crate::adapters::shell::Shell;
use crate::adapters::store::JournalFile;
use crate::artifact::{JobState, LegState, layout};
use crate::job::InProcess;
use crate::report::text::error_chain;
use crate::stages::RunnerContext;

const HOUR: Duration = Duration::from_hours(1);

/// What became of a round.
struct Ran {
    end: Result<RoundEnd, Error>,
    /// What was seen of its journal, in words.
    lines: Vec<String>,
    /// The journal on disk.
    journal: Vec<JournalEvent>,
    /// What the scripts wrote to `$WITNESS`.
    witness: String,
    took: Duration,
}

/// A journal's file whose disk goes away after some waits for it.
#[derive(Debug)]
struct Watched {
    file: Box<dyn JournalFile>,
    /// Waits that go well.
    syncs: usize,
    /// Cancelled at each of those.
    cancel: CancellationToken,
}

/// The writer over a [`Watched`] file.
fn watched(syncs: usize, cancel: CancellationToken) -> impl FnOnce(JournalWriter) -> JournalWriter {
    move |journal| journal.through(|file| Box::new(Watched { file, syncs, cancel }))
}

impl JournalFile for Watched {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.syncs = self.syncs.checked_sub(1).ok_or_else(|| io::Error::other("the disk is gone"))?;
        self.cancel.cancel();
        self.file.sync()
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.file.cut(len)
    }
}

/// A round `r` of a pipeline whose scripts find the path of the witness in `$WITNESS`.
fn settings(yaml: &str, data_dir: &Path, witness: &Path) -> RoundSettings {
    let yaml = format!("name: t\nenv: {{ WITNESS: {} }}\n{yaml}", witness.display());
    let pipeline =
        Pipeline::parse(&Source::new("t.yml", &yaml)).unwrap_or_else(|found| panic!("{found}")).value;
    RoundSettings {
        beginning: Beginning::New,
        pipeline: Arc::new(pipeline),
        inputs: Map::new(),
        tick: None,
        runners: Vec::new(),
        machines: Machines::Judged,
        controller: Arc::new(InProcess::new(RunnerContext::controller(), Shell::unguarded())),
        data_dir: data_dir.to_owned(),
        round_id: "r".parse().unwrap(),
        seed: Seed::from_text("1"),
        program: PathBuf::from("cacheon"),
        now: jiff::Timestamp::now,
    }
}

async fn run_with(
    yaml: &str,
    control: Control,
    mut on_event: impl FnMut(&JournalEvent, &Control),
    journal_of: impl FnOnce(JournalWriter) -> JournalWriter,
) -> Ran {
    let data = tempfile::tempdir().unwrap();
    let witness = data.path().join("witness");
    let settings = settings(yaml, data.path(), &witness);
    let round_id = settings.round_id.clone();
    let (view, mut views) = unbounded_channel();
    let mut lines = Vec::new();
    let watching = async {
        while let Some(view) = views.recv().await {
            if let View::Journal(line) = view {
                on_event(&line.event, &control);
                lines.extend(words(&line.event));
            }
        }
    };
    let started = Instant::now();
    let (end, ()) = tokio::join!(drive(settings, control.clone(), view, journal_of), watching);
    let journal = RoundDirectory::open(data.path(), &round_id).unwrap().read_journal().unwrap();
    Ran {
        end,
        lines,
        journal: journal.lines.into_iter().map(|line| line.event).collect(),
        witness: std::fs::read_to_string(&witness).unwrap_or_default(),
        took: started.elapsed(),
    }
}

async fn run(yaml: &str, on_event: impl FnMut(&JournalEvent, &Control)) -> Ran {
    run_with(yaml, Control::default(), on_event, |journal| journal).await
}

/// What happened to a leg, a job or the round.
fn words(event: &JournalEvent) -> Option<String> {
    Some(match event {
        JournalEvent::LegStarted { at, .. } => format!("start {}{} {}", at.job, at.leg, at.attempt),
        JournalEvent::LegEnded { at, conclusion, .. } => format!("end {}{} {conclusion}", at.job, at.leg),
        JournalEvent::RetryScheduled { at, .. } => format!("retry {}{} {}", at.job, at.leg, at.attempt),
        JournalEvent::LegSkipped { job, leg, .. } => format!("skip {job}{leg}"),
        JournalEvent::JobEnded { job, conclusion, .. } => format!("{job} {conclusion}"),
        JournalEvent::Interrupted { .. } => "stop".to_owned(),
        JournalEvent::RoundEnded { conclusion, .. } => format!("round {conclusion}"),
        _ => return None,
    })
}

fn exit_code(ran: &Ran) -> ExitCode {
    ran.end.as_ref().expect("the round ends").exit_code
}

const FAILS_TWICE: &str = "
jobs:
  a:
    runs-on: controller
    retry: { max: 2, on: [infra], backoff: { kind: linear, delay: 10h, max-delay: 15h } }
    steps:
      - if: always()
        run: |
          echo a >> \"$WITNESS\"
          test $(wc -l < \"$WITNESS\") -ge 3 || exit 75
  b:
    runs-on: controller
    needs: a
    steps: [{ if: always(), run: echo b >> \"$WITNESS\" }]
";

#[tokio::test(start_paused = true)]
async fn a_job_is_tried_again_after_its_wait() {
    let ran = run(FAILS_TWICE, |_, _| {}).await;
    let expected = [
        "start a 1",
        "end a failure",
        "retry a 2",
        "start a 2",
        "end a failure",
        "retry a 3",
        "start a 3",
        "end a success",
        "a success",
        "start b 1",
        "end b success",
        "b success",
        "round success",
    ];
    assert_eq!(ran.lines, expected);
    assert_eq!(exit_code(&ran), ExitCode::Done);
    assert_eq!(ran.took.as_secs() / HOUR.as_secs(), 25, "ten hours, then twice ten cut to fifteen");
}

#[tokio::test(start_paused = true)]
async fn cancelling_while_legs_run_stops_them_and_what_insists_still_runs() {
    let yaml = "
jobs:
  j:
    runs-on: controller
    strategy: { matrix: { n: [1, 2, 3] }, max-parallel: 2 }
    steps: [{ run: sleep 3600 }]
  next:
    runs-on: controller
    needs: j
    steps: [{ run: echo next >> \"$WITNESS\" }]
  tidy:
    runs-on: controller
    needs: j
    if: always()
    steps: [{ if: always(), run: echo tidy >> \"$WITNESS\" }]
";
    let mut begun = 0;
    let mut ran = run(yaml, |event, control| {
        begun += usize::from(matches!(event, JournalEvent::StepStarted { .. }));
        if begun == 2 {
            control.stop.cancel.cancel();
        }
    })
    .await;
    // Which of the two ends first is chance.
    ran.lines[4..6].sort();
    let expected = [
        "start j1 1",
        "start j2 1",
        "stop",
        "skip j3",
        "end j1 cancelled",
        "end j2 cancelled",
        "j cancelled",
        "next cancelled",
        "start tidy 1",
        "end tidy cancelled",
        "tidy cancelled",
        "round cancelled",
    ];
    assert_eq!(ran.lines, expected);
    assert_eq!(ran.witness, "tidy\n");
    assert_eq!(exit_code(&ran), ExitCode::Interrupted);
    assert!(ran.took < HOUR);
}

#[tokio::test(start_paused = true)]
async fn cancelling_while_a_retry_waits_ends_the_wait() {
    let ran = run(FAILS_TWICE, |event, control| {
        if matches!(event, JournalEvent::RetryScheduled { .. }) {
            control.stop.cancel.cancel();
        }
    })
    .await;
    let expected = [
        "start a 1",
        "end a failure",
        "retry a 2",
        "stop",
        "skip a",
        "a cancelled",
        "b cancelled",
        "round cancelled",
    ];
    assert_eq!(ran.lines, expected);
    assert_eq!(ran.witness, "a\n");
    assert!(ran.took < HOUR, "{:?}", ran.took);
}

#[tokio::test(start_paused = true)]
async fn a_tolerated_failure_of_a_job_lets_the_round_go_on() {
    let check = async |flag: &str, expected: &[&str], code: ExitCode| {
        let yaml = format!(
            "
jobs:
  a:
    runs-on: controller
    continue-on-error: {flag}
    steps: [{{ run: exit 1 }}]
  b:
    runs-on: controller
    needs: a
    steps: [{{ run: 'true' }}]
"
        );
        let ran = run(&yaml, |_, _| {}).await;
        assert_eq!(ran.lines, expected, "{flag}");
        assert_eq!(exit_code(&ran), code, "{flag}");
    };
    let goes_on = [
        "start a 1",
        "end a failure",
        "a success",
        "start b 1",
        "end b success",
        "b success",
        "round success",
    ];
    check("true", &goes_on, ExitCode::Done).await;
    let ends = ["start a 1", "end a failure", "a failure", "b skipped", "round failure"];
    check("false", &ends, ExitCode::Incomplete).await;
}

// On the real clock: with the paused one, an attempt that must not have started would be cut short by its limits.
#[tokio::test]
async fn nothing_starts_before_the_lines_that_say_so_are_on_disk() {
    for syncs in 0..100 {
        let journal = watched(syncs, CancellationToken::new());
        let yaml = FAILS_TWICE.replace("delay: 10h, max-delay: 15h", "delay: 1ms, max-delay: 1ms");
        let ran = run_with(&yaml, Control::default(), |_, _| {}, journal).await;
        for job in ["a", "b"] {
            let is_start =
                |event: &&JournalEvent| matches!(event, JournalEvent::LegStarted { at, .. } if at.job == job);
            let written = ran.journal.iter().filter(is_start).count();
            let started = ran.witness.lines().filter(|line| *line == job).count();
            assert!(
                started <= written,
                "after {syncs} waits {job} started {started} times, written {written}"
            );
        }
        let Err(error) = ran.end else {
            assert!(syncs > 8, "each attempt is waited for: {syncs}");
            return;
        };
        assert!(error_chain(&error).contains("the disk is gone"), "{}", error_chain(&error));
        let is_end = |event: &JournalEvent| matches!(event, JournalEvent::RoundEnded { .. });
        assert!(!ran.journal.iter().any(is_end), "a round that lost its journal says no end");
    }
    panic!("the round never ends");
}

#[tokio::test(start_paused = true)]
async fn what_is_decided_together_waits_once() {
    let yaml = "
jobs:
  j:
    runs-on: controller
    strategy: { matrix: { n: [1, 2, 3, 4, 5, 6, 7, 8] } }
    steps: [{ run: 'true' }]
";
    let journal = watched(1, CancellationToken::new());
    let ran = run_with(yaml, Control::default(), |_, _| {}, journal).await;
    // The round, the job, its plan, and its legs.
    assert_eq!(ran.journal.len(), 3 + 8);
    assert!(ran.end.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_leg_that_was_decided_before_a_cancellation_does_not_run_after_it() {
    let yaml = "jobs: { j: { runs-on: controller, steps: [{ run: echo ran >> \"$WITNESS\" }] } }";
    let control = Control::default();
    // The wish comes while the leg's line is being written.
    let journal = watched(usize::MAX, control.stop.cancel.clone());
    let ran = run_with(yaml, control, |_, _| {}, journal).await;
    assert_eq!(ran.lines, ["start j 1", "stop", "end j cancelled", "j cancelled", "round cancelled"]);
    assert_eq!(ran.witness, "");
}

/// A round in three jobs: a list, a leg for each of its items, of which one fails by its own fault, and a summary.
const IN_THREE: &str = "
jobs:
  list:
    runs-on: controller
    outputs: { items: { type: json, value: '${{ fromJSON(steps.s.outputs.items) }}' } }
    steps:
      - id: s
        run: echo 'items=[\"x\",\"y\",\"z\"]' >> \"$CACHEON_OUTPUT\"; echo list >> \"$WITNESS\"
  each:
    runs-on: controller
    needs: list
    outputs: { twice: '${{ steps.s.outputs.twice }}' }
    strategy:
      matrix: { item: '${{ needs.list.outputs.items }}' }
      key: '${{ matrix.item }}'
      sequence: one
    steps:
      - id: s
        env: { ITEM: '${{ matrix.item }}' }
        run: |
          echo \"$ITEM\" >> \"$WITNESS\"
          if [ $ITEM = y ]; then exit 65; fi
          echo twice=$ITEM$ITEM >> \"$CACHEON_OUTPUT\"
  sum:
    runs-on: controller
    needs: each
    if: ${{ !cancelled() }}
    outputs: { all: '${{ toJSON(needs.each.legs.*.outputs.twice) }}' }
    steps: [{ run: echo sum >> \"$WITNESS\" }]
";

/// What every leg came to: its conclusion and its outputs.
fn results(state: &RoundState) -> Vec<String> {
    let leg = |job: &JobState, leg: &LegState| {
        let outputs = leg.last().map(|attempt| json!(attempt.outputs).to_string()).unwrap_or_default();
        format!("{}{} {:?} {outputs}", job.job, leg.key, leg.conclusion())
    };
    state.jobs.iter().flat_map(|job| job.legs.iter().map(move |one| leg(job, one))).collect()
}

/// Writes a round as it stood when the first of these lines were on disk.
fn write_cut(data: &Path, whole: &RoundDirectory, lines: &[JournalLine]) {
    let round = RoundDirectory::create(data, whole.round_id()).unwrap();
    std::fs::copy(whole.path().join(layout::ROUND_FILE), round.path().join(layout::ROUND_FILE)).unwrap();
    let journal: Vec<Vec<u8>> = lines.iter().map(|line| journal::encode_line(line).unwrap()).collect();
    std::fs::write(round.path().join(layout::JOURNAL_FILE), journal.concat()).unwrap();
    for line in lines {
        if let JournalEvent::LegStarted { at, .. } = &line.event {
            round.new_attempt_dir(&at.job, &at.leg, at.attempt).unwrap();
        }
    }
}

async fn drive_unseen(settings: RoundSettings, beginning: Beginning) -> RoundEnd {
    let (view, _unseen) = unbounded_channel();
    run_round(RoundSettings { beginning, ..settings }, Control::default(), view)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test]
async fn a_round_cut_at_any_line_goes_on_to_the_same_end() {
    let data = tempfile::tempdir().unwrap();
    let end =
        drive_unseen(settings(IN_THREE, data.path(), &data.path().join("witness")), Beginning::New).await;
    assert_eq!(end.exit_code, ExitCode::Done, "only a submission failed");
    let whole = RoundDirectory::open(data.path(), &"r".parse().unwrap()).unwrap();
    let lines = whole.read_journal().unwrap().lines;
    let expected = results(&RoundState::of(&lines));
    assert_eq!(expected.len(), 5, "{expected:?}");
    for cut in 0..=lines.len() {
        let before = RoundState::of(&lines[..cut]);
        let data = tempfile::tempdir().unwrap();
        write_cut(data.path(), &whole, &lines[..cut]);
        let witness = data.path().join("witness");
        let end = drive_unseen(settings(IN_THREE, data.path(), &witness), Beginning::Resumed).await;
        assert_eq!(end.exit_code, ExitCode::Done, "cut at {cut}");
        let round = RoundDirectory::open(data.path(), whole.round_id()).unwrap();
        let after = RoundState::of(&round.read_journal().unwrap().lines);
        assert_eq!(results(&after), expected, "cut at {cut}");
        assert!(after.end.is_some() && after.jobs.iter().all(|job| job.end.is_some()), "cut at {cut}");
        // What ran again is what had not ended, and nothing else.
        let stood = |job: &JobState, leg: &LegState| before.standing(&job.job, &leg.key).is_some();
        let open = after.jobs.iter().flat_map(|job| job.legs.iter().map(move |leg| (job, leg)));
        let open = open.filter(|(job, leg)| !stood(job, leg)).count();
        let ran = std::fs::read_to_string(&witness).unwrap_or_default();
        assert_eq!(ran.lines().count(), open, "cut at {cut}: {ran}");
        for (job, leg) in after.jobs.iter().flat_map(|job| job.legs.iter().map(move |leg| (job, leg))) {
            let begun = before.leg(&job.job, &leg.key).map_or(0, LegState::attempt);
            let expected = begun + u32::from(!stood(job, leg));
            assert_eq!(leg.attempt(), expected, "cut at {cut}: {}{}", job.job, leg.key);
        }
    }
}

#[tokio::test]
async fn what_failed_by_our_fault_is_tried_again_and_what_needs_it_too() {
    let yaml = "
jobs:
  a:
    runs-on: controller
    retry: { max: 1, on: [infra] }
    outputs: { n: '${{ steps.s.outputs.n }}' }
    steps:
      - id: s
        run: |
          echo a >> \"$WITNESS\"
          echo n=$(wc -l < \"$WITNESS\") >> \"$CACHEON_OUTPUT\"
          [ $(grep -c a \"$WITNESS\") -gt 2 ] || exit 75
  b:
    runs-on: controller
    needs: a
    if: always()
    steps: [{ run: echo b >> \"$WITNESS\" }]
";
    let data = tempfile::tempdir().unwrap();
    let witness = data.path().join("witness");
    let end = drive_unseen(settings(yaml, data.path(), &witness), Beginning::New).await;
    assert_eq!(end.exit_code, ExitCode::Incomplete);
    assert_eq!(std::fs::read_to_string(&witness).unwrap(), "a\na\nb\n");
    let end = drive_unseen(settings(yaml, data.path(), &witness), Beginning::Resumed).await;
    assert_eq!(end.exit_code, ExitCode::Done);
    assert_eq!(std::fs::read_to_string(&witness).unwrap(), "a\na\nb\na\nb\n");
    let again = RoundSettings { beginning: Beginning::Resumed, ..settings(yaml, data.path(), &witness) };
    let (view, _unseen) = unbounded_channel();
    let error = run_round(again, Control::default(), view).await.unwrap_err();
    assert!(error_chain(&error).contains("sealed"), "{}", error_chain(&error));
}
