//! L2, the seams to the outside: what the program asks of an engine that runs servers, of a chain that
//! holds commitments, of a place that runs jobs, and how each may fail.
//!
//! Deliberately absent: stages (a closed enum, not a trait), and the store (a plain directory so far).

mod job;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::net::TcpStream;

pub use job::{InvalidOrder, JobCommand, JobMessage, JobNews, JobOrder, JobRunner, JobStop};

use crate::artifact::LegAttempt;
use crate::model::{Digest, Fault, GpuState, ImageReference, MachineLook, Reason, RoundId};

/// The path that answers 200 once a server is ready, where nobody says another.
pub const HEALTH_PATH: &str = "/health";

/// Told how many bytes of an image have come, of how many.
pub type PullProgress<'a> = dyn Fn(u64, u64) + Send + Sync + 'a;

/// Starts servers from images: Docker, or plain processes.
pub trait ContainerEngine: Send + Sync {
    /// Makes the image present on the machine and checks that its bytes have the digest; the digest of its content, which is
    /// what would run: the same under another name, and under another manifest with the same layers and the same
    /// configuration. Where it has to come from elsewhere, the progress is told.
    ///
    /// # Errors
    /// [`EngineError`] where the image is absent, is not what the digest says, or is no image.
    fn pull<'a>(
        &'a self,
        image: &'a ImageReference,
        digest: &'a Digest,
        progress: &'a PullProgress<'a>,
    ) -> BoxFuture<'a, Result<Digest, EngineError>>;

    /// Starts a server. It is not ready yet; the caller polls its health.
    ///
    /// # Errors
    /// [`EngineError`] where the image is absent or cannot be started.
    fn launch<'a>(&'a self, launch: &'a Launch) -> BoxFuture<'a, Result<Box<dyn Server>, EngineError>>;

    /// Ends what is still there of all that was launched, and waits until it is gone; nothing is launched afterwards.
    /// An engine whose servers cannot outlive their stop has nothing to do.
    ///
    /// # Errors
    /// [`EngineError`] where something is still there.
    fn close(&self) -> BoxFuture<'_, Result<(), EngineError>> {
        std::future::ready(Ok(())).boxed()
    }
}

/// Which launch of a server it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchId {
    /// The round.
    pub round_id: RoundId,
    /// The attempt that launches.
    pub at: LegAttempt,
    /// Number of the launch within the attempt, from 1.
    pub number: u32,
}

/// What to start and with what.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Whose it is; no two servers have the same.
    pub id: LaunchId,
    /// The image to start.
    pub image: ImageReference,
    /// The digest the image must have.
    pub digest: Digest,
    /// Directory of the model, absolute; mounted read-only where the engine can.
    pub model_dir: PathBuf,
    /// Name the server must serve the model under.
    pub model_name: String,
    /// Arguments in the place of those that the image has by default; none leaves them as they are.
    pub args: Vec<String>,
    /// File that receives stdout and stderr.
    pub log_path: PathBuf,
    /// Bytes of log kept; the rest is counted and dropped.
    pub max_log_bytes: u64,
    /// Scratch directory, the server's working directory.
    pub scratch_dir: PathBuf,
}

/// The way to a server: the only one that there may be.
pub trait Connector: fmt::Debug + Send + Sync {
    /// Where it listens, as it sees it itself: another server may have the same.
    fn address(&self) -> SocketAddr;

    /// Opens a connection.
    ///
    /// # Errors
    /// Nobody listens, or the way is gone with the server.
    fn connect(&self) -> BoxFuture<'_, io::Result<TcpStream>>;
}

/// A server that listens on this machine.
impl Connector for SocketAddr {
    fn address(&self) -> SocketAddr {
        *self
    }

    fn connect(&self) -> BoxFuture<'_, io::Result<TcpStream>> {
        TcpStream::connect(*self).boxed()
    }
}

/// Whether a process that runs is a stranger's; one that has ended is not. It blocks for as long as `/proc` takes.
pub type IsStranger = Arc<dyn Fn(u32) -> bool + Send + Sync>;

/// A started server. Dropping it kills it.
pub trait Server: Send + Sync {
    /// The way to it, once it listens.
    fn connector(&self) -> Arc<dyn Connector>;

    /// Identity of this launch, unique within the machine.
    fn boot_id(&self) -> &str;

    /// The path that answers 200 once it is ready, as its image says; it begins with `/`.
    fn health_path(&self) -> &str;

    /// The last lines of its log, at most 64 KiB, control characters removed.
    fn log_tail(&self) -> String;

    /// Processor time that the server and all it started have used since the launch. None where that is not known any more,
    /// because it has ended.
    fn cpu_time(&self) -> BoxFuture<'_, Option<Duration>>;

    /// Waits until the server has ended by itself.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing; it can be called again.
    fn exited(&mut self) -> BoxFuture<'_, Exit>;

    /// What happened to the engine since the launch that may be why the server does not answer, or has ended; none where the
    /// engine was well all the time, or has nothing that could fail.
    fn engine_failure(&self) -> BoxFuture<'_, Option<String>> {
        std::future::ready(None).boxed()
    }

    /// Tells which processes of this machine are not the server's, nor started by it.
    fn strangers(&self) -> IsStranger;

    /// Stops the server and all it started: asks, waits for `grace`, then kills. Returns when all are gone.
    fn stop(self: Box<Self>, grace: Duration) -> BoxFuture<'static, ()>;
}

/// How a server ended by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, if it exited.
    pub code: Option<i32>,
    /// Signal number, if it was killed.
    pub signal: Option<i32>,
    /// Whether the kernel killed it, or a process that it started, at some time for taking more memory than it may.
    pub is_out_of_memory: bool,
}

impl From<std::process::ExitStatus> for Exit {
    fn from(status: std::process::ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        Self { code: status.code(), signal: status.signal(), is_out_of_memory: false }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            // What a shell, and the first process of a container, mean by these.
            (Some(code @ 126), _) => write!(f, "exit code {code}, that of a program that cannot be run"),
            (Some(code @ 127), _) => write!(f, "exit code {code}, that of a program that is not there"),
            (Some(code @ 129..=192), _) => {
                write!(f, "exit code {code}, that of a program ended by signal {}", code - 128)
            }
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "signal {signal}"),
            (None, None) => f.write_str("unknown exit"),
        }?;
        if self.is_out_of_memory {
            f.write_str(" (it took more memory than the runner's `limits.memory-mib`)")?;
        }
        Ok(())
    }
}

/// Why an engine could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No such image.
    #[error("image `{image}` is not there")]
    ImageAbsent {
        /// The image that was asked for.
        image: ImageReference,
    },
    /// The bytes are not the committed ones.
    #[error("image `{image}` has digest {found}, committed was {wanted}")]
    DigestMismatch {
        /// The image that was asked for.
        image: ImageReference,
        /// The digest that was committed.
        wanted: Digest,
        /// The digest of the bytes that are there.
        found: Digest,
    },
    /// The image is there and whole, but it is no image.
    #[error("image `{image}` cannot be used: {why}")]
    ImageInvalid {
        /// The image that was asked for.
        image: ImageReference,
        /// What is wrong with the image.
        why: String,
    },
    /// The registry has no such image, or there is no such registry.
    #[error("image `{image}` cannot be had: {why}")]
    ImageUnavailable {
        /// The image that was asked for.
        image: ImageReference,
        /// What the registry answered.
        why: String,
    },
    /// The registry shows the image to nobody who has no account there.
    #[error("image `{image}` is not public, or not there: {why}")]
    ImagePrivate {
        /// The image that was asked for.
        image: ImageReference,
        /// What the registry answered.
        why: String,
    },
    /// The image is larger than the runner lets one be.
    #[error("image `{image}` has {}, at most {} are allowed", mebibytes(*bytes), mebibytes(*limit))]
    ImageTooLarge {
        /// The image that was asked for.
        image: ImageReference,
        /// Its size in bytes, or as much of it as was counted.
        bytes: u64,
        /// The most bytes that it may have.
        limit: u64,
    },
    /// A registry did not answer, or could not.
    #[error("registry {host}: {why}")]
    Registry {
        /// The registry, as images name it.
        host: String,
        /// What happened, as plain text and cut.
        why: String,
    },
    /// The machine's own failure.
    #[error("{attempted} `{path}`: {source}")]
    Machine {
        /// What was attempted.
        attempted: &'static str,
        /// The file or program it was attempted on.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A disk of the machine has no room for the image.
    #[error("`{}` has {} left, {} are needed for the image", path.display(), mebibytes(*free), mebibytes(*needed))]
    NoRoom {
        /// A folder on that disk.
        path: PathBuf,
        /// The bytes that are needed, some to spare among them.
        needed: u64,
        /// The bytes that are free.
        free: u64,
    },
    /// The engine's daemon did not answer or could not.
    #[error("container engine: {attempted}: {why}")]
    Daemon {
        /// What was attempted.
        attempted: &'static str,
        /// What was answered, as plain text and cut.
        why: String,
    },
}

/// A size for people: in MiB, with a tenth below 100.
fn mebibytes(bytes: u64) -> String {
    let tenths = (u128::from(bytes) * 10).div_ceil(1024 * 1024);
    if tenths < 1000 {
        format!("{}.{} MiB", tenths / 10, tenths % 10)
    } else {
        format!("{} MiB", tenths.div_ceil(10))
    }
}

impl EngineError {
    /// Whose fault this is and the published reason.
    pub fn reason(&self) -> Reason {
        let (fault, code) = match self {
            Self::ImageAbsent { .. } | Self::ImageUnavailable { .. } => {
                (Fault::Submission, "image-unavailable")
            }
            Self::DigestMismatch { .. } => (Fault::Submission, "digest-mismatch"),
            Self::ImageInvalid { .. } => (Fault::Submission, "image-invalid"),
            Self::ImagePrivate { .. } => (Fault::Submission, "image-not-public"),
            Self::ImageTooLarge { .. } => (Fault::Submission, "image-too-large"),
            Self::Registry { .. } => (Fault::Infra, "registry-unavailable"),
            Self::NoRoom { .. } => (Fault::Infra, "no-room"),
            Self::Machine { .. } => (Fault::Infra, "machine-io"),
            Self::Daemon { .. } => (Fault::Infra, "container-engine"),
        };
        Reason::new(fault, code, self.to_string())
    }
}

/// Reads the commitments of a subnet.
pub trait ChainSource: Send + Sync {
    /// The commitments as found, in the order of the source, and the block they stand at.
    ///
    /// # Errors
    /// [`ChainError`] where the source cannot be read; a bad entry is data, not an error.
    fn commitments(&self) -> BoxFuture<'_, Result<ChainView, ChainError>>;
}

/// What a source holds at one block.
#[derive(Debug, Clone, PartialEq)]
pub struct ChainView {
    /// Hash or name of the block the view was taken at.
    pub block: String,
    /// Entries as found; each is judged on its own.
    pub entries: Vec<serde_json::Value>,
}

/// Why the commitments could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The file of commitments cannot be read.
    #[error("read commitments from `{path}`: {source}")]
    Unreadable {
        /// The file that was to be read.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The file is larger than a source may be.
    #[error("commitments file `{path}` has {bytes} bytes, at most {limit} are read")]
    TooLarge {
        /// The file that was to be read.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The most bytes that are read.
        limit: u64,
    },
    /// The file is not a list of commitments at all.
    #[error("commitments file is not valid:\n{0}")]
    Malformed(String),
    /// The endpoint of a node is none that may be read.
    #[error("chain endpoint `{host}` cannot be used: {why}")]
    Endpoint {
        /// The endpoint, without what may be secret in it.
        host: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The node could not be reached, or did not give what it was asked for.
    #[error("chain node {host}: {attempted}: {why}")]
    Node {
        /// The endpoint, without what may be secret in it.
        host: String,
        /// What was attempted.
        attempted: &'static str,
        /// What happened, as plain text and cut.
        why: String,
    },
    /// The node did not give everything in time.
    #[error("chain node {host}: the commitments were not read within {} s", deadline.as_secs_f64())]
    Late {
        /// The endpoint, without what may be secret in it.
        host: String,
        /// How long was waited for all of them.
        deadline: Duration,
    },
}

impl ChainError {
    /// Whose fault this is and the published reason.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unreadable { .. } => {
                Reason::new(Fault::Operator, "commitments-unreadable", self.to_string())
            }
            Self::TooLarge { .. } => Reason::new(Fault::Operator, "commitments-too-large", self.to_string()),
            Self::Malformed(_) => Reason::new(Fault::Operator, "commitments-malformed", self.to_string()),
            Self::Endpoint { .. } => Reason::new(Fault::Operator, "chain-endpoint", self.to_string()),
            Self::Node { .. } => Reason::new(Fault::Infra, "chain-node", self.to_string()),
            Self::Late { .. } => Reason::new(Fault::Infra, "chain-late", self.to_string()),
        }
    }
}

/// The machine that a leg runs on. Both calls block: a driver takes milliseconds, and seconds where it has to be woken.
pub trait Machine: Send + Sync {
    /// What it is and how it is; what cannot be known is absent.
    fn look(&self) -> MachineLook;

    /// How its GPUs are, in the driver's order; none where nothing is known of any.
    fn gpus(&self) -> Vec<GpuState>;
}

/// What a machine does at the most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MachineSpeed {
    /// Bytes that all its cores together read per second from where a model of the asked size lies.
    pub bytes_per_s: f64,
    /// Operations of all its cores together per second; a multiplication and an addition are two.
    pub operations_per_s: f64,
}

/// What a model costs at the least.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelSize {
    /// Bytes that a pass reads, in the densest lossless form.
    pub pass_bytes: f64,
    /// Operations that each token of prompt and answer costs.
    pub token_operations: f64,
}

/// How far a step has come, for people who watch.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Progress {
    /// Id of the job.
    pub job: String,
    /// Key of the leg; empty for a job without matrix.
    pub leg: String,
    /// What is being done, for example `benchmark`.
    pub doing: String,
    /// Units done.
    pub done: usize,
    /// Units in all; 0 where nobody knows.
    pub total: usize,
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn an_exit_says_what_its_code_means() {
        let check = |code, expected: &str| {
            assert_eq!(Exit { code: Some(code), ..Exit::default() }.to_string(), expected);
        };
        check(3, "exit code 3");
        check(126, "exit code 126, that of a program that cannot be run");
        check(127, "exit code 127, that of a program that is not there");
        check(128, "exit code 128");
        check(139, "exit code 139, that of a program ended by signal 11");
        check(255, "exit code 255");
        let exit = Exit { signal: Some(9), is_out_of_memory: true, ..Exit::default() };
        assert_eq!(exit.to_string(), "signal 9 (it took more memory than the runner's `limits.memory-mib`)");
        assert_eq!(Exit::default().to_string(), "unknown exit");
    }
}
