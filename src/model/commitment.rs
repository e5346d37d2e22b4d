//! What stands on the chain, and what of it can be evaluated.

use serde::{Deserialize, Serialize};

use super::{Digest, Hotkey, ImageReference, row, words};

row! {
    /// One commitment as found, with what became of it: a row of `commitments`.
    pub struct CommitmentRow {
        /// The round that read it.
        pub round_id: String,
        /// Place in the source, from 0.
        pub position: u32,
        /// Hotkey as written, cut to 80 characters; empty where none could be read.
        pub hotkey: String,
        /// Block of the commitment, where the source gives one.
        pub block: Option<i64>,
        /// Image as written, cut to 255 characters.
        pub image: Option<String>,
        /// Digest as written, cut to 80 characters.
        pub digest: Option<String>,
        /// Whether it became a submission.
        pub is_accepted: bool,
        /// Why it was ignored.
        pub ignored_code: Option<IgnoreCode>,
        /// The same in words for the miner.
        pub ignored_reason: Option<String>,
    }
}

words! {
    /// The stable code of why a commitment was ignored.
    pub enum IgnoreCode {
        /// The entry is not a commitment.
        BadPayload = "bad-payload",
        /// A field is there but wrong.
        BadField = "bad-field",
        /// A later commitment of the same hotkey counts.
        Superseded = "superseded",
        /// An earlier commitment of the same digest counts.
        DuplicateDigest = "duplicate-digest",
    }
}

/// Why a commitment was ignored, with what its miner needs to know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreReason {
    /// The entry is not an object with the fields of a commitment.
    #[error("the payload is not a commitment: {0}")]
    Payload(String),
    /// A field is there but wrong.
    #[error("{0}")]
    Identity(#[from] super::InvalidIdentity),
    /// An earlier commitment of the same hotkey is superseded by a later one.
    #[error("superseded by this hotkey's later commitment at block {later_block}")]
    Superseded {
        /// Block of the commitment that counts.
        later_block: i64,
    },
    /// Somebody committed the same digest before.
    #[error("the digest was committed earlier by {first} at block {first_block}: the first one counts")]
    DuplicateDigest {
        /// Who committed it first.
        first: Hotkey,
        /// And when.
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
    /// The chain's uid of the hotkey, where known.
    pub uid: Option<u32>,
    /// Block of the commitment: ties go to the earlier one.
    pub block: i64,
    /// Image without tag.
    pub image: ImageReference,
    /// The digest that is run.
    pub digest: Digest,
}

row! {
    /// A row of `submissions`.
    pub struct SubmissionRow {
        /// The round.
        pub round_id: String,
        /// Hotkey.
        pub hotkey: String,
        /// The chain's uid, where known.
        pub uid: Option<u32>,
        /// Block of the commitment.
        pub block: i64,
        /// Image without tag.
        pub image: String,
        /// Digest.
        pub digest: String,
    }
}

impl SubmissionRow {
    /// A submission as a row of its round.
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
