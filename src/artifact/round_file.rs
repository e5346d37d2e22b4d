//! `round.json`: everything that a round was made of, written once before anything runs.
//!
//! What a round learns later is not here: the images it pulled, with their digests, are in the table of reads.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ArtifactError, FormatVersion, digest};
use crate::model::{Digest, RoundId, RoundTick};
use crate::pipeline::{RunnerSpec, Source};

/// What a round was made of. With the same program and images, this is enough to run it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundFile {
    /// Version of the file's format: [`RoundFile::SCHEMA`] of the program that wrote it.
    pub schema: FormatVersion,
    /// Id of the round.
    pub round_id: RoundId,
    /// Path from which the pipeline was read.
    pub pipeline_path: String,
    /// The pipeline's whole text.
    pub pipeline_text: String,
    /// Digest of the pipeline's text.
    pub pipeline_digest: Digest,
    /// The runners there were, whether or not a job ran on them.
    pub runners: Vec<RunnerFile>,
    /// Inputs of the pipeline, defaults filled in.
    pub inputs: BTreeMap<String, Value>,
    /// The root seed as 64 hexadecimal digits: not to be shown before the round has ended.
    pub seed_hex: String,
    /// Version of the program that ran the round.
    pub tool_version: String,
    /// Digest of that program's executable, where it could be read.
    pub tool_digest: Option<Digest>,
    /// Wall time of the round's start, RFC 3339.
    pub started_at: String,
    /// The tick that started the round, where a schedule did. Since version 2.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tick: Option<RoundTick>,
    /// The round this one was made from, where it is a rerun. Since version 2.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentRound>,
}

/// The round that another one was made from: what of it stands there too, and what was asked to be different.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentRound {
    /// Id of the parent.
    pub round_id: RoundId,
    /// Digest of the parent's file `SEAL`; none if the parent had none.
    pub seal: Option<Digest>,
    /// The jobs that ran again as a whole, with all that needs them.
    pub jobs: Vec<String>,
    /// The legs that ran again, by job and key, with all that needs their jobs.
    pub legs: Vec<(String, String)>,
    /// What was given another value: the key as it was given, and its value.
    pub with: BTreeMap<String, String>,
    /// The parent's files that the round shares, in the order of their paths.
    pub shared: Vec<SharedFile>,
}

/// A file that a round shares with its parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedFile {
    /// Path of the file in both rounds' directories, as the seal writes it.
    pub path: String,
    /// Digest of the file's bytes.
    pub digest: Digest,
    /// Number of the file's bytes.
    pub size: u64,
}

/// A runner as a round found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerFile {
    /// Name of the runner.
    pub name: String,
    /// Path from which its file was read.
    pub path: String,
    /// The file's whole text.
    pub text: String,
    /// Digest of the file's text.
    pub digest: Digest,
    /// Digest over the names and contents of the model's files, where the runner names a model that could be read.
    pub model_digest: Option<Digest>,
}

/// The version alone, which a file of any version says.
#[derive(Deserialize)]
struct Version {
    schema: FormatVersion,
}

/// The file of schema 1: runners joined into one text, with the model of the first that had one.
#[derive(Deserialize)]
struct First {
    round_id: RoundId,
    pipeline_path: String,
    pipeline_text: String,
    pipeline_digest: Digest,
    runner_path: String,
    runner_text: String,
    inputs: BTreeMap<String, Value>,
    seed_hex: String,
    model_digest: Option<Digest>,
    tool_version: String,
    tool_digest: Option<Digest>,
    started_at: String,
}

impl First {
    /// The runners, apart again; as one where the joints cannot be told from what they join.
    fn runners(&self) -> Vec<RunnerFile> {
        let mut paths: Vec<&str> = self.runner_path.split(',').collect();
        let mut texts: Vec<&str> = self.runner_text.split("\n---\n").collect();
        if self.runner_path.is_empty() {
            return Vec::new();
        }
        if paths.len() != texts.len() {
            (paths, texts) = (vec![self.runner_path.as_str()], vec![self.runner_text.as_str()]);
        }
        let mut model_digest = self.model_digest.clone();
        let runner = |(path, text): (&str, &str)| {
            let spec = RunnerSpec::parse(&Source::new(path, text)).ok().map(|parsed| parsed.value);
            let has_model = spec.as_ref().is_none_or(|spec| spec.model_dir.is_some());
            RunnerFile {
                name: spec.map_or_else(|| path.to_owned(), |spec| spec.name),
                path: path.to_owned(),
                text: text.to_owned(),
                digest: digest::sha256(text.as_bytes()),
                model_digest: if has_model { model_digest.take() } else { None },
            }
        };
        paths.into_iter().zip(texts).map(runner).collect()
    }
}

impl From<First> for RoundFile {
    fn from(first: First) -> Self {
        Self {
            schema: Self::SCHEMA,
            runners: first.runners(),
            round_id: first.round_id,
            pipeline_path: first.pipeline_path,
            pipeline_text: first.pipeline_text,
            pipeline_digest: first.pipeline_digest,
            inputs: first.inputs,
            seed_hex: first.seed_hex,
            tool_version: first.tool_version,
            tool_digest: first.tool_digest,
            started_at: first.started_at,
            tick: None,
            parent: None,
        }
    }
}

impl RoundFile {
    /// The version of the file that this program writes; it reads this one and older ones.
    pub const SCHEMA: FormatVersion = FormatVersion::new(2, 2);

    /// The bytes of the file: indented JSON with a line end.
    ///
    /// # Errors
    /// When the inputs cannot be written as JSON.
    pub fn encode(&self) -> Result<Vec<u8>, ArtifactError> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(ArtifactError::RoundFile)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads the file back; one of an older schema comes as this one's.
    ///
    /// # Errors
    /// When it is not JSON of this form, or has a newer schema.
    pub fn decode(bytes: &[u8]) -> Result<Self, ArtifactError> {
        let Version { schema: found } = serde_json::from_slice(bytes).map_err(ArtifactError::RoundFile)?;
        if found > Self::SCHEMA {
            return Err(ArtifactError::RoundFileVersion { found, expected: Self::SCHEMA });
        }
        if found.major == 1 {
            return serde_json::from_slice::<First>(bytes).map(Self::from).map_err(ArtifactError::RoundFile);
        }
        serde_json::from_slice(bytes).map_err(ArtifactError::RoundFile)
    }
}

#[cfg(test)]
mod tests {
    use super::super::digest::sha256;
    use super::*;

    fn runner(name: &str, text: &str, model_digest: Option<Digest>) -> RunnerFile {
        RunnerFile {
            name: name.to_owned(),
            path: format!("runners/{name}.yml"),
            text: text.to_owned(),
            digest: sha256(text.as_bytes()),
            model_digest,
        }
    }

    fn file() -> RoundFile {
        RoundFile {
            schema: RoundFile::SCHEMA,
            round_id: "demo-1".parse().expect("an id"),
            pipeline_path: "pipelines/demo.yml".to_owned(),
            pipeline_text: "name: demo\n".to_owned(),
            pipeline_digest: sha256(b"name: demo\n"),
            runners: vec![
                runner("embedded", "name: embedded\n", Some(sha256(b"model"))),
                runner("box", "name: box\n", None),
            ],
            inputs: BTreeMap::from([("prompts".to_owned(), Value::from(8))]),
            seed_hex: "00".repeat(32),
            tool_version: "0.1.0".to_owned(),
            tool_digest: Some(sha256(b"tool")),
            started_at: "2026-11-21T21:27:00Z".to_owned(),
            tick: None,
            parent: None,
        }
    }

    #[test]
    fn round_trip() {
        let file = file();
        let bytes = file.encode().expect("encodes");
        insta::assert_snapshot!(String::from_utf8_lossy(&bytes));
        assert_eq!(RoundFile::decode(&bytes).expect("decodes"), file);
    }

    #[test]
    fn a_rerun_names_its_parent() {
        let parent = ParentRound {
            round_id: "demo-0".parse().expect("an id"),
            seal: Some(sha256(b"seal")),
            jobs: vec!["rank".to_owned()],
            legs: vec![("measure".to_owned(), "0001-candidate".to_owned())],
            with: BTreeMap::from([("score.margin".to_owned(), "0.2".to_owned())]),
            shared: vec![SharedFile {
                path: "jobs/commitments/_/attempt-1/commitments.parquet".to_owned(),
                digest: sha256(b"rows"),
                size: 4,
            }],
        };
        let file = RoundFile { parent: Some(parent), ..file() };
        let bytes = file.encode().expect("encodes");
        insta::assert_snapshot!(String::from_utf8_lossy(&bytes));
        assert_eq!(RoundFile::decode(&bytes).expect("decodes"), file);
    }

    #[test]
    fn a_round_names_its_tick() {
        let text = r#"{"pipeline":"demo","cron":"17 * * * *","timezone":"UTC","nominal":"2026-03-01T00:17:00Z","scheduled":"2026-03-01T00:18:02Z"}"#;
        let tick: RoundTick = serde_json::from_str(text).expect("a tick");
        let file = RoundFile { tick: Some(tick), ..file() };
        let bytes = file.encode().expect("encodes");
        assert_eq!(RoundFile::decode(&bytes).expect("decodes"), file);
        let json: Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(json["tick"], serde_json::from_str::<Value>(text).expect("JSON"));
    }

    #[test]
    fn what_is_no_round() {
        for (bad, why) in [
            ("", "not of the form"),
            ("{\"schema\":3}", "schema 3.0"),
            ("{\"schema\":\"2.3\"}", "schema 2.3"),
            ("{\"schema\":\"2.0\"}", "not of the form"),
            ("{\"schema\":1}", "not of the form"),
        ] {
            let error = RoundFile::decode(bad.as_bytes()).expect_err(bad).to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn the_first_schema_is_read() {
        let [plain, with_model] =
            ["name: box\nengine: docker\n", "name: gpu\nengine: docker\nmodel-dir: models/m\n"];
        let check = |path: &str, text: &str, expected: Vec<RunnerFile>| {
            let mut value = serde_json::to_value(file()).expect("JSON");
            let fields = value.as_object_mut().expect("an object");
            fields.remove("runners");
            fields.insert("schema".to_owned(), 1.into());
            fields.insert("runner_path".to_owned(), path.into());
            fields.insert("runner_text".to_owned(), text.into());
            fields.insert("images".to_owned(), serde_json::json!({}));
            fields.insert("model_digest".to_owned(), sha256(b"model").as_str().into());
            let found = RoundFile::decode(value.to_string().as_bytes()).expect("decodes");
            assert_eq!(found, RoundFile { runners: expected, ..file() });
        };
        let model = Some(sha256(b"model"));
        check("runners/gpu.yml", with_model, vec![runner("gpu", with_model, model.clone())]);
        check(
            "runners/box.yml,runners/gpu.yml",
            &[plain, with_model].join("\n---\n"),
            vec![runner("box", plain, None), runner("gpu", with_model, model.clone())],
        );
        let joined = [plain, plain, plain].join("\n---\n");
        let whole = RunnerFile {
            name: "a.yml,b.yml".to_owned(),
            path: "a.yml,b.yml".to_owned(),
            ..runner("", &joined, model)
        };
        check("a.yml,b.yml", &joined, vec![whole]);
        check("", "", Vec::new());
    }
}
