//! The prompts of a read, drawn from the workload that the pipeline says.
//!
//! A corpus is the operator's file until the first stage of the round that needs it; that one checks its digest and keeps it
//! in the round, beside the tokenizers. From then on it is read there alone, so that a round is audited and
//! done again without the file it came from. It is read in two passes, one for what rows there are and one for the texts of
//! those that were drawn, and never held as a whole.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{JobContext, StageError, write_file};
use crate::artifact::digest::Hasher;
use crate::artifact::{CorpusError, MAX_CORPUS_BYTES, layout, read_corpus};
use crate::measure::{CorpusIndex, Draw, Drawn, Prompt, Share};
use crate::model::{CorpusSource, Digest, MAX_PROMPTS, Workload, prompt_of_round};

/// The file in which a benchmark leaves what it was to ask. Where all prompts come from the grammar there is none, as in
/// rounds from before there was another source.
const ASKED_FILE: &str = "workload.json";
/// Most bytes of that file.
const MAX_ASKED_BYTES: u64 = 1 << 20;

/// What the reads of a bracket are asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// Where the prompts come from.
    pub(super) workload: Workload,
    /// Prompts of each bracket.
    pub(super) prompts: u32,
}

impl Asked {
    /// Leaves it in the attempt's directory.
    pub(super) fn leave(&self, context: &JobContext<'_>) -> Result<(), StageError> {
        if self.workload.is_grammar() {
            return Ok(());
        }
        // Texts and numbers only: serialising cannot fail.
        write_file(context, ASKED_FILE, &serde_json::to_vec_pretty(self).unwrap_or_default())
    }

    /// Reads what was left in the directory of an attempt, a path relative to the round's.
    pub(super) fn left_in(attempt: &str, context: &JobContext<'_>) -> Result<Self, StageError> {
        let bytes = match context.round.kept.read(&format!("{attempt}/{ASKED_FILE}"), MAX_ASKED_BYTES) {
            Err(error) if error.is_absence() => return Ok(Self::default()),
            read => read?,
        };
        serde_json::from_slice(&bytes)
            .map_err(|error| StageError::NotAsPlanned(format!("`{attempt}/{ASKED_FILE}`: {error}")))
    }

    /// The first prompts of each of these brackets, one bracket after the other: the same for every read of a bracket, so that
    /// these can be compared prompt by prompt, and for nobody else.
    pub(super) fn prompts(
        &self,
        wanted: &[(u32, u32)],
        context: &JobContext<'_>,
    ) -> Result<Vec<Prompt>, StageError> {
        let round = &context.round.seed;
        let prompts = self.prompts.min(MAX_PROMPTS);
        let draw = |(bracket, count): &(u32, u32)| {
            let own = round.derive(&["benchmark", "prompts", &bracket.to_string()]);
            let share = Share::Bracket { number: *bracket, prompts };
            (Draw { workload: &self.workload, round, own, share }, (*count).min(MAX_PROMPTS))
        };
        let drawn = drawn(&self.workload, &wanted.iter().map(draw).collect::<Vec<_>>(), context)?;
        let numbered = wanted.iter().zip(drawn).flat_map(|((bracket, _), prompts)| {
            prompts
                .into_iter()
                .map(move |prompt| Prompt { index: prompt_of_round(*bracket, prompt.index), ..prompt })
        });
        Ok(numbered.collect())
    }
}

/// The prompts that a launch is conditioned with, and no other launch.
pub(super) fn for_warm_up(
    workload: &Workload,
    count: u32,
    context: &JobContext<'_>,
) -> Result<Vec<Prompt>, StageError> {
    let round = &context.round.seed;
    // The leg enters the seed: no two launches are conditioned with the same prompts.
    let own = round.derive(&["warm-up", &context.leg, &context.attempt.to_string()]);
    let draw = Draw { workload, round, own, share: Share::WarmUp };
    Ok(drawn(workload, &[(draw, count.min(MAX_PROMPTS))], context)?.into_iter().flatten().collect())
}

/// Draws, with the texts of the corpora that the round keeps.
fn drawn(
    workload: &Workload,
    draws: &[(Draw<'_>, u32)],
    context: &JobContext<'_>,
) -> Result<Vec<Vec<Prompt>>, StageError> {
    let mut files = Vec::new();
    let mut indexes = BTreeMap::new();
    for corpus in workload.corpora() {
        let file = kept_corpus(corpus, context)?;
        let mut index = CorpusIndex::new(&corpus.strata);
        read(&file, corpus, |row, text| index.add(row, text))?;
        indexes.insert(corpus.digest.clone(), index);
        files.push((corpus, file));
    }
    let drawn: Result<Vec<Drawn>, _> =
        draws.iter().map(|(draw, count)| draw.draw(*count, &indexes)).collect();
    let drawn = drawn?;
    let mut texts: BTreeMap<(Digest, u32), String> = BTreeMap::new();
    for (corpus, file) in files {
        let rows: std::collections::BTreeSet<u32> =
            drawn.iter().flat_map(|drawn| drawn.rows(&corpus.digest)).collect();
        read(&file, corpus, |row, text| {
            if rows.contains(&row) {
                texts.insert((corpus.digest.clone(), row), text.to_owned());
            }
        })?;
    }
    drawn.into_iter().map(|drawn| Ok(drawn.prompts(&texts)?)).collect()
}

fn read(file: &File, corpus: &CorpusSource, each: impl FnMut(u32, &str)) -> Result<(), StageError> {
    read_corpus(file, &corpus.column, each)
        .map_err(|source| StageError::Corpus { path: corpus.path.clone(), source })
}

/// Keeps the corpora of a workload in the round, those that it does not keep yet.
pub(super) fn keep_corpora(workload: &Workload, context: &JobContext<'_>) -> Result<(), StageError> {
    let directory = &context.round.directory;
    let is_missing =
        |corpus: &&CorpusSource| !directory.path().join(layout::corpus_path(&corpus.digest)).is_file();
    workload.corpora().filter(is_missing).try_for_each(|corpus| keep(corpus, context))
}

fn keep(corpus: &CorpusSource, context: &JobContext<'_>) -> Result<(), StageError> {
    let unusable = |source: std::io::Error| StageError::Corpus {
        path: corpus.path.clone(),
        source: CorpusError::Io(source),
    };
    let mut from = open_plain(&corpus.path).map_err(unusable)?;
    // Another read, at the same time, may write it too: these are the same bytes.
    let mut to = context.round.directory.begin_whole(&layout::corpus_path(&corpus.digest))?;
    let (mut hasher, mut size) = (Hasher::default(), 0);
    let mut chunk = vec![0; 256 << 10];
    loop {
        let count = from.read(&mut chunk).map_err(unusable)?;
        if count == 0 {
            break;
        }
        size += count as u64;
        if size > MAX_CORPUS_BYTES {
            return Err(StageError::Corpus { path: corpus.path.clone(), source: CorpusError::TooLarge });
        }
        hasher.update(&chunk[..count]);
        to.write_all(&chunk[..count]).map_err(|source| StageError::Machine {
            attempted: format!("copy `{}` into the round", corpus.path.display()),
            source,
        })?;
    }
    check_digest(corpus, hasher.finish())?;
    Ok(to.finish()?)
}

/// Opens a file that is one: no pipe, which would be waited for.
fn open_plain(path: &Path) -> std::io::Result<File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no plain file"));
    }
    File::open(path)
}

fn check_digest(corpus: &CorpusSource, found: Digest) -> Result<(), StageError> {
    if found == corpus.digest {
        return Ok(());
    }
    let (path, expected) = (corpus.path.clone(), corpus.digest.clone());
    Err(StageError::OtherCorpus { path, found, expected })
}

/// The corpus that the round keeps, whole.
fn kept_corpus(corpus: &CorpusSource, context: &JobContext<'_>) -> Result<File, StageError> {
    let (mut file, path) = context.round.kept.open_file(&layout::corpus_path(&corpus.digest))?;
    let failed = |source| StageError::Machine { attempted: format!("read `{}`", path.display()), source };
    let mut hasher = Hasher::default();
    hasher.read(&file).map_err(failed)?;
    file.rewind().map_err(failed)?;
    check_digest(corpus, hasher.finish())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::*;
    use crate::artifact::digest::sha256;
    use crate::model::Fault;
    use crate::stages::RunnerContext;
    use crate::stages::kept_streams::tests::{context, round};

    /// Lines of forty texts, half of them short.
    fn lines() -> String {
        let line = |row: u32| format!("{{\"q\":\"text {row:02}{}\"}}\n", "y".repeat(40 * (row as usize % 2)));
        (0..40).map(line).collect()
    }

    struct Case {
        data: tempfile::TempDir,
        path: PathBuf,
    }

    impl Case {
        fn new() -> Self {
            let data = tempfile::tempdir().expect("a directory");
            let path = data.path().join("prompts.jsonl");
            std::fs::write(&path, lines()).expect("writes");
            Self { data, path }
        }

        fn asked(&self, prompts: u32) -> Asked {
            let digest = sha256(lines().as_bytes());
            let text = serde_json::json!([
                {"source": "corpus", "path": self.path, "digest": digest, "column": "q", "strata": [20, 90], "weight": 2},
                {"source": "grammar"},
            ]);
            Asked { workload: serde_json::from_value(text).expect("a workload"), prompts }
        }
    }

    fn text_of(prompt: &Prompt) -> Option<&str> {
        prompt.text.split_once(": ").map(|(_, text)| text).filter(|text| text.starts_with("text "))
    }

    #[test]
    fn prompts_are_drawn_again_without_the_file_they_came_from() {
        let case = Case::new();
        let (round, runner) = (round(case.data.path()), RunnerContext::controller());
        let context = context(&round, &runner);
        let asked = case.asked(9);
        keep_corpora(&asked.workload, &context).expect("keeps");
        let prompts = asked.prompts(&[(0, 9), (1, 9)], &context).expect("draws");
        let warm = for_warm_up(&asked.workload, 9, &context).expect("draws");
        std::fs::remove_file(&case.path).expect("removes");

        keep_corpora(&asked.workload, &context).expect("it is kept");
        assert_eq!(asked.prompts(&[(0, 9), (1, 9)], &context).expect("draws"), prompts);
        assert_eq!(asked.prompts(&[(1, 4)], &context).expect("draws"), prompts[9..13]);
        assert_eq!(for_warm_up(&asked.workload, 9, &context).expect("draws"), warm);
        let rows: Vec<&str> = prompts.iter().filter_map(text_of).collect();
        assert_eq!((rows.len(), rows.iter().collect::<BTreeSet<_>>().len()), (12, 12));
        assert!(warm.iter().filter_map(text_of).all(|row| !rows.contains(&row)));
        assert_eq!((prompts[9].index, prompts[17].index), (MAX_PROMPTS, MAX_PROMPTS + 8));

        asked.leave(&context).expect("leaves");
        assert_eq!(Asked::left_in("jobs/measure/0000-a/attempt-1", &context).expect("reads"), asked);
        let other = Asked::left_in("jobs/measure/0001-b/attempt-1", &context).expect("reads");
        assert!(other.workload.is_grammar());
    }

    #[test]
    fn what_cannot_be_used_is_the_operators_fault_and_says_why() {
        let case = Case::new();
        let (round, runner) = (round(case.data.path()), RunnerContext::controller());
        let context = context(&round, &runner);
        let asked = case.asked(9);
        let check = |expected: &str| {
            let reason = keep_corpora(&asked.workload, &context).expect_err("an error").reason();
            assert_eq!((reason.fault, reason.code.as_str()), (Fault::Operator, "corpus"));
            assert!(reason.to_string().contains(expected), "{reason}");
        };
        std::fs::write(&case.path, "{\"q\":\"another\"}").expect("writes");
        check("and the pipeline pins `sha256:");
        std::fs::remove_file(&case.path).expect("removes");
        check("No such file");
        std::fs::create_dir(&case.path).expect("a directory");
        check("it is no plain file");
        let kept = round.directory.path().join(layout::CORPUS_DIR);
        assert_eq!(std::fs::read_dir(kept).expect("lists").count(), 0, "nothing half is left");

        std::fs::remove_dir(&case.path).expect("removes");
        std::fs::write(&case.path, lines()).expect("writes");
        keep_corpora(&asked.workload, &context).expect("keeps");
        let said = asked.prompts(&[(6, 9)], &context).expect_err("too few").reason().to_string();
        assert!(
            said.contains("has 20 different texts of 1 to 20 bytes, and 23 are needed for 7 brackets"),
            "{said}"
        );
    }
}
