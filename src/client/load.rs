//! The load generator: which request when, and how well the client itself kept up.
//!
//! Single stream so far: one request at a time, the next when the last has ended. It runs on a thread and a
//! runtime of its own, so that no other work of the program stands between a byte and its stamp.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::exchange::{Deadline, Limits, Target, exchange};
use crate::measure::capture::Capture;

/// Period of the client's own heartbeat.
const HEARTBEAT: Duration = Duration::from_millis(5);

/// Which requests are sent, and where.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// The server and path they go to.
    pub target: Target,
    /// Serialised request bodies in order.
    pub bodies: Vec<Bytes>,
    /// The most that each request may take.
    pub limits: Limits,
    /// When the run is over: the request under way ends there as at its deadline, and no other is sent.
    pub until: Option<Instant>,
}

/// How a run of requests went, beside the captures that were handed on.
#[derive(Debug, Clone)]
pub struct LoadResult {
    /// How well the client kept up.
    pub health: ClientHealth,
    /// Time from the first request's send to the last one's end.
    pub duration: Duration,
}

/// How well the client kept up while it measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientHealth {
    /// Median lateness of the client's own timer; none before the first beat.
    pub lag_p50: Option<Duration>,
    /// 99th percentile of that lateness; none before the first beat.
    pub lag_p99: Option<Duration>,
    /// CPU time of the client's thread while it measured.
    pub cpu: Duration,
}

/// Sends the requests one after the other and returns when the last has ended.
///
/// Each capture is handed on as soon as its request has ended, in order, with its place in the plan for the prompt's number;
/// fewer than planned only if cancelled, or when the run is over. No request is sent before the last capture is taken, or
/// waits in the channel: whoever takes them bounds the memory.
///
/// # Errors
/// Where the thread or its runtime could not be started, or the thread died.
///
/// # Cancel safety
/// Stops by the token only; dropping the future leaves the thread running to the end of its request.
pub async fn run_single_stream(
    plan: LoadPlan,
    captures: Sender<Capture>,
    cancel: CancellationToken,
) -> std::io::Result<LoadResult> {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("load".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let outcome = runtime.map(|runtime| runtime.block_on(single_stream(&plan, captures, &cancel)));
        // The receiver is gone only if the whole job is.
        let _ = done.send(outcome);
    })?;
    result.await.map_err(|_| std::io::Error::other("the load thread ended without a result"))?
}

async fn single_stream(plan: &LoadPlan, captures: Sender<Capture>, cancel: &CancellationToken) -> LoadResult {
    let origin = Instant::now();
    let cpu_before = thread_cpu();
    let mut lags = Lags::default();
    let (mut first_send, mut last_end) = (None, 0);
    {
        let work = async {
            for (index, body) in plan.bodies.iter().enumerate() {
                let left = plan.until.map(|until| until.saturating_duration_since(Instant::now()));
                if left.is_some_and(|left| left.is_zero()) {
                    break;
                }
                let Deadline(limit) = plan.limits.deadline;
                let deadline = Deadline(left.map_or(limit, |left| left.min(limit)));
                let limits = Limits { deadline, ..plan.limits };
                let mut capture = exchange(&plan.target, body.clone(), origin, limits).await;
                capture.prompt_index = u32::try_from(index).unwrap_or(u32::MAX);
                first_send.get_or_insert(capture.send_offset_ns);
                last_end = capture.send_offset_ns + capture.end_ns;
                // Nobody may be listening any more; the load is then about to be cancelled.
                let _ = captures.send(capture).await;
            }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            () = work => {}
            () = heartbeat(&mut lags) => {}
        }
    }
    let cpu = thread_cpu().saturating_sub(cpu_before);
    let health = ClientHealth { lag_p50: lags.quantile(0.5), lag_p99: lags.quantile(0.99), cpu };
    let first_send = first_send.unwrap_or(last_end);
    LoadResult { health, duration: Duration::from_nanos(last_end.saturating_sub(first_send)) }
}

/// Beats for ever and notes how late each beat came.
async fn heartbeat(lags: &mut Lags) {
    loop {
        let due = Instant::now() + HEARTBEAT;
        tokio::time::sleep_until(due.into()).await;
        lags.take(due.elapsed());
    }
}

/// How late the beats came, as counts: a server that makes a read last for hours must not cost memory by it.
#[derive(Debug, Default)]
struct Lags {
    beats: u64,
    counts: BTreeMap<Duration, u64>,
}

impl Lags {
    /// Counts a beat, its lateness rounded up to 10 us, and to 1 ms from 100 ms on.
    fn take(&mut self, lag: Duration) {
        let step = if lag < Duration::from_millis(100) { 10 } else { 1000 };
        let micros = u64::try_from(lag.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
        let rounded = Duration::from_micros(micros.div_ceil(step).saturating_mul(step));
        *self.counts.entry(rounded).or_default() += 1;
        self.beats += 1;
    }

    /// The lateness that this share of the beats did not exceed; none before the first beat.
    fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = ((self.beats as f64 * share) as u64).min(self.beats.saturating_sub(1));
        let mut before = 0;
        let mut reached = self.counts.iter().skip_while(|(_, count)| {
            before += **count;
            before <= rank
        });
        reached.next().map(|(lag, _)| *lag)
    }
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_is_counted_and_not_kept() {
        let mut lags = Lags::default();
        assert_eq!(lags.quantile(0.5), None);
        for micros in (1..=1_000_u64).rev() {
            lags.take(Duration::from_micros(micros));
        }
        assert_eq!(lags.counts.len(), 100);
        let at = |share: f64| lags.quantile(share).expect("beats").as_micros();
        assert_eq!([at(0.0), at(0.5), at(0.99), at(1.0)], [10, 510, 1_000, 1_000]);
        lags.take(Duration::from_nanos(250_000_001));
        assert_eq!(lags.quantile(1.0), Some(Duration::from_millis(251)));
    }
}
