//! `warm-up`: conditions a server with prompts of the same kind as the benchmark's, and none of the same.
//!
//! It is outside the score, bounded in time, and the same in every arm. Its answers are not kept, and count all the same: a
//! server that is healthy by its own word and fails a request here is not measured.

use std::time::{Duration, Instant};

use super::load::{run_load, what_failed};
use super::prompts::{for_warm_up, keep_corpora};
use super::{JobContext, StageError};
use crate::client::{Deadline, Limits, LoadPlan};
use crate::measure::{AnswerBounds, Capture, RequestShape, ResponseBounds, observe, request_body};
use crate::model::RequestStatus;
use crate::pipeline::stage::TimeSpan;
use crate::pipeline::stage::warm_up::{Output, Parameters};
use bytes::Bytes;

pub(super) async fn run(parameters: Parameters, context: &mut JobContext<'_>) -> Result<Output, StageError> {
    let TimeSpan(limit) = parameters.deadline;
    let shape = RequestShape {
        model: context.server()?.boot.model_name.clone(),
        max_tokens: parameters.max_tokens,
        top_logprobs: parameters.top_logprobs,
        seed: 0,
    };
    keep_corpora(&parameters.workload, context)?;
    let prompts = for_warm_up(&parameters.workload, parameters.requests, context)?;
    let started = Instant::now();
    let bodies =
        prompts.iter().map(|prompt| Bytes::from(request_body(&shape, &prompt.text))).collect::<Vec<_>>();
    let total = bodies.len();
    let target = super::benchmark::target(&parameters.endpoint, context)?;
    let answer = AnswerBounds::of(shape.max_tokens, shape.top_logprobs);
    let limits = Limits { deadline: Deadline(limit), answer };
    let plan = LoadPlan { target, bodies, limits, until: started.checked_add(limit) };
    let mut seen = Seen::default();
    let take = |capture: Capture| {
        seen.take(&capture);
        Ok(())
    };
    run_load(plan, "warm-up", context, take).await?;
    let took = started.elapsed();
    seen.check(total, took)?;
    context.notes.warm_up = Some(took);
    Ok(Output { requests: seen.answered as u64, duration_ms: took.as_millis() as u64 })
}

/// What became of the requests.
#[derive(Debug, Default)]
struct Seen {
    sent: usize,
    answered: usize,
    was_heard: bool,
    /// Requests that failed, and why the first of them did.
    failed: usize,
    first: Option<String>,
}

impl Seen {
    fn take(&mut self, capture: &Capture) {
        self.sent += 1;
        self.was_heard |= capture.was_heard();
        let seen = observe(capture, &ResponseBounds::default());
        match seen.status {
            RequestStatus::Ok => self.answered += 1,
            // Time is bounded: who is slow shows it in the benchmark.
            RequestStatus::Timeout => {}
            _ => {
                self.failed += 1;
                self.first.get_or_insert_with(|| what_failed(capture, &seen));
            }
        }
    }

    /// A healthy server is one that answers: every request that came to its end did so well, and there is one.
    fn check(&self, planned: usize, waited: Duration) -> Result<(), StageError> {
        if let Some(first) = self.first.clone() {
            return Err(StageError::WarmUp { sent: self.sent, failed: self.failed, first });
        }
        if planned > 0 && !self.was_heard {
            return Err(StageError::Silent { sent: self.sent, planned, waited });
        }
        if planned > 0 && self.answered == 0 {
            let first = format!("no answer came to its end within {:.1} s", waited.as_secs_f64());
            return Err(StageError::WarmUp { sent: self.sent, failed: self.sent, first });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{End, Piece};

    const ANSWER: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\n\
                          data: [DONE]\n\n";

    fn capture(status: Option<u16>, body: &str, end: End) -> Capture {
        Capture {
            http_status: status,
            content_type: status.map(|_| "text/event-stream".to_owned()),
            pieces: (!body.is_empty())
                .then(|| Piece { at_ns: 5, bytes: body.as_bytes().to_vec() })
                .into_iter()
                .collect(),
            end,
            ..Capture::default()
        }
    }

    fn check(captures: &[Capture]) -> Result<(), String> {
        let mut seen = Seen::default();
        for capture in captures {
            seen.take(capture);
        }
        seen.check(captures.len(), Duration::from_secs(4)).map_err(|error| error.reason().to_string())
    }

    #[test]
    fn every_answer_counts() {
        let good = || capture(Some(200), ANSWER, End::Eof);
        let cut = || capture(Some(200), "", End::Timeout);
        assert_eq!(check(&[good(), good()]), Ok(()));
        assert_eq!(check(&[]), Ok(()));
        // The last one may be cut by the end of the warm-up.
        assert_eq!(check(&[good(), cut()]), Ok(()));
        let said = check(&[good(), capture(Some(500), "out of memory", End::Eof)]).expect_err("an error");
        assert!(
            said.contains("warm-up-failed") && said.contains("of 2 requests to warm up, 1 failed"),
            "{said}"
        );
        assert!(said.contains("HTTP 500") && said.contains("out of memory"), "{said}");
        let said = check(&[cut()]).expect_err("no answer");
        assert!(said.contains("no answer came to its end within 4.0 s"), "{said}");
        let said = check(&[capture(None, "", End::Timeout)]).expect_err("silence");
        assert!(said.contains("no-answer") && said.contains("no byte came"), "{said}");
    }
}
