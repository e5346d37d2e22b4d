//! `plan-reads`: which image is read when.

use serde::{Deserialize, Serialize};

use super::declare::{outputs, parameters};
use super::{StageValue, ValueKind};
use crate::judge::{Detect, RankPolicy, ScorePolicy};
use crate::model::{Digest, ImageReference, ReadSpec, Submission};

parameters! {
    /// Which images are read, and how often.
    {
        /// the submissions to read
        "submissions" submissions: Vec<Submission>,
        /// the baseline: its image and digest
        "baseline" baseline: Baseline,
        /// how often each submission is read: 1 where neither this nor `detect` is given
        "rounds" rounds: Option<u32>,
        /// what the round should see, {effect, noise}, and may say {power, prompt-noise, finalists}: `rounds` follows from it
        "detect" detect: Option<Detect>,
        /// formula, margins and gates of the speed comparison, by name; the same as `rank`'s
        "score" score: ScorePolicy = ScorePolicy::default(),
        /// how places are taken; the same as `rank`'s
        "rank" rank: RankPolicy = RankPolicy::default(),
    }
}

outputs! {
    /// The reads in the order of measurement.
    {
        /// a list of {key, arm, hotkey, image, digest, position, sequence}
        "reads" reads: Vec<ReadSpec>,
        /// how many reads there are
        "count" count: u64,
        /// how often each submission is read
        "rounds" rounds: u32,
        /// how often a finalist should be read in the second look: the `rounds` of `plan-confirm`; null without `detect`
        "confirm-rounds" confirm_rounds: Option<u32>,
        /// how many prompts a read should have; null without `detect`
        "prompts" prompts: Option<u32>,
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
