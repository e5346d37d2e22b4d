//! What becomes of containers whose program ends before they do, and of a second program that comes meanwhile.

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use cacheon::pipeline::runner::Limits;
use rustix::process::{Pid, Signal, kill_process};

use super::bench::{Bench, Test};
use super::round::start_until;
use super::rounds::{Arena, BUSY};

pub(crate) const TESTS: &[Test] = &[
    ("left::a_program_that_is_killed_leaves_no_container", killed),
    ("left::what_its_guard_left_too_is_removed_by_who_comes_next", guard_killed),
    ("left::two_interrupts_at_once_leave_nothing", interrupted_twice),
    ("left::rounds_of_one_engine_run_one_after_the_other", two_rounds),
    ("left::a_daemon_that_is_killed_costs_nobody_anything", daemon_killed),
    ("left::nobody_is_blamed_for_what_ended_with_the_daemon", daemon_and_container_killed),
];

const SOON: Duration = Duration::from_mins(1);

/// Waits until it is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < SOON, "{what}: not within {SOON:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A round that boots its first server.
fn arena(bench: &'static Bench) -> Arena {
    let mut arena = Arena::new(bench);
    arena.commit("honest", &["/bin/cacheon", "reference", "serve", "--prefill", "block"]);
    arena.prepare(BUSY);
    arena
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("pid")).expect("pid");
    kill_process(pid, signal).expect("signal");
}

/// The processes that guard containers.
fn guards() -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").expect("processes").flatten();
    let is_guard = |path: &Path| {
        let words = std::fs::read(path.join("cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).skip(1).take(2).eq([&b"guard"[..], b"--containers"])
    };
    entries
        .filter(|entry| is_guard(&entry.path()))
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

impl Arena {
    /// Starts the round and waits until it has a container.
    fn start(&self) -> (Child, std::thread::JoinHandle<String>) {
        let started = start_until(self.command(2), "measure: ");
        until("a container", || !self.containers().is_empty());
        started
    }
}

fn killed(bench: &'static Bench) {
    let arena = arena(bench);
    let (mut child, rest) = arena.start();
    signal(&child, Signal::KILL);
    child.wait().expect("ends");
    until("removed", || arena.containers().is_empty());
    rest.join().expect("stderr");
    // And the round goes on.
    let resumed = arena.again(&["resume", "r"]).output().expect("starts");
    let words = String::from_utf8_lossy(&resumed.stderr);
    assert_eq!(resumed.status.code(), Some(0), "{words}");
    assert!(arena.containers().is_empty());
    assert!(!arena.row("honest")["standing"].is_null());
}

fn guard_killed(bench: &'static Bench) {
    let arena = arena(bench);
    let (mut child, rest) = arena.start();
    for guard in guards() {
        kill_process(guard, Signal::KILL).expect("signal");
    }
    signal(&child, Signal::KILL);
    child.wait().expect("ends");
    rest.join().expect("stderr");
    until("no job any more", || guards().is_empty());
    assert!(!arena.containers().is_empty(), "nobody was there to remove it");
    let mut doctor = arena.again(&["doctor", "--json"]);
    let doctor =
        doctor.arg("--runners").arg(arena.round.dir.path().join("runners")).output().expect("starts");
    let found: serde_json::Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    let findings = found["findings"].as_array().expect("findings");
    let left = findings.iter().find(|finding| finding["check"] == "containers");
    let mend = left.and_then(|left| left["mend"].as_str()).unwrap_or_default();
    assert!(mend.starts_with("docker rm -f cacheon-r-"), "{found:#}");

    let mut next = bench.opponent(&["sleep"], Limits::default());
    assert!(arena.containers().is_empty(), "a launch removes what nobody holds");
    next.stop(Duration::from_secs(1));
}

fn interrupted_twice(bench: &'static Bench) {
    let arena = arena(bench);
    let (mut child, rest) = arena.start();
    signal(&child, Signal::INT);
    signal(&child, Signal::INT);
    let status = child.wait().expect("ends");
    let left = arena.containers();
    let words = rest.join().expect("stderr");
    assert!(left.is_empty(), "{left:?} when this was said: {words}");
    assert_eq!(status.code(), Some(130), "{words}");
}

fn two_rounds(bench: &'static Bench) {
    let first = arena(bench);
    let (mut running, rest) = first.start();
    // What the other one's data directory is, is no matter.
    let second = first.command_at(&first.round.dir.path().join("other"), 2);
    let (mut waiting, waits) = start_until(second, "WAITS");
    signal(&waiting, Signal::INT);
    assert_eq!(waiting.wait().expect("ends").code(), Some(130));
    let words = waits.join().expect("stderr");
    assert!(words.contains("round r of") && words.contains(&bench.docker_host), "{words}");
    signal(&running, Signal::INT);
    assert_eq!(running.wait().expect("ends").code(), Some(130));
    let words = rest.join().expect("stderr");
    assert!(first.containers().is_empty(), "{words}");
}

impl Arena {
    /// Starts the round and waits until the submission is measured.
    fn measure(&self) -> (Child, std::thread::JoinHandle<String>) {
        let started = self.start();
        let jobs = self.round.data().join("rounds/round=r/jobs/measure");
        until("a submission's read", || {
            let legs = std::fs::read_dir(&jobs).into_iter().flatten().flatten();
            legs.into_iter().any(|leg| leg.path().join("attempt-1/asked.json").exists())
        });
        started
    }

    /// The submission's reads: how each ended, and whose fault that was.
    fn reads(&self) -> Vec<String> {
        let sql = "SELECT status, fault, reason, detail FROM reads WHERE arm = 'candidate' ORDER BY read_key";
        self.round.rows(sql).iter().map(ToString::to_string).collect()
    }
}

/// Kills the daemon, which is started anew at once.
fn kill_daemon(bench: &Bench) {
    let pid = bench.daemon().parse().ok().and_then(Pid::from_raw).expect("a process");
    kill_process(pid, Signal::KILL).expect("signal");
}

fn daemon_killed(bench: &'static Bench) {
    let arena = arena(bench);
    let (mut child, rest) = arena.measure();
    kill_daemon(bench);
    let status = child.wait().expect("ends");
    let words = rest.join().expect("stderr");
    assert_eq!(status.code(), Some(0), "{words}");
    // A container lives on without its daemon, and nothing that is measured passes by that.
    assert!(arena.reads().iter().all(|read| read.contains("\"measured\"")), "{:?}", arena.reads());
    until("removed", || arena.containers().is_empty());
}

fn daemon_and_container_killed(bench: &'static Bench) {
    let arena = arena(bench);
    let (mut child, rest) = arena.measure();
    let servers: Vec<Pid> = arena.containers().iter().filter_map(|id| bench.process(id)).collect();
    assert!(!servers.is_empty());
    kill_daemon(bench);
    for server in servers {
        kill_process(server, Signal::KILL).expect("signal");
    }
    let status = child.wait().expect("ends");
    let words = rest.join().expect("stderr");
    let reads = arena.reads();
    assert!(
        reads[0].contains("\"container-engine\"") && reads[0].contains("\"infra\""),
        "{reads:?}: {words}"
    );
    // It has been asked, so it is measured again with other prompts.
    assert!(reads[1].contains("\"measured\""), "{reads:?}: {words}");
    assert_eq!(status.code(), Some(0), "{words}");
    until("removed", || arena.containers().is_empty());
}
