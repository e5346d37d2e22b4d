//! What can end the program, and the exit code it ends with.

use std::path::PathBuf;

use crate::report::text::error_chain;

/// How the program ends. The list is the whole contract with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// Done; submissions may have failed on their own.
    Done,
    /// A bug in this program.
    Bug,
    /// The command line is wrong.
    Usage,
    /// A pipeline, runner or data file is invalid; nothing ran.
    Invalid,
    /// The round is incomplete or held; nothing was published.
    Incomplete,
    /// The chain or the place of publication refused.
    Refused,
    /// A comparison that was asked for does not hold.
    Differs,
    /// Interrupted; everything started was torn down.
    Interrupted,
}

impl ExitCode {
    /// All of them, for the help text.
    pub const ALL: [Self; 8] = [
        Self::Done,
        Self::Bug,
        Self::Usage,
        Self::Invalid,
        Self::Incomplete,
        Self::Refused,
        Self::Differs,
        Self::Interrupted,
    ];

    /// What it means, in the words of the help text and the README.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done; submissions may have failed on their own",
            Self::Bug => "a bug in this program",
            Self::Usage => "the command line is wrong",
            Self::Invalid => "invalid pipeline, runner or data; nothing ran",
            Self::Incomplete => "the round is incomplete or held; nothing was published",
            Self::Refused => "the chain or the place of publication refused",
            Self::Differs => "a comparison that was asked for does not hold",
            Self::Interrupted => "interrupted; everything started was torn down",
        }
    }

    /// The number that the process ends with.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Bug => 1,
            Self::Usage => 2,
            Self::Invalid => 3,
            Self::Incomplete => 4,
            Self::Refused => 5,
            Self::Differs => 6,
            Self::Interrupted => 130,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.code())
    }
}

/// What ended the program before its work was done: one variant a layer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A pipeline or runner file has mistakes; the text shows each of them in its place.
    #[error("{0}")]
    Invalid(String),
    /// A file named on the command line cannot be read.
    #[error("cannot read `{path}`")]
    Unreadable {
        /// The file that was to be read.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// An argument has no meaning here.
    #[error("{0}")]
    Usage(String),
    /// The round's directory cannot be read or written.
    #[error(transparent)]
    Store(#[from] crate::adapters::store::StoreError),
    /// A round could not be carried to or from a file.
    #[error(transparent)]
    Archive(#[from] crate::adapters::store::archive::ArchiveError),
    /// A round came to a stop because its directory cannot be read or written.
    #[error("{}; {next}", error_chain(cause.as_ref()))]
    Stopped {
        /// What could not be done.
        cause: Box<crate::adapters::store::StoreError>,
        /// What to do about it, and how the round goes on then.
        next: String,
    },
    /// A job can only run on a runner that is out of service.
    #[error("{found}; look at its machine, then {next}")]
    OutOfService {
        /// Since when and why, and which job it is.
        found: String,
        /// Name of the runner.
        runner: String,
        /// What puts it back into service, and how the round goes on then.
        next: String,
    },
    /// A table or journal is damaged.
    #[error(transparent)]
    Artifact(#[from] crate::artifact::ArtifactError),
    /// A query could not be answered.
    #[error(transparent)]
    Query(#[from] crate::adapters::query::QueryError),
    /// The reference server could not run.
    #[cfg(feature = "reference")]
    #[error(transparent)]
    Reference(#[from] crate::reference::ReferenceError),
    /// The operating system refused something.
    #[error("{attempted}: {source}")]
    Machine {
        /// What was attempted.
        attempted: &'static str,
        /// What the operating system says.
        source: std::io::Error,
    },
}

impl Error {
    /// The exit code this error ends the program with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::Usage,
            Self::Invalid(_) | Self::Unreadable { .. } | Self::Query(_) => ExitCode::Invalid,
            Self::Archive(error) => Self::archive_code(error),
            Self::Store(_)
            | Self::Stopped { .. }
            | Self::OutOfService { .. }
            | Self::Artifact(_)
            | Self::Machine { .. } => ExitCode::Incomplete,
            #[cfg(feature = "reference")]
            Self::Reference(_) => ExitCode::Bug,
        }
    }

    fn archive_code(error: &crate::adapters::store::archive::ArchiveError) -> ExitCode {
        use crate::adapters::store::archive::ArchiveError as E;
        match error {
            E::Unsealed(_) | E::FileExists(_) | E::Inside(_) | E::TooLarge(_) | E::AlreadyHere(_) => {
                ExitCode::Usage
            }
            E::Damaged(_) => ExitCode::Invalid,
            E::Store(_) | E::Unwritable(_) | E::NoRoom { .. } | E::AnotherIsHere(_) => ExitCode::Incomplete,
            E::NotAsSealed { .. } | E::Deviates(_) => ExitCode::Differs,
            E::Stopped => ExitCode::Interrupted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_lists_the_exit_codes() {
        let readme = include_str!("../README.md");
        let rows = readme.lines().skip_while(|line| *line != "| exit code | means |").skip(2);
        let listed: Vec<&str> = rows.take_while(|line| line.starts_with('|')).collect();
        let expected = ExitCode::ALL.map(|code| format!("| {} | {} |", code.code(), code.meaning()));
        assert_eq!(listed, expected);
    }
}
