//! What a person sees while a round runs: a bar and what runs now on a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc::UnboundedReceiver;

use super::say;
use crate::artifact::JournalEvent;
use crate::model::{Conclusion, Reason, RoundId};
use crate::ports::Progress;
use crate::report::text::plain;
use crate::round::View;

/// Shows what comes until the round lets go of the channel.
pub(super) async fn watch(mut views: UnboundedReceiver<View>, is_live: bool, round_id: RoundId) {
    let mut screen = Screen::new(is_live, &round_id);
    while let Some(view) = views.recv().await {
        match view {
            View::Journal(event) => screen.journal(&event),
            View::Progress(progress) => screen.progress(&progress),
        }
    }
    if let Some(bar) = screen.bar {
        bar.finish_and_clear();
    }
}

struct Screen {
    bar: Option<ProgressBar>,
    started: Instant,
    legs: u64,
    ended: u64,
    /// Legs planned and not succeeded, by job.
    planned: BTreeMap<String, u64>,
    failed: BTreeMap<String, u64>,
    /// When each running leg started.
    running: BTreeMap<String, Instant>,
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
        let screen = Self {
            bar,
            started: Instant::now(),
            legs: 0,
            ended: 0,
            planned: BTreeMap::new(),
            failed: BTreeMap::new(),
            running: BTreeMap::new(),
        };
        screen.line(&format!("round {round_id}"));
        screen
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

    fn journal(&mut self, event: &JournalEvent) {
        match event {
            JournalEvent::JobPlanned { job, legs } => {
                self.legs += legs.len() as u64;
                self.planned.insert(job.clone(), legs.len() as u64);
                if let Some(bar) = &self.bar {
                    bar.set_length(self.legs);
                }
                if legs.len() > 1 {
                    self.line(&format!("{}         {job}: {} legs", self.clock(), legs.len()));
                }
            }
            JournalEvent::LegStarted { job, leg, .. } => {
                self.running.insert(leg_name(job, leg), Instant::now());
            }
            JournalEvent::StepStarted { job, leg, step, .. } => {
                self.message(format!("{}  {}", leg_name(job, leg), plain(step)));
            }
            JournalEvent::RetryScheduled { job, leg, next_attempt, delay_ms, reason } => {
                let name = leg_name(job, leg);
                let delay = Duration::from_millis(*delay_ms);
                self.line(&format!(
                    "{}  RETRY  {name}  attempt {next_attempt} in {delay:?}: {}",
                    self.clock(),
                    words(reason)
                ));
                // The attempt that failed is not the leg's end.
                self.ended = self.ended.saturating_sub(1);
                if let Some(failed) = self.failed.get_mut(job) {
                    *failed = failed.saturating_sub(1);
                }
            }
            JournalEvent::LegEnded { job, leg, conclusion, reason, .. } => {
                let name = leg_name(job, leg);
                let took =
                    self.running.remove(&name).map(|at| at.elapsed().as_secs_f64()).unwrap_or_default();
                let word = word(*conclusion);
                let why = reason.as_ref().map(|reason| format!("  {}", words(reason))).unwrap_or_default();
                self.line(&format!("{}  {word}  {name}  {took:.1} s{why}", self.clock()));
                let failed = self.failed.entry(job.clone()).or_default();
                *failed += u64::from(*conclusion != Conclusion::Success);
                self.ended += 1;
                if let Some(bar) = &self.bar {
                    bar.set_position(self.ended);
                }
            }
            JournalEvent::JobEnded { job, conclusion, reason, .. } => {
                self.job_ended(job, *conclusion, reason.as_ref());
            }
            _ => {}
        }
    }

    /// Says how a job ended where its legs have not said it already.
    fn job_ended(&self, job: &str, conclusion: Conclusion, reason: Option<&Reason>) {
        let planned = self.planned.get(job).copied().unwrap_or_default();
        if planned > 1 {
            let failed = self.failed.get(job).copied().unwrap_or_default();
            self.line(&format!(
                "{}         {job}: {} of {planned} legs succeeded",
                self.clock(),
                planned.saturating_sub(failed)
            ));
        } else if planned == 0 || conclusion == Conclusion::Skipped {
            let why = reason.map(|reason| plain(&reason.message)).unwrap_or_default();
            self.line(&format!("{}  {}  {job}  {why}", self.clock(), word(conclusion)));
        }
    }

    fn clock(&self) -> String {
        let seconds = self.started.elapsed().as_secs();
        format!("{:>3}:{:02}", seconds / 60, seconds % 60)
    }
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
