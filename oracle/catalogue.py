"""The list of fixture models: which family, which shape, which stored dtype, which prompts, which twins.

Every entry is plain data; `make_fixtures.py` turns it into a folder under `fixtures/`.

Keys of an entry
  family      name of the transformers configuration class, without `Config`
  config      keyword arguments of that class, on top of BASE
  dtype       stored dtype: f32, bf16 or f16
  lengths     prompt lengths in tokens
  shard       optional: bytes per safetensors shard
  edit        optional: function that rewrites config.json as an older transformers wrote it
  twins       optional: list of GGUF forms: f32, f16, bf16, or a quantised type
  options     optional: set of words. For the GGUF writer: v2, split, no_local_base (as older converters wrote
              Gemma 3); plain: the GGUF file alone is kept
"""

BASE = dict(
    vocab_size=128, hidden_size=40, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-4,
    bos_token_id=1, eos_token_id=2, pad_token_id=0,
)
SHORT = [1, 7, 23]
LONG = [7, 23, 40]


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


YARN = {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 24}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 24}
GEMMA = dict(hidden_size=32, head_dim=20, intermediate_size=56, num_key_value_heads=1)
GEMMA3 = dict(GEMMA, num_key_value_heads=2, head_dim=12, num_hidden_layers=7, intermediate_size=40, sliding_window=6)

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
    "llama_old_linear": dict(family="Llama", dtype="f16", lengths=LONG, edit=old_linear_type,
                             config=dict(rope_parameters={"rope_type": "linear", "rope_theta": 1000.0, "factor": 2.5})),
    "llama_old_llama3": dict(family="Llama", dtype="bf16", lengths=LONG, edit=old, config=dict(rope_parameters=LLAMA3)),
    # Mistral
    "mistral_window": dict(family="Mistral", dtype="bf16", lengths=LONG, config=dict(sliding_window=6)),
    "mistral": dict(family="Mistral", dtype="bf16", lengths=SHORT, twins=["f32", "bf16"],
                    config=dict(sliding_window=None, head_dim=20, num_key_value_heads=1)),
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
    # GGUF only: the quantised formats, 32-wide blocks and then 256-wide ones
    **{f"gguf_{q}": dict(family="Llama", dtype="f32", lengths=[1, 23], twins=[q], options={"plain"},
                         config=dict(hidden_size=96, intermediate_size=160, num_attention_heads=3, num_key_value_heads=1))
       for q in ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1")},
    "gguf_k_mixed": dict(family="Llama", dtype="f32", lengths=[1, 23], twins=["k_mixed"], options={"plain"},
                         config=dict(hidden_size=256, intermediate_size=256, num_attention_heads=8, num_key_value_heads=2)),
}
