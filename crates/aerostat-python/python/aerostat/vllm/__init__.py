"""vLLM's names: ``s/vllm/aerostat.vllm/`` ports a script of offline inference. Modules lie where vLLM has them."""

from __future__ import annotations

from typing import Any, TypedDict

from .. import __version__
from ..errors import UsageError
from ..llm import LLM
from ..outputs import (
    ClassificationOutput,
    ClassificationRequestOutput,
    CompletionOutput,
    EmbeddingOutput,
    EmbeddingRequestOutput,
    RequestOutput,
    ScoringOutput,
    ScoringRequestOutput,
)
from ..params import PoolingParams, SamplingParams
from .engine.arg_utils import AsyncEngineArgs, EngineArgs
from .engine.llm_engine import LLMEngine
from .v1.engine.async_llm import AsyncLLM

AsyncLLMEngine = AsyncLLM
PoolingRequestOutput = EmbeddingRequestOutput
PoolingOutput = EmbeddingOutput


class TextPrompt(TypedDict):
    """A prompt as text."""

    prompt: str


class TokensPrompt(TypedDict):
    """A prompt as token ids."""

    prompt_token_ids: list[int]


__all__ = [
    "AsyncEngineArgs",
    "AsyncLLM",
    "AsyncLLMEngine",
    "ClassificationOutput",
    "ClassificationRequestOutput",
    "CompletionOutput",
    "EmbeddingOutput",
    "EmbeddingRequestOutput",
    "EngineArgs",
    "LLM",
    "LLMEngine",
    "PoolingOutput",
    "PoolingParams",
    "PoolingRequestOutput",
    "RequestOutput",
    "SamplingParams",
    "ScoringOutput",
    "ScoringRequestOutput",
    "TextPrompt",
    "TokensPrompt",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in ("ModelRegistry", "LoRARequest"):
        raise UsageError(f"{name}: models and adapters of other makers cannot run here")
    raise AttributeError(f"module 'aerostat.vllm' has no attribute {name!r}")
