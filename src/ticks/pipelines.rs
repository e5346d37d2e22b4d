//! The pipelines whose schedules are looked after: read again whenever their files change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::adapters::store::TickJournal;
use crate::error::Error;
use crate::pipeline::Color;
use crate::pipeline::definition::{Pipeline, Schedule};
use crate::pipeline::source::Source;
use crate::pipeline::template::Template;

/// Largest pipeline file that is read, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// Which pipelines are looked after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All of a folder. Absolute path.
    Folder(PathBuf),
    /// One file. Absolute path.
    File(PathBuf),
}

impl Scope {
    /// Whether a pipeline's file is one of these.
    pub fn contains(&self, path: &str) -> bool {
        match self {
            Self::Folder(folder) => Path::new(path).parent() == Some(folder),
            Self::File(file) => Path::new(path) == file,
        }
    }
}

/// A pipeline with schedules.
#[derive(Debug, Clone)]
pub struct ScheduledPipeline {
    /// Name of the pipeline.
    pub name: String,
    /// Absolute path of its file.
    pub path: String,
    /// Its text: that of the file, or where that is broken the last one that was whole.
    pub text: String,
    /// Its schedules; none where the pipeline is gone.
    pub schedules: Vec<Schedule>,
    /// The labels of the runners that its jobs ask for, as far as they are written out.
    pub labels: Vec<Vec<String>>,
    /// The script that tells somebody of a round that is not done.
    pub on_failure: Option<String>,
    /// What is wrong with its file, if something is.
    pub broken: Option<String>,
}

impl ScheduledPipeline {
    /// A pipeline that is no longer there.
    pub(super) fn gone(name: &str, path: &str) -> Self {
        let (name, path) = (name.to_owned(), path.to_owned());
        Self {
            name,
            path,
            text: String::new(),
            schedules: Vec::new(),
            labels: Vec::new(),
            on_failure: None,
            broken: None,
        }
    }
}

/// What tells a file from itself after a change.
type Stamp = (u64, Option<SystemTime>, u64);

/// The pipelines as they were read last.
#[derive(Debug, Default)]
pub(super) struct Pipelines {
    stamps: BTreeMap<PathBuf, Option<Stamp>>,
    known: Vec<ScheduledPipeline>,
    /// Files that are broken, and how.
    broken: BTreeMap<String, String>,
}

impl Pipelines {
    pub(super) fn known(&self) -> &[ScheduledPipeline] {
        &self.known
    }

    /// Whether they were read at all.
    pub(super) fn has_read(&self) -> bool {
        !self.stamps.is_empty()
    }

    pub(super) fn broken_files(&self) -> u32 {
        u32::try_from(self.broken.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn is_broken(&self, path: &str) -> bool {
        self.broken.contains_key(path)
    }

    /// Whether a pipeline's schedules are not what they were.
    pub(super) fn has_changed(&self, old: &ScheduledPipeline) -> bool {
        !self.known.iter().any(|now| now.name == old.name && now.text == old.text)
    }

    /// Reads what changed, and gives what a person should know of it.
    ///
    /// # Errors
    /// When the folder cannot be listed, or a copy cannot be read.
    pub(super) fn read(&mut self, scope: &Scope, journal: &TickJournal) -> Result<Vec<String>, Error> {
        let files = files(scope)?;
        let stamps = files.into_iter().map(|path| (path.clone(), stamp(&path))).collect();
        if stamps == self.stamps {
            return Ok(Vec::new());
        }
        let (mut known, mut broken): (Vec<ScheduledPipeline>, _) = (Vec::new(), BTreeMap::new());
        for path in BTreeMap::keys(&stamps) {
            let path_text = path.to_string_lossy().into_owned();
            let mut found = match text_of(path).and_then(|text| parse(&path_text, text)) {
                Ok(found) => found,
                Err(why) => {
                    broken.insert(path_text.clone(), why.clone());
                    let Some((_, text)) = journal.kept_pipeline(&path_text)? else { continue };
                    let Ok(kept) = parse(&path_text, text) else { continue };
                    ScheduledPipeline { broken: Some(why), ..kept }
                }
            };
            if found.schedules.is_empty() {
                continue;
            }
            if let Some(first) = known.iter().find(|other| other.name == found.name) {
                let why = format!("its name `{}` is that of `{}` too", found.name, first.path);
                broken.insert(path_text, why);
                continue;
            }
            found.schedules.sort_by(|left, right| left.cron.as_str().cmp(right.cron.as_str()));
            known.push(found);
        }
        let notes = self.notes(&known, &broken);
        (self.stamps, self.known, self.broken) = (stamps, known, broken);
        Ok(notes)
    }

    fn notes(&self, known: &[ScheduledPipeline], broken: &BTreeMap<String, String>) -> Vec<String> {
        let mut notes = Vec::new();
        for (path, why) in broken {
            if self.broken.get(path) != Some(why) {
                let is_kept = known.iter().any(|pipeline| pipeline.path == *path);
                let what = if is_kept {
                    "its last good version stays in force"
                } else {
                    "no good version of it is known, so nothing of it runs"
                };
                notes.push(format!("`{path}` is broken, {what}:\n{why}"));
            }
        }
        for path in self.broken.keys().filter(|path| !broken.contains_key(*path)) {
            notes.push(format!("`{path}` is no longer broken"));
        }
        notes
    }
}

fn files(scope: &Scope) -> Result<Vec<PathBuf>, Error> {
    let folder = match scope {
        Scope::File(file) => return Ok(vec![file.clone()]),
        Scope::Folder(folder) => folder,
    };
    let unreadable = |source| Error::Unreadable { path: folder.clone(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml") {
            files.push(path);
        }
    }
    Ok(files)
}

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.modified().ok(), metadata.ino()))
}

fn text_of(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let count = file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if count as u64 > MAX_BYTES { Err(format!("it has more than {MAX_BYTES} bytes")) } else { Ok(text) }
}

fn parse(path: &str, text: String) -> Result<ScheduledPipeline, String> {
    let pipeline = Pipeline::parse(&Source::new(path, &text)).map_err(|found| found.render(Color::Never))?;
    let Pipeline { name, schedules, jobs, on_failure, .. } = pipeline.value;
    let literal = |label: &Template| label.as_literal().map(ToString::to_string);
    let labels = jobs.iter().filter_map(|job| job.runs_on.labels.iter().map(literal).collect());
    let labels = labels.collect();
    Ok(ScheduledPipeline { name, path: path.to_owned(), text, schedules, labels, on_failure, broken: None })
}
