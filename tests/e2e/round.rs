//! What one round of a test has to itself: its data directory and runner, and eyes for processes it left behind.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub(crate) struct Round {
    pub(crate) dir: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Round {
    pub(crate) fn new() -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().expect("temp dir");
        // A model directory of its own name marks every server of this round in its environment.
        std::os::unix::fs::symlink(root().join("data/reference"), dir.path().join("model")).expect("link");
        let runner = std::fs::read_to_string(root().join("runners/embedded.yml")).expect("runner");
        let runner = runner.replace(
            "model-dir: data/reference",
            &format!("model-dir: {}", dir.path().join("model").display()),
        );
        std::fs::create_dir(dir.path().join("runners")).expect("runners");
        std::fs::write(dir.path().join("runners/embedded.yml"), runner).expect("runner");
        Self { dir, _alone: alone }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// `cacheon --data .. ARGS`, in the project's root.
    pub(crate) fn cacheon(&self, args: &[&str]) -> Command {
        Self::cacheon_at(&self.data(), args)
    }

    /// The same with another data directory.
    pub(crate) fn cacheon_at(data: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cacheon"));
        command.current_dir(root()).env_remove("CACHEON_DATA").env("NO_COLOR", "1");
        command.arg("--data").arg(data).args(args);
        command
    }

    pub(crate) fn run_demo(&self, args: &[&str]) -> Command {
        let mut command = self.cacheon(&["run", "pipelines/demo.yml", "--runners"]);
        command.arg(self.dir.path().join("runners")).args(args);
        command
    }

    pub(crate) fn output(&self, args: &[&str]) -> Output {
        self.cacheon(args).output().expect("the program starts")
    }

    /// Rows of a table over all rounds here, by the program's own query.
    pub(crate) fn rows(&self, sql: &str) -> Vec<serde_json::Value> {
        let output = self.output(&["query", "--json", sql]);
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Processes of this round that are still there: servers carry its model directory in their environment, scripts
    /// their gate.
    pub(crate) fn leftovers(&self) -> Vec<u32> {
        let marks = [
            format!("CACHEON_MODEL_DIR={}", self.dir.path().join("model").display()),
            // For scripts, where a test's pipeline says so.
            format!("GATE={}", self.dir.path().join("gate").display()),
        ];
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let is_marked = |variable: &[u8]| marks.iter().any(|mark| variable == mark.as_bytes());
            if environment.split(|byte| *byte == 0).any(is_marked) {
                found.push(pid);
            }
        }
        found
    }

    /// Waits until no process of this round is left; the kernel needs a moment to carry a death out.
    pub(crate) fn wait_until_empty(&self) {
        let started = std::time::Instant::now();
        while !self.leftovers().is_empty() {
            assert!(started.elapsed().as_secs() < 20, "left behind: {:?}", self.leftovers());
            std::thread::yield_now();
        }
    }
}

/// Starts a command and reads its stderr until a line contains `sign`; the reader goes on to the end.
pub(crate) fn start_until(mut command: Command, sign: &str) -> (Child, std::thread::JoinHandle<String>) {
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("stderr"));
    let mut seen = String::new();
    while !seen.contains(sign) {
        let read = stderr.read_line(&mut seen).expect("stderr is text");
        assert!(read > 0, "ended before it said `{sign}`:\n{seen}");
    }
    let rest = std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            seen.push_str(&line);
            seen.push('\n');
        }
        seen
    });
    (child, rest)
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
