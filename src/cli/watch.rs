//! What a person sees while a round runs: a bar and what runs now on a terminal, plain lines elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use tokio::sync::mpsc::UnboundedReceiver;

use super::say;
use crate::artifact::{JobState, JournalEvent, JournalLine, RoundState};
use crate::model::{Conclusion, Reason, RoundId};
use crate::ports::Progress;
use crate::report::text::plain;
use crate::round::View;

/// Shows what comes, until the round drops its end of the channel.
pub(super) async fn watch(mut views: UnboundedReceiver<View>, is_live: bool, round_id: RoundId) {
    let mut screen = Screen::new(is_live, &round_id);
    while let Some(view) = views.recv().await {
        match view {
            View::Journal(line) => screen.journal(&line),
            View::Progress(progress) => screen.progress(&progress),
            View::Resumed(state) => screen.resumed(*state),
        }
    }
    if let Some(bar) = screen.bar {
        bar.finish_and_clear();
    }
}

struct Screen {
    bar: Option<ProgressBar>,
    /// What the journal says so far.
    state: RoundState,
}

impl Screen {
    fn new(is_live: bool, round_id: &RoundId) -> Self {
        let bar = is_live.then(|| {
            let bar = ProgressBar::new(0);
            let template = "{spinner} {bar:24} {pos}/{len} legs  {elapsed}  {wide_msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let screen = Self { bar, state: RoundState::default() };
        screen.line(&format!("round {round_id}"));
        screen
    }

    /// Says what the round has already, before it goes on.
    fn resumed(&mut self, state: RoundState) {
        let legs = state.jobs.iter().flat_map(|job| job.legs.iter().map(|leg| (&job.job, &leg.key)));
        let standing = legs.filter(|(job, leg)| state.standing(job, leg).is_some()).count();
        self.line(&if state.jobs.iter().all(|job| job.started_at.is_none()) {
            format!("{standing} legs stand as they ended")
        } else {
            format!("resumed: {standing} of {} legs known so far stand", state.leg_counts().known)
        });
        self.state = state;
        self.count();
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => say(text),
        }
    }

    fn message(&self, text: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(text);
        }
    }

    fn progress(&self, progress: &Progress) {
        let name = leg_name(&progress.job, &progress.leg);
        self.message(format!("{name}  {} {}/{}", progress.doing, progress.done, progress.total));
    }

    fn journal(&mut self, line: &JournalLine) {
        self.state.apply(line);
        self.count();
        let clock = self.clock(line.at);
        match &line.event {
            JournalEvent::GroupAwaited { group, behind } => {
                let group = plain(group);
                self.line(&format!("{clock}  WAITS  for round {behind} of the concurrency group `{group}`"));
                self.message(format!("waits for round {behind}"));
            }
            JournalEvent::JobPlanned { job, legs } if legs.len() > 1 => {
                self.line(&format!("{clock}         {job}: {} legs", legs.len()));
            }
            JournalEvent::StepStarted { at, step } => {
                self.message(format!("{}  {}", leg_name(&at.job, &at.leg), plain(&step.name)));
            }
            JournalEvent::RetryScheduled { at, delay_ms, reason } => {
                let (name, attempt) = (leg_name(&at.job, &at.leg), at.attempt);
                let delay = Duration::from_millis(*delay_ms);
                self.line(&format!(
                    "{clock}  RETRY  {name}  attempt {attempt} in {delay:?}: {}",
                    words(reason)
                ));
            }
            JournalEvent::ServerLaunchedAnew { at, why, .. } => {
                let (name, why) = (leg_name(&at.job, &at.leg), plain(why));
                self.line(&format!("{clock}  AGAIN  {name}  its server died and was launched anew: {why}"));
            }
            JournalEvent::LegEnded { at, conclusion, reason, .. } => {
                let started_at = self.state.attempt(at).and_then(|attempt| attempt.started_at);
                let took = started_at.map_or(0.0, |start| line.at.duration_since(start).as_secs_f64());
                let (name, word) = (leg_name(&at.job, &at.leg), word(*conclusion));
                let why = reason.as_ref().map(|reason| format!("  {}", words(reason))).unwrap_or_default();
                self.line(&format!("{clock}  {word}  {name}  {took:.1} s{why}"));
            }
            JournalEvent::JobEnded { job, .. } => {
                if let Some(text) = self.state.job(job).and_then(job_words) {
                    self.line(&format!("{clock}  {text}"));
                }
            }
            _ => {}
        }
    }

    /// Moves the bar to the number of legs that are over, of all that are known.
    fn count(&self) {
        if let Some(bar) = &self.bar {
            let legs = self.state.leg_counts();
            bar.set_length(legs.known as u64);
            bar.set_position(legs.settled as u64);
        }
    }

    /// Minutes and seconds since the round started.
    fn clock(&self, now: Timestamp) -> String {
        let seconds = self.state.started_at.map_or(0, |start| now.duration_since(start).as_secs());
        format!("{:>3}:{:02}", seconds / 60, seconds % 60)
    }
}

/// How a job ended, where its legs have not said it already.
fn job_words(job: &JobState) -> Option<String> {
    let end = job.end.as_ref()?;
    let planned = job.legs.len();
    if planned > 1 {
        let well = job.legs.iter().filter(|leg| leg.conclusion() == Some(Conclusion::Success)).count();
        return Some(format!("       {}: {well} of {planned} legs succeeded", job.job));
    }
    if planned == 1 && end.conclusion != Conclusion::Skipped {
        return None;
    }
    let why = end.reason.as_ref().map(|reason| plain(&reason.message)).unwrap_or_default();
    Some(format!("{}  {}  {why}", word(end.conclusion), job.job))
}

fn leg_name(job: &str, leg: &str) -> String {
    if leg.is_empty() { job.to_owned() } else { format!("{job}[{}]", plain(leg)) }
}

fn word(conclusion: Conclusion) -> &'static str {
    match conclusion {
        Conclusion::Success => "PASS ",
        Conclusion::Failure => "FAIL ",
        Conclusion::Cancelled => "STOP ",
        Conclusion::Skipped => "SKIP ",
    }
}

fn words(reason: &Reason) -> String {
    plain(&reason.to_string())
}
