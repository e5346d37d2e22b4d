//! Stages done again from what is kept of them: nothing is measured, and what is left is compared by others.

use serde_json::{Map, Value as Json};

use super::{
    JobContext, StageError, benchmark, data_dir, plan_confirm, plan_reads, plan_repeats, publish, rank,
    set_weights, verify_logprobs,
};
use crate::artifact::Table as _;
use crate::model::StreamRow;
use crate::pipeline::stage::{StageCall, StageOutput};

/// Whether the raw streams of the attempt were removed since, on record.
fn are_streams_removed(context: &JobContext<'_>) -> Result<bool, StageError> {
    let path = format!("{}/{}.parquet", data_dir(context), StreamRow::NAME);
    Ok(context.round.kept.read_removed()?.get(&path).is_some())
}

/// Does a stage of an attempt again, from the files that the attempt left in `kept` and the outputs it `recorded`. None
/// where only the world could do it (read a chain, pull an image, boot a server): what was recorded of it is evidence.
///
/// Of `benchmark` and `verify-logprobs` the streams that came and the scorer's answers are evidence, and all that
/// follows from them is derived again.
///
/// # Errors
/// As the stage itself, and where files are missing or are not what was planned.
pub fn again(
    call: StageCall,
    recorded: &Map<String, Json>,
    context: &JobContext<'_>,
) -> Result<Option<StageOutput>, StageError> {
    Ok(match call {
        StageCall::FetchCommitments(_) | StageCall::Pull(_) | StageCall::Boot(_) | StageCall::WarmUp(_) => {
            None
        }
        StageCall::PlanReads(with) => Some(StageOutput::PlanReads(plan_reads::run(&with, context)?)),
        StageCall::Benchmark(_) if are_streams_removed(context)? => None,
        StageCall::Benchmark(with) => Some(StageOutput::Benchmark(benchmark::again(&with, context)?)),
        StageCall::VerifyLogprobs(with) => {
            Some(StageOutput::VerifyLogprobs(verify_logprobs::again(&with, context)?))
        }
        StageCall::PlanRepeats(with) => Some(StageOutput::PlanRepeats(plan_repeats::run(&with, context)?)),
        StageCall::PlanConfirm(with) => Some(StageOutput::PlanConfirm(plan_confirm::run(&with, context)?)),
        StageCall::Rank(with) => Some(StageOutput::Rank(rank::run(&with, context)?)),
        StageCall::Publish(with) => {
            let mut output = publish::run(&with, context)?;
            // Where the round lay then, a round may be moved.
            let path = recorded.get("path").and_then(Json::as_str);
            path.unwrap_or_default().clone_into(&mut output.path);
            Some(StageOutput::Publish(output))
        }
        StageCall::SetWeights(with) => Some(StageOutput::SetWeights(set_weights::run(&with, context)?)),
    })
}
