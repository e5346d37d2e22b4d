//! `cacheon export`: a sealed round into one file.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::carry::carry;
use super::show::find_round;
use super::{Session, print, say};
use crate::adapters::store::archive::{export, export_file};
use crate::adapters::store::{Existing, RoundDirectory};
use crate::error::{Error, ExitCode};
use crate::report::export_json;

#[derive(Debug, Args)]
#[command(after_long_help = "\
The file is a POSIX tar in zstd: SEAL first, then every sealed file by its path. Two
exports of one round have the same bytes. `tar --zstd -xf` opens it with nothing of
ours; `cacheon import` checks all of it. Every file is compared with the seal, before
the first byte is written and again on its way: code 6 where it is not what was
sealed, with the first difference. A round without seal is refused with code 2.

Where `cacheon gc --streams` removed the raw streams, the rest travels with the record
of what was removed. The lock does not travel. A round with a link that leads out of
it cannot be carried.

Examples:
  cacheon export latest                    writes round-<id>.tar.zst here
  cacheon export demo-1 /mnt/usb/r.tar.zst --force
  cacheon export demo-1 - | ssh box 'cacheon import /dev/stdin'")]
pub(super) struct Arguments {
    /// The round: its id, the beginning of its id if no other begins so, or `latest`.
    round: String,
    /// The file to write, `-` for standard output [default: round-<id>.tar.zst].
    file: Option<PathBuf>,
    /// Replace the file if it exists.
    #[arg(long)]
    force: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Result<ExitCode, Error> {
    let round_id = find_round(&arguments.round, session)?;
    let round = RoundDirectory::open(&session.data, &round_id)?;
    let doing = format!("exporting round {round_id}");
    let file = arguments.file.unwrap_or_else(|| format!("round-{round_id}.tar.zst").into());
    if file == Path::new("-") {
        if arguments.json {
            return Err(Error::Usage("`--json` and `-` both want standard output".to_owned()));
        }
        if std::io::stdout().is_terminal() {
            return Err(Error::Usage("an archive is not written to a terminal: name a file".to_owned()));
        }
        let carried = carry(&doing, move |pulse| export(&round, std::io::stdout().lock(), pulse)).await?;
        say(&carried.sentence());
        return Ok(ExitCode::Done);
    }
    let target = std::path::absolute(&file)
        .map_err(|source| Error::Machine { attempted: "find the working directory", source })?;
    let existing = if arguments.force { Existing::Replace } else { Existing::Refuse };
    let carried = carry(&doing, move |pulse| export_file(&round, &target, existing, pulse)).await?;
    let file = file.display().to_string();
    if arguments.json {
        print(&export_json(&carried, &file))?;
    } else {
        print(&format!("{file}\n"))?;
    }
    say(&carried.sentence());
    Ok(ExitCode::Done)
}
