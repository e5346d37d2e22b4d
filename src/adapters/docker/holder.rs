//! Who holds a container: an engine of the process that started it, named so that whoever comes later can tell whether that
//! process still runs.

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

/// Engines that this process has named so far.
static ENGINES: AtomicU32 = AtomicU32::new(0);

/// An engine of a process of a machine, and of no later process with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The kernel's id of the machine's run since it was booted.
    boot: String,
    /// The namespace in which the number means this process.
    namespace: String,
    pid: u32,
    /// When it was started, in clock ticks since the boot.
    started: u64,
    /// Which engine of the process.
    engine: u32,
}

/// Whether a holder still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It runs.
    Alive,
    /// It has ended.
    Dead,
    /// Its number means nothing here: it is in another namespace of processes.
    Unknown,
}

impl Holder {
    /// A new engine of this process.
    ///
    /// # Errors
    /// When the kernel does not say which process this is: without `/proc`.
    pub fn new() -> io::Result<Self> {
        Ok(Self { engine: ENGINES.fetch_add(1, Ordering::Relaxed), ..Self::own()? })
    }

    /// This process, as its first engine.
    fn own() -> io::Result<Self> {
        let pid = std::process::id();
        let started = started(pid).ok_or_else(|| io::Error::other("/proc does not list this process"))?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let namespace = std::fs::read_link("/proc/self/ns/pid")?;
        let namespace = namespace.to_string_lossy();
        let number = namespace.trim_start_matches("pid:[").trim_end_matches(']');
        Ok(Self { boot: boot.trim().to_owned(), namespace: number.to_owned(), pid, started, engine: 0 })
    }

    /// Whether its process still runs, as this one sees it.
    ///
    /// # Errors
    /// As [`Holder::new`].
    pub fn life(&self) -> io::Result<Life> {
        Ok(self.life_beside(&Self::own()?, started(self.pid)))
    }

    /// Whether it still runs, where `own` asks, and the process with its number here was started then.
    fn life_beside(&self, own: &Self, started: Option<u64>) -> Life {
        if self.boot != own.boot {
            return Life::Dead;
        }
        if self.namespace != own.namespace {
            return Life::Unknown;
        }
        if started == Some(self.started) { Life::Alive } else { Life::Dead }
    }
}

/// When the process of this number was started; none where it has ended, though nobody may have heard of it yet.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The name stands in brackets and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

/// Whether the process of this number has ended, or is about to: the first one of a container gives its namespaces up, and then waits
/// for the others to end.
pub(super) fn has_ended(pid: u32) -> bool {
    let network = std::fs::read_link(Path::new("/proc").join(pid.to_string()).join("ns/net"));
    started(pid).is_none() || network.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { boot, namespace, pid, started, engine } = self;
        write!(f, "{boot}/{namespace}/{pid}/{started}/{engine}")
    }
}

impl FromStr for Holder {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('/');
        let mut next = || parts.next().filter(|part| !part.is_empty()).ok_or(());
        let (boot, namespace) = (next()?.to_owned(), next()?.to_owned());
        let pid = next()?.parse().map_err(drop)?;
        let started = next()?.parse().map_err(drop)?;
        let engine = next()?.parse().map_err(drop)?;
        if parts.next().is_some() {
            return Err(());
        }
        Ok(Self { boot, namespace, pid, started, engine })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(text: &str) -> Holder {
        text.parse().unwrap_or_else(|()| panic!("`{text}` is one"))
    }

    #[test]
    fn this_process_is_alive_and_reads_back() {
        let own = Holder::new().unwrap();
        assert_eq!(own.life().unwrap(), Life::Alive);
        assert_eq!(holder(&own.to_string()), own);
        assert_ne!(Holder::new().unwrap(), own);
    }

    #[test]
    fn one_that_has_ended_is_dead() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let own = Holder::own().unwrap();
        let ended = Holder { pid: child.id(), started: started(child.id()).unwrap_or_default(), ..own };
        child.wait().unwrap();
        assert!(has_ended(child.id()) && !has_ended(std::process::id()));
        assert_eq!(ended.life().unwrap(), Life::Dead);
    }

    #[test]
    fn a_number_means_a_process_only_where_and_when_it_was_given() {
        let own = holder("a/1/10/100/0");
        let life = |text: &str, started| holder(text).life_beside(&own, started);
        assert_eq!(life("a/1/7/70/0", Some(70)), Life::Alive);
        assert_eq!(life("a/1/7/70/0", Some(71)), Life::Dead, "a later process has its number");
        assert_eq!(life("a/1/7/70/0", None), Life::Dead);
        assert_eq!(life("b/1/7/70/0", Some(70)), Life::Dead, "the machine was booted since");
        assert_eq!(life("a/2/7/70/0", Some(70)), Life::Unknown);
        for text in ["", "a/1/7", "a/1/7/70/", "a/1/seven/70/0", "a/1/7/-1", "//7/70/0"] {
            assert!(text.parse::<Holder>().is_err(), "{text}");
        }
    }
}
