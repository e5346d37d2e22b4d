//! What ends the scripts of `run:` steps when this program is killed: a small process that waits for our end.
//!
//! The kernel could do it, but only if every script were started through another program first, which would cost
//! more than most scripts. So all scripts of a process carry a mark in their environment, which what they start
//! inherits, and one guard beside the process kills whatever has the mark once its standard input, of which we hold
//! the other end, is closed. Servers that are processes have no need of it: the kernel watches them (`process`). Containers
//! are children of their daemon, so an engine has such a guard too, which asks the daemon to remove them.

use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// The variable that scripts and all they start have in their environment.
pub const MARK: &str = "CACHEON_GUARD";

/// The guard of this process; when it is dropped, or we die, it kills what has its mark and ends.
#[derive(Debug)]
pub struct Guard {
    mark: String,
    /// Holds the guard's standard input open.
    _child: Child,
}

impl Guard {
    /// Starts a guard; `program` is this executable.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(program: &Path) -> std::io::Result<Self> {
        let mark = std::process::id().to_string();
        let mut command = Command::new(program);
        command.args(["guard", &mark]).env_clear();
        // Of its own group: what interrupts us must not end it before us.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Ok(Self { mark, _child: command.spawn()? })
    }

    /// Starts a guard that removes the containers of this holder; `program` is this executable, `host` where the daemon is.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn of_containers(program: &Path, holder: &str, host: Option<&str>) -> std::io::Result<Self> {
        let mut command = Command::new(program);
        // The environment says how the daemon is reached.
        command.args(["guard", "--containers", holder]);
        if let Some(host) = host {
            command.env("DOCKER_HOST", host);
        }
        // What it cannot remove it says where we would.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        Ok(Self { mark: holder.to_owned(), _child: command.spawn()? })
    }

    /// The value of [`MARK`] for a script.
    pub fn mark(&self) -> &str {
        &self.mark
    }
}

/// Waits until standard input is closed, then kills every process with the mark until there is none.
///
/// # Errors
/// When the processes cannot be listed.
pub fn stand_guard(mark: &str) -> std::io::Result<()> {
    wait_for_end();
    let variable = format!("{MARK}={mark}");
    // What a killed process had just started is found in the next round.
    while kill_marked(variable.as_bytes())? {}
    Ok(())
}

/// Waits until the process that holds the other end of standard input has ended.
pub fn wait_for_end() {
    // Nothing is ever written to it; an error means that nobody is there either.
    let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
}

/// Kills every process with the variable in its environment; true if there was one.
fn kill_marked(variable: &[u8]) -> std::io::Result<bool> {
    let mut has_killed = false;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        let Some(pid) = pid else { continue };
        // One that is dead and not collected yet has no environment any more; one of somebody else is not shown.
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|own| own == variable) {
            has_killed |= kill_process(pid, Signal::KILL).is_ok();
        }
    }
    Ok(has_killed)
}
