//! A registry on a loopback address that answers as a test tells it, and remembers what it was asked.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::Patience;
use super::manifest::architecture;
use crate::artifact::digest::sha256;
use crate::model::{Digest, ImageReference};

/// What is answered to one request; the last of several is answered to all that follow.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// After so many bytes of the body the connection is cut.
    pub(crate) cut_after: Option<usize>,
    /// After so many bytes of the body nothing comes any more, and the connection stays.
    pub(crate) silent_after: Option<usize>,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), cut_after: None, silent_after: None }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

#[derive(Debug, Default)]
struct Script {
    answers: Mutex<HashMap<String, Vec<Answer>>>,
    asked: Mutex<Vec<String>>,
}

/// A running registry; it ends when it is dropped.
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    script: Arc<Script>,
    _serving: JoinSet<()>,
}

/// An image as it is pushed.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// What its configuration says.
    pub(crate) config: Value,
    /// Its layers, as they are kept, with their media types.
    pub(crate) layers: Vec<(&'static str, Vec<u8>)>,
}

impl Default for Image {
    /// One of an archive with nothing in it.
    fn default() -> Self {
        Self::of(vec![0; 1024])
    }
}

impl Image {
    /// An image of one layer that is not compressed.
    pub(crate) fn of(layer: Vec<u8>) -> Self {
        let contents = [sha256(&layer)];
        Self::packed(vec![("application/vnd.oci.image.layer.v1.tar", layer)], &contents)
    }

    /// An image of these layers, in which its configuration says that this is.
    pub(crate) fn packed(layers: Vec<(&'static str, Vec<u8>)>, contents: &[Digest]) -> Self {
        let config = json!({
            "os": "linux",
            "architecture": architecture(),
            "config": {"Entrypoint": ["/serve"]},
            "rootfs": {"type": "layers", "diff_ids": contents},
        });
        Self { config, layers }
    }

    /// Its manifest.
    pub(crate) fn manifest(&self) -> Value {
        let part = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": sha256(bytes), "size": bytes.len()});
        let config = part("application/vnd.oci.image.config.v1+json", self.config.to_string().as_bytes());
        let layers: Vec<Value> = self.layers.iter().map(|(kind, bytes)| part(kind, bytes)).collect();
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": layers,
        })
    }
}

/// Patience that makes no test wait.
pub(crate) fn impatient() -> Patience {
    Patience {
        answer: Duration::from_millis(500),
        document: Duration::from_secs(2),
        window: Duration::from_secs(1),
        least_bytes: 1000,
        layers: Duration::from_secs(20),
        pauses: vec![Duration::from_millis(1); 2],
        longest_pause: Duration::from_millis(5),
    }
}

impl Registry {
    pub(crate) async fn start() -> Self {
        let script = Arc::<Script>::default();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&script));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, script, _serving: serving }
    }

    /// The image's name in this registry.
    pub(crate) fn image(&self) -> ImageReference {
        format!("{}/miner/server", self.address).parse().unwrap()
    }

    /// Answers so to requests for a path below the repository, one after the other.
    pub(crate) fn answers(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/v2/miner/server/{path}") };
        self.script.answers.lock().unwrap().insert(path, answers.into_iter().collect());
    }

    /// Has a manifest of these bytes; its digest.
    pub(crate) fn push_manifest(&self, manifest: &Value) -> Digest {
        let bytes = manifest.to_string().into_bytes();
        let digest = sha256(&bytes);
        let kind = manifest["mediaType"].as_str().unwrap_or("application/vnd.oci.image.index.v1+json");
        self.answers(&format!("manifests/{digest}"), [Answer::new(200, bytes).with("Content-Type", kind)]);
        digest
    }

    /// Has the configuration and the layers of an image.
    pub(crate) fn push_blobs(&self, image: &Image) {
        let config = image.config.to_string().into_bytes();
        for bytes in image.layers.iter().map(|(_, bytes)| bytes).chain([&config]) {
            self.answers(&format!("blobs/{}", sha256(bytes)), [Answer::new(200, bytes.clone())]);
        }
    }

    /// Has an image; its digest.
    pub(crate) fn push(&self, image: &Image) -> Digest {
        self.push_blobs(image);
        self.push_manifest(&image.manifest())
    }

    /// What it was asked so far: the paths, those below the repository without it, with range and authorization where there were any.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.script.asked.lock().unwrap().clone()
    }
}

async fn answer(State(script): State<Arc<Script>>, uri: Uri, headers: HeaderMap) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
    let words =
        [Some(uri.to_string().replace("/v2/miner/server/", "")), text("range"), text("authorization")];
    script.asked.lock().unwrap().push(words.into_iter().flatten().collect::<Vec<_>>().join(" "));
    let mut answers = script.answers.lock().unwrap();
    let answer = match answers.get_mut(uri.path()) {
        Some(answers) if answers.len() > 1 => answers.remove(0),
        Some(answers) => answers[0].clone(),
        None => Answer::new(404, "{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\"}]}"),
    };
    drop(answers);
    let Answer { mut status, headers, mut body, cut_after, silent_after } = answer;
    let mut response = Response::builder();
    if let (200, Some(start)) = (status, text("range").as_deref().and_then(range_start)) {
        response =
            response.header("Content-Range", format!("bytes {start}-{}/{}", body.len() - 1, body.len()));
        body.drain(..start);
        status = 206;
    }
    for (name, value) in headers {
        response = response.header(name, value);
    }
    let length = body.len();
    let sent = body[..cut_after.or(silent_after).unwrap_or(length).min(length)].to_vec();
    let body = if cut_after.is_some() {
        // What was sent is on its way before the end comes.
        let cut = stream::once(async {
            tokio::task::yield_now().await;
            Err(io::Error::other("cut"))
        });
        response = response.header("Content-Length", length);
        Body::from_stream(stream::iter([Ok(sent)]).chain(cut))
    } else if silent_after.is_some() {
        response = response.header("Content-Length", length);
        let first = stream::iter([Ok::<_, Infallible>(sent)]);
        Body::from_stream(first.chain(stream::pending()))
    } else {
        Body::from(sent)
    };
    response.status(StatusCode::from_u16(status).unwrap()).body(body).unwrap()
}

/// Where a range begins: `bytes=N-`.
fn range_start(range: &str) -> Option<usize> {
    range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}
