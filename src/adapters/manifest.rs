//! The image manifest of the process engine: JSON -> what to start, with what, and where it says it is ready.
//!
//! In a word of the command and in a value of the environment `{port}`, `{model-name}` and `{model-dir}` stand for
//! what the server is given; a brace itself is written twice. So a program that knows nothing of ours, such as
//! llama.cpp's server, needs no script around it. Deliberately absent: reading the file, and starting anything
//! ([`super::process`]).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use serde::Deserialize;

use crate::artifact::digest::sha256;
use crate::model::Digest;
use crate::ports::HEALTH_PATH;

/// A checked manifest.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// The program and its first arguments; never empty.
    pub(super) command: Vec<Pattern>,
    /// The arguments behind these where whoever starts it has no others.
    pub(super) args: Vec<Pattern>,
    /// The environment, besides what every server is told.
    pub(super) env: BTreeMap<String, Pattern>,
    /// The path that answers 200 once the server is ready.
    pub(super) health_path: String,
    /// Digest of all that has an effect: not of the description, nor of how the file is written.
    pub(super) content: Digest,
}

/// What the variables of a manifest stand for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'a> {
    /// The port to listen on.
    pub(super) port: u16,
    /// The name to serve the model under.
    pub(super) model_name: &'a str,
    /// The model's directory.
    pub(super) model_dir: &'a Path,
}

/// Text with variables in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable(Variable),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variable {
    Port,
    ModelName,
    ModelDir,
}

/// Why bytes are no manifest. Each names the file as the image names it.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidManifest {
    #[error("`{file}`: {source}")]
    Json { file: String, source: serde_json::Error },
    #[error("`{file}`: its `command` is empty")]
    NoCommand { file: String },
    #[error("`{file}`: `health-path` is `{path}`, and a path begins with `/`")]
    HealthPath { file: String, path: String },
    #[error("`{file}`: `{field}` names `{{{name}}}`, and the variables are {}", Variable::names())]
    UnknownVariable { file: String, field: String, name: String },
    #[error("`{file}`: `{field}` has a `{brace}` without its other half; a brace itself is written twice")]
    LoneBrace { file: String, field: String, brace: char },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ManifestFile {
    command: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default = "default_health_path")]
    health_path: String,
    #[serde(default, rename = "description")]
    _description: String,
}

fn default_health_path() -> String {
    HEALTH_PATH.to_owned()
}

impl Manifest {
    /// Reads a manifest; `file` is its name for messages.
    pub(super) fn parse(file: &str, bytes: &[u8]) -> Result<Self, InvalidManifest> {
        let owned = || file.to_owned();
        let read: ManifestFile = serde_json::from_slice(bytes)
            .map_err(|source| InvalidManifest::Json { file: owned(), source })?;
        if read.command.is_empty() {
            return Err(InvalidManifest::NoCommand { file: owned() });
        }
        if !read.health_path.starts_with('/') {
            return Err(InvalidManifest::HealthPath { file: owned(), path: read.health_path });
        }
        let patterns = |field: &str, words: &[String]| -> Result<Vec<Pattern>, InvalidManifest> {
            let words = words.iter().enumerate();
            words.map(|(place, word)| Pattern::parse(word, file, &format!("{field}[{place}]"))).collect()
        };
        let (command, args) = (patterns("command", &read.command)?, patterns("args", &read.args)?);
        let mut env = BTreeMap::new();
        for (name, value) in &read.env {
            env.insert(name.clone(), Pattern::parse(value, file, &format!("env.{name}"))?);
        }
        let words: Vec<&String> = read.command.iter().chain(&read.args).collect();
        let effect = serde_json::json!([words, read.env, read.health_path]);
        let content = sha256(effect.to_string().as_bytes());
        Ok(Self { command, args, env, health_path: read.health_path, content })
    }
}

impl Pattern {
    fn parse(text: &str, file: &str, field: &str) -> Result<Self, InvalidManifest> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, after) = (&rest[..at], &rest[at + 1..]);
            let brace = if rest[at..].starts_with('{') { '{' } else { '}' };
            plain.push_str(before);
            if let Some(after) = after.strip_prefix(brace) {
                plain.push(brace);
                rest = after;
                continue;
            }
            let (file, field) = (file.to_owned(), field.to_owned());
            let Some((name, after)) = after.split_once('}').filter(|_| brace == '{') else {
                return Err(InvalidManifest::LoneBrace { file, field, brace });
            };
            let Some(variable) = Variable::ALL.into_iter().find(|variable| variable.name() == name) else {
                return Err(InvalidManifest::UnknownVariable { file, field, name: name.to_owned() });
            };
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
            pieces.push(Piece::Variable(variable));
            rest = after;
        }
        plain.push_str(rest);
        pieces.push(Piece::Text(plain));
        Ok(Self(pieces))
    }

    /// The text with the values in the variables' places.
    pub(super) fn fill(&self, values: &Values<'_>) -> OsString {
        let mut filled = OsString::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => filled.push(text),
                Piece::Variable(Variable::Port) => filled.push(values.port.to_string()),
                Piece::Variable(Variable::ModelName) => filled.push(values.model_name),
                Piece::Variable(Variable::ModelDir) => filled.push(values.model_dir),
            }
        }
        filled
    }
}

impl Variable {
    const ALL: [Self; 3] = [Self::Port, Self::ModelName, Self::ModelDir];

    const fn name(self) -> &'static str {
        match self {
            Self::Port => "port",
            Self::ModelName => "model-name",
            Self::ModelDir => "model-dir",
        }
    }

    fn names() -> String {
        Self::ALL.map(|variable| format!("`{{{}}}`", variable.name())).join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_and_braces_are_written_twice() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let values = Values { port: 81, model_name: "m", model_dir: Path::new("/srv/model") };
            let found = Pattern::parse(text, "x.json", "args[0]").map(|pattern| pattern.fill(&values));
            let found = found.map_err(|error| error.to_string());
            let expected = expected.map_err(|why| format!("`x.json`: `args[0]` {why}"));
            assert_eq!(found, expected.map(OsString::from), "{text}");
        };
        check("", Ok(""));
        check("--port={port}", Ok("--port=81"));
        check("{model-dir}/{model-name}.gguf", Ok("/srv/model/m.gguf"));

        check(r#"{{"port": {port}}}"#, Ok(r#"{"port": 81}"#));
        check("{{port}}", Ok("{port}"));
        check("{{{port}}}", Ok("{81}"));
        check("{prot}", Err("names `{prot}`, and the variables are `{port}`, `{model-name}`, `{model-dir}`"));
        check("{}", Err("names `{}`, and the variables are `{port}`, `{model-name}`, `{model-dir}`"));
        check("{port", Err("has a `{` without its other half; a brace itself is written twice"));
        check("port}", Err("has a `}` without its other half; a brace itself is written twice"));
    }

    #[test]
    fn a_manifest_is_checked_as_a_whole() {
        let check = |json: &str, expected: &str| {
            let found = Manifest::parse("a/b.json", json.as_bytes());
            let found = found.map_or_else(|error| error.to_string(), |manifest| manifest.health_path);
            assert_eq!(found, expected, "{json}");
        };
        check(r#"{"command":["a"]}"#, "/health");
        check(r#"{"command":["a"],"health-path":"/v1/models"}"#, "/v1/models");
        check(
            r#"{"command":["a"],"health-path":"v1"}"#,
            "`a/b.json`: `health-path` is `v1`, and a path begins with `/`",
        );
        check(r#"{"command":[],"args":["a"]}"#, "`a/b.json`: its `command` is empty");
        let names = "and the variables are `{port}`, `{model-name}`, `{model-dir}`";
        check(r#"{"command":["a","{x}"]}"#, &format!("`a/b.json`: `command[1]` names `{{x}}`, {names}"));
        check(
            r#"{"command":["a"],"args":["{port}","{x}"]}"#,
            &format!("`a/b.json`: `args[1]` names `{{x}}`, {names}"),
        );
        check(
            r#"{"command":["a"],"env":{"A":"{x}"}}"#,
            &format!("`a/b.json`: `env.A` names `{{x}}`, {names}"),
        );
    }
}
