//! What stands on the chain, and what of it can be evaluated.

use serde::{Deserialize, Serialize};

use super::{Digest, Hotkey, ImageReference, row, words};

row! {
    /// One commitment as found, with what became of it: a row of `commitments`.
    pub struct CommitmentRow {
        /// Id of the round that read it.
        pub round_id: String,
        /// Position in the source, from 0.
        pub position: u32,
        /// Hotkey of the miner as written, cut to 80 characters; empty where none could be read.
        pub hotkey: String,
        /// Block at which it was committed, where the source gives one.
        pub block: Option<i64>,
        /// Image as written, cut to 255 characters.
        pub image: Option<String>,
        /// Digest as written, cut to 80 characters.
        pub digest: Option<String>,
        /// Whether it became a submission.
        pub is_accepted: bool,
        /// Why it was ignored, as a code; none if it was accepted.
        pub ignored_code: Option<IgnoreCode>,
        /// Why it was ignored, in words for the miner; none if it was accepted.
        pub ignored_reason: Option<String>,
    }
}

words! {
    /// The stable code of why a commitment was ignored.
    pub enum IgnoreCode {
        /// The entry is not a commitment.
        BadPayload = "bad-payload",
        /// A field of the commitment is there, but its value is wrong.
        BadField = "bad-field",
        /// A later commitment of the same hotkey counts.
        Superseded = "superseded",
        /// An earlier commitment of the same digest counts.
        DuplicateDigest = "duplicate-digest",
        /// An earlier commitment of the same layers and configuration, under another manifest, counts.
        DuplicateContent = "duplicate-content",
    }
}

/// Why a commitment was ignored, with what its miner needs to know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreReason {
    /// The entry is not an object with the fields of a commitment.
    #[error("the payload is not a commitment: {0}")]
    Payload(String),
    /// A field of the commitment is there, but its value is wrong.
    #[error("{0}")]
    Identity(#[from] super::InvalidIdentity),
    /// A later commitment of the same hotkey counts in its place.
    #[error("superseded by this hotkey's later commitment at block {later_block}")]
    Superseded {
        /// Block of the commitment that counts.
        later_block: i64,
    },
    /// Somebody committed the same digest before.
    #[error("the digest was committed earlier by {first} at block {first_block}: the first one counts")]
    DuplicateDigest {
        /// Hotkey that committed the digest first.
        first: Hotkey,
        /// Block at which it did.
        first_block: i64,
    },
}

impl IgnoreReason {
    /// The code in the `commitments` table.
    pub const fn code(&self) -> IgnoreCode {
        match self {
            Self::Payload(_) => IgnoreCode::BadPayload,
            Self::Identity(_) => IgnoreCode::BadField,
            Self::Superseded { .. } => IgnoreCode::Superseded,
            Self::DuplicateDigest { .. } => IgnoreCode::DuplicateDigest,
        }
    }
}

/// A commitment that is evaluated: parsed and pinned by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// Who committed it; its identity within a round.
    pub hotkey: Hotkey,
    /// The chain's number (uid) of the hotkey, where known.
    pub uid: Option<u32>,
    /// Block at which the hotkey first committed the digest: ties go to the earlier one.
    pub block: i64,
    /// Image that is booted, named without a tag.
    pub image: ImageReference,
    /// Digest of the image, which decides what is run.
    pub digest: Digest,
}

row! {
    /// A row of `submissions`: one commitment that is evaluated.
    pub struct SubmissionRow {
        /// Id of the round.
        pub round_id: String,
        /// Hotkey of the miner.
        pub hotkey: String,
        /// The chain's number (uid) of the hotkey, where known.
        pub uid: Option<u32>,
        /// Block at which the hotkey first committed the digest.
        pub block: i64,
        /// Image, named without a tag.
        pub image: String,
        /// Digest of the image.
        pub digest: String,
    }
}

impl SubmissionRow {
    /// The row of a submission in a round.
    pub fn new(round_id: &str, submission: &Submission) -> Self {
        Self {
            round_id: round_id.to_owned(),
            hotkey: submission.hotkey.to_string(),
            uid: submission.uid,
            block: submission.block,
            image: submission.image.to_string(),
            digest: submission.digest.to_string(),
        }
    }
}
