//! `fetch-commitments`: the commitments of a subnet, and the submissions in them.

use serde::{Deserialize, Serialize};

use super::declare::{outputs, parameters};
use super::{Handle, LeavesData, StageName, StageValue, ValueKind};
use crate::model::Submission;

parameters! {
    /// Where commitments are read.
    {
        /// where commitments are read: `file` or `chain`
        "source" source: CommitmentSource = CommitmentSource::File,
        /// the commitments file, JSON or YAML; for `file`
        "path" path: Option<std::path::PathBuf>,
        /// the node's address, `wss://host:port`; for `chain`
        "endpoint" endpoint: Option<String>,
        /// the subnet's number; for `chain`
        "netuid" netuid: Option<u16>,
    }
}

outputs! {
    /// The submissions that were found.
    {
        /// the submissions in force, the earliest commitment first
        "submissions" submissions: Vec<Submission>,
        /// how many commitments became no submission
        "ignored" ignored: u64,
        /// the block that was read
        "block" block: String,
        /// a handle to its rows, for later stages
        "data" data: Handle<Output>,
    }
}

impl LeavesData for Output {
    const STAGE: StageName = StageName::FetchCommitments;
}

/// What commitments are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommitmentSource {
    /// A JSON or YAML file, at `path`.
    File,
    /// A node of the chain, at `endpoint`, for the subnet `netuid`.
    Chain,
}

impl StageValue for CommitmentSource {
    const KIND: ValueKind = ValueKind::String;
}
