//! Which tick starts a round, and what becomes of all others: decides, never acts.
//!
//! A [`Timetable`] is what the journal of ticks comes to. [`Timetable::decide`] looks at one pipeline: the clock, its
//! schedules, and what is seen of the round it started last, and gives the lines that the journal gets next. What is to
//! be done follows from the lines alone (`TickFired` starts a round, `RoundTakenUp` takes it up, `RoundCancelled` stops
//! it), and is done when they are on disk: a program that dies in between finds them again.
//!
//! Every tick gets a line. A schedule never handles an instant at or before the last one it handled, whatever the clock
//! does, so a clock that is set back repeats nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::artifact::{JournalLine, TickEvent, jitter_of, round_of};
use crate::model::{RoundId, RoundTick, ScheduleId, TickId, TickReason};
use crate::pipeline::cron::{Cron, time_zone};
use crate::pipeline::definition::{CatchUp, Overlap, Schedule};

/// A tick that is noticed this long after it was due is late: cron itself looks once a minute.
pub const PUNCTUAL: SignedDuration = SignedDuration::from_secs(60);
/// Most ticks of a schedule that `catch-up: all` makes up for at a time: the newest.
pub const MOST_MADE_UP: usize = 24;
/// Most missed ticks of a schedule that get lines of their own at a time: the newest.
pub const MOST_LINES: usize = 10_000;
/// How often the round of a tick is taken up again before it is given up.
pub const MOST_RESUMES: u32 = 5;
/// Exit code of a round that is given up: that of one that was interrupted.
const GIVEN_UP: u8 = 130;
/// How long the second time of taking up waits; each further one twice as long.
const RESUME_WAIT: SignedDuration = SignedDuration::from_secs(60);

/// What the journal of ticks comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timetable {
    lanes: BTreeMap<String, Lane>,
}

/// What is known of the schedules of one pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lane {
    /// Path of the pipeline's file, as it was seen last.
    pub path: String,
    /// The schedules that are watched, and up to which instant their ticks are handled.
    pub handled: BTreeMap<ScheduleId, Timestamp>,
    /// The ticks that wait, oldest first.
    pub waiting: Vec<WaitingTick>,
    /// The round that was started last, until its end is known.
    pub open: Option<OpenRound>,
    /// The round whose end was known last.
    pub last: Option<EndedRound>,
    /// When a round of the pipeline was last done.
    pub last_done: Option<Timestamp>,
}

/// A tick that waits until it can start its round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingTick {
    /// The tick.
    pub tick: TickId,
    /// When it was due.
    pub scheduled: Timestamp,
    /// When it is given up.
    pub deadline: Option<Timestamp>,
    /// What it waits for.
    pub reason: TickReason,
    /// The round that runs, or what is wrong with the machine.
    pub detail: Option<String>,
    /// Whether it is one of several that are made up for, which do not take each other's place.
    pub is_made_up: bool,
}

/// A round that a tick started and whose end is not known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRound {
    /// The tick.
    pub tick: TickId,
    /// Id of the round.
    pub round_id: RoundId,
    /// When the tick was due.
    pub scheduled: Timestamp,
    /// When the round is no longer taken up.
    pub deadline: Option<Timestamp>,
    /// How often it was taken up.
    pub resumes: u32,
    /// When it was started, or last taken up.
    pub started: Timestamp,
    /// Whether it was told to stop for good.
    pub is_cancelled: bool,
}

/// A round that a tick started and that came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedRound {
    /// Id of the round.
    pub round_id: RoundId,
    /// When its end was known.
    pub at: Timestamp,
    /// Its exit code.
    pub exit_code: u8,
}

/// What is seen of a round on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoundSight {
    /// It has not begun, and nobody is about to begin it.
    Absent,
    /// A process runs it, or is about to.
    Running,
    /// A process has it, and it waits for another round of its concurrency group.
    Queued,
    /// Nobody runs it, and it can be taken up.
    Unfinished,
    /// It came to its end.
    Ended {
        /// Its exit code.
        exit_code: u8,
    },
}

/// What is seen of the world when a pipeline is looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// The round that is open; none if none is.
    pub round: Option<RoundSight>,
    /// What is wrong with the machine, if it could run no round now.
    pub machine: Option<String>,
}

/// A pipeline whose schedules are looked at.
#[derive(Debug, Clone, Copy)]
pub struct Scheduled<'a> {
    /// Name of the pipeline.
    pub name: &'a str,
    /// Path of its file.
    pub path: &'a str,
    /// Its schedules; none where the pipeline is gone.
    pub schedules: &'a [Schedule],
    /// The instant after which the ticks of a schedule count that was never seen before.
    pub from: Timestamp,
}

impl ScheduleId {
    /// The identity of a schedule of this pipeline.
    pub fn of(pipeline: &str, schedule: &Schedule) -> Self {
        Self {
            pipeline: pipeline.to_owned(),
            cron: schedule.cron.as_str().to_owned(),
            timezone: schedule.zone_name().to_owned(),
        }
    }
}

impl Timetable {
    /// What a journal comes to.
    pub fn of(lines: &[JournalLine<TickEvent>]) -> Self {
        let mut timetable = Self::default();
        for line in lines {
            timetable.apply(line.at, &line.event);
        }
        timetable
    }

    /// The pipelines that have a schedule, or had one whose last round is still open.
    pub fn lanes(&self) -> &BTreeMap<String, Lane> {
        &self.lanes
    }

    /// Takes in one line.
    pub fn apply(&mut self, at: Timestamp, event: &TickEvent) {
        match event {
            TickEvent::TicksStarted { .. } => {}
            TickEvent::ScheduleSeen { schedule, .. }
            | TickEvent::ScheduleGone { schedule }
            | TickEvent::TickWaiting { tick: TickId { schedule, .. }, .. }
            | TickEvent::TickFired { tick: TickId { schedule, .. }, .. }
            | TickEvent::TickSkipped { tick: TickId { schedule, .. }, .. }
            | TickEvent::TickMissed { tick: TickId { schedule, .. }, .. } => {
                self.lanes.entry(schedule.pipeline.clone()).or_default().apply(at, event);
            }
            TickEvent::RoundTakenUp { round_id, .. }
            | TickEvent::RoundCancelled { round_id, .. }
            | TickEvent::TickEnded { round_id, .. } => {
                let is_its =
                    |lane: &&mut Lane| lane.open.as_ref().is_some_and(|open| open.round_id == *round_id);
                if let Some(lane) = self.lanes.values_mut().find(is_its) {
                    lane.apply(at, event);
                }
            }
        }
    }

    /// The lines that the journal gets next for one pipeline; none if nothing is to be said.
    pub fn decide(&self, now: Timestamp, scheduled: &Scheduled<'_>, sight: &Sight) -> Vec<TickEvent> {
        let lane = self.lanes.get(scheduled.name).cloned().unwrap_or_default();
        let mut decision = Decision { now, lane, lines: Vec::new() };
        decision.look_at_round(sight);
        decision.see_schedules(scheduled);
        let due = decision.due(scheduled);
        decision.give_up_waiting();
        for tick in due {
            decision.take(tick, sight);
            decision.fire(sight);
        }
        decision.fire(sight);
        decision.lines
    }

    /// The next tick of a pipeline that is not handled: its nominal instant, and when it is due.
    pub fn next_tick(&self, now: Timestamp, scheduled: &Scheduled<'_>) -> Option<(Timestamp, Timestamp)> {
        let lane = self.lanes.get(scheduled.name);
        let next = |schedule: &Schedule| {
            let id = ScheduleId::of(scheduled.name, schedule);
            let handled = lane.and_then(|lane| lane.handled.get(&id).copied()).unwrap_or(now);
            next_tick(&id, schedule, handled).map(|(tick, due)| (tick.nominal, due))
        };
        scheduled.schedules.iter().filter_map(next).min_by_key(|(_, due)| *due)
    }

    /// When a pipeline is to be looked at again at the latest, if nothing happens before; none if nothing will be due.
    pub fn next_look(&self, now: Timestamp, scheduled: &Scheduled<'_>) -> Option<Timestamp> {
        let lane = self.lanes.get(scheduled.name);
        let ticks = self.next_tick(now, scheduled).map(|(_, due)| due);
        let deadlines =
            lane.into_iter().flat_map(|lane| &lane.waiting).filter_map(|waiting| waiting.deadline);
        let open = lane.and_then(|lane| lane.open.as_ref());
        let resume = open.map(OpenRound::resume_at).filter(|at| *at > now);
        // By then it must not wait for its group any more.
        let start = open.and_then(|open| open.deadline).filter(|at| *at >= now);
        ticks.into_iter().chain(deadlines).chain(resume).chain(start).min()
    }
}

impl WaitingTick {
    /// The line of the journal that says that it waits.
    fn line(self) -> TickEvent {
        let Self { tick, scheduled, deadline, reason, detail, is_made_up } = self;
        TickEvent::TickWaiting { tick, scheduled, deadline, reason, detail, is_made_up }
    }
}

impl OpenRound {
    /// The tick that started it, as its round knows it.
    pub fn tick(&self) -> RoundTick {
        RoundTick { tick: self.tick.clone(), scheduled: self.scheduled }
    }

    /// When it may be taken up again: at once the first time, then later each time.
    fn resume_at(&self) -> Timestamp {
        let doublings = self.resumes.saturating_sub(1).min(MOST_RESUMES);
        let wait = if self.resumes == 0 { SignedDuration::ZERO } else { RESUME_WAIT * (1 << doublings) };
        self.started.saturating_add(wait).unwrap_or(Timestamp::MAX)
    }
}

impl Lane {
    fn handle(&mut self, tick: &TickId) {
        if let Some(handled) = self.handled.get_mut(&tick.schedule) {
            *handled = (*handled).max(tick.nominal);
        }
        self.waiting.retain(|waiting| waiting.tick != *tick);
    }

    fn apply(&mut self, at: Timestamp, event: &TickEvent) {
        match event {
            TickEvent::TicksStarted { .. } => {}
            TickEvent::ScheduleSeen { schedule, path, from } => {
                self.path.clone_from(path);
                self.handled.insert(schedule.clone(), *from);
            }
            TickEvent::ScheduleGone { schedule } => drop(self.handled.remove(schedule)),
            TickEvent::TickWaiting { tick, scheduled, deadline, reason, detail, is_made_up } => {
                self.handle(tick);
                let waiting = WaitingTick {
                    tick: tick.clone(),
                    scheduled: *scheduled,
                    deadline: *deadline,
                    reason: *reason,
                    detail: detail.clone(),
                    is_made_up: *is_made_up,
                };
                let place = self.waiting.partition_point(|other| other.tick.nominal <= tick.nominal);
                self.waiting.insert(place, waiting);
            }
            TickEvent::TickFired { tick, scheduled, deadline, round_id, .. } => {
                self.handle(tick);
                self.open = Some(OpenRound {
                    tick: tick.clone(),
                    round_id: round_id.clone(),
                    scheduled: *scheduled,
                    deadline: *deadline,
                    resumes: 0,
                    started: at,
                    is_cancelled: false,
                });
            }
            TickEvent::TickSkipped { tick, .. } | TickEvent::TickMissed { tick, .. } => self.handle(tick),
            TickEvent::RoundTakenUp { resumes, .. } => {
                if let Some(open) = &mut self.open {
                    (open.resumes, open.started) = (*resumes, at);
                }
            }
            TickEvent::RoundCancelled { .. } => {
                if let Some(open) = &mut self.open {
                    open.is_cancelled = true;
                }
            }
            TickEvent::TickEnded { round_id, exit_code, .. } => {
                self.open = None;
                self.last = Some(EndedRound { round_id: round_id.clone(), at, exit_code: *exit_code });
                if *exit_code == 0 {
                    self.last_done = Some(at);
                }
            }
        }
    }
}

/// The first tick of a schedule after an instant, and when it is due.
fn next_tick(id: &ScheduleId, schedule: &Schedule, after: Timestamp) -> Option<(TickId, Timestamp)> {
    let next = schedule.cron.next_after(&after.to_zoned(schedule.timezone.clone()))?;
    Some(with_jitter(TickId { schedule: id.clone(), nominal: next.timestamp() }, schedule.jitter))
}

/// The nominal instant up to which the ticks of a schedule were due by an instant: later ones may still be delayed by it.
fn begun_by(id: &ScheduleId, schedule: &Schedule, at: Timestamp) -> Timestamp {
    let longest = SignedDuration::try_from(schedule.jitter).unwrap_or(SignedDuration::ZERO);
    let mut nominal = at.saturating_sub(longest).unwrap_or(at);
    while let Some((tick, _)) = next_tick(id, schedule, nominal).filter(|(_, due)| *due <= at) {
        nominal = tick.nominal;
    }
    nominal
}

fn with_jitter(tick: TickId, jitter: Duration) -> (TickId, Timestamp) {
    let delay = SignedDuration::try_from(jitter_of(&tick, jitter)).unwrap_or(SignedDuration::MAX);
    let scheduled = tick.nominal.saturating_add(delay).unwrap_or(Timestamp::MAX);
    (tick, scheduled)
}

/// A tick that is due and may start a round.
#[derive(Debug, Clone)]
struct DueTick {
    tick: TickId,
    scheduled: Timestamp,
    deadline: Option<Timestamp>,
    overlap: Overlap,
    /// Whether it is made up for, together with others of its schedule.
    is_made_up: bool,
}

/// A decision in the making: the lines so far, and the pipeline as it is after them.
struct Decision {
    now: Timestamp,
    lane: Lane,
    lines: Vec<TickEvent>,
}

impl Decision {
    fn say(&mut self, event: TickEvent) {
        self.lane.apply(self.now, &event);
        self.lines.push(event);
    }

    fn is_late(&self, scheduled: Timestamp) -> bool {
        self.now.duration_since(scheduled) >= PUNCTUAL
    }

    fn is_past(&self, deadline: Option<Timestamp>) -> bool {
        deadline.is_some_and(|deadline| self.now > deadline)
    }

    /// The open round first: nothing starts before it is known to have ended.
    fn look_at_round(&mut self, sight: &Sight) {
        let (Some(open), Some(seen)) = (self.lane.open.clone(), sight.round) else { return };
        let round_id = open.round_id.clone();
        let give_up = |detail: &str| TickEvent::TickEnded {
            round_id: round_id.clone(),
            exit_code: GIVEN_UP,
            detail: Some(detail.to_owned()),
        };
        // A clock that was set back must not make it wait for hours.
        let may_resume = self.now >= open.resume_at() || self.now < open.started;
        match seen {
            RoundSight::Ended { exit_code } => {
                self.say(TickEvent::TickEnded { round_id, exit_code, detail: None });
            }
            RoundSight::Queued if self.is_past(open.deadline) => {
                let end = give_up("its deadline passed while it waited for its concurrency group");
                self.say(TickEvent::RoundCancelled { round_id, tick: None });
                self.say(end);
            }
            RoundSight::Absent | RoundSight::Unfinished if open.is_cancelled => {
                self.say(give_up("it was cancelled"));
            }
            RoundSight::Absent | RoundSight::Unfinished if self.is_past(open.deadline) => {
                self.say(give_up("its deadline passed before it was done"));
            }
            RoundSight::Absent | RoundSight::Unfinished if open.resumes >= MOST_RESUMES => {
                self.say(give_up(&format!("it was taken up {MOST_RESUMES} times and was not done")));
            }
            RoundSight::Absent | RoundSight::Unfinished if may_resume && sight.machine.is_none() => {
                self.say(TickEvent::RoundTakenUp { round_id, resumes: open.resumes + 1 });
            }
            RoundSight::Running | RoundSight::Queued | RoundSight::Absent | RoundSight::Unfinished => {}
        }
    }

    /// Schedules that are new, and schedules that are gone.
    fn see_schedules(&mut self, scheduled: &Scheduled<'_>) {
        let ids: Vec<ScheduleId> =
            scheduled.schedules.iter().map(|schedule| ScheduleId::of(scheduled.name, schedule)).collect();
        let gone: Vec<(ScheduleId, Timestamp)> = self
            .lane
            .handled
            .iter()
            .filter(|(id, _)| !ids.contains(id))
            .map(|(id, handled)| (id.clone(), *handled))
            .collect();
        for (schedule, handled) in gone {
            self.remove(schedule, handled);
        }
        for (id, schedule) in ids.into_iter().zip(scheduled.schedules) {
            if !self.lane.handled.contains_key(&id) {
                let (path, from) = (scheduled.path.to_owned(), begun_by(&id, schedule, scheduled.from));
                self.say(TickEvent::ScheduleSeen { schedule: id, path, from });
            }
        }
    }

    /// A schedule that is gone: what was due of it, or waited, is missed.
    fn remove(&mut self, id: ScheduleId, handled: Timestamp) {
        let waiting = self.lane.waiting.iter().filter(|waiting| waiting.tick.schedule == id);
        let waiting: Vec<WaitingTick> = waiting.cloned().collect();
        for WaitingTick { tick, scheduled, .. } in waiting {
            self.miss(tick, scheduled, TickReason::ScheduleRemoved);
        }
        if let (Ok(cron), Ok(timezone)) = (Cron::parse(&id.cron), time_zone(&id.timezone)) {
            let schedule = Schedule::plain(cron, timezone);
            for (tick, scheduled) in self.due_of(&id, &schedule, handled) {
                self.miss(tick, scheduled, TickReason::ScheduleRemoved);
            }
        }
        self.say(TickEvent::ScheduleGone { schedule: id });
    }

    fn miss(&mut self, tick: TickId, scheduled: Timestamp, reason: TickReason) {
        self.say(TickEvent::TickMissed { tick, scheduled, reason, detail: None, ticks: 1 });
    }

    /// The ticks of a schedule that are due, oldest first. Of very many the oldest are missed in one line.
    fn due_of(
        &mut self,
        id: &ScheduleId,
        schedule: &Schedule,
        handled: Timestamp,
    ) -> VecDeque<(TickId, Timestamp)> {
        let mut due = VecDeque::new();
        let mut dropped: Option<(TickId, Timestamp, u32)> = None;
        let mut after = handled;
        // A tick is not due before those that precede it, whatever their jitter.
        while let Some((tick, scheduled)) = next_tick(id, schedule, after).filter(|(_, at)| *at <= self.now) {
            after = tick.nominal;
            due.push_back((tick, scheduled));
            if due.len() > MOST_LINES
                && let Some((tick, scheduled)) = due.pop_front()
            {
                let count = dropped.map_or(0, |(_, _, count)| count);
                dropped = Some((tick, scheduled, count.saturating_add(1)));
            }
        }
        if let Some((tick, scheduled, ticks)) = dropped {
            let reason = TickReason::NotWatched;
            self.say(TickEvent::TickMissed { tick, scheduled, reason, detail: None, ticks });
        }
        due
    }

    /// The ticks that may start a round, in the order in which they were due; those that may not are missed.
    fn due(&mut self, scheduled: &Scheduled<'_>) -> Vec<DueTick> {
        let mut candidates = Vec::new();
        for schedule in scheduled.schedules {
            let id = ScheduleId::of(scheduled.name, schedule);
            let Some(handled) = self.lane.handled.get(&id).copied() else { continue };
            let due = self.due_of(&id, schedule, handled);
            let count = due.len();
            for (index, (tick, scheduled)) in due.into_iter().enumerate() {
                let deadline = schedule.deadline.and_then(|deadline| scheduled.checked_add(deadline).ok());
                let is_late = self.is_late(scheduled);
                let missed = match schedule.catch_up {
                    _ if self.is_past(deadline) => Some(TickReason::Deadline),
                    _ if !is_late => None,
                    CatchUp::None => Some(TickReason::NotWatched),
                    CatchUp::Latest => (index + 1 < count).then_some(TickReason::NewerDue),
                    CatchUp::All => (index + MOST_MADE_UP < count).then_some(TickReason::TooMany),
                };
                if let Some(reason) = missed {
                    self.miss(tick, scheduled, reason);
                    continue;
                }
                let is_made_up = is_late && schedule.catch_up == CatchUp::All;
                candidates.push(DueTick { tick, scheduled, deadline, overlap: schedule.overlap, is_made_up });
            }
        }
        candidates.sort_by(|left, right| (left.scheduled, &left.tick).cmp(&(right.scheduled, &right.tick)));
        candidates
    }

    /// Finds a due tick its place: it waits, or it is skipped.
    fn take(&mut self, due: DueTick, sight: &Sight) {
        let open = self.lane.open.clone();
        let mut waiting = WaitingTick {
            tick: due.tick,
            scheduled: due.scheduled,
            deadline: due.deadline,
            reason: TickReason::StillRunning,
            detail: open.as_ref().map(|open| match &sight.machine {
                Some(why) => format!("{}, which is taken up when the machine is well: {why}", open.round_id),
                None => open.round_id.to_string(),
            }),
            is_made_up: due.is_made_up,
        };
        let is_behind = self.lane.waiting.iter().any(|waiting| waiting.is_made_up);
        if due.is_made_up {
            (waiting.reason, waiting.detail) = (TickReason::CatchingUp, None);
            return self.say(waiting.line());
        }
        if is_behind && open.is_none() {
            waiting.reason = TickReason::CatchingUp;
        }
        if due.overlap == Overlap::Skip && (open.is_some() || is_behind) {
            let WaitingTick { tick, scheduled, reason, detail, .. } = waiting;
            return self.say(TickEvent::TickSkipped { tick, scheduled, reason, detail });
        }
        self.clear_queue(&waiting.tick);
        match open {
            Some(open) if due.overlap == Overlap::Replace => {
                waiting.reason = TickReason::Replacing;
                let tick = Some(waiting.tick.nominal);
                self.say(waiting.line());
                if !open.is_cancelled {
                    self.say(TickEvent::RoundCancelled { round_id: open.round_id, tick });
                }
            }
            None if !is_behind => {
                // It fires in this very decision, or a line says what it waits for.
                waiting.reason = TickReason::NotWatched;
                self.lane.apply(self.now, &waiting.line());
            }
            _ => self.say(waiting.line()),
        }
    }

    /// One tick waits at a time, the newest.
    fn clear_queue(&mut self, newer: &TickId) {
        let waiting = self.lane.waiting.iter().filter(|waiting| !waiting.is_made_up);
        let waiting: Vec<WaitingTick> = waiting.cloned().collect();
        for WaitingTick { tick, scheduled, .. } in waiting {
            let (reason, detail) = (TickReason::NewerWaiting, Some(newer.nominal.to_string()));
            self.say(TickEvent::TickSkipped { tick, scheduled, reason, detail });
        }
    }

    fn give_up_waiting(&mut self) {
        let late = self.lane.waiting.iter().filter(|waiting| self.is_past(waiting.deadline));
        let late: Vec<WaitingTick> = late.cloned().collect();
        for WaitingTick { tick, scheduled, reason, detail, .. } in late {
            let waited = format!("it waited: {reason}");
            let detail = Some(detail.map_or(waited.clone(), |detail| format!("{waited} ({detail})")));
            let reason = TickReason::Deadline;
            self.say(TickEvent::TickMissed { tick, scheduled, reason, detail, ticks: 1 });
        }
    }

    /// Starts the oldest tick that waits, if nothing stands against it; else says what does.
    fn fire(&mut self, sight: &Sight) {
        if self.lane.open.is_some() {
            return;
        }
        let Some(next) = self.lane.waiting.first().cloned() else { return };
        if let Some(why) = &sight.machine {
            let reason = TickReason::Machine;
            if next.reason != reason || next.detail.as_ref() != Some(why) {
                self.say(WaitingTick { reason, detail: Some(why.clone()), ..next }.line());
            }
            return;
        }
        let WaitingTick { tick, scheduled, deadline, reason, .. } = next;
        let Some(round_id) = round_of(&tick) else { return };
        let late = self.is_late(scheduled).then_some(reason);
        self.say(TickEvent::TickFired { tick, scheduled, deadline, round_id, late });
    }
}

#[cfg(test)]
mod tests;
