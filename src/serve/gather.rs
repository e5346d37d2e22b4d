//! Gathers the facts that metrics are written from: the journal of ticks, the disk, the last ended rounds.
//!
//! What is costly is done when it can have changed: ticks are counted when the journal has grown, and an ended round is
//! read once, from its own journal: one that published nothing has no table of steps.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::adapters::store::RoundDirectory;
use crate::artifact::{JournalLine, RoundState, TickEvent, tick_rows};
use crate::model::RoundId;
use crate::pipeline::definition::Schedule;
use crate::report::metrics::{DiskRoom, MetricsFacts, PipelineMetrics, RoundMetrics};
use crate::schedule::timetable::{Lane, Scheduled, Timetable};

/// A pipeline that is looked after.
#[derive(Debug, Clone, Copy)]
pub struct Watched<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its schedules.
    pub schedules: &'a [Schedule],
    /// Whether its file is broken, and its last good version in force.
    pub is_broken: bool,
}

/// What was gathered so far of a data directory.
#[derive(Debug)]
pub struct Gatherer {
    data_dir: PathBuf,
    /// How many lines were counted, and when the last of them was written.
    counted: (usize, Option<Timestamp>),
    timetable: Timetable,
    pipelines: BTreeMap<String, PipelineMetrics>,
    /// The steps of the last ended round of each pipeline, by its id.
    last: BTreeMap<String, (String, Option<RoundMetrics>)>,
}

impl Gatherer {
    /// Begins to gather; nothing is read yet.
    pub fn of(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            counted: (0, None),
            timetable: Timetable::default(),
            pipelines: BTreeMap::new(),
            last: BTreeMap::new(),
        }
    }

    /// The facts after a look: what cannot be read is left out.
    pub fn facts<'a>(
        &mut self,
        now: Timestamp,
        lines: &[JournalLine<TickEvent>],
        watched: impl IntoIterator<Item = Watched<'a>>,
    ) -> MetricsFacts {
        let counted = (lines.len(), lines.last().map(|line| line.at));
        if counted != self.counted {
            self.count(lines);
            self.counted = counted;
        }
        let mut pipelines = self.pipelines.clone();
        for (name, pipeline) in &mut pipelines {
            pipeline.is_running = self.timetable.lanes().get(name).is_some_and(|lane| self.is_running(lane));
        }
        for Watched { name, schedules, is_broken } in watched {
            let pipeline = pipelines.entry(name.to_owned()).or_default();
            pipeline.is_broken = is_broken;
            let scheduled = Scheduled { name, path: "", schedules, from: now };
            pipeline.next_tick_at = self.timetable.next_tick(now, &scheduled).map(|(_, due)| due);
        }
        let version = env!("CARGO_PKG_VERSION").to_owned();
        MetricsFacts {
            version,
            looked_at: Some(now),
            disk: disk(&self.data_dir),
            pipelines,
            ..MetricsFacts::default()
        }
    }

    fn count(&mut self, lines: &[JournalLine<TickEvent>]) {
        self.timetable = Timetable::of(lines);
        self.pipelines = PipelineMetrics::of(&tick_rows(lines));
        for (name, pipeline) in &mut self.pipelines {
            let Some((_, round_id)) = &pipeline.last_ended else { continue };
            if self.last.get(name).is_none_or(|(known, _)| known != round_id) {
                self.last.insert(name.clone(), (round_id.clone(), steps(&self.data_dir, round_id)));
            }
            pipeline.last = self.last.get(name).and_then(|(_, round)| round.clone());
        }
    }

    /// Whether a process holds the round that is open.
    fn is_running(&self, lane: &Lane) -> bool {
        let held = |round_id: &RoundId| RoundDirectory::open(&self.data_dir, round_id).ok()?.is_held().ok();
        lane.open.as_ref().is_some_and(|open| held(&open.round_id).unwrap_or_default())
    }
}

/// What the steps of an ended round come to; none where it never began, or is gone.
fn steps(data_dir: &Path, round_id: &str) -> Option<RoundMetrics> {
    let directory = RoundDirectory::open(data_dir, &round_id.parse().ok()?).ok()?;
    let state = RoundState::of(&directory.read_journal().ok()?.lines);
    Some(RoundMetrics::of(&state.step_rows()))
}

/// The room on the file system of the data directory.
fn disk(data_dir: &Path) -> Option<DiskRoom> {
    let found = rustix::fs::statvfs(data_dir).ok()?;
    Some(DiskRoom {
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        size_bytes: found.f_blocks.saturating_mul(found.f_frsize),
    })
}
