//! Who leaves something behind that takes the machine from others, and a stranger who does.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process};

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

#[test]
fn a_read_that_a_stranger_spoils_is_measured_again_with_fresh_prompts() {
    let mut arena = Arena::new();
    arena.serve("control", "--prefill block");
    let mut round = arena.command(8, &[]).spawn().expect("starts");
    // All processors, from the first request to the last.
    let attempt = arena.first_asked();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for _ in 0..std::thread::available_parallelism().expect("processors").get() {
            threads.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let started = std::time::Instant::now();
        while !attempt.join("requests.parquet").exists() && started.elapsed().as_secs() < 60 {
            std::thread::yield_now();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(round.wait().expect("ends").code(), Some(0));
    arena.is_judged_by_speed("control");
    arena.was_repeated("machine-not-idle");
}

#[test]
fn a_read_that_was_cut_after_its_first_request_is_not_asked_again() {
    let mut arena = Arena::new();
    arena.serve("control", "--prefill block");
    let mut round = arena.command(8, &[]).spawn().expect("starts");
    arena.first_asked();
    kill_process(Pid::from_child(&round), Signal::KILL).expect("killed");
    round.wait().expect("ends");
    let output = arena.round.output(&["resume", "r"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    arena.is_judged_by_speed("control");
    arena.was_repeated("asked-before");
}
