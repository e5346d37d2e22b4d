//! Which runner a job goes to, by its labels.

use crate::pipeline::contexts::{KnownContexts, Site};
use crate::pipeline::definition::Job;
use crate::pipeline::expr::{ExprError, Status, Value};
use crate::pipeline::runner::{has_labels, wants_controller};

/// A runner as placement sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerSlot {
    /// Name of the runner, which is also a label.
    pub name: String,
    /// The other labels of the runner.
    pub labels: Vec<String>,
    /// Number of jobs it takes at a time.
    pub capacity: u32,
}

/// Where a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// The process that runs the round; it boots no servers and takes any number of jobs.
    Controller,
    /// The runner of this index in the list of runners.
    Runner(usize),
}

/// Why a job can run nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// No runner has all the labels.
    #[error("no runner has the labels {wanted}; there are: {known}")]
    NoRunner {
        /// The labels that the job asks for.
        wanted: String,
        /// The names of the runners there are.
        known: String,
    },
}

/// The placement of a job: the first runner that has all labels; `controller` alone is the controller.
///
/// # Errors
/// Where no runner has all of them.
pub fn placement_of(labels: &[String], runners: &[RunnerSlot]) -> Result<Placement, PlacementError> {
    let found = placements_of(labels, runners).into_iter().next();
    found.ok_or_else(|| PlacementError::NoRunner {
        wanted: labels.join(", "),
        known: runners.iter().map(|runner| runner.name.as_str()).collect::<Vec<_>>().join(", "),
    })
}

/// All placements that a job could have, the first that it gets.
pub(super) fn placements_of(labels: &[String], runners: &[RunnerSlot]) -> Vec<Placement> {
    if wants_controller(labels) {
        return vec![Placement::Controller];
    }
    let answers =
        |runner: &RunnerSlot| has_labels(std::iter::once(&runner.name).chain(&runner.labels), labels);
    let found = runners.iter().enumerate().filter(|(_, runner)| answers(runner));
    found.map(|(index, _)| Placement::Runner(index)).collect()
}

/// The labels a job asks for; a label that evaluates to a list stands for its items.
pub(super) fn labels_of(job: &Job, known: &KnownContexts) -> Result<Vec<String>, ExprError> {
    let scope = known.at(Site::RunsOn, Status::Success);
    let mut labels = Vec::new();
    for template in &job.runs_on.labels {
        match template.evaluate(&scope)? {
            Value::Array(items) => labels.extend(items.iter().map(ToString::to_string)),
            label => labels.push(label.to_string()),
        }
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_must_all_match() {
        let runner = |name: &str, labels: &[&str]| RunnerSlot {
            name: name.to_owned(),
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
            capacity: 1,
        };
        let runners = [runner("a", &["gpu"]), runner("b", &["gpu", "h200"])];
        let check = |labels: &[&str], expected: Option<Placement>| {
            let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
            assert_eq!(placement_of(&labels, &runners).ok(), expected, "{labels:?}");
        };
        check(&[], Some(Placement::Controller));
        check(&["controller"], Some(Placement::Controller));
        check(&["gpu"], Some(Placement::Runner(0)));
        check(&["H200", "gpu"], Some(Placement::Runner(1)));
        check(&["a", "h200"], None);
    }
}
