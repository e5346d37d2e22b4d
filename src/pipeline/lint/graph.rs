//! Checks needs that do not exist, circles, repeated ids, timeouts that nest wrongly.

use crate::pipeline::code::Code;
use crate::pipeline::definition::{Job, Pipeline};
use crate::pipeline::diagnostic::Diagnostic;
use crate::pipeline::{duration, suggest};

pub(super) fn findings(pipeline: &Pipeline) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for job in &pipeline.jobs {
        unknown_needs(pipeline, job, &mut found);
        nested_timeouts(job, &mut found);
    }
    found.extend(cycles(pipeline));
    found
}

fn unknown_needs(pipeline: &Pipeline, job: &Job, found: &mut Vec<Diagnostic>) {
    for need in job.needs.iter().filter(|need| pipeline.job(&need.job).is_none()) {
        let message = format!("job `{}` needs `{}`, which does not exist", job.id, need.job);
        let offers = suggest::closest(&need.job, pipeline.jobs.iter().map(|job| job.id.as_str()));
        let mut finding = Diagnostic::error(Code::UnknownNeed, need.span, message).did_you_mean(&offers);
        if let Some(offer) = offers.first().and_then(|offer| pipeline.job(offer)) {
            finding = finding.label(offer.span, "defined here");
        }
        found.push(finding);
    }
}

fn nested_timeouts(job: &Job, found: &mut Vec<Diagnostic>) {
    let Some(limit) = job.timeout else { return };
    for step in &job.steps {
        if let Some(timeout) = step.timeout.filter(|timeout| *timeout > limit) {
            let (own, outer) = (duration::print(timeout), duration::print(limit));
            let message = format!("this step's timeout of {own} exceeds the {outer} of its job");
            found.push(
                Diagnostic::error(Code::TimeoutNesting, step.span, message)
                    .label(job.span, format!("ends after {outer}")),
            );
        }
    }
}

/// One finding for each circle: its first need, and the others as labels.
fn cycles(pipeline: &Pipeline) -> Vec<Diagnostic> {
    let jobs = &pipeline.jobs;
    let index_of = |id: &str| jobs.iter().position(|job| job.id == id);
    let mut is_done = vec![false; jobs.len()];
    let mut found = Vec::new();
    for start in 0..jobs.len() {
        // A path of (job, the next of its needs to follow), so that no depth of needs can end the stack.
        let mut path: Vec<(usize, usize)> = vec![(start, 0)];
        while let Some((job, next)) = path.last().copied() {
            if is_done[job] {
                path.pop();
                continue;
            }
            let Some(need) = jobs[job].needs.get(next) else {
                is_done[job] = true;
                path.pop();
                continue;
            };
            if let Some(last) = path.last_mut() {
                last.1 += 1;
            }
            let Some(target) = index_of(&need.job) else { continue };
            match path.iter().position(|(on_path, _)| *on_path == target) {
                Some(from) => found.push(cycle(pipeline, &path[from..])),
                None => path.push((target, 0)),
            }
        }
    }
    found
}

fn cycle(pipeline: &Pipeline, path: &[(usize, usize)]) -> Diagnostic {
    let mut names: Vec<_> = path.iter().map(|(job, _)| format!("`{}`", pipeline.jobs[*job].id)).collect();
    names.extend(names.first().cloned());
    let needs: Vec<_> =
        path.iter().map(|(job, next)| &pipeline.jobs[*job].needs[next.saturating_sub(1)]).collect();
    let message = format!("{} form a cycle", names.join(" -> "));
    let first = needs.first().map(|need| need.span).unwrap_or_default();
    let finding = Diagnostic::error(Code::Cycle, first, message).help("drop one of these needs");
    needs
        .iter()
        .skip(1)
        .fold(finding, |finding, need| finding.label(need.span, format!("needs `{}`", need.job)))
}
