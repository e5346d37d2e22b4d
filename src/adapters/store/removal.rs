//! Removes rounds, or their raw streams: what frees the most goes first, and what was cut short is gone on with.
//!
//! That raw streams are to go is written into the round before any goes, so that its seal can still be checked. A whole
//! round leaves its name first, so that nobody sees half of one. Nothing is followed or removed through a link.

use std::collections::BTreeMap;
use std::fs::{self, File, FileType};
use std::io;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, openat, unlinkat};

use super::{RoundDirectory, StoreError, directories, io_error, seal, whole};
use crate::artifact::{
    Extent, Fate, KnownRound, Retention, RoundState, Seal, SealEntry, StayReason, fates, layout,
};
use crate::model::RoundId;
use crate::report::text::error_chain;
use crate::report::{Going, Leftover, RemovalFailure, RemovalPlan, Staying};

/// What a check hands to its round has no round yet for so long at most.
const CHECK_BEGINS: SignedDuration = SignedDuration::from_hours(1);

/// What is to go and what stays; touches nothing.
///
/// # Errors
/// When the directory of the rounds cannot be listed; what is wrong with a round is its reason to stay.
pub fn plan_removal(
    data_dir: &Path,
    retention: Retention,
    now: Timestamp,
) -> Result<RemovalPlan, StoreError> {
    let directories = directories(data_dir)?;
    let known: Vec<KnownRound> = directories.iter().map(known).collect();
    let mut plan = RemovalPlan { leftovers: leftovers(data_dir)?, ..RemovalPlan::default() };
    for (directory, fate) in directories.iter().zip(fates(&known, retention.keep, now)) {
        let round_id = directory.round_id().clone();
        let reason = match fate {
            Fate::Stays(reason) => reason,
            Fate::Goes => match measure(directory, retention.extent) {
                Ok(going) if going.files > 0 => {
                    plan.goes.push(going);
                    continue;
                }
                Ok(_) => StayReason::NothingLeft,
                Err(error) => StayReason::Unreadable(error_chain(&error)),
            },
        };
        plan.stays.push(Staying { round_id, reason });
    }
    if retention.extent == Extent::Rounds {
        let is_going = |id: &RoundId| plan.goes.iter().any(|going| going.round_id == *id);
        let is_here = |id: &RoundId| directories.iter().any(|directory| directory.round_id() == id);
        plan.checks = checks(data_dir)?
            .into_iter()
            .filter(|(rest, made_at)| {
                let is_old = || made_at.is_some_and(|made| now.duration_since(made) > CHECK_BEGINS);
                is_going(&rest.round_id) || (!is_here(&rest.round_id) && is_old())
            })
            .map(|(rest, _)| rest)
            .collect();
    }
    Ok(plan)
}

/// What checks handed to their rounds, by the ids of these, and when it was last written.
fn checks(data_dir: &Path) -> Result<Vec<(Leftover, Option<Timestamp>)>, StoreError> {
    let path = data_dir.join(layout::CHECKS_DIR);
    let entries = match fs::read_dir(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.map_err(io_error("list", &path))?,
    };
    let folder = |entry: fs::DirEntry| {
        let round_id = entry.file_name().to_str()?.parse().ok()?;
        // A link is not followed.
        let metadata = fs::symlink_metadata(entry.path()).ok().filter(fs::Metadata::is_dir)?;
        let made_at = metadata.modified().ok().and_then(|at| Timestamp::try_from(at).ok());
        Some((Leftover { round_id, path: entry.path().display().to_string() }, made_at))
    };
    let mut found: Vec<_> = entries.filter_map(Result::ok).filter_map(folder).collect();
    found.sort_by(|(left, _), (right, _)| left.round_id.cmp(&right.round_id));
    Ok(found)
}

/// All that decides about a round, as far as it can be read.
fn known(directory: &RoundDirectory) -> KnownRound {
    let unreadable = |error: StoreError| StayReason::Unreadable(error_chain(&error));
    let file = directory.read_round_file();
    let journal = directory.read_journal().map(|replay| RoundState::of(&replay.lines));
    let hindrance = match (directory.read_seal(), directory.is_held()) {
        (Ok(None), _) => Some(StayReason::Unsealed),
        (Err(error), _) | (_, Err(error)) => Some(unreadable(error)),
        (_, Ok(true)) => Some(StayReason::Held),
        (Ok(Some(_)), Ok(false)) => None,
    };
    let ended_at = journal.as_ref().ok().and_then(|state| state.end.as_ref()).map(|end| end.at);
    let (started_at, parent, unread) = match file {
        Ok(file) => (file.started_at.parse().ok(), file.parent.map(|parent| parent.round_id), None),
        Err(error) => (None, None, Some(unreadable(error))),
    };
    let unread = unread.or_else(|| journal.err().map(unreadable));
    KnownRound {
        round_id: directory.round_id().clone(),
        started_at,
        ended_at,
        parent,
        hindrance: hindrance.or(unread),
    }
}

fn measure(directory: &RoundDirectory, what: Extent) -> Result<Going, StoreError> {
    let mut going = Going { round_id: directory.round_id().clone(), what, files: 0, bytes: 0 };
    for (relative, kind) in seal::walk(directory.path())? {
        if what == Extent::Rounds || is_raw_streams(&relative, kind) {
            let path = directory.path().join(relative);
            going.files += 1;
            going.bytes += fs::symlink_metadata(&path).map_err(io_error("look at", &path))?.len();
        }
    }
    Ok(going)
}

fn is_raw_streams(relative: &Path, kind: FileType) -> bool {
    kind.is_file() && relative.to_str().is_some_and(layout::is_raw_streams)
}

/// What removals that were cut short left, by the ids of the rounds.
pub(in crate::adapters) fn leftovers(data_dir: &Path) -> Result<Vec<Leftover>, StoreError> {
    let path = data_dir.join(layout::ROUNDS_DIR);
    let entries = match fs::read_dir(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.map_err(io_error("list", &path))?,
    };
    let mut found: Vec<Leftover> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| {
            let round_id = layout::round_of_removed_dir(entry.file_name().to_str()?)?;
            Some(Leftover { round_id, path: entry.path().display().to_string() })
        })
        .collect();
    found.sort_by(|left, right| left.round_id.cmp(&right.round_id));
    Ok(found)
}

/// Carries a plan out: what earlier removals left, then the raw streams of all its rounds, then, where whole rounds go,
/// each round and what a check handed to it. One that cannot be removed is passed over; the answer says which, and why.
///
/// # Errors
/// When another process removes rounds here, or the directory of the rounds cannot be opened.
pub fn remove(data_dir: &Path, plan: &RemovalPlan) -> Result<Vec<RemovalFailure>, StoreError> {
    if plan.goes.is_empty() && plan.leftovers.is_empty() && plan.checks.is_empty() {
        return Ok(Vec::new());
    }
    let rounds = data_dir.join(layout::ROUNDS_DIR);
    fs::create_dir_all(&rounds).map_err(io_error("create", &rounds))?;
    let _alone = hold_alone(&rounds)?;
    let mut failed: BTreeMap<RoundId, StoreError> = BTreeMap::new();
    let mut note = |round_id: &RoundId, result: Result<(), StoreError>| match result {
        Ok(()) => drop(failed.remove(round_id)),
        Err(error) => drop(failed.insert(round_id.clone(), error)),
    };
    for leftover in &plan.leftovers {
        let path = rounds.join(layout::removed_dir(&leftover.round_id));
        note(&leftover.round_id, remove_tree(&path));
    }
    let open = |going: &Going| RoundDirectory::open(data_dir, &going.round_id);
    for going in &plan.goes {
        note(&going.round_id, open(going).and_then(|directory| remove_streams(&directory)));
    }
    for going in plan.goes.iter().filter(|going| going.what == Extent::Rounds) {
        note(&going.round_id, open(going).and_then(|directory| remove_round(&rounds, &directory)));
    }
    // A round that is still here may want what it was handed.
    let is_gone = |id: &RoundId| !rounds.join(layout::round_dir(id)).exists();
    for check in plan.checks.iter().filter(|check| is_gone(&check.round_id)) {
        note(&check.round_id, remove_tree(&data_dir.join(layout::CHECKS_DIR).join(check.round_id.as_str())));
    }
    let failure = |(round_id, error)| RemovalFailure { round_id, why: error_chain(&error) };
    Ok(failed.into_iter().map(failure).collect())
}

/// Takes the directory of the rounds, so that one process at a time removes any.
fn hold_alone(rounds: &Path) -> Result<File, StoreError> {
    let directory = File::open(rounds).map_err(io_error("open", rounds))?;
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(directory),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => {
            Err(StoreError::Removing { path: rounds.to_owned() })
        }
        Err(error) => Err(io_error("lock", rounds)(error.into())),
    }
}

/// Removes the raw streams of a sealed round, once it is on record that they go. Those that are not what was sealed stay.
fn remove_streams(directory: &RoundDirectory) -> Result<(), StoreError> {
    let _lock = directory.claim()?;
    let sealed = directory.sealed()?;
    let root = directory.path();
    let mut going: Vec<(PathBuf, SealEntry)> = Vec::new();
    let mut altered = None;
    for (relative, kind) in seal::walk(root)? {
        if is_raw_streams(&relative, kind) {
            let entry = seal::entry(root, &relative, kind)?;
            if sealed.get(&entry.path) == Some((&entry.digest, entry.size)) {
                going.push((relative, entry));
            } else {
                altered = Some(root.join(relative));
            }
        }
    }
    if !going.is_empty() {
        let new: Seal = going.iter().map(|(_, entry)| entry.clone()).collect();
        let record = directory.read_removed()?.with(new);
        let target = whole::target(root, layout::REMOVED_FILE)?;
        whole::write(&target, record.to_string().as_bytes(), whole::Existing::Replace)?;
    }
    for (relative, _) in &going {
        unlink(root, relative)?;
    }
    altered.map_or(Ok(()), |path| Err(StoreError::AlteredStream { path }))
}

/// Removes a file below `root`, step by step, through no link.
fn unlink(root: &Path, relative: &Path) -> Result<(), StoreError> {
    let path = root.join(relative);
    let refused = |error: rustix::io::Errno| io_error("remove", &path)(error.into());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut directory = openat(CWD, root, flags, Mode::empty()).map_err(refused)?;
    for name in relative.parent().into_iter().flat_map(Path::components) {
        directory = openat(&directory, name.as_os_str(), flags, Mode::empty()).map_err(refused)?;
    }
    let name = relative.file_name().unwrap_or_default();
    match unlinkat(&directory, name, AtFlags::empty()) {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        result => result.map_err(refused),
    }
}

/// Takes a sealed round's name away and then removes all of it.
fn remove_round(rounds: &Path, directory: &RoundDirectory) -> Result<(), StoreError> {
    let _lock = directory.claim()?;
    directory.sealed()?;
    let gone = rounds.join(layout::removed_dir(directory.round_id()));
    if gone.exists() {
        remove_tree(&gone)?;
    }
    fs::rename(directory.path(), &gone).map_err(io_error("rename", directory.path()))?;
    whole::sync_dir(rounds)?;
    remove_tree(&gone)
}

/// Removes a directory and all in it; links in it are removed, never followed.
fn remove_tree(path: &Path) -> Result<(), StoreError> {
    // Refuses what is deeper than anything this program makes.
    seal::walk(path)?;
    fs::remove_dir_all(path).map_err(io_error("remove", path))
}
