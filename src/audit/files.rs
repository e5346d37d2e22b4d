//! Files that were made again, against those that are kept.

use std::collections::BTreeSet;

use super::{Stop, unusable};
use crate::adapters::store::{RoundDirectory, StoreError};
use crate::artifact::{ParentRound, RoundState, TABLE_NAMES, difference, digest, layout};
use crate::report::Difference;
use crate::report::text::error_chain;

/// Most bytes of a file that is compared; tables are smaller.
const MAX_BYTES: u64 = 1 << 30;

/// The two directories.
pub(super) struct Files<'a> {
    /// What is kept of the round.
    kept: &'a RoundDirectory,
    /// What was made again.
    again: &'a RoundDirectory,
}

impl<'a> Files<'a> {
    pub(super) fn new(kept: &'a RoundDirectory, again: &'a RoundDirectory) -> Self {
        Self { kept, again }
    }

    /// Compares all that was made again below a directory of the round; gives the number of files.
    pub(super) fn compare(&self, relative: &str) -> Result<usize, Stop> {
        let paths = self.again.files_below(relative)?;
        // In this order an answer that was changed is told before what follows from it.
        let rank = |path: &String| {
            ["exchanges", "requests", "answers", "tokens"].iter().position(|name| path.contains(name))
        };
        let mut paths: Vec<String> = paths;
        paths.sort_by_key(|path| (rank(path).unwrap_or(usize::MAX), path.clone()));
        for path in &paths {
            self.same(path)?;
        }
        Ok(paths.len())
    }

    /// A file must have the bytes that were made again.
    fn same(&self, path: &str) -> Result<(), Stop> {
        let recomputed = self.again.read(path, MAX_BYTES)?;
        let recorded = self.kept.read(path, MAX_BYTES).map_err(|error| unusable(path, &error))?;
        if recorded == recomputed {
            return Ok(());
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        let table = match name.strip_suffix(".parquet").unwrap_or_default() {
            "read" => "reads",
            "answers" => "tokens",
            name => name,
        };
        let path = path.to_owned();
        Err(match difference(table, &recorded, &recomputed) {
            Some(Ok(Some(cell))) => Difference::Cell { path, cell },
            Some(Err(error)) => Difference::Unusable { path, why: error_chain(&error) },
            Some(Ok(None)) | None => {
                let differs = recorded.iter().zip(&recomputed).position(|(left, right)| left != right);
                let offset = differs.unwrap_or_else(|| recorded.len().min(recomputed.len()));
                Difference::Bytes { path, offset }
            }
        }
        .into())
    }

    /// Compares the published tables and the summary, and that there are no others.
    pub(super) fn compare_results(&self, state: &RoundState) -> Result<usize, Stop> {
        if state.has_published {
            self.again.write_table(&state.step_rows())?;
        }
        let mut compared = 0;
        for table in TABLE_NAMES {
            let path = layout::table_path(table);
            let is_made = self.again.path().join(&path).is_file();
            match state.tables.get(table) {
                None if !is_made => {}
                Some(published) if is_made => {
                    self.same(&path)?;
                    let found = digest::sha256(&self.again.read(&path, MAX_BYTES)?);
                    if published.digest != found {
                        return Err(Difference::Value {
                            path: layout::JOURNAL_FILE.to_owned(),
                            what: "the digest of a published table",
                            recorded: published.digest.to_string(),
                            recomputed: found.to_string(),
                        }
                        .into());
                    }
                    compared += 1;
                }
                recorded => {
                    let say = |is: bool| if is { "published" } else { "not published" }.to_owned();
                    return Err(Difference::Value {
                        path,
                        what: "the table",
                        recorded: say(recorded.is_some()),
                        recomputed: say(is_made),
                    }
                    .into());
                }
            }
        }
        if self.again.path().join(layout::SUMMARY_FILE).is_file() {
            self.same(layout::SUMMARY_FILE)?;
            compared += 1;
        }
        let known: BTreeSet<String> = state.tables.keys().map(|table| layout::table_path(table)).collect();
        let is_absent = |error: &StoreError| matches!(error, StoreError::Io { .. });
        let found = match self.kept.files_below("results") {
            Err(error) if is_absent(&error) => Vec::new(),
            found => found.map_err(|error| unusable("results", &error))?,
        };
        match found.into_iter().find(|path| !known.contains(path)) {
            None => Ok(compared),
            Some(path) => {
                let why = "nothing that the round did makes this file".to_owned();
                Err(Difference::Unusable { path, why }.into())
            }
        }
    }

    /// The files of an attempt that was taken over are those that `round.json` says.
    pub(super) fn are_shared(&self, attempt: &str, parent: &ParentRound) -> Result<(), Difference> {
        for file in parent.shared.iter().filter(|file| file.path.starts_with(&format!("{attempt}/"))) {
            let found = match self.kept.file_digest(&file.path) {
                Ok(found) => found,
                Err(error) => return Err(unusable(&file.path, &error)),
            };
            if found != file.digest {
                return Err(Difference::Value {
                    path: file.path.clone(),
                    what: "the digest of a file shared with the parent",
                    recorded: file.digest.to_string(),
                    recomputed: found.to_string(),
                });
            }
        }
        Ok(())
    }
}
