//! `rank`: from kept rows to decisions, scores and the leaderboard.
//!
//! Everything it uses is on disk: the requests of each read, the verdicts, the commitments. It measures
//! nothing, so it can be done again, by anybody, with this policy or another.

use std::collections::BTreeSet;

use super::ranking::{Look, Ranking};
use super::{JobContext, StageError, write_table};
use crate::judge::{Arrived, Confirm, LookReads, LookRules, Speeds, accounts, first_missing, leaderboard};
use crate::model::{AccountKind, AccountRow, Hotkey, ReadSpec, Standing, SubmissionRow};
use crate::pipeline::stage::benchmark::MeasuredLeg;
use crate::pipeline::stage::rank::{Output, Parameters};

pub(super) fn run(parameters: &Parameters, context: &JobContext<'_>) -> Result<Output, StageError> {
    let round_id = context.round.round_id.as_str();
    let (score, policy) = (&parameters.score, &parameters.rank);
    let again: Option<&[MeasuredLeg]> = parameters.confirm.as_deref();
    let mut looks: Vec<Look<'_>> = vec![(&parameters.reads, Some(&parameters.verdicts))];
    looks.extend(again.map(|legs| (legs, parameters.confirm_verdicts.as_ref())));
    let ranking = Ranking::load(&parameters.commitments, &looks, context)?;
    let finalists: BTreeSet<&str> = again.unwrap_or_default().iter().filter_map(hotkey).collect();
    account((parameters, &finalists), &ranking, context)?;

    let timed = ranking.timed(&parameters.reads);
    let measured = LookReads::of(score, &timed);
    let rules = match again {
        Some(_) => LookRules::screen(score),
        None => LookRules::only(score, ranking.submissions.len()),
    };
    let measure = Speeds::of(score, (round_id, rules), &ranking.submissions, (&measured, None));
    let timed = ranking.timed(again.unwrap_or_default());
    let confirmed = LookReads::of(score, &timed);
    let rules = LookRules::confirm(score, finalists.len());
    let second = Speeds::of(score, (round_id, rules), &ranking.submissions, (&confirmed, Some(&measured)));
    let floors = ranking.floors(score);
    let confirm = again.map(|_| Confirm { finalists: &finalists, speeds: &second });
    let standings = ranking.standings(round_id, (&floors, &measure), confirm);
    let (rows, head_to_head) = leaderboard((score, policy), &standings);
    write_table(context, &ranking.reads)?;
    write_table(context, &[&measure.decisions[..], &second.decisions[..]].concat())?;
    write_table(context, &head_to_head)?;
    write_table(context, &rows)?;
    let held = rows.iter().filter(|row| row.standing == Standing::Held).count();
    let winner = rows.iter().find(|row| row.share > 0.0).map(|row| row.hotkey.clone()).unwrap_or_default();
    Ok(Output { held: held as u64, winner, leaderboard: rows })
}

fn hotkey(leg: &MeasuredLeg) -> Option<&str> {
    leg.matrix.read.hotkey.as_ref().map(Hotkey::as_str)
}

/// What arrived against what was planned, before anything is ranked: of the first look for every submission, of the
/// second for those that it was planned for.
fn account(
    (parameters, finalists): (&Parameters, &BTreeSet<&str>),
    ranking: &Ranking,
    context: &JobContext<'_>,
) -> Result<(), StageError> {
    let mut rows = account_of(&parameters.reads, &ranking.submissions, (ranking, context));
    if let Some(legs) = &parameters.confirm {
        let is_finalist = |row: &&SubmissionRow| finalists.contains(row.hotkey.as_str());
        let again: Vec<SubmissionRow> = ranking.submissions.iter().filter(is_finalist).cloned().collect();
        let mut second = account_of(legs, &again, (ranking, context));
        for row in second.iter_mut().filter(|row| row.kind == AccountKind::Reads) {
            row.name.push_str(" confirm");
        }
        rows.extend(second);
    }
    write_table(context, &rows)?;
    match first_missing(&rows) {
        None => Ok(()),
        Some((count, first)) => Err(StageError::Missing { count, first }),
    }
}

fn account_of(
    legs: &[MeasuredLeg],
    submissions: &[SubmissionRow],
    (ranking, context): (&Ranking, &JobContext<'_>),
) -> Vec<AccountRow> {
    let planned: Vec<&ReadSpec> = legs.iter().map(|leg| &leg.matrix.read).collect();
    let requests =
        planned.iter().filter_map(|read| ranking.requests.get(&read.key)).flatten().collect::<Vec<_>>();
    accounts(&Arrived {
        round_id: context.round.round_id.as_str(),
        submissions,
        planned: &planned,
        reads: &ranking.reads,
        requests: &requests,
        verdicts: &ranking.verdicts,
    })
}
