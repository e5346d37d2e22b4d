//! Pulls from a real registry by a real daemon: what arrives, and whose fault it is where nothing does.

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
];

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Asserts that a pull fails, by whose fault and why, and that the daemon has nothing of it.
#[track_caller]
fn fails(bench: &Bench, name: &str, image: &Pushed, (code, words): (&str, &str)) {
    let error = bench.pull(image).expect_err(name);
    let reason = error.reason();
    let fault = if code == "registry-unavailable" { Fault::Infra } else { Fault::Submission };
    assert_eq!((reason.fault, reason.code.as_str()), (fault, code), "{name}: {error}");
    assert!(reason.message.contains(words), "{name}: {error}");
    assert!(!bench.has(image), "{name} is there");
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
    assert!(!bench.has(&image), "it is there");
    bench.pull(&image).expect("no bound");
    // That it is there already makes it no smaller.
    let error = bench.pull_within(&image, &few).expect_err("it is larger");
    assert_eq!(error.reason().code, "image-too-large", "{error}");
}
