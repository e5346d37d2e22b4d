//! Why each leg of a round did or did not run, and what is different from the round it was made from.
//!
//! Pure: from what the journal and `round.json` say, of the round and of its parent.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::artifact::{AttemptState, JobState, LegState, ParentRound, RoundFile, RoundState};
use crate::model::{Conclusion, Fault};
use crate::pipeline::definition::Pipeline;
use crate::pipeline::yaml_value;

/// A round, as it is explained.
#[derive(Debug, Clone, Copy)]
pub struct Explained<'a> {
    /// The round's pipeline.
    pub pipeline: &'a Pipeline,
    /// What the round is made of.
    pub file: &'a RoundFile,
    /// What its journal comes to.
    pub state: &'a RoundState,
    /// When the round was last taken up again, if it was.
    pub resumed_at: Option<Timestamp>,
    /// What the round it was made from is made of, if that is here.
    pub parent: Option<&'a RoundFile>,
}

/// Why a leg ran, or did not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Id of the job.
    pub job: String,
    /// Key of the leg; empty for a job without matrix, and for one that planned none.
    pub leg: String,
    /// Whether the leg ran in this round.
    pub has_run: bool,
    /// Why, in words; a line for each attempt.
    pub why: Vec<String>,
    /// What of the job is different from the round's parent.
    pub differences: Vec<PathDifference>,
}

/// A value that is another than in the round's parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathDifference {
    /// Where the value stands: `jobs.rank.steps[0].with.score.margin`, `inputs.prompts`, `tool_version`.
    pub path: String,
    /// The parent's value; none where it has none.
    pub parent: Option<Json>,
    /// The round's own value; none where it has none.
    pub round: Option<Json>,
}

/// Explains every leg of a round, in the order of the pipeline.
pub fn explain(explained: &Explained<'_>) -> Vec<Explanation> {
    let differences =
        explained.parent.map(|parent| file_differences(parent, explained.file)).unwrap_or_default();
    let mut found = Vec::new();
    for job in &explained.pipeline.jobs {
        let own = format!("jobs.{}", job.id);
        let concerns = |difference: &&PathDifference| {
            let rest = difference.path.strip_prefix(&own);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
                || !difference.path.starts_with("jobs.")
        };
        let differences: Vec<PathDifference> = differences.iter().filter(concerns).cloned().collect();
        let explanation = |leg: &str, has_run: bool, why: Vec<String>| Explanation {
            job: job.id.clone(),
            leg: leg.to_owned(),
            has_run,
            why,
            differences: differences.clone(),
        };
        let state = explained.state.job(&job.id);
        match state.filter(|state| !state.legs.is_empty()) {
            None => found.push(explanation("", false, vec![never_planned(state)])),
            Some(state) => found.extend(state.legs.iter().map(|leg| {
                let has_run = leg.attempts.iter().any(|attempt| !attempt.is_taken_over);
                explanation(&leg.key, has_run, leg_words(explained, &job.id, leg))
            })),
        }
    }
    found
}

fn never_planned(state: Option<&JobState>) -> String {
    let end = state.and_then(|state| state.end.as_ref());
    match end {
        None => "did not run: the round has not come so far".to_owned(),
        Some(end) => {
            let why = end.reason.as_ref().map_or_else(String::new, |reason| format!(": {}", reason.message));
            format!("did not run, and ended {}{why}", end.conclusion)
        }
    }
}

fn leg_words(explained: &Explained<'_>, job: &str, leg: &LegState) -> Vec<String> {
    let mut why = Vec::new();
    let mut previous: Option<&AttemptState> = None;
    for attempt in &leg.attempts {
        let number = attempt.attempt;
        why.push(match (attempt.is_taken_over, previous) {
            (true, _) => {
                let parent =
                    explained.file.parent.as_ref().map_or("its parent", |parent| parent.round_id.as_str());
                let ended = attempt.end.as_ref().map_or("without end", |end| end.conclusion.as_str());
                format!(
                    "did not run again: attempt {number} stands as it ended in round `{parent}` ({ended})"
                )
            }
            (false, None) => first_words(explained, (job, &leg.key)),
            (false, Some(previous)) => format!("ran again as attempt {number}: {}", ended_words(previous)),
        });
        previous = Some(attempt);
    }
    match (&leg.skip, leg.last()) {
        (Some(skip), _) => {
            let reason = skip.reason.as_ref().map_or("", |reason| reason.message.as_str());
            why.push(format!("was given up: {reason}"));
        }
        (None, None) => why.push("did not run: it waits for its turn".to_owned()),
        (None, Some(last)) => why.extend(explained.resumed_at.and_then(|at| standing_words(last, at))),
    }
    why
}

/// Why the first attempt of a leg ran.
fn first_words(explained: &Explained<'_>, (job, leg): (&str, &str)) -> String {
    let Some(parent) = &explained.file.parent else { return "ran as the pipeline says".to_owned() };
    if parent.legs.iter().any(|(own, key)| own == job && key == leg) {
        return "ran again: this leg was asked for".to_owned();
    }
    if parent.jobs.iter().any(|own| own == job) {
        let with: Vec<String> = parent.with.iter().map(|(key, value)| format!("`{key}={value}`")).collect();
        let with = if with.is_empty() { String::new() } else { format!(", with {}", with.join(", ")) };
        return format!("ran again: job `{job}` was asked for{with}");
    }
    let renewed = renewed(parent);
    let upstream = explained.pipeline.upstream(job);
    match upstream.iter().find(|need| renewed.contains(need.as_str())) {
        Some(need) => format!("ran again: it needs `{need}`, which ran again"),
        None => "ran: the parent has no such leg".to_owned(),
    }
}

fn renewed(parent: &ParentRound) -> BTreeSet<&str> {
    parent.jobs.iter().map(String::as_str).chain(parent.legs.iter().map(|(job, _)| job.as_str())).collect()
}

/// Why an attempt did not do.
fn ended_words(attempt: &AttemptState) -> String {
    let number = attempt.attempt;
    let Some(end) = &attempt.end else { return format!("attempt {number} has no end") };
    let reason = end.reason.as_ref();
    let said = reason.map_or_else(String::new, |reason| format!(": {}", reason.message));
    match (end.conclusion, reason.map(|reason| reason.fault)) {
        (_, _) if reason.is_some_and(|reason| reason.code == "cut") => {
            format!("attempt {number} was cut when the program that ran it ended")
        }
        (_, _) if end.is_stopping => {
            format!("attempt {number} ended {} while the round was being stopped", end.conclusion)
        }
        (Conclusion::Failure, Some(fault)) => format!("attempt {number} failed by the fault `{fault}`{said}"),
        (conclusion, _) => {
            format!("attempt {number} ended {conclusion}{said}, and what it needs ran again")
        }
    }
}

/// Why an attempt was not run again when the round was taken up; none if it ran since.
fn standing_words(attempt: &AttemptState, resumed_at: Timestamp) -> Option<String> {
    let end = attempt.end.as_ref().filter(|end| end.at < resumed_at && !attempt.is_taken_over)?;
    let fault = end.reason.as_ref().map(|reason| reason.fault);
    Some(match (end.conclusion, fault) {
        (Conclusion::Success, _) => {
            "did not run again when the round was taken up: it had succeeded".to_owned()
        }
        (_, Some(fault @ (Fault::Submission | Fault::Unknown))) => format!(
            "did not run again when the round was taken up: it had failed by the fault `{fault}`, and nobody is asked twice"
        ),
        (conclusion, _) => {
            format!(
                "did not run again when the round was taken up: it had ended {conclusion}, and the results were out"
            )
        }
    })
}

/// What is different between what two rounds are made of. What must differ (ids, times) is left out, and seeds are told
/// apart without being shown.
fn file_differences(parent: &RoundFile, round: &RoundFile) -> Vec<PathDifference> {
    let mut found = Vec::new();
    let [left, right] = [parent, round].map(|file| {
        let pipeline = yaml_value(&file.pipeline_path, &file.pipeline_text).unwrap_or_default();
        let mut made = if let Json::Object(pipeline) = pipeline { pipeline } else { Map::new() };
        made.insert("inputs".to_owned(), file.inputs.clone().into_iter().collect());
        for runner in &file.runners {
            let mut text = yaml_value(&runner.path, &runner.text).unwrap_or_default();
            if let (Some(text), Some(digest)) = (text.as_object_mut(), &runner.model_digest) {
                text.insert("model_digest".to_owned(), digest.as_str().into());
            }
            made.insert(format!("runners.{}", runner.name), text);
        }
        made.insert("tool_version".to_owned(), file.tool_version.as_str().into());
        made.insert(
            "tool_digest".to_owned(),
            file.tool_digest.as_ref().map(crate::model::Digest::as_str).into(),
        );
        Json::Object(made)
    });
    json_differences(String::new(), (Some(&left), Some(&right)), &mut found);
    if parent.seed_hex != round.seed_hex {
        found.push(PathDifference { path: "seed".to_owned(), parent: None, round: None });
    }
    found
}

fn json_differences(
    path: String,
    (left, right): (Option<&Json>, Option<&Json>),
    found: &mut Vec<PathDifference>,
) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (left, right) {
        _ if left == right => {}
        (Some(Json::Object(left)), Some(Json::Object(right))) => {
            let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            for key in keys {
                json_differences(below(key), (left.get(key), right.get(key)), found);
            }
        }
        (Some(Json::Array(left)), Some(Json::Array(right))) => {
            for index in 0..left.len().max(right.len()) {
                json_differences(format!("{path}[{index}]"), (left.get(index), right.get(index)), found);
            }
        }
        _ => found.push(PathDifference { path, parent: left.cloned(), round: right.cloned() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_that_differ() {
        let check = |left: Json, right: Json, expected: Json| {
            let mut found = Vec::new();
            json_differences(String::new(), (Some(&left), Some(&right)), &mut found);
            let found: Vec<Json> =
                found.into_iter().map(|found| json!([found.path, found.parent, found.round])).collect();
            assert_eq!(Json::from(found), expected);
        };
        check(json!({"a": 1}), json!({"a": 1}), json!([]));
        check(
            json!({"jobs": {"rank": {"steps": [{"with": {"margin": 0.1}}]}}}),
            json!({"jobs": {"rank": {"steps": [{"with": {"margin": 0.2}}, {}]}}}),
            json!([["jobs.rank.steps[0].with.margin", 0.1, 0.2], ["jobs.rank.steps[1]", null, {}]]),
        );
        check(json!({"a": {"b": 1}}), json!({"a": 2}), json!([["a", {"b": 1}, 2]]));
        check(json!({"a": 1}), json!({"b": 1}), json!([["a", 1, null], ["b", null, 1]]));
    }
}
