"""Trains the tokenizer and the two models of the reference server on the text of `cacheon reference corpus`.

One file, NumPy and JAX on the CPU. Everything follows from the corpus and the seeds below; the README beside this
file has the commands. The network is Qwen2's (RMSNorm, rotary positions, grouped-query attention with biases on q, k
and v, SwiGLU, tied embeddings); the files it writes are the ones that `Qwen2ForCausalLM` reads.
"""

import argparse
import json
import math
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SYSTEM = "You answer in plain words."
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{%- if messages[0].role != 'system' %}{{- '<|im_start|>system\\n" + SYSTEM + "<|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
VOCABULARY = 768
MAIN = dict(hidden=128, layers=4, heads=4, kv_heads=2, inner=512)
DRAFT = dict(hidden=64, layers=2, heads=2, kv_heads=1, inner=192)
HEAD = 32
THETA = 10_000.0
EPSILON = 1e-6
PROMPT_WEIGHT = 0.1
BATCH = 32
# (steps, seed, rate at first, share of the steps over which the rate descends to zero)
MAIN_STAGES = [(1500, 1, 1.0, 0.5), (250, 3, 0.5, 0.0), (300, 4, 0.5, 1.0)]
DRAFT_STAGES = [(900, 2, 1.0, 0.5)]


def read(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def train_tokenizer(corpus, path):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIALS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = (text for line in corpus[:20_000] for text in (line["prompt"], line["answer"]))
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(path))
    return tokenizer


def encode(tokenizer, corpus):
    """Token ids of each exchange and the position where its answer begins."""
    heads = [
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{line['prompt']}<|im_end|>\n<|im_start|>assistant\n"
        for line in corpus
    ]
    heads = [encoding.ids for encoding in tokenizer.encode_batch(heads)]
    tails = [encoding.ids for encoding in tokenizer.encode_batch([line["answer"] + "<|im_end|>" for line in corpus])]
    return [(np.array(head + tail, np.int32), len(head)) for head, tail in zip(heads, tails)]


def pad(rows, length):
    """Token ids (batch, length) and the loss weight of predicting each of them."""
    ids = np.zeros((len(rows), length), np.int32)
    weights = np.zeros((len(rows), length), np.float32)
    for row, (tokens, start) in enumerate(rows):
        ids[row, : len(tokens)] = tokens
        weights[row, 1:start] = PROMPT_WEIGHT
        weights[row, start : len(tokens)] = 1.0
    return ids, weights


def batches(rows, rng):
    """Shuffled batches of rows of similar length, so that little is padding."""
    order = rng.permutation(len(rows))
    for start in range(0, len(order) - 16 * BATCH + 1, 16 * BATCH):
        chunk = sorted(order[start : start + 16 * BATCH], key=lambda row: len(rows[row][0]))
        groups = [chunk[first : first + BATCH] for first in range(0, len(chunk), BATCH)]
        for group in rng.permutation(len(groups)):
            members = [rows[row] for row in groups[group]]
            longest = max(len(tokens) for tokens, _ in members)
            yield pad(members, -(-longest // 32) * 32)


def initial(shape, key):
    """Stacked over layers where the name begins with `layers.`; weights are (out, in) as on disk."""
    hidden, layers, inner = shape["hidden"], shape["layers"], shape["inner"]
    kv = shape["kv_heads"] * HEAD
    sizes = {
        "embed": (VOCABULARY, hidden),
        "layers.q": (layers, hidden, hidden),
        "layers.k": (layers, kv, hidden),
        "layers.v": (layers, kv, hidden),
        "layers.o": (layers, hidden, hidden),
        "layers.gate": (layers, inner, hidden),
        "layers.up": (layers, inner, hidden),
        "layers.down": (layers, hidden, inner),
    }
    params = {}
    for name, size in sizes.items():
        key, own = jax.random.split(key)
        spread = 0.05 if name == "embed" else 1 / math.sqrt(size[-1])
        params[name] = jax.random.normal(own, size, jnp.float32) * spread
    params["layers.q_bias"] = jnp.zeros((layers, hidden))
    params["layers.k_bias"] = jnp.zeros((layers, kv))
    params["layers.v_bias"] = jnp.zeros((layers, kv))
    params["layers.norm1"] = jnp.ones((layers, hidden))
    params["layers.norm2"] = jnp.ones((layers, hidden))
    params["norm"] = jnp.ones((hidden,))
    return params


def matmul_bf16(left, right):
    return jnp.matmul(left.astype(jnp.bfloat16), right.astype(jnp.bfloat16), preferred_element_type=jnp.float32)


@jax.custom_vjp
def linear(x, weight):
    """x (rows, in) times weight (out, in): factors in bf16, sums in f32, in both directions."""
    return matmul_bf16(x, weight.T)


linear.defvjp(
    lambda x, weight: (matmul_bf16(x, weight.T), (x, weight)),
    lambda saved, grad: (matmul_bf16(grad, saved[1]), matmul_bf16(grad.T, saved[0])),
)


def exact_linear(x, weight):
    return x @ weight.T


def total(x):
    """Sum over the last axis as a product with ones: XLA's reductions on the CPU are many times slower."""
    return x @ jnp.ones((x.shape[-1], 1), x.dtype)


def rms_norm(x, weight):
    return x * jax.lax.rsqrt(total(x * x) / x.shape[-1] + EPSILON) * weight


def rotate(x, cos, sin):
    left, right = jnp.split(x, 2, -1)
    return x * cos + jnp.concatenate([-right, left], -1) * sin


def forward(params, ids, shape, linear=exact_linear):
    """Logits (batch, length, vocabulary)."""
    batch, length = ids.shape
    angles = np.outer(np.arange(length), THETA ** (-np.arange(0, HEAD, 2) / HEAD))
    angles = np.concatenate([angles, angles], -1).astype(np.float32)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    mask = jnp.tril(jnp.ones((length, length), jnp.float32))
    groups = shape["heads"] // shape["kv_heads"]
    x = (jax.nn.one_hot(ids, VOCABULARY) @ params["embed"]).reshape(batch * length, -1)
    for layer in range(shape["layers"]):
        p = {name[7:]: value[layer] for name, value in params.items() if name.startswith("layers.")}
        h = rms_norm(x, p["norm1"])
        q = (linear(h, p["q"]) + p["q_bias"]).reshape(batch, length, shape["heads"], HEAD).transpose(0, 2, 1, 3)
        k = (linear(h, p["k"]) + p["k_bias"]).reshape(batch, length, shape["kv_heads"], HEAD).transpose(0, 2, 1, 3)
        v = (linear(h, p["v"]) + p["v_bias"]).reshape(batch, length, shape["kv_heads"], HEAD).transpose(0, 2, 1, 3)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        q = q.reshape(batch, shape["kv_heads"], groups * length, HEAD)
        scores = (q @ k.transpose(0, 1, 3, 2) / math.sqrt(HEAD)).reshape(batch, -1, groups, length, length)
        # Softmax without its maximum (the scores are small) and with its sum as one more column of the values.
        weights = jnp.exp(scores) * mask
        mixed = weights.reshape(batch, -1, groups * length, length) @ jnp.concatenate([v, jnp.ones_like(v)], -1)
        mixed = mixed[..., :HEAD] / mixed[..., HEAD:]
        mixed = mixed.reshape(batch, shape["heads"], length, HEAD).transpose(0, 2, 1, 3).reshape(batch * length, -1)
        x = x + linear(mixed, p["o"])
        h = rms_norm(x, p["norm2"])
        x = x + linear(jax.nn.silu(linear(h, p["gate"])) * linear(h, p["up"]), p["down"])
    return linear(rms_norm(x, params["norm"]), params["embed"]).reshape(batch, length, -1)


def loss(params, ids, weights, shape):
    logits = forward(params, ids[:, :-1], shape, linear)
    chosen = total(logits * jax.nn.one_hot(ids[:, 1:], VOCABULARY)) - jnp.log(total(jnp.exp(logits)))
    return -jnp.sum(chosen[..., 0] * weights[:, 1:]) / jnp.sum(weights[:, 1:])


def is_matrix(name, value):
    return name.startswith("layers.") and value.ndim == 3


def orthogonal(m):
    """Newton-Schulz iteration towards the nearest semi-orthogonal matrix (the Muon optimiser, Jordan 2024)."""
    tall = m.shape[-2] > m.shape[-1]
    x = jnp.swapaxes(m, -1, -2) if tall else m
    x = x / (jnp.linalg.norm(x, axis=(-2, -1), keepdims=True) + 1e-7)
    for _ in range(5):
        a = x @ jnp.swapaxes(x, -1, -2)
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return jnp.swapaxes(x, -1, -2) if tall else x


def update(params, grads, state, rate, step):
    """Muon for the layers' matrices, Adam for everything else."""
    new_params, new_state = {}, {}
    for name, value in params.items():
        grad = grads[name]
        if is_matrix(name, value):
            momentum = 0.95 * state[name] + grad
            direction = orthogonal(grad + 0.95 * momentum)
            scale = math.sqrt(max(1.0, value.shape[-2] / value.shape[-1]))
            new_params[name] = value - rate * 0.02 * (scale * direction + 0.1 * value)
            new_state[name] = momentum
        else:
            mean, square = state[name]
            mean = 0.9 * mean + 0.1 * grad
            square = 0.98 * square + 0.02 * grad * grad
            unbiased = mean / (1 - 0.9**step) / (jnp.sqrt(square / (1 - 0.98**step)) + 1e-9)
            new_params[name] = value - rate * 0.004 * unbiased
            new_state[name] = (mean, square)
    return new_params, new_state


def train(params, shape, rows, stage, log, save):
    """One stage: a fresh optimiser, a constant rate and then a linear descent; ends at bf16 weights."""
    steps, seed, peak, descent = stage
    state = {
        name: jnp.zeros_like(value) if is_matrix(name, value) else (jnp.zeros_like(value), jnp.zeros_like(value))
        for name, value in params.items()
    }

    @jax.jit
    def advance(params, state, ids, weights, step):
        value, grads = jax.value_and_grad(loss)(params, ids, weights, shape)
        rate = peak * jnp.minimum(step / 50, 1.0) * jnp.minimum((steps + 1 - step) / max(descent * steps, 1), 1.0)
        params, state = update(params, grads, state, rate, step)
        return params, state, value

    rng, step, started = np.random.default_rng(seed), 0, time.time()
    while step < steps:
        for ids, weights in batches(rows, rng):
            step += 1
            params, state, value = advance(params, state, ids, weights, jnp.float32(step))
            if step % 50 == 0 or step == steps:
                log(f"step {step} loss {float(value):.4f} seconds {time.time() - started:.0f}")
            if step % 250 == 0:
                save(params)
            if step == steps:
                break
    return {name: value.astype(jnp.bfloat16).astype(jnp.float32) for name, value in params.items()}


def evaluate(params, rows, shape):
    """Over the answers' tokens: mean loss in nat, share that is the top one, share with probability above 0.99."""
    score = jax.jit(lambda ids: jax.nn.log_softmax(forward(params, ids, shape)))
    losses = top = sure = count = 0
    rows = sorted(rows, key=lambda row: len(row[0]))
    for first in range(0, len(rows), BATCH):
        members = rows[first : first + BATCH]
        ids, weights = pad(members, -(-max(len(tokens) for tokens, _ in members) // 32) * 32)
        logprobs = np.asarray(score(ids))[:, :-1]
        answer = weights[:, 1:] == 1.0
        chosen = np.take_along_axis(logprobs, ids[:, 1:, None], -1)[..., 0]
        losses -= chosen[answer].sum()
        top += (logprobs.argmax(-1) == ids[:, 1:])[answer].sum()
        sure += (logprobs.max(-1) > math.log(0.99))[answer].sum()
        count += answer.sum()
    return dict(loss=losses / count, top1=top / count, above_99=sure / count, tokens=int(count))


def write(folder, params, shape):
    folder.mkdir(parents=True, exist_ok=True)
    names = {
        "q": "self_attn.q_proj.weight", "k": "self_attn.k_proj.weight", "v": "self_attn.v_proj.weight",
        "q_bias": "self_attn.q_proj.bias", "k_bias": "self_attn.k_proj.bias", "v_bias": "self_attn.v_proj.bias",
        "o": "self_attn.o_proj.weight", "gate": "mlp.gate_proj.weight", "up": "mlp.up_proj.weight",
        "down": "mlp.down_proj.weight", "norm1": "input_layernorm.weight", "norm2": "post_attention_layernorm.weight",
    }
    tensors = {"model.embed_tokens.weight": params["embed"], "model.norm.weight": params["norm"]}
    for name, theirs in names.items():
        for layer in range(shape["layers"]):
            tensors[f"model.layers.{layer}.{theirs}"] = params[f"layers.{name}"][layer]
    tensors = {name: np.asarray(value.astype(jnp.bfloat16)) for name, value in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = dict(
        architectures=["Qwen2ForCausalLM"], model_type="qwen2", vocab_size=VOCABULARY, hidden_size=shape["hidden"],
        intermediate_size=shape["inner"], num_hidden_layers=shape["layers"], num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"], hidden_act="silu", max_position_embeddings=1024,
        rms_norm_eps=EPSILON, rope_theta=THETA, tie_word_embeddings=True, use_sliding_window=False,
        attention_dropout=0.0, bos_token_id=0, eos_token_id=2, torch_dtype="bfloat16",
    )
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def check(params, shape, row):
    """Logits of one exchange, rounded: what another implementation has to reproduce from the written files."""
    ids = row[0]
    logprobs = np.asarray(jax.nn.log_softmax(forward(params, ids[None], shape))[0], np.float64)
    return dict(
        ids=ids.tolist(),
        chosen=[round(float(logprobs[at, ids[at + 1]]), 6) for at in range(len(ids) - 1)],
        last=[round(float(value), 6) for value in logprobs[-1]],
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", required=True, help="JSON lines from `cacheon reference corpus --seed 1`")
    parser.add_argument("--held-out", required=True, help="JSON lines from `cacheon reference corpus --seed 2`")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    arguments = parser.parse_args()

    log = lambda text: print(text, flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    corpus, held_out = read(arguments.corpus), read(arguments.held_out)
    tokenizer = train_tokenizer(corpus, arguments.out / "tokenizer.json")
    settings = dict(
        tokenizer_class="Qwen2Tokenizer", bos_token=None, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        model_max_length=1024, chat_template=CHAT_TEMPLATE,
    )
    (arguments.out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    rows, held_out = encode(tokenizer, corpus), encode(tokenizer, held_out)
    heads = np.array([start for _, start in rows])
    tails = np.array([len(tokens) - start for tokens, start in rows])
    for name, lengths in (("chat prompt", heads), ("answer", tails)):
        log(f"{name} tokens: min {lengths.min()} mean {lengths.mean():.1f} max {lengths.max()}")

    checks = {}
    for name, shape, stages in (("main", MAIN, MAIN_STAGES), ("draft", DRAFT, DRAFT_STAGES)):
        folder = arguments.out / "draft" if name == "draft" else arguments.out
        save = lambda params: write(folder, params, shape)
        params = initial(shape, jax.random.key(stages[0][1]))
        for stage in stages:
            params = train(params, shape, rows, stage, lambda text: log(f"{name} {text}"), save)
            save(params)
            log(f"{name} parameters {sum(value.size for value in params.values())} {evaluate(params, held_out, shape)}")
        checks[name] = check(params, shape, held_out[0])
    (arguments.out / "check.json").write_text(json.dumps(checks) + "\n")


if __name__ == "__main__":
    main()
