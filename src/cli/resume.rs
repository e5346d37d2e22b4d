//! `cacheon resume`: goes on with a round that was left unfinished.

use std::sync::Arc;

use clap::Args;

use super::conduct::conduct;
use super::run::round_runner;
use super::show::find_round;
use super::{Session, engines, this_program};
use crate::adapters::store::RoundDirectory;
use crate::artifact::{RoundFile, layout};
use crate::error::{Error, ExitCode};
use crate::model::{RoundId, Seed};
use crate::pipeline::definition::Pipeline;
use crate::pipeline::runner::RunnerSpec;
use crate::pipeline::source::Source;
use crate::round::{Beginning, Machines, RoundSettings};

#[derive(Debug, Args)]
#[command(after_long_help = "\
A round that was interrupted, was killed, or could not go on for a fault of the machine is taken up where it was: its
pipeline, runners, inputs and seed are those it began with, whatever their files say now. What succeeded is not run
again, and neither is what failed by a submission's own fault or for no known reason: nobody is asked twice. A leg that
was cut runs again as a whole, as the next attempt. A round that is done has nothing to take up.

Where something that is left can only run on a runner that is out of service, nothing runs: exit code 4 (`cacheon runner`).")]
pub(super) struct Arguments {
    /// The round: its id, the beginning of its id if no other begins so, or `latest`.
    round: String,
    /// Print the round's result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Result<ExitCode, Error> {
    let round_id = find_round(&arguments.round, session)?;
    let directory = RoundDirectory::open(&session.data, &round_id)?;
    if directory.is_sealed() {
        return Err(Error::Usage(format!("round `{round_id}` is done: there is nothing to take up")));
    }
    let file = directory.read_round_file()?;
    let is_check = session.data.join(layout::CHECKS_DIR).join(round_id.as_str()).is_dir();
    let machines = if is_check || file.parent.is_some() { Machines::Left } else { Machines::Judged };
    let settings = settings_of(round_id, file, session)?;
    conduct(RoundSettings { machines, ..settings }, arguments.json, session).await
}

/// What a round was made of when it began, as settings with which it is taken up.
pub(super) fn settings_of(
    round_id: RoundId,
    file: RoundFile,
    session: &Session,
) -> Result<RoundSettings, Error> {
    let program = this_program()?;
    let drawn = |found: crate::pipeline::Diagnostics| Error::Invalid(found.render(session.diagnostics()));
    let source = Source::new(&file.pipeline_path, &file.pipeline_text);
    let pipeline = Pipeline::parse(&source).map_err(drawn)?.value;
    let mut runners = Vec::new();
    for runner in &file.runners {
        let source = Source::new(&runner.path, &runner.text);
        let spec = RunnerSpec::parse(&source).map_err(drawn)?.value;
        runners.push(round_runner(spec, source, &program));
    }
    let seed = Seed::from_hex(&file.seed_hex)
        .ok_or_else(|| Error::Invalid(format!("error: the seed of round `{round_id}` is no seed")))?;
    Ok(RoundSettings {
        beginning: Beginning::Resumed,
        pipeline: Arc::new(pipeline),
        inputs: file.inputs.into_iter().collect(),
        tick: file.tick,
        runners,
        machines: Machines::Left,
        controller: Arc::new(engines::controller(&program)),
        data_dir: session.absolute_data()?,
        round_id,
        seed,
        program,
        now: jiff::Timestamp::now,
    })
}
