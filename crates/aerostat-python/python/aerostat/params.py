"""How answers are made: vLLM's parameters, checked when they are made."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, Sequence

from .errors import UsageError

#: Alternatives per token at most; the same bound as the server's.
LOGPROBS_MAX = 1000


@dataclass
class StructuredOutputsParams:
    """What an answer must look like; one of these."""

    json: str | dict[str, Any] | type | None = None
    regex: str | None = None
    choice: Sequence[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("json", "regex", "choice", "grammar") if getattr(self, name) is not None]
        given += ["json_object"] if self.json_object else []
        if len(given) != 1:
            named = " and ".join(given) or "none of them"
            raise UsageError(f"structured outputs take one of json, regex, choice, grammar, json_object, not {named}")
        self._shape = self._read()

    def _read(self) -> Any:
        if self.json_object:
            return "json_object"
        if self.json is not None:
            return {"json": schema_of(self.json)}
        if self.choice is not None:
            choices = list(self.choice)
            if isinstance(self.choice, str) or not choices or not all(isinstance(c, str) and c for c in choices):
                raise UsageError("choice must be a list of texts that are not empty")
            return {"choice": choices}
        name = "regex" if self.regex is not None else "grammar"
        value = getattr(self, name)
        if not isinstance(value, str):
            raise UsageError(f"{name} must be a text, not {type(value).__name__}")
        return {name: value}

    @property
    def shape(self) -> Any:
        """As the native half takes it."""
        return self._shape


def schema_of(value: Any) -> Any:
    """A JSON schema given as an object, a text or a Pydantic class."""
    if hasattr(value, "model_json_schema"):
        return value.model_json_schema()
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise UsageError(f"json: the schema is not JSON: {error}") from error
    if not isinstance(value, (dict, bool)):
        raise UsageError(f"json: expected a schema (an object, its text, or a Pydantic class), not {type(value).__name__}")
    return value


def _number(name: str, value: Any, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high or math.isnan(value):
        raise UsageError(f"{name} is {value!r}; expected a number from {low:g} to {high:g}")


def _whole(name: str, value: Any, low: int, high: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        bound = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise UsageError(f"{name} is {value!r}; expected a whole number {bound}")


@dataclass
class SamplingParams:
    """How an answer is made. The defaults are vLLM's: tokens are sampled at temperature 1; 0 takes the likeliest."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    truncate_prompt_tokens: int | None = None
    structured_outputs: StructuredOutputsParams | None = None
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: Sequence[int] | None = None
    bad_words: Sequence[str] | None = field(default=None)

    def __post_init__(self) -> None:
        _whole("n", self.n, 1, 65536)
        _number("temperature", self.temperature, 0.0, 1e6)
        _number("top_p", self.top_p, 0.0, 1.0)
        if self.top_p == 0:
            raise UsageError("top_p is 0; expected a number above 0, up to 1")
        self.top_k = 0 if self.top_k == -1 else self.top_k
        _whole("top_k", self.top_k, 0)
        _number("min_p", self.min_p, 0.0, 1.0)
        _number("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _number("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _number("repetition_penalty", self.repetition_penalty, 1e-6, 1e6)
        if self.seed is not None:
            _whole("seed", self.seed, -(1 << 63), (1 << 64) - 1)
        if self.max_tokens is not None:
            _whole("max_tokens", self.max_tokens, 1)
        _whole("min_tokens", self.min_tokens, 0, self.max_tokens)
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), 0, LOGPROBS_MAX)
        if self.truncate_prompt_tokens is not None:
            _whole("truncate_prompt_tokens", self.truncate_prompt_tokens, 1)
        self.stop = [self.stop] if isinstance(self.stop, str) else list(self.stop or [])
        if not all(isinstance(text, str) and text for text in self.stop):
            raise UsageError("stop must hold texts that are not empty")
        self.stop_token_ids = [int(token) for token in self.stop_token_ids or []]
        self.bad_words = list(self.bad_words or [])
        if self.n > 1 and self.temperature == 0:
            raise UsageError(f"n is {self.n}, but temperature 0 gives the same answer each time")
        if isinstance(self.structured_outputs, dict):
            self.structured_outputs = StructuredOutputsParams(**self.structured_outputs)
        bias = self.logit_bias or {}
        self.logit_bias = {int(token): min(100.0, max(-100.0, float(value))) for token, value in bias.items()} or None

    def clone(self) -> "SamplingParams":
        """A copy that can be changed."""
        return replace(self)

    def sampling(self, seed: int) -> dict[str, Any]:
        """As the native half takes it."""
        return {
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
            "logit_bias": [[token, value] for token, value in (self.logit_bias or {}).items()],
            "seed": (seed if self.seed is None else self.seed) % (1 << 64),
        }


#: Names that ``SamplingParams`` knows.
SAMPLING_NAMES = tuple(member.name for member in fields(SamplingParams))


@dataclass
class PoolingParams:
    """How a text becomes a vector."""

    normalize: bool | None = None
    dimensions: int | None = None
    use_activation: bool | None = None

    def __post_init__(self) -> None:
        if self.dimensions is not None:
            _whole("dimensions", self.dimensions, 1)
