//! Stopping a round at any time leaves no process behind, and the next one starts cleanly.

use rustix::process::{Pid, Signal, kill_process};

use super::round::{Round, start_until};

fn signal(child: &std::process::Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("pid")).expect("pid");
    kill_process(pid, signal).expect("signal");
}

/// Interrupts a round once it has said `sign`; returns what it said.
fn check(sign: &str, by: Signal) -> String {
    let round = Round::new();
    let (mut child, rest) = start_until(round.run_demo(&["--seed", "1", "-i", "prompts=4"]), sign);
    signal(&child, by);
    let status = child.wait().expect("wait");
    let said = rest.join().expect("stderr");
    round.wait_until_empty();
    match by {
        Signal::KILL => assert_eq!(status.code(), None, "{said}"),
        _ => assert_eq!(status.code(), Some(130), "{said}"),
    }
    // What was written is whole: the round can be listed and shown.
    for args in [&["rounds"][..], &["show"], &["show", "--json"]] {
        let output = round.output(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(
        !round
            .data()
            .join("rounds")
            .read_dir()
            .expect("rounds")
            .next()
            .expect("a round")
            .expect("entry")
            .path()
            .join("SEAL")
            .exists()
    );
    said
}

#[test]
fn ctrl_c_at_the_start() {
    check("round demo-", Signal::INT);
}

#[test]
fn ctrl_c_while_a_server_is_measured() {
    check("measure: ", Signal::INT);
}

#[test]
fn ctrl_c_between_two_reads() {
    let said = check("measure[0000", Signal::INT);
    assert!(said.contains("interrupted"), "{said}");
}

#[test]
fn terminate_is_as_good_as_ctrl_c() {
    check("measure[0001", Signal::TERM);
}

#[test]
fn a_killed_round_takes_its_servers_along() {
    check("measure[0000", Signal::KILL);
}

#[test]
fn a_round_of_the_same_name_is_not_overwritten_and_another_starts_cleanly() {
    let round = Round::new();
    let (mut child, rest) = start_until(round.run_demo(&["--round", "a", "-i", "prompts=4"]), "measure: ");
    signal(&child, Signal::KILL);
    child.wait().expect("wait");
    rest.join().expect("stderr");
    let again = round.run_demo(&["--round", "a"]).output().expect("starts");
    assert_eq!(again.status.code(), Some(4), "{}", String::from_utf8_lossy(&again.stderr));
    let (mut child, rest) = start_until(round.run_demo(&["--round", "b", "-i", "prompts=4"]), "measure[0001");
    signal(&child, Signal::INT);
    assert_eq!(child.wait().expect("wait").code(), Some(130));
    rest.join().expect("stderr");
    round.wait_until_empty();
}
