//! The processes that one process started, theirs included, as `/proc` shows them.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, getpgrp, getpid, kill_process, kill_process_group, set_child_subreaper, wait,
};

use super::machine::USER_HZ;

/// A process of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Member {
    pid: Pid,
    group: Pid,
    /// Its own CPU time, and that of its children which have ended and were waited for.
    cpu: Duration,
}

/// CPU time that a process and all below it have used, those included that ended; the resolution is the kernel's
/// clock tick, 10 ms.
///
/// # Errors
/// When the processes cannot be listed, or there is none of that number.
pub(super) fn cpu_time(root: Pid) -> io::Result<Duration> {
    let members = members(root)?;
    if members.first().is_none_or(|first| first.pid != root) {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the process has ended"));
    }
    Ok(members.iter().map(|member| member.cpu).sum())
}

/// Whether a process runs that is neither `root` nor below it. What cannot be listed is none.
pub(super) fn is_stranger(pid: u32, root: Option<Pid>) -> bool {
    let found = root.map(members).transpose().map(Option::unwrap_or_default);
    found.is_ok_and(|members| {
        members.iter().all(|member| member.pid.as_raw_nonzero().get().cast_unsigned() != pid)
    }) && std::path::Path::new("/proc").join(pid.to_string()).exists()
}

/// From now on, a process below this one whose parent ends becomes a child of this one.
///
/// # Errors
/// Where the kernel refuses.
pub fn keep_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Kills all processes below this one and collects them, until there is none. What they start meanwhile is found too.
///
/// They must come to us when their parents end: see [`keep_orphans`]. It waits as long as the kernel takes, so
/// whoever cannot wait for ever bounds it. It collects children that others here may wait for.
///
/// # Errors
/// When the processes cannot be listed.
pub fn end_all_below() -> io::Result<()> {
    let own_group = getpgrp();
    loop {
        let members = members(getpid())?;
        for member in members.iter().filter(|member| member.pid != getpid()) {
            // A whole group at once leaves its members no time to start others. One that is gone is what was wanted.
            if member.group != own_group {
                let _ = kill_process_group(member.group, Signal::KILL);
            }
            let _ = kill_process(member.pid, Signal::KILL);
        }
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::CHILD) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
}

/// The process and all below it, the process first.
fn members(root: Pid) -> io::Result<Vec<Member>> {
    let listed = std::fs::read_dir("/proc")?.flatten().filter_map(|entry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        // One that has ended since it was listed is none; a name may be no text at all.
        let line = std::fs::read(entry.path().join("stat")).ok()?;
        Listed::parse(&String::from_utf8_lossy(&line))
    });
    Ok(below(root, listed))
}

/// A process and its parent.
struct Listed {
    parent: i32,
    member: Member,
}

impl Listed {
    /// From the line of `/proc/PID/stat` (proc_pid_stat(5)); the name, between brackets, is the process's own choice and
    /// may hold anything.
    fn parse(line: &str) -> Option<Self> {
        let pid = line.split_once(" (")?.0.parse().ok()?;
        let fields: Vec<i64> = line
            .rsplit_once(") ")?
            .1
            .split_whitespace()
            .skip(1)
            .map_while(|field| field.parse().ok())
            .collect();
        let number = |field: usize| i32::try_from(*fields.get(field)?).ok();
        // Fields 14 to 17: user and system time, its own and that of the children it has waited for.
        let ticks =
            fields.get(10..14)?.iter().map(|ticks| u64::try_from(*ticks).unwrap_or_default()).sum::<u64>();
        let cpu = Duration::from_millis(ticks.saturating_mul(1000) / USER_HZ);
        let member = Member { pid: Pid::from_raw(pid)?, group: Pid::from_raw(number(1)?)?, cpu };
        Some(Self { parent: number(0)?, member })
    }
}

/// The process `root` and all below it among those listed, parents before their children.
fn below(root: Pid, listed: impl Iterator<Item = Listed>) -> Vec<Member> {
    let mut found = Vec::new();
    let mut children: HashMap<i32, Vec<Member>> = HashMap::new();
    for Listed { parent, member } in listed {
        if member.pid == root {
            found.push(member);
        } else {
            children.entry(parent).or_default().push(member);
        }
    }
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        let below = children.remove(&parent.pid.as_raw_nonzero().get()).unwrap_or_default();
        found.extend(below);
        next += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process with 1 s of its own and 2 s of children that ended.
    fn listed(pid: i32, parent: i32, group: i32) -> Listed {
        let line =
            format!("{pid} (a) S 7 (c)) S {parent} {group} 7 0 -1 4194560 9 9 9 9 60 40 150 50 20 0 1 0 100");
        Listed::parse(&line).expect("a line")
    }

    #[test]
    fn a_tree_is_a_process_and_all_below_it_whatever_their_groups() {
        let all = [
            listed(1, 0, 1),
            listed(9, 5, 9),
            listed(5, 1, 5),
            listed(7, 9, 7),
            listed(6, 1, 5), // Of the group, and not of the tree.
            listed(8, 5, 5),
        ];
        let root = Pid::from_raw(5).expect("pid");
        let found = below(root, all.into_iter());
        let pids: Vec<i32> = found.iter().map(|member| member.pid.as_raw_nonzero().get()).collect();
        assert_eq!(pids, [5, 9, 8, 7]);
        assert_eq!(found.iter().map(|member| member.cpu).sum::<Duration>(), Duration::from_secs(12));
        assert_eq!(below(Pid::from_raw(4).expect("pid"), [listed(5, 1, 5)].into_iter()), []);
    }

    #[test]
    fn a_line_that_is_none_is_no_process() {
        for line in ["", "5", "5 (a", "5 (a) S", "5 (a) S 1 x 1", "5 (a) S 1 1 1 0 -1 0 0 0 0 0 1 1 1"] {
            assert!(Listed::parse(line).is_none(), "{line}");
        }
    }

    #[test]
    fn a_process_beside_the_tree_is_a_stranger() {
        let own = getpid();
        let number = own.as_raw_nonzero().get().cast_unsigned();
        assert!(!is_stranger(number, Some(own)));
        assert!(is_stranger(1, Some(own)));
        assert!(is_stranger(number, None));
        // Larger than any that the kernel gives (proc_sys_kernel(5), `pid_max`).
        assert!(!is_stranger(u32::MAX, Some(own)));
    }

    #[test]
    fn this_process_has_used_some_time() {
        let before = cpu_time(getpid()).expect("listed");
        let mut sum = 0_u64;
        while cpu_time(getpid()).expect("listed") < before + Duration::from_millis(30) {
            sum = (0..100_000).fold(sum, |sum, number| sum.wrapping_mul(31).wrapping_add(number));
        }
        assert_ne!(sum, 1);
    }
}
