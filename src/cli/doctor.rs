//! `cacheon doctor`: what is wrong, and the command that mends it.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Session, print, say, this_program};
use crate::adapters::doctor;
use crate::adapters::store::list_runners;
use crate::error::{Error, ExitCode};
use crate::report::doctor::checks::{
    RunnerFacts, check_clock, check_containers, check_data, check_disk, check_leftovers, check_machine,
    check_processes, check_runner, check_service,
};
use crate::report::doctor::rounds::check_rounds;
use crate::report::doctor::{Finding, Severity, findings_json, findings_text, shell_word, worst};
use crate::report::text::error_chain;

#[derive(Debug, Args)]
#[command(after_help = "\
Looks at the data directory, the room on its disk, all rounds, the runners, their
engines and whether they are in service, the machine and its GPUs, processes that
a dead round left, and the clock. Changes nothing.
A `problem` means that something does not work, and ends with code 3; a `warning`
that it works and may not for long, or not for all. Each says what mends it. That a
runner cannot be used here is a problem if no other can, or if --runner names it.

Examples:
  cacheon doctor
  cacheon doctor --runner h200x4
  cacheon doctor --json | jq '.findings[] | select(.severity == \"problem\")'")]
pub(super) struct Arguments {
    /// Folder of runner files.
    #[arg(long, value_name = "DIR", default_value = "runners")]
    runners: PathBuf,
    /// A runner that this machine is for; may be given more than once.
    #[arg(long = "runner", value_name = "NAME")]
    needed: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: &Arguments, session: &Session) -> Result<ExitCode, Error> {
    let findings = examine(arguments, session).await?;
    if arguments.json {
        print(&findings_json(&findings))?;
    } else {
        print(&findings_text(&findings, session.style()))?;
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (problems, warnings) = (count(Severity::Problem), count(Severity::Warning));
    let plural = |count| if count == 1 { "" } else { "s" };
    say(&format!("{problems} problem{}, {warnings} warning{}", plural(problems), plural(warnings)));
    Ok(if worst(&findings) == Severity::Problem { ExitCode::Invalid } else { ExitCode::Done })
}

async fn examine(arguments: &Arguments, session: &Session) -> Result<Vec<Finding>, Error> {
    let Arguments { runners: folder, needed, .. } = arguments;
    let (data_dir, program, now) = (&session.data, this_program()?, jiff::Timestamp::now());
    // As a command needs it that is typed here.
    let data = if data_dir == Path::new("data") {
        String::new()
    } else {
        format!(" --data {}", shell_word(&data_dir.to_string_lossy()))
    };
    let mut findings = check_data(&doctor::data(data_dir));
    findings.extend(doctor::disk(data_dir).into_iter().flat_map(|disk| check_disk(disk, &data)));
    let newest = match doctor::rounds(data_dir) {
        Ok(health) => {
            findings.extend(check_rounds(&health.rounds, &data));
            health.newest
        }
        Err(error) => {
            let why = error_chain(&error);
            findings.push(
                Finding::new("rounds", Severity::Problem, why).mend("give this user the right to read it"),
            );
            None
        }
    };
    findings.extend(check_leftovers(&doctor::leftovers(data_dir, now).unwrap_or_default(), &data));
    let runners = doctor::runners(folder, &program).await;
    if runners.is_empty() {
        let found = format!("no runner files in `{}`", folder.display());
        findings.push(Finding::new("runners", Severity::Note, found).mend("name their folder by --runners"));
    }
    if let Some(name) = needed.iter().find(|name| runners.iter().all(|runner| runner.name != **name)) {
        return Err(Error::Usage(format!("no runner file in `{}` is named `{name}`", folder.display())));
    }
    // A folder has runners for several machines, and one that can be used is enough where nobody says which.
    let has_usable = runners.iter().any(RunnerFacts::is_usable);
    let is_needed = |runner: &RunnerFacts| {
        if needed.is_empty() { !has_usable } else { needed.contains(&runner.name) }
    };
    findings.extend(runners.iter().flat_map(|runner| check_runner(runner, is_needed(runner))));
    findings.extend(check_machine(&doctor::machine()));
    let states = list_runners(data_dir).map_err(|error| error_chain(&error));
    findings.extend(check_service(&states, &data));
    let has_containers = |runner: &RunnerFacts| runner.found.as_ref().is_ok_and(|found| found.has_containers);
    if runners.iter().any(has_containers) {
        findings.extend(check_containers(&doctor::containers().await));
    }
    findings.extend(check_processes(&doctor::processes(&program)));
    findings.extend(check_clock(&doctor::clock(now, &program, newest)));
    Ok(findings)
}
