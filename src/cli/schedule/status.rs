//! `cacheon schedule status`: what is scheduled, what runs, what came last.

use clap::Args;
use jiff::Timestamp;

use super::Rounds;
use crate::cli::{Session, print, say};
use crate::error::{Error, ExitCode};
use crate::report::{PipelineStatus, ScheduleStatus, status_json, status_text};
use crate::schedule::timetable::{Lane, Scheduled, Timetable};
use crate::ticks::{Keeper, ScheduledPipeline};

#[derive(Debug, Args)]
#[command(after_long_help = "\
Reads the pipelines and the journal of ticks, and changes nothing. The whole history is a table:

  cacheon query \"SELECT nominal_at_us, outcome, reason, round_id FROM ticks ORDER BY nominal_at_us DESC LIMIT 20\"")]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    rounds: Rounds,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, session: &Session) -> Result<ExitCode, Error> {
    let now = Timestamp::now();
    let mut keeper = Keeper::new(arguments.rounds.settings(now, session)?);
    let (timetable, notes) = keeper.peek()?;
    for note in notes {
        say(&note);
    }
    let known = keeper.pipelines().iter().map(|pipeline| status(pipeline, &timetable, now));
    let known: Vec<PipelineStatus> = known.collect();
    if arguments.json {
        print(&status_json(&known))?;
    } else if known.is_empty() {
        say("no pipeline here has a schedule: `on.schedule` gives it one");
    } else {
        print(&status_text(&known, now))?;
    }
    Ok(ExitCode::Done)
}

fn status(pipeline: &ScheduledPipeline, timetable: &Timetable, now: Timestamp) -> PipelineStatus {
    let unseen = Lane::default();
    let lane = timetable.lanes().get(&pipeline.name).unwrap_or(&unseen);
    let schedules = pipeline.schedules.iter().map(|schedule| {
        let alone = Scheduled {
            name: &pipeline.name,
            path: &pipeline.path,
            schedules: std::slice::from_ref(schedule),
            from: now,
        };
        let id = crate::model::ScheduleId::of(&pipeline.name, schedule);
        ScheduleStatus {
            handled: lane.handled.get(&id).copied(),
            next: timetable.next_tick(now, &alone),
            cron: id.cron,
            timezone: id.timezone,
        }
    });
    PipelineStatus {
        pipeline: pipeline.name.clone(),
        path: pipeline.path.clone(),
        broken: pipeline.broken.clone(),
        schedules: schedules.collect(),
        running: lane.open.as_ref().map(|open| (open.round_id.to_string(), open.started, open.resumes)),
        waiting: lane
            .waiting
            .iter()
            .map(|waiting| (waiting.tick.nominal, waiting.reason, waiting.detail.clone()))
            .collect(),
        last: lane.last.as_ref().map(|last| (last.round_id.to_string(), last.at, last.exit_code)),
        last_done: lane.last_done,
    }
}
