//! The Docker engine: an image is pulled by digest, a server is one hardened container.
//!
//! The daemon is the one `DOCKER_HOST` names, else the local socket; each call connects anew, so a daemon that
//! was restarted is found again. A container gets no capability, no new privileges, a read-only root, a tmpfs on
//! `/tmp`, the model read-only at `/models`, bounded processes, and what the runner file allows of memory and
//! processors. It listens on port 8000 and is told so by `CACHEON_HOST`, `CACHEON_PORT`, `CACHEON_MODEL_DIR`
//! and `CACHEON_MODEL_NAME`. Every container is named after its round, job, leg, attempt and launch, and carries them as
//! labels, with the process that holds it.
//!
//! Nothing is left running: what this program lets go of is removed before the job ends, what it held when it was killed
//! is removed by a small process beside it (`guard`), and whoever launches next removes first what neither could.
//!
//! An image is fetched and judged here and then served to the daemon (`adapters/registry.rs`), which gives it a name of ours: whose fault
//! a failure is follows from what the registry answered. What fails in the daemon can be told only by its words. The engine never waits
//! for ever while it tears down or pulls.
//!
//! A container has no network but a loopback of its own, and this program enters that to reach the server
//! (`adapters/namespace.rs`): nobody else can, and nothing can be reached from inside.

mod asked;
mod control_group;
mod daemon;
mod holder;
mod images;
mod left;

use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error as DockerError;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, DeviceRequest, HealthConfig, HostConfig,
    HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount, MountType, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, DataUsageOptions, StatsOptionsBuilder,
    StopContainerOptionsBuilder,
};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use serde_json::json;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use daemon::DaemonWatch;
use images::{check_image, content, pinned, present};

use super::guard::Guard;
use super::log::{LogFile, LogTail};
use super::namespace::Namespace;
use super::registry::{self, Patience, Wanted};
use crate::artifact::digest::sha256;
use crate::model::{Digest, ImageReference};
use crate::pipeline::runner::{CpuList, Gpus, Limits};
use crate::ports::{
    Connector, ContainerEngine, EngineError, Exit, HEALTH_PATH, IsStranger, Launch, LaunchId, PullProgress,
    Server,
};
use crate::report::text::{error_chain, excerpt};
use control_group::ControlGroup;

pub use holder::{Holder, Life};
pub use left::Found;

/// The port a server listens on inside its container.
const PORT: u16 = 8000;
/// Where the model is inside a container.
const MODEL_DIR: &str = "/models";
/// Processes and threads a server may have where the runner file says nothing.
const DEFAULT_PIDS: u32 = 16_384;
/// Size of `/tmp` where the runner file says nothing: compile caches of an engine fit.
const DEFAULT_TMPFS_MIB: u64 = 8192;
/// Size of an image where the runner file says nothing: an engine with the libraries of its GPUs has 30 GiB.
const DEFAULT_IMAGE_MIB: u64 = 65_536;
/// Images that stay beside the one that is pulled where the runner file says nothing: those of a round.
const DEFAULT_KEPT_IMAGES: u32 = 32;
/// Longest text of the daemon's that is passed on.
const MAX_WORDS: usize = 400;
/// How long the daemon may take to say what a container has used.
const STATS_DEADLINE: Duration = Duration::from_secs(10);
/// How long what was let go of may take to be gone once nothing else is to be done, a daemon's restart included.
const CLOSE_DEADLINE: Duration = Duration::from_secs(25);
/// How often a daemon that lost a container's end is asked again, and how long apart.
const LOOKS: u32 = 30;
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Who runs what is in a container: nobody that the machine knows.
const USER: &str = "10001:10001";
/// What its processes may have at most. Only what is lowered: a daemon without `CAP_SYS_RESOURCE` cannot raise a limit.
const ULIMITS: [(&str, i64); 1] = [("core", 0)];

fn ulimit(name: &str, most: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(most), hard: Some(most) }
}

/// Which daemon, and what one server may use of the machine.
#[derive(Debug, Clone, Default)]
pub struct DockerSettings {
    /// `unix://..` or `tcp://..`; by default what `DOCKER_HOST` says, else the local socket.
    pub host: Option<String>,
    /// The runtime that starts containers, where it is not the daemon's own choice.
    pub runtime: Option<String>,
    /// The GPUs that each container gets; without them none.
    pub gpus: Option<Gpus>,
    /// Bounds of each container; processes and `/tmp` are bounded even where this says nothing.
    pub limits: Limits,
    /// This program: it is started in a container's network to make the sockets that lead to the server, and beside this
    /// process to remove what it leaves when it is killed.
    pub program: PathBuf,
    /// How long a registry is waited for.
    pub patience: Patience,
    /// The folder of the layers that are being pulled; one pull at a time has it.
    pub pulls_dir: PathBuf,
}

/// Where the daemon is that a runner's containers are started by.
pub fn daemon_address() -> String {
    std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned())
}

/// What a daemon says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonFacts {
    /// Its version.
    pub version: String,
    /// Bytes that its images take; none where it does not say.
    pub image_bytes: Option<u64>,
    /// Whether containers outlive it; none where it does not say.
    pub has_live_restore: Option<bool>,
    /// Names of the runtimes that it can start containers by; none where it does not say.
    pub runtimes: Option<BTreeSet<String>>,
}

/// Starts servers as containers of a Docker daemon.
#[derive(Debug)]
pub struct DockerEngine {
    settings: DockerSettings,
    /// What goes on though nobody waits for it: creations that were given up, removals of what was dropped.
    detached: TaskTracker,
    held: OnceCell<Held>,
}

/// Who holds an engine's containers, and what removes them once this process has ended.
#[derive(Debug, Clone)]
struct Held {
    holder: Holder,
    guard: Arc<Guard>,
}

impl DockerEngine {
    /// An engine that connects when it is first asked for something.
    pub fn new(settings: DockerSettings) -> Self {
        Self { settings, detached: TaskTracker::new(), held: OnceCell::new() }
    }

    /// All containers of this program's that the daemon has, running or not, by name.
    ///
    /// # Errors
    /// When it cannot be reached, or does not answer in time.
    pub async fn containers(&self) -> Result<Vec<Found>, EngineError> {
        left::all(&self.connect()?).await
    }

    /// Removes all containers of a holder; a daemon that does not answer is asked again until the deadline.
    ///
    /// # Errors
    /// When one could not be removed.
    pub async fn remove_held(&self, holder: &Holder, deadline: Duration) -> Result<(), EngineError> {
        let until = tokio::time::Instant::now() + deadline;
        loop {
            let removal = async { left::remove_held(&self.connect()?, holder).await };
            match removal.await {
                Ok(()) => return Ok(()),
                Err(error) if tokio::time::Instant::now() + LOOK_PAUSE > until => return Err(error),
                Err(_) => tokio::time::sleep(LOOK_PAUSE).await,
            }
        }
    }

    async fn held(&self) -> Result<&Held, EngineError> {
        let machine = |attempted, path: &Path| {
            let path = path.to_owned();
            move |source| EngineError::Machine { attempted, path, source }
        };
        let (program, host) = (&self.settings.program, self.settings.host.as_deref());
        let init = async || {
            let holder = Holder::new().map_err(machine("name the process", Path::new("/proc/self")))?;
            let guard = Guard::of_containers(program, &holder.to_string(), host);
            let guard = Arc::new(guard.map_err(machine("start the guard of containers by", program))?);
            Ok(Held { holder, guard })
        };
        self.held.get_or_try_init(init).await
    }

    fn connect(&self) -> Result<Docker, EngineError> {
        connect(self.settings.host.as_deref()).map_err(|error| daemon("connect", &error))
    }

    fn max_image_bytes(&self) -> u64 {
        self.settings.limits.image_mib.unwrap_or(DEFAULT_IMAGE_MIB).saturating_mul(1024 * 1024)
    }

    /// What the daemon says of itself.
    ///
    /// # Errors
    /// When it cannot be reached, or does not answer before the deadline.
    pub async fn daemon_facts(&self, deadline: Duration) -> Result<DaemonFacts, EngineError> {
        let silent = || EngineError::Daemon {
            attempted: "ask for the version",
            why: format!("no answer within {} s", deadline.as_secs()),
        };
        let docker = self.connect()?;
        let version = tokio::time::timeout(deadline, docker.version()).await.map_err(|_| silent())?;
        let version = version.map_err(|error| daemon("ask for the version", &error))?.version;
        // The sizes of many images may take the daemon longer, and an older one tells them in another way.
        let usage = tokio::time::timeout(deadline, docker.df(None::<DataUsageOptions>)).await;
        let images = usage.ok().and_then(Result::ok).and_then(|usage| usage.image_usage?.total_size);
        let info = tokio::time::timeout(deadline, docker.info()).await.ok().and_then(Result::ok);
        let info = info.unwrap_or_default();
        Ok(DaemonFacts {
            version: excerpt(&version.unwrap_or_else(|| "of no version".to_owned()), 40),
            has_live_restore: info.live_restore_enabled,
            runtimes: info.runtimes.map(|runtimes| runtimes.into_keys().collect()),
            image_bytes: images.and_then(|size| u64::try_from(size).ok()),
        })
    }

    fn create_body(&self, launch: &Launch, holder: &Holder) -> ContainerCreateBody {
        let label = |name: &str, value: String| (name.to_owned(), value);
        ContainerCreateBody {
            image: Some(pinned(&launch.image, &launch.digest)),
            env: Some(vec![
                format!("CACHEON_HOST={}", Ipv4Addr::UNSPECIFIED),
                format!("CACHEON_PORT={PORT}"),
                format!("CACHEON_MODEL_DIR={MODEL_DIR}"),
                format!("CACHEON_MODEL_NAME={}", launch.model_name),
                "HOME=/tmp".to_owned(),
                // An image says `all`, and a daemon whose own runtime is NVIDIA's would listen to it.
                format!("NVIDIA_VISIBLE_DEVICES={}", self.nvidia_devices()),
            ]),
            cmd: Some(launch.args.clone()).filter(|args| !args.is_empty()),
            user: Some(USER.to_owned()),
            // An image's own health check would run code on a timer during the benchmark.
            healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..Default::default() }),
            labels: Some(HashMap::from([
                label(left::LABEL, "1".to_owned()),
                label(left::HOLDER, holder.to_string()),
                label(left::ROUND, launch.id.round_id.to_string()),
                label("cacheon.job", launch.id.at.job.clone()),
                label("cacheon.leg", launch.id.at.leg.clone()),
                label("cacheon.attempt", launch.id.at.attempt.to_string()),
                label("cacheon.launch", launch.id.number.to_string()),
                label("cacheon.scratch", launch.scratch_dir.to_string_lossy().into_owned()),
            ])),
            stop_signal: Some("SIGTERM".to_owned()),
            host_config: Some(self.host_config(launch)),
            ..Default::default()
        }
    }

    /// The GPUs that a hook of NVIDIA's gives to a container.
    fn nvidia_devices(&self) -> String {
        match &self.settings.gpus {
            Some(Gpus::Nvidia(names)) => names.join(","),
            Some(Gpus::Cdi(_)) | None => "void".to_owned(),
        }
    }

    /// Whether this program and its servers run on processors of their own, as the runner asks for.
    fn check_processors(&self) -> Result<(), EngineError> {
        let Some(servers) = &self.settings.limits.cpuset else { return Ok(()) };
        let own = own_processors().map_err(|source| EngineError::Machine {
            attempted: "read the processors of this program from",
            path: SELF_STATUS.into(),
            source,
        })?;
        match why_shared(&own, servers) {
            None => Ok(()),
            Some(why) => Err(EngineError::Daemon { attempted: "give a server its processors", why }),
        }
    }

    fn host_config(&self, launch: &Launch) -> HostConfig {
        let limits = &self.settings.limits;
        let bytes = |mib: u64| i64::try_from(mib.saturating_mul(1024 * 1024)).unwrap_or(i64::MAX);
        let memory = limits.memory_mib.map(bytes);
        let tmpfs_mib = limits.tmpfs_mib.unwrap_or(DEFAULT_TMPFS_MIB);
        HostConfig {
            network_mode: Some("none".to_owned()),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
            privileged: Some(false),
            readonly_rootfs: Some(true),
            // Executable: engines load what they compile there.
            tmpfs: Some(HashMap::from([(
                "/tmp".to_owned(),
                format!("rw,nosuid,nodev,exec,size={tmpfs_mib}m,mode=1777"),
            )])),
            mounts: Some(vec![Mount {
                typ: Some(MountType::BIND),
                source: Some(launch.model_dir.to_string_lossy().into_owned()),
                target: Some(MODEL_DIR.to_owned()),
                read_only: Some(true),
                ..Default::default()
            }]),
            pids_limit: Some(limits.pids.unwrap_or(DEFAULT_PIDS).into()),
            memory,
            // As much as memory alone: no swap.
            memory_swap: memory,
            nano_cpus: limits.cpus.map(|cpus| i64::from(cpus) * 1_000_000_000),
            cpuset_cpus: limits.cpuset.as_ref().map(ToString::to_string),
            runtime: self.settings.runtime.clone(),
            device_requests: self.settings.gpus.as_ref().map(|gpus| vec![device_request(gpus)]),
            shm_size: limits.shm_mib.map(bytes),
            ipc_mode: Some("private".to_owned()),
            cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
            ulimits: Some(ULIMITS.map(|(name, most)| ulimit(name, most)).to_vec()),
            init: Some(true),
            // What it writes comes here, and nowhere else.
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            ..Default::default()
        }
    }
}

impl DockerEngine {
    /// Creates a container; from then on every way out removes it. A creation that nobody waits for any more goes on to
    /// its end: the daemon would make the container all the same.
    async fn create(
        &self,
        docker: Docker,
        body: &ContainerCreateBody,
        launch: &Launch,
    ) -> Result<Container, EngineError> {
        let options = CreateContainerOptionsBuilder::default().name(&container_name(&launch.id)).build();
        let (body, detached) = (body.clone(), self.detached.clone());
        let guard = Arc::clone(&self.held().await?.guard);
        let creation = self.detached.spawn(async move {
            let created = docker.create_container(Some(options), body).await?;
            Ok(Container { docker, id: created.id, detached, _guard: guard, is_removed: false })
        });
        match creation.await {
            Ok(created) => created.map_err(|error| create_error(&error, &launch.image)),
            Err(error) => {
                Err(EngineError::Daemon { attempted: "create a container", why: error.to_string() })
            }
        }
    }
}

impl ContainerEngine for DockerEngine {
    fn pull<'a>(
        &'a self,
        image: &'a ImageReference,
        digest: &'a Digest,
        progress: &'a PullProgress<'a>,
    ) -> BoxFuture<'a, Result<Digest, EngineError>> {
        async move {
            let docker = self.connect()?;
            let max_bytes = self.max_image_bytes();
            let own = pinned(image, digest);
            let there = async || match present(&docker, image, digest).await? {
                Some(found) => check_image(&found, image, max_bytes).map(|()| Some(content(&found, digest))),
                None => Ok(None),
            };
            if let Some(found) = there().await? {
                // It is used now: others are forgotten before it.
                images::name(&docker, &own, &own).await?;
                return Ok(found);
            }
            let vault = &registry::turn(image, &self.settings.pulls_dir).await?;
            // It may have been another one's turn to pull the same.
            if let Some(found) = there().await? {
                return Ok(found);
            }
            let patience = &self.settings.patience;
            let fetched = loop {
                let wanted = Wanted { image, digest, max_bytes, patience, vault, progress };
                match registry::fetch(wanted).await {
                    Err(EngineError::NoRoom { .. }) if images::remove_oldest(&docker, &own).await? => {}
                    fetched => break fetched?,
                }
            };
            images::make_room(&docker, &own, fetched.needed_bytes()).await?;
            let served = format!("{}@{digest}", fetched.repository());
            images::take(&docker, &served, (image, fetched.has_zstd)).await?;
            images::name(&docker, &served, &own).await?;
            vault.clear();
            let most = self.settings.limits.kept_images.unwrap_or(DEFAULT_KEPT_IMAGES);
            images::keep(&docker, &own, most as usize).await;
            there().await?.ok_or_else(|| EngineError::Daemon {
                attempted: "pull",
                why: "the pull ended well, and the image is not there".to_owned(),
            })
        }
        .boxed()
    }

    fn launch<'a>(&'a self, launch: &'a Launch) -> BoxFuture<'a, Result<Box<dyn Server>, EngineError>> {
        async move {
            let docker = self.connect()?;
            let Some(found) = present(&docker, &launch.image, &launch.digest).await? else {
                let why = format!(
                    "image `{}` is not on this machine: a `pull` step makes it present",
                    launch.image
                );
                return Err(EngineError::Daemon { attempted: "create a container", why });
            };
            check_image(&found, &launch.image, self.max_image_bytes())?;
            let log = tokio::fs::File::create(&launch.log_path).await.map_err(|source| {
                EngineError::Machine { attempted: "create server log", path: launch.log_path.clone(), source }
            })?;
            self.check_processors()?;
            let daemon = DaemonWatch::begin(&docker, self.settings.host.as_deref());
            left::sweep(&docker).await?;
            let body = self.create_body(launch, &self.held().await?.holder);
            let container = self.create(docker, &body, launch).await?;
            container.is_as_asked(&body).await?;
            let output = container.output().await?;
            let started = container.docker.start_container(&container.id, None).await;
            started.map_err(|error| start_error(&error, &launch.image))?;
            let connector = container.connector(&self.settings.program).await?;
            let log = LogFile::new(log, launch.max_log_bytes);
            let tail = log.tail();
            let mut log_task = JoinSet::new();
            log_task.spawn(keep_log(output, log));
            let boot_id = container.id.chars().take(12).collect();
            let process = container.process().await?;
            let group = process.and_then(|(pid, _)| ControlGroup::of(pid, &container.id));
            let server = DockerServer { container, group, daemon, boot_id, connector, tail, log_task };
            Ok(Box::new(server) as Box<dyn Server>)
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), EngineError>> {
        async move {
            // Whoever holds nothing has created nothing.
            let Some(Held { holder, .. }) = self.held.get() else { return Ok(()) };
            let until = tokio::time::Instant::now() + CLOSE_DEADLINE;
            self.detached.close();
            let _ = tokio::time::timeout_at(until, self.detached.wait()).await;
            self.remove_held(holder, until.saturating_duration_since(tokio::time::Instant::now())).await
        }
        .boxed()
    }
}

/// Where the kernel says which processors this process may use.
const SELF_STATUS: &str = "/proc/self/status";

/// The processors that this program may use (proc_pid_status(5), `Cpus_allowed_list`).
pub(crate) fn own_processors() -> std::io::Result<CpuList> {
    let status = std::fs::read_to_string(SELF_STATUS)?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.and_then(|list| list.trim().parse().ok()).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}

/// Why processors that servers are to have for themselves are not theirs alone, and what to do.
pub(crate) fn why_shared(own: &CpuList, servers: &CpuList) -> Option<String> {
    let (shared, left) = (own.shared(servers), own.without(servers));
    if shared.is_empty() {
        return None;
    }
    let advice = if left.is_empty() {
        "leave some to this program".to_owned()
    } else {
        format!("start this program by `taskset --cpu-list {left}`")
    };
    Some(format!("`limits.cpuset` is {servers}, and this program runs on {shared} of these: {advice}"))
}

/// What the daemon is asked for so that a container gets GPUs.
fn device_request(gpus: &Gpus) -> DeviceRequest {
    match gpus {
        Gpus::Nvidia(names) => DeviceRequest {
            driver: Some("nvidia".to_owned()),
            device_ids: Some(names.clone()),
            capabilities: Some(vec![["gpu", "compute", "utility"].map(str::to_owned).to_vec()]),
            ..Default::default()
        },
        Gpus::Cdi(names) => DeviceRequest {
            driver: Some("cdi".to_owned()),
            device_ids: Some(names.clone()),
            ..Default::default()
        },
    }
}

/// A daemon by its address, without one the local one. Nothing is sent yet.
fn connect(host: Option<&str>) -> Result<Docker, DockerError> {
    match host {
        Some(host) => Docker::connect_with_host(host),
        None => Docker::connect_with_defaults(),
    }
}

/// The name of a launch's container: two of one name cannot be. A leg's key may have any characters, so it is there by its digest.
fn container_name(id: &LaunchId) -> String {
    let leg = sha256(id.at.leg.as_bytes());
    let leg: String = leg.as_str().trim_start_matches("sha256:").chars().take(12).collect();
    format!("cacheon-{}-{}-{leg}-{}-{}", id.round_id, id.at.job, id.at.attempt, id.number)
}

/// The daemon's own failure, or one that nothing shows to be a submission's.
fn daemon(attempted: &'static str, error: &DockerError) -> EngineError {
    EngineError::Daemon { attempted, why: excerpt(&error_chain(error), MAX_WORDS) }
}

/// What the daemon says went wrong, with its status where it answered with one.
fn words(error: &DockerError) -> Option<(u16, &str)> {
    match error {
        DockerError::DockerResponseServerError { status_code, message } => Some((*status_code, message)),
        // The stream began well, so the status was 200 whatever happened later.
        DockerError::DockerStreamError { error } => Some((200, error)),
        _ => None,
    }
}

/// Why a container cannot be created: an image that says nothing to run, else the machine.
fn create_error(error: &DockerError, image: &ImageReference) -> EngineError {
    match words(error) {
        Some((400, text)) if text.to_lowercase().contains("no command specified") => {
            EngineError::ImageInvalid { image: image.clone(), why: "it names no command to run".to_owned() }
        }
        _ => daemon("create a container", error),
    }
}

/// Why a container cannot be started: its program is missing or not for this machine, else the machine.
fn start_error(error: &DockerError, image: &ImageReference) -> EngineError {
    const INVALID: [&str; 4] =
        ["exec: \"", "exec format error", "executable file not found", "unable to find user"];
    match words(error) {
        Some((_, text)) if INVALID.iter().any(|phrase| text.contains(phrase)) => {
            EngineError::ImageInvalid { image: image.clone(), why: excerpt(text, MAX_WORDS) }
        }
        _ => daemon("start a container", error),
    }
}

/// What a container writes, as it comes.
type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, DockerError>> + Send>>;

/// Copies the container's output into the log until it ends, no faster than that takes it: the daemon keeps at most 1 MiB for
/// whoever reads slowly, and then the container's own writes wait. Beyond the log's limit it still drains, for the tail.
async fn keep_log(mut output: Output, mut log: LogFile) {
    while let Some(Ok(part)) = output.next().await {
        log.keep(part.as_ref()).await;
    }
    log.close().await;
}

/// A created container; dropping it has it removed.
struct Container {
    docker: Docker,
    id: String,
    detached: TaskTracker,
    /// Ends when nobody has it any more, and removes what is left then.
    _guard: Arc<Guard>,
    is_removed: bool,
}

impl Container {
    async fn inspect(&self) -> Result<ContainerInspectResponse, DockerError> {
        self.docker.inspect_container(&self.id, None).await
    }

    /// Whether the daemon made what it was asked for.
    async fn is_as_asked(&self, body: &ContainerCreateBody) -> Result<(), EngineError> {
        let found = self.inspect().await.map_err(|error| daemon("inspect a container", &error))?;
        let host = json!(body.host_config);
        let asked = json!({ "HostConfig": host, "Config": { "User": body.user, "Labels": body.labels } });
        let found = json!(found);
        match asked::difference(&asked, &found) {
            None => Ok(()),
            Some(what) => Err(EngineError::Daemon {
                attempted: "create a container",
                why: excerpt(&format!("the daemon did not do what it was asked: {what}"), MAX_WORDS),
            }),
        }
    }

    /// Its process and when that was started, while it runs.
    async fn process(&self) -> Result<Option<(u32, String)>, EngineError> {
        let found = self.inspect().await.map_err(|error| daemon("inspect a container", &error))?;
        let state = found.state.unwrap_or_default();
        let pid = state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
        let is_running = state.running.unwrap_or_default();
        Ok(pid.filter(|_| is_running).map(|pid| (pid, state.started_at.unwrap_or_default())))
    }

    /// What it will write, from its first byte on.
    async fn output(&self) -> Result<Output, EngineError> {
        let options = AttachContainerOptionsBuilder::default().stream(true).stdout(true).stderr(true).build();
        let attached = self.docker.attach_container(&self.id, Some(options)).await;
        Ok(attached.map_err(|error| daemon("attach to a container", &error))?.output)
    }

    /// The way to its server: by its own network namespace.
    async fn connector(&self, program: &Path) -> Result<Arc<dyn Connector>, EngineError> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        // One that has ended already is for `exited` to tell. Nobody listens at port 0.
        let nobody = || Ok(Arc::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))) as Arc<dyn Connector>);
        let Some(process) = self.process().await? else { return nobody() };
        let entered = Namespace::of_process(process.0, program, address).await;
        // It may have ended meanwhile, before the daemon knows, and its number may have become another process's.
        if holder::has_ended(process.0) || self.process().await?.as_ref() != Some(&process) {
            return nobody();
        }
        match entered {
            Ok(namespace) => Ok(Arc::new(namespace)),
            Err(error) => {
                Err(EngineError::Daemon { attempted: "enter a container's network", why: error.to_string() })
            }
        }
    }

    /// How it ended, once it has. Nothing is known where nobody can say: it is gone, or the daemon is.
    async fn exit(&self) -> Exit {
        let exit = |code: Option<i64>, is_out_of_memory| Exit {
            code: code.and_then(|code| i32::try_from(code).ok()),
            signal: None,
            is_out_of_memory,
        };
        let mut heard = None;
        for _ in 0..LOOKS {
            let mut waiting = std::pin::pin!(
                self.docker.wait_container(&self.id, None::<bollard::query_parameters::WaitContainerOptions>)
            );
            match waiting.next().await {
                Some(Ok(end)) => heard = Some(end.status_code),
                Some(Err(DockerError::DockerContainerWaitError { code, .. })) => heard = Some(code),
                // Cut off, by a restart of the daemon for instance.
                _ => {}
            }
            // What is found now is the truth, and more of it.
            match self.inspect().await {
                Ok(found) => {
                    let state = found.state.unwrap_or_default();
                    if state.running == Some(false) {
                        return exit(state.exit_code.or(heard), state.oom_killed.unwrap_or_default());
                    }
                }
                Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => break,
                Err(_) => {}
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        exit(heard, false)
    }

    /// Processor time of its cgroup, as the daemon reads it at this moment.
    async fn cpu_time(&self) -> Option<Duration> {
        let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
        let mut stats = std::pin::pin!(self.docker.stats(&self.id, Some(options)));
        let read = tokio::time::timeout(STATS_DEADLINE, stats.next()).await.ok()??.ok()?;
        // One that has ended is said to have used nothing.
        let nanos = read.cpu_stats?.cpu_usage?.total_usage.filter(|nanos| *nanos > 0)?;
        Some(Duration::from_nanos(nanos))
    }

    async fn remove(&mut self) {
        match left::remove(&self.docker, &self.id).await {
            Ok(()) => self.is_removed = true,
            // Tried again when the engine is closed.
            Err(why) => tracing::warn!(container = self.id, why, "container not removed"),
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.is_removed {
            return;
        }
        let (docker, id) = (self.docker.clone(), std::mem::take(&mut self.id));
        // Detached, since a drop cannot wait; without a runtime the label is what finds the container again.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.detached.spawn_on(
                async move {
                    if let Err(why) = left::remove(&docker, &id).await {
                        tracing::warn!(container = id, why, "container not removed");
                    }
                },
                &runtime,
            );
        }
    }
}

struct DockerServer {
    container: Container,
    /// Where its processor time is counted; none where this program does not see that.
    group: Option<ControlGroup>,
    daemon: DaemonWatch,
    boot_id: String,
    connector: Arc<dyn Connector>,
    tail: LogTail,
    /// Ends with the container's output; aborted on drop.
    log_task: JoinSet<()>,
}

impl Server for DockerServer {
    fn connector(&self) -> Arc<dyn Connector> {
        Arc::clone(&self.connector)
    }

    fn boot_id(&self) -> &str {
        &self.boot_id
    }

    fn health_path(&self) -> &str {
        HEALTH_PATH
    }

    fn log_tail(&self) -> String {
        self.tail.text()
    }

    fn cpu_time(&self) -> BoxFuture<'_, Option<Duration>> {
        // What has ended has no group any more, and the daemon says so.
        match self.group.as_ref().and_then(ControlGroup::cpu_time) {
            Some(time) => std::future::ready(Some(time)).boxed(),
            None => self.container.cpu_time().boxed(),
        }
    }

    fn strangers(&self) -> IsStranger {
        let id = self.container.id.clone();
        // Its control group has the container's id in its name, as this machine sees it (cgroups(7)).
        Arc::new(move |pid| {
            std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| !groups.contains(&id))
        })
    }

    fn exited(&mut self) -> BoxFuture<'_, Exit> {
        async move {
            let exit = self.container.exit().await;
            // What the server wrote before it ended belongs to the reason.
            self.tail.take_the_rest();
            let _ = tokio::time::timeout(Duration::from_secs(1), self.log_task.join_next()).await;
            exit
        }
        .boxed()
    }

    fn engine_failure(&self) -> BoxFuture<'_, Option<String>> {
        self.daemon.failure().boxed()
    }

    fn stop(mut self: Box<Self>, grace: Duration) -> BoxFuture<'static, ()> {
        async move {
            let seconds = i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
            let options = StopContainerOptionsBuilder::default().t(seconds).build();
            let stopping = self.container.docker.stop_container(&self.container.id, Some(options));
            // That it could not be asked is no reason to keep it.
            let _ = tokio::time::timeout(grace + Duration::from_secs(5), stopping).await;
            self.container.remove().await;
            self.tail.take_the_rest();
            let _ = tokio::time::timeout(Duration::from_secs(1), self.log_task.join_next()).await;
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
