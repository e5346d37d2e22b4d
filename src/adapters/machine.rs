//! What machine this is: read from `/proc`, `/sys` and the GPUs' driver, believed as far as that goes.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::model::{GpuState, GpusFound, MachineFacts, MachineLook, MachineState};
use crate::ports::Machine;

mod kernel_log;
mod nvml;

/// Clock ticks per second of what the kernel tells user space: 100 on x86-64 and AArch64 (`asm-generic/param.h`).
pub(super) const USER_HZ: u64 = 100;

/// What the machine's processors have done since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    processors: u32,
    /// Time in which they had nothing to do, of all processors together. The kernel measures it; the time of work it only
    /// samples.
    idle: Duration,
}

impl Usage {
    /// As it is now.
    ///
    /// # Errors
    /// Where `/proc/stat` cannot be read or is none.
    pub fn now() -> io::Result<Self> {
        let text = std::fs::read_to_string("/proc/stat")?;
        Self::parse(&text)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/stat has no processors"))
    }

    /// From the text of `/proc/stat` (proc_stat(5)).
    fn parse(text: &str) -> Option<Self> {
        let (all, rest) = text
            .lines()
            .map(str::split_whitespace)
            .filter_map(|mut words| Some((words.next()?, words)))
            .fold((None, 0), |(all, count), (name, words)| match name.strip_prefix("cpu") {
                Some("") => (Some(words), count),
                Some(number) if number.parse::<u32>().is_ok() => (all, count + 1),
                _ => (all, count),
            });
        // user, nice, system, idle, iowait: waiting for a disk is having nothing to do.
        let fields: Vec<u64> = all?.map_while(|field| field.parse().ok()).collect();
        let idle = fields.get(3..5)?.iter().fold(0_u64, |sum, ticks| sum.saturating_add(*ticks));
        let idle = Duration::from_millis(idle.saturating_mul(1000 / USER_HZ));
        (rest > 0).then_some(Self { processors: rest, idle })
    }

    /// What was used since an earlier state, `elapsed` ago.
    pub fn since(&self, earlier: &Self, elapsed: Duration) -> Spent {
        let of = elapsed.saturating_mul(self.processors);
        Spent { used: of.saturating_sub(self.idle.saturating_sub(earlier.idle)), of }
    }
}

/// Processor time of a machine, over some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// Time in which a processor had something to do, of all processors together.
    pub used: Duration,
    /// The time of all processors.
    pub of: Duration,
}

/// How long some task of the machine waited for what others had or used, since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stalls {
    /// For memory: to be freed, or to be read again what had been dropped. None where the kernel does not say.
    pub memory: Option<Duration>,
    /// For a disk. None where the kernel does not say.
    pub io: Option<Duration>,
}

impl Stalls {
    /// As they are now, by the kernel's pressure stall information (`Documentation/accounting/psi.rst`).
    pub fn now() -> Self {
        let of = |name: &str| stalled(&std::fs::read_to_string(format!("/proc/pressure/{name}")).ok()?);
        Self { memory: of("memory"), io: of("io") }
    }
}

/// The time in which some task stalled, from the text of a file of `/proc/pressure`.
fn stalled(text: &str) -> Option<Duration> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let total = some.split_whitespace().find_map(|word| word.strip_prefix("total="))?;
    Some(Duration::from_micros(total.parse().ok()?))
}

/// Bytes of memory that can be had without swapping, as the kernel estimates; none where it does not.
pub fn available_memory() -> Option<u64> {
    available(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

/// From the text of `/proc/meminfo` (proc_meminfo(5)).
fn available(text: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    value.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Processor time that this process has used.
pub fn own_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// This machine.
pub struct ThisMachine {
    /// The library of the GPUs' driver.
    library: OsString,
    /// The library once it is loaded; one that could not be is tried again.
    driver: Mutex<Option<nvml::Driver>>,
}

impl Default for ThisMachine {
    fn default() -> Self {
        Self { library: nvml::LIBRARY.into(), driver: Mutex::default() }
    }
}

impl ThisMachine {
    /// This machine, with the library of its GPUs' driver at a path.
    pub fn with_driver(library: &Path) -> Self {
        Self { library: library.into(), driver: Mutex::default() }
    }

    /// What the driver tells, or why it tells nothing.
    fn ask<T>(&self, question: impl FnOnce(&nvml::Driver) -> T) -> Result<T, String> {
        let mut driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        if driver.is_none() {
            *driver = Some(nvml::Driver::load(&self.library)?);
        }
        driver.as_ref().map(question).ok_or_else(|| "nobody looked".to_owned())
    }
}

impl Machine for ThisMachine {
    fn look(&self) -> MachineLook {
        let gpus = self.ask(nvml::Driver::facts).unwrap_or_else(GpusFound::Unknown);
        let state = MachineState { xids: kernel_log::xids(), gpus: self.gpus() };
        MachineLook { facts: MachineFacts { gpus, ..facts() }, state }
    }

    fn gpus(&self) -> Vec<GpuState> {
        self.ask(nvml::Driver::states).unwrap_or_default()
    }
}

/// The facts of this machine but for its GPUs; what cannot be read is absent.
fn facts() -> MachineFacts {
    let field = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = |path: &str| Some(std::fs::read_to_string(path).ok()?.trim().to_owned());
    MachineFacts {
        cpu: field(&cpuinfo, "model name"),
        cpus: std::thread::available_parallelism().ok().and_then(|count| u32::try_from(count.get()).ok()),
        memory_bytes: field(&meminfo, "MemTotal")
            .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
            .map(|kib| kib.saturating_mul(1024)),
        kernel: line("/proc/sys/kernel/osrelease"),
        cpu_governor: governors(Path::new("/sys/devices/system/cpu")),
        clock_source: line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        gpus: GpusFound::default(),
    }
}

/// What sets the frequency of the processors whose folders lie in this one; none where nothing does.
fn governors(processors: &Path) -> Option<String> {
    let folders = std::fs::read_dir(processors).ok()?.filter_map(Result::ok);
    let governor = |folder: std::fs::DirEntry| {
        let found = std::fs::read_to_string(folder.path().join("cpufreq/scaling_governor")).ok()?;
        Some(found.trim().to_owned())
    };
    let found: BTreeSet<String> = folders.filter_map(governor).collect();
    (!found.is_empty()).then(|| found.into_iter().collect::<Vec<_>>().join(","))
}

/// Bytes that are free for this user on the file system of a path; none where the kernel does not say.
pub fn free_disk(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_idle_was_used() {
        let stat = |idle: u64, waiting: u64| {
            let text = format!(
                "cpu  9 0 9 {idle} {waiting} 0 9 9 0 0\ncpu0 1 1 1 1\ncpu1 1 1 1 1\nintr 5 5\ncpus 3\n"
            );
            Usage::parse(&text).expect("usage")
        };
        let second = Duration::from_secs(1);
        let spent = Spent { used: Duration::from_millis(500), of: 2 * second };
        assert_eq!(stat(100, 50).since(&stat(0, 0), second), spent);
        // The time that is waited for a disk may even go back.
        assert_eq!(stat(300, 0).since(&stat(0, 50), second).used, Duration::ZERO);
        assert_eq!(stat(0, 0).since(&stat(9, 9), second).used, 2 * second);
        for text in ["", "cpu", "cpu 1 2 3 4 5", "cpu 1 2 3\ncpu0 1", "cpu0 1 2 3 4 5"] {
            assert_eq!(Usage::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_the_kernel_says_of_memory_and_disk_is_read() {
        let text = "some avg10=1.50 avg60=0.00 avg300=0.00 total=633889\nfull avg10=0.00 total=5\n";
        assert_eq!(stalled(text), Some(Duration::from_micros(633_889)));
        for text in ["", "full avg10=0.00 total=5", "some avg10=0.00", "some total=-1", "some total=x"] {
            assert_eq!(stalled(text), None, "{text}");
        }
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        for text in ["", "MemAvailable: 5", "MemAvailable: x kB", "MemAvailable: 18446744073709551615 kB"] {
            assert_eq!(available(text), None, "{text}");
        }
    }

    #[test]
    fn this_machine_tells() {
        assert!(available_memory().is_none_or(|bytes| bytes > 0));
        let stalls = Stalls::now();
        assert!(Stalls::now().memory >= stalls.memory && Stalls::now().io >= stalls.io);
        let (usage, own) = (Usage::now().expect("usage"), own_cpu_time());
        let used = Usage::now().expect("usage").since(&usage, Duration::from_secs(1)).used;
        assert!(used > Duration::ZERO && used <= Duration::from_secs(1) * usage.processors);
        assert!(own_cpu_time() >= own);
    }
}
