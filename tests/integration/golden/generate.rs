//! Draws the inputs of the golden rounds. It was run once; what counts is what it wrote.

use std::collections::BTreeMap;

use cacheon::judge::{Policies, questions};
use cacheon::model::{Arm, ExchangeEnd, Fault, ReadRow, ReadSpec, ReadStatus};
use serde_json::{Value, json};

use super::{Case, ScoredAnswer, Setup, Stream, tokenizer};

const PROMPTS: u32 = 6;
/// The baseline's time to first token, milliseconds.
const TTFT: f64 = 80.0;
/// The baseline's time per further token, milliseconds.
const TPOT: f64 = 20.0;
const ANSWERS: [&str; PROMPTS as usize] = [
    "It is the red one.",
    "There are two.",
    "He has a small dog.",
    "It is in the box.",
    "No, it is not.",
    "She is old.",
];

/// What a server does other than to answer well.
#[derive(Clone, Copy, PartialEq)]
enum Conduct {
    Honest,
    /// It runs other weights: the claimed log probabilities are a little off.
    Squeezed,
    /// It serves another model, with that model's log probabilities.
    Impostor,
    /// It sends no log probabilities.
    Unclaimed,
    /// It sends all log probabilities in the last event.
    Late,
    /// It sends the first character at once, and the rest when it is there.
    Teasing,
    /// It ends its answers early.
    Short,
    /// It counts twice the tokens in `usage`.
    Padded,
    /// It breaks half of the streams off.
    Breaking,
    /// It is not measured, by this fault.
    Absent(Fault),
}

/// A read to be made: whose it is, how fast, and how it behaves.
#[derive(Clone, Copy)]
struct Launch {
    miner: Option<usize>,
    speed: f64,
    conduct: Conduct,
}

/// The generator SplitMix64 (Steele, Lea & Flood, OOPSLA 2014).
struct Dice(u64);

impl Dice {
    /// Draws a uniform number between -1 and 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

fn hotkey(miner: usize) -> String {
    let letters = ["A", "B", "C", "D", "E"];
    format!("5{}", letters[miner].repeat(47))
}

fn digest(miner: usize) -> String {
    format!("sha256:{}", (miner + 1).to_string().repeat(64))
}

fn commitment(miner: usize, block: i64) -> Value {
    json!({"hotkey": hotkey(miner), "uid": miner, "block": block, "image": format!("miner/image-{miner}"), "digest": digest(miner)})
}

const fn baseline(speed: f64) -> Launch {
    Launch { miner: None, speed, conduct: Conduct::Honest }
}

const fn candidate(miner: usize, speed: f64, conduct: Conduct) -> Launch {
    Launch { miner: Some(miner), speed, conduct }
}

/// The launches with the baseline around each candidate: `B C1 B C2 B ..`.
fn bracketed(candidates: &[Launch]) -> Vec<Launch> {
    let mut launches = vec![baseline(1.0)];
    for candidate in candidates {
        launches.extend([*candidate, baseline(1.0)]);
    }
    launches
}

pub(super) fn cases() -> BTreeMap<&'static str, Case> {
    use Conduct::{Absent, Breaking, Honest, Impostor, Late, Padded, Short, Squeezed, Teasing, Unclaimed};
    let in_order: Vec<Value> =
        (0..5).map(|miner| commitment(miner, 100 + i64::try_from(miner).expect("few"))).collect();
    let of = |miners: usize| in_order[..miners].to_vec();
    BTreeMap::from([
        (
            "winner",
            case(
                "Three honest servers: one half as fast again as the baseline, one a fifth, one the same. The first takes all.",
                of(3),
                &bracketed(&[
                    candidate(0, 1.2, Honest),
                    candidate(1, 1.5, Honest),
                    candidate(2, 1.0, Honest),
                ]),
                0.002,
            ),
        ),
        (
            "tie",
            case(
                "Two servers of exactly the same speed: the earlier commitment goes first, whatever the hotkeys.",
                vec![commitment(0, 107), commitment(1, 103)],
                &bracketed(&[candidate(0, 1.3, Honest), candidate(1, 1.3, Honest)]),
                0.0,
            ),
        ),
        (
            "copy",
            case(
                "A faster server, a later copy of its digest, an older commitment of its own, and what is no commitment.",
                vec![
                    json!({"hotkey": hotkey(0), "block": 90, "image": "miner/first-try", "digest": digest(3)}),
                    commitment(0, 100),
                    json!({"hotkey": hotkey(1), "block": 101, "image": "miner/image-0:copy", "digest": digest(0)}),
                    json!({"hotkey": hotkey(2), "block": 102, "image": "miner/odd", "digest": "sha256:12"}),
                    json!("junk"),
                ],
                &bracketed(&[candidate(0, 1.3, Honest)]),
                0.002,
            ),
        ),
        (
            "cheats-weights",
            case(
                "Servers that do not run the model: one with coarser weights, one with another model, one that will not name log probabilities.",
                of(3),
                &bracketed(&[
                    candidate(0, 1.6, Squeezed),
                    candidate(1, 4.0, Impostor),
                    candidate(2, 1.4, Unclaimed),
                ]),
                0.002,
            ),
        ),
        (
            "cheats-answers",
            case(
                "Servers that run the model and cheat around it: answers cut short, twice the tokens in `usage`, streams that break off.",
                of(3),
                &bracketed(&[
                    candidate(0, 1.5, Short),
                    candidate(1, 1.3, Padded),
                    candidate(2, 2.0, Breaking),
                ]),
                0.002,
            ),
        ),
        (
            "cheats-times",
            case(
                "Servers no faster than the baseline that want to look so: one sends all log probabilities in the last event, one the first character at once.",
                of(2),
                &bracketed(&[candidate(0, 1.0, Late), candidate(1, 1.0, Teasing)]),
                0.002,
            ),
        ),
        (
            "cheats-floor",
            with_floor(
                4.0,
                case(
                    "A machine whose floor is known: one answers from a table and is held, one drafts as far as is allowed and wins, one is a little faster than the baseline.",
                    of(3),
                    &bracketed(&[
                        candidate(0, 100.0, Honest),
                        candidate(1, 3.9, Honest),
                        candidate(2, 1.2, Honest),
                    ]),
                    0.002,
                ),
            ),
        ),
        (
            "floor-wrong",
            with_floor(
                60.0,
                case(
                    "A machine whose floor is stated too high: the baseline itself is below it, and nobody is blamed or paid.",
                    of(2),
                    &bracketed(&[candidate(0, 1.5, Honest), candidate(1, 1.0, Honest)]),
                    0.002,
                ),
            ),
        ),
        (
            "faults",
            case(
                "Whose fault: a failed machine and an unexplained end hold their submissions, a server that died pays itself; a lost baseline read costs its neighbour nothing.",
                of(4),
                &[
                    baseline(1.0),
                    candidate(0, 1.0, Absent(Fault::Infra)),
                    baseline(1.0),
                    candidate(1, 1.0, Absent(Fault::Submission)),
                    Launch { conduct: Absent(Fault::Infra), ..baseline(1.0) },
                    candidate(2, 1.4, Honest),
                    baseline(1.0),
                    candidate(3, 1.0, Absent(Fault::Unknown)),
                    baseline(1.0),
                ],
                0.002,
            ),
        ),
        (
            "noisy",
            case(
                "A machine that is not steady: a gain within its noise is held, a server slower than any baseline read fails all the same.",
                of(2),
                &[
                    baseline(1.0),
                    candidate(0, 1.15, Honest),
                    baseline(0.82),
                    candidate(1, 0.5, Honest),
                    baseline(1.1),
                ],
                0.01,
            ),
        ),
    ])
}

fn case(about: &str, commitments: Vec<Value>, launches: &[Launch], jitter: f64) -> Case {
    let policies: Policies = serde_json::from_value(
        json!({"score": {"min-prompts": PROMPTS, "margin": 0.02}, "weights": {"netuid": 14}}),
    )
    .expect("policies");
    let mut dice = Dice(about.len() as u64);
    let (mut reads, mut streams) = (Vec::new(), Vec::new());
    for (position, launch) in (0..).zip(launches) {
        let read = read(position, launch);
        if read.status == ReadStatus::Measured {
            let speed = launch.speed * (1.0 + jitter * dice.next());
            streams.extend((0..PROMPTS).map(|prompt| {
                stream(&read.read_key, prompt, launch.conduct, speed * (1.0 + jitter * dice.next()))
            }));
        }
        reads.push(read);
    }
    let round_id = "golden".parse().expect("an id");
    let round = Setup { about: about.to_owned(), round_id, policies, commitments };
    let mut case = Case { round, reads, streams, scores: Vec::new() };
    case.scores = scores(&case);
    case
}

/// The case on a machine on which a pass takes so many milliseconds and yields at most three tokens.
fn with_floor(pass_ms: f64, mut case: Case) -> Case {
    for read in &mut case.reads {
        read.floor_pass_ns = Some(pass_ms * 1e6);
        read.floor_token_ns = Some(20_000.0);
        read.floor_step_tokens = Some(3);
    }
    case
}

fn read(position: u32, launch: &Launch) -> ReadRow {
    let owner = launch.miner.map(hotkey);
    let reason = |fault: Fault| match fault {
        Fault::Infra => {
            ("client-lag", "the client was 171 ms late (99th percentile), at most 100 ms is a measurement")
        }
        Fault::Submission => {
            ("server-exited-before-ready", "the server ended with exit code 1 before `/health` answered 200")
        }
        _ => ("server-lost", "the server is gone, and nobody saw it exit"),
    };
    let fault = if let Conduct::Absent(fault) = launch.conduct { Some(fault) } else { None };
    let words = fault.map(reason);
    let is_measured = fault.is_none();
    let image = launch.miner.map_or("baseline/vllm".to_owned(), |miner| format!("miner/image-{miner}"));
    let image_digest = launch.miner.map_or(format!("sha256:{}", "0".repeat(64)), digest);
    let spec = ReadSpec {
        key: format!("{position:04}-{}", owner.as_deref().map_or("baseline", |hotkey| &hotkey[..8])),
        arm: if owner.is_some() { Arm::Candidate } else { Arm::Baseline },
        hotkey: owner.map(|hotkey| hotkey.parse().expect("a hotkey")),
        image: image.parse().expect("an image"),
        digest: image_digest.parse().expect("a digest"),
        position,
        sequence: "0".to_owned(),
        brackets: vec![0],
        repeats: None,
    };
    ReadRow {
        attempt: 1,
        runner: "machine-1".to_owned(),
        boot_id: is_measured.then(|| format!("boot-{position}")),
        boot_ns: is_measured.then_some(30_000_000_000),
        warm_up_ns: is_measured.then_some(2_000_000_000),
        benchmark_ns: is_measured.then_some(6_000_000_000),
        started_at_us: 1_767_225_600_000_000 + i64::from(position) * 60_000_000,
        status: if is_measured { ReadStatus::Measured } else { ReadStatus::Failed },
        fault,
        reason: words.map(|(code, _)| code.to_owned()),
        detail: words.map(|(_, words)| words.to_owned()),
        requests: if is_measured { PROMPTS } else { 0 },
        failed_requests: if launch.conduct == Conduct::Breaking { PROMPTS / 2 } else { 0 },
        client_lag_p50_ns: is_measured.then_some(40_000),
        client_lag_p99_ns: is_measured.then_some(900_000),
        client_cpu_ns: is_measured.then_some(50_000_000),
        ..ReadRow::planned(&"golden".parse().expect("a round id"), &spec)
    }
}

/// The model's log probability of its own answer's token.
fn logprob(prompt: u32, position: usize) -> f64 {
    -f64::from((prompt * 7 + position as u32 * 13) % 40 + 1) / 100.0
}

fn text(prompt: u32, conduct: Conduct) -> &'static str {
    let whole = ANSWERS[prompt as usize];
    match conduct {
        Conduct::Impostor => ANSWERS[(prompt as usize + 1) % ANSWERS.len()],
        Conduct::Short => &whole[..whole.rfind(' ').expect("words")],
        _ => whole,
    }
}

fn stream(read_key: &str, prompt_index: u32, conduct: Conduct, speed: f64) -> Stream {
    let text = text(prompt_index, conduct);
    let answer = tokenizer().segment(text).expect("segments");
    let at = |event: usize| {
        ((TTFT + f64::from(prompt_index) * 5.0 + TPOT * event as f64) / speed * 1e3) as i64 * 1000
    };
    let entry = |token: &str, position: usize| {
        let off = match conduct {
            Conduct::Squeezed => 0.02 * (f64::from(prompt_index) - 2.0),
            Conduct::Impostor => 0.05,
            _ => 0.0,
        };
        json!({"token": token, "logprob": logprob(prompt_index, position) + off})
    };
    let event = |delta: &str, entries: Vec<Value>, finish: Option<&str>| {
        let mut choice = json!({"index": 0, "delta": {"content": delta}});
        if conduct != Conduct::Unclaimed {
            choice["logprobs"] = json!({"content": entries});
        }
        if let Some(finish) = finish {
            choice["finish_reason"] = finish.into();
        }
        format!("data: {}\n\n", json!({"choices": [choice]}))
    };
    let mut pieces = Vec::new();
    let starts = std::iter::once(0).chain(answer.ends.iter().copied());
    let tokens: Vec<&str> = starts.zip(&answer.ends).map(|(start, end)| &text[start..*end]).collect();
    // Two tokens an event.
    let mut late = Vec::new();
    for (number, pair) in tokens.chunks(2).enumerate() {
        let mut entries =
            pair.iter().enumerate().map(|(index, token)| entry(token, number * 2 + index)).collect();
        if conduct == Conduct::Late {
            late.append(&mut entries);
        }
        pieces.push((at(number), event(&pair.concat(), entries, None)));
    }
    let end = at(pieces.len());
    if conduct == Conduct::Teasing {
        let first = tokens.iter().take(2).enumerate();
        let entries = first.map(|(index, token)| entry(token, index)).collect();
        pieces[0].1 = event(&tokens[..2].concat()[1..], entries, None);
        pieces.insert(0, (2_000_000, event(&text[..1], Vec::new(), None)));
    }
    if conduct == Conduct::Breaking && prompt_index % 2 == 1 {
        pieces.pop();
        return Stream {
            read_key: read_key.to_owned(),
            prompt_index,
            http_status: Some(200),
            ended: ExchangeEnd::Reset,
            end_ns: end,
            pieces,
        };
    }
    let usage = (tokens.len() + 1) * if conduct == Conduct::Padded { 2 } else { 1 };
    late.push(entry("<|im_end|>", tokens.len()));
    pieces.push((end, event("", late, Some("stop"))));
    let last = json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": usage}});
    pieces.push((end + 50_000, format!("data: {last}\n\ndata: [DONE]\n\n")));
    Stream {
        read_key: read_key.to_owned(),
        prompt_index,
        http_status: Some(200),
        ended: ExchangeEnd::Eof,
        end_ns: end + 60_000,
        pieces,
    }
}

/// What a scorer says of every answer that was given: the model's own tokens are its first choice, any other is none it would
/// have thought of.
fn scores(case: &Case) -> Vec<ScoredAnswer> {
    let tokenizer = tokenizer();
    let score = |(prompt_index, token_ids): (u32, Vec<u32>)| {
        let mut own = tokenizer.segment(ANSWERS[prompt_index as usize]).expect("segments").ids;
        own.push(tokenizer.end_id());
        let scores = (0..token_ids.len()).map(|position| {
            let top = logprob(prompt_index, position);
            let is_own = own.get(position) == token_ids.get(position);
            if is_own { (top, 1, top) } else { (-9.5, 812, top) }
        });
        ScoredAnswer { prompt_index, scores: scores.collect(), token_ids }
    };
    questions([case.records().1.as_slice()]).into_iter().map(score).collect()
}
