//! A registry of images, asked by a client of our own before the daemon is: what it answers decides whose fault a failure is.
//!
//! An image's manifest is asked for by its digest, the platform of this machine is picked of an index, and the configuration is read:
//! what is not for this machine, asks for what no container gets, or is larger than the runner's `image-mib` is refused
//! before a byte of a layer is moved. Everything that a registry says is hostile: answers are bounded in time and bytes, digests
//! are computed, and no address that it names leads to this machine or past TLS. A registry on a loopback address is
//! asked without TLS, as Docker does.
//!
//! Deliberately absent: accounts. An image that only its owner can read is none that everybody can check.

mod challenge;
mod client;
mod endpoint;
mod manifest;

use std::time::Duration;

use client::Client;
use endpoint::Endpoint;
use manifest::{Blob, Document, Manifest};

pub(super) use manifest::Needs;

use crate::model::{Digest, ImageReference};
use crate::ports::EngineError;

/// How long a registry is waited for.
#[derive(Debug, Clone)]
pub struct Patience {
    /// For a connection, and between two pieces of an answer.
    pub answer: Duration,
    /// For a whole document.
    pub document: Duration,
    /// Before it is asked again because it could not answer, one by one; as often as there are.
    pub pauses: Vec<Duration>,
    /// The longest pause that it may itself ask for.
    pub longest_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(30),
            document: Duration::from_mins(1),
            pauses: vec![Duration::from_secs(1), Duration::from_secs(4)],
            longest_pause: Duration::from_mins(1),
        }
    }
}

impl Patience {
    /// How long to wait before the next try, where the registry may have said how long.
    fn pause(&self, own: Duration, asked: Option<Duration>) -> Duration {
        asked.map_or(own, |asked| asked.min(self.longest_pause).max(own))
    }
}

/// Why an image is not had from its registry.
#[derive(Debug, thiserror::Error)]
enum RegistryError {
    /// The registry has none of it, or there is no such registry.
    #[error("{0}")]
    Absent(String),
    /// The registry shows it to nobody who has no account.
    #[error("{0}")]
    Private(String),
    /// The registry has other bytes under its digest.
    #[error("digest {found} instead of {wanted}")]
    Mismatch { wanted: Digest, found: Digest },
    /// It is no image, or none for this machine.
    #[error("{0}")]
    Invalid(String),
    /// It is larger than it may be, in bytes.
    #[error("{bytes} bytes, at most {limit}")]
    TooLarge { bytes: u64, limit: u64 },
    /// The registry cannot answer now. Where it says so, after which time it may be asked again.
    #[error("{why}")]
    Unavailable { host: String, why: String, after: Option<Duration> },
    /// This machine cannot ask.
    #[error("{0}")]
    Machine(String),
}

impl RegistryError {
    /// The error of an engine that was asked for this image.
    fn of(self, image: &ImageReference) -> EngineError {
        let image = image.clone();
        match self {
            Self::Absent(why) => EngineError::ImageUnavailable { image, why },
            Self::Private(why) => EngineError::ImagePrivate { image, why },
            Self::Mismatch { wanted, found } => EngineError::DigestMismatch { image, wanted, found },
            Self::Invalid(why) => EngineError::ImageInvalid { image, why },
            Self::TooLarge { bytes, limit } => EngineError::ImageTooLarge { image, bytes, limit },
            Self::Unavailable { host, why, .. } => EngineError::Registry { host, why },
            Self::Machine(why) => EngineError::Daemon { attempted: "ask a registry", why },
        }
    }
}

/// Asks an image's registry for its manifest and its configuration, and judges both. `max_bytes` is what all layers together may
/// have, as the registry keeps them.
///
/// # Errors
/// [`EngineError`] where the image is not there for everybody, is no image for this machine or is too large, or where the registry
/// cannot answer.
pub(super) async fn judge(
    image: &ImageReference,
    digest: &Digest,
    max_bytes: u64,
    patience: Patience,
) -> Result<(), EngineError> {
    let found = async {
        let mut client = Client::new(Endpoint::of(image)?, patience)?;
        let manifest = manifest_of(&mut client, digest).await?;
        let bytes = manifest::size(&manifest.layers);
        if bytes > max_bytes {
            return Err(RegistryError::TooLarge { bytes, limit: max_bytes });
        }
        let Blob { digest, size } = &manifest.config;
        let url = client.endpoint.blob(digest);
        let configuration = client.document(&url, digest, Some(*size)).await;
        let configuration = configuration.map_err(|error| part_of("its configuration", error))?;
        manifest::configuration(&configuration, manifest.layers.len()).map(drop)
    };
    found.await.map_err(|error: RegistryError| error.of(image))
}

/// The manifest that a digest names, be it that of an index.
async fn manifest_of(client: &mut Client, digest: &Digest) -> Result<Manifest, RegistryError> {
    let url = client.endpoint.manifest(digest);
    let Blob { digest, size } = match manifest::document(&client.document(&url, digest, None).await?)? {
        Document::Image(manifest) => return Ok(manifest),
        Document::Index(own) => own,
    };
    let url = client.endpoint.manifest(&digest);
    let bytes = client.document(&url, &digest, Some(size)).await;
    match manifest::document(&bytes.map_err(|error| part_of("its manifest for this platform", error))?)? {
        Document::Image(manifest) => Ok(manifest),
        Document::Index(_) => {
            Err(RegistryError::Invalid("its index names an index as the image for this platform".to_owned()))
        }
    }
}

/// Says which part of an image it is that is not there.
fn part_of(part: &str, error: RegistryError) -> RegistryError {
    match error {
        RegistryError::Absent(why) => RegistryError::Absent(format!("{part} is not there: {why}")),
        other => other,
    }
}

#[cfg(test)]
pub(crate) mod scripted;
#[cfg(test)]
mod tests;
