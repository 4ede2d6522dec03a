#!/usr/bin/env python3
"""Write crates/aerostat-arch/src/classes.jsonl: which keys of config.json the class of each model type reads, and what it takes
where they are absent.

usage: classes.py [--out FILE]

A line is {"type", "keys": {key: default}, "names": {other spelling: key}}, and "unless_null" names spellings that do not count
where they are null. Keys are the fields of the class in transformers, what
its `__post_init__` takes besides, and what the model's code asks of the configuration by `getattr`; what is of no use to
inference is left out. Types whose code is published with their models only are written down below, from that code.
"""

import argparse
import dataclasses
import importlib
import inspect
import json
import pathlib
import re

import transformers

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "crates/aerostat-arch/src/classes.jsonl"
FAMILIES = ROOT / "crates/aerostat-arch/src/families"
# Of every configuration, or of training.
USELESS = {field.name for field in dataclasses.fields(transformers.PreTrainedConfig)} | {
    "initializer_range", "use_cache", "pad_token_id", "bos_token_id", "eos_token_id", "pretraining_tp", "output_router_logits",
    "router_aux_loss_coef", "embedding_initializer_range", "auxiliary_loss", "initializer_factor", "predict_special_tokens",
}
DROPOUT = re.compile("drop|^summary_|^scale_fmt|^layerdrop|mtp|nextn")
# What the code of models asks for by `getattr` of configurations that do not declare it.
ASKED = {"head_dim", "partial_rotary_factor", "original_max_position_embeddings", "sliding_window", "hidden_act",
         "attention_layers"}
ODD = 12345.5

LLAMA = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
}
ROPE = {"rope_theta": 10000.0, "rope_scaling": None, "rope_parameters": None}
REMOTE = {
    "baichuan": LLAMA | {"max_position_embeddings": None, "model_max_length": 4096, "z_loss_weight": None, "alibi": None},
    "chatglm": {
        "padded_vocab_size": None, "vocab_size": None, "hidden_size": 4096, "ffn_hidden_size": 13696, "num_layers": 28,
        "num_attention_heads": 32, "kv_channels": 128, "seq_length": 2048, "layernorm_epsilon": 1e-5, "rmsnorm": True,
        "apply_residual_connection_post_layernorm": False, "post_layer_norm": True, "add_bias_linear": False,
        "add_qkv_bias": False, "multi_query_attention": False, "multi_query_group_num": 1, "rope_ratio": 1,
        # What its code has, whatever the configuration says.
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        "partial_rotary_factor": 0.5,
        "tie_word_embeddings": False,
    },
    "internlm": LLAMA | {"vocab_size": 103168, "bias": True, "rotary": {"base": 10000, "type": "dynamic"}},
    "internlm2": LLAMA | ROPE | {"vocab_size": 103168, "bias": True, "num_key_value_heads": None},
    "jina_bert_v2": {
        "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
        "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "is_decoder": False,
        "add_cross_attention": False, "tie_word_embeddings": True, "feed_forward_type": "original",
    },
    "minicpm": LLAMA | ROPE | {
        "num_key_value_heads": None, "attention_bias": False, "mlp_bias": False, "scale_emb": 1, "dim_model_base": 1,
        "scale_depth": 1, "tie_word_embeddings": True, "sparse_config": None, "num_experts": None, "head_dim": None,
    },
    "new": {
        "vocab_size": 30528, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
        "hidden_act": "gelu", "max_position_embeddings": 2048, "layer_norm_eps": 1e-12, "position_embedding_type": "rope",
        "rope_theta": 10000.0, "rope_scaling": None, "logn_attention_scale": False,
    },
    "qwen": {
        "vocab_size": 151936, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "layer_norm_epsilon": 1e-6, "max_position_embeddings": 8192, "use_dynamic_ntk": True, "use_logn_attn": True,
        "rotary_emb_base": 10000, "rotary_pct": 1.0, "kv_channels": 128, "intermediate_size": 22016, "seq_length": 8192,
        "no_bias": True, "tie_word_embeddings": False,
    },
}
# What published files of a type say in other words than its class, and what their own code reads besides.
PUBLISHED = {
    "bamba": ({}, {"partial_rotary_factor": 0.5}),  # whatever the configuration says beside its rotation
    # Published files say it, which counts more than `expand`.
    "mamba": ({}, {"intermediate_size": None}),
    "falcon_mamba": ({}, {"intermediate_size": None}),
    "jina_embeddings_v3": ({"rotary_emb_base": "rope_theta"}, {}),
    "nomic_bert": ({"n_embd": "hidden_size", "n_head": "num_attention_heads", "n_layer": "num_hidden_layers",
                    "n_inner": "intermediate_size", "n_positions": "max_position_embeddings",
                    "layer_norm_epsilon": "layer_norm_eps", "rotary_emb_base": "rope_theta"},
                   {"moe_every_n_layers": 0, "prenorm": False, "use_rms_norm": False, "qkv_proj_bias": False,
                    "mlp_fc1_bias": False, "mlp_fc2_bias": False, "rotary_emb_interleaved": False}),
}
# Types whose positions are counted from that of the padding token.
PADDED = {"roberta", "xlm-roberta", "camembert"}
# Types that only published models give themselves, and what they are in transformers.
CALLED = {"kimi_k2": "deepseek_v3", "AXK1": "axk1", "exaone4_5_text": "exaone4"}


def types():
    """The model types of all families."""
    for path in sorted(FAMILIES.glob("*.rs")):
        yield from re.findall(r'"([^"]+)"', re.search(r"model_types: &\[(.*?)\]", path.read_text(), re.S).group(1))


def keys(kind):
    """The keys that a class reads, and their defaults."""
    found = {f.name: default(f) for f in dataclasses.fields(kind) if f.name not in USELESS and not DROPOUT.search(f.name)}
    own = [c for c in kind.__mro__ if c.__module__.startswith("transformers.models.")]
    source = "".join(inspect.getsource(c) for c in own)
    for name, value in re.findall(r'kwargs\.(?:pop|get|setdefault)\(\s*"(\w+)"(?:,\s*([^)]+))?\)', source):
        if not DROPOUT.search(name):
            found.setdefault(name, plain(value))
    try:
        model = inspect.getsource(importlib.import_module(kind.__module__.replace("configuration_", "modeling_")))
    except ModuleNotFoundError:
        model = ""
    asked = set(re.findall(r'getattr\((?:self\.)?config, "(\w+)"', model)) | set(re.findall(r"\bconfig\.(\w+)", model))
    found |= {name: None for name in sorted(asked & ASKED - found.keys() - set(dir(kind)))}
    found |= rope(kind, found)
    if "partial_rotary_factor" not in model:  # it comes into the parameters, and is not read there
        found.pop("partial_rotary_factor", None)
    return found


def rope(kind, found):
    """The keys of rotations, as far as the class reads them."""
    if "rope_parameters" not in found:
        return {}
    usual = kind().rope_parameters
    flat = {}
    for key, value in {"rope_theta": ODD, "partial_rotary_factor": 0.123, "rope_local_base_freq": ODD, "rotary_emb_base": ODD,
                       "rotary_pct": 0.123, "global_rope_theta": ODD, "local_rope_theta": ODD}.items():
        if (changed := kind(**{key: value}).rope_parameters) != usual:
            flat[key] = [inner for old, new in zip(parts(usual), parts(changed)) for inner in old if old[inner] != new.get(inner)]
            first = next((old[flat[key][0]] for old, new in zip(parts(usual), parts(changed)) if flat[key] and old != new), None)
            found[key] = first if flat[key] else None
        elif (other := beside(kind, key, value)) is not None:
            found[key] = other
        else:
            found.pop(key, None)
    told = {inner for inners in flat.values() for inner in inners}
    rest = [{k: v for k, v in part.items() if k not in told and k != "max_position_embeddings"} for part in parts(usual)]
    nested = any(isinstance(value, dict) for value in usual.values())
    try:
        scaled = kind(rope_scaling={"rope_type": "linear", "factor": 2.0}).rope_parameters != usual
    except Exception:  # a class that knows other kinds alone
        scaled = True
    keys = {"rope_scaling": None} if scaled else {}
    if scaled and not nested and "original_max_position_embeddings" not in found:
        keys["original_max_position_embeddings"] = None  # where it lies beside the parameters, it counts more
    if any(part != {"rope_type": "default"} and part for part in rest):
        keys["rope_parameters"] = dict(zip(usual, rest)) if nested else rest[0]
    return keys


def beside(kind, key, value):
    """What a flat key is by default where it is read only if the parameters are given and lack it; else None."""
    try:
        usual, changed = (kind(**flat, rope_parameters={"rope_type": "default"}).rope_parameters for flat in ({}, {key: value}))
    except Exception:  # a class whose parameters are of each kind of layers
        return None
    return next((old for name, old in usual.items() if old != changed.get(name)), None)


def parts(parameters):
    return list(parameters.values()) if any(isinstance(v, dict) for v in parameters.values()) else [parameters]


def default(field):
    value = field.default if field.default is not dataclasses.MISSING else None
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    return value if isinstance(value, (bool, int, float, str, list, dict)) else None


def plain(text):
    try:
        return json.loads(text)
    except ValueError:
        return None


def line(name):
    called = CALLED.get(name, name)
    if called in REMOTE:
        return {"type": name, "keys": REMOTE[called], "names": {}}
    kind = transformers.CONFIG_MAPPING[called]
    names = {other: key for other, key in kind.attribute_map.items() if not DROPOUT.search(other)}
    if called in ("bloom", "falcon"):
        names["n_embed"] = "hidden_size"
    if called in ("deepseek_v32", "glm_moe_dsa"):
        names["num_experts"] = "n_routed_experts"
    found = keys(kind)
    other_names, read_besides = PUBLISHED.get(called, ({}, {}))
    names |= other_names
    found |= read_besides
    if called in PADDED:
        found["pad_token_id"] = kind().pad_token_id
    for other, key in names.items():  # a field under a name that stands for another
        if key not in found and other in found:
            found[key] = found[other]
    line = {"type": name, "keys": {key: value for key, value in found.items() if key not in names}, "names": names}
    older = sorted(names.keys() - kind.attribute_map.keys())
    return line | ({"unless_null": older} if older else {})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    lines = [json.dumps(line(name), separators=(",", ":")) for name in sorted(set(types()))]
    args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
