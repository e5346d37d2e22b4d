//! What stands between this program and a server of the process engine: it owns the server's whole tree.
//!
//! `cacheon keep` starts the server in a session of its own and becomes the parent of all that the server leaves
//! behind, whatever session or group that went to. It ends as the server ended, and not before everything below it
//! is gone. SIGTERM asks the server to end; SIGHUP, which the kernel also sends when the one who started the
//! keeper dies, kills all at once. If the keeper itself is killed, the kernel kills the server, and what the server had
//! started falls to the job's process, which ends it with the job (`cacheon job`).

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, getpid, kill_process, kill_process_group, setrlimit, wait,
};
use tokio::signal::unix::{SignalKind, signal};

use super::process::{end_with_parent, launch_arguments};
use super::tree::{end_all_below, keep_orphans};
use crate::ports::Exit;

/// Runs a program, the one of this executable's path `program` being its starter, until it and all that it started are
/// gone; how it ended.
///
/// # Errors
/// When it cannot be started or the processes below cannot be listed.
pub async fn keep(program: &Path, parent: u32, argv: &[OsString]) -> io::Result<Exit> {
    // Before anything is started, so that no signal ends us first.
    let mut killed = signal(SignalKind::hangup())?;
    let mut asked = signal(SignalKind::terminate())?;
    let mut child_ended = signal(SignalKind::child())?;
    keep_orphans()?;
    end_with_parent(parent, Signal::HUP)?;
    let own = getpid().as_raw_nonzero().get().unsigned_abs();
    let server = Command::new(program)
        .args(launch_arguments(own))
        .arg("--session")
        .arg("--")
        .args(argv)
        .stdin(Stdio::null())
        .spawn()?;
    let server = Pid::from_raw(server.id().cast_signed()).ok_or(io::ErrorKind::NotFound)?;
    let ended = loop {
        if let Some(exit) = collect(server)? {
            break exit;
        }
        tokio::select! {
            _ = child_ended.recv() => {}
            _ = killed.recv() => break Exit { signal: Some(Signal::KILL.as_raw()), ..Exit::default() },
            _ = asked.recv() => {
                // Its group is there once it has a session; until then it is alone.
                let _ = kill_process_group(server, Signal::TERM).or_else(|_| kill_process(server, Signal::TERM));
            }
        }
    };
    end_all_below()?;
    Ok(ended)
}

/// Collects all children that have ended; how the server ended, if it did.
fn collect(server: Pid) -> io::Result<Option<Exit>> {
    let mut ended = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == server => {
                ended = Some(Exit {
                    code: status.exit_status(),
                    signal: status.terminating_signal(),
                    ..Exit::default()
                });
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(Errno::CHILD) => return Ok(ended),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Ends this process the way that another one ended: by the same exit code, or the same signal.
pub fn end_like(exit: &Exit) -> ! {
    let code = match (exit.code, exit.signal) {
        (Some(code), _) => code,
        (None, Some(signal)) => {
            // It is not our crash.
            let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
            let _ = signal_hook::low_level::emulate_default_handler(signal);
            128_i32.saturating_add(signal)
        }
        (None, None) => 1,
    };
    std::process::exit(code)
}
