//! `warm-up`: conditions a server with prompts of the same kind as the benchmark's, and none of the same.
//!
//! It is outside the score, bounded in time, and the same in every arm. Its requests are not kept: what they
//! show, the benchmark shows.

use std::time::Instant;

use super::{JobContext, StageError};
use crate::client::{Deadline, Limits, LoadPlan, run_single_stream};
use crate::measure::{AnswerBounds, RequestShape, Workload, request_body};
use crate::model::MAX_PROMPTS;
use crate::pipeline::stage::TimeSpan;
use crate::pipeline::stage::warm_up::{Output, Parameters};
use bytes::Bytes;

pub(super) async fn run(parameters: Parameters, context: &mut JobContext<'_>) -> Result<Output, StageError> {
    let started = Instant::now();
    let TimeSpan(limit) = parameters.deadline;
    let shape = RequestShape {
        model: context.server()?.model_name.clone(),
        max_tokens: parameters.max_tokens,
        top_logprobs: parameters.top_logprobs,
        seed: 0,
    };
    // The leg enters the seed: no two launches are conditioned with the same prompts.
    let seed = context.round.seed.derive(&["warm-up", &context.leg, &context.attempt.to_string()]);
    let prompts = Workload::prompts(&seed, parameters.requests.min(MAX_PROMPTS));
    let bodies =
        prompts.iter().map(|prompt| Bytes::from(request_body(&shape, &prompt.text))).collect::<Vec<_>>();
    let total = bodies.len();
    let target = super::benchmark::target(&parameters.endpoint)?;
    let (sender, mut ended) = tokio::sync::mpsc::channel(1);
    let mut done = 0;
    let cancel = context.cancel.child_token();
    let answer = AnswerBounds::of(shape.max_tokens, shape.top_logprobs);
    let plan = LoadPlan { target, bodies, limits: Limits { deadline: Deadline(limit), answer }, until: None };
    let mut running = std::pin::pin!(run_single_stream(plan, sender, cancel.clone()));
    let mut limit = std::pin::pin!(tokio::time::sleep(limit));
    let result = loop {
        tokio::select! {
            result = &mut running => break result,
            Some(_) = ended.recv() => {
                done += 1;
                context.tell("warm-up", done, total);
            }
            () = &mut limit, if !cancel.is_cancelled() => cancel.cancel(),
        }
    };
    while ended.recv().await.is_some() {
        done += 1;
    }
    result.map_err(|source| StageError::Machine { attempted: "run the load client".to_owned(), source })?;
    let took = started.elapsed();
    context.notes.warm_up = Some(took);
    Ok(Output { requests: done as u64, duration_ms: took.as_millis() as u64 })
}
