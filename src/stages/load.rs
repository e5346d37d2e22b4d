//! A run of the load client, as the stages that send requests have it.

use super::{JobContext, StageError};
use crate::client::{LoadPlan, LoadResult, run_single_stream};
use crate::measure::{Capture, Observation};

/// What became of a request that failed, in words.
pub(super) fn what_failed(capture: &Capture, seen: &Observation) -> String {
    let http = capture.http_status.map(|code| format!(" (HTTP {code})")).unwrap_or_default();
    let words = seen.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    format!("{}{http}{words}", seen.status)
}

/// Runs the load, hands on what comes and tells how far it is; an early end of the server ends it by its failing
/// requests.
pub(super) async fn run_load(
    plan: LoadPlan,
    doing: &str,
    context: &JobContext<'_>,
    mut take: impl FnMut(Capture) -> Result<(), StageError>,
) -> Result<LoadResult, StageError> {
    let total = plan.bodies.len();
    let (sender, mut ended) = tokio::sync::mpsc::channel(1);
    // Dropping this stage's future, as cancellation does, stops the load's thread too.
    let cancel = context.cancel.child_token().drop_guard();
    let mut running = std::pin::pin!(run_single_stream(plan, sender, cancel.token().clone()));
    let (mut result, mut done) = (None, 0);
    loop {
        tokio::select! {
            capture = ended.recv() => {
                let Some(capture) = capture else { break };
                take(capture)?;
                done += 1;
                context.tell(doing, done, total);
            }
            ran = &mut running, if result.is_none() => result = Some(ran),
        }
    }
    let result = match result {
        Some(ran) => ran,
        None => running.await,
    };
    result.map_err(|source| StageError::Machine { attempted: "run the load client".to_owned(), source })
}
