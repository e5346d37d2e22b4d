//! `journal.jsonl`: what happened in a round, in order; the truth from which it is resumed.
//!
//! One JSON object a line: `seq`, `at`, the event's fields, and last `crc`, the first 16 hexadecimal digits of
//! the SHA-256 of the line's JSON without it. A line counts once it is whole, with its end of line. What a
//! power cut leaves at the end (half a line, zeros, an unwritten block) is told from damage in the middle,
//! which is refused: resuming from a history with holes would repeat or skip work.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ArtifactError, digest};
use crate::model::{Conclusion, Digest, Reason, RoundId};

/// Between the JSON and its checksum.
const CRC_KEY: &str = ",\"crc\":\"";
/// Digits of the checksum.
const CRC_DIGITS: usize = 16;

/// One line: the event with its number and wall time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalLine {
    /// Number from 0, without gaps.
    pub seq: u64,
    /// Wall time, RFC 3339.
    pub at: String,
    /// What happened.
    #[serde(flatten)]
    pub event: JournalEvent,
}

/// A table as it was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedTable {
    /// Its name.
    pub table: String,
    /// Its file, in the round's directory.
    pub path: String,
    /// Digest of the file.
    pub digest: Digest,
    /// Rows in it.
    pub rows: u64,
}

/// What can happen. A leg is named by its key, empty for a job without matrix; attempts count from 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum JournalEvent {
    /// The first event of every journal.
    RoundStarted {
        /// The round.
        round_id: RoundId,
        /// Name of the pipeline.
        pipeline: String,
        /// Digest of its text.
        pipeline_digest: Digest,
        /// Name of the runner.
        runner: String,
        /// Digest of the root seed: it can be shown now and the seed later.
        seed_commitment: Digest,
    },
    /// All that a job needs is there.
    JobStarted {
        /// Job.
        job: String,
    },
    /// The matrix of a job is known.
    JobPlanned {
        /// Job.
        job: String,
        /// Keys of its legs in the order of the plan.
        legs: Vec<String>,
    },
    /// An attempt of a leg began.
    LegStarted {
        /// Job.
        job: String,
        /// Leg.
        leg: String,
        /// Attempt.
        attempt: u32,
        /// Runner that runs it.
        runner: String,
    },
    /// A step began.
    StepStarted {
        /// Job.
        job: String,
        /// Leg.
        leg: String,
        /// Attempt.
        attempt: u32,
        /// Place of the step in its job, from 0.
        index: u32,
        /// Step id or name.
        step: String,
        /// Stage, or `run` for a shell step.
        stage: String,
    },
    /// A step ended.
    StepEnded {
        /// Job.
        job: String,
        /// Leg.
        leg: String,
        /// Attempt.
        attempt: u32,
        /// Place of the step in its job, from 0.
        index: u32,
        /// Step id or name.
        step: String,
        /// Stage, or `run` for a shell step.
        stage: String,
        /// Result before `continue-on-error`.
        outcome: Conclusion,
        /// Result after it.
        conclusion: Conclusion,
        /// Outputs, an object.
        outputs: Value,
        /// Why, where it did not succeed.
        reason: Option<Reason>,
        /// How long it took.
        duration_ns: i64,
    },
    /// An attempt of a leg ended.
    LegEnded {
        /// Job.
        job: String,
        /// Leg.
        leg: String,
        /// Attempt.
        attempt: u32,
        /// How.
        conclusion: Conclusion,
        /// Why, where it did not succeed.
        reason: Option<Reason>,
        /// Outputs, an object.
        outputs: Value,
    },
    /// A leg will be tried again.
    RetryScheduled {
        /// Job.
        job: String,
        /// Leg.
        leg: String,
        /// The attempt to come.
        next_attempt: u32,
        /// How long it waits.
        delay_ms: u64,
        /// Why the last one failed.
        reason: Reason,
    },
    /// A leg will not run.
    LegSkipped {
        /// Job.
        job: String,
        /// Leg.
        leg: String,
        /// Why, in words.
        why: String,
    },
    /// A job ended, or was skipped.
    JobEnded {
        /// Job.
        job: String,
        /// How.
        conclusion: Conclusion,
        /// Outputs, an object.
        outputs: Value,
        /// Why, where it did not succeed.
        reason: Option<Reason>,
    },
    /// Results are on disk, whole.
    Published {
        /// Which.
        tables: Vec<PublishedTable>,
    },
    /// The last event of a round that came to its end.
    RoundEnded {
        /// How.
        conclusion: Conclusion,
        /// Exit code of the program.
        exit_code: u8,
    },
    /// A signal stopped the round; it can be resumed.
    Interrupted {
        /// Name of the signal.
        signal: String,
    },
}

/// What a journal says.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    /// Its lines, numbered from 0.
    pub lines: Vec<JournalLine>,
    /// Bytes of whole lines: a writer cuts the file to this length before it goes on.
    pub valid_bytes: usize,
    /// What stands after them.
    pub tail: Tail,
}

impl Replay {
    /// The events without numbers and times.
    pub fn events(&self) -> impl Iterator<Item = &JournalEvent> {
        self.lines.iter().map(|line| &line.event)
    }
}

/// What stands after the last whole line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Nothing.
    Clean,
    /// A line that was never written to its end.
    Torn {
        /// How many bytes of it.
        bytes: usize,
    },
    /// Zeros: the file grew, its data never reached the disk.
    Zeros {
        /// How many.
        bytes: usize,
    },
}

/// A line as it is appended, with its end. It is read back first: a line that cannot be replayed must never
/// reach the file.
///
/// # Errors
/// When the event cannot be written as JSON, or is nested too deeply to be read again.
pub fn encode_line(line: &JournalLine) -> Result<Vec<u8>, ArtifactError> {
    let mut json = serde_json::to_string(line).map_err(ArtifactError::JournalWrite)?;
    let crc = checksum(json.as_bytes());
    json.pop();
    json.push_str(CRC_KEY);
    json.push_str(&crc);
    json.push_str("\"}");
    decode_line(json.as_bytes()).map_err(|why| ArtifactError::JournalEvent { why })?;
    json.push('\n');
    Ok(json.into_bytes())
}

/// Reads a journal that may have been cut short.
///
/// # Errors
/// When a line is damaged and whole ones follow, or the numbers have a gap.
pub fn replay(bytes: &[u8]) -> Result<Replay, ArtifactError> {
    let mut lines: Vec<JournalLine> = Vec::new();
    let mut valid_bytes = 0;
    let mut rest = bytes;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let number = lines.len() + 1;
        match decode_line(&rest[..end]) {
            Ok(line) if line.seq == lines.len() as u64 => lines.push(line),
            Ok(_) => {
                return Err(ArtifactError::JournalDamaged {
                    line: number,
                    why: "its number is out of order",
                });
            }
            Err(why) if has_whole_line(&rest[end + 1..]) => {
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
    Ok(Replay { lines, valid_bytes, tail })
}

fn has_whole_line(bytes: &[u8]) -> bool {
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .any(|line| line.ends_with(b"\n") && decode_line(&line[..line.len() - 1]).is_ok())
}

/// One line without its end, or what is wrong with it.
fn decode_line(line: &[u8]) -> Result<JournalLine, &'static str> {
    let split = line.len().checked_sub(CRC_KEY.len() + CRC_DIGITS + 2).ok_or("too short")?;
    let (json, crc) = line.split_at(split);
    let crc = crc
        .strip_prefix(CRC_KEY.as_bytes())
        .and_then(|crc| crc.strip_suffix(b"\"}"))
        .ok_or("no checksum at its end")?;
    let json = [json, b"}"].concat();
    if checksum(&json).as_bytes() != crc {
        return Err("its checksum does not match");
    }
    serde_json::from_slice(&json).map_err(|_| "not an event of this version")
}

fn checksum(json: &[u8]) -> String {
    digest::sha256(json).as_str().trim_start_matches("sha256:").chars().take(CRC_DIGITS).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Fault;

    fn every_event() -> Vec<JournalEvent> {
        let (job, leg) = ("measure".to_owned(), "0001-candidate-5Grwva".to_owned());
        let digest = digest::sha256(b"x");
        let reason = || Reason::new(Fault::Infra, "registry-timeout", "no answer\nin 30 s");
        vec![
            JournalEvent::RoundStarted {
                round_id: "demo-1".parse().expect("an id"),
                pipeline: "demo".to_owned(),
                pipeline_digest: digest.clone(),
                runner: "embedded".to_owned(),
                seed_commitment: digest.clone(),
            },
            JournalEvent::JobStarted { job: job.clone() },
            JournalEvent::JobPlanned { job: job.clone(), legs: vec![leg.clone()] },
            JournalEvent::LegStarted {
                job: job.clone(),
                leg: leg.clone(),
                attempt: 1,
                runner: "embedded".to_owned(),
            },
            JournalEvent::StepStarted {
                job: job.clone(),
                leg: leg.clone(),
                attempt: 1,
                index: 0,
                step: "boot".to_owned(),
                stage: "boot".to_owned(),
            },
            JournalEvent::StepEnded {
                job: job.clone(),
                leg: leg.clone(),
                attempt: 1,
                index: 0,
                step: "boot".to_owned(),
                stage: "boot".to_owned(),
                outcome: Conclusion::Failure,
                conclusion: Conclusion::Success,
                outputs: json!({"z": 0.1, "a": [1, null, "é"]}),
                reason: Some(reason()),
                duration_ns: 1_500_000_000,
            },
            JournalEvent::LegEnded {
                job: job.clone(),
                leg: leg.clone(),
                attempt: 1,
                conclusion: Conclusion::Failure,
                reason: Some(reason()),
                outputs: json!({}),
            },
            JournalEvent::RetryScheduled {
                job: job.clone(),
                leg: leg.clone(),
                next_attempt: 2,
                delay_ms: 1000,
                reason: reason(),
            },
            JournalEvent::LegSkipped { job: job.clone(), leg, why: "its `if` is false".to_owned() },
            JournalEvent::JobEnded { job, conclusion: Conclusion::Success, outputs: json!({}), reason: None },
            JournalEvent::Published {
                tables: vec![PublishedTable {
                    table: "reads".to_owned(),
                    path: "results/reads.parquet".to_owned(),
                    digest,
                    rows: 3,
                }],
            },
            JournalEvent::Interrupted { signal: "SIGINT".to_owned() },
            JournalEvent::RoundEnded { conclusion: Conclusion::Success, exit_code: 0 },
        ]
    }

    fn lines() -> Vec<JournalLine> {
        let at = "2026-11-21T21:27:00Z";
        every_event()
            .into_iter()
            .zip(0..)
            .map(|(event, seq)| JournalLine { seq, at: at.to_owned(), event })
            .collect()
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
        let replay = replay(&bytes).expect("whole");
        assert_eq!(replay.lines, lines());
        assert_eq!((replay.valid_bytes, replay.tail), (bytes.len(), Tail::Clean));
        assert!(super::replay(b"").expect("empty").lines.is_empty());
    }

    #[test]
    fn cut_at_every_byte() {
        let bytes = journal();
        for cut in 0..bytes.len() {
            let whole = bytes[..cut].split(|byte| *byte == b'\n').count() - 1;
            let replay = replay(&bytes[..cut]).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
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
            let replay = replay(&torn).expect("a torn tail");
            assert_eq!(replay.lines.len(), lines().len() - usize::from(cut < bytes.len()));
            assert_eq!(matches!(replay.tail, Tail::Zeros { bytes: 4096 }), cut == bytes.len());
        }
    }

    #[test]
    fn an_unwritten_block_in_the_last_line() {
        let mut bytes = journal();
        let end = bytes.len();
        bytes[end - 40..end - 30].fill(0);
        let replay = replay(&bytes).expect("a torn tail");
        assert_eq!(replay.lines.len(), lines().len() - 1);
        assert_eq!(replay.tail, Tail::Torn { bytes: end - replay.valid_bytes });
    }

    #[test]
    fn a_flipped_bit_before_the_last_line_is_refused() {
        let bytes = journal();
        let last = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').expect("many lines");
        for place in 0..last {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1;
            let error = replay(&damaged).expect_err("a damaged line");
            let line = bytes[..place].split(|byte| *byte == b'\n').count();
            assert!(error.to_string().contains(&format!("line {line} ")), "byte {place}: {error}");
        }
    }

    #[test]
    fn what_could_not_be_read_is_not_written() {
        let outputs = (0..127).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
        let event = JournalEvent::JobEnded {
            job: "deep".to_owned(),
            conclusion: Conclusion::Success,
            outputs,
            reason: None,
        };
        let line = JournalLine { seq: 0, at: "2026-11-21T21:27:00Z".to_owned(), event };
        assert!(encode_line(&line).is_err());
    }

    #[test]
    fn a_missing_line_is_refused() {
        let lines = lines();
        let bytes: Vec<u8> =
            [&lines[0], &lines[2]].into_iter().flat_map(|line| encode_line(line).expect("encodes")).collect();
        assert!(replay(&bytes).expect_err("a gap").to_string().contains("line 2 "));
    }
}
