//! The demo by its schedule: a tick starts it, and takes it up where it was killed.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::round::{Round, root};

fn tick(round: &Round, at: &str) -> std::process::Command {
    let mut command = round.cacheon(&["schedule", "tick"]);
    command.arg(round.dir.path().join("pipelines")).args(["--at", at]);
    command.arg("--runners").arg(round.dir.path().join("runners"));
    command
}

fn ticks(round: &Round) -> Vec<Value> {
    round.rows("SELECT outcome, reason, round_id, resumes, exit_code FROM ticks ORDER BY nominal_at_us")
}

#[test]
fn the_demo_runs_by_its_schedule_and_goes_on_after_a_kill() {
    let round = Round::new();
    let demo = std::fs::read_to_string(root().join("pipelines/demo.yml")).expect("demo");
    let scheduled = demo.replacen(
        "on:\n",
        "on:\n  schedule: [{ cron: '17 * * * *', overlap: queue, inputs: { prompts: 8 } }]\n",
        1,
    );
    std::fs::create_dir(round.dir.path().join("pipelines")).expect("a folder");
    std::fs::write(round.dir.path().join("pipelines/demo.yml"), scheduled).expect("written");

    let (mut looking, rest) = super::round::start_until(tick(&round, "2026-03-01T00:17:00Z"), "measure");
    let name = ticks(&round)[0]["round_id"].as_str().expect("a round").to_owned();
    let directory = round.data().join("rounds").join(format!("round={name}"));
    let lock = std::fs::read_to_string(directory.join("lock")).expect("a lock");
    let pid = lock.trim().parse().ok().and_then(Pid::from_raw).expect("a process");
    looking.kill().expect("killed");
    looking.wait().expect("ended");
    kill_process(pid, Signal::KILL).expect("killed");
    rest.join().expect("read");
    round.wait_until_empty();

    // The next tick waits until what the last one began is done.
    let output = tick(&round, "2026-03-01T01:17:00Z").output().expect("starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&format!("round {name} is not done and is taken up again (time 1)")), "{said}");
    assert!(said.contains("waits: a round of its pipeline is not done yet"), "{said}");
    let rows = ticks(&round);
    assert_eq!(rows.len(), 2, "{said}");
    assert_eq!((&rows[0]["outcome"], &rows[0]["resumes"]), (&"fired".into(), &1.into()), "{said}");
    // Whether it waited for more than a minute is the machine's to say.
    let second = (rows[1]["outcome"].as_str(), rows[1]["reason"].as_str());
    assert!([(Some("fired"), None), (Some("late"), Some("still-running"))].contains(&second), "{said}");
    let codes: Vec<i64> = rows.iter().map(|row| row["exit_code"].as_i64().expect("an end")).collect();
    // A machine that is too noisy to decide holds a round; that is its verdict and not the schedule's.
    assert!(codes.iter().all(|code| [0, 4].contains(code)), "{said}");
    assert_eq!(output.status.code().map(i64::from), codes.iter().max().copied(), "{said}");
    for row in &rows {
        let id = row["round_id"].as_str().expect("a round");
        assert!(
            round.data().join(format!("rounds/round={id}/jobs/measure")).exists(),
            "both have measured: {said}"
        );
    }
    round.wait_until_empty();
}
