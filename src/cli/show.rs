//! `cacheon show`: one round in detail.

use clap::Args;

use super::{Session, print};
use crate::adapters::store::{RoundDirectory, list_rounds, round_detail};
use crate::error::{Error, ExitCode};
use crate::model::RoundId;
use crate::report::{round_json, show_round};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The round: its id, the beginning of its id if no other begins so, or `latest`.
    #[arg(default_value = "latest")]
    round: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, session: &Session) -> Result<ExitCode, Error> {
    let round_id = find_round(&arguments.round, session)?;
    let detail = round_detail(&RoundDirectory::open(&session.data, &round_id)?);
    let text = if arguments.json { round_json(&detail) } else { show_round(&detail, session.style()) };
    print(&text)?;
    Ok(ExitCode::Done)
}

/// Id of the round that is meant: by its id, the beginning of it, or `latest`.
pub(super) fn find_round(name: &str, session: &Session) -> Result<RoundId, Error> {
    let rounds = list_rounds(&session.data)?;
    let ids = || rounds.iter().map(|round| &round.round_id);
    if name == "latest" {
        let none = || Error::Usage(format!("no rounds in `{}` yet", session.data.display()));
        return ids().next().cloned().ok_or_else(none);
    }
    if let Some(exact) = ids().find(|id| id.as_str() == name) {
        return Ok(exact.clone());
    }
    let matching: Vec<&RoundId> = ids().filter(|id| id.as_str().starts_with(name)).collect();
    match matching.as_slice() {
        [only] => Ok((*only).clone()),
        [] => Err(Error::Usage(format!("no round begins with `{name}`: `cacheon rounds` lists them"))),
        several => {
            let names: Vec<&str> = several.iter().map(|id| id.as_str()).collect();
            Err(Error::Usage(format!("`{name}` may be any of {}", names.join(", "))))
        }
    }
}
