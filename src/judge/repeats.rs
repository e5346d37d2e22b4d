//! What the machine lost of a round, and what is measured again for it.
//!
//! A read that ended by nobody's fault says nothing of its submission, and neither does one that lost a baseline beside it, or
//! stood between two that differ by more than a decision allows: the machine was another one afterwards. Its prompts were asked, so it is not tried again with these: a read of its own, with fresh prompts between fresh baselines,
//! is measured for it, its repeat. Which of the two counts depends on what arrived, never on how fast it was.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Arm, Fault, ReadRow, ReadSpec, ReadStatus, Reason};

/// Reason code of a read in which not one byte came from the server.
pub const NO_ANSWER: &str = "no-answer";

/// Reason codes of what a server did or did not when it was run, by which a machine that is broken shows itself too. A submission's
/// failure by one of them is its own only where no baseline beside it failed so.
const OF_THE_SERVER: [&str; 6] = [
    "server-exited-before-ready",
    "server-exited",
    "not-ready-in-time",
    "warm-up-failed",
    "baseline-failed",
    NO_ANSWER,
];

/// Whether what ended a read with this code may be the machine's doing.
pub(super) fn is_of_the_server(code: &str) -> bool {
    OF_THE_SERVER.contains(&code)
}

/// A planned read and how it ended.
#[derive(Debug, Clone, Copy)]
pub struct EndedRead<'a> {
    /// The read.
    pub spec: &'a ReadSpec,
    /// Whether it was measured.
    pub is_measured: bool,
    /// Why it was not, where anything is known of it.
    pub reason: Option<&'a Reason>,
    /// |ln(B'/B)| of the baseline reads on its two sides; none where there are not two, and for the baseline itself.
    pub drift: Option<f64>,
}

/// The reads of these for which others are to be measured, in the order of measurement.
///
/// A submission's that was not measured by no fault of its own, or of which a baseline beside it was not, or whose baselines
/// differ by more than `max_drift`. The submission's own times do not enter. One that is itself a repeat is not repeated.
pub fn to_repeat<'a>(reads: &[EndedRead<'a>], max_drift: f64) -> Vec<&'a ReadSpec> {
    let mut lost: Vec<&ReadSpec> = reads
        .iter()
        .filter(|read| read.spec.arm == Arm::Candidate && read.spec.repeats.is_none())
        .filter(|read| {
            let has_baselines = has_baselines(read.spec, reads);
            if read.is_measured {
                return !has_baselines || read.drift.is_some_and(|drift| drift > max_drift);
            }
            let is_own = read.reason.is_some_and(|reason| {
                let is_machine = is_of_the_server(&reason.code) && has_failed_baseline(read.spec, reads);
                // A machine that hangs is silent too: it is the submission only where the baselines beside it were heard.
                let is_heard = reason.code != NO_ANSWER || has_baselines;
                reason.fault == Fault::Submission && is_heard && !is_machine
            });
            !is_own
        })
        .map(|read| read.spec)
        .collect();
    lost.sort_by(|left, right| (&left.sequence, left.position).cmp(&(&right.sequence, right.position)));
    lost
}

/// The baselines that were to be asked the prompts of a read.
fn baselines<'r>(spec: &ReadSpec, reads: &'r [EndedRead<'r>]) -> impl Iterator<Item = &'r EndedRead<'r>> {
    reads.iter().filter(|read| {
        read.spec.arm == Arm::Baseline && read.spec.brackets.iter().any(|own| spec.brackets.contains(own))
    })
}

/// Whether all of them were measured.
fn has_baselines(spec: &ReadSpec, reads: &[EndedRead<'_>]) -> bool {
    baselines(spec, reads).all(|read| read.is_measured)
}

/// Whether one of them failed as a server does.
fn has_failed_baseline(spec: &ReadSpec, reads: &[EndedRead<'_>]) -> bool {
    baselines(spec, reads).any(|read| read.reason.is_some_and(|reason| is_of_the_server(&reason.code)))
}

/// The keys of the reads that do not count: of a read and its repeat one.
///
/// It is the repeat, but one without data never takes the place of what was measured. What failed by the submission's own fault
/// counts in any case.
pub fn uncounted(reads: &[ReadRow]) -> BTreeSet<&str> {
    let by_key: BTreeMap<&str, &ReadRow> = reads.iter().map(|read| (read.read_key.as_str(), read)).collect();
    let is_measured = |read: &ReadRow| read.status == ReadStatus::Measured;
    let is_own = |read: &ReadRow| !is_measured(read) && read.fault == Some(Fault::Submission);
    reads
        .iter()
        .filter_map(|repeat| Some((*by_key.get(repeat.repeats.as_deref()?)?, repeat)))
        .filter_map(|(first, repeat)| {
            let has_no_data = is_measured(first) && !is_measured(repeat);
            // One that may be the machine's doing has a repeat only where a baseline failed so too.
            let is_machine = first.reason.as_deref().is_some_and(is_of_the_server);
            let (read, counts) =
                if has_no_data { (repeat, is_own(repeat)) } else { (first, is_own(first) && !is_machine) };
            (!counts).then_some(read.read_key.as_str())
        })
        .collect()
}

/// Whether a read is void by what went on beside it while its server was asked: something that its server may have done as well.
pub(super) fn is_void(read: &ReadRow) -> bool {
    let is_such = |code: &str| VOID_CODES.contains(&code);
    read.status != ReadStatus::Measured
        && read.fault == Some(Fault::Infra)
        && read.reason.as_deref().is_some_and(is_such)
}

/// Reason codes of such reads.
const VOID_CODES: [&str; 3] = ["client-lag", "machine-not-idle", GPU_FAILED];
/// Reason code of a read in which a GPU, or its driver, failed: by itself, or by what a server did on it.
pub const GPU_FAILED: &str = "gpu-failed";

#[cfg(test)]
mod tests {
    use super::*;

    /// `B A B C B` with brackets 0 and 1.
    fn planned() -> Vec<ReadSpec> {
        let spec = |(position, name, brackets): (u32, Option<char>, &[u32])| ReadSpec {
            key: format!("{position}"),
            arm: if name.is_some() { Arm::Candidate } else { Arm::Baseline },
            hotkey: name.map(|name| format!("5{}", name.to_string().repeat(47)).parse().expect("hotkey")),
            image: "m/image".parse().expect("image"),
            digest: format!("sha256:{}", "0".repeat(64)).parse().expect("digest"),
            position,
            sequence: "0".to_owned(),
            brackets: brackets.to_vec(),
            repeats: None,
        };
        let plan: [(u32, Option<char>, &[u32]); 5] = [
            (0, None, &[0]),
            (1, Some('A'), &[0]),
            (2, None, &[0, 1]),
            (3, Some('C'), &[1]),
            (4, None, &[1]),
        ];
        plan.into_iter().map(spec).collect()
    }

    /// The keys of what is repeated where these reads were lost.
    fn after(lost: &[(usize, Fault, &str)]) -> Vec<String> {
        let planned = planned();
        let reasons: Vec<Option<Reason>> = (0..planned.len())
            .map(|place| {
                let own = lost.iter().find(|(lost, ..)| *lost == place);
                own.map(|(_, fault, code)| Reason::new(*fault, code, "why"))
            })
            .collect();
        let reads: Vec<EndedRead<'_>> = planned
            .iter()
            .zip(&reasons)
            .map(|(spec, reason)| EndedRead {
                spec,
                is_measured: reason.is_none(),
                reason: reason.as_ref(),
                drift: None,
            })
            .collect();
        to_repeat(&reads, 0.1).into_iter().map(|spec| spec.key.clone()).collect()
    }

    #[test]
    fn what_was_lost_by_nobodys_fault_is_repeated_and_what_lost_a_baseline_too() {
        let none: [&str; 0] = [];
        assert_eq!(after(&[]), none);
        assert_eq!(after(&[(3, Fault::Infra, "machine-not-idle")]), ["3"]);
        assert_eq!(after(&[(1, Fault::Unknown, "cut"), (3, Fault::Operator, "weights")]), ["1", "3"]);
        // The baseline in the middle stands beside both.
        assert_eq!(after(&[(0, Fault::Infra, "cut")]), ["1"]);
        assert_eq!(after(&[(2, Fault::Infra, "cut")]), ["1", "3"]);
        // What is its own fault stays so, but silence beside a silent baseline.
        assert_eq!(after(&[(1, Fault::Submission, "server-exited")]), none);
        assert_eq!(after(&[(1, Fault::Submission, "server-exited"), (0, Fault::Infra, "cut")]), none);
        // But not beside a baseline that failed so too: it may be the machine.
        let broken = (0, Fault::Infra, "server-exited-before-ready");
        assert_eq!(after(&[(1, Fault::Submission, "server-exited"), broken]), ["1"]);
        assert_eq!(after(&[(1, Fault::Submission, "image-invalid"), broken]), none);
        assert_eq!(after(&[(1, Fault::Submission, NO_ANSWER)]), none);
        assert_eq!(after(&[(1, Fault::Submission, NO_ANSWER), (0, Fault::Submission, NO_ANSWER)]), ["1"]);
    }

    #[test]
    fn what_stood_between_baselines_that_differ_is_repeated_and_a_repeat_is_not() {
        let mut planned = planned();
        let keys = |planned: &[ReadSpec], drift: f64| {
            let ended = |spec| EndedRead { spec, is_measured: true, reason: None, drift: Some(drift) };
            let reads: Vec<EndedRead<'_>> = planned.iter().map(ended).collect();
            to_repeat(&reads, 0.1).iter().map(|spec| spec.key.clone()).collect::<Vec<_>>()
        };
        let none: [&str; 0] = [];
        assert_eq!(keys(&planned, 0.1), none);
        assert_eq!(keys(&planned, 0.11), ["1", "3"]);
        planned[3].repeats = Some("1".to_owned());
        assert_eq!(keys(&planned, 0.11), ["1"]);
        let reason = Reason::new(Fault::Infra, "cut", "why");
        let lost: Vec<EndedRead<'_>> = planned
            .iter()
            .map(|spec| EndedRead { spec, is_measured: false, reason: Some(&reason), drift: None })
            .collect();
        assert_eq!(to_repeat(&lost, 0.1).len(), 1);
    }

    #[test]
    fn of_a_read_and_its_repeat_one_counts() {
        let row = |key: &str, end: Result<(), Fault>, repeats: Option<&str>| ReadRow {
            read_key: key.to_owned(),
            status: if end.is_ok() { ReadStatus::Measured } else { ReadStatus::Failed },
            fault: end.err(),
            repeats: repeats.map(ToOwned::to_owned),
            ..ReadRow::default()
        };
        let left = |first, second| {
            let reads = [row("first", first, None), row("repeat", second, Some("first"))];
            let out = uncounted(&reads);
            let keys = reads.iter().map(|read| read.read_key.as_str());
            keys.filter(|key| !out.contains(key)).map(ToOwned::to_owned).collect::<Vec<_>>()
        };
        let (infra, own) = (Err(Fault::Infra), Err(Fault::Submission));
        assert_eq!(left(infra, Ok(())), ["repeat"]);
        assert_eq!(left(infra, infra), ["repeat"]);
        assert_eq!(left(Ok(()), Ok(())), ["repeat"]);
        // Without data it takes the place of nothing that was measured.
        assert_eq!(left(Ok(()), infra), ["first"]);
        // What is its own fault is not made up for by another read.
        assert_eq!(left(infra, own), ["repeat"]);
        assert_eq!(left(Ok(()), own), ["first", "repeat"]);
        assert_eq!(left(own, Ok(())), ["first", "repeat"]);
        let none: [&str; 0] = [];
        assert!(uncounted(&[row("repeat", Ok(()), Some("of another round"))]).into_iter().eq(none));
    }
}
