//! Which machines are broken: what the baselines of a round say once all of its reads have ended.
//!
//! The pinned baseline is the same server on every machine and in every round. Where it fails as a machine makes servers fail, and
//! no baseline was measured on that machine afterwards, nobody should be measured there before a person has looked. Reads of
//! submissions do not enter at all, neither for nor against a machine: no submission puts one out of service by failing, and
//! none keeps one in service by not failing.

use std::collections::BTreeMap;

use super::repeats::is_of_the_server;
use crate::model::Arm;

/// What a reason by which a baseline's read ended says of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineSign {
    /// The machine, or what the pinned server needs of it, is broken: a person has to look.
    Broken,
    /// Something went on beside the read, and passes by itself.
    Passing,
    /// It is not of the machine: the image, the registry, the pipeline, a person, or the directory of the rounds.
    Elsewhere,
}

use MachineSign::{Broken, Elsewhere, Passing};

/// What each reason code says, beside those of a server that was run, by which a machine that is broken shows itself too.
///
/// A test holds the table to all the codes that there are. Where nobody explains what ended a read (`server-lost`, `timeout`), a hanging
/// server and a hanging machine look alike; of the pinned baseline, which does elsewhere what it did not here, it is the machine.
const SIGNS: [(&str, MachineSign); 56] = [
    // The operating system or the engine refused what every read needs of it, or ended our own process.
    ("machine", Broken),
    ("machine-io", Broken),
    ("container-engine", Broken),
    ("no-room", Broken),
    // A GPU broke or was too hot, or the machine is another than its runner's file says or than it was.
    ("gpu-failed", Broken),
    ("gpu-slowed", Broken),
    ("machine-differs", Broken),
    ("job-lost", Broken),
    ("server-lost", Broken),
    ("timeout", Broken),
    // Neighbours of the read: others used the machine, or its prompts were asked before.
    ("machine-not-idle", Passing),
    ("client-lag", Passing),
    ("asked-before", Passing),
    // The image, and where it comes from.
    ("image-unavailable", Elsewhere),
    ("image-not-public", Elsewhere),
    ("image-invalid", Elsewhere),
    ("image-too-large", Elsewhere),
    ("digest-mismatch", Elsewhere),
    ("registry-unavailable", Elsewhere),
    // What the operator wrote down: the pipeline, its scripts, the model's files, the prompts.
    ("bad-parameter", Elsewhere),
    ("bad-expression", Elsewhere),
    ("bad-output", Elsewhere),
    ("script-failed", Elsewhere),
    ("unknown-job", Elsewhere),
    ("no-runner", Elsewhere),
    ("matrix-empty", Elsewhere),
    ("condition", Elsewhere),
    ("tokenizer", Elsewhere),
    ("weights", Elsewhere),
    ("corpus", Elsewhere),
    ("commitments-unreadable", Elsewhere),
    ("commitments-too-large", Elsewhere),
    ("commitments-malformed", Elsewhere),
    ("chain-endpoint", Elsewhere),
    ("chain-node", Elsewhere),
    ("chain-late", Elsewhere),
    // Somebody stopped it, or the program that ran the round ended.
    ("cancelled", Elsewhere),
    ("displaced", Elsewhere),
    ("cut", Elsewhere),
    // The directory of the rounds, which is on no runner, and what this program itself got wrong.
    ("round-directory", Elsewhere),
    ("damaged-artifact", Elsewhere),
    ("missing", Elsewhere),
    ("not-as-planned", Elsewhere),
    ("not-recorded", Elsewhere),
    ("streams", Elsewhere),
    ("handle", Elsewhere),
    ("json", Elsewhere),
    ("job-order", Elsewhere),
    ("job-garbled", Elsewhere),
    ("job-failed", Elsewhere),
    // What is said of rounds, scorers and places, and never of a baseline's read.
    ("scorer", Elsewhere),
    ("held", Elsewhere),
    ("not-measured", Elsewhere),
    ("no-verdict", Elsewhere),
    ("read-missing", Elsewhere),
    ("void-twice", Elsewhere),
];

/// What a reason code says of the machine, where a baseline's read ended by it; none for one that nobody has thought about, and
/// then the machine is not accused.
pub fn machine_sign(code: &str) -> Option<MachineSign> {
    if is_of_the_server(code) {
        return Some(Broken);
    }
    SIGNS.iter().find(|(known, _)| *known == code).map(|(_, sign)| *sign)
}

/// A read of a round that has ended, as far as it may say something of the machine it was on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineRead<'a> {
    /// Side of the comparison the read is on.
    pub arm: Arm,
    /// Name of the runner that ran its last attempt.
    pub runner: &'a str,
    /// Wall time of that attempt's start, microseconds since 1970 UTC.
    pub started_at_us: i64,
    /// Whether it was measured.
    pub is_measured: bool,
    /// Code of the reason why it was not, where one is known.
    pub code: Option<&'a str>,
}

/// The runners whose machines are broken, by name: for each the indices of the reads that say so, the earliest first.
///
/// These are the baseline's reads that failed by a [`MachineSign::Broken`] after the last one that was measured there.
pub fn broken_machines<'a>(reads: &[MachineRead<'a>]) -> BTreeMap<&'a str, Vec<usize>> {
    let baselines = || reads.iter().enumerate().filter(|(_, read)| read.arm == Arm::Baseline);
    let mut sound: BTreeMap<&str, i64> = BTreeMap::new();
    for (_, read) in baselines().filter(|(_, read)| read.is_measured) {
        let last = sound.entry(read.runner).or_insert(read.started_at_us);
        *last = (*last).max(read.started_at_us);
    }
    let mut broken: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, read) in baselines() {
        let is_sign = !read.is_measured && read.code.and_then(machine_sign) == Some(Broken);
        if is_sign && sound.get(read.runner).is_none_or(|last| read.started_at_us > *last) {
            broken.entry(read.runner).or_default().push(index);
        }
    }
    for indices in broken.values_mut() {
        indices.sort_by_key(|index| (reads[*index].started_at_us, *index));
    }
    broken
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn baseline(
        runner: &'static str,
        started_at_us: i64,
        end: Result<(), &'static str>,
    ) -> MachineRead<'static> {
        MachineRead { arm: Arm::Baseline, runner, started_at_us, is_measured: end.is_ok(), code: end.err() }
    }

    fn candidate(
        runner: &'static str,
        started_at_us: i64,
        end: Result<(), &'static str>,
    ) -> MachineRead<'static> {
        MachineRead { arm: Arm::Candidate, ..baseline(runner, started_at_us, end) }
    }

    /// The runners that are broken, each with the reads that say so.
    fn found(reads: &[MachineRead<'_>]) -> Vec<String> {
        broken_machines(reads).iter().map(|(runner, reads)| format!("{runner} {reads:?}")).collect()
    }

    #[test]
    fn a_machine_is_broken_where_the_baseline_fails_and_is_not_measured_again() {
        let none: [&str; 0] = [];
        let dead = Err("server-exited-before-ready");
        assert_eq!(found(&[]), none);
        assert_eq!(found(&[baseline("a", 1, Ok(()))]), none);
        assert_eq!(found(&[baseline("a", 1, dead)]), ["a [0]"]);
        assert_eq!(found(&[baseline("a", 1, Ok(())), baseline("a", 2, dead)]), ["a [1]"]);
        // It came round again, in whatever order the reads are listed.
        assert_eq!(found(&[baseline("a", 1, dead), baseline("a", 2, Ok(()))]), none);
        assert_eq!(found(&[baseline("a", 2, Ok(())), baseline("a", 1, dead)]), none);
        // Another machine's baseline says nothing of this one.
        assert_eq!(found(&[baseline("a", 1, dead), baseline("b", 2, Ok(()))]), ["a [0]"]);
        let reads = [
            baseline("b", 3, Err("machine-io")),
            baseline("a", 9, Err("timeout")),
            baseline("a", 4, dead),
            baseline("b", 2, Ok(())),
        ];
        assert_eq!(found(&reads), ["a [2, 1]", "b [0]"]);
    }

    #[test]
    fn what_passes_and_what_is_not_of_the_machine_put_nothing_out_of_service() {
        let none: [&str; 0] = [];
        for code in
            ["machine-not-idle", "client-lag", "registry-unavailable", "image-invalid", "cut", "weights"]
        {
            assert_eq!(found(&[baseline("a", 1, Err(code))]), none, "{code}");
        }
        // Nor does a read that nobody gives a reason for, or one that nobody has thought about.
        assert_eq!(found(&[MachineRead { code: None, ..baseline("a", 1, Err("machine")) }]), none);
        assert_eq!(found(&[baseline("a", 1, Err("moon-too-bright"))]), none);
        for code in ["server-exited", "not-ready-in-time", "no-answer", "baseline-failed", "container-engine"]
        {
            assert_eq!(found(&[baseline("a", 1, Err(code))]), ["a [0]"], "{code}");
        }
        // What passes makes nothing well again.
        let reads = [baseline("a", 1, Err("machine")), baseline("a", 2, Err("machine-not-idle"))];
        assert_eq!(found(&reads), ["a [0]"]);
    }

    #[test]
    fn no_code_stands_in_the_table_twice() {
        for (code, _) in SIGNS {
            let count = SIGNS.iter().filter(|(known, _)| *known == code).count();
            assert_eq!((count, is_of_the_server(code)), (1, false), "{code}");
        }
    }

    fn reads(arm: Arm) -> impl Strategy<Value = Vec<MachineRead<'static>>> {
        let end = prop_oneof![
            Just(Ok(())),
            Just(Err("server-exited")),
            Just(Err("no-answer")),
            Just(Err("machine-not-idle")),
            Just(Err("container-engine")),
        ];
        let read = (prop_oneof![Just("a"), Just("b")], 0_i64..6, end);
        let read = read.prop_map(move |(runner, at, end)| MachineRead { arm, ..baseline(runner, at, end) });
        proptest::collection::vec(read, 0..8)
    }

    proptest! {
        #[test]
        fn no_submission_decides_about_a_machine(
            baselines in reads(Arm::Baseline), candidates in reads(Arm::Candidate)
        ) {
            prop_assert!(broken_machines(&candidates).is_empty());
            let all = [baselines.clone(), candidates].concat();
            prop_assert_eq!(broken_machines(&baselines), broken_machines(&all));
        }
    }

    #[test]
    fn a_submission_that_dies_says_nothing_of_its_machine() {
        let none: [&str; 0] = [];
        let reads = [candidate("a", 1, Err("container-engine")), candidate("a", 2, Err("no-answer"))];
        assert_eq!(found(&reads), none);
        // And one that is measured makes a machine not well on which the baseline died.
        assert_eq!(found(&[baseline("a", 1, Err("machine")), candidate("a", 2, Ok(()))]), ["a [0]"]);
    }
}
