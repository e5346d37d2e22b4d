//! Versions of the formats that a round is written in.
//!
//! A major version changes what is there, a minor one only adds. A reader takes its own version and every older
//! one, and refuses newer ones by name: what it does not know it cannot leave out safely.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A version `major.minor`, for example `2.0`. Files of the first form say `1`, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "Written")]
pub struct FormatVersion {
    /// Number that grows when what is there changes its meaning.
    pub major: u32,
    /// Number that grows when something is added.
    pub minor: u32,
}

impl FormatVersion {
    /// The version of a file that does not say one.
    pub const FIRST: Self = Self::new(1, 0);

    /// The version of these two numbers.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    pub(super) const fn first() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for FormatVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl From<FormatVersion> for String {
    fn from(version: FormatVersion) -> Self {
        version.to_string()
    }
}

/// The text is no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a version is two numbers, for example `2.0`")]
pub struct InvalidVersion;

impl FromStr for FormatVersion {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let (major, minor) = text.split_once('.').ok_or(InvalidVersion)?;
        let number = |text: &str| text.parse().map_err(|_| InvalidVersion);
        Ok(Self::new(number(major)?, number(minor)?))
    }
}

/// How a version may stand in a file.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Major(u32),
    Text(String),
}

impl TryFrom<Written> for FormatVersion {
    type Error = InvalidVersion;

    fn try_from(written: Written) -> Result<Self, InvalidVersion> {
        match written {
            Written::Major(major) => Ok(Self::new(major, 0)),
            Written::Text(text) => text.parse(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_versions_are_written() {
        let check = |json: &str, expected: Option<&str>| {
            let found = serde_json::from_str::<FormatVersion>(json).ok();
            assert_eq!(found.map(|version| version.to_string()).as_deref(), expected, "{json}");
        };
        check("1", Some("1.0"));
        check("\"2.0\"", Some("2.0"));
        check("\"2.13\"", Some("2.13"));
        check("\"2\"", None);
        check("\"2.x\"", None);
        check("-1", None);
        check("null", None);
        assert_eq!(serde_json::to_string(&FormatVersion::new(2, 1)).expect("JSON"), "\"2.1\"");
        assert!(FormatVersion::new(2, 9) < FormatVersion::new(2, 10));
        assert!(FormatVersion::new(1, 9) < FormatVersion::new(2, 0));
    }
}
