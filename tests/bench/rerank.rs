//! Ranks stored rounds again: how long it takes, and how much memory.
//!
//! `cargo run --release --example rerank -- make DIRECTORY ROUNDS SUBMISSIONS` makes sealed rounds, each with two reads of
//! every submission between reads of the baseline, 64 requests a read, and all checks. `.. rank DIRECTORY` ranks all of
//! them again from their tables, one after the other, and prints the seconds and the largest resident set. The same
//! arguments of `make` give the same bytes.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use cacheon::adapters::store::{RoundDirectory, StoreError, list_rounds};
use cacheon::judge::{
    Arrived, Floors, LookReads, LookRules, RankPolicy, ReadTimes, ScorePolicy, Speeds, Standings, TimedRead,
    accounts, first_missing, leaderboard,
};
use cacheon::model::{
    Arm, Check, CheckOutcome, CommitmentRow, ReadRow, ReadSpec, ReadStatus, RequestRow, RequestStatus,
    RequestTimes, SubmissionRow, VerdictRow,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// Number of requests of one read.
const PROMPTS: u32 = 64;

#[expect(clippy::print_stderr, clippy::print_stdout, reason = "this is a program of its own")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["make", directory, rounds, submissions] => match (rounds.parse(), submissions.parse()) {
            (Ok(rounds), Ok(submissions)) => make(Path::new(directory), rounds, submissions),
            _ => return fail(),
        },
        ["rank", directory] => {
            let started = Instant::now();
            rank(Path::new(directory)).map(|(rounds, places)| {
                let seconds = started.elapsed().as_secs_f64();
                println!("rounds {rounds} places {places} seconds {seconds:.2} peak-mib {}", peak_mib());
            })
        }
        _ => return fail(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", cacheon::report::text::error_chain(&error));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "this is a program of its own")]
fn fail() -> ExitCode {
    eprintln!("usage: rerank make DIRECTORY ROUNDS SUBMISSIONS | rerank rank DIRECTORY");
    ExitCode::FAILURE
}

/// The largest resident set of this process so far, MiB; 0 where the system does not say.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: Option<u64> = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    kib.unwrap_or_default() / 1024
}

/// Ranks every round of a data directory again; gives the number of rounds and of places.
fn rank(data_dir: &Path) -> Result<(usize, usize), StoreError> {
    let (mut rounds, mut places) = (0, 0);
    for round in list_rounds(data_dir)? {
        let directory = RoundDirectory::open(data_dir, &round.round_id)?;
        let commitments: Vec<CommitmentRow> = directory.read_table()?;
        let submissions: Vec<SubmissionRow> = directory.read_table()?;
        let reads: Vec<ReadRow> = directory.read_table()?;
        let requests: Vec<RequestTimes> = directory.read_table()?;
        let verdicts: Vec<VerdictRow> = directory.read_table()?;
        let of = |key: &str| {
            let start = requests.partition_point(|row| row.read_key.as_str() < key);
            let end = requests.partition_point(|row| row.read_key.as_str() <= key);
            &requests[start..end]
        };
        assert!(
            reads.iter().all(|read| of(&read.read_key).len() == PROMPTS as usize),
            "all requests are there"
        );
        let timed: Vec<TimedRead<'_>> = reads
            .iter()
            .map(|read| TimedRead {
                arm: read.arm,
                hotkey: read.hotkey.as_deref(),
                times: ReadTimes {
                    sequence: &read.sequence,
                    position: read.position,
                    requests: of(&read.read_key),
                },
            })
            .collect();
        let round_id = round.round_id.as_str();
        let planned: Vec<ReadSpec> = reads.iter().map(planned).collect();
        let rows = accounts(&Arrived {
            round_id,
            submissions: &submissions,
            planned: &planned.iter().collect::<Vec<_>>(),
            reads: &reads,
            requests: &requests.iter().collect::<Vec<_>>(),
            verdicts: &verdicts,
        });
        assert_eq!(first_missing(&rows), None, "all that was planned is there");
        let score = ScorePolicy::default();
        let measured = LookReads::of(&score, &timed);
        let rules = LookRules::only(&score, submissions.len());
        let measure = Speeds::of(&score, (round_id, rules), &submissions, (&measured, None));
        let standings = Standings {
            round_id,
            submissions: &submissions,
            commitments: &commitments,
            reads: &reads,
            verdicts: &verdicts,
            floors: Floors::NONE,
            measure: &measure,
            confirm: None,
        };
        places += leaderboard((&score, &RankPolicy::default()), &standings).0.len();
        rounds += 1;
    }
    Ok((rounds, places))
}

/// What was planned of a read that arrived.
fn planned(read: &ReadRow) -> ReadSpec {
    ReadSpec {
        key: read.read_key.clone(),
        arm: read.arm,
        hotkey: read.hotkey.as_ref().map(|hotkey| hotkey.parse().expect("a hotkey")),
        image: read.image.parse().expect("an image"),
        digest: read.digest.parse().expect("a digest"),
        position: read.position,
        sequence: read.sequence.clone(),
        brackets: vec![0],
        repeats: read.repeats.clone(),
    }
}

/// Writes and seals the rounds.
fn make(data_dir: &Path, rounds: u64, submissions: u32) -> Result<(), StoreError> {
    for number in 0..rounds {
        let round_id = format!("rerank-{number:04}");
        let directory = RoundDirectory::create(data_dir, &round_id.parse().expect("a round id"))?;
        let mut drawn = ChaCha8Rng::seed_from_u64(number);
        let hotkeys: Vec<String> =
            (0..submissions).map(|index| format!("5{index:A>47}").replace('0', "B")).collect();
        let mut reads = Vec::new();
        for launch in 0..2 {
            for index in 0..submissions as usize {
                reads.push(read(&round_id, reads.len() as u32, None));
                let position = reads.len() as u32;
                reads.push(read(&round_id, position, Some(&hotkeys[(index + launch) % hotkeys.len()])));
            }
        }
        reads.push(read(&round_id, reads.len() as u32, None));
        let requests: Vec<RequestRow> = reads.iter().flat_map(|read| requests(read, &mut drawn)).collect();
        let verdicts =
            |read: &ReadRow| Check::ALL.iter().map(|check| verdict(read, *check)).collect::<Vec<_>>();
        let candidates = reads.iter().filter(|read| read.arm == Arm::Candidate);
        let verdicts: Vec<VerdictRow> = candidates.flat_map(verdicts).collect();
        let submissions: Vec<SubmissionRow> =
            hotkeys.iter().map(|hotkey| submission(&round_id, hotkey)).collect();
        directory.write_table::<CommitmentRow>(&[])?;
        directory.write_table(&submissions)?;
        directory.write_table(&reads)?;
        directory.write_table(&requests)?;
        directory.write_table(&verdicts)?;
        directory.seal()?;
    }
    Ok(())
}

fn submission(round_id: &str, hotkey: &str) -> SubmissionRow {
    SubmissionRow {
        round_id: round_id.to_owned(),
        hotkey: hotkey.to_owned(),
        uid: None,
        block: 1,
        image: "miner/image".to_owned(),
        digest: format!("sha256:{}", "1".repeat(64)),
    }
}

fn read(round_id: &str, position: u32, hotkey: Option<&String>) -> ReadRow {
    let arm = if hotkey.is_some() { Arm::Candidate } else { Arm::Baseline };
    let spec = ReadSpec {
        key: format!("{position:04}-{arm}"),
        arm,
        hotkey: hotkey.map(|hotkey| hotkey.parse().expect("a hotkey")),
        image: "miner/image".parse().expect("an image"),
        digest: format!("sha256:{}", "1".repeat(64)).parse().expect("a digest"),
        position,
        sequence: "0".to_owned(),
        brackets: vec![0],
        repeats: None,
    };
    ReadRow {
        attempt: 1,
        runner: "machine".to_owned(),
        status: ReadStatus::Measured,
        requests: PROMPTS,
        ..ReadRow::planned(&round_id.parse().expect("a round id"), &spec)
    }
}

/// The requests of a read: some milliseconds more or less, and an answer of the usual length.
fn requests(read: &ReadRow, drawn: &mut ChaCha8Rng) -> Vec<RequestRow> {
    let mut request = |prompt_index: u32| {
        let noise = i64::from(drawn.next_u32() % 50_000_000);
        let ttft = 200_000_000 + noise / 10;
        let end = 6_000_000_000 + noise;
        RequestRow {
            round_id: read.round_id.clone(),
            read_key: read.read_key.clone(),
            prompt_index,
            prompt_sha256: "0".repeat(64),
            status: RequestStatus::Ok,
            flags: std::collections::BTreeSet::new(),
            http_status: Some(200),
            send_offset_ns: i64::from(prompt_index) * 7_000_000_000,
            sent_ns: Some(10_000),
            headers_ns: Some(100_000_000),
            first_byte_ns: Some(ttft),
            first_event_ns: Some(ttft),
            ttft_ns: Some(ttft),
            e2e_ns: Some(end),
            finish_ns: Some(end),
            done_ns: Some(end),
            end_ns: Some(end),
            tpot_ns: None,
            mdt_ns: None,
            stall_ns: None,
            tokens: 256,
            logprob_tokens: 256,
            usage_tokens: Some(256),
            finish_reason: Some("length".to_owned()),
            events: 256,
            body_bytes: 80_000,
            text: format!("{:016x} and what else an answer of this length would say. ", drawn.next_u64())
                .repeat(16),
            new_prompt_tokens: None,
            max_tokens: None,
        }
    };
    (0..PROMPTS).map(&mut request).collect()
}

fn verdict(read: &ReadRow, check: Check) -> VerdictRow {
    VerdictRow {
        round_id: read.round_id.clone(),
        read_key: read.read_key.clone(),
        hotkey: read.hotkey.clone(),
        check,
        outcome: CheckOutcome::Pass,
        value: Some(0.0),
        control_value: Some(0.0),
        threshold: Some(1.0),
        samples: 1000,
        reason: "within the threshold".to_owned(),
        evidence: "[]".to_owned(),
    }
}
