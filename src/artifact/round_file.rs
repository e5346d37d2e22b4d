//! `round.json`: everything that a round was made of, written once before anything runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ArtifactError;
use crate::model::{Digest, RoundId};

/// What a round was made of. With the same program and images, this is enough to run it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundFile {
    /// [`RoundFile::SCHEMA`].
    pub schema: u32,
    /// The round.
    pub round_id: RoundId,
    /// Where the pipeline was read.
    pub pipeline_path: String,
    /// Its whole text.
    pub pipeline_text: String,
    /// Digest of the text.
    pub pipeline_digest: Digest,
    /// Where the runner was read.
    pub runner_path: String,
    /// Its whole text.
    pub runner_text: String,
    /// Inputs of the dispatch, defaults filled in.
    pub inputs: BTreeMap<String, Value>,
    /// The root seed, 64 hexadecimal digits: not to be shown before the round has ended.
    pub seed_hex: String,
    /// Images known at the start, by name.
    pub images: BTreeMap<String, Digest>,
    /// Digest of the model, where the runner names one.
    pub model_digest: Option<Digest>,
    /// Version of this program.
    pub tool_version: String,
    /// Digest of its executable, where it could be read.
    pub tool_digest: Option<Digest>,
    /// Wall time of the start, RFC 3339.
    pub started_at: String,
}

/// What any version of the file says.
#[derive(Deserialize)]
struct Version {
    schema: u32,
}

impl RoundFile {
    /// The schema that this program writes and reads.
    pub const SCHEMA: u32 = 1;

    /// The file: indented, a line at the end.
    ///
    /// # Errors
    /// When the inputs cannot be written as JSON.
    pub fn encode(&self) -> Result<Vec<u8>, ArtifactError> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(ArtifactError::RoundFile)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads the file back.
    ///
    /// # Errors
    /// When it is not JSON of this form, or has another schema.
    pub fn decode(bytes: &[u8]) -> Result<Self, ArtifactError> {
        let Version { schema: found } = serde_json::from_slice(bytes).map_err(ArtifactError::RoundFile)?;
        if found != Self::SCHEMA {
            return Err(ArtifactError::RoundFileVersion { found, expected: Self::SCHEMA });
        }
        serde_json::from_slice(bytes).map_err(ArtifactError::RoundFile)
    }
}

#[cfg(test)]
mod tests {
    use super::super::digest::sha256;
    use super::*;

    #[test]
    fn round_trip() {
        let file = RoundFile {
            schema: RoundFile::SCHEMA,
            round_id: "demo-1".parse().expect("an id"),
            pipeline_path: "pipelines/demo.yml".to_owned(),
            pipeline_text: "name: demo\n".to_owned(),
            pipeline_digest: sha256(b"name: demo\n"),
            runner_path: "runners/embedded.yml".to_owned(),
            runner_text: "name: embedded\n".to_owned(),
            inputs: BTreeMap::from([("prompts".to_owned(), Value::from(8))]),
            seed_hex: "00".repeat(32),
            images: BTreeMap::from([("embedded/turbo".to_owned(), sha256(b"turbo"))]),
            model_digest: None,
            tool_version: "0.1.0".to_owned(),
            tool_digest: Some(sha256(b"tool")),
            started_at: "2026-11-21T21:27:00Z".to_owned(),
        };
        let bytes = file.encode().expect("encodes");
        insta::assert_snapshot!(String::from_utf8_lossy(&bytes));
        assert_eq!(RoundFile::decode(&bytes).expect("decodes"), file);
    }

    #[test]
    fn what_is_no_round() {
        for (bad, why) in
            [("", "not of the form"), ("{\"schema\":2}", "schema 2"), ("{\"schema\":1}", "not of the form")]
        {
            let error = RoundFile::decode(bad.as_bytes()).expect_err(bad).to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
