//! Whose answers are judged together, and beside which control: every check of one look.
//!
//! Each read is judged by itself, and all reads of a submission in one look once more together, over their different
//! prompts: what is too rare to be seen in one read, an answer cut short or a wrong first token in eight, adds up. Either
//! verdict counts, so nothing is gained by cheating in one read of several.
//!
//! The control is judged first: each read of the baseline beside all its others, and all of them by the scorer alone. A
//! control that is off excuses nobody and condemns nobody: every check of every candidate is void, with the reason.

use std::collections::BTreeMap;

use super::answers::Answers;
use super::samples::{SampleNeed, sample_needs};
use super::score::ReadTimes;
use super::speeds::TimedRead;
use super::thresholds::VerifyPolicy;
use super::verify::{Subject, judge_answers, judge_control, void};
use crate::model::{Arm, Check, CheckOutcome, RequestRow, RequestTimes, TokenRow, VerdictRow};

/// One measured read and what came of it.
#[derive(Debug, Clone, Copy)]
pub struct MeasuredRead<'a> {
    /// Key of the read.
    pub read_key: &'a str,
    /// Side of the comparison the read is on.
    pub arm: Arm,
    /// Hotkey of the submission; none for the baseline.
    pub hotkey: Option<&'a str>,
    /// Name of the sequence the read ran in.
    pub sequence: &'a str,
    /// Position in the order of measurement, from 0.
    pub position: u32,
    /// The read's rows of `requests`.
    pub requests: &'a [RequestRow],
    /// The read's rows of `tokens`.
    pub tokens: &'a [TokenRow],
}

impl<'a> MeasuredRead<'a> {
    /// The read as its speed is decided.
    pub(super) const fn timed(&self, requests: &'a [RequestTimes]) -> TimedRead<'a> {
        let times = ReadTimes { sequence: self.sequence, position: self.position, requests };
        TimedRead { arm: self.arm, hotkey: self.hotkey, times }
    }

    /// Its answers.
    const fn answers(&self) -> (&'a [RequestRow], &'a [TokenRow]) {
        (self.requests, self.tokens)
    }
}

/// Name of several reads that are judged together, `first..last`; none where there are not several.
pub(super) fn pool_key<'a>(keys: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut keys: Vec<&str> = keys.into_iter().collect();
    keys.sort_unstable();
    match keys[..] {
        [first, .., last] => Some(format!("{first}..{last}")),
        _ => None,
    }
}

/// Judges the answers of one look: those of the baseline, those of every candidate's read against all of the baseline's, and those of
/// all reads of a candidate together.
pub fn verdicts(policy: &VerifyPolicy, round_id: &str, reads: &[MeasuredRead<'_>]) -> Vec<VerdictRow> {
    let of_arm = |arm| reads.iter().filter(move |read| read.arm == arm);
    let baseline: Vec<&MeasuredRead<'_>> = of_arm(Arm::Baseline).collect();
    let control = Answers::of(baseline.iter().map(|read| read.answers()));
    let mut rows = of_control(policy, round_id, &baseline);
    let off = rows.iter().find(|row| row.outcome == CheckOutcome::Fail).map(|row| {
        format!(
            "the baseline is off, so nothing is judged by it: read `{}`, {}: {}",
            row.read_key, row.check, row.reason
        )
    });
    let judge = |(read_key, hotkey): (&str, Option<&str>), answers: &Answers<'_>| {
        let subject = Subject { round_id, read_key, hotkey };
        match &off {
            Some(reason) => void(&subject, reason),
            None => judge_answers(policy, &subject, &control, answers),
        }
    };
    let mut of_hotkey: BTreeMap<Option<&str>, Vec<&MeasuredRead<'_>>> = BTreeMap::new();
    for read in of_arm(Arm::Candidate) {
        rows.extend(judge((read.read_key, read.hotkey), &Answers::of([read.answers()])));
        of_hotkey.entry(read.hotkey).or_default().push(read);
    }
    let need = sample_needs(policy)[1];
    for (hotkey, own) in of_hotkey {
        let together = pool_key(own.iter().map(|read| read.read_key));
        if let Some(key) = &together {
            rows.extend(judge((key, hotkey), &Answers::of(own.iter().map(|read| read.answers()))));
        }
        let key = together.as_deref().or_else(|| Some(own.first()?.read_key));
        let is_of_all =
            |row: &&mut VerdictRow| row.check == Check::FirstFlips && Some(row.read_key.as_str()) == key;
        rows.iter_mut().filter(is_of_all).for_each(|row| say_if_few(row, &need));
    }
    rows
}

/// Says in a passed check of first tokens that there were too few of them to find what it should.
fn say_if_few(row: &mut VerdictRow, need: &SampleNeed) {
    let Some(least) = need.samples.filter(|least| u64::from(row.samples) < *least) else { return };
    if row.outcome == CheckOutcome::Pass {
        let share = need.cheat * 100.0;
        let few = format!(
            "{least} are needed to be sure to find a server that takes {share}% of them from elsewhere"
        );
        row.reason = format!("{}; {few}", row.reason);
    }
}

/// Judges the baseline: each read beside all its others, and all of them by the scorer alone.
///
/// The levels are split over the reads, so that a round of many reads is not void by chance.
fn of_control(policy: &VerifyPolicy, round_id: &str, baseline: &[&MeasuredRead<'_>]) -> Vec<VerdictRow> {
    let share = baseline.len().max(1) as f64;
    let policy =
        VerifyPolicy { level: policy.level / share, hard_level: policy.hard_level / share, ..policy.clone() };
    let mut rows = Vec::new();
    for read in baseline {
        let others = baseline.iter().filter(|other| other.read_key != read.read_key);
        let others = Answers::of(others.map(|other| other.answers()));
        let subject = Subject { round_id, read_key: read.read_key, hotkey: None };
        rows.extend(judge_answers(&policy, &subject, &others, &Answers::of([read.answers()])));
    }
    if let Some(key) = pool_key(baseline.iter().map(|read| read.read_key)) {
        let subject = Subject { round_id, read_key: &key, hotkey: None };
        let all = Answers::of(baseline.iter().map(|read| read.answers()));
        rows.extend(judge_control(&policy, &subject, &all));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Check, RequestStatus, prompt_of_round};

    const LENGTH: u32 = 20;
    const MAX_TOKENS: u32 = 64;

    /// A read of 16 answers that the scorer finds to be the model's own, token for token.
    #[derive(Clone)]
    struct Read {
        key: String,
        hotkey: Option<&'static str>,
        requests: Vec<RequestRow>,
        tokens: Vec<TokenRow>,
    }

    impl Read {
        fn of(key: &str, hotkey: Option<&'static str>, brackets: &[u32]) -> Self {
            let mut read = Self { key: key.to_owned(), hotkey, requests: Vec::new(), tokens: Vec::new() };
            for prompt in brackets.iter().flat_map(|bracket| (0..16).map(|n| prompt_of_round(*bracket, n))) {
                read.requests.push(RequestRow {
                    read_key: read.key.clone(),
                    prompt_index: prompt,
                    status: RequestStatus::Ok,
                    finish_reason: Some("stop".to_owned()),
                    tokens: LENGTH,
                    logprob_tokens: LENGTH + 1,
                    max_tokens: Some(MAX_TOKENS),
                    ..RequestRow::default()
                });
                read.tokens.extend((0..=LENGTH).map(|position| TokenRow {
                    read_key: read.key.clone(),
                    prompt_index: prompt,
                    position,
                    is_end: position == LENGTH,
                    server_logprob: Some(-0.1),
                    scorer_logprob: Some(-0.1),
                    scorer_rank: Some(1),
                    scorer_top_logprob: Some(-0.1),
                    ..TokenRow::default()
                }));
            }
            read
        }

        /// Makes the tokens that are picked others than the model's; the server claims what the scorer will find.
        fn with_wrong(mut self, is_wrong: impl Fn(&TokenRow) -> bool) -> Self {
            for row in self.tokens.iter_mut().filter(|row| is_wrong(row)) {
                (row.scorer_rank, row.scorer_logprob, row.server_logprob) =
                    (Some(40), Some(-5.0), Some(-5.0));
            }
            self
        }

        /// Ends the answer to one of its prompts after its first token: by itself, or as if by a limit.
        fn with_cut(mut self, number: u32, reason: &str) -> Self {
            let of_prompt = |row: &&mut RequestRow| row.prompt_index % 100_000 == number;
            for row in self.requests.iter_mut().filter(of_prompt) {
                row.finish_reason = Some(reason.to_owned());
                (row.tokens, row.logprob_tokens) = (1, 1);
            }
            let of_answer = |row: &TokenRow| row.prompt_index % 100_000 == number;
            self.tokens
                .retain(|row| !of_answer(row) || row.position == 0 || (reason == "stop" && row.is_end));
            let end = self.tokens.iter_mut().filter(|row| of_answer(row) && row.is_end);
            for row in end {
                (row.position, row.scorer_rank, row.scorer_logprob, row.server_logprob) =
                    (1, Some(90), Some(-9.0), Some(-9.0));
            }
            self
        }

        fn measured(&self) -> MeasuredRead<'_> {
            MeasuredRead {
                read_key: &self.key,
                arm: if self.hotkey.is_some() { Arm::Candidate } else { Arm::Baseline },
                hotkey: self.hotkey,
                sequence: "0",
                position: 0,
                requests: &self.requests,
                tokens: &self.tokens,
            }
        }
    }

    fn baseline() -> [Read; 3] {
        [Read::of("0", None, &[0]), Read::of("2", None, &[0, 1]), Read::of("4", None, &[1])]
    }

    fn candidate() -> [Read; 2] {
        [Read::of("1", Some("h"), &[0]), Read::of("3", Some("h"), &[1])]
    }

    fn judged(reads: &[&[Read]]) -> Vec<VerdictRow> {
        let reads: Vec<MeasuredRead<'_>> = reads.iter().copied().flatten().map(Read::measured).collect();
        verdicts(&VerifyPolicy::default(), "r", &reads)
    }

    /// The checks that ended so, by read.
    fn with(rows: &[VerdictRow], outcome: CheckOutcome) -> Vec<(&str, &str)> {
        let those = rows.iter().filter(|row| row.outcome == outcome);
        those.map(|row| (row.read_key.as_str(), row.check.as_str())).collect()
    }

    #[test]
    fn honest_reads_are_judged_each_and_together() {
        let rows = judged(&[&baseline(), &candidate()]);
        assert_eq!(with(&rows, CheckOutcome::Fail), []);
        assert_eq!(with(&rows, CheckOutcome::Void), []);
        let of = |key: &str| rows.iter().filter(|row| row.read_key == key).count();
        let all = Check::ALL.len();
        assert_eq!(["0", "2", "4", "1", "3", "1..3"].map(of), [all; 6]);
        assert_eq!(of("0..4"), 9, "what the scorer alone can say of the control");
        let few =
            rows.iter().filter(|row| row.reason.contains("85 are needed")).map(|row| row.read_key.as_str());
        assert_eq!(few.collect::<Vec<_>>(), ["1..3"], "32 first tokens are few");
    }

    #[test]
    fn what_is_too_rare_in_one_read_adds_up() {
        let check = |cheat: fn(Read) -> Read, expected: &[&str]| {
            let rows = judged(&[&baseline(), &candidate().map(cheat)]);
            let failed = with(&rows, CheckOutcome::Fail);
            let together: Vec<&str> = failed.iter().map(|(_, check)| *check).collect();
            assert_eq!(together, expected);
            assert!(failed.iter().all(|(read, _)| *read == "1..3"), "{failed:?}");
        };
        // Two of 16 answers that end after one token, of their own accord or so they say.
        check(|read| read.with_cut(3, "stop").with_cut(9, "stop"), &["end-margin"]);
        // One so and one as if by the limit: however it is done, it is counted together.
        check(|read| read.with_cut(3, "stop").with_cut(9, "length"), &["finish", "end-margin"]);
        // Two of 16 first tokens.
        let is_wrong = |row: &TokenRow| row.position == 0 && row.prompt_index % 100_000 % 8 == 1;
        let wrong = judged(&[&baseline(), &candidate().map(|read| read.with_wrong(is_wrong))]);
        let failed = with(&wrong, CheckOutcome::Fail);
        assert!(failed.contains(&("1..3", "first-hard-margin")), "{failed:?}");
        assert!(!failed.contains(&("1", "first-hard-margin")), "{failed:?}");
    }

    #[test]
    fn a_cheat_in_one_read_does_not_drown_in_the_others() {
        let [one, other] = candidate();
        let cheat = (0..8).fold(one, |read, number| read.with_cut(number, "length"));
        let failed = judged(&[&baseline(), &[cheat, other]]);
        let failed = with(&failed, CheckOutcome::Fail);
        assert!(failed.contains(&("1", "finish")) && failed.contains(&("1..3", "finish")), "{failed:?}");
    }

    #[test]
    fn an_answer_may_end_at_the_limit_that_was_asked_for_and_before_it_nowhere() {
        let at = |tokens: u32, asked: Option<u32>| {
            let [mut one, other] = candidate();
            for row in one.requests.iter_mut().take(3) {
                row.finish_reason = Some("length".to_owned());
                (row.tokens, row.logprob_tokens, row.max_tokens) = (tokens, tokens, asked);
            }
            one.tokens.retain(|row| row.prompt_index > 2 || !row.is_end);
            let failed = judged(&[&baseline(), &[one, other]]);
            with(&failed, CheckOutcome::Fail).contains(&("1", "finish"))
        };
        assert!(!at(LENGTH, Some(LENGTH)));
        assert!(!at(LENGTH - 1, Some(LENGTH)), "a character that the cut has split");
        assert!(at(LENGTH, Some(MAX_TOKENS)));
        assert!(at(1, Some(MAX_TOKENS)));
        assert!(!at(1, None), "in a round that does not say, the policy does");
    }

    #[test]
    fn a_control_that_is_off_voids_everybody_and_excuses_nobody() {
        let is_wrong = |row: &TokenRow| row.position % 3 == 1;
        let check = |baseline: [Read; 3], off: &str| {
            let cheat = candidate().map(|read| read.with_wrong(is_wrong));
            for own in [candidate(), cheat] {
                let rows = judged(&[&baseline, &own]);
                assert!(rows.iter().any(|row| row.hotkey.is_none() && row.outcome == CheckOutcome::Fail));
                let own: Vec<&VerdictRow> = rows.iter().filter(|row| row.hotkey.is_some()).collect();
                assert_eq!(own.len(), 3 * Check::ALL.len());
                for row in own {
                    assert_eq!(row.outcome, CheckOutcome::Void);
                    assert!(
                        row.reason.starts_with("the baseline is off") && row.reason.contains(off),
                        "{}",
                        row.reason
                    );
                }
            }
        };
        let [first, second, third] = baseline();
        check([first.clone(), second.clone().with_wrong(is_wrong), third.clone()], "hard-margin");
        // All alike: only the scorer can tell.
        check(baseline().map(|read| read.with_wrong(is_wrong)), "read `0..4`, hard-margin");
        check(
            [first, second, third].map(|read| (0..5).fold(read, |read, n| read.with_cut(n, "length"))),
            "read `0..4`, finish",
        );
    }
}
