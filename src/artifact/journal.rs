//! `journal.jsonl`: what happened in a round, in order; the truth from which it is resumed.
//!
//! One JSON object a line: `seq`, `at`, the event's fields, and last `crc`, the first 16 hexadecimal digits of
//! the SHA-256 of the line's JSON without it. The first line is `round-started` and says the format's version;
//! a journal that says none is of version 1. A line counts once it is whole, with its end of line. What a
//! power cut leaves at the end (half a line, zeros, an unwritten block, the last lines once more) is told from damage
//! in the middle, which is refused: resuming from a history with holes would repeat or skip work.
//!
//! The journal of ticks, which stands beside the rounds, has lines of the same form ([`super::TickEvent`]).
//!
//! What all lines together come to is [`super::RoundState`]'s business.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::{ArtifactError, FormatVersion, digest};
pub use crate::model::PublishedTable;
use crate::model::{Conclusion, Digest, Reason, RoundId};
use crate::pipeline::stage::StageName;

/// The version of the journals that this program writes; it reads them and older ones.
pub const SCHEMA: FormatVersion = FormatVersion::new(2, 4);
/// What stands between the JSON of a line and its checksum.
const CRC_KEY: &str = ",\"crc\":\"";
/// Number of digits of the checksum.
const CRC_DIGITS: usize = 16;

/// What the lines of a journal say, beside their numbers and times.
pub trait Event: Serialize + DeserializeOwned {
    /// The version of the journals that this program writes; it reads them and older ones.
    const SCHEMA: FormatVersion;

    /// Whether a journal begins with this event, which says the format's version.
    fn begins(&self) -> bool;
}

impl Event for JournalEvent {
    const SCHEMA: FormatVersion = SCHEMA;

    fn begins(&self) -> bool {
        matches!(self, Self::RoundStarted(_))
    }
}

/// One line of the journal: the event with its number and wall time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalLine<E = JournalEvent> {
    /// Number of the line, from 0, without gaps.
    pub seq: u64,
    /// Wall time at which the event happened.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub event: E,
}

/// What a round is, as the first line of its journal says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundStart {
    /// Version of the journal's format: [`SCHEMA`] of the program that wrote it.
    #[serde(default = "FormatVersion::first")]
    pub schema: FormatVersion,
    /// Id of the round.
    pub round_id: RoundId,
    /// Name of the round's pipeline.
    pub pipeline: String,
    /// What the round is called, if its pipeline has a `run-name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_name: Option<String>,
    /// Digest of the pipeline's text.
    pub pipeline_digest: Digest,
    /// Names of the round's runners. Version 1 said `runner`, the names joined by commas.
    #[serde(alias = "runner", deserialize_with = "names")]
    pub runners: Vec<String>,
    /// Digest of the root seed: it can be shown now, and the seed later.
    pub seed_commitment: Digest,
}

/// Which attempt of which leg.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LegAttempt {
    /// Id of the job.
    pub job: String,
    /// Key of the leg; empty for a job without matrix.
    pub leg: String,
    /// Number of the attempt, from 1. A scheduled retry of version 1 said `next_attempt`.
    #[serde(alias = "next_attempt")]
    pub attempt: u32,
}

/// A leg that ended in another round and stands in this one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TakenLeg {
    /// The attempt that stands; its files lie in this round's directory too.
    #[serde(flatten)]
    pub at: LegAttempt,
    /// Name of the runner that ran it.
    pub runner: String,
    /// When the attempt began, in the other round.
    pub started_at: Timestamp,
    /// When the attempt ended there.
    pub ended_at: Timestamp,
    /// How it ended.
    pub conclusion: Conclusion,
    /// Why it did not succeed; none if it did.
    pub reason: Option<Reason>,
    /// The job's outputs as the leg gave them.
    pub outputs: Map<String, Value>,
}

/// Which step of a job, and what it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStep {
    /// Position of the step in its job, from 0.
    pub index: u32,
    /// Id of the step, or its name where it has no id.
    #[serde(rename = "step")]
    pub name: String,
    /// What the step does.
    #[serde(rename = "stage")]
    pub kind: StepKind,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum StepKind {
    /// The step runs this built-in stage.
    Stage(StageName),
    /// The step runs a shell script.
    Run,
}

impl StepKind {
    /// The stage's name, or `run`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stage(stage) => stage.as_str(),
            Self::Run => "run",
        }
    }
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<StepKind> for String {
    fn from(kind: StepKind) -> Self {
        kind.as_str().to_owned()
    }
}

/// The name of a stage that this program does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a stage nor `run`")]
pub struct UnknownStep(String);

impl TryFrom<String> for StepKind {
    type Error = UnknownStep;

    fn try_from(text: String) -> Result<Self, UnknownStep> {
        match text.as_str() {
            "run" => Ok(Self::Run),
            name => StageName::from_str(name).map(Self::Stage).map_err(|_| UnknownStep(text)),
        }
    }
}

/// Which part of a round's tables was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Publication {
    /// The tables of what was measured and judged. Version 1 did not tell the parts apart.
    #[default]
    Results,
    /// The table of what is to be set on chain.
    Weights,
    /// The table of how the round itself went.
    Steps,
}

/// An event in a round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum JournalEvent {
    /// The round started: the first event of every journal.
    RoundStarted(RoundStart),
    /// A leg stands as it ended in the round that this one was made from. Since version 2.2.
    LegTakenOver(TakenLeg),
    /// All that a job needs is there, and it began.
    JobStarted {
        /// Id of the job.
        job: String,
    },
    /// The matrix of a job is known, and with it its legs.
    JobPlanned {
        /// Id of the job.
        job: String,
        /// Keys of the job's legs in the order of the plan; one empty key for a job without matrix.
        legs: Vec<String>,
    },
    /// An attempt of a leg began.
    LegStarted {
        /// The attempt that began.
        #[serde(flatten)]
        at: LegAttempt,
        /// Name of the runner that runs it.
        runner: String,
    },
    /// A step began.
    StepStarted {
        /// The attempt the step is part of.
        #[serde(flatten)]
        at: LegAttempt,
        /// The step that began.
        #[serde(flatten)]
        step: JobStep,
    },
    /// A step ended, or could not begin, for example because its condition could not be read.
    StepEnded {
        /// The attempt the step is part of.
        #[serde(flatten)]
        at: LegAttempt,
        /// The step that ended.
        #[serde(flatten)]
        step: JobStep,
        /// How the step ended, before `continue-on-error` is considered.
        outcome: Conclusion,
        /// How the step counts, after `continue-on-error` is considered.
        conclusion: Conclusion,
        /// Outputs of the step, by name.
        outputs: Map<String, Value>,
        /// Why the step did not succeed; none if it did.
        reason: Option<Reason>,
        /// How long the step took, nanoseconds.
        duration_ns: i64,
    },
    /// A server that a step of an attempt booted died, and was launched anew. Since version 2.4.
    ServerLaunchedAnew {
        /// The attempt whose server it is.
        #[serde(flatten)]
        at: LegAttempt,
        /// Identity of the new launch.
        boot_id: String,
        /// The time from its start to its first answer, milliseconds.
        ready_ms: u64,
        /// What was seen of the death of the one before.
        why: String,
    },
    /// An attempt of a leg ended.
    LegEnded {
        /// The attempt that ended.
        #[serde(flatten)]
        at: LegAttempt,
        /// How it ended.
        conclusion: Conclusion,
        /// Why it did not succeed; none if it did.
        reason: Option<Reason>,
        /// The job's outputs as this leg gives them.
        outputs: Map<String, Value>,
    },
    /// A leg will be tried again.
    RetryScheduled {
        /// The attempt that is to come.
        #[serde(flatten)]
        at: LegAttempt,
        /// How long the leg waits for it, milliseconds.
        delay_ms: u64,
        /// Why the last attempt failed.
        reason: Reason,
    },
    /// A leg will not run, or not again.
    LegSkipped {
        /// Id of the job.
        job: String,
        /// Key of the leg.
        leg: String,
        /// Why the leg will not run, in words.
        why: String,
    },
    /// A job ended, or was skipped. Its outputs are those of its legs.
    JobEnded {
        /// Id of the job.
        job: String,
        /// How the job ended.
        conclusion: Conclusion,
        /// Why the job did not succeed; none if it did.
        reason: Option<Reason>,
    },
    /// Tables are on disk, whole.
    Published {
        /// Which part of the round's tables they are.
        #[serde(default)]
        what: Publication,
        /// The tables that were written.
        tables: Vec<PublishedTable>,
    },
    /// The round came to its end: the last event of its journal, unless the round is taken up again.
    RoundEnded {
        /// How the round ended.
        conclusion: Conclusion,
        /// Exit code of the program.
        exit_code: u8,
    },
    /// Another round of the same concurrency group runs; the round waits until it is its turn. Since version 2.3.
    GroupAwaited {
        /// Name of the group.
        group: String,
        /// The round that runs.
        behind: RoundId,
    },
    /// A signal stopped the round; it can be resumed.
    Interrupted {
        /// Name of the signal.
        signal: String,
    },
    /// A program took the round up again: what ran when the last one ended was cut. Since version 2.1.
    RoundResumed {
        /// Version of the program that goes on.
        tool_version: String,
    },
}

/// Reads names from an array, or from one text with commas between them.
fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Names {
        Several(Vec<String>),
        Joined(String),
    }
    Ok(match Names::deserialize(deserializer)? {
        Names::Several(names) => names,
        Names::Joined(text) => text.split(',').map(str::to_owned).collect(),
    })
}

/// What a journal says, as far as it is whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay<E = JournalEvent> {
    /// Version of the journal's format, as its first line says; [`Event::SCHEMA`] if there is no line yet.
    pub schema: FormatVersion,
    /// The whole lines, numbered from 0.
    pub lines: Vec<JournalLine<E>>,
    /// Number of bytes in whole lines: a writer cuts the file to this length before it goes on.
    pub valid_bytes: usize,
    /// What stands after the whole lines.
    pub tail: Tail,
}

/// What stands after the last whole line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Nothing stands there.
    Clean,
    /// A line stands there that was never written to its end.
    Torn {
        /// Number of its bytes that are there.
        bytes: usize,
    },
    /// Zeros stand there: the file grew, but its data never reached the disk.
    Zeros {
        /// Number of zeros.
        bytes: usize,
    },
    /// The last lines stand there once more, byte for byte, or the beginning of them: they count once.
    Doubled {
        /// Number of bytes that stand there.
        bytes: usize,
    },
}

/// A line as it is appended, with its end of line. Its JSON is read back first: a line that cannot be replayed must
/// never reach the file.
///
/// # Errors
/// When the event cannot be written as JSON, is nested too deeply to be read again, or is the first and does not
/// say the format's version.
pub fn encode_line<E: Event>(line: &JournalLine<E>) -> Result<Vec<u8>, ArtifactError> {
    if line.seq == 0 && !line.event.begins() {
        return Err(ArtifactError::JournalEvent { why: "the first line of a journal is its start" });
    }
    let mut json = serde_json::to_string(line).map_err(ArtifactError::JournalWrite)?;
    event_of::<E>(json.as_bytes()).map_err(|why| ArtifactError::JournalEvent { why })?;
    let crc = checksum(json.as_bytes());
    json.pop();
    json.push_str(CRC_KEY);
    json.push_str(&crc);
    json.push_str("\"}");
    json.push('\n');
    Ok(json.into_bytes())
}

/// Reads a journal that may have been cut short.
///
/// # Errors
/// When its format is newer than [`Event::SCHEMA`], a line is damaged and whole ones follow, or the numbers have a gap or
/// repeat themselves otherwise than in [`Tail::Doubled`].
pub fn replay<E: Event>(bytes: &[u8]) -> Result<Replay<E>, ArtifactError> {
    let schema = schema_of(bytes, E::SCHEMA);
    if schema > E::SCHEMA {
        return Err(ArtifactError::JournalVersion { found: schema, expected: E::SCHEMA });
    }
    let mut lines: Vec<JournalLine<E>> = Vec::new();
    let mut valid_bytes = 0;
    let mut rest = bytes;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let number = lines.len() + 1;
        match decode_line(&rest[..end]) {
            Ok(line) if line.seq == lines.len() as u64 => lines.push(line),
            Ok(_) if is_doubled(&bytes[..valid_bytes], rest) => {
                return Ok(Replay { schema, lines, valid_bytes, tail: Tail::Doubled { bytes: rest.len() } });
            }
            Ok(_) => {
                return Err(ArtifactError::JournalDamaged {
                    line: number,
                    why: "its number is out of order",
                });
            }
            Err(why) if has_whole_line::<E>(&rest[end + 1..]) => {
                return Err(ArtifactError::JournalDamaged { line: number, why });
            }
            Err(_) => break,
        }
        rest = &rest[end + 1..];
        valid_bytes += end + 1;
    }
    let tail = match rest.len() {
        0 => Tail::Clean,
        bytes if rest.iter().all(|byte| *byte == 0) => Tail::Zeros { bytes },
        bytes => Tail::Torn { bytes },
    };
    Ok(Replay { schema, lines, valid_bytes, tail })
}

/// Whether what stands after the whole lines is the last of them once more, as far as it goes; zeros may follow.
fn is_doubled(whole: &[u8], rest: &[u8]) -> bool {
    let written = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut starts = (0..whole.len()).filter(|at| *at == 0 || whole[at - 1] == b'\n');
    written > 0 && starts.any(|at| whole[at..].starts_with(&rest[..written]))
}

fn has_whole_line<E: Event>(bytes: &[u8]) -> bool {
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .any(|line| line.ends_with(b"\n") && decode_line::<E>(&line[..line.len() - 1]).is_ok())
}

/// The version that the first line says, whatever else stands there.
fn schema_of(bytes: &[u8], current: FormatVersion) -> FormatVersion {
    #[derive(Deserialize)]
    struct Version {
        #[serde(default = "FormatVersion::first")]
        schema: FormatVersion,
    }
    let first = bytes.split_inclusive(|byte| *byte == b'\n').next().and_then(|line| line.strip_suffix(b"\n"));
    let json = first.and_then(|line| checked_json(line).ok());
    json.and_then(|json| serde_json::from_slice::<Version>(&json).ok())
        .map_or(current, |version| version.schema)
}

/// Reads one line without its end, or says what is wrong with it.
fn decode_line<E: Event>(line: &[u8]) -> Result<JournalLine<E>, &'static str> {
    event_of(&checked_json(line)?)
}

fn event_of<E: Event>(json: &[u8]) -> Result<JournalLine<E>, &'static str> {
    serde_json::from_slice(json).map_err(|_| "not an event of this version")
}

/// The JSON of a line, if its checksum is right.
fn checked_json(line: &[u8]) -> Result<Vec<u8>, &'static str> {
    let split = line.len().checked_sub(CRC_KEY.len() + CRC_DIGITS + 2).ok_or("too short")?;
    let (json, crc) = line.split_at(split);
    let crc = crc
        .strip_prefix(CRC_KEY.as_bytes())
        .and_then(|crc| crc.strip_suffix(b"\"}"))
        .ok_or("no checksum at its end")?;
    let json = [json, b"}"].concat();
    if checksum(&json).as_bytes() == crc { Ok(json) } else { Err("its checksum does not match") }
}

fn checksum(json: &[u8]) -> String {
    digest::sha256(json).as_str().trim_start_matches("sha256:").chars().take(CRC_DIGITS).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Fault;

    const FIRST: &[u8] = include_bytes!("../../tests/fixtures/journal/version-1.jsonl");

    fn at(attempt: u32) -> LegAttempt {
        LegAttempt { job: "measure".to_owned(), leg: "0001-candidate-5Grwva".to_owned(), attempt }
    }

    fn every_event() -> Vec<JournalEvent> {
        let (job, leg) = ("measure".to_owned(), "0001-candidate-5Grwva".to_owned());
        let digest = digest::sha256(b"x");
        let reason = || Reason::new(Fault::Infra, "registry-timeout", "no answer\nin 30 s");
        let step = || JobStep { index: 0, name: "boot".to_owned(), kind: StepKind::Stage(StageName::Boot) };
        let outputs = |value: Value| value.as_object().cloned().expect("an object");
        vec![
            JournalEvent::RoundStarted(RoundStart {
                schema: SCHEMA,
                round_id: "demo-1".parse().expect("an id"),
                pipeline: "demo".to_owned(),
                run_name: Some("nightly".to_owned()),
                pipeline_digest: digest.clone(),
                runners: vec!["embedded".to_owned()],
                seed_commitment: digest.clone(),
            }),
            JournalEvent::JobStarted { job: job.clone() },
            JournalEvent::JobPlanned { job: job.clone(), legs: vec![leg.clone()] },
            JournalEvent::LegStarted { at: at(1), runner: "embedded".to_owned() },
            JournalEvent::StepStarted { at: at(1), step: step() },
            JournalEvent::StepEnded {
                at: at(1),
                step: step(),
                outcome: Conclusion::Failure,
                conclusion: Conclusion::Success,
                outputs: outputs(json!({"z": 0.1, "a": [1, null, "é"]})),
                reason: Some(reason()),
                duration_ns: 1_500_000_000,
            },
            JournalEvent::ServerLaunchedAnew {
                at: at(1),
                boot_id: "4711-8080".to_owned(),
                ready_ms: 1200,
                why: "connection refused".to_owned(),
            },
            JournalEvent::LegEnded {
                at: at(1),
                conclusion: Conclusion::Failure,
                reason: Some(reason()),
                outputs: Map::new(),
            },
            JournalEvent::RetryScheduled { at: at(2), delay_ms: 1000, reason: reason() },
            JournalEvent::LegSkipped { job: job.clone(), leg, why: "its `if` is false".to_owned() },
            JournalEvent::JobEnded { job, conclusion: Conclusion::Success, reason: None },
            JournalEvent::Published {
                what: Publication::Results,
                tables: vec![PublishedTable {
                    table: "reads".to_owned(),
                    path: "results/reads.parquet".to_owned(),
                    digest,
                    rows: 3,
                }],
            },
            JournalEvent::GroupAwaited {
                group: "machine".to_owned(),
                behind: "demo-0".parse().expect("an id"),
            },
            JournalEvent::Interrupted { signal: "SIGINT".to_owned() },
            JournalEvent::RoundResumed { tool_version: "0.1.0".to_owned() },
            JournalEvent::RoundEnded { conclusion: Conclusion::Success, exit_code: 0 },
        ]
    }

    fn line(seq: u64, event: JournalEvent) -> JournalLine {
        JournalLine { seq, at: "2026-11-21T21:27:00Z".parse().expect("a time"), event }
    }

    fn lines() -> Vec<JournalLine> {
        (0..).zip(every_event()).map(|(seq, event)| line(seq, event)).collect()
    }

    fn journal() -> Vec<u8> {
        lines().iter().flat_map(|line| encode_line(line).expect("encodes")).collect()
    }

    #[test]
    fn the_format() {
        insta::assert_snapshot!(String::from_utf8(journal()).expect("text"));
    }

    #[test]
    fn a_whole_journal() {
        let bytes = journal();
        let replay = replay::<JournalEvent>(&bytes).expect("whole");
        assert_eq!(replay.lines, lines());
        assert_eq!((replay.valid_bytes, replay.tail), (bytes.len(), Tail::Clean));
        assert!(super::replay::<JournalEvent>(b"").expect("empty").lines.is_empty());
    }

    #[test]
    fn cut_at_every_byte() {
        let bytes = journal();
        for cut in 0..bytes.len() {
            let whole = bytes[..cut].split(|byte| *byte == b'\n').count() - 1;
            let replay =
                replay::<JournalEvent>(&bytes[..cut]).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
            assert_eq!(replay.lines.len(), whole, "cut at {cut}");
            let torn = cut - replay.valid_bytes;
            let expected = if torn == 0 { Tail::Clean } else { Tail::Torn { bytes: torn } };
            assert_eq!(replay.tail, expected, "cut at {cut}");
        }
    }

    #[test]
    fn zeros_at_the_end() {
        let bytes = journal();
        for cut in [bytes.len(), bytes.len() - 1, bytes.len() - 30] {
            let mut torn = bytes[..cut].to_vec();
            torn.extend([0; 4096]);
            let replay = replay::<JournalEvent>(&torn).expect("a torn tail");
            assert_eq!(replay.lines.len(), lines().len() - usize::from(cut < bytes.len()));
            assert_eq!(matches!(replay.tail, Tail::Zeros { bytes: 4096 }), cut == bytes.len());
        }
    }

    #[test]
    fn the_last_lines_once_more_count_once() {
        let bytes = journal();
        let starts = || (0..bytes.len()).filter(|at| *at == 0 || bytes[at - 1] == b'\n');
        for start in starts() {
            // Written again from any line on, and cut anywhere.
            for end in (start + 1..bytes.len()).step_by(7).chain([bytes.len()]) {
                let doubled = [&bytes[..], &bytes[start..end]].concat();
                let replay = replay::<JournalEvent>(&doubled)
                    .unwrap_or_else(|error| panic!("{start} to {end}: {error}"));
                assert_eq!((replay.lines.len(), replay.valid_bytes), (lines().len(), bytes.len()));
                let has_line = bytes[start..end].contains(&b'\n');
                let tail = doubled.len() - bytes.len();
                let expected =
                    if has_line { Tail::Doubled { bytes: tail } } else { Tail::Torn { bytes: tail } };
                assert_eq!(replay.tail, expected, "{start} to {end}");
            }
            let zeros = [&bytes[..], &bytes[start..], &[0; 4096]].concat();
            assert!(
                matches!(replay::<JournalEvent>(&zeros).expect("doubled").tail, Tail::Doubled { .. }),
                "{start}"
            );
        }
    }

    #[test]
    fn other_repetitions_are_damage() {
        let check = |order: &[usize], what: &str| {
            let encoded: Vec<Vec<u8>> =
                lines().iter().map(|line| encode_line(line).expect("encodes")).collect();
            let bytes: Vec<u8> = order.iter().flat_map(|index| encoded[*index].clone()).collect();
            let error = replay::<JournalEvent>(&bytes).expect_err(what).to_string();
            assert!(error.contains("out of order"), "{what}: {error}");
        };
        check(&[0, 1, 1, 2], "in the middle");
        check(&[0, 1, 2, 1, 2, 3], "several lines in the middle");
        check(&[0, 1, 2, 2, 2], "three times");
        check(&[0, 1, 2, 1, 1], "not in their order");
        let other = encode_line(&line(1, JournalEvent::JobStarted { job: "other".to_owned() }));
        let bytes = [&journal()[..], &other.expect("encodes")].concat();
        assert!(replay::<JournalEvent>(&bytes).expect_err("another").to_string().contains("out of order"));
        // A repetition that is flipped somewhere is no line at all: as good as torn, and nothing of it counts.
        let mut flipped = [&journal()[..], &encode_line(&lines()[13]).expect("encodes")].concat();
        let at = journal().len() + 10;
        flipped[at] ^= 1;
        let replay = replay::<JournalEvent>(&flipped).expect("torn");
        assert!(matches!(replay.tail, Tail::Torn { .. }), "{:?}", replay.tail);
        assert_eq!(replay.lines.len(), lines().len());
    }

    #[test]
    fn an_unwritten_block_in_the_last_line() {
        let mut bytes = journal();
        let end = bytes.len();
        bytes[end - 40..end - 30].fill(0);
        let replay = replay::<JournalEvent>(&bytes).expect("a torn tail");
        assert_eq!(replay.lines.len(), lines().len() - 1);
        assert_eq!(replay.tail, Tail::Torn { bytes: end - replay.valid_bytes });
    }

    #[test]
    fn a_flipped_bit_before_the_last_line_is_refused() {
        let bytes = journal();
        let last = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').expect("many lines");
        for offset in 0..last {
            let mut damaged = bytes.clone();
            damaged[offset] ^= 1;
            let error = replay::<JournalEvent>(&damaged).expect_err("a damaged line");
            let line = bytes[..offset].split(|byte| *byte == b'\n').count();
            assert!(error.to_string().contains(&format!("line {line} ")), "byte {offset}: {error}");
        }
    }

    #[test]
    fn what_could_not_be_read_is_not_written() {
        let deep = (0..127).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
        let event = JournalEvent::LegEnded {
            at: at(1),
            conclusion: Conclusion::Success,
            reason: None,
            outputs: Map::from_iter([("deep".to_owned(), deep)]),
        };
        assert!(encode_line(&line(1, event)).is_err());
        let error = encode_line(&line(0, JournalEvent::JobStarted { job: "first".to_owned() }));
        assert!(error.expect_err("no version").to_string().contains("is its start"));
    }

    #[test]
    fn a_missing_line_is_refused() {
        let lines = lines();
        let bytes: Vec<u8> =
            [&lines[0], &lines[2]].into_iter().flat_map(|line| encode_line(line).expect("encodes")).collect();
        assert!(replay::<JournalEvent>(&bytes).expect_err("a gap").to_string().contains("line 2 "));
    }

    /// The lines of version 1 say the same, and say no version.
    #[test]
    fn the_first_version_is_read() {
        let replay = replay(FIRST).expect("readable");
        assert_eq!(replay.schema, FormatVersion::FIRST);
        assert_eq!(replay.tail, Tail::Clean);
        let mut expected = lines();
        let JournalEvent::RoundStarted(start) = &mut expected[0].event else { panic!("a start") };
        (start.schema, start.run_name) = (FormatVersion::FIRST, None);
        start.runners.push("other".to_owned());
        // What version 1 did not know.
        expected.retain(|line| {
            !matches!(
                line.event,
                JournalEvent::RoundResumed { .. }
                    | JournalEvent::GroupAwaited { .. }
                    | JournalEvent::ServerLaunchedAnew { .. }
            )
        });
        for (seq, line) in (0..).zip(&mut expected) {
            line.seq = seq;
        }
        assert_eq!(replay.lines, expected);
    }

    #[test]
    fn newer_versions_are_refused_by_name() {
        let check = |schema: &str, expected: Option<&str>| {
            let json = format!("{{\"seq\":0,\"event\":\"born\",\"schema\":{schema}}}");
            let crc = checksum(json.as_bytes());
            let line = format!("{},\"crc\":\"{crc}\"}}\n", json.trim_end_matches('}'));
            let found = replay::<JournalEvent>(line.as_bytes())
                .map(|replay| replay.lines.len())
                .map_err(|error| error.to_string());
            match expected {
                Some(words) => assert!(found.clone().is_err_and(|error| error.contains(words)), "{found:?}"),
                // Of this version, but not an event of it: half a line for all we know.
                None => assert_eq!(found, Ok(0)),
            }
        };
        check(
            "\"3.0\"",
            Some(&format!("the journal is of version 3.0, this program reads {SCHEMA} and older")),
        );
        let next = FormatVersion::new(SCHEMA.major, SCHEMA.minor + 1);
        check(&format!("\"{next}\""), Some(&format!("version {next}")));
        check("7", Some("version 7.0"));
        check("\"2.0\"", None);
        check("1", None);
    }
}
