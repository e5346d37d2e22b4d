//! Which rounds may go, and why the others stay.
//!
//! Decided from what is known of all rounds at once, for a round that stays keeps the one it was made from. How they go
//! is `adapters::store`'s business.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::model::RoundId;
use crate::pipeline::duration;

/// Which rounds are to be kept, whatever else is true of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The rounds that started last, so many of them.
    Newest(usize),
    /// The rounds whose end is no longer ago than this.
    EndedWithin(Duration),
}

/// How much of a round goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Extent {
    /// The raw streams; tables, summary, journal and seal stay.
    Streams,
    /// All of it.
    #[serde(rename = "round")]
    Rounds,
}

/// What is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Which rounds are kept.
    pub keep: Keep,
    /// How much of the others goes.
    pub extent: Extent,
}

/// What is known of a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRound {
    /// Id of the round.
    pub round_id: RoundId,
    /// When it started; none where that could not be read.
    pub started_at: Option<Timestamp>,
    /// When it ended; none where that could not be read.
    pub ended_at: Option<Timestamp>,
    /// The round it was made from, where it is a rerun.
    pub parent: Option<RoundId>,
    /// What forbids to remove anything of it, whatever its age.
    pub hindrance: Option<StayReason>,
}

/// Why a round stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StayReason {
    /// It is one of the newest.
    Newest(usize),
    /// It ended too short a time ago.
    EndedWithin(Duration),
    /// It has no seal: it is not finished.
    Unsealed,
    /// A process holds it.
    Held,
    /// A round that stays was made from it.
    Parent(RoundId),
    /// When it started or ended is not known.
    UnknownAge,
    /// Something of it cannot be read.
    Unreadable(String),
    /// What would go is gone already.
    NothingLeft,
}

impl StayReason {
    /// The word used in JSON.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Newest(_) => "newest",
            Self::EndedWithin(_) => "recent",
            Self::Unsealed => "unsealed",
            Self::Held => "held",
            Self::Parent(_) => "parent",
            Self::UnknownAge => "unknown-age",
            Self::Unreadable(_) => "unreadable",
            Self::NothingLeft => "nothing-left",
        }
    }
}

impl fmt::Display for StayReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest(1) => f.write_str("it is the newest"),
            Self::Newest(count) => write!(f, "it is among the newest {count}"),
            Self::EndedWithin(age) => write!(f, "it ended within the last {}", duration::print(*age)),
            Self::Unsealed => f.write_str("it has no seal: `cacheon resume` finishes it"),
            Self::Held => f.write_str("a process holds it"),
            Self::Parent(child) => write!(f, "`{child}` was made from it and stays"),
            Self::UnknownAge => f.write_str("its files do not say when it was"),
            Self::Unreadable(why) => write!(f, "it cannot be read: {why}"),
            Self::NothingLeft => f.write_str("its raw streams are gone already"),
        }
    }
}

/// What becomes of a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It goes, or its raw streams do.
    Goes,
    /// It stays as it is.
    Stays(StayReason),
}

/// The fate of each round, in the order given; `now` is the present.
pub fn fates(rounds: &[KnownRound], keep: Keep, now: Timestamp) -> Vec<Fate> {
    let mut newest: Vec<&KnownRound> = rounds.iter().collect();
    newest.sort_by_key(|round| Reverse((round.started_at, &round.round_id)));
    let kept: BTreeSet<&RoundId> = match keep {
        Keep::Newest(count) => newest.into_iter().take(count).map(|round| &round.round_id).collect(),
        Keep::EndedWithin(_) => BTreeSet::new(),
    };
    let own = |round: &KnownRound| match keep {
        Keep::Newest(count) if kept.contains(&round.round_id) => Fate::Stays(StayReason::Newest(count)),
        _ if round.hindrance.is_some() => round.hindrance.clone().map_or(Fate::Goes, Fate::Stays),
        Keep::Newest(_) if round.started_at.is_none() => Fate::Stays(StayReason::UnknownAge),
        Keep::Newest(_) => Fate::Goes,
        Keep::EndedWithin(age) => match round.ended_at.map(|end| now.duration_since(end)) {
            None => Fate::Stays(StayReason::UnknownAge),
            // An end in the future is no age at all.
            Some(ago) if Duration::try_from(ago).is_ok_and(|ago| ago > age) => Fate::Goes,
            Some(_) => Fate::Stays(StayReason::EndedWithin(age)),
        },
    };
    let mut fates: Vec<Fate> = rounds.iter().map(own).collect();
    keep_parents(rounds, &mut fates);
    fates
}

/// Lets each round stay that one which stays was made from, and so on upwards.
fn keep_parents(rounds: &[KnownRound], fates: &mut [Fate]) {
    let mut open: Vec<&KnownRound> =
        rounds.iter().zip(&*fates).filter(|(_, fate)| **fate != Fate::Goes).map(|(round, _)| round).collect();
    while let Some(child) = open.pop() {
        let Some(parent) = &child.parent else { continue };
        for (round, fate) in rounds.iter().zip(&mut *fates) {
            if round.round_id == *parent && *fate == Fate::Goes {
                *fate = Fate::Stays(StayReason::Parent(child.round_id.clone()));
                open.push(round);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-12-01T00:00:00Z";

    fn id(text: &str) -> RoundId {
        text.parse().expect("an id")
    }

    /// A sealed round of this day of November that took an hour.
    fn round(name: &str, day: u8) -> KnownRound {
        let at = |hour| format!("2026-11-{day:02}T{hour:02}:00:00Z").parse().ok();
        KnownRound { round_id: id(name), started_at: at(1), ended_at: at(2), parent: None, hindrance: None }
    }

    fn check(rounds: &[KnownRound], keep: Keep, expected: &[&str]) {
        let now = NOW.parse().expect("a time");
        let words: Vec<String> = fates(rounds, keep, now)
            .into_iter()
            .map(|fate| match fate {
                Fate::Goes => "goes".to_owned(),
                Fate::Stays(reason) => reason.as_str().to_owned(),
            })
            .collect();
        assert_eq!(words, expected);
    }

    #[test]
    fn by_number() {
        let rounds = [round("a", 3), round("b", 1), round("c", 2)];
        check(&rounds, Keep::Newest(1), &["newest", "goes", "goes"]);
        check(&rounds, Keep::Newest(2), &["newest", "goes", "newest"]);
        check(&rounds, Keep::Newest(0), &["goes", "goes", "goes"]);
        check(&rounds, Keep::Newest(9), &["newest", "newest", "newest"]);
        check(&[], Keep::Newest(1), &[]);
        let unknown = KnownRound { started_at: None, ..round("d", 9) };
        check(&[unknown, round("a", 1)], Keep::Newest(1), &["unknown-age", "newest"]);
    }

    #[test]
    fn by_age() {
        let days = |count: u64| Keep::EndedWithin(Duration::from_secs(count * 86_400));
        check(&[round("a", 1), round("b", 29)], days(7), &["goes", "recent"]);
        let future = KnownRound { ended_at: "2027-01-01T00:00:00Z".parse().ok(), ..round("c", 1) };
        let unknown = KnownRound { ended_at: None, ..round("d", 1) };
        check(&[future, unknown], days(0), &["recent", "unknown-age"]);
        // The end counts, to the second.
        let exact = KnownRound { ended_at: "2026-11-30T00:00:00Z".parse().ok(), ..round("e", 1) };
        check(std::slice::from_ref(&exact), days(1), &["recent"]);
        check(&[exact], Keep::EndedWithin(Duration::from_secs(86_399)), &["goes"]);
    }

    #[test]
    fn what_forbids_it() {
        let hindered = |reason| KnownRound { hindrance: Some(reason), ..round("a", 1) };
        for (reason, word) in [
            (StayReason::Unsealed, "unsealed"),
            (StayReason::Held, "held"),
            (StayReason::Unreadable("line 1".to_owned()), "unreadable"),
        ] {
            check(&[hindered(reason.clone())], Keep::Newest(0), &[word]);
            check(&[hindered(reason)], Keep::EndedWithin(Duration::ZERO), &[word]);
        }
    }

    #[test]
    fn the_round_that_another_was_made_from() {
        let child = |name, day, parent| KnownRound { parent: Some(id(parent)), ..round(name, day) };
        let rounds = [round("a", 1), child("b", 2, "a"), child("c", 3, "b"), round("d", 4)];
        check(&rounds, Keep::Newest(1), &["goes", "goes", "goes", "newest"]);
        check(&rounds, Keep::Newest(2), &["parent", "parent", "newest", "newest"]);
        let circle = [child("a", 1, "b"), child("b", 2, "a"), child("c", 3, "gone")];
        check(&circle, Keep::Newest(1), &["goes", "goes", "newest"]);
        check(&circle, Keep::Newest(2), &["parent", "newest", "newest"]);
    }
}
