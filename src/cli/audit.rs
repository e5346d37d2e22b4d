//! `cacheon audit`: a published round, recomputed from its files.

use clap::Args;

use super::resume::settings_of;
use super::show::find_round;
use super::{Session, print, say};
use crate::adapters::store::RoundDirectory;
use crate::audit::{RemovedStreams, audit, unreadable};
use crate::error::{Error, ExitCode};
use crate::report::{audit_json, audit_text};

#[derive(Debug, Args)]
#[command(after_long_help = "\
Nothing but the round's own directory is used, wherever it lies: no GPU, model, chain or network. The digests of all
files are compared with the seal; prompts are drawn again from the seed; requests and tokens are parsed again from the
raw streams; verdicts, decisions, leaderboard, weights and summary are computed again by the round's own pipeline; the
journal's every decision must be the one that the pipeline leads to. What comes out is compared byte for byte.

Taken as evidence: the bytes that servers sent and when they came, the scorer's answers, the commitments that were
read, and how failed attempts failed.

Ends with 0 where the round is what it says, with 6 where it is not, and says where: the file, and of a table the row,
the column and both values.")]
pub(super) struct Arguments {
    /// The round: its id, the beginning of its id if no other begins so, or `latest`.
    #[arg(default_value = "latest")]
    round: String,
    /// Of a round whose raw streams were removed by `cacheon gc --streams`: check all that does not need them.
    #[arg(long)]
    without_streams: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Result<ExitCode, Error> {
    let round_id = find_round(&arguments.round, session)?;
    let directory = RoundDirectory::open(&session.data, &round_id)?;
    if !directory.is_sealed() {
        return Err(Error::Usage(format!(
            "round `{round_id}` has no seal: it is not done, and nothing of it counts yet"
        )));
    }
    let readable = directory.read_round_file().map_err(Error::from).and_then(|file| {
        let settings = settings_of(round_id, file.clone(), session)?;
        Ok((settings, file))
    });
    let report = match readable {
        Ok((settings, file)) => {
            let removed =
                if arguments.without_streams { RemovedStreams::Pass } else { RemovedStreams::Differ };
            audit(&settings, &file, removed).await?
        }
        Err(error) => unreadable(&directory, &error),
    };
    print(&if arguments.json { audit_json(&report) } else { audit_text(&report) })?;
    if !report.agrees && !report.tool_version.is_empty() && report.tool_version != env!("CARGO_PKG_VERSION") {
        say(&format!(
            "note: the round was run by cacheon {}, this is {}: an audit by the same version settles whether that is why",
            report.tool_version,
            env!("CARGO_PKG_VERSION")
        ));
    }
    Ok(if report.agrees { ExitCode::Done } else { ExitCode::Differs })
}
