//! `cacheon cancel`: stops a round that another process runs.

use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};

use super::show::find_round;
use super::{Session, say};
use crate::adapters::store::{RoundDirectory, TickJournal};
use crate::error::{Error, ExitCode};

/// How often is looked whether the round has ended.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The round: its id, the beginning of its id if no other begins so, or `latest`.
    #[arg(default_value = "latest")]
    round: String,
    /// Kill its servers instead of asking them to end, and run no more steps.
    #[arg(long)]
    now: bool,
}

pub(super) async fn run(arguments: &Arguments, session: &Session) -> Result<ExitCode, Error> {
    let round_id = find_round(&arguments.round, session)?;
    let directory = RoundDirectory::open(&session.data, &round_id)?;
    let running = if directory.is_sealed() { None } else { directory.running()? };
    let Some((pid, process)) = running.and_then(|pid| Some((pid, Pid::from_raw(i32::try_from(pid).ok()?)?)))
    else {
        return Err(Error::Usage(format!("nobody runs round `{round_id}` now")));
    };
    // A round that a tick started would be taken up again otherwise.
    TickJournal::cancel_round(&session.data, &round_id, jiff::Timestamp::now())?;
    let signal = if arguments.now { Signal::QUIT } else { Signal::TERM };
    match kill_process(process, signal) {
        // It has ended meanwhile, which is what was wanted.
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => {
            return Err(Error::Machine { attempted: "stop the round's process", source: error.into() });
        }
    }
    say(&format!("round {round_id} is told to stop (process {pid}); waiting until it has ended"));
    while directory.running()? == Some(pid) {
        tokio::time::sleep(LOOK).await;
    }
    say(&format!("round {round_id} has stopped"));
    Ok(ExitCode::Done)
}
