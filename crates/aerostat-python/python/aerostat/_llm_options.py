"""Keywords of ``LLM``: which do what, which are noted, which are refused; and what a model's makers recommend."""

from __future__ import annotations

import os
from typing import Any

from ._checks import check_mapping, check_path, wrong
from ._generation import KNOWN_NAMES
from ._options import EngineOptions, log, unknown
from .errors import UsageError
from .params import SamplingParams
from .tokenizer import read_json

#: vLLM's keywords that say how its own engine works on GPUs: noted, and ignored.
_IGNORED = frozenset(
    """tensor_parallel_size pipeline_parallel_size data_parallel_size distributed_executor_backend
    gpu_memory_utilization enforce_eager enable_prefix_caching enable_chunked_prefill cpu_offload_gb swap_space
    disable_custom_all_reduce disable_async_output_proc max_seq_len_to_capture block_size
    compilation_config num_gpu_blocks_override kv_cache_memory_bytes load_format dtype trust_remote_code
    tokenizer_mode tokenizer_revision disable_log_stats allowed_local_media_path limit_mm_per_prompt
    mm_processor_kwargs enable_expert_parallel attention_backend task runner convert async_scheduling
    profiler_config config_format hf_config_path served_model_name enable_sleep_mode calculate_kv_scales max_logprobs
    disable_sliding_window disable_cascade_attn use_tqdm_on_load model_impl structured_outputs_config optimization_level
    performance_mode kv_transfer_config kv_offloading_size kv_offloading_backend additional_config allowed_media_domains
    attention_config scheduling_policy ignore_patterns code_revision enable_log_requests mm_encoder_tp_mode
    """.split()
)
#: What would change results and cannot be had.
_REFUSED = {
    "hf_overrides": "it changes the model",
    "enable_lora": "adapters are not supported here",
    "quantization_param_path": "the model's own scales are used",
    "logits_processors": "classes of vLLM's engine cannot run here",
}

_OPTIONS = ("tokenizer", "revision", "seed", "hf_token", "chat_template", "max_model_len", "max_num_seqs", "max_num_batched_tokens",
            "kv_cache_dtype", "download_dir", "skip_tokenizer_init", "quantization", "pooler_config", "generation_config",
            "override_generation_config", "speculative_config", "progress")  # fmt: skip
_KNOWN = (*_OPTIONS, *EngineOptions.NAMES)


def look_at(keywords: dict[str, Any]) -> None:
    """Notes, refuses or does not know vLLM's other keywords."""
    for name, value in keywords.items():
        if name in _REFUSED and value:
            why = _REFUSED[name]
            raise UsageError(f"{name} is not supported" + (f": {why}" if why else ""))
        if name in _IGNORED or name in _REFUSED:
            log.info("%s has no effect here", name)
            continue
        raise unknown("LLM", name, (*_KNOWN, *_IGNORED))


def draft_of(config: dict[str, Any] | None) -> str | None:
    """The small model of vLLM's ``speculative_config``, if it names one. Guesses change no result."""
    if config is None:
        return None
    if not isinstance(config, dict):
        raise UsageError(f"speculative_config: expected a dict, not {type(config).__name__}")
    if config.get("method") in (None, "draft_model") and config.get("model"):
        return str(config["model"])
    log.info("speculative_config: guesses come from the texts at hand, with whatever method")
    return None


def look_at_quantization(asked: str, path: str, facts: dict[str, Any]) -> None:
    """Refuses a scheme that the weights do not have."""
    config = read_json(os.path.join(path, "config.json")) if os.path.isdir(path) else {}
    named = config.get("quantization_config") or config.get("compression_config") or {}
    stored = "gguf" if os.path.isfile(path) else str(named.get("quant_method") or ("" if facts["quantised"] else "none"))
    # Kernels of GPUs are no other scheme.
    plain = str(asked).removesuffix("_marlin").replace("_", "-")
    if stored and plain != stored.replace("_", "-"):
        hint = "; aerostat.AutoModel's compression= or `aerostat pack` make a smaller copy" if stored == "none" else ""
        raise UsageError(f"quantization={asked!r}, but the scheme of the weights of {path} is {stored}{hint}")


def template_of(given: str | os.PathLike[str] | None) -> str | None:
    """A chat template as text, or of the file that is named."""
    if given is None:
        return None
    named = check_path("chat_template", given, "a template, or the path of one")
    if isinstance(given, str) and any(sign in given for sign in "{}\n"):
        return named
    try:
        with open(named, encoding="utf-8") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise UsageError(f"chat_template is neither a template nor a file that can be read: {error}") from error


#: What makers recommend, and callers may say over it.
_RECOMMENDED = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_tokens")


def _overriding(given: Any) -> dict[str, Any]:
    """What a caller says over what the makers recommend. Names that transformers alone knows are noted, as they change nothing
    in vLLM."""
    override = {} if given is None else check_mapping("override_generation_config", given)
    for name in override:
        if name in (*_RECOMMENDED, "max_new_tokens"):
            continue
        if name not in KNOWN_NAMES:
            raise UsageError(str(unknown("override_generation_config", str(name), (*_RECOMMENDED, "max_new_tokens"))))
        log.warning("override_generation_config: %s has no effect here", name)
    return override


def default_params(facts: dict[str, Any], source: Any, override: dict[str, Any] | None) -> SamplingParams:
    """Parameters of calls that name none: of the model's ``generation_config.json``, of another folder's, or nobody's."""
    override = _overriding(override)
    named: dict[str, Any] = {}
    if not isinstance(source, str) or source not in ("auto", "vllm"):
        expected = "'auto', 'vllm', or a folder with a generation_config.json"
        folder = check_path("generation_config", source, expected)
        file = folder if os.path.isfile(folder) else os.path.join(folder, "generation_config.json")
        if not os.path.isfile(file):
            raise wrong("generation_config", source, expected)
        named = read_json(file)
    elif source == "auto":
        named = dict(facts["sampling"])
    named.update(override)
    if "max_new_tokens" in named:
        named.setdefault("max_tokens", named["max_new_tokens"])
    kept = {name: named[name] for name in _RECOMMENDED if named.get(name) is not None}
    if source == "auto" and facts["sampling"]["temperature"] == 0 and "temperature" not in override:
        # A model that says nothing of temperatures is no model that asks for the likeliest tokens.
        kept = {name: value for name, value in kept.items() if name in ("repetition_penalty", "max_tokens")}
    return SamplingParams(**kept)
