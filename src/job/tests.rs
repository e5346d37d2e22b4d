//! One attempt of a leg, with real scripts and tokio's paused clock: waits and limits take no time.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;

use super::InProcess;
use crate::adapters::shell::Shell;
use crate::adapters::store::RoundDirectory;
use crate::artifact::{JournalEvent, LegAttempt};
use crate::model::{Conclusion, Fault, Reason, Seed};
use crate::pipeline::contexts::{ContextName, KnownContexts};
use crate::pipeline::expr::{Object, Status};
use crate::pipeline::{Pipeline, Source};
use crate::ports::{JobNews, JobOrder, JobRunner as _, JobStop};
use crate::schedule::AttemptEnd;
use crate::stages::RunnerContext;

/// What became of an attempt.
struct Ran {
    end: AttemptEnd,
    /// Name, outcome, conclusion and reason of each step that ended.
    steps: Vec<(String, Conclusion, Conclusion, Option<Reason>)>,
}

impl Ran {
    /// `name outcome/conclusion` of each step that ended.
    fn steps(&self) -> Vec<String> {
        let text = |(name, outcome, conclusion, _): &(String, Conclusion, Conclusion, Option<Reason>)| {
            format!("{name} {outcome}/{conclusion}")
        };
        self.steps.iter().map(text).collect()
    }

    fn reason(&self) -> String {
        let reason = self.end.reason.as_ref();
        reason.map_or_else(String::new, |reason| format!("{}/{}", reason.fault, reason.code))
    }
}

/// Runs the only job of a pipeline on the controller.
async fn run(yaml: &str, cancel: CancellationToken) -> Ran {
    let pipeline =
        Pipeline::parse(&Source::new("t.yml", yaml)).unwrap_or_else(|found| panic!("{found}")).value;
    let data = tempfile::tempdir().unwrap();
    let round_id: crate::model::RoundId = "r".parse().unwrap();
    RoundDirectory::create(data.path(), &round_id).unwrap();
    let contexts = KnownContexts::default()
        .with(ContextName::Inputs, Object::new())
        .with(ContextName::Run, Object::new().with("id", "r"));
    let env = pipeline.env(&contexts).unwrap();
    let (news, mut heard) = unbounded_channel();
    let order = JobOrder {
        schema: JobOrder::SCHEMA,
        data_dir: data.path().to_owned(),
        round_id,
        seed: Seed::from_text("1"),
        at: LegAttempt { job: pipeline.jobs[0].id.clone(), leg: String::new(), attempt: 1 },
        pipeline: Arc::new(pipeline),
        runner: None,
        contexts: contexts.with(ContextName::Env, env),
        status: Status::Success,
        started_at_us: 0,
    };
    let stop = JobStop { cancel, kill: CancellationToken::new() };
    let end = InProcess::new(RunnerContext::controller(), Shell::unguarded()).run(order, news, stop).await;
    let mut steps = Vec::new();
    while let Ok(news) = heard.try_recv() {
        if let JobNews::Journal(JournalEvent::StepEnded { step, outcome, conclusion, reason, .. }) = news {
            steps.push((step.name, outcome, conclusion, reason));
        }
    }
    Ran { end, steps }
}

async fn ran(yaml: &str) -> Ran {
    run(yaml, CancellationToken::new()).await
}

#[tokio::test(start_paused = true)]
async fn a_step_sees_the_environment_of_all_levels() {
    let ran = ran("
env: { A: pipeline, B: pipeline, C: '${{ run.id }}' }
jobs:
  j:
    env: { B: job, D: '${{ env.A }}' }
    outputs:
      all: '${{ steps.s.outputs.all }}'
      number: { type: number, value: '${{ steps.s.outputs.number }}' }
      machine: '${{ machine.id }}'
    steps:
      - id: s
        env: { E: '${{ env.B }}' }
        run: |
          echo \"all=$A $B $C $D $E ${{ run.id }}\" >> \"$CACHEON_OUTPUT\"
          echo number=3 >> \"$CACHEON_OUTPUT\"
")
    .await;
    assert_eq!(ran.steps(), ["s success/success"], "{}", ran.reason());
    let expected = json!({"all": "pipeline job r pipeline job r", "number": 3, "machine": "controller"});
    assert_eq!(Json::Object(ran.end.outputs), expected);
}

#[tokio::test(start_paused = true)]
async fn a_step_is_tried_again_by_fault_and_no_more_often_than_told() {
    let yaml = |max: u32, on: &str, code: u8| {
        format!(
            "
jobs:
  j:
    outputs: {{ tries: '${{{{ steps.s.outputs.tries }}}}' }}
    steps:
      - id: s
        retry: {{ max: {max}, on: [{on}], backoff: {{ kind: linear, delay: 10h, max-delay: 15h }} }}
        run: |
          echo . >> \"$CACHEON_OUTPUT.tries\"
          test $(wc -l < \"$CACHEON_OUTPUT.tries\") -eq 3 || exit {code}
          echo tries=3 >> \"$CACHEON_OUTPUT\"
"
        )
    };
    // Exit code 75 is the machine's fault, 65 the submission's.
    let started = tokio::time::Instant::now();
    let tried = ran(&yaml(2, "infra", 75)).await;
    assert_eq!(tried.steps(), ["s success/success"], "{}", tried.reason());
    assert_eq!(tried.end.outputs["tries"], json!("3"));
    let waited = started.elapsed().as_secs() / 3600;
    assert_eq!(waited, 25, "ten hours, then twice ten cut to fifteen");
    let check = async |max, on, code, reason: &str| {
        let ran = ran(&yaml(max, on, code)).await;
        assert_eq!((ran.end.conclusion, ran.reason().as_str()), (Conclusion::Failure, reason));
    };
    check(1, "infra", 75, "infra/script-failed").await;
    check(2, "infra", 65, "submission/script-failed").await;
    check(2, "unknown", 75, "infra/script-failed").await;
}

#[tokio::test(start_paused = true)]
async fn a_step_that_takes_too_long_ends() {
    for limit in ["timeout: 7m", "timeout-minutes: 7"] {
        let ran = ran(&format!("jobs: {{j: {{steps: [{{run: sleep 3600, {limit}}}]}}}}")).await;
        assert_eq!((ran.end.conclusion, ran.reason().as_str()), (Conclusion::Failure, "unknown/timeout"));
        assert!(ran.end.reason.unwrap().message.contains("420 s"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_takes_too_long_ends() {
    for (defaults, own) in [
        ("", "timeout: 7m"),
        ("", "timeout-minutes: 7"),
        ("defaults: {timeout: 7m}\n", "name: x"),
        ("defaults: {timeout-minutes: 7}\n", "name: x"),
    ] {
        let yaml = format!("{defaults}jobs: {{j: {{{own}, steps: [{{run: sleep 3600}}, {{run: 'true'}}]}}}}");
        let ran = ran(&yaml).await;
        assert_eq!(ran.steps(), ["0-run failure/failure"], "{yaml}");
        assert_eq!(ran.reason(), "unknown/timeout");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tolerated_failure_lets_the_job_go_on() {
    let check = async |flag: &str, expected: &[&str]| {
        let yaml = format!(
            "
jobs:
  j:
    steps:
      - id: a
        env: {{ SOFT: 'yes' }}
        continue-on-error: {flag}
        run: exit 1
      - env: {{ SEEN: '${{{{ steps.a.outcome }}}} ${{{{ steps.a.conclusion }}}}' }}
        run: test \"$SEEN\" = 'failure success'
"
        );
        assert_eq!(ran(&yaml).await.steps(), expected, "{flag}");
    };
    check("true", &["a failure/success", "1-run success/success"]).await;
    check("\"${{ env.SOFT == 'yes' }}\"", &["a failure/success", "1-run success/success"]).await;
    check("\"${{ env.SOFT == 'no' }}\"", &["a failure/failure"]).await;
    check("\"${{ env.NONE }}\"", &["a failure/failure"]).await;
    check("false", &["a failure/failure"]).await;
}

#[tokio::test]
async fn after_a_cancellation_only_what_insists_runs() {
    let data = tempfile::tempdir().unwrap();
    let fifo = data.path().join("started");
    let yaml = format!(
        "
jobs:
  j:
    steps:
      - id: long
        run: mkfifo {0}; echo > {0}; sleep 3600
      - id: next
        run: 'true'
      - id: insists
        if: always()
        run: 'true'
      - id: asks
        if: cancelled()
        run: 'true'
",
        fifo.display()
    );
    let cancel = CancellationToken::new();
    let running = tokio::spawn({
        let cancel = cancel.clone();
        async move { run(&yaml, cancel).await }
    });
    // Opening the pipe waits for the script to open its end.
    let has_started = tokio::time::timeout(Duration::from_mins(1), async {
        while tokio::fs::read(&fifo).await.is_err() {
            tokio::task::yield_now().await;
        }
    });
    has_started.await.expect("the script starts");
    cancel.cancel();
    let ran = running.await.unwrap();
    assert_eq!(ran.steps(), ["long cancelled/cancelled", "insists success/success", "asks success/success"]);
    assert_eq!(ran.end.conclusion, Conclusion::Cancelled);
    assert_eq!(ran.end.reason.unwrap().fault, Fault::Operator);
}
