//! `cacheon explain`: why each leg of a round did or did not run.

use std::fmt::Write as _;

use clap::Args;
use serde_json::Value;

use super::resume::settings_of;
use super::show::find_round;
use super::{Session, print, say};
use crate::adapters::store::RoundDirectory;
use crate::artifact::{JournalEvent, RoundState};
use crate::error::{Error, ExitCode};
use crate::report::text::{excerpt, plain};
use crate::schedule::{Explained, Explanation, PathDifference, explain};

#[derive(Debug, Args)]
#[command(after_long_help = "\
Of a round made by `cacheon rerun`: which legs stand as they ended in its parent, which ran again and for what, and where
what it is made of (pipeline, inputs, runners, models, this program) differs from the parent's, with both values. Of a
round that was taken up again: what stood and why, what was cut. Of any round: which attempts were repeated, for whose
fault.

Examples:
  cacheon explain latest               every job and leg
  cacheon explain latest rank          one job
  cacheon explain latest measure/0003  the legs of one job whose keys begin so")]
pub(super) struct Arguments {
    /// The round: its id, the beginning of its id if no other begins so, or `latest`.
    round: String,
    /// The job, or JOB/LEG; the leg's key may be cut short.
    step: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, session: &Session) -> Result<ExitCode, Error> {
    let round_id = find_round(&arguments.round, session)?;
    let directory = RoundDirectory::open(&session.data, &round_id)?;
    let file = directory.read_round_file()?;
    let lines = directory.read_journal()?.lines;
    let settings = settings_of(round_id.clone(), file.clone(), session)?;
    let parent = match &file.parent {
        None => None,
        Some(parent) => {
            let found = RoundDirectory::open(&session.data, &parent.round_id)
                .and_then(|directory| directory.read_round_file());
            if found.is_err() {
                say(&format!(
                    "note: round `{}` is not here, so nothing is compared with it",
                    parent.round_id
                ));
            }
            found.ok()
        }
    };
    let resumed = lines.iter().rfind(|line| matches!(line.event, JournalEvent::RoundResumed { .. }));
    let found = explain(&Explained {
        pipeline: &settings.pipeline,
        file: &file,
        state: &RoundState::of(&lines),
        resumed_at: resumed.map(|line| line.at),
        parent: parent.as_ref(),
    });
    let found = match &arguments.step {
        None => found,
        Some(step) => {
            let (job, leg) = step.split_once('/').unwrap_or((step, ""));
            let is_meant =
                |explanation: &Explanation| explanation.job == job && explanation.leg.starts_with(leg);
            let found: Vec<Explanation> = found.into_iter().filter(is_meant).collect();
            if found.is_empty() {
                return Err(Error::Usage(format!(
                    "round `{round_id}` has nothing named `{step}`: `cacheon explain {round_id}` lists its jobs and legs"
                )));
            }
            found
        }
    };
    if arguments.json {
        let json = serde_json::to_value(&found).unwrap_or_default();
        print(&format!("{json:#}\n"))?;
    } else {
        print(&text(&found))?;
    }
    Ok(ExitCode::Done)
}

fn text(found: &[Explanation]) -> String {
    let mut out = String::new();
    // Legs of which the same is to be said are named together.
    let mut groups: Vec<(&Explanation, usize)> = Vec::new();
    for explanation in found {
        let is_same = |(first, _): &&mut (&Explanation, usize)| {
            (&first.job, &first.why) == (&explanation.job, &explanation.why)
        };
        match groups.iter_mut().find(is_same) {
            Some((_, count)) => *count += 1,
            None => groups.push((explanation, 1)),
        }
    }
    for (Explanation { job, leg, why, .. }, count) in groups {
        let name = match (leg.as_str(), count) {
            ("", _) => plain(job),
            (leg, 1) => format!("{} {}", plain(job), plain(leg)),
            (_, count) => format!("{}, {count} legs", plain(job)),
        };
        for (index, why) in why.iter().enumerate() {
            let name = if index == 0 { name.as_str() } else { "" };
            writeln!(out, "{name:<32}  {}", excerpt(why, 400)).expect("writes to a string");
        }
    }
    let mut differences: Vec<&PathDifference> = found.iter().flat_map(|found| &found.differences).collect();
    differences.sort_by_key(|difference| &difference.path);
    differences.dedup();
    for (index, PathDifference { path, parent, round }) in differences.into_iter().enumerate() {
        if index == 0 {
            out.push_str("\ndifferent from its parent\n");
        }
        let show = |value: &Option<Value>| {
            value.as_ref().map_or_else(|| "nothing".to_owned(), |value| excerpt(&value.to_string(), 200))
        };
        let line = format!("  {}: {} -> {}", plain(path), show(parent), show(round));
        writeln!(out, "{line}").expect("writes to a string");
    }
    out
}
