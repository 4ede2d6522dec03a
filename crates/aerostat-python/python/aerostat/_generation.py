"""Keywords of ``generate``: which do what, which are ignored, which are refused."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from ._checks import check_flag, check_mapping, check_number, check_texts, check_whole, items, scalar, shown
from ._options import log, unknown
from .errors import UsageError
from .tokenizer import read_json

#: Tokens of an answer where nothing says how many.
NEW_TOKENS_DEFAULT = 20

#: transformers' defaults.
DEFAULTS: dict[str, Any] = {
    "max_length": None,
    "max_new_tokens": None,
    "min_length": None,
    "min_new_tokens": None,
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "min_p": None,
    "repetition_penalty": 1.0,
    "eos_token_id": None,
    "pad_token_id": None,
    "bos_token_id": None,
    "stop_strings": None,
    "num_return_sequences": 1,
    "max_time": None,
    "bad_words_ids": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "no_repeat_ngram_size": 0,
    "return_dict_in_generate": False,
    "output_logits": False,
    "output_scores": False,
    "output_hidden_states": False,
}

_IGNORED = frozenset(
    """use_cache cache_implementation cache_config assistant_model prompt_lookup_num_tokens synced_gpus length_penalty
    early_stopping tokenizer assistant_tokenizer transformers_version _from_model_config return_legacy_cache
    disable_compile compile_config remove_invalid_values renormalize_logits max_matching_ngram_size
    num_assistant_tokens num_assistant_tokens_schedule assistant_confidence_threshold prefill_chunk_size is_assistant
    assistant_lookbehind target_lookbehind assistant_early_exit decoder_start_token_id low_memory logits_to_keep
    token_type_ids continuous_batching_config trust_remote_code""".split()
)

#: What cannot be had, and the values that ask for nothing.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "num_beams": (None, 1),
    "num_beam_groups": (None, 1),
    "diversity_penalty": (None, 0.0),
    "penalty_alpha": (None,),
    "dola_layers": (None,),
    "output_attentions": (None, False),
    "inputs_embeds": (None,),
    "past_key_values": (None,),
    "position_ids": (None,),
    "guidance_scale": (None, 1, 1.0),
    "negative_prompt_ids": (None,),
    "typical_p": (None, 1.0),
    "epsilon_cutoff": (None, 0.0),
    "eta_cutoff": (None, 0.0),
    "top_h": (None,),
    "custom_generate": (None,),
    "sequence_bias": (None,),
    "constraints": (None,),
    "force_words_ids": (None,),
    "exponential_decay_length_penalty": (None,),
    "encoder_repetition_penalty": (None, 1.0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "watermarking_config": (None,),
    "token_healing": (None, False),
    "prefix_allowed_tokens_fn": (None,),
}
#: All that transformers knows.
KNOWN_NAMES = frozenset((*DEFAULTS, *_IGNORED, *_REFUSED))


def asks_for(name: str, value: Any) -> bool:
    """Whether a value of one of the refused names asks for anything."""
    plain = scalar(value)
    return plain is not None and not (isinstance(plain, (int, float)) and plain in _REFUSED[name])


class GenerationConfig:
    """How answers are made, as a model's ``generation_config.json`` or a caller says; members are attributes."""

    def __init__(self, **members: Any) -> None:
        for name, value in members.items():
            setattr(self, name, value)

    @classmethod
    def of(cls, path: str) -> "GenerationConfig":
        """That of a model's folder."""
        return cls(**read_json(os.path.join(path, "generation_config.json")) if os.path.isdir(path) else {})

    def __getattr__(self, name: str) -> Any:
        if name in DEFAULTS:
            return DEFAULTS[name]
        raise AttributeError(name)

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def update(self, **members: Any) -> dict[str, Any]:
        vars(self).update(members)
        return {}

    def __repr__(self) -> str:
        return f"GenerationConfig({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


def members(config: Any) -> dict[str, Any]:
    """What a configuration says: ours, transformers', or a dict."""
    if config is None:
        return {}
    for name in ("to_diff_dict", "to_dict"):
        if hasattr(config, name):
            return dict(getattr(config, name)())
    return check_mapping("generation_config", config)


def settle(model: Any, given: Any, keywords: dict[str, Any]) -> dict[str, Any]:
    """Keywords over ``generation_config=`` over the model's over the defaults. Keywords that are ``None`` say nothing."""
    known = {**DEFAULTS}
    said_top_k = False
    for source, whose in ((members(model), None), (_asked(given), "generation_config"), (keywords, "generate")):
        for name, value in source.items():
            if name in DEFAULTS:
                if value is not None:
                    known[name] = value
                    said_top_k |= name == "top_k"
            elif name in _REFUSED:
                if asks_for(name, value):
                    raise UsageError(f"{name} is {shown(value)}, which is not supported: leave it out")
            elif name in _IGNORED:
                if whose is not None and value is not None:
                    log.info("%s has no effect here", name)
            elif whose is not None:
                raise UsageError(str(unknown(whose, str(name), DEFAULTS)))
    check(known)
    return known


def _asked(config: Any) -> dict[str, Any]:
    """What a call's configuration says. One of a model's own file may hold that model's own names; a dict is the caller's."""
    said = members(config)
    if isinstance(config, Mapping):
        return said
    for name in [name for name in said if name not in KNOWN_NAMES]:
        if not name.startswith("_"):
            log.warning("generation_config: %s has no effect here", name)
        del said[name]
    return said


#: Members that are whole numbers, and their least; those that are numbers, and their ranges.
_WHOLE = {"max_new_tokens": 1, "max_length": 1, "min_new_tokens": 0, "min_length": 0, "top_k": 0, "no_repeat_ngram_size": 0,
          "num_return_sequences": 1}  # fmt: skip
_NUMBERS = {"top_p": (0.0, 1.0), "min_p": (0.0, 1.0), "repetition_penalty": (1e-6, 1e6), "temperature": (0.0, 1e6)}


def check(known: dict[str, Any]) -> None:
    """Refuses values that mean nothing; samplers' are looked at where something is sampled."""
    for name in ("do_sample", "return_dict_in_generate", "output_logits", "output_scores", "output_hidden_states"):
        known[name] = check_flag(name, known[name])
    samples = known["do_sample"]
    for name, least in _WHOLE.items():
        if known[name] is not None and (samples or name != "top_k"):
            known[name] = check_whole(name, known[name], least, 1 << 40)
    for name, (low, high) in _NUMBERS.items():
        if known[name] is not None and (samples or name == "repetition_penalty"):
            known[name] = check_number(name, known[name], low, high)
    if samples and (known["temperature"] == 0 or known["top_p"] == 0):
        name = "temperature" if known["temperature"] == 0 else "top_p"
        raise UsageError(f"{name} is 0; with do_sample=True it must be above 0")
    if not samples and known["num_return_sequences"] > 1:
        raise UsageError("num_return_sequences above 1 needs do_sample=True: the likeliest answer is always the same")
    if known["max_time"] is not None:
        known["max_time"] = check_number("max_time", known["max_time"], -math.inf, math.inf)
    stops = known["stop_strings"]
    if stops is not None:
        known["stop_strings"] = check_texts("stop_strings", stops)


def sampling(known: dict[str, Any], seed: int) -> dict[str, Any]:
    """As the native half takes it."""
    samples = bool(known["do_sample"])
    return {
        "temperature": float(known["temperature"]) if samples else 0.0,
        "top_k": int(known["top_k"] or 0) if samples else 0,
        "top_p": float(known["top_p"]) if samples else 1.0,
        "min_p": float(known["min_p"] or 0.0) if samples else 0.0,
        "repetition_penalty": float(known["repetition_penalty"]),
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "logit_bias": [],
        "seed": seed % (1 << 64),
    }


def ids_of(value: Any, name: str, least: int = 0) -> list[int]:
    """Token ids given as one, several, or a tensor."""
    if value is None:
        return []
    if hasattr(value, "tolist"):
        value = value.tolist()
    given = list(value) if isinstance(value, (list, tuple, set, frozenset, range)) else [value]
    return [check_whole(f"{name}: a token", token, least, (1 << 32) - 1) for token in given]


def rules(known: dict[str, Any], length: int) -> dict[str, Any]:
    """Which tokens may come, in an answer to a prompt that is ``length`` long with its padding."""
    given: dict[str, Any] = {}
    shortest = known["min_new_tokens"]
    if shortest is None and known["min_length"]:
        shortest = known["min_length"] - length
    if shortest and shortest > 0:
        given["min_tokens"] = int(shortest)
    if known["suppress_tokens"] is not None:
        given["suppress_tokens"] = ids_of(known["suppress_tokens"], "suppress_tokens")
    if known["begin_suppress_tokens"] is not None:
        given["begin_suppress_tokens"] = ids_of(known["begin_suppress_tokens"], "begin_suppress_tokens")
    if known["bad_words_ids"] is not None:
        words = items("bad_words_ids", known["bad_words_ids"], "a list of lists of token ids")
        given["bad_words_ids"] = [ids_of(word, "bad_words_ids") for word in words]
    if known["no_repeat_ngram_size"]:
        given["no_repeat_ngram_size"] = int(known["no_repeat_ngram_size"])
    if known["forced_bos_token_id"] is not None:
        given["forced_bos"] = check_whole("forced_bos_token_id", known["forced_bos_token_id"], 0, (1 << 32) - 1)
    if known["forced_eos_token_id"] is not None:
        given["forced_eos"] = ids_of(known["forced_eos_token_id"], "forced_eos_token_id")
    return given
