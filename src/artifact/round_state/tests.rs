//! Journals written by chance, and what their fold must hold to.

use proptest::prelude::*;

use super::*;
use crate::artifact::journal::{SCHEMA, StepKind, encode_line, replay};
use crate::artifact::{digest, journal};
use crate::pipeline::stage::StageName;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time")
}

fn lines(events: Vec<JournalEvent>) -> Vec<JournalLine> {
    (0..)
        .zip(events)
        .map(|(seq, event)| JournalLine { seq, at: at(i64::try_from(seq).expect("few")), event })
        .collect()
}

fn start() -> JournalEvent {
    JournalEvent::RoundStarted(RoundStart {
        schema: SCHEMA,
        round_id: "demo-1".parse().expect("an id"),
        pipeline: "demo".to_owned(),
        run_name: None,
        pipeline_digest: digest::sha256(b""),
        runners: vec!["embedded".to_owned()],
        seed_commitment: digest::sha256(b"seed"),
    })
}

fn which(job: &str, leg: &str, attempt: u32) -> LegAttempt {
    LegAttempt { job: job.to_owned(), leg: leg.to_owned(), attempt }
}

fn started(leg: &str, attempt: u32) -> JournalEvent {
    JournalEvent::LegStarted { at: which("m", leg, attempt), runner: "r".to_owned() }
}

fn job_step(index: u32) -> JobStep {
    JobStep { index, name: format!("s{index}"), kind: StepKind::Run }
}

fn step(leg: &str, attempt: u32, index: u32, outcome: Conclusion) -> JournalEvent {
    JournalEvent::StepEnded {
        at: which("m", leg, attempt),
        step: job_step(index),
        outcome,
        conclusion: outcome,
        outputs: Map::from_iter([("n".to_owned(), index.into())]),
        reason: None,
        duration_ns: 5_000,
    }
}

fn ended(leg: &str, attempt: u32, conclusion: Conclusion) -> JournalEvent {
    JournalEvent::LegEnded { at: which("m", leg, attempt), conclusion, reason: None, outputs: Map::new() }
}

fn planned(legs: &[&str]) -> JournalEvent {
    JournalEvent::JobPlanned { job: "m".to_owned(), legs: legs.iter().map(|&leg| leg.to_owned()).collect() }
}

fn job_started() -> JournalEvent {
    JournalEvent::JobStarted { job: "m".to_owned() }
}

fn job_ended(conclusion: Conclusion) -> JournalEvent {
    JournalEvent::JobEnded { job: "m".to_owned(), conclusion, reason: None }
}

fn retry(leg: &str, attempt: u32) -> JournalEvent {
    let reason = Reason::new(Fault::Infra, "x", "y");
    JournalEvent::RetryScheduled { at: which("m", leg, attempt), delay_ms: 0, reason }
}

fn skipped(leg: &str) -> JournalEvent {
    JournalEvent::LegSkipped { job: "m".to_owned(), leg: leg.to_owned(), why: "given up".to_owned() }
}

fn interrupted() -> JournalEvent {
    JournalEvent::Interrupted { signal: "SIGINT".to_owned() }
}

/// `leg: attempt/failures shown done standing-steps` for every leg, and the same two words of the job.
fn check(events: Vec<JournalEvent>, expected: &str) {
    let word = |end: Option<&Ending>| end.map_or("-", |end| end.conclusion.as_str());
    let state = RoundState::of(&lines(events));
    let job = state.job("m").expect("the job");
    let leg = |leg: &LegState| {
        let standing = leg.last().map_or(0, |attempt| attempt.standing_steps().count());
        let (shown, done) = (word(leg.end()), word(leg.done()));
        format!("{}: {}/{} {shown} {done} {standing}", leg.key, leg.attempt(), leg.failures())
    };
    let mut found: Vec<String> = job.legs.iter().map(leg).collect();
    found.push(format!("{} {}", word(job.end.as_ref()), word(job.done())));
    assert_eq!(found.join("; "), expected);
}

#[test]
fn what_is_done_and_what_is_open() {
    use Conclusion::{Failure, Skipped, Success};
    check(vec![planned(&["a"])], "a: 0/0 - - 0; - -");
    check(vec![planned(&["a"]), started("a", 1), ended("a", 1, Success)], "a: 1/0 success success 0; - -");
    check(vec![planned(&["a"]), started("a", 1), ended("a", 1, Failure)], "a: 1/1 failure failure 0; - -");
    check(vec![started("a", 1), ended("a", 1, Failure), retry("a", 2)], "a: 1/1 failure - 0; - -");
    check(
        vec![started("a", 1), ended("a", 1, Failure), retry("a", 2), skipped("a")],
        "a: 1/1 skipped skipped 0; - -",
    );
    check(
        vec![
            started("a", 1),
            ended("a", 1, Failure),
            retry("a", 2),
            started("a", 2),
            step("a", 2, 0, Success),
        ],
        "a: 2/1 - - 1; - -",
    );
    check(
        vec![started("a", 1), step("a", 1, 0, Success), step("a", 1, 1, Failure), step("a", 1, 2, Success)],
        "a: 1/0 - - 1; - -",
    );
    check(vec![job_ended(Skipped)], "skipped skipped");
}

/// The legs of the job that stand when the round is taken up again.
fn check_standing(events: Vec<JournalEvent>, expected: &str) {
    let state = RoundState::of(&lines(events));
    let legs = state.job("m").expect("the job").legs.iter();
    let standing: Vec<&str> =
        legs.filter(|leg| state.standing("m", &leg.key).is_some()).map(|leg| leg.key.as_str()).collect();
    assert_eq!(standing.join(" "), expected);
}

#[test]
fn what_stands_when_a_round_is_taken_up_again() {
    use Conclusion::{Cancelled, Failure, Success};
    let failed = |leg: &str, fault: Fault| JournalEvent::LegEnded {
        at: which("m", leg, 1),
        conclusion: Failure,
        reason: Some(Reason::new(fault, "x", "y")),
        outputs: Map::new(),
    };
    let begun = |tail: Vec<JournalEvent>| {
        let mut events = vec![job_started(), planned(&["a", "b"]), started("a", 1), started("b", 1)];
        events.extend(tail);
        events
    };
    check_standing(begun(vec![]), "");
    check_standing(begun(vec![ended("a", 1, Success)]), "a");
    check_standing(begun(vec![failed("a", Fault::Submission), failed("b", Fault::Unknown)]), "a b");
    check_standing(begun(vec![failed("a", Fault::Infra), failed("b", Fault::Operator)]), "");
    check_standing(begun(vec![failed("a", Fault::Infra), retry("a", 2), ended("b", 1, Success)]), "b");
    let out = JournalEvent::Published { what: Publication::Results, tables: Vec::new() };
    check_standing(begun(vec![failed("a", Fault::Infra), out.clone()]), "a");
    check_standing(begun(vec![out, failed("a", Fault::Infra)]), "");
    // While somebody wanted it to stop, only what succeeded came to an end.
    let stopping = vec![interrupted(), ended("a", 1, Success), failed("b", Fault::Submission)];
    check_standing(begun(stopping), "a");
    check_standing(vec![interrupted(), job_started(), started("a", 1), ended("a", 1, Success)], "");
    // Taken up twice: what was cut the first time is open until it has run.
    let resumed = || JournalEvent::RoundResumed { tool_version: "1".to_owned() };
    check_standing(begun(vec![ended("a", 1, Success), resumed(), job_started(), started("b", 2)]), "a");
    let again =
        vec![ended("a", 1, Success), resumed(), job_started(), started("b", 2), ended("b", 2, Success)];
    check_standing(begun(again), "a b");
    check_standing(begun(vec![ended("a", 1, Cancelled), resumed(), skipped("a")]), "");
}

#[test]
fn a_round_taken_up_again_is_open_again() {
    let events = vec![
        job_started(),
        planned(&["a", "b"]),
        started("a", 1),
        interrupted(),
        skipped("b"),
        job_ended(Conclusion::Cancelled),
        JournalEvent::RoundEnded { conclusion: Conclusion::Cancelled, exit_code: 130 },
        JournalEvent::RoundResumed { tool_version: "1".to_owned() },
    ];
    let state = RoundState::of(&lines(events.clone()));
    assert_eq!((&state.interruption, &state.end, &state.jobs[0].end), (&None, &None, &None));
    let cut = state.leg("m", "a").and_then(LegState::end).expect("it was cut");
    assert_eq!(cut.reason.as_ref().map(|reason| reason.code.as_str()), Some("cut"));
    assert_eq!(state.leg("m", "b").and_then(LegState::end), None);
    assert_eq!(state.leg_counts(), LegCounts { known: 2, settled: 1 });
    let mut more = events;
    more.push(started("a", 2));
    assert_eq!(RoundState::of(&lines(more)).leg_counts(), LegCounts { known: 2, settled: 0 });
}

#[test]
fn a_cancellation_is_no_end() {
    use Conclusion::{Cancelled, Failure, Success};
    let events = |tail: Vec<JournalEvent>| {
        let mut events = vec![job_started(), planned(&["a", "b"]), started("a", 1), step("a", 1, 0, Success)];
        events.extend(tail);
        events
    };
    check(
        events(vec![interrupted(), ended("a", 1, Cancelled), skipped("b"), job_ended(Cancelled)]),
        "a: 1/0 cancelled - 1; b: 0/0 skipped - 0; cancelled -",
    );
    // It was all but over.
    check(
        events(vec![skipped("b"), interrupted(), ended("a", 1, Success), job_ended(Success)]),
        "a: 1/0 success success 1; b: 0/0 skipped skipped 0; success success",
    );
    check(
        events(vec![skipped("b"), interrupted(), ended("a", 1, Failure), job_ended(Failure)]),
        "a: 1/0 failure - 1; b: 0/0 skipped skipped 0; failure -",
    );
    // Before it, a leg may have been cancelled by `fail-fast`.
    check(
        events(vec![ended("a", 1, Cancelled), skipped("b"), job_ended(Failure)]),
        "a: 1/0 cancelled cancelled 1; b: 0/0 skipped skipped 0; failure failure",
    );
    // A job that began while the round was being stopped saw a world that does not count.
    check(
        vec![
            interrupted(),
            job_started(),
            planned(&["a"]),
            started("a", 1),
            ended("a", 1, Success),
            job_ended(Success),
        ],
        "a: 1/0 success success 0; success -",
    );
    check(vec![interrupted(), job_ended(Conclusion::Skipped)], "skipped -");
}

#[test]
fn publishing_the_results_is_what_counts() {
    let published = |what, table: &str, rows| JournalEvent::Published {
        what,
        tables: vec![PublishedTable {
            table: table.to_owned(),
            path: format!("results/{table}.parquet"),
            digest: digest::sha256(table.as_bytes()),
            rows,
        }],
    };
    let mut events = vec![start(), published(Publication::Weights, "weights", 1)];
    let state = |events: &[JournalEvent]| RoundState::of(&lines(events.to_vec()));
    assert!(!state(&events).has_published);
    events.push(published(Publication::Results, "reads", 2));
    events.push(published(Publication::Results, "reads", 3));
    let state = state(&events);
    assert!(state.has_published);
    let rows: Vec<_> = state.tables.values().map(|table| (table.table.as_str(), table.rows)).collect();
    assert_eq!(rows, [("reads", 3), ("weights", 1)]);
}

#[test]
fn the_times_of_steps_are_the_lines_own() {
    let begun = JournalEvent::StepStarted { at: which("m", "a", 1), step: job_step(1) };
    let lines = lines(vec![
        start(),
        started("a", 1),
        step("a", 1, 0, Conclusion::Failure),
        begun,
        step("a", 1, 1, Conclusion::Success),
        JournalEvent::StepStarted { at: which("m", "a", 1), step: job_step(2) },
    ]);
    let rows = RoundState::of(&lines).step_rows();
    let found: Vec<_> = rows.iter().map(|row| (row.step.as_str(), row.started_at_us)).collect();
    // One that never began is dated back by what it took.
    assert_eq!(found, [("s0", at(2).as_microsecond() - 5), ("s1", at(3).as_microsecond())]);
    assert_eq!((rows[0].round_id.as_str(), rows[0].stage.as_str()), ("demo-1", "run"));
}

#[test]
fn a_whole_journal() {
    let bytes = include_bytes!("../../../tests/fixtures/journal/version-1.jsonl");
    let lines = replay(bytes).expect("readable").lines;
    insta::assert_debug_snapshot!(RoundState::of(&lines));
}

/// Writes a journal that a scheduler could have written; chance says which of the possible events is next.
struct Author<C> {
    chance: C,
    events: Vec<JournalEvent>,
    jobs: Vec<Vec<LegPhase>>,
    is_interrupted: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum LegPhase {
    Waiting { attempt: u32 },
    Running { attempt: u32, steps: u32, is_in_step: bool },
    Over,
}

const REASON_MESSAGE: &str = "by chance";

fn by_chance() -> Reason {
    Reason::new(Fault::Infra, "chance", REASON_MESSAGE)
}

impl<C: Iterator<Item = u8>> Author<C> {
    fn write(chance: C, legs: &[usize]) -> Vec<JournalLine> {
        let waiting = |count: &usize| vec![LegPhase::Waiting { attempt: 1 }; *count];
        let jobs = legs.iter().map(waiting).collect();
        let mut author = Self { chance, events: vec![start()], jobs, is_interrupted: false };
        for job in 0..author.jobs.len() {
            author.job(job);
        }
        let conclusion = if author.is_interrupted { Conclusion::Cancelled } else { Conclusion::Success };
        author.events.push(JournalEvent::RoundEnded { conclusion, exit_code: 0 });
        lines(author.events)
    }

    fn chance(&mut self, of: u8) -> u8 {
        self.chance.next().expect("endless") % of
    }

    fn job(&mut self, job: usize) {
        let id = format!("j{job}");
        if self.is_interrupted {
            let conclusion = Conclusion::Cancelled;
            return self.events.push(JournalEvent::JobEnded {
                job: id,
                conclusion,
                reason: Some(by_chance()),
            });
        }
        let legs = (0..self.jobs[job].len()).map(|leg| leg.to_string()).collect();
        self.events.push(JournalEvent::JobStarted { job: id.clone() });
        self.events.push(JournalEvent::JobPlanned { job: id.clone(), legs });
        loop {
            let open: Vec<usize> =
                (0..self.jobs[job].len()).filter(|leg| self.jobs[job][*leg] != LegPhase::Over).collect();
            if open.is_empty() {
                break;
            }
            let leg = open[usize::from(self.chance(8)) % open.len()];
            self.jobs[job][leg] = self.leg((&id, leg), self.jobs[job][leg]);
            if !self.is_interrupted && self.chance(40) == 0 {
                self.is_interrupted = true;
                self.events.push(interrupted());
            }
        }
        if self.chance(2) == 0 {
            let table = PublishedTable {
                table: format!("t{}", self.chance(3)),
                path: "results/t.parquet".to_owned(),
                digest: digest::sha256(&[self.chance(3)]),
                rows: u64::from(self.chance(9)),
            };
            self.events.push(JournalEvent::Published { what: Publication::Results, tables: vec![table] });
        }
        self.events.push(JournalEvent::JobEnded { job: id, conclusion: Conclusion::Success, reason: None });
    }

    fn leg(&mut self, (job, leg): (&str, usize), phase: LegPhase) -> LegPhase {
        let leg = leg.to_string();
        match phase {
            LegPhase::Over => LegPhase::Over,
            LegPhase::Waiting { .. } if self.is_interrupted => {
                let why = REASON_MESSAGE.to_owned();
                self.events.push(JournalEvent::LegSkipped { job: job.to_owned(), leg, why });
                LegPhase::Over
            }
            LegPhase::Waiting { attempt } => {
                let at = which(job, &leg, attempt);
                self.events.push(JournalEvent::LegStarted { at, runner: "r".to_owned() });
                LegPhase::Running { attempt, steps: 0, is_in_step: false }
            }
            LegPhase::Running { attempt, steps, is_in_step } => {
                let at = which(job, &leg, attempt);
                let kind = StepKind::Stage(StageName::ALL[steps as usize % StageName::ALL.len()]);
                let step = JobStep { index: steps, name: format!("s{steps}"), kind };
                if is_in_step {
                    let outcome =
                        [Conclusion::Success, Conclusion::Failure][usize::from(self.chance(3) == 0)];
                    let outputs = Map::from_iter([("x".to_owned(), self.chance(9).into())]);
                    let (reason, duration_ns) = (Some(by_chance()), 7);
                    let conclusion = outcome;
                    self.events.push(JournalEvent::StepEnded {
                        at,
                        step,
                        outcome,
                        conclusion,
                        outputs,
                        reason,
                        duration_ns,
                    });
                    return LegPhase::Running { attempt, steps: steps + 1, is_in_step: false };
                }
                if steps < 4 && self.chance(3) > 0 && !self.is_interrupted {
                    self.events.push(JournalEvent::StepStarted { at, step });
                    return LegPhase::Running { attempt, steps, is_in_step: true };
                }
                self.end(at)
            }
        }
    }

    fn end(&mut self, at: LegAttempt) -> LegPhase {
        let conclusion = match () {
            () if self.is_interrupted => Conclusion::Cancelled,
            () if self.chance(2) == 0 => Conclusion::Failure,
            () => Conclusion::Success,
        };
        let outputs = Map::from_iter([("y".to_owned(), self.chance(9).into())]);
        let (reason, next) = (Some(by_chance()), at.attempt + 1);
        self.events.push(JournalEvent::LegEnded { at: at.clone(), conclusion, reason, outputs });
        if conclusion != Conclusion::Failure || next > 3 {
            return LegPhase::Over;
        }
        let at = LegAttempt { attempt: next, ..at };
        self.events.push(JournalEvent::RetryScheduled { at, delay_ms: 1, reason: by_chance() });
        LegPhase::Waiting { attempt: next }
    }
}

/// Whatever `before` says happened, `after` says too; only a further attempt opens a leg again.
fn assert_kept(before: &RoundState, after: &RoundState) {
    assert!(before.start.is_none() || before.start == after.start);
    assert!(before.interruption.is_none() || before.interruption == after.interruption);
    assert!(before.end.is_none() || before.end == after.end);
    assert!(before.has_published <= after.has_published);
    assert!(before.tables.keys().all(|table| after.tables.contains_key(table)));
    for (old, new) in before.jobs.iter().zip(&after.jobs) {
        assert_eq!(old.job, new.job);
        assert!(old.started_at.is_none() || old.started_at == new.started_at);
        assert!(old.is_planned <= new.is_planned);
        assert!(old.end.is_none() || old.end == new.end);
        assert!(old.done().is_none() || old.done() == new.done());
        for (old, new) in old.legs.iter().zip(&new.legs) {
            assert_eq!(old.key, new.key);
            // A leg that ended waits for, has begun, or was given up before a further attempt: or stays as it was.
            let has_gone_on = new.attempt() > old.attempt() || new.retry.is_some() || new.skip.is_some();
            assert!(old.end().is_none() || old.end() == new.end() || has_gone_on);
            assert!(old.conclusion() != Some(Conclusion::Success) || old.done() == new.done());
            assert!(old.failures() <= new.failures());
            assert!(old.skip.is_none() || old.skip == new.skip);
            for (old, new) in old.attempts.iter().zip(&new.attempts) {
                assert_eq!(
                    (old.attempt, &old.runner, old.started_at),
                    (new.attempt, &new.runner, new.started_at)
                );
                assert!(old.end.is_none() || (&old.end, &old.outputs) == (&new.end, &new.outputs));
                for (index, step) in &old.steps {
                    let later = &new.steps[index];
                    assert_eq!((&step.step, step.started_at), (&later.step, later.started_at));
                    assert!(step.end.is_none() || step.end == later.end);
                }
            }
            assert!(old.attempts.len() <= new.attempts.len());
        }
        assert!(old.legs.len() <= new.legs.len());
    }
    assert!(before.jobs.len() <= after.jobs.len());
}

proptest! {
    /// What is read back from any part of the file is what folding its lines one by one came to.
    #[test]
    fn in_one_go_as_line_by_line(
        chances in proptest::collection::vec(any::<u8>(), 100),
        legs in proptest::collection::vec(1_usize..4, 1..4),
        cut in 0.0..1.0,
    ) {
        let lines = Author::write(chances.into_iter().chain((0..=u8::MAX).cycle()), &legs);
        let encoded: Vec<Vec<u8>> = lines.iter().map(|line| encode_line(line).expect("encodes")).collect();
        let bytes = encoded.concat();
        let cut = (bytes.len() as f64 * cut) as usize;
        let read = journal::replay(&bytes[..cut]).expect("cut, not damaged");
        let mut state = RoundState::default();
        for line in &lines[..read.lines.len()] {
            state.apply(line);
        }
        prop_assert_eq!(&RoundState::of(&read.lines), &state);
        let steps = read.lines.iter().filter(|line| matches!(line.event, JournalEvent::StepEnded { .. }));
        prop_assert_eq!(state.step_rows().len(), steps.count());
    }

    /// No line takes back what an earlier one said, but by a further attempt.
    #[test]
    fn nothing_is_undone(
        chances in proptest::collection::vec(any::<u8>(), 100),
        legs in proptest::collection::vec(1_usize..4, 1..4),
        cuts in proptest::collection::vec(0.0..1.0, 2),
    ) {
        let lines = Author::write(chances.into_iter().chain((0..=u8::MAX).cycle()), &legs);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| (lines.len() as f64 * cut) as usize).collect();
        cuts.sort_unstable();
        assert_kept(&RoundState::of(&lines[..cuts[0]]), &RoundState::of(&lines[..cuts[1]]));
        let mut state = RoundState::default();
        for line in &lines {
            let before = state.clone();
            state.apply(line);
            assert_kept(&before, &state);
            let settled = state.legs().filter(|leg| leg.settled().is_some()).count();
            prop_assert_eq!(state.leg_counts(), LegCounts { known: state.legs().count(), settled });
        }
        prop_assert!(state.end.is_some());
        prop_assert!(state.legs().all(|leg| leg.attempts.is_empty() == (leg.attempt() == 0)));
    }
}

#[test]
fn what_was_taken_over_stands_whatever_it_came_to() {
    let taken = |leg: &str, conclusion| {
        JournalEvent::LegTakenOver(TakenLeg {
            at: which("m", leg, 2),
            runner: "box".to_owned(),
            started_at: Timestamp::UNIX_EPOCH,
            ended_at: Timestamp::UNIX_EPOCH,
            conclusion,
            reason: (conclusion != Conclusion::Success).then(|| Reason::new(Fault::Infra, "gone", "gone")),
            outputs: Map::new(),
        })
    };
    let resumed = || JournalEvent::RoundResumed { tool_version: "1".to_owned() };
    let state = RoundState::of(&lines(vec![
        start(),
        taken("a", Conclusion::Success),
        taken("b", Conclusion::Failure),
        job_started(),
        planned(&["a", "b", "c"]),
        resumed(),
    ]));
    let standing = |leg| state.standing("m", leg).map(|(attempt, end)| (attempt.attempt, end.conclusion));
    assert_eq!(standing("a"), Some((2, Conclusion::Success)));
    assert_eq!(standing("b"), Some((2, Conclusion::Failure)), "even the machine's fault");
    assert_eq!(standing("c"), None);
}
