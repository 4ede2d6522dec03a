"""Keywords of ``AutoModel.from_pretrained``: AirLLM's, transformers' and our own, and packed copies."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from . import _aerostat
from ._checks import check_path, check_token, check_whole, wrong
from ._options import EngineOptions, log, own_cache, unknown
from ._progress import Progress
from .errors import ModelError, UsageError

#: transformers' keywords about loading: noted, and ignored.
_TRANSFORMERS = frozenset(
    """trust_remote_code torch_dtype device_map attn_implementation low_cpu_mem_usage use_safetensors max_memory
    offload_folder offload_state_dict local_files_only force_download resume_download proxies output_loading_info
    use_fast ignore_mismatched_sizes variant weights_only tp_plan code_revision padding_side""".split()
)
#: AirLLM's that have no effect.
_AIRLLM = ("prefetching", "load_resident", "test_nonlayered", "show_memory_util")
_REFUSED = {
    "quantization_config": "models run as they are stored; compression='4bit' makes a packed copy",
    "load_in_4bit": "compression='4bit' makes a packed copy",
    "load_in_8bit": "compression='8bit' makes a packed copy",
    "state_dict": "weights are read from the model's files",
    "config": "the model's own configuration is used",
    "gguf_file": "name the file in the path: 'org/name:FILE.gguf', or a .gguf file",
    "subfolder": "name the folder in the path",
}
_OWN = ("revision", "seed", "progress", "context", *EngineOptions.NAMES)
_NAMED = (
    "device", "dtype", "max_seq_len", "layer_shards_saving_path", "profiling_mode", "compression", "hf_token",
    "delete_original", "install_hooks", "cache_dir", "token",
)  # fmt: skip
#: AirLLM's order, for arguments without a name.
_ORDER = ("device", "dtype", "max_seq_len", "layer_shards_saving_path", "profiling_mode", "compression", "hf_token",
          "prefetching", "delete_original", "install_hooks", "load_resident")  # fmt: skip
#: Codecs by the names that callers know, and what they make of BF16, about.
CODECS = {"4bit": ("q4", 0.29), "8bit": ("q8", 0.53), "lossless": ("lossless", 0.68)}


@dataclass
class Loading:
    """What ``from_pretrained`` was told."""

    path: str
    device: Any = None
    dtype: Any = None
    max_seq_len: int = 512
    layer_shards_saving_path: str | os.PathLike[str] | None = None
    profiling_mode: bool = False
    compression: str | None = None
    hf_token: str | None = None
    delete_original: bool = False
    cache_dir: str | os.PathLike[str] | None = None
    revision: str | None = None
    seed: int = 0
    progress: bool = True

    def kept(self, options: EngineOptions) -> dict[str, Any]:
        """As it is pickled: everything but the token."""
        kept = {name: value for name, value in vars(self).items() if name not in ("hf_token", "delete_original", "device", "dtype")}
        return {**kept, **{name: getattr(options, name) for name in EngineOptions.NAMES}}


def by_name(args: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, Any]:
    """Arguments by their names, those without one in AirLLM's order."""
    named = dict(zip(_ORDER, args))
    twice = next((name for name in named if name in keywords), None)
    if twice is not None or len(args) > len(_ORDER):
        raise TypeError(f"{twice} is given twice" if twice else f"a model takes {1 + len(_ORDER)} arguments without names at most")
    return {**named, **keywords}


def read(path: Any, keywords: dict[str, Any]) -> tuple[Loading, EngineOptions]:
    """Sorts keywords into what is done, noted, refused and not known."""
    options = EngineOptions.take(keywords)
    loading = Loading(check_path("the model's path", path))
    token = keywords.pop("token", None)
    if keywords.pop("install_hooks", True) is False:
        raise UsageError("install_hooks=False is for training; aerostat is for inference only")
    for name in list(keywords):
        if name in _NAMED or name in ("revision", "seed", "progress"):
            setattr(loading, name, keywords.pop(name))
        elif name == "context":
            loading.max_seq_len = keywords.pop(name) or loading.max_seq_len
        elif name in _AIRLLM:
            keywords.pop(name)
        elif name in _REFUSED:
            if keywords.pop(name):
                raise UsageError(f"{name} is not supported: {_REFUSED[name]}")
        elif name in _TRANSFORMERS:
            keywords.pop(name)
            log.info("%s has no effect here", name)
        else:
            raise unknown("from_pretrained", name, (*_NAMED, *_OWN, *_AIRLLM, *_TRANSFORMERS))
    loading.hf_token = check_token("hf_token", loading.hf_token) or check_token("token", token)
    loading.max_seq_len = check_whole("max_seq_len", loading.max_seq_len, 1, 1 << 40)
    loading.seed = check_whole("seed", loading.seed, 0, (1 << 64) - 1)
    check_compression(loading.compression)
    _look_at_device(loading.device)
    if loading.compression is None and loading.layer_shards_saving_path is not None:
        log.warning("layer_shards_saving_path: without compression models run as they are stored, and nothing is written")
    if loading.delete_original and loading.compression != "lossless":
        why = "nothing is copied" if loading.compression is None else "the copy lost something"
        log.warning("delete_original: nothing is deleted, since %s", why)
    return loading, options


def check_compression(compression: Any) -> None:
    if compression is not None and (not isinstance(compression, str) or compression not in CODECS):
        raise wrong("compression", compression, "None, '4bit', '8bit' or 'lossless'")


def _look_at_device(device: Any) -> None:
    name = str(getattr(device, "type", device) or "cpu")
    if name.startswith("cuda") and str(device) != "cuda:0":
        log.warning("device %s: this build has no GPU; the CPU computes", device)
    elif not name.startswith(("cpu", "cuda", "auto", "mps")):
        raise UsageError(f"device is {device!r}; expected 'cpu' or 'cuda:N'")


def copy_of(path: str, loading: Loading, compression: str) -> str:
    """Where the packed copy of a model lies, or will."""
    import hashlib

    name = os.path.basename(os.path.normpath(path))
    mark = hashlib.sha256(os.path.realpath(path).encode()).hexdigest()[:8]
    given = loading.layer_shards_saving_path
    folder = check_path("layer_shards_saving_path", given) if given is not None else os.path.join(own_cache(), "packed")
    return os.path.join(folder, f"{name}-{mark}-{CODECS[compression][0]}")


def is_whole(copy: str) -> bool:
    """Whether a packed copy is there. Its original need not be any more."""
    return os.path.exists(os.path.join(copy, ".aerostat-packed"))


def warn_of(compression: str) -> None:
    """Says so where a copy does not give the model's own results."""
    if compression != "lossless":
        log.warning("compression=%r changes results: weights are rounded; 'lossless' keeps every bit", compression)


def packed(path: str, facts: dict[str, Any], loading: Loading, compression: str) -> str:
    """The packed copy of a model, made if it is not there, or gone on with."""
    import shutil

    if facts["codec"] is not None or facts["quantised"] or os.path.isfile(path):
        log.info("compression=%r is ignored: the model is quantised or packed already", compression)
        return path
    codec, ratio = CODECS[compression]
    warn_of(compression)
    if facts["dtype"] == "F32" and codec == "lossless":
        log.info("compression='lossless' is for BF16, F16 and FP8; F32 weights hardly shrink")
    out = copy_of(path, loading, compression)
    name = os.path.basename(os.path.normpath(path))
    os.makedirs(out, exist_ok=True)
    need = int(facts["weight_bytes"] * ratio)
    have = sum(entry.stat().st_size for entry in os.scandir(out) if entry.is_file())
    free = shutil.disk_usage(out).free
    if need - have > free:
        raise ModelError(f"{out}: the packed copy takes about {need} bytes, and {free} are free; name another layer_shards_saving_path")
    bar = Progress(0, f"packing {name}", "B", enabled=loading.progress)
    delete = loading.delete_original and codec == "lossless"
    try:
        told = json.loads(_aerostat.pack(path, out, codec, None, delete, bar.at))
    finally:
        bar.close()
    with open(os.path.join(out, ".aerostat-packed"), "w", encoding="utf-8") as file:
        file.write(codec)
    log.info("packed %s to %s: %d of %d bytes", path, out, told["bytes"], told["source_bytes"])
    return out
