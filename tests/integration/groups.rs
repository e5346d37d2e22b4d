//! Concurrency groups: rounds of one group run one after another, or the newest takes the place of the others.

use std::fs::{self, File};
use std::process::{Child, Stdio};

use serde_json::Value;

use super::schedule::{Place, wait_for};

/// A pipeline whose rounds run until a file of their name is there.
fn gated(concurrency: &str) -> Place {
    let place = Place::new();
    place.pipeline(&format!(
        "name: quick
concurrency: {concurrency}
on:
  schedule: [{{ cron: '0 * * * *' }}]
  dispatch: {{ inputs: {{ which: {{ type: string, default: a }} }} }}
jobs:
  a:
    runs-on: controller
    steps:
      - env: {{ ROUND: '${{{{ run.id }}}}', PLACE: '{}' }}
        run: |
          echo \"$ROUND\" >> \"$PLACE/ran\"
          until [ -e \"$PLACE/$ROUND.open\" ] || [ -e \"$PLACE/all.open\" ]; do sleep 0.05; done
",
        place.path("").display()
    ));
    place
}

/// The program with a round; killed when it is dropped.
struct Running(Child);

impl Running {
    fn end(&mut self) -> Option<i32> {
        self.0.wait().expect("ended").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start(place: &Place, round: &str, args: &[&str]) -> Running {
    let said = File::create(place.path(&format!("{round}.said"))).expect("a file");
    let mut command = place.command(args);
    Running(command.stdout(Stdio::null()).stderr(said).spawn().expect("starts"))
}

/// Starts a round, and waits until it is in this state.
fn run(place: &Place, round: &str, state: &str, args: &[&str]) -> Running {
    let running = start(place, round, &[&["run", "pipelines/quick.yml", "--round", round], args].concat());
    comes_to(place, round, state);
    running
}

fn comes_to(place: &Place, round: &str, state: &str) -> Value {
    wait_for(&format!("{round} that is {state}: {}", said(place, round)), || {
        // A round that runs has said so itself.
        let has_begun = state != "running" || ran(place).iter().any(|name| name == round);
        summary(place, round).filter(|summary| summary["state"] == state && has_begun)
    })
}

fn summary(place: &Place, round: &str) -> Option<Value> {
    let output = place.run(&["rounds", "--json"]);
    let rounds: Vec<Value> = serde_json::from_slice(&output.stdout).ok()?;
    rounds.into_iter().find(|summary| summary["round_id"] == round)
}

fn ran(place: &Place) -> Vec<String> {
    let text = fs::read_to_string(place.path("ran")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn open(place: &Place, name: &str) {
    fs::write(place.path(&format!("{name}.open")), "").expect("opened");
}

fn said(place: &Place, round: &str) -> String {
    fs::read_to_string(place.path(&format!("{round}.said"))).unwrap_or_default()
}

#[test]
fn rounds_of_a_group_run_in_the_order_they_came() {
    let place = gated("{ group: machine, queue: max }");
    let mut first = run(&place, "first", "running", &[]);
    let mut second = run(&place, "second", "waiting", &[]);
    let mut third = run(&place, "third", "waiting", &[]);
    assert_eq!(comes_to(&place, "third", "waiting")["waits_for"], "first");
    open(&place, "first");
    assert_eq!(first.end(), Some(0), "{}", said(&place, "first"));
    comes_to(&place, "second", "running");
    comes_to(&place, "third", "waiting");
    // Its turn ends with its process, however that ends.
    second.0.kill().expect("killed");
    second.end();
    comes_to(&place, "third", "running");
    open(&place, "all");
    assert_eq!(third.end(), Some(0), "{}", said(&place, "third"));
    assert_eq!(ran(&place), ["first", "second", "third"]);
    assert!(said(&place, "third").contains("WAITS  for round first of the concurrency group `machine`"));
    let output = place.run(&["resume", "second"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let left: Vec<String> = fs::read_dir(place.path("data/groups"))
        .expect("groups")
        .flatten()
        .flat_map(|group| fs::read_dir(group.path()).expect("a group").flatten())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(left, ["lock"]);
}

#[test]
fn of_the_rounds_that_wait_the_newest_stays() {
    let place = gated("Machine");
    let mut first = run(&place, "first", "running", &[]);
    let mut second = run(&place, "second", "waiting", &[]);
    let mut third = run(&place, "third", "waiting", &[]);
    assert_eq!(second.end(), Some(130), "{}", said(&place, "second"));
    assert!(
        said(&place, "second").contains("round third of the same concurrency group took its place"),
        "{}",
        said(&place, "second")
    );
    open(&place, "all");
    assert_eq!(first.end(), Some(0), "{}", said(&place, "first"));
    assert_eq!(third.end(), Some(0), "{}", said(&place, "third"));
    assert_eq!(ran(&place), ["first", "third"]);
}

#[test]
fn rounds_of_other_groups_do_not_wait() {
    let place = gated("'machine-${{ inputs.which }}'");
    let mut first = run(&place, "first", "running", &["-i", "which=a"]);
    let mut other = run(&place, "other", "running", &["-i", "which=b"]);
    // As on GitHub, the case of a letter makes no other group.
    let mut second = run(&place, "second", "waiting", &["-i", "which=A"]);
    open(&place, "all");
    for running in [&mut first, &mut other, &mut second] {
        assert_eq!(running.end(), Some(0));
    }
}

#[test]
fn a_new_round_can_take_the_place_of_the_running_one() {
    let place = gated("{ group: machine, cancel-in-progress: true }");
    let mut looking = start(&place, "tick", &["schedule", "tick", "--at", "2026-03-01T01:00:00Z"]);
    let first = wait_for("round", || ran(&place).pop());
    let mut second = run(&place, "second", "running", &[]);
    assert_eq!(looking.end(), Some(130), "{}", said(&place, "tick"));
    assert_eq!(summary(&place, &first).expect("a round")["state"], "cancelled");
    // What goes on is older than the round that runs, and waits for it.
    let mut again = start(&place, &first, &["resume", &first]);
    comes_to(&place, &first, "waiting");
    let mut third = run(&place, "third", "running", &[]);
    assert_eq!(second.end(), Some(130), "{}", said(&place, "second"));
    assert_eq!(again.end(), Some(130), "{}", said(&place, &first));
    open(&place, "all");
    assert_eq!(third.end(), Some(0), "{}", said(&place, "third"));
    // Nobody takes up what a newer round put out.
    let (code, said) = place.tick("2026-03-01T02:00:00Z");
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(place.outcomes(), ["fired", "fired"], "{said}");
    assert_eq!(summary(&place, &first).expect("a round")["state"], "cancelled");
}

#[test]
fn a_tick_whose_round_waits_too_long_for_its_group_is_given_up() {
    let place = gated("machine");
    let text = fs::read_to_string(place.path("pipelines/quick.yml")).expect("a pipeline");
    place.pipeline(&text.replace("'0 * * * *' }", "'0 * * * *', deadline: 30m }"));
    let mut first = run(&place, "first", "running", &[]);
    let mut looking = start(&place, "tick", &["schedule", "tick", "--at", "2026-03-01T01:00:00Z"]);
    wait_for("round that waits", || {
        let output = place.run(&["rounds", "--json"]);
        let rounds: Vec<Value> = serde_json::from_slice(&output.stdout).ok()?;
        rounds.iter().any(|summary| summary["state"] == "waiting").then_some(())
    });
    let (_, said) = place.tick("2026-03-01T01:31:00Z");
    assert!(said.contains("its deadline passed while it waited for its concurrency group"), "{said}");
    assert_eq!(looking.end(), Some(130));
    open(&place, "all");
    assert_eq!(first.end(), Some(0));
    assert_eq!(ran(&place), ["first"]);
}
