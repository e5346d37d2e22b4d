//! Commitments from a file: for the embedded default, tests, and re-running a round from a snapshot.
//!
//! `{block: <name>, commitments: [{hotkey, block, uid, payload | image + digest}, ..]}` as YAML or JSON.

use std::path::PathBuf;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use crate::ports::{ChainError, ChainSource, ChainView};

/// Largest file that is read, in bytes: ten times what the 256 neurons of a subnet commit, about 1 KiB each.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Most entries that a file may have: more than ten subnets have neurons.
const MAX_ENTRIES: usize = 4096;

/// A file that stands for the chain.
#[derive(Debug, Clone)]
pub struct ChainFile {
    path: PathBuf,
}

impl ChainFile {
    /// The source over one file, `.json` or YAML by its extension.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    async fn read(&self) -> Result<String, ChainError> {
        let unreadable = |source| ChainError::Unreadable { path: self.path.clone(), source };
        let file = tokio::fs::File::open(&self.path).await.map_err(unreadable)?;
        let size = file.metadata().await.map_err(unreadable)?.len();
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).await.map_err(unreadable)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(ChainError::TooLarge { path: self.path.clone(), bytes: size, limit: MAX_BYTES });
        }
        String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            ChainError::Malformed(format!("{}: not UTF-8 text from byte {at} on", self.path.display()))
        })
    }

    fn parse(&self, text: &str) -> Result<Value, ChainError> {
        if self.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
            return serde_json::from_str(text).map_err(|error| {
                let at = format!("{}:{}:{}", self.path.display(), error.line(), error.column());
                ChainError::Malformed(format!("{at}: {error}"))
            });
        }
        crate::pipeline::yaml_value(&self.path.to_string_lossy(), text).map_err(ChainError::Malformed)
    }

    fn view(&self, file: Value) -> Result<ChainView, ChainError> {
        let malformed = |why: &str| ChainError::Malformed(format!("{}: {why}", self.path.display()));
        let Value::Object(mut map) = file else {
            return Err(malformed("want a mapping with `block` and `commitments`"));
        };
        let block = match map.remove("block") {
            Some(Value::String(block)) => block,
            Some(Value::Number(block)) => block.to_string(),
            _ => return Err(malformed("`block` is missing: name the block the view was taken at")),
        };
        match map.remove("commitments") {
            Some(Value::Array(entries)) if entries.len() <= MAX_ENTRIES => Ok(ChainView { block, entries }),
            Some(Value::Array(_)) => Err(malformed(&format!("more than {MAX_ENTRIES} commitments"))),
            _ => Err(malformed("`commitments` is missing or not a list")),
        }
    }
}

impl ChainSource for ChainFile {
    fn commitments(&self) -> BoxFuture<'_, Result<ChainView, ChainError>> {
        async move { self.view(self.parse(&self.read().await?)?) }.boxed()
    }
}
