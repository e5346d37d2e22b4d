//! Whose fault a failure is: the question that decides who pays for it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Whose fault a failure is. An infrastructure fault never costs a miner, an unknown one is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The submission's: counts against its score.
    Submission,
    /// The machine's, network's or registry's: retried, then no decision.
    Infra,
    /// The pipeline's author's: the definition asks for what cannot be.
    Pipeline,
    /// A person's at the controls: cancelled or misconfigured.
    Operator,
    /// Not explained by the evidence: held, never scored.
    Unknown,
}

impl Fault {
    /// All faults in a fixed order.
    pub const ALL: [Self; 5] = [Self::Submission, Self::Infra, Self::Pipeline, Self::Operator, Self::Unknown];

    /// The word used in files and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submission => "submission",
            Self::Infra => "infra",
            Self::Pipeline => "pipeline",
            Self::Operator => "operator",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Fault {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|fault| fault.as_str() == text).ok_or(())
    }
}

/// A failure as it is published: whose fault, a stable code, and words its owner can act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Whose fault it is.
    pub fault: Fault,
    /// Stable kebab-case code, for example `server-exited-before-ready`.
    pub code: String,
    /// One sentence for the person whose fault it is, evidence included.
    pub message: String,
}

impl Reason {
    /// A reason from its three parts.
    pub fn new(fault: Fault, code: &str, message: impl Into<String>) -> Self {
        Self { fault, code: code.to_owned(), message: message.into() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({} fault)", self.code, self.message, self.fault)
    }
}
