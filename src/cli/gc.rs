//! `cacheon gc`: frees disk.

use std::time::Duration;

use clap::{ArgGroup, Args};

use super::{Session, print, say};
use crate::adapters::store::{plan_removal, remove};
use crate::artifact::{Extent, Keep, Retention};
use crate::error::{Error, ExitCode};
use crate::pipeline::duration;
use crate::report::{Removal, removal_json, removal_sentence, removal_table};

#[derive(Debug, Args)]
#[command(after_help = "\
Raw streams (streams.parquet, exchanges.parquet) are by far the most of a round.
`--streams` removes them alone: tables, summary, journal and seal stay, and the
seal can still be checked, for the file REMOVED says what went. Without
`--streams` the raw streams of all these rounds go first and the rounds after
them, so that a removal that is cut short has freed the most and lost the least;
the same command goes on with it.

What `cacheon check` handed to a round (a folder in `checks`) goes with the
round, or later where the round is gone already; never with `--streams`.

Never touched: a round without seal, a round that a process holds, a round that
another one which stays was made from, and whatever is no round. What could not
be removed is listed with the reason, and ends with code 4.

Examples:
  cacheon gc --keep 10 --dry-run           shows what would go, and why the rest stays
  cacheon gc --keep 10                     removes all rounds but the newest ten
  cacheon gc --older-than 30d --streams    keeps all tables, and the raw streams of a month")]
#[command(group(ArgGroup::new("which").required(true).args(["keep", "older_than"])))]
pub(super) struct Arguments {
    /// Keeps the newest rounds, so many of them.
    #[arg(long, value_name = "N")]
    keep: Option<u32>,
    /// Keeps the rounds that ended no longer ago than this: `30d`, `12h`.
    #[arg(long, value_name = "AGE", value_parser = duration::parse)]
    older_than: Option<Duration>,
    /// Removes the raw streams alone.
    #[arg(long)]
    streams: bool,
    /// Shows what would go and touches nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    fn retention(&self) -> Retention {
        let keep = match (self.keep, self.older_than) {
            (_, Some(age)) => Keep::EndedWithin(age),
            (count, None) => Keep::Newest(count.map_or(usize::MAX, |count| count as usize)),
        };
        Retention { keep, extent: if self.streams { Extent::Streams } else { Extent::Rounds } }
    }
}

pub(super) fn run(arguments: &Arguments, session: &Session) -> Result<ExitCode, Error> {
    let plan = plan_removal(&session.data, arguments.retention(), jiff::Timestamp::now())?;
    let failures;
    let removal = if arguments.dry_run {
        Removal::DryRun
    } else {
        failures = remove(&session.data, &plan)?;
        Removal::Done(&failures)
    };
    if arguments.json {
        print(&removal_json(&plan, removal))?;
    } else {
        print(&removal_table(&plan, removal, session.style()))?;
    }
    say(&removal_sentence(&plan, removal));
    match removal {
        Removal::Done([first, ..]) => {
            say(&format!("error: not all of it: round `{}`: {}", first.round_id, first.why));
            Ok(ExitCode::Incomplete)
        }
        _ => Ok(ExitCode::Done),
    }
}
