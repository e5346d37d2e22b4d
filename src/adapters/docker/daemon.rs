//! Whether the daemon was there all the time since a launch: one that ends, or is started anew, takes containers with it, and
//! what becomes of them says nothing of their images.
//!
//! A daemon has no start time that it would tell, and behind a socket of systemd's no process that could be seen from here. But
//! it holds a stream of its own events open for as long as it lives, so that the stream's end is its end.

use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt as _;
use tokio::task::{AbortHandle, JoinSet};

use super::{MAX_WORDS, connect};
use crate::report::text::{error_chain, excerpt};

/// How long a daemon may take to answer a ping.
const PING_DEADLINE: Duration = Duration::from_secs(10);

/// Watches a daemon for as long as it is kept.
#[derive(Debug)]
pub(super) struct DaemonWatch {
    host: Option<String>,
    /// Ends with the daemon that was asked.
    life: AbortHandle,
    /// Ends that with this.
    _watching: JoinSet<()>,
}

impl DaemonWatch {
    /// Watches the daemon of an address from now on.
    pub(super) fn begin(docker: &Docker, host: Option<&str>) -> Self {
        let mut watching = JoinSet::new();
        let life = watching.spawn(live(docker.clone()));
        Self { host: host.map(str::to_owned), life, _watching: watching }
    }

    /// Why nothing that became of a container since says anything of it; none where the daemon was there all the time, and is.
    pub(super) async fn failure(&self) -> Option<String> {
        // By a connection of its own: a daemon that is asked to end takes no more of them, long before it lets go of those it has.
        let ping = async { connect(self.host.as_deref())?.ping().await };
        let why = match tokio::time::timeout(PING_DEADLINE, ping).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(format!("the daemon does not answer: {}", error_chain(&error))),
            Err(_) => Some(format!("the daemon does not answer within {} s", PING_DEADLINE.as_secs())),
        };
        // After the ping: what has ended meanwhile is known by now.
        let ended = || {
            self.life.is_finished().then(|| "the daemon was started anew, or its connection broke".to_owned())
        };
        why.or_else(ended).map(|why| excerpt(&why, MAX_WORDS))
    }
}

/// Returns once the daemon that answers now has ended. Never where it does not have such a stream.
async fn live(docker: Docker) {
    let filters = std::collections::HashMap::from([("type", vec!["daemon"])]);
    let options = EventsOptionsBuilder::default().filters(&filters).build();
    let mut events = std::pin::pin!(docker.events(Some(options)));
    loop {
        match events.next().await {
            Some(Ok(_)) => {}
            Some(Err(DockerError::DockerResponseServerError { .. })) => std::future::pending::<()>().await,
            Some(Err(_)) | None => return,
        }
    }
}
