//! What is wrong with rounds.

use super::{Finding, Severity};
use crate::model::{Conclusion, RoundId};

/// Most rounds of one kind that are named; the others are counted.
const NAMED: usize = 20;
const CHECK: &str = "rounds";

/// How it stands with a round, the worst that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoundHealth {
    /// A process holds it: its id, where the lock file names it.
    Running(Option<u32>),
    /// Nobody runs it, and it did not end; the process that the lock file still names, which is dead, and the number of
    /// files that it left half-written.
    Unfinished {
        /// Id of the dead process.
        dead: Option<u32>,
        /// Number of files.
        half_written: usize,
    },
    /// It came to its end and has no seal.
    Unsealed(Conclusion),
    /// A file of it cannot be read, and why; names the file.
    Damaged(String),
    /// It is sealed.
    Sealed,
}

/// A round and how it stands with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoundFacts {
    /// Id of the round.
    pub round_id: RoundId,
    /// How it stands with it.
    pub health: RoundHealth,
}

/// What is to be said of rounds; `data` is the argument `--data` as a command needs it, with a space before it, or empty.
pub fn check_rounds(rounds: &[RoundFacts], data: &str) -> Vec<Finding> {
    let count =
        |wanted: fn(&RoundHealth) -> bool| rounds.iter().filter(|round| wanted(&round.health)).count();
    let sealed = count(|health| *health == RoundHealth::Sealed);
    let mut findings = vec![Finding::new(
        CHECK,
        Severity::Ok,
        format!("{} round{}, {sealed} sealed", rounds.len(), if rounds.len() == 1 { "" } else { "s" }),
    )];
    for (kind, wanted) in KINDS {
        let of_kind = rounds.iter().filter(|round| wanted(&round.health));
        findings.extend(of_kind.take(NAMED).filter_map(|round| finding(round, data)));
        let more = count(*wanted).saturating_sub(NAMED);
        if more > 0 {
            let severity = findings.last().map_or(Severity::Note, |last| last.severity);
            findings.push(
                Finding::new(CHECK, severity, format!("and {more} more that are {kind}"))
                    .mend(format!("cacheon rounds{data}")),
            );
        }
    }
    findings
}

/// A word for a kind of rounds, and what is one.
type Kind = (&'static str, fn(&RoundHealth) -> bool);

/// The worst first.
const KINDS: &[Kind] = &[
    ("damaged", |health| matches!(health, RoundHealth::Damaged(_))),
    ("unfinished", |health| matches!(health, RoundHealth::Unfinished { .. })),
    ("without seal", |health| matches!(health, RoundHealth::Unsealed(_))),
    ("running", |health| matches!(health, RoundHealth::Running(_))),
];

fn finding(round: &RoundFacts, data: &str) -> Option<Finding> {
    let id = &round.round_id;
    let finding = |severity, found: String| Finding::new(CHECK, severity, format!("`{id}` {found}"));
    Some(match &round.health {
        RoundHealth::Sealed => return None,
        RoundHealth::Running(pid) => {
            let pid = pid.map_or_else(|| "a process".to_owned(), |pid| format!("process {pid}"));
            finding(Severity::Note, format!("is held by {pid}"))
        }
        RoundHealth::Unfinished { dead, half_written } => {
            let dead = dead.map(|pid| format!("; its lock names process {pid}, which is dead: harmless"));
            let files = (*half_written > 0)
                .then(|| format!("; half-written files, swept when it is taken up: {half_written}"));
            let found = format!(
                "is unfinished, and nobody runs it{}{}",
                dead.unwrap_or_default(),
                files.unwrap_or_default()
            );
            finding(Severity::Warning, found).mend(format!("cacheon resume {id}{data}"))
        }
        RoundHealth::Unsealed(Conclusion::Success) => {
            finding(Severity::Warning, "is done and has no seal".to_owned())
                .mend(format!("cacheon resume {id}{data}"))
        }
        RoundHealth::Unsealed(conclusion) => {
            finding(Severity::Note, format!("ended without seal: {}", conclusion.as_str()))
                .mend(format!("cacheon show {id}{data} says why, cacheon resume {id}{data} goes on"))
        }
        RoundHealth::Damaged(why) => finding(Severity::Problem, format!("is damaged: {why}"))
            .mend(format!("bring the file back from a copy, or move the directory of `{id}` away")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::TextStyle;
    use crate::report::doctor::findings_text;

    fn facts(name: &str, health: RoundHealth) -> RoundFacts {
        RoundFacts { round_id: name.parse().expect("an id"), health }
    }

    #[test]
    fn each_kind() {
        let rounds = [
            facts("sealed", RoundHealth::Sealed),
            facts("running", RoundHealth::Running(Some(7))),
            facts("cut", RoundHealth::Unfinished { dead: Some(8), half_written: 2 }),
            facts("fresh", RoundHealth::Unfinished { dead: None, half_written: 0 }),
            facts("done", RoundHealth::Unsealed(Conclusion::Success)),
            facts("failed", RoundHealth::Unsealed(Conclusion::Failure)),
            facts("broken", RoundHealth::Damaged("cannot read `round.json`".to_owned())),
        ];
        insta::assert_snapshot!(
            "rounds",
            findings_text(&check_rounds(&rounds, " --data d"), TextStyle::PLAIN)
        );
    }

    #[test]
    fn many_are_counted() {
        let cut = RoundHealth::Unfinished { dead: None, half_written: 0 };
        let rounds: Vec<RoundFacts> =
            (0..25).map(|number| facts(&format!("r{number}"), cut.clone())).collect();
        let findings = check_rounds(&rounds, "");
        assert_eq!(findings.len(), 1 + NAMED + 1);
        let last = findings.last().map(|last| (last.severity, last.found.as_str()));
        assert_eq!(last, Some((Severity::Warning, "and 5 more that are unfinished")));
        assert_eq!(check_rounds(&[], "").len(), 1);
    }
}
