"""GGUF of a small Llama -> the folder that vLLM and transformers load: config, tokenizer, weights in float32.

    python convert.py MODEL.gguf FOLDER

The weights are the very numbers that the GGUF file stands for: 4-bit blocks are multiplied out, and float32 holds
the products without rounding. So a server of this folder and one of the file serve the same model, and where they
differ it is by their arithmetic.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def name_of(name: str) -> str:
    """The name that transformers has for a tensor of a GGUF file."""
    if name in OUTSIDE:
        return OUTSIDE[name]
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{BLOCK[part]}.weight"


def halves_again(weight: numpy.ndarray, heads: int) -> numpy.ndarray:
    """Rows of a head as transformers rotates them, first half against second; GGUF has neighbours side by side."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def main(file: Path, folder: Path) -> None:
    reader = gguf.GGUFReader(file)

    def field(name: str):
        return reader.fields[name].contents()

    assert field("general.architecture") == "llama", "only the architecture `llama` is known here"
    heads, kv_heads = field("llama.attention.head_count"), field("llama.attention.head_count_kv")

    weights = {}
    for tensor in reader.tensors:
        weight = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        if ".attn_q." in tensor.name:
            weight = halves_again(weight, heads)
        elif ".attn_k." in tensor.name:
            weight = halves_again(weight, kv_heads)
        weights[name_of(tensor.name)] = torch.from_numpy(numpy.ascontiguousarray(weight))

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer.save_pretrained(folder)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": field("llama.embedding_length"),
        "intermediate_size": field("llama.feed_forward_length"),
        "num_hidden_layers": field("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": field("llama.context_length"),
        "rms_norm_eps": float(str(numpy.float32(field("llama.attention.layer_norm_rms_epsilon")))),
        "rope_theta": float(field("llama.rope.freq_base")),
        "vocab_size": weights["model.embed_tokens.weight"].shape[0],
        "tie_word_embeddings": "lm_head.weight" not in weights,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
