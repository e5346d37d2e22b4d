//! A round's turn: in its concurrency group, and at the engines that it boots servers with. It waits until the rounds before
//! it have left, or puts them out of its group.

use super::{Beginning, EventLoop, RoundRunner};
use crate::adapters::store::{Displaces, Group, Place, TickJournal, ask_to_stop};
use crate::artifact::JournalEvent;
use crate::error::{Error, ExitCode};
use crate::model::{Fault, Reason};
use crate::pipeline::definition::{Concurrency, Job, Queue};
use crate::schedule::{Placement, placement_of};

/// What a wait for the round's turn came to; the places are given up when this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    places: Vec<Place>,
    /// The round was stopped, or put out by a newer one, while it waited.
    is_stopped: bool,
}

impl EventLoop<'_> {
    /// Waits for the round's turn, first in its group. Nothing of the round has run until then.
    pub(super) async fn take_turn(&mut self, group: Option<&str>) -> Result<Turn, Error> {
        let mut turn = Turn { places: Vec::new(), is_stopped: false };
        let concurrency = self.settings.pipeline.concurrency.as_ref();
        let own = group.zip(concurrency).map(|(name, concurrency)| {
            (Group::of(&self.settings.data_dir, name), self.displaces(concurrency))
        });
        // Nobody's measurement is cut because somebody else's round comes.
        let engines = self.engines().into_iter().map(|engine| (engine, Displaces::Nothing));
        for (group, displaces) in own.into_iter().chain(engines) {
            let (place, displaced) = group.enter(&self.settings.round_id, displaces)?;
            for member in displaced {
                // A round that a tick started would be taken up again otherwise.
                TickJournal::cancel_round(&self.settings.data_dir, &member.round_id, (self.settings.now)())?;
                ask_to_stop(member.pid);
            }
            turn.is_stopped = !self.comes_to(&place).await?;
            turn.places.push(place);
            if turn.is_stopped {
                break;
            }
        }
        Ok(turn)
    }

    fn displaces(&self, concurrency: &Concurrency) -> Displaces {
        match (&self.settings.beginning, concurrency.queue) {
            // What goes on is older than what came after it.
            (Beginning::Resumed, _) => Displaces::Nothing,
            _ if concurrency.cancel_in_progress => Displaces::All,
            (_, Queue::Single) => Displaces::Waiting,
            (_, Queue::Max) => Displaces::Nothing,
        }
    }

    /// The queues of the engines that jobs of this round may be placed at, each once.
    fn engines(&self) -> Vec<Group> {
        let slots: Vec<_> = self.settings.runners.iter().map(RoundRunner::slot).collect();
        let at = |job: &Job| {
            let labels = job.runs_on.labels.iter().map(|label| label.as_literal().map(ToString::to_string));
            // What is worked out later may be anywhere.
            let Some(labels) = labels.collect::<Option<Vec<_>>>() else { return 0..slots.len() };
            match placement_of(&labels, &slots) {
                Ok(Placement::Runner(runner)) => runner..runner + 1,
                Ok(Placement::Controller) | Err(_) => 0..0,
            }
        };
        let placed = self.settings.pipeline.jobs.iter().flat_map(at);
        let mut engines: Vec<Group> = Vec::new();
        for runner in placed.filter_map(|runner| self.settings.runners.get(runner)) {
            engines.extend(runner.queue.clone().filter(|queue| !engines.contains(queue)));
        }
        engines
    }

    /// Waits until this place is the first; false where the round was stopped before.
    async fn comes_to(&mut self, place: &Place) -> Result<bool, Error> {
        let mut has_said = false;
        while let Some(ahead) = place.ahead()? {
            if !has_said {
                has_said = true;
                let behind = ahead.running.round_id;
                self.note(JournalEvent::GroupAwaited { group: ahead.running.group, behind });
                self.write().await?;
            }
            tokio::select! {
                biased;
                () = self.control.stop.cancel.cancelled() => {
                    self.note_interruption();
                    return Ok(false);
                }
                _ = ahead.leaves => {}
            }
        }
        Ok(true)
    }
}

impl Turn {
    /// How the round ends that was stopped before it had its turn.
    pub(super) fn stopped(&self) -> Option<(ExitCode, Option<Reason>)> {
        self.is_stopped.then(|| {
            let reason = Reason::new(
                Fault::Operator,
                "cancelled",
                "the round was interrupted while it waited for another one; nothing of it ran",
            );
            (ExitCode::Interrupted, Some(reason))
        })
    }

    /// Why the round ends, where another one of its group put it out.
    pub(super) fn displacement(&self) -> Option<Reason> {
        let by = self.places.iter().find_map(Place::displaced_by)?;
        let message = format!("round {by} of the same concurrency group took its place");
        Some(Reason::new(Fault::Operator, "displaced", message))
    }
}
