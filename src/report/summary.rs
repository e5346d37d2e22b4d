//! `summary.md`: a round for people, each submission with what was found and why it stands where it stands.

use std::fmt::{self, Write as _};

use super::rounds::TableCount;
use super::text::{code, duration, instant, markdown, number, ratio, short_hotkey};
use crate::artifact::JobState;
use crate::model::{
    CheckOutcome, CommitmentRow, Conclusion, DecisionRow, IgnoreCode, LeaderboardRow, ReadRow, RoundId,
    Standing, VerdictRow, WeightRow,
};

/// What the summary is made from. Rows are in their published order.
#[derive(Debug, Clone)]
pub struct SummaryInput<'a> {
    /// Id of the round.
    pub round_id: &'a RoundId,
    /// Name of the round's pipeline.
    pub pipeline: &'a str,
    /// Name of the round's runner.
    pub runner: &'a str,
    /// Wall time of the round's start, RFC 3339.
    pub started_at: &'a str,
    /// The commitments as found.
    pub commitments: &'a [CommitmentRow],
    /// The rows of the leaderboard.
    pub leaderboard: &'a [LeaderboardRow],
    /// All reads of the round.
    pub reads: &'a [ReadRow],
    /// The decisions on speed.
    pub decisions: &'a [DecisionRow],
    /// The findings on correctness.
    pub verdicts: &'a [VerdictRow],
    /// The weights that are to be set on chain.
    pub weights: &'a [WeightRow],
    /// The jobs, and how they went.
    pub jobs: &'a [JobState],
    /// The tables, and the number of their rows.
    pub tables: &'a [TableCount],
}

/// The text of `summary.md`.
pub fn summary_markdown(input: &SummaryInput<'_>) -> String {
    let mut page = Page::default();
    heading(&mut page, input);
    leaderboard(&mut page, input.leaderboard);
    for row in input.leaderboard {
        submission(&mut page, input, row);
    }
    baseline(&mut page, input);
    ignored(&mut page, input.commitments);
    failed_legs(&mut page, input.jobs);
    weights(&mut page, input.weights);
    tables(&mut page, input);
    page.0
}

/// Markdown under construction. Everything that a stranger may have written comes in through [`code`] or
/// [`markdown`].
#[derive(Default)]
struct Page(String);

impl Page {
    /// Adds a paragraph or heading, followed by an empty line.
    fn paragraph(&mut self, text: fmt::Arguments<'_>) {
        writeln!(self.0, "{text}\n").expect("writes to a string");
    }

    /// Adds a table; a header that ends in `:` is of numbers. Adds nothing if there are no rows.
    fn table<const N: usize>(&mut self, header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return;
        }
        self.row(&header.map(|name| name.trim_end_matches(':').to_owned()));
        self.row(&header.map(|name| if name.ends_with(':') { "---:" } else { "---" }.to_owned()));
        for row in rows {
            self.row(&row);
        }
        self.0.push('\n');
    }

    fn row(&mut self, cells: &[String]) {
        writeln!(self.0, "| {} |", cells.join(" | ")).expect("writes to a string");
    }
}

fn heading(page: &mut Page, input: &SummaryInput<'_>) {
    page.paragraph(format_args!("# Round {}", input.round_id));
    page.paragraph(format_args!(
        "Pipeline {} on runner {}, started {}. {} of {} commitments became submissions; {} reads.",
        code(input.pipeline),
        code(input.runner),
        markdown(&instant(input.started_at)),
        input.commitments.iter().filter(|row| row.is_accepted).count(),
        input.commitments.len(),
        input.reads.len(),
    ));
    match input.leaderboard.first().filter(|row| row.score > 0.0) {
        Some(row) => page.paragraph(format_args!(
            "**Winner: {}** with {}: {} end to end, {} to the first token.",
            code(&row.hotkey),
            code(row.image.as_deref().unwrap_or_default()),
            ratio(row.speedup_e2e),
            ratio(row.speedup_ttft),
        )),
        None => page.paragraph(format_args!(
            "**No winner**: nobody was proven correct and faster than the baseline."
        )),
    }
}

fn leaderboard(page: &mut Page, rows: &[LeaderboardRow]) {
    page.paragraph(format_args!("## Leaderboard"));
    if rows.is_empty() {
        page.paragraph(format_args!("Empty: there was no submission."));
    }
    page.table(
        ["#:", "miner", "image", "score:", "share:", "e2e:", "ttft:", "standing", "reason"],
        rows.iter().map(|row| {
            [
                row.rank.to_string(),
                code(&short_hotkey(&row.hotkey)),
                code(row.image.as_deref().unwrap_or_default()),
                format!("{:.4}", row.score),
                format!("{:.1} %", row.share * 100.0),
                ratio(row.speedup_e2e),
                ratio(row.speedup_ttft),
                row.standing.to_string(),
                markdown(&row.detail),
            ]
        }),
    );
}

fn submission(page: &mut Page, input: &SummaryInput<'_>, row: &LeaderboardRow) {
    if row.standing == Standing::Ignored {
        return;
    }
    page.paragraph(format_args!("## {}. {}", row.rank, code(&row.hotkey)));
    let block = row.block.map_or_else(|| "an unknown block".to_owned(), |block| format!("block {block}"));
    page.paragraph(format_args!(
        "Image {} at {}, committed at {block}.",
        code(row.image.as_deref().unwrap_or_default()),
        code(row.digest.as_deref().unwrap_or_default()),
    ));
    let fault = row.fault.map_or_else(String::new, |fault| format!(", {fault} fault"));
    page.paragraph(format_args!(
        "Standing: **{}** ({}{fault}). {}",
        row.standing,
        code(&row.reason),
        markdown(&row.detail),
    ));
    decisions(page, input.decisions.iter().filter(|decision| decision.hotkey == row.hotkey));
    let is_own = |hotkey: &Option<String>| hotkey.as_deref() == Some(&row.hotkey);
    checks(page, input.verdicts.iter().filter(|verdict| is_own(&verdict.hotkey)));
    reads(page, input.reads.iter().filter(|read| is_own(&read.hotkey)));
}

fn decisions<'a>(page: &mut Page, rows: impl Iterator<Item = &'a DecisionRow>) {
    page.table(
        ["speed", "speed-up:", "lower bound:", "upper bound:", "bar:", "prompts:", "outcome", "reason"],
        rows.map(|row| {
            let as_ratio =
                |log: Option<f64>| log.map_or_else(|| "-".to_owned(), |log| format!("{:.4}x", log.exp()));
            [
                row.component.to_string(),
                as_ratio(row.log_ratio),
                as_ratio(row.lower),
                as_ratio(row.upper),
                as_ratio(Some(row.bar)),
                row.prompts.to_string(),
                row.outcome.to_string(),
                markdown(&row.reason),
            ]
        }),
    );
}

fn checks<'a>(page: &mut Page, rows: impl Iterator<Item = &'a VerdictRow>) {
    page.table(
        ["check", "read", "outcome", "value:", "control:", "threshold:", "samples:", "reason"],
        rows.map(|row| {
            [
                row.check.to_string(),
                code(&row.read_key),
                row.outcome.to_string(),
                number(row.value),
                number(row.control_value),
                number(row.threshold),
                row.samples.to_string(),
                markdown(&row.reason),
            ]
        }),
    );
}

fn reads<'a>(page: &mut Page, rows: impl Iterator<Item = &'a ReadRow>) {
    page.table(
        [
            "read",
            "attempt:",
            "status",
            "boot:",
            "benchmark:",
            "requests:",
            "failed:",
            "timer lag p99:",
            "reason",
        ],
        rows.map(|row| {
            let reason = row.detail.as_deref().or(row.reason.as_deref()).unwrap_or("-");
            [
                code(&row.read_key),
                row.attempt.to_string(),
                row.status.to_string(),
                duration(row.boot_ns),
                duration(row.benchmark_ns),
                row.requests.to_string(),
                row.failed_requests.to_string(),
                duration(row.client_lag_p99_ns),
                if reason == "-" { "-".to_owned() } else { markdown(reason) },
            ]
        }),
    );
}

fn baseline(page: &mut Page, input: &SummaryInput<'_>) {
    let mut own_reads = input.reads.iter().filter(|read| read.hotkey.is_none()).peekable();
    let own_checks = input.verdicts.iter().filter(|verdict| verdict.hotkey.is_none());
    let (passed, others): (Vec<&VerdictRow>, Vec<&VerdictRow>) =
        own_checks.partition(|verdict| verdict.outcome == CheckOutcome::Pass);
    if own_reads.peek().is_none() && passed.is_empty() && others.is_empty() {
        return;
    }
    page.paragraph(format_args!("## The baseline"));
    if !passed.is_empty() {
        let count = passed.len();
        page.paragraph(format_args!(
            "Of its checks, each read beside the others and all by the scorer alone, {count} passed."
        ));
    }
    checks(page, others.into_iter());
    reads(page, own_reads);
}

fn ignored(page: &mut Page, rows: &[CommitmentRow]) {
    let mut rows = rows.iter().filter(|row| !row.is_accepted).peekable();
    if rows.peek().is_none() {
        return;
    }
    page.paragraph(format_args!("## Commitments that were ignored"));
    page.table(
        ["position:", "hotkey", "block:", "why", "in words"],
        rows.map(|row| {
            [
                row.position.to_string(),
                code(&row.hotkey),
                row.block.map_or_else(|| "-".to_owned(), |block| block.to_string()),
                code(row.ignored_code.map_or("", IgnoreCode::as_str)),
                markdown(row.ignored_reason.as_deref().unwrap_or("-")),
            ]
        }),
    );
}

fn failed_legs(page: &mut Page, jobs: &[JobState]) {
    let legs = || jobs.iter().flat_map(|job| job.failed_legs().map(move |leg| (job, leg)));
    if legs().next().is_none() {
        return;
    }
    page.paragraph(format_args!("## Legs that failed"));
    page.table(
        ["job", "leg", "attempts:", "conclusion", "fault", "reason", "in words"],
        legs().map(|(job, leg)| {
            let reason = leg.end().and_then(|end| end.reason.as_ref());
            [
                code(&job.job),
                code(&leg.key),
                leg.attempt().to_string(),
                leg.conclusion().map_or("-", Conclusion::as_str).to_owned(),
                reason.map_or("-", |reason| reason.fault.as_str()).to_owned(),
                code(reason.map_or("", |reason| &reason.code)),
                markdown(reason.map_or("no reason was recorded", |reason| &reason.message)),
            ]
        }),
    );
}

fn weights(page: &mut Page, rows: &[WeightRow]) {
    if rows.is_empty() {
        return;
    }
    page.paragraph(format_args!("## Weights"));
    page.table(
        ["subnet:", "hotkey", "uid:", "share:", "weight:", "sent"],
        rows.iter().map(|row| {
            [
                row.netuid.to_string(),
                code(&row.hotkey),
                row.uid.map_or_else(|| "-".to_owned(), |uid| uid.to_string()),
                format!("{:.1} %", row.share * 100.0),
                row.weight.to_string(),
                if row.is_dry_run {
                    "dry run".to_owned()
                } else {
                    code(row.receipt.as_deref().unwrap_or_default())
                },
            ]
        }),
    );
}

fn tables(page: &mut Page, input: &SummaryInput<'_>) {
    page.paragraph(format_args!("## Data"));
    page.table(
        ["table", "file", "rows:"],
        input.tables.iter().map(|table| {
            let name = &table.table;
            [markdown(name), code(&format!("results/{name}.parquet")), table.rows.to_string()]
        }),
    );
    page.paragraph(format_args!("With this program, over all rounds:"));
    let round = input.round_id;
    page.paragraph(format_args!(
        "```sh\ncacheon query \"SELECT rank, hotkey, score FROM leaderboard WHERE round_id = '{round}' ORDER BY rank\"\n```"
    ));
    page.paragraph(format_args!("With DuckDB, in the directory of this file:"));
    page.paragraph(format_args!(
        "```sql\nSELECT read_key, median(ttft_ns) / 1e6 AS ttft_ms, median(e2e_ns) / 1e6 AS e2e_ms\n\
         FROM 'results/requests.parquet' WHERE status = 'ok' GROUP BY read_key ORDER BY read_key;\n```"
    ));
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::artifact::{AttemptState, Ending, LegState};
    use crate::model::{Arm, Check, Component, Fault, ReadStatus, Reason};

    const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
    const BOB: &str = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty";
    const EVE: &str = "5HGjWAeFDfFCWPsjFQdVV2Msvz2XtMktvgocEZcCj68kUMaw";
    const HOSTILE: &str = "exited with code 1: \u{1b}]0;pwned\u{7}| [click](https://evil.example) <img src=x onerror=alert(1)> `x`\n# Winner";

    /// A leaderboard with every kind of standing, one row with hostile text.
    pub(in super::super) fn leaderboard() -> Vec<LeaderboardRow> {
        let row = |rank: u32, hotkey: &str, standing: Standing, reason: &str, detail: &str| LeaderboardRow {
            round_id: "demo-2".to_owned(),
            rank,
            hotkey: hotkey.to_owned(),
            uid: Some(rank),
            block: Some(1000 + i64::from(rank)),
            image: Some("embedded/turbo".to_owned()),
            digest: Some(format!("sha256:{}", "ab".repeat(32))),
            standing,
            reason: reason.to_owned(),
            detail: detail.to_owned(),
            ..LeaderboardRow::default()
        };
        vec![
            LeaderboardRow {
                score: 0.812_345,
                share: 1.0,
                speedup_e2e: Some(1.8377),
                speedup_ttft: Some(2.0111),
                ..row(1, ALICE, Standing::Scored, "scored", "proven at least 1.81x as fast as the baseline")
            },
            LeaderboardRow {
                speedup_e2e: Some(1.001),
                speedup_ttft: Some(0.998),
                image: Some("registry.example:5000/a-team-with-a-long-name/inference-server".to_owned()),
                ..row(
                    2,
                    BOB,
                    Standing::NotFaster,
                    "not-faster",
                    "the lower bound of the speed-up, 0.99x, is below the bar of 1.02x",
                )
            },
            LeaderboardRow {
                fault: Some(Fault::Submission),
                image: None,
                ..row(3, EVE, Standing::Failed, "server-exited-before-ready", HOSTILE)
            },
        ]
    }

    pub(in super::super) fn jobs() -> Vec<JobState> {
        let end = |conclusion, reason| Ending {
            conclusion,
            reason,
            at: "2026-11-21T21:28:00Z".parse().expect("a time"),
            is_stopping: false,
            is_published: false,
        };
        let leg = |key: &str, attempt, end| LegState {
            key: key.to_owned(),
            attempts: vec![AttemptState { attempt, end: Some(end), ..AttemptState::default() }],
            ..LegState::default()
        };
        let timeout = Reason::new(Fault::Infra, "registry-timeout", HOSTILE);
        let job = |job: &str, legs| JobState {
            job: job.to_owned(),
            legs,
            end: Some(end(Conclusion::Success, None)),
            ..JobState::default()
        };
        vec![
            job("commitments", vec![leg("", 1, end(Conclusion::Success, None))]),
            job(
                "measure",
                vec![
                    leg("0000-baseline", 2, end(Conclusion::Success, None)),
                    leg("0001-candidate-5Grwva", 2, end(Conclusion::Failure, Some(timeout))),
                ],
            ),
            JobState { end: None, ..job("rank", Vec::new()) },
        ]
    }

    pub(in super::super) fn tables() -> Vec<TableCount> {
        let table = |(table, rows): (&str, u64)| TableCount { table: table.to_owned(), rows };
        [("reads", 5), ("requests", 40)].map(table).to_vec()
    }

    fn reads() -> Vec<ReadRow> {
        let read = |position: u32, hotkey: Option<&str>, status: ReadStatus| ReadRow {
            read_key: format!("{position:04}"),
            arm: if hotkey.is_some() { Arm::Candidate } else { Arm::Baseline },
            hotkey: hotkey.map(str::to_owned),
            position,
            attempt: 1,
            boot_ns: Some(1_234_000_000),
            benchmark_ns: Some(8_500_000_000),
            status,
            detail: (status == ReadStatus::Failed).then(|| HOSTILE.to_owned()),
            requests: 8,
            client_lag_p99_ns: Some(95_000),
            ..ReadRow::default()
        };
        vec![
            read(0, None, ReadStatus::Measured),
            read(1, Some(ALICE), ReadStatus::Measured),
            read(2, Some(EVE), ReadStatus::Failed),
        ]
    }

    fn page() -> String {
        let round_id = "demo-2".parse().expect("an id");
        let commitment = CommitmentRow {
            position: 4,
            hotkey: HOSTILE.to_owned(),
            ignored_code: Some(IgnoreCode::BadPayload),
            ignored_reason: Some(HOSTILE.to_owned()),
            ..CommitmentRow::default()
        };
        let decision = DecisionRow {
            hotkey: ALICE.to_owned(),
            component: Component::E2e,
            log_ratio: Some(0.6085),
            lower: Some(0.59),
            bar: 0.02,
            prompts: 8,
            reason: "the lower bound is above the bar".to_owned(),
            ..DecisionRow::default()
        };
        let verdict = VerdictRow {
            read_key: "0001".to_owned(),
            hotkey: Some(ALICE.to_owned()),
            check: Check::MeanMargin,
            value: Some(0.000_04),
            control_value: Some(0.001_2),
            threshold: Some(0.05),
            samples: 512,
            reason: "as probable as the baseline's own answers".to_owned(),
            ..VerdictRow::default()
        };
        let control = VerdictRow { hotkey: None, read_key: "0000".to_owned(), ..verdict.clone() };
        let weight = WeightRow {
            netuid: 14,
            hotkey: ALICE.to_owned(),
            uid: Some(1),
            share: 1.0,
            weight: 65535,
            is_dry_run: true,
            ..WeightRow::default()
        };
        summary_markdown(&SummaryInput {
            round_id: &round_id,
            pipeline: "demo",
            runner: "embedded",
            started_at: "2026-11-21T21:27:00Z",
            commitments: &[CommitmentRow { is_accepted: true, ..commitment.clone() }, commitment],
            leaderboard: &leaderboard(),
            reads: &reads(),
            decisions: &[decision],
            verdicts: &[control, verdict],
            weights: &[weight],
            jobs: &jobs(),
            tables: &tables(),
        })
    }

    #[test]
    fn the_page() {
        insta::assert_snapshot!(page());
    }

    #[test]
    fn hostile_text_stays_text() {
        let page = page();
        assert!(!page.contains('\u{1b}') && !page.contains('\u{7}'));
        assert!(!page.lines().any(|line| line.starts_with("# Winner")));
        for line in page.lines().filter(|line| line.contains("img src=x")) {
            let mut characters = line.chars();
            let mut unescaped = String::new();
            while let Some(character) = characters.next() {
                match character {
                    '\\' => drop(characters.next()),
                    character => unescaped.push(character),
                }
            }
            let outside_code: String = unescaped.split('`').step_by(2).collect();
            assert!(!outside_code.contains(['<', '[']), "{line}");
        }
    }

    #[test]
    fn an_empty_round() {
        let round_id = "demo-0".parse().expect("an id");
        let page = summary_markdown(&SummaryInput {
            round_id: &round_id,
            pipeline: "demo",
            runner: "embedded",
            started_at: "2026-11-21T21:27:00Z",
            commitments: &[],
            leaderboard: &[],
            reads: &[],
            decisions: &[],
            verdicts: &[],
            weights: &[],
            jobs: &[],
            tables: &[],
        });
        assert!(page.contains("**No winner**") && page.contains("there was no submission"));
    }
}
