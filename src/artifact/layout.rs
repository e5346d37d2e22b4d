//! Which file is where: the names inside a round's directory.
//!
//! All paths are relative, with `/`, and safe: what comes from outside (a leg's key) is encoded here.

use std::fmt::Write as _;

use super::digest::sha256;
use crate::model::{Digest, RoundId};

/// The file that says what the round was made of; see [`super::RoundFile`].
pub const ROUND_FILE: &str = "round.json";
/// The file that says what happened; see [`super::journal`].
pub const JOURNAL_FILE: &str = "journal.jsonl";
/// The file with the digests of all others; see [`super::seal`].
pub const SEAL_FILE: &str = "SEAL";
/// The file that is held by the process that runs the round; not part of its results.
pub const LOCK_FILE: &str = "lock";
/// The file with the digests of files that were removed after the round was sealed; outside the seal, like the lock.
pub const REMOVED_FILE: &str = "REMOVED";
/// The file that shows the round to people.
pub const SUMMARY_FILE: &str = "summary.md";
/// The directory of the tokenizers by which the round's tokens were counted.
pub const TOKENIZER_DIR: &str = "tokenizers";
/// The directory of the corpora from which the round's prompts were drawn.
pub const CORPUS_DIR: &str = "corpora";
/// The directory of what the round's machines are.
pub const MACHINE_DIR: &str = "machines";
/// Start of the name of a file that is still being written.
pub const PARTIAL_PREFIX: &str = ".part-";
/// Start of the name of a round's directory that is being removed: what has it is no round any more.
const REMOVED_PREFIX: &str = ".part-removed-";
/// The files of an attempt that hold raw streams: by far the largest of a round, and no table is one of them.
const RAW_STREAMS: [&str; 2] = ["streams.parquet", "exchanges.parquet"];

/// The file of digests of tables that were read before, below the data directory; not part of any round.
pub const QUERY_CACHE_FILE: &str = "query-cache.json";
/// The directory of all rounds, below the data directory.
pub const ROUNDS_DIR: &str = "rounds";
/// Directory of what the schedules' ticks came to, beside that of the rounds: their journal and its lock.
pub const TICKS_DIR: &str = "ticks";
/// Directory of the concurrency groups, beside that of the rounds: one directory each, a file for each place in its queue.
pub const GROUPS_DIR: &str = "groups";
/// Directory of what is known of runners from round to round, beside that of the rounds: a file for each that was ever out of
/// service.
pub const QUARANTINE_DIR: &str = "quarantine";
/// Directory of what checks hand to their rounds, beside that of the rounds: a folder each, of a few KiB.
pub const CHECKS_DIR: &str = "checks";
/// Where the queues of a machine's engines lie, as concurrency groups do in a data directory; gone when the machine is booted.
pub const MACHINE_LOCKS: &str = "/run/lock/cacheon";
/// Longest name that is written out, in bytes; longer ones are cut and told apart by a digest.
const NAME_BYTES: usize = 100;

/// Name of a round's directory: a Hive partition, so that query engines read the round's id from the path.
pub fn round_dir(round: &RoundId) -> String {
    format!("round={round}")
}

/// Id of the round whose directory has this name; none if it is no round's.
pub fn round_of_dir(name: &str) -> Option<RoundId> {
    name.strip_prefix("round=")?.parse().ok()
}

/// Name that a round's directory has while it is removed.
pub fn removed_dir(round: &RoundId) -> String {
    format!("{REMOVED_PREFIX}{round}")
}

/// Id of the round that was being removed under this name; none if none was.
pub fn round_of_removed_dir(name: &str) -> Option<RoundId> {
    name.strip_prefix(REMOVED_PREFIX)?.parse().ok()
}

/// Whether the path is that of raw streams: `jobs/<job>/<leg>/attempt-<n>/` and the name of one of the two files.
pub fn is_raw_streams(path: &str) -> bool {
    let names: Vec<&str> = path.split('/').collect();
    matches!(names[..], ["jobs", _, _, attempt, name]
        if attempt.starts_with("attempt-") && RAW_STREAMS.contains(&name))
}

/// Name of the file that says whether a runner is in service, in [`QUARANTINE_DIR`].
pub fn runner_state_file(runner: &str) -> String {
    format!("{}.json", file_name(runner))
}

/// Path of a published table's file.
pub fn table_path(table: &str) -> String {
    format!("results/{table}.parquet")
}

/// Path of a tokenizer by its digest.
pub fn tokenizer_path(digest: &Digest) -> String {
    format!("{TOKENIZER_DIR}/{}.json", digest.as_str().trim_start_matches("sha256:"))
}

/// Path of what the machine of a runner is.
pub fn machine_path(runner: &str) -> String {
    format!("{MACHINE_DIR}/{}.json", file_name(runner))
}

/// Path of the samples of the machine's GPUs that a read left in the directory of its attempt.
pub fn gpu_samples_path(attempt: &str) -> String {
    format!("{attempt}/gpu_samples.parquet")
}

/// Path of a corpus by its digest; what kind of file it is, its first bytes say.
pub fn corpus_path(digest: &Digest) -> String {
    format!("{CORPUS_DIR}/{}", digest.as_str().trim_start_matches("sha256:"))
}

/// Directory in which an attempt of a leg keeps its files: `jobs/<job>/<leg>/attempt-<n>`. The only leg of a job
/// without a matrix, whose key is empty, is `_`.
pub fn attempt_path(job: &str, leg: &str, attempt: u32) -> String {
    let leg = if leg.is_empty() { "_".to_owned() } else { file_name(leg) };
    format!("jobs/{}/{leg}/attempt-{attempt}", file_name(job))
}

/// Any text as one harmless file name, different for different texts.
///
/// Letters, digits, `_`, `-` and inner `.` stand for themselves, other bytes are percent-encoded. A long name
/// is cut and ends in `~` and 16 digits of its digest.
pub fn file_name(text: &str) -> String {
    let mut name = String::new();
    for (offset, byte) in text.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || b"_-".contains(&byte) || (byte == b'.' && offset > 0) {
            name.push(char::from(byte));
        } else {
            write!(name, "%{byte:02X}").expect("writes to a string");
        }
    }
    if name.len() > NAME_BYTES {
        let digest = sha256(text.as_bytes());
        let hex = digest.as_str().trim_start_matches("sha256:");
        name.truncate(NAME_BYTES - 17);
        name.push('~');
        name.push_str(&hex[..16]);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names() {
        let check = |input: &str, expected: &str| assert_eq!(file_name(input), expected);
        check("0003-candidate-5Grwva", "0003-candidate-5Grwva");
        check("a.b", "a.b");
        check("..", "%2E.");
        check("../x", "%2E.%2Fx");
        check("a b\n", "a%20b%0A");
        check("50%", "50%25");
        check("é", "%C3%A9");
        check("~", "%7E");
    }

    #[test]
    fn long_names_stay_apart() {
        let long = |last: char| format!("{}{last}", "/".repeat(500));
        assert_eq!(file_name(&long('a')).len(), NAME_BYTES);
        assert_ne!(file_name(&long('a')), file_name(&long('b')));
    }

    #[test]
    fn paths() {
        assert_eq!(attempt_path("rank", "", 1), "jobs/rank/_/attempt-1");
        assert_eq!(attempt_path("m", "a/b", 2), "jobs/m/a%2Fb/attempt-2");
        assert_eq!(round_of_dir("round=demo-1").map(|id| round_dir(&id)).as_deref(), Some("round=demo-1"));
        assert_eq!(round_of_dir("round=../x"), None);
        assert_eq!(round_of_dir("demo-1"), None);
        let removed = round_of_removed_dir(".part-removed-demo-1").map(|id| removed_dir(&id));
        assert_eq!(removed.as_deref(), Some(".part-removed-demo-1"));
        assert_eq!(round_of_removed_dir(".part-removed-../x"), None);
        assert_eq!(round_of_removed_dir(".part-x"), None);
        assert_eq!(runner_state_file("h200x4"), "h200x4.json");
        assert_eq!(runner_state_file("../../etc/passwd"), "%2E.%2F..%2Fetc%2Fpasswd.json");
    }

    #[test]
    fn raw_streams() {
        let check = |path: &str, expected: bool| assert_eq!(is_raw_streams(path), expected, "{path}");
        check("jobs/measure/0001-a/attempt-1/streams.parquet", true);
        check("jobs/measure/_/attempt-2/exchanges.parquet", true);
        check("jobs/measure/_/attempt-2/requests.parquet", false);
        check("jobs/measure/_/scratch/streams.parquet", false);
        check("jobs/measure/_/attempt-1/deep/streams.parquet", false);
        check("results/streams.parquet", false);
        check("streams.parquet", false);
    }
}
