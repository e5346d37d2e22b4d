//! Tells those who watch the schedule daemon how it is: Prometheus over HTTP, systemd over its socket.

use std::net::SocketAddr;
use std::path::Path;

use jiff::Timestamp;
use sd_notify::NotifyState;

use crate::cli::say;
use crate::error::Error;
use crate::report::metrics::MetricsFacts;
use crate::serve::{Gatherer, MetricsServer, Watched};
use crate::ticks::Keeper;

/// Who watches the daemon, and what they were told.
pub(super) struct Observer {
    gatherer: Gatherer,
    server: Option<MetricsServer>,
    is_ready: bool,
    is_stopping: bool,
    /// Whether systemd's socket refused, which is said once.
    has_refused: bool,
}

impl Observer {
    /// Begins to serve metrics, if an address is given.
    ///
    /// # Errors
    /// When nobody can listen there: the address is not this machine's, the port is in use or may not be taken.
    pub(super) async fn begin(address: Option<SocketAddr>, data_dir: &Path) -> Result<Self, Error> {
        let server = match address {
            None => None,
            Some(address) => {
                let refused = |source| Error::Usage(format!("cannot serve metrics at {address}: {source}"));
                Some(MetricsServer::begin(address).await.map_err(refused)?)
            }
        };
        if let Some(address) = server.as_ref().map(MetricsServer::address) {
            say(&format!("metrics are at http://{address}/metrics, health is at http://{address}/healthz"));
            if !address.ip().is_loopback() {
                say(
                    "they are not for this machine alone: whoever reaches the port reads them, without a password",
                );
            }
        }
        let gatherer = Gatherer::of(data_dir);
        Ok(Self { gatherer, server, is_ready: false, is_stopping: false, has_refused: false })
    }

    /// Tells of a look that has just been done.
    pub(super) fn looked(&mut self, keeper: &Keeper, now: Timestamp) {
        if let Some(server) = &self.server {
            let watched = keeper.pipelines().iter().map(|pipeline| Watched {
                name: &pipeline.name,
                schedules: &pipeline.schedules,
                is_broken: pipeline.broken.is_some(),
            });
            let facts = self.gatherer.facts(now, keeper.lines(), watched);
            server.looked(MetricsFacts { broken_files: keeper.broken_files(), ..facts });
        }
        if !self.is_ready {
            self.is_ready = true;
            self.notify(&NotifyState::Ready);
        }
        self.notify(&NotifyState::Watchdog);
    }

    /// Tells of a look that could not be done. systemd is not: it ends a daemon that does not look for long.
    pub(super) fn failed(&self, why: &str) {
        if let Some(server) = &self.server {
            server.failed(why);
        }
    }

    /// Tells that the daemon stops, and that it still waits for its rounds.
    pub(super) fn stopping(&mut self) {
        if !self.is_stopping {
            self.is_stopping = true;
            self.failed("it was told to stop, and waits for the end of its rounds");
            self.notify(&NotifyState::Stopping);
        }
        self.notify(&NotifyState::Watchdog);
    }

    /// Tells systemd, where it is there: without `NOTIFY_SOCKET` nothing happens.
    fn notify(&mut self, state: &NotifyState<'_>) {
        if let Err(error) = sd_notify::notify(std::slice::from_ref(state))
            && !self.has_refused
        {
            self.has_refused = true;
            say(&format!("cannot tell systemd, whose socket NOTIFY_SOCKET names: {error}"));
        }
    }
}
