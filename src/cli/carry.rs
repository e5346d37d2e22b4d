//! What `export` and `import` share: the work on a thread of its own, a bar on a terminal, and Ctrl-C.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use super::say;
use crate::adapters::store::archive::{ArchiveError, Pulse};
use crate::error::{Error, ExitCode};

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(120);

/// Does the work and shows how far it is. The first Ctrl-C (or SIGTERM) lets it clear away what it began, the second
/// ends the program on the spot.
pub(super) async fn carry<T: Send + 'static>(
    doing: &str,
    work: impl FnOnce(&Pulse) -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, Error> {
    let failed = |source| Error::Machine { attempted: "listen for signals", source };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let pulse = Arc::new(Pulse::default());
    let shared = Arc::clone(&pulse);
    let mut work = tokio::task::spawn_blocking(move || work(&shared));
    let bar = bar(doing);
    let mut tick = tokio::time::interval(TICK);
    let mut is_stopping = false;
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            _ = tick.tick() => {
                if let Some(bar) = &bar {
                    let (position, total) = pulse.position();
                    bar.set_length(total);
                    bar.set_position(position);
                }
                continue;
            }
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if is_stopping {
            std::process::exit(i32::from(ExitCode::Interrupted.code()));
        }
        is_stopping = true;
        pulse.stop();
        say("stopping: what was begun is cleared away; again to end at once");
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    match done {
        Ok(done) => Ok(done?),
        Err(error) => {
            let source = std::io::Error::other(error);
            Err(Error::Machine { attempted: "carry the round", source })
        }
    }
}

/// A bar on a terminal; elsewhere a line, and no bar.
fn bar(doing: &str) -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        say(doing);
        return None;
    }
    let bar = ProgressBar::new(0).with_message(doing.to_owned());
    let template = "{spinner} {bar:24} {binary_bytes}/{binary_total_bytes}  {elapsed}  {wide_msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TICK);
    Some(bar)
}
