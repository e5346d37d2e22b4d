//! `cacheon runner`: which runners are in service, and the two ways to change that.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::conduct::data_argument;
use super::run::load_runners;
use super::{Session, print, say};
use crate::adapters::store::{change_runner, list_runners, read_runner};
use crate::artifact::{Quarantine, RunnerState};
use crate::error::{Error, ExitCode};
use crate::report::{
    KnownRunner, RunnerWords, past_sentence, quarantine_sentence, runners_json, runners_table,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Lists the runners, and since when and why one is out of service.
    List(List),
    /// Puts a runner back into service.
    Lift(Lift),
    /// Puts a runner out of service.
    Quarantine(Out),
}

#[derive(Debug, Args)]
#[command(after_help = "\
A runner is put out of service when a round ends in which the pinned baseline
failed on it as a machine makes servers fail, and was not measured there
afterwards. No round puts a job on it until somebody has looked and lifts it.

Examples:
  cacheon runner list
  cacheon runner list --json | jq '.[] | select(.is_in_service | not)'")]
pub(super) struct List {
    /// Folder of runner files.
    #[arg(long, value_name = "DIR", default_value = "runners")]
    runners: PathBuf,
    /// Print JSON, with the quarantines of the past.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Look at the machine first: `cacheon runner list` says why it is out of service.
The next tick, `run` or `resume` uses it again. What was seen before is not held
against it any more; a baseline that fails on it again puts it out again.
That it was out, when and why it was lifted stays on record: `runner list --json`.

Example:
  cacheon runner lift h200x4 --reason 'GPU 3 was replaced'")]
pub(super) struct Lift {
    /// Name of the runner.
    name: String,
    /// What was found, or done, for the record.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
What runs on it goes on; no round that begins or is taken up puts a job on it.

Example:
  cacheon runner quarantine h200x4 --reason 'the driver is updated on Monday'")]
pub(super) struct Out {
    /// Name of the runner.
    name: String,
    /// Why, for those who find it out of service.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Folder of runner files.
    #[arg(long, value_name = "DIR", default_value = "runners")]
    runners: PathBuf,
}

pub(super) fn run(command: &Command, session: &Session) -> Result<ExitCode, Error> {
    match command {
        Command::List(arguments) => list(arguments, session),
        Command::Lift(arguments) => lift(arguments, session),
        Command::Quarantine(arguments) => quarantine(arguments, session),
    }
}

fn list(arguments: &List, session: &Session) -> Result<ExitCode, Error> {
    let mut known = Vec::new();
    for (spec, _) in load_runners(&arguments.runners, session)? {
        let state = read_runner(&session.data, &spec.name)?;
        let said = RunnerWords {
            engine: spec.engine.as_str(),
            place: spec.place.as_str(),
            labels: spec.labels,
            capacity: spec.capacity,
        };
        known.push(KnownRunner { said: Some(said), state });
    }
    let is_here = |state: &RunnerState| known.iter().any(|own| own.state.runner == state.runner);
    let gone: Vec<RunnerState> = list_runners(&session.data)?
        .into_iter()
        .filter(|state| state.quarantine.is_some() && !is_here(state))
        .collect();
    known.extend(gone.into_iter().map(|state| KnownRunner { said: None, state }));
    known.sort_by(|left, right| left.state.runner.cmp(&right.state.runner));
    if arguments.json {
        print(&format!("{}\n", runners_json(&known).trim_end()))?;
    } else {
        print(&runners_table(&known, session.style()))?;
        for state in known.iter().map(|own| &own.state).filter(|state| state.quarantine.is_some()) {
            let (runner, data) = (&state.runner, data_argument(session));
            say(&format!(
                "next: look at the machine of `{runner}`, then `cacheon runner lift {runner}{data}`"
            ));
        }
    }
    Ok(ExitCode::Done)
}

fn lift(arguments: &Lift, session: &Session) -> Result<ExitCode, Error> {
    let Lift { name, reason } = arguments;
    let now = jiff::Timestamp::now();
    // Nothing is made where nothing is to be lifted.
    let lifted = match read_runner(&session.data, name)?.quarantine {
        None => None,
        Some(_) => change_runner(&session.data, name, |state| {
            state.lift(now, reason.as_deref())?;
            state.history.last().cloned()
        })?,
    };
    let Some(past) = lifted else {
        let out: Vec<String> = list_runners(&session.data)?
            .into_iter()
            .filter(|state| state.quarantine.is_some())
            .map(|state| format!("`{}`", state.runner))
            .collect();
        let known = if out.is_empty() { "no runner is".to_owned() } else { format!("{} is", out.join(", ")) };
        return Err(Error::Usage(format!(
            "runner `{name:.100}` is not out of service: there is nothing to lift; {known}"
        )));
    };
    say(&format!("runner `{name}` is in service again; it was out {}", past_sentence(&past)));
    Ok(ExitCode::Done)
}

fn quarantine(arguments: &Out, session: &Session) -> Result<ExitCode, Error> {
    let Out { name, reason, runners } = arguments;
    if reason.trim().is_empty() {
        return Err(Error::Usage(
            "`--reason` is empty: say why, for those who find it out of service".to_owned(),
        ));
    }
    let known = load_runners(runners, session)?;
    if !known.iter().any(|(spec, _)| spec.name == *name) {
        let names: Vec<&str> = known.iter().map(|(spec, _)| spec.name.as_str()).collect();
        let names = names.join(", ");
        return Err(Error::Usage(format!("there is no runner `{name:.100}`; there are: {names}")));
    }
    let quarantine = Quarantine::by_hand(jiff::Timestamp::now(), reason);
    let (is_new, now) = change_runner(&session.data, name, |state| {
        let is_new = state.put_out(quarantine.clone());
        (is_new, state.quarantine.clone().unwrap_or(quarantine))
    })?;
    let sentence = quarantine_sentence(name, &now);
    if !is_new {
        return Err(Error::Usage(format!("{sentence}; it stays so as it is")));
    }
    say(&format!("{sentence}\nnext: `cacheon runner lift {name}{}` puts it back", data_argument(session)));
    Ok(ExitCode::Done)
}
