"""How answers are made: vLLM's parameters, checked when they are made."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any, Sequence

from . import _gbnf
from ._checks import check_flag, check_mapping, check_number, check_text, check_texts, check_whole, items, wrong
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
            raise UsageError(f"structured_outputs take one of json, regex, choice, grammar, json_object, not {named}")
        self._shape = self._read()

    def _read(self) -> Any:
        if self.json_object:
            return "json_object"
        if self.json is not None:
            return {"json": schema_of(self.json)}
        if self.choice is not None:
            choices = check_texts("choice", None if isinstance(self.choice, str) else self.choice)
            if not choices:
                raise wrong("choice", self.choice, "a list of texts that are not empty")
            return {"choice": choices}
        name = "regex" if self.regex is not None else "grammar"
        value = check_text(name, getattr(self, name))
        return {name: _gbnf.to_lark(value) if name == "grammar" and _gbnf.is_gbnf(value) else value}

    @property
    def shape(self) -> Any:
        """As the native half takes it."""
        return self._shape


def schema_of(value: Any) -> Any:
    """A JSON schema given as an object, a text or a Pydantic class."""
    if hasattr(value, "model_json_schema"):
        value = value.model_json_schema()
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise UsageError(f"json: the schema is not JSON: {error}") from error
    if not isinstance(value, (dict, bool)):
        raise UsageError(f"json: expected a schema (an object, its text, or a Pydantic class), not {type(value).__name__}")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"json: the schema is not JSON: {error}") from error
    return value


class RequestOutputKind(Enum):
    """What an engine for event loops gives as answers come: all so far, what is new, or the whole at the end."""

    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


def _ids(name: str, value: Any) -> list[int]:
    """Token ids as the native half can take them."""
    return [check_whole(name, token, 0, (1 << 32) - 1) for token in items(name, value, "a list of token ids")]


def _biases(value: Any) -> dict[int, float] | None:
    biases = {}
    for token, bias in ({} if value is None else check_mapping("logit_bias", value)).items():
        token = int(token) if isinstance(token, str) and token.isdecimal() else token
        token = check_whole("logit_bias: a token", token, 0, (1 << 32) - 1)
        biases[token] = min(100.0, max(-100.0, check_number("logit_bias", bias, -math.inf, math.inf)))
    return biases or None


#: Members that are numbers, and their ranges.
_NUMBERS = {
    "temperature": (0.0, 1e6), "top_p": (0.0, 1.0), "min_p": (0.0, 1.0), "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0), "repetition_penalty": (1e-6, 1e6),
}  # fmt: skip
_WHOLE: dict[str, tuple[int, int | None]] = {
    "n": (1, 65536), "top_k": (0, (1 << 32) - 1), "seed": (-(1 << 63), (1 << 64) - 1), "max_tokens": (1, 1 << 40),
    "min_tokens": (0, 1 << 40), "logprobs": (0, LOGPROBS_MAX), "prompt_logprobs": (0, LOGPROBS_MAX),
    "truncate_prompt_tokens": (1, 1 << 40),
}  # fmt: skip
_FLAGS = ("ignore_eos", "detokenize", "skip_special_tokens", "spaces_between_special_tokens", "include_stop_str_in_output")


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
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE

    def __post_init__(self) -> None:
        for name, (low, high) in _NUMBERS.items():
            setattr(self, name, check_number(name, getattr(self, name), low, high))
        if self.top_p == 0:
            raise UsageError("top_p is 0; expected a number above 0, up to 1")
        self.top_k = 0 if self.top_k == -1 else self.top_k
        for name, (least, most) in _WHOLE.items():
            value = getattr(self, name)
            if value is not None or name in ("n", "top_k", "min_tokens"):
                setattr(self, name, check_whole(name, value, least, most))
        check_whole("min_tokens", self.min_tokens, 0, self.max_tokens)
        for name in _FLAGS:
            setattr(self, name, check_flag(name, getattr(self, name)))
        self.stop = check_texts("stop", self.stop)
        self.bad_words = check_texts("bad_words", self.bad_words)
        self.stop_token_ids = _ids("stop_token_ids", [] if self.stop_token_ids is None else self.stop_token_ids)
        if self.allowed_token_ids is not None:
            self.allowed_token_ids = _ids("allowed_token_ids", self.allowed_token_ids)
            if not self.allowed_token_ids:
                raise UsageError("allowed_token_ids is empty: then nothing can come")
        if self.n > 1 and self.temperature == 0:
            raise UsageError(f"n is {self.n}, but temperature 0 gives the same answer each time")
        if isinstance(self.structured_outputs, dict):
            self.structured_outputs = StructuredOutputsParams(**self.structured_outputs)
        if self.structured_outputs is not None and not isinstance(self.structured_outputs, StructuredOutputsParams):
            raise UsageError("structured_outputs must be StructuredOutputsParams")
        self.logit_bias = _biases(self.logit_bias)

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
            self.dimensions = check_whole("dimensions", self.dimensions, 1)
        for name in ("normalize", "use_activation"):
            if getattr(self, name) is not None:
                setattr(self, name, check_flag(name, getattr(self, name)))
