//! The import rule: a module imports only what stands below it, no files of a room import each other in a circle,
//! each heavy crate has one home, and the pure layers read no clock.

mod paths;

use std::collections::{BTreeMap, BTreeSet};

use paths::{Full, Names, Path, module_of};

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
    ("audit", 5),
    ("ticks", 5),
    ("error", 5),
    ("cli", 6),
    ("lib", 7),
    ("main", 7),
];

/// Rooms of one layer that may still look at each other, and why they are no circle.
const SIBLINGS: &[(&str, &str)] = &[
    ("schedule", "pipeline"), // plans what a pipeline says
    ("schedule", "artifact"), // says what is to be journalled
    ("pipeline", "judge"),    // types the policies under `with:`
    ("artifact", "pipeline"), // names stages, reads runners of older rounds
    ("judge", "stats"),       // decides by intervals
    ("measure", "stats"),     // metrics are quantiles
    ("report", "stats"),
    ("report", "artifact"), // tables by name
    ("client", "ports"),    // connects by what the port gives
    ("stages", "adapters"),
    ("ticks", "error"), // what could not be looked at is what the program ends with
    ("audit", "error"), // what could not be checked is what the program ends with
    ("round", "error"), // an error of the round is what the program ends with
];

/// A path, and the files or folders that may name it.
const HOMES: &[(&str, &[&str])] = &[
    ("serde_yaml", &["pipeline/yaml.rs"]),
    ("annotate_snippets", &["pipeline/diagnostic.rs"]),
    ("polars", &["adapters/query/"]),
    ("parquet", &["artifact/"]),
    ("arrow_array", &["artifact/"]),
    ("arrow_schema", &["artifact/"]),
    ("bollard", &["adapters/docker.rs", "adapters/docker/"]),
    ("subxt", &["adapters/subtensor.rs"]),
    ("tokenizers", &["measure/tokenizer.rs", "reference/"]),
    ("candle_core", &["reference/"]),
    ("candle_nn", &["reference/"]),
    ("axum", &["reference/", "serve/", "adapters/registry/serve.rs"]),
    ("hyper", &["client/"]),
    ("reqwest", &["adapters/registry/"]),
    ("rustls", &["adapters/registry/client.rs"]),
    ("rustls_native_certs", &["adapters/registry/client.rs"]),
    ("tar", &["adapters/store/archive/entry.rs", "adapters/registry/layer.rs"]),
    ("zstd", &["adapters/store/archive/frame.rs", "adapters/registry/layer.rs"]),
    ("flate2", &["adapters/registry/layer.rs"]),
    ("nvml_wrapper", &["adapters/machine/nvml.rs"]),
    ("sd_notify", &["cli/schedule/metrics.rs"]),
    ("indicatif", &["cli/watch.rs", "cli/carry.rs"]),
    ("comfy_table", &["report/"]),
    ("shlex", &["cli/check/command.rs"]),
    ("tokio::spawn", &["round.rs", "job.rs", "serve/"]),
    ("tokio::task::spawn", &["round.rs", "job.rs", "serve/"]),
    ("super::super", &[]),
];

/// Paths that read a clock: not in the pure layers, where time is an argument.
const CLOCKS: &[&str] = &[
    "jiff::Timestamp::now",
    "jiff::Zoned::now",
    "std::time::Instant::now",
    "std::time::SystemTime::now",
    "tokio::time::Instant::now",
];

/// What breaks the rule in these files, each a path below `src` and its text.
fn broken(files: &[(String, String)]) -> Vec<String> {
    let layers: BTreeMap<&str, u8> = LAYERS.iter().copied().collect();
    let read: Vec<(&str, Path, Names)> = files
        .iter()
        .map(|(file, text)| {
            let module = module_of(file);
            (file.as_str(), module.clone(), Names::read(text, &module))
        })
        .collect();
    let tests: Vec<Path> = read.iter().flat_map(|(_, _, names)| names.test_modules.clone()).collect();
    let is_test = |module: &Path| tests.iter().any(|test| module.starts_with(test));
    let read: Vec<_> = read.into_iter().filter(|(_, module, _)| !is_test(module)).collect();
    let modules: BTreeSet<Path> = read.iter().map(|(_, module, _)| module.clone()).collect();
    let reexports: BTreeMap<&Path, _> =
        read.iter().map(|(_, module, names)| (module, names.brought_in(&modules))).collect();
    let mut broken = BTreeSet::new();
    let mut edges: BTreeMap<&Path, BTreeSet<Path>> = BTreeMap::new();
    for (file, module, names) in &read {
        let own = file.split('/').next().unwrap_or_default().trim_end_matches(".rs");
        let Some(own_layer) = layers.get(own) else {
            broken.insert(format!("{file}: `{own}` is in no layer: add it here"));
            continue;
        };
        for named in names.paths(&modules) {
            let written = named.written.join("::");
            if let Full::Here(path) = &named.full {
                let target = path.first().map_or("", String::as_str);
                let is_allowed = layers.get(target).is_none_or(|layer| {
                    target == own
                        || (layer < own_layer && target != "reference")
                        || SIBLINGS.contains(&(own, target))
                        || (["cli", "error"].contains(&own) && target == "reference")
                });
                if !is_allowed {
                    broken.insert(format!("{file}: `{own}` imports `{target}`"));
                }
                let used = file_of(path, &modules, &reexports);
                if used.first() == module.first() && !used.starts_with(module) && !module.starts_with(&used) {
                    edges.entry(module).or_default().insert(used);
                }
            }
            let full = match &named.full {
                Full::Here(_) => &written,
                Full::Elsewhere(path) => &path.join("::"),
            };
            for (word, homes) in HOMES {
                let is_named = [&written, full].iter().any(|path| {
                    path.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
                });
                if is_named && !homes.iter().any(|home| file.starts_with(home)) {
                    broken.insert(format!("{file}: names `{word}`, whose home is {homes:?}"));
                }
            }
            if *own_layer <= 1 && CLOCKS.contains(&full.as_str()) {
                broken.insert(format!("{file}: reads a clock, `{full}`"));
            }
        }
    }
    broken.extend(circles(&edges));
    broken.into_iter().collect()
}

/// The module whose file defines what a path names, through the `pub use` of the modules it passes.
fn file_of(
    path: &[String],
    modules: &BTreeSet<Path>,
    reexports: &BTreeMap<&Path, BTreeMap<String, Full>>,
) -> Path {
    let mut path = path.to_vec();
    // Bounded, so that two modules which name each other's names end it.
    for _ in 0..8 {
        let module =
            (0..=path.len()).rev().map(|end| path[..end].to_vec()).find(|part| modules.contains(part));
        let module = module.unwrap_or_default();
        let next = path.get(module.len()).and_then(|name| reexports.get(&module)?.get(name));
        match next {
            Some(Full::Here(start)) => path = [start, &path[module.len() + 1..]].concat(),
            _ => return module,
        }
    }
    Path::new()
}

/// Each circle of files of one room, from the first of its files in order. A module and the modules within it
/// are one family: they may name each other.
fn circles(edges: &BTreeMap<&Path, BTreeSet<Path>>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for start in edges.keys() {
        let mut trails = vec![vec![(*start).clone()]];
        let mut seen = BTreeSet::new();
        while let Some(trail) = trails.pop() {
            for next in trail.last().and_then(|last| edges.get(last)).into_iter().flatten() {
                let mut longer = trail.clone();
                longer.push(next.clone());
                if next == *start {
                    if longer.iter().min() == Some(*start) {
                        let names: Vec<String> = longer.iter().map(|module| module.join("/")).collect();
                        found.insert(format!("a circle: {}", names.join(" -> ")));
                    }
                } else if seen.insert(next.clone()) {
                    trails.push(longer);
                }
            }
        }
    }
    found
}

fn sources(root: &std::path::Path, folder: &std::path::Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).expect("source folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            sources(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).expect("below src").to_string_lossy().into_owned();
            found.push((name, std::fs::read_to_string(path).expect("source")));
        }
    }
}

#[test]
fn a_room_imports_only_what_stands_below_it_and_heavy_crates_stay_at_home() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &root, &mut files);
    assert!(files.len() > 50, "the sources were found");
    let broken = broken(&files);
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn each_way_around_the_rule_is_seen() {
    let check = |files: &[(&str, &str)], expected: &[&str]| {
        let files: Vec<(String, String)> =
            files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect();
        assert_eq!(broken(&files), expected, "{files:?}");
    };
    let round = &["model/a.rs: `model` imports `round`"];
    check(&[("model/a.rs", "use crate::round::Control;")], round);
    check(&[("model/a.rs", "use crate::{model::Seed, round::{self, Control}};")], round);
    check(&[("model/a.rs", "fn f() -> Vec<crate::round::Control> {}")], round);
    check(&[("model/a.rs", "fn f(x: u8) { x as crate::round::Count }")], round);
    check(
        &[("model/a.rs", "mod b { use super::super::super::round::X; }")],
        &["model/a.rs: `model` imports `round`", "model/a.rs: names `super::super`, whose home is []"],
    );
    check(&[("model/mod.rs", "use super::round::Control;")], &["model/mod.rs: `model` imports `round`"]);
    check(&[("model.rs", "use super::{round as r};")], &["model.rs: `model` imports `round`"]);
    check(&[("model/tests.rs", "use crate::round::X;")], &["model/tests.rs: `model` imports `round`"]);
    check(&[("model/vectors.rs", "use crate::round::X;")], &["model/vectors.rs: `model` imports `round`"]);
    check(&[("model/a.rs", "#[cfg(test)]\nmod tests { fn f() { '{' } }\nuse crate::round::X;")], round);
    check(&[("attic/a.rs", "")], &["attic/a.rs: `attic` is in no layer: add it here"]);

    check(
        &[("model/a.rs", "// crate::round::X\n/* crate::round::X */ const A: &str = \"crate::round::X\";")],
        &[],
    );
    check(
        &[("model/a.rs", "#[cfg(test)]\n#[rustfmt::skip]\npub(crate) mod tests { use crate::round::X; }")],
        &[],
    );
    check(
        &[("model/mod.rs", "#[cfg(test)] mod tests;"), ("model/tests/more.rs", "use crate::round::X;")],
        &[],
    );
    check(&[("round.rs", "use crate::job::InProcess;")], &["round.rs: `round` imports `job`"]);
    check(
        &[("round.rs", "use crate::{schedule::Scheduler, model::{Seed, Fault}}; use super::error::Error;")],
        &[],
    );

    check(
        &[("stats/a.rs", "fn f() { jiff::Timestamp::now() }")],
        &["stats/a.rs: reads a clock, `jiff::Timestamp::now`"],
    );
    check(
        &[("stats/a.rs", "use jiff::{Span, Zoned as Z}; fn f() { let now = Z::now; }")],
        &["stats/a.rs: reads a clock, `jiff::Zoned::now`"],
    );
    check(&[("stages/a.rs", "fn f() { jiff::Timestamp::now() }")], &[]);

    let polars = &["report/a.rs: names `polars`, whose home is [\"adapters/query/\"]"];
    check(&[("report/a.rs", "use polars as p;")], polars);
    check(&[("report/a.rs", "use {std::fs, ::polars::prelude::*};")], polars);
    check(&[("report/a.rs", "fn f(frame: polars::Frame, polars_like: u8) {}")], polars);
    check(
        &[("stages/a.rs", "use tokio::{fs, task}; fn f() { task::spawn(async {}) }")],
        &["stages/a.rs: names `tokio::task::spawn`, whose home is [\"round.rs\", \"job.rs\", \"serve/\"]"],
    );

    let circle = &["a circle: judge/a -> judge/b -> judge/a"];
    check(&[("judge/a.rs", "use super::b::X;"), ("judge/b.rs", "use crate::judge::a::Y;")], circle);
    check(
        &[
            ("judge/mod.rs", "mod a; pub mod b; pub use b::{X as Z};"),
            ("judge/a.rs", "use super::Z;"),
            ("judge/b.rs", "use super::a;"),
        ],
        circle,
    );
    check(
        &[
            ("judge/b/c.rs", "use super::d::X;"),
            ("judge/b/d.rs", "use crate::judge::e::Y;"),
            ("judge/e.rs", "use super::b::c;"),
        ],
        &["a circle: judge/b/c -> judge/b/d -> judge/e -> judge/b/c"],
    );
    check(
        &[("judge/b/mod.rs", "mod c; pub use c::X; pub struct Y;"), ("judge/b/c.rs", "use super::Y;")],
        &[],
    );
}
