//! `cacheon import`: a round from a file that `cacheon export` wrote.

use std::fs::File;
use std::path::PathBuf;

use clap::Args;

use super::carry::carry;
use super::{Session, print, say};
use crate::adapters::store::RoundDirectory;
use crate::adapters::store::archive::{Limits, import};
use crate::error::{Error, ExitCode};
use crate::report::import_json;

#[derive(Debug, Args)]
#[command(after_long_help = "\
The file is not trusted. Its seal comes first, and only what the seal lists is unpacked,
with the path, size and digest that it says; nothing leads out of the round, and the
round appears under its name when all of it was checked and is on disk. Nothing is left
where it is refused:

  2    the round is here already, with the same seal, or has more than --max-bytes
  3    not an archive that `cacheon export` wrote, or damaged since
  4    another round of this id is here, or the disk has no room
  6    not the round that its seal describes; the first difference is named

That the files are those that were sealed says nothing of what they say: that is what
`cacheon audit` finds out.

Examples:
  cacheon import round-demo-1.tar.zst && cacheon audit demo-1
  cacheon --data elsewhere import round-demo-1.tar.zst --json")]
pub(super) struct Arguments {
    /// The file.
    file: PathBuf,
    /// Most bytes that the round's files may have together; never more than the disk has free.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 40)]
    max_bytes: u64,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Result<ExitCode, Error> {
    let unreadable = |source| Error::Unreadable { path: arguments.file.clone(), source };
    let source = File::open(&arguments.file).map_err(unreadable)?;
    let data = session.data.clone();
    let limits = Limits { max_bytes: arguments.max_bytes };
    let doing = format!("importing {}", arguments.file.display());
    let carried = carry(&doing, move |pulse| import(&data, source, limits, pulse)).await?;
    let round_id = &carried.round_id;
    if arguments.json {
        let round = RoundDirectory::open(&session.data, round_id)?;
        print(&import_json(&carried, &round.path().display().to_string()))?;
    } else {
        print(&format!("{round_id}\n"))?;
    }
    say(&carried.sentence());
    say(&format!("next: cacheon audit {round_id}"));
    Ok(ExitCode::Done)
}
