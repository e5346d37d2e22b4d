//! One image, served to the daemon of this machine from a loopback address: what was judged, byte for byte, and nothing else.
//!
//! Read only, and as long as the pull lasts. Docker asks a registry on a loopback address without TLS.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::task::JoinSet;
use tokio_util::io::ReaderStream;

use super::RegistryError;
use crate::model::Digest;

/// Name of the repository that has the image.
const REPOSITORY: &str = "cacheon/pulled";

/// What an image consists of.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Manifest and index, with their media types.
    pub(super) manifests: BTreeMap<Digest, (&'static str, Vec<u8>)>,
    /// The configuration.
    pub(super) configuration: Option<(Digest, Vec<u8>)>,
    /// The files of the layers.
    pub(super) layers: BTreeMap<Digest, PathBuf>,
}

/// A running registry of one image; it ends when it is dropped.
#[derive(Debug)]
pub(super) struct LocalRegistry {
    address: SocketAddr,
    _serving: JoinSet<()>,
}

impl LocalRegistry {
    /// Begins to serve.
    ///
    /// # Errors
    /// No port of the loopback address is free.
    pub(super) async fn start(parts: Parts) -> Result<Self, RegistryError> {
        let machine = |error: std::io::Error| {
            RegistryError::Machine(format!("listen on the loopback address: {error}"))
        };
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(machine)?;
        let address = listener.local_addr().map_err(machine)?;
        let router = Router::new()
            .route("/v2/", get(StatusCode::OK))
            .route(&format!("/v2/{REPOSITORY}/manifests/{{digest}}"), get(manifest))
            .route(&format!("/v2/{REPOSITORY}/blobs/{{digest}}"), get(blob))
            .with_state(Arc::new(parts));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::warn!("the registry of a pull has ended: {error}");
            }
        });
        Ok(Self { address, _serving: serving })
    }

    /// The image's repository as the daemon is told it.
    pub(super) fn repository(&self) -> String {
        format!("{}/{REPOSITORY}", self.address)
    }
}

/// Whether a name that the daemon gave an image is that of one which was served so, at whatever port.
pub(in crate::adapters) fn is_served(name: &str) -> bool {
    let local = name.strip_prefix(&format!("{}:", Ipv4Addr::LOCALHOST));
    local
        .and_then(|rest| rest.split_once('/')?.1.strip_prefix(REPOSITORY))
        .is_some_and(|rest| rest.starts_with('@'))
}

fn answer(digest: &str, kind: &'static str, length: u64, body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
        (header::HeaderName::from_static("docker-content-digest"), digest.to_owned()),
    ];
    (headers, body).into_response()
}

async fn manifest(State(parts): State<Arc<Parts>>, Path(digest): Path<String>) -> Response {
    let found = digest.parse().ok().and_then(|digest: Digest| parts.manifests.get(&digest));
    match found {
        Some((kind, bytes)) => answer(&digest, kind, bytes.len() as u64, bytes.clone().into()),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn blob(State(parts): State<Arc<Parts>>, Path(digest): Path<String>) -> Response {
    const BYTES: &str = "application/octet-stream";
    let Ok(wanted) = digest.parse::<Digest>() else { return StatusCode::NOT_FOUND.into_response() };
    if let Some((_, bytes)) = parts.configuration.as_ref().filter(|(found, _)| *found == wanted) {
        return answer(&digest, BYTES, bytes.len() as u64, bytes.clone().into());
    }
    let Some(path) = parts.layers.get(&wanted) else { return StatusCode::NOT_FOUND.into_response() };
    let opened = async {
        let file = tokio::fs::File::open(path).await?;
        let length = file.metadata().await?.len();
        Ok::<_, std::io::Error>((file, length))
    };
    match opened.await {
        Ok((file, length)) => {
            answer(&digest, BYTES, length, Body::from_stream(ReaderStream::with_capacity(file, 1 << 18)))
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), "a layer that was pulled cannot be read: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
