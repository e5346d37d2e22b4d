//! What the daemon has of images: it is handed one, asked whether it has one, and made to forget those that were not used for longest.
//!
//! All of ours have names in one repository, and what was pulled from here is known by that too; nobody else's image is
//! touched. An image that a container is made of stays, and so does the one that is being pulled.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::models::ImageInspect;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptions, RemoveImageOptionsBuilder,
    TagImageOptionsBuilder,
};
use futures_util::StreamExt as _;

use super::{MAX_WORDS, daemon, words};
use crate::adapters::machine::free_disk;
use crate::adapters::registry::{self, Needs};
use crate::artifact::digest::sha256;
use crate::model::{Digest, ImageReference};
use crate::ports::EngineError;
use crate::report::text::{error_chain, excerpt};

/// The repository of all names that are ours.
const REPOSITORY: &str = "cacheon.invalid/image";
/// How long the daemon may say nothing while it pulls: it tells of every part of a layer.
const PULL_IDLE: Duration = Duration::from_mins(5);
/// How long the daemon may take for anything else that it is asked about images; to remove one it deletes all its files.
const DEADLINE: Duration = Duration::from_mins(2);

fn late(attempted: &'static str) -> EngineError {
    EngineError::Daemon { attempted, why: format!("no answer within {} s", DEADLINE.as_secs()) }
}

/// What an image is called by the daemon, whatever its registry calls it. Nobody can have a registry of this name (RFC 2606), and two
/// images never have the same.
pub(super) fn pinned(image: &ImageReference, digest: &Digest) -> String {
    let named = sha256(format!("{image}@{digest}").as_bytes());
    format!("{REPOSITORY}:{}", named.as_str().trim_start_matches("sha256:"))
}

/// Gives an image that the daemon has a name of ours, from now on.
pub(super) async fn name(docker: &Docker, image: &str, own: &str) -> Result<(), EngineError> {
    let (repository, tag) = own.split_once(':').unwrap_or((own, "latest"));
    let options = TagImageOptionsBuilder::default().repo(repository).tag(tag).build();
    let naming = tokio::time::timeout(DEADLINE, docker.tag_image(image, Some(options))).await;
    naming.map_err(|_| late("name an image"))?.map_err(|error| daemon("name an image", &error))
}

/// Has the daemon pull what is served to it; of the image is known whether a layer of it is packed by zstd.
pub(super) async fn take(
    docker: &Docker,
    served: &str,
    (image, has_zstd): (&ImageReference, bool),
) -> Result<(), EngineError> {
    let options = CreateImageOptionsBuilder::default().from_image(served).build();
    let mut progress = std::pin::pin!(docker.create_image(Some(options), None, None));
    loop {
        let line = match tokio::time::timeout(PULL_IDLE, progress.next()).await {
            Ok(None) => return Ok(()),
            Ok(Some(line)) => line,
            Err(_) => {
                let why = format!("it said nothing for {} s", PULL_IDLE.as_secs());
                return Err(EngineError::Daemon { attempted: "pull", why });
            }
        };
        let Err(error) = line else { continue };
        return Err(match pull_error(&error, image) {
            EngineError::ImageInvalid { why, .. } if has_zstd && is_before_zstd(docker).await => {
                let why = format!("it is older than Docker 23, and unpacks no layer packed by zstd: {why}");
                EngineError::Daemon { attempted: "pull", why }
            }
            error => error,
        });
    }
}

/// Whether a daemon is of a version that unpacks no zstd, or does not say.
async fn is_before_zstd(docker: &Docker) -> bool {
    let said = tokio::time::timeout(DEADLINE, docker.version()).await;
    let version = said.ok().and_then(Result::ok).and_then(|said| said.version).unwrap_or_default();
    version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_none_or(|major| major < 23)
}

/// The image, where the daemon has it under the very digest. It is compared by repository digests, never by the
/// image's id, which means something else in each image store.
pub(super) async fn present(
    docker: &Docker,
    image: &ImageReference,
    digest: &Digest,
) -> Result<Option<ImageInspect>, EngineError> {
    let found = match docker.inspect_image(&pinned(image, digest)).await {
        Ok(found) => found,
        Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => return Ok(None),
        Err(error) => return Err(daemon("inspect an image", &error)),
    };
    let listed = found.repo_digests.as_deref().unwrap_or_default();
    let mut digests = listed.iter().filter_map(|name| name.rsplit_once('@')?.1.parse::<Digest>().ok());
    if digests.any(|listed| listed == *digest) {
        return Ok(Some(found));
    }
    // Our name was given to something else, or the digest taken from it: it is not there, and is pulled again.
    Ok(None)
}

/// Whether an image asks for nothing that no container gets, is for this machine, and has no more bytes than it may have.
pub(super) fn check_image(
    found: &ImageInspect,
    image: &ImageReference,
    max_bytes: u64,
) -> Result<(), EngineError> {
    let config = found.config.as_ref();
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    let needs = Needs {
        os: text(found.os.as_ref()),
        architecture: text(found.architecture.as_ref()),
        volumes: config.and_then(|config| config.volumes.clone()).unwrap_or_default(),
        env: config.and_then(|config| config.env.clone()).unwrap_or_default(),
        working_dir: text(config.and_then(|config| config.working_dir.as_ref())),
    };
    if let Some(why) = needs.refusal() {
        return Err(EngineError::ImageInvalid { image: image.clone(), why });
    }
    let bytes = found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
    if bytes > max_bytes {
        return Err(EngineError::ImageTooLarge { image: image.clone(), bytes, limit: max_bytes });
    }
    Ok(())
}

/// The digest of what would run: the layers by the digests of what is in them, and the part of the configuration that has
/// an effect. That of the image itself where the daemon does not say.
pub(super) fn content(found: &ImageInspect, digest: &Digest) -> Digest {
    let layers = found.root_fs.as_ref().and_then(|root| root.layers.as_ref());
    let (Some(layers), Some(config)) = (layers, &found.config) else { return digest.clone() };
    let effect = serde_json::json!([
        layers,
        config.entrypoint,
        config.cmd,
        config.env,
        config.working_dir,
        config.user,
        config.shell,
    ]);
    sha256(effect.to_string().as_bytes())
}

/// Why the daemon cannot pull what it is served. That is whole and was read before: what is left of the image's own are files that cannot
/// be made, and of the machine's is everything else.
fn pull_error(error: &DockerError, image: &ImageReference) -> EngineError {
    const UNPACKING: &str = "Error processing tar file";
    const MACHINE: [&str; 8] = [
        "no space left on device",
        "disk quota exceeded",
        "input/output error",
        "read-only file system",
        "cannot allocate memory",
        "too many open files",
        "operation not permitted",
        "signal: killed",
    ];
    match words(error) {
        Some((_, text)) if text.contains(UNPACKING) && !MACHINE.iter().any(|words| text.contains(words)) => {
            EngineError::ImageInvalid { image: image.clone(), why: excerpt(text, MAX_WORDS) }
        }
        _ => daemon("pull", error),
    }
}

/// An image of ours that the daemon has.
struct Kept {
    /// As the daemon knows it.
    id: String,
    /// All names of ours that it has, those by which it is found first.
    names: Vec<String>,
    /// When it was pulled or asked for last; none where that is not known.
    used_at: Option<jiff::Timestamp>,
}

/// The images of ours, those that were not used for longest first.
async fn kept(docker: &Docker) -> Result<Vec<Kept>, EngineError> {
    let listing = tokio::time::timeout(DEADLINE, docker.list_images(None::<ListImagesOptions>)).await;
    let listed = listing.map_err(|_| late("list images"))?.map_err(|error| daemon("list images", &error))?;
    let is_ours = |name: &&String| {
        name.strip_prefix(REPOSITORY).is_some_and(|rest| rest.starts_with(':')) || registry::is_served(name)
    };
    let mut kept = Vec::new();
    for image in listed {
        let names: Vec<String> =
            image.repo_tags.iter().chain(&image.repo_digests).filter(is_ours).cloned().collect();
        if names.is_empty() {
            continue;
        }
        let inspecting = tokio::time::timeout(DEADLINE, docker.inspect_image(&image.id)).await;
        // It may be gone meanwhile.
        let Ok(found) = inspecting.map_err(|_| late("inspect an image"))? else { continue };
        let used_at = found.metadata.and_then(|metadata| metadata.last_tag_time?.parse().ok());
        kept.push(Kept { id: image.id, names, used_at });
    }
    kept.sort_by(|a, b| (a.used_at, &a.id).cmp(&(b.used_at, &b.id)));
    Ok(kept)
}

/// Has the daemon forget the image of ours that was not used for longest, but not the one with this name; whether there was one that
/// could be.
pub(super) async fn remove_oldest(docker: &Docker, own: &str) -> Result<bool, EngineError> {
    for image in kept(docker).await? {
        let is_own = image.names.iter().any(|name| name == own);
        if !is_own && !is_used(docker, &image).await? && remove(docker, &image).await? {
            tracing::info!(image = image.names.join(" "), "an image was removed, to make room for others");
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a container is made of an image, be it one that has ended.
async fn is_used(docker: &Docker, image: &Kept) -> Result<bool, EngineError> {
    let filters = std::collections::HashMap::from([("ancestor", vec![image.id.as_str()])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let listing = tokio::time::timeout(DEADLINE, docker.list_containers(Some(options))).await;
    let listed = listing.map_err(|_| late("list containers"))?;
    Ok(!listed.map_err(|error| daemon("list containers", &error))?.is_empty())
}

/// Takes all names of ours from an image, with the last of which it goes; false where it is used after all.
async fn remove(docker: &Docker, image: &Kept) -> Result<bool, EngineError> {
    for name in &image.names {
        let options = RemoveImageOptionsBuilder::default().force(false).build();
        let removing = tokio::time::timeout(DEADLINE, docker.remove_image(name, Some(options), None)).await;
        match removing.map_err(|_| late("remove an image"))? {
            Ok(_) | Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => {}
            Err(DockerError::DockerResponseServerError { status_code: 409, .. }) => return Ok(false),
            Err(error) => return Err(daemon("remove an image", &error)),
        }
    }
    Ok(true)
}

/// Leaves so many images of ours beside the one with this name, those that were used last. What cannot be removed now is so later.
pub(super) async fn keep(docker: &Docker, own: &str, most: usize) {
    let keeping = async {
        let others =
            kept(docker).await?.iter().filter(|image| !image.names.iter().any(|name| name == own)).count();
        for _ in most..others {
            if !remove_oldest(docker, own).await? {
                break;
            }
        }
        Ok::<_, EngineError>(())
    };
    if let Err(error) = keeping.await {
        tracing::warn!("older images were not removed: {}", error_chain(&error));
    }
}

/// Makes room for an image on the daemon's disk, by images of ours that were not used for longest.
///
/// # Errors
/// There is no more to remove, and still no room.
pub(super) async fn make_room(docker: &Docker, own: &str, needed: u64) -> Result<(), EngineError> {
    let asking = tokio::time::timeout(DEADLINE, docker.info()).await;
    let info = asking.map_err(|_| late("ask for its folder"))?;
    let info = info.map_err(|error| daemon("ask for its folder", &error))?;
    let Some(folder) = info.docker_root_dir.map(PathBuf::from) else { return Ok(()) };
    loop {
        // One that is not seen from here cannot be measured.
        let Some(free) = free_disk(Path::new(&folder)) else { return Ok(()) };
        if free >= needed {
            return Ok(());
        }
        if !remove_oldest(docker, own).await? {
            return Err(EngineError::NoRoom { path: folder, needed, free });
        }
    }
}
