//! Metrics of the scheduled rounds, in the text format of Prometheus.
//!
//! Facts in, text out: [`PipelineMetrics::of`] counts the rows of `ticks`, [`RoundMetrics::of`] those of `step_attempts`, and
//! [`metrics_text`] writes version 0.0.4 of the format (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//! Whatever has no value yet has no line. Where the facts come from is `serve`'s business.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;

use crate::model::{Fault, StepAttemptRow, TickOutcome, TickRow};

/// The content type of [`metrics_text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is known of the schedules of a data directory after a look.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetricsFacts {
    /// Version of the program.
    pub version: String,
    /// When somebody looked last; none before the first look.
    pub looked_at: Option<Timestamp>,
    /// The file system of the data directory; none where it cannot be asked.
    pub disk: Option<DiskRoom>,
    /// Number of watched files that are broken, with or without a last good version.
    pub broken_files: u32,
    /// The pipelines, by name.
    pub pipelines: BTreeMap<String, PipelineMetrics>,
}

/// The room of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskRoom {
    /// Bytes that this user may still write.
    pub free_bytes: u64,
    /// Bytes in all.
    pub size_bytes: u64,
}

/// What the ticks of a pipeline come to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PipelineMetrics {
    /// Number of ticks by what became of them.
    pub ticks: BTreeMap<TickOutcome, u64>,
    /// Number of ended rounds by exit code.
    pub rounds: BTreeMap<u32, u64>,
    /// How often rounds were taken up again.
    pub resumes: u64,
    /// When the last round was started.
    pub last_round_at: Option<Timestamp>,
    /// When the last round that ended with exit code 0 had ended.
    pub last_success_at: Option<Timestamp>,
    /// When the next tick is due.
    pub next_tick_at: Option<Timestamp>,
    /// Whether a process runs a round of the pipeline.
    pub is_running: bool,
    /// Whether the pipeline's file is broken, and its last good version in force.
    pub is_broken: bool,
    /// Id of the last ended round, and when it had ended.
    pub last_ended: Option<(Timestamp, String)>,
    /// The steps of the last ended round; none where it cannot be read.
    pub last: Option<RoundMetrics>,
}

/// What the steps of a round come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoundMetrics {
    /// Nanoseconds by stage, over all attempts.
    pub stage_ns: BTreeMap<String, i64>,
    /// Number of failed steps by fault, over all attempts.
    pub faults: BTreeMap<Fault, u64>,
}

impl PipelineMetrics {
    /// Counts the rows of `ticks`, by pipeline. What no tick knows stays at its default.
    pub fn of(rows: &[TickRow]) -> BTreeMap<String, Self> {
        let mut pipelines: BTreeMap<String, Self> = BTreeMap::new();
        for row in rows {
            let pipeline = pipelines.entry(row.pipeline.clone()).or_default();
            *pipeline.ticks.entry(row.outcome).or_default() += u64::from(row.ticks);
            pipeline.resumes += u64::from(row.resumes);
            let Some(round_id) = &row.round_id else { continue };
            pipeline.last_round_at = pipeline.last_round_at.max(instant(row.decided_at_us));
            let (Some(exit_code), Some(at)) = (row.exit_code, row.ended_at_us.and_then(instant)) else {
                continue;
            };
            *pipeline.rounds.entry(exit_code).or_default() += 1;
            pipeline.last_ended = pipeline.last_ended.take().max(Some((at, round_id.clone())));
            if exit_code == 0 {
                pipeline.last_success_at = pipeline.last_success_at.max(Some(at));
            }
        }
        pipelines
    }
}

impl RoundMetrics {
    /// Counts the rows of a round's `step_attempts`.
    pub fn of(rows: &[StepAttemptRow]) -> Self {
        let mut round = Self::default();
        for row in rows {
            let spent = round.stage_ns.entry(row.stage.clone()).or_default();
            *spent = spent.saturating_add(row.duration_ns);
            if let Some(fault) = row.fault {
                *round.faults.entry(fault).or_default() += 1;
            }
        }
        round
    }
}

fn instant(microseconds: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(microseconds).ok()
}

/// What a metric is, as its TYPE line says.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// A sample: its labels and its value.
type Sample<'a> = (Vec<(&'static str, &'a str)>, f64);

/// The metrics at an instant, on the clock of the looks.
pub fn metrics_text(facts: &MetricsFacts, now: Timestamp) -> String {
    let mut page = Page::default();
    let build = ("cacheon_build_info", Kind::Gauge, "Version of the program; the value is always 1.");
    page.metric(build, [(vec![("version", facts.version.as_str())], 1.0)]);
    let look = "When the daemon looked at the schedules last, Unix time.";
    let looked = facts.looked_at.map(|at| (Vec::new(), seconds(at)));
    page.metric(("cacheon_last_look_timestamp_seconds", Kind::Gauge, look), looked);
    let free = "Bytes that may still be written on the file system of the data directory.";
    let broken = facts.looked_at.map(|_| (Vec::new(), f64::from(facts.broken_files)));
    let help = "Number of watched files that are broken, with or without a last good version.";
    page.metric(("cacheon_broken_files", Kind::Gauge, help), broken);
    let room = facts.disk.map(|disk| (Vec::new(), disk.free_bytes as f64));
    page.metric(("cacheon_disk_free_bytes", Kind::Gauge, free), room);
    let size = facts.disk.map(|disk| (Vec::new(), disk.size_bytes as f64));
    page.metric(
        ("cacheon_disk_size_bytes", Kind::Gauge, "Size of the file system of the data directory."),
        size,
    );
    write_ticks(&mut page, facts);
    write_states(&mut page, facts, now);
    write_last_rounds(&mut page, facts);
    page.0
}

/// The counters, which come from the whole journal and so survive the daemon.
fn write_ticks(page: &mut Page, facts: &MetricsFacts) {
    // A tick that waits is not counted yet: a counter must not go down when it starts its round.
    let decided = || TickOutcome::ALL.iter().filter(|outcome| **outcome != TickOutcome::Waiting);
    let ticks = facts.pipelines.iter().flat_map(|(name, pipeline)| {
        decided().map(move |outcome| {
            let count = pipeline.ticks.get(outcome).copied().unwrap_or_default();
            (vec![("pipeline", name.as_str()), ("outcome", outcome.as_str())], count as f64)
        })
    });
    page.metric(("cacheon_ticks_total", Kind::Counter, "Ticks by what became of them."), ticks);
    let waiting = "Ticks that wait until they can start their round.";
    page.gauge(("cacheon_ticks_waiting", waiting), facts, |pipeline| {
        Some(pipeline.ticks.get(&TickOutcome::Waiting).copied().unwrap_or_default() as f64)
    });
    let codes: Vec<(&str, String, u64)> = facts
        .pipelines
        .iter()
        .flat_map(|(name, pipeline)| {
            pipeline.rounds.iter().map(move |(code, count)| (name.as_str(), code.to_string(), *count))
        })
        .collect();
    let rounds = codes
        .iter()
        .map(|(name, code, count)| (vec![("pipeline", *name), ("exit_code", code.as_str())], *count as f64));
    let help = "Ended rounds that ticks started, by exit code; 0 is done.";
    page.metric(("cacheon_rounds_total", Kind::Counter, help), rounds);
    let resumes = facts
        .pipelines
        .iter()
        .map(|(name, pipeline)| (vec![("pipeline", name.as_str())], pipeline.resumes as f64));
    let help = "How often unfinished rounds were taken up again.";
    page.metric(("cacheon_round_resumes_total", Kind::Counter, help), resumes);
}

/// How each pipeline stands now.
fn write_states(page: &mut Page, facts: &MetricsFacts, now: Timestamp) {
    let help = "When the last round was started, Unix time.";
    page.gauge(("cacheon_last_round_timestamp_seconds", help), facts, |pipeline| {
        pipeline.last_round_at.map(seconds)
    });
    let help = "When the last round with exit code 0 had ended, Unix time.";
    page.gauge(("cacheon_last_success_timestamp_seconds", help), facts, |pipeline| {
        pipeline.last_success_at.map(seconds)
    });
    let help = "How long ago the last round with exit code 0 had ended.";
    page.gauge(("cacheon_last_success_age_seconds", help), facts, |pipeline| {
        pipeline.last_success_at.map(|at| now.duration_since(at).as_secs_f64())
    });
    let help = "When the next tick is due, Unix time.";
    page.gauge(("cacheon_next_tick_timestamp_seconds", help), facts, |pipeline| {
        pipeline.next_tick_at.map(seconds)
    });
    let help = "Whether a process runs a round that a tick started.";
    page.gauge(("cacheon_round_running", help), facts, |pipeline| Some(flag(pipeline.is_running)));
    let help = "Whether the pipeline's file is broken and its last good version is in force.";
    page.gauge(("cacheon_pipeline_broken", help), facts, |pipeline| Some(flag(pipeline.is_broken)));
}

/// The steps of the last ended round of each pipeline.
fn write_last_rounds(page: &mut Page, facts: &MetricsFacts) {
    let last = || {
        facts.pipelines.iter().filter_map(|(name, pipeline)| Some((name.as_str(), pipeline.last.as_ref()?)))
    };
    let stages = last().flat_map(|(name, round)| {
        round.stage_ns.iter().map(move |(stage, spent)| {
            (vec![("pipeline", name), ("stage", stage.as_str())], *spent as f64 / 1e9)
        })
    });
    let help = "Time that the last ended round spent in a stage, over all attempts.";
    page.metric(("cacheon_stage_duration_seconds", Kind::Gauge, help), stages);
    let faults = last().flat_map(|(name, round)| {
        Fault::ALL.iter().map(move |fault| {
            let count = round.faults.get(fault).copied().unwrap_or_default();
            (vec![("pipeline", name), ("fault", fault.as_str())], count as f64)
        })
    });
    let help = "Failed steps of the last ended round by fault, over all attempts.";
    page.metric(("cacheon_step_faults", Kind::Gauge, help), faults);
}

fn seconds(at: Timestamp) -> f64 {
    at.as_microsecond() as f64 / 1e6
}

fn flag(is_set: bool) -> f64 {
    f64::from(u8::from(is_set))
}

/// The text so far.
#[derive(Debug, Default)]
struct Page(String);

impl Page {
    /// Writes a metric and its samples; nothing where there is no sample.
    fn metric<'a>(
        &mut self,
        (name, kind, help): (&str, Kind, &str),
        samples: impl IntoIterator<Item = Sample<'a>>,
    ) {
        let mut is_first = true;
        for (labels, value) in samples {
            if is_first {
                let kind = kind.as_str();
                // Writing into a text does not fail.
                let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
                is_first = false;
            }
            let labels: Vec<String> =
                labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }

    /// Writes a gauge with one sample for each pipeline that has a value.
    fn gauge(
        &mut self,
        (name, help): (&str, &str),
        facts: &MetricsFacts,
        value: impl Fn(&PipelineMetrics) -> Option<f64>,
    ) {
        let samples = facts
            .pipelines
            .iter()
            .filter_map(|(pipeline, found)| Some((vec![("pipeline", pipeline.as_str())], value(found)?)));
        self.metric((name, Kind::Gauge, help), samples);
    }
}

/// A label's value as it stands between quotes: backslash, quote and line feed are escaped, all else is as it is.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Conclusion, TickReason};

    fn tick(outcome: TickOutcome, minute: i64) -> TickRow {
        let at = minute * 60_000_000;
        TickRow {
            pipeline: "nightly".to_owned(),
            cron: "* * * * *".to_owned(),
            timezone: "UTC".to_owned(),
            nominal_at_us: at,
            scheduled_at_us: at,
            outcome,
            reason: None,
            detail: None,
            decided_at_us: at + 500_000,
            ticks: 1,
            round_id: None,
            resumes: 0,
            ended_at_us: None,
            exit_code: None,
        }
    }

    fn ended(minute: i64, exit_code: u32) -> TickRow {
        TickRow {
            round_id: Some(format!("nightly-{minute}")),
            ended_at_us: Some((minute * 60 + 30) * 1_000_000),
            exit_code: Some(exit_code),
            resumes: exit_code,
            ..tick(TickOutcome::Fired, minute)
        }
    }

    fn step(stage: &str, fault: Option<Fault>) -> StepAttemptRow {
        StepAttemptRow {
            round_id: "nightly-3".to_owned(),
            job: "a".to_owned(),
            leg: String::new(),
            attempt: 1,
            step_index: 0,
            step: stage.to_owned(),
            stage: stage.to_owned(),
            outcome: Conclusion::Success,
            conclusion: Conclusion::Success,
            fault,
            reason: None,
            detail: None,
            started_at_us: 0,
            duration_ns: 1_250_000_000,
        }
    }

    #[test]
    fn the_page_is_what_the_rows_say() {
        let missed =
            TickRow { ticks: 7, reason: Some(TickReason::NotWatched), ..tick(TickOutcome::Missed, 1) };
        let running = TickRow { round_id: Some("nightly-5".to_owned()), ..tick(TickOutcome::Late, 5) };
        let waiting = tick(TickOutcome::Waiting, 6);
        let mut pipelines = PipelineMetrics::of(&[missed, ended(2, 0), ended(3, 4), running, waiting]);
        let nightly = pipelines.get_mut("nightly").expect("counted");
        assert_eq!(nightly.last_ended.as_ref().map(|(_, id)| id.as_str()), Some("nightly-3"));
        nightly.last = Some(RoundMetrics::of(&[
            step("boot", Some(Fault::Infra)),
            step("boot", None),
            step("run", Some(Fault::Submission)),
        ]));
        (nightly.is_running, nightly.next_tick_at) = (true, Timestamp::from_second(420).ok());
        let broken = PipelineMetrics { is_broken: true, ..PipelineMetrics::default() };
        pipelines.insert("a \"new\\one\"\n".to_owned(), broken);
        let facts = MetricsFacts {
            version: "0.1.0".to_owned(),
            looked_at: Timestamp::from_second(380).ok(),
            broken_files: 2,
            disk: Some(DiskRoom { free_bytes: 5_000_000_000_000, size_bytes: 9_007_199_254_740_992 }),
            pipelines,
        };
        let text = metrics_text(&facts, Timestamp::from_millisecond(381_500).expect("an instant"));
        insta::assert_snapshot!(text);
    }

    #[test]
    fn before_the_first_look_there_is_the_version_alone() {
        let facts = MetricsFacts { version: "1".to_owned(), ..MetricsFacts::default() };
        let text = metrics_text(&facts, Timestamp::UNIX_EPOCH);
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines, ["cacheon_build_info{version=\"1\"} 1"]);
    }

    #[test]
    fn label_values_are_escaped() {
        let check = |value: &str, expected: &str| assert_eq!(escaped(value), expected, "{value:?}");
        check("plain, {a}='b' é", "plain, {a}='b' é");
        check("\"", "\\\"");
        check("\\", "\\\\");
        check("a\nb", "a\\nb");
        check("\\n", "\\\\n");
        check("\\\"\n", "\\\\\\\"\\n");
    }
}
