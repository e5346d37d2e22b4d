//! The workload: where the prompts of a round come from, and in which proportion.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Digest;

/// Most sources of a workload.
const MAX_SOURCES: usize = 16;
/// Largest weight of a source.
const MAX_WEIGHT: u32 = 1_000;
/// Most strata of a corpus.
const MAX_STRATA: usize = 16;
/// Most bytes of one text of a corpus.
pub const MAX_TEXT_BYTES: u32 = 64 << 10;

/// Where the prompts of a round come from: sources that are mixed by their weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Source>", into = "Vec<Source>")]
pub struct Workload(Vec<Source>);

/// One source of prompts, as pipelines write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Source {
    /// The toy grammar that the reference model speaks: public, for the demo.
    Grammar {
        /// Share of the prompts, relative to the other sources'.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        weight: u32,
    },
    /// Generated texts of several paragraphs, and a question or task about each.
    Passages {
        /// Share of the prompts, relative to the other sources'.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        weight: u32,
    },
    /// Generated requests to write, transform, extract, calculate or program.
    Instructions {
        /// Share of the prompts, relative to the other sources'.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        weight: u32,
    },
    /// Texts of a file of the operator's.
    Corpus(CorpusSource),
}

/// A file of texts, one a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorpusSource {
    /// The file on the controller, Parquet or JSON lines.
    pub path: PathBuf,
    /// Digest of the file: another one is refused.
    pub digest: Digest,
    /// The column, or key, that holds the text.
    #[serde(default = "prompt_column")]
    pub column: String,
    /// Upper bounds of the strata, in UTF-8 bytes of the text, ascending: each stratum is drawn equally often, and what is
    /// longer than the last bound not at all. None for one stratum of all texts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strata: Vec<u32>,
    /// Share of the prompts, relative to the other sources'.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_one(weight: &u32) -> bool {
    *weight == 1
}

fn prompt_column() -> String {
    "prompt".to_owned()
}

/// Why sources are no workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum InvalidWorkload {
    #[error("{0} sources, want 1 to {MAX_SOURCES}")]
    Count(usize),
    #[error("`weight` of `{name}` is {weight}, want 1 to {MAX_WEIGHT}")]
    Weight { name: String, weight: u32 },
    #[error("`{0}` stands twice: give it a larger `weight` instead")]
    Repeated(String),
    #[error(
        "`strata` of `{0}` are not ascending from at least 1 to at most {MAX_TEXT_BYTES}, {MAX_STRATA} of them at most"
    )]
    Strata(String),
    #[error("`column` of `{0}` is empty")]
    Column(String),
}

impl Source {
    /// Share of the prompts, relative to the other sources'.
    pub fn weight(&self) -> u32 {
        match self {
            Self::Grammar { weight } | Self::Passages { weight } | Self::Instructions { weight } => *weight,
            Self::Corpus(corpus) => corpus.weight,
        }
    }

    /// What tells the source from all others.
    fn identity(&self) -> String {
        match self {
            Self::Grammar { .. } => "grammar".to_owned(),
            Self::Passages { .. } => "passages".to_owned(),
            Self::Instructions { .. } => "instructions".to_owned(),
            Self::Corpus(corpus) => format!("corpus {}", corpus.digest),
        }
    }
}

impl Workload {
    /// The sources, as they were written.
    pub fn sources(&self) -> &[Source] {
        &self.0
    }

    /// The corpora among the sources.
    pub fn corpora(&self) -> impl Iterator<Item = &CorpusSource> {
        self.0.iter().filter_map(|source| match source {
            Source::Corpus(corpus) => Some(corpus),
            Source::Grammar { .. } | Source::Passages { .. } | Source::Instructions { .. } => None,
        })
    }

    /// Whether all prompts come from the toy grammar.
    pub fn is_grammar(&self) -> bool {
        self.0.iter().all(|source| matches!(source, Source::Grammar { .. }))
    }
}

impl Default for Workload {
    fn default() -> Self {
        Self(vec![Source::Grammar { weight: 1 }])
    }
}

impl TryFrom<Vec<Source>> for Workload {
    type Error = InvalidWorkload;

    fn try_from(sources: Vec<Source>) -> Result<Self, InvalidWorkload> {
        if !(1..=MAX_SOURCES).contains(&sources.len()) {
            return Err(InvalidWorkload::Count(sources.len()));
        }
        let mut known = BTreeSet::new();
        for source in &sources {
            let (name, weight) = (source.identity(), source.weight());
            if !(1..=MAX_WEIGHT).contains(&weight) {
                return Err(InvalidWorkload::Weight { name, weight });
            }
            if let Source::Corpus(CorpusSource { column, strata, .. }) = source {
                let is_ascending = strata.windows(2).all(|pair| pair[0] < pair[1]);
                let is_within = strata.iter().all(|bound| (1..=MAX_TEXT_BYTES).contains(bound));
                if !is_ascending || !is_within || strata.len() > MAX_STRATA {
                    return Err(InvalidWorkload::Strata(name));
                }
                if column.is_empty() {
                    return Err(InvalidWorkload::Column(name));
                }
            }
            if !known.insert(name.clone()) {
                return Err(InvalidWorkload::Repeated(name));
            }
        }
        Ok(Self(sources))
    }
}

impl From<Workload> for Vec<Source> {
    fn from(workload: Workload) -> Self {
        workload.0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(written: Value, expected: Result<Value, &str>) {
        let read = serde_json::from_value::<Workload>(written.clone());
        match (read, expected) {
            (Ok(workload), Ok(expected)) => {
                assert_eq!(serde_json::to_value(workload).expect("JSON"), expected);
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}, want {part}"),
            (read, expected) => panic!("{written}: {read:?}, want {expected:?}"),
        }
    }

    #[test]
    fn what_is_no_workload_is_named() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let corpus = |more: Value| {
            let mut all = json!({"source": "corpus", "path": "a", "digest": digest});
            for (key, value) in more.as_object().into_iter().flatten() {
                all[key] = value.clone();
            }
            json!([all])
        };
        check(json!([{"source": "grammar"}]), Ok(json!([{"source": "grammar"}])));
        check(json!([{"source": "passages", "weight": 2}]), Ok(json!([{"source": "passages", "weight": 2}])));
        let full =
            json!({"source": "corpus", "path": "a", "digest": digest, "column": "prompt", "strata": [1, 2]});
        check(corpus(json!({"strata": [1, 2], "weight": 1})), Ok(json!([full])));
        check(json!([]), Err("0 sources, want 1 to 16"));
        check(json!([{"source": "grammer"}]), Err("unknown variant `grammer`"));
        check(json!([{"source": "grammar", "size": 1}]), Err("unknown field `size`"));
        check(json!([{"source": "corpus", "path": "a"}]), Err("missing field `digest`"));
        check(corpus(json!({"colum": "x"})), Err("unknown field `colum`"));
        check(corpus(json!({"weight": 0})), Err("want 1 to 1000"));
        check(corpus(json!({"strata": [2, 2]})), Err("not ascending"));
        check(corpus(json!({"strata": [0]})), Err("not ascending"));
        check(corpus(json!({"strata": [70_000]})), Err("not ascending"));
        check(corpus(json!({"column": ""})), Err("is empty"));
        check(json!([{"source": "grammar"}, {"source": "grammar"}]), Err("`grammar` stands twice"));
        assert!(Workload::default().is_grammar());
    }
}
