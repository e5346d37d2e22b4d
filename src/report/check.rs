//! `cacheon check`: what a validator would say of one submission, by the journal and the tables of its round.
//!
//! Nothing here is measured or judged anew: the steps and their times are the journal's, checks, speeds and standing the
//! rows that `verify-logprobs` and `rank` left. Only the last sentence and what to do about it are this file's own words.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use serde::Serialize;

use super::query_output::{JsonLayout, json};
use super::text::{duration, excerpt, number, plain};
use crate::artifact::{AttemptState, LegState, RoundState, StepEnding, StepState, layout};
use crate::model::{
    Arm, Check, CheckOutcome, Component, Conclusion, DecisionOutcome, DecisionRow, Fault, LeaderboardRow,
    Look, ReadSpec, Reason, Standing, VerdictRow,
};

/// The steps of a launch, and those after all launches, in the order of a round.
const LAUNCH_STEPS: [&str; 4] = ["pull", "boot", "warm-up", "benchmark"];
const LATER_STEPS: [&str; 2] = ["verify-logprobs", "rank"];
/// Most troubles of other servers that are told.
const MAX_TROUBLES: usize = 2;
/// What a line is wrapped at where there is no terminal, in columns.
const COLUMNS: u16 = 100;

/// What the report is made from. Rows are those of the one submission, and of the baseline where they have no hotkey.
#[derive(Debug, Clone)]
pub struct CheckInput<'a> {
    /// Id of the round.
    pub round_id: &'a str,
    /// Path of the round's directory.
    pub directory: &'a str,
    /// Path of the pipeline.
    pub pipeline: &'a str,
    /// The image as it was to be committed, without its digest.
    pub image: &'a str,
    /// Digest of the image.
    pub digest: &'a str,
    /// What the round's journal comes to.
    pub state: &'a RoundState,
    /// What became of the submission; none where the round did not come so far.
    pub standing: Option<&'a LeaderboardRow>,
    /// The findings on correctness.
    pub verdicts: &'a [VerdictRow],
    /// The decisions on speed.
    pub decisions: &'a [DecisionRow],
    /// Why the round is not done, where it is not.
    pub reason: Option<&'a Reason>,
    /// The end of the server's log, where a server was started.
    pub log: Option<ServerLog>,
}

/// The end of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerLog {
    /// Path of the file.
    pub path: String,
    /// Its last lines, as the server wrote them.
    pub last_lines: Vec<String>,
}

/// How a step went over all launches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepWord {
    /// It succeeded each time.
    Ok,
    /// The machine lost it at least once, which is nobody's fault; what is lost is measured again where it can be.
    Lost,
    /// It failed at least once, for another reason.
    Failed,
    /// It was never begun, because an earlier one failed.
    NotReached,
}

/// One step of the check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckStep {
    /// The stage that the step names by `uses:`.
    pub stage: &'static str,
    /// How it went.
    pub state: StepWord,
    /// How often it succeeded.
    pub succeeded: usize,
    /// How often it ended.
    pub times: usize,
    /// The longest that it took.
    pub longest_ns: Option<i64>,
}

/// What one correctness check found, over all launches together where that is known, or in the launch where it failed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckFinding {
    /// Which check this is.
    pub check: Check,
    /// How it ended.
    pub outcome: CheckOutcome,
    /// What was measured.
    pub value: Option<f64>,
    /// What was measured of the baseline's own answers.
    pub baseline: Option<f64>,
    /// What it is compared with: the most that passes, of `length` the least.
    pub threshold: Option<f64>,
    /// Number of tokens or requests that it rests on.
    pub samples: u32,
    /// What was found, in words.
    pub reason: String,
}

/// One component of the speed beside the baseline, as the baseline's time over the submission's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckSpeed {
    /// What is compared.
    pub component: Component,
    /// How many times as fast as the baseline it is.
    pub speedup: Option<f64>,
    /// Lower end of the interval.
    pub lower: Option<f64>,
    /// Upper end of the interval.
    pub upper: Option<f64>,
    /// What the lower end must exceed.
    pub bar: f64,
    /// What was decided.
    pub outcome: DecisionOutcome,
}

/// What a validator would say of a submission, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckReport {
    /// Id of the round.
    pub round_id: String,
    /// Path of the round's directory.
    pub directory: String,
    /// Path of the pipeline.
    pub pipeline: String,
    /// The image, without its digest.
    pub image: String,
    /// Digest of the image.
    pub digest: String,
    /// The steps in their order.
    pub steps: Vec<CheckStep>,
    /// The correctness checks, the most telling first.
    pub checks: Vec<CheckFinding>,
    /// The speeds; the score, which decides, comes last.
    pub speeds: Vec<CheckSpeed>,
    /// What became of it; none where the round came to no verdict.
    pub standing: Option<Standing>,
    /// Whose fault it is, where it is somebody's.
    pub fault: Option<Fault>,
    /// Code of the reason, as a validator would publish it.
    pub code: String,
    /// The reason in words, as a validator would publish it.
    pub message: String,
    /// What failed besides, of baseline, scorer or round.
    pub troubles: Vec<String>,
    /// The server's log.
    pub log: Option<ServerLog>,
    /// What to do.
    pub advice: String,
    /// What the validator would do, as one sentence.
    pub verdict: String,
}

impl CheckReport {
    /// The report on a round of one submission.
    pub fn of(input: &CheckInput<'_>) -> Self {
        let candidates = candidate_reads(input.state);
        let row = input.standing;
        let unfinished = || Reason::new(Fault::Unknown, "no-verdict", "the round ended without a verdict");
        let (fault, code, message) = if let Some(row) = row {
            (row.fault, row.reason.clone(), row.detail.clone())
        } else {
            let Reason { fault, code, message, .. } = input.reason.cloned().unwrap_or_else(unfinished);
            (Some(fault), code, message)
        };
        let standing = row.map(|row| row.standing);
        Self {
            round_id: input.round_id.to_owned(),
            directory: input.directory.to_owned(),
            pipeline: input.pipeline.to_owned(),
            image: input.image.to_owned(),
            digest: input.digest.to_owned(),
            steps: steps(input.state, &candidates),
            checks: checks(input.verdicts),
            speeds: speeds(input.decisions),
            standing,
            fault,
            troubles: troubles(input.state, &candidates),
            log: input.log.clone(),
            advice: advice(&code).to_owned(),
            verdict: verdict(standing, (fault, &code, &message)),
            code,
            message,
        }
    }
}

/// Path, in the round's directory, of the log that says most: of the first launch of the submission that failed, or of the
/// last one; none where none was started.
pub fn server_log(state: &RoundState) -> Option<String> {
    let candidates = candidate_reads(state);
    let mut started: Vec<(&str, &LegState, &AttemptState)> = Vec::new();
    for job in &state.jobs {
        for leg in job.legs.iter().filter(|leg| candidates.contains(&leg.key)) {
            let has_booted =
                |attempt: &&AttemptState| step(attempt, "boot").is_some_and(|step| step.started_at.is_some());
            started.extend(leg.attempts.iter().filter(has_booted).map(|at| (job.job.as_str(), leg, at)));
        }
    }
    let has_failed = |attempt: &AttemptState| {
        attempt.end.as_ref().is_some_and(|end| end.conclusion == Conclusion::Failure)
    };
    let failed = started.iter().find(|(_, _, attempt)| has_failed(attempt));
    let (job, leg, attempt) = failed.or_else(|| started.last())?;
    Some(format!("{}/server.log", layout::attempt_path(job, &leg.key, attempt.attempt)))
}

/// Keys of the reads of the submission, as they were planned.
fn candidate_reads(state: &RoundState) -> BTreeSet<String> {
    let attempts = state.legs().flat_map(|leg| &leg.attempts);
    let steps = attempts.flat_map(|attempt| attempt.steps.values());
    let planned = steps.filter(|step| step.step.kind.as_str().starts_with("plan-"));
    let reads = planned.filter_map(|step| step.end.as_ref()?.outputs.get("reads"));
    let reads =
        reads.flat_map(|reads| serde_json::from_value::<Vec<ReadSpec>>(reads.clone()).unwrap_or_default());
    reads.filter(|read| read.arm == Arm::Candidate).map(|read| read.key).collect()
}

fn step<'s>(attempt: &'s AttemptState, stage: &str) -> Option<&'s StepState> {
    attempt.steps.values().find(|step| step.step.kind.as_str() == stage)
}

fn steps(state: &RoundState, candidates: &BTreeSet<String>) -> Vec<CheckStep> {
    let launches: Vec<&AttemptState> =
        state.legs().filter(|leg| candidates.contains(&leg.key)).filter_map(LegState::last).collect();
    let later: Vec<&AttemptState> =
        state.legs().filter(|leg| !candidates.contains(&leg.key)).filter_map(LegState::last).collect();
    let own = LAUNCH_STEPS.iter().map(|stage| summed(&launches, stage));
    own.chain(LATER_STEPS.iter().map(|stage| summed(&later, stage))).collect()
}

fn summed(attempts: &[&AttemptState], stage: &'static str) -> CheckStep {
    let ends = attempts.iter().filter_map(|attempt| step(attempt, stage)?.end.as_ref());
    let ends: Vec<_> = ends.filter(|end| end.outcome != Conclusion::Skipped).collect();
    let succeeded = ends.iter().filter(|end| end.outcome == Conclusion::Success).count();
    let is_lost = |end: &&StepEnding| {
        let fault = end.reason.as_ref().map(|reason| reason.fault);
        end.outcome == Conclusion::Success || fault == Some(Fault::Infra)
    };
    let state = match ends.len() {
        0 => StepWord::NotReached,
        times if times == succeeded => StepWord::Ok,
        _ if ends.iter().all(is_lost) => StepWord::Lost,
        _ => StepWord::Failed,
    };
    let longest_ns = ends.iter().map(|end| end.duration_ns).max();
    CheckStep { stage, state, succeeded, times: ends.len(), longest_ns }
}

/// One finding for each check: what speaks most against the submission, else the one over all of its reads.
fn checks(verdicts: &[VerdictRow]) -> Vec<CheckFinding> {
    let severity = |outcome: CheckOutcome| match outcome {
        CheckOutcome::Pass => 0,
        CheckOutcome::Void => 1,
        CheckOutcome::Fail => 2,
    };
    let own = || verdicts.iter().filter(|row| row.hotkey.is_some());
    let worst = |check: &Check| {
        let rows = own().filter(|row| row.check == *check);
        rows.max_by_key(|row| (severity(row.outcome), row.read_key.contains(".."), row.samples))
    };
    let finding = |row: &VerdictRow| CheckFinding {
        check: row.check,
        outcome: row.outcome,
        value: row.value,
        baseline: row.control_value,
        threshold: row.threshold,
        samples: row.samples,
        reason: row.reason.clone(),
    };
    Check::ALL.iter().filter_map(worst).map(finding).collect()
}

/// By the last look that compared them.
fn speeds(decisions: &[DecisionRow]) -> Vec<CheckSpeed> {
    let of = |component: &Component| {
        let rows = decisions.iter().filter(|row| row.component == *component);
        rows.max_by_key(|row| row.look == Some(Look::Confirm))
    };
    let factor = |log: Option<f64>| log.map(f64::exp).filter(|factor| factor.is_finite());
    let speed = |row: &DecisionRow| CheckSpeed {
        component: row.component,
        speedup: factor(row.log_ratio),
        lower: factor(row.lower),
        upper: factor(row.upper),
        bar: row.bar.exp(),
        outcome: row.outcome,
    };
    Component::ALL.iter().filter_map(of).map(speed).collect()
}

/// What failed that is not the submission's own launch.
fn troubles(state: &RoundState, candidates: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    for job in &state.jobs {
        for leg in job.failed_legs().filter(|leg| !candidates.contains(&leg.key)) {
            let Some(reason) = leg.end().and_then(|end| end.reason.as_ref()) else { continue };
            let key = if leg.key.is_empty() { String::new() } else { format!("[{}]", leg.key) };
            found.push(excerpt(&format!("{}{key}: {reason}", job.job), 600));
        }
    }
    found.truncate(MAX_TROUBLES);
    found
}

fn verdict(standing: Option<Standing>, (fault, code, message): (Option<Fault>, &str, &str)) -> String {
    let does = match standing {
        Some(Standing::Scored) => {
            return format!("The validator would score it: {}.", excerpt(message, 600));
        }
        Some(Standing::NotFaster) => "find it correct, and pay it nothing",
        Some(Standing::Disqualified) => "disqualify it",
        Some(Standing::Failed) => "count it as failed",
        Some(Standing::Held) => "hold it, undecided and unpaid, if its machine was as this one",
        Some(Standing::Ignored) => "ignore it",
        None => "say nothing yet, for the check came to no verdict",
    };
    let fault = fault.map(|fault| format!(", {fault} fault")).unwrap_or_default();
    format!("The validator would {does} ({}{fault}).", excerpt(code, 80))
}

/// What the miner can do about a reason.
fn advice(code: &str) -> &'static str {
    match code {
        "faster" => {
            "commit this digest; how fast it is on the validator's machine, and beside others, is found there"
        }
        "not-faster" => {
            "make it faster, or its launches more alike: what counts is the lower end of the interval. The same server is \
             slower or faster elsewhere, so check it on a machine like the validator's"
        }
        "image-unavailable" => "push the image, and compare its name and digest with what the registry shows",
        "image-not-public" => "make the repository public: a validator has no account there",
        "digest-mismatch" => "commit the digest of what the registry has now, or push the image again",
        "image-invalid" | "image-too-large" => {
            "change the image as the message says; docs/containers.md has every rule for one"
        }
        "server-exited-before-ready" => {
            "read the log: the program ended by itself. It gets no network, no home, no variables of yours and the model's \
             folder by CACHEON_MODEL_DIR"
        }
        "not-ready-in-time" => {
            "listen at CACHEON_HOST and CACHEON_PORT, answer 200 on the health path, and one request to \
             /v1/chat/completions, before the deadline of the `boot` step is over"
        }
        "warm-up-failed" | "no-answer" => {
            "ask the server as the check does: a streamed /v1/chat/completions with `logprobs`, under the model's name of \
             CACHEON_MODEL_NAME"
        }
        "server-exited" => {
            "read the log: the server died while it was asked, and one that dies is not measured"
        }
        "void-twice" => {
            "let nothing that the image starts disturb the machine's clock or processors while it is measured"
        }
        "failed-answered" => {
            "see which requests failed, and how: the query below the tables in summary.md shows them"
        }
        "impossible-time" => {
            "stream tokens when they are computed: an answer faster than the model can be run is held"
        }
        "machine-differs" | "gpu-failed" | "gpu-slowed" => {
            "see what became of the machine by `nvidia-smi` and `cacheon doctor`, and check again"
        }
        "no-decision" | "read-missing" | "read-void" | "machine-not-idle" | "client-lag" => {
            "let the machine do nothing else, and check again; docs/miners.md says what else there is"
        }
        "check-void" | "not-verified" | "not-decided" | "baseline-failed" | "scorer" => {
            "see what failed beside it: baseline and scorer must be well before anything is known"
        }
        "registry-unavailable" => "check again: a registry that does not answer is nobody's fault",
        "no-room" | "container-engine" | "machine" | "machine-io" => "run `cacheon doctor`, and check again",
        "cancelled" => "check again, or take the round up by `cacheon resume`",
        _ if code.starts_with("failed-") => {
            "serve the model's own weights, greedily at temperature 0, and the log probabilities that it computed; \
             docs/checks.md says what each check compares"
        }
        _ => "see the log, and the round by `cacheon show`",
    }
}

/// The report for a terminal of so many columns.
pub fn check_text(report: &CheckReport, width: Option<u16>) -> String {
    let mut page = Page { text: String::new(), width: usize::from(width.unwrap_or(COLUMNS)) };
    page.line(format_args!("check of {}", excerpt(&report.image, 255)));
    page.line(format_args!("digest   {}", plain(&report.digest)));
    page.line(format_args!("by       {}", plain(&report.pipeline)));
    page.line(format_args!("round    {}", plain(&report.directory)));
    page.line(format_args!("\n{:<20}{:<12}{:>9}  {:>8}", "step", "state", "longest", "well"));
    for CheckStep { stage, state, succeeded, times, longest_ns } in &report.steps {
        let (longest, well) = (duration(*longest_ns), format!("{succeeded} of {times}"));
        page.line(format_args!("{stage:<20}{:<12}{longest:>9}  {well:>8}", state.to_string()));
    }
    checks_text(&mut page, &report.checks);
    speeds_text(&mut page, &report.speeds);
    if let Some(log) = &report.log {
        page.line(format_args!("\nlog  {}", plain(&log.path)));
        for line in log.last_lines.iter().filter(|_| report.standing != Some(Standing::Scored)) {
            page.line(format_args!("     | {}", excerpt(line, 200)));
        }
    }
    page.text.push('\n');
    if report.standing != Some(Standing::Scored) {
        page.wrapped("fault", report.fault.map_or("-", Fault::as_str));
        page.wrapped("code", &report.code);
        page.wrapped("message", &report.message);
    }
    for trouble in report.troubles.iter().filter(|_| report.has_open_end()) {
        page.wrapped("beside it", trouble);
    }
    page.wrapped("to do", &report.advice);
    page.text.push('\n');
    page.wrapped("", &report.verdict);
    page.text
}

/// The report as JSON: an object, indented.
pub fn check_json(report: &CheckReport) -> String {
    json(report, JsonLayout::Pretty)
}

fn checks_text(page: &mut Page, checks: &[CheckFinding]) {
    if checks.is_empty() {
        return;
    }
    page.line(format_args!(
        "\n{:<20}{:<5}{:>9}{:>10}{:>9}{:>7}",
        "check", "", "found", "baseline", "bar", "of"
    ));
    for finding in checks {
        let (found, baseline) = (number(finding.value), number(finding.baseline));
        let (bar, samples) = (number(finding.threshold), finding.samples);
        let (check, outcome) = (finding.check.as_str(), finding.outcome.as_str());
        page.line(format_args!("{check:<20}{outcome:<5}{found:>9}{baseline:>10}{bar:>9}{samples:>7}"));
    }
}

fn speeds_text(page: &mut Page, speeds: &[CheckSpeed]) {
    if speeds.is_empty() {
        return;
    }
    page.line(format_args!("\n{:<20}{:>9}  {:<17}{:<12}", "times as fast", "", "interval", "must exceed"));
    let factor = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
    for speed in speeds {
        let name = match speed.component {
            Component::Ttft => "to first token",
            Component::E2e => "end to end",
            Component::Mdt => "between tokens",
            Component::Score => "score",
        };
        let interval = match (speed.lower, speed.upper) {
            (None, None) => "-".to_owned(),
            (lower, upper) => format!("{} to {}", factor(lower), factor(upper)),
        };
        let (speedup, bar, outcome) = (factor(speed.speedup), speed.bar, speed.outcome.as_str());
        page.line(format_args!("{name:<20}{speedup:>9}  {interval:<17}{bar:<7.3}{outcome}"));
    }
}

impl CheckReport {
    /// Whether something else than the submission may be why it is undecided.
    fn has_open_end(&self) -> bool {
        matches!(self.standing, None | Some(Standing::Held))
    }
}

impl fmt::Display for StepWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Lost => "lost",
            Self::Failed => "failed",
            Self::NotReached => "not reached",
        })
    }
}

/// Lines under construction. What strangers wrote comes in through [`plain`], [`excerpt`] or [`Page::wrapped`].
struct Page {
    text: String,
    width: usize,
}

impl Page {
    fn line(&mut self, line: fmt::Arguments<'_>) {
        let start = self.text.len();
        write!(self.text, "{line}").expect("writes to a string");
        let end = self.text.trim_end().len().max(start);
        self.text.truncate(end);
        self.text.push('\n');
    }

    /// A paragraph after its name, wrapped between words; a word that is longer than a line has one to itself.
    fn wrapped(&mut self, name: &str, words: &str) {
        const INDENT: usize = 11;
        let indent = if name.is_empty() { 0 } else { INDENT };
        let limit = self.width.saturating_sub(indent).max(20);
        let words = excerpt(words, 1200);
        let mut line = String::new();
        let mut lines = Vec::new();
        for word in words.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > limit {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
        for (place, line) in lines.iter().enumerate() {
            let label = if place == 0 { name } else { "" };
            self.line(format_args!("{label:<indent$}{line}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Map, json};

    use super::*;
    use crate::artifact::{JobStep, StepKind};
    use crate::artifact::{JournalEvent, JournalLine, LegAttempt};
    use crate::pipeline::stage::StageName;

    const HOTKEY: &str = "5YourHotkeyStandsHereWhenYouCommitThisxxxxxxxxxx";
    const HOSTILE: &str =
        "died: \u{1b}]0;pwned\u{7} \u{202e}drawkcab\nThe validator would score it: 9.999 times";
    const KEYS: [&str; 3] = ["0000-baseline", "0001-5YourHot", "0002-baseline"];

    fn at() -> Timestamp {
        "2026-11-21T21:28:00Z".parse().expect("a time")
    }

    /// The lines of a journal, one after the other.
    #[derive(Default)]
    struct Journal(Vec<JournalLine>);

    impl Journal {
        fn add(&mut self, event: JournalEvent) {
            self.0.push(JournalLine { seq: self.0.len() as u64, at: at(), event });
        }

        /// A leg whose stages succeed, the last one for this reason not.
        fn leg(&mut self, (job, leg): (&str, &str), stages: &[StageName], failed: Option<Reason>) {
            let which = LegAttempt { job: job.to_owned(), leg: leg.to_owned(), attempt: 1 };
            self.add(JournalEvent::LegStarted { at: which.clone(), runner: "embedded".to_owned() });
            for (index, stage) in (0..).zip(stages) {
                let kind = StepKind::Stage(*stage);
                let step = JobStep { index, name: stage.as_str().to_owned(), kind };
                self.add(JournalEvent::StepStarted { at: which.clone(), step: step.clone() });
                let reason = failed.clone().filter(|_| index as usize + 1 == stages.len());
                let word = if reason.is_some() { Conclusion::Failure } else { Conclusion::Success };
                let mut outputs = Map::new();
                if *stage == StageName::PlanReads {
                    outputs.insert("reads".to_owned(), json!(KEYS.map(read)));
                }
                self.add(JournalEvent::StepEnded {
                    at: which.clone(),
                    step,
                    outcome: word,
                    conclusion: word,
                    outputs,
                    reason,
                    duration_ns: 1_500_000_000 * (i64::from(index) + 1),
                });
            }
            let conclusion = if failed.is_some() { Conclusion::Failure } else { Conclusion::Success };
            self.add(JournalEvent::LegEnded { at: which, conclusion, reason: failed, outputs: Map::new() });
        }
    }

    fn read(key: &str) -> serde_json::Value {
        let is_baseline = key.ends_with("baseline");
        json!({
            "key": key,
            "arm": if is_baseline { "baseline" } else { "candidate" },
            "hotkey": if is_baseline { None } else { Some(HOTKEY) },
            "image": "check/command",
            "digest": format!("sha256:{}", "ab".repeat(32)),
            "position": 0,
            "sequence": "0",
        })
    }

    const LAUNCH: [StageName; 4] =
        [StageName::Pull, StageName::Boot, StageName::WarmUp, StageName::Benchmark];

    /// A round whose submission fails at the end of these stages, or does not.
    fn journal(stages: &[StageName], failed: Option<Reason>) -> RoundState {
        let mut journal = Journal::default();
        journal.leg(("commitments", ""), &[StageName::FetchCommitments, StageName::PlanReads], None);
        journal.leg(("measure", KEYS[0]), &LAUNCH, None);
        journal.leg(("measure", KEYS[1]), stages, failed);
        journal.leg(("measure", KEYS[2]), &LAUNCH, None);
        journal.leg(("verify", ""), &[StageName::Pull, StageName::Boot, StageName::VerifyLogprobs], None);
        journal.leg(("rank", ""), &[StageName::Rank], None);
        RoundState::of(&journal.0)
    }

    fn input<'a>(state: &'a RoundState, standing: Option<&'a LeaderboardRow>) -> CheckInput<'a> {
        CheckInput {
            round_id: "check-1",
            directory: "data/rounds/round=check-1",
            pipeline: "pipelines/check.yml",
            image: "check/command",
            digest: "sha256:abababababababababababababababababababababababababababababababab",
            state,
            standing,
            verdicts: &[],
            decisions: &[],
            reason: None,
            log: None,
        }
    }

    fn row(standing: Standing, fault: Option<Fault>, (reason, detail): (&str, &str)) -> LeaderboardRow {
        let (reason, detail) = (reason.to_owned(), detail.to_owned());
        LeaderboardRow {
            hotkey: HOTKEY.to_owned(),
            standing,
            fault,
            reason,
            detail,
            ..LeaderboardRow::default()
        }
    }

    fn finding(check: Check, read_key: &str, outcome: CheckOutcome) -> VerdictRow {
        VerdictRow {
            hotkey: Some(HOTKEY.to_owned()),
            read_key: read_key.to_owned(),
            check,
            outcome,
            value: Some(if outcome == CheckOutcome::Fail { 0.19 } else { 0.0 }),
            control_value: Some(0.000_2),
            threshold: Some(0.005),
            samples: if read_key.contains("..") { 2412 } else { 603 },
            reason: format!("of {read_key}"),
            ..VerdictRow::default()
        }
    }

    fn decisions() -> Vec<DecisionRow> {
        let row = |component, log: f64, bar: f64| DecisionRow {
            hotkey: HOTKEY.to_owned(),
            component,
            log_ratio: Some(log),
            lower: Some(log - 0.2),
            upper: Some(log + 0.2),
            bar,
            look: Some(Look::Measure),
            ..DecisionRow::default()
        };
        vec![
            row(Component::Ttft, 1.7, -0.405),
            row(Component::E2e, 0.58, -0.405),
            DecisionRow { log_ratio: None, lower: None, upper: None, ..row(Component::Mdt, 0.0, -0.405) },
            row(Component::Score, 0.95, 0.0953),
        ]
    }

    #[test]
    fn one_that_would_be_scored() {
        let state = journal(&LAUNCH, None);
        let row =
            row(Standing::Scored, None, ("faster", "2.586 times as fast as the baseline, at least 2.117"));
        let verdicts = [
            finding(Check::Answered, "0001-5YourHot", CheckOutcome::Pass),
            finding(Check::Flips, "0001-5YourHot", CheckOutcome::Pass),
            finding(Check::Flips, "0001-5YourHot..0003-5YourHot", CheckOutcome::Pass),
            VerdictRow { hotkey: None, ..finding(Check::Counts, "0000-baseline", CheckOutcome::Fail) },
        ];
        let decisions = decisions();
        let input = CheckInput { verdicts: &verdicts, decisions: &decisions, ..input(&state, Some(&row)) };
        let report = CheckReport::of(&input);
        insta::assert_snapshot!("scored", check_text(&report, Some(72)));
        insta::assert_snapshot!("scored_json", check_json(&report));
        assert_eq!(server_log(&state).as_deref(), Some("jobs/measure/0001-5YourHot/attempt-1/server.log"));
    }

    #[test]
    fn one_that_dies_with_hostile_last_words() {
        let reason = Reason::new(Fault::Submission, "server-exited", HOSTILE);
        let state = journal(&LAUNCH[..3], Some(reason));
        let row = row(Standing::Failed, Some(Fault::Submission), ("server-exited", HOSTILE));
        let log = ServerLog {
            path: "data/rounds/round=check-1/jobs/measure/0001-5YourHot/attempt-1/server.log".to_owned(),
            last_lines: vec!["ready".to_owned(), HOSTILE.to_owned()],
        };
        let report = CheckReport::of(&CheckInput { log: Some(log), ..input(&state, Some(&row)) });
        let text = check_text(&report, Some(60));
        insta::assert_snapshot!("died", text);
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']));
        assert!(!check_json(&report).contains(['\u{1b}', '\u{7}', '\u{202e}']));
    }

    #[test]
    fn one_that_is_told_by_the_worst_of_its_reads() {
        let state = journal(&LAUNCH, None);
        let detail = "flips: 19.00% of its tokens";
        let row = row(Standing::Disqualified, Some(Fault::Submission), ("failed-flips", detail));
        let verdicts = [
            finding(Check::Flips, "0001-5YourHot", CheckOutcome::Fail),
            finding(Check::Flips, "0001-5YourHot..0003-5YourHot", CheckOutcome::Pass),
        ];
        let report = CheckReport::of(&CheckInput { verdicts: &verdicts, ..input(&state, Some(&row)) });
        assert_eq!(report.checks.len(), 1);
        assert_eq!(report.checks[0].outcome, CheckOutcome::Fail);
        assert_eq!(report.checks[0].samples, 603);
        assert_eq!(report.verdict, "The validator would disqualify it (failed-flips, submission fault).");
    }

    #[test]
    fn a_round_without_a_verdict_says_what_failed() {
        let mut journal = Journal::default();
        journal.leg(("commitments", ""), &[StageName::FetchCommitments, StageName::PlanReads], None);
        let absent = Reason::new(Fault::Infra, "image-unavailable", "image `embedded/baseline` is not there");
        journal.leg(("measure", KEYS[0]), &[StageName::Pull], Some(absent.clone()));
        let state = RoundState::of(&journal.0);
        let report = CheckReport::of(&CheckInput { reason: Some(&absent), ..input(&state, None) });
        let text = check_text(&report, None);
        assert!(text.contains("measure[0000-baseline]: image-unavailable"), "{text}");
        assert!(text.contains("benchmark           not reached"), "{text}");
        assert!(report.verdict.starts_with("The validator would say nothing yet"), "{}", report.verdict);
        assert_eq!(server_log(&state), None);
    }

    #[test]
    fn the_words_are_those_of_the_stages() {
        for stage in LAUNCH_STEPS.iter().chain(&LATER_STEPS) {
            assert!(StageName::ALL.iter().any(|name| name.as_str() == *stage), "{stage}");
        }
    }
}
