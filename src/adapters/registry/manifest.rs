//! What a registry's documents say, judged before anything is pulled. Pure.
//!
//! Docker reads these documents too, and reads keys without regard to case and takes the last of several: a document that could mean
//! another thing to it than to us is refused. Only what is judged here has a type; everything else is left alone.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::RegistryError;
use crate::model::Digest;
use crate::report::text::excerpt;

/// What is asked for, as the registry is told it.
pub(super) const ACCEPTED: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
/// Layers that a registry has itself; those that are had from an address of their own are none of them.
const LAYERS: [&str; 5] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
];
/// The most layers that Docker stacks.
const MAX_LAYERS: usize = 125;
/// The longest path of a folder.
const MAX_PATH_BYTES: usize = 4095;

/// Something that a registry has under its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blob {
    /// Its name.
    pub(super) digest: Digest,
    /// Its size in bytes, as who names it says.
    pub(super) size: u64,
}

/// What one image consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Its configuration.
    pub(super) config: Blob,
    /// Its layers, lowest first.
    pub(super) layers: Vec<Blob>,
}

/// What a digest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Document {
    /// One image.
    Image(Manifest),
    /// Images for several platforms: the one for this machine.
    Index(Blob),
}

/// What an image asks of the machine, as its configuration says or the daemon that has read it.
#[derive(Debug, Clone, Default)]
pub(in crate::adapters) struct Needs {
    /// The system it is for; empty where nobody says.
    pub(in crate::adapters) os: String,
    /// The processor it is for; empty where nobody says.
    pub(in crate::adapters) architecture: String,
    /// Folders that are to be volumes.
    pub(in crate::adapters) volumes: Vec<String>,
    /// Its environment, each `NAME=value`.
    pub(in crate::adapters) env: Vec<String>,
    /// The folder its program starts in; empty where it says none.
    pub(in crate::adapters) working_dir: String,
}

impl Needs {
    /// Why it cannot be what a container gets; none where it can.
    pub(in crate::adapters) fn refusal(&self) -> Option<String> {
        let own = architecture();
        let is = |said: &str, wanted: &str| said.is_empty() || said == wanted;
        if !(is(&self.os, "linux") && is(&self.architecture, own)) {
            let said = excerpt(&format!("{}/{}", self.os, self.architecture), 80);
            return Some(format!(
                "it is for {said}, this machine is linux/{own}: build it with `--platform linux/{own}`"
            ));
        }
        if let Some(volume) = self.volumes.first() {
            // It would be a folder of the machine's disk, without a bound.
            return Some(format!(
                "it declares `VOLUME {}`: leave that out, only /tmp and /dev/shm can be written",
                excerpt(volume, 80)
            ));
        }
        let mut names = self.env.iter().filter_map(|variable| Some(variable.split_once('=')?.0));
        // The machine's own helpers, which start the container, would load what these name.
        if let Some(name) = names.find(|name| REFUSED_ENVIRONMENT.contains(name)) {
            return Some(format!("its environment sets `{name}`: {}", why_refused(name)));
        }
        let dir = &self.working_dir;
        let is_path = dir.starts_with('/')
            && dir.len() <= MAX_PATH_BYTES
            && !dir.chars().any(char::is_control)
            && !dir.split('/').any(|part| part == "..");
        if !(dir.is_empty() || is_path) {
            return Some(format!(
                "its `WORKDIR {}` is no absolute path of a folder: name one that begins with `/`",
                excerpt(dir, 80)
            ));
        }
        None
    }
}

/// What an image's environment may not set: the helpers that start a container listen to it before its program does. The hook of
/// NVIDIA's gives devices for these (NVIDIA Container Toolkit, `internal/config/image`), beside those that a runner names.
const REFUSED_ENVIRONMENT: [&str; 10] = [
    "LD_PRELOAD",
    "LD_AUDIT",
    "NVIDIA_FABRIC_DEVICES",
    "NVIDIA_GDRCOPY",
    "NVIDIA_GDS",
    "NVIDIA_IMEX_CHANNELS",
    "NVIDIA_MIG_CONFIG_DEVICES",
    "NVIDIA_MIG_MONITOR_DEVICES",
    "NVIDIA_MOFED",
    "NVIDIA_NVSWITCH",
];

fn why_refused(name: &str) -> &'static str {
    if name.starts_with("LD_") {
        "set it in the program that needs it"
    } else {
        "a server gets the GPUs of the runner, and no other device"
    }
}

/// The processor of this machine, as images name it.
pub(in crate::adapters) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Keys of a document that are not judged.
type Others = BTreeMap<String, Value>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DocumentFile {
    schema_version: u64,
    media_type: Option<String>,
    config: Option<DescriptorFile>,
    layers: Option<Vec<DescriptorFile>>,
    manifests: Option<Vec<DescriptorFile>>,
    #[serde(flatten)]
    others: Others,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescriptorFile {
    media_type: Option<String>,
    digest: Digest,
    size: u64,
    urls: Option<Vec<String>>,
    platform: Option<PlatformFile>,
    #[serde(flatten)]
    others: Others,
}

#[derive(Deserialize)]
struct PlatformFile {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

#[derive(Deserialize)]
struct ConfigurationFile {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    config: Option<ProcessFile>,
    rootfs: RootFile,
    #[serde(flatten)]
    others: Others,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct ProcessFile {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    volumes: Option<BTreeMap<String, Value>>,
    #[serde(flatten)]
    others: Others,
}

#[derive(Deserialize)]
struct RootFile {
    #[serde(rename = "type")]
    kind: String,
    diff_ids: Vec<Digest>,
    #[serde(flatten)]
    others: Others,
}

fn invalid(why: impl Into<String>) -> RegistryError {
    RegistryError::Invalid(why.into())
}

/// A key as Go compares it, in which Docker is written: without case, and with two letters of Unicode that fold to ASCII.
fn folded(key: &str) -> String {
    let fold = |character| match character {
        'ſ' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    key.chars().map(fold).collect()
}

/// Refuses a document in which another key could be read as one that is judged.
fn unambiguous(others: &Others, judged: &[&str], what: &str) -> Result<(), RegistryError> {
    let is_judged = |key: &&String| judged.iter().any(|judged| folded(judged) == folded(key));
    match others.keys().find(is_judged) {
        None => Ok(()),
        Some(key) => Err(invalid(format!("its {what} has a key `{}` in wrong case", excerpt(key, 40)))),
    }
}

impl DescriptorFile {
    fn checked(&self) -> Result<Blob, RegistryError> {
        unambiguous(&self.others, &["mediaType", "digest", "size", "urls", "platform"], "manifest")?;
        if self.urls.as_ref().is_some_and(|urls| !urls.is_empty()) {
            return Err(invalid("a part of it is to be had from another address than its registry"));
        }
        Ok(Blob { digest: self.digest.clone(), size: self.size })
    }

    fn is_for(&self, os: &str, architecture: &str) -> bool {
        self.platform
            .as_ref()
            .is_some_and(|platform| platform.os == os && platform.architecture == architecture)
    }

    fn is_any(&self, kinds: &[&str]) -> bool {
        self.media_type.as_deref().is_some_and(|kind| kinds.contains(&kind))
    }

    fn kind(&self) -> String {
        excerpt(self.media_type.as_deref().unwrap_or("nothing"), 80)
    }
}

/// What a manifest or an index says: what is needed of it, where it is one for this machine.
///
/// # Errors
/// It is neither, has nothing for this machine, or asks for what Docker would fetch from elsewhere.
pub(super) fn document(bytes: &[u8]) -> Result<Document, RegistryError> {
    let file: DocumentFile = serde_json::from_slice(bytes).map_err(|error| {
        invalid(format!("its manifest cannot be read: {}", excerpt(&error.to_string(), 200)))
    })?;
    if file.schema_version != 2 {
        return Err(invalid("its manifest is not of schema version 2: push it with a current tool"));
    }
    let judged = ["schemaVersion", "mediaType", "config", "layers", "manifests"];
    unambiguous(&file.others, &judged, "manifest")?;
    let kind = file.media_type.as_deref();
    match (file.manifests, file.config, file.layers) {
        (Some(entries), None, None) if [None, Some(OCI_INDEX), Some(DOCKER_LIST)].contains(&kind) => {
            index(&entries)
        }
        (None, Some(config), Some(layers))
            if [None, Some(OCI_MANIFEST), Some(DOCKER_MANIFEST)].contains(&kind) =>
        {
            image(&config, &layers)
        }
        _ => Err(invalid("its manifest is neither of an image nor an index of images")),
    }
}

fn index(entries: &[DescriptorFile]) -> Result<Document, RegistryError> {
    let own = architecture();
    // Attestations are for unknown/unknown, and so for nobody.
    let ours: Vec<&DescriptorFile> = entries.iter().filter(|entry| entry.is_for("linux", own)).collect();
    let named = |entry: &DescriptorFile| {
        let platform = entry.platform.as_ref();
        platform.map(|platform| format!("{}/{}", platform.os, platform.architecture))
    };
    match ours.as_slice() {
        [entry] if entry.is_any(&[OCI_MANIFEST, DOCKER_MANIFEST]) => Ok(Document::Index(entry.checked()?)),
        [entry] => Err(invalid(format!("its index names {} as the image for linux/{own}", entry.kind()))),
        [] => {
            let mut others: Vec<String> = entries.iter().filter_map(named).collect();
            others.sort();
            others.dedup();
            others.retain(|platform| platform != "unknown/unknown");
            let others = excerpt(&others.join(", "), 120);
            let others = if others.is_empty() { "no platform".to_owned() } else { others };
            Err(invalid(format!(
                "its index has images for {others}, and none for linux/{own}: build it with `--platform linux/{own}`"
            )))
        }
        _ => Err(invalid(format!(
            "its index has {} images for linux/{own}: commit the digest of the one that is meant",
            ours.len()
        ))),
    }
}

fn image(config: &DescriptorFile, layers: &[DescriptorFile]) -> Result<Document, RegistryError> {
    if !config.is_any(&CONFIGS) {
        return Err(invalid(format!("it is no image: its configuration is {}", config.kind())));
    }
    if let Some(layer) = layers.iter().find(|layer| !layer.is_any(&LAYERS)) {
        return Err(invalid(format!("a layer of it is {}", layer.kind())));
    }
    if layers.is_empty() || layers.len() > MAX_LAYERS {
        return Err(invalid(format!("it has {} layers, there may be 1 to {MAX_LAYERS}", layers.len())));
    }
    let config = config.checked()?;
    let layers = layers.iter().map(DescriptorFile::checked).collect::<Result<_, _>>()?;
    Ok(Document::Image(Manifest { config, layers }))
}

/// The media type of a manifest or an index that was found to be one.
pub(super) fn kind(bytes: &[u8]) -> &'static str {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kind {
        media_type: Option<String>,
        manifests: Option<IgnoredAny>,
    }
    let said: Option<Kind> = serde_json::from_slice(bytes).ok();
    let (kind, is_index) = said.map_or((None, false), |kind| (kind.media_type, kind.manifests.is_some()));
    let known = ACCEPTED.into_iter().find(|known| kind.as_deref() == Some(known));
    known.unwrap_or(if is_index { OCI_INDEX } else { OCI_MANIFEST })
}

/// The bytes of all layers together, as the manifest says.
pub(super) fn size(layers: &[Blob]) -> u64 {
    layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size))
}

/// What a configuration says of its layers, each by the digest of what is in it, where the image is one that a container can be
/// made of.
///
/// # Errors
/// It is for another machine, asks for what no container gets, or does not belong to so many layers.
pub(super) fn configuration(bytes: &[u8], layers: usize) -> Result<Vec<Digest>, RegistryError> {
    let file: ConfigurationFile = serde_json::from_slice(bytes).map_err(|error| {
        invalid(format!("its configuration cannot be read: {}", excerpt(&error.to_string(), 200)))
    })?;
    let what = "configuration";
    unambiguous(&file.others, &["os", "architecture", "config", "rootfs"], what)?;
    unambiguous(&file.rootfs.others, &["type", "diff_ids"], what)?;
    let process = file.config.unwrap_or_default();
    let judged = ["Entrypoint", "Cmd", "Env", "WorkingDir", "Volumes"];
    unambiguous(&process.others, &judged, what)?;
    if file.os.is_empty() || file.architecture.is_empty() {
        return Err(invalid("its configuration names no platform"));
    }
    let needs = Needs {
        os: file.os,
        architecture: file.architecture,
        volumes: process.volumes.unwrap_or_default().into_keys().collect(),
        env: process.env.unwrap_or_default(),
        working_dir: process.working_dir.unwrap_or_default(),
    };
    if let Some(why) = needs.refusal() {
        return Err(invalid(why));
    }
    let mut command = process.entrypoint.unwrap_or_default();
    command.extend(process.cmd.unwrap_or_default());
    if command.is_empty() {
        return Err(invalid("it names no command to run"));
    }
    if file.rootfs.kind != "layers" || file.rootfs.diff_ids.len() != layers {
        return Err(invalid(format!(
            "its configuration is of {} layers, its manifest has {layers}",
            file.rootfs.diff_ids.len()
        )));
    }
    Ok(file.rootfs.diff_ids)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn digest(byte: u8) -> Digest {
        format!("sha256:{}", hex::encode([byte; 32])).parse().unwrap()
    }

    fn part(kind: &str, byte: u8, size: u64) -> Value {
        json!({"mediaType": kind, "digest": digest(byte), "size": size})
    }

    fn manifest() -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": part(CONFIGS[0], 1, 100),
            "layers": [part(LAYERS[1], 2, 1000), part(LAYERS[0], 3, 10)],
            "annotations": {"a": "b"},
        })
    }

    fn entry(byte: u8, os: &str, architecture: &str) -> Value {
        let mut entry = part(OCI_MANIFEST, byte, 500);
        entry["platform"] = json!({"os": os, "architecture": architecture});
        entry
    }

    #[track_caller]
    fn refused(value: &Value, words: &str) {
        let error = document(value.to_string().as_bytes()).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn a_manifest_is_its_configuration_and_layers() {
        let blob = |byte, size| Blob { digest: digest(byte), size };
        let expected = Manifest { config: blob(1, 100), layers: vec![blob(2, 1000), blob(3, 10)] };
        let read = |value: &Value| document(value.to_string().as_bytes()).unwrap();
        assert_eq!(read(&manifest()), Document::Image(expected.clone()));
        assert_eq!(size(&expected.layers), 1010);
        let mut docker = manifest();
        docker["mediaType"] = DOCKER_MANIFEST.into();
        docker["config"]["mediaType"] = CONFIGS[1].into();
        docker["layers"][0]["mediaType"] = LAYERS[4].into();
        assert_eq!(read(&docker), Document::Image(expected));
        assert_eq!(size(&[blob(1, u64::MAX), blob(2, 1)]), u64::MAX);
    }

    #[test]
    fn what_is_no_manifest_is_refused_with_the_reason() {
        let check = |change: &dyn Fn(&mut Value), words: &str| {
            let mut value = manifest();
            change(&mut value);
            refused(&value, words);
        };
        check(&|value| value["schemaVersion"] = 1.into(), "schema version 2");
        check(&|value| value["schemaVersion"] = "2".into(), "cannot be read");
        check(&|value| value["mediaType"] = OCI_INDEX.into(), "neither of an image");
        check(&|value| value["manifests"] = json!([]), "neither of an image");
        check(&|value| value["Layers"] = json!([]), "key `Layers` in wrong case");
        check(&|value| value["layerſ"] = json!([]), "in wrong case");
        check(&|value| value["layers"][0]["Digest"] = "x".into(), "key `Digest` in wrong case");
        check(&|value| value["config"] = Value::Null, "neither of an image");
        check(&|value| value["config"]["mediaType"] = "application/vnd.wasm".into(), "it is no image");
        check(&|value| value["layers"] = json!([]), "it has 0 layers");
        check(&|value| value["layers"] = vec![part(LAYERS[0], 1, 1); 126].into(), "it has 126 layers");
        check(&|value| value["layers"][0]["urls"] = json!(["https://a"]), "from another address");
        check(&|value| value["layers"][0]["size"] = (-1).into(), "cannot be read");
        check(&|value| value["layers"][0]["size"] = Value::Null, "cannot be read");
        check(&|value| value["layers"][0]["digest"] = "sha256:0".into(), "cannot be read");
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        check(&|value| value["layers"][0]["mediaType"] = foreign.into(), "a layer of it is");
        for text in ["", "[]", "null", "<html>", "{\"schemaVersion\":2,\"schemaVersion\":2}"] {
            assert!(document(text.as_bytes()).is_err(), "{text}");
        }
        assert!(document(&b"[".repeat(1 << 20)).is_err(), "depth is bounded");
    }

    #[test]
    fn an_index_has_one_image_for_this_machine() {
        let own = architecture();
        let other = if own == "amd64" { "arm64" } else { "amd64" };
        let index = |entries: Value| json!({"schemaVersion": 2, "manifests": entries});
        let entries =
            json!([entry(1, "unknown", "unknown"), entry(2, "linux", other), entry(3, "linux", own)]);
        let found = document(index(entries).to_string().as_bytes()).unwrap();
        assert_eq!(found, Document::Index(Blob { digest: digest(3), size: 500 }));
        refused(
            &index(json!([
                entry(1, "unknown", "unknown"),
                entry(2, "linux", other),
                entry(3, "windows", own)
            ])),
            &format!("images for linux/{other}, windows/{own}, and none for linux/{own}"),
        );
        refused(&index(json!([])), "images for no platform");
        refused(&index(json!([entry(1, "linux", own), entry(2, "linux", own)])), "has 2 images");
        let mut nested = entry(1, "linux", own);
        nested["mediaType"] = OCI_INDEX.into();
        refused(&index(json!([nested])), "index names application/vnd.oci.image.index");
    }

    #[test]
    fn a_configuration_is_one_that_a_container_can_be_made_of() {
        let check = |change: &dyn Fn(&mut Value), words: Option<&str>| {
            let mut value = json!({
                "os": "linux",
                "architecture": architecture(),
                "config": {"Entrypoint": ["/serve"], "Env": ["A=b", "LD_LIBRARY_PATH=/x"], "WorkingDir": "/app", "User": "0"},
                "rootfs": {"type": "layers", "diff_ids": [digest(1)]},
                "history": [{"created_by": "x"}],
            });
            change(&mut value);
            match (configuration(value.to_string().as_bytes(), 1), words) {
                (Ok(found), None) => assert_eq!(found, [digest(1)]),
                (Err(error), Some(words)) => assert!(error.to_string().contains(words), "{error}"),
                (found, _) => panic!("{value}: {found:?}"),
            }
        };
        check(&|_| {}, None);
        check(&|value| value["config"] = json!({"Cmd": ["/serve"], "WorkingDir": ""}), None);
        check(&|value| value["config"]["Volumes"] = Value::Null, None);
        check(&|value| value["config"]["Labels"] = json!({"A": "1", "a": "2"}), None);
        check(
            &|value| value["architecture"] = "s390x".into(),
            Some("it is for linux/s390x, this machine is"),
        );
        check(&|value| value["os"] = "windows".into(), Some("it is for windows/"));
        check(&|value| value["os"] = "".into(), Some("no platform"));
        check(&|value| value["config"]["Volumes"] = json!({"/data": {}}), Some("`VOLUME /data`"));
        check(
            &|value| value["config"]["volumes"] = json!({"/data": {}}),
            Some("key `volumes` in wrong case"),
        );
        check(&|value| value["Config"] = json!({}), Some("key `Config` in wrong case"));
        check(&|value| value["config"]["Env"] = json!(["LD_AUDIT=/x"]), Some("`LD_AUDIT`"));
        check(&|value| value["config"] = json!({"Env": []}), Some("no command"));
        check(&|value| value["config"] = Value::Null, Some("no command"));
        for dir in ["app", "./app", "/a/../b", "/a\u{0}b", &format!("/{}", "x".repeat(5000))] {
            check(&|value| value["config"]["WorkingDir"] = dir.into(), Some("`WORKDIR "));
        }
        check(&|value| value["rootfs"]["diff_ids"] = json!([]), Some("is of 0 layers, its manifest has 1"));
        check(&|value| value["rootfs"]["type"] = "other".into(), Some("layers"));
        check(&|value| value["rootfs"] = Value::Null, Some("cannot be read"));
        check(&|value| value["config"]["Env"] = "A=b".into(), Some("cannot be read"));
    }
}
