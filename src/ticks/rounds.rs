//! The rounds that ticks start: processes of their own, seen on disk by whoever looks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::process::Command;
use tokio::task::JoinSet;

use super::KeeperSettings;
use super::pipelines::ScheduledPipeline;
use crate::adapters::store::{RoundDirectory, TickJournal, ask_to_stop, is_waiting};
use crate::artifact::{RoundState, TickEvent, layout};
use crate::error::{Error, ExitCode};
use crate::model::{Fault, RoundId, RoundTick, ScheduleId};
use crate::pipeline::definition::Schedule;
use crate::schedule::timetable::{OpenRound, RoundSight};

/// The end of a round's process that this one started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildEnd {
    /// Id of the round.
    pub round_id: RoundId,
    /// Its exit code; 1 where a signal ended it.
    pub exit_code: u8,
}

/// The rounds as they are seen, and the processes of those that this process started.
#[derive(Debug)]
pub(super) struct Rounds {
    data_dir: PathBuf,
    runners: PathBuf,
    program: PathBuf,
    grace: SignedDuration,
    is_printing: bool,
    running: BTreeMap<RoundId, u32>,
    ended: BTreeMap<RoundId, u8>,
    waits: JoinSet<ChildEnd>,
}

impl Rounds {
    pub(super) fn new(settings: &KeeperSettings) -> Self {
        Self {
            data_dir: settings.data_dir.clone(),
            runners: settings.runners.clone(),
            program: settings.program.clone(),
            grace: settings.grace,
            is_printing: settings.is_printing,
            running: BTreeMap::new(),
            ended: BTreeMap::new(),
            waits: JoinSet::new(),
        }
    }

    /// How it stands with a round that a tick started.
    pub(super) fn sight(&mut self, open: &OpenRound, now: Timestamp) -> RoundSight {
        let seen = self.look(open, now);
        // Whether it waits for its group matters from its deadline on only.
        let is_past = open.deadline.is_some_and(|deadline| now > deadline);
        let is_queued = || is_waiting(&self.data_dir, &open.round_id).unwrap_or(false);
        if seen == RoundSight::Running && is_past && is_queued() { RoundSight::Queued } else { seen }
    }

    fn look(&mut self, open: &OpenRound, now: Timestamp) -> RoundSight {
        while let Some(Ok(end)) = self.waits.try_join_next() {
            self.note_end(&end);
        }
        let round_id = &open.round_id;
        if self.running.contains_key(round_id) {
            return RoundSight::Running;
        }
        let seen = self.on_disk(round_id);
        match (seen, self.ended.get(round_id)) {
            // Our own process could not begin it, and nobody else did.
            (RoundSight::Absent, Some(exit_code)) => RoundSight::Ended { exit_code: *exit_code },
            (RoundSight::Absent | RoundSight::Unfinished, None) => {
                // Whoever wrote that it starts may be about to start it. Their clock may be a little ahead of ours.
                let since = now.duration_since(open.started).abs();
                if since < self.grace { RoundSight::Running } else { seen }
            }
            _ => seen,
        }
    }

    fn on_disk(&self, round_id: &RoundId) -> RoundSight {
        let Ok(directory) = RoundDirectory::open(&self.data_dir, round_id) else { return RoundSight::Absent };
        if directory.is_sealed() {
            return RoundSight::Ended { exit_code: ExitCode::Done.code() };
        }
        if directory.is_held().unwrap_or(true) {
            return RoundSight::Running;
        }
        if !directory.path().join(layout::ROUND_FILE).exists() {
            return RoundSight::Absent;
        }
        let Ok(replay) = directory.read_journal() else {
            return RoundSight::Ended { exit_code: ExitCode::Invalid.code() };
        };
        let state = RoundState::of(&replay.lines);
        match &state.end {
            Some(end) if !can_be_taken_up(end.exit_code, &state) => {
                RoundSight::Ended { exit_code: end.exit_code }
            }
            _ => RoundSight::Unfinished,
        }
    }

    /// Does what a line of the journal says.
    pub(super) fn act(
        &mut self,
        event: &TickEvent,
        open: Option<&OpenRound>,
        pipeline: &ScheduledPipeline,
    ) -> Result<(), Error> {
        match event {
            TickEvent::TickFired { round_id, tick, scheduled, .. } => {
                let tick = RoundTick { tick: tick.clone(), scheduled: *scheduled };
                self.start(round_id, &tick, pipeline)
            }
            TickEvent::RoundTakenUp { round_id, .. } => {
                if self.on_disk(round_id) == RoundSight::Absent {
                    let Some(tick) = open.map(OpenRound::tick) else { return Ok(()) };
                    self.start(round_id, &tick, pipeline)
                } else {
                    let mut command = self.command();
                    command.args(["resume", round_id.as_str()]);
                    self.spawn(round_id, command)
                }
            }
            TickEvent::RoundCancelled { round_id, .. } => {
                let own = self.running.get(round_id).copied();
                let holder = || RoundDirectory::open(&self.data_dir, round_id).ok()?.holder();
                if let Some(pid) = own.or_else(holder) {
                    ask_to_stop(pid);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--data").arg(&self.data_dir);
        command
    }

    fn start(
        &mut self,
        round_id: &RoundId,
        tick: &RoundTick,
        pipeline: &ScheduledPipeline,
    ) -> Result<(), Error> {
        let journal = TickJournal::of(&self.data_dir);
        // The text that was decided by, whatever the file says by now.
        let text = match journal.kept_pipeline(&pipeline.path)? {
            Some((path, _)) => path,
            None => PathBuf::from(&pipeline.path),
        };
        let mut command = self.command();
        command.arg("run").arg(text);
        command.arg("--called").arg(&pipeline.path);
        command.args(["--round", round_id.as_str()]);
        command.arg("--runners").arg(&self.runners);
        command.arg("--tick").arg(json!(tick).to_string());
        let is_its = |schedule: &&Schedule| ScheduleId::of(&pipeline.name, schedule) == tick.tick.schedule;
        for (name, value) in pipeline.schedules.iter().find(is_its).into_iter().flat_map(|own| &own.inputs) {
            command.arg(format!("--input={name}={value}"));
        }
        self.spawn(round_id, command)
    }

    fn spawn(&mut self, round_id: &RoundId, mut command: Command) -> Result<(), Error> {
        command.stdin(Stdio::null());
        if !self.is_printing {
            command.stdout(Stdio::null());
        }
        // A Ctrl-C at the terminal is ours to pass on.
        command.process_group(0);
        let mut child = command
            .spawn()
            .map_err(|source| Error::Machine { attempted: "start the process of a round", source })?;
        self.ended.remove(round_id);
        if let Some(pid) = child.id() {
            self.running.insert(round_id.clone(), pid);
        }
        let round_id = round_id.clone();
        self.waits.spawn(async move {
            let status = child.wait().await.ok().and_then(|status| status.code());
            let exit_code = status.and_then(|code| u8::try_from(code).ok()).unwrap_or(ExitCode::Bug.code());
            ChildEnd { round_id, exit_code }
        });
        Ok(())
    }

    fn note_end(&mut self, end: &ChildEnd) {
        self.running.remove(&end.round_id);
        self.ended.insert(end.round_id.clone(), end.exit_code);
    }

    pub(super) fn has_children(&self) -> bool {
        !self.running.is_empty()
    }

    pub(super) async fn child_ended(&mut self) -> ChildEnd {
        loop {
            match self.waits.join_next().await {
                Some(Ok(end)) => {
                    self.note_end(&end);
                    return end;
                }
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    pub(super) fn stop(&self) {
        for pid in self.running.values() {
            ask_to_stop(*pid);
        }
    }
}

/// Whether a round that came to its end this way can be taken up: it was interrupted, or the machine failed it. What is
/// held stays held, and nobody is asked twice.
fn can_be_taken_up(exit_code: u8, state: &RoundState) -> bool {
    if exit_code == ExitCode::Interrupted.code() {
        return true;
    }
    let legs = state.jobs.iter().flat_map(|job| &job.legs);
    let faults: Vec<Fault> = legs.filter_map(|leg| Some(leg.end()?.reason.as_ref()?.fault)).collect();
    exit_code == ExitCode::Incomplete.code()
        && faults.contains(&Fault::Infra)
        && !faults.contains(&Fault::Unknown)
}
