//! Disks that fail as a test says: each operation below a directory is counted, and one of them goes wrong.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::Operation;

/// How a disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failing {
    /// One operation fails with this, and the next goes well; a write has written half of its bytes.
    Once(Errno),
    /// The disk is full from there on: nothing is made, written or flushed, but things can be removed.
    Full,
    /// The disk is read-only from there on.
    ReadOnly,
    /// Nothing works from there on: so it is for a disk that was pulled, and for a program that was killed.
    Gone,
}

impl Failing {
    /// What an operation fails with that comes after the first one that failed.
    fn later(self, operation: Operation) -> Option<Errno> {
        use Operation::{Create, Flush, Lock, Read, Remove, Rename, Write};
        match (self, operation) {
            (Self::Full, Create | Write | Flush | Rename) => Some(Errno::NOSPC),
            (Self::ReadOnly, Create | Write | Flush | Rename | Remove) => Some(Errno::ROFS),
            (Self::Gone, _) => Some(Errno::IO),
            (Self::Once(_), _) | (Self::Full, Read | Remove | Lock) | (Self::ReadOnly, Read | Lock) => None,
        }
    }

    /// What the first operation fails with: on a full or read-only disk, the first that it concerns.
    fn first(self, operation: Operation) -> Option<Errno> {
        if let Self::Once(errno) = self { Some(errno) } else { self.later(operation) }
    }
}

/// The operations below a directory, and which of them fails; forgotten when dropped.
#[derive(Debug)]
pub(crate) struct Plan {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    below: PathBuf,
    /// The number of the operation that fails, from 0, and how; none only counts.
    failing: Option<(usize, Failing)>,
    seen: Mutex<Vec<String>>,
}

static PLANS: Mutex<Vec<Arc<State>>> = Mutex::new(Vec::new());

fn plans() -> MutexGuard<'static, Vec<Arc<State>>> {
    PLANS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Plan {
    /// From now on all operations below a directory go by this plan.
    pub(crate) fn new(below: &Path, failing: Option<(usize, Failing)>) -> Self {
        let state = Arc::new(State { below: below.to_owned(), failing, seen: Mutex::default() });
        plans().push(Arc::clone(&state));
        Self { state }
    }

    /// The operations so far, in words.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.state.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        plans().retain(|state| !Arc::ptr_eq(state, &self.state));
    }
}

fn plan_of(path: &Path) -> Option<Arc<State>> {
    plans().iter().find(|state| path.starts_with(&state.below)).cloned()
}

/// Whether the disk of a path will be gone.
pub(super) fn is_going(path: &Path) -> bool {
    plan_of(path).is_some_and(|state| matches!(state.failing, Some((_, Failing::Gone))))
}

/// Counts an operation, and fails it if its plan says so.
pub(super) fn pass(operation: Operation, path: &Path) -> io::Result<()> {
    let Some(state) = plan_of(path) else { return Ok(()) };
    let mut seen = state.seen.lock().unwrap_or_else(PoisonError::into_inner);
    let number = seen.len();
    seen.push(format!("{operation:?} {}", path.display()));
    let errno = state.failing.and_then(|(at, failing)| match number {
        number if number < at => None,
        number if number == at => failing.first(operation),
        _ => failing.later(operation),
    });
    errno.map_or(Ok(()), |errno| Err(errno.into()))
}

/// Number of bytes of a failing write that reach the file: half, and none once the disk has failed before.
pub(super) fn written_before_failing(path: &Path, len: usize) -> usize {
    let is_first = plan_of(path).is_some_and(|state| {
        let seen = state.seen.lock().unwrap_or_else(PoisonError::into_inner).len();
        state.failing.is_some_and(|(at, _)| seen == at + 1)
    });
    if is_first { len / 2 } else { 0 }
}
