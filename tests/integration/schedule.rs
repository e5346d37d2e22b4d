//! Rounds by schedule: each tick starts one round, whoever looks and however often.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A data directory, its pipelines and nothing else: rounds of one step on the controller.
pub(super) struct Place(tempfile::TempDir);

const HOURLY: &str = "name: quick
on: { schedule: [{ cron: '0 * * * *' }] }
jobs: { a: { runs-on: controller, steps: [{ run: 'true' }] } }
";

impl Place {
    pub(super) fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("temp dir"));
        std::fs::create_dir(place.path("pipelines")).expect("a folder");
        std::fs::create_dir(place.path("runners")).expect("a folder");
        place
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn pipeline(&self, text: &str) -> &Self {
        std::fs::write(self.path("pipelines/quick.yml"), text).expect("written");
        self
    }

    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cacheon"));
        command.current_dir(self.0.path()).env_remove("CACHEON_DATA").env("NO_COLOR", "1").args(args);
        command.stdin(Stdio::null());
        command
    }

    pub(super) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the program starts")
    }

    /// Looks at an instant; gives the exit code and what was said.
    pub(super) fn tick(&self, at: &str) -> (Option<i32>, String) {
        let output = self.run(&["schedule", "tick", "--at", at]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn rounds(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("data/rounds")).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn ticks(&self) -> Vec<Value> {
        let output = self.run(&["query", "--json", "SELECT * FROM ticks ORDER BY nominal_at_us"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&text).expect("rows")
    }

    pub(super) fn outcomes(&self) -> Vec<String> {
        let word = |row: &Value| {
            let reason = row["reason"].as_str().map(|reason| format!(" {reason}")).unwrap_or_default();
            format!("{}{reason}", row["outcome"].as_str().expect("an outcome"))
        };
        self.ticks().iter().map(word).collect()
    }
}

pub(super) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "no {what} after a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_tick_makes_one_round_however_often_it_is_looked_at() {
    let place = Place::new();
    place.pipeline(HOURLY);
    let (code, said) = place.tick("2026-03-01T01:00:20Z");
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("tick 2026-03-01T01:00:00Z of quick `0 * * * *` UTC starts round quick-2026"),
        "{said}"
    );
    assert!(said.contains("is done"), "{said}");
    let (code, said) = place.tick("2026-03-01T01:00:40Z");
    assert!(
        code == Some(0) && said.contains("nothing is due: the next tick is due at 2026-03-01T02:00:00Z"),
        "{said}"
    );
    // Four hours without anybody: the newest is made up for, the others are named.
    let (code, said) = place.tick("2026-03-01T05:30:00Z");
    assert_eq!(code, Some(0), "{said}");
    let missed = "missed newer-due";
    assert_eq!(place.outcomes(), ["fired", missed, missed, missed, "late not-watched"]);
    assert_eq!(place.rounds().len(), 2);
    for (args, wanted) in [
        (["lint", "pipelines/quick.yml"], "pipelines/quick.yml: runs every hour UTC"),
        (["lint", "pipelines/quick.yml"], "L065"),
        (["plan", "pipelines/quick.yml"], "  runs every hour UTC"),
    ] {
        let output = place.run(&args);
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success() && said.concat().contains(wanted), "{args:?}: {}", said.concat());
    }
    let row = &place.ticks()[0];
    assert_eq!(
        (&row["pipeline"], &row["exit_code"], &row["resumes"]),
        (&"quick".into(), &0.into(), &0.into())
    );
    assert_eq!(format!("round={}", row["round_id"].as_str().expect("a round")), place.rounds()[0]);
}

#[test]
fn eight_that_look_at_one_instant_make_one_round() {
    let place = Place::new();
    place.pipeline(HOURLY);
    let at = "2026-03-01T01:00:20Z";
    let start =
        |_| place.command(&["schedule", "tick", "--at", at]).stderr(Stdio::piped()).spawn().expect("starts");
    let looking: Vec<Child> = (0..8).map(start).collect();
    for child in looking {
        let output = child.wait_with_output().expect("ends");
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(place.rounds().len(), 1);
    assert_eq!(place.outcomes(), ["fired"]);
}

#[test]
fn a_broken_pipeline_keeps_its_last_good_version() {
    let place = Place::new();
    place.pipeline(HOURLY).tick("2026-03-01T01:00:00Z");
    place.pipeline(&HOURLY.replace("jobs", "jbos"));
    let (code, said) = place.tick("2026-03-01T02:00:00Z");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("quick.yml` is broken, its last good version stays in force"), "{said}");
    assert!(said.contains("unknown key `jbos`"), "{said}");
    assert_eq!(place.rounds().len(), 2);
    // A schedule that is taken out is no longer watched, and what it missed is said.
    place.pipeline("name: quick\njobs: { a: { runs-on: controller, steps: [{ run: 'true' }] } }\n");
    let (_, said) = place.tick("2026-03-01T03:10:00Z");
    assert!(said.contains("no longer watching quick `0 * * * *` UTC"), "{said}");
    assert_eq!(place.outcomes(), ["fired", "fired", "missed schedule-removed"]);
}

#[test]
fn a_round_that_cannot_begin_ends_its_tick_with_its_exit_code() {
    let place = Place::new();
    place.pipeline(&HOURLY.replace("controller", "nowhere"));
    let (code, said) = place.tick("2026-03-01T01:00:00Z");
    assert_ne!(code, Some(0), "{said}");
    let row = &place.ticks()[0];
    assert_eq!(
        (row["outcome"].as_str(), row["exit_code"].as_i64()),
        (Some("fired"), code.map(i64::from)),
        "{said}"
    );
}

/// A pipeline whose round waits until a file is there.
fn gated(place: &Place) -> PathBuf {
    let gate = place.path("gate");
    let step = format!("echo $$ > {0}.pid; until [ -e {0} ]; do sleep 0.05; done", gate.display());
    place.pipeline(&HOURLY.replace("'true'", &format!("'{step}'")));
    gate
}

/// The program with the round of one o'clock, which waits for its gate.
fn looking(place: &Place, gate: &Path) -> Child {
    let mut command = place.command(&["schedule", "tick", "--at", "2026-03-01T01:00:00Z"]);
    let looking = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    wait_for("round", || gate.with_extension("pid").exists().then_some(()));
    looking
}

fn pid_of(round: &Path) -> Option<i32> {
    std::fs::read_to_string(round.join("lock")).ok()?.trim().parse().ok()
}

#[test]
fn a_round_that_was_killed_is_taken_up_before_the_next_one() {
    let place = Place::new();
    let gate = gated(&place);
    let mut looking = looking(&place, &gate);
    let round = place.path("data/rounds").join(&place.rounds()[0]);
    let pid = wait_for("holder", || pid_of(&round));
    // Both die, as in a power cut.
    looking.kill().expect("killed");
    looking.wait().expect("ended");
    kill_process(Pid::from_raw(pid).expect("a process"), Signal::KILL).expect("killed");
    wait_for("end", || {
        pid_of(&round)
            .is_none_or(|pid| {
                rustix::process::test_kill_process(Pid::from_raw(pid).expect("a process")).is_err()
            })
            .then_some(())
    });
    std::fs::write(&gate, "").expect("opened");
    let (code, said) = place.tick("2026-03-01T02:00:00Z");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("is taken up again (time 1)"), "{said}");
    assert_eq!(place.outcomes(), ["fired", "skipped still-running"], "{said}");
    assert_eq!(place.ticks()[0]["resumes"], 1);
    assert!(round.join("SEAL").exists());
}

#[test]
fn a_cancelled_round_is_not_taken_up() {
    let place = Place::new();
    let gate = gated(&place);
    let mut looking = looking(&place, &gate);
    let output = place.run(&["cancel", "latest"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(looking.wait().expect("ended").code(), Some(130));
    std::fs::write(&gate, "").expect("opened");
    let (code, said) = place.tick("2026-03-01T02:00:00Z");
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(place.outcomes(), ["fired", "fired"], "{said}");
    assert_eq!(place.rounds().len(), 2);
}

/// A daemon that is killed when it is dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // Where a test fails, it must not live on.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A daemon whose minute is a second long, since an instant.
fn daemon(place: &Place, since: &str) -> Daemon {
    let command = &["schedule", "daemon", "--rehearse", since, "--rate", "60"];
    let mut command = place.command(command);
    Daemon(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts"))
}

/// The minute that a tick is of, since the epoch.
fn minute_of(row: &Value) -> i64 {
    let at: jiff::Timestamp = row["nominal_at_us"].as_str().expect("a time").parse().expect("an instant");
    at.as_second() / 60
}

#[test]
fn daemons_that_are_killed_again_and_again_lose_no_tick_and_double_none() {
    let place = Place::new();
    place.pipeline(&HOURLY.replace("0 * * * *", "* * * * *"));
    let since = jiff::Timestamp::now().to_string();
    for turn in 0..50_u64 {
        let mut running = vec![daemon(&place, &since)];
        if turn % 5 == 0 {
            running.push(daemon(&place, &since));
        }
        std::thread::sleep(Duration::from_millis(150 + turn * 37 % 200));
        drop(running);
    }
    let rounds =
        || place.rounds().iter().all(|name| place.path("data/rounds").join(name).join("SEAL").exists());
    // A last one finishes what was left.
    let mut last = daemon(&place, &since);
    wait_for("end of all rounds", || {
        let is_settled =
            place.ticks().iter().rev().skip(1).all(|row| row["round_id"].is_null() || row["exit_code"] == 0);
        (is_settled && rounds()).then_some(())
    });
    let pid = Pid::from_child(&last.0);
    kill_process(pid, Signal::TERM).expect("told");
    assert_eq!(last.0.wait().expect("ended").code(), Some(130));
    let ticks = place.ticks();
    let minutes: Vec<i64> = ticks.iter().map(minute_of).collect();
    let expected: Vec<i64> = (minutes[0]..).take(minutes.len()).collect();
    assert_eq!(minutes, expected, "each minute once, and none left out");
    let mut of_round: BTreeMap<&str, u32> = BTreeMap::new();
    for row in &ticks {
        if let Some(round) = row["round_id"].as_str() {
            *of_round.entry(round).or_default() += 1;
        }
    }
    assert!(of_round.values().all(|count| *count == 1), "{of_round:?}");
    assert_eq!(of_round.len(), place.rounds().len(), "no round without its tick");
    assert!(of_round.len() >= 3, "{ticks:?}");
}

#[test]
fn a_round_knows_its_tick_and_the_inputs_of_its_schedule() {
    let place = Place::new();
    let schedule = "[{ cron: '0 * * * *', timezone: Europe/Berlin, inputs: { stakes: high } }]";
    place.pipeline(&format!(
        "name: quick
run-name: ${{{{ tick.at }}}} by ${{{{ run.trigger }}}}
on:
  schedule: {schedule}
  dispatch: {{ inputs: {{ stakes: {{ type: string, required: true }} }} }}
env: {{ SEEN: '${{{{ inputs.stakes }}}} ${{{{ tick.cron }}}} ${{{{ tick.timezone }}}}' }}
jobs: {{ a: {{ runs-on: controller, steps: [{{ run: 'echo \"$SEEN\" > {}' }}] }} }}
",
        place.path("seen").display()
    ));
    let (code, said) = place.tick("2026-03-01T01:00:00Z");
    assert_eq!(code, Some(0), "{said}");
    let seen = std::fs::read_to_string(place.path("seen")).expect("written");
    assert_eq!(seen, "high 0 * * * * Europe/Berlin\n");
    let listed = place.run(&["rounds", "--json"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("2026-03-01T01:00:00Z by schedule"));
    // It is done again with what it knew.
    let audited = place.run(&["audit", "latest"]);
    assert!(audited.status.success(), "{}", String::from_utf8_lossy(&audited.stderr));

    let status = place.run(&["schedule", "status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    let lane = &status["pipelines"][0];
    assert_eq!((&lane["pipeline"], &lane["last"]["exit_code"]), (&"quick".into(), &0.into()), "{status}");
    assert_eq!(lane["schedules"][0]["next"], "2026-03-01T02:00:00Z");
    // What the round would lack is seen before anything runs.
    place.pipeline(&HOURLY.replace("on: {", "on: { dispatch: { inputs: { stakes: { required: true } } },"));
    let linted = place.run(&["lint", "pipelines/quick.yml"]);
    let said =
        String::from_utf8_lossy(&linted.stderr).into_owned() + &String::from_utf8_lossy(&linted.stdout);
    assert!(linted.status.code() == Some(3) && said.contains("L062"), "{said}");
}

#[test]
fn somebody_is_told_of_a_round_that_is_not_done() {
    let place = Place::new();
    let told = place.path("told");
    let script = format!(
        "echo \"$CACHEON_PIPELINE $CACHEON_ROUND $CACHEON_EXIT_CODE: $CACHEON_EVENT\" >> {}",
        told.display()
    );
    let text = HOURLY.replace("on: {", &format!("on: {{ failure: {{ run: '{script}' }},"));
    place.pipeline(&text);
    assert_eq!(place.tick("2026-03-01T01:00:00Z").0, Some(0));
    assert!(!told.exists(), "what is done needs no telling");
    place.pipeline(&text.replace("'true'", "'false'"));
    let (code, said) = place.tick("2026-03-01T02:00:00Z");
    assert_eq!(code, Some(4), "{said}");
    let heard = std::fs::read_to_string(&told).expect("told");
    let round = place.ticks()[1]["round_id"].as_str().expect("a round").to_owned();
    assert_eq!(heard, format!("quick {round} 4: round {round} has ended with exit code 4\n"));
    // A script that fails is no secret, and ends nothing.
    place.pipeline(&text.replace("'true'", "'false'").replace("echo", "nonsense"));
    let (_, said) = place.tick("2026-03-01T03:00:00Z");
    assert!(said.contains("`on.failure` of `quick` told nobody: exit status: 127"), "{said}");
    let linted = place
        .pipeline(&text.replace("$CACHEON_EVENT", "${{ run.id }}"))
        .run(&["lint", "pipelines/quick.yml"]);
    assert_eq!(linted.status.code(), Some(3));
}
