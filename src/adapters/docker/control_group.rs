//! The processor time of a container, from its control group: the daemon would tell it too, and takes half a second of
//! collecting everything else.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the kernel shows control groups.
const ROOT: &str = "/sys/fs/cgroup";

/// Where the processor time of a control group is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ControlGroup {
    /// Version 2: `usage_usec` of `cpu.stat`.
    Unified(PathBuf),
    /// Version 1: nanoseconds in `cpuacct.usage`.
    Separate(PathBuf),
}

impl ControlGroup {
    /// That of a container's process; none where this program cannot see it, in a container of its own for example.
    pub(super) fn of(pid: u32, container: &str) -> Option<Self> {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let found = Self::parse(&groups, container)?;
        found.cpu_time().map(|_| found)
    }

    /// From the text of `/proc/PID/cgroup` (cgroups(7)); the group has the container's id in its name, or it is another's.
    fn parse(groups: &str, container: &str) -> Option<Self> {
        let lines = groups.lines().filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            rest.split_once(':')
        });
        let is_its = |path: &str| path.contains(container) && !path.split('/').any(|part| part == "..");
        let at = |folder: &str, path: &str, file: &str| {
            Path::new(ROOT).join(folder).join(path.trim_start_matches('/')).join(file)
        };
        lines.filter(|(_, path)| is_its(path)).find_map(|(controllers, path)| {
            if controllers.is_empty() {
                Some(Self::Unified(at("", path, "cpu.stat")))
            } else if controllers.split(',').any(|name| name == "cpuacct") {
                Some(Self::Separate(at("cpuacct", path, "cpuacct.usage")))
            } else {
                None
            }
        })
    }

    /// Processor time of all its processes, those that have ended included; none where the group is gone.
    pub(super) fn cpu_time(&self) -> Option<Duration> {
        match self {
            Self::Unified(path) => usage(&std::fs::read_to_string(path).ok()?),
            Self::Separate(path) => {
                Some(Duration::from_nanos(std::fs::read_to_string(path).ok()?.trim().parse().ok()?))
            }
        }
    }
}

/// The processor time in the text of `cpu.stat` (`Documentation/admin-guide/cgroup-v2.rst`).
fn usage(text: &str) -> Option<Duration> {
    let value = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
    Some(Duration::from_micros(value.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_a_container_is_found() {
        let check = |groups: &str, expected: Option<ControlGroup>| {
            assert_eq!(ControlGroup::parse(groups, "abc1"), expected, "{groups}");
        };
        check(
            "0::/system.slice/docker-abc1.scope\n",
            Some(ControlGroup::Unified("/sys/fs/cgroup/system.slice/docker-abc1.scope/cpu.stat".into())),
        );
        check(
            "9:name=systemd:/docker/abc1\n3:cpu,cpuacct:/docker/abc1\n0::/\n",
            Some(ControlGroup::Separate("/sys/fs/cgroup/cpuacct/docker/abc1/cpuacct.usage".into())),
        );
        for none in [
            "",
            "0::/",
            "0::/docker/other",
            "0::/../../docker/abc1",
            "3:memory:/docker/abc1",
            "3",
            "3:cpuacct",
        ] {
            check(none, None);
        }
        assert_eq!(ControlGroup::of(std::process::id(), "no container's id"), None);
    }

    #[test]
    fn the_time_is_read_in_both_versions() {
        assert_eq!(usage("usage_usec 1500000\nuser_usec 1\n"), Some(Duration::from_millis(1500)));
        for none in ["", "user_usec 5", "usage_usec x", "usage_usec -1"] {
            assert_eq!(usage(none), None, "{none}");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cpuacct.usage");
        let group = ControlGroup::Separate(path.clone());
        assert_eq!(group.cpu_time(), None);
        std::fs::write(&path, "2500000000\n").expect("written");
        assert_eq!(group.cpu_time(), Some(Duration::from_millis(2500)));
    }
}
