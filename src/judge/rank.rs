//! Who stands where, and why: one row for every submission and every ignored commitment.
//!
//! The order is total: standing, score, earlier block, hotkey. A failed correctness check makes the score zero
//! whatever the speed; a failure of the submission's own costs its place; everything that is not its own (a
//! failed machine, an absent scorer, noise) holds it, so that nobody pays for what they did not do.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{
    Check, CheckOutcome, CommitmentRow, Component, DecisionOutcome, DecisionRow, Fault, IgnoreCode,
    LeaderboardRow, ReadRow, ReadStatus, Standing, SubmissionRow, VerdictRow,
};

/// How places are turned into a reward.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RankPolicy {
    /// How the reward is split by place.
    pub split: Split,
}

/// Shares of the reward by place. What nobody earned is not handed to others.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// The first place gets all of it.
    #[default]
    WinnerTakesAll,
    /// The first place gets the first share, the second the second, and so on.
    Shares(Shares),
}

/// Shares that are each 0 to 1 and together at most 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<f64>", into = "Vec<f64>")]
pub struct Shares(Vec<f64>);

/// Shares that are no split: one is not within 0 to 1, or together they are more than 1.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("shares must each lie between 0 and 1 and sum to at most 1, these are {0:?}")]
pub struct InvalidShares(Vec<f64>);

impl TryFrom<Vec<f64>> for Shares {
    type Error = InvalidShares;

    fn try_from(shares: Vec<f64>) -> Result<Self, Self::Error> {
        // Three shares of a third written in decimals may sum to a hair above one.
        let is_split = shares.iter().all(|share| (0.0..=1.0).contains(share))
            && shares.iter().sum::<f64>() <= 1.0 + 1e-9;
        if is_split { Ok(Self(shares)) } else { Err(InvalidShares(shares)) }
    }
}

impl From<Shares> for Vec<f64> {
    fn from(shares: Shares) -> Self {
        shares.0
    }
}

impl Split {
    fn share(&self, place: usize) -> f64 {
        match self {
            Self::WinnerTakesAll => f64::from(u8::from(place == 0)),
            Self::Shares(shares) => shares.0.get(place).copied().unwrap_or(0.0),
        }
    }
}

/// Everything a place rests on. The order of rows does not matter.
#[derive(Debug, Clone, Copy)]
pub struct Standings<'a> {
    /// Id of the round.
    pub round_id: &'a str,
    /// All submissions of the round.
    pub submissions: &'a [SubmissionRow],
    /// All commitments of the round; the ignored ones get a row too.
    pub commitments: &'a [CommitmentRow],
    /// All reads, the last attempt of each.
    pub reads: &'a [ReadRow],
    /// All verdicts of the round.
    pub verdicts: &'a [VerdictRow],
    /// All decisions of the round.
    pub decisions: &'a [DecisionRow],
}

/// What became of one submission, and why.
#[derive(Debug, Clone, PartialEq)]
struct Judgement {
    standing: Standing,
    score: f64,
    fault: Option<Fault>,
    code: String,
    detail: String,
}

/// Reason code of a read in which not one byte came from the server.
pub const NO_ANSWER: &str = "no-answer";

impl Judgement {
    fn new(
        standing: Standing,
        fault: Option<Fault>,
        code: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self { standing, score: 0.0, fault, code: code.into(), detail: detail.into() }
    }
}

/// The leaderboard, first place first.
pub fn leaderboard(policy: &RankPolicy, standings: &Standings<'_>) -> Vec<LeaderboardRow> {
    let by_hotkey = Indexed::new(standings);
    let mut rows: Vec<LeaderboardRow> = standings
        .submissions
        .iter()
        .map(|submission| {
            let judgement = by_hotkey.judgement(&submission.hotkey);
            let speedup = |component| by_hotkey.speedup(&submission.hotkey, component);
            LeaderboardRow {
                round_id: standings.round_id.to_owned(),
                rank: 0,
                hotkey: submission.hotkey.clone(),
                uid: submission.uid,
                block: Some(submission.block),
                image: Some(submission.image.clone()),
                digest: Some(submission.digest.clone()),
                score: judgement.score,
                share: 0.0,
                speedup_e2e: speedup(Component::E2e),
                speedup_ttft: speedup(Component::Ttft),
                standing: judgement.standing,
                fault: judgement.fault,
                reason: judgement.code,
                detail: judgement.detail,
            }
        })
        .collect();
    rows.extend(
        standings
            .commitments
            .iter()
            .filter(|commitment| !commitment.is_accepted)
            .map(|commitment| ignored(standings.round_id, commitment)),
    );
    rows.sort_by(order);
    for (place, row) in rows.iter_mut().enumerate() {
        row.rank = place as u32 + 1;
        if row.standing == Standing::Scored {
            row.share = policy.split.share(place);
        }
    }
    rows
}

fn order(a: &LeaderboardRow, b: &LeaderboardRow) -> Ordering {
    let earlier = |row: &LeaderboardRow| row.block.unwrap_or(i64::MAX);
    a.standing
        .cmp(&b.standing)
        .then_with(|| b.score.total_cmp(&a.score))
        .then_with(|| earlier(a).cmp(&earlier(b)))
        .then_with(|| a.hotkey.cmp(&b.hotkey))
        // Ignored commitments may share a block and a hotkey, or have neither.
        .then_with(|| {
            (&a.digest, &a.image, &a.reason, &a.detail).cmp(&(&b.digest, &b.image, &b.reason, &b.detail))
        })
}

fn ignored(round_id: &str, commitment: &CommitmentRow) -> LeaderboardRow {
    LeaderboardRow {
        round_id: round_id.to_owned(),
        rank: 0,
        hotkey: commitment.hotkey.clone(),
        uid: None,
        block: commitment.block,
        image: commitment.image.clone(),
        digest: commitment.digest.clone(),
        score: 0.0,
        share: 0.0,
        speedup_e2e: None,
        speedup_ttft: None,
        standing: Standing::Ignored,
        fault: Some(Fault::Submission),
        reason: commitment.ignored_code.map_or("ignored", IgnoreCode::as_str).to_owned(),
        detail: commitment.ignored_reason.clone().unwrap_or_default(),
    }
}

/// The rows of each submission, found by its hotkey.
struct Indexed<'a> {
    reads: BTreeMap<&'a str, Vec<&'a ReadRow>>,
    verdicts: BTreeMap<&'a str, Vec<&'a VerdictRow>>,
    decisions: BTreeMap<(&'a str, Component), &'a DecisionRow>,
}

impl<'a> Indexed<'a> {
    fn new(standings: &Standings<'a>) -> Self {
        let mut reads: BTreeMap<&str, Vec<&ReadRow>> = BTreeMap::new();
        for read in standings.reads {
            reads.entry(read.hotkey.as_deref().unwrap_or_default()).or_default().push(read);
        }
        for reads in reads.values_mut() {
            reads.sort_by_key(|read| (&read.read_key, read.attempt));
        }
        let mut verdicts: BTreeMap<&str, Vec<&VerdictRow>> = BTreeMap::new();
        for verdict in standings.verdicts {
            verdicts.entry(verdict.hotkey.as_deref().unwrap_or_default()).or_default().push(verdict);
        }
        for verdicts in verdicts.values_mut() {
            verdicts.sort_by_key(|verdict| (verdict.check, &verdict.read_key));
        }
        let decisions =
            standings.decisions.iter().map(|row| ((row.hotkey.as_str(), row.component), row)).collect();
        Self { reads, verdicts, decisions }
    }

    fn speedup(&self, hotkey: &str, component: Component) -> Option<f64> {
        let row = self.decisions.get(&(hotkey, component))?;
        row.log_ratio.map(f64::exp).filter(|ratio| ratio.is_finite())
    }

    fn judgement(&self, hotkey: &str) -> Judgement {
        self.failed_read(hotkey).or_else(|| self.failed_check(hotkey)).unwrap_or_else(|| self.decided(hotkey))
    }

    /// What a read that failed by the submission's own fault says, or that no read of it was measured; else none.
    fn failed_read(&self, hotkey: &str) -> Option<Judgement> {
        let reads = self.reads.get(hotkey).map_or(&[][..], Vec::as_slice);
        let from = |standing, read: &ReadRow| {
            let fault = read.fault.unwrap_or(Fault::Unknown);
            let code = read.reason.clone().unwrap_or_else(|| "read-void".to_owned());
            let detail = read.detail.clone().unwrap_or_else(|| "the read was not measured".to_owned());
            Judgement::new(standing, Some(fault), code, detail)
        };
        let own =
            |read: &&&ReadRow| read.status == ReadStatus::Failed && read.fault == Some(Fault::Submission);
        if let Some(read) = reads.iter().find(own) {
            // A machine that hangs is silent too: it is the submission only where the baseline beside it was heard.
            let is_silent = read.reason.as_deref() == Some(NO_ANSWER);
            if is_silent && !self.has_sound_neighbours(read) {
                return Some(Judgement { fault: Some(Fault::Unknown), ..from(Standing::Held, read) });
            }
            return Some(from(Standing::Failed, read));
        }
        if reads.iter().any(|read| read.status == ReadStatus::Measured) {
            return None;
        }
        Some(reads.first().map_or_else(
            || {
                let detail = "no read of this submission took place in this round";
                Judgement::new(Standing::Held, Some(Fault::Unknown), "not-measured", detail)
            },
            |read| from(Standing::Held, read),
        ))
    }

    /// Whether the baseline reads right before and after a read were measured, and there is one.
    fn has_sound_neighbours(&self, read: &ReadRow) -> bool {
        let baselines = self.reads.get("").map_or(&[][..], Vec::as_slice);
        let is_beside = |other: &&&ReadRow| {
            other.sequence == read.sequence && other.position.abs_diff(read.position) == 1
        };
        let beside: Vec<&&ReadRow> = baselines.iter().filter(is_beside).collect();
        !beside.is_empty() && beside.iter().all(|other| other.status == ReadStatus::Measured)
    }

    fn failed_check(&self, hotkey: &str) -> Option<Judgement> {
        let verdicts = self.verdicts.get(hotkey).map_or(&[][..], Vec::as_slice);
        let with = |outcome: CheckOutcome| verdicts.iter().filter(move |row| row.outcome == outcome);
        if let Some(first) = with(CheckOutcome::Fail).next() {
            let mut others: Vec<Check> = with(CheckOutcome::Fail).map(|row| row.check).collect();
            others.dedup();
            others.retain(|check| *check != first.check);
            let also = if others.is_empty() {
                String::new()
            } else {
                let others: Vec<&str> = others.into_iter().map(Check::as_str).collect();
                format!("; also failed: {}", others.join(", "))
            };
            let detail = format!("{}: {}{also}", first.check, first.reason);
            let code = format!("failed-{}", first.check);
            return Some(Judgement::new(Standing::Disqualified, Some(Fault::Submission), code, detail));
        }
        if let Some(void) = with(CheckOutcome::Void).next() {
            let detail = format!("{} could not be checked: {}", void.check, void.reason);
            return Some(Judgement::new(Standing::Held, Some(Fault::Infra), "check-void", detail));
        }
        verdicts.is_empty().then(|| {
            let detail = "its answers were not checked";
            Judgement::new(Standing::Held, Some(Fault::Infra), "not-verified", detail)
        })
    }

    fn decided(&self, hotkey: &str) -> Judgement {
        let Some(row) = self.decisions.get(&(hotkey, Component::Score)) else {
            let detail = "its speed was not compared with the baseline's";
            return Judgement::new(Standing::Held, Some(Fault::Infra), "not-decided", detail);
        };
        let lower = row.lower.filter(|lower| lower.exp().is_finite());
        match (row.outcome, lower) {
            (DecisionOutcome::Pass, Some(lower)) => Judgement {
                score: lower.exp_m1().max(0.0),
                ..Judgement::new(Standing::Scored, None, "faster", row.reason.clone())
            },
            (DecisionOutcome::Fail, _) => {
                Judgement::new(Standing::NotFaster, None, "not-faster", row.reason.clone())
            }
            (DecisionOutcome::Pass, None) | (DecisionOutcome::NoDecision, _) => {
                Judgement::new(Standing::Held, Some(Fault::Infra), "no-decision", row.reason.clone())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Arm;

    fn submission(hotkey: &str, block: i64) -> SubmissionRow {
        SubmissionRow { hotkey: hotkey.into(), block, ..SubmissionRow::default() }
    }

    fn measured_read(hotkey: &str) -> ReadRow {
        ReadRow { read_key: hotkey.into(), hotkey: Some(hotkey.into()), attempt: 1, ..ReadRow::default() }
    }

    fn failed_read(hotkey: &str, fault: Fault) -> ReadRow {
        ReadRow {
            status: ReadStatus::Failed,
            fault: Some(fault),
            reason: Some("server-exited".into()),
            detail: Some("the server exited with code 1".into()),
            ..measured_read(hotkey)
        }
    }

    fn verdict(hotkey: &str, check: Check, outcome: CheckOutcome) -> VerdictRow {
        VerdictRow {
            hotkey: Some(hotkey.into()),
            check,
            outcome,
            reason: "why".into(),
            ..VerdictRow::default()
        }
    }

    fn decision(hotkey: &str, outcome: DecisionOutcome, lower: f64) -> DecisionRow {
        DecisionRow {
            hotkey: hotkey.into(),
            component: Component::Score,
            log_ratio: Some(lower),
            lower: Some(lower),
            outcome,
            reason: "speed".into(),
            ..DecisionRow::default()
        }
    }

    fn commitment(hotkey: &str, position: u32) -> CommitmentRow {
        CommitmentRow {
            position,
            hotkey: hotkey.into(),
            block: Some(5),
            ignored_code: Some(IgnoreCode::DuplicateDigest),
            ignored_reason: Some(format!("entry {position}")),
            ..CommitmentRow::default()
        }
    }

    #[derive(Clone, Debug, Default)]
    struct Round {
        submissions: Vec<SubmissionRow>,
        commitments: Vec<CommitmentRow>,
        reads: Vec<ReadRow>,
        verdicts: Vec<VerdictRow>,
        decisions: Vec<DecisionRow>,
    }

    impl Round {
        fn leaderboard(&self, split: Split) -> Vec<LeaderboardRow> {
            let standings = Standings {
                round_id: "r",
                submissions: &self.submissions,
                commitments: &self.commitments,
                reads: &self.reads,
                verdicts: &self.verdicts,
                decisions: &self.decisions,
            };
            leaderboard(&RankPolicy { split }, &standings)
        }

        /// Adds a submission that was measured, found correct and decided.
        fn measured(mut self, hotkey: &str, block: i64, lower: f64) -> Self {
            let outcome = if lower > 0.0 { DecisionOutcome::Pass } else { DecisionOutcome::Fail };
            self.submissions.push(submission(hotkey, block));
            self.reads.push(measured_read(hotkey));
            self.verdicts.push(verdict(hotkey, Check::Flips, CheckOutcome::Pass));
            self.decisions.push(decision(hotkey, outcome, lower));
            self
        }
    }

    fn summary(rows: &[LeaderboardRow]) -> Vec<(&str, Standing, &str)> {
        rows.iter().map(|row| (row.hotkey.as_str(), row.standing, row.reason.as_str())).collect()
    }

    #[test]
    fn every_submission_and_every_ignored_commitment_has_its_row_and_reason() {
        let mut round = Round::default()
            .measured("slow", 1, -0.1)
            .measured("fast", 9, 0.5)
            .measured("faster", 10, 0.6)
            .measured("cheat", 2, 0.9)
            .measured("void", 3, 0.9)
            .measured("noisy", 4, 0.9);
        round.verdicts.push(verdict("cheat", Check::CommittedLogprobs, CheckOutcome::Fail));
        round.verdicts.push(verdict("cheat", Check::Flips, CheckOutcome::Fail));
        round.verdicts.push(verdict("cheat", Check::Counts, CheckOutcome::Void));
        round.verdicts.push(verdict("void", Check::Counts, CheckOutcome::Void));
        round.decisions[5].outcome = DecisionOutcome::NoDecision;
        for (hotkey, fault) in
            [("crashed", Fault::Submission), ("unlucky", Fault::Infra), ("odd", Fault::Unknown)]
        {
            round.submissions.push(submission(hotkey, 1));
            round.reads.push(failed_read(hotkey, fault));
        }
        round.submissions.push(submission("absent", 2));
        round.commitments.push(commitment("copy", 0));
        let rows = round.leaderboard(Split::WinnerTakesAll);
        assert_eq!(
            summary(&rows),
            [
                ("faster", Standing::Scored, "faster"),
                ("fast", Standing::Scored, "faster"),
                ("slow", Standing::NotFaster, "not-faster"),
                ("cheat", Standing::Disqualified, "failed-flips"),
                ("crashed", Standing::Failed, "server-exited"),
                ("odd", Standing::Held, "server-exited"),
                ("unlucky", Standing::Held, "server-exited"),
                ("absent", Standing::Held, "not-measured"),
                ("void", Standing::Held, "check-void"),
                ("noisy", Standing::Held, "no-decision"),
                ("copy", Standing::Ignored, "duplicate-digest"),
            ]
        );
        assert_eq!(rows[3].detail, "flips: why; also failed: committed-logprobs");
        assert!((rows[0].score - 0.6_f64.exp_m1()).abs() < 1e-12);
        assert!(rows[1..].iter().all(|row| row.share == 0.0) && (rows[0].share - 1.0).abs() < 1e-12);
        assert!(rows[2..].iter().all(|row| row.score == 0.0));
    }

    #[test]
    fn a_failed_read_of_its_own_outweighs_a_measured_one_and_an_infrastructure_one_does_not() {
        for (fault, expected) in [(Fault::Submission, Standing::Failed), (Fault::Infra, Standing::Scored)] {
            let mut round = Round::default().measured("a", 1, 0.5);
            round.reads.push(failed_read("a", fault));
            assert_eq!(round.leaderboard(Split::default())[0].standing, expected);
        }
    }

    /// A round in which a submission was silent, and its baselines before and after came to this.
    fn silent_beside(before: ReadStatus, after: ReadStatus) -> (Standing, Option<Fault>) {
        let mut round = Round::default().measured("other", 2, 0.2);
        round.submissions.push(submission("mute", 1));
        let baseline = |position: u32, status: ReadStatus| {
            let row = measured_read("");
            ReadRow { hotkey: None, arm: Arm::Baseline, position, status, ..row }
        };
        let silent = ReadRow {
            position: 1,
            reason: Some(NO_ANSWER.to_owned()),
            ..failed_read("mute", Fault::Submission)
        };
        round.reads.extend([baseline(0, before), silent, baseline(2, after)]);
        let rows = round.leaderboard(Split::WinnerTakesAll);
        let row = rows.iter().find(|row| row.hotkey == "mute").expect("a row");
        assert_eq!(row.reason, NO_ANSWER);
        (row.standing, row.fault)
    }

    #[test]
    fn silence_is_the_submissions_own_where_the_baseline_beside_it_was_heard() {
        use ReadStatus::{Failed, Measured};
        assert_eq!(silent_beside(Measured, Measured), (Standing::Failed, Some(Fault::Submission)));
        for (before, after) in [(Failed, Measured), (Measured, Failed), (Failed, Failed)] {
            assert_eq!(silent_beside(before, after), (Standing::Held, Some(Fault::Unknown)));
        }
    }

    #[test]
    fn ties_go_to_the_earlier_commitment() {
        let round = Round::default().measured("a", 7, 0.5).measured("b", 6, 0.5).measured("c", 6, 0.5);
        let order: Vec<String> =
            round.leaderboard(Split::default()).into_iter().map(|row| row.hotkey).collect();
        assert_eq!(order, ["b", "c", "a"]);
    }

    #[test]
    fn policies_read_as_they_are_written() {
        let check = |text: &str, split: Option<Split>| {
            assert_eq!(
                serde_json::from_str::<RankPolicy>(text).ok().map(|policy| policy.split),
                split,
                "{text}"
            );
        };
        check("{}", Some(Split::WinnerTakesAll));
        check(r#"{"split":"winner-takes-all"}"#, Some(Split::WinnerTakesAll));
        check(r#"{"split":{"shares":[0.8,0.2]}}"#, Some(Split::Shares(Shares(vec![0.8, 0.2]))));
        check(r#"{"split":{"shares":[0.8,0.3]}}"#, None);
        check(r#"{"split":{"shares":[-0.1]}}"#, None);
        check(r#"{"spilt":"winner-takes-all"}"#, None);
    }

    #[derive(Clone, Debug)]
    struct Case {
        block: i64,
        kind: u8,
        lower: f64,
    }

    fn rounds() -> impl Strategy<Value = Round> {
        let case = (0_i64..4, 0_u8..6, prop_oneof![Just(0.5), -1.0_f64..1.0]);
        let case = case.prop_map(|(block, kind, lower)| Case { block, kind, lower });
        proptest::collection::vec(case, 0..12).prop_map(|cases| {
            let mut round = Round::default();
            for (number, case) in (0..).zip(cases) {
                let hotkey = format!("h{number}");
                if case.kind == 0 {
                    round.commitments.push(commitment("h", number));
                    continue;
                }
                round = round.measured(&hotkey, case.block, case.lower);
                match case.kind {
                    1 => round.verdicts.push(verdict(&hotkey, Check::Answered, CheckOutcome::Fail)),
                    2 => round.reads.push(failed_read(&hotkey, Fault::Submission)),
                    3 => round.verdicts.push(verdict(&hotkey, Check::Counts, CheckOutcome::Void)),
                    _ => {}
                }
            }
            round
        })
    }

    proptest! {
        #[test]
        fn the_order_is_total_and_of_the_rows_alone(round in rounds(), turn in 0_usize..12) {
            let rows = round.leaderboard(Split::WinnerTakesAll);
            prop_assert_eq!(rows.len(), round.submissions.len() + round.commitments.len());
            let mut other = round.clone();
            other.submissions.reverse();
            other.commitments.reverse();
            other.reads.reverse();
            other.verdicts.reverse();
            other.decisions.reverse();
            let len = other.submissions.len().max(1);
            other.submissions.rotate_left(turn % len);
            prop_assert_eq!(&rows, &other.leaderboard(Split::WinnerTakesAll));
            for (place, row) in (1..).zip(&rows) {
                prop_assert_eq!(row.rank, place);
                prop_assert!(row.score.is_finite() && row.score >= 0.0);
                prop_assert!(!row.reason.is_empty() && !row.detail.is_empty());
                prop_assert!(row.standing == Standing::Scored || row.share == 0.0);
            }
            for pair in rows.windows(2) {
                prop_assert!(pair[0].score >= pair[1].score);
            }
        }

        #[test]
        fn shares_sum_to_at_most_one(round in rounds(), parts in proptest::collection::vec(0.0_f64..1.0, 0..5)) {
            let total: f64 = parts.iter().sum::<f64>().max(1.0);
            let shares = Shares::try_from(parts.iter().map(|part| part / total).collect::<Vec<f64>>());
            let split = Split::Shares(shares.expect("a split"));
            let paid: f64 = round.leaderboard(split).iter().map(|row| row.share).sum();
            prop_assert!(paid <= 1.0 + 1e-9);
        }
    }
}
