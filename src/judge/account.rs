//! What arrived against what was planned: every leg, request, check and place is done, failed for a known reason, or
//! missing, and is named.
//!
//! A judgement over what happens to be there is green when nothing is there. So the plan is counted first, and what
//! the plan has and the rows have not is missing, whatever the rows say. Pure: rows in, rows out.

use std::collections::BTreeMap;

use super::pool::pool_key;
use crate::model::{
    AccountKind, AccountRow, Arm, Check, CheckOutcome, CommitmentRow, Fault, Hotkey, LeaderboardRow, ReadRow,
    ReadSpec, ReadStatus, RequestStatus, RequestTimes, SubmissionRow, VerdictRow, prompt_of_bracket,
    prompt_of_round,
};

/// What was planned, and all that arrived of it before anything is ranked.
#[derive(Debug, Clone, Copy)]
pub struct Arrived<'a> {
    /// Id of the round.
    pub round_id: &'a str,
    /// All submissions of the round.
    pub submissions: &'a [SubmissionRow],
    /// The reads that were planned, one for each leg.
    pub planned: &'a [&'a ReadSpec],
    /// The reads that arrived, measured or not.
    pub reads: &'a [ReadRow],
    /// The requests that arrived.
    pub requests: &'a [&'a RequestTimes],
    /// The verdicts that arrived.
    pub verdicts: &'a [VerdictRow],
}

/// The account of what is ranked: of each submission its reads, of each planned read its leg, and of each measured one
/// its requests and, on the candidates' side, its checks.
pub fn accounts(arrived: &Arrived<'_>) -> Vec<AccountRow> {
    let mut rows = reads(arrived);
    // A read that lost its last requests has fewer than the others; one that has none has lost all.
    let prompts = arrived
        .requests
        .iter()
        .map(|request| prompt_of_bracket(request.prompt_index).1)
        .max()
        .map_or(1, |last| last.saturating_add(1));
    let mut statuses: BTreeMap<&str, BTreeMap<u32, RequestStatus>> = BTreeMap::new();
    for request in arrived.requests {
        statuses.entry(&request.read_key).or_default().insert(request.prompt_index, request.status);
    }
    let mut outcomes: BTreeMap<&str, BTreeMap<Check, CheckOutcome>> = BTreeMap::new();
    for verdict in arrived.verdicts {
        outcomes.entry(&verdict.read_key).or_default().insert(verdict.check, verdict.outcome);
    }
    // Two rows of one read are no read.
    let mut reads_of: BTreeMap<&str, Option<&ReadRow>> = BTreeMap::new();
    for read in arrived.reads {
        reads_of.entry(&read.read_key).and_modify(|read| *read = None).or_insert(Some(read));
    }
    let (no_statuses, no_outcomes) = (BTreeMap::new(), BTreeMap::new());
    let mut checked: BTreeMap<Option<&Hotkey>, Vec<&str>> = BTreeMap::new();
    for spec in arrived.planned {
        let read = reads_of.get(spec.key.as_str()).and_then(|read| *read);
        rows.push(leg(arrived.round_id, spec, read));
        if read.is_none_or(|read| read.status != ReadStatus::Measured) {
            continue;
        }
        let prompts: Vec<u32> = spec
            .brackets
            .iter()
            .flat_map(|bracket| (0..prompts).map(|number| prompt_of_round(*bracket, number)))
            .collect();
        let by_prompt = statuses.get(spec.key.as_str()).unwrap_or(&no_statuses);
        rows.push(requests(arrived.round_id, spec, (by_prompt, &prompts)));
        if spec.arm == Arm::Candidate {
            checked.entry(spec.hotkey.as_ref()).or_default().push(&spec.key);
        }
    }
    // Each measured read's by itself, and all of a submission's together.
    let together = checked.values().filter_map(|keys| pool_key(keys.iter().copied()));
    for name in checked.values().flatten().map(|key| (*key).to_owned()).chain(together) {
        let found = outcomes.get(name.as_str()).unwrap_or(&no_outcomes);
        rows.push(checks(arrived.round_id, &name, found));
    }
    rows
}

/// The account of the leaderboard: each submission and each ignored commitment has one place.
pub fn places(
    round_id: &str,
    commitments: &[CommitmentRow],
    (submissions, leaderboard): (&[SubmissionRow], &[LeaderboardRow]),
) -> Vec<AccountRow> {
    let ignored = commitments.iter().filter(|commitment| !commitment.is_accepted);
    let names = submissions.iter().map(|row| &row.hotkey).chain(ignored.map(|row| &row.hotkey));
    let mut planned: BTreeMap<&str, u32> = BTreeMap::new();
    for name in names {
        *planned.entry(name).or_default() += 1;
    }
    let account = |(name, planned): (&str, u32)| {
        let found = leaderboard.iter().filter(|row| row.hotkey == name).count() as u32;
        let done = found.min(planned);
        AccountRow { done, ..blank(round_id, AccountKind::Place, name, planned) }
    };
    planned.into_iter().map(account).map(|row| missing(row, |row| row.name.clone())).collect()
}

/// How many are missing in all, and the first of them in words.
pub fn first_missing(rows: &[AccountRow]) -> Option<(u32, String)> {
    let first = rows.iter().find(|row| row.missing > 0)?;
    let name = first.first_missing.clone().unwrap_or_else(|| first.name.clone());
    let count = rows.iter().map(|row| row.missing).sum();
    Some((count, format!("{} of `{}`: {name}", first.kind, first.name)))
}

fn blank(round_id: &str, kind: AccountKind, name: &str, planned: u32) -> AccountRow {
    AccountRow {
        round_id: round_id.to_owned(),
        kind,
        name: name.to_owned(),
        planned,
        done: 0,
        failed: 0,
        missing: 0,
        fault: None,
        reason: None,
        first_missing: None,
    }
}

/// The row with what is neither done nor failed.
fn missing(row: AccountRow, name: impl FnOnce(&AccountRow) -> String) -> AccountRow {
    let missing = row.planned.saturating_sub(row.done + row.failed);
    let first_missing = (missing > 0).then(|| name(&row));
    AccountRow { missing, first_missing, ..row }
}

/// As many reads of each submission as of the one that has most, and at least one. What stands for a read that the machine
/// lost is none more.
fn reads(arrived: &Arrived<'_>) -> Vec<AccountRow> {
    let of = |hotkey: &str| {
        let own = |spec: &&&ReadSpec| spec.hotkey.as_ref().is_some_and(|own| own.as_str() == hotkey);
        arrived.planned.iter().filter(own).filter(|spec| spec.repeats.is_none()).count() as u32
    };
    let planned =
        arrived.submissions.iter().map(|submission| of(&submission.hotkey)).max().unwrap_or(0).max(1);
    let account = |submission: &SubmissionRow| {
        let done = of(&submission.hotkey).min(planned);
        let row =
            AccountRow { done, ..blank(arrived.round_id, AccountKind::Reads, &submission.hotkey, planned) };
        missing(row, |row| format!("read {} of {planned}", row.done + 1))
    };
    arrived.submissions.iter().map(account).collect()
}

fn leg(round_id: &str, spec: &ReadSpec, read: Option<&ReadRow>) -> AccountRow {
    let row = blank(round_id, AccountKind::Leg, &spec.key, 1);
    let row = match read {
        Some(read) if read.status == ReadStatus::Measured => AccountRow { done: 1, ..row },
        Some(read) if read.fault.is_some() => {
            AccountRow { failed: 1, fault: read.fault, reason: read.reason.clone(), ..row }
        }
        _ => row,
    };
    missing(row, |row| row.name.clone())
}

fn requests(
    round_id: &str,
    spec: &ReadSpec,
    (by_prompt, prompts): (&BTreeMap<u32, RequestStatus>, &[u32]),
) -> AccountRow {
    let arrived = prompts.iter().filter_map(|prompt| by_prompt.get(prompt));
    let done = arrived.clone().filter(|status| **status == RequestStatus::Ok).count() as u32;
    let failed = arrived.count() as u32 - done;
    let fault = (failed > 0).then_some(Fault::Submission).filter(|_| spec.arm == Arm::Candidate);
    let first_failed = by_prompt.values().find(|status| **status != RequestStatus::Ok);
    let reason = first_failed.map(ToString::to_string);
    let row = blank(round_id, AccountKind::Requests, &spec.key, prompts.len() as u32);
    missing(AccountRow { done, failed, fault, reason, ..row }, |_| {
        let first = prompts.iter().find(|prompt| !by_prompt.contains_key(prompt));
        format!("prompt {}", first.copied().unwrap_or_default())
    })
}

fn checks(round_id: &str, name: &str, found: &BTreeMap<Check, CheckOutcome>) -> AccountRow {
    let failed = found.values().filter(|outcome| **outcome == CheckOutcome::Void).count() as u32;
    let done = found.len() as u32 - failed;
    let void = found.iter().find(|(_, outcome)| **outcome == CheckOutcome::Void);
    let fault = void.map(|_| Fault::Infra);
    let reason = void.map(|(check, _)| format!("{check} is void"));
    let row = blank(round_id, AccountKind::Checks, name, Check::ALL.len() as u32);
    missing(AccountRow { done, failed, fault, reason, ..row }, |_| {
        let first = Check::ALL.iter().find(|check| !found.contains_key(check));
        first.map_or_else(String::new, ToString::to_string)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOTKEY: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";

    /// A round as it should arrive: a baseline's and a candidate's read of two requests.
    #[derive(Clone)]
    struct Case {
        submissions: Vec<SubmissionRow>,
        planned: Vec<ReadSpec>,
        reads: Vec<ReadRow>,
        requests: Vec<RequestTimes>,
        verdicts: Vec<VerdictRow>,
    }

    fn whole() -> Case {
        let spec = |key: &str, arm| ReadSpec {
            key: key.to_owned(),
            arm,
            hotkey: (arm == Arm::Candidate).then(|| HOTKEY.parse().expect("a hotkey")),
            image: "a/b".parse().expect("an image"),
            digest: format!("sha256:{}", "0".repeat(64)).parse().expect("a digest"),
            position: 0,
            sequence: "0".to_owned(),
            brackets: vec![0],
            repeats: None,
        };
        let read = |key: &str| ReadRow {
            read_key: key.to_owned(),
            status: ReadStatus::Measured,
            ..ReadRow::default()
        };
        let request = |key: &str, prompt_index| RequestTimes {
            read_key: key.to_owned(),
            prompt_index,
            status: RequestStatus::Ok,
            ..RequestTimes::default()
        };
        let verdict = |check: &Check| VerdictRow {
            read_key: "c".to_owned(),
            check: *check,
            outcome: CheckOutcome::Pass,
            ..VerdictRow::default()
        };
        Case {
            submissions: vec![SubmissionRow { hotkey: HOTKEY.to_owned(), ..SubmissionRow::default() }],
            planned: vec![spec("b", Arm::Baseline), spec("c", Arm::Candidate)],
            reads: ["b", "c"].map(read).to_vec(),
            requests: ["b", "c"].iter().flat_map(|key| [request(key, 0), request(key, 1)]).collect(),
            verdicts: Check::ALL.iter().map(verdict).collect(),
        }
    }

    fn check(change: impl FnOnce(&mut Case), expected: Option<(u32, &str)>) {
        let mut case = whole();
        change(&mut case);
        let planned: Vec<&ReadSpec> = case.planned.iter().collect();
        let requests: Vec<&RequestTimes> = case.requests.iter().collect();
        let rows = accounts(&Arrived {
            round_id: "r",
            submissions: &case.submissions,
            planned: &planned,
            reads: &case.reads,
            requests: &requests,
            verdicts: &case.verdicts,
        });
        let found = first_missing(&rows);
        assert_eq!(found.as_ref().map(|(count, text)| (*count, text.as_str())), expected);
        assert!(rows.iter().all(|row| row.planned <= row.done + row.failed + row.missing));
    }

    #[test]
    fn what_is_missing_is_named() {
        check(|_| {}, None);
        check(|case| drop(case.reads.pop()), Some((1, "leg of `c`: c")));
        check(|case| case.reads.push(case.reads[1].clone()), Some((1, "leg of `c`: c")));
        check(|case| case.reads[1].status = ReadStatus::Failed, Some((1, "leg of `c`: c")));
        check(|case| drop(case.requests.remove(2)), Some((1, "requests of `c`: prompt 0")));
        check(|case| case.requests.clear(), Some((2, "requests of `b`: prompt 0")));
        check(|case| drop(case.verdicts.remove(1)), Some((1, "checks of `c`: hard-margin")));
        check(|case| case.verdicts.clear(), Some((Check::ALL.len() as u32, "checks of `c`: answered")));
        let without_candidate = |case: &mut Case| {
            case.planned.pop();
            case.reads.pop();
        };
        check(without_candidate, Some((1, &format!("reads of `{HOTKEY}`: read 1 of 1"))));
        check(
            |case| {
                case.planned.clear();
                case.reads.clear();
                case.requests.clear();
            },
            Some((1, &format!("reads of `{HOTKEY}`: read 1 of 1"))),
        );
    }

    #[test]
    fn a_repeat_is_no_read_that_others_miss() {
        const OTHER: &str = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty";
        let other = |repeats: Option<&str>| {
            let repeats = repeats.map(str::to_owned);
            move |case: &mut Case| {
                case.submissions.push(SubmissionRow { hotkey: OTHER.to_owned(), ..SubmissionRow::default() });
                for (key, repeats) in [("d", None), ("e", repeats)] {
                    let hotkey = Some(OTHER.parse().expect("a hotkey"));
                    let spec = ReadSpec { key: key.to_owned(), hotkey, repeats, ..case.planned[1].clone() };
                    case.planned.push(spec);
                    case.reads.push(ReadRow {
                        read_key: key.to_owned(),
                        status: ReadStatus::Failed,
                        fault: Some(Fault::Infra),
                        ..ReadRow::default()
                    });
                }
            }
        };
        check(other(Some("d")), None);
        check(other(None), Some((1, &format!("reads of `{HOTKEY}`: read 2 of 2"))));
    }

    #[test]
    fn several_reads_are_also_checked_together() {
        let second = |case: &mut Case| {
            case.planned.push(ReadSpec { key: "d".to_owned(), ..case.planned[1].clone() });
            case.reads.push(ReadRow { read_key: "d".to_owned(), ..case.reads[1].clone() });
            case.requests.extend([0, 1].map(|number| RequestTimes {
                read_key: "d".to_owned(),
                prompt_index: number,
                ..case.requests[2].clone()
            }));
            let of = |key: &str, row: &VerdictRow| VerdictRow { read_key: key.to_owned(), ..row.clone() };
            let again: Vec<VerdictRow> = case.verdicts.iter().map(|row| of("d", row)).collect();
            case.verdicts.extend(again);
        };
        let all = Check::ALL.len() as u32;
        check(second, Some((all, "checks of `c..d`: answered")));
        check(
            |case| {
                let together = |row: &VerdictRow| VerdictRow { read_key: "c..d".to_owned(), ..row.clone() };
                let together: Vec<VerdictRow> = case.verdicts.iter().map(together).collect();
                second(case);
                case.verdicts.extend(together);
            },
            None,
        );
    }

    #[test]
    fn what_failed_is_not_missing() {
        check(
            |case| {
                case.reads[1].status = ReadStatus::Failed;
                case.reads[1].fault = Some(Fault::Submission);
            },
            None,
        );
        check(|case| case.requests[3].status = RequestStatus::Timeout, None);
        check(|case| case.verdicts[2].outcome = CheckOutcome::Void, None);
    }

    #[test]
    fn everybody_has_a_place() {
        let submissions = whole().submissions;
        let ignored = [CommitmentRow { hotkey: "other".to_owned(), ..CommitmentRow::default() }];
        let place = |hotkey: &str| LeaderboardRow { hotkey: hotkey.to_owned(), ..LeaderboardRow::default() };
        let check = |board: &[LeaderboardRow], expected: Option<&str>| {
            let rows = places("r", &ignored, (&submissions, board));
            assert_eq!(first_missing(&rows).map(|(_, text)| text).as_deref(), expected);
        };
        check(&[place(HOTKEY), place("other")], None);
        check(&[place(HOTKEY), place(HOTKEY)], Some("place of `other`: other"));
        check(&[], Some(&format!("place of `{HOTKEY}`: {HOTKEY}")));
    }
}
