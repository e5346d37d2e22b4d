//! Whether anybody else uses the machine: before the first request of a read, and while it is measured.
//!
//! What the machine's processors did, less what this process and the server with all that it started did, was done by
//! others: what an earlier server left behind, a job of the operator, a neighbour on the same host. Whoever did it, the
//! read is no measurement.

use std::time::Duration;

use tokio::time::Instant;

use super::{JobContext, StageError};
use crate::adapters::machine::{Spent, Usage, own_cpu_time};

/// How long the machine is watched at a time; the kernel counts in steps of 10 ms.
const WINDOW: Duration = Duration::from_millis(500);

/// What is asked of the machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Idle {
    /// Largest share of the processors' time that others may use, on average.
    pub max_share: f64,
    /// How long the machine may take to come to that.
    pub within: Duration,
}

/// The state of the machine at an instant.
pub(super) struct Watch {
    at: Instant,
    usage: Usage,
    own: Duration,
    server: Duration,
}

impl Watch {
    /// Begins to watch. None where the server has ended, whose requests will fail.
    ///
    /// # Errors
    /// Where the machine does not tell what its processors do.
    pub(super) async fn begin(context: &JobContext<'_>) -> Result<Option<Self>, StageError> {
        let Some(server) = context.server()?.server.cpu_time().await else { return Ok(None) };
        let failed = |source| StageError::Machine {
            attempted: "read what the machine's processors do".to_owned(),
            source,
        };
        let usage = Usage::now().map_err(failed)?;
        Ok(Some(Self { at: Instant::now(), usage, own: own_cpu_time(), server }))
    }

    /// What others used since this instant: their share of the processors' time, from 0 to 1. None where the server has
    /// ended.
    ///
    /// # Errors
    /// Where the machine does not tell what its processors do.
    pub(super) async fn foreign(&self, context: &JobContext<'_>) -> Result<Option<f64>, StageError> {
        let Some(now) = Self::begin(context).await? else { return Ok(None) };
        let Spent { used, of } = now.usage.since(&self.usage, now.at.duration_since(self.at));
        let ours = now.own.saturating_sub(self.own) + now.server.saturating_sub(self.server);
        let share = used.saturating_sub(ours).as_secs_f64() / of.as_secs_f64();
        // No time has passed where it is not finite.
        Ok(Some(if share.is_finite() { share } else { 0.0 }))
    }
}

impl Idle {
    /// Waits until others leave the machine alone for a while.
    ///
    /// # Errors
    /// [`StageError::NotIdle`] where they do not in time.
    pub(super) async fn wait(self, context: &JobContext<'_>) -> Result<(), StageError> {
        let begun = Instant::now();
        loop {
            let Some(watch) = Watch::begin(context).await? else { return Ok(()) };
            tokio::time::sleep(WINDOW).await;
            let Some(share) = watch.foreign(context).await? else { return Ok(()) };
            match self.check(share, "before the read") {
                Err(_) if begun.elapsed() < self.within => {
                    context.tell("wait for an idle machine", 0, 0);
                }
                checked => return checked,
            }
        }
    }

    /// Whether the share that others used is little enough.
    ///
    /// # Errors
    /// [`StageError::NotIdle`] where it is not.
    pub(super) fn check(self, share: f64, when: &'static str) -> Result<(), StageError> {
        if share <= self.max_share {
            return Ok(());
        }
        Err(StageError::NotIdle { share, limit: self.max_share, when })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_above_the_limit_is_told_with_both() {
        let idle = Idle { max_share: 0.05, within: Duration::ZERO };
        assert!(idle.check(0.0, "now").is_ok());
        assert!(idle.check(0.05, "now").is_ok());
        assert_eq!(
            idle.check(0.125, "now").expect_err("more").to_string(),
            "others used 12.5% of this machine's processors now, at most 5.0% is a measurement; `top` shows who"
        );
        assert!(idle.check(f64::NAN, "now").is_err());
    }
}
