//! Rounds on disks that fail and in programs that die, at each file operation and at drawn instants: each stops clearly,
//! and goes on later to the tables of a round that nothing happened to.
//!
//! The jobs are real stages that boot no server, the clock is tokio's paused one, and the disk is
//! [`faults`]: an operation fails or writes half, and then, as the case may be, all that follow.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future as _;
use std::pin::pin;
use std::task::Poll;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use rustix::io::Errno;

use super::*;
use crate::adapters::store::faults::{Failing, Plan};
use crate::artifact::{Replay, Tail};

/// Two legs that are tried again, and a publication that is not.
const PIPELINE: &str = "
jobs:
  each:
    runs-on: controller
    retry: { max: 1, on: [infra], backoff: { kind: fixed, delay: 1s } }
    strategy: { matrix: { n: [1, 2] }, sequence: one }
    steps: [{ uses: fetch-commitments, with: { source: file, path: COMMITMENTS } }]
  publish:
    runs-on: controller
    needs: each
    steps:
      - uses: publish
      - uses: set-weights
        with: { leaderboard: [], netuid: 14, dry-run: true }
";

/// A data directory with one round, in memory where the machine has such a place.
struct Simulated {
    data: tempfile::TempDir,
}

impl Simulated {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let data = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Self { data: data.unwrap() }
    }

    fn settings(&self, beginning: Beginning) -> RoundSettings {
        let commitments = concat!(env!("CARGO_MANIFEST_DIR"), "/data/demo/commitments.yml");
        let yaml = PIPELINE.replace("COMMITMENTS", commitments);
        let now = || "2026-11-26T12:00:00Z".parse().unwrap();
        RoundSettings { beginning, now, ..settings(&yaml, self.data.path(), Path::new("witness")) }
    }

    /// Whether a program would begin the round or go on with it.
    fn beginning(&self) -> Beginning {
        if self.path().join(layout::ROUND_FILE).exists() { Beginning::Resumed } else { Beginning::New }
    }

    /// Runs the round, or what is left of it, for at most so many turns of its program.
    fn drive(&self, turns: usize) -> Option<Result<RoundEnd, Error>> {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        let settings = self.settings(self.beginning());
        let ended = runtime.block_on(async {
            let (view, _unseen) = unbounded_channel();
            let mut round = pin!(run_round(settings, Control::default(), view));
            let mut left = turns;
            std::future::poll_fn(|context| {
                let Some(after) = left.checked_sub(1) else { return Poll::Ready(None) };
                left = after;
                round.as_mut().poll(context).map(Some)
            })
            .await
        });
        if ended.is_some() {
            assert_eq!(runtime.metrics().num_alive_tasks(), 0, "something outlives the round");
        }
        // Waits for the thread that may be writing the journal.
        drop(runtime);
        ended
    }

    fn path(&self) -> PathBuf {
        self.data.path().join(layout::ROUNDS_DIR).join(layout::round_dir(&"r".parse().unwrap()))
    }

    fn directory(&self) -> RoundDirectory {
        RoundDirectory::open(self.data.path(), &"r".parse().unwrap()).unwrap()
    }

    fn journal(&self) -> Replay {
        self.directory().read_journal().unwrap()
    }

    /// The published tables; that of the steps, which says how long each took, is not one that two rounds share.
    fn tables(&self) -> BTreeMap<String, Vec<u8>> {
        let Ok(entries) = fs::read_dir(self.path().join("results")) else { return BTreeMap::new() };
        let files = entries.map(|entry| entry.unwrap());
        let named =
            files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap()));
        named
            .filter(|(name, _)| name != "step_attempts.parquet" && !name.starts_with(layout::PARTIAL_PREFIX))
            .collect()
    }

    /// What has its name is whole, though the round is not.
    fn is_sound(&self, expected: &BTreeMap<String, Vec<u8>>, case: &str) {
        for (name, bytes) in self.tables() {
            assert!(expected[&name] == bytes, "{case}: {name} is not whole");
        }
        if self.path().exists() {
            self.directory().read_journal().unwrap_or_else(|error| panic!("{case}: {}", error_chain(&error)));
        }
    }

    /// Goes on with the round until it is done, and finds it as if nothing had happened.
    fn is_done(&self, expected: &BTreeMap<String, Vec<u8>>, case: &str) {
        if !self.path().join(layout::SEAL_FILE).exists() {
            let end = self.drive(usize::MAX).unwrap();
            let end = end.unwrap_or_else(|error| panic!("{case}: {}", error_chain(&error)));
            assert_eq!(end.exit_code, ExitCode::Done, "{case}: {:?}", end.reason);
        }
        assert!(self.tables() == *expected, "{case}: other tables");
        let replay = self.journal();
        assert_eq!(replay.tail, Tail::Clean, "{case}");
        let ends =
            replay.lines.iter().filter(|line| matches!(line.event, JournalEvent::RoundEnded { .. })).count();
        assert!(ends >= 1, "{case}: no end");
        let directory = self.directory();
        let difference = directory.check_seal().unwrap();
        assert_eq!(difference, None, "{case}");
        assert_eq!(directory.running().unwrap(), None, "{case}");
        assert_eq!(directory.holder(), None, "{case}");
        let seal = fs::read_to_string(self.path().join(layout::SEAL_FILE)).unwrap();
        assert!(!seal.contains(layout::PARTIAL_PREFIX), "{case}: {seal}");
    }
}

/// A round that nothing happened to, and the number of its operations on files.
fn undisturbed() -> (Simulated, BTreeMap<String, Vec<u8>>, Vec<String>) {
    let round = Simulated::new();
    let plan = Plan::new(round.data.path(), None);
    let end = round.drive(usize::MAX).unwrap().unwrap();
    assert_eq!(end.exit_code, ExitCode::Done, "{:?}", end.reason);
    let (tables, seen) = (round.tables(), plan.seen());
    assert!(tables.len() > 8 && tables.values().all(|bytes| bytes.len() > 100), "{:?}", tables.keys());
    (round, tables, seen)
}

#[test]
fn a_disk_that_fails_at_any_operation_stops_the_round_clearly_and_it_goes_on_later() {
    let (_, expected, seen) = undisturbed();
    assert!(seen.len() > 100, "{}", seen.len());
    // Each operation fails in one of these ways, once or for good; what only reads has no use for room.
    let reading = [Failing::Once(Errno::IO), Failing::Gone];
    let changing = [
        Failing::Once(Errno::NOSPC),
        Failing::Full,
        Failing::Once(Errno::IO),
        Failing::ReadOnly,
        Failing::Once(Errno::ROFS),
        Failing::Gone,
    ];
    let (mut reads, mut changes) = (reading.iter().cycle(), changing.iter().cycle());
    let mut stopped = 0;
    for (at, operation) in seen.iter().enumerate() {
        let failing = if operation.starts_with("Read") { reads.next() } else { changes.next() };
        let failing = *failing.unwrap();
        let case = format!("operation {at} ({operation}), {failing:?}");
        let round = Simulated::new();
        let plan = Plan::new(round.data.path(), Some((at, failing)));
        let ended = round.drive(usize::MAX).unwrap();
        drop(plan);
        let (said, is_done) = match &ended {
            Ok(end) => {
                let said = end.reason.as_ref().map(ToString::to_string);
                (said.unwrap_or_default(), end.exit_code == ExitCode::Done)
            }
            Err(error) => {
                assert!(matches!(error, Error::Store(error) if error.remedy().is_some()), "{case}");
                (error_chain(error), false)
            }
        };
        if !is_done {
            stopped += 1;
            let names_all = ["cannot ", "os error"].iter().all(|words| said.contains(words));
            assert!(names_all && said.contains(&round.data.path().display().to_string()), "{case}: {said}");
        }
        assert!(is_done <= round.path().join(layout::SEAL_FILE).exists(), "{case}: done without a seal");
        round.is_sound(&expected, &case);
        round.is_done(&expected, &case);
    }
    assert!(stopped > seen.len() / 2, "most faults stop the round: {stopped} of {}", seen.len());
}

#[test]
fn a_program_that_dies_at_any_of_300_instants_leaves_a_round_that_goes_on() {
    let (_, expected, seen) = undisturbed();
    for seed in 0..300 {
        let mut random = ChaCha12Rng::seed_from_u64(seed);
        let mut draw = |below: usize| random.next_u32() as usize % below;
        let round = Simulated::new();
        // Some die a second time, while they go on.
        for death in 0..=draw(2) {
            let case = format!("seed {seed}, death {death}");
            if draw(2) == 0 {
                let plan = Plan::new(round.data.path(), Some((draw(seen.len()), Failing::Gone)));
                drop(round.drive(usize::MAX));
                drop(plan);
            } else {
                drop(round.drive(draw(60)));
            }
            round.is_sound(&expected, &case);
            if round.path().join(layout::SEAL_FILE).exists() {
                break;
            }
        }
        round.is_done(&expected, &format!("seed {seed}"));
    }
}

#[test]
fn a_journal_cut_at_any_byte_is_the_beginning_of_itself_and_goes_on_to_the_same_tables() {
    let (round, expected, _) = undisturbed();
    let bytes = fs::read(round.path().join(layout::JOURNAL_FILE)).unwrap();
    let lines = round.journal().lines;
    for cut in 0..=bytes.len() {
        let replay = journal::replay(&bytes[..cut]).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        assert!(lines.starts_with(&replay.lines) && replay.valid_bytes <= cut, "cut at {cut}");
    }
    for cut in (0..=bytes.len()).step_by(bytes.len() / 15) {
        let torn = &bytes[..cut];
        let whole_lines = &bytes[..journal::replay::<JournalEvent>(torn).unwrap().valid_bytes];
        let starts: Vec<usize> =
            (0..whole_lines.len()).filter(|at| *at == 0 || whole_lines[at - 1] == b'\n').collect();
        let last = starts.iter().rev().nth(1).map_or(&[] as &[u8], |at| &whole_lines[*at..]);
        for (tail, bytes) in [
            ("torn", torn.to_vec()),
            ("zeros", [torn, &[0; 512]].concat()),
            ("doubled", [whole_lines, last].concat()),
        ] {
            let cut_round = Simulated::new();
            cut_round.is_as(&round, &bytes);
            cut_round.is_done(&expected, &format!("cut at {cut}, {tail}"));
        }
    }
}

impl Simulated {
    /// Puts a round as it stood when its journal was this: with the attempts and tables that the journal knows.
    fn is_as(&self, whole: &Self, bytes: &[u8]) {
        let round = RoundDirectory::create(self.data.path(), &"r".parse().unwrap()).unwrap();
        fs::copy(whole.path().join(layout::ROUND_FILE), self.path().join(layout::ROUND_FILE)).unwrap();
        fs::write(self.path().join(layout::JOURNAL_FILE), bytes).unwrap();
        for line in journal::replay(bytes).unwrap().lines {
            if let JournalEvent::Published { tables, .. } = &line.event {
                fs::create_dir_all(self.path().join("results")).unwrap();
                for table in tables {
                    fs::copy(whole.path().join(&table.path), self.path().join(&table.path)).unwrap();
                }
            }
            let JournalEvent::LegStarted { at, .. } = line.event else { continue };
            let made = round.new_attempt_dir(&at.job, &at.leg, at.attempt).unwrap();
            let from = whole.path().join(layout::attempt_path(&at.job, &at.leg, at.attempt));
            for file in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
                fs::copy(&file, made.join(file.file_name().unwrap())).unwrap();
            }
        }
    }
}
