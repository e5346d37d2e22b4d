//! A round, judged: from the rows of what was measured to every row that follows from them.
//!
//! [`evaluate`] is the whole of it. The stages of a round call its parts one by one, because between them stand a
//! scorer and a publication; whoever judges a published round again calls it at once and gets the same rows.

use serde::{Deserialize, Serialize};

use super::floor::Floors;
use super::pool::{MeasuredRead, verdicts};
use super::rank::{Standings, leaderboard};
use super::score::ScorePolicy;
use super::speeds::{LookReads, LookRules, Speeds, TimedRead};
use super::split::RankPolicy;
use super::thresholds::VerifyPolicy;
use super::weights::{WeightsPolicy, weights};
use crate::model::{
    CommitmentRow, DecisionRow, HeadToHeadRow, LeaderboardRow, ReadRow, ReadStatus, RequestRow, RequestTimes,
    SubmissionRow, TokenRow, VerdictRow, WeightRow,
};

/// All that is known of a round before it is judged. The rows of one read lie together and in their order.
#[derive(Debug, Clone, Copy)]
pub struct RoundEvidence<'a> {
    /// Id of the round.
    pub round_id: &'a str,
    /// All commitments of the round.
    pub commitments: &'a [CommitmentRow],
    /// All submissions of the round.
    pub submissions: &'a [SubmissionRow],
    /// All reads, the last attempt of each, measured or not.
    pub reads: &'a [ReadRow],
    /// The requests of the measured reads.
    pub requests: &'a [RequestRow],
    /// The tokens of their answers, the scorer's columns filled.
    pub tokens: &'a [TokenRow],
}

/// The rules that a round is judged by.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Policies {
    /// Thresholds of the correctness checks.
    pub verify: VerifyPolicy,
    /// Formula, margins and gates of the speed comparison.
    pub score: ScorePolicy,
    /// How the reward is split by place.
    pub rank: RankPolicy,
    /// Which subnet the weights are for.
    pub weights: WeightsPolicy,
}

/// All rows that judging a round gives.
#[derive(Debug, Clone, PartialEq)]
pub struct RoundOutcome {
    /// Every check of every read, and of all reads of a candidate together.
    pub verdicts: Vec<VerdictRow>,
    /// Every component of every submission's speed.
    pub decisions: Vec<DecisionRow>,
    /// The comparisons of submissions with each other that the order rests on.
    pub head_to_head: Vec<HeadToHeadRow>,
    /// The leaderboard, first place first.
    pub leaderboard: Vec<LeaderboardRow>,
    /// The weights the chain is told.
    pub weights: Vec<WeightRow>,
}

/// Judges a round of one look: every verdict, decision, place and weight.
pub fn evaluate(policies: &Policies, evidence: &RoundEvidence<'_>) -> RoundOutcome {
    let measured = measured_reads(evidence);
    let verdicts = verdicts(&policies.verify, evidence.round_id, &measured);
    let times = |read: &MeasuredRead<'_>| read.requests.iter().map(RequestTimes::from).collect();
    let times: Vec<Vec<RequestTimes>> = measured.iter().map(times).collect();
    let timed: Vec<TimedRead<'_>> =
        measured.iter().zip(&times).map(|(read, requests)| read.timed(requests)).collect();
    let reads = LookReads::of(&policies.score, &timed);
    let rules = LookRules::only(&policies.score, evidence.submissions.len());
    let measure =
        Speeds::of(&policies.score, (evidence.round_id, rules), evidence.submissions, (&reads, None));
    let of_read = |key: &str| {
        let found = measured.iter().zip(&times).find(|(read, _)| read.read_key == key);
        found.map_or(&[][..], |(_, times)| times)
    };
    let floors = Floors::of(policies.score.floor, evidence.reads, of_read);
    let standings = Standings {
        round_id: evidence.round_id,
        submissions: evidence.submissions,
        commitments: evidence.commitments,
        reads: evidence.reads,
        verdicts: &verdicts,
        floors: &floors,
        measure: &measure,
        confirm: None,
    };
    let (leaderboard, head_to_head) = leaderboard((&policies.score, &policies.rank), &standings);
    let weights = weights(&policies.weights, &leaderboard);
    RoundOutcome { verdicts, decisions: measure.decisions, head_to_head, leaderboard, weights }
}

/// The measured reads with their rows, in the order of `reads`.
fn measured_reads<'a>(evidence: &RoundEvidence<'a>) -> Vec<MeasuredRead<'a>> {
    let is_measured = |read: &&ReadRow| read.status == ReadStatus::Measured;
    let measured = |read: &'a ReadRow| MeasuredRead {
        read_key: &read.read_key,
        arm: read.arm,
        hotkey: read.hotkey.as_deref(),
        sequence: &read.sequence,
        position: read.position,
        requests: rows_of(evidence.requests, &read.read_key, |row| &row.read_key),
        tokens: rows_of(evidence.tokens, &read.read_key, |row| &row.read_key),
    };
    evidence.reads.iter().filter(is_measured).map(measured).collect()
}

fn rows_of<'a, T>(rows: &'a [T], read_key: &str, key: fn(&T) -> &String) -> &'a [T] {
    rows.chunk_by(|left, right| key(left) == key(right))
        .find(|rows| rows.first().is_some_and(|row| key(row) == read_key))
        .unwrap_or_default()
}
