//! `plan-reads`: which image is read when.

use serde::{Deserialize, Serialize};

use super::declare::{outputs, parameters};
use super::{StageValue, ValueKind};
use crate::model::{Digest, ImageReference, ReadSpec, Submission};

parameters! {
    /// Which images are read, and how often.
    {
        /// the submissions to read
        "submissions" submissions: Vec<Submission>,
        /// the baseline: its image and digest
        "baseline" baseline: Baseline,
        /// how often each submission is read
        "rounds" rounds: u32 = 1,
    }
}

outputs! {
    /// The reads in the order of measurement.
    {
        /// a list of {key, arm, hotkey, image, digest, position, sequence}
        "reads" reads: Vec<ReadSpec>,
        /// how many reads there are
        "count" count: u64,
    }
}

/// The image everybody is compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// Name of the image, without tag.
    pub image: ImageReference,
    /// Digest of the image.
    pub digest: Digest,
}

impl StageValue for Baseline {
    const KIND: ValueKind = ValueKind::Json;
}
