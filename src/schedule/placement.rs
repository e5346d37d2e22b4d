//! Which runner a job goes to, by its labels.

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
    if wants_controller(labels) {
        return Ok(Placement::Controller);
    }
    let answers =
        |runner: &RunnerSlot| has_labels(std::iter::once(&runner.name).chain(&runner.labels), labels);
    let found = runners.iter().position(answers);
    found.map(Placement::Runner).ok_or_else(|| PlacementError::NoRunner {
        wanted: labels.join(", "),
        known: runners.iter().map(|runner| runner.name.as_str()).collect::<Vec<_>>().join(", "),
    })
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
