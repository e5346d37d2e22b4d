//! Which legs of a round stand when it is done again, and which are run again.
//!
//! Pure: from what the journal of the one round comes to, to the first lines of the other's.

use std::collections::BTreeSet;

use crate::artifact::{LegAttempt, LegState, RoundState, TakenLeg};
use crate::model::{Conclusion, Fault};
use crate::pipeline::definition::{Job, Pipeline, StepAction};

/// What of a round is to run again; all that needs it does too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Again {
    /// The jobs that run again as a whole.
    pub jobs: BTreeSet<String>,
    /// The legs that run again, by job and key.
    pub legs: BTreeSet<(String, String)>,
}

/// Why a round cannot be done again so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgainError {
    /// The pipeline has no such job.
    #[error("`{name}` is neither a job of this pipeline nor a stage of one: its jobs are {jobs}")]
    UnknownJob {
        /// What was asked for.
        name: String,
        /// The jobs there are.
        jobs: String,
    },
    /// The round has no such leg.
    #[error("no leg of the round has the key `{key}`: `cacheon show --json` lists them")]
    UnknownLeg {
        /// What was asked for.
        key: String,
    },
    /// Several jobs have a leg of this key.
    #[error("`{key}` is a leg of several jobs: write {choices}")]
    AmbiguousLeg {
        /// What was asked for.
        key: String,
        /// How each of them is written.
        choices: String,
    },
    /// No leg failed so.
    #[error("no leg of the round failed{}: there is nothing to run again", match .fault {
        Some(fault) => format!(" by the fault `{fault}`"),
        None => String::new(),
    })]
    NothingFailed {
        /// The fault that was asked for.
        fault: Option<Fault>,
    },
    /// What should stand never came to its end.
    #[error("job `{job}` of the round did not come to its end: take the round up by `cacheon resume` first")]
    Unfinished {
        /// The job.
        job: String,
    },
}

impl Again {
    /// The job that a name means: a job of this id, or else the first with a stage of this name or whose name begins
    /// so (`verify` is `verify-logprobs`).
    ///
    /// # Errors
    /// [`AgainError::UnknownJob`].
    pub fn job<'a>(pipeline: &'a Pipeline, name: &str) -> Result<&'a Job, AgainError> {
        let has_stage = |job: &&Job| {
            job.steps.iter().any(|step| match &step.action {
                StepAction::Stage { stage, .. } => {
                    let rest = stage.as_str().strip_prefix(name);
                    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
                }
                StepAction::Run { .. } => false,
            })
        };
        let unknown = || AgainError::UnknownJob {
            name: name.to_owned(),
            jobs: list(pipeline.jobs.iter().map(|job| job.id.as_str())),
        };
        pipeline.job(name).or_else(|| pipeline.jobs.iter().find(has_stage)).ok_or_else(unknown)
    }

    /// Adds the leg of this key, or `JOB/KEY`.
    ///
    /// # Errors
    /// [`AgainError::UnknownLeg`], [`AgainError::AmbiguousLeg`].
    pub fn add_leg(&mut self, state: &RoundState, key: &str) -> Result<(), AgainError> {
        let legs = || state.jobs.iter().flat_map(|job| job.legs.iter().map(move |leg| (&job.job, &leg.key)));
        let is_meant = |(job, leg): &(&String, &String)| {
            *leg == key
                || key.strip_prefix(job.as_str()).and_then(|rest| rest.strip_prefix('/')) == Some(*leg)
        };
        let found: Vec<_> = legs().filter(is_meant).collect();
        match found.as_slice() {
            [] => Err(AgainError::UnknownLeg { key: key.to_owned() }),
            [(job, leg)] => {
                self.legs.insert(((*job).clone(), (*leg).clone()));
                Ok(())
            }
            several => {
                let choices: Vec<String> = several.iter().map(|(job, leg)| format!("{job}/{leg}")).collect();
                let choices = list(choices.iter().map(String::as_str));
                Err(AgainError::AmbiguousLeg { key: key.to_owned(), choices })
            }
        }
    }

    /// Adds all legs that failed, by this fault if one is given.
    ///
    /// # Errors
    /// [`AgainError::NothingFailed`].
    pub fn add_failed(&mut self, state: &RoundState, fault: Option<Fault>) -> Result<(), AgainError> {
        let is_meant = |leg: &&LegState| {
            let Some(end) = leg.end().filter(|end| end.conclusion == Conclusion::Failure) else {
                return false;
            };
            fault.is_none_or(|fault| end.reason.as_ref().is_some_and(|reason| reason.fault == fault))
        };
        let before = self.legs.len();
        for job in &state.jobs {
            let failed = job.legs.iter().filter(is_meant);
            self.legs.extend(failed.map(|leg| (job.job.clone(), leg.key.clone())));
        }
        if self.legs.len() == before { Err(AgainError::NothingFailed { fault }) } else { Ok(()) }
    }

    /// The jobs of which anything runs again: those named, those with a leg that is named, and all that need them.
    pub fn renewed(&self, pipeline: &Pipeline) -> BTreeSet<String> {
        let named = self.jobs.iter().chain(self.legs.iter().map(|(job, _)| job));
        pipeline.downstream(named.map(String::as_str))
    }

    /// The legs that stand as they ended.
    ///
    /// # Errors
    /// [`AgainError::Unfinished`] where a job that is to stand did not end by itself.
    pub fn standing(&self, pipeline: &Pipeline, state: &RoundState) -> Result<Vec<TakenLeg>, AgainError> {
        let whole = pipeline.downstream(self.jobs.iter().map(String::as_str));
        let partial: BTreeSet<&str> = self.legs.iter().map(|(job, _)| job.as_str()).collect();
        let below: BTreeSet<String> = pipeline
            .jobs
            .iter()
            .filter(|job| pipeline.upstream(&job.id).iter().any(|need| partial.contains(need.as_str())))
            .map(|job| job.id.clone())
            .collect();
        let mut taken = Vec::new();
        for job in pipeline.jobs.iter().filter(|job| !whole.contains(&job.id) && !below.contains(&job.id)) {
            let found = state.job(&job.id).filter(|job| job.done().is_some());
            let found = found.ok_or_else(|| AgainError::Unfinished { job: job.id.clone() })?;
            let stays = |leg: &&LegState| !self.legs.contains(&(job.id.clone(), leg.key.clone()));
            taken.extend(found.legs.iter().filter(stays).filter_map(|leg| taken_leg(&job.id, leg)));
        }
        Ok(taken)
    }
}

/// The leg as another round takes it over; none if it never ran.
fn taken_leg(job: &str, leg: &LegState) -> Option<TakenLeg> {
    let attempt = leg.last().filter(|_| leg.skip.is_none())?;
    let end = attempt.end.as_ref()?;
    Some(TakenLeg {
        at: LegAttempt { job: job.to_owned(), leg: leg.key.clone(), attempt: attempt.attempt },
        runner: attempt.runner.clone(),
        started_at: attempt.started_at.unwrap_or(end.at),
        ended_at: end.at,
        conclusion: end.conclusion,
        reason: end.reason.clone(),
        outputs: attempt.outputs.clone(),
    })
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{JournalEvent, JournalLine};
    use crate::model::Reason;
    use crate::pipeline::source::Source;

    const PIPELINE: &str = "
name: t
jobs:
  plan: { runs-on: controller, steps: [{ run: 'true' }] }
  measure:
    runs-on: controller
    needs: plan
    strategy: { matrix: { n: [a, b, c] }, key: '${{ matrix.n }}' }
    steps: [{ run: 'true' }]
  judge:
    runs-on: controller
    needs: measure
    steps: [{ uses: set-weights, with: { leaderboard: [], netuid: 1 } }]
  aside: { runs-on: controller, steps: [{ run: 'true' }] }
";

    fn pipeline() -> Pipeline {
        Pipeline::parse(&Source::new("t.yml", PIPELINE)).unwrap_or_else(|found| panic!("{found}")).value
    }

    /// All jobs ran: leg `b` failed by the machine's fault, leg `c` by its own.
    fn state() -> RoundState {
        let mut events = Vec::new();
        for (job, leg, fault) in [
            ("plan", "", None),
            ("aside", "", None),
            ("measure", "a", None),
            ("measure", "b", Some(Fault::Infra)),
            ("measure", "c", Some(Fault::Submission)),
            ("judge", "", None),
        ] {
            let at = LegAttempt { job: job.to_owned(), leg: leg.to_owned(), attempt: 1 };
            let conclusion = if fault.is_some() { Conclusion::Failure } else { Conclusion::Success };
            let reason = fault.map(|fault| Reason::new(fault, "why", "because"));
            events.push(JournalEvent::LegStarted { at: at.clone(), runner: "controller".to_owned() });
            events.push(JournalEvent::LegEnded { at, conclusion, reason, outputs: serde_json::Map::new() });
        }
        for job in ["plan", "aside", "measure", "judge"] {
            events.push(JournalEvent::JobEnded {
                job: job.to_owned(),
                conclusion: Conclusion::Success,
                reason: None,
            });
        }
        let line = |(seq, event)| JournalLine { seq, at: jiff::Timestamp::UNIX_EPOCH, event };
        RoundState::of(&(0..).zip(events).map(line).collect::<Vec<_>>())
    }

    /// The legs that stand, as `job/leg`.
    fn check(ask: impl FnOnce(&mut Again) -> Result<(), AgainError>, expected: &str) {
        let mut again = Again::default();
        let found = ask(&mut again).and_then(|()| again.standing(&pipeline(), &state()));
        let name = |leg: TakenLeg| format!("{}/{}", leg.at.job, leg.at.leg);
        let found = match found {
            Ok(taken) => taken.into_iter().map(name).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn what_stands() {
        let from = |name: &'static str| {
            move |again: &mut Again| {
                again.jobs.insert(Again::job(&pipeline(), name)?.id.clone());
                Ok(())
            }
        };
        check(from("judge"), "plan/ measure/a measure/b measure/c aside/");
        check(from("set"), "plan/ measure/a measure/b measure/c aside/");
        check(from("measure"), "plan/ aside/");
        check(from("plan"), "aside/");
        check(
            from("wash"),
            "`wash` is neither a job of this pipeline nor a stage of one: its jobs are `plan`, `measure`, `judge`, `aside`",
        );
        check(|again| again.add_failed(&state(), None), "plan/ measure/a aside/");
        check(|again| again.add_failed(&state(), Some(Fault::Infra)), "plan/ measure/a measure/c aside/");
        check(
            |again| again.add_failed(&state(), Some(Fault::Operator)),
            "no leg of the round failed by the fault `operator`: there is nothing to run again",
        );
        check(|again| again.add_leg(&state(), "measure/a"), "plan/ measure/b measure/c aside/");
        check(|again| again.add_leg(&state(), "c"), "plan/ measure/a measure/b aside/");
        check(
            |again| again.add_leg(&state(), "d"),
            "no leg of the round has the key `d`: `cacheon show --json` lists them",
        );
        check(
            |again| again.add_leg(&state(), ""),
            "`` is a leg of several jobs: write `plan/`, `aside/`, `judge/`",
        );
    }

    #[test]
    fn what_never_ended_does_not_stand() {
        let mut again = Again::default();
        again.jobs.insert("judge".to_owned());
        let error = again.standing(&pipeline(), &RoundState::default()).expect_err("nothing ran");
        assert_eq!(error, AgainError::Unfinished { job: "plan".to_owned() });
        assert_eq!(again.renewed(&pipeline()), BTreeSet::from(["judge".to_owned()]));
    }
}
