//! What a pass of a model reads and computes at the least, by the headers of its weights.
//!
//! Only what every token needs is counted: the layers without their experts, and the head. What is not known by its name is
//! left out, which errs downwards.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use serde::Deserialize;

use crate::ports::ModelSize;

/// Most bytes of a header; those of the largest models have some 100 KB.
const MAX_HEADER_BYTES: u64 = 64 << 20;
/// Bytes per parameter below which no lossless code of trained bf16 weights gets: their entropy (`docs/floor.md`).
const LOSSLESS_BYTES: f64 = 1.32;

/// A tensor, as a header of `safetensors` has it.
#[derive(Debug, Deserialize)]
struct Tensor {
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The least that a pass and a token of the model in a folder cost.
///
/// # Errors
/// Where there are no `*.safetensors` in it, or one cannot be read or has a header that is none.
pub fn of_folder(folder: &Path) -> io::Result<ModelSize> {
    let mut tensors = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "safetensors") {
            tensors.extend(header(&path)?);
        }
    }
    of_tensors(&tensors).ok_or_else(|| io::Error::other("no layers in `*.safetensors`"))
}

fn header(path: &Path) -> io::Result<BTreeMap<String, Tensor>> {
    let mut file = File::open(path)?;
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES {
        return Err(io::Error::other(format!("a header of {length} bytes")));
    }
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    let mut entries: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&bytes)?;
    entries.remove("__metadata__");
    let tensor = |(name, value)| Ok((name, serde_json::from_value(value)?));
    entries.into_iter().map(tensor).collect()
}

/// None where there is no layer.
fn of_tensors(tensors: &BTreeMap<String, Tensor>) -> Option<ModelSize> {
    let layer = |name: &str| {
        let (number, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
        (!rest.contains("expert")).then(|| number.parse::<u32>().ok())?
    };
    let last = tensors.keys().filter_map(|name| layer(name)).max()?;
    // A tied table of embeddings is the head.
    let head =
        if tensors.contains_key("lm_head.weight") { "lm_head.weight" } else { "model.embed_tokens.weight" };
    let (mut pass_bytes, mut token_operations) = (0.0, 0.0);
    for (name, tensor) in tensors {
        let parameters: f64 = tensor.shape.iter().map(|side| *side as f64).product();
        let stored = tensor.data_offsets.1.saturating_sub(tensor.data_offsets.0) as f64;
        let layer = layer(name);
        if layer.is_some() || name == head {
            pass_bytes += stored.min(LOSSLESS_BYTES * parameters);
        }
        if layer.is_some_and(|layer| layer < last) && tensor.shape.len() == 2 {
            token_operations += 2.0 * parameters;
        }
    }
    Some(ModelSize { pass_bytes, token_operations })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_model_is_measured_by_its_header() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/reference");
        let size = of_folder(&folder).expect("a model");
        // hidden 128, intermediate 512, 4 heads of 32, 2 of them for keys and values; a tied head of 768 tokens.
        let matrices = 2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 512;
        let small = 128 + 64 + 64 + 2 * 128;
        let parameters = 4 * (matrices + small) + 768 * 128;
        assert!((size.pass_bytes / f64::from(parameters) - LOSSLESS_BYTES).abs() < 1e-9, "{size:?}");
        assert!((size.token_operations - f64::from(2 * 3 * matrices)).abs() < 1e-9, "{size:?}");
    }

    #[test]
    fn only_what_every_token_needs_is_counted() {
        let size = |names: &[&str]| {
            let tensor = || Tensor { shape: vec![10, 10], data_offsets: (0, 100) };
            of_tensors(&names.iter().map(|name| ((*name).to_owned(), tensor())).collect())
        };
        let check = |names: &[&str], bytes: f64, operations: f64| {
            let size = size(names).expect("a model");
            assert_eq!((size.pass_bytes, size.token_operations), (bytes, operations), "{names:?}");
        };
        let layers = ["model.layers.0.a.weight", "model.layers.1.a.weight"];
        check(&layers, 200.0, 200.0);
        check(&[&layers[..], &["model.embed_tokens.weight"]].concat(), 300.0, 200.0);
        check(&[&layers[..], &["model.embed_tokens.weight", "lm_head.weight"]].concat(), 300.0, 200.0);
        check(&[&layers[..], &["model.layers.0.mlp.experts.3.up.weight", "visual.x"]].concat(), 200.0, 200.0);
        assert!(size(&["model.embed_tokens.weight"]).is_none());
    }

    #[test]
    fn what_is_no_model_is_an_error() {
        let folder = tempfile::tempdir().expect("a directory");
        assert!(of_folder(folder.path()).is_err(), "no weights");
        for bytes in [&b""[..], &[255; 16], b"\x02\0\0\0\0\0\0\0[]", b"\x0b\0\0\0\0\0\0\0{\"a\":{}}   "] {
            fs::write(folder.path().join("model.safetensors"), bytes).expect("writes");
            assert!(of_folder(folder.path()).is_err(), "{bytes:?}");
        }
        assert!(of_folder(&folder.path().join("absent")).is_err());
    }
}
