//! Who leaves something behind that takes the machine from others, and a stranger who does.

use std::process::{Command, Stdio};

use super::arena::Arena;

/// Burns a processor from a session of its own, without a parent and without an environment.
const SURVIVOR: &str = "(setsid env -i PATH=$PATH bash -c 'trap \"\" TERM HUP; while :; do :; done' &)";

#[test]
fn what_a_submission_leaves_behind_is_gone_before_the_next_read() {
    let mut arena = Arena::new();
    arena.serve("control", "--prefill block --speculate 5 --history 2048");
    arena.script("survivor", SURVIVOR);
    let output = arena.run(8, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    arena.is_judged_by_speed("control");
    let void = arena.round.rows("SELECT read_key, reason, detail FROM reads WHERE status <> 'measured'");
    assert!(void.is_empty(), "{void:?}");
    arena.round.wait_until_empty();
}

#[test]
fn a_machine_that_others_use_measures_nothing_and_blames_nobody() {
    let mut arena = Arena::new();
    arena.serve("control", "--prefill block");
    let processors = std::thread::available_parallelism().expect("processors").get();
    let mut strangers: Vec<_> = (0..processors)
        .map(|_| {
            let mut command = Command::new("bash");
            command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
            command.spawn().expect("a stranger")
        })
        .collect();
    let output = arena.run(8, &[("max-foreign-cpu: 0.2", "max-foreign-cpu: 0.2\n          idle-within: 1s")]);
    for stranger in &mut strangers {
        stranger.kill().expect("killed");
        stranger.wait().expect("ended");
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    arena.check("control", "held", "machine-not-idle");
    let detail = arena.verdict("control").detail;
    assert!(detail.contains("of this machine's processors before the read"), "{detail}");
    assert!(arena.verdict("control").share == 0.0);
    assert!(stderr.contains("machine-not-idle") || output.status.code() == Some(0), "{stderr}");
}

/// The time in which something waited for a disk, microseconds; none where the kernel does not say.
fn disk_stall() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/pressure/io").ok()?;
    text.lines().next()?.rsplit_once("total=")?.1.parse().ok()
}

#[test]
fn a_machine_whose_disk_others_use_measures_nothing_and_blames_nobody() {
    let mut arena = Arena::new();
    arena.serve("control", "--prefill block");
    let script = "while :; do dd if=/dev/zero of=\"$0\" bs=1M count=4 conv=fsync 2>/dev/null; done";
    let file = arena.round.dir.path().join("stranger");
    let mut command = Command::new("bash");
    command.args(["-c", script]).arg(&file).stdin(Stdio::null());
    let mut stranger = command.spawn().expect("a stranger");
    let end = |stranger: &mut std::process::Child| {
        stranger.kill().expect("killed");
        stranger.wait().expect("ended");
    };
    // Whether this is a disk at all, and the kernel says so.
    let before = disk_stall();
    std::thread::sleep(std::time::Duration::from_secs(2));
    let stalled = disk_stall().zip(before).map_or(0, |(after, before)| after - before);
    if stalled < 500_000 {
        end(&mut stranger);
        eprintln!("skipped: the disk here stalls for {stalled} us of 2 s, or the kernel does not say");
        return;
    }
    let edits = [("max-foreign-cpu: 0.2", "max-foreign-cpu: 1\n          idle-within: 1s")];
    let output = arena.run(8, &[edits[0], ("max-stall: 0.5", "max-stall: 0.1")]);
    end(&mut stranger);
    let stderr = String::from_utf8_lossy(&output.stderr);
    arena.check("control", "held", "machine-not-idle");
    let detail = arena.verdict("control").detail;
    assert!(
        detail.contains("waited for a disk in") && detail.contains("before the read"),
        "{detail}\n{stderr}"
    );
}
