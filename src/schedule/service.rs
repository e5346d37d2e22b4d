//! What of a pipeline can run while some runners are out of service.

use std::collections::BTreeSet;

use super::placement::{Placement, RunnerSlot, labels_of, placements_of};
use crate::artifact::RoundState;
use crate::model::Conclusion;
use crate::pipeline::contexts::KnownContexts;
use crate::pipeline::definition::{Job, Pipeline};
use crate::pipeline::plan::in_order;

/// The runners there are, and which of them are out of service.
#[derive(Clone, Copy)]
pub struct Service<'a> {
    /// The runners.
    pub runners: &'a [RunnerSlot],
    /// Whether the runner of this name is out of service.
    pub is_out: &'a dyn Fn(&str) -> bool,
    /// Which of several runners a job may go to.
    pub choice: Choice,
}

/// Which of several runners that have its labels a job may go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Any that is in service: nothing of the round has run yet.
    Any,
    /// The first alone, whose machine its round began with: what was measured elsewhere could not be compared.
    First,
}

/// A job that cannot run, because of a runner that is out of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocked<'a> {
    /// Id of the job.
    pub job: &'a str,
    /// Name of the runner: of several the one that it would be placed on.
    pub runner: &'a str,
}

impl<'a> Service<'a> {
    /// The runner that is out of service and keeps a job with these labels from running; none where nothing does.
    pub fn blocks(&self, labels: &[String]) -> Option<&'a str> {
        let fitting: Vec<&RunnerSlot> = placements_of(labels, self.runners)
            .into_iter()
            .filter_map(|placement| match placement {
                Placement::Controller => None,
                Placement::Runner(index) => self.runners.get(index),
            })
            .collect();
        let is_out = |runner: &&RunnerSlot| (self.is_out)(&runner.name);
        let has_place = match self.choice {
            Choice::Any => fitting.iter().any(|runner| !is_out(runner)),
            Choice::First => fitting.first().is_some_and(|runner| !is_out(runner)),
        };
        fitting.first().filter(|_| !has_place).map(|runner| runner.name.as_str())
    }

    /// Those of the jobs that cannot run. What a job asks for that is not known yet is not looked at.
    pub fn blocked<'j>(
        &self,
        jobs: impl IntoIterator<Item = &'j Job>,
        known: &KnownContexts,
    ) -> Vec<Blocked<'j>>
    where
        'a: 'j,
    {
        let of = |job: &'j Job| {
            let labels = labels_of(job, known).ok()?;
            Some(Blocked { job: &job.id, runner: self.blocks(&labels)? })
        };
        jobs.into_iter().filter_map(of).collect()
    }
}

/// The jobs of which something is still to run when a round goes on from here: those that are not done, or of which a leg does not
/// stand, and all that need them.
pub fn still_to_run<'a>(pipeline: &'a Pipeline, state: &RoundState) -> Vec<&'a Job> {
    let mut ids: BTreeSet<&str> = BTreeSet::new();
    for job in in_order(pipeline) {
        if job.needs.iter().any(|need| ids.contains(need.job.as_str())) || !stands(job, state) {
            ids.insert(&job.id);
        }
    }
    pipeline.jobs.iter().filter(|job| ids.contains(job.id.as_str())).collect()
}

/// Whether a job stands as it is.
fn stands(job: &Job, state: &RoundState) -> bool {
    let Some(found) = state.job(&job.id) else { return false };
    if found.legs.is_empty() {
        // Its condition did not hold, or its matrix was empty.
        return found.done().is_some_and(|end| end.conclusion == Conclusion::Skipped);
    }
    found.is_planned && found.legs.iter().all(|leg| state.standing(&job.id, &leg.key).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{JournalEvent, JournalLine, LegAttempt};
    use crate::model::{Fault, Reason};
    use crate::pipeline::Source;
    use crate::pipeline::contexts::ContextName;
    use crate::pipeline::expr::Object;

    fn pipeline(text: &str) -> Pipeline {
        Pipeline::parse(&Source::new("t.yml", text)).unwrap_or_else(|found| panic!("{found}")).value
    }

    const JOBS: &str = "
on: { dispatch: { inputs: { where: { type: string, default: b } } } }
jobs:
  first: { runs-on: bench, outputs: { where: b }, steps: [{ run: 'true' }] }
  named: { runs-on: '${{ inputs.where }}', steps: [{ run: 'true' }] }
  later: { runs-on: '${{ needs.first.outputs.where }}', needs: first, steps: [{ run: 'true' }] }
  here: { runs-on: controller, needs: named, steps: [{ run: 'true' }] }
";

    /// The jobs that are blocked, each with the runner that blocks it.
    fn blocked(out: &[&str], choice: Choice) -> Vec<String> {
        let pipeline = pipeline(JOBS);
        let slot = |name: &str, labels: &[&str]| RunnerSlot {
            name: name.to_owned(),
            labels: labels.iter().map(ToString::to_string).collect(),
            capacity: 1,
        };
        let runners = [slot("a", &["bench"]), slot("b", &["Bench"]), slot("c", &[])];
        let known = KnownContexts::default().with(ContextName::Inputs, Object::new().with("where", "b"));
        let is_out = |name: &str| out.contains(&name);
        let service = Service { runners: &runners, is_out: &is_out, choice };
        let found = service.blocked(&pipeline.jobs, &known);
        found.iter().map(|blocked| format!("{} {}", blocked.job, blocked.runner)).collect()
    }

    #[test]
    fn a_job_is_blocked_where_no_runner_with_its_labels_is_in_service() {
        let none: [&str; 0] = [];
        for choice in [Choice::Any, Choice::First] {
            assert_eq!(blocked(&[], choice), none);
            assert_eq!(blocked(&["c", "unknown"], choice), none);
        }
        assert_eq!(blocked(&["a"], Choice::Any), none);
        assert_eq!(blocked(&["a"], Choice::First), ["first a"]);
        assert_eq!(blocked(&["b"], Choice::Any), ["named b"]);
        assert_eq!(blocked(&["a", "b"], Choice::Any), ["first a", "named b"]);
    }

    fn state(events: Vec<JournalEvent>) -> RoundState {
        let at = "2026-05-01T00:00:00Z".parse().expect("an instant");
        let lines: Vec<JournalLine> =
            (0..).zip(events).map(|(seq, event)| JournalLine { seq, at, event }).collect();
        RoundState::of(&lines)
    }

    /// A job of one leg that ended so.
    fn ended(job: &str, fault: Option<Fault>) -> Vec<JournalEvent> {
        let job = job.to_owned();
        let conclusion = if fault.is_some() { Conclusion::Failure } else { Conclusion::Success };
        let reason = fault.map(|fault| Reason::new(fault, "x", "y"));
        let at = LegAttempt { job: job.clone(), leg: String::new(), attempt: 1 };
        let outputs = serde_json::Map::new();
        vec![
            JournalEvent::JobStarted { job: job.clone() },
            JournalEvent::JobPlanned { job: job.clone(), legs: vec![String::new()] },
            JournalEvent::LegStarted { at: at.clone(), runner: "a".to_owned() },
            JournalEvent::LegEnded { at, conclusion, reason: reason.clone(), outputs },
            JournalEvent::JobEnded { job, conclusion, reason },
        ]
    }

    #[test]
    fn what_stands_is_not_to_run() {
        let pipeline = pipeline(JOBS);
        let left = |events: Vec<JournalEvent>| {
            let jobs = still_to_run(&pipeline, &state(events));
            jobs.iter().map(|job| job.id.clone()).collect::<Vec<_>>().join(" ")
        };
        let skipped = |job: &str| {
            let reason = Some(Reason::new(Fault::Operator, "condition", "its condition does not hold"));
            vec![JournalEvent::JobEnded { job: job.to_owned(), conclusion: Conclusion::Skipped, reason }]
        };
        assert_eq!(left(Vec::new()), "first named later here");
        assert_eq!(left(ended("first", None)), "named later here");
        assert_eq!(left([ended("first", None), ended("named", None)].concat()), "later here");
        // A submission's own failure stands, the machine's does not, and takes what needs it along.
        let all =
            |fault| [ended("first", None), ended("named", fault), ended("later", None), ended("here", None)];
        assert_eq!(left(all(None).concat()), "");
        assert_eq!(left(all(Some(Fault::Submission)).concat()), "");
        assert_eq!(left(all(Some(Fault::Infra)).concat()), "named here");
        assert_eq!(
            left([ended("first", None), skipped("named"), skipped("later"), ended("here", None)].concat()),
            ""
        );
        // What ran when the program ended is to run again.
        assert_eq!(left(ended("first", None)[..3].to_vec()), "first named later here");
    }
}
