//! The least time that an answer can take on a machine: who is faster did not run the model.
//!
//! A pass of the model reads all its weights, and each token costs the operations of the layers; neither goes faster than
//! the machine's memory and arithmetic. [`Facts`] are those of a machine, [`Floor`] is what follows from them, [`Floors`]
//! what a round's reads say of it. Every choice errs downwards (`docs/floor.md` has the derivation and the measurements): a
//! floor above what an honest server can reach would be worse than none.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::{Fault, ReadRow, ReadStatus, RequestStatus, RequestTimes};

/// Reason code of a submission one of whose answers came faster than its machine can compute it.
pub const IMPOSSIBLE_TIME: &str = "impossible-time";

/// Reason code of a submission measured on a machine where the baseline itself is faster than the floor.
pub const FLOOR_WRONG: &str = "floor-wrong";

/// Share by which two clocks may run differently: the kernel lets no correction of its clock exceed 500 ppm
/// (`adjtimex(2)`), and the machine's own clocks have their tolerance.
const CLOCK_SHARE: f64 = 0.001;

/// What an instant may be off by, nanoseconds: the clock counts nanoseconds, and is read a few of them late.
const CLOCK_NS: f64 = 1_000.0;

/// The facts of a machine and a model that the floor follows from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Facts {
    /// Parameters that a pass reads: all but the table of embeddings, of which it reads one row a token.
    pub parameters: f64,
    /// Bytes per parameter of the cheapest format allowed.
    pub bytes_per_parameter: f64,
    /// Number of GPUs that the model is spread over.
    pub gpus: u32,
    /// What one GPU can keep on the chip between passes, bytes.
    pub gpu_cache_bytes: f64,
    /// What one GPU reads from its memory, bytes per second.
    pub gpu_bytes_per_s: f64,
    /// What one GPU computes, operations per second of the cheapest format allowed; a multiplication and an addition are two.
    pub gpu_operations_per_s: f64,
    /// Operations that each token of prompt and answer costs: twice the parameters of the layers' matrices, without the last
    /// layer's.
    pub operations_per_token: f64,
    /// The longest draft that the rules allow, tokens; 0 where they allow no speculation.
    pub longest_draft: u32,
}

impl Facts {
    /// The floor on this machine.
    pub fn floor(&self) -> Floor {
        let gpus = f64::from(self.gpus.max(1));
        let bytes = self.parameters * self.bytes_per_parameter - gpus * self.gpu_cache_bytes;
        Floor {
            pass_ns: (bytes / (gpus * self.gpu_bytes_per_s) * 1e9).max(0.0),
            token_ns: (self.operations_per_token / (gpus * self.gpu_operations_per_s) * 1e9).max(0.0),
            step_tokens: self.longest_draft.saturating_add(1),
        }
    }
}

/// The least times on one machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Floor {
    /// Of one forward pass, nanoseconds.
    pub pass_ns: f64,
    /// Of the arithmetic of one token, nanoseconds.
    pub token_ns: f64,
    /// Most tokens that one pass may yield, at least 1.
    pub step_tokens: u32,
}

/// The tokens of one answer and of its prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerSize {
    /// Tokens of the answer.
    pub tokens: u32,
    /// Tokens of the prompt that no other prompt begins with, at least 1.
    pub new_prompt_tokens: u32,
}

impl Floor {
    /// The floor that a read's row keeps; none where it keeps none, or one that no machine has.
    pub fn of_row(row: &ReadRow) -> Option<Self> {
        let is_time = |time: &f64| time.is_finite() && *time >= 0.0;
        Some(Self {
            pass_ns: row.floor_pass_ns.filter(is_time)?,
            token_ns: row.floor_token_ns.filter(is_time)?,
            step_tokens: row.floor_step_tokens?.max(1),
        })
    }

    /// What neither of two floors exceeds.
    fn lower(self, other: Self) -> Self {
        Self {
            pass_ns: self.pass_ns.min(other.pass_ns),
            token_ns: self.token_ns.min(other.token_ns),
            step_tokens: self.step_tokens.max(other.step_tokens),
        }
    }

    /// To the first token, nanoseconds: a pass, and the arithmetic of the prompt's new tokens.
    pub fn first_token_ns(&self, size: AnswerSize) -> f64 {
        self.pass_ns.max(self.token_ns * f64::from(size.new_prompt_tokens.max(1)))
    }

    /// Of a whole answer, nanoseconds: the first token, then a pass for each `step_tokens`; and no less than the arithmetic of
    /// all tokens, which no speculation evades.
    pub fn answer_ns(&self, size: AnswerSize) -> f64 {
        let later = size.tokens.saturating_sub(1);
        let passes = later.div_ceil(self.step_tokens.max(1));
        let arithmetic = self.token_ns * (f64::from(size.new_prompt_tokens.max(1)) + f64::from(later));
        (self.first_token_ns(size) + f64::from(passes) * self.pass_ns).max(arithmetic)
    }

    /// Of all answers of a read together, nanoseconds: the arithmetic of their tokens, which no batch evades.
    pub fn read_ns(&self, answers: impl IntoIterator<Item = AnswerSize>) -> f64 {
        let tokens = |size: AnswerSize| {
            f64::from(size.new_prompt_tokens.max(1)) + f64::from(size.tokens.saturating_sub(1))
        };
        self.token_ns * answers.into_iter().map(tokens).sum::<f64>()
    }
}

/// A time below the floor.
#[derive(Debug, Clone, PartialEq)]
struct Below {
    read_key: String,
    /// What took the time, in words.
    what: String,
    took_ns: f64,
    floor_ns: f64,
    /// How many times of the read are below the floor.
    times: usize,
}

impl Below {
    fn share(&self) -> f64 {
        self.took_ns / self.floor_ns
    }

    /// The evidence in one sentence.
    fn words(&self) -> String {
        let Self { read_key, what, took_ns, floor_ns, times } = self;
        let (took, floor) = (took_ns / 1e6, floor_ns / 1e6);
        let more = match times {
            0 | 1 => String::new(),
            times => format!("; {times} times of this read are below theirs"),
        };
        format!("{what} of read `{read_key}` took {took:.3} ms, and its floor is {floor:.3} ms{more}")
    }
}

/// What the floor says of a round's reads.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Floors {
    /// By hotkey: the worst time below the floor.
    impossible: BTreeMap<String, Below>,
    /// By hotkey: the baseline's time below the floor of a machine that the submission was measured on.
    wrong: BTreeMap<String, Below>,
}

impl Floors {
    /// What the floor says where no runner states one.
    pub const NONE: &'static Self = &Self { impossible: BTreeMap::new(), wrong: BTreeMap::new() };

    /// Holds every measured read against the floor of its runner; `share` of it counts, 0 to 1.
    ///
    /// Reads of one runner may have measured its speed several times, and something may have slowed one measurement down: the
    /// lowest floor of them counts.
    pub fn of<'a>(share: f64, reads: &'a [ReadRow], requests: impl Fn(&str) -> &'a [RequestTimes]) -> Self {
        let mut floors: BTreeMap<&str, Floor> = BTreeMap::new();
        for read in reads {
            let Some(floor) = Floor::of_row(read) else { continue };
            floors.entry(&read.runner).and_modify(|known| *known = known.lower(floor)).or_insert(floor);
        }
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 1.0 };
        let (mut found, mut wrong_runners) = (Self::default(), BTreeMap::new());
        let measured = reads.iter().filter(|read| read.status == ReadStatus::Measured);
        for read in measured {
            let Some(floor) = floors.get(read.runner.as_str()) else { continue };
            let Some(below) = below(floor, share, (read, requests(&read.read_key))) else { continue };
            match &read.hotkey {
                Some(hotkey) => keep_worst(&mut found.impossible, hotkey, below),
                None => keep_worst(&mut wrong_runners, &read.runner, below),
            }
        }
        for read in reads {
            let (Some(hotkey), Some(below)) = (&read.hotkey, wrong_runners.get(&read.runner)) else {
                continue;
            };
            keep_worst(&mut found.wrong, hotkey, below.clone());
        }
        found
    }

    /// Why a submission is held by the floor: reason code, fault and evidence; none where it is not.
    ///
    /// A baseline below the floor says that the facts of the runner are wrong, so that nobody's time is impossible by them.
    pub fn holds(&self, hotkey: &str) -> Option<(&'static str, Fault, String)> {
        if let Some(below) = self.wrong.get(hotkey) {
            let detail = format!(
                "the runner's floor is wrong: the baseline itself is below it, {}; nothing measured there is decided",
                below.words()
            );
            return Some((FLOOR_WRONG, Fault::Operator, detail));
        }
        let below = self.impossible.get(hotkey)?;
        let detail = format!("faster than its machine can run the model: {}", below.words());
        Some((IMPOSSIBLE_TIME, Fault::Unknown, detail))
    }
}

#[cfg(test)]
impl Floors {
    /// As if these were below the floor, and those on a machine whose floor is wrong.
    pub(super) fn of_cases(impossible: &[&str], wrong: &[&str]) -> Self {
        let below = |what: &str| Below {
            read_key: "0".to_owned(),
            what: what.to_owned(),
            took_ns: 1e3,
            floor_ns: 1e6,
            times: 1,
        };
        let of = |hotkeys: &[&str]| hotkeys.iter().map(|key| ((*key).to_owned(), below("it"))).collect();
        Self { impossible: of(impossible), wrong: of(wrong) }
    }
}

fn keep_worst(worst: &mut BTreeMap<String, Below>, key: &str, below: Below) {
    match worst.get(key) {
        Some(known) if known.share() <= below.share() => {}
        _ => {
            worst.insert(key.to_owned(), below);
        }
    }
}

/// The time of a read that is furthest below the floor; none where none is.
fn below(floor: &Floor, share: f64, (read, requests): (&ReadRow, &[RequestTimes])) -> Option<Below> {
    let answered = || requests.iter().filter(|request| request.status == RequestStatus::Ok);
    let size = |request: &RequestTimes| AnswerSize {
        tokens: request.tokens,
        new_prompt_tokens: request.new_prompt_tokens.unwrap_or(1),
    };
    let mut found: Vec<(String, f64, f64)> = Vec::new();
    for request in answered() {
        let (size, prompt) = (size(request), request.prompt_index);
        let answer = request.e2e_ns.map(|took| {
            let what = format!("the answer of {} tokens to prompt {prompt}", size.tokens);
            (what, took, floor.answer_ns(size))
        });
        let first = request.ttft_ns.map(|took| {
            let what = format!("the first token of the answer to prompt {prompt}");
            (what, took, floor.first_token_ns(size))
        });
        found.extend(
            [answer, first].into_iter().flatten().map(|(what, took, floor)| (what, took as f64, floor)),
        );
    }
    let all = read.benchmark_ns.map(|took| {
        let what = format!("the {} answers together", answered().count());
        (what, took as f64, floor.read_ns(answered().map(size)))
    });
    found.extend(all);
    found.retain(|(_, took_ns, floor_ns)| is_below(*took_ns, share * floor_ns));
    let times = found.len();
    let worst = found.into_iter().min_by(|left, right| (left.1 / left.2).total_cmp(&(right.1 / right.2)));
    worst.map(|(what, took_ns, floor_ns)| Below {
        read_key: read.read_key.clone(),
        what,
        took_ns,
        floor_ns: share * floor_ns,
        times,
    })
}

/// Whether a time is below its floor by more than clocks may be off.
fn is_below(took_ns: f64, floor_ns: f64) -> bool {
    took_ns * (1.0 + CLOCK_SHARE) + CLOCK_NS < floor_ns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Arm;

    /// Qwen2.5-72B on four H200, without speculation: the worked example of `docs/floor.md`.
    fn worked(bytes_per_parameter: f64) -> Facts {
        Facts {
            parameters: 71.460e9,
            bytes_per_parameter,
            gpus: 4,
            gpu_cache_bytes: 0.132e9,
            gpu_bytes_per_s: 4.814e12,
            gpu_operations_per_s: 1.0705e15,
            operations_per_token: 138.7e9,
            longest_draft: 0,
        }
    }

    fn size(tokens: u32, new_prompt_tokens: u32) -> AnswerSize {
        AnswerSize { tokens, new_prompt_tokens }
    }

    /// Within the figure's last digit.
    fn check(found_ns: f64, expected_ms: f64, digit: f64) {
        let found = found_ns / 1e6;
        assert!((found - expected_ms).abs() <= digit / 2.0 + 1e-12, "{found} ms, want {expected_ms}");
    }

    #[test]
    fn the_worked_example_is_that_of_the_document() {
        for (bytes, pass) in [(2.0, 7.39), (1.32, 4.87), (1.0, 3.68), (0.5, 1.83)] {
            check(worked(bytes).floor().pass_ns, pass, 0.01);
        }
        let floor = worked(2.0).floor();
        check(floor.first_token_ns(size(1, 100)), 7.4, 0.1);
        check(floor.first_token_ns(size(1, 1000)), 32.4, 0.1);
        check(floor.first_token_ns(size(1, 8192)), 265.0, 1.0);
        for (draft, seconds) in [(0, 3.81), (3, 0.98), (7, 0.51)] {
            let floor = Facts { longest_draft: draft, ..worked(2.0) }.floor();
            check(floor.answer_ns(size(512, 1000)), seconds * 1e3, 10.0);
        }
        let eight_bits = Facts { gpu_operations_per_s: 2.141e15, ..worked(1.0) }.floor();
        check(eight_bits.first_token_ns(size(1, 8192)), 133.0, 1.0);
        let rate = 1e9 / floor.read_ns([size(2, 1)]) * 2.0;
        assert!((rate - 30_900.0).abs() < 50.0, "{rate} tokens per second");
    }

    #[test]
    fn a_measured_step_of_the_best_kernels_is_above_the_floor() {
        // `docs/floor.md`: 9.40 ms on the H200, with four GPUs, in bf16.
        assert!(worked(2.0).floor().pass_ns < 9.40e6);
    }

    fn read(key: &str, hotkey: Option<&str>, floor: Option<Floor>) -> ReadRow {
        ReadRow {
            read_key: key.into(),
            arm: if hotkey.is_some() { Arm::Candidate } else { Arm::Baseline },
            hotkey: hotkey.map(Into::into),
            runner: "h200x4".into(),
            status: ReadStatus::Measured,
            benchmark_ns: Some(i64::MAX),
            floor_pass_ns: floor.map(|floor| floor.pass_ns),
            floor_token_ns: floor.map(|floor| floor.token_ns),
            floor_step_tokens: floor.map(|floor| floor.step_tokens),
            ..ReadRow::default()
        }
    }

    /// An answer of 256 tokens to a prompt of 1,000 in this time, its first token after 50 ms or with the answer.
    fn answer(prompt_index: u32, ms: f64) -> RequestTimes {
        RequestTimes {
            prompt_index,
            ttft_ns: Some((ms.min(50.0) * 1e6) as i64),
            e2e_ns: Some((ms * 1e6) as i64),
            tokens: 256,
            new_prompt_tokens: Some(1000),
            status: RequestStatus::Ok,
            ..RequestTimes::default()
        }
    }

    type Answers<'a> = &'a [(&'a str, &'a [RequestTimes])];

    fn reason(share: f64, reads: &[ReadRow], answers: Answers<'_>) -> Option<(&'static str, Fault, String)> {
        let of = |key: &str| answers.iter().find(|(own, _)| *own == key).map_or(&[][..], |(_, rows)| *rows);
        Floors::of(share, reads, of).holds("m")
    }

    #[test]
    fn an_answer_below_the_floor_holds_and_an_honest_one_does_not() {
        let floor = Some(worked(2.0).floor());
        let reads = [read("0", None, floor), read("1", Some("m"), floor)];
        let honest = [answer(0, 2500.0), answer(1, 2400.0)];
        let check = |own: &[RequestTimes], expected: Option<&str>| {
            let found = reason(1.0, &reads, &[("0", &honest), ("1", own)]);
            assert_eq!(found.as_ref().map(|found| found.0), expected, "{found:?}");
            found.map(|found| found.2).unwrap_or_default()
        };
        check(&honest, None);
        // The floor of 256 tokens is 1,918.0 ms: one answer from a table among honest ones is enough.
        check(&[answer(0, 2500.0), answer(1, 1918.0)], None);
        check(&[answer(0, 2500.0), answer(1, 1900.0)], Some(IMPOSSIBLE_TIME));
        let words = check(&[answer(0, 2500.0), answer(1, 0.4)], Some(IMPOSSIBLE_TIME));
        assert!(words.contains("the answer of 256 tokens to prompt 1 of read `1` took 0.400 ms"), "{words}");
        assert!(words.contains("its floor is 1918.0"), "{words}");
        // A first token before the prompt can be read, however long the rest takes.
        let early = RequestTimes { ttft_ns: Some(20_000_000), ..answer(0, 2500.0) };
        assert!(check(&[early], Some(IMPOSSIBLE_TIME)).contains("first token"));
        // What failed is not answered, and no evidence.
        check(&[RequestTimes { status: RequestStatus::Timeout, ..answer(0, 0.4) }], None);
        // The operator may allow for less than the floor, and switch it off.
        let table = [answer(0, 100.0)];
        for (share, expected) in [(1.0, true), (0.5, true), (0.02, false), (0.0, false)] {
            let found = reason(share, &reads, &[("0", &honest), ("1", &table)]);
            assert_eq!(found.is_some(), expected, "{share}");
        }
    }

    #[test]
    fn speculation_is_allowed_for_as_far_as_is_stated() {
        let own = [answer(0, 700.0)];
        let check = |longest_draft, expected: Option<&str>| {
            let floor = Some(Facts { longest_draft, ..worked(2.0) }.floor());
            let found = reason(1.0, &[read("1", Some("m"), floor)], &[("1", &own)]);
            assert_eq!(found.map(|found| found.0), expected, "{longest_draft}");
        };
        check(0, Some(IMPOSSIBLE_TIME));
        check(1, Some(IMPOSSIBLE_TIME));
        check(2, None);
        check(4, None);
    }

    #[test]
    fn many_answers_at_once_do_not_beat_the_arithmetic() {
        let floor = Some(worked(2.0).floor());
        let own: Vec<RequestTimes> = (0..100).map(|prompt| answer(prompt, 2500.0)).collect();
        let together = |ms: f64| {
            let read = ReadRow { benchmark_ns: Some((ms * 1e6) as i64), ..read("1", Some("m"), floor) };
            reason(1.0, &[read], &[("1", &own)]).map(|found| found.2)
        };
        // 100 x (1,000 + 255) tokens x 32.4 us are 4,065 ms.
        assert_eq!(together(4100.0), None);
        assert!(together(4000.0).expect("below").contains("the 100 answers together"));
    }

    #[test]
    fn a_baseline_below_the_floor_is_the_operators_mistake_and_nobody_elses() {
        let floor = Some(worked(2.0).floor());
        let mut reads =
            vec![read("0", None, floor), read("1", Some("m"), floor), read("2", Some("n"), floor)];
        reads[2].runner = "other".into();
        let (fast, honest) = ([answer(0, 1000.0)], [answer(0, 2500.0)]);
        let floors = |own: &'static str| {
            let of = |key: &str| if own.contains(key) { &fast[..] } else { &honest[..] };
            Floors::of(1.0, &reads, of)
        };
        let (code, fault, words) = floors("0,1").holds("m").expect("held");
        assert_eq!((code, fault), (FLOOR_WRONG, Fault::Operator));
        assert!(words.contains("the baseline itself is below it"), "{words}");
        // Another machine's facts are not touched by it.
        assert_eq!(floors("0,1").holds("n"), None);
        assert_eq!(floors("0,2").holds("n").map(|found| found.0), Some(IMPOSSIBLE_TIME));
        assert_eq!(floors("").holds("m"), None);
    }

    #[test]
    fn the_lowest_floor_of_a_runner_counts_and_a_read_without_one_is_judged_by_it() {
        let (high, low) = (worked(2.0).floor(), worked(0.5).floor());
        let own = [answer(0, 1000.0)];
        let check = |floors: [Option<Floor>; 2], expected: bool| {
            let reads = [read("0", Some("o"), floors[0]), read("1", Some("m"), floors[1])];
            assert_eq!(reason(1.0, &reads, &[("1", &own)]).is_some(), expected, "{floors:?}");
        };
        check([Some(high), Some(high)], true);
        check([Some(high), None], true);
        check([Some(low), Some(high)], false);
        check([None, None], false);
        let no_machine = Floor { pass_ns: f64::INFINITY, ..high };
        check([None, Some(no_machine)], false);
    }

    fn facts() -> impl Strategy<Value = Facts> {
        let model = (1e6_f64..1e13, 0.1_f64..4.0, 1e6_f64..1e13);
        let machine = (1_u32..16, 0.0_f64..1e9, 1e9_f64..1e14, 1e9_f64..1e17);
        (model, machine, 0_u32..64).prop_map(|(model, machine, longest_draft)| Facts {
            parameters: model.0,
            bytes_per_parameter: model.1,
            operations_per_token: model.2,
            gpus: machine.0,
            gpu_cache_bytes: machine.1,
            gpu_bytes_per_s: machine.2,
            gpu_operations_per_s: machine.3,
            longest_draft,
        })
    }

    proptest! {
        #[test]
        fn more_work_takes_no_less_and_more_speculation_no_more(
            facts in facts(), tokens in 0_u32..5000, prompt in 0_u32..20_000, more in 0_u32..1000,
        ) {
            let floor = facts.floor();
            let least = floor.answer_ns(size(tokens, prompt));
            prop_assert!(least.is_finite() && least >= 0.0);
            prop_assert!(floor.answer_ns(size(tokens + more, prompt)) >= least);
            prop_assert!(floor.answer_ns(size(tokens, prompt + more)) >= least);
            prop_assert!(floor.first_token_ns(size(tokens, prompt)) <= least);
            let longer = Facts { longest_draft: facts.longest_draft + more, ..facts.clone() }.floor();
            prop_assert!(longer.answer_ns(size(tokens, prompt)) <= least);
            let faster = Facts {
                gpu_bytes_per_s: facts.gpu_bytes_per_s * f64::from(more + 1),
                gpu_operations_per_s: facts.gpu_operations_per_s * f64::from(more + 1),
                ..facts
            };
            prop_assert!(faster.floor().answer_ns(size(tokens, prompt)) <= least);
        }

        /// An honest server at the very limits of its machine: it reads the weights pass by pass, computes every token, and
        /// each of its drafts is right.
        #[test]
        fn no_honest_server_is_below_the_floor(
            facts in facts(), tokens in 1_u32..300, prompt in 1_u32..5000, drafts in 0_u32..64,
        ) {
            let gpus = f64::from(facts.gpus);
            let bytes = (facts.parameters * facts.bytes_per_parameter - gpus * facts.gpu_cache_bytes).max(0.0);
            let read = bytes / gpus / facts.gpu_bytes_per_s;
            let compute = |tokens: u32| {
                facts.operations_per_token * f64::from(tokens) / gpus / facts.gpu_operations_per_s
            };
            let mut seconds = read.max(compute(prompt));
            let mut told = 1;
            while told < tokens {
                let step = (drafts.min(facts.longest_draft) + 1).min(tokens - told);
                seconds += read.max(compute(step));
                told += step;
            }
            let took = (seconds * 1e9).ceil();
            prop_assert!(!is_below(took, facts.floor().answer_ns(size(tokens, prompt))), "{took}");
        }
    }
}
