//! The process engine: an image is a manifest file, a server a process of this machine.
//!
//! It needs nothing but the build, so it runs the demo and the tests. It isolates nothing: a runner that
//! names it trusts its images. An image `embedded/turbo` is the file `embedded/turbo.json` below the
//! runner's images folder, its digest the SHA-256 of that file's bytes:
//! `{"command": ["cacheon", "reference", "serve"], "args": [..], "env": {..}, "health-path": "/health"}`, where
//! the program `cacheon` is this very executable. The server is told its port, model directory and model name by
//! `CACHEON_PORT`, `CACHEON_MODEL_DIR` and `CACHEON_MODEL_NAME`, and by `{port}`, `{model-dir}` and `{model-name}`
//! wherever the manifest has them (`manifest`).
//!
//! A server runs below a keeper (`keeper`), which ends with the server all that it started. The keeper ends when we die, so
//! no way of our ending leaves anything behind.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use super::log::{LogFile, LogTail};
use super::manifest::{Manifest, Values};
use super::tree::{cpu_time, is_stranger};
use crate::model::{Digest, ImageReference};
use crate::ports::{Connector, ContainerEngine, EngineError, Exit, IsStranger, Launch, PullProgress, Server};

/// A manifest larger than this is no manifest.
const MAX_MANIFEST_BYTES: u64 = 64 * 1024;
/// How long killed processes may take to be gone; the memory of a large model takes a while.
const END_WITHIN: Duration = Duration::from_secs(30);

/// Starts servers as processes from manifest files.
#[derive(Debug, Clone)]
pub struct ProcessEngine {
    images_dir: PathBuf,
    program: PathBuf,
}

impl ProcessEngine {
    /// An engine over a folder of manifests; `program` is what `cacheon` in a manifest means.
    pub fn new(images_dir: PathBuf, program: PathBuf) -> Self {
        Self { images_dir, program }
    }

    /// Reads a manifest and checks its digest: the one door to an image.
    async fn manifest(&self, image: &ImageReference, digest: &Digest) -> Result<Manifest, EngineError> {
        let name = format!("{image}.json");
        let path = self.images_dir.join(&name);
        let machine =
            |source| EngineError::Machine { attempted: "read image manifest", path: path.clone(), source };
        let file = match tokio::fs::File::open(&path).await {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(EngineError::ImageAbsent { image: image.clone() });
            }
            Err(error) => return Err(machine(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes).await.map_err(machine)?;
        let invalid = |why: String| EngineError::ImageInvalid { image: image.clone(), why };
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(invalid(format!("its manifest is larger than {MAX_MANIFEST_BYTES} bytes")));
        }
        let found = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        if found != digest.as_str() {
            let found = found.parse().map_err(|error| invalid(format!("{error}")))?;
            return Err(EngineError::DigestMismatch { image: image.clone(), wanted: digest.clone(), found });
        }
        Manifest::parse(&name, &bytes).map_err(|error| invalid(error.to_string()))
    }

    fn command(&self, manifest: &Manifest, launch: &Launch, port: u16) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["keep", "--parent"]).arg(std::process::id().to_string()).arg("--");
        let values = Values { port, model_name: &launch.model_name, model_dir: &launch.model_dir };
        let mut words = manifest.command.iter().map(|word| word.fill(&values));
        match words.next() {
            Some(word) if word == "cacheon" => command.arg(&self.program),
            Some(word) => command.arg(word),
            None => &mut command,
        };
        command.args(words);
        if launch.args.is_empty() {
            command.args(manifest.args.iter().map(|word| word.fill(&values)));
        } else {
            command.args(&launch.args);
        }
        command.env_clear().envs(manifest.env.iter().map(|(name, value)| (name, value.fill(&values))));
        for (name, value) in launch_environment(launch, port) {
            command.env(name, value);
        }
        command
            .current_dir(&launch.scratch_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // The keeper is told to end, never killed: it has others to end first.
        command.process_group(0);
        command
    }
}

/// What a server is told: where to listen, what to serve, and a search path. Nothing else of ours.
fn launch_environment(launch: &Launch, port: u16) -> Vec<(&'static str, OsString)> {
    vec![
        ("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into())),
        ("HOME", launch.scratch_dir.clone().into()),
        ("CACHEON_HOST", Ipv4Addr::LOCALHOST.to_string().into()),
        ("CACHEON_PORT", port.to_string().into()),
        ("CACHEON_MODEL_DIR", launch.model_dir.clone().into()),
        ("CACHEON_MODEL_NAME", launch.model_name.clone().into()),
    ]
}

impl ContainerEngine for ProcessEngine {
    fn pull<'a>(
        &'a self,
        image: &'a ImageReference,
        digest: &'a Digest,
        _: &'a PullProgress<'a>,
    ) -> BoxFuture<'a, Result<Digest, EngineError>> {
        async move { Ok(self.manifest(image, digest).await?.content) }.boxed()
    }

    fn launch<'a>(&'a self, launch: &'a Launch) -> BoxFuture<'a, Result<Box<dyn Server>, EngineError>> {
        async move {
            let manifest = self.manifest(&launch.image, &launch.digest).await?;
            let machine = |attempted, path: &Path| {
                let path = path.to_owned();
                move |source| EngineError::Machine { attempted, path, source }
            };
            tokio::fs::create_dir_all(&launch.scratch_dir)
                .await
                .map_err(machine("create scratch directory", &launch.scratch_dir))?;
            let log = tokio::fs::File::create(&launch.log_path)
                .await
                .map_err(machine("create server log", &launch.log_path))?;
            let port = free_port().map_err(machine("find a free port for", &launch.scratch_dir))?;
            let mut child = self
                .command(&manifest, launch, port)
                .spawn()
                .map_err(machine("start a process by", &self.program))?;
            let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
            let boot_id = format!("{}-{port}", child.id().unwrap_or_default());
            let log = LogFile::new(log, launch.max_log_bytes);
            let tail = log.tail();
            let mut log_task = JoinSet::new();
            let streams = (child.stdout.take(), child.stderr.take());
            log_task.spawn(keep_log(streams, log));
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let health_path = manifest.health_path;
            Ok(Box::new(ProcessServer { child, pid, boot_id, address, health_path, tail, log_task })
                as Box<dyn Server>)
        }
        .boxed()
    }
}

/// A port nobody listens on now. The server binds it a moment later; if somebody else was faster, its
/// boot fails and is seen to fail.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Copies both streams into the log until they end, no faster than that takes them; beyond its limit it still drains, for the
/// tail.
async fn keep_log(
    (stdout, stderr): (Option<tokio::process::ChildStdout>, Option<tokio::process::ChildStderr>),
    mut log: LogFile,
) {
    let (Some(mut stdout), Some(mut stderr)) = (stdout, stderr) else { return };
    let (mut out, mut err) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    let (mut is_out_open, mut is_err_open) = (true, true);
    while is_out_open || is_err_open {
        let bytes = tokio::select! {
            read = stdout.read(&mut out), if is_out_open => match read {
                Ok(count) if count > 0 => &out[..count],
                _ => { is_out_open = false; continue }
            },
            read = stderr.read(&mut err), if is_err_open => match read {
                Ok(count) if count > 0 => &err[..count],
                _ => { is_err_open = false; continue }
            },
        };
        log.keep(bytes).await;
    }
    log.close().await;
}

struct ProcessServer {
    /// The keeper; it ends as the server does.
    child: Child,
    pid: Option<Pid>,
    boot_id: String,
    address: SocketAddr,
    health_path: String,
    tail: LogTail,
    /// Ends with the server's streams; aborted on drop.
    log_task: JoinSet<()>,
}

impl ProcessServer {
    fn signal(&mut self, signal: Signal) {
        // Once it was waited for, its number may be somebody else's.
        if let Some(pid) = self.pid.filter(|_| matches!(self.child.try_wait(), Ok(None))) {
            // One that is gone already is what was wanted.
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for ProcessServer {
    fn drop(&mut self) {
        self.signal(Signal::HUP);
    }
}

impl Server for ProcessServer {
    fn connector(&self) -> Arc<dyn Connector> {
        Arc::new(self.address)
    }

    fn boot_id(&self) -> &str {
        &self.boot_id
    }

    fn health_path(&self) -> &str {
        &self.health_path
    }

    fn log_tail(&self) -> String {
        self.tail.text()
    }

    fn cpu_time(&self) -> BoxFuture<'_, Option<Duration>> {
        async move { cpu_time(self.pid?).ok() }.boxed()
    }

    fn strangers(&self) -> IsStranger {
        let root = self.pid;
        Arc::new(move |pid| is_stranger(pid, root))
    }

    fn exited(&mut self) -> BoxFuture<'_, Exit> {
        async move {
            let status = self.child.wait().await;
            // What the server wrote before it ended belongs to the reason; its streams are closed by now
            // unless it left a child behind, so the wait is bounded.
            self.tail.take_the_rest();
            let _ = tokio::time::timeout(Duration::from_millis(500), self.log_task.join_next()).await;
            status.map_or(Exit::default(), Exit::from)
        }
        .boxed()
    }

    fn stop(mut self: Box<Self>, grace: Duration) -> BoxFuture<'static, ()> {
        async move {
            self.signal(Signal::TERM);
            if tokio::time::timeout(grace, self.child.wait()).await.is_err() {
                self.signal(Signal::HUP);
                if tokio::time::timeout(END_WITHIN, self.child.wait()).await.is_err() {
                    tracing::warn!(boot_id = self.boot_id, "a server's processes do not end");
                }
            }
            self.tail.take_the_rest();
            let _ = tokio::time::timeout(Duration::from_secs(1), self.log_task.join_next()).await;
        }
        .boxed()
    }
}

/// `cacheon launch` as this process starts it; the program that it becomes, and its arguments, are still to be added.
/// `program` is this executable.
pub(super) fn launch_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(launch_arguments(std::process::id())).arg("--");
    command
}

/// The arguments of `cacheon launch` for a program that is to end with the process `parent`.
pub(super) fn launch_arguments(parent: u32) -> [String; 3] {
    ["launch".to_owned(), "--parent".to_owned(), parent.to_string()]
}

/// Becomes the program of an image, to be killed by the kernel when the process `parent` ends.
///
/// # Errors
/// Returns only if the program could not be started.
pub fn become_program(parent: u32, argv: &[OsString]) -> std::io::Error {
    use std::os::unix::process::CommandExt as _;
    let Some((program, arguments)) = argv.split_first() else {
        return std::io::Error::new(std::io::ErrorKind::InvalidInput, "no program given");
    };
    if let Err(error) = end_with_parent(parent, Signal::KILL) {
        return error;
    }
    std::process::Command::new(program).args(arguments).exec()
}

/// Has the kernel send a signal to this process when the process `parent` ends.
///
/// # Errors
/// Where it cannot, or the parent has ended already.
pub(super) fn end_with_parent(parent: u32, signal: Signal) -> std::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(signal))?;
    // The parent may have ended before the kernel was told to watch it.
    if rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(parent.cast_signed()) {
        return Err(std::io::Error::other("the parent has ended"));
    }
    Ok(())
}

/// Begins a session of this process's own.
///
/// # Errors
/// Where this process leads a process group already.
pub fn begin_session() -> std::io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine_with(manifest: &str) -> (tempfile::TempDir, ProcessEngine, Digest) {
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::create_dir_all(dir.path().join("embedded")).expect("dir");
        std::fs::write(dir.path().join("embedded/x.json"), manifest).expect("manifest");
        let digest =
            format!("sha256:{}", hex::encode(Sha256::digest(manifest.as_bytes()))).parse().expect("digest");
        let engine = ProcessEngine::new(dir.path().to_owned(), "/bin/false".into());
        (dir, engine, digest)
    }

    async fn check(manifest: &str, image: &str, change_digest: bool) -> String {
        let (_dir, engine, digest) = engine_with(manifest);
        let digest = if change_digest {
            format!("sha256:{}", "0".repeat(64)).parse().expect("digest")
        } else {
            digest
        };
        match engine.pull(&image.parse().expect("image"), &digest, &|_, _| ()).await {
            Ok(_) => "pulled".to_owned(),
            Err(error) => error.reason().code,
        }
    }

    #[tokio::test]
    async fn an_image_is_its_digest() {
        let good = r#"{"command":["cacheon"]}"#;
        assert_eq!(check(good, "embedded/x", false).await, "pulled");
        assert_eq!(check(good, "embedded/x", true).await, "digest-mismatch");
        assert_eq!(check(good, "embedded/y", false).await, "image-unavailable");
        assert_eq!(check("{}", "embedded/x", false).await, "image-invalid");
        assert_eq!(check(r#"{"command":[]}"#, "embedded/x", false).await, "image-invalid");
        assert_eq!(check(r#"{"command":["a","{prot}"]}"#, "embedded/x", false).await, "image-invalid");
        assert_eq!(
            check(r#"{"command":["a"],"privileged":true}"#, "embedded/x", false).await,
            "image-invalid"
        );
        assert_eq!(check(&" ".repeat(70_000), "embedded/x", false).await, "image-invalid");
    }
}
