"""Options of a model, from command lines or as a value."""

from __future__ import annotations

import argparse
from typing import Any

from ...llm import LLM

#: Options of command lines: their types, and what they say.
_FLAGS: dict[str, tuple[Any, str]] = {
    "model": (str, "a folder, a .gguf file, org/name[@revision][:FILE], or demo"),
    "tokenizer": (str, "the model's own; another is refused"),
    "revision": (str, "branch, tag or commit"),
    "seed": (int, "seed of all sampling"),
    "hf-token": (str, "token for gated models"),
    "max-model-len": (int, "tokens of the longest sequence that the model is opened for"),
    "max-num-seqs": (int, "sequences that the model is opened for"),
    "max-num-batched-tokens": (int, "rows of a pass at most"),
    "kv-cache-dtype": (str, "type of the KV cache"),
    "download-dir": (str, "folder for downloads"),
    "quantization": (str, "the scheme of the weights as they are stored"),
    "generation-config": (str, "'auto' for the model's own, 'vllm' for none"),
    "memory": (str, "memory of the whole process, such as 4GiB"),
    "threads": (int, "threads that compute"),
}
#: Options of vLLM's that take a value and have no effect here.
_WITHOUT_EFFECT = ("runner", "convert", "task", "dtype", "tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size",
                   "gpu-memory-utilization", "load-format", "tokenizer-mode", "config-format", "cpu-offload-gb", "block-size")  # fmt: skip
_SWITCHES = ("enforce-eager", "trust-remote-code", "enable-prefix-caching", "enable-chunked-prefill", "skip-tokenizer-init")


class EngineArgs:
    """Keywords of :class:`aerostat.LLM`; attributes, too."""

    def __init__(self, model: str = "demo", **keywords: Any) -> None:
        self.model = model
        for name, value in keywords.items():
            setattr(self, name, value)

    @staticmethod
    def add_cli_args(parser: Any) -> Any:
        """Adds ``--model`` and the other options; what is not named stays out of the parsed arguments."""
        for name, (kind, text) in _FLAGS.items():
            parser.add_argument(f"--{name}", type=kind, default=argparse.SUPPRESS, help=text)
        for name in _WITHOUT_EFFECT:
            parser.add_argument(f"--{name}", default=argparse.SUPPRESS, help="no effect")
        for name in _SWITCHES:
            parser.add_argument(f"--{name}", action="store_true", default=argparse.SUPPRESS, help="as vLLM has it")
        return parser

    @classmethod
    def from_cli_args(cls, args: Any) -> "EngineArgs":
        """Of what a parser made of a command line."""
        return cls(**vars(args))

    def create_llm(self) -> LLM:
        """The model."""
        return LLM(**vars(self))

    def __repr__(self) -> str:
        shown = {name: value for name, value in vars(self).items() if name != "hf_token"}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


class AsyncEngineArgs(EngineArgs):
    """The same for event loops."""


__all__ = ["AsyncEngineArgs", "EngineArgs"]
