//! What an expression may look at.

use super::value::{Object, Value};

/// How things went so far, for `success()` and its like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Nothing failed.
    Success,
    /// Something failed.
    Failure,
    /// Somebody stopped it.
    Cancelled,
}

/// What a property that is not there means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Absence {
    /// An error that names the path, unless `||`, `&&` or `required` deals with it. Ours.
    #[default]
    Refused,
    /// Null, which prints as nothing. GitHub's.
    Null,
}

/// What an expression may look at. Names of contexts are given as written, in any case.
pub trait Scope {
    /// The context of this name, if it can be used here.
    fn context(&self, name: &str) -> Option<Value>;

    /// The names of the contexts that can be used here.
    fn contexts(&self) -> Vec<String>;

    /// How things went so far; `None` where there is nothing to ask about.
    fn status(&self) -> Option<Status> {
        None
    }

    /// One digest over the files these patterns match; `None` where there are no files to look at.
    fn hash_files(&self, patterns: &[String]) -> Option<String> {
        let _ = patterns;
        None
    }

    /// What a property that is not there means.
    fn absence(&self) -> Absence {
        Absence::Refused
    }
}

/// A scope of given values.
#[derive(Debug, Clone, Default)]
pub struct Contexts {
    values: Object,
    status: Option<Status>,
    absence: Absence,
}

impl Contexts {
    /// A scope with nothing in it, in which absent properties are refused.
    pub fn new() -> Self {
        Self::default()
    }

    /// The scope with one more context, or another value for one it has.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.values.insert(name, value);
        self
    }

    /// The scope with a status to ask for.
    #[must_use]
    pub fn with_status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// The scope with another meaning of absent properties.
    #[must_use]
    pub fn with_absence(mut self, absence: Absence) -> Self {
        self.absence = absence;
        self
    }
}

impl Scope for Contexts {
    fn context(&self, name: &str) -> Option<Value> {
        self.values.get(name).cloned()
    }

    fn contexts(&self) -> Vec<String> {
        self.values.names().map(str::to_owned).collect()
    }

    fn status(&self) -> Option<Status> {
        self.status
    }

    fn absence(&self) -> Absence {
        self.absence
    }
}
