//! A registry of images, asked by a client of our own: what it answers decides whose fault a failure is.
//!
//! An image's manifest is asked for by its digest, the platform of this machine is picked of an index, and the configuration is read:
//! what is not for this machine, asks for what no container gets, or is larger than the runner's `image-mib` is refused
//! before a byte of a layer is moved. Then the layers are brought into a folder of ours, compared with their digests, and unpacked to
//! nowhere, so that what they grow to is known too. The daemon gets exactly that from a registry of ours on a loopback
//! address: what it pulls is what was judged, and no registry can show it anything else.
//!
//! Everything that a registry says is hostile: answers are bounded in time and bytes, digests are computed, and no address that it
//! names leads to this machine or past TLS. A registry on a loopback address is asked without TLS, as Docker does.
//!
//! Deliberately absent: accounts. An image that only its owner can read is none that everybody can check.

mod challenge;
mod client;
mod download;
mod endpoint;
mod layer;
mod manifest;
mod serve;
mod vault;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use client::Client;
use endpoint::Endpoint;
use futures_util::{StreamExt as _, stream};
use layer::{Bounds, Flaw, Layer};
use manifest::{Blob, Document, Manifest};
use serve::{LocalRegistry, Parts};

pub(super) use manifest::Needs;
pub(super) use serve::is_served;
pub(super) use vault::Vault;

use crate::model::{Digest, ImageReference};
use crate::ports::{EngineError, PullProgress};

/// How many layers are brought at a time, as Docker does.
const AT_A_TIME: usize = 3;
/// Files, folders and links in all layers of an image: each takes an entry of the disk's table, of which there are so many.
const MAX_ENTRIES: u64 = 1 << 20;
/// Bytes that a disk has left when all of an image is there, for everything else that needs it.
const SPARE_BYTES: u64 = 1 << 30;

/// How long a registry is waited for.
#[derive(Debug, Clone)]
pub struct Patience {
    /// For a connection, and between two pieces of an answer.
    pub answer: Duration,
    /// For a whole document.
    pub document: Duration,
    /// For so many bytes of a layer, again and again.
    pub window: Duration,
    /// The bytes that are to come within that.
    pub least_bytes: u64,
    /// For all layers of an image.
    pub layers: Duration,
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
            window: Duration::from_mins(1),
            least_bytes: 4 << 20,
            layers: Duration::from_hours(1),
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
    /// The disk of this machine does not do what it should.
    #[error("{attempted}: {source}")]
    Disk { attempted: &'static str, path: PathBuf, source: std::io::Error },
    /// The disk of this machine has no room.
    #[error("{} has {free} bytes left, {needed} are needed", path.display())]
    NoRoom { path: PathBuf, needed: u64, free: u64 },
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
            Self::Disk { attempted, path, source } => EngineError::Machine { attempted, path, source },
            Self::NoRoom { path, needed, free } => EngineError::NoRoom { path, needed, free },
            Self::Machine(why) => EngineError::Daemon { attempted: "ask a registry", why },
        }
    }
}

/// Which image is wanted, and how.
pub(super) struct Wanted<'a> {
    /// Its name.
    pub(super) image: &'a ImageReference,
    /// Its digest.
    pub(super) digest: &'a Digest,
    /// The most bytes that all its layers together may have: as the registry keeps them, and unpacked.
    pub(super) max_bytes: u64,
    /// How long the registry is waited for.
    pub(super) patience: &'a Patience,
    /// The folder of its layers meanwhile.
    pub(super) vault: &'a Vault,
    /// Told how much of it has come.
    pub(super) progress: &'a PullProgress<'a>,
}

/// An image that was judged and is served to the daemon, until this is dropped.
#[derive(Debug)]
pub(super) struct Fetched {
    registry: LocalRegistry,
    /// Bytes of its layers as the registry keeps them.
    packed: u64,
    /// Bytes of its layers unpacked, each as often as it is in the image.
    unpacked: u64,
    /// Whether a layer of it is packed by zstd, which not every daemon unpacks.
    pub(super) has_zstd: bool,
}

impl Fetched {
    /// The repository that the daemon is to pull it from.
    pub(super) fn repository(&self) -> String {
        self.registry.repository()
    }

    /// Bytes that the daemon's disk needs for it: what it downloads, what it unpacks and a tenth of that, and some to spare.
    pub(super) fn needed_bytes(&self) -> u64 {
        let files = self.unpacked.saturating_add(self.unpacked / 10);
        files.saturating_add(self.packed).saturating_add(SPARE_BYTES)
    }
}

/// The folder of layers, once no other pull has it.
///
/// # Errors
/// It cannot be made or locked.
pub(super) async fn turn(image: &ImageReference, dir: &Path) -> Result<Vault, EngineError> {
    Vault::open(dir).await.map_err(|error| error.of(image))
}

/// Brings an image here, judges all of it, and serves it to the daemon.
///
/// # Errors
/// [`EngineError`] where the image is not there for everybody, is no image for this machine or is too large, or where the registry
/// cannot give it now.
///
/// # Cancel safety
/// What has come of the layers stays in the folder, and is gone on with by the next pull of this image.
pub(super) async fn fetch(wanted: Wanted<'_>) -> Result<Fetched, EngineError> {
    let image = wanted.image;
    fetch_all(&wanted).await.map_err(|error| error.of(image))
}

async fn fetch_all(wanted: &Wanted<'_>) -> Result<Fetched, RegistryError> {
    let client = Client::new(Endpoint::of(wanted.image)?, wanted.patience.clone())?;
    let (mut parts, manifest, contents) = judge(&client, wanted).await?;
    let vault = wanted.vault;
    vault.keep_only(&manifest.layers)?;
    vault.has_room(&manifest.layers)?;
    let within = wanted.patience.layers;
    let fetching = tokio::time::timeout(within, layers(&client, &manifest.layers, wanted)).await;
    let late = || client.unavailable(format!("the layers did not come within {} s", within.as_secs_f64()));
    let fetched = fetching.unwrap_or_else(|_| Err(late()));
    let judged = fetched.and_then(|found| {
        judge_layers(&manifest.layers, &contents, &found)?;
        Ok(found)
    });
    let found = match judged {
        Ok(found) => found,
        Err(error) => {
            // What could not be brought is gone on with later; what is wrong, or finds no room, is not kept.
            if !matches!(error, RegistryError::Unavailable { .. }) {
                vault.keep_only(&[])?;
            }
            return Err(error);
        }
    };
    let has_zstd = found.values().any(|layer| layer.is_zstd);
    let unpacked = manifest.layers.iter().filter_map(|blob| found.get(&blob.digest));
    let unpacked = unpacked.fold(0, |sum: u64, layer| sum.saturating_add(layer.bytes));
    let packed = manifest::size(&manifest.layers);
    let paths = manifest.layers.iter().map(|blob| (blob.digest.clone(), vault.path(&blob.digest)));
    parts.layers = paths.collect();
    let registry = LocalRegistry::start(parts).await?;
    Ok(Fetched { registry, packed, unpacked, has_zstd })
}

/// Judges an image by its manifest and its configuration; both, and what the configuration says is in each layer.
async fn judge(
    client: &Client,
    wanted: &Wanted<'_>,
) -> Result<(Parts, Manifest, Vec<Digest>), RegistryError> {
    let mut parts = Parts::default();
    let manifest = manifest_of(client, wanted.digest, &mut parts).await?;
    let bytes = manifest::size(&manifest.layers);
    if bytes > wanted.max_bytes {
        return Err(RegistryError::TooLarge { bytes, limit: wanted.max_bytes });
    }
    let Blob { digest, size } = &manifest.config;
    let configuration = client.document(&client.endpoint.blob(digest), digest, Some(*size)).await;
    let configuration = configuration.map_err(|error| part_of("its configuration", error))?;
    let contents = manifest::configuration(&configuration, manifest.layers.len())?;
    parts.configuration = Some((digest.clone(), configuration));
    Ok((parts, manifest, contents))
}

/// The manifest that a digest names, be it that of an index; all that was read goes to the parts.
async fn manifest_of(client: &Client, digest: &Digest, parts: &mut Parts) -> Result<Manifest, RegistryError> {
    let mut keep = |digest: &Digest, bytes: Vec<u8>| {
        parts.manifests.insert(digest.clone(), (manifest::kind(&bytes), bytes));
    };
    let bytes = client.document(&client.endpoint.manifest(digest), digest, None).await?;
    let found = manifest::document(&bytes)?;
    keep(digest, bytes);
    let Blob { digest, size } = match found {
        Document::Image(manifest) => return Ok(manifest),
        Document::Index(own) => own,
    };
    let bytes = client.document(&client.endpoint.manifest(&digest), &digest, Some(size)).await;
    let bytes = bytes.map_err(|error| part_of("its manifest for this platform", error))?;
    let found = manifest::document(&bytes)?;
    keep(&digest, bytes);
    match found {
        Document::Image(manifest) => Ok(manifest),
        Document::Index(_) => {
            Err(RegistryError::Invalid("its index names an index as the image for this platform".to_owned()))
        }
    }
}

/// Ends what reads a layer once nobody waits for it.
struct Unwanted(Arc<AtomicBool>);

impl Drop for Unwanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Brings all layers into the folder, each once however often it is in the image, and reads them.
async fn layers(
    client: &Client,
    blobs: &[Blob],
    wanted: &Wanted<'_>,
) -> Result<BTreeMap<Digest, Layer>, RegistryError> {
    // A layer that is there twice is unpacked twice.
    let mut counts: BTreeMap<&Digest, (u64, &Blob)> = BTreeMap::new();
    for blob in blobs {
        counts.entry(&blob.digest).or_insert((0, blob)).0 += 1;
    }
    let total = counts.values().fold(0, |sum: u64, (_, blob)| sum.saturating_add(blob.size));
    let come = AtomicI64::new(0);
    let step = (total / 100).max(1 << 20);
    let arrived = |more: i64| {
        let before = come.fetch_add(more, Ordering::Relaxed);
        let now = u64::try_from(before + more).unwrap_or_default();
        if now / step != u64::try_from(before).unwrap_or_default() / step || now == total {
            (wanted.progress)(now, total);
        }
    };
    let unwanted = Unwanted(Arc::default());
    let bounds = Bounds { bytes: wanted.max_bytes, entries: MAX_ENTRIES };
    let bring = |(count, blob): (u64, &Blob)| {
        let (blob, is_unwanted) = (blob.clone(), Arc::clone(&unwanted.0));
        let arrived = &arrived;
        async move {
            Ok((count, bring(client, wanted.vault, (&blob, arrived), (bounds, is_unwanted)).await?, blob))
        }
    };
    let bringing: Vec<_> = counts.into_values().map(bring).collect();
    let mut bringing = stream::iter(bringing).buffer_unordered(AT_A_TIME);
    let (mut found, mut bytes, mut entries) = (BTreeMap::new(), 0_u64, 0_u64);
    while let Some(layer) = bringing.next().await {
        let (count, layer, blob): (u64, Layer, Blob) = layer?;
        bytes = bytes.saturating_add(layer.bytes.saturating_mul(count));
        entries = entries.saturating_add(layer.entries.saturating_mul(count));
        if bytes > wanted.max_bytes {
            return Err(RegistryError::TooLarge { bytes, limit: wanted.max_bytes });
        }
        if entries > MAX_ENTRIES {
            return Err(RegistryError::Invalid(format!("it has more than {MAX_ENTRIES} files")));
        }
        found.insert(blob.digest, layer);
    }
    Ok(found)
}

/// Brings one layer and reads it; once more where the bytes are others, for what stands between may have damaged them.
async fn bring(
    client: &Client,
    vault: &Vault,
    (blob, arrived): (&Blob, &download::Arrived<'_>),
    (bounds, is_unwanted): (Bounds, Arc<AtomicBool>),
) -> Result<Layer, RegistryError> {
    let mut is_again = false;
    loop {
        let path = vault.path(&blob.digest);
        let brought = client.download(blob, &path, arrived).await;
        brought.map_err(|error| part_of(&format!("its layer {}", blob.digest), error))?;
        let (file, digest, is_unwanted) = (path.clone(), blob.digest.clone(), Arc::clone(&is_unwanted));
        let reading = tokio::task::spawn_blocking(move || {
            let file = std::fs::File::open(file).map_err(Flaw::Unreadable)?;
            layer::read(file, &digest, bounds, &is_unwanted)
        });
        let read = reading.await.map_err(|error| RegistryError::Machine(error.to_string()))?;
        let invalid = |why: &str| RegistryError::Invalid(format!("layer {}: {why}", blob.digest));
        return match read {
            Ok(layer) => Ok(layer),
            Err(Flaw::Damaged(found)) if !is_again => {
                tracing::warn!(layer = %blob.digest, %found, "a layer came with other bytes, and is asked for again");
                vault.remove(&blob.digest)?;
                arrived(-blob.size.cast_signed());
                is_again = true;
                continue;
            }
            Err(Flaw::Damaged(found)) => Err(invalid(&format!("the registry gave {found} instead, twice"))),
            Err(Flaw::TooLarge(bytes)) => Err(RegistryError::TooLarge { bytes, limit: bounds.bytes }),
            Err(Flaw::Invalid(why)) => Err(invalid(&crate::report::text::excerpt(&why, 200))),
            Err(Flaw::Unreadable(source)) => {
                Err(RegistryError::Disk { attempted: "read a layer", path, source })
            }
        };
    }
}

/// Whether each layer has in it what the configuration says.
fn judge_layers(
    blobs: &[Blob],
    contents: &[Digest],
    found: &BTreeMap<Digest, Layer>,
) -> Result<(), RegistryError> {
    for (blob, content) in blobs.iter().zip(contents) {
        if found.get(&blob.digest).map(|layer| &layer.content) != Some(content) {
            return Err(RegistryError::Invalid(format!(
                "its configuration says that {content} is in layer {}, and it is not",
                blob.digest
            )));
        }
    }
    Ok(())
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
