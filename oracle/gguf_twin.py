"""Write a model as GGUF, with the names, layouts and metadata that llama.cpp's converter gives it."""

import json
import math
import struct

import gguf
import numpy as np
import torch

ARCH = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma": "gemma", "gemma2": "gemma2",
        "gemma3_text": "gemma3"}
TYPE = gguf.GGMLQuantizationType
K_TYPES = [TYPE.Q2_K, TYPE.Q3_K, TYPE.Q4_K, TYPE.Q5_K, TYPE.Q6_K]
FILE_TYPE = {"f32": 0, "f16": 1, "bf16": 32, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "k_mixed": 15}
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
}
# Where a family has only two norms, the one after attention is the one before the MLP; Gemma 2 and 3 have four.
TWO_NORMS = {"post_attention_layernorm": "ffn_norm"}
FOUR_NORMS = {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
              "post_feedforward_layernorm": "post_ffw_norm"}


def write(path, model, kind, options=frozenset(), vocabulary=None):
    """Write `model` to `path` in `kind`; give back the float32 state that a reader of the file must see."""
    config = model.config
    arch = ARCH[config.model_type]
    split = {"split_max_tensors": 12} if "split" in options else {}
    writer = gguf.GGUFWriter(None, arch, **split)
    writer.add_type("model")
    writer.add_name(path.parent.name)
    metadata(writer, config, kind, options)
    (vocabulary or no_vocabulary)(writer)
    writer.add_quantization_version(2)
    state, rng = {}, np.random.default_rng(7)
    for index, (name, tensor) in enumerate(model.state_dict().items()):
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        state[name] = add(writer, config, name, tensor, kind, index, rng)
    if rope(config).get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(config))
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if "v2" in options:
        with open(path, "r+b") as file:  # versions 2 and 3 differ in nothing else on little-endian machines
            file.seek(4)
            file.write(struct.pack("<I", 2))
    return state


def add(writer, config, name, tensor, kind, index, rng):
    """Add one tensor under its GGUF name; give back what it reads as, in the layout of transformers."""
    data = tensor.detach().to(torch.float32).numpy()
    heads = permuted_heads(config, name)
    if name.endswith("norm.weight") and config.model_type.startswith("gemma"):
        writer.add_tensor(gguf_name(config, name), data + np.float32(1.0))
        return tensor
    stored = permute(data, heads) if heads else data
    if data.ndim == 1 or kind == "f32":
        writer.add_tensor(gguf_name(config, name), np.ascontiguousarray(stored))
        return tensor
    if kind == "k_mixed":
        quant = K_TYPES[index % len(K_TYPES)]
        raw = random_k_blocks(quant, stored.shape, rng)
    else:
        quant = TYPE[kind.upper()]
        raw = gguf.quantize(np.ascontiguousarray(stored), quant)
    writer.add_tensor(gguf_name(config, name), raw, raw_dtype=quant)
    read = gguf.dequantize(raw, quant).astype(np.float32).reshape(stored.shape)
    return torch.from_numpy((unpermute(read, heads) if heads else read).copy())


def gguf_name(config, name):
    """`model.layers.0.mlp.up_proj.weight` → `blk.0.ffn_up.weight`."""
    stem, suffix = name.rsplit(".", 1)
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    if stem in whole:
        return f"{whole[stem]}.{suffix}"
    _, _, layer, part = stem.split(".", 3)
    norms = FOUR_NORMS if config.model_type in ("gemma2", "gemma3_text") else TWO_NORMS
    return f"blk.{layer}.{ {**NAMES, **norms}[part] }.{suffix}"


def permuted_heads(config, name):
    """The head count whose rows the `llama` architecture interleaves, or 0."""
    if ARCH[config.model_type] != "llama":
        return 0
    return {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2], 0)


def permute(rows, heads):
    """Rows of a head from halves (all first parts, all second parts) to pairs."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def unpermute(rows, heads):
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def rope(config):
    return config.rope_parameters.get("full_attention", config.rope_parameters)


def metadata(writer, config, kind, options):
    """The hyperparameters; which family writes which key follows the converter."""
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_file_type(FILE_TYPE[kind])
    head_dim = getattr(config, "head_dim", None)
    if head_dim is not None:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if ARCH[config.model_type] == "llama":
        writer.add_vocab_size(config.vocab_size)
        writer.add_rope_dimension_count(head_dim)
    if config.model_type == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    if getattr(config, "final_logit_softcapping", None):
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if config.model_type in ("gemma2", "gemma3_text"):
        writer.add_sliding_window(config.sliding_window)
    if config.model_type not in ("gemma", "gemma2"):  # those two have a fixed base of 10,000
        rope_metadata(writer, config, options)


def rope_metadata(writer, config, options):
    parameters = rope(config)
    writer.add_rope_freq_base(parameters["rope_theta"])
    local = config.rope_parameters.get("sliding_attention")
    if local and "no_local_base" not in options:  # older converters left it out: 10,000
        writer.add_rope_freq_base_swa(local["rope_theta"])
    if parameters["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(parameters["factor"])
    if parameters["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(parameters["factor"])
        writer.add_rope_scaling_orig_ctx_len(parameters["original_max_position_embeddings"])


def llama3_factors(config):
    """Divisors of the base frequencies, which GGUF stores as a tensor instead of the four parameters."""
    p = rope(config)
    frequencies = 1.0 / (p["rope_theta"] ** (torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim))
    context, low, high = p["original_max_position_embeddings"], p["low_freq_factor"], p["high_freq_factor"]
    factors = []
    for wavelength in (2 * math.pi / frequencies).tolist():
        smooth = (context / wavelength - low) / (high - low)
        smooth = min(max(smooth, 0.0), 1.0)
        factors.append(1.0 / ((1.0 - smooth) / p["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def no_vocabulary(writer):
    writer.add_tokenizer_model("none")


def bpe_vocabulary(folder):
    """Metadata of a byte-level BPE tokenizer, read from the folder that `save_pretrained` wrote."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    special = {t["id"]: t for t in tokenizer["added_tokens"]}
    names = {i: t for t, i in tokenizer["model"]["vocab"].items()} | {i: t["content"] for i, t in special.items()}
    template = folder / "chat_template.jinja"

    def add_to(writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list([names[i] for i in range(len(names))])
        kinds = [gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL for i in range(len(names))]
        writer.add_token_types([int(k) for k in kinds])
        writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]])
        ids = {t["content"]: i for i, t in special.items()}
        writer.add_bos_token_id(ids["<|im_start|>"])
        writer.add_eos_token_id(ids["<|im_end|>"])
        writer.add_pad_token_id(ids["<|endoftext|>"])
        writer.add_add_bos_token(False)
        writer.add_chat_template(template.read_text())

    return add_to


def random_k_blocks(quant, shape, rng, deviation=0.08):
    """Blocks of random bits with block scales that give zero mean and about the given standard deviation.

    The package can read the K types and not write them; random bits reach more of a decoder than a quantiser would.
    """
    count = shape[0] * shape[1] // 256
    size = gguf.GGML_QUANT_SIZES[quant][1]
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    scale_at = {TYPE.Q2_K: 80, TYPE.Q3_K: 108, TYPE.Q4_K: 0, TYPE.Q5_K: 0, TYPE.Q6_K: 208}[quant]
    has_min = quant in (TYPE.Q2_K, TYPE.Q4_K, TYPE.Q5_K)

    def scales(d, m):
        put(blocks, scale_at, np.broadcast_to(d, count))
        if has_min:
            put(blocks, scale_at + 2, np.broadcast_to(m, count))
        return gguf.dequantize(blocks, quant).astype(np.float64)

    unit, minimum = scales(1.0, 0.0), -scales(0.0, 1.0) if has_min else 0.0
    ratio = unit.mean() / minimum.mean() if has_min else 0.0
    d = deviation / (unit - ratio * minimum).std() * rng.uniform(0.7, 1.3, count)
    scales(d, d * ratio)
    return blocks.reshape(shape[0], -1)


def put(blocks, at, values):
    blocks[:, at:at + 2] = np.asarray(values, dtype=np.float16).view(np.uint8).reshape(-1, 2)
