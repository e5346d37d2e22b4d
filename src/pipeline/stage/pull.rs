//! `pull`: an image made present.

use super::declare::{outputs, parameters};
use crate::model::{Arm, Digest, ImageReference};

parameters! {
    /// Which image.
    {
        /// the image's name, without tag
        "image" image: ImageReference,
        /// the digest it must have
        "digest" digest: Digest,
        /// whose image it is, `candidate` or `baseline`: a failure of the baseline's is never a submission's fault
        "arm" arm: Arm = Arm::Candidate,
    }
}

outputs! {
    /// The image that is there.
    {
        /// the digest of what was fetched
        "digest" digest: Digest,
        /// image and digest in one
        "reference" reference: String,
    }
}
