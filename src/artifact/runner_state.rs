//! `quarantine/<runner>.json`: whether a runner is in service, why not, and when it was put back before.
//!
//! It lies beside the rounds, because it outlives them: a machine on which the baseline died is broken for the next round too. A runner
//! without such a file is in service and always was. Who decides that a machine is broken is `judge`'s business
//! ([`crate::judge::broken_machines`]), and what follows from it for a round that of `schedule`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ArtifactError, FormatVersion, layout};
use crate::model::RoundId;

/// Most reads that are named as the reason.
const MAX_READS: usize = 4;
/// Most quarantines of the past that are kept: the newest.
const MAX_HISTORY: usize = 50;
/// Longest text that is kept of a reason, in characters.
const MAX_TEXT: usize = 500;

/// What is known of a runner from round to round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunnerState {
    /// Version of the file's format: [`RunnerState::SCHEMA`] of the program that wrote it.
    pub schema: FormatVersion,
    /// Name of the runner.
    pub runner: String,
    /// Why it is out of service; none where it is in service.
    pub quarantine: Option<Quarantine>,
    /// The quarantines that were lifted, the oldest first; at most the newest fifty.
    pub history: Vec<PastQuarantine>,
}

/// That a runner is out of service: no round puts a job on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quarantine {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub cause: QuarantineCause,
}

/// Why a runner was put out of service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case", deny_unknown_fields)]
pub enum QuarantineCause {
    /// The baseline failed on it in a round, and was not measured there afterwards.
    Round {
        /// Id of the round.
        round_id: RoundId,
        /// The reads that say so, the earliest first; at most four, and at least one.
        reads: Vec<FailedRead>,
    },
    /// A person did it.
    Hand {
        /// Why, in their words.
        reason: String,
    },
}

/// A baseline's read that failed as a machine makes servers fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedRead {
    /// Id of the job that it is a leg of.
    pub job: String,
    /// Key of the leg.
    pub leg: String,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Code of the reason why it failed.
    pub code: String,
    /// The reason in words.
    pub message: String,
}

/// A quarantine that was lifted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PastQuarantine {
    /// What it was.
    pub quarantine: Quarantine,
    /// When it was lifted.
    pub lifted_at: Timestamp,
    /// Why, in the words of whoever lifted it; none where they said nothing.
    pub reason: Option<String>,
}

/// The version alone, which a file of any version says.
#[derive(Deserialize)]
struct Version {
    schema: FormatVersion,
}

impl Quarantine {
    /// By a round whose baseline failed in these reads.
    pub fn by_round(since: Timestamp, round_id: RoundId, mut reads: Vec<FailedRead>) -> Self {
        reads.truncate(MAX_READS);
        for read in &mut reads {
            for text in [&mut read.job, &mut read.leg, &mut read.code, &mut read.message] {
                *text = cut(text);
            }
        }
        Self { since, cause: QuarantineCause::Round { round_id, reads } }
    }

    /// By a person, for this reason.
    pub fn by_hand(since: Timestamp, reason: &str) -> Self {
        Self { since, cause: QuarantineCause::Hand { reason: cut(reason) } }
    }
}

/// The beginning of a text.
fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

impl RunnerState {
    /// The version of the file that this program writes; it reads this one and older ones.
    pub const SCHEMA: FormatVersion = FormatVersion::new(1, 0);

    /// The state of a runner of which nothing is known: it is in service.
    pub fn unknown(runner: &str) -> Self {
        Self { schema: Self::SCHEMA, runner: runner.to_owned(), quarantine: None, history: Vec::new() }
    }

    /// Puts the runner out of service, if it is in service; false where it is out already, and stays so as it is.
    pub fn put_out(&mut self, quarantine: Quarantine) -> bool {
        let is_new = self.quarantine.is_none();
        self.quarantine.get_or_insert(quarantine);
        is_new
    }

    /// Puts the runner back into service; gives what it was out for, or none where it is in service.
    pub fn lift(&mut self, lifted_at: Timestamp, reason: Option<&str>) -> Option<Quarantine> {
        let quarantine = self.quarantine.take()?;
        self.history.push(PastQuarantine {
            quarantine: quarantine.clone(),
            lifted_at,
            reason: reason.map(cut),
        });
        let too_many = self.history.len().saturating_sub(MAX_HISTORY);
        self.history.drain(..too_many);
        Some(quarantine)
    }

    /// When somebody last put it back into service: what was seen of it before was looked at.
    pub fn looked_at(&self) -> Option<Timestamp> {
        self.history.iter().map(|past| past.lifted_at).max()
    }

    /// The bytes of the file: indented JSON with a line end.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn encode(&self) -> Result<Vec<u8>, ArtifactError> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(ArtifactError::RunnerState)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads the file of this name back.
    ///
    /// # Errors
    /// When it is not JSON of this form, has a newer schema, or speaks of a runner after which it is not named.
    pub fn decode(file: &str, bytes: &[u8]) -> Result<Self, ArtifactError> {
        let Version { schema: found } = serde_json::from_slice(bytes).map_err(ArtifactError::RunnerState)?;
        if found > Self::SCHEMA {
            return Err(ArtifactError::RunnerStateVersion { found, expected: Self::SCHEMA });
        }
        let state: Self = serde_json::from_slice(bytes).map_err(ArtifactError::RunnerState)?;
        if layout::runner_state_file(&state.runner) != file {
            return Err(ArtifactError::OtherRunner { found: state.runner });
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::text::error_chain;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    fn read(message: &str) -> FailedRead {
        FailedRead {
            job: "measure".to_owned(),
            leg: "0004-baseline".to_owned(),
            attempt: 2,
            code: "server-exited".to_owned(),
            message: message.to_owned(),
        }
    }

    fn out() -> RunnerState {
        let mut state = RunnerState::unknown("h200");
        let round_id = "r-1".parse().expect("an id");
        let since = at("2026-05-01T00:00:00Z");
        assert!(state.put_out(Quarantine::by_round(since, round_id, vec![read("it died")])));
        state
    }

    #[test]
    fn the_file() {
        let mut state = out();
        assert!(state.lift(at("2026-05-02T00:00:00Z"), Some("a fan was changed")).is_some());
        assert!(state.put_out(Quarantine::by_hand(at("2026-05-03T00:00:00Z"), "a new driver comes")));
        let bytes = state.encode().expect("JSON");
        insta::assert_snapshot!(String::from_utf8_lossy(&bytes));
        assert_eq!(RunnerState::decode("h200.json", &bytes).expect("reads"), state);
    }

    #[test]
    fn the_first_reason_stands_until_it_is_lifted() {
        let mut state = out();
        let before = state.clone();
        assert!(!state.put_out(Quarantine::by_hand(at("2026-06-01T00:00:00Z"), "again")));
        assert_eq!((&state, state.looked_at()), (&before, None));
        assert_eq!(state.lift(at("2026-06-02T00:00:00Z"), None), before.quarantine);
        assert_eq!(state.lift(at("2026-06-03T00:00:00Z"), None), None);
        assert_eq!(state.looked_at(), Some(at("2026-06-02T00:00:00Z")));
        assert_eq!(state.history.len(), 1);
    }

    #[test]
    fn it_stays_small() {
        let mut state = RunnerState::unknown("h200");
        for _ in 0..MAX_HISTORY + 5 {
            // What takes the most bytes in JSON.
            let long = "\u{1}".repeat(5000);
            let reads = vec![FailedRead { job: long.clone(), leg: long.clone(), ..read(&long) }; 50];
            let round_id = "r".parse().expect("an id");
            state.put_out(Quarantine::by_round(at("2026-05-01T00:00:00Z"), round_id, reads));
            state.lift(at("2026-05-02T00:00:00Z"), Some(&long));
        }
        assert_eq!(state.history.len(), MAX_HISTORY);
        let bytes = state.encode().expect("JSON").len();
        assert!(bytes < 4 << 20, "{bytes}");
    }

    #[test]
    fn what_is_not_of_the_form_is_refused_with_its_place() {
        let good = String::from_utf8(out().encode().expect("JSON")).expect("text");
        let check = |file: &str, from: &str, to: &str, expected: &str| {
            assert!(good.contains(from), "{from}");
            let error = RunnerState::decode(file, good.replace(from, to).as_bytes()).expect_err("refused");
            let said = error_chain(&error);
            assert!(said.contains(expected), "{said}");
        };
        check("h200.json", "\"history\"", "\"histories\"", "unknown field `histories`");
        check("h200.json", "\"history\"", "\"histories\"", "at line ");
        check("h200.json", "\"by\": \"round\"", "\"by\": \"ghost\"", "unknown variant `ghost`");
        check("h200.json", "\"attempt\": 2", "\"attempt\": -2", "line ");
        check(
            "h200.json",
            "\"message\": \"it died\"",
            "\"message\": \"it died\", \"x\": 1",
            "unknown field `x`",
        );
        check("h200.json", "\"r-1\"", "\"../r\"", "line ");
        check("h200.json", "\"1.0\"", "\"1.1\"", "schema 1.1");
        check("h200.json", "}", "", "line ");
        check("other.json", "h200", "h200", "speaks of the runner `h200`");
        check("h200.json", "h200", "../h200", "speaks of the runner `../h200`");
        for text in ["", "null", "[]", "{}", "{\"schema\":\"1.0\"}", &"[".repeat(100_000)] {
            assert!(RunnerState::decode("h200.json", text.as_bytes()).is_err(), "{text:.20}");
        }
    }
}
