use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::*;
use crate::artifact::tick_rows;
use crate::model::{TickOutcome, TickRow};

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

fn schedule(line: &str, zone: &str) -> Schedule {
    Schedule::plain(Cron::parse(line).expect("a line"), time_zone(zone).expect("a zone"))
}

/// One pipeline that is looked at again and again.
struct Lab {
    schedules: Vec<Schedule>,
    lines: Vec<JournalLine<TickEvent>>,
    from: Timestamp,
    sight: Sight,
}

impl Lab {
    fn new(schedules: Vec<Schedule>, from: &str) -> Self {
        Self { schedules, lines: Vec::new(), from: at(from), sight: Sight::default() }
    }

    /// Looks once; gives what was said, a word a line.
    fn look(&mut self, now: &str) -> Vec<String> {
        let lines = self.look_at(at(now));
        lines.iter().map(word).collect()
    }

    fn look_at(&mut self, now: Timestamp) -> Vec<TickEvent> {
        let scheduled =
            Scheduled { name: "demo", path: "demo.yml", schedules: &self.schedules, from: self.from };
        let events = Timetable::of(&self.lines).decide(now, &scheduled, &self.sight);
        for event in &events {
            let seq = self.lines.len() as u64;
            self.lines.push(JournalLine { seq, at: now, event: event.clone() });
        }
        events
    }

    fn round(&mut self, sight: Option<RoundSight>) -> &mut Self {
        self.sight.round = sight;
        self
    }
}

fn word(event: &TickEvent) -> String {
    let time = |tick: &TickId| tick.nominal.strftime("%H:%M").to_string();
    match event {
        TickEvent::TicksStarted { .. } => "started".to_owned(),
        TickEvent::ScheduleSeen { schedule, .. } => format!("seen {}", schedule.cron),
        TickEvent::ScheduleGone { schedule } => format!("gone {}", schedule.cron),
        TickEvent::TickWaiting { tick, reason, .. } => format!("{} waits {reason}", time(tick)),
        TickEvent::TickFired { tick, late: None, .. } => format!("{} fires", time(tick)),
        TickEvent::TickFired { tick, late: Some(reason), .. } => {
            format!("{} fires late {reason}", time(tick))
        }
        TickEvent::TickSkipped { tick, reason, .. } => format!("{} skipped {reason}", time(tick)),
        TickEvent::TickMissed { tick, reason, ticks: 1, .. } => format!("{} missed {reason}", time(tick)),
        TickEvent::TickMissed { reason, ticks, .. } => format!("{ticks} missed {reason}"),
        TickEvent::RoundTakenUp { resumes, .. } => format!("taken up {resumes}"),
        TickEvent::RoundCancelled { .. } => "cancelled".to_owned(),
        TickEvent::TickEnded { exit_code, .. } => format!("ended {exit_code}"),
    }
}

#[test]
fn a_tick_fires_once_in_its_minute() {
    let mut lab = Lab::new(vec![schedule("*/15 * * * *", "UTC")], "2026-03-01T00:00:00Z");
    assert_eq!(lab.look("2026-03-01T00:00:30Z"), ["seen */15 * * * *"]);
    assert_eq!(lab.look("2026-03-01T00:14:59Z"), [] as [&str; 0]);
    assert_eq!(lab.look("2026-03-01T00:15:00Z"), ["00:15 fires"]);
    lab.round(Some(RoundSight::Running));
    assert_eq!(lab.look("2026-03-01T00:15:20Z"), [] as [&str; 0]);
    lab.round(Some(RoundSight::Ended { exit_code: 0 }));
    assert_eq!(lab.look("2026-03-01T00:29:59Z"), ["ended 0"]);
    lab.round(None);
    // The clock is set back: what fired does not fire again.
    assert_eq!(lab.look("2026-03-01T00:15:00Z"), [] as [&str; 0]);
    assert_eq!(lab.look("2026-03-01T00:30:59Z"), ["00:30 fires"]);
}

#[test]
fn a_running_round_lets_the_next_tick_be_skipped_wait_or_take_its_place() {
    let check = |overlap: Overlap, expected: &[&[&str]]| {
        let schedules = vec![Schedule { overlap, ..schedule("*/15 * * * *", "UTC") }];
        let mut lab = Lab::new(schedules, "2026-03-01T00:00:00Z");
        assert_eq!(lab.look("2026-03-01T00:15:00Z"), ["seen */15 * * * *", "00:15 fires"]);
        lab.round(Some(RoundSight::Running));
        assert_eq!(lab.look("2026-03-01T00:30:00Z"), expected[0], "{overlap:?}");
        assert_eq!(lab.look("2026-03-01T00:45:00Z"), expected[1], "{overlap:?}");
        lab.round(Some(RoundSight::Ended { exit_code: 130 }));
        assert_eq!(lab.look("2026-03-01T00:50:00Z"), expected[2], "{overlap:?}");
    };
    let skipped: [&[&str]; 3] =
        [&["00:30 skipped still-running"], &["00:45 skipped still-running"], &["ended 130"]];
    check(Overlap::Skip, &skipped);
    check(
        Overlap::Queue,
        &[
            &["00:30 waits still-running"],
            &["00:30 skipped newer-waiting", "00:45 waits still-running"],
            &["ended 130", "00:45 fires late still-running"],
        ],
    );
    check(
        Overlap::Replace,
        &[
            &["00:30 waits replacing", "cancelled"],
            &["00:30 skipped newer-waiting", "00:45 waits replacing"],
            &["ended 130", "00:45 fires late replacing"],
        ],
    );
}

#[test]
fn missed_ticks_are_made_up_for_as_the_schedule_says() {
    let check = |catch_up: CatchUp, deadline: Option<u64>, expected: &[&str]| {
        let deadline = deadline.map(Duration::from_secs);
        let schedules = vec![Schedule { catch_up, deadline, ..schedule("*/15 * * * *", "UTC") }];
        let mut lab = Lab::new(schedules, "2026-03-01T00:00:00Z");
        lab.look("2026-03-01T00:00:00Z");
        assert_eq!(lab.look("2026-03-01T00:50:00Z"), expected, "{catch_up:?} {deadline:?}");
    };
    let missed = |reason: &str| ["00:15", "00:30", "00:45"].map(|time| format!("{time} missed {reason}"));
    check(CatchUp::None, None, &missed("not-watched").each_ref().map(String::as_str));
    check(
        CatchUp::Latest,
        None,
        &["00:15 missed newer-due", "00:30 missed newer-due", "00:45 fires late not-watched"],
    );
    check(CatchUp::Latest, Some(240), &missed("deadline").each_ref().map(String::as_str));
    check(
        CatchUp::All,
        None,
        &[
            "00:15 waits catching-up",
            "00:15 fires late catching-up",
            "00:30 waits catching-up",
            "00:45 waits catching-up",
        ],
    );
    check(
        CatchUp::All,
        Some(900),
        &[
            "00:15 missed deadline",
            "00:30 missed deadline",
            "00:45 waits catching-up",
            "00:45 fires late catching-up",
        ],
    );
}

#[test]
fn all_that_is_made_up_for_runs_one_after_the_other() {
    let schedules =
        vec![Schedule { catch_up: CatchUp::All, overlap: Overlap::Queue, ..schedule("* * * * *", "UTC") }];
    let mut lab = Lab::new(schedules, "2026-03-01T00:00:00Z");
    lab.look("2026-03-01T00:00:00Z");
    let said = lab.look("2026-03-01T00:30:30Z");
    assert_eq!(said.iter().filter(|line| line.ends_with("missed too-many")).count(), 6, "{said:?}");
    assert!(said.contains(&"00:07 fires late catching-up".to_owned()), "{said:?}");
    assert!(said.contains(&"00:30 waits still-running".to_owned()), "{said:?}");
    lab.round(Some(RoundSight::Ended { exit_code: 0 }));
    assert_eq!(lab.look("2026-03-01T00:30:40Z"), ["ended 0", "00:08 fires late catching-up"]);
}

#[test]
fn very_many_missed_ticks_are_one_line() {
    let mut lab = Lab::new(vec![schedule("* * * * *", "UTC")], "2026-03-01T00:00:00Z");
    lab.look("2026-03-01T00:00:00Z");
    let said = lab.look("2026-03-10T00:00:00Z");
    assert_eq!((said.len(), said[0].as_str()), (10_001, "2960 missed not-watched"));
    assert_eq!(said.last().map(String::as_str), Some("00:00 fires"));
}

#[test]
fn an_unfinished_round_is_taken_up_first_and_at_last_given_up() {
    let overlap = Overlap::Queue;
    let mut lab =
        Lab::new(vec![Schedule { overlap, ..schedule("0 * * * *", "UTC") }], "2026-03-01T00:00:00Z");
    lab.look("2026-03-01T01:00:00Z");
    lab.round(Some(RoundSight::Unfinished));
    assert_eq!(lab.look("2026-03-01T01:00:01Z"), ["taken up 1"]);
    assert_eq!(lab.look("2026-03-01T01:00:02Z"), [] as [&str; 0]);
    assert_eq!(lab.look("2026-03-01T01:02:02Z"), ["taken up 2"]);
    assert_eq!(lab.look("2026-03-01T02:00:00Z"), ["taken up 3", "02:00 waits still-running"]);
    assert_eq!(lab.look("2026-03-01T02:30:00Z"), ["taken up 4"]);
    assert_eq!(
        lab.look("2026-03-01T03:00:00Z"),
        ["taken up 5", "02:00 skipped newer-waiting", "03:00 waits still-running"]
    );
    assert_eq!(lab.look("2026-03-01T03:00:01Z"), ["ended 130", "03:00 fires"]);
}

#[test]
fn a_round_is_not_taken_up_after_its_deadline_or_when_it_was_cancelled() {
    let deadline = Some(Duration::from_mins(10));
    let mut lab =
        Lab::new(vec![Schedule { deadline, ..schedule("0 * * * *", "UTC") }], "2026-03-01T00:00:00Z");
    lab.look("2026-03-01T01:00:00Z");
    lab.round(Some(RoundSight::Unfinished));
    lab.sight.machine = Some("no GPU".to_owned());
    assert_eq!(lab.look("2026-03-01T01:10:00Z"), [] as [&str; 0]);
    assert_eq!(lab.look("2026-03-01T01:10:01Z"), ["ended 130"]);
    lab.round(None);
    lab.sight.machine = None;
    assert_eq!(lab.look("2026-03-01T02:00:00Z"), ["02:00 fires"]);
    let round_id = Timetable::of(&lab.lines).lanes()["demo"].open.clone().expect("open").round_id;
    let event = TickEvent::RoundCancelled { round_id, tick: None };
    lab.lines.push(JournalLine { seq: 0, at: at("2026-03-01T02:01:00Z"), event });
    lab.round(Some(RoundSight::Unfinished));
    assert_eq!(lab.look("2026-03-01T02:01:00Z"), ["ended 130"]);
}

#[test]
fn a_bad_machine_postpones_the_round_and_says_so_once() {
    let mut lab = Lab::new(vec![schedule("0 * * * *", "UTC")], "2026-03-01T00:00:00Z");
    lab.sight.machine = Some("3 of 4 GPUs".to_owned());
    assert_eq!(lab.look("2026-03-01T01:00:00Z"), ["seen 0 * * * *", "01:00 waits machine"]);
    assert_eq!(lab.look("2026-03-01T01:01:00Z"), [] as [&str; 0]);
    assert_eq!(lab.look("2026-03-01T02:00:00Z"), ["01:00 skipped newer-waiting", "02:00 waits machine"]);
    lab.sight.machine = None;
    assert_eq!(lab.look("2026-03-01T02:00:30Z"), ["02:00 fires"]);
}

#[test]
fn a_round_that_waits_for_its_group_is_given_up_at_its_deadline() {
    let mut hourly = schedule("0 * * * *", "UTC");
    hourly.deadline = Some(Duration::from_mins(30));
    let mut lab = Lab::new(vec![hourly], "2026-03-01T00:00:00Z");
    assert_eq!(lab.look("2026-03-01T01:00:00Z"), ["seen 0 * * * *", "01:00 fires"]);
    lab.round(Some(RoundSight::Queued));
    assert_eq!(lab.look("2026-03-01T01:29:00Z"), [] as [&str; 0]);
    assert_eq!(lab.look("2026-03-01T01:31:00Z"), ["cancelled", "ended 130"]);
}

#[test]
fn a_changed_line_is_another_schedule() {
    let mut lab = Lab::new(vec![schedule("0 * * * *", "UTC")], "2026-03-01T00:00:00Z");
    lab.look("2026-03-01T00:00:00Z");
    lab.schedules = vec![schedule("30 * * * *", "UTC")];
    lab.from = at("2026-03-01T01:40:00Z");
    assert_eq!(
        lab.look("2026-03-01T01:40:00Z"),
        ["01:00 missed schedule-removed", "gone 0 * * * *", "seen 30 * * * *"]
    );
    assert_eq!(lab.look("2026-03-01T02:30:10Z"), ["02:30 fires"]);
}

#[test]
fn two_schedules_of_one_instant_start_one_round() {
    let mut lab =
        Lab::new(vec![schedule("0 * * * *", "UTC"), schedule("0 */2 * * *", "UTC")], "2026-03-01T00:00:00Z");
    lab.look("2026-03-01T00:00:00Z");
    assert_eq!(lab.look("2026-03-01T02:00:05Z").len(), 3);
    let rows = tick_rows(&lab.lines);
    let outcomes: Vec<TickOutcome> = rows.iter().map(|row| row.outcome).collect();
    assert_eq!(outcomes, [TickOutcome::Missed, TickOutcome::Fired, TickOutcome::Skipped]);
}

#[test]
fn jitter_is_the_ticks_own() {
    let jitter = Duration::from_mins(10);
    let mut lab = Lab::new(vec![Schedule { jitter, ..schedule("0 * * * *", "UTC") }], "2026-03-01T00:30:00Z");
    lab.look("2026-03-01T00:30:00Z");
    let scheduled = Scheduled { name: "demo", path: "", schedules: &lab.schedules, from: lab.from };
    let due = Timetable::of(&lab.lines).next_look(at("2026-03-01T00:30:00Z"), &scheduled).expect("a tick");
    assert!(due > at("2026-03-01T01:00:00Z") && due < at("2026-03-01T01:10:00Z"), "{due}");
    assert_eq!(lab.look_at(due.saturating_sub(SignedDuration::from_millis(1)).expect("earlier")), []);
    assert_eq!(lab.look_at(due).iter().map(word).collect::<Vec<_>>(), ["01:00 fires"]);
    // Who looks for the first time while a tick is delayed still has it before him, and has not missed it when it is past.
    let second = SignedDuration::from_secs(1);
    for (from, fires) in [(due - second, true), (due, false)] {
        let mut late = Lab::new(lab.schedules.clone(), &from.to_string());
        late.look_at(from);
        let said: Vec<String> = late.look_at(due).iter().map(word).collect();
        assert_eq!(said, if fires { &["01:00 fires"][..] } else { &[] }, "{from}");
    }
}

/// The instants of a line whose minutes and hours are given, by trying every minute: without a cron parser.
struct Oracle {
    zone: &'static str,
    minutes: &'static [i8],
    /// None for every hour.
    hour: Option<i8>,
}

impl Oracle {
    fn instants(&self, from: Timestamp, to: Timestamp) -> BTreeSet<Timestamp> {
        let zone = time_zone(self.zone).expect("a zone");
        let minute = SignedDuration::from_secs(60);
        let (mut found, mut seen) = (BTreeSet::new(), BTreeSet::new());
        // Begins a day early, so that the first occurrence of a local time is known.
        let mut now = from.saturating_sub(SignedDuration::from_hours(24)).expect("earlier");
        let mut last = now.to_zoned(zone.clone()).datetime();
        while now <= to {
            let local = now.to_zoned(zone.clone()).datetime();
            let is_its = |hour: i8, minute: i8| {
                self.hour.is_none_or(|own| own == hour) && self.minutes.contains(&minute)
            };
            let mut fires = is_its(local.hour(), local.minute());
            if self.hour.is_some() {
                fires = fires && seen.insert(local);
                // Local times that were jumped over.
                let mut skipped = last.saturating_add(minute);
                while skipped < local {
                    fires = fires || is_its(skipped.hour(), skipped.minute()) && seen.insert(skipped);
                    skipped = skipped.saturating_add(minute);
                }
            }
            if fires && now > from {
                found.insert(now);
            }
            last = local;
            now = now.saturating_add(minute).expect("later");
        }
        found
    }
}

/// The world that a pipeline's rounds live in: it may lose what was decided, and kill what runs.
#[derive(Default)]
struct World {
    rounds: BTreeMap<RoundId, (RoundSight, Timestamp)>,
    starts: BTreeMap<RoundId, u32>,
}

impl World {
    fn act(&mut self, event: &TickEvent, ends: Timestamp) {
        match event {
            TickEvent::TickFired { round_id, .. } | TickEvent::RoundTakenUp { round_id, .. } => {
                let is_running = |(sight, _): &(RoundSight, Timestamp)| *sight == RoundSight::Running;
                assert!(!self.rounds.values().any(is_running), "one round at a time");
                if !self.rounds.contains_key(round_id) {
                    *self.starts.entry(round_id.clone()).or_default() += 1;
                }
                self.rounds.insert(round_id.clone(), (RoundSight::Running, ends));
            }
            TickEvent::RoundCancelled { round_id, .. } => {
                if let Some(round) = self.rounds.get_mut(round_id) {
                    *round = (RoundSight::Ended { exit_code: 130 }, round.1);
                }
            }
            _ => {}
        }
    }

    fn pass(&mut self, now: Timestamp) {
        for (sight, ends) in self.rounds.values_mut() {
            if *sight == RoundSight::Running && *ends <= now {
                *sight = RoundSight::Ended { exit_code: 0 };
            }
        }
    }

    fn kill(&mut self) {
        for (sight, _) in self.rounds.values_mut().filter(|(sight, _)| *sight == RoundSight::Running) {
            *sight = RoundSight::Unfinished;
        }
    }
}

/// A schedule under a daemon that dies and a clock that jumps. Gives the rows of `ticks`.
fn live(lab: &mut Lab, world: &mut World, (looks, seed): (usize, u64)) -> Vec<TickRow> {
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    let mut clock = lab.from;
    for _ in 0..looks {
        let draw = dice.next_u32();
        let step = match draw % 40 {
            0 => i64::from(draw % 40_000),
            1 => -i64::from(draw % 7_200),
            _ => i64::from(draw % 900),
        };
        clock = clock.saturating_add(SignedDuration::from_secs(step)).expect("an instant");
        world.pass(clock);
        if draw.is_multiple_of(17) {
            world.kill();
        }
        lab.sight.machine = draw.is_multiple_of(23).then(|| "no GPU".to_owned());
        let lane = Timetable::of(&lab.lines).lanes().get("demo").and_then(|lane| lane.open.clone());
        let seen = |open: &OpenRound| {
            world.rounds.get(&open.round_id).map_or(RoundSight::Absent, |(sight, _)| *sight)
        };
        lab.sight.round = lane.as_ref().map(seen);
        let ends = clock
            .saturating_add(SignedDuration::from_secs(i64::from(dice.next_u32() % 5_000)))
            .expect("an instant");
        let events = lab.look_at(clock);
        // Dies after its lines are on disk, before it did what they say.
        let done = if dice.next_u32().is_multiple_of(11) { 0 } else { events.len() };
        for event in &events[..done] {
            world.act(event, ends);
        }
    }
    tick_rows(&lab.lines)
}

fn check_life(schedule: Schedule, oracle: &Oracle, (looks, seed): (usize, u64)) -> u64 {
    let mut lab = Lab::new(vec![schedule], "2026-03-07T12:00:00Z");
    let mut world = World::default();
    let rows = live(&mut lab, &mut world, (looks, seed));
    let handled = *Timetable::of(&lab.lines).lanes()["demo"].handled.values().next().expect("a schedule");
    let expected = oracle.instants(lab.from, handled);
    let nominal = |row: &TickRow| Timestamp::from_microsecond(row.nominal_at_us).expect("an instant");
    let found: BTreeSet<Timestamp> = rows.iter().map(nominal).collect();
    assert_eq!(found.len(), rows.len(), "seed {seed}: no tick has two rows");
    let differing: Vec<Timestamp> = found.symmetric_difference(&expected).copied().collect();
    assert_eq!(differing, [], "seed {seed}: each tick has a row, and nothing else has");
    for row in &rows {
        let is_plain = row.outcome == TickOutcome::Fired;
        assert_eq!(row.reason.is_none(), is_plain, "seed {seed}: {row:?}");
        let has_fired = matches!(row.outcome, TickOutcome::Fired | TickOutcome::Late);
        assert_eq!(row.round_id.is_some(), has_fired, "seed {seed}: {row:?}");
    }
    assert!(world.starts.values().all(|starts| *starts == 1), "seed {seed}: no round begins twice");
    let fired = lab.lines.iter().filter(|line| matches!(line.event, TickEvent::TickFired { .. })).count();
    let rounds: BTreeSet<&str> = rows.iter().filter_map(|row| row.round_id.as_deref()).collect();
    assert_eq!(rounds.len(), fired, "seed {seed}: each tick fires once");
    rows.len() as u64
}

#[test]
fn ten_thousand_ticks_under_crashes_and_clock_jumps_are_each_explained() {
    let mut ticks = 0;
    for seed in 0..12 {
        let zones = ["America/New_York", "Australia/Lord_Howe", "Europe/Berlin", "UTC"];
        let zone = zones[seed as usize % zones.len()];
        let overlaps = [Overlap::Skip, Overlap::Queue, Overlap::Replace];
        let catch_ups = [CatchUp::None, CatchUp::Latest, CatchUp::All];
        let (overlap, catch_up) = (overlaps[seed as usize % 3], catch_ups[seed as usize / 2 % 3]);
        let deadline = (seed % 2 == 0).then(|| Duration::from_mins(90));
        let quarter = Oracle { zone, minutes: &[0, 15, 30, 45], hour: None };
        let schedule = |line: &str| Schedule { overlap, catch_up, deadline, ..schedule(line, zone) };
        ticks += check_life(schedule("*/15 * * * *"), &quarter, (700, seed));
        // Every minute of an hour that the clocks of spring and autumn jump over and repeat.
        let night = Oracle { zone, minutes: &[0, 10, 20, 30, 40, 50], hour: Some(2) };
        ticks += check_life(schedule("*/10 2 * * *"), &night, (4_500, seed));
    }
    assert!(ticks >= 10_000, "{ticks}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_happens_no_tick_is_lost_or_handled_twice(seed in 1_000_u64.., kind in 0_usize..9) {
        let overlap = [Overlap::Skip, Overlap::Queue, Overlap::Replace][kind % 3];
        let catch_up = [CatchUp::None, CatchUp::Latest, CatchUp::All][kind / 3];
        let oracle = Oracle { zone: "Europe/Berlin", minutes: &[5, 35], hour: None };
        let schedule = Schedule { overlap, catch_up, ..schedule("5,35 * * * *", "Europe/Berlin") };
        check_life(schedule, &oracle, (80, seed));
    }
}
