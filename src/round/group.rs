//! A round's turn in its concurrency group: it waits until the rounds before it have left, or puts them out.

use super::{Beginning, EventLoop};
use crate::adapters::store::{Displaces, Group, Place, TickJournal, ask_to_stop};
use crate::artifact::JournalEvent;
use crate::error::{Error, ExitCode};
use crate::model::{Fault, Reason};
use crate::pipeline::definition::Queue;

/// What a wait for the group came to.
#[derive(Debug)]
pub(super) enum Turn {
    /// The round has no group: it may run at once.
    Ungrouped,
    /// It is the round's turn until the place is dropped.
    Has(Place),
    /// The round was stopped, or put out by a newer one, while it waited.
    Stopped(Place),
}

impl EventLoop<'_> {
    /// Waits for the round's turn. Nothing of the round has run until then.
    pub(super) async fn take_turn(&mut self, group: Option<&str>) -> Result<Turn, Error> {
        let (Some(name), Some(concurrency)) = (group, &self.settings.pipeline.concurrency) else {
            return Ok(Turn::Ungrouped);
        };
        let group = Group::of(&self.settings.data_dir, name);
        let displaces = match (&self.settings.beginning, concurrency.queue) {
            // What goes on is older than what came after it.
            (Beginning::Resumed, _) => Displaces::Nothing,
            _ if concurrency.cancel_in_progress => Displaces::All,
            (_, Queue::Single) => Displaces::Waiting,
            (_, Queue::Max) => Displaces::Nothing,
        };
        let (place, displaced) = group.enter(&self.settings.round_id, displaces)?;
        for member in displaced {
            // A round that a tick started would be taken up again otherwise.
            TickJournal::cancel_round(&self.settings.data_dir, &member.round_id, (self.settings.now)())?;
            ask_to_stop(member.pid);
        }
        let mut has_said = false;
        while let Some(ahead) = place.ahead()? {
            if !has_said {
                has_said = true;
                let behind = ahead.running.round_id;
                self.note(JournalEvent::GroupAwaited { group: name.to_owned(), behind });
                self.write().await?;
            }
            tokio::select! {
                biased;
                () = self.control.stop.cancel.cancelled() => {
                    self.note_interruption();
                    return Ok(Turn::Stopped(place));
                }
                _ = ahead.leaves => {}
            }
        }
        Ok(Turn::Has(place))
    }
}

impl Turn {
    /// How the round ends that was stopped before it had its turn.
    pub(super) fn stopped(&self) -> Option<(ExitCode, Option<Reason>)> {
        let Self::Stopped(_) = self else { return None };
        let reason = Reason::new(
            Fault::Operator,
            "cancelled",
            "the round was interrupted while it waited for its concurrency group; nothing of it ran",
        );
        Some((ExitCode::Interrupted, Some(reason)))
    }

    /// Why the round ends, where another one of its group put it out.
    pub(super) fn displacement(&self) -> Option<Reason> {
        let (Self::Has(place) | Self::Stopped(place)) = self else { return None };
        let by = place.displaced_by()?;
        let message = format!("round {by} of the same concurrency group took its place");
        Some(Reason::new(Fault::Operator, "displaced", message))
    }
}
