"""The list of fixture models: which family, which shape, which stored dtype, which prompts, which twins.

Keys of BASE that a family's configuration does not have are left out. Every entry is plain data; `make_fixtures.py` turns it into a folder under `fixtures/`.

Keys of an entry
  family      name of the transformers configuration class, without `Config`
  config      keyword arguments of that class, on top of BASE
  dtype       stored dtype: f32, bf16 or f16
  lengths     prompt lengths in tokens
  shard       optional: bytes per safetensors shard
  edit        optional: function that rewrites config.json as an older transformers wrote it
  text        optional: of a family with several towers, the configuration class of the text tower; `config` is its own
  towers      with it: keyword arguments of the whole
  twin_of     optional: the family, by `model_type`, that twins are of
  prepare     optional: function that changes the weights of the model before it is written
  recast      optional: function that renames and joins the tensors, and rewrites the configuration, as a family has them
              whose code is published with its models only; what is expected was computed before
  codes       optional: how the matrices of the blocks are quantised (`codes.py`), and the configuration that says so
  pytorch     optional: how many PyTorch files the weights are in, instead of safetensors
  alter       optional: function that changes the code of transformers while the fixture is made: what only the code
              that is published with a model has
  twins       optional: list of GGUF forms: f32, f16, bf16, or a quantised type
  attention   optional: which of transformers' ways to attend computes what is expected; else eager
  embedding   optional: scale of the random embeddings
  options     optional: set of words. For the GGUF writer: v2, split, no_local_base (as older converters wrote
              Gemma 3); plain: the GGUF file alone is kept
"""

import math
import re

import torch

import codes

BASE = dict(
    vocab_size=128, hidden_size=40, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-4,
    layer_norm_eps=1e-4, layer_norm_epsilon=1e-4, norm_epsilon=1e-4, norm_eps=1e-4,
    bos_token_id=1, eos_token_id=2, pad_token_id=0,
)
# Shapes of whole groups of 32, and of whole words.
WHOLE_GROUPS = dict(hidden_size=64, intermediate_size=96)
SMALL_EXPERTS = dict(hidden_size=64, intermediate_size=64, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
                     num_hidden_layers=1)
BITSANDBYTES = {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_compute_dtype": "bfloat16",
                "bnb_4bit_quant_storage": "uint8", "llm_int8_threshold": 6.0}
SHORT = [1, 7, 23]
LONG = [7, 23, 40]
DELTA = [1, 3, 40, 70]
DELTA_NET = dict(num_hidden_layers=4, linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=12, linear_value_head_dim=10)
GRANITE_SPACE = dict(num_hidden_layers=3, layer_types=["linear_attention", "full_attention", "linear_attention"], mamba_n_heads=4,
                     mamba_n_groups=2, mamba_d_state=12, mamba_chunk_size=16)
NEMOTRON_SPACE = dict(mamba_num_heads=4, mamba_head_dim=12, n_groups=2, ssm_state_size=10, chunk_size=16, head_dim=12)
FALCON_SPACE = dict(mamba_d_ssm=48, mamba_n_heads=4, mamba_n_groups=2, mamba_d_state=10, mamba_chunk_size=16)


def packed(bits, size, symmetric=True, by_index=False):
    """What compressed-tensors says of weights of integers."""
    weights = {"num_bits": bits, "type": "int", "strategy": "group" if size else "channel", "group_size": size or None,
               "symmetric": symmetric, "dynamic": False, "actorder": "group" if by_index else None}
    return {"quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
            "ignore": ["lm_head"], "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}


def old(config, **top):
    """Rewrite a transformers 5 configuration in the manner of version 4: flat rope keys, `torch_dtype`."""
    config = dict(config)
    rope = dict(config.pop("rope_parameters"))
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.44.0"
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope if rope.get("rope_type", "default") != "default" else None
    config.update(top)
    return config


def old_lfm2(config):
    """As the first files of LFM 2 say which layers attend, and how wide MLPs are."""
    config = old(config)
    del config["layer_types"]
    config["block_ff_dim"] = config.pop("intermediate_size")
    config["tie_embedding"] = config.pop("tie_word_embeddings")
    return config


def by_pattern(config):
    """Layers as published files of Nemotron H list them."""
    config = dict(config)
    letters = {"linear_attention": "M", "mamba": "M", "full_attention": "*", "attention": "*", "mlp": "-", "moe": "E"}
    kinds = config.pop("layers_block_type", None) or config.pop("layer_types")
    config["hybrid_override_pattern"] = "".join(letters[kind] for kind in kinds)
    config["num_hidden_layers"] = len(kinds)
    return config


def old_linear_type(config):
    """The oldest spelling: `"type"`, not `"rope_type"`, and no `head_dim`."""
    config = old(config)
    config["rope_scaling"] = {"type": "linear", "factor": config["rope_scaling"]["factor"]}
    del config["head_dim"]
    return config


def old_gemma_gelu(config):
    """The official first Gemma release said `gelu` and meant the tanh form."""
    return old(config, hidden_act="gelu", hidden_activation=None)


def old_gemma3(config):
    """Gemma 3 before `layer_types`: an integer pattern and two flat rope bases."""
    config = dict(config)
    rope = config.pop("rope_parameters")
    del config["layer_types"], config["_sliding_window_pattern"]
    config["torch_dtype"] = config.pop("dtype")
    scaling = {k: v for k, v in rope["full_attention"].items() if k != "rope_theta"}
    config.update(
        transformers_version="4.50.0", sliding_window_pattern=3, rope_theta=rope["full_attention"]["rope_theta"],
        rope_local_base_freq=rope["sliding_attention"]["rope_theta"],
        rope_scaling=scaling if scaling["rope_type"] != "default" else None,
    )
    return config


def old_qwen2(config):
    """Released Qwen 2.5 files: a window is written, and not used."""
    config = old(config, sliding_window=6, use_sliding_window=False)
    del config["layer_types"]
    return config


def gemma3_rope(scaling=None, base=20000.0, local=500.0):
    return {
        "full_attention": {"rope_type": "default", "rope_theta": base, **(scaling or {})},
        "sliding_attention": {"rope_type": "default", "rope_theta": local},
    }


def with_scalars(model):
    """What multiplies the stream after each block."""
    for layer in getattr(model.model, "language_model", model.model).layers:
        layer.layer_scalar.fill_(0.75)


def with_streams(model):
    """Coefficients of residual streams that move all of them: routers' inputs are divided by the width."""
    for layer in getattr(model.model, "language_model", model.model).layers:
        layer.altup.modality_router.weight.data.mul_(8.0)
        layer.altup.correct_output_scale.data.add_(1.0)


def as_gemma3n_tower(config, state):
    """The text tower of a checkpoint of several, whose class needs a package of images to be made."""
    text = dict(config)
    config.clear()
    config.update(architectures=["Gemma3nForConditionalGeneration"], model_type="gemma3n", text_config=text, tie_word_embeddings=True)
    return rename(state, {r"^model\.": "model.language_model."})


def with_router_scales(model):
    """The same, and factors on what routers read and on what experts give."""
    with_scalars(model)
    for layer in model.model.layers:
        layer.router.scale.data.copy_(torch.linspace(0.5, 2.0, layer.router.scale.numel()) * layer.router.scalar_root_size ** -0.5)
        layer.router.per_expert_scale.data.copy_(torch.linspace(0.5, 1.5, layer.router.per_expert_scale.numel()))


def old_gemma4(config):
    """Gemma 4 as released: keys of their own for layers without a window."""
    config = dict(config)
    special = next(iter(config.pop("per_layer_config").values()))
    return dict(config, global_head_dim=special["head_dim"], num_global_key_value_heads=None)


def old_phi3(config):
    """Phi 3 as released: flat keys, and the trained length beside the lists, not among them."""
    scaling = config["rope_parameters"]
    lists = {key: scaling[key] for key in ("short_factor", "long_factor")}
    return old(config, rope_scaling={"type": "longrope", **lists})


def old_internlm3(config):
    """InternLM 3 as released, by its own code."""
    config = old(config, architectures=["InternLM3ForCausalLM"], qkv_bias=config["attention_bias"], bias=config["mlp_bias"])
    del config["attention_bias"], config["mlp_bias"]
    return config


def old_neox(config):
    """Pythia as released: `rotary_pct` and `rotary_emb_base`."""
    part = config["rope_parameters"]["partial_rotary_factor"]
    return old(config, rotary_pct=part, rotary_emb_base=10000, rope_scaling=None)


def rename(state, names):
    """Tensor names by regular expressions, the first that matches."""
    def new(name):
        for pattern, replacement in names.items():
            if re.search(pattern, name):
                return re.sub(pattern, replacement, name)
        return name

    return {new(name): tensor for name, tensor in state.items()}


def join(state, parts, whole, how=torch.cat):
    """Join tensors that differ in a part of their names, such as q_proj, k_proj and v_proj."""
    joined = dict(state)
    for name in state:
        if f".{parts[0]}." in name:
            tensors = [joined.pop(name.replace(f".{parts[0]}.", f".{part}.")) for part in parts]
            joined[name.replace(f".{parts[0]}.", f".{whole}.")] = how(tensors)
    return joined


QKV = ["q_proj", "k_proj", "v_proj"]


def rename_config(config, architecture, model_type, keys=None, **values):
    """The configuration of a family of remote code: flat rope keys, other names."""
    changed = old(config, architectures=[architecture], model_type=model_type, **values)
    for name, new in (keys or {}).items():
        changed[new] = changed.pop(name)
    config.clear()
    config.update(changed)


def as_internlm(config, state):
    """InternLM 1: Llama with `bias`."""
    del config["num_key_value_heads"], config["attention_bias"], config["head_dim"]
    rename_config(config, "InternLMForCausalLM", "internlm", bias=True)
    return state


def as_internlm2(config, state):
    """InternLM 2: for each KV head its queries, its key, its value in `wqkv`."""
    heads, head_dim = config["num_key_value_heads"], config["head_dim"]
    del config["attention_bias"], config["mlp_bias"], config["head_dim"]
    rename_config(config, "InternLM2ForCausalLM", "internlm2", bias=False)

    def by_head(parts):
        split = [part.reshape(heads, -1, head_dim, part.shape[-1]) for part in parts]
        return torch.cat(split, dim=1).reshape(-1, parts[0].shape[-1])

    return rename(join(state, QKV, "wqkv", by_head), {
        r"embed_tokens": "tok_embeddings", r"self_attn\.wqkv": "attention.wqkv", r"self_attn\.o_proj": "attention.wo",
        r"input_layernorm": "attention_norm", r"post_attention_layernorm": "ffn_norm", r"mlp\.gate_proj": "feed_forward.w1",
        r"mlp\.up_proj": "feed_forward.w3", r"mlp\.down_proj": "feed_forward.w2", r"^lm_head": "output"})


def as_minicpm(config, state):
    """MiniCPM: its own numbers for the factors that Granite has."""
    depth = config["residual_multiplier"] * config["num_hidden_layers"] ** 0.5
    width = config["hidden_size"] / config["logits_scaling"]
    for key in ("residual_multiplier", "logits_scaling", "attention_multiplier", "attention_bias", "mlp_bias"):
        del config[key]
    rename_config(config, "MiniCPMForCausalLM", "minicpm", dict(embedding_multiplier="scale_emb"),
                  scale_depth=depth, dim_model_base=round(width))
    return state


def head_rows_stretched(state):
    """A head that is to be normalised: its rows, which have norm 1, by powers of two."""
    factors = 2.0 ** (torch.arange(state["lm_head.weight"].shape[0]) % 4 - 1)
    return dict(state, **{"lm_head.weight": state["lm_head.weight"] * factors[:, None]})


def with_unit_head(model):
    """Give every row of the head the norm 1."""
    with torch.no_grad():
        model.lm_head.weight.copy_(torch.nn.functional.normalize(model.lm_head.weight))


def experts_by_inputs(config, state):
    """Experts as Qwen 3 VL was released: `[experts, inputs, outputs]`."""
    return {n: t.transpose(1, 2).contiguous() if ".experts." in n else t for n, t in state.items()}


def as_baichuan2(config, state):
    """Baichuan 2 7B: its head is normalised."""
    state = as_baichuan(config, head_rows_stretched(state))
    config.update(architectures=["BaichuanForCausalLM"], z_loss_weight=0, model_max_length=config["max_position_embeddings"])
    return state


def as_baichuan_13b(config, state):
    """Baichuan 13B, the first: linear biases; positions have no limit but that of the model."""
    state = as_baichuan(config, state)
    config.update(architectures=["BaichuanForCausalLM"], model_max_length=config.pop("max_position_embeddings"))
    return state


def as_baichuan2_13b(config, state):
    state = as_baichuan2(config, state)
    del config["max_position_embeddings"]
    return state


def slopes(heads):
    """Of attention with linear biases, as Baichuan's code computes them."""
    whole = 2 ** math.floor(math.log2(heads))
    powers = lambda n: [2.0 ** (-8.0 * (i + 1) / n) for i in range(n)]
    return torch.tensor(powers(whole) + (powers(2 * whole)[::2][:heads - whole] if heads > whole else []))


def with_alibi():
    """Llama without rotation, its scores falling off with distance."""
    from transformers.models.llama import modeling_llama as llama

    def attention(module, query, key, value, attention_mask, scaling, **kwargs):
        queries, keys = query.shape[2], key.shape[2]
        distance = torch.arange(keys)[None, :] - torch.arange(keys - queries, keys)[:, None]
        bias = slopes(query.shape[1])[:, None, None] * distance
        key, value = (llama.repeat_kv(states, module.num_key_value_groups) for states in (key, value))
        scores = query @ key.transpose(2, 3) * scaling + bias
        weights = scores.masked_fill(distance > 0, float("-inf")).softmax(-1)
        return (weights @ value).transpose(1, 2).contiguous(), weights

    return [(llama, "eager_attention_forward", attention), (llama, "apply_rotary_pos_emb", lambda q, k, *_, **__: (q, k))]


def with_smaller_slopes():
    """MPT whose slopes go down to 2^-16, as its own code has them; transformers has no such switch."""
    from transformers.models.mpt import modeling_mpt as mpt

    original = mpt.build_mpt_alibi_tensor
    return [(mpt, "build_mpt_alibi_tensor", lambda heads, length, most=8, device=None: original(heads, length, 16, device))]


def with_qwen_growth(trained=16):
    """Qwen 1 beyond its trained length: a base that grows with the prompt's length, queries that grow with positions."""
    from transformers.models.qwen2 import modeling_qwen2 as qwen2

    original = qwen2.eager_attention_forward

    def attention(module, query, key, *args, **kwargs):
        count = torch.arange(key.shape[2] - query.shape[2], key.shape[2]) + 1
        growth = (count.log() / math.log(trained)).clamp(min=1.0)
        return original(module, query * growth[:, None], key, *args, **kwargs)

    def rotation(self, x, position_ids):
        if position_ids[0, 0] == 0:
            length = int(position_ids.max()) + 1
            self.alpha = max(2 ** math.ceil(math.log2(length / trained) + 1) - 1, 1)
        dim = self.config.hidden_size // self.config.num_attention_heads
        base = self.config.rope_parameters["rope_theta"] * self.alpha ** (dim / (dim - 2))
        angles = position_ids[..., None].float() / base ** (torch.arange(0, dim, 2).float() / dim)
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()

    return [(qwen2, "eager_attention_forward", attention), (qwen2.Qwen2RotaryEmbedding, "forward", rotation)]


def as_qwen(config, state, trained=16):
    """Qwen 1: an MLP whose width is said twofold, its gate second."""
    for key in ("num_key_value_heads", "layer_types", "sliding_window", "use_sliding_window", "max_window_layers", "hidden_act"):
        config.pop(key, None)
    rename_config(config, "QWenLMHeadModel", "qwen", dict(rms_norm_eps="layer_norm_epsilon", rope_theta="rotary_emb_base"),
                  intermediate_size=2 * config["intermediate_size"], seq_length=trained, use_dynamic_ntk=True, use_logn_attn=True,
                  kv_channels=config["hidden_size"] // config["num_attention_heads"], no_bias=True, rotary_pct=1.0)
    del config["rope_scaling"]
    return rename(join(state, QKV, "c_attn"), {
        r"^model\.embed_tokens": "transformer.wte", r"^model\.norm": "transformer.ln_f",
        r"^model\.layers\.(\d+)\.self_attn\.c_attn": r"transformer.h.\1.attn.c_attn",
        r"^model\.layers\.(\d+)\.self_attn\.o_proj": r"transformer.h.\1.attn.c_proj",
        r"^model\.layers\.(\d+)\.input_layernorm": r"transformer.h.\1.ln_1",
        r"^model\.layers\.(\d+)\.post_attention_layernorm": r"transformer.h.\1.ln_2",
        r"^model\.layers\.(\d+)\.mlp\.gate_proj": r"transformer.h.\1.mlp.w2",
        r"^model\.layers\.(\d+)\.mlp\.up_proj": r"transformer.h.\1.mlp.w1",
        r"^model\.layers\.(\d+)\.mlp\.down_proj": r"transformer.h.\1.mlp.c_proj"})


def as_kimi(config, state):
    """Kimi K2 as released: DeepSeek V3 under a `model_type` of its own."""
    rename_config(config, "DeepseekV3ForCausalLM", "kimi_k2")
    return state


def as_baichuan(config, state):
    """Baichuan 7B, the first: q, k and v in `W_pack`."""
    del config["num_key_value_heads"], config["attention_bias"], config["mlp_bias"], config["head_dim"]
    rename_config(config, "BaiChuanForCausalLM", "baichuan")
    return join(state, QKV, "W_pack")


def as_chatglm(config, state):
    """ChatGLM 2, 3 and GLM-4 as first released."""
    ratio = config["rope_parameters"]["rope_theta"] / 10000
    rename_config(config, "ChatGLMModel", "chatglm", dict(
        num_hidden_layers="num_layers", intermediate_size="ffn_hidden_size", head_dim="kv_channels", vocab_size="padded_vocab_size",
        num_key_value_heads="multi_query_group_num", rms_norm_eps="layernorm_epsilon", max_position_embeddings="seq_length",
        attention_bias="add_qkv_bias"), rope_ratio=ratio, multi_query_attention=True, rmsnorm=True, post_layer_norm=True,
        add_bias_linear=False, apply_residual_connection_post_layernorm=False, original_rope=True)
    for key in ("rope_theta", "rope_scaling", "hidden_act", "tie_word_embeddings"):
        config.pop(key, None)
    return rename(join(state, QKV, "query_key_value"), {
        r"^model\.embed_tokens": "transformer.embedding.word_embeddings", r"^lm_head": "transformer.output_layer",
        r"^model\.norm": "transformer.encoder.final_layernorm",
        r"^model\.layers\.(\d+)\.self_attn\.o_proj": r"transformer.encoder.layers.\1.self_attention.dense",
        r"^model\.layers\.(\d+)\.self_attn\.": r"transformer.encoder.layers.\1.self_attention.",
        r"^model\.layers\.(\d+)\.mlp\.gate_up_proj": r"transformer.encoder.layers.\1.mlp.dense_h_to_4h",
        r"^model\.layers\.(\d+)\.mlp\.down_proj": r"transformer.encoder.layers.\1.mlp.dense_4h_to_h",
        r"^model\.": "transformer.encoder."})


VISION = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4)


def towers(kind, **own):
    """A tiny vision tower, and tokens for images that no prompt holds."""
    return dict(vision_config=dict(VISION, model_type=kind), image_token_id=200, tie_word_embeddings=False, **own)


def qwen_towers(**own):
    vision = dict(depth=1, num_heads=2, patch_size=4, spatial_merge_size=1, temporal_patch_size=1, **own)
    return dict(vision_config=vision, image_token_id=200, video_token_id=201, vision_start_token_id=202, vision_end_token_id=203)


def by_interval(config):
    """Qwen 3 Next as released: every so many layers attend."""
    config = {key: value for key, value in config.items() if key != "layer_types"}
    return dict(config, full_attention_interval=2)


def wrapped(family, text, towers, **config):
    """A small text tower in a checkpoint of several."""
    return dict(family=family, text=text, towers=towers, dtype="bf16", lengths=[7], config=dict(num_hidden_layers=1, **config))


def mrope(*sections):
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": list(sections)}


def old_gemma3_towers(config):
    """Gemma 3 as released: what is usual is left out, heads too."""
    text = config["text_config"]
    text = {k: text[k] for k in ("hidden_size", "intermediate_size", "num_hidden_layers", "sliding_window", "head_dim", "vocab_size",
                                 "num_key_value_heads", "query_pre_attn_scalar", "rms_norm_eps")}
    text.update(model_type="gemma3_text", rope_scaling={"factor": 8.0, "rope_type": "linear"})
    config = {k: v for k, v in config.items() if k != "tie_word_embeddings"}
    return dict(config, text_config=text)


def glm_towers():
    vision = dict(depth=1, hidden_size=8, intermediate_size=8, out_hidden_size=48, num_heads=2, patch_size=4, image_size=8,
                  spatial_merge_size=1, temporal_patch_size=1)
    return dict(vision_config=vision, image_token_id=200, video_token_id=201, image_start_token_id=202, image_end_token_id=203,
                video_start_token_id=204, video_end_token_id=205)


def kimi_towers():
    vision = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, patch_size=4, pos_emb_height=2, pos_emb_width=2, pos_emb_time=1)
    return dict(vision_config=vision, image_token_id=200, projection_hidden_size=8, tie_word_embeddings=False)


def as_kimi_k25(config):
    """Kimi K2.5 as released: its text tower is called Kimi K2."""
    text = rename_of(config["text_config"])
    return dict(config, text_config=dict(text, model_type="kimi_k2", architectures=["DeepseekV3ForCausalLM"]))


def layers_not_blocks(config, state):
    """Kimi K2.5 as released; transformers renames the layers of the text tower with those of the other when it saves."""
    return {name.replace("language_model.model.blocks.", "language_model.model.layers."): t for name, t in state.items()}


def rename_of(text):
    rope = dict(text["rope_parameters"])
    return {**{k: v for k, v in text.items() if k != "rope_parameters"}, "rope_theta": rope["rope_theta"], "rope_scaling": None}


def without_prefix(config, state):
    """GPT-2 as first released: no prefix, and masks beside the weights."""
    state = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
    masks = {f"h.{i}.attn.bias": torch.tril(torch.ones(1, 1, 8, 8)) for i in range(config["n_layer"])}
    return {**state, **masks}


LONGROPE = {"rope_type": "longrope", "rope_theta": 1000.0, "original_max_position_embeddings": 24,
            "partial_rotary_factor": 0.75, "short_factor": [1.0, 1.02, 1.05, 1.1, 1.2, 1.3],
            "long_factor": [1.1, 1.5, 2.5, 4.0, 6.0, 9.0]}
YARN = {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 24}
YARN_LATENT = {**YARN, "mscale": 0.7, "mscale_all_dim": 0.7}
LATENT = dict(num_key_value_heads=4, q_lora_rank=24, kv_lora_rank=20, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=10,
              num_hidden_layers=3, first_k_dense_replace=1, n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=16,
              n_shared_experts=1, n_group=4, topk_group=2)
INDEX = dict(LATENT, index_n_heads=9, index_head_dim=12, index_topk=12)
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 24}
GEMMA = dict(hidden_size=32, head_dim=20, intermediate_size=56, num_key_value_heads=1)
GEMMA3 = dict(GEMMA, num_key_value_heads=2, head_dim=12, num_hidden_layers=7, intermediate_size=40, sliding_window=6)
GEMMA3N = dict(GEMMA, num_key_value_heads=2, head_dim=12, num_hidden_layers=5, sliding_window=6, intermediate_size=[40, 40, 40, 56, 56],
               hidden_size_per_layer_input=10, vocab_size_per_layer_input=128, laurel_rank=6, activation_sparsity_pattern=[0.9, 0.6, 0.0, 0.0, 0.0],
               layer_types=["sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention"])
# As the small ones: keys and values shared by layers of both kinds, and a further input of each layer.
GEMMA4_SMALL = dict(GEMMA, num_key_value_heads=2, head_dim=8, global_head_dim=16, num_hidden_layers=6, sliding_window=6, intermediate_size=40,
                    hidden_size_per_layer_input=12, vocab_size_per_layer_input=128,
                    layer_types=["sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "sliding_attention", "full_attention"])
GEMMA4_EXPERTS = dict(enable_moe_block=True, num_experts=6, top_k_experts=2, moe_intermediate_size=24)

FIXTURES = {
    # Llama
    "llama": dict(family="Llama", dtype="f32", lengths=SHORT, twins=["f32"],
                  config=dict(num_key_value_heads=4, rms_norm_eps=1e-6)),
    "llama_gqa_bf16": dict(family="Llama", dtype="bf16", lengths=SHORT, twins=["bf16"],
                           config=dict(hidden_size=80, num_key_value_heads=1)),
    "llama_tied": dict(family="Llama", dtype="f32", lengths=SHORT, twins=["f32"], options={"v2"},
                       config=dict(tie_word_embeddings=True, rms_norm_eps=1e-5)),
    "llama_bias": dict(family="Llama", dtype="bf16", lengths=SHORT, twins=["bf16"],
                       config=dict(attention_bias=True, mlp_bias=True)),
    "llama_linear": dict(family="Llama", dtype="f32", lengths=LONG, twins=["f32"],
                         config=dict(rope_parameters={"rope_type": "linear", "rope_theta": 1000.0, "factor": 2.5})),
    "llama_dynamic": dict(family="Llama", dtype="f32", lengths=[7, 23, 40], config=dict(
        max_position_embeddings=24, rope_parameters={"rope_type": "dynamic", "rope_theta": 1000.0, "factor": 3.0})),
    "llama_llama3": dict(family="Llama", dtype="bf16", lengths=LONG, twins=["bf16"],
                         config=dict(head_dim=20, rope_parameters=LLAMA3)),
    "llama_yarn": dict(family="Llama", dtype="f32", lengths=LONG, twins=["f32"],
                       config=dict(head_dim=32, max_position_embeddings=8192,
                                   rope_parameters=dict(YARN, original_max_position_embeddings=2048))),
    "llama_yarn_full": dict(family="Llama", dtype="f32", lengths=LONG, config=dict(
        head_dim=32, max_position_embeddings=96,
        rope_parameters=dict(YARN, beta_fast=2.0, beta_slow=0.25, mscale=0.8, mscale_all_dim=0.4, truncate=False))),
    "llama_head_dim": dict(family="Llama", dtype="f16", lengths=SHORT, twins=["f16"], options={"split"},
                           config=dict(hidden_size=39, head_dim=20, num_attention_heads=3, num_key_value_heads=1, intermediate_size=77)),
    "llama_sharded_f16": dict(family="Llama", dtype="f16", lengths=SHORT, shard=20000, config=dict(num_hidden_layers=3)),
    "qwen3_fp8": dict(family="Qwen3", dtype="bf16", lengths=SHORT, config=dict(), codes=dict(make=codes.fp8_blocks, config={
        "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [*codes.BLOCK]})),
    "qwen3_moe_fp8": dict(family="Qwen3Moe", dtype="bf16", lengths=SHORT, codes=dict(make=codes.fp8_blocks, config={
        "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [*codes.BLOCK]}),
        config=dict(head_dim=12, num_experts=7, num_experts_per_tok=3, moe_intermediate_size=24, norm_topk_prob=True)),
    "llama_fp8_rows": dict(family="Llama", dtype="bf16", lengths=SHORT, config=dict(), codes=dict(make=codes.fp8_rows, config={
        "quant_method": "compressed-tensors", "format": "float-quantized", "quantization_status": "compressed",
        "ignore": ["lm_head"], "config_groups": {"group_0": {"targets": ["Linear"], "weights": {
            "num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True, "dynamic": False}}}})),
    "llama_int8": dict(family="Llama", dtype="f16", lengths=SHORT, config=dict(), codes=dict(make=codes.int8_rows, config={
        "quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False, "llm_int8_threshold": 6.0})),
    **{name: dict(family="Llama" if name.startswith("llama") else "Phi3", dtype=dtype, lengths=SHORT, config=WHOLE_GROUPS,
                  codes=dict(make=codes.packed(bits, size, **how), config=packed(bits, size, **how)))
       for name, dtype, bits, size, how in (
           ("llama_w4a16", "bf16", 4, 32, {}), ("llama_w8a16", "bf16", 8, 0, {}), ("phi3_w4a16", "f16", 4, 32, dict(symmetric=False)),
           ("llama_w4a16_order", "f16", 4, 32, dict(symmetric=False, by_index=True)))},
    "llama_nf4": dict(family="Llama", dtype="bf16", lengths=SHORT, config=dict(WHOLE_GROUPS, intermediate_size=128), codes=dict(
        make=codes.four_bits("nf4", True), config=dict(BITSANDBYTES, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True))),
    "phi3_fp4": dict(family="Phi3", dtype="f16", lengths=SHORT, config=dict(WHOLE_GROUPS, intermediate_size=128), codes=dict(
        make=codes.four_bits("fp4", False), config=dict(BITSANDBYTES, bnb_4bit_quant_type="fp4", bnb_4bit_use_double_quant=False))),
    **{name: dict(family=family, dtype="f16", lengths=SHORT, config=config, codes=dict(
        make=codes.gptq(bits, size, by_index, version == "gptq_v2"), config={
            "quant_method": "gptq", "bits": bits, "group_size": size or -1, "desc_act": by_index, "sym": False, "lm_head": False,
            "checkpoint_format": version, "true_sequential": True, "damp_percent": 0.01}))
       for name, family, bits, size, by_index, version, config in (
           ("llama_gptq_4", "Llama", 4, 32, True, "gptq", WHOLE_GROUPS), ("llama_gptq_3", "Llama", 3, 32, False, "gptq_v2", WHOLE_GROUPS),
           ("llama_gptq_2", "Llama", 2, 16, True, "gptq_v2", WHOLE_GROUPS), ("qwen2_gptq_8", "Qwen2", 8, 0, False, "gptq", WHOLE_GROUPS),
           ("phi3_gptq_4", "Phi3", 4, 32, True, "gptq", WHOLE_GROUPS),
           ("qwen3_moe_gptq_4", "Qwen3Moe", 4, 32, False, "gptq", SMALL_EXPERTS))},
    **{name: dict(family=family, dtype="f16", lengths=SHORT, config=config, codes=dict(make=codes.awq, config={
        "quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True, "modules_to_not_convert": None}))
       for name, family, config in (("qwen2_awq", "Qwen2", WHOLE_GROUPS), ("phi3_awq", "Phi3", WHOLE_GROUPS), ("qwen2_moe_awq", "Qwen2Moe", dict(
           SMALL_EXPERTS, shared_expert_intermediate_size=32)))},
    "llama_pytorch": dict(family="Llama", dtype="bf16", lengths=SHORT, pytorch=1, config=dict(tie_word_embeddings=True)),
    "llama_pytorch_shards": dict(family="Llama", dtype="f16", lengths=SHORT, pytorch=3, config=dict()),
    "llama_old_linear": dict(family="Llama", dtype="f16", lengths=LONG, edit=old_linear_type,
                             config=dict(rope_parameters={"rope_type": "linear", "rope_theta": 1000.0, "factor": 2.5})),
    "llama_old_llama3": dict(family="Llama", dtype="bf16", lengths=LONG, edit=old, config=dict(rope_parameters=LLAMA3)),
    # Mistral
    "mistral_window": dict(family="Mistral", dtype="bf16", lengths=LONG, config=dict(sliding_window=6)),
    "mistral": dict(family="Mistral", dtype="bf16", lengths=SHORT, twins=["f32", "bf16"],
                    config=dict(sliding_window=None, head_dim=20, num_key_value_heads=1)),
    "ministral": dict(family="Ministral", dtype="bf16", lengths=LONG, config=dict(head_dim=10, 
        sliding_window=6, layer_types=["sliding_attention", "full_attention"])),
    "ministral3": dict(family="Ministral3", dtype="bf16", lengths=LONG, config=dict(
        head_dim=12, rope_parameters=dict(YARN, original_max_position_embeddings=16, beta_fast=8.0, mscale=1.0, mscale_all_dim=1.0,
                                          llama_4_scaling_beta=0.3))),
    # Text towers of checkpoints with several
    "mistral3": dict(family="Mistral3", text="Mistral", towers=towers("pixtral"), dtype="bf16", lengths=SHORT, config=dict(
        head_dim=12, sliding_window=None)),
    "mistral3_yarn": dict(family="Mistral3", text="Ministral3", towers=dict(towers("pixtral"), tie_word_embeddings=True), dtype="bf16",
                          lengths=LONG, config=dict(head_dim=12, tie_word_embeddings=True, rope_parameters=dict(
                              YARN, original_max_position_embeddings=16, beta_fast=8.0, llama_4_scaling_beta=0.2))),
    "gemma3_towers": dict(family="Gemma3", text="Gemma3Text", towers=dict(towers("siglip_vision_model", mm_tokens_per_image=4),
                                                                          tie_word_embeddings=True),
                          dtype="bf16", lengths=LONG, edit=old_gemma3_towers, config=dict(
        GEMMA3, num_hidden_layers=6, num_attention_heads=8, head_dim=4, query_pre_attn_scalar=5,
        rope_parameters=gemma3_rope({"rope_type": "linear", "factor": 8.0}, base=1000000.0, local=10000.0))),
    "llava": dict(family="Llava", text="Llama", towers=towers("clip_vision_model"), dtype="bf16", lengths=SHORT, config=dict()),
    "llava_next": wrapped("LlavaNext", "Llama", towers("clip_vision_model")),
    "llava_next_video": wrapped("LlavaNextVideo", "Llama", towers("clip_vision_model", video_token_id=201)),
    "vipllava": wrapped("VipLlava", "Llama", towers("clip_vision_model", vision_feature_layers=[-1])),
    "llava_onevision": wrapped("LlavaOnevision", "Qwen2", towers("siglip_vision_model", video_token_id=201)),
    "idefics3": wrapped("Idefics3", "Llama", towers("idefics3_vision")),
    "smolvlm": wrapped("SmolVLM", "Llama", towers("smolvlm_vision")),
    "video_llama_3": wrapped("VideoLlama3", "Qwen2", towers("video_llama_3_vision", video_token_id=201)),
    "lighton_ocr": wrapped("LightOnOcr", "Qwen3", towers("pixtral", spatial_merge_size=1), head_dim=12),
    "glm46v": wrapped("Glm46V", "Glm4vText", glm_towers(), hidden_size=48, rope_parameters={**mrope(1, 1, 1), "partial_rotary_factor": 0.5}),
    "exaone4_5": wrapped("Exaone4_5_", "Exaone4", dict(vision_config=dict(
        depth=1, hidden_size=8, intermediate_size=8, num_heads=2, num_key_value_heads=2, patch_size=4, spatial_merge_size=1,
        out_hidden_size=40, fullatt_block_indexes=[0]), image_token_id=200, video_token_id=201), sliding_window=6),
    "internvl": wrapped("InternVL", "Qwen2", towers("internvl_vision")),
    "aya_vision": wrapped("AyaVision", "Cohere2", towers("siglip_vision_model"), head_dim=12, sliding_window=6, logit_scale=1.0),
    "cohere2_vision": wrapped("Cohere2Vision", "Cohere2", towers("siglip_vision_model", alignment_intermediate_size=8), head_dim=12,
                              sliding_window=6, logit_scale=1.0),
    "voxtral": wrapped("Voxtral", "Llama", dict(audio_config=dict(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, num_mel_bins=4, max_source_positions=8),
        audio_token_id=200)),
    "qwen2_audio": wrapped("Qwen2Audio", "Qwen2", dict(audio_config=dict(
        d_model=8, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=8, num_mel_bins=4, max_source_positions=8),
        audio_token_id=200)),
    "qwen2_vl": dict(family="Qwen2VL", text="Qwen2VLText", towers=qwen_towers(embed_dim=8, hidden_size=40, mlp_ratio=1), dtype="bf16",
                     lengths=SHORT, config=dict(rope_parameters=mrope(2, 2, 1))),
    "qwen2_5_vl": dict(family="Qwen2_5_VL", text="Qwen2_5_VLText", towers=qwen_towers(
        hidden_size=8, intermediate_size=8, out_hidden_size=40, fullatt_block_indexes=[0]), dtype="bf16", lengths=SHORT,
        config=dict(rope_parameters=mrope(1, 2, 2))),
    "qwen3_vl": dict(family="Qwen3VL", text="Qwen3VLText", towers=qwen_towers(
        hidden_size=8, intermediate_size=8, out_hidden_size=40, num_position_embeddings=4, deepstack_visual_indexes=[0]),
        dtype="bf16", lengths=SHORT, config=dict(head_dim=12, rope_parameters=mrope(2, 2, 2))),
    **{f"qwen3_vl_moe{name}": dict(recast=recast, family="Qwen3VLMoe", text="Qwen3VLMoeText", towers=qwen_towers(
        hidden_size=8, intermediate_size=8, out_hidden_size=40, num_position_embeddings=4, deepstack_visual_indexes=[0]),
        dtype="bf16", lengths=SHORT, config=dict(
            head_dim=12, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=16, rope_parameters=mrope(2, 2, 2)))
       for name, recast in (("", experts_by_inputs), ("_saved", lambda config, state: state))},
    # Qwen 2 and 3
    "qwen2": dict(family="Qwen2", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict()),
    "qwen2_tied": dict(family="Qwen2", dtype="f32", lengths=SHORT, twins=["f32"],
                       config=dict(tie_word_embeddings=True, num_key_value_heads=1)),
    "qwen2_window": dict(family="Qwen2", dtype="f16", lengths=LONG, config=dict(
        use_sliding_window=True, sliding_window=6, max_window_layers=1, num_hidden_layers=3, num_key_value_heads=4)),
    "qwen2_old": dict(family="Qwen2", dtype="bf16", lengths=LONG, edit=old_qwen2, config=dict(
        use_sliding_window=False, sliding_window=6, max_window_layers=1)),
    "qwen3": dict(family="Qwen3", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(head_dim=20)),
    "qwen3_tied": dict(family="Qwen3", dtype="f32", lengths=SHORT, twins=["f32"],
                       config=dict(head_dim=12, tie_word_embeddings=True, num_key_value_heads=4)),
    "qwen3_bias": dict(family="Qwen3", dtype="f32", lengths=SHORT, shard=30000, config=dict(head_dim=12, attention_bias=True)),
    # Gated delta nets between gated attention; prompts longer than the 64 positions that transformers computes at a time
    "qwen3_next": dict(family="Qwen3Next", dtype="bf16", lengths=DELTA, embedding=0.2, twins=["bf16"], config=dict(
        DELTA_NET, head_dim=16, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=16, shared_expert_intermediate_size=24)),
    "qwen3_next_sparse": dict(family="Qwen3Next", dtype="f32", lengths=DELTA, embedding=0.2, edit=by_interval, config=dict(
        DELTA_NET | dict(linear_num_value_heads=2, num_hidden_layers=3), head_dim=12, layer_types=["linear_attention", "full_attention", "linear_attention"],
        linear_conv_kernel_dim=3, attention_bias=True, tie_word_embeddings=True, mlp_only_layers=[1],
        num_experts=5, num_experts_per_tok=2, moe_intermediate_size=16, shared_expert_intermediate_size=16, norm_topk_prob=False,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0, "partial_rotary_factor": 0.5})),
    "qwen3_5": dict(family="Qwen3_5", text="Qwen3_5Text", towers=qwen_towers(
        hidden_size=8, intermediate_size=8, out_hidden_size=40, num_position_embeddings=4), dtype="bf16", lengths=DELTA, embedding=0.2,
        config=dict(DELTA_NET | dict(linear_num_value_heads=6), head_dim=24,
                    rope_parameters=dict(mrope(1, 1, 1), mrope_interleaved=True, partial_rotary_factor=0.25))),
    "qwen3_5_text": dict(family="Qwen3_5Text", dtype="f32", lengths=DELTA, embedding=0.2, twins=["f32"], config=dict(
        DELTA_NET | dict(linear_value_head_dim=20, num_hidden_layers=2), head_dim=16, tie_word_embeddings=True,
        layer_types=["full_attention", "linear_attention"])),
    "qwen3_5_moe": dict(family="Qwen3_5Moe", text="Qwen3_5MoeText", towers=qwen_towers(
        hidden_size=8, intermediate_size=8, out_hidden_size=40, num_position_embeddings=4), dtype="bf16", lengths=DELTA, embedding=0.2,
        config=dict(DELTA_NET | dict(num_hidden_layers=2), head_dim=16, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=16,
                    shared_expert_intermediate_size=24, layer_types=["linear_attention", "full_attention"],
                    rope_parameters=dict(mrope(1, 1, 0), mrope_interleaved=True, partial_rotary_factor=0.25))),
    # Gated short convolutions
    "lfm2": dict(family="Lfm2", dtype="bf16", lengths=SHORT, config=dict(
        num_hidden_layers=3, layer_types=["conv", "full_attention", "conv"], block_multiple_of=8)),
    "lfm2_bias": dict(family="Lfm2", dtype="f32", lengths=SHORT, edit=old_lfm2, config=dict(
        num_hidden_layers=3, full_attn_idxs=[0], conv_bias=True, conv_L_cache=4, tie_word_embeddings=False, block_auto_adjust_ff_dim=False)),
    "lfm2_moe": dict(family="Lfm2Moe", dtype="bf16", lengths=SHORT, config=dict(
        num_hidden_layers=3, layer_types=["full_attention", "conv", "conv"], num_dense_layers=1, num_experts=5, num_experts_per_tok=2,
        moe_intermediate_size=16, routed_scaling_factor=1.5)),
    "lfm2_moe_plain": dict(family="Lfm2Moe", dtype="f32", lengths=SHORT, config=dict(
        num_hidden_layers=2, layer_types=["conv", "full_attention"], num_dense_layers=0, num_experts=4, num_experts_per_tok=3,
        moe_intermediate_size=16, use_expert_bias=False, norm_topk_prob=False)),
    # Lightning attention; f32, since transformers rounds its slopes with the weights
    "minimax": dict(family="MiniMax", dtype="f32", lengths=DELTA, config=dict(
        num_hidden_layers=3, block_size=16, num_local_experts=4, num_experts_per_tok=2, intermediate_size=24, linear_attn_alpha_factor=1.3,
        linear_attn_beta_factor=0.8, full_attn_alpha_factor=1.2, full_attn_beta_factor=0.9, mlp_alpha_factor=1.1, mlp_beta_factor=0.7)),
    # State spaces whose elements forget at rates of their own
    "jamba": dict(family="Jamba", dtype="bf16", lengths=DELTA, twins=["bf16"], config=dict(
        num_hidden_layers=3, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=0, num_experts=4,
        mamba_d_state=6, intermediate_size=24)),
    "jamba_dense": dict(family="Jamba", dtype="f32", lengths=DELTA, twins=["f32"], config=dict(
        num_hidden_layers=3, attn_layer_period=3, attn_layer_offset=0, num_experts=1, mamba_d_state=5, mamba_d_conv=3, mamba_expand=1,
        mamba_dt_rank=4, mamba_proj_bias=True, mamba_conv_bias=False, tie_word_embeddings=True)),
    # State spaces; prompts longer than the positions that transformers computes at a time
    "mamba2": dict(family="Mamba2", dtype="bf16", lengths=DELTA, twins=["bf16"], config=dict(
        num_heads=4, head_dim=20, state_size=12, n_groups=2, chunk_size=16)),
    "mamba2_bias": dict(family="Mamba2", dtype="f32", lengths=DELTA, config=dict(
        num_heads=8, head_dim=10, state_size=7, n_groups=1, conv_kernel=3, use_bias=True, use_conv_bias=False, chunk_size=16,
        tie_word_embeddings=True)),
    # The first Mamba; `intermediate_size` of all of them counts more than `expand`
    "mamba": dict(family="Mamba", dtype="bf16", lengths=DELTA, twins=["bf16"], config=dict(state_size=6)),
    "mamba_bias": dict(family="Mamba", dtype="f32", lengths=SHORT, config=dict(
        state_size=5, conv_kernel=3, time_step_rank=4, use_bias=True, use_conv_bias=False, tie_word_embeddings=False)),
    "falcon_mamba": dict(family="FalconMamba", dtype="bf16", lengths=DELTA, twins=["bf16"], config=dict(state_size=6, mixer_rms_eps=1e-4)),
    "falcon_mamba_bias": dict(family="FalconMamba", dtype="f32", lengths=SHORT, config=dict(
        state_size=5, time_step_rank=4, use_bias=True, use_conv_bias=False, mixer_rms_eps=1e-3, tie_word_embeddings=False)),
    "granitemoehybrid": dict(family="GraniteMoeHybrid", dtype="bf16", lengths=DELTA, config=dict(
        GRANITE_SPACE, num_local_experts=0, shared_intermediate_size=24, embedding_multiplier=3.0, residual_multiplier=0.7,
        attention_multiplier=0.2, logits_scaling=2.0)),
    "granitemoehybrid_experts": dict(family="GraniteMoeHybrid", dtype="f32", lengths=DELTA, twins=["f32"], config=dict(
        GRANITE_SPACE | dict(mamba_n_groups=1), position_embedding_type="rope", num_local_experts=5, num_experts_per_tok=2,
        intermediate_size=16, shared_intermediate_size=24, mamba_proj_bias=True, mamba_conv_bias=False, tie_word_embeddings=True)),
    "nemotron_h": dict(family="NemotronH", dtype="bf16", lengths=DELTA, twins=["bf16"], edit=by_pattern, config=dict(
        NEMOTRON_SPACE, layers_block_type=["linear_attention", "mlp", "full_attention", "linear_attention", "mlp"])),
    "nemotron_h_experts": dict(family="NemotronH", dtype="f32", lengths=DELTA, config=dict(
        NEMOTRON_SPACE, layers_block_type=["linear_attention", "moe", "full_attention", "moe"], use_bias=True, use_conv_bias=False,
        n_routed_experts=6, num_experts_per_tok=2, moe_intermediate_size=16, moe_shared_expert_intermediate_size=24,
        n_group=2, topk_group=1, routed_scaling_factor=2.0)),
    "nemotron_h_latent": dict(family="NemotronH", dtype="bf16", lengths=DELTA, twins=["bf16"], config=dict(
        NEMOTRON_SPACE, layers_block_type=["linear_attention", "moe", "full_attention", "moe"], mlp_bias=True,
        n_routed_experts=6, num_experts_per_tok=2, moe_intermediate_size=16, moe_shared_expert_intermediate_size=24, moe_latent_size=20)),
    "bamba": dict(family="Bamba", dtype="bf16", lengths=DELTA, config=dict(
        hidden_size=48, num_hidden_layers=3, attn_layer_indices=[1], mamba_n_heads=4, mamba_n_groups=2, mamba_d_state=12, mamba_chunk_size=16)),
    "falcon_h1": dict(family="FalconH1", dtype="bf16", lengths=DELTA, config=dict(
        FALCON_SPACE, ssm_multipliers=[0.7, 1.3, 0.8, 1.2, 0.9], ssm_in_multiplier=1.25, ssm_out_multiplier=0.8,
        attention_in_multiplier=0.9, attention_out_multiplier=1.1, key_multiplier=0.6, mlp_multipliers=[0.8, 1.2],
        lm_head_multiplier=0.5, embedding_multiplier=4.0)),
    "falcon_h1_norm": dict(family="FalconH1", dtype="f32", lengths=DELTA, config=dict(
        FALCON_SPACE, mamba_rms_norm=True, mamba_proj_bias=True, projectors_bias=True, mamba_conv_bias=False)),
    "falcon_h1_norm_last": dict(family="FalconH1", dtype="f32", lengths=DELTA, config=dict(
        FALCON_SPACE | dict(mamba_n_groups=1), mamba_rms_norm=True, mamba_norm_before_gate=False, mamba_d_ssm=None, attention_bias=True,
        mlp_bias=True)),
    # Mixtures of experts
    "mixtral": dict(family="Mixtral", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(
        num_local_experts=4, num_experts_per_tok=2, intermediate_size=24, sliding_window=None)),
    "qwen2_moe": dict(family="Qwen2Moe", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(
        num_experts=6, num_experts_per_tok=3, moe_intermediate_size=24, shared_expert_intermediate_size=48)),
    "qwen2_moe_sparse": dict(family="Qwen2Moe", dtype="f32", lengths=SHORT, config=dict(
        num_experts=5, num_experts_per_tok=2, moe_intermediate_size=24, shared_expert_intermediate_size=16,
        num_hidden_layers=3, mlp_only_layers=[1], norm_topk_prob=True)),
    "qwen2_moe_no_bias": dict(family="Qwen2Moe", dtype="bf16", lengths=SHORT, config=dict(
        num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, shared_expert_intermediate_size=16, qkv_bias=False)),
    "qwen3_moe_window": dict(family="Qwen3Moe", dtype="bf16", lengths=LONG, config=dict(
        head_dim=12, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, use_sliding_window=True, sliding_window=6,
        max_window_layers=1)),
    "mellum": dict(family="Mellum", dtype="bf16", lengths=LONG, config=dict(
        head_dim=12, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=16, sliding_window=6,
        layer_types=["sliding_attention", "full_attention"], rope_parameters={
            "full_attention": YARN,
            "sliding_attention": {"rope_type": "default", "rope_theta": 500.0}})),
    "hy_v3": dict(family="HYV3", dtype="bf16", lengths=SHORT, config=dict(
        head_dim=12, num_experts=6, num_experts_per_tok=2, num_shared_experts=2, moe_intermediate_size=16)),
    "qwen3_moe": dict(family="Qwen3Moe", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(
        head_dim=12, num_experts=7, num_experts_per_tok=3, moe_intermediate_size=24, norm_topk_prob=True)),
    "qwen3_moe_step": dict(family="Qwen3Moe", dtype="f16", lengths=SHORT, shard=60000, config=dict(
        head_dim=12, num_experts=12, num_experts_per_tok=2, moe_intermediate_size=16, decoder_sparse_step=2,
        num_hidden_layers=3, norm_topk_prob=False, tie_word_embeddings=True)),
    "olmoe": dict(family="Olmoe", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(
        intermediate_size=16, num_experts=5, num_experts_per_tok=3)),
    "olmoe_clip": dict(family="Olmoe", dtype="f32", lengths=SHORT, config=dict(
        intermediate_size=16, num_experts=5, num_experts_per_tok=2, norm_topk_prob=True, clip_qkv=0.6, attention_bias=True,
        num_hidden_layers=1)),
    "flex_olmo": dict(family="FlexOlmo", dtype="bf16", lengths=SHORT, config=dict(
        intermediate_size=16, num_experts=5, num_experts_per_tok=2)),
    "glm4_moe": dict(family="Glm4Moe", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(
        num_hidden_layers=2, head_dim=12, n_routed_experts=6, num_experts_per_tok=2, moe_intermediate_size=16,
        routed_scaling_factor=1.7, use_qk_norm=True, attention_bias=True)),
    "glm4_moe_groups": dict(family="Glm4Moe", dtype="bf16", lengths=SHORT, config=dict(
        first_k_dense_replace=0, n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=16, n_shared_experts=2,
        n_group=4, topk_group=2, norm_topk_prob=False, head_dim=20)),
    "solar_open": dict(family="SolarOpen", dtype="bf16", lengths=SHORT, config=dict(
        head_dim=12, n_routed_experts=6, num_experts_per_tok=2, moe_intermediate_size=16)),
    "dots1": dict(family="Dots1", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(
        num_hidden_layers=2, first_k_dense_replace=1, n_routed_experts=6, num_experts_per_tok=2, moe_intermediate_size=16,
        n_shared_experts=1, norm_topk_prob=True, routed_scaling_factor=2.5)),
    "dots1_window": dict(family="Dots1", dtype="bf16", lengths=LONG, config=dict(
        n_routed_experts=6, num_experts_per_tok=2, moe_intermediate_size=16, n_shared_experts=2, n_group=2, topk_group=1,
        max_window_layers=1, sliding_window=6, attention_bias=True)),
    "exaone_moe": dict(family="ExaoneMoe", dtype="bf16", lengths=LONG, config=dict(
        num_hidden_layers=4, head_dim=12, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=16, sliding_window=6)),
    "exaone_moe_unrotated": dict(family="ExaoneMoe", dtype="bf16", lengths=SHORT, config=dict(
        num_hidden_layers=2, head_dim=12, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, sliding_window=6,
        layer_types=["full_attention"] * 2)),
    "ernie4_5_moe": dict(family="Ernie4_5_Moe", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(
        num_hidden_layers=2, moe_num_experts=6, moe_k=2, moe_intermediate_size=16, moe_num_shared_experts=2)),
    "ernie4_5_moe_bias": dict(family="Ernie4_5_Moe", dtype="bf16", lengths=SHORT, config=dict(
        num_hidden_layers=3, moe_num_experts=6, moe_k=3, moe_intermediate_size=16, moe_num_shared_experts=0,
        moe_layer_start_index=0, moe_layer_interval=2, use_bias=True, tie_word_embeddings=False, moe_norm_min=0.9)),
    "granitemoe": dict(family="GraniteMoe", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(
        intermediate_size=16, num_local_experts=5, num_experts_per_tok=2, embedding_multiplier=3.0, logits_scaling=1.75,
        residual_multiplier=0.6, attention_multiplier=0.2)),
    "granitemoe_shared": dict(family="GraniteMoeShared", dtype="bf16", lengths=SHORT, config=dict(
        intermediate_size=16, num_local_experts=5, num_experts_per_tok=3, shared_intermediate_size=32, attention_bias=True,
        tie_word_embeddings=True, attention_multiplier=0.3)),
    "phimoe": dict(family="Phimoe", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(
        intermediate_size=16, num_local_experts=5, rms_norm_eps=1e-5, attention_bias=True, lm_head_bias=True)),
    "phimoe_mixed": dict(family="Phimoe", dtype="bf16", lengths=LONG, config=dict(
        intermediate_size=16, num_local_experts=6, router_jitter_noise=0.4, sliding_window=6)),
    "minimax_m2": dict(family="MiniMaxM2", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(
        intermediate_size=16, num_local_experts=5, num_experts_per_tok=2, head_dim=12,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5})),
    "gpt_oss": dict(family="GptOss", dtype="bf16", lengths=LONG, twins=["bf16"], config=dict(
        head_dim=12, intermediate_size=16, num_local_experts=4, num_experts_per_tok=2, sliding_window=6,
        rope_parameters=dict(YARN, truncate=False))),
    "gpt_oss_mxfp4": dict(family="GptOss", dtype="bf16", lengths=LONG, config=dict(
        hidden_size=64, head_dim=12, intermediate_size=32, num_local_experts=4, num_experts_per_tok=2, sliding_window=6,
        rope_parameters=dict(YARN, truncate=False)), codes=dict(make=codes.mxfp4, dimensions=3, config={
            "quant_method": "mxfp4", "modules_to_not_convert": [
                "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]})),
    "gpt_oss_clipped": dict(family="GptOss", dtype="bf16", lengths=LONG, config=dict(
        head_dim=10, intermediate_size=16, num_local_experts=4, num_experts_per_tok=3, attention_bias=False, swiglu_limit=0.7,
        swiglu_alpha=1.3, sliding_window=9, layer_types=["full_attention", "sliding_attention"],
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0})),
    "llama4": dict(family="Llama4", text="Llama4Text", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(
        hidden_size=32, head_dim=8, intermediate_size=12, intermediate_size_mlp=16, num_local_experts=3, num_hidden_layers=4,
        interleave_moe_layer_step=2)),
    "llama4_chunks": dict(family="Llama4", text="Llama4Text", dtype="bf16", lengths=LONG, config=dict(
        head_dim=10, intermediate_size=16, intermediate_size_mlp=16, num_local_experts=3, num_experts_per_tok=2,
        no_rope_layers=[1, 0], use_qk_norm=False, attention_bias=True, attention_chunk_size=8, floor_scale=4, attn_scale=0.5)),
    "llama4_norms": dict(family="Llama4", text="Llama4Text", dtype="bf16", lengths=LONG, config=dict(
        head_dim=12, intermediate_size=16, intermediate_size_mlp=24, num_local_experts=3, attention_chunk_size=6,
        attn_temperature_tuning=False, no_rope_layer_interval=2, moe_layers=[1])),
    "llama4_towers": dict(family="Llama4", text="Llama4Text", dtype="bf16", lengths=LONG, towers=dict(
        vision_config=dict(VISION, projector_input_dim=8, projector_output_dim=8, vision_output_dim=8), image_token_index=200), config=dict(
        head_dim=12, intermediate_size=16, intermediate_size_mlp=24, num_local_experts=3, attention_chunk_size=7)),
    "hunyuan": dict(family="HunYuanDenseV1", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(head_dim=12)),
    "hunyuan_alpha": dict(family="HunYuanDenseV1", dtype="bf16", lengths=LONG, config=dict(
        head_dim=12, attention_bias=True, rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "alpha": 50.0, "factor": 1.0})),
    "hunyuan_moe": dict(family="HunYuanMoEV1", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(
        head_dim=12, intermediate_size=16, num_experts=4, moe_topk=2)),
    # DeepSeek V2, V3 and V3.2, Kimi K2, GLM 5
    "deepseek_v2": dict(family="DeepseekV2", dtype="bf16", lengths=LONG, config=dict(
        LATENT, topk_method="group_limited_greedy", routed_scaling_factor=2.0, n_shared_experts=2,
        rope_parameters={**YARN, "mscale": 0.9, "mscale_all_dim": 0.4})),
    "deepseek_v2_lite": dict(family="DeepseekV2", dtype="bf16", lengths=SHORT, twins=["bf16"], options={"whole"}, config=dict(
        LATENT, q_lora_rank=None, topk_method="greedy", n_group=1, topk_group=1, rope_parameters=YARN_LATENT)),
    "deepseek_v2_bias": dict(family="DeepseekV2", dtype="f32", lengths=SHORT, edit=old, config=dict(
        LATENT, attention_bias=True, mlp_bias=True, topk_method="greedy", first_k_dense_replace=2)),
    "deepseek_v3": dict(family="DeepseekV3", dtype="bf16", lengths=LONG, twins=["f32", "bf16"], config=dict(
        LATENT, rope_parameters=YARN_LATENT)),
    "deepseek_v3_plain": dict(family="DeepseekV3", dtype="f32", lengths=SHORT, config=dict(
        LATENT, q_lora_rank=None, rope_interleave=False, norm_topk_prob=False, n_group=1, topk_group=1, n_shared_experts=2,
        attention_bias=True, first_k_dense_replace=0, tie_word_embeddings=True)),
    "deepseek_v3_fp8": dict(family="DeepseekV3", dtype="bf16", lengths=SHORT, codes=dict(make=codes.fp8_blocks, config={
        "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [*codes.BLOCK]}),
        config=dict(LATENT, kv_lora_rank=24)),
    "kimi_k2_w4a16": dict(family="DeepseekV3", dtype="bf16", lengths=SHORT, recast=as_kimi, codes=dict(
        make=codes.packed(4, 32), config=packed(4, 32), only=".experts."), config=dict(
            LATENT, hidden_size=64, moe_intermediate_size=32, num_hidden_layers=2, n_group=1, topk_group=1)),
    "deepseek_v3_nf4": dict(family="DeepseekV3", dtype="bf16", lengths=SHORT, config=dict(
        LATENT, hidden_size=64, q_lora_rank=64, kv_lora_rank=64, v_head_dim=16, moe_intermediate_size=64, intermediate_size=64,
        n_routed_experts=2, num_experts_per_tok=1, n_group=1, topk_group=1, num_hidden_layers=2), codes=dict(
        make=codes.four_bits("nf4", False), config=dict(BITSANDBYTES, bnb_4bit_quant_type="nf4"))),
    "kimi_k2": dict(family="DeepseekV3", dtype="bf16", lengths=SHORT, recast=as_kimi, config=dict(
        LATENT, n_group=1, topk_group=1, routed_scaling_factor=2.8, rope_parameters={**YARN, "mscale": 1.0, "mscale_all_dim": 1.0})),
    **{f"kimi_k25{name}": dict(family="Kimi_K25", text="DeepseekV3", towers=kimi_towers(), dtype="bf16", lengths=SHORT, edit=as_kimi_k25,
                               recast=recast, config=dict(LATENT, n_group=1, topk_group=1, routed_scaling_factor=2.8))
       for name, recast in (("", layers_not_blocks), ("_saved", lambda config, state: state))},
    "mistral4": dict(family="Mistral3", text="Mistral4", towers=towers("pixtral"), dtype="bf16", lengths=LONG, config=dict(
        LATENT, rope_parameters={**YARN, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.3,
                                 "original_max_position_embeddings": 16})),
    "phimoe_longrope": dict(family="Phimoe", dtype="bf16", lengths=[7, 40], config=dict(
        hidden_size=48, num_local_experts=4, intermediate_size=16, max_position_embeddings=96, rope_parameters={
            "rope_type": "longrope", "rope_theta": 1000.0, "original_max_position_embeddings": 24, "short_mscale": 1.1, "long_mscale": 1.3,
            "short_factor": [1.0, 1.02, 1.05, 1.1, 1.2, 1.3], "long_factor": [1.1, 1.5, 2.5, 4.0, 6.0, 9.0]})),
    "youtu": dict(family="Youtu", dtype="bf16", lengths=SHORT, config=dict(  # which loads the padding token as zeros
        pad_token_id=None, num_key_value_heads=4, q_lora_rank=24, kv_lora_rank=20, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=10)),
    "glm4_moe_lite": dict(family="Glm4MoeLite", dtype="bf16", lengths=SHORT, config=dict(
        LATENT, n_group=1, topk_group=1, mlp_layer_types=["dense", "sparse", "sparse"])),
    "axk1": dict(family="AXK1", dtype="bf16", lengths=SHORT, config=LATENT),
    "minicpm3": dict(family="MiniCPM3", dtype="bf16", lengths=SHORT, config=dict(
        num_key_value_heads=4, q_lora_rank=24, kv_lora_rank=20, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=10,
        scale_emb=3.0, scale_depth=1.4, dim_model_base=16)),
    "deepseek_v32": dict(family="DeepseekV32", dtype="bf16", lengths=LONG, config=dict(INDEX, rope_parameters=YARN_LATENT)),
    "glm_moe_dsa": dict(family="GlmMoeDsa", dtype="bf16", lengths=LONG, config=dict(
        INDEX, num_hidden_layers=4, n_group=1, topk_group=1, indexer_types=["full", "shared", "full", "shared"])),
    "glm_moe_dsa_full": dict(family="GlmMoeDsa", dtype="f32", lengths=LONG, config=dict(
        INDEX, num_hidden_layers=2, n_group=1, topk_group=1, index_topk=5, qk_nope_head_dim=14, v_head_dim=20,
        tie_word_embeddings=True)),
    # Gemma 1, 2, 3
    "gemma": dict(family="Gemma", dtype="bf16", lengths=SHORT, twins=["bf16"], config=GEMMA),
    "gemma_old_gelu": dict(family="Gemma", dtype="f32", lengths=SHORT, edit=old_gemma_gelu, twins=["f32"],
                           config=dict(GEMMA, head_dim=12, num_key_value_heads=4)),
    "gemma2": dict(family="Gemma2", dtype="bf16", lengths=LONG, config=dict(
        GEMMA, num_key_value_heads=2, num_hidden_layers=4, sliding_window=6, query_pre_attn_scalar=9,
        attn_logit_softcapping=3.0, final_logit_softcapping=1.5)),
    "gemma2_twin": dict(family="Gemma2", dtype="bf16", lengths=LONG, twins=["f32", "bf16"], config=dict(
        GEMMA, num_key_value_heads=2, num_hidden_layers=3, sliding_window=6, query_pre_attn_scalar=20, head_dim=20,
        attn_logit_softcapping=3.0, final_logit_softcapping=1.5, intermediate_size=40)),
    "gemma3": dict(family="Gemma3Text", dtype="bf16", lengths=LONG, twins=["bf16"], options={"no_local_base"}, config=dict(
        GEMMA3, query_pre_attn_scalar=12, rope_parameters=gemma3_rope(base=1000000.0, local=10000.0))),
    "gemma3_linear": dict(family="Gemma3Text", dtype="f32", lengths=LONG, twins=["f32"], config=dict(
        GEMMA3, query_pre_attn_scalar=12,
        rope_parameters=gemma3_rope({"rope_type": "linear", "factor": 8.0}, base=1000.0))),
    "gemma3_types": dict(family="Gemma3Text", dtype="f16", lengths=LONG, config=dict(
        GEMMA3, num_hidden_layers=4, query_pre_attn_scalar=5, rope_parameters=gemma3_rope(),
        layer_types=["full_attention", "sliding_attention", "sliding_attention", "full_attention"])),
    "gemma3_old": dict(family="Gemma3Text", dtype="bf16", lengths=LONG, edit=old_gemma3, config=dict(
        GEMMA3, num_hidden_layers=4, query_pre_attn_scalar=5,
        layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters=gemma3_rope({"rope_type": "linear", "factor": 4.0}))),
    "gemma3n": dict(family="Gemma3nText", dtype="bf16", lengths=LONG, prepare=with_streams, twins=["bf16"], config=dict(
        GEMMA3N, num_kv_shared_layers=2)),
    "gemma3n_streams": dict(family="Gemma3nText", dtype="f32", lengths=SHORT, prepare=with_streams, config=dict(
        GEMMA3N, num_kv_shared_layers=0, altup_num_inputs=3, altup_active_idx=1, altup_correct_scale=False, vocab_size_per_layer_input=100,
        final_logit_softcapping=2.0, activation_sparsity_pattern=[0.0, 0.5, 0.25, 0.0, 0.8])),
    "gemma3n_towers": dict(family="Gemma3nText", dtype="bf16", lengths=[7], prepare=with_streams, recast=as_gemma3n_tower, config={
        **GEMMA3N, "num_hidden_layers": 2, "intermediate_size": 40, "layer_types": ["sliding_attention", "full_attention"],
        "num_kv_shared_layers": 0, "activation_sparsity_pattern": [0.5, 0.0], "altup_num_inputs": 2}),
    "gemma4": dict(family="Gemma4Text", dtype="bf16", lengths=LONG, prepare=with_scalars, config=dict(
        GEMMA, num_key_value_heads=2, head_dim=8, global_head_dim=16, num_global_key_value_heads=1, attention_k_eq_v=True, num_hidden_layers=3,
        sliding_window=6, hidden_size_per_layer_input=0, final_logit_softcapping=3.0,
        layer_types=["sliding_attention", "full_attention", "full_attention"])),
    "gemma4_values": dict(family="Gemma4Text", dtype="bf16", lengths=SHORT, edit=old_gemma4, config=dict(
        GEMMA, num_key_value_heads=2, head_dim=12, global_head_dim=8, num_hidden_layers=2, sliding_window=6, hidden_size_per_layer_input=0,
        layer_types=["sliding_attention", "full_attention"])),
    "gemma4_layers": dict(family="Gemma4Text", dtype="bf16", lengths=LONG, prepare=with_scalars, twins=["bf16"], config=dict(
        GEMMA4_SMALL, num_kv_shared_layers=3, use_double_wide_mlp=True, final_logit_softcapping=3.0)),
    "gemma4_shared": dict(family="Gemma4Text", dtype="bf16", lengths=LONG, config=dict(
        GEMMA4_SMALL, num_kv_shared_layers=2, attention_k_eq_v=True, num_global_key_value_heads=1)),
    "gemma4_inputs": dict(family="Gemma4Text", dtype="f32", lengths=SHORT, shard=60_000, config=dict(
        GEMMA4_SMALL, num_kv_shared_layers=0, use_double_wide_mlp=True, tie_word_embeddings=False)),
    "gemma4_moe": dict(family="Gemma4Text", dtype="bf16", lengths=LONG, prepare=with_router_scales, twins=["bf16"], config={
        **GEMMA4_SMALL, **GEMMA4_EXPERTS, "num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"],
        "hidden_size_per_layer_input": 0, "attention_k_eq_v": True, "num_global_key_value_heads": 1}),
    "gemma4_moe_inputs": dict(family="Gemma4Text", dtype="bf16", lengths=SHORT, prepare=with_router_scales, config={
        **GEMMA4_SMALL, **GEMMA4_EXPERTS, "num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]}),
    "gemma4_towers": dict(family="Gemma4", text="Gemma4Text", dtype="bf16", lengths=SHORT, prepare=with_scalars, config=dict(
        GEMMA4_SMALL, num_kv_shared_layers=3), towers=dict(vision_config=None, audio_config=None)),
    "vaultgemma": dict(family="VaultGemma", dtype="bf16", lengths=LONG, config=dict(
        GEMMA, num_hidden_layers=2, sliding_window=6, query_pre_attn_scalar=9, final_logit_softcapping=3.0)),
    # Phi 3
    "phi3": dict(family="Phi3", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict()),
    "phi3_longrope": dict(family="Phi3", dtype="bf16", lengths=[7, 13, 40], twins=["bf16"], config=dict(
        hidden_size=64, max_position_embeddings=96, original_max_position_embeddings=24, rope_parameters=LONGROPE)),
    "phi3_old": dict(family="Phi3", dtype="bf16", lengths=[7, 13, 40], edit=old_phi3, config=dict(
        hidden_size=48, max_position_embeddings=96, original_max_position_embeddings=24,
        rope_parameters={**LONGROPE, "partial_rotary_factor": 1.0})),
    "phi3_window": dict(family="Phi3", dtype="f16", lengths=LONG, config=dict(sliding_window=6)),
    # Phi 1 and 2
    "phi": dict(family="Phi", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(hidden_size=48)),
    "phi_norms": dict(family="Phi", dtype="bf16", lengths=SHORT, config=dict(hidden_size=48, qk_layernorm=True)),
    # SmolLM 3
    "smollm3": dict(family="SmolLM3", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(num_hidden_layers=5)),
    "smollm3_list": dict(family="SmolLM3", dtype="bf16", lengths=LONG, config=dict(
        num_hidden_layers=3, no_rope_layers=[0, 1, 0], use_sliding_window=True, sliding_window=6,
        attention_bias=True, mlp_bias=True, tie_word_embeddings=False)),
    # OLMo 1, 2, 3
    "olmo": dict(family="Olmo", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict()),
    "olmo_clip": dict(family="Olmo", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(clip_qkv=0.7)),
    "olmo2": dict(family="Olmo2", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict()),
    "olmo3": dict(family="Olmo3", dtype="bf16", lengths=LONG, twins=["bf16"], config=dict(
        num_hidden_layers=5, sliding_window=6)),
    "olmo3_yarn": dict(family="Olmo3", dtype="bf16", lengths=LONG, config=dict(
        num_hidden_layers=2, sliding_window=6, layer_types=["full_attention", "sliding_attention"], attention_bias=True,
        rope_parameters={"full_attention": {**YARN, "rope_theta": 500000.0, "attention_factor": 1.2},
                         "sliding_attention": {"rope_type": "default", "rope_theta": 500000.0}})),
    # Granite
    "granite": dict(family="Granite", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(
        embedding_multiplier=3.0, logits_scaling=1.75, residual_multiplier=0.6, attention_multiplier=0.2)),
    "granite_bias": dict(family="Granite", dtype="bf16", lengths=SHORT, config=dict(
        attention_bias=True, mlp_bias=True, tie_word_embeddings=True, attention_multiplier=0.3)),
    "granite_swa": dict(family="GraniteSWA", dtype="bf16", lengths=LONG, config=dict(
        num_hidden_layers=5, sliding_window=6, attention_multiplier=0.3, layer_rope_theta=[1000.0, 0, 500.0, 1000.0, 500.0])),
    "granitemoe_swa": dict(family="GraniteMoeSWA", dtype="bf16", lengths=LONG, config=dict(
        num_hidden_layers=3, intermediate_size=16, num_local_experts=4, num_experts_per_tok=2, sliding_window=6,
        attention_multiplier=0.3)),
    "hyperclovax": dict(family="HyperCLOVAX", dtype="bf16", lengths=SHORT, config=dict(
        embedding_multiplier=3.0, logits_scaling=0.6, residual_multiplier=0.5, attention_multiplier=0.2)),
    "hyperclovax_plain": dict(family="HyperCLOVAX", dtype="bf16", lengths=SHORT, config=dict(
        use_post_norm=False, head_dim=12, attention_bias=True, tie_word_embeddings=True)),
    # Cohere 1 and 2
    "cohere": dict(family="Cohere", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(logit_scale=0.75)),
    "cohere_norms": dict(family="Cohere", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(
        logit_scale=0.75, use_qk_norm=True, attention_bias=True)),
    "cohere2": dict(family="Cohere2", dtype="bf16", lengths=LONG, twins=["bf16"], config=dict(
        logit_scale=0.75, num_hidden_layers=5, head_dim=12, sliding_window=6)),
    "cohere2_full": dict(family="Cohere2", dtype="bf16", lengths=SHORT, config=dict(
        logit_scale=0.75, head_dim=12, sliding_window=6, layer_types=["full_attention"] * 2)),
    # GLM
    "glm4v": dict(family="Glm4v", text="Glm4vText", towers=glm_towers(), dtype="bf16", lengths=SHORT, config=dict(
        hidden_size=48, rope_parameters={**mrope(1, 1, 1), "partial_rotary_factor": 0.5})),
    "glm4v_moe": dict(family="Glm4vMoe", text="Glm4vMoeText", towers=glm_towers(), dtype="bf16", lengths=SHORT, config=dict(
        hidden_size=48, n_routed_experts=6, num_experts_per_tok=2, moe_intermediate_size=16,
        rope_parameters={**mrope(1, 1, 1), "partial_rotary_factor": 0.5})),
    "glm": dict(family="Glm", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(head_dim=12)),
    "glm4": dict(family="Glm4", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(head_dim=12)),
    "glm4_bare": dict(family="Glm4", dtype="bf16", lengths=SHORT, config=dict(
        head_dim=12, attention_bias=False, rope_parameters={"rope_type": "default", "rope_theta": 1000.0,
                                                            "partial_rotary_factor": 1.0})),
    # StarCoder 2, StableLM
    "starcoder2": dict(family="Starcoder2", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict()),
    "starcoder2_window": dict(family="Starcoder2", dtype="bf16", lengths=LONG, config=dict(
        sliding_window=6, use_bias=False, tie_word_embeddings=False)),
    "stablelm": dict(family="StableLm", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(
        hidden_size=64, use_qkv_bias=True)),
    "stablelm_parallel": dict(family="StableLm", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(
        hidden_size=64, use_parallel_residual=True)),
    "stablelm_heads": dict(family="StableLm", dtype="bf16", lengths=SHORT, config=dict(hidden_size=64, qk_layernorm=True)),
    "stablelm_norms": dict(family="StableLm", dtype="bf16", lengths=SHORT, twins=["bf16"], options={"plain"}, config=dict(
        hidden_size=64, qk_layernorm=True, use_parallel_residual=True)),
    # GPT-NeoX, GPT-J, GPT-2, GPT-BigCode
    "gpt_neox": dict(family="GPTNeoX", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(hidden_size=64)),
    "gpt_neox_sequential": dict(family="GPTNeoX", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(
        hidden_size=64, use_parallel_residual=False, attention_bias=False)),
    "gpt_neox_old": dict(family="GPTNeoX", dtype="f16", lengths=SHORT, edit=old_neox, config=dict(
        hidden_size=48, rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5})),
    "gptj": dict(family="GPTJ", dtype="bf16", lengths=SHORT, config=dict(hidden_size=48, rotary_dim=8)),
    "gpt2": dict(family="GPT2", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict()),
    "gpt2_by_layer": dict(family="GPT2", dtype="f32", lengths=SHORT, pytorch=1, recast=without_prefix, config=dict(
        n_inner=56, scale_attn_by_inverse_layer_idx=True, scale_attn_weights=False, activation_function="relu")),
    "openai_gpt": dict(family="OpenAIGPT", dtype="bf16", lengths=SHORT, config=dict()),
    "openai_gpt_plain": dict(family="OpenAIGPT", dtype="f32", lengths=SHORT, recast=without_prefix, config=dict(
        num_hidden_layers=3, afn="relu", tie_word_embeddings=False)),
    "gpt_bigcode": dict(family="GPTBigCode", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(num_key_value_heads=1)),
    "gpt_bigcode_heads": dict(family="GPTBigCode", dtype="bf16", lengths=SHORT, config=dict(
        multi_query=False, num_key_value_heads=4, n_inner=56)),
    "gpt_neo": dict(family="GPTNeo", dtype="bf16", lengths=LONG, config=dict(
        num_hidden_layers=3, window_size=6, attention_types=[[["global", "local"], 1], [["local"], 1]])),
    "codegen": dict(family="CodeGen", dtype="bf16", lengths=SHORT, config=dict(hidden_size=64, n_head=8, rotary_dim=4)),
    "persimmon": dict(family="Persimmon", dtype="bf16", lengths=SHORT, config=dict(hidden_size=48)),
    # Falcon
    "falcon": dict(family="Falcon", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict()),
    "falcon_new": dict(family="Falcon", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(
        new_decoder_architecture=True, num_kv_heads=2)),
    "falcon_one_norm": dict(family="Falcon", dtype="bf16", lengths=SHORT, config=dict(
        new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1, ffn_hidden_size=56)),
    "falcon_sequential": dict(family="Falcon", dtype="bf16", lengths=SHORT, config=dict(
        multi_query=False, parallel_attn=False, bias=True)),
    # OPT, BLOOM
    "falcon_rw": dict(family="Falcon", dtype="bf16", attention="sdpa", lengths=[7, 40, 280], config=dict(
        hidden_size=80, num_attention_heads=20, alibi=True, multi_query=False, parallel_attn=False, bias=True)),
    "falcon_alibi": dict(family="Falcon", dtype="bf16", attention="sdpa", lengths=SHORT, config=dict(
        hidden_size=60, num_attention_heads=5, alibi=True)),
    "falcon_alibi_new": dict(family="Falcon", dtype="bf16", attention="sdpa", lengths=LONG, config=dict(
        hidden_size=48, num_attention_heads=6, alibi=True, new_decoder_architecture=True, num_kv_heads=2)),
    "opt": dict(family="OPT", dtype="bf16", lengths=SHORT, config=dict(ffn_dim=56, word_embed_proj_dim=40)),
    "opt_350m": dict(family="OPT", dtype="f16", lengths=SHORT, config=dict(
        ffn_dim=56, word_embed_proj_dim=24, do_layer_norm_before=False)),
    "opt_sums": dict(family="OPT", dtype="bf16", lengths=SHORT, config=dict(
        ffn_dim=56, word_embed_proj_dim=40, do_layer_norm_before=False, enable_bias=False, activation_function="gelu")),
    "opt_wide": dict(family="OPT", dtype="bf16", lengths=SHORT, config=dict(ffn_dim=56, word_embed_proj_dim=64, tie_word_embeddings=False)),
    "opt_bare": dict(family="OPT", dtype="bf16", lengths=SHORT, config=dict(
        ffn_dim=56, word_embed_proj_dim=24, layer_norm_elementwise_affine=False, _remove_final_layer_norm=True)),
    "bloom_post": dict(family="Bloom", dtype="bf16", lengths=SHORT, config=dict(
        hidden_size=48, num_attention_heads=6, tie_word_embeddings=False, apply_residual_connection_post_layernorm=True)),
    "bloom": dict(family="Bloom", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(
        hidden_size=48, num_attention_heads=6, tie_word_embeddings=False)),
    "mpt": dict(family="Mpt", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(max_seq_len=64)),
    "mpt_heads": dict(family="Mpt", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(
        hidden_size=48, num_attention_heads=6, max_seq_len=64)),
    "mpt_slopes": dict(family="Mpt", dtype="bf16", lengths=LONG, alter=with_smaller_slopes, config=dict(
        hidden_size=48, num_attention_heads=3, max_seq_len=64, attn_config=dict(alibi_bias_max=16))),
    "mpt_clip": dict(family="Mpt", dtype="f32", lengths=SHORT, config=dict(
        num_attention_heads=2, max_seq_len=64, attn_config=dict(clip_qkv=0.6, softmax_scale=0.4))),
    # Llama with a twist
    "cwm": dict(family="Cwm", dtype="bf16", lengths=LONG, config=dict(
        head_dim=12, num_hidden_layers=5, sliding_window=6, rope_parameters=LLAMA3)),
    "jais2": dict(family="Jais2", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(head_dim=12)),
    "jais2_bare": dict(family="Jais2", dtype="bf16", lengths=SHORT, config=dict(attention_bias=False, mlp_bias=False)),
    "nanochat": dict(family="NanoChat", dtype="bf16", lengths=SHORT, config=dict(final_logit_softcapping=3.0)),
    "iquestcoder": dict(family="IQuestCoder", dtype="bf16", lengths=SHORT, config=dict(head_dim=12)),
    "internlm3": dict(family="InternLM3", dtype="bf16", lengths=SHORT, config=dict(head_dim=12)),
    "internlm3_bias": dict(family="InternLM3", dtype="bf16", lengths=SHORT, config=dict(
        head_dim=12, attention_bias=True, mlp_bias=True)),
    "internlm3_old": dict(family="InternLM3", dtype="bf16", lengths=SHORT, edit=old_internlm3, config=dict(
        head_dim=12, attention_bias=True, mlp_bias=True)),
    "ernie4_5": dict(family="Ernie4_5", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(head_dim=12)),
    "ernie4_5_bias": dict(family="Ernie4_5", dtype="bf16", lengths=SHORT, config=dict(
        head_dim=12, use_bias=True, tie_word_embeddings=False)),
    "nemotron": dict(family="Nemotron", dtype="bf16", lengths=SHORT, twins=["bf16"], embedding=0.2, config=dict(head_dim=12)),
    "nemotron_bias": dict(family="Nemotron", dtype="bf16", lengths=SHORT, embedding=0.2, config=dict(
        head_dim=12, attention_bias=True, mlp_bias=True)),
    "arcee": dict(family="Arcee", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(head_dim=12)),
    "exaone4": dict(family="Exaone4", dtype="bf16", lengths=LONG, twins=["bf16"], config=dict(
        num_hidden_layers=5, sliding_window=6)),
    "exaone4_unrotated": dict(family="Exaone4", dtype="bf16", lengths=SHORT, config=dict(
        sliding_window=6, layer_types=["full_attention"] * 2)),
    "exaone4_full": dict(family="Exaone4", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(
        sliding_window=None, layer_types=["full_attention"] * 2)),
    "seed_oss": dict(family="SeedOss", dtype="bf16", lengths=SHORT, twins=["bf16"], config=dict(head_dim=12)),
    "helium": dict(family="Helium", dtype="bf16", lengths=SHORT, config=dict(head_dim=10)),
    # Families whose code is published with their models only
    "internlm": dict(family="Llama", dtype="bf16", lengths=SHORT, recast=as_internlm, config=dict(
        num_key_value_heads=4, attention_bias=True)),
    "internlm2": dict(family="Llama", dtype="bf16", lengths=SHORT, recast=as_internlm2, twin_of="internlm2", twins=["bf16"],
                      config=dict()),
    "minicpm": dict(family="Granite", dtype="bf16", lengths=SHORT, recast=as_minicpm, twin_of="minicpm", twins=["bf16"],
                    config=dict(embedding_multiplier=3.0, residual_multiplier=1.4 / 2 ** 0.5, logits_scaling=40 / 16,
                                attention_multiplier=10 ** -0.5)),
    "baichuan": dict(family="Llama", dtype="bf16", lengths=SHORT, recast=as_baichuan, config=dict(num_key_value_heads=4)),
    "baichuan2": dict(family="Llama", dtype="f32", lengths=SHORT, recast=as_baichuan2, prepare=with_unit_head, config=dict(
        num_key_value_heads=4, num_hidden_layers=1)),
    "baichuan_13b": dict(family="Llama", dtype="bf16", lengths=SHORT, recast=as_baichuan_13b, alter=with_alibi, config=dict(
        num_key_value_heads=5, num_attention_heads=5)),
    "baichuan2_13b": dict(family="Llama", dtype="f32", lengths=SHORT, recast=as_baichuan2_13b, prepare=with_unit_head, alter=with_alibi,
                          config=dict(num_key_value_heads=4, num_hidden_layers=1)),
    "qwen": dict(family="Qwen2", dtype="bf16", lengths=[5, 20], recast=as_qwen, alter=with_qwen_growth, config=dict(
        num_key_value_heads=4)),
    "chatglm": dict(family="Glm", dtype="bf16", lengths=SHORT, recast=as_chatglm, config=dict(
        head_dim=12, rope_parameters={"rope_type": "default", "rope_theta": 500000.0, "partial_rotary_factor": 0.5})),
    # GGUF only: the quantised formats, 32-wide blocks and then 256-wide ones
    **{f"gguf_{q}": dict(family="Llama", dtype="f32", lengths=[1, 23], twins=[q], options={"plain"},
                         config=dict(hidden_size=96, intermediate_size=160, num_attention_heads=3, num_key_value_heads=1))
       for q in ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1")},
    "gguf_k_mixed": dict(family="Llama", dtype="f32", lengths=[1, 23], twins=["k_mixed"], options={"plain"},
                         config=dict(hidden_size=256, intermediate_size=256, num_attention_heads=8, num_key_value_heads=2)),
}
