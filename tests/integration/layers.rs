//! The import rule: a module imports only what stands below it, and each heavy crate has one home.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Rooms by layer. `reference` may use `measure::language`; nothing uses `reference` but the command line.
const LAYERS: &[(&str, u8)] = &[
    ("model", 0),
    ("stats", 1),
    ("pipeline", 1),
    ("schedule", 1),
    ("measure", 1),
    ("judge", 1),
    ("artifact", 1),
    ("report", 1),
    ("ports", 2),
    ("client", 2),
    ("adapters", 3),
    ("stages", 3),
    ("job", 4),
    ("round", 4),
    ("serve", 4),
    ("reference", 4),
    ("error", 5),
    ("cli", 6),
    ("lib", 7),
    ("main", 7),
];

/// Rooms of one layer that may still look at each other, and why they are no circle.
const SIBLINGS: &[(&str, &str)] = &[
    ("schedule", "pipeline"), // plans what a pipeline says
    ("schedule", "artifact"), // says what is to be journalled
    ("artifact", "pipeline"), // names stages, reads runners of older rounds
    ("judge", "stats"),       // decides by intervals
    ("measure", "stats"),     // metrics are quantiles
    ("report", "stats"),
    ("report", "artifact"), // tables by name
    ("stages", "adapters"),
    ("round", "job"),
    ("round", "error"), // an error of the round is what the program ends with
];

/// A heavy crate, the place that may name it.
const HOMES: &[(&str, &[&str])] = &[
    ("serde_yaml", &["pipeline/yaml.rs"]),
    ("annotate_snippets", &["pipeline/diagnostic.rs"]),
    ("polars", &["adapters/query.rs"]),
    ("polars_lazy", &["adapters/query.rs"]),
    ("parquet", &["artifact/"]),
    ("arrow_array", &["artifact/"]),
    ("arrow_schema", &["artifact/"]),
    ("bollard", &["adapters/docker.rs"]),
    ("subxt", &["adapters/subtensor.rs"]),
    ("tokenizers", &["measure/tokenizer.rs", "reference/"]),
    ("candle_core", &["reference/"]),
    ("candle_nn", &["reference/"]),
    ("axum", &["reference/", "serve/"]),
    ("hyper", &["client/"]),
    ("indicatif", &["cli/watch.rs"]),
    ("comfy_table", &["report/"]),
    ("tokio::spawn(", &["round.rs", "job.rs", "serve/"]),
    ("super::super::", &[]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("source folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The file without comments and without what stands behind `#[cfg(test)]`.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("source");
    let is_test = |name: &str| path.file_stem().is_some_and(|stem| stem == name);
    if is_test("tests") || is_test("vectors") {
        return String::new();
    }
    let body = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    body.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn room(relative: &Path) -> String {
    let first = relative.components().next().expect("a component").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn a_room_imports_only_what_stands_below_it_and_heavy_crates_stay_at_home() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let layers: BTreeMap<&str, u8> = LAYERS.iter().copied().collect();
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 50, "the sources were found");
    let mut broken = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&root).expect("below src");
        let name = relative.to_string_lossy().into_owned();
        let own = room(relative);
        let text = code(&file);
        let own_layer =
            *layers.get(own.as_str()).unwrap_or_else(|| panic!("`{name}` is in no layer: add it here"));
        for part in text.split("crate::").skip(1) {
            let target: String =
                part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            let Some(layer) = layers.get(target.as_str()) else { continue };
            let is_allowed = target == own
                || (*layer < own_layer && target != "reference")
                || SIBLINGS.contains(&(own.as_str(), target.as_str()))
                || (own == "cli" && target == "reference")
                || (own == "error" && target == "reference");
            if !is_allowed {
                broken.push(format!("{name}: `{own}` imports `{target}`"));
            }
        }
        for (word, homes) in HOMES {
            let is_named = text.match_indices(word).any(|(at, _)| {
                let before = text[..at].chars().next_back().unwrap_or(' ');
                let after = text[at + word.len()..].chars().next().unwrap_or(' ');
                let is_path = word.ends_with(['(', ':']) || text[at + word.len()..].starts_with("::");
                !before.is_ascii_alphanumeric() && before != '_' && is_path && after != '_'
            });
            if is_named && !homes.iter().any(|home| name.starts_with(home)) {
                broken.push(format!("{name}: names `{word}`, whose home is {homes:?}"));
            }
        }
    }
    broken.sort();
    broken.dedup();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
