use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::{Action, AttemptEnd, AttemptOrder, Event, Placement, RunnerSlot, Scheduler, SchedulerSettings};
use crate::artifact::{JournalEvent, RoundState};
use crate::model::{Conclusion, Fault, Reason, Seed};
use crate::pipeline::contexts::{ContextName, KnownContexts};
use crate::pipeline::expr::Object;
use crate::pipeline::{Pipeline, Source};

/// The runners of every world.
fn slots() -> Vec<RunnerSlot> {
    vec![RunnerSlot { name: "box".to_owned(), labels: vec!["local".to_owned()], capacity: 2 }]
}

/// A world without sockets: answers every attempt by a rule and keeps what the scheduler said.
struct World {
    scheduler: Scheduler,
    running: Vec<AttemptOrder>,
    waiting: Vec<(usize, usize)>,
    log: Vec<String>,
    most_running: usize,
    is_over: bool,
}

impl World {
    fn new(yaml: &str, seed: &str) -> Self {
        let pipeline = Pipeline::parse(&Source::new("test.yml", yaml))
            .unwrap_or_else(|found| panic!("{}", found.render(crate::pipeline::Color::Never)))
            .value;
        let settings = SchedulerSettings {
            pipeline: Arc::new(pipeline),
            contexts: KnownContexts::default()
                .with(ContextName::Inputs, Object::new())
                .with(ContextName::Env, Object::new().with("PLACE", "box"))
                .with(ContextName::Run, Object::new().with("id", "r")),
            seed: Seed::from_text(seed),
            runners: slots(),
            history: RoundState::default(),
        };
        Self {
            scheduler: Scheduler::new(settings),
            running: Vec::new(),
            waiting: Vec::new(),
            log: Vec::new(),
            most_running: 0,
            is_over: false,
        }
    }

    fn send(&mut self, event: Event) {
        for action in self.scheduler.on_event(event) {
            assert!(!self.is_over, "nothing happens after the end: {action:?}");
            match action {
                Action::StartAttempt(order) => {
                    self.log.push(format!("start {}[{}] {}", order.job, order.at.leg, order.at.attempt));
                    self.running.push(*order);
                }
                Action::WaitForRetry { job, leg, .. } => self.waiting.push((job, leg)),
                Action::StopLegs { job } => self.log.push(format!("stop {job}")),
                Action::Record(event) => {
                    if let JournalEvent::JobEnded { job, conclusion, .. } = *event {
                        self.log.push(format!("{job} {conclusion}"));
                    }
                }
                Action::EndRound => self.is_over = true,
            }
        }
        self.most_running = self.most_running.max(self.running.len());
    }

    fn end(
        &mut self,
        order: &AttemptOrder,
        (conclusion, fault): (Conclusion, Fault),
        outputs: Map<String, Json>,
    ) {
        // A rule that says so in its outputs means a failure that cannot be tried again.
        let is_final = outputs.contains_key("is_final");
        let reason = (conclusion != Conclusion::Success)
            .then(|| Reason { is_final, ..Reason::new(fault, "test", "as told") });
        let end = AttemptEnd { conclusion, reason, outputs, started_at_us: 0 };
        self.send(Event::AttemptEnded { job: order.job, leg: order.leg, end });
    }

    /// Runs to the end, oldest attempt first; `rule` says how each ends.
    fn run(mut self, mut rule: impl FnMut(&AttemptOrder) -> (Conclusion, Fault, Json)) -> Self {
        self.send(Event::Started);
        for _ in 0..10_000 {
            if !self.running.is_empty() {
                let order = self.running.remove(0);
                let (conclusion, fault, outputs) = rule(&order);
                let Json::Object(outputs) = outputs else { panic!("outputs are an object") };
                self.end(&order, (conclusion, fault), outputs);
            } else if let Some((job, leg)) = self.waiting.pop() {
                self.send(Event::RetryDue { job, leg });
            } else {
                break;
            }
        }
        assert!(self.is_over, "the round comes to its end: {:#?}", self.log);
        self
    }
}

const ROUND: &str = "
jobs:
  plan:
    outputs:
      reads: { type: json, value: '${{ steps.p.outputs.reads }}' }
    steps:
      - { id: p, run: 'true' }
  measure:
    needs: plan
    runs-on: box
    strategy:
      matrix:
        read: ${{ needs.plan.outputs.reads }}
      key: ${{ matrix.read.key }}
      sequence: ${{ matrix.read.block }}
      allow-empty: true
    retry: { max: 1, on: [infra] }
    steps:
      - run: 'true'
  rank:
    needs: measure
    if: ${{ !cancelled() }}
    steps:
      - run: 'true'
  publish:
    needs: rank
    steps:
      - run: 'true'
";

fn reads() -> Json {
    json!({"reads": [{"key": "a", "block": "0"}, {"key": "b", "block": "0"}, {"key": "c", "block": "1"}]})
}

fn check(rule: impl FnMut(&AttemptOrder) -> (Conclusion, Fault, Json), expected: &[&str]) {
    let world = World::new(ROUND, "1").run(rule);
    assert_eq!(world.log, expected);
}

fn success(order: &AttemptOrder) -> (Conclusion, Fault, Json) {
    (Conclusion::Success, Fault::Unknown, if order.job == 0 { reads() } else { json!({}) })
}

#[test]
fn a_sequence_runs_in_order_and_others_beside_it() {
    check(
        success,
        &[
            "start 0[] 1",
            "plan success",
            "start 1[a] 1",
            "start 1[c] 1",
            "start 1[b] 1",
            "measure success",
            "start 2[] 1",
            "rank success",
            "start 3[] 1",
            "publish success",
        ],
    );
}

#[test]
fn an_infrastructure_fault_is_tried_again_and_a_submissions_is_not() {
    check(
        |order| match (order.at.leg.as_str(), order.at.attempt) {
            ("a", 1) => (Conclusion::Failure, Fault::Infra, json!({})),
            ("b", _) => (Conclusion::Failure, Fault::Submission, json!({})),
            _ => success(order),
        },
        &[
            "start 0[] 1",
            "plan success",
            "start 1[a] 1",
            "start 1[c] 1",
            "start 1[a] 2",
            "start 1[b] 1",
            "measure failure",
            "start 2[] 1",
            "rank success",
            "start 3[] 1",
            "publish success",
        ],
    );
}

#[test]
fn what_cannot_be_had_a_second_time_is_not_tried_again() {
    check(
        |order| match order.at.leg.as_str() {
            "a" => (Conclusion::Failure, Fault::Infra, json!({"is_final": true})),
            _ => success(order),
        },
        &[
            "start 0[] 1",
            "plan success",
            "start 1[a] 1",
            "start 1[c] 1",
            "start 1[b] 1",
            "measure failure",
            "start 2[] 1",
            "rank success",
            "start 3[] 1",
            "publish success",
        ],
    );
}

#[test]
fn a_failed_need_skips_what_does_not_ask_for_it() {
    check(
        |order| {
            if order.job == 0 { (Conclusion::Failure, Fault::Operator, json!({})) } else { success(order) }
        },
        &[
            "start 0[] 1",
            "plan failure",
            "measure skipped",
            "start 2[] 1",
            "rank success",
            "start 3[] 1",
            "publish success",
        ],
    );
}

#[test]
fn an_empty_matrix_is_skipped_and_a_bad_one_fails() {
    let with = |reads: Json| {
        move |order: &AttemptOrder| {
            (
                Conclusion::Success,
                Fault::Unknown,
                if order.job == 0 { json!({"reads": reads}) } else { json!({}) },
            )
        }
    };
    let tail = ["start 2[] 1", "rank success", "start 3[] 1", "publish success"];
    let expected = |word: &'static str| {
        let mut log = vec!["start 0[] 1", "plan success", word];
        log.extend(tail);
        log
    };
    check(with(json!([])), &expected("measure skipped"));
    check(with(json!("junk")), &expected("measure failure"));
    check(
        with(json!([{"key": "a", "block": "0"}, {"key": "a", "block": "0"}])),
        &expected("measure failure"),
    );
    check(with(json!([{"block": "0"}])), &expected("measure failure"));
}

#[test]
fn cancelling_starts_nothing_more_and_ends() {
    let mut world = World::new(ROUND, "1");
    world.send(Event::Started);
    let plan = world.running.remove(0);
    let Json::Object(outputs) = reads() else { panic!("object") };
    world.end(&plan, (Conclusion::Success, Fault::Unknown), outputs);
    world.send(Event::CancelRequested);
    for order in std::mem::take(&mut world.running) {
        world.end(&order, (Conclusion::Cancelled, Fault::Operator), Map::new());
    }
    assert!(world.is_over);
    let expected =
        ["start 1[a] 1", "start 1[c] 1", "measure cancelled", "rank cancelled", "publish cancelled"];
    assert_eq!(world.log[2..], expected);
}

#[test]
fn a_job_that_insists_runs_after_a_cancellation() {
    let yaml = "
jobs:
  work: { steps: [{ run: 'true' }] }
  tidy: { needs: work, if: always(), steps: [{ run: 'true' }] }
";
    let mut world = World::new(yaml, "1");
    world.send(Event::Started);
    world.send(Event::CancelRequested);
    let work = world.running.remove(0);
    world.end(&work, (Conclusion::Cancelled, Fault::Operator), Map::new());
    let tidy = world.running.remove(0);
    world.end(&tidy, (Conclusion::Success, Fault::Operator), Map::new());
    assert!(world.is_over);
    assert_eq!(world.log, ["start 0[] 1", "work cancelled", "start 1[] 1", "tidy success"]);
}

#[test]
fn failing_fast_stops_the_other_legs() {
    let yaml = "
jobs:
  legs:
    runs-on: box
    strategy: { matrix: { n: [1, 2, 3, 4] }, fail-fast: true, key: '${{ matrix.n }}' }
    steps: [{ run: 'true' }]
";
    let mut world = World::new(yaml, "1");
    world.send(Event::Started);
    let first = world.running.remove(0);
    world.end(&first, (Conclusion::Failure, Fault::Submission), Map::new());
    assert_eq!(world.log, ["start 0[1] 1", "start 0[2] 1", "stop 0"]);
    let second = world.running.remove(0);
    world.end(&second, (Conclusion::Cancelled, Fault::Operator), Map::new());
    assert_eq!(world.log.last().map(String::as_str), Some("legs failure"));
    assert!(world.is_over);
}

#[test]
fn a_tolerated_failure_lets_the_round_go_on_leg_by_leg() {
    let yaml = |flag: &str| {
        format!(
            "jobs:\n  legs:\n    runs-on: box\n    continue-on-error: {flag}\n    strategy: {{ matrix: {{ n: [1, 2] }}, fail-fast: true }}\n    steps: [{{ run: 'true' }}]\n  after:\n    needs: legs\n    steps: [{{ run: 'true' }}]\n"
        )
    };
    let check = |flag: &str, failing: &str, expected: &[&str]| {
        let rule = |order: &AttemptOrder| {
            let fails = order.job == 0 && order.at.leg == failing;
            let conclusion = if fails { Conclusion::Failure } else { Conclusion::Success };
            (conclusion, Fault::Operator, json!({}))
        };
        let log = World::new(&yaml(flag), "1").run(rule).log;
        let ends: Vec<_> = log.iter().filter(|line| !line.starts_with("start")).collect();
        assert_eq!(ends, expected, "{flag} {failing}");
    };
    check("true", "1", &["legs success", "after success"]);
    check("'${{ matrix.n == 1 }}'", "1", &["legs success", "after success"]);
    check("'${{ matrix.n == 1 }}'", "2", &["stop 0", "legs failure", "after skipped"]);
    check("'${{ env.NONE }}'", "1", &["legs failure", "after skipped"]);
}

#[test]
fn a_job_runs_where_its_labels_are() {
    let check = |labels: &str, expected: &[&str]| {
        let yaml = format!("jobs:\n  a:\n    runs-on: {labels}\n    steps: [{{ run: 'true' }}]\n");
        let mut runners = Vec::new();
        let world = World::new(&yaml, "1").run(|order| {
            runners.push(match order.placement {
                Placement::Controller => "controller".to_owned(),
                Placement::Runner(index) => slots()[index].name.clone(),
            });
            success(order)
        });
        assert_eq!(runners, expected, "{labels}: {:?}", world.log);
    };
    check("box", &["box"]);
    check("[box, local]", &["box"]);
    check("controller", &["controller"]);
    check("${{ env.PLACE }}", &["box"]);
    check("h200", &[]);
}

#[test]
fn a_shuffled_order_is_the_seeds() {
    let yaml = "
jobs:
  legs:
    strategy: { matrix: { n: [1, 2, 3, 4, 5, 6] }, order: shuffle, max-parallel: 1, key: '${{ matrix.n }}' }
    steps: [{ run: 'true' }]
";
    let order = |seed: &str| World::new(yaml, seed).run(success).log;
    assert_eq!(order("1"), order("1"));
    assert!((2..20).any(|seed| order(&seed.to_string()) != order("1")));
    assert_eq!(World::new(yaml, "1").run(success).most_running, 1);
}

proptest! {
    /// Whatever ends how, the round ends, limits hold, and nothing runs more often than allowed.
    #[test]
    fn every_round_ends_within_its_limits(
        needs in proptest::collection::vec(proptest::collection::vec(any::<bool>(), 5), 5),
        ends in proptest::collection::vec(0_u8..5, 200),
        max_parallel in 1_u32..4,
    ) {
        let mut yaml = "jobs:\n".to_owned();
        for (job, row) in needs.iter().enumerate() {
            let wanted: Vec<String> = (0..job).filter(|other| row[*other]).map(|other| format!("j{other}")).collect();
            write!(yaml, "  j{job}:\n    runs-on: box\n").expect("writes");
            if !wanted.is_empty() {
                writeln!(yaml, "    needs: [{}]", wanted.join(", ")).expect("writes");
            }
            write!(yaml,
                "    strategy: {{ matrix: {{ n: [1, 2, 3] }}, key: '${{{{ matrix.n }}}}', max-parallel: {max_parallel} }}\n    retry: {{ max: 2, on: [infra, unknown] }}\n    steps: [{{ run: 'true' }}]\n"
            ).expect("writes");
        }
        let mut ends = ends.into_iter().cycle();
        let mut attempts = BTreeMap::new();
        let world = World::new(&yaml, "1").run(|order| {
            *attempts.entry((order.job, order.leg)).or_insert(0) += 1;
            match ends.next() {
                Some(0) => (Conclusion::Failure, Fault::Infra, json!({})),
                Some(1) => (Conclusion::Failure, Fault::Submission, json!({})),
                Some(2) => (Conclusion::Failure, Fault::Unknown, json!({})),
                _ => (Conclusion::Success, Fault::Unknown, json!({})),
            }
        });
        prop_assert!(attempts.values().all(|count| *count <= 3));
        prop_assert!(world.most_running <= 2, "the runner takes two at a time");
        let ended = world.log.iter().filter(|line| line.starts_with('j')).count();
        prop_assert_eq!(ended, 5, "each job ends once");
    }
}
