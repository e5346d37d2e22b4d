//! Whose answers kill the scorer: what it is asked next, and whose answers it is not asked any more.
//!
//! A scorer that dies is launched anew. Until then it was asked in an order that says nothing of whose an answer is; from
//! the first death on it is asked one submission at a time, with a trusted question (an answer of the baseline's) at the
//! beginning of each launch and after each submission, so that a death that comes late finds the one who caused it.
//!
//! Who was asked for when the scorer died goes next, alone on the new launch, and with the answer at which it died first. A
//! submission's answers are refused where the scorer dies of them alone a second time, by the same answer or in two
//! launches, and the launch after that takes as many trusted questions as the dead one was asked anything: a scorer that dies
//! by itself at so many refuses nobody. Pure: `scoring` asks, launches and keeps.

use std::collections::{BTreeMap, BTreeSet};

use crate::judge::Question;

/// The launches that each submission may cost: one death among others, and two of its own alone.
const EACH: usize = 3;
/// The deaths that may be nobody's: more of them, and it is the machine that does not run the scorer.
const OF_NOBODY: usize = 3;

/// Who gave an answer: hotkeys, none for the baseline.
pub(super) type Givers<'a> = BTreeMap<Question, BTreeSet<Option<&'a str>>>;

/// A death at somebody's answers.
#[derive(Debug)]
struct Death<'a> {
    question: Question,
    by: BTreeSet<&'a str>,
    /// Those of `by` of whom alone the launch was asked, beside trusted questions.
    alone: BTreeSet<&'a str>,
}

/// What this launch of the scorer was asked, and took.
#[derive(Debug, Default)]
struct Launch<'a> {
    asked: usize,
    trusted: usize,
    /// Who gave all that was asked, trusted questions aside; none while only those were.
    only: Option<BTreeSet<&'a str>>,
    /// Of whom it is asked now; none since the last trusted question.
    group: Option<&'a str>,
}

/// Those whose answers are refused once a launch has taken so many trusted questions.
#[derive(Debug)]
struct Accusation<'a> {
    who: BTreeSet<&'a str>,
    asked: usize,
}

/// What the scorer is asked, and what its deaths say.
#[derive(Debug)]
pub(super) struct Suspects<'a> {
    givers: &'a Givers<'a>,
    /// What is to be asked, in the order in which it is while nothing has died.
    open: Vec<&'a Question>,
    trusted: Vec<&'a Question>,
    deaths: Vec<Death<'a>>,
    /// The deaths since the step began, and those of them that were nobody's.
    died: usize,
    of_nobody: usize,
    launch: Launch<'a>,
    accusation: Option<Accusation<'a>>,
    refused: BTreeSet<&'a str>,
}

impl<'a> Suspects<'a> {
    /// Asks these in their order. Nobody is suspected but those at whose answers the scorer died before this step began.
    pub(super) fn new(givers: &'a Givers<'a>, open: Vec<&'a Question>, died_at: &[Question]) -> Self {
        let trusted = givers.keys().filter(|question| is_trusted(givers, question)).collect();
        let deaths = died_at.iter().filter(|question| !is_trusted(givers, question)).map(|question| {
            let by = hotkeys(givers, question).collect();
            Death { question: question.clone(), by, alone: BTreeSet::new() }
        });
        Self {
            givers,
            open,
            trusted,
            deaths: deaths.filter(|death| !death.by.is_empty()).collect(),
            died: 0,
            of_nobody: 0,
            launch: Launch::default(),
            accusation: None,
            refused: BTreeSet::new(),
        }
    }

    /// What is asked next; none where nothing is left to ask.
    pub(super) fn next(&mut self) -> Option<&'a Question> {
        let first = *self.open.first()?;
        if self.died == 0 && self.deaths.is_empty() {
            return Some(first);
        }
        let unasked = self.open.iter().copied().find(|question| is_trusted(self.givers, question));
        let trusted = || unasked.or_else(|| self.trusted.iter().copied().cycle().nth(self.launch.trusted));
        let needed = self.accusation.as_ref().map_or(1, |accusation| accusation.asked);
        if (self.launch.trusted < needed || unasked.is_some())
            && let Some(question) = trusted()
        {
            return Some(question);
        }
        if let Some(group) = self.launch.group
            && let Some(question) = self.first_of(group).or_else(trusted)
        {
            return Some(question);
        }
        let (group, question) = self.next_group()?;
        self.launch.group = Some(group);
        Some(question)
    }

    /// The first question that is asked of a submission: what the scorer died at last, where that is open.
    fn first_of(&self, hotkey: &str) -> Option<&'a Question> {
        let last = self.deaths.iter().rev().find(|death| death.by.contains(hotkey));
        let died_at = last.and_then(|death| self.open.iter().find(|question| ***question == death.question));
        let gave = |question: &&&Question| hotkeys(self.givers, question).any(|by| by == hotkey);
        died_at.or_else(|| self.open.iter().find(gave)).copied()
    }

    /// The submission that is asked for next: who is suspected last of all, alone, then the others, the least suspected first.
    fn next_group(&self) -> Option<(&'a str, &'a Question)> {
        let is_fresh = self.launch.only.is_none() && self.died > 0;
        let last = self.deaths.last().filter(|_| is_fresh);
        let of = |hotkey: &'a str| self.first_of(hotkey).map(|question| (hotkey, question));
        let on_trial = last.into_iter().flat_map(|death| death.by.iter().copied()).find_map(of);
        let failures = |hotkey: &&str| self.deaths.iter().filter(|death| death.by.contains(*hotkey)).count();
        let others = || self.open.iter().flat_map(|question| hotkeys(self.givers, question));
        on_trial.or_else(|| others().min_by_key(failures).and_then(of))
    }

    /// The scorer took the question: it scored or refused it.
    pub(super) fn answered(&mut self, question: &Question) {
        self.launch.asked += 1;
        self.open.retain(|other| *other != question);
        if is_trusted(self.givers, question) {
            self.launch.trusted += 1;
            self.launch.group = None;
            let trusted = self.launch.trusted;
            if let Some(accusation) = self.accusation.take_if(|accusation| accusation.asked <= trusted) {
                self.refused.extend(accusation.who);
                let open = std::mem::take(&mut self.open);
                self.open = open.into_iter().filter(|question| !self.is_refused(question)).collect();
            }
            return;
        }
        let by: BTreeSet<&'a str> = hotkeys(self.givers, question).collect();
        let only = self.launch.only.get_or_insert_with(|| by.clone());
        only.retain(|hotkey| by.contains(hotkey));
    }

    /// The scorer died at the question, or before any.
    pub(super) fn died(&mut self, at: Option<&Question>) {
        let launch = std::mem::take(&mut self.launch);
        self.died += 1;
        if self.accusation.take().is_some() {
            // It dies of trusted questions too: its last death says nothing.
            self.deaths.pop();
            self.of_nobody += 1;
            return;
        }
        let is_own = at.is_some_and(|question| !is_trusted(self.givers, question));
        let by: BTreeSet<&'a str> = match at {
            Some(question) if is_own => hotkeys(self.givers, question).collect(),
            _ => launch.group.into_iter().collect(),
        };
        let Some(question) = at.filter(|_| !by.is_empty()) else {
            self.of_nobody += 1;
            return;
        };
        let is_alone = |hotkey: &&&str| {
            launch.trusted > 0 && launch.only.as_ref().is_none_or(|only| only.contains(**hotkey))
        };
        let alone: BTreeSet<&'a str> = by.iter().filter(is_alone).copied().collect();
        let is_again = |hotkey: &&&str| {
            self.deaths.iter().any(|death| {
                let is_same = is_own && death.question == *question && death.by.contains(**hotkey);
                is_same || death.alone.contains(**hotkey)
            })
        };
        let who: BTreeSet<&'a str> = alone.iter().filter(is_again).copied().collect();
        self.deaths.push(Death { question: question.clone(), by, alone });
        if !who.is_empty() && !self.trusted.is_empty() {
            self.accusation = Some(Accusation { who, asked: launch.asked + 1 });
        }
    }

    /// Whether the scorer is launched anew: it has not died more often than submissions explain.
    pub(super) fn may_launch(&self) -> bool {
        let submissions: BTreeSet<&str> = self.givers.values().flatten().copied().flatten().collect();
        self.of_nobody <= OF_NOBODY && self.died <= EACH * submissions.len() + OF_NOBODY
    }

    /// How many submissions' answers are refused.
    pub(super) fn refused(&self) -> usize {
        self.refused.len()
    }

    /// Whether all who gave the answer are refused.
    pub(super) fn is_refused(&self, question: &Question) -> bool {
        let is_out = |hotkey: Option<&str>| hotkey.is_some_and(|hotkey| self.refused.contains(hotkey));
        self.givers.get(question).is_some_and(|by| by.iter().copied().all(is_out))
    }
}

/// Whether the baseline gave the answer too: it says nothing about anybody.
fn is_trusted(givers: &Givers<'_>, question: &Question) -> bool {
    givers.get(question).is_some_and(|by| by.contains(&None))
}

/// The submissions that gave an answer which the baseline did not.
fn hotkeys<'a>(givers: &'a Givers<'a>, question: &Question) -> impl Iterator<Item = &'a str> {
    let by = givers.get(question).filter(|by| !by.contains(&None));
    by.into_iter().flatten().copied().flatten()
}

#[cfg(test)]
mod tests;
