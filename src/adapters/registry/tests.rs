//! The client against a scripted registry: each odd answer, and what becomes of it.

use serde_json::{Value, json};

use super::scripted::{Answer, Image, Registry, impatient};
use super::*;
use crate::artifact::digest::sha256;
use crate::model::Fault;

const MAX_BYTES: u64 = 1 << 20;

/// An image that was fetched, and the folder of its layers.
async fn fetched(
    image: &ImageReference,
    digest: &Digest,
    dir: &Path,
) -> Result<(Fetched, Vault), EngineError> {
    let vault = turn(image, dir).await?;
    let wanted = Wanted {
        image,
        digest,
        max_bytes: MAX_BYTES,
        patience: &impatient(),
        vault: &vault,
        progress: &|come, total| assert!(come <= total, "{come} of {total}"),
    };
    Ok((fetch(wanted).await?, vault))
}

async fn judged(registry: &Registry, digest: &Digest) -> Result<(), EngineError> {
    let dir = tempfile::tempdir().unwrap();
    fetched(&registry.image(), digest, dir.path()).await.map(drop)
}

/// Asserts the code of the failure and a part of its words; an empty code is none.
async fn check(registry: &Registry, digest: &Digest, code: &str, words: &str) {
    match judged(registry, digest).await {
        Ok(()) => assert_eq!(code, "", "it was taken"),
        Err(error) => {
            let reason = error.reason();
            assert_eq!(reason.code, code, "{error}");
            assert!(reason.message.contains(words), "{error}");
            let is_ours = code == "registry-unavailable";
            assert_eq!(reason.fault, if is_ours { Fault::Infra } else { Fault::Submission }, "{error}");
        }
    }
}

#[tokio::test]
async fn an_image_is_judged_by_its_manifest_and_configuration_first() {
    let registry = Registry::start().await;
    let image = Image::default();
    let digest = registry.push(&image);
    check(&registry, &digest, "", "").await;
    let config = sha256(image.config.to_string().as_bytes());
    let layer = sha256(&image.layers[0].1);
    let all = [format!("manifests/{digest}"), format!("blobs/{config}"), format!("blobs/{layer}")];
    assert_eq!(registry.asked(), all);
    let mut foreign = image;
    foreign.config["os"] = "windows".into();
    check(&registry, &registry.push(&foreign), "image-invalid", "it is for windows/").await;
    assert_eq!(registry.asked().len(), 5, "no layer was asked for");
}

#[tokio::test]
async fn an_index_leads_to_the_image_of_this_platform() {
    let registry = Registry::start().await;
    let image = Image::default();
    let own = registry.push(&image);
    let entry = |digest: &Digest, os: &str, architecture: &str| {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest,
            "size": image.manifest().to_string().len(),
            "platform": {"os": os, "architecture": architecture},
        })
    };
    let index = |entries: Value| json!({"schemaVersion": 2, "manifests": entries});
    let nothing = sha256(b"nothing");
    let attested = [entry(&nothing, "unknown", "unknown"), entry(&own, "linux", manifest::architecture())];
    check(&registry, &registry.push_manifest(&index(json!(attested))), "", "").await;
    let foreign = index(json!([entry(&own, "linux", "s390x"), entry(&nothing, "unknown", "unknown")]));
    check(
        &registry,
        &registry.push_manifest(&foreign),
        "image-invalid",
        "has images for linux/s390x, and none",
    )
    .await;
    let gone = index(json!([entry(&nothing, "linux", manifest::architecture())]));
    check(
        &registry,
        &registry.push_manifest(&gone),
        "image-unavailable",
        "its manifest for this platform is not there",
    )
    .await;
    // One that calls an image of another processor ours.
    let mut lying = Image::default();
    lying.config["architecture"] = "s390x".into();
    let mut called = entry(&registry.push(&lying), "linux", manifest::architecture());
    called["size"] = lying.manifest().to_string().len().into();
    check(
        &registry,
        &registry.push_manifest(&index(json!([called]))),
        "image-invalid",
        "it is for linux/s390x",
    )
    .await;
}

#[tokio::test]
async fn a_status_says_whose_fault_it_is() {
    let cases = [
        (400, "registry-unavailable", "answers 400 Bad Request"),
        (401, "image-not-public", "make its repository public"),
        (403, "image-not-public", "answers 403 Forbidden"),
        (404, "image-unavailable", "answers 404 Not Found"),
        (410, "image-unavailable", "answers 410 Gone"),
        (429, "registry-unavailable", "answers 429 Too Many Requests"),
        (500, "registry-unavailable", "answers 500"),
        (503, "registry-unavailable", "answers 503"),
        (204, "registry-unavailable", "answers 204"),
    ];
    for (status, code, words) in cases {
        let registry = Registry::start().await;
        let digest = registry.push(&Image::default());
        let path = format!("manifests/{digest}");
        registry.answers(&path, [Answer::new(status, "").with("Retry-After", "1000000")]);
        check(&registry, &digest, code, words).await;
        let tries = if code == "registry-unavailable" { 3 } else { 1 };
        assert_eq!(registry.asked().len(), tries, "{status}");
        // A short trouble is none.
        if code == "registry-unavailable" {
            let good = Answer::new(200, Image::default().manifest().to_string());
            registry.answers(&path, [Answer::new(status, ""), good]);
            check(&registry, &digest, "", "").await;
        }
    }
}

#[tokio::test]
async fn a_part_that_is_not_there_is_named() {
    let registry = Registry::start().await;
    let digest = registry.push_manifest(&Image::default().manifest());
    check(&registry, &digest, "image-unavailable", "its configuration is not there").await;
}

#[tokio::test]
async fn other_bytes_are_asked_for_again_before_they_are_held_against_anybody() {
    let image = Image::default();
    let (good, other) = (image.manifest().to_string(), Answer::new(200, "{}"));
    let check = async |answers: Vec<Answer>, code: &str| {
        let registry = Registry::start().await;
        let digest = registry.push(&image);
        registry.answers(&format!("manifests/{digest}"), answers);
        check(&registry, &digest, code, "").await;
    };
    check(vec![other.clone(), Answer::new(200, good.clone())], "").await;
    check(vec![other.clone()], "digest-mismatch").await;
    check(vec![other, Answer::new(503, ""), Answer::new(200, good)], "").await;
}

#[tokio::test]
async fn who_is_silent_slow_or_cut_off_is_waited_for_so_long_and_no_longer() {
    let image = Image::default();
    let registry = Registry::start().await;
    let digest = registry.push(&image);
    let good = Answer::new(200, image.manifest().to_string());
    let path = format!("manifests/{digest}");
    registry.answers(&path, [Answer { silent_after: Some(0), ..good.clone() }]);
    check(&registry, &digest, "registry-unavailable", "").await;
    registry.answers(&path, [Answer { silent_after: Some(10), ..good.clone() }, good.clone()]);
    check(&registry, &digest, "", "").await;
    registry.answers(&path, [Answer { cut_after: Some(10), ..good.clone() }]);
    check(&registry, &digest, "registry-unavailable", "").await;
    registry.answers(&path, [Answer { cut_after: Some(10), ..good.clone() }, good]);
    check(&registry, &digest, "", "").await;

    let dir = tempfile::tempdir().unwrap();
    // Nobody answers: the connection is taken, and that is all.
    let deaf = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let image = format!("{}/miner/server", deaf.local_addr().unwrap()).parse().unwrap();
    let error = fetched(&image, &digest, dir.path()).await.unwrap_err();
    assert_eq!(error.reason().code, "registry-unavailable", "{error}");
    drop(deaf);
    let error = fetched(&image, &digest, dir.path()).await.unwrap_err();
    assert_eq!(error.reason().code, "registry-unavailable", "{error}");
    assert!(error.to_string().contains("Connection refused"), "{error}");
}

#[tokio::test]
async fn nothing_is_read_without_end() {
    let registry = Registry::start().await;
    let digest = sha256(b"endless");
    let endless = vec![b' '; client::MAX_DOCUMENT_BYTES as usize + 1];
    registry.answers(&format!("manifests/{digest}"), [Answer::new(200, endless)]);
    check(&registry, &digest, "image-invalid", "answers with more than 4194304 bytes").await;
    // A configuration is as long as the manifest says, or is not read.
    let image = Image::default();
    let mut manifest = image.manifest();
    registry.push_blobs(&image);
    manifest["config"]["size"] = 10.into();
    check(&registry, &registry.push_manifest(&manifest), "image-invalid", "more than 10 bytes").await;
    manifest["config"]["size"] = (1_u64 << 40).into();
    check(&registry, &registry.push_manifest(&manifest), "image-invalid", "its configuration has").await;
}

#[tokio::test]
async fn layers_beyond_the_bound_are_not_asked_for() {
    let registry = Registry::start().await;
    let image = Image::default();
    registry.push_blobs(&image);
    let mut manifest = image.manifest();
    manifest["layers"][0]["size"] = (MAX_BYTES + 1).into();
    let digest = registry.push_manifest(&manifest);
    check(&registry, &digest, "image-too-large", "has 1.1 MiB, at most 1.0 MiB are allowed").await;
    let mut twice = image.manifest();
    let layer = twice["layers"][0].clone();
    twice["layers"] = json!([layer, layer]);
    twice["layers"][0]["size"] = u64::MAX.into();
    check(&registry, &registry.push_manifest(&twice), "image-too-large", "").await;
    assert_eq!(registry.asked().len(), 2, "the manifests alone");
}

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_layer_that_grows_beyond_the_bound_is_refused() {
    let registry = Registry::start().await;
    let check = async |bytes: u64, times: usize, code: &str| {
        let content = vec![0; bytes as usize];
        let layers = vec![(GZIP, gzip(&content)); times];
        let image = Image::packed(layers, &vec![sha256(&content); times]);
        check(&registry, &registry.push(&image), code, "").await;
    };
    check(MAX_BYTES, 1, "").await;
    check(MAX_BYTES + 512, 1, "image-too-large").await;
    check(64 * MAX_BYTES, 1, "image-too-large").await;
    // Each time it is unpacked it takes room again.
    check(MAX_BYTES / 4, 4, "").await;
    check(MAX_BYTES / 4, 5, "image-too-large").await;
}

#[tokio::test]
async fn a_layer_has_in_it_what_the_configuration_says() {
    let registry = Registry::start().await;
    let content = vec![0; 1024];
    let image = |layer: Vec<u8>| Image::packed(vec![(GZIP, layer)], &[sha256(&content)]);
    check(&registry, &registry.push(&image(gzip(&content))), "", "").await;
    check(&registry, &registry.push(&image(gzip(&[0; 2048]))), "image-invalid", "and it is not").await;
    let text = image(b"no archive".to_vec());
    check(&registry, &registry.push(&text), "image-invalid", "it cannot be unpacked").await;
}

#[tokio::test]
async fn a_flipped_bit_is_asked_for_again_before_it_is_held_against_anybody() {
    let image = Image::of(vec![0; 4096]);
    let layer = &image.layers[0].1;
    let mut flipped = layer.clone();
    flipped[1000] ^= 1;
    let check = async |answers: Vec<Answer>, code: &str, words: &str| {
        let registry = Registry::start().await;
        let digest = registry.push(&image);
        let path = format!("blobs/{}", sha256(layer));
        registry.answers(&path, answers);
        check(&registry, &digest, code, words).await;
        registry.asked().iter().filter(|asked| asked.starts_with(&path)).cloned().collect::<Vec<_>>()
    };
    let (good, bad) = (Answer::new(200, layer.clone()), Answer::new(200, flipped));
    assert_eq!(check(vec![bad.clone(), good], "", "").await.len(), 2);
    assert_eq!(check(vec![bad], "image-invalid", "instead, twice").await.len(), 2);
}

#[tokio::test]
async fn what_was_cut_is_gone_on_with() {
    let image = Image::of(vec![0; 8192]);
    let layer = image.layers[0].1.clone();
    let path = format!("blobs/{}", sha256(&layer));
    let good = Answer::new(200, layer.clone());
    let registry = Registry::start().await;
    let digest = registry.push(&image);
    let cut = |after| Answer { cut_after: Some(after), ..good.clone() };
    let asked = || {
        let asked = registry.asked();
        asked
            .into_iter()
            .filter_map(|asked| asked.strip_prefix(&path).map(ToOwned::to_owned))
            .collect::<Vec<_>>()
    };
    registry.answers(&path, [cut(5000), good.clone()]);
    check(&registry, &digest, "", "").await;
    assert_eq!(asked(), ["", " bytes=5000-"]);
    // Who gives some each time is asked as often as it lasts.
    registry.answers(&path, [cut(1500), cut(1500), cut(1500), cut(1500), cut(1500), good.clone()]);
    check(&registry, &digest, "", "").await;
    // Who gives nothing more is not.
    registry.answers(&path, [cut(5000), cut(0)]);
    check(&registry, &digest, "registry-unavailable", "").await;
    // Who is silent is cut off by us.
    registry.answers(&path, [Answer { silent_after: Some(3000), ..good.clone() }, good.clone()]);
    check(&registry, &digest, "", "").await;
    registry.answers(&path, [Answer { silent_after: Some(0), ..good.clone() }]);
    check(&registry, &digest, "registry-unavailable", "").await;
    // One that gives another part than was asked for.
    let part = Answer::new(206, layer[..100].to_vec()).with("Content-Range", "bytes 7-106/8192");
    registry.answers(&path, [cut(5000), part]);
    check(&registry, &digest, "registry-unavailable", "another part").await;
    // One that knows no parts begins again.
    registry.answers(
        &path,
        [cut(5000), Answer::new(206, layer.clone()).with("Content-Range", "bytes 0-8191/8192")],
    );
    check(&registry, &digest, "", "").await;
}

#[tokio::test]
async fn an_interrupted_pull_is_gone_on_with_by_the_next_of_that_image_alone() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start().await;
    let (image, other) = (Image::of(vec![0; 8192]), Image::default());
    let (digest, other_digest) = (registry.push(&image), registry.push(&other));
    let layer = image.layers[0].1.clone();
    let path = format!("blobs/{}", sha256(&layer));
    let good = Answer::new(200, layer.clone());
    registry.answers(&path, [Answer { cut_after: Some(5000), ..good.clone() }, Answer::new(503, "")]);
    let name = registry.image();
    let error = fetched(&name, &digest, dir.path()).await.unwrap_err();
    assert_eq!(error.reason().code, "registry-unavailable");
    let kept = dir.path().join(sha256(&layer).as_str().trim_start_matches("sha256:"));
    assert_eq!(std::fs::metadata(&kept).unwrap().len(), 5000);
    registry.answers(&path, [good]);
    let whole = fetched(&name, &digest, dir.path()).await.unwrap();
    assert!(registry.asked().last().unwrap().ends_with(" bytes=5000-"));
    // Another pull waits until this one has ended.
    let waiting = tokio::time::timeout(Duration::from_millis(300), fetched(&name, &other_digest, dir.path()));
    assert!(waiting.await.is_err());
    drop(whole);
    drop(fetched(&name, &other_digest, dir.path()).await.unwrap());
    assert!(!kept.exists(), "it is of another image");
}

#[tokio::test]
async fn a_size_that_is_no_truth_is_refused() {
    let registry = Registry::start().await;
    let image = Image::of(vec![0; 8192]);
    registry.push_blobs(&image);
    for (size, words) in
        [(10, "has 10 bytes, the registry has 8192"), (9000, "has 9000 bytes, the registry has 8192")]
    {
        let mut manifest = image.manifest();
        manifest["layers"][0]["size"] = size.into();
        check(&registry, &registry.push_manifest(&manifest), "image-invalid", words).await;
    }
    let gone = Image::of(vec![0; 512]);
    registry.answers(
        &format!("blobs/{}", sha256(gone.config.to_string().as_bytes())),
        [Answer::new(200, gone.config.to_string())],
    );
    let digest = registry.push_manifest(&gone.manifest());
    check(&registry, &digest, "image-unavailable", "its layer sha256:").await;
}

#[tokio::test]
async fn what_was_judged_is_served_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start().await;
    let image = Image::default();
    let digest = registry.push(&image);
    let (served, vault) = fetched(&registry.image(), &digest, dir.path()).await.unwrap();
    let (host, repository) =
        served.repository().split_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let http = Client::new(Endpoint::of(&registry.image()).unwrap(), impatient()).unwrap();
    let get = async |path: &str| {
        let url = reqwest::Url::parse(&format!("http://{host}/v2/{path}")).unwrap();
        let response = http.get(&url, &reqwest::header::HeaderMap::new()).await;
        match response {
            Ok(response) => {
                let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
                Some((kind, response.bytes().await.unwrap().to_vec()))
            }
            Err(_) => None,
        }
    };
    let manifest = image.manifest();
    let (config, layer) = (image.config.to_string().into_bytes(), &image.layers[0].1);
    let kind = manifest["mediaType"].as_str().unwrap().to_owned();
    let at = |kind: &str, digest: &Digest| format!("{repository}/{kind}/{digest}");
    assert_eq!(get(&at("manifests", &digest)).await.unwrap(), (kind, manifest.to_string().into_bytes()));
    assert_eq!(get(&at("blobs", &sha256(&config))).await.unwrap().1, config);
    assert_eq!(get(&at("blobs", &sha256(layer))).await.unwrap().1, *layer);
    let other = sha256(b"other");
    for path in [
        at("manifests", &other),
        at("blobs", &other),
        at("manifests", &sha256(layer)),
        format!("{repository}/blobs/lock"),
    ] {
        assert!(get(&path).await.is_none(), "{path}");
    }
    vault.clear();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "the lock alone");
}

#[tokio::test]
async fn an_anonymous_reader_gets_a_token_where_one_is_wanted() {
    let registry = Registry::start().await;
    let image = Image::default();
    let digest = registry.push(&image);
    let manifest = image.manifest().to_string();
    let path = format!("manifests/{digest}");
    let realm = format!("http://{}/token", registry.address);
    let wants = |realm: &str| {
        Answer::new(401, "").with("WWW-Authenticate", format!("Bearer realm=\"{realm}\",service=\"s\""))
    };
    registry.answers(&path, [wants(&realm), Answer::new(200, manifest)]);
    registry.answers("/token", [Answer::new(200, "{\"token\":\"secret\"}")]);
    check(&registry, &digest, "", "").await;
    let asked = registry.asked();
    assert_eq!(asked[0], path);
    assert_eq!(asked[1], "/token?service=s&scope=repository%3Aminer%2Fserver%3Apull");
    assert_eq!(asked[2], format!("{path} Bearer secret"));
    assert!(asked[3].ends_with(" Bearer secret"), "{asked:?}");

    // With a token as without.
    registry.answers(&path, [wants(&realm)]);
    check(&registry, &digest, "image-not-public", "").await;
    registry.answers("/token", [Answer::new(403, "")]);
    check(&registry, &digest, "image-not-public", "answers 403").await;
    registry.answers(&path, [wants(&format!("http://localhost:{}/token", registry.address.port()))]);
    check(&registry, &digest, "image-not-public", "answers 403").await;
    for token in ["", "{}", "{\"token\":\"\"}", "{\"token\":\"a\\nb\"}", "{\"token\":1}"] {
        registry.answers("/token", [Answer::new(200, token)]);
        check(&registry, &digest, "registry-unavailable", "no token").await;
    }
    registry.answers("/token", [Answer::new(200, vec![b'x'; 1 << 20])]);
    check(&registry, &digest, "image-invalid", "more than 65536 bytes").await;
    registry.answers("/token", [Answer::new(429, "")]);
    check(&registry, &digest, "registry-unavailable", "answers 429").await;
    registry.answers(&path, [wants("http://r.example/token")]);
    check(&registry, &digest, "image-unavailable", "no address with TLS").await;
}

#[tokio::test]
async fn a_registry_may_send_elsewhere_but_not_without_end() {
    let registry = Registry::start().await;
    let image = Image::default();
    let digest = registry.push(&image);
    let path = format!("manifests/{digest}");
    let moved = |to: &str| Answer::new(307, "").with("Location", to);
    registry.answers(&path, [moved("/there")]);
    registry.answers("/there", [Answer::new(200, image.manifest().to_string())]);
    check(&registry, &digest, "", "").await;
    registry.answers("/there", [moved("/there")]);
    check(&registry, &digest, "image-unavailable", "redirected too often").await;
    // Who is sent away elsewhere is not who the registry sends away.
    registry.answers(&path, [moved(&format!("http://localhost:{}/closed", registry.address.port()))]);
    registry.answers("/closed", [Answer::new(403, "")]);
    check(&registry, &digest, "registry-unavailable", "the host that it sends to answers 403").await;
    registry.answers(&path, [moved("http://r.example/x")]);
    check(&registry, &digest, "image-unavailable", "an address without TLS").await;
    registry.answers(&path, [moved("file:///etc/passwd")]);
    let error = judged(&registry, &digest).await.unwrap_err();
    assert!(error.to_string().len() < 600, "{error}");
}

#[test]
fn a_registry_may_ask_for_a_longer_pause_but_not_for_any() {
    let patience = Patience::default();
    let pause =
        |asked: Option<u64>| patience.pause(Duration::from_secs(4), asked.map(Duration::from_secs)).as_secs();
    assert_eq!([pause(None), pause(Some(1)), pause(Some(30)), pause(Some(u64::MAX))], [4, 4, 30, 60]);
}
