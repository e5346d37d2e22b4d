//! What machine this is: read from `/proc`, believed as far as that goes.

use crate::ports::MachineFacts;

/// Reads the facts of this machine; what cannot be read is absent.
pub fn facts() -> MachineFacts {
    let field = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    MachineFacts {
        cpu: field(&cpuinfo, "model name"),
        cpus: std::thread::available_parallelism().ok().and_then(|count| u32::try_from(count.get()).ok()),
        memory_bytes: field(&meminfo, "MemTotal")
            .and_then(|text| text.split(' ').next()?.parse::<i64>().ok())
            .map(|kib| kib * 1024),
    }
}
