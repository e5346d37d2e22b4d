//! Drawing the prompts of a bracket, or of a warm-up, from a workload.
//!
//! Which source a prompt comes from is dealt from a deck, so that sources stand in exact proportion in an order nobody
//! knows. The rows of a corpus are put into one order for the whole round; each bracket takes the next ones of each
//! stratum, so no row is asked in two brackets, and where there are too few it is an error and never a repeat. The last
//! tenth of each stratum is for warm-ups, which draw from it anew for every launch.
//!
//! A draw is one of numbers of rows first ([`Drawn`]): who has the file brings the texts.

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::ChaCha12Rng;

use super::deck::Deck;
use super::index::CorpusIndex;
use super::{Prompt, natural};
use crate::measure::language;
use crate::model::{Digest, Seed, Source, Workload};

/// What is drawn, for whom.
#[derive(Debug, Clone)]
pub struct Draw<'a> {
    /// The sources.
    pub workload: &'a Workload,
    /// The seed of the round, which puts the rows of a corpus in order.
    pub round: &'a Seed,
    /// The seed of this draw, for all the rest.
    pub own: Seed,
    /// The rows of a corpus that are for this draw.
    pub share: Share,
}

/// The rows of a corpus that are for one draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Those of a bracket.
    Bracket {
        /// Number of the bracket, from 0.
        number: u32,
        /// Prompts of each bracket of the round.
        prompts: u32,
    },
    /// Those of warm-ups, drawn again for each.
    WarmUp,
}

/// Why nothing can be drawn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DrawError {
    /// A corpus has too few different texts.
    #[error(
        "the corpus `{corpus}` has {found} different texts{stratum}, and {needed} are needed for {brackets} brackets of {prompts} prompts and the warm-up"
    )]
    TooFew {
        /// Digest of the corpus.
        corpus: Digest,
        /// The stratum in words, or nothing.
        stratum: String,
        /// Different texts that there are.
        found: u64,
        /// Texts that are needed up to this bracket.
        needed: u64,
        /// Brackets up to this one.
        brackets: u32,
        /// Prompts of each bracket.
        prompts: u32,
    },
    /// A stratum of a corpus has no text.
    #[error("the corpus `{corpus}` has {found} different texts{stratum}, and a warm-up needs one")]
    Empty {
        /// Digest of the corpus.
        corpus: Digest,
        /// The stratum in words, or nothing.
        stratum: String,
        /// Different texts that there are.
        found: u64,
    },
    /// The corpus was not read.
    #[error("the corpus `{0}` is not there")]
    Unread(Digest),
}

/// One drawn prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Text(String),
    Row { corpus: usize, row: u32, salt: String },
}

/// What was drawn: texts, and rows of corpora whose texts are to be brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    corpora: Vec<Digest>,
    items: Vec<Item>,
}

impl Drawn {
    /// The rows of a corpus that are to be brought.
    pub fn rows(&self, corpus: &Digest) -> BTreeSet<u32> {
        let rows = self.items.iter().filter_map(|item| match item {
            Item::Row { corpus: at, row, .. } if self.corpora.get(*at) == Some(corpus) => Some(*row),
            Item::Row { .. } | Item::Text(_) => None,
        });
        rows.collect()
    }

    /// The prompts, with the texts of the rows by corpus and row.
    ///
    /// # Errors
    /// Where a text was not brought.
    pub fn prompts(self, texts: &BTreeMap<(Digest, u32), String>) -> Result<Vec<Prompt>, DrawError> {
        let Self { corpora, items } = self;
        let text = |item: Item| match item {
            Item::Text(text) => Ok(text),
            Item::Row { corpus, row, salt } => match texts.get(&(corpora[corpus].clone(), row)) {
                Some(text) => Ok(format!("{salt}{text}")),
                None => Err(DrawError::Unread(corpora[corpus].clone())),
            },
        };
        (0..).zip(items).map(|(index, item)| Ok(Prompt::new(index, text(item)?))).collect()
    }
}

impl Draw<'_> {
    /// Draws the first `count` prompts, all different. A longer draw begins with the shorter one.
    ///
    /// Ends early only where the grammar has too few sentences: after 1,000 repeats in a row.
    ///
    /// # Errors
    /// Where a corpus is not among `indexes` or has too few texts.
    pub fn draw(&self, count: u32, indexes: &BTreeMap<Digest, CorpusIndex>) -> Result<Drawn, DrawError> {
        let sources = self.workload.sources();
        let weights: Vec<u32> = sources.iter().map(Source::weight).collect();
        let mut deck = Deck::new(self.own.derive(&["workload", "mix"]), &weights);
        let mut corpora = Vec::new();
        let mut streams = Vec::new();
        for (number, source) in sources.iter().enumerate() {
            streams.push(match source {
                Source::Grammar { .. } => Stream::Grammar {
                    generator: self.own.derive(&["workload", "prompts"]).generator(),
                    known: BTreeSet::new(),
                },
                Source::Passages { .. } => Stream::Natural {
                    generator: self.own.derive(&["workload", "passages"]).generator(),
                    write: natural::passage,
                },
                Source::Instructions { .. } => Stream::Natural {
                    generator: self.own.derive(&["workload", "instructions"]).generator(),
                    write: natural::instruction,
                },
                Source::Corpus(corpus) => {
                    let digest = &corpus.digest;
                    let index = indexes.get(digest).ok_or_else(|| DrawError::Unread(digest.clone()))?;
                    let prompts = match self.share {
                        Share::Bracket { prompts, .. } => prompts,
                        Share::WarmUp => count,
                    };
                    let most = deck.most(number, u64::from(prompts));
                    corpora.push(digest.clone());
                    let at = corpora.len() - 1;
                    Stream::Corpus(Box::new(Rows::new(self, (at, digest), (index, most))?))
                }
            });
        }
        let mut items = Vec::new();
        for _ in 0..count {
            let Some(item) = streams.get_mut(deck.deal()).and_then(Stream::next) else { break };
            items.push(item);
        }
        Ok(Drawn { corpora, items })
    }
}

/// A source from which prompts are drawn one by one.
enum Stream {
    Grammar { generator: ChaCha12Rng, known: BTreeSet<String> },
    Natural { generator: ChaCha12Rng, write: fn(&mut ChaCha12Rng) -> String },
    Corpus(Box<Rows>),
}

impl Stream {
    fn next(&mut self) -> Option<Item> {
        match self {
            Self::Grammar { generator, known } => {
                let mut fresh = (0..1000).map(|_| language::prompt(generator));
                fresh.find(|text| known.insert(text.clone())).map(Item::Text)
            }
            Self::Natural { generator, write } => {
                let salt = natural::salt(generator);
                let text = write(generator);
                Some(Item::Text(format!("{salt}{text}")))
            }
            Self::Corpus(rows) => rows.next(),
        }
    }
}

/// The rows of a corpus that are for one draw, by stratum, in their order.
struct Rows {
    corpus: usize,
    deck: Deck,
    strata: Vec<Vec<u32>>,
    taken: Vec<usize>,
    salts: ChaCha12Rng,
}

/// How many of so many rows are for brackets; the others are for warm-ups.
fn for_brackets(rows: u64) -> u64 {
    rows - (rows / 10).max(1).min(rows)
}

impl Rows {
    fn new(
        draw: &Draw<'_>,
        (corpus, digest): (usize, &Digest),
        (index, most): (&CorpusIndex, u64),
    ) -> Result<Self, DrawError> {
        let count = index.strata().len();
        let own = draw.own.derive(&["workload", "corpus", digest.as_str()]);
        let deck = Deck::new(own.derive(&["strata"]), &vec![1; count]);
        let each = most.div_ceil(count.max(1) as u64);
        let mut strata = Vec::new();
        for (stratum, rows) in index.strata().iter().enumerate() {
            let name = stratum.to_string();
            let mut rows = rows.clone();
            draw.round.derive(&["workload", "corpus", digest.as_str(), &name]).shuffle(&mut rows);
            let found = rows.len() as u64;
            let mut spare = rows.split_off(for_brackets(found) as usize);
            let words = || index.words(stratum);
            strata.push(match draw.share {
                Share::Bracket { number, prompts } => {
                    let first = u64::from(number) * each;
                    let needed = first + each;
                    if needed > rows.len() as u64 {
                        let needed = (needed..=2 * needed + 1)
                            .find(|all| for_brackets(*all) >= needed)
                            .unwrap_or(needed);
                        let (corpus, brackets) = (digest.clone(), number.saturating_add(1));
                        return Err(DrawError::TooFew {
                            corpus,
                            stratum: words(),
                            found,
                            needed,
                            brackets,
                            prompts,
                        });
                    }
                    rows[first as usize..needed as usize].to_vec()
                }
                Share::WarmUp if spare.is_empty() && each > 0 => {
                    return Err(DrawError::Empty { corpus: digest.clone(), stratum: words(), found });
                }
                Share::WarmUp => {
                    own.derive(&["rows", &name]).shuffle(&mut spare);
                    spare
                }
            });
        }
        let salts = own.derive(&["salts"]).generator();
        Ok(Self { corpus, deck, taken: vec![0; strata.len()], strata, salts })
    }

    fn next(&mut self) -> Option<Item> {
        let stratum = self.deck.deal();
        let rows = &self.strata[stratum];
        // Only a warm-up comes round to the first again.
        let row = *rows.get(self.taken[stratum] % rows.len().max(1))?;
        self.taken[stratum] += 1;
        Some(Item::Row { corpus: self.corpus, row, salt: natural::salt(&mut self.salts) })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::model::CorpusSource;

    fn digest() -> Digest {
        format!("sha256:{}", "7".repeat(64)).parse().expect("digest")
    }

    fn corpus(strata: &[u32]) -> Source {
        let (path, column) = (PathBuf::from("a"), "prompt".to_owned());
        Source::Corpus(CorpusSource { path, digest: digest(), column, strata: strata.to_vec(), weight: 1 })
    }

    /// Text of row `row`: rows of three lengths in turn.
    fn text(row: u32) -> String {
        format!("{row:04}{}", "x".repeat(10 * (row as usize % 3)))
    }

    fn indexes(rows: u32, strata: &[u32]) -> BTreeMap<Digest, CorpusIndex> {
        let mut index = CorpusIndex::new(strata);
        (0..rows).for_each(|row| index.add(row, &text(row)));
        BTreeMap::from([(digest(), index)])
    }

    struct Case {
        sources: Vec<Source>,
        strata: Vec<u32>,
        rows: u32,
        prompts: u32,
    }

    impl Case {
        fn new(sources: Vec<Source>, rows: u32) -> Self {
            let strata = sources.iter().find_map(|source| match source {
                Source::Corpus(corpus) => Some(corpus.strata.clone()),
                _ => None,
            });
            Self { sources, strata: strata.unwrap_or_default(), rows, prompts: 24 }
        }

        fn of(&self, share: Share, count: u32) -> Result<Vec<Prompt>, DrawError> {
            let workload = Workload::try_from(self.sources.clone()).expect("a workload");
            let round = Seed::from_text("round");
            let own = match share {
                Share::Bracket { number, .. } => round.derive(&["bracket", &number.to_string()]),
                Share::WarmUp => round.derive(&["warm-up"]),
            };
            let draw = Draw { workload: &workload, round: &round, own, share };
            let texts = (0..self.rows).map(|row| ((digest(), row), text(row))).collect();
            draw.draw(count, &indexes(self.rows, &self.strata))?.prompts(&texts)
        }

        fn bracket(&self, number: u32, count: u32) -> Result<Vec<Prompt>, DrawError> {
            self.of(Share::Bracket { number, prompts: self.prompts }, count)
        }
    }

    /// The text of a corpus that a prompt ends in.
    fn row_of(prompt: &Prompt) -> String {
        prompt.text.split_once(": ").expect("a salt").1.to_owned()
    }

    fn mixed() -> Vec<Source> {
        vec![
            Source::Grammar { weight: 1 },
            Source::Passages { weight: 1 },
            Source::Instructions { weight: 1 },
            corpus(&[10, 20, 30]),
        ]
    }

    #[test]
    fn a_draw_is_deterministic_prefix_stable_and_all_different() {
        for sources in [mixed(), vec![Source::Grammar { weight: 1 }], vec![corpus(&[])]] {
            let case = Case::new(sources, 300);
            let prompts = case.bracket(1, 24).expect("draws");
            assert_eq!(prompts.len(), 24);
            assert_eq!(prompts, case.bracket(1, 24).expect("draws"));
            assert_eq!(prompts[..7], case.bracket(1, 7).expect("draws"));
            let texts: BTreeSet<&str> = prompts.iter().map(|prompt| prompt.text.as_str()).collect();
            assert_eq!(texts.len(), 24);
            let others = case.bracket(2, 24).expect("draws");
            assert!(others.iter().all(|prompt| !texts.contains(prompt.text.as_str())));
            assert_eq!((prompts[5].index, prompts[5].sha256.len()), (5, 64));
        }
    }

    #[test]
    fn the_grammar_alone_is_what_it_always_was() {
        let own = Seed::from_text("round").derive(&["bracket", "0"]);
        let mut generator = own.derive(&["workload", "prompts"]).generator();
        let expected: Vec<String> = (0..24).map(|_| language::prompt(&mut generator)).collect();
        let case = Case::new(vec![Source::Grammar { weight: 7 }], 0);
        let found: Vec<String> =
            case.bracket(0, 24).expect("draws").into_iter().map(|prompt| prompt.text).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn brackets_and_warm_ups_share_no_row_and_strata_come_equally_often() {
        // 8 texts of each stratum a bracket, 20 of them, 6 brackets: 48 of 60, of which 6 are for warm-ups.
        let case = Case::new(vec![corpus(&[10, 20, 30])], 180);
        let mut seen = BTreeSet::new();
        for bracket in 0..6 {
            let rows: Vec<String> = case.bracket(bracket, 24).expect("draws").iter().map(row_of).collect();
            for length in [4, 14, 24] {
                assert_eq!(rows.iter().filter(|text| text.len() == length).count(), 8);
            }
            assert!(rows.into_iter().all(|row| seen.insert(row)), "a row came twice");
        }
        let warm: Vec<Prompt> = case.of(Share::WarmUp, 40).expect("draws");
        assert!(warm.iter().all(|prompt| !seen.contains(&row_of(prompt))));
        let different: BTreeSet<&str> = warm.iter().map(|prompt| prompt.text.as_str()).collect();
        assert_eq!(different.len(), 40, "what comes again has another salt");
    }

    #[test]
    fn too_few_rows_are_an_error_with_the_number_needed() {
        let case = Case::new(vec![corpus(&[10, 20, 30])], 180);
        let said = case.bracket(6, 24).expect_err("too few").to_string();
        assert!(
            said.contains("has 60 different texts of 1 to 10 bytes, and 62 are needed for 7 brackets"),
            "{said}"
        );
        // As many as it says are enough.
        assert!(Case::new(vec![corpus(&[10, 20, 30])], 3 * 62).bracket(6, 24).is_ok());
        assert!(Case::new(vec![corpus(&[10, 20, 30])], 3 * 61).bracket(6, 24).is_err());
        let one = Case::new(vec![corpus(&[])], 1);
        assert!(one.bracket(0, 24).is_err());
        assert!(one.of(Share::WarmUp, 2).is_ok());
        let none = Case::new(vec![corpus(&[])], 0);
        assert!(none.of(Share::WarmUp, 2).expect_err("none").to_string().contains("has 0 different texts"));
    }

    #[test]
    fn every_prompt_but_the_grammars_begins_with_a_salt() {
        let case = Case::new(vec![corpus(&[]), Source::Passages { weight: 1 }], 300);
        let prompts = case.bracket(0, 24).expect("draws");
        let heads: BTreeSet<String> =
            prompts.iter().map(|prompt| prompt.text.chars().take(24).collect()).collect();
        assert_eq!(heads.len(), 24);
        for prompt in &prompts {
            let (salt, _) = prompt.text.split_once(": ").expect("a salt");
            let id = salt.rsplit(' ').next().unwrap_or_default();
            assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{salt}");
        }
    }

    #[test]
    fn sources_stand_in_proportion() {
        let case = Case::new(vec![Source::Grammar { weight: 2 }, corpus(&[])], 300);
        let prompts = case.bracket(0, 24).expect("draws");
        let rows = prompts.iter().filter(|prompt| prompt.text.ends_with('x') || prompt.text.contains(": 0"));
        assert_eq!(rows.count(), 8);
    }
}
