//! The Qwen2 network on the CPU: token ids in, logits out, with a cache of keys and values that can be cut back.
//!
//! RMS norm, rotary positions, grouped-query attention with biases on queries, keys and values, SwiGLU (Qwen2
//! technical report, Yang et al. 2024), in the layout of Hugging Face's `Qwen2ForCausalLM`. One sequence at a time:
//! batching is deliberately absent. Choosing tokens is `sampler`'s and `engine`'s work.

use std::collections::HashMap;

use candle_core::{DType, Device, Module, Result, Tensor};
use candle_nn::ops::{rms_norm, silu, softmax_last_dim};
use candle_nn::rotary_emb::rope;
use serde::Deserialize;

use super::linear::{Linear, MatrixFormat};

/// The fields of `config.json` that shape the network.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    /// Number of token ids in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward part of a layer.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of heads of keys and values.
    pub num_key_value_heads: usize,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// What the RMS norm adds to the mean square before its root.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Whether the output matrix is the embedding itself.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Id of the token that ends an answer.
    pub eos_token_id: u32,
}

/// Which rows of a forward pass need logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// One row for each token that went in.
    All,
    /// The last token's row.
    Last,
}

/// Keys and values of the tokens that went through the network so far.
#[derive(Debug)]
pub struct Cache {
    layers: Vec<(Tensor, Tensor)>,
    len: usize,
}

impl Cache {
    /// Number of tokens in the cache.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no tokens in the cache.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all tokens from position `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

#[derive(Debug)]
struct Layer {
    attention_norm: Tensor,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    inner_norm: Tensor,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// The network with its weights.
#[derive(Debug)]
pub struct Model {
    config: Config,
    dtype: DType,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Linear,
    cos: Tensor,
    sin: Tensor,
}

/// Which part of the sequence a pass runs: its first position, the rotary angles from there on, and what may be seen.
struct Window {
    start: usize,
    cos: Tensor,
    sin: Tensor,
    mask: Option<Tensor>,
}

/// The tensors of one weights file, widened to f32.
struct Weights(HashMap<String, Tensor>);

impl Weights {
    fn get(&self, name: &str) -> Result<Tensor> {
        let tensor = self.0.get(name);
        tensor.ok_or_else(|| candle_core::Error::msg(format!("no tensor {name}")))?.to_dtype(DType::F32)
    }
}

impl Model {
    /// Builds the network from the bytes of `model.safetensors`.
    ///
    /// # Errors
    /// Fails when a tensor is absent or has another shape than `config` says.
    pub fn new(config: Config, weights: &[u8], format: MatrixFormat) -> Result<Self> {
        let weights = Weights(candle_core::safetensors::load_buffer(weights, &Device::Cpu)?);
        let dtype = format.dtype();
        let linear = |name: &str, out: usize, inner: usize| {
            let weight = weights.get(&format!("{name}.weight"))?;
            weight.dims2().and_then(|dims| {
                if dims == (out, inner) { Ok(()) } else { candle_core::bail!("{name} is {dims:?}") }
            })?;
            let bias = weights.get(&format!("{name}.bias")).ok();
            Linear::new(&weight, bias.as_ref(), format)
        };
        let norm = |name: &str| weights.get(&format!("{name}.weight"))?.to_dtype(dtype);
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let kv = config.num_key_value_heads * config.head_dim();
        let layers = (0..config.num_hidden_layers)
            .map(|index| {
                let at = |part: &str| format!("model.layers.{index}.{part}");
                Ok(Layer {
                    attention_norm: norm(&at("input_layernorm"))?,
                    query: linear(&at("self_attn.q_proj"), hidden, hidden)?,
                    key: linear(&at("self_attn.k_proj"), kv, hidden)?,
                    value: linear(&at("self_attn.v_proj"), kv, hidden)?,
                    output: linear(&at("self_attn.o_proj"), hidden, hidden)?,
                    inner_norm: norm(&at("post_attention_layernorm"))?,
                    gate: linear(&at("mlp.gate_proj"), inner, hidden)?,
                    up: linear(&at("mlp.up_proj"), inner, hidden)?,
                    down: linear(&at("mlp.down_proj"), hidden, inner)?,
                })
            })
            .collect::<Result<_>>()?;
        let head = if config.tie_word_embeddings { "model.embed_tokens" } else { "lm_head" };
        let (cos, sin) = config.rotary_tables()?;
        Ok(Self {
            dtype,
            embedding: weights.get("model.embed_tokens.weight")?.to_dtype(dtype)?,
            layers,
            norm: norm("model.norm")?,
            head: linear(head, config.vocab_size, hidden)?,
            cos: cos.to_dtype(dtype)?,
            sin: sin.to_dtype(dtype)?,
            config,
        })
    }

    /// The shape of the network.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// An empty cache with room for the longest sequence.
    ///
    /// # Errors
    /// Fails when the memory cannot be had.
    pub fn cache(&self) -> Result<Cache> {
        let shape =
            (self.config.num_key_value_heads, self.config.max_position_embeddings, self.config.head_dim());
        let room = || Tensor::zeros(shape, self.dtype, &Device::Cpu);
        let layers = self.layers.iter().map(|_| Ok((room()?, room()?))).collect::<Result<_>>()?;
        Ok(Cache { layers, len: 0 })
    }

    /// Runs `tokens` after those in `cache` and returns f32 logits, `(rows, vocabulary)`.
    ///
    /// # Errors
    /// Fails when the sequence would exceed the longest one, when `tokens` is empty, or has an unknown id.
    pub fn forward(&self, tokens: &[u32], cache: &mut Cache, rows: Rows) -> Result<Tensor> {
        let (start, count) = (cache.len, tokens.len());
        let ids = Tensor::from_slice(tokens, count, &Device::Cpu)?;
        let window = Window {
            start,
            cos: self.cos.narrow(0, start, count)?,
            sin: self.sin.narrow(0, start, count)?,
            mask: (count > 1).then(|| self.causal_mask(start, count)).transpose()?,
        };
        let eps = self.config.rms_norm_eps as f32;
        let mut x = self.embedding.index_select(&ids, 0)?;
        for (layer, kept) in self.layers.iter().zip(&cache.layers) {
            let h = rms_norm(&x, &layer.attention_norm, eps)?;
            x = (x + layer.attention(&h, kept, &window)?)?;
            let h = rms_norm(&x, &layer.inner_norm, eps)?;
            let inner = (silu(&layer.gate.forward(&h)?)? * layer.up.forward(&h)?)?;
            x = (x + layer.down.forward(&inner)?)?;
        }
        cache.len += count;
        let x = match rows {
            Rows::All => x,
            Rows::Last => x.narrow(0, count - 1, 1)?,
        };
        self.head.forward(&rms_norm(&x, &self.norm, eps)?)?.to_dtype(DType::F32)
    }

    /// Zero where a row may look, minus infinity where it may not: `(count, start + count)`.
    fn causal_mask(&self, start: usize, count: usize) -> Result<Tensor> {
        let reach = start + count;
        let values: Vec<f32> = (0..count * reach)
            .map(|at| if at % reach > start + at / reach { f32::NEG_INFINITY } else { 0.0 })
            .collect();
        Tensor::from_vec(values, (count, reach), &Device::Cpu)?.to_dtype(self.dtype)
    }
}

impl Layer {
    /// `h` asks the tokens in `kept`, to which its own keys and values are added.
    fn attention(&self, h: &Tensor, kept: &(Tensor, Tensor), at: &Window) -> Result<Tensor> {
        let width = kept.0.dim(2)?;
        let rotated = |x: &Tensor| rope(&heads(x, width)?.unsqueeze(0)?, &at.cos, &at.sin)?.squeeze(0);
        let query = rotated(&self.query.forward(h)?)?;
        kept.0.slice_set(&rotated(&self.key.forward(h)?)?, 1, at.start)?;
        kept.1.slice_set(&heads(&self.value.forward(h)?, width)?, 1, at.start)?;
        let reach = at.start + h.dim(0)?;
        let (keys, values) = (kept.0.narrow(1, 0, reach)?, kept.1.narrow(1, 0, reach)?);
        self.output.forward(&attend(&query, &keys, &values, at.mask.as_ref())?)
    }
}

/// `(count, heads × width)` to contiguous `(heads, count, width)`.
fn heads(x: &Tensor, width: usize) -> Result<Tensor> {
    let (count, all) = x.dims2()?;
    x.reshape((count, all / width, width))?.transpose(0, 1)?.contiguous()
}

/// Attention of queries `(heads, count, width)`: the heads that share a key are rows of one product.
fn attend(query: &Tensor, keys: &Tensor, values: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let (heads, count, width) = query.dims3()?;
    let (shared, reach, _) = keys.dims3()?;
    let query = (query.reshape((shared, heads / shared * count, width))? * (1.0 / (width as f64).sqrt()))?;
    let mut scores = query.matmul(&keys.t()?)?;
    if let Some(mask) = mask {
        let shape = scores.shape().clone();
        scores = scores.reshape((heads, count, reach))?.broadcast_add(mask)?.reshape(shape)?;
    }
    let mixed = softmax_last_dim(&scores)?.matmul(values)?;
    mixed.reshape((heads, count, width))?.transpose(0, 1)?.reshape((count, heads * width))
}

impl Config {
    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads.max(1)
    }

    /// Cosines and sines of the rotary angles, `(positions, head width / 2)`.
    fn rotary_tables(&self) -> Result<(Tensor, Tensor)> {
        let half = self.head_dim() / 2;
        let angles: Vec<f32> = (0..self.max_position_embeddings * half)
            .map(|at| {
                let frequency = self.rope_theta.powf(-((at % half) as f64) / half as f64);
                ((at / half) as f64 * frequency) as f32
            })
            .collect();
        let angles = Tensor::from_vec(angles, (self.max_position_embeddings, half), &Device::Cpu)?;
        Ok((angles.cos()?, angles.sin()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::sampler::position;

    const MAIN: &[u8] = include_bytes!("../../data/reference/model.safetensors");

    fn model(format: MatrixFormat) -> Model {
        let config = serde_json::from_slice(include_bytes!("../../data/reference/config.json")).unwrap();
        Model::new(config, MAIN, format).unwrap()
    }

    fn rows(model: &Model, tokens: &[u32], cache: &mut Cache) -> Vec<Vec<f32>> {
        model.forward(tokens, cache, Rows::All).unwrap().to_vec2().unwrap()
    }

    #[derive(Deserialize)]
    struct Check {
        ids: Vec<u32>,
        chosen: Vec<f32>,
        last: Vec<f32>,
    }

    /// The logprobs that the training script's own network gives from the same weights.
    #[test]
    fn logprobs_agree_with_the_training_script() {
        let checks: HashMap<String, Check> =
            serde_json::from_slice(include_bytes!("../../data/reference/check.json")).unwrap();
        let check = &checks["main"];
        for format in [MatrixFormat::Plain(DType::F32), MatrixFormat::Blocked(DType::F32)] {
            let model = model(format);
            let rows = rows(&model, &check.ids, &mut model.cache().unwrap());
            for (row, (id, expected)) in rows.iter().zip(check.ids[1..].iter().zip(&check.chosen)) {
                let found = position(row, *id, 0).logprob;
                assert!((found - expected).abs() < 1e-4, "{found} {expected}");
            }
            for (id, expected) in (0..).zip(&check.last) {
                let found = position(&rows[rows.len() - 1], id, 0).logprob;
                assert!((found - expected).abs() < 1e-4, "{found} {expected}");
            }
        }
    }

    #[test]
    fn the_cache_gives_what_one_pass_gives_and_can_be_cut_back() {
        let model = model(MatrixFormat::Plain(DType::F32));
        let tokens: Vec<u32> = (300..340).collect();
        let whole = rows(&model, &tokens, &mut model.cache().unwrap());
        let mut cache = model.cache().unwrap();
        rows(&model, &tokens[..10], &mut cache);
        rows(&model, &[1, 2, 3], &mut cache);
        cache.truncate(10);
        let rest = rows(&model, &tokens[10..], &mut cache);
        assert_eq!(cache.len(), tokens.len());
        for (one, other) in whole[10..].iter().flatten().zip(rest.iter().flatten()) {
            assert!((one - other).abs() < 1e-3, "{one} {other}");
        }
    }

    #[test]
    fn a_sequence_longer_than_the_context_is_an_error() {
        let model = model(MatrixFormat::Plain(DType::F32));
        assert!(model.forward(&vec![5; 1025], &mut model.cache().unwrap(), Rows::Last).is_err());
        assert!(model.forward(&[9_999], &mut model.cache().unwrap(), Rows::Last).is_err());
    }
}
