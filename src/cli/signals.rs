//! Signals: how a person, or a machine that shuts down, stops what runs.

use tokio::signal::unix::{SignalKind, signal};

use super::say;
use crate::error::{Error, ExitCode};
use crate::round::Control;

/// SIGQUIT kills what runs; the first Ctrl-C (or SIGTERM) stops gently, the second kills, the third ends the program on the spot.
pub(super) fn listen(control: Control) -> Result<impl Future<Output = ()>, Error> {
    let failed = |source| Error::Machine { attempted: "listen for signals", source };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut quit = signal(SignalKind::quit()).map_err(failed)?;
    Ok(async move {
        for count in 1.. {
            let name = tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
                _ = quit.recv() => {
                    say("killing what still runs");
                    let _ = control.signal.set("SIGQUIT");
                    control.stop.now();
                    continue;
                }
            };
            match count {
                1 => {
                    say("stopping: servers are asked to end; again to kill them");
                    // Only the first one is kept.
                    let _ = control.signal.set(name);
                    control.stop.cancel.cancel();
                }
                2 => {
                    say("killing what still runs; again to end at once");
                    control.stop.kill.cancel();
                }
                // The kernel kills what we started when we end.
                _ => std::process::exit(i32::from(ExitCode::Interrupted.code())),
            }
        }
    })
}
