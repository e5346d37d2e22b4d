//! L4, what a machine asks the schedule daemon over HTTP: `GET /metrics` for Prometheus, `GET /healthz`.
//!
//! The daemon hands a copy of the facts over after each look, and never waits: a request reads the last copy, in a task
//! of its own. A connection gets one answer and a few seconds, and only a few are served at a time, so that whoever
//! reaches the port can hold up other scrapes for these seconds and nothing else. No request has a body that is read, and
//! none changes anything. Who may reach the port is the network's business.

mod gather;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};

use crate::report::metrics::{CONTENT_TYPE, MetricsFacts, metrics_text};

pub use gather::{Gatherer, Watched};

/// How long after its last look the daemon counts as well; it looks every two seconds.
const WELL: Duration = Duration::from_secs(30);
/// How long a connection lasts, from its beginning to the last byte of its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many connections are served at a time; others wait in the kernel.
const SEATS: usize = 8;
/// How long nobody is let in after the kernel refused to, for example because no file may be opened any more.
const REFUSED: Duration = Duration::from_secs(1);

/// What the daemon handed over last.
#[derive(Debug, Clone, Default)]
struct Handed {
    facts: MetricsFacts,
    /// When it looked; none before the first look.
    looked: Option<Instant>,
    /// Why it does not look, if it said so since.
    trouble: Option<String>,
}

impl Handed {
    /// Why the daemon is not well, if it is not.
    fn unwell(&self, now: Instant) -> Option<String> {
        let why = match self.looked.map(|looked| now.saturating_duration_since(looked)) {
            None => "the daemon has not looked yet".to_owned(),
            Some(ago) if ago <= WELL => return None,
            Some(ago) => format!("the daemon looked last {} s ago", ago.as_secs()),
        };
        Some(self.trouble.as_ref().map_or(why.clone(), |trouble| format!("{why}: {trouble}")))
    }

    /// The instant on the clock of the looks.
    fn clock(&self, now: Instant) -> Timestamp {
        let (Some(looked_at), Some(looked)) = (self.facts.looked_at, self.looked) else {
            return Timestamp::UNIX_EPOCH;
        };
        let since = SignedDuration::try_from(now.saturating_duration_since(looked));
        looked_at.saturating_add(since.unwrap_or_default()).unwrap_or(Timestamp::MAX)
    }
}

/// The server of one daemon; it ends when this is dropped.
#[derive(Debug)]
pub struct MetricsServer {
    address: SocketAddr,
    handed: watch::Sender<Handed>,
    /// Holds the task that serves, and ends it with this.
    _task: JoinSet<()>,
}

impl MetricsServer {
    /// Listens at an address; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is not one of this machine's, or the port is in use or may not be taken.
    pub async fn begin(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let facts = MetricsFacts { version, ..MetricsFacts::default() };
        let (handed, last) = watch::channel(Handed { facts, ..Handed::default() });
        let router =
            Router::new().route("/metrics", get(metrics)).route("/healthz", get(healthz)).with_state(last);
        let doors = Doors { listener, seats: Arc::new(Semaphore::new(SEATS)) };
        let mut task = JoinSet::new();
        task.spawn(async move {
            // It does not end by itself: an error of one connection ends that connection.
            let _ = axum::serve(doors, router).await;
        });
        Ok(Self { address, handed, _task: task })
    }

    /// The address that it listens at, with the port it has.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes over the facts after a look that has just been done.
    pub fn looked(&self, facts: MetricsFacts) {
        self.handed.send_replace(Handed { facts, looked: Some(Instant::now()), trouble: None });
    }

    /// Takes over why the daemon does not look; the facts of its last look stay.
    pub fn failed(&self, why: &str) {
        self.handed.send_modify(|handed| handed.trouble = Some(why.to_owned()));
    }
}

type Last = State<watch::Receiver<Handed>>;

async fn metrics(State(last): Last) -> Response {
    let handed = last.borrow().clone();
    let text = metrics_text(&handed.facts, handed.clock(Instant::now()));
    ([(header::CONTENT_TYPE, CONTENT_TYPE), (header::CONNECTION, "close")], text).into_response()
}

async fn healthz(State(last): Last) -> Response {
    let (status, text) = match last.borrow().unwell(Instant::now()) {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    };
    (status, [(header::CONNECTION, "close")], text).into_response()
}

/// Lets in as many connections as there are seats.
struct Doors {
    listener: TcpListener,
    seats: Arc<Semaphore>,
}

impl Listener for Doors {
    type Io = Guest;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Guest, SocketAddr) {
        loop {
            let seat = Arc::clone(&self.seats).acquire_owned().await;
            match (self.listener.accept().await, seat) {
                (Ok((stream, address)), Ok(seat)) => {
                    let leaves = Box::pin(tokio::time::sleep(PATIENCE));
                    return (Guest { stream, leaves, _seat: seat }, address);
                }
                _ => tokio::time::sleep(REFUSED).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection with a seat, for as long as there is patience with it.
struct Guest {
    stream: TcpStream,
    leaves: Pin<Box<Sleep>>,
    _seat: OwnedSemaphorePermit,
}

impl Guest {
    /// Ready with an error when its time is over.
    fn poll_leave(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        ready!(self.leaves.as_mut().poll(context));
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.poll_leave(context) {
            Poll::Ready(over) => Poll::Ready(Err(over)),
            Poll::Pending => Pin::new(&mut self.stream).poll_read(context, bytes),
        }
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.poll_leave(context) {
            Poll::Ready(over) => Poll::Ready(Err(over)),
            Poll::Pending => Pin::new(&mut self.stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_is_well_while_it_looks() {
        let began = Instant::now();
        let after = |seconds: u64| began + Duration::from_secs(seconds);
        let check = |handed: &Handed, seconds: u64, expected: Option<&str>| {
            assert_eq!(handed.unwell(after(seconds)).as_deref(), expected, "{seconds} s");
        };
        let mut handed = Handed::default();
        check(&handed, 0, Some("the daemon has not looked yet"));
        handed.looked = Some(began);
        check(&handed, 0, None);
        check(&handed, 30, None);
        check(&handed, 31, Some("the daemon looked last 31 s ago"));
        // A look that failed once is no matter; that none came after it is.
        handed.trouble = Some("the disk is full".to_owned());
        check(&handed, 30, None);
        check(&handed, 90, Some("the daemon looked last 90 s ago: the disk is full"));
    }

    #[test]
    fn ages_grow_between_looks() {
        let now = Instant::now();
        let handed = Handed {
            facts: MetricsFacts { looked_at: Timestamp::from_second(100).ok(), ..MetricsFacts::default() },
            looked: Some(now),
            trouble: None,
        };
        let later = handed.clock(now + Duration::from_millis(1500));
        assert_eq!(later.as_millisecond(), 101_500);
    }
}
