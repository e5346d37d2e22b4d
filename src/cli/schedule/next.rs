//! `cacheon schedule next`: the instants at which rounds would start, and what clock changes do to them.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::Serialize;

use crate::cli::{Session, print, read_source, say};
use crate::error::{Error, ExitCode};
use crate::pipeline::code::Code;
use crate::pipeline::cron::{self, ClockChange, Cron};
use crate::pipeline::definition::Schedule;
use crate::pipeline::{Diagnostic, Diagnostics, Pipeline, Severity, Source};

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("lines").required(true).args(["pipeline", "cron"])))]
#[command(after_long_help = "\
A cron line has five fields: minute, hour, day of month, month, day of week. A field is `*`, a value, a range `a-b`, or a
list of these with commas; `/n` takes every nth. Months and days of the week have three-letter names; Sunday is 0 and 7.
Where both day fields are restricted, a day of either counts; where one begins with `*`, it must be a day of both.

When clocks change: a line that names hours fires once for each local time. One that does not exist is made up for at the
first instant after the gap, one that occurs twice counts the first time. A line whose hour field is `*` or `*/n` fires
whenever the clock shows its time: twice where an hour is repeated, and nothing is made up for.

Examples:
  cacheon schedule next --cron '17 */6 * * *'
  cacheon schedule next --cron '30 2 * * *' --timezone Europe/Berlin --after 2026-03-28T00:00Z -n 3
  cacheon schedule next pipelines/nightly.yml --json")]
pub(in crate::cli) struct Arguments {
    /// The pipeline whose schedules are merged in order of time.
    pipeline: Option<PathBuf>,
    /// A cron line in place of a pipeline's.
    #[arg(long, value_name = "LINE", allow_hyphen_values = true)]
    cron: Option<String>,
    /// IANA name of the time zone of `--cron`; UTC where none is given.
    #[arg(long, value_name = "ZONE", requires = "cron", conflicts_with = "pipeline")]
    timezone: Option<String>,
    /// Instant after which to look, such as 2026-03-01T00:00Z; now where none is given.
    #[arg(long, value_name = "INSTANT")]
    after: Option<Timestamp>,
    /// Number of instants, 1 to 1000.
    #[arg(short = 'n', value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A cron line and the zone it is meant in.
/// When a schedule starts rounds, in a sentence.
fn sentence(schedule: &Schedule) -> String {
    let (line, times, zone) = (schedule.cron.as_str(), schedule.cron.times_of_day(), schedule.zone_name());
    let days = schedule.cron.days().map(|days| format!(" on the days of `{days}`")).unwrap_or_default();
    format!("`{line}` runs {times} {zone}{days}")
}

#[derive(Serialize)]
struct Fire<'l> {
    cron: &'l str,
    timezone: &'l str,
    at: Timestamp,
    /// Local time with its offset.
    local: String,
    note: Option<String>,
}

impl<'l> Fire<'l> {
    fn new(line: &'l Schedule, at: &Zoned) -> Self {
        Self {
            cron: line.cron.as_str(),
            timezone: line.zone_name(),
            at: at.timestamp(),
            local: at.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
            note: line.cron.clock_change(at).map(|change| note(change, at)),
        }
    }
}

/// What people are told of a clock change.
fn note(change: ClockChange, at: &Zoned) -> String {
    match change {
        ClockChange::Moved { nominal } => {
            let form = if nominal.date() == at.date() { "%H:%M" } else { "%Y-%m-%d %H:%M" };
            format!("moved by the clock change: {} does not exist", nominal.strftime(form))
        }
        ClockChange::FirstOfTwo => "first of two".to_owned(),
        ClockChange::SecondOfTwo => "second of two".to_owned(),
    }
}

pub(super) fn run(arguments: &Arguments, session: &Session) -> Result<ExitCode, Error> {
    let lines = lines(arguments, session)?;
    let after = arguments.after.unwrap_or_else(Timestamp::now);
    let count = usize::from(arguments.count);
    let mut fires = Vec::new();
    for line in &lines {
        let own = line.cron.after(&after.to_zoned(line.timezone.clone())).take(count);
        let known = fires.len();
        fires.extend(own.map(|at| (at, line)));
        if fires.len() == known {
            say(&format!("`{}` never fires", line.cron.as_str()));
        } else if !arguments.json {
            say(&sentence(line));
        }
    }
    // Lines that fire together stay in the order of the file.
    fires.sort_by_key(|(at, _)| at.timestamp());
    fires.truncate(count);
    if arguments.json {
        let fires: Vec<Fire<'_>> = fires.iter().map(|(at, line)| Fire::new(line, at)).collect();
        print(&format!("{}\n", serde_json::to_string_pretty(&fires).unwrap_or_default()))?;
    } else {
        print(&table(&fires, lines.len() > 1))?;
    }
    Ok(ExitCode::Done)
}

/// One line for each instant: local time, UTC, the cron line where there are several, and the note.
fn table(fires: &[(Zoned, &Schedule)], names_lines: bool) -> String {
    let locals: Vec<String> = fires
        .iter()
        .map(|(at, line)| {
            // Only clocks of the past were off by seconds.
            let form = if at.second() == 0 { "%a %Y-%m-%d %H:%M %:z" } else { "%a %Y-%m-%d %H:%M:%S %:z" };
            format!("{} {}", at.strftime(form), line.zone_name())
        })
        .collect();
    let width =
        |texts: &mut dyn Iterator<Item = &str>| texts.map(|text| text.chars().count()).max().unwrap_or(0);
    let local_width = width(&mut locals.iter().map(String::as_str));
    let cron_width = width(&mut fires.iter().map(|(_, line)| line.cron.as_str()));
    let mut text = String::new();
    for ((at, line), local) in fires.iter().zip(&locals) {
        let cron = names_lines.then(|| format!("{:cron_width$}", line.cron.as_str()));
        let note = line.cron.clock_change(at).map(|change| note(change, at));
        let first = [format!("{local:local_width$}"), at.timestamp().to_string()];
        let row: Vec<String> = first.into_iter().chain(cron).chain(note).collect();
        text += row.join("  ").trim_end();
        text.push('\n');
    }
    text
}

fn lines(arguments: &Arguments, session: &Session) -> Result<Vec<Schedule>, Error> {
    let invalid = |errors: Diagnostics| Error::Invalid(errors.render(session.diagnostics()));
    let Some(path) = &arguments.pipeline else {
        return line(arguments).map(|line| vec![line]).map_err(invalid);
    };
    let parsed = Pipeline::parse(&read_source(path)?).map_err(invalid)?;
    if parsed.warnings.items.iter().any(|item| item.severity != Severity::Note) {
        say(&parsed.warnings.render(session.diagnostics()));
    }
    if parsed.value.schedules.is_empty() {
        return Err(Error::Usage(format!("`{}` has no `on.schedule`", path.display())));
    }
    Ok(parsed.value.schedules)
}

/// The line of `--cron` and `--timezone`; what is wrong with either is drawn as in a file.
fn line(arguments: &Arguments) -> Result<Schedule, Diagnostics> {
    let text = Source::new("--cron", arguments.cron.as_deref().unwrap_or_default());
    let cron = Cron::parse(&text.text).map_err(|error| {
        Diagnostics::new(&text, vec![Diagnostic::error(Code::Cron, error.span, error.to_string())])
    })?;
    let Some(name) = &arguments.timezone else { return Ok(Schedule::plain(cron, TimeZone::UTC)) };
    let zone = cron::time_zone(name).map_err(|offers| {
        let source = Source::new("--timezone", name);
        let span = crate::pipeline::Span::new(0, name.len());
        let message = format!("unknown time zone `{name:.60}`");
        Diagnostics::new(
            &source,
            vec![Diagnostic::error(Code::TimeZone, span, message).did_you_mean(&offers)],
        )
    })?;
    Ok(Schedule::plain(cron, zone))
}
