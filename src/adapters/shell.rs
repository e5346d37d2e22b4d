//! A `run:` step: bash, always `-eo pipefail`, in a process group of its own.
//!
//! Outside data reach it only by `env:`. It hands values on by writing `name=value` lines to the file named
//! by `CACHEON_OUTPUT`. Exit codes say whose fault a failure is, in the way of `sysexits.h`: 75 (temporary
//! failure) infrastructure, 65 (data) the submission, any other the pipeline.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Map, Value};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::guard::{self, Guard};
use super::log::last_words;
use crate::model::{Fault, Reason};

/// Bytes of output kept of a shell step.
const MAX_LOG_BYTES: u64 = 1024 * 1024;
/// Bytes of outputs read from a shell step.
const MAX_OUTPUT_BYTES: u64 = 1024 * 1024;

/// A `run:` step with its expressions evaluated.
#[derive(Debug, Clone)]
pub struct ShellStep {
    /// Text of the script.
    pub script: String,
    /// Its environment, beside `PATH` and what the program adds.
    pub env: BTreeMap<String, String>,
    /// Working directory of the script.
    pub working_dir: PathBuf,
    /// Directory for its script, outputs and log.
    pub files_dir: PathBuf,
    /// Name of its files, unique in the attempt.
    pub name: String,
}

/// Why a shell step failed.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// Could not be started, or its files not be written.
    #[error("run the script: {0}")]
    Machine(#[from] std::io::Error),
    /// The script failed.
    #[error("the script ended with exit code {code}; its last words: {last_words}")]
    Failed {
        /// Exit code; 128 and the signal's number where it was killed.
        code: i32,
        /// Last line of the script's output.
        last_words: String,
    },
    /// What it wrote to `CACHEON_OUTPUT` is not `name=value` lines.
    #[error("line {line} of CACHEON_OUTPUT is not `name=value` or `name<<MARK`")]
    Output {
        /// Number of the line, from 1.
        line: usize,
    },
    /// The step was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl ExecError {
    /// Whose fault this is and the published reason.
    pub fn reason(&self) -> Reason {
        let (fault, code) = match self {
            Self::Machine(_) => (Fault::Infra, "machine"),
            Self::Failed { code: 75, .. } => (Fault::Infra, "script-failed"),
            Self::Failed { code: 65, .. } => (Fault::Submission, "script-failed"),
            Self::Failed { .. } => (Fault::Pipeline, "script-failed"),
            Self::Output { .. } => (Fault::Pipeline, "bad-output"),
            Self::Cancelled => (Fault::Operator, "cancelled"),
        };
        Reason::new(fault, code, self.to_string())
    }
}

/// Runs shell steps, and sees to it that they end when this program is killed.
#[derive(Debug)]
pub struct Shell {
    /// This executable; none where nobody guards.
    program: Option<PathBuf>,
    /// Started for the first step.
    guard: OnceCell<Guard>,
}

impl Shell {
    /// A shell whose scripts are killed when this process is; `program` is this executable.
    pub const fn guarded_by(program: PathBuf) -> Self {
        Self { program: Some(program), guard: OnceCell::const_new() }
    }

    /// A shell whose scripts outlive a process that is killed: for tests.
    pub const fn unguarded() -> Self {
        Self { program: None, guard: OnceCell::const_new() }
    }

    /// Runs a shell step and returns its outputs.
    ///
    /// # Errors
    /// [`ExecError`] where it could not be run, failed, or wrote outputs that are none.
    ///
    /// # Cancel safety
    /// On cancellation, and when dropped, the whole process group is killed.
    pub async fn run(
        &self,
        mut step: ShellStep,
        cancel: CancellationToken,
    ) -> Result<Map<String, Value>, ExecError> {
        if let Some(program) = &self.program {
            let guard = self.guard.get_or_try_init(async || Guard::start(program)).await?;
            step.env.insert(guard::MARK.to_owned(), guard.mark().to_owned());
        }
        run_shell(step, cancel).await
    }
}

async fn run_shell(step: ShellStep, cancel: CancellationToken) -> Result<Map<String, Value>, ExecError> {
    let script_path = step.files_dir.join(format!("{}.sh", step.name));
    let output_path = step.files_dir.join(format!("{}.output", step.name));
    let log_path = step.files_dir.join(format!("{}.log", step.name));
    let (script, paths) = (step.script, [script_path.clone(), output_path.clone(), log_path.clone()]);
    let log = blocking(move || {
        let [script_path, output_path, log_path] = paths;
        std::fs::write(script_path, script)?;
        std::fs::write(output_path, b"")?;
        std::fs::File::create(log_path)
    })
    .await?;
    let path = step.env.get("PATH").map(OsString::from).or_else(|| std::env::var_os("PATH"));
    let path = path.unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let mut command = tokio::process::Command::new(bash_in(&path));
    command.args(["--noprofile", "--norc", "-eo", "pipefail"]).arg(&script_path);
    command.env_clear();
    command.envs(&step.env).env("PATH", path).env("CACHEON_OUTPUT", &output_path);
    command.current_dir(&step.working_dir).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.process_group(0).kill_on_drop(true);
    let mut child = command.spawn()?;
    let group = KillGroup(child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())));
    let status = tokio::select! {
        biased;
        () = cancel.cancelled() => None,
        status = child.wait() => Some(status?),
    };
    drop(group);
    let Some(status) = status else {
        let _ = child.wait().await;
        return Err(ExecError::Cancelled);
    };
    if !status.success() {
        use std::os::unix::process::ExitStatusExt as _;
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        let last_words = last_words(&read_capped(&log_path, MAX_LOG_BYTES).await?);
        return Err(ExecError::Failed { code, last_words });
    }
    outputs(&read_capped(&output_path, MAX_OUTPUT_BYTES).await?)
}

/// Kills what is left of a process group when dropped.
struct KillGroup(Option<Pid>);

impl Drop for KillGroup {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Gone already is what was wanted.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The first bash of a search path. Named by its path it starts without a copy of this process (`posix_spawn`),
/// which by a bare name it would not.
fn bash_in(path: &OsStr) -> PathBuf {
    let is_program = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    let mut found = std::env::split_paths(path).map(|directory| directory.join("bash"));
    found.find(is_program).unwrap_or_else(|| "bash".into())
}

async fn read_capped(path: &std::path::Path, limit: u64) -> std::io::Result<String> {
    let path = path.to_owned();
    blocking(move || {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    })
    .await
}

/// Touches files on a thread that may wait for a slow disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

/// Reads `name=value` lines and `name<<MARK` .. `MARK` blocks, as GitHub's runner does.
fn outputs(text: &str) -> Result<Map<String, Value>, ExecError> {
    let mut outputs = Map::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let bad = ExecError::Output { line: index + 1 };
        let equals = line.find('=');
        let heredoc = line.find("<<").filter(|place| equals.is_none_or(|equals| *place < equals));
        if let Some(place) = heredoc {
            let (name, mark) = (&line[..place], &line[place + 2..]);
            let mut value = Vec::new();
            loop {
                match lines.next() {
                    Some((_, end)) if end == mark => break,
                    Some((_, inner)) => value.push(inner),
                    None => return Err(bad),
                }
            }
            outputs.insert(name.to_owned(), Value::String(value.join("\n")));
        } else if let Some(place) = equals.filter(|place| *place > 0) {
            outputs.insert(line[..place].to_owned(), Value::String(line[place + 1..].to_owned()));
        } else {
            return Err(bad);
        }
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(dir: &std::path::Path, script: &str) -> ShellStep {
        ShellStep {
            script: script.to_owned(),
            env: BTreeMap::from([("GREETING".to_owned(), "hello; rm -rf x".to_owned())]),
            working_dir: dir.to_owned(),
            files_dir: dir.to_owned(),
            name: "step-0".to_owned(),
        }
    }

    async fn check(script: &str) -> String {
        let dir = tempfile::tempdir().expect("temp dir");
        match run_shell(step(dir.path(), script), CancellationToken::new()).await {
            Ok(outputs) => serde_json::to_string(&outputs).expect("json"),
            Err(error) => format!("{}/{}", error.reason().fault, error.reason().code),
        }
    }

    #[tokio::test]
    async fn outputs_and_faults() {
        assert_eq!(check("echo \"a=$GREETING\" >> \"$CACHEON_OUTPUT\"").await, r#"{"a":"hello; rm -rf x"}"#);
        assert_eq!(
            check("printf 'a<<E\\nx\\ny=1\\nE\\nb=2\\n' >> \"$CACHEON_OUTPUT\"").await,
            r#"{"a":"x\ny=1","b":"2"}"#
        );
        assert_eq!(check("false | true").await, "pipeline/script-failed");
        assert_eq!(check("exit 75").await, "infra/script-failed");
        assert_eq!(check("exit 65").await, "submission/script-failed");
        assert_eq!(check("echo junk >> \"$CACHEON_OUTPUT\"").await, "pipeline/bad-output");
    }

    #[tokio::test]
    async fn cancelling_kills_the_whole_group() {
        let dir = tempfile::tempdir().expect("temp dir");
        let fifo = dir.path().join("started");
        let script = format!("mkfifo {0}; (sleep 600 & echo $! > {0}; wait)", fifo.display());
        let cancel = CancellationToken::new();
        let running = tokio::spawn(run_shell(step(dir.path(), &script), cancel.clone()));
        let pid = loop {
            // Opening the pipe blocks until the script has its child.
            if let Ok(text) = tokio::fs::read_to_string(&fifo).await {
                break text;
            }
            tokio::task::yield_now().await;
        };
        cancel.cancel();
        assert!(matches!(running.await.expect("join"), Err(ExecError::Cancelled)));
        let pid = Pid::from_raw(pid.trim().parse().expect("pid")).expect("pid");
        let is_gone = || {
            let stat =
                std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        while !is_gone() {
            tokio::task::yield_now().await;
        }
    }
}
