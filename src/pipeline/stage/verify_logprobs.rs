//! `verify-logprobs`: whether the answers are the model's own.

use super::benchmark::MeasuredLegs;
use super::declare::{outputs, parameters};
use super::{Handle, LeavesData, StageName};
use crate::judge::VerifyPolicy;

parameters! {
    /// What is checked, by whom, and how strictly.
    {
        /// the trusted scorer's base URL; one that this job booted is launched anew where it dies
        "endpoint" endpoint: String,
        /// the measured legs: `needs.<job>.legs`, or a list of such lists
        "reads" reads: MeasuredLegs,
        /// thresholds of the checks, by name
        "policy" policy: VerifyPolicy = VerifyPolicy::default(),
    }
}

outputs! {
    /// How the checks went, and where they are kept.
    {
        /// how many checks failed
        "failed" failed: u64,
        /// a handle to its rows, for later stages
        "data" data: Handle<Output>,
    }
}

impl LeavesData for Output {
    const STAGE: StageName = StageName::VerifyLogprobs;
}
