//! What files hash to: the program's own, and those of a model.
//!
//! A model does not fit into memory: files are read piece by piece.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::artifact::digest;
use crate::model::Digest;

/// Endings of the files that decide what a server of the model says: weights, configuration, tokenizer, templates.
const ENDINGS: &[&str] = &["safetensors", "gguf", "bin", "json", "jinja", "model", "tiktoken"];
/// Beginnings of text files that belong to a tokenizer; other text is for people.
const TOKENIZER_TEXTS: &[&str] = &["merges", "vocab"];

/// Digest of a file; none if it cannot be read.
pub fn file_digest(path: &Path) -> Option<Digest> {
    let mut hasher = digest::Hasher::default();
    hasher.read(fs::File::open(path).ok()?).ok()?;
    Some(hasher.finish())
}

/// Digest over a model's folder: the digests and paths of the files that matter for serving, folders below
/// included, in the order of paths. None if there is no such file, or one cannot be read.
pub fn model_digest(folder: &Path) -> Option<Digest> {
    let mut files = Vec::new();
    served_files(folder, &mut files).ok()?;
    files.sort();
    let mut listing = String::new();
    for path in &files {
        let digest = file_digest(path)?;
        let name = path.strip_prefix(folder).ok()?;
        writeln!(listing, "{digest}  {}", name.to_string_lossy()).ok()?;
    }
    (!files.is_empty()).then(|| digest::sha256(listing.as_bytes()))
}

fn served_files(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if is_hidden {
            continue;
        }
        // A linked file is a file, as in the caches of model hubs; a linked folder could lead in a circle.
        if entry.file_type()?.is_dir() {
            served_files(&path, found)?;
        } else if is_served(&path) && path.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

fn is_served(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match path.extension().and_then(OsStr::to_str) {
        Some("txt") => TOKENIZER_TEXTS.iter().any(|beginning| name.starts_with(beginning)),
        Some(ending) => ENDINGS.contains(&ending),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary directory");
        fs::write(folder.path().join("config.json"), "{}").expect("writes");
        folder
    }

    #[test]
    fn which_files_count() {
        let check = |name: &str, counts: bool| {
            let folder = folder();
            let before = model_digest(folder.path());
            assert!(before.is_some());
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("makes");
            let mut seen = vec![before];
            for content in ["one", "two"] {
                fs::write(&path, content).expect("writes");
                seen.push(model_digest(folder.path()));
            }
            let is_another = |pair: &[Option<Digest>]| pair[0] != pair[1];
            assert!(seen.windows(2).all(|pair| is_another(pair) == counts), "{name}: {seen:?}");
        };
        for name in [
            "tokenizer.json",
            "model-00001-of-00002.safetensors",
            "model.Q4_K_M.gguf",
            "pytorch_model.bin",
            "chat_template.jinja",
            "additional_chat_templates/tool.jinja",
            "tokenizer.model",
            "qwen.tiktoken",
            "merges.txt",
            "vocab.txt",
            "draft/model.safetensors",
        ] {
            check(name, true);
        }
        for name in ["README.md", "LICENSE.txt", ".cache/x.json", "train.py", "LICENSE"] {
            check(name, false);
        }
    }

    #[test]
    fn names_count_and_links_are_followed_to_files() {
        let (one, other) = (folder(), folder());
        assert_eq!(
            model_digest(one.path()),
            model_digest(other.path()),
            "the folder's own name does not count"
        );
        fs::rename(other.path().join("config.json"), other.path().join("other.json")).expect("renames");
        assert_ne!(model_digest(one.path()), model_digest(other.path()));
        symlink(other.path().join("other.json"), other.path().join("config.json")).expect("links");
        fs::remove_file(one.path().join("config.json")).expect("removes");
        symlink(other.path().join("other.json"), one.path().join("config.json")).expect("links");
        assert_eq!(model_digest(one.path()), model_digest(folder().path()));
        symlink(one.path(), one.path().join("again")).expect("links");
        assert_eq!(model_digest(one.path()), model_digest(folder().path()));
    }

    #[test]
    fn no_model() {
        let empty = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(model_digest(empty.path()), None);
        assert_eq!(model_digest(&empty.path().join("absent")), None);
        assert_eq!(file_digest(&empty.path().join("absent")), None);
    }
}
