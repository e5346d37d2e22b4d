//! Handles to data: how a later stage finds what an earlier one left in the directory of its attempt.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::StageName;

/// A stage that leaves rows in the directory of its attempt.
pub trait LeavesData {
    /// The stage that leaves them.
    const STAGE: StageName;
}

/// A handle to what one run of a stage left. In a pipeline it is text, to be handed on and nothing else:
/// `<stage>:jobs/<job>/<leg>/attempt-<n>`.
#[derive(Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Handle<S: LeavesData> {
    attempt: String,
    stage: PhantomData<fn() -> S>,
}

/// Text that is no handle to the data of a stage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// The text is the handle of another stage.
    #[error("this is the `data` of `{found:.40}`, want that of `{wanted}`")]
    OtherStage {
        /// The text that was given.
        found: String,
        /// The stage whose data is wanted.
        wanted: StageName,
    },
    /// The text is no handle at all.
    #[error("`{text:.80}` is not the output `data` of `{wanted}`")]
    NoHandle {
        /// The text that was given.
        text: String,
        /// The stage whose data is wanted.
        wanted: StageName,
    },
}

impl<S: LeavesData> Handle<S> {
    /// The handle to what a stage left in an attempt's directory, a path relative to the round's as
    /// `artifact::layout` makes it.
    ///
    /// # Errors
    /// Where the path is none of an attempt.
    pub fn new(attempt: &str) -> Result<Self, HandleError> {
        if is_attempt(attempt) {
            return Ok(Self { attempt: attempt.to_owned(), stage: PhantomData });
        }
        Err(HandleError::NoHandle { text: attempt.to_owned(), wanted: S::STAGE })
    }

    /// Path of the attempt's directory, relative to the round's.
    pub fn attempt(&self) -> &str {
        &self.attempt
    }
}

/// Whether a path is an attempt's: three harmless names below `jobs`, the last of them `attempt-<n>`.
fn is_attempt(path: &str) -> bool {
    let is_name = |name: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.%~".contains(&byte);
        !name.is_empty() && !name.starts_with('.') && name.bytes().all(is_plain)
    };
    let parts: Vec<&str> = path.split('/').collect();
    let ["jobs", job, leg, attempt] = parts.as_slice() else { return false };
    let number = attempt.strip_prefix("attempt-").and_then(|number| number.parse::<u32>().ok());
    is_name(job) && is_name(leg) && number.is_some_and(|number| number > 0 && path.len() < 500)
}

impl<S: LeavesData> fmt::Display for Handle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", S::STAGE, self.attempt)
    }
}

impl<S: LeavesData> FromStr for Handle<S> {
    type Err = HandleError;

    fn from_str(text: &str) -> Result<Self, HandleError> {
        let wanted = S::STAGE;
        let Some((stage, attempt)) = text.split_once(':') else {
            return Err(HandleError::NoHandle { text: text.to_owned(), wanted });
        };
        if stage != wanted.as_str() {
            return Err(HandleError::OtherStage { found: stage.to_owned(), wanted });
        }
        Self::new(attempt)
    }
}

impl<S: LeavesData> TryFrom<String> for Handle<S> {
    type Error = HandleError;

    fn try_from(text: String) -> Result<Self, HandleError> {
        text.parse()
    }
}

impl<S: LeavesData> From<Handle<S>> for String {
    fn from(handle: Handle<S>) -> Self {
        handle.to_string()
    }
}

impl<S: LeavesData> fmt::Debug for Handle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({self})")
    }
}

impl<S: LeavesData> Clone for Handle<S> {
    fn clone(&self) -> Self {
        Self { attempt: self.attempt.clone(), stage: PhantomData }
    }
}

impl<S: LeavesData> PartialEq for Handle<S> {
    fn eq(&self, other: &Self) -> bool {
        self.attempt == other.attempt
    }
}

impl<S: LeavesData> Eq for Handle<S> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::stage::{benchmark, verify_logprobs};

    #[test]
    fn a_handle_is_of_its_stage_and_never_leaves_the_round() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let found = text.parse::<Handle<benchmark::Output>>();
            let found = found.map(|handle| handle.attempt().to_owned()).map_err(|error| error.to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{text}");
        };
        check("benchmark:jobs/measure/0001-x/attempt-2", Ok("jobs/measure/0001-x/attempt-2"));
        check("benchmark:jobs/m/_/attempt-1", Ok("jobs/m/_/attempt-1"));
        check(
            "verify-logprobs:jobs/verify/_/attempt-1",
            Err("this is the `data` of `verify-logprobs`, want that of `benchmark`"),
        );
        for bad in [
            "jobs/../_/attempt-1",
            "jobs/m/../../attempt-1",
            "/etc/passwd",
            "jobs/m/_/attempt-0",
            "jobs/m/_/attempt-1/x",
            "jobs/m//attempt-1",
            "jobs/m/a\n/attempt-1",
        ] {
            check(
                &format!("benchmark:{bad}"),
                Err(&format!("`{bad}` is not the output `data` of `benchmark`")),
            );
        }
        check("", Err("`` is not the output `data` of `benchmark`"));
        let handle = Handle::<verify_logprobs::Output>::new("jobs/v/_/attempt-1").unwrap();
        assert_eq!(handle.to_string().parse(), Ok(handle));
    }
}
