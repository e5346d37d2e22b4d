//! Every image that a shipped pipeline or commitment names is there, readable, and has the digest that is named.

use std::path::{Path, PathBuf};

use cacheon::adapters::process::ProcessEngine;
use cacheon::pipeline::{Pipeline, Source};
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

/// The images that `check.yml` names by the defaults of its inputs, `<role>-image` and `<role>-digest`.
#[tokio::test]
async fn every_digest_that_an_input_names_is_that_of_its_manifest() {
    let text = std::fs::read_to_string(root().join("pipelines/check.yml")).expect("is shipped");
    let pipeline = Pipeline::parse(&Source::new("check.yml", &text)).expect("is valid").value;
    let default = |name: &str| {
        let input = pipeline.inputs.iter().find(|input| input.name == name).expect("an input");
        let default = input.default.as_ref().and_then(|value| value.as_str().map(str::to_owned));
        default.expect("a default that is text")
    };
    let engine = ProcessEngine::new(root().join("data/demo/images"), PathBuf::from("cacheon"));
    let mut count = 0;
    for role in pipeline.inputs.iter().filter_map(|input| input.name.strip_suffix("-image")) {
        count += 1;
        let image = default(&format!("{role}-image")).parse().expect("image");
        let digest = default(&format!("{role}-digest")).parse().expect("digest");
        let pulled = engine.pull(&image, &digest, &|_, _| ()).await;
        assert!(pulled.is_ok(), "{image} is not {digest}");
    }
    assert_eq!(count, 2, "baseline and scorer");
}

/// What is planned of a pipeline's jobs: names, needs, runners and steps.
fn planned_jobs(pipeline: &str) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cacheon"));
    let output = command.current_dir(root()).args(["plan", pipeline]).output().expect("starts");
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let jobs = text.find("\n  commitments (").expect("the first job");
    text[jobs..].to_owned()
}

/// The demo shows the round of the contest: the same jobs, in the same order, of the same steps.
#[test]
fn the_round_goes_as_the_demo_does() {
    let round = planned_jobs("pipelines/round.yml").replace("on h200x4", "on embedded");
    assert_eq!(round, planned_jobs("pipelines/demo.yml"));
}
