//! Who stands where, and why: one row for every submission and every ignored commitment.
//!
//! Those that look faster than the bar stand first, in the order of proof ([`order`](super::order)), and those of them
//! that are proven faster are paid; the others by standing, score, earlier block, hotkey. A failed correctness check makes the score zero whatever the
//! speed; a failure of the submission's own costs its place; everything that is not its own (a failed machine, an
//! absent scorer, noise) holds it, so that nobody pays for what they did not do.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::floor::Floors;
use super::order::{Contender, Contest, finalists, order};
use super::repeats::{NO_ANSWER, is_of_the_server, is_void, uncounted};
use super::score::ScorePolicy;
use super::speeds::Speeds;
use super::split::RankPolicy;
use crate::model::{
    Check, CheckOutcome, CommitmentRow, Component, DecisionOutcome, Fault, HeadToHeadRow, IgnoreCode,
    LeaderboardRow, Look, ReadRow, ReadStatus, Standing, SubmissionRow, VerdictRow,
};

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
    /// What the floors of the runners say of all reads.
    pub floors: &'a Floors,
    /// Everybody's speed in the first look.
    pub measure: &'a Speeds<'a>,
    /// The second look, where the round has one.
    pub confirm: Option<Confirm<'a>>,
}

/// The second look.
#[derive(Debug, Clone, Copy)]
pub struct Confirm<'a> {
    /// Hotkeys of those that were to be measured again.
    pub finalists: &'a BTreeSet<&'a str>,
    /// Their speed in it.
    pub speeds: &'a Speeds<'a>,
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

/// Reason code of a submission about whose speed the machine's noise allows no decision.
const NO_DECISION: &str = "no-decision";

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

impl Judgement {
    /// Whether nothing but its speed was judged: it was measured, and found correct.
    fn is_by_speed(&self) -> bool {
        matches!(self.standing, Standing::Scored | Standing::NotFaster) || self.code == NO_DECISION
    }
}

/// The leaderboard, first place first, and the comparisons that its order rests on.
pub fn leaderboard(
    (score, policy): (&ScorePolicy, &RankPolicy),
    standings: &Standings<'_>,
) -> (Vec<LeaderboardRow>, Vec<HeadToHeadRow>) {
    let by_hotkey = Indexed::new(standings);
    let judged: Vec<(&SubmissionRow, Judgement)> = standings
        .submissions
        .iter()
        .map(|submission| (submission, by_hotkey.judgement(&submission.hotkey)))
        .collect();
    let speeds = standings.confirm.map_or(standings.measure, |confirm| confirm.speeds);
    let contenders: Vec<Contender<'_>> = judged
        .iter()
        .filter(|(submission, judgement)| {
            judgement.is_by_speed() && standings.is_finalist(&submission.hotkey)
        })
        .filter_map(|(submission, _)| speeds.contender(score, submission))
        .collect();
    let contest = Contest {
        round_id: standings.round_id,
        look: speeds.rules.look,
        alpha: speeds.rules.alpha,
        score,
        rank: policy,
        noise: &speeds.noise,
    };
    let (places, comparisons) = order(&contest, &contenders);
    let place_of = |hotkey: &str| places.iter().position(|place| *place == hotkey);
    let stopped_by = |hotkey: &str| comparisons.iter().find(|row| row.later == hotkey && !row.is_proven);
    let mut rows: Vec<(Option<usize>, LeaderboardRow)> = judged
        .into_iter()
        .map(|(submission, judgement)| {
            let speedup = |component| by_hotkey.speedup(&submission.hotkey, component);
            let place = place_of(&submission.hotkey);
            let behind = stopped_by(&submission.hotkey).map(|row| format!("; {}", row.reason));
            let row = LeaderboardRow {
                round_id: standings.round_id.to_owned(),
                rank: 0,
                hotkey: submission.hotkey.clone(),
                uid: submission.uid,
                block: Some(submission.block),
                image: Some(submission.image.clone()),
                digest: Some(submission.digest.clone()),
                score: judgement.score,
                share: place
                    .filter(|_| judgement.standing == Standing::Scored)
                    .map_or(0.0, |place| policy.split.share(place)),
                speedup_e2e: speedup(Component::E2e),
                speedup_ttft: speedup(Component::Ttft),
                standing: judgement.standing,
                fault: judgement.fault,
                reason: judgement.code,
                detail: judgement.detail + &behind.unwrap_or_default(),
            };
            (place, row)
        })
        .collect();
    let ignored_commitments = standings.commitments.iter().filter(|commitment| !commitment.is_accepted);
    rows.extend(ignored_commitments.map(|commitment| (None, ignored(standings.round_id, commitment))));
    rows.sort_by(by_place);
    for (place, (_, row)) in (1..).zip(&mut rows) {
        row.rank = place;
    }
    (rows.into_iter().map(|(_, row)| row).collect(), comparisons)
}

/// The hotkeys of those that the first look leaves to be measured again, in the order of commitment.
pub fn finalists_of<'a>(
    (score, policy): (&ScorePolicy, &RankPolicy),
    standings: &Standings<'a>,
) -> Vec<&'a str> {
    let by_hotkey = Indexed::new(standings);
    let is_sound = |submission: &&SubmissionRow| by_hotkey.judgement(&submission.hotkey).is_by_speed();
    let sound = standings.submissions.iter().filter(is_sound);
    let contenders: Vec<Contender<'a>> =
        sound.filter_map(|submission| standings.measure.contender(score, submission)).collect();
    finalists(policy, &contenders)
}

impl Standings<'_> {
    fn is_finalist(&self, hotkey: &str) -> bool {
        self.confirm.is_none_or(|confirm| confirm.finalists.contains(hotkey))
    }
}

fn by_place(
    (a_place, a): &(Option<usize>, LeaderboardRow),
    (b_place, b): &(Option<usize>, LeaderboardRow),
) -> Ordering {
    let place = |place: &Option<usize>| place.unwrap_or(usize::MAX);
    let earlier = |row: &LeaderboardRow| row.block.unwrap_or(i64::MAX);
    place(a_place)
        .cmp(&place(b_place))
        .then_with(|| a.standing.cmp(&b.standing))
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
    standings: &'a Standings<'a>,
    reads: BTreeMap<&'a str, Vec<&'a ReadRow>>,
    verdicts: BTreeMap<&'a str, Vec<&'a VerdictRow>>,
}

impl<'a> Indexed<'a> {
    fn new(standings: &'a Standings<'a>) -> Self {
        let mut reads: BTreeMap<&str, Vec<&ReadRow>> = BTreeMap::new();
        let uncounted = uncounted(standings.reads);
        for read in standings.reads.iter().filter(|read| !uncounted.contains(read.read_key.as_str())) {
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
        Self { standings, reads, verdicts }
    }

    /// By the last look that measured it.
    fn speedup(&self, hotkey: &str, component: Component) -> Option<f64> {
        let confirmed = self.standings.confirm.and_then(|confirm| confirm.speeds.decision(hotkey, component));
        let row = confirmed.or_else(|| self.standings.measure.decision(hotkey, component))?;
        row.log_ratio.map(f64::exp).filter(|ratio| ratio.is_finite())
    }

    fn judgement(&self, hotkey: &str) -> Judgement {
        self.failed_read(hotkey)
            .or_else(|| self.failed_check(hotkey))
            .or_else(|| self.copy(hotkey))
            .or_else(|| self.held_by_floor(hotkey))
            .or_else(|| self.lost_read(hotkey))
            .unwrap_or_else(|| self.decided(hotkey))
    }

    fn held_by_floor(&self, hotkey: &str) -> Option<Judgement> {
        let (code, fault, detail) = self.standings.floors.holds(hotkey)?;
        Some(Judgement::new(Standing::Held, Some(fault), code, detail))
    }

    /// Whether the same content was committed before, by one that was pulled and has not failed.
    fn copy(&self, hotkey: &str) -> Option<Judgement> {
        let submissions = self.standings.submissions;
        let own = submissions.iter().find(|submission| submission.hotkey == hotkey)?;
        let content = self.content(hotkey)?;
        let place = |submission: &SubmissionRow| (submission.block, submission.hotkey.clone());
        let has_failed = |hotkey: &str| {
            let failed = self.failed_read(hotkey).or_else(|| self.failed_check(hotkey));
            failed.is_some_and(|judgement| judgement.standing != Standing::Held)
        };
        let first = submissions
            .iter()
            .filter(|other| place(other) < place(own) && self.content(&other.hotkey) == Some(content))
            .filter(|other| !has_failed(&other.hotkey))
            .min_by_key(|other| place(other))?;
        let (what, code) = if first.digest == own.digest {
            ("digest", IgnoreCode::DuplicateDigest)
        } else {
            ("content, under another manifest,", IgnoreCode::DuplicateContent)
        };
        let detail = format!(
            "the {what} was committed earlier by {} at block {}: the first one counts",
            first.hotkey, first.block
        );
        Some(Judgement::new(Standing::Ignored, Some(Fault::Submission), code.as_str(), detail))
    }

    /// The content of what a submission ran, where a read of it was measured.
    fn content(&self, hotkey: &str) -> Option<&str> {
        self.reads.get(hotkey)?.iter().find_map(|read| read.content_digest.as_deref())
    }

    /// What a planned read that was lost without the submission's fault says: it is ranked on all its reads or held, for the ones
    /// that are left might be the lucky ones.
    fn lost_read(&self, hotkey: &str) -> Option<Judgement> {
        let reads = self.reads.get(hotkey).map_or(&[][..], Vec::as_slice);
        let read = reads.iter().find(|read| read.status != ReadStatus::Measured)?;
        let why = read.detail.as_deref().unwrap_or("it was not measured");
        let detail = format!("read `{}` is missing, and nobody is ranked on the rest: {why}", read.read_key);
        Some(Judgement::new(
            Standing::Held,
            Some(read.fault.unwrap_or(Fault::Unknown)),
            "read-missing",
            detail,
        ))
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
            // And one that is broken ends every server.
            let is_machine = read.reason.as_deref().is_some_and(is_of_the_server)
                && self.neighbours(read).any(|beside| {
                    beside.status != ReadStatus::Measured
                        && beside.reason.as_deref().is_some_and(is_of_the_server)
                });
            if is_machine || (is_silent && !self.has_sound_neighbours(read)) {
                return Some(Judgement { fault: Some(Fault::Unknown), ..from(Standing::Held, read) });
            }
            return Some(from(Standing::Failed, read));
        }
        if let Some(failed) = reads.iter().find_map(|read| self.void_twice(read)) {
            return Some(failed);
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

    /// What a repeat says that is void as the read was for which it was measured, while the baselines beside it were sound: whoever
    /// could void his reads as he likes would choose those by which he is judged.
    fn void_twice(&self, repeat: &ReadRow) -> Option<Judgement> {
        let first =
            self.standings.reads.iter().find(|read| Some(&read.read_key) == repeat.repeats.as_ref())?;
        if !(is_void(first) && is_void(repeat) && self.has_sound_neighbours(repeat)) {
            return None;
        }
        let why = repeat.detail.as_deref().unwrap_or("it was void");
        let detail = format!(
            "read `{}` and its repeat were void, the repeat between baselines that were measured: {why}",
            first.read_key
        );
        Some(Judgement::new(Standing::Failed, Some(Fault::Submission), "void-twice", detail))
    }

    /// The nearest baseline reads before and after a read.
    fn neighbours(&self, read: &ReadRow) -> impl Iterator<Item = &ReadRow> {
        let of_sequence = self.standings.reads.iter().filter(|other| other.sequence == read.sequence);
        let baselines: Vec<&ReadRow> = of_sequence.filter(|other| other.hotkey.is_none()).collect();
        let before = baselines.iter().filter(|other| other.position < read.position);
        let after = baselines.iter().filter(|other| other.position > read.position);
        let before = before.max_by_key(|other| (other.position, other.attempt)).copied();
        let after = after.min_by_key(|other| (other.position, u32::MAX - other.attempt)).copied();
        before.into_iter().chain(after)
    }

    /// Whether they were measured, and there is one.
    fn has_sound_neighbours(&self, read: &ReadRow) -> bool {
        let mut beside = self.neighbours(read).peekable();
        beside.peek().is_some() && beside.all(|other| other.status == ReadStatus::Measured)
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

    /// What the speeds say: of a finalist those of the second look alone, which no luck of the first one has chosen.
    fn decided(&self, hotkey: &str) -> Judgement {
        match self.standings.confirm {
            Some(confirm) if confirm.finalists.contains(hotkey) => decided_by(confirm.speeds, hotkey),
            Some(_) => {
                let first = decided_by(self.standings.measure, hotkey);
                if first.standing != Standing::Scored {
                    return first;
                }
                let detail =
                    format!("{}; it was not measured again: no paid place was in reach", first.detail);
                Judgement { code: "not-confirmed".to_owned(), detail, ..first }
            }
            None => decided_by(self.standings.measure, hotkey),
        }
    }
}

fn decided_by(speeds: &Speeds<'_>, hotkey: &str) -> Judgement {
    let Some(row) = speeds.decision(hotkey, Component::Score) else {
        let detail = match speeds.rules.look {
            Look::Measure => "its speed was not compared with the baseline's",
            Look::Confirm => "its speed was not compared with the baseline's a second time",
        };
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
            Judgement::new(Standing::Held, Some(Fault::Infra), NO_DECISION, row.reason.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::speeds::LookRules;
    use super::super::split::{Shares, Split};
    use super::*;
    use crate::model::{Arm, DecisionRow};

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
            log_ratio: Some(lower + 0.03),
            standard_error: Some(0.01),
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
        floors: Floors,
        /// The second look, where there is one: who was measured again, and what was decided.
        confirm: Option<(Vec<String>, Vec<DecisionRow>)>,
    }

    impl Round {
        fn leaderboard(&self, split: Split) -> Vec<LeaderboardRow> {
            self.ranked(split).0
        }

        fn ranked(&self, split: Split) -> (Vec<LeaderboardRow>, Vec<HeadToHeadRow>) {
            let score = ScorePolicy::default();
            let policy = RankPolicy { split, ..RankPolicy::default() };
            self.with_standings(|standings| leaderboard((&score, &policy), standings))
        }

        fn finalists(&self, policy: &RankPolicy) -> Vec<String> {
            let names = |standings: &Standings<'_>| {
                let score = ScorePolicy::default();
                finalists_of((&score, policy), standings).into_iter().map(str::to_owned).collect()
            };
            self.with_standings(names)
        }

        fn with_standings<R>(&self, then: impl FnOnce(&Standings<'_>) -> R) -> R {
            let score = ScorePolicy::default();
            let rules = LookRules::only(&score, self.submissions.len());
            let measure = Speeds::decided(rules, &self.decisions);
            let (names, decisions) = self.confirm.clone().unwrap_or_default();
            let finalists: BTreeSet<&str> = names.iter().map(String::as_str).collect();
            let second = Speeds::decided(LookRules::confirm(&score, finalists.len()), &decisions);
            let confirm = Confirm { finalists: &finalists, speeds: &second };
            then(&Standings {
                round_id: "r",
                submissions: &self.submissions,
                commitments: &self.commitments,
                reads: &self.reads,
                verdicts: &self.verdicts,
                floors: &self.floors,
                measure: &measure,
                confirm: self.confirm.is_some().then_some(confirm),
            })
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
            .measured("faster", 10, 0.53)
            .measured("cheat", 2, 0.9)
            .measured("void", 3, 0.9)
            .measured("noisy", 4, 0.0);
        round.verdicts.push(verdict("cheat", Check::CommittedLogprobs, CheckOutcome::Fail));
        round.verdicts.push(verdict("cheat", Check::Flips, CheckOutcome::Fail));
        round.verdicts.push(verdict("cheat", Check::Counts, CheckOutcome::Void));
        round.verdicts.push(verdict("void", Check::Counts, CheckOutcome::Void));
        round.decisions[5].outcome = DecisionOutcome::NoDecision;
        round.decisions[5].log_ratio = Some(0.0);
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
                ("fast", Standing::Scored, "faster"),
                ("faster", Standing::Scored, "faster"),
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
        assert!((rows[0].score - 0.5_f64.exp_m1()).abs() < 1e-12);
        assert!(rows[1..].iter().all(|row| row.share == 0.0) && (rows[0].share - 1.0).abs() < 1e-12);
        assert!(rows[2..].iter().all(|row| row.score == 0.0));
    }

    #[test]
    fn who_lacks_a_planned_read_is_not_ranked_on_the_rest() {
        let with = |read: Option<ReadRow>, outcome| {
            let mut round = Round::default().measured("a", 1, 0.5);
            round.reads.extend(read);
            round.verdicts.push(verdict("a", Check::Counts, outcome));
            let row = round.leaderboard(Split::default()).swap_remove(0);
            (row.standing, row.reason, row.fault)
        };
        let pass = CheckOutcome::Pass;
        assert_eq!(with(None, pass), (Standing::Scored, "faster".to_owned(), None));
        assert_eq!(
            with(Some(failed_read("a", Fault::Submission)), pass),
            (Standing::Failed, "server-exited".to_owned(), Some(Fault::Submission))
        );
        for fault in [Fault::Infra, Fault::Unknown, Fault::Pipeline, Fault::Operator] {
            let lost = failed_read("a", fault);
            let held = (Standing::Held, "read-missing".to_owned(), Some(fault));
            assert_eq!(with(Some(lost.clone()), pass), held);
            // What the other read is proven to be counts all the same.
            assert_eq!(with(Some(lost), CheckOutcome::Fail).0, Standing::Disqualified);
        }
        let void = ReadRow { status: ReadStatus::Void, ..measured_read("a") };
        assert_eq!(with(Some(void), pass).0, Standing::Held);
    }

    #[test]
    fn a_repeat_is_judged_for_what_the_machine_lost_and_a_second_void_costs_the_submission() {
        let with = |first: (Fault, &str), second: Option<(Fault, &str)>, beside: ReadStatus| {
            let lost = |(fault, code): (Fault, &str)| ReadRow {
                reason: Some(code.to_owned()),
                ..failed_read("a", fault)
            };
            let mut round = Round::default().measured("a", 1, 0.5);
            round.verdicts.push(verdict("a", Check::Counts, CheckOutcome::Pass));
            let measured = round.reads.pop().expect("its read");
            let repeat = second.map_or(measured, lost);
            let (sequence, key) = ("repeat-9".to_owned(), "repeat".to_owned());
            let repeats = Some("a".to_owned());
            round.reads.push(lost(first));
            round.reads.push(ReadRow { read_key: key, sequence, position: 1, repeats, ..repeat });
            for position in [0, 2] {
                let row = ReadRow { hotkey: None, arm: Arm::Baseline, position, ..measured_read("") };
                round.reads.push(ReadRow { sequence: "repeat-9".to_owned(), status: beside, ..row });
            }
            let row = round.leaderboard(Split::default()).swap_remove(0);
            (row.standing, row.reason, row.fault)
        };
        let (idle, lag, pull) =
            ((Fault::Infra, "machine-not-idle"), (Fault::Infra, "client-lag"), (Fault::Infra, "registry"));
        let sound = ReadStatus::Measured;
        assert_eq!(with(idle, None, sound), (Standing::Scored, "faster".to_owned(), None));
        assert_eq!(with((Fault::Infra, "cut"), None, sound).0, Standing::Scored);
        let costs = (Standing::Failed, "void-twice".to_owned(), Some(Fault::Submission));
        assert_eq!(with(idle, Some(lag), sound), costs);
        // Beside baselines that were lost as well, or for a reason that no server can give, it is nobody's fault.
        for (first, second, beside) in
            [(idle, idle, ReadStatus::Failed), (idle, pull, sound), (pull, idle, sound), (pull, pull, sound)]
        {
            assert_eq!(with(first, Some(second), beside).0, Standing::Held, "{first:?} {second:?}");
        }
        let own = (Fault::Submission, "server-exited");
        assert_eq!(with(idle, Some(own), sound).0, Standing::Failed);
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
    fn a_machine_on_which_the_baseline_fails_too_is_why_a_submission_failed() {
        let beside = |code: &str, baseline: Option<&str>| {
            let mut round = Round::default().measured("a", 1, 0.5);
            round.submissions.push(submission("b", 2));
            let failed = ReadRow { reason: Some(code.to_owned()), ..failed_read("b", Fault::Submission) };
            round.reads.push(ReadRow { position: 1, ..failed });
            let row = match baseline {
                None => measured_read(""),
                Some(code) => ReadRow { reason: Some(code.to_owned()), ..failed_read("", Fault::Infra) },
            };
            round.reads.push(ReadRow { hotkey: None, arm: Arm::Baseline, position: 2, ..row });
            let rows = round.leaderboard(Split::WinnerTakesAll);
            let row = rows.iter().find(|row| row.hotkey == "b").expect("a row");
            assert_eq!(row.reason, code);
            (row.standing, row.fault)
        };
        let own = (Standing::Failed, Some(Fault::Submission));
        let machine = (Standing::Held, Some(Fault::Unknown));
        assert_eq!(beside("server-exited-before-ready", None), own);
        assert_eq!(beside("server-exited-before-ready", Some("server-exited-before-ready")), machine);
        assert_eq!(beside("server-exited", Some("baseline-failed")), machine);
        // What the machine lost says nothing of how it is, and an image is bad on every machine.
        assert_eq!(beside("server-exited", Some("machine-not-idle")), own);
        assert_eq!(beside("image-invalid", Some("server-exited")), own);
    }

    /// A round in which one was committed first, and a copy of it later under another name; both were measured.
    fn with_copy(contents: [Option<&str>; 2]) -> Round {
        let mut round = Round::default().measured("first", 1, 0.2).measured("copy", 2, 0.3);
        for (read, content) in round.reads.iter_mut().zip(contents) {
            read.content_digest = content.map(ToOwned::to_owned);
        }
        for submission in &mut round.submissions {
            submission.digest.clone_from(&submission.hotkey);
        }
        round
    }

    fn standing(round: &Round, hotkey: &str) -> (Standing, String) {
        let rows = round.leaderboard(Split::WinnerTakesAll);
        let row = rows.into_iter().find(|row| row.hotkey == hotkey).expect("a row");
        assert_eq!(row.share > 0.0, row.rank == 1, "{row:?}");
        (row.standing, row.reason)
    }

    #[test]
    fn a_copy_is_told_by_its_content_and_the_first_that_did_not_fail_is_the_original() {
        let copied = with_copy([Some("a"), Some("a")]);
        assert_eq!(standing(&copied, "first").0, Standing::Scored);
        assert_eq!(standing(&copied, "copy"), (Standing::Ignored, "duplicate-content".to_owned()));
        let mut same_digest = copied.clone();
        same_digest.submissions[1].digest = "first".to_owned();
        assert_eq!(standing(&same_digest, "copy"), (Standing::Ignored, "duplicate-digest".to_owned()));
        for contents in [[Some("a"), Some("b")], [None, Some("a")], [Some("a"), None], [None, None]] {
            assert_eq!(standing(&with_copy(contents), "copy").0, Standing::Scored, "{contents:?}");
        }
        // One that was committed first and was never there, or is wrong, keeps nobody out.
        let mut absent = copied.clone();
        absent.reads[0] = failed_read("first", Fault::Submission);
        assert_eq!(standing(&absent, "first").0, Standing::Failed);
        assert_eq!(standing(&absent, "copy").0, Standing::Scored);
        let mut wrong = copied.clone();
        wrong.verdicts.push(verdict("first", Check::Flips, CheckOutcome::Fail));
        assert_eq!(standing(&wrong, "copy").0, Standing::Scored);
        // One that waits for its check does.
        let mut held = copied;
        held.verdicts.push(verdict("first", Check::Flips, CheckOutcome::Void));
        let rows = held.leaderboard(Split::WinnerTakesAll);
        let found: Vec<_> = rows.iter().map(|row| (row.hotkey.as_str(), row.standing, row.share)).collect();
        assert_eq!(found, [("first", Standing::Held, 0.0), ("copy", Standing::Ignored, 0.0)]);
    }

    #[test]
    fn who_is_below_the_floor_is_held_and_keeps_nobody_from_a_place() {
        let mut round = Round::default()
            .measured("table", 1, 3.0)
            .measured("honest", 2, 0.5)
            .measured("caught", 3, 3.0)
            .measured("here", 4, 0.4);
        round.verdicts.push(verdict("caught", Check::Flips, CheckOutcome::Fail));
        round.floors = Floors::of_cases(&["table", "caught"], &["here"]);
        let rows = round.leaderboard(Split::WinnerTakesAll);
        assert_eq!(
            summary(&rows),
            [
                ("honest", Standing::Scored, "faster"),
                ("caught", Standing::Disqualified, "failed-flips"),
                ("table", Standing::Held, "impossible-time"),
                ("here", Standing::Held, "floor-wrong"),
            ]
        );
        assert_eq!((rows[2].fault, rows[3].fault), (Some(Fault::Unknown), Some(Fault::Operator)));
        assert!((rows[0].share - 1.0).abs() < 1e-12 && rows[1..].iter().all(|row| row.share == 0.0));
        assert_eq!(round.finalists(&RankPolicy::default()), ["honest"]);
    }

    #[test]
    fn ties_go_to_the_earlier_commitment() {
        let round = Round::default().measured("a", 7, 0.5).measured("b", 6, 0.5).measured("c", 6, 0.5);
        let order: Vec<String> =
            round.leaderboard(Split::default()).into_iter().map(|row| row.hotkey).collect();
        assert_eq!(order, ["b", "c", "a"]);
    }

    #[test]
    fn a_later_commitment_goes_before_an_earlier_one_only_where_it_is_proven_faster() {
        // The standard error of a difference is 1.4%; three comparisons at a third of 1e-3 want about 6.5 of them.
        let first = |lowers: &[f64]| {
            let mut round = Round::default();
            for (number, lower) in (0..).zip(lowers) {
                round = round.measured(&format!("h{number}"), number, *lower);
            }
            round.leaderboard(Split::default())[0].hotkey.clone()
        };
        assert_eq!(first(&[0.5, 0.51]), "h0");
        assert_eq!(first(&[0.5, 0.55]), "h0");
        assert_eq!(first(&[0.5, 0.7]), "h1");
        assert_eq!(first(&[0.5, 0.51, 0.7]), "h2");
        assert_eq!(first(&[0.5, 0.7, 0.71]), "h1");
    }

    #[test]
    fn the_second_look_decides_among_those_that_were_measured_again() {
        let mut round = Round::default()
            .measured("first", 1, 0.2)
            .measured("copy", 2, 0.19)
            .measured("fast", 3, 0.5)
            .measured("lucky", 4, 0.9);
        let finalists = round.finalists(&RankPolicy::default());
        assert_eq!(finalists, ["first", "fast", "lucky"]);
        let again = |lucky| {
            vec![
                decision("first", DecisionOutcome::Pass, 0.2),
                decision("fast", DecisionOutcome::Pass, 0.45),
                decision("lucky", lucky, -0.1),
            ]
        };
        round.confirm = Some((finalists.clone(), again(DecisionOutcome::Fail)));
        let rows = round.leaderboard(Split::WinnerTakesAll);
        assert_eq!(
            summary(&rows),
            [
                ("fast", Standing::Scored, "faster"),
                ("first", Standing::Scored, "faster"),
                ("copy", Standing::Scored, "not-confirmed"),
                ("lucky", Standing::NotFaster, "not-faster"),
            ]
        );
        assert_eq!(rows.iter().map(|row| row.share).collect::<Vec<_>>(), [1.0, 0.0, 0.0, 0.0]);
        assert!((rows[0].score - 0.45_f64.exp_m1()).abs() < 1e-12, "by the second look alone");
        // Whoever was to be measured again and was not is held, and nobody waits for it.
        round.confirm = Some((finalists, again(DecisionOutcome::Fail)[..1].to_vec()));
        let rows = round.leaderboard(Split::WinnerTakesAll);
        assert_eq!((rows[0].hotkey.as_str(), rows[0].share), ("first", 1.0));
        assert_eq!(rows.iter().filter(|row| row.standing == Standing::Held).count(), 2);
        // An earlier one that is not proven faster than the bar keeps a later one off its place that is not proven
        // faster than it.
        let unproven = DecisionRow { log_ratio: Some(0.44), ..decision("first", DecisionOutcome::Fail, 0.0) };
        let rows = vec![unproven, decision("fast", DecisionOutcome::Pass, 0.45)];
        round.confirm = Some((vec!["first".to_owned(), "fast".to_owned()], rows));
        let rows = round.leaderboard(Split::WinnerTakesAll);
        assert_eq!(
            summary(&rows)[..2],
            [("first", Standing::NotFaster, "not-faster"), ("fast", Standing::Scored, "faster")]
        );
        assert!(rows.iter().all(|row| row.share == 0.0));
        // Nobody who was not measured again is paid, however many places are.
        round.confirm = Some((Vec::new(), Vec::new()));
        let split = Split::Shares(Shares(vec![0.6, 0.4]));
        assert!(round.leaderboard(split).iter().all(|row| row.share == 0.0));
    }

    #[test]
    fn finalists_are_those_that_could_take_a_paid_place() {
        let round = |lowers: &[f64]| {
            (0..).zip(lowers).fold(Round::default(), |round, (number, lower)| {
                round.measured(&format!("h{number:02}"), number, *lower)
            })
        };
        let policy = RankPolicy::default();
        assert_eq!(round(&[0.2, 0.2, 0.1, 0.2, 0.3]).finalists(&policy), ["h00", "h01", "h03", "h04"]);
        let strict = RankPolicy { slack: 0.0, ..policy.clone() };
        assert_eq!(round(&[0.2, 0.2, 0.1, 0.2, 0.3]).finalists(&strict), ["h00", "h04"]);
        let two = RankPolicy { split: Split::Shares(Shares(vec![0.7, 0.3])), ..strict.clone() };
        assert_eq!(round(&[0.2, 0.2, 0.1, 0.2, 0.3]).finalists(&two), ["h00", "h01", "h04"]);
        // A ladder of ever faster ones cannot take the earliest's place by filling the list.
        let ladder: Vec<f64> = (1..=40).map(|step| f64::from(step) / 10.0).collect();
        let few = RankPolicy { max_finalists: 3, ..strict };
        assert_eq!(round(&ladder).finalists(&few), ["h00", "h38", "h39"]);
        assert_eq!(round(&[-0.1]).finalists(&policy), [""; 0]);
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
        }

        #[test]
        fn whoever_stands_before_an_earlier_commitment_is_proven_faster(round in rounds()) {
            let (rows, comparisons) = round.ranked(Split::WinnerTakesAll);
            let scored: Vec<_> = rows.iter().filter(|row| row.standing == Standing::Scored).collect();
            for (place, before) in scored.iter().enumerate() {
                for after in &scored[place + 1..] {
                    let is_earlier = (after.block, &after.hotkey) < (before.block, &before.hotkey);
                    let is_proven = comparisons.iter().any(|row| {
                        row.later == before.hotkey && row.earlier == after.hotkey && row.is_proven
                    });
                    prop_assert!(!is_earlier || is_proven, "{} before {}", before.hotkey, after.hotkey);
                }
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
