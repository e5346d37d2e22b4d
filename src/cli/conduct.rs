//! A round under way, for the verbs that run one: signals in, progress and the result out.

use std::io::IsTerminal as _;
use std::path::Path;

use serde_json::json;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;

use super::{Session, print, say, signals, watch};
use crate::adapters::store::{RoundDirectory, round_detail};
use crate::artifact::layout;
use crate::error::{Error, ExitCode};
use crate::model::{Fault, RoundId};
use crate::report::{leaderboard_table, quarantine_sentence};
use crate::round::{Control, RoundEnd, RoundSettings, run_round};

/// Runs a round, or what is left of it, shows how it goes and what came out.
pub(super) async fn conduct(
    settings: RoundSettings,
    is_json: bool,
    session: &Session,
) -> Result<ExitCode, Error> {
    let round_id = settings.round_id.clone();
    let end = watched(settings, session).await?;
    report(is_json, session, &round_id, end)
}

/// Runs a round, or what is left of it, and shows how it goes.
pub(super) async fn watched(settings: RoundSettings, session: &Session) -> Result<RoundEnd, Error> {
    let round_id = settings.round_id.clone();
    let control = Control::default();
    let mut helpers = JoinSet::new();
    helpers.spawn(signals::listen(control.clone())?);
    let (view, views) = unbounded_channel();
    let is_live = std::io::stderr().is_terminal();
    let mut watching = JoinSet::new();
    watching.spawn(watch::watch(views, is_live, round_id.clone()));
    let outcome = run_round(settings, control, view).await;
    // The round dropped its end of the channel: the watcher ends by itself.
    let _ = watching.join_next().await;
    outcome.map_err(|error| with_remedy(error, &round_id, session))
}

/// Says what to do about a disk that stopped the round, or a runner that is out of service, and how the round goes on then.
fn with_remedy(error: Error, round_id: &RoundId, session: &Session) -> Error {
    let data = data_argument(session);
    let has_begun = RoundDirectory::open(&session.data, round_id)
        .is_ok_and(|directory| directory.path().join(layout::ROUND_FILE).exists());
    let resume = has_begun.then(|| format!("`cacheon resume {round_id}{data}`"));
    match error {
        Error::OutOfService { found, runner, .. } => {
            let lift = format!("`cacheon runner lift {runner}{data}`");
            let next = resume.map_or(lift.clone(), |resume| format!("{lift} and {resume}"));
            Error::OutOfService { found, runner, next }
        }
        Error::Store(cause) => match cause.remedy() {
            None => Error::Store(cause),
            Some(remedy) => {
                let again = resume.unwrap_or_else(|| "start the round again".to_owned());
                Error::Stopped { cause: Box::new(cause), next: format!("{remedy}, then {again}") }
            }
        },
        error => error,
    }
}

/// What the data directory adds to a command line.
pub(super) fn data_argument(session: &Session) -> String {
    if session.data == Path::new("data") {
        String::new()
    } else {
        format!(" --data {}", session.data.display())
    }
}

fn report(is_json: bool, session: &Session, round_id: &RoundId, end: RoundEnd) -> Result<ExitCode, Error> {
    let directory = RoundDirectory::open(&session.data, round_id)?;
    let detail = round_detail(&directory);
    if is_json {
        let result = json!({
            "round_id": round_id.as_str(),
            "directory": directory.path(),
            "exit_code": end.exit_code.code(),
            "reason": end.reason,
            "leaderboard": detail.leaderboard,
            "is_leaderboard_published": detail.is_leaderboard_published,
            "put_out_of_service": end.put_out.iter().map(|(runner, _)| runner).collect::<Vec<_>>(),
        });
        print(&format!("{result:#}\n"))?;
    } else if !detail.leaderboard.is_empty() {
        print(&leaderboard_table(&detail.leaderboard, session.style()))?;
    }
    let show = format!("cacheon show {round_id}");
    let data = data_argument(session);
    match (&end.reason, end.exit_code) {
        (_, ExitCode::Done) => say(&format!(
            "round {round_id} is done: {}\nnext:  {show}{data}\n       cacheon query{data} \"SELECT * FROM verdicts WHERE outcome = 'fail'\"",
            end.directory.display()
        )),
        (reason, _) => {
            let why = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            say(&format!("round {round_id} is not done{why}\nsee:  {show}{data}"));
            // What is held stays held: running on would measure nothing more.
            if reason.as_ref().is_none_or(|reason| reason.fault != Fault::Unknown) {
                say(&format!("next: cacheon resume {round_id}{data}"));
            }
        }
    }
    for (runner, quarantine) in &end.put_out {
        let sentence = quarantine_sentence(runner, quarantine);
        say(&format!("{sentence}\nnext: look at its machine, then cacheon runner lift {runner}{data}"));
    }
    Ok(end.exit_code)
}
