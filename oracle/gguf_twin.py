"""Write a model as GGUF, with the names, layouts and metadata that llama.cpp's converter gives it."""

import copy
import json
import math
import re
import struct

import gguf
import numpy as np
import torch

ARCH = {
    "llama": "llama", "mistral": "llama", "internlm2": "internlm2", "internlm3": "llama", "minicpm": "minicpm", "qwen2": "qwen2", "qwen3": "qwen3", "gemma": "gemma",
    "gemma2": "gemma2", "gemma3_text": "gemma3", "gemma3n_text": "gemma3n", "gemma4_text": "gemma4", "phi3": "phi3", "phi": "phi2", "smollm3": "smollm3", "olmo": "olmo",
    "olmo2": "olmo2", "olmo3": "olmo2", "granite": "granite", "cohere": "command-r", "cohere2": "cohere2", "glm": "chatglm",
    "glm4": "glm4", "starcoder2": "starcoder2", "stablelm": "stablelm", "gpt_neox": "gptneox", "gpt2": "gpt2",
    "gpt_bigcode": "starcoder", "falcon": "falcon", "bloom": "bloom", "ernie4_5": "ernie4_5", "nemotron": "nemotron",
    "deepseek_v2": "deepseek2", "deepseek_v3": "deepseek2",
    "mixtral": "llama", "qwen2_moe": "qwen2moe", "qwen3_moe": "qwen3moe",
    "olmoe": "olmoe", "glm4_moe": "glm4moe", "dots1": "dots1", "ernie4_5_moe": "ernie4_5-moe", "granitemoe": "granitemoe",
    "phimoe": "phimoe", "minimax_m2": "minimax-m2",
    "gpt_oss": "gpt-oss", "llama4_text": "llama4", "hunyuan_v1_dense": "hunyuan-dense", "hunyuan_v1_moe": "hunyuan-moe",
    "qwen3_next": "qwen3next", "qwen3_5_text": "qwen35", "qwen3_5_moe_text": "qwen35moe",
    "granitemoehybrid": "granitehybrid", "nemotron_h": "nemotron_h", "falcon_h1": "falcon-h1", "lfm2": "lfm2", "lfm2_moe": "lfm2moe",
    "mamba2": "mamba2", "mamba": "mamba", "falcon_mamba": "mamba", "jamba": "jamba",
    "arcee": "arcee", "mpt": "mpt", "jais2": "jais2", "exaone4": "exaone4", "seed_oss": "seed_oss",
}
# Architectures whose converter interleaves the rows of q and k.
PERMUTED = {"llama", "internlm2", "minicpm", "smollm3", "olmo", "granite", "granitemoe", "granitehybrid", "arcee"}
# What published files call the way that text is split before merging; those that are not here have SentencePiece.
PRE = {
    "qwen2": "qwen2", "qwen2_moe": "qwen2", "qwen3": "qwen2", "qwen3_moe": "qwen2", "qwen3_next": "qwen2", "dots1": "qwen2",
    "qwen3_5_text": "qwen35", "qwen3_5_moe_text": "qwen35", "phi": "phi-2", "smollm3": "smaug-bpe", "olmo": "olmo", "olmoe": "olmo",
    "gpt_neox": "olmo", "olmo2": "dbrx", "olmo3": "dbrx", "granite": "refact", "granitemoe": "refact", "cohere": "command-r",
    "cohere2": "command-r", "glm": "chatglm-bpe", "glm4": "glm4", "glm4_moe": "glm4", "starcoder2": "starcoder",
    "gpt_bigcode": "starcoder", "stablelm": "stablelm2", "gpt2": "gpt-2", "falcon": "falcon", "bloom": "bloom", "mpt": "mpt",
    "deepseek_v2": "deepseek-llm", "deepseek_v3": "deepseek-v3", "minimax_m2": "minimax-m2", "gpt_oss": "gpt-4o", "llama4_text": "llama4",
    "hunyuan_v1_dense": "hunyuan-dense", "hunyuan_v1_moe": "hunyuan", "arcee": "llama-bpe", "jais2": "jais-2", "exaone4": "exaone4",
    "seed_oss": "seed-coder", "granitemoehybrid": "refact", "nemotron_h": "tekken", "falcon_h1": "falcon-h1", "lfm2": "lfm2",
    "lfm2_moe": "lfm2", "mamba2": "olmo", "mamba": "olmo", "falcon_mamba": "falcon",
}
TYPE = gguf.GGMLQuantizationType
K_TYPES = [TYPE.Q2_K, TYPE.Q3_K, TYPE.Q4_K, TYPE.Q5_K, TYPE.Q6_K]
FILE_TYPE = {"f32": 0, "f16": 1, "bf16": 32, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "k_mixed": 15}


def write(path, model, kind, options=frozenset(), vocabulary=None):
    """Write `model` to `path` in `kind`; give back the float32 state that a reader of the file must see."""
    config = copy.deepcopy(model.config)
    config.allow_global_per_layer_attribute_access = True  # that of layers with a window
    arch = arch_name(config)
    split = {"split_max_tensors": 12} if "split" in options else {}
    writer = gguf.GGUFWriter(None, arch, **split)
    writer.add_type("model")
    writer.add_name(path.parent.name)
    metadata(writer, config, kind, options)
    (vocabulary or small_vocabulary(config))(writer)
    writer.add_quantization_version(2)
    state, rng = {}, np.random.default_rng(7)
    for index, (name, tensor) in enumerate(unjoin_experts(config, stack_streams(stack_head_norms(model.state_dict()))).items()):
        if name == "lm_head.weight" and config.tie_word_embeddings or name.endswith((".attn.bias", ".masked_bias")):
            continue
        state[name] = add(writer, config, name, tensor, kind, index, rng, options)
    if rope(config).get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(config))
    if rope(config).get("rope_type") == "proportional":
        writer.add_tensor("rope_freqs.weight", proportional_factors(config))
    if rope(config).get("rope_type") == "longrope":
        for length in ("long", "short"):
            writer.add_tensor(f"rope_factors_{length}.weight", np.array(rope(config)[f"{length}_factor"], dtype=np.float32))
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if "v2" in options:
        with open(path, "r+b") as file:  # versions 2 and 3 differ in nothing else on little-endian machines
            file.seek(4)
            file.write(struct.pack("<I", 2))
    return state


def arch_name(config):
    """Nemotron H with experts has a name of its own."""
    experts = config.model_type == "nemotron_h" and "moe" in config.layers_block_type
    return ARCH[config.model_type] + ("_moe" if experts else "")


def add(writer, config, name, tensor, kind, index, rng, options):
    """Add one tensor under its GGUF name; give back what it reads as, in the layout of transformers."""
    data = tensor.detach().to(torch.float32).numpy()
    data = data.squeeze() if name.endswith("e_score_correction_bias") else data
    if ".kv_b_proj." in name and "whole" not in options:
        for part, rows in latent_parts(config, data).items():
            writer.add_tensor(gguf_name(config, name.replace("kv_b_proj", part)), *stored_as(rows, kind))
        return tensor
    if ".linear_attn." in name:
        for part, rows in delta_parts(config, name, data).items():
            writer.add_tensor(f"blk.{name.split('.layers.')[1].split('.')[0]}.{part}", *stored_as(rows, "f32" if rows.ndim == 1 or "conv1d" in part else kind))
        return tensor
    if config.model_type in STATES:
        for part, rows in state_parts(config, name, data).items():
            writer.add_tensor(part, *stored_as(rows, "f32" if rows.ndim == 1 or "conv" in part or part.endswith(("ssm_a", "ssm_d", "norm.weight")) else kind))
        return tensor
    heads = permuted_heads(config, name)
    if config.model_type == "gemma4_text" and name.endswith(("router.scale", "router.per_expert_scale", "layer_scalar")):
        stem = {"scale": "ffn_gate_inp.scale", "per_expert_scale": "ffn_down_exps.scale", "layer_scalar": "layer_output_scale.weight"}
        writer.add_tensor(f"blk.{name.split('.layers.')[1].split('.')[0]}.{stem[name.split('.')[-1]]}", data)
        return tensor
    if name.endswith("norm.weight") and config.model_type not in ("gemma3n_text", "gemma4_text") and config.model_type.startswith(("gemma", "nemotron", "qwen3_next", "qwen3_5")):
        writer.add_tensor(gguf_name(config, name), data + np.float32(1.0))
        return tensor
    stored = permute(data, heads) if heads else restack(config, name, data)
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
    if np.array_equal(read, stored):
        return tensor
    return torch.from_numpy((unpermute(read, heads) if heads else read).copy())


def latent_parts(config, rows):
    """What takes queries into the space of compressed keys, rows and columns exchanged, and values out of it; head by head."""
    heads = rows.reshape(config.num_attention_heads, -1, rows.shape[-1])
    keys, values = heads[:, :config.qk_nope_head_dim], heads[:, config.qk_nope_head_dim:]
    return {"k_b_proj": keys.swapaxes(1, 2), "v_b_proj": values}


def delta_parts(config, name, rows):
    """A tensor of a delta net as the converter stores it: joined ones apart, and for Qwen 3.5 the value heads of different
    key heads in turn."""
    k_heads, v_heads, k_dim, v_dim = (getattr(config, f"linear_{key}") for key in (
        "num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim"))
    group = v_heads // k_heads

    def tiled(rows, dim):  # rows of value heads
        if config.model_type == "qwen3_next":
            return rows
        return rows.reshape(k_heads, group, dim, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)

    def after_keys(rows):
        return np.concatenate([rows[:2 * k_heads * k_dim], tiled(rows[2 * k_heads * k_dim:], v_dim)])

    match name.split("linear_attn.")[1]:
        case "in_proj_qkvz.weight":
            parts = rows.reshape(k_heads, -1, rows.shape[-1])
            q, k, v, z = (p.reshape(-1, rows.shape[-1]) for p in np.split(parts, np.cumsum([k_dim, k_dim, group * v_dim]), axis=1))
            return {"attn_qkv.weight": np.concatenate([q, k, v]), "attn_gate.weight": z}
        case "in_proj_ba.weight":
            return {"ssm_ba.weight": rows}
        case "in_proj_qkv.weight":
            return {"attn_qkv.weight": after_keys(rows)}
        case "in_proj_z.weight":
            return {"attn_gate.weight": tiled(rows, v_dim)}
        case "in_proj_b.weight":
            return {"ssm_beta.weight": tiled(rows, 1)}
        case "in_proj_a.weight":
            return {"ssm_alpha.weight": tiled(rows, 1)}
        case "conv1d.weight":
            return {"ssm_conv1d.weight": after_keys(rows[:, 0])}
        case "A_log":
            return {"ssm_a": tiled(-np.exp(rows), 1)}
        case "dt_bias":
            return {"ssm_dt.bias": tiled(rows, 1)}
        case "norm.weight":
            return {"ssm_norm.weight": rows}
        case "out_proj.weight":
            return {"ssm_out.weight": tiled(rows.T, v_dim).T}
    raise ValueError(name)


# Families with states of their own kinds, whose tensors `state_parts` names.
STATES = {"granitemoehybrid", "nemotron_h", "falcon_h1", "lfm2", "lfm2_moe", "mamba2", "mamba", "falcon_mamba", "jamba"}


def state_parts(config, name, rows):
    """A tensor of a family with recurrent states, by the names and shapes that the converter gives it."""
    kind = config.model_type
    rows = scaled(config, name, rows) if kind == "falcon_h1" else rows
    groups = next((getattr(config, key) for key in ("mamba_n_groups", "n_groups") if hasattr(config, key)), 1)
    if name.endswith(("dt_bias", ".A_log", ".D")):
        block = f"blk.{re.search(r'layers[.]([0-9]+)[.]', name)[1]}"
        if name.endswith("dt_bias"):
            return {f"{block}.ssm_dt.bias": rows}
        rows = rows if rows.ndim == 2 or kind in ("mamba", "falcon_mamba", "jamba") else rows.reshape(-1, 1)
        return {f"{block}.ssm_a": -np.exp(rows)} if name.endswith(".A_log") else {f"{block}.ssm_d": rows}
    if "conv1d.weight" in name or "conv.conv.weight" in name:
        rows = rows[:, 0]
    if name.endswith((".mamba.norm.weight", ".mixer.norm.weight")):
        rows = rows.reshape(groups, -1)
    if "shared_mlp.input_linear" in name:
        block = name.split(".")[2]
        suffix = "_shexp" if config.num_local_experts else ""
        return {f"blk.{block}.ffn_{part}{suffix}.weight": half for part, half in zip(("gate", "up"), np.split(rows, 2))}
    if "shared_mlp.output_linear" in name:
        return {f"blk.{name.split('.')[2]}.ffn_down{'_shexp' if config.num_local_experts else ''}.weight": rows}
    for old, new in (("mixer.experts", "mlp.experts"), ("feed_forward.experts", "mlp.experts")):
        if old in name:
            return {gguf_name(config, name.replace(old, new).replace("backbone.", "model.")): rows}
    if kind in ("nemotron_h", "mamba2", "mamba", "falcon_mamba"):
        name = name.replace("model.", "backbone.", 1)
    if name.endswith("feed_forward.expert_bias"):
        name += ".bias"
    if name.endswith("e_score_correction_bias"):
        return {f"blk.{name.split('.')[2]}.exp_probs_b.bias": rows.squeeze()}
    heads = permuted_heads(config, name)
    return {gguf_name(config, name): permute(rows, heads) if heads else rows}


def scaled(config, name, rows):
    """Falcon H1's factors are multiplied into its matrices."""
    c = config
    if name.endswith("in_proj.weight"):
        inner, shared = c.mamba_d_ssm or c.mamba_expand * c.hidden_size, c.mamba_n_groups * c.mamba_d_state
        factors = np.repeat(np.array(c.ssm_multipliers), [inner, inner, shared, shared, c.mamba_n_heads]) * c.ssm_in_multiplier
        return rows * factors[:, None].astype(np.float32)
    factors = {"down_proj": c.mlp_multipliers[1], "gate_proj": c.mlp_multipliers[0], "k_proj": c.key_multiplier * c.attention_in_multiplier,
               "q_proj": c.attention_in_multiplier, "v_proj": c.attention_in_multiplier, "o_proj": c.attention_out_multiplier,
               "out_proj": c.ssm_out_multiplier, "lm_head": c.lm_head_multiplier, "embed_tokens": c.embedding_multiplier}
    return rows * np.float32(factors.get(name.split(".")[-2], 1.0))


def state_metadata(writer, config):
    """What the converter says of families with recurrent states besides, and in other words."""
    kind, c = config.model_type, config
    types = getattr(c, "layers_block_type", None) or getattr(c, "layer_types", None) or []
    attends = [name in ("attention", "full_attention") for name in types]
    if kind in ("granitemoehybrid", "nemotron_h", "lfm2", "lfm2_moe", "jamba"):
        writer.add_head_count_kv([c.num_key_value_heads if own else 0 for own in attends])
    if kind == "nemotron_h":
        width = c.moe_intermediate_size if "moe" in types else c.intermediate_size
        writer.add_feed_forward_length([width if name in ("moe", "mlp") else 0 for name in types])
        writer.add_expert_shared_feed_forward_length(c.moe_shared_expert_intermediate_size)
        writer.add_expert_weights_norm(c.norm_topk_prob)
        writer.add_expert_weights_scale(c.routed_scaling_factor)
        writer.add_expert_group_count(c.n_group)
        if c.moe_latent_size:
            writer.add_moe_latent_size(c.moe_latent_size)
    if kind == "granitemoehybrid":
        writer.add_rope_scaling_finetuned(c.position_embedding_type == "rope")
    if kind in ("lfm2", "lfm2_moe"):
        writer.add_shortconv_l_cache(c.conv_L_cache)
    if kind == "lfm2_moe":
        writer.add_leading_dense_block_count(c.num_dense_layers)
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    first = lambda *keys: next((v for v in (getattr(c, k, None) for k in keys) if v is not None), None)
    if kind in ("mamba", "falcon_mamba", "jamba"):
        writer.add_ssm_conv_kernel(first("conv_kernel", "mamba_d_conv"))
        writer.add_ssm_inner_size(int(c.mamba_expand * c.hidden_size) if kind == "jamba" else c.intermediate_size)
        writer.add_ssm_state_size(first("state_size", "mamba_d_state"))
        writer.add_ssm_time_step_rank(first("time_step_rank", "mamba_dt_rank"))
        if kind != "jamba":
            writer.add_ssm_dt_b_c_rms(kind == "falcon_mamba")
    elif kind not in ("lfm2", "lfm2_moe"):
        heads = first("mamba_n_heads", "mamba_num_heads", "num_heads")
        size = first("mamba_d_head", "mamba_head_dim", "head_dim")
        writer.add_ssm_conv_kernel(first("mamba_d_conv", "conv_kernel"))
        writer.add_ssm_state_size(first("mamba_d_state", "ssm_state_size", "state_size"))
        writer.add_ssm_group_count(first("mamba_n_groups", "n_groups"))
        writer.add_ssm_inner_size(heads * size)
        writer.add_ssm_time_step_rank(heads)


def stored_as(rows, kind):
    """The arguments of `add_tensor`."""
    rows = np.ascontiguousarray(rows)
    if kind == "f32":
        return (rows,)
    return gguf.quantize(rows, TYPE[kind.upper()]), None, TYPE[kind.upper()]


def gguf_name(config, name):
    """`model.layers.0.mlp.up_proj.weight` → `blk.0.ffn_up.weight`, by the converter's own table."""
    arch = next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == arch_name(config))
    name = name.replace("e_score_correction_bias", "e_score_correction.bias").replace(".gate.e_score", ".e_score")
    name = name.replace("block_sparse_moe.router", "block_sparse_moe.router.layer").replace(".gate.moe_statics", ".moe_statics")
    name = name.replace("block_sparse_moe.experts", "mlp.experts")
    if config.model_type == "phimoe":
        name = name.replace("mlp.router", "mlp.gate")
    if config.model_type == "bloom":
        name = name.removeprefix("transformer.")
    name = name.replace("e_score_correction_bias", "e_score_correction.bias")
    found = gguf.get_tensor_name_map(arch, config.num_hidden_layers).get_name(name, try_suffixes=(".weight", ".bias"))
    assert found, name
    return found


def stack_head_norms(state):
    """The norms of heads that are a tensor each become one tensor, a row a head."""
    stacked = {}
    for name, tensor in state.items():
        if match := re.fullmatch(r"(.*)_layernorm\.norms\.(\d+)\.weight", name):
            stacked.setdefault(f"{match[1]}_layernorm.weight", []).append(tensor)
        else:
            stacked[name] = tensor
    return {n: torch.stack(t) if isinstance(t, list) else t for n, t in stacked.items()}


def stack_streams(state):
    """The matrices of further residual streams of Gemma 3n become one tensor; factors get a suffix."""
    stacked = {}
    for name, tensor in state.items():
        if match := re.fullmatch(r"(.*altup_(?:unembed_)?projections)\.(\d+)\.weight", name):
            stacked.setdefault(f"{match[1]}.weight", []).append(tensor)
        else:
            stacked[name + ".weight" if name.endswith("correct_output_scale") else name] = tensor
    return {n: torch.stack(t) if isinstance(t, list) else t for n, t in stacked.items()}


def unjoin_experts(config, state):
    """Gates and ups of all experts as tensors of their own, outputs by inputs."""
    by_inputs = config.model_type in ("gpt_oss", "llama4_text")
    apart = {}
    for name, tensor in state.items():
        tensor = tensor.transpose(1, 2) if by_inputs and name.endswith(("experts.gate_up_proj", "experts.down_proj")) else tensor
        suffix = ".bias" if name.endswith("_bias") else ".weight"
        stem = name.removesuffix("_bias")
        if stem.endswith("experts.gate_up_proj") and config.model_type == "gemma4_text":
            apart[stem + suffix] = tensor
        elif stem.endswith("experts.gate_up_proj"):
            halves = (tensor[:, ::2], tensor[:, 1::2]) if config.model_type == "gpt_oss" else tensor.chunk(2, dim=1)
            for part, half in zip(("gate_proj", "up_proj"), halves):
                apart[stem.replace("gate_up_proj", part) + suffix] = half.contiguous()
        elif stem.endswith(("experts.down_proj", "experts.up_proj")):
            apart[stem + suffix] = tensor.contiguous()
        else:
            apart[name + ".weight" if name.endswith(".sinks") else name] = tensor
    return apart


def restack(config, name, rows):
    """Queries, keys and values from one KV head after the other to all queries, all keys, all values."""
    if config.model_type == "gpt2" and rows.ndim == 2 and ".h." in name:
        return rows.T  # outputs by inputs
    if config.model_type not in ("gpt_neox", "bloom", "falcon") or "query_key_value" not in name:
        return rows
    heads, kv_heads = config.num_attention_heads, kv_head_count(config)
    parts = rows.reshape(kv_heads, heads // kv_heads + 2, -1, *rows.shape[1:])
    q, k, v = parts[:, :-2], parts[:, -2], parts[:, -1]
    return np.concatenate([part.reshape(-1, *rows.shape[1:]) for part in (q, k, v)])


def kv_head_count(config):
    if config.model_type == "gpt_bigcode" or config.model_type == "falcon" and not config.new_decoder_architecture:
        return 1 if config.multi_query else config.num_attention_heads
    for key in ("num_kv_heads", "num_key_value_heads"):
        if getattr(config, key, None) and config.model_type not in ("bloom", "gpt_neox"):
            return getattr(config, key)
    return config.num_attention_heads


def permuted_heads(config, name):
    """The head count whose rows the `llama` architecture interleaves, or 0."""
    if ARCH[config.model_type] not in PERMUTED:
        return 0
    return {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2], 0)


def permute(rows, heads):
    """Rows of a head from halves (all first parts, all second parts) to pairs."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def unpermute(rows, heads):
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def rope(config):
    parameters = getattr(config, "rope_parameters", None) or {}
    return parameters.get("full_attention", parameters)


def metadata(writer, config, kind, options):
    """The hyperparameters; which family writes which key follows the converter."""
    first = lambda *keys: next((v for v in (getattr(config, k, None) for k in keys) if v is not None), None)
    kind_of_model = config.model_type
    writer.add_context_length(first("max_position_embeddings", "n_positions") or 2048)
    writer.add_embedding_length(config.hidden_size)
    further = config.num_mtp_layers if kind_of_model == "glm4_moe" else 0
    writer.add_block_count(config.num_hidden_layers + further)
    if further:  # counted, and not among the tensors here
        writer.add_nextn_predict_layers(further)
    states = kind_of_model in STATES
    if states:
        state_metadata(writer, config)
    if kind_of_model in ("mamba2", "mamba", "falcon_mamba"):
        writer.add_feed_forward_length(0)
        writer.add_head_count(0)
        writer.add_layer_norm_rms_eps(config.layer_norm_epsilon)
        writer.add_file_type(FILE_TYPE[kind])
        return
    gemma4 = kind_of_model == "gemma4_text"
    if gemma4:
        gemma4_metadata(writer, config)
    elif kind_of_model == "gemma3n_text":
        gemma3n_metadata(writer, config)
    elif kind_of_model != "nemotron_h":
        writer.add_feed_forward_length(first("intermediate_size_mlp", "intermediate_size", "ffn_hidden_size", "n_inner") or 4 * config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    latent = getattr(config, "kv_lora_rank", None)
    if not gemma4 and (not states or kind_of_model == "falcon_h1"):
        writer.add_head_count_kv(1 if latent and "whole" not in options else kv_head_count(config))
    if states:
        writer.add_layer_norm_rms_eps(first("rms_norm_eps", "layer_norm_epsilon", "norm_eps"))
    elif first("rms_norm_eps") is not None:
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    else:
        writer.add_layer_norm_eps(first("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps") or 1e-5)
    writer.add_file_type(FILE_TYPE[kind])
    head_dim = getattr(config, "head_dim", None)
    if latent:
        latent_metadata(writer, config, options)
    elif head_dim is not None and not gemma4:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    partial = rope(config).get("partial_rotary_factor")
    if ARCH[kind_of_model] == "llama":
        writer.add_vocab_size(config.vocab_size)
        writer.add_rope_dimension_count(head_dim or config.hidden_size // config.num_attention_heads)
    elif partial is not None and not gemma4:
        writer.add_rope_dimension_count(int((head_dim or config.hidden_size // config.num_attention_heads) * partial))
    experts = first("num_local_experts", "num_experts", "n_routed_experts")
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(first("num_experts_per_tok", "top_k_experts"))
        if first("moe_intermediate_size"):
            writer.add_expert_feed_forward_length(config.moe_intermediate_size)
        deepseek_experts(writer, config)
        if first("shared_expert_intermediate_size"):
            writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
    if first("linear_num_key_heads"):
        writer.add_ssm_conv_kernel(config.linear_conv_kernel_dim)
        writer.add_ssm_state_size(config.linear_key_head_dim)
        writer.add_ssm_group_count(config.linear_num_key_heads)
        writer.add_ssm_time_step_rank(config.linear_num_value_heads)
        writer.add_ssm_inner_size(config.linear_value_head_dim * config.linear_num_value_heads)
        writer.add_full_attention_interval(4)
    if getattr(config, "clip_qkv", None):
        writer.add_clamp_kqv(config.clip_qkv)
    if kind_of_model == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    if getattr(config, "final_logit_softcapping", None):
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if kind_of_model in ("gemma2", "gemma3_text", "phi3", "olmo3", "cohere2", "exaone4", "starcoder2", "gpt_oss"):
        if config.sliding_window or kind_of_model == "phi3":
            writer.add_sliding_window(config.sliding_window or 0)
    if kind_of_model in ("gpt_neox", "stablelm"):
        writer.add_parallel_residual(config.use_parallel_residual)
    if kind_of_model in ("cohere", "cohere2"):
        writer.add_logit_scale(config.logit_scale)
    if kind_of_model in ("granite", "granitemoe", "granitemoehybrid"):
        writer.add_attention_scale(config.attention_multiplier)
    if kind_of_model in ("granite", "granitemoe", "granitemoehybrid", "minicpm"):
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_logit_scale(config.logits_scaling)
    if rope(config) and kind_of_model not in ("gemma", "gemma2"):  # those two have a fixed base of 10,000
        rope_metadata(writer, config, options)


def wide(config, key):
    """What layers of Gemma 4 without a window have of their own."""
    return getattr(config.per_layer_config[config.layer_types.index("full_attention")], key)


def gemma4_metadata(writer, config):
    """Heads of both kinds of layers, and what layers share and read besides."""
    slides = [kind == "sliding_attention" for kind in config.layer_types]
    shared = config.num_kv_shared_layers
    writer.add_shared_kv_layers(shared)
    writer.add_embedding_length_per_layer_input(config.hidden_size_per_layer_input or 0)
    writer.add_sliding_window(config.sliding_window)
    writer.add_sliding_window_pattern(slides)
    writer.add_key_length(wide(config, "head_dim"))
    writer.add_value_length(wide(config, "head_dim"))
    writer.add_key_length_swa(config.head_dim)
    writer.add_value_length_swa(config.head_dim)
    if config.use_double_wide_mlp:
        widths = [config.intermediate_size * (1 + (i >= config.num_hidden_layers - shared)) for i in range(config.num_hidden_layers)]
    else:
        widths = config.intermediate_size
    writer.add_feed_forward_length(widths)
    own = wide(config, "num_key_value_heads")
    writer.add_head_count_kv([config.num_key_value_heads if local else own for local in slides] if own != config.num_key_value_heads else own)
    writer.add_rope_dimension_count(wide(config, "head_dim"))
    writer.add_rope_dimension_count_swa(config.head_dim)


def gemma3n_metadata(writer, config):
    """Residual streams, cuts as deviations, and what layers share and read besides."""
    writer.add_altup_active_idx(config.altup_active_idx)
    writer.add_altup_num_inputs(config.altup_num_inputs)
    writer.add_embedding_length_per_layer_input(config.hidden_size_per_layer_input)
    writer.add_shared_kv_layers(config.num_kv_shared_layers)
    normal = torch.distributions.normal.Normal(0, 1)
    writer.add_activation_sparsity_scale([normal.icdf(torch.tensor(part, dtype=torch.float32)).item() for part in config.activation_sparsity_pattern])
    writer.add_sliding_window(config.sliding_window)
    writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])
    writer.add_feed_forward_length(config.intermediate_size)


def deepseek_experts(writer, config):
    """What the converter says of experts that are scored by sigmoid, or as DeepSeek has them."""
    kind = config.model_type
    if kind in ("glm4_moe", "dots1"):
        writer.add_leading_dense_block_count(config.first_k_dense_replace)
        writer.add_expert_shared_count(config.n_shared_experts)
        writer.add_expert_weights_scale(config.routed_scaling_factor)
        writer.add_expert_weights_norm(config.norm_topk_prob)
    if kind in ("glm4_moe", "dots1", "minimax_m2"):
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    if kind == "llama4_text":
        writer.add_interleave_moe_layer_step(config.interleave_moe_layer_step)
    if kind in ("minimax_m2", "gpt_oss", "llama4_text"):
        writer.add_expert_feed_forward_length(config.intermediate_size)
    if kind == "ernie4_5_moe":
        writer.add_interleave_moe_layer_step(config.moe_layer_interval)
        writer.add_leading_dense_block_count(config.moe_layer_start_index)
        writer.add_expert_shared_feed_forward_length(config.moe_intermediate_size * config.moe_num_shared_experts)


def latent_metadata(writer, config, options):
    head_dim = config.qk_nope_head_dim + config.qk_rope_head_dim
    if config.q_lora_rank:
        writer.add_q_lora_rank(config.q_lora_rank)
    writer.add_kv_lora_rank(config.kv_lora_rank)
    writer.add_rope_dimension_count(config.qk_rope_head_dim)
    if "whole" in options:  # as older converters wrote it
        writer.add_key_length(head_dim)
        writer.add_value_length(config.v_head_dim)
    else:
        writer.add_key_length(config.kv_lora_rank + config.qk_rope_head_dim)
        writer.add_value_length(config.kv_lora_rank)
        writer.add_key_length_mla(head_dim)
        writer.add_value_length_mla(config.v_head_dim)
    writer.add_leading_dense_block_count(config.first_k_dense_replace)
    writer.add_expert_shared_count(config.n_shared_experts)
    writer.add_expert_weights_scale(config.routed_scaling_factor)
    sigmoid = config.model_type == "deepseek_v3"
    writer.add_expert_weights_norm(sigmoid and config.norm_topk_prob)
    if "whole" not in options:
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID if sigmoid else gguf.ExpertGatingFuncType.SOFTMAX)
        writer.add_expert_group_count(config.n_group)
        writer.add_expert_group_used_count(config.topk_group)


def rope_metadata(writer, config, options):
    parameters = rope(config)
    writer.add_rope_freq_base(parameters["rope_theta"])
    local = config.rope_parameters.get("sliding_attention")
    if local and config.model_type in ("gemma3_text", "gemma3n_text", "gemma4_text") and "no_local_base" not in options:  # older converters left it out: 10,000
        writer.add_rope_freq_base_swa(local["rope_theta"])
    if parameters["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(parameters["factor"])
    if parameters["rope_type"] == "longrope":
        original = config.original_max_position_embeddings
        scale = max(config.max_position_embeddings / original, 1.0)
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(original)))
    if parameters["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(parameters["factor"])
        writer.add_rope_scaling_orig_ctx_len(parameters["original_max_position_embeddings"])
        if parameters.get("mscale_all_dim"):
            writer.add_rope_scaling_yarn_log_mul(0.1 * parameters["mscale_all_dim"])


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


def proportional_factors(config):
    """Divisors that leave all but the first pairs of whole heads where they are."""
    pairs = wide(config, "head_dim") // 2
    turned = int(wide(config, "head_dim") * rope(config)["partial_rotary_factor"] / 2)
    return np.array([1.0] * turned + [1e30] * (pairs - turned), dtype=np.float32)


PRINTABLE = [chr(c) for c in range(33, 127)]
# Over the borders of words, numbers and lines, so that every way to split shows.
MERGES = ["Ġ t", "h e", "Ġt he", "1 2", "12 3", "Ċ Ċ", "Ġ Ġ", "ĠĠ ĠĠ", "i n", "e r", "' s", "' S", ". .", ". Ċ", "Ġ 1", "3 4", "! !", "a 1", "Ġ .",
          "s Ġ", "e Ċ", "l l", "' ll", "( x", "Ġ (", "1 ,"]
PIECES = ["▁t", "he", "▁the", "12", "▁▁", "▁▁▁▁", "in", "er", "▁in", "ll", "the", "▁1", "123", "..", "'s", "▁▁t", "s▁", "34", "!!", "▁(", "(x", "a1", "lo",
          "▁lo", "hello", "▁hello", "zq"]


def small_vocabulary(config):
    """Metadata of a tokenizer of the kind that the family's published files have: 128 tokens and as many unused ones as it takes."""
    control = gguf.TokenType.CONTROL
    pre = PRE.get(config.model_type)
    pre = "llama-bpe" if rope(config).get("rope_type") == "llama3" else pre
    if pre:
        # No merge reaches the last one: only those who do not take words apart that are tokens know it.
        tokens = ["<pad>", "<s>", "</s>", *PRINTABLE, "Ġ", "Ċ", "ĉ", "č", *(m.replace(" ", "") for m in MERGES), "zq"]
        kinds = [control] * 3 + [gguf.TokenType.NORMAL] * (len(tokens) - 3)
    else:
        tokens = ["<unk>", "<s>", "</s>", "<0x09>", "<0x0A>", "<0x0D>", "▁", *PRINTABLE, *PIECES]
        kinds = [gguf.TokenType.UNKNOWN, control, control] + [gguf.TokenType.BYTE] * 3 + [gguf.TokenType.NORMAL] * (len(tokens) - 6)
    count = len(tokens)
    tokens += [f"<unused{i}>" for i in range(count, config.vocab_size)]
    kinds += [gguf.TokenType.UNUSED] * (len(tokens) - count)

    def add_to(writer):
        writer.add_tokenizer_model("gpt2" if pre else "llama")
        writer.add_tokenizer_pre(pre or "default")
        writer.add_token_list(tokens)
        if not pre:
            first = tokens.index(PIECES[0])
            writer.add_token_scores([0.0 if i < 6 else float(first - i if first <= i < count else i - 1000 - count) for i in range(len(tokens))])
        writer.add_token_types([int(kind) for kind in kinds])
        if pre:
            writer.add_token_merges(MERGES)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        if config.model_type.startswith("gemma"):
            writer.add_add_space_prefix(False)

    return add_to


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
