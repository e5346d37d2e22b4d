//! Every image that a shipped pipeline or commitment names is there, readable, and has the digest that is named.

use std::path::{Path, PathBuf};

use cacheon::adapters::process::ProcessEngine;
use cacheon::ports::ContainerEngine as _;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every image that a text names with a digest, and that digest.
fn pinned(text: &str) -> Vec<(String, String)> {
    let word = |rest: &str| {
        let rest = rest.trim_start().trim_start_matches('"');
        rest.split(|c: char| c.is_whitespace() || "\",}".contains(c)).next().unwrap_or_default().to_owned()
    };
    let mut found = Vec::new();
    for part in text.split("image:").skip(1) {
        let Some((_, digest)) = part.split_once("digest:") else { continue };
        if word(digest).starts_with("sha256:") {
            found.push((word(part), word(digest)));
        }
    }
    found
}

#[tokio::test]
async fn every_digest_is_that_of_its_manifest() {
    for (name, images) in [("demo", 11), ("real-cpu", 5)] {
        let folder = root().join("data").join(name);
        let engine = ProcessEngine::new(folder.join("images"), PathBuf::from("cacheon"));
        let mut count = 0;
        for file in [folder.join("commitments.yml"), root().join(format!("pipelines/{name}.yml"))] {
            let text = std::fs::read_to_string(&file).expect("is shipped");
            for (image, digest) in pinned(&text) {
                count += 1;
                let (image, digest) = (image.parse().expect("image"), digest.parse().expect("digest"));
                let pulled = engine.pull(&image, &digest, &|_, _| ()).await;
                assert!(pulled.is_ok(), "{}: {image} is not {digest}", file.display());
            }
        }
        assert_eq!(count, images, "images that {name} names with a digest");
    }
}
