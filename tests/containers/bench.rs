//! What the tests share: daemon, registry, the layer of all images; and one launched server with what it said.

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{ListContainersOptionsBuilder, ListImagesOptions};
use cacheon::adapters::docker::{DockerEngine, DockerSettings};
use cacheon::artifact::LegAttempt;
use cacheon::model::Digest;
use cacheon::pipeline::runner::Limits;
use cacheon::ports::{ContainerEngine as _, EngineError, Exit, Launch, LaunchId, Server};
use rustix::process::Pid;
use serde_json::{Value, json};

use super::image::{Layer, Pushed, Registry, shared_layer};
use super::round::root;

/// A test and its name.
pub(crate) type Test = (&'static str, fn(&'static Bench));

/// Where the daemon and the registry are.
pub(crate) struct Addresses {
    docker: String,
    registry: String,
}

impl Addresses {
    pub(crate) fn from_env() -> Option<Self> {
        let docker = std::env::var("CACHEON_TEST_DOCKER").ok()?;
        Some(Self { docker, registry: std::env::var("CACHEON_TEST_REGISTRY").ok()? })
    }
}

/// Bytes of a server's log that are kept.
pub(crate) const LOG_BYTES: u64 = 64 * 1024;

pub(crate) struct Bench {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) docker_host: String,
    pub(crate) registry: Registry,
    pub(crate) layer: Layer,
    /// Servers launched so far.
    launches: AtomicU32,
    /// Where layers lie while they are pulled.
    pub(crate) pulls_dir: tempfile::TempDir,
}

/// Made by the first test that asks, which then takes seconds longer.
pub(crate) fn bench() -> &'static Bench {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    BENCH.get_or_init(|| {
        let Addresses { docker, registry } =
            Addresses::from_env().expect("CACHEON_TEST_DOCKER and CACHEON_TEST_REGISTRY");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let registry = Registry::new(registry);
        let own = std::env::current_exe().expect("this test");
        let built = own.parent().and_then(Path::parent).expect("a build folder");
        let opponent = built.join("examples/container-opponent");
        assert!(opponent.is_file(), "cargo build --example container-opponent");
        let layer = runtime.block_on(registry.push_layer(shared_layer(&opponent)));
        let pulls_dir = tempfile::tempdir().expect("a folder");
        Bench { runtime, docker_host: docker, registry, layer, launches: AtomicU32::new(1), pulls_dir }
    })
}

impl Bench {
    /// Pushes an image that runs this command.
    pub(crate) fn image(&self, name: &str, command: &[&str]) -> Pushed {
        // Each is an image of its own, whatever it does.
        self.configured(name, &json!({"Entrypoint": command, "Env": [format!("IMAGE={name}")]}))
    }

    /// Pushes an image with this configuration.
    pub(crate) fn configured(&self, name: &str, config: &Value) -> Pushed {
        let layer = (&self.layer, self.layer.digest());
        self.runtime.block_on(self.registry.push_image(name, layer, config))
    }

    /// Pushes an image whose configuration is wrong about its layer.
    pub(crate) fn mislabelled(&self, name: &str, diff_id: &Digest) -> Pushed {
        let config = json!({"Entrypoint": ["/bin/opponent", "sleep"]});
        self.runtime.block_on(self.registry.push_image(name, (&self.layer, diff_id), &config))
    }

    fn engine(&self, limits: Limits) -> DockerEngine {
        DockerEngine::new(DockerSettings {
            host: Some(self.docker_host.clone()),
            limits,
            program: env!("CARGO_BIN_EXE_cacheon").into(),
            pulls_dir: self.pulls_dir.path().to_owned(),
            ..Default::default()
        })
    }

    pub(crate) fn pull(&self, image: &Pushed) -> Result<Digest, EngineError> {
        self.pull_within(image, &Limits::default())
    }

    pub(crate) fn pull_within(&self, image: &Pushed, limits: &Limits) -> Result<Digest, EngineError> {
        let engine = self.engine(limits.clone());
        self.runtime.block_on(engine.pull(&image.image, &image.digest, &|_, _| ()))
    }

    /// Names of all images that the daemon has, with their digests.
    pub(crate) fn images(&self) -> String {
        let docker = Docker::connect_with_host(&self.docker_host).expect("a daemon");
        let images = self.runtime.block_on(docker.list_images(None::<ListImagesOptions>)).expect("images");
        let mut names: Vec<String> = images.into_iter().flat_map(|found| found.repo_digests).collect();
        names.sort();
        names.join("\n")
    }

    /// Pulls an image and starts it; `Err` where the engine would not start it.
    pub(crate) fn launch(&'static self, image: &Pushed, limits: Limits) -> Result<Running, EngineError> {
        self.launch_with(&[], image, limits)
    }

    /// The same with these arguments.
    pub(crate) fn launch_with(
        &'static self,
        args: &[&str],
        image: &Pushed,
        limits: Limits,
    ) -> Result<Running, EngineError> {
        self.pull(image)?;
        let dir = tempfile::tempdir().expect("a folder");
        let number = self.launches.fetch_add(1, Ordering::Relaxed);
        let at = LegAttempt { job: "test".to_owned(), leg: String::new(), attempt: 1 };
        let launch = Launch {
            id: LaunchId { round_id: "r".parse().expect("id"), at, number },
            image: image.image.clone(),
            digest: image.digest.clone(),
            model_dir: root().join("data/reference"),
            model_name: "model".to_owned(),
            args: args.iter().map(ToString::to_string).collect(),
            log_path: dir.path().join("server.log"),
            max_log_bytes: LOG_BYTES,
            scratch_dir: dir.path().join("scratch"),
        };
        let server = self.runtime.block_on(self.engine(limits).launch(&launch))?;
        Ok(Running { server: Some(server), bench: self, dir })
    }

    /// Pushes the opponent with this act, and starts it.
    pub(crate) fn opponent(&'static self, act: &[&str], limits: Limits) -> Running {
        let command = [&["/bin/opponent"], act].concat();
        let image = self.image(&act.join("-"), &command);
        self.launch(&image, limits).expect("starts")
    }

    fn docker(&self) -> Docker {
        Docker::connect_with_host(&self.docker_host).expect("a daemon")
    }

    /// Containers of servers whose scratch directory is below this one, ended ones too.
    pub(crate) fn containers(&self, below: &Path) -> Vec<String> {
        let options = ListContainersOptionsBuilder::default().all(true).build();
        let found = self.runtime.block_on(self.docker().list_containers(Some(options))).expect("a list");
        let is_below = |labels: &std::collections::HashMap<String, String>| {
            labels.get("cacheon.scratch").is_some_and(|scratch| Path::new(scratch).starts_with(below))
        };
        found
            .into_iter()
            .filter(|one| one.labels.as_ref().is_some_and(is_below))
            .filter_map(|one| one.id)
            .collect()
    }

    /// The number of the daemon's process.
    pub(crate) fn daemon(&self) -> String {
        let folder = self.docker_host.trim_start_matches("unix://").trim_end_matches("docker.sock");
        let pid = std::fs::read_to_string(format!("{folder}docker.pid")).expect("a daemon");
        pid.trim().to_owned()
    }

    /// The first process of a container that runs.
    pub(crate) fn process(&self, container: &str) -> Option<Pid> {
        let found =
            self.runtime.block_on(self.docker().inspect_container(container, None)).expect("a container");
        found.state?.pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
    }
}

/// A started container, and where its log is.
pub(crate) struct Running {
    server: Option<Box<dyn Server>>,
    bench: &'static Bench,
    dir: tempfile::TempDir,
}

impl Running {
    pub(crate) fn server(&mut self) -> &mut dyn Server {
        &mut **self.server.as_mut().expect("not stopped")
    }

    /// What the daemon says of the container.
    pub(crate) fn inspect(&mut self) -> ContainerInspectResponse {
        let id = self.server().boot_id().to_owned();
        self.bench.runtime.block_on(self.bench.docker().inspect_container(&id, None)).expect("a container")
    }

    /// Waits until the server has ended by itself.
    #[track_caller]
    pub(crate) fn exit(&mut self, within: Duration) -> Exit {
        let bench = self.bench;
        let exited = async { tokio::time::timeout(within, self.server().exited()).await };
        bench.runtime.block_on(exited).expect("it ends in time")
    }

    /// Whether it goes on for so long.
    pub(crate) fn still_runs(&mut self, span: Duration) -> bool {
        let bench = self.bench;
        let exited = async { tokio::time::timeout(span, self.server().exited()).await };
        bench.runtime.block_on(exited).is_err()
    }

    /// Waits until the log contains a line with these words.
    #[track_caller]
    pub(crate) fn wait_for(&self, words: &str) {
        let started = Instant::now();
        while !self.log().contains(words) {
            assert!(started.elapsed() < Duration::from_secs(20), "not said: `{words}`: {}", self.log());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Asks it to stop, and how long that took.
    pub(crate) fn stop(&mut self, grace: Duration) -> Duration {
        let started = Instant::now();
        let server = self.server.take().expect("not stopped");
        self.bench.runtime.block_on(server.stop(grace));
        started.elapsed()
    }

    /// Drops the server without a word.
    pub(crate) fn forget(&mut self) {
        let _inside = self.bench.runtime.enter();
        self.server = None;
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.path().join("server.log")).expect("a log"))
            .into_owned()
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.bench.containers(self.dir.path()).is_empty()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.stop(Duration::ZERO);
        }
    }
}
