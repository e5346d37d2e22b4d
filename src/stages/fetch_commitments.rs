//! `fetch-commitments`: reads the commitments of a subnet and says what became of each.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{JobContext, StageError, data_dir, write_table};
use crate::adapters::chain_file::ChainFile;
use crate::model::{SubmissionRow, admit};
use crate::ports::ChainSource as _;

/// Parameters of the stage.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Parameters {
    /// Where the commitments are: a file.
    #[serde(default)]
    pub source: Source,
    /// The file, relative to the working directory.
    pub path: PathBuf,
}

/// Kinds of sources.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A JSON or YAML file.
    #[default]
    File,
}

/// Reads, judges and records the commitments.
pub(super) async fn run(
    parameters: Parameters,
    context: &mut JobContext<'_>,
) -> Result<Map<String, Value>, StageError> {
    let source = match parameters.source {
        Source::File => ChainFile::new(parameters.path),
    };
    let view = source.commitments().await?;
    let round_id = context.round.round_id.as_str();
    let admission = admit(round_id, &view.entries);
    for row in admission.commitments.iter().filter(|row| !row.is_accepted) {
        let reason = row.ignored_reason.as_deref().unwrap_or_default();
        tracing::info!(position = row.position, hotkey = row.hotkey, reason, "commitment ignored");
    }
    let submissions: Vec<SubmissionRow> = admission
        .submissions
        .iter()
        .map(|submission| SubmissionRow {
            round_id: round_id.to_owned(),
            hotkey: submission.hotkey.to_string(),
            uid: submission.uid,
            block: submission.block,
            image: submission.image.to_string(),
            digest: submission.digest.to_string(),
        })
        .collect();
    let ignored = admission.commitments.iter().filter(|row| !row.is_accepted).count();
    write_table(context, &admission.commitments)?;
    write_table(context, &submissions)?;
    let mut outputs = Map::new();
    outputs.insert("block".to_owned(), Value::String(view.block));
    outputs.insert("ignored".to_owned(), json!(ignored));
    outputs.insert("data".to_owned(), data_dir(context).into());
    outputs.insert("submissions".to_owned(), serde_json::to_value(&admission.submissions)?);
    Ok(outputs)
}
