//! A command instead of an image: its words, the manifest that starts it, and a runner that has this image beside its own.

use std::os::unix::fs::symlink;
use std::path::Path;

use crate::artifact::digest::sha256;
use crate::error::Error;
use crate::model::Digest;
use crate::pipeline::RunnerSpec;
use crate::pipeline::diagnostic::Color;
use crate::pipeline::source::Source;

/// Name of the image that is made of a command.
pub(super) const IMAGE: &str = "check/command";
/// The part of it that is a folder of images.
const FOLDER: &str = "check";

/// An image of the process engine.
pub(super) struct Manifest {
    bytes: Vec<u8>,
    pub(super) digest: Digest,
}

impl Manifest {
    /// The image that runs a command line; a program that is named by a path is meant from here.
    pub(super) fn of(command: &str) -> Result<Self, Error> {
        let usage = |why: &str| Error::Usage(format!("`--command`: {why}"));
        let mut words = shlex::split(command)
            .ok_or_else(|| usage("a quote has no other half, or a `\\` nothing behind it"))?;
        let program = words.first_mut().filter(|program| !program.is_empty());
        let program = program.ok_or_else(|| usage("it is empty: say which program to start"))?;
        if program.contains('/') && !program.starts_with('{') {
            let absolute = std::path::absolute(&*program)
                .map_err(|source| Error::Machine { attempted: "find the working directory", source })?;
            *program =
                absolute.into_os_string().into_string().map_err(|_| usage("its path is not UTF-8 text"))?;
        }
        let manifest = serde_json::json!({ "description": "the command that `cacheon check` was given", "command": words });
        let bytes = format!("{manifest:#}\n").into_bytes();
        let digest = sha256(&bytes);
        Ok(Self { bytes, digest })
    }

    /// The runner with this image beside its own, which lie below `folder`; it is made.
    pub(super) fn beside(
        &self,
        (spec, source): (RunnerSpec, Source),
        folder: &Path,
    ) -> Result<(RunnerSpec, Source), Error> {
        let own = spec.images.as_deref().map_or(Path::new(""), Path::new);
        let entries =
            std::fs::read_dir(own).map_err(|source| Error::Unreadable { path: own.to_owned(), source })?;
        let machine = |source| Error::Machine { attempted: "write the image of the command", source };
        std::fs::create_dir_all(folder.join(FOLDER)).map_err(machine)?;
        for entry in entries {
            let entry = entry.map_err(|source| Error::Unreadable { path: own.to_owned(), source })?;
            if entry.file_name() != FOLDER {
                let target = std::path::absolute(entry.path()).map_err(machine)?;
                symlink(target, folder.join(entry.file_name())).map_err(machine)?;
            }
        }
        std::fs::write(folder.join(format!("{IMAGE}.json")), &self.bytes).map_err(machine)?;
        with_images((&spec, &source), folder)
    }
}

/// The runner with another folder of images, everything else left as it is written.
fn with_images((spec, source): (&RunnerSpec, &Source), folder: &Path) -> Result<(RunnerSpec, Source), Error> {
    let invalid = || {
        Error::Invalid(format!(
            "error: `{}`: its `images` cannot be replaced: write the key at the beginning of a line, and the folder behind it",
            source.path
        ))
    };
    let folder = folder.to_str().ok_or_else(invalid)?;
    // A text in JSON is one in YAML too.
    let line = format!("images: {}", serde_json::Value::from(folder));
    let lines = source.text.lines().map(|old| if old.starts_with("images:") { line.as_str() } else { old });
    let text = lines.fold(String::new(), |text, line| text + line + "\n");
    let source = Source::new(&source.path, &text);
    let parsed =
        RunnerSpec::parse(&source).map_err(|found| Error::Invalid(found.render(Color::Never)))?.value;
    let wanted = RunnerSpec { images: Some(folder.to_owned()), ..spec.clone() };
    if parsed == wanted { Ok((parsed, source)) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runner_gets_another_folder_of_images_and_stays_what_it_is() {
        let check = |text: &str, expected: bool| {
            let source = Source::new("r.yml", text);
            let spec = RunnerSpec::parse(&source).expect("a runner").value;
            let found = with_images((&spec, &source), Path::new("/x/a \"b\": #c"));
            assert_eq!(found.is_ok(), expected, "{text}: {:?}", found.as_ref().err());
            if let Ok((found, _)) = found {
                assert_eq!(found.images.as_deref(), Some("/x/a \"b\": #c"));
                assert_eq!(found.labels, spec.labels);
            }
        };
        check("name: a\nlabels: [b]\nengine: process\nimages: data/demo/images # here\ncapacity: 2\n", true);
        check("{ name: a, engine: process, images: data/demo/images }\n", false);
        check("name: a\nengine: process\nimages:\n  data/demo/images\n", false);
    }

    #[test]
    fn a_command_that_is_none_is_refused() {
        let check = |command: &str, expected: &str| {
            let error = Manifest::of(command).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(expected), "{command}: {error}");
        };
        check("  ", "it is empty");
        check("''", "it is empty");
        check("# a comment", "it is empty");
        for torn in ["a 'b", "a \"b", "a \\"] {
            check(torn, "a quote has no other half, or a `\\` nothing behind it");
        }
        let there = Manifest::of("./serve --port {port}").expect("a command");
        let text = String::from_utf8(there.bytes).expect("text");
        let manifest: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let program = manifest["command"][0].as_str().expect("a word");
        assert!(program.starts_with('/') && program.ends_with("/serve"), "{program}");
        let words = Manifest::of(r#"serve 'a b' "c\"d" e\ f '' {port} $HOME *"#).expect("a command");
        let manifest: serde_json::Value = serde_json::from_slice(&words.bytes).expect("JSON");
        let expected = ["serve", "a b", "c\"d", "e f", "", "{port}", "$HOME", "*"];
        assert_eq!(manifest["command"], serde_json::json!(expected), "parted, and nothing expanded");
    }
}
