//! `pull`: an image made present.

use super::declare::{outputs, parameters};
use crate::model::{Digest, ImageReference, Role};

parameters! {
    /// Which image is pulled, and whose.
    {
        /// the image's name, without tag
        "image" image: ImageReference,
        /// the digest it must have
        "digest" digest: Digest,
        /// whose server it is: `candidate`, `baseline` or `scorer`;
        /// only a candidate's failure can be a submission's fault
        "role" role: Role = Role::Candidate,
    }
}

outputs! {
    /// The image that is there.
    {
        /// the digest of what was fetched
        "digest" digest: Digest,
        /// image and digest in one
        "reference" reference: String,
        /// digest of what would run: the same for the same layers and configuration under another manifest
        "content" content: Digest,
    }
}
