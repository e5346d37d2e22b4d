//! The process engine with real processes: ends are seen, logs are bounded, nothing is left behind.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cacheon::adapters::process::ProcessEngine;
use cacheon::artifact::LegAttempt;
use cacheon::model::{Digest, ImageReference};
use cacheon::ports::{ContainerEngine as _, Exit, Launch, LaunchId, Server};
use sha2::Digest as _;

struct Workspace {
    dir: tempfile::TempDir,
    engine: ProcessEngine,
}

impl Workspace {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let engine =
            ProcessEngine::new(dir.path().join("images"), PathBuf::from(env!("CARGO_BIN_EXE_cacheon")));
        std::fs::create_dir(dir.path().join("images")).expect("images");
        Self { dir, engine }
    }

    /// Starts a shell script as an image.
    async fn start(&self, script: &str, max_log_bytes: u64) -> Box<dyn Server> {
        self.start_manifest(&serde_json::json!({"command": ["bash", "-c", script]}), max_log_bytes).await
    }

    async fn start_manifest(&self, manifest: &serde_json::Value, max_log_bytes: u64) -> Box<dyn Server> {
        self.start_with(&[], manifest, max_log_bytes).await
    }

    async fn start_with(
        &self,
        args: &[&str],
        manifest: &serde_json::Value,
        max_log_bytes: u64,
    ) -> Box<dyn Server> {
        let manifest = manifest.to_string();
        std::fs::write(self.dir.path().join("images/x.json"), &manifest).expect("manifest");
        let digest = format!("sha256:{}", hex::encode(sha2::Sha256::digest(manifest.as_bytes())));
        let at = LegAttempt { job: "j".to_owned(), leg: String::new(), attempt: 1 };
        let launch = Launch {
            id: LaunchId { round_id: "r".parse().expect("id"), at, number: 1 },
            image: "x".parse::<ImageReference>().expect("image"),
            digest: digest.parse::<Digest>().expect("digest"),
            model_dir: PathBuf::from("/nowhere"),
            model_name: "m".to_owned(),
            args: args.iter().map(ToString::to_string).collect(),
            log_path: self.dir.path().join("server.log"),
            max_log_bytes,
            scratch_dir: self.dir.path().join("scratch"),
        };
        self.engine.launch(&launch).await.expect("launches")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("server.log")).expect("log")
    }
}

/// How long a test waits for what must come.
const DEADLINE: Duration = Duration::from_mins(1);

/// Looks until there is something to see; fails the test if nothing came.
async fn eventually<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    let found = tokio::time::timeout(DEADLINE, looking).await;
    found.unwrap_or_else(|_| panic!("waited {} s in vain for {what}", DEADLINE.as_secs()))
}

/// The pid that a script wrote, once it is there.
async fn pid_in(path: &Path) -> i32 {
    let look = || std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
    eventually("a script to write its pid", look).await
}

fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

async fn wait_until_gone(pid: i32) {
    eventually("a process to be gone", || (!is_alive(pid)).then_some(())).await;
}

#[tokio::test]
async fn an_end_is_seen_with_its_code_and_last_words() {
    let workspace = Workspace::new();
    let mut server = workspace.start("echo one; echo 'last words' >&2; exit 7", 1000).await;
    assert_eq!(server.exited().await, Exit { code: Some(7), ..Exit::default() });
    assert!(server.log_tail().contains("last words"));
    server.stop(Duration::ZERO).await;
    let mut server = workspace.start("kill -9 $$", 1000).await;
    assert_eq!(server.exited().await, Exit { signal: Some(9), ..Exit::default() });
    let mut server = workspace.start("exec /no/such/program", 1000).await;
    assert_eq!(server.exited().await.code, Some(127));
}

#[tokio::test]
async fn a_server_knows_its_directory_and_nothing_of_ours() {
    let workspace = Workspace::new();
    let mut server = workspace.start("env | sort; pwd", 10_000).await;
    let address = server.connector().address();
    server.exited().await;
    server.stop(Duration::ZERO).await;
    let log = workspace.log();
    assert!(log.contains(&format!("CACHEON_PORT={}", address.port())), "{log}");
    assert!(log.contains("CACHEON_MODEL_NAME=m"), "{log}");
    assert!(!log.contains("CARGO"), "the environment starts empty: {log}");
    assert!(log.contains("/scratch"), "{log}");
}

#[tokio::test]
async fn a_manifest_puts_port_and_model_where_a_program_wants_them() {
    let workspace = Workspace::new();
    let manifest = serde_json::json!({
        "command": ["bash", "-c", "echo \"$@\" $LISTEN"],
        "args": ["bash", "--port={port}", "-m", "{model-dir}/{model-name}.gguf", "{{}}"],
        "env": { "LISTEN": "tcp://[::]:{port}" },
        "health-path": "/v1/models",
    });
    let mut server = workspace.start_manifest(&manifest, 1000).await;
    let port = server.connector().address().port();
    assert_eq!(server.health_path(), "/v1/models");
    server.exited().await;
    server.stop(Duration::ZERO).await;
    assert_eq!(workspace.log(), format!("--port={port} -m /nowhere/m.gguf {{}} tcp://[::]:{port}\n"));
    // Others take the place of the manifest's, as they are.
    let mut server = workspace.start_with(&["bash", "-m", "{port}"], &manifest, 1000).await;
    let port = server.connector().address().port();
    server.exited().await;
    server.stop(Duration::ZERO).await;
    assert_eq!(workspace.log(), format!("-m {{port}} tcp://[::]:{port}\n"));
}

#[tokio::test]
async fn a_flood_of_log_is_cut_and_its_end_known() {
    let workspace = Workspace::new();
    let mut server = workspace.start("head -c 5000000 /dev/zero | tr '\\0' x; echo; echo end", 1000).await;
    assert_eq!(server.exited().await.code, Some(0));
    assert!(server.log_tail().ends_with("end\n"));
    server.stop(Duration::ZERO).await;
    let log = workspace.log();
    assert!(log.len() < 1100, "{}", log.len());
    assert!(log.contains("more bytes were not kept"));
}

#[tokio::test]
async fn stopping_ends_all_that_a_server_started() {
    let workspace = Workspace::new();
    let file = workspace.dir.path().join("child");
    // It ignores the polite signal, and so does its child.
    let script = format!("trap '' TERM; (trap '' TERM; sleep 600) & echo $! > {}; wait", file.display());
    let server = workspace.start(&script, 1000).await;
    let child = pid_in(&file).await;
    server.stop(Duration::from_millis(50)).await;
    wait_until_gone(child).await;
}

#[tokio::test]
async fn dropping_a_server_ends_it() {
    let workspace = Workspace::new();
    let file = workspace.dir.path().join("pid");
    let server = workspace.start(&format!("echo $$ > {}; sleep 600", file.display()), 1000).await;
    let pid = pid_in(&file).await;
    drop(server);
    wait_until_gone(pid).await;
}

/// A script that leaves a process which has gone into a session of its own, with no parent and no environment, and
/// writes its pid; then it does what `end` says.
fn leaves_one_behind(file: &Path, end: &str) -> String {
    let left = format!("trap \"\" TERM HUP; echo $$ > {}; while :; do sleep 600; done", file.display());
    format!(
        "(setsid env -i PATH=$PATH bash -c '{left}' & ) ; until [ -s {} ]; do :; done; {end}",
        file.display()
    )
}

#[tokio::test]
async fn what_has_left_its_session_ends_with_the_server() {
    let workspace = Workspace::new();
    let file = workspace.dir.path().join("left");
    for (end, want) in [
        ("exit 3", Exit { code: Some(3), ..Exit::default() }),
        ("kill -SEGV $$", Exit { signal: Some(11), ..Exit::default() }),
        ("kill -TERM $$", Exit { signal: Some(15), ..Exit::default() }),
    ] {
        std::fs::remove_file(&file).or_else(absent).expect("removed");
        let mut server = workspace.start(&leaves_one_behind(&file, end), 1000).await;
        assert_eq!(server.exited().await, want, "{end}");
        assert!(!is_alive(pid_in(&file).await), "the end is seen when all is gone: {end}");
    }
    std::fs::remove_file(&file).expect("removed");
    let server = workspace.start(&leaves_one_behind(&file, "wait; sleep 600"), 1000).await;
    let left = pid_in(&file).await;
    assert!(server.cpu_time().await.is_some());
    assert!(is_alive(left));
    server.stop(Duration::from_secs(5)).await;
    assert!(!is_alive(left), "it is gone when the server is stopped");
}

fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[tokio::test]
async fn nothing_is_left_when_the_one_who_started_it_is_killed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let file = dir.path().join("left");
    // A shell in our place: it starts a keeper, and is killed.
    let mut shell = tokio::process::Command::new("bash")
        .args(["-c", "\"$0\" keep --parent $$ -- bash -c \"$1\" & wait"])
        .arg(env!("CARGO_BIN_EXE_cacheon"))
        .arg(leaves_one_behind(&file, "sleep 600"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a shell");
    let left = pid_in(&file).await;
    assert!(is_alive(left));
    shell.kill().await.expect("killed");
    wait_until_gone(left).await;
    // All of the tree had this pipe: it closes with the last one.
    let mut stdout = shell.stdout.take().expect("piped");
    let closing = tokio::io::AsyncReadExt::read_to_end(&mut stdout, &mut Vec::new()).await;
    assert!(closing.is_ok());
}

#[tokio::test]
async fn a_server_that_kills_its_keeper_ends_too() {
    let workspace = Workspace::new();
    let file = workspace.dir.path().join("pid");
    let script = format!("echo $$ > {}; kill -9 $PPID; sleep 600", file.display());
    let mut server = workspace.start(&script, 1000).await;
    assert_eq!(server.exited().await, Exit { signal: Some(9), ..Exit::default() });
    wait_until_gone(pid_in(&file).await).await;
}

#[tokio::test]
async fn what_a_server_uses_is_counted_with_all_that_it_started() {
    let workspace = Workspace::new();
    let file = workspace.dir.path().join("burns");
    let left = format!("echo $$ > {}; while :; do :; done", file.display());
    let script = format!("(setsid bash -c '{left}' & ); sleep 600");
    let server = workspace.start(&script, 1000).await;
    pid_in(&file).await;
    let burning = async {
        while server.cpu_time().await.expect("it runs") < Duration::from_millis(300) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, burning).await.expect("its processor time grows");
    server.stop(Duration::ZERO).await;
}
