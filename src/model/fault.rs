//! Whose fault a failure is: the question that decides who pays for it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::words;

words! {
    /// Whose fault a failure is. An infrastructure fault never costs a miner, an unknown one is held.
    pub enum Fault {
        /// The submission's own: counts against its score.
        Submission = "submission",
        /// The machine's, the network's or the registry's: retried, then no decision.
        Infra = "infra",
        /// That of the pipeline's author: the definition asks for what cannot be.
        Pipeline = "pipeline",
        /// That of a person at the controls: cancelled or misconfigured.
        Operator = "operator",
        /// Nobody's that the evidence shows: held, never scored.
        Unknown = "unknown",
    }
}

/// A failure as it is published: whose fault, a stable code, and words its owner can act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Whose fault the failure is.
    pub fault: Fault,
    /// Stable kebab-case code, for example `server-exited-before-ready`.
    pub code: String,
    /// One sentence for the person whose fault it is, evidence included.
    pub message: String,
    /// Whether it is not tried again, whoever's fault it is: what it was about cannot be had a second time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_final: bool,
}

impl Reason {
    /// Makes a reason from its three parts.
    pub fn new(fault: Fault, code: &str, message: impl Into<String>) -> Self {
        Self { fault, code: code.to_owned(), message: message.into(), is_final: false }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({} fault)", self.code, self.message, self.fault)
    }
}
