//! Jobs in processes of their own: orders, news, the report; and what a round makes of a process that fails it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use cacheon::adapters::job_process::JobProcess;
use cacheon::adapters::store::RoundDirectory;
use cacheon::artifact::{JournalEvent, LegAttempt};
use cacheon::model::{Conclusion, Seed};
use cacheon::pipeline::contexts::{ContextName, KnownContexts};
use cacheon::pipeline::expr::{Object, Status};
use cacheon::pipeline::{Pipeline, Source};
use cacheon::ports::{JobMessage, JobNews, JobOrder, JobRunner as _, JobStop};
use cacheon::schedule::AttemptEnd;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cacheon");
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A round's directory and orders for it.
struct Round {
    data: tempfile::TempDir,
}

impl Round {
    fn new() -> Self {
        let data = tempfile::tempdir().expect("temp dir");
        RoundDirectory::create(data.path(), &"r".parse().expect("id")).expect("round");
        Self { data }
    }

    /// The first attempt of the only job of a pipeline.
    fn order(&self, jobs: &str, runner: Option<&str>) -> JobOrder {
        let pipeline = Pipeline::parse(&Source::new("t.yml", &format!("name: t\njobs:\n{jobs}")));
        let pipeline = pipeline.unwrap_or_else(|found| panic!("{found}")).value;
        JobOrder {
            schema: JobOrder::SCHEMA,
            data_dir: self.data.path().to_owned(),
            round_id: "r".parse().expect("id"),
            seed: Seed::from_text("1"),
            at: LegAttempt { job: pipeline.jobs[0].id.clone(), leg: String::new(), attempt: 1 },
            pipeline: Arc::new(pipeline),
            runner: runner.map(|text| Source::new("runner.yml", text)),
            contexts: KnownContexts::default().with(ContextName::Env, Object::new().with("GREETING", "hi")),
            status: Status::Success,
            started_at_us: 1_800_000_000_000_000,
        }
    }

    fn attempt_dir(&self) -> PathBuf {
        self.data.path().join("rounds/round=r/jobs/a/_/attempt-1")
    }
}

/// `cacheon job FILE` in the project's root.
fn by_file(round: &Round, order: &JobOrder) -> Output {
    let path = round.data.path().join("order.json");
    std::fs::write(&path, serde_json::to_vec(order).expect("order")).expect("write");
    Command::new(PROGRAM).current_dir(ROOT).arg("job").arg(path).output().expect("starts")
}

fn messages(output: &Output) -> Vec<JobMessage> {
    let text = String::from_utf8(output.stdout.clone()).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("a message")).collect()
}

/// `name outcome` of each step that ended.
fn ended_steps(output: &Output) -> Vec<String> {
    let ended = messages(output).into_iter().filter_map(|message| match message {
        JobMessage::News(JobNews::Journal(JournalEvent::StepEnded { step, outcome, .. })) => {
            Some(format!("{} {outcome}", step.name))
        }
        _ => None,
    });
    ended.collect()
}

fn report(output: &Output) -> AttemptEnd {
    match messages(output).pop() {
        Some(JobMessage::Ended(end)) => end,
        other => panic!("{other:?}: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

#[test]
fn a_job_of_the_embedded_runner_boots_its_server_from_its_order() {
    let round = Round::new();
    let runner = std::fs::read_to_string(Path::new(ROOT).join("runners/embedded.yml")).expect("runner");
    let demo = std::fs::read_to_string(Path::new(ROOT).join("pipelines/demo.yml")).expect("demo");
    let scorer = demo.lines().skip_while(|line| !line.contains("image: embedded/scorer"));
    let scorer: Vec<&str> = scorer.take(2).map(str::trim).collect();
    let jobs = format!(
        "  a:
    runs-on: embedded
    outputs: {{ ready: \"${{{{ steps.boot.outputs.ready-ms }}}}\" }}
    steps:
      - id: boot
        uses: boot
        with: {{ {} }}
      - run: echo \"$GREETING ${{{{ machine.id }}}}\"
",
        scorer.join(", ")
    );
    let output = by_file(&round, &round.order(&jobs, Some(&runner)));
    let end = report(&output);
    assert_eq!((end.conclusion, end.reason), (Conclusion::Success, None));
    assert_eq!(end.started_at_us, 1_800_000_000_000_000);
    let ready = end.outputs["ready"].as_str().and_then(|text| text.parse::<u64>().ok());
    assert!(ready.is_some_and(|ready| ready > 0), "{:?}", end.outputs);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(ended_steps(&output), ["boot success", "1-run success"]);
    assert!(round.attempt_dir().join("server.log").exists());
    let log = std::fs::read_to_string(round.attempt_dir().join("step-1.log")).expect("log");
    assert_eq!(log, "hi embedded\n");
}

#[test]
fn an_attempt_runs_once() {
    let round = Round::new();
    let order = round.order("  a: { steps: [{ run: 'true' }] }\n", None);
    assert_eq!(report(&by_file(&round, &order)).conclusion, Conclusion::Success);
    let again = report(&by_file(&round, &order));
    assert_eq!(again.conclusion, Conclusion::Failure);
    let reason = again.reason.expect("a reason");
    assert_eq!(reason.code, "round-directory");
    assert!(reason.message.contains("exists"), "{reason}");
}

#[test]
fn what_is_no_order_is_told_and_nothing_runs() {
    let round = Round::new();
    let check = |text: &str, expected: &str| {
        let path = round.data.path().join("order.json");
        std::fs::write(&path, text).expect("write");
        let output = Command::new(PROGRAM).arg("job").arg(&path).output().expect("starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains(expected), "{said}");
        assert!(output.stdout.is_empty());
    };
    check("", "order is not valid");
    check("{\"schema\": \"9.0\"}", "version 9.0");
    check("{\"schema\": \"1.0\"}", "missing field");
    let missing = Command::new(PROGRAM).args(["job", "/nowhere/order.json"]).output().expect("starts");
    assert_eq!(missing.status.code(), Some(3));
}

/// `cacheon job -` told its order and some lines, its input left open if `is_open`; waits for its end.
fn by_input(order: &JobOrder, lines: &str, is_open: bool) -> Output {
    let mut child = Command::new(PROGRAM)
        .current_dir(ROOT)
        .args(["job", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut input = child.stdin.take().expect("input");
    let order = serde_json::to_string(order).expect("order");
    input.write_all(format!("{order}\n{lines}").as_bytes()).expect("write");
    let kept = is_open.then_some(input);
    let output = child.wait_with_output().expect("ends");
    drop(kept);
    output
}

#[test]
fn a_job_stops_when_it_is_told_and_when_nobody_is_there_any_more() {
    let check = |lines: &str, is_open: bool, expected: &[&str]| {
        let round = Round::new();
        let jobs = "  a:
    steps:
      - run: sleep 600
      - if: always()
        run: 'true'
";
        let output = by_input(&round.order(jobs, None), lines, is_open);
        assert_eq!(report(&output).conclusion, Conclusion::Cancelled, "{lines:?}");
        let ended = ended_steps(&output);
        assert!(ended.last().is_some_and(|last| expected.contains(&last.as_str())), "{lines:?}: {ended:?}");
    };
    check("\"cancel\"\n", true, &["1-run success"]);
    check("\"kill\"\n", true, &["1-run cancelled"]);
    check("", false, &["1-run cancelled"]);
    check("nonsense\n", true, &["1-run cancelled"]);
}

/// What a round hears of an attempt, and how it ended, when its process is this shell script.
async fn by_script(script: &str, stop: JobStop) -> (Vec<JobNews>, AttemptEnd) {
    use std::os::unix::fs::PermissionsExt;
    let round = Round::new();
    let program = round.data.path().join("program");
    std::fs::write(&program, format!("#!/bin/bash\n{script}\n")).expect("script");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("executable");
    let order = round.order("  a: { steps: [{ run: 'true' }] }\n", None);
    let (news, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let end = JobProcess::new(program).run(order, news, stop).await;
    let mut all = Vec::new();
    while let Ok(news) = heard.try_recv() {
        all.push(news);
    }
    (all, end)
}

#[tokio::test]
async fn a_process_that_gives_no_report_is_the_machines_fault() {
    let check = async |script: &str, code: &str, message: &str| {
        let (news, end) = by_script(script, JobStop::default()).await;
        let reason = end.reason.expect("a reason");
        assert_eq!((end.conclusion, reason.code.as_str()), (Conclusion::Failure, code), "{script}: {reason}");
        assert_eq!(reason.fault.as_str(), "infra");
        assert!(reason.message.contains(message), "{script}: {reason}");
        assert!(news.is_empty(), "{script}: {news:?}");
    };
    check("exit 3", "job-lost", "exit code 3").await;
    check("kill -9 $$", "job-lost", "signal 9").await;
    check("echo '{\"ended\": 1}'", "job-garbled", "no message").await;
    let other = r#"{"news":{"progress":{"job":"b","leg":"","doing":"x","done":1,"total":2}}}"#;
    check(&format!("echo '{other}'"), "job-garbled", "something else").await;
    check(&format!("head -c {} /dev/zero", JobOrder::MAX_BYTES + 2), "job-garbled", "a line of more").await;
    let (_, end) = by_script("", JobStop::default()).await;
    assert_eq!(end.conclusion, Conclusion::Failure);
}

/// On the paused clock: as soon as there is nothing to do but to wait, the wait is over.
#[tokio::test(start_paused = true)]
async fn a_process_that_does_not_end_is_killed() {
    let check = async |script: &str, stop: JobStop| {
        let (_, end) = by_script(script, stop).await;
        let reason = end.reason.expect("a reason");
        assert_eq!(reason.code, "job-lost");
        assert!(reason.message.contains("signal 9"), "{reason}");
    };
    // It neither reads its order nor ends by itself.
    let stop = JobStop::default();
    stop.now();
    check("exec sleep 600", stop).await;
    // It closes its output and stays.
    check("exec sleep 600 >&-", JobStop::default()).await;
}
