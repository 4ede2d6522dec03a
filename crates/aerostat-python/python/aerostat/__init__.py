"""Language models far larger than memory, streamed from disk, exact to the bit.

``AutoModel`` has the shape of AirLLM's and transformers', ``LLM`` that of vLLM's offline inference. Nothing heavy is
imported before it is used.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from .errors import (
    AerostatError,
    BudgetError,
    Cancelled,
    DefectError,
    DeviceError,
    ForkedError,
    Interrupted,
    JobError,
    ModelError,
    NotFiniteError,
    ReadError,
    TextError,
    UsageError,
)

if TYPE_CHECKING:
    from .auto import AutoModel
    from .llm import LLM
    from .outputs import (
        ClassificationRequestOutput,
        CompletionOutput,
        EmbeddingRequestOutput,
        Logprob,
        RequestOutput,
        ScoringRequestOutput,
    )
    from .params import PoolingParams, SamplingParams, StructuredOutputsParams
    from .tokenizer import Tokenizer

__version__ = "0.1.0"

logging.getLogger("aerostat").addHandler(logging.NullHandler())

_LAZY = {
    "AutoModel": "auto",
    "LLM": "llm",
    "SamplingParams": "params",
    "PoolingParams": "params",
    "StructuredOutputsParams": "params",
    "RequestOutput": "outputs",
    "CompletionOutput": "outputs",
    "EmbeddingRequestOutput": "outputs",
    "ClassificationRequestOutput": "outputs",
    "ScoringRequestOutput": "outputs",
    "Logprob": "outputs",
    "Tokenizer": "tokenizer",
}

__all__ = [
    "AerostatError",
    "AutoModel",
    "BudgetError",
    "Cancelled",
    "ClassificationRequestOutput",
    "CompletionOutput",
    "DefectError",
    "DeviceError",
    "EmbeddingRequestOutput",
    "ForkedError",
    "Interrupted",
    "JobError",
    "LLM",
    "Logprob",
    "ModelError",
    "NotFiniteError",
    "PoolingParams",
    "ReadError",
    "RequestOutput",
    "SamplingParams",
    "ScoringRequestOutput",
    "StructuredOutputsParams",
    "TextError",
    "Tokenizer",
    "UsageError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'aerostat' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
