//! Images from scratch: a layer with this program and what it needs, a configuration, a manifest, pushed by the registry's
//! own HTTP API.
//!
//! Layers are not compressed: a debug build would need longer for it than the daemon for the bytes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use cacheon::artifact::digest::sha256;
use cacheon::model::{Digest, ImageReference};
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Repository of what images share.
const SHARED: &str = "shared";

/// An image in the registry.
#[derive(Debug, Clone)]
pub(crate) struct Pushed {
    pub(crate) image: ImageReference,
    pub(crate) digest: Digest,
}

/// A layer in the registry. Where it is not compressed its digest is that of its content too.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    digest: Digest,
    size: usize,
    kind: &'static str,
}

/// A registry, as `HOST:PORT`, that takes everything from everybody.
pub(crate) struct Registry {
    pub(crate) address: String,
    http: reqwest::Client,
}

/// The processor of this machine, as images name it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Layer {
    /// Digest of its content.
    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }
}

impl Registry {
    pub(crate) fn new(address: String) -> Self {
        // It is asked without TLS, but no client is made without any.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { address, http: reqwest::Client::new() }
    }

    async fn put(&self, url: String, kind: &str, bytes: Vec<u8>) {
        let request = self.http.put(url).header("Content-Type", kind).body(bytes);
        let response = request.send().await.expect("the registry answers");
        let status = response.status();
        let words = response.text().await.unwrap_or_default();
        assert!(status.is_success(), "the registry: {status}: {words}");
    }

    /// Where a blob may be uploaded to; none where the repository shares it already.
    async fn upload(&self, repository: &str, shared: Option<&Digest>) -> Option<String> {
        let mut url = format!("http://{}/v2/{repository}/blobs/uploads/", self.address);
        if let Some(digest) = shared {
            url = format!("{url}?mount={digest}&from={SHARED}");
        }
        let response = self.http.post(url).send().await.expect("the registry answers");
        if response.status() == reqwest::StatusCode::CREATED {
            return None;
        }
        assert_eq!(response.status(), reqwest::StatusCode::ACCEPTED);
        let location = response.headers().get("location").expect("a location").to_str().expect("text");
        let base = if location.starts_with('/') { format!("http://{}", self.address) } else { String::new() };
        Some(format!("{base}{location}"))
    }

    async fn push_blob(&self, repository: &str, bytes: Vec<u8>) -> Layer {
        let layer = Layer { digest: sha256(&bytes), size: bytes.len(), kind: LAYER };
        let location = self.upload(repository, None).await.expect("a place");
        let joint = if location.contains('?') { '&' } else { '?' };
        self.put(format!("{location}{joint}digest={}", layer.digest), "application/octet-stream", bytes)
            .await;
        layer
    }

    /// Pushes a layer that images may share.
    pub(crate) async fn push_layer(&self, tar: Vec<u8>) -> Layer {
        self.push_blob(SHARED, tar).await
    }

    /// Pushes a layer that is compressed, of this media type.
    pub(crate) async fn push_packed(&self, kind: &'static str, bytes: Vec<u8>) -> Layer {
        Layer { kind, ..self.push_blob(SHARED, bytes).await }
    }

    /// Pushes an image that runs `config`'s program; `diff_id` is what the configuration says of the layer.
    pub(crate) async fn push_image(&self, name: &str, layer: (&Layer, &Digest), config: &Value) -> Pushed {
        let (layer, diff_id) = layer;
        let rootfs = json!({"type": "layers", "diff_ids": [diff_id]});
        let config =
            json!({"architecture": architecture(), "os": "linux", "config": config, "rootfs": rootfs});
        let manifest = self.manifest(name, layer, &config).await;
        self.push_manifest(name, &manifest).await
    }

    /// The manifest of an image with this configuration, which is pushed, as its layer is.
    pub(crate) async fn manifest(&self, name: &str, layer: &Layer, config: &Value) -> Value {
        assert!(self.upload(name, Some(&layer.digest)).await.is_none(), "the layer was not shared");
        let config = self.push_blob(name, config.to_string().into_bytes()).await;
        let part =
            |kind: &str, blob: &Layer| json!({"mediaType": kind, "digest": blob.digest, "size": blob.size});
        json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": part(CONFIG, &config),
            "layers": [part(layer.kind, layer)],
        })
    }

    /// Pushes a manifest, or an index of manifests that are there.
    pub(crate) async fn push_manifest(&self, name: &str, manifest: &Value) -> Pushed {
        let bytes = manifest.to_string().into_bytes();
        let digest = sha256(&bytes);
        let kind = manifest["mediaType"].as_str().expect("a kind");
        self.put(format!("http://{}/v2/{name}/manifests/{digest}", self.address), kind, bytes).await;
        Pushed { image: self.named(name), digest }
    }

    /// An image of this name, whether it is there or not.
    pub(crate) fn named(&self, name: &str) -> ImageReference {
        format!("{}/{name}", self.address).parse().expect("an image")
    }
}

/// The layer that all images share: this program, the opponent, and the libraries and the loader of both, each where
/// it is here; and a file that is no program.
pub(crate) fn shared_layer(opponent: &Path) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a folder");
    let programs = [Path::new(env!("CARGO_BIN_EXE_cacheon")), opponent];
    let mut tar = tar::Builder::new(Vec::new());
    for (program, name) in programs.into_iter().zip(["cacheon", "opponent"]) {
        // Most of a debug build are symbols.
        let stripped = dir.path().join(name);
        let strip = Command::new("strip").arg("-o").arg(&stripped).arg(program).status();
        let small = if strip.is_ok_and(|status| status.success()) { &stripped } else { program };
        tar.append_path_with_name(small, format!("bin/{name}")).expect("a program");
    }
    for library in programs.into_iter().flat_map(libraries).collect::<BTreeSet<PathBuf>>() {
        let name = library.strip_prefix("/").expect("an absolute path");
        // What a link stands for, under the link's name.
        let target = std::fs::canonicalize(&library).expect("a library");
        tar.append_path_with_name(target, name).expect("a library");
    }
    let mut header = tar::Header::new_gnu();
    let text = b"no program\n";
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "bin/text", &text[..]).expect("a file");
    tar.into_inner().expect("a tar")
}

/// The shared libraries of a program and its loader, as `ldd` finds them.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("ldd");
    let text = String::from_utf8(output.stdout).expect("text");
    // `libc.so.6 => /lib/libc.so.6 (0x..)`, `/lib64/ld-linux-x86-64.so.2 (0x..)`; the kernel's own has no path.
    let paths = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    paths.map(PathBuf::from).collect()
}
