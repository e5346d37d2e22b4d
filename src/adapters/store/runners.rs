//! What is known of runners from round to round: a file for each that was ever out of service, beside the rounds.

use std::path::Path;

use super::{StoreError, artifact_error, disk, io_error, turn_at, whole};
use crate::artifact::{RunnerState, layout};

/// Largest such file that is read, in bytes: fifty quarantines with all that they may say.
const MAX_STATE: u64 = 4 << 20;

/// What is known of a runner; nothing, and it is in service, where there is no file.
///
/// # Errors
/// When the file cannot be read or is not of its form: whether the runner is in service is not known then.
pub fn read_runner(data_dir: &Path, runner: &str) -> Result<RunnerState, StoreError> {
    let file = layout::runner_state_file(runner);
    match read(&data_dir.join(layout::QUARANTINE_DIR), &file) {
        Err(error) if error.is_absence() => Ok(RunnerState::unknown(runner)),
        read => read,
    }
}

fn read(directory: &Path, file: &str) -> Result<RunnerState, StoreError> {
    let bytes = whole::read(directory, file, MAX_STATE)?;
    RunnerState::decode(file, &bytes).map_err(artifact_error(&directory.join(file)))
}

/// All runners of which something is known, in the order of their files' names.
///
/// # Errors
/// When one of the files cannot be read or is not of its form.
pub fn list_runners(data_dir: &Path) -> Result<Vec<RunnerState>, StoreError> {
    let directory = data_dir.join(layout::QUARANTINE_DIR);
    let entries = match disk::list(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(io_error("list", &directory))?,
    };
    let name = |entry: &std::fs::DirEntry| entry.file_name().into_string().ok();
    let mut names: Vec<String> = entries.iter().filter_map(name).collect();
    let is_json = |name: &str| Path::new(name).extension().is_some_and(|extension| extension == "json");
    names.retain(|name| is_json(name) && !name.starts_with(layout::PARTIAL_PREFIX));
    names.sort();
    names.iter().map(|file| read(&directory, file)).collect()
}

/// Changes what is known of a runner, while nobody else does; gives what the change gives. Where it changes nothing, nothing is
/// written.
///
/// # Errors
/// As [`read_runner`], and when the disk refuses: then it is as it was.
pub fn change_runner<T>(
    data_dir: &Path,
    runner: &str,
    change: impl FnOnce(&mut RunnerState) -> T,
) -> Result<T, StoreError> {
    let directory = data_dir.join(layout::QUARANTINE_DIR);
    let _turn = turn_at(&directory)?;
    let before = read_runner(data_dir, runner)?;
    let mut state = before.clone();
    let given = change(&mut state);
    if state != before {
        let file = layout::runner_state_file(runner);
        let target = whole::target(&directory, &file)?;
        let bytes = state.encode().map_err(artifact_error(&target))?;
        whole::write(&target, &bytes, whole::Existing::Replace)?;
    }
    Ok(given)
}
