"""``AutoModel``: one model, in the shape of AirLLM's and transformers'."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, Sequence

from . import _forward, _generate, _loading, tensors
from ._core import Core, Counter, find
from ._generation import GenerationConfig
from ._options import log
from .errors import UsageError
from .tokenizer import Tokenizer, read_json

_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
_TRAINING = frozenset(("layers", "parameters", "named_parameters", "train", "backward", "gradient_checkpointing_enable",
                       "requires_grad_", "state_dict", "load_state_dict", "zero_grad", "resize_token_embeddings"))  # fmt: skip


class Config:
    """A model's ``config.json``; its members are attributes."""

    def __init__(self, members: dict[str, Any]) -> None:
        for name, value in members.items():
            setattr(self, name, Config(value) if isinstance(value, dict) else value)
        self._members = members

    def to_dict(self) -> dict[str, Any]:
        return dict(self._members)

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name, default)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def __getitem__(self, name: str) -> Any:
        return self._members[name]

    def __repr__(self) -> str:
        return f"Config({self._members!r})"


class Profiler:
    """Where time went, from the engine's counters."""

    def __init__(self, model: "AutoModel") -> None:
        self._model = model

    def report(self) -> str:
        """The counters in words."""
        stats = self._model._core.stats()
        if stats is None:
            return "the model has not run yet"
        return (
            f"{stats['sweeps']} sweeps with {stats['rows']} rows, {stats['tokens']} tokens in {stats['sweep_seconds']:.2f} s "
            f"({stats['tokens_per_second']:.2f} tokens/s); loading {stats['load_seconds']:.2f} s, computing "
            f"{stats['compute_seconds']:.2f} s, waiting for reads {stats['stall_seconds']:.2f} s; read "
            f"{stats['read_bytes'] / 1e9:.2f} GB at {stats['read_bytes_per_second'] / 1e9:.2f} GB/s; peak memory "
            f"{stats['memory_peak_bytes'] / (1 << 20):.0f} MiB of {stats['memory_budget_bytes'] / (1 << 20):.0f}"
        )

    def print_profiling_time(self) -> None:
        """The counters, to the logger ``aerostat``."""
        log.info("%s", self.report())

    def clear_profiling_time(self) -> None:
        """Nothing: counters begin with the opening of the model."""


class AutoModel:
    """A model for text or token ids, greedy unless told otherwise.

    ``from_pretrained`` reads headers and tokenizer; weights are read at the first call. Everything runs on the CPU, within
    ``memory`` if that is given. Calls from several threads share passes over the weights.
    """

    def __init__(self, model_local_path_or_repo_id: str | os.PathLike[str], *args: Any, **keywords: Any) -> None:
        # AirLLM's classes are called like functions, too.
        self._load(model_local_path_or_repo_id, _loading.by_name(args, keywords))

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], device: Any = "cuda:0", dtype: Any = None,
        max_seq_len: int = 512, layer_shards_saving_path: str | os.PathLike[str] | None = None,
        profiling_mode: bool = False, compression: str | None = None, hf_token: str | None = None,
        prefetching: bool = True, delete_original: bool = False, install_hooks: bool = True, load_resident: bool = True,
        **keywords: Any,
    ) -> "AutoModel":  # fmt: skip
        """Finds a model (a folder, a ``.gguf`` file, ``org/name[@revision][:FILE]`` or ``demo``), downloading it if need be,
        and reads its headers.

        ``memory="4GiB"`` bounds the whole process; ``compression`` ('lossless', '8bit', '4bit') makes a packed copy once and
        runs that; ``max_seq_len`` says for how long sequences the model is opened at least, and limits nothing.
        """
        return cls(
            pretrained_model_name_or_path, device, dtype, max_seq_len, layer_shards_saving_path, profiling_mode,
            compression, hf_token, prefetching, delete_original, install_hooks, load_resident, **keywords,
        )  # fmt: skip

    def _load(self, path: Any, keywords: dict[str, Any]) -> None:
        loading, options = _loading.read(path, dict(keywords))
        self._given = {"path": loading.path, **{k: v for k, v in loading.kept(options).items() if k != "path"}}
        self._loading, self._options = loading, options
        self.model_local_path = find(loading.path, loading.revision, loading.hf_token, loading.cache_dir, loading.progress)
        self._cores: dict[str | None, Core] = {}
        self.compression = loading.compression
        self.max_seq_len = loading.max_seq_len
        self._core = self._core_for(loading.compression)
        self._calls, self._noted = Counter(), False
        self.tokenizer = Tokenizer(self._core)
        self.config = Config(self._read_config())
        self.generation_config: Any = GenerationConfig.of(self.model_local_path)
        self.profiler = Profiler(self)
        self.profiling_mode = loading.profiling_mode
        self._look_at_dtype(loading.dtype)

    def _core_for(self, compression: str | None) -> Core:
        """The model as it lies, or a packed copy of it."""
        if compression not in self._cores:
            path = self.model_local_path
            if compression is not None:
                _loading.check_compression(compression)
                copy = _loading.copy_of(path, self._loading, compression)
                if _loading.is_whole(copy):
                    _loading.warn_of(compression)
                    path = copy
                else:
                    path = _loading.packed(path, self._core_for(None).facts, self._loading, compression)
            floor = (self._loading.max_seq_len, 1)
            self._cores[compression] = Core(path, self._options, floor, self._loading.progress)
        return self._cores[compression]

    def _use(self, compression: str | None) -> None:
        """Runs another copy from now on."""
        if compression is not None and compression != self.compression:
            core = self._core_for(compression)
            self._core.close()
            self._core, self.compression = core, compression

    def _read_config(self) -> dict[str, Any]:
        named = read_json(os.path.join(self.model_local_path, "config.json")) if os.path.isdir(self.model_local_path) else {}
        if named:
            return named
        facts = self._core.facts
        return {"model_type": facts["family"], "hidden_size": facts["hidden"], "vocab_size": facts["vocab"],
                "num_hidden_layers": facts["blocks"], "max_position_embeddings": facts["context_max"],
                "bos_token_id": facts["bos"], "eos_token_id": facts["end_tokens"]}  # fmt: skip

    def _look_at_dtype(self, dtype: Any) -> None:
        name = None if dtype is None else str(dtype).rsplit(".", 1)[-1]
        if name not in (None, "auto", self._dtype_name()):
            log.warning("dtype %s has no effect: weights are %s as stored, and computed with in float32", name, self._dtype_name())

    def _dtype_name(self) -> str:
        stored = str(self._core.facts["dtype"])
        return _DTYPES.get(stored, stored.lower())

    # What scripts look at

    @property
    def device(self) -> Any:
        """The CPU: torch's device where torch is in use, else the word."""
        torch = sys.modules.get("torch")
        return torch.device("cpu") if torch is not None else "cpu"

    running_device = device

    @property
    def dtype(self) -> Any:
        """The type of the stored weights: torch's where torch is in use and has it, else the word."""
        return getattr(sys.modules.get("torch"), self._dtype_name(), self._dtype_name())

    @property
    def running_dtype(self) -> Any:
        """The type that is computed with."""
        return getattr(sys.modules.get("torch"), "float32", "float32")

    @property
    def checkpoint_path(self) -> str:
        """The files that run: the model, or its packed copy."""
        return self._core.path

    @property
    def layer_names(self) -> list[str]:
        """Names of a pass's parts, as AirLLM has them."""
        blocks = [f"model.layers.{number}" for number in range(self._core.facts["blocks"])]
        return ["model.embed_tokens", *blocks, "model.norm", "lm_head"]

    @property
    def model(self) -> "AutoModel":
        return self

    @property
    def hf_device_map(self) -> Any:
        """What transformers' pipelines look at first: they call a model's inside, which is not torch's here."""
        raise UsageError("transformers' pipeline(model=…) cannot run this model: call model.generate(texts, …) instead")

    def eval(self) -> "AutoModel":
        return self

    def to(self, *_args: Any, **_keywords: Any) -> "AutoModel":
        return self

    def cuda(self, *_args: Any, **_keywords: Any) -> "AutoModel":
        return self

    def cpu(self) -> "AutoModel":
        return self

    def half(self) -> "AutoModel":
        return self

    def float(self) -> "AutoModel":
        return self

    def can_generate(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        if name in _TRAINING:
            raise AttributeError(f"{name}: aerostat is for inference only; weights are streamed and cannot be trained")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # Life

    def __enter__(self) -> "AutoModel":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Gives the memory of weights and cache back; the next call opens the model again."""
        for core in self._cores.values():
            core.close()

    def stats(self) -> dict[str, Any] | None:
        """Counters and times since the model was opened."""
        return self._core.stats()

    def __getstate__(self) -> dict[str, Any]:
        # What answers depend on, and a caller may have set since.
        tokenizer = self.tokenizer.settings() if isinstance(self.tokenizer, Tokenizer) else self.tokenizer
        given = {**self._given, "compression": self.compression}
        return {"given": given, "tokenizer": tokenizer, "generation_config": self.generation_config}

    def __setstate__(self, given: dict[str, Any]) -> None:
        options = dict(given["given"])
        self._load(options.pop("path"), options)
        self.generation_config = given["generation_config"]
        if isinstance(given["tokenizer"], str):
            self.tokenizer.set(given["tokenizer"])
        else:
            self.tokenizer = given["tokenizer"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._loading.path!r})"

    # Work

    def generate(
        self,
        inputs: Any = None,
        generation_config: Any = None,
        logits_processor: Any = None,
        stopping_criteria: Any = None,
        streamer: Any = None,
        *,
        input_ids: Any = None,
        attention_mask: Any = None,
        compression: str | None = None,
        **keywords: Any,
    ) -> Any:
        """Answers. Of token ids (``[batch, length]``, any array or tensor), the sequences as transformers gives them: in
        torch's tensor where one came in, else in numpy's. Of a text or a list of texts, a list of the answers alone."""
        self._use(compression)
        if inputs is not None and input_ids is not None:
            raise UsageError("inputs and input_ids mean the same: give one of them")
        inputs, attention_mask, keywords = _forward.taken_apart(input_ids if inputs is None else inputs, attention_mask, keywords)
        ask = _generate.Ask(self, generation_config, keywords, logits_processor, stopping_criteria, streamer)
        inputs = tensors.plain(inputs)
        if inputs is None:
            raise UsageError("generate needs token ids or texts")
        try:
            texts = tensors.texts_in(inputs)
            if texts is not None:
                if attention_mask is not None:
                    raise UsageError("attention_mask goes with token ids; texts have no padding")
                self._note_template()
                return ask.texts(texts)
            return ask.ids(inputs, attention_mask)
        finally:
            self._tell_profile()

    def __call__(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        *,
        labels: Any = None,
        output_hidden_states: bool = False,
        logits_to_keep: int | Sequence[int] = 0,
        return_dict: bool = True,
        use_cache: Any = None,
        **keywords: Any,
    ) -> Any:
        """One pass over ``[batch, length]`` token ids: ``.logits`` ``[batch, length, vocab]`` float32, ``.loss`` with
        ``labels``, ``.hidden_states``."""
        try:
            return _forward.forward(
                self, input_ids, attention_mask, labels, output_hidden_states, logits_to_keep, return_dict, keywords
            )
        finally:
            self._tell_profile()

    forward = __call__

    def _note_template(self) -> None:
        if self._core.facts["template"] and not self._noted:
            self._noted = True
            log.info("texts go to the model as they are; tokenizer.apply_chat_template makes prompts of conversations")

    def _tell_profile(self) -> None:
        if self.profiling_mode:
            if not log.isEnabledFor(logging.INFO):
                log.warning("%s", self.profiler.report())
            self.profiler.print_profiling_time()
