"""AirLLM's names: ``s/airllm/aerostat.airllm/`` ports a script. All of them are :class:`aerostat.AutoModel`, which knows
families by their files."""

from __future__ import annotations

from typing import Any

from .auto import AutoModel
from .errors import ModelError

AirLLMLlama2 = AutoModel
AirLLMLlama3 = AutoModel
AirLLMLlamaMlx = AutoModel
AirLLMBaseModel = AutoModel
AirLLMChatGLM = AutoModel
AirLLMQWen = AutoModel
AirLLMQWen2 = AutoModel
AirLLMBaichuan = AutoModel
AirLLMInternLM = AutoModel
AirLLMMistral = AutoModel
AirLLMMixtral = AutoModel
AirLLMGemma4 = AutoModel
AirLLMKimiK3 = AutoModel
AirLLMQwen3_5 = AutoModel
AirLLMQwen4Exp = AutoModel
NotEnoughSpaceException = ModelError

__all__ = [
    "AirLLMBaichuan",
    "AirLLMBaseModel",
    "AirLLMChatGLM",
    "AirLLMGemma4",
    "AirLLMInternLM",
    "AirLLMKimiK3",
    "AirLLMLlama2",
    "AirLLMLlama3",
    "AirLLMLlamaMlx",
    "AirLLMMistral",
    "AirLLMMixtral",
    "AirLLMQWen",
    "AirLLMQWen2",
    "AirLLMQwen3_5",
    "AirLLMQwen4Exp",
    "AutoModel",
    "NotEnoughSpaceException",
]


def __getattr__(name: str) -> Any:
    if name.startswith("AirLLMLoRA"):
        raise AttributeError(f"{name}: aerostat is for inference only")
    if name == "split_and_save_layers":
        raise AttributeError(f"{name}: models run from their own files, and nothing is split")
    raise AttributeError(f"module 'aerostat.airllm' has no attribute {name!r}")
