//! `cacheon rounds`: which rounds there are.

use clap::Args;

use super::{Session, print, say};
use crate::adapters::store::list_rounds;
use crate::error::{Error, ExitCode};
use crate::report::{rounds_json, rounds_table};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, session: &Session) -> Result<ExitCode, Error> {
    let rounds = list_rounds(&session.data)?;
    if arguments.json {
        print(&rounds_json(&rounds))?;
    } else if rounds.is_empty() {
        say(&format!(
            "no rounds in `{}` yet: `cacheon run pipelines/demo.yml` makes one",
            session.data.display()
        ));
    } else {
        print(&rounds_table(&rounds, session.style()))?;
    }
    Ok(ExitCode::Done)
}
