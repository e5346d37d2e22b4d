//! Rounds, as `cacheon rounds` lists them and `cacheon show` opens them.

use std::fmt::{self, Write as _};

use comfy_table::{Cell, Color};
use serde::{Serialize, Serializer};

use super::leaderboard::leaderboard_table;
use super::query_output::{JsonLayout, json};
use super::text::{
    RowLines, TextStyle, between, coloured, excerpt, instant, plain, render, right, short_hotkey, table,
};
use crate::artifact::{JobState, LegState, PublishedTable};
use crate::model::{Conclusion, LeaderboardRow, Reason, RoundId};

/// How far a round has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoundPhase {
    /// A living process runs the round.
    Running,
    /// A living process has the round, which waits for another one of its concurrency group.
    Waiting,
    /// No process runs the round, and it did not end: it can be resumed.
    Interrupted,
    /// The round came to its end, and this is how.
    Ended(Conclusion),
}

impl RoundPhase {
    /// The word used in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Interrupted => "interrupted",
            Self::Ended(conclusion) => conclusion.as_str(),
        }
    }

    const fn colour(self) -> Color {
        match self {
            Self::Running => Color::Cyan,
            Self::Ended(Conclusion::Success) => Color::Green,
            Self::Ended(Conclusion::Failure) => Color::Red,
            Self::Waiting | Self::Interrupted | Self::Ended(_) => Color::Yellow,
        }
    }
}

impl fmt::Display for RoundPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for RoundPhase {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The first of a leaderboard.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Winner {
    /// Hotkey of the miner.
    pub hotkey: String,
    /// Image of the submission, where known.
    pub image: Option<String>,
    /// Score of the submission, above 0.
    pub score: f64,
}

/// One line of `cacheon rounds`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoundSummary {
    /// Id of the round.
    pub round_id: RoundId,
    /// Path of the round's directory.
    pub path: String,
    /// Name of the round's pipeline.
    pub pipeline: Option<String>,
    /// What the round is called, if its pipeline has a `run-name`.
    pub run_name: Option<String>,
    /// Wall time of the round's start, RFC 3339.
    pub started_at: Option<String>,
    /// Wall time of the round's end, RFC 3339.
    pub ended_at: Option<String>,
    /// How far the round has come.
    pub state: RoundPhase,
    /// The round of its concurrency group that it waits for, while it does.
    pub waits_for: Option<RoundId>,
    /// First of the leaderboard, if its score is above 0.
    pub winner: Option<Winner>,
    /// Id of the round this one was made from, where it is a rerun: what that one measured is not measured again.
    pub parent: Option<RoundId>,
    /// Whether the round has a seal. Whether the seal holds is another question.
    pub is_sealed: bool,
    /// What could not be read of the round, in words.
    pub problem: Option<String>,
}

/// A published table and the number of its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableCount {
    /// Name of the table.
    pub table: String,
    /// Number of rows in it.
    pub rows: u64,
}

impl From<PublishedTable> for TableCount {
    fn from(table: PublishedTable) -> Self {
        Self { table: table.table, rows: table.rows }
    }
}

/// All of one round, for `cacheon show`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoundDetail {
    /// What `cacheon rounds` shows of it.
    #[serde(flatten)]
    pub summary: RoundSummary,
    /// Name of the runner of the round.
    pub runner: Option<String>,
    /// Jobs in the order in which they were first heard of.
    #[serde(serialize_with = "jobs_json")]
    pub jobs: Vec<JobState>,
    /// The leaderboard, empty before there is one.
    pub leaderboard: Vec<LeaderboardRow>,
    /// Whether the leaderboard is published; else it is what `rank` came to.
    pub is_leaderboard_published: bool,
    /// The tables that were published.
    pub tables: Vec<TableCount>,
    /// What could not be read of the round, in words.
    pub warnings: Vec<String>,
}

/// The table of `cacheon rounds`, in the order given.
pub fn rounds_table(rounds: &[RoundSummary], style: TextStyle) -> String {
    let mut out = table(style, RowLines::One);
    out.set_header([
        Cell::new("round"),
        Cell::new("pipeline"),
        Cell::new("started"),
        right("took"),
        Cell::new("state"),
        Cell::new("winner"),
        right("score"),
    ]);
    for round in rounds {
        let winner = round.winner.as_ref();
        out.add_row([
            Cell::new(&round.round_id),
            Cell::new(excerpt(round.pipeline.as_deref().unwrap_or("-"), 40)),
            Cell::new(round.started_at.as_deref().map_or_else(|| "-".to_owned(), instant)),
            right(between(round.started_at.as_deref(), round.ended_at.as_deref())),
            coloured(state(round), round.state.colour()),
            Cell::new(winner.map_or_else(|| "-".to_owned(), |winner| short_hotkey(&winner.hotkey))),
            right(winner.map_or_else(|| "-".to_owned(), |winner| format!("{:.4}", winner.score))),
        ]);
    }
    render(&out)
}

fn state(round: &RoundSummary) -> String {
    match (&round.problem, &round.waits_for) {
        (Some(problem), _) => format!("{} ({})", round.state, excerpt(problem, 100)),
        (None, Some(running)) => format!("{} for {running}", round.state),
        (None, None) => round.state.to_string(),
    }
}

/// `cacheon rounds --json`: an array, indented.
pub fn rounds_json(rounds: &[RoundSummary]) -> String {
    json(&rounds, JsonLayout::Pretty)
}

/// A job as `show --json` has it.
#[derive(Serialize)]
struct JobJson<'a> {
    job: &'a str,
    /// How the job ended; none while it has not.
    conclusion: Option<Conclusion>,
    reason: Option<&'a Reason>,
    legs: Vec<LegJson<'a>>,
}

/// A leg as `show --json` has it.
#[derive(Serialize)]
struct LegJson<'a> {
    leg: &'a str,
    /// Number of attempts that were begun.
    attempts: u32,
    /// Whether the leg stands as it ended in the round's parent.
    is_taken_over: bool,
    /// How the leg ended; none while it has not.
    conclusion: Option<Conclusion>,
    reason: Option<&'a Reason>,
}

impl<'a> From<&'a LegState> for LegJson<'a> {
    fn from(leg: &'a LegState) -> Self {
        Self {
            leg: &leg.key,
            attempts: leg.attempt(),
            is_taken_over: leg.last().is_some_and(|attempt| attempt.is_taken_over),
            conclusion: leg.conclusion(),
            reason: leg.end().and_then(|end| end.reason.as_ref()),
        }
    }
}

fn jobs_json<S: Serializer>(jobs: &[JobState], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(jobs.iter().map(|job| JobJson {
        job: &job.job,
        conclusion: job.conclusion(),
        reason: job.end.as_ref().and_then(|end| end.reason.as_ref()),
        legs: job.legs.iter().map(LegJson::from).collect(),
    }))
}

/// `cacheon show --json`: an object, indented.
pub fn round_json(round: &RoundDetail) -> String {
    json(round, JsonLayout::Pretty)
}

/// `cacheon show`: what it was, how its jobs went, who won, what was published.
pub fn show_round(round: &RoundDetail, style: TextStyle) -> String {
    let mut out = String::new();
    let summary = &round.summary;
    let name = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), plain);
    let time = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), instant);
    let took = between(summary.started_at.as_deref(), summary.ended_at.as_deref());
    let sealed = if summary.is_sealed { "yes" } else { "no" };
    for (label, value) in [
        ("round", summary.round_id.to_string()),
        ("name", name(&summary.run_name)),
        ("pipeline", name(&summary.pipeline)),
        ("runner", name(&round.runner)),
        ("started", time(&summary.started_at)),
        ("took", took),
        ("state", state(summary)),
        ("parent", summary.parent.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)),
        ("sealed", sealed.to_owned()),
        ("files", plain(&summary.path)),
    ] {
        line(&mut out, format_args!("{label:<9}{value}"));
    }
    for warning in &round.warnings {
        line(&mut out, format_args!("warning  {}", excerpt(warning, 300)));
    }
    if !round.jobs.is_empty() {
        out.push('\n');
        out.push_str(&jobs_table(&round.jobs, style));
    }
    for job in &round.jobs {
        for leg in job.failed_legs() {
            let reason = leg.end().and_then(|end| end.reason.as_ref());
            let reason = reason.map_or_else(|| "no reason was recorded".to_owned(), ToString::to_string);
            let key = if leg.key.is_empty() { String::new() } else { format!(" {}", excerpt(&leg.key, 100)) };
            line(&mut out, format_args!("\n{}{key}: {}", plain(&job.job), excerpt(&reason, 600)));
        }
    }
    if !round.leaderboard.is_empty() {
        out.push('\n');
        if !round.is_leaderboard_published {
            out.push_str("not published, nobody is paid by it:\n");
        }
        out.push_str(&leaderboard_table(&round.leaderboard, style));
    }
    if !round.tables.is_empty() {
        let tables: Vec<_> =
            round.tables.iter().map(|table| format!("{} ({})", plain(&table.table), table.rows)).collect();
        line(&mut out, format_args!("\ntables (rows): {}", tables.join(", ")));
    }
    out
}

/// Appends a line; text in memory cannot fail.
fn line(out: &mut String, text: fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writes to a string");
}

fn jobs_table(jobs: &[JobState], style: TextStyle) -> String {
    let mut out = table(style, RowLines::One);
    out.set_header([
        Cell::new("job"),
        Cell::new("state"),
        right("legs"),
        right("ended well"),
        right("failed"),
        right("retried"),
    ]);
    for job in jobs {
        let state = job.conclusion().map_or(RoundPhase::Running, RoundPhase::Ended);
        let well = job.legs.iter().filter(|leg| leg.conclusion() == Some(Conclusion::Success)).count();
        let retried = job.legs.iter().filter(|leg| leg.attempt() > 1).count();
        let word = job.conclusion().map_or("not ended", Conclusion::as_str);
        out.add_row([
            Cell::new(plain(&job.job)),
            coloured(word, state.colour()),
            right(job.legs.len()),
            right(well),
            right(job.failed_legs().count()),
            right(retried),
        ]);
    }
    render(&out)
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::{jobs, leaderboard, tables};
    use super::super::text::Paint;
    use super::*;

    fn summary(id: &str, state: RoundPhase) -> RoundSummary {
        RoundSummary {
            round_id: id.parse().expect("an id"),
            path: format!("data/rounds/round={id}"),
            pipeline: Some("demo".to_owned()),
            run_name: Some("the demo, again".to_owned()),
            started_at: Some("2026-11-21T21:27:00.25Z".to_owned()),
            ended_at: matches!(state, RoundPhase::Ended(_)).then(|| "2026-11-21T21:29:34Z".to_owned()),
            state,
            waits_for: None,
            winner: (state == RoundPhase::Ended(Conclusion::Success)).then(|| Winner {
                hotkey: "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY".to_owned(),
                image: Some("embedded/turbo".to_owned()),
                score: 0.812_345,
            }),
            parent: None,
            is_sealed: matches!(state, RoundPhase::Ended(_)),
            problem: None,
        }
    }

    fn detail() -> RoundDetail {
        RoundDetail {
            summary: summary("demo-2", RoundPhase::Ended(Conclusion::Success)),
            runner: Some("embedded".to_owned()),
            jobs: jobs(),
            leaderboard: leaderboard(),
            is_leaderboard_published: true,
            tables: tables(),
            warnings: vec!["table `tokens` is not a readable Parquet file".to_owned()],
        }
    }

    #[test]
    fn rounds() {
        let mut damaged = summary("demo-0", RoundPhase::Interrupted);
        damaged.pipeline = None;
        damaged.started_at = None;
        damaged.problem = Some("line 3 of the journal is damaged".to_owned());
        let rounds = [
            summary("demo-3", RoundPhase::Running),
            summary("demo-2", RoundPhase::Ended(Conclusion::Success)),
            summary("demo-1", RoundPhase::Ended(Conclusion::Failure)),
            damaged,
        ];
        insta::assert_snapshot!("rounds", rounds_table(&rounds, TextStyle::PLAIN));
        insta::assert_snapshot!("rounds_json", rounds_json(&rounds[1..2]));
    }

    #[test]
    fn one_round() {
        let style = TextStyle { width: Some(100), paint: Paint::Plain };
        insta::assert_snapshot!("show", show_round(&detail(), style));
        let value: serde_json::Value = serde_json::from_str(&round_json(&detail())).expect("JSON");
        assert_eq!(value["round_id"], "demo-2");
        assert_eq!(value["state"], "success");
        assert_eq!(value["jobs"][1]["legs"][1]["reason"]["fault"], "infra");
    }
}
