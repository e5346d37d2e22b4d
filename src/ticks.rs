//! L5, scheduled rounds: looks at the schedules, lets the timetable decide, and does what it says.
//!
//! A look is a turn at the journal of ticks: the pipelines are read, their rounds are seen on disk, the lines that
//! [`Timetable::decide`] gives are written, and what follows from them is done: a round is a process of its own,
//! `cacheon run`, and goes on if this one dies. Two that look after the same schedules take turns, so each tick is
//! decided once; and if one dies between a line and its deed, the next look finds a round that has not begun.

mod hooks;
mod pipelines;
mod rounds;

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};

use crate::adapters::doctor;
use crate::adapters::store::{TickJournal, read_runner, read_ticks};
use crate::artifact::{JournalLine, TickEvent};
use crate::error::Error;
use crate::report::doctor::Severity;
use crate::report::doctor::checks::{RunnerFacts, check_data, check_disk, check_runner};
use crate::report::quarantine_sentence;
use crate::report::text::error_chain;
use crate::round::held_up;
use crate::schedule::timetable::{Lane, Scheduled, Sight, Timetable};
use crate::schedule::{Choice, RunnerSlot, Service};

use hooks::Hooks;
use pipelines::Pipelines;
pub use pipelines::{ScheduledPipeline, Scope};
pub use rounds::ChildEnd;
use rounds::Rounds;

/// What scheduled rounds are made with.
#[derive(Debug, Clone)]
pub struct KeeperSettings {
    /// Which pipelines are looked after.
    pub scope: Scope,
    /// The data directory, absolute.
    pub data_dir: PathBuf,
    /// Folder of runner files.
    pub runners: PathBuf,
    /// This program.
    pub program: PathBuf,
    /// The instant after which the ticks of a schedule count that was never seen before.
    pub from: Timestamp,
    /// How long somebody else who wrote that a round starts has to start it.
    pub grace: SignedDuration,
    /// Whether the rounds print their leaderboards.
    pub is_printing: bool,
}

/// Looks after the schedules of some pipelines.
#[derive(Debug)]
pub struct Keeper {
    settings: KeeperSettings,
    journal: TickJournal,
    pipelines: Pipelines,
    rounds: Rounds,
    hooks: Hooks,
    /// What the journal's lines came to when this process last had a turn.
    timetable: Timetable,
    /// Number of those lines.
    folded: usize,
}

/// What one look came to.
#[derive(Debug, Default)]
pub struct Look {
    /// What was decided, in order.
    pub decided: Vec<TickEvent>,
    /// Pipelines that are broken, or well again: what to tell a person.
    pub notes: Vec<String>,
}

impl Keeper {
    /// Begins to look after schedules; nothing is read yet.
    pub fn new(settings: KeeperSettings) -> Self {
        let journal = TickJournal::of(&settings.data_dir);
        let rounds = Rounds::new(&settings);
        Self {
            pipelines: Pipelines::default(),
            hooks: Hooks::default(),
            journal,
            rounds,
            settings,
            timetable: Timetable::default(),
            folded: 0,
        }
    }

    /// Looks once: decides what became due, and does it.
    ///
    /// # Errors
    /// When the pipelines or the journal cannot be read, or the disk refuses a line: then nothing was done.
    pub async fn look(&mut self, now: Timestamp) -> Result<Look, Error> {
        // A schedule that appears while somebody looks counts from then on.
        let is_first = !self.pipelines.has_read();
        let before = self.pipelines.known().to_vec();
        let notes = self.pipelines.read(&self.settings.scope, &self.journal)?;
        for pipeline in self.pipelines.known().iter().filter(|pipeline| pipeline.broken.is_none()) {
            self.journal.keep_pipeline(&pipeline.path, &pipeline.text)?;
        }
        let mut look = Look { decided: Vec::new(), notes };
        look.notes.extend(self.hooks.ended());
        let mut turn = self.journal.turn()?;
        let mut timetable = std::mem::take(&mut self.timetable);
        for line in turn.lines().iter().skip(std::mem::take(&mut self.folded)) {
            timetable.apply(line.at, &line.event);
        }
        let gone: Vec<ScheduledPipeline> = timetable
            .lanes()
            .iter()
            .filter(|(name, lane)| is_gone(name, lane, &self.pipelines, &self.settings.scope))
            .map(|(name, lane)| ScheduledPipeline::gone(name, &lane.path))
            .collect();
        // What was due before a file changed is decided by what it said then.
        let changed = before.iter().filter(|old| self.pipelines.has_changed(old));
        let known = self.pipelines.known();
        for pipeline in changed.chain(known).chain(&gone) {
            let scheduled = Scheduled {
                name: &pipeline.name,
                path: &pipeline.path,
                schedules: &pipeline.schedules,
                from: if is_first { self.settings.from } else { now },
            };
            let open = timetable.lanes().get(&pipeline.name).and_then(|lane| lane.open.as_ref());
            let round = open.map(|open| self.rounds.sight(open, now));
            let mut sight = Sight { round, ..Sight::default() };
            let mut events = timetable.decide(now, &scheduled, &sight);
            let starts = |event: &TickEvent| {
                matches!(event, TickEvent::TickFired { .. } | TickEvent::RoundTakenUp { .. })
            };
            if let Some(start) = events.iter().find(|event| starts(event)) {
                sight.machine = unfit(&self.settings, pipeline, start).await;
                if sight.machine.is_some() {
                    events = timetable.decide(now, &scheduled, &sight);
                }
            }
            turn.append(now, &events)?;
            for event in events {
                timetable.apply(now, &event);
                let open = timetable.lanes().get(&pipeline.name).and_then(|lane| lane.open.as_ref());
                if let Err(error) = self.rounds.act(&event, open, pipeline) {
                    look.notes.push(error_chain(&error));
                }
                self.hooks.tell(&event, pipeline);
                look.decided.push(event);
            }
        }
        (self.timetable, self.folded) = (timetable, turn.lines().len());
        Ok(look)
    }

    /// What the journal of ticks comes to and what is wrong with the pipelines, without a turn and without a trace.
    ///
    /// # Errors
    /// When the pipelines or the journal cannot be read.
    pub fn peek(&mut self) -> Result<(Timetable, Vec<String>), Error> {
        let notes = self.pipelines.read(&self.settings.scope, &self.journal)?;
        Ok((Timetable::of(&read_ticks(&self.settings.data_dir)?), notes))
    }

    /// When to look again at the latest, if nothing happens before.
    pub fn next_look(&self, now: Timestamp) -> Option<Timestamp> {
        let timetable = &self.timetable;
        let next = |pipeline: &ScheduledPipeline| {
            let scheduled = Scheduled {
                name: &pipeline.name,
                path: &pipeline.path,
                schedules: &pipeline.schedules,
                from: now,
            };
            timetable.next_look(now, &scheduled)
        };
        self.pipelines.known().iter().filter_map(next).min()
    }

    /// The pipelines that are looked after, as they were read last.
    pub fn pipelines(&self) -> &[ScheduledPipeline] {
        self.pipelines.known()
    }

    /// Number of watched files that are broken, with or without a last good version.
    pub fn broken_files(&self) -> u32 {
        self.pipelines.broken_files()
    }

    /// Whether a round of ours runs, or somebody else's that its pipeline's schedule waits for.
    pub fn has_children(&self) -> bool {
        self.rounds.has_children()
    }

    /// Waits until a round that this process started has ended.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing; it can be called again. It never ends while no round runs.
    pub async fn child_ended(&mut self) -> ChildEnd {
        self.rounds.child_ended().await
    }

    /// Waits until all scripts that tell somebody have ended; gives what went wrong with them.
    pub async fn hooks_ended(&mut self) -> Vec<String> {
        self.hooks.all_ended().await
    }

    /// Tells all rounds that this process started to stop; they can be taken up again.
    pub fn stop(&self) {
        self.rounds.stop();
    }

    /// The lines of the journal of ticks, as they were read or written last.
    pub fn lines(&self) -> &[JournalLine<TickEvent>] {
        self.journal.lines()
    }
}

/// Whether a pipeline is in the journal, ours to look after, and no longer in its file.
fn is_gone(name: &str, lane: &Lane, pipelines: &Pipelines, scope: &Scope) -> bool {
    let is_here = pipelines.known().iter().any(|pipeline| pipeline.name == name);
    let has_something = !lane.handled.is_empty() || lane.open.is_some() || !lane.waiting.is_empty();
    !is_here && has_something && scope.contains(&lane.path) && !pipelines.is_broken(&lane.path)
}

/// What is wrong with this machine, if the round that this line starts, or takes up, should not run on it now.
async fn unfit(settings: &KeeperSettings, pipeline: &ScheduledPipeline, start: &TickEvent) -> Option<String> {
    let mut findings = check_data(&doctor::data(&settings.data_dir));
    findings.extend(doctor::disk(&settings.data_dir).into_iter().flat_map(|disk| check_disk(disk, "")));
    let runners = doctor::runners(&settings.runners, &settings.program).await;
    let mut out = BTreeMap::new();
    for RunnerFacts { name, .. } in runners.iter().filter(|runner| runner.found.is_ok()) {
        match read_runner(&settings.data_dir, name) {
            Ok(state) => out.extend(state.quarantine.map(|quarantine| (name.clone(), quarantine))),
            Err(error) => return Some(error_chain(&error)),
        }
    }
    let is_asked_for = |runner: &&RunnerFacts| {
        let has = |label: &String| runner.labels.contains(label);
        !out.contains_key(&runner.name) && pipeline.labels.iter().any(|labels| labels.iter().all(has))
    };
    findings.extend(runners.iter().filter(is_asked_for).flat_map(|runner| check_runner(runner, true)));
    if let Some(problem) = findings.into_iter().find(|finding| finding.severity == Severity::Problem) {
        return Some(problem.found);
    }
    // One that cannot be read has not begun, and begins now, or whoever takes it up says what is wrong.
    if let TickEvent::RoundTakenUp { round_id, .. } = start
        && let Ok(held_up) = held_up(&settings.data_dir, round_id)
    {
        return held_up.map(|error| error_chain(&error));
    }
    let slots: Vec<RunnerSlot> = runners
        .iter()
        .map(|runner| RunnerSlot { name: runner.name.clone(), labels: runner.labels.clone(), capacity: 1 })
        .collect();
    let is_out = |name: &str| out.contains_key(name);
    let service = Service { runners: &slots, is_out: &is_out, choice: Choice::Any };
    let runner = pipeline.labels.iter().find_map(|labels| service.blocks(labels))?;
    let sentence = quarantine_sentence(runner, out.get(runner)?);
    Some(format!("{sentence}; look at its machine, then `cacheon runner lift {runner}`"))
}
