//! Pulls from a real registry by a real daemon: what arrives, and whose fault it is where nothing does.

use std::io::Write as _;

use cacheon::artifact::digest::sha256;
use cacheon::model::Fault;
use cacheon::pipeline::runner::Limits;
use serde_json::{Value, json};

use super::bench::{Bench, Test};
use super::image::{Pushed, Registry, architecture};

pub(crate) const TESTS: &[Test] = &[
    ("pulls::the_same_content_is_the_same_under_another_name", content),
    ("pulls::what_cannot_be_had_says_whose_fault_it_is", absent),
    ("pulls::what_is_no_image_for_this_machine_is_not_pulled", platforms),
    ("pulls::no_more_is_pulled_than_the_runner_allows", sizes),
    ("pulls::so_many_images_stay_as_the_runner_says", staying),
    ("pulls::a_layer_is_pulled_however_it_is_packed", packings),
    ("pulls::a_layer_that_cannot_be_unpacked_is_the_submissions_fault", unpackable),
];

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Asserts that a pull fails, by whose fault and why, and that the daemon has no image more.
#[track_caller]
fn fails(bench: &Bench, name: &str, image: &Pushed, (code, words): (&str, &str)) {
    let before = bench.images();
    let error = bench.pull(image).expect_err(name);
    let reason = error.reason();
    let fault = if code == "registry-unavailable" { Fault::Infra } else { Fault::Submission };
    assert_eq!((reason.fault, reason.code.as_str()), (fault, code), "{name}: {error}");
    assert!(reason.message.contains(words), "{name}: {error}");
    assert_eq!(bench.images(), before, "{name}");
}

fn content(bench: &'static Bench) {
    let there = bench.image("pulled", &["/bin/opponent", "sleep"]);
    let content = bench.pull(&there).expect("the control is pulled");
    assert_eq!(bench.pull(&there).expect("again"), content);
    // The same under another name is the same content.
    let again = bench.configured(
        "pulled-again",
        &json!({"Entrypoint": ["/bin/opponent", "sleep"], "Env": ["IMAGE=pulled"], "Labels": {"by": "another"}}),
    );
    assert_ne!(again.digest, there.digest);
    assert_eq!(bench.pull(&again).expect("pulled"), content);
}

fn absent(bench: &'static Bench) {
    let there = bench.image("pulled", &["/bin/opponent", "sleep"]);
    let at = |image: &str| Pushed { image: image.parse().expect("an image"), ..there.clone() };
    let gone = Pushed { digest: sha256(b"another"), ..there.clone() };
    let nothing = Pushed { image: bench.registry.named("nothing"), ..there.clone() };
    let nobody = Pushed { image: Registry::new("127.0.0.1:9".to_owned()).named("pulled"), ..there.clone() };
    let unavailable = ("image-unavailable", "answers 404 Not Found");
    fails(bench, "no such digest", &gone, unavailable);
    fails(bench, "no such repository", &nothing, unavailable);
    fails(bench, "no registry", &nobody, ("registry-unavailable", "Connection refused"));
    // There is no resolver where the daemon is: whether there is such a host nobody can say.
    fails(bench, "no resolver", &at("registry.invalid/pulled"), ("registry-unavailable", "registry.invalid"));
    fails(bench, "no address", &at("127.1/pulled"), ("image-unavailable", "no address of a registry"));
    let mislabelled = bench.mislabelled("mislabelled", &sha256(b"another layer"));
    fails(bench, "other layers than it says", &mislabelled, ("image-invalid", ""));
}

fn platforms(bench: &'static Bench) {
    let rootfs = json!({"type": "layers", "diff_ids": [bench.layer.digest()]});
    let config = |os: &str, architecture: &str, working_dir: &str| {
        let config = json!({"Entrypoint": ["/bin/opponent", "sleep"], "WorkingDir": working_dir});
        json!({"os": os, "architecture": architecture, "config": config, "rootfs": rootfs})
    };
    let own = architecture();
    let manifest = |name: &str, config: &Value| {
        bench.runtime.block_on(bench.registry.manifest(name, &bench.layer, config))
    };
    let push =
        |name: &str, manifest: &Value| bench.runtime.block_on(bench.registry.push_manifest(name, manifest));
    let foreign = manifest("platforms", &config("linux", "s390x", ""));
    let pushed = push("platforms", &foreign);
    fails(bench, "another processor", &pushed, ("image-invalid", "it is for linux/s390x"));
    let windows = manifest("platforms", &config("windows", own, ""));
    fails(bench, "another system", &push("platforms", &windows), ("image-invalid", "it is for windows/"));
    let nowhere = manifest("platforms", &config("linux", own, "app"));
    fails(bench, "a broken folder", &push("platforms", &nowhere), ("image-invalid", "`WORKDIR app`"));

    let entry = |manifest: &Value, os: &str, architecture: &str| {
        let text = manifest.to_string();
        let platform = json!({"os": os, "architecture": architecture});
        json!({"mediaType": OCI_MANIFEST, "digest": sha256(text.as_bytes()), "size": text.len(), "platform": platform})
    };
    let index = |entries: Value| json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries});
    let attestation = entry(&foreign, "unknown", "unknown");
    let without = push("platforms", &index(json!([entry(&foreign, "linux", "s390x"), attestation])));
    fails(bench, "an index without us", &without, ("image-invalid", "images for linux/s390x, and none for"));
    // An index with an attestation is the image of this platform; and so it has the content of that.
    let good = manifest("platforms", &config("linux", own, ""));
    let single = push("platforms", &good);
    let both = push(
        "platforms",
        &index(json!([entry(&foreign, "linux", "s390x"), attestation, entry(&good, "linux", own)])),
    );
    let content = bench.pull(&both).expect("the image of this platform");
    assert_eq!(bench.pull(&single).expect("the same"), content);
    // Which image it means is not for us to guess.
    let twice = push("platforms", &index(json!([entry(&good, "linux", own), entry(&good, "linux", own)])));
    fails(bench, "two for this machine", &twice, ("image-invalid", "has 2 images"));
}

fn sizes(bench: &'static Bench) {
    let image = bench.image("large", &["/bin/opponent", "sleep"]);
    let few = Limits { image_mib: Some(1), ..Limits::default() };
    let error = bench.pull_within(&image, &few).expect_err("it is larger");
    assert_eq!(error.reason().code, "image-too-large", "{error}");
    assert!(!bench.images().contains(image.digest.as_str()), "it is there");
    bench.pull(&image).expect("no bound");
    // That it is there already makes it no smaller.
    let error = bench.pull_within(&image, &few).expect_err("it is larger");
    assert_eq!(error.reason().code, "image-too-large", "{error}");
}

const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("gzip");
    encoder.finish().expect("gzip")
}

/// An archive of one file.
fn archive(path: &str, content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, path, content).expect("a file");
    tar.into_inner().expect("a tar")
}

/// Pushes an image of one layer, packed so.
fn packed(bench: &Bench, name: &str, (kind, bytes): (&'static str, Vec<u8>), content: &[u8]) -> Pushed {
    let layer = bench.runtime.block_on(bench.registry.push_packed(kind, bytes));
    let config = json!({"Entrypoint": ["/serve"], "Env": [format!("IMAGE={name}")]});
    bench.runtime.block_on(bench.registry.push_image(name, (&layer, &sha256(content)), &config))
}

fn packings(bench: &'static Bench) {
    let tar = archive("a-file", &vec![7; 1 << 20]);
    let (start, end) = tar.split_at(5000);
    let pieces = [gzip(start), gzip(end)].concat();
    for (name, kind, bytes) in
        [("gzip", GZIP, gzip(&tar)), ("gzip-pieces", GZIP, pieces), ("gzip-called-plain", PLAIN, gzip(&tar))]
    {
        let image = packed(bench, name, (kind, bytes), &tar);
        bench.pull(&image).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(bench.images().contains(image.digest.as_str()), "{name}");
    }
    let zstd = packed(bench, "zstd", (ZSTD, zstd::encode_all(tar.as_slice(), 1).expect("zstd")), &tar);
    // Not every daemon unpacks it, and that is nothing of the image's.
    if let Err(error) = bench.pull(&zstd) {
        assert_eq!(error.reason().code, "container-engine", "{error}");
        assert!(error.to_string().contains("packed by zstd"), "{error}");
    }
    // 300 MiB of nothing are 1.3 MB.
    let bomb = archive("zeros", &vec![0; 300 << 20]);
    let bomb = packed(bench, "bomb", (GZIP, gzip(&bomb)), &bomb);
    let few = Limits { image_mib: Some(64), ..Limits::default() };
    let error = bench.pull_within(&bomb, &few).expect_err("it grows");
    assert_eq!(error.reason().code, "image-too-large", "{error}");
    assert!(!bench.images().contains(bomb.digest.as_str()), "it is there");
}

fn unpackable(bench: &'static Bench) {
    let link = {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Link);
        header.set_size(0);
        tar.append_link(&mut header, "here", "nowhere").expect("a link");
        tar.into_inner().expect("a tar")
    };
    let image = packed(bench, "no-target", (PLAIN, link.clone()), &link);
    fails(bench, "a link to nothing", &image, ("image-invalid", "no such file"));
    let text = b"no archive".to_vec();
    let image = packed(bench, "no-archive", (PLAIN, text.clone()), &text);
    fails(bench, "no archive", &image, ("image-invalid", "it cannot be unpacked"));
    let good = archive("a-file", b"text");
    let cut = gzip(&good)[..40].to_vec();
    let image = packed(bench, "cut", (GZIP, cut), &good);
    fails(bench, "half a layer", &image, ("image-invalid", "it cannot be unpacked"));
}

fn staying(bench: &'static Bench) {
    let image = |name: &str| bench.image(name, &["/bin/opponent", "sleep"]);
    let [used, older, newer, last] = ["stay-used", "stay-older", "stay-newer", "stay-last"].map(image);
    let few = |most| Limits { kept_images: Some(most), ..Limits::default() };
    let is_there = |image: &Pushed| bench.images().contains(image.digest.as_str());
    let mut running = bench.launch(&used, Limits::default()).expect("starts");
    for image in [&newer, &older] {
        bench.pull(image).expect("is pulled");
    }
    // What is asked for again is newer than what was pulled after it.
    bench.pull(&newer).expect("is there");
    bench.pull_within(&last, &few(2)).expect("is pulled");
    assert_eq!([&used, &older, &newer, &last].map(is_there), [true, false, true, true], "{}", bench.images());
    // One that a server runs from stays, and goes later.
    let more = image("stay-more");
    bench.pull_within(&more, &few(0)).expect("is pulled");
    assert_eq!([&used, &newer, &last, &more].map(is_there), [true, false, false, true], "{}", bench.images());
    running.stop(std::time::Duration::from_secs(1));
    bench.pull_within(&last, &few(0)).expect("is pulled");
    assert_eq!([&used, &more, &last].map(is_there), [false, false, true], "{}", bench.images());
}
