//! Whether anybody else uses the machine: before the first request of a read, and while it is measured.
//!
//! What the machine's processors did, less what this process and the server with all that it started did, was done by
//! others: what an earlier server left behind, a job of the operator, a neighbour on the same host. Whoever did it, the
//! read is no measurement.
//!
//! What waited for memory or a disk, the kernel tells of all tasks together. Before the read that is enough: nothing is timed
//! yet, so that nobody gains by a wait of their own. While it is measured, the wait may be the server's own; a candidate
//! that makes its own read void would choose between attempts of it. So it voids the baseline's reads alone, and stands in
//! the row of each.

use std::cmp::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::{JobContext, StageError};
use crate::adapters::machine::{Spent, Stalls, Usage, available_memory, own_cpu_time};

/// How long the machine is watched at a time; the kernel counts in steps of 10 ms.
const WINDOW: Duration = Duration::from_millis(500);

/// What is asked of the machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Idle {
    /// Largest share of the processors' time that others may use, on average.
    pub max_share: f64,
    /// Largest share of the time in which something may wait for memory, and the same for a disk.
    pub max_stall: f64,
    /// The least memory that has to be free before the read, in MiB; none where nothing is asked.
    pub min_free_mib: Option<u64>,
    /// How long the machine may take to come to that.
    pub within: Duration,
}

/// The state of the machine at an instant.
pub(super) struct Watch {
    at: Instant,
    usage: Usage,
    own: Duration,
    server: Duration,
    stalls: Stalls,
}

/// What was seen of others over some time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Others {
    /// Their share of the processors' time, from 0 to 1.
    pub cpu: f64,
    /// Share of the time in which something waited for memory, the server and this program included; none where the kernel
    /// does not say.
    pub memory_stall: Option<f64>,
    /// The same for a disk.
    pub io_stall: Option<f64>,
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
        let stalls = Stalls::now();
        Ok(Some(Self { at: Instant::now(), usage, own: own_cpu_time(), server, stalls }))
    }

    /// What was seen of others since this instant. None where the server has ended.
    ///
    /// # Errors
    /// Where the machine does not tell what its processors do.
    pub(super) async fn others(&self, context: &JobContext<'_>) -> Result<Option<Others>, StageError> {
        let Some(now) = Self::begin(context).await? else { return Ok(None) };
        let elapsed = now.at.duration_since(self.at);
        let Spent { used, of } = now.usage.since(&self.usage, elapsed);
        let ours = now.own.saturating_sub(self.own) + now.server.saturating_sub(self.server);
        Ok(Some(Others {
            cpu: share(used.saturating_sub(ours), of),
            memory_stall: stall(self.stalls.memory, now.stalls.memory, elapsed),
            io_stall: stall(self.stalls.io, now.stalls.io, elapsed),
        }))
    }
}

/// A share of some time.
fn share(part: Duration, of: Duration) -> f64 {
    let share = part.as_secs_f64() / of.as_secs_f64();
    // No time has passed where it is not finite.
    if share.is_finite() { share } else { 0.0 }
}

/// The share of a time in which something waited; the two instants are not read at once with the clock.
fn stall(before: Option<Duration>, after: Option<Duration>, elapsed: Duration) -> Option<f64> {
    Some(share(after?.saturating_sub(before?), elapsed).min(1.0))
}

impl Idle {
    /// Waits until others leave the machine alone for a while.
    ///
    /// # Errors
    /// [`StageError::NotIdle`], [`StageError::Stalled`] or [`StageError::LowMemory`] where they do not in time.
    pub(super) async fn wait(self, context: &JobContext<'_>) -> Result<(), StageError> {
        let begun = Instant::now();
        loop {
            let Some(watch) = Watch::begin(context).await? else { return Ok(()) };
            tokio::time::sleep(WINDOW).await;
            let Some(others) = watch.others(context).await? else { return Ok(()) };
            let when = "before the read";
            let checked = self
                .check(others.cpu, when)
                .and_then(|()| self.check_stalls(&others, when))
                .and_then(|()| self.check_memory(available_memory()));
            match checked {
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

    /// Whether little enough waited for memory and disks. What the kernel does not say is not looked at.
    ///
    /// # Errors
    /// [`StageError::Stalled`] where too much did.
    pub(super) fn check_stalls(self, others: &Others, when: &'static str) -> Result<(), StageError> {
        let stalls = [("memory", others.memory_stall), ("a disk", others.io_stall)];
        for (what, share) in stalls.into_iter().filter_map(|(what, share)| Some((what, share?))) {
            // One that is no number is too much.
            if !matches!(share.partial_cmp(&self.max_stall), Some(Ordering::Less | Ordering::Equal)) {
                return Err(StageError::Stalled { what, share, limit: self.max_stall, when });
            }
        }
        Ok(())
    }

    /// Whether enough memory is free.
    ///
    /// # Errors
    /// [`StageError::LowMemory`] where it is not, or the kernel does not say and something is asked.
    fn check_memory(self, available: Option<u64>) -> Result<(), StageError> {
        let free_mib = available.map(|bytes| bytes >> 20);
        match self.min_free_mib {
            Some(limit_mib) if free_mib.is_none_or(|free| free < limit_mib) => {
                Err(StageError::LowMemory { free_mib: free_mib.unwrap_or_default(), limit_mib })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Idle = Idle { max_share: 0.05, max_stall: 0.05, min_free_mib: None, within: Duration::ZERO };

    #[test]
    fn a_share_above_the_limit_is_told_with_both() {
        assert!(IDLE.check(0.0, "now").is_ok());
        assert!(IDLE.check(0.05, "now").is_ok());
        assert_eq!(
            IDLE.check(0.125, "now").expect_err("more").to_string(),
            "others used 12.5% of this machine's processors now, at most 5.0% is a measurement; `top` shows who"
        );
        assert!(IDLE.check(f64::NAN, "now").is_err());
    }

    #[test]
    fn a_stall_above_the_limit_is_told_with_its_cause() {
        let check = |memory_stall, io_stall, expected: Option<&str>| {
            let others = Others { cpu: 1.0, memory_stall, io_stall };
            let found = IDLE.check_stalls(&others, "now").err();
            assert_eq!(found.as_ref().map(ToString::to_string).as_deref(), expected);
            assert!(found.is_none_or(|error| error.reason().code == "machine-not-idle"));
        };
        check(None, None, None);
        check(Some(0.0), Some(0.05), None);
        check(Some(0.05), None, None);
        check(
            Some(0.125),
            Some(1.0),
            Some(
                "something on this machine waited for memory in 12.5% of the time now, at most 5.0% is a measurement",
            ),
        );
        check(
            Some(0.0),
            Some(0.25),
            Some(
                "something on this machine waited for a disk in 25.0% of the time now, at most 5.0% is a measurement",
            ),
        );
        assert!(IDLE.check_stalls(&Others { io_stall: Some(f64::NAN), ..Others::default() }, "now").is_err());
        let second = Duration::from_secs(1);
        assert_eq!(stall(Some(second), Some(second * 3 / 2), second), Some(0.5));
        assert_eq!(stall(Some(second), Some(second * 9), second), Some(1.0));
        assert_eq!(stall(Some(second), Some(Duration::ZERO), second), Some(0.0));
        assert_eq!(stall(None, Some(second), second), None);
        assert_eq!(stall(Some(second), Some(second), Duration::ZERO), Some(0.0));
    }

    #[test]
    fn memory_is_free_where_something_is_asked() {
        assert!(IDLE.check_memory(Some(0)).is_ok());
        let idle = Idle { min_free_mib: Some(1024), ..IDLE };
        assert!(idle.check_memory(Some(1 << 30)).is_ok());
        assert_eq!(
            idle.check_memory(Some((1 << 30) - 1)).expect_err("less").to_string(),
            "1023 MiB of this machine's memory are free before the read, at least 1024 MiB are asked for"
        );
        assert!(idle.check_memory(None).is_err());
    }
}
