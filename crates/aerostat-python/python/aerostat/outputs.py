"""What comes of requests, in vLLM's shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Logprob:
    """The log-probability of a token, its rank (1: the likeliest) where that is known, and its text."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    """One answer. ``finish_reason`` is ``"stop"``, ``"length"`` or ``"abort"``."""

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None = None
    stop_reason: int | str | None = None

    def finished(self) -> bool:
        return self.finish_reason is not None


@dataclass
class RequestOutput:
    """A prompt and its answers. ``error`` is what went wrong, if the call was told to return errors."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int] | None
    prompt_logprobs: list[dict[int, Logprob] | None] | None
    outputs: list[CompletionOutput]
    finished: bool
    metrics: Any = None
    num_cached_tokens: int | None = None
    error: Exception | None = None


@dataclass
class EmbeddingOutput:
    """A vector, as numpy's array of float32; ``embedding`` is the same as a list."""

    array: Any

    @property
    def embedding(self) -> list[float]:
        values: list[float] = self.array.tolist()
        return values

    @property
    def data(self) -> Any:
        return self.array

    @property
    def hidden_size(self) -> int:
        return len(self.array)


@dataclass
class EmbeddingRequestOutput:
    """A prompt and its vector."""

    request_id: str
    outputs: EmbeddingOutput | None
    prompt_token_ids: list[int]
    finished: bool
    error: Exception | None = None


@dataclass
class ClassificationOutput:
    """The label that was chosen, and for each label its score by the measure and its share of the probability."""

    label: str
    index: int
    scores: list[float]
    probs: list[float]

    @property
    def num_classes(self) -> int:
        return len(self.probs)


@dataclass
class ClassificationRequestOutput:
    """A prompt and its label."""

    request_id: str
    outputs: ClassificationOutput | None
    prompt_token_ids: list[int]
    finished: bool
    error: Exception | None = None


@dataclass
class ScoringOutput:
    """How alike two texts are: the cosine of their vectors."""

    score: float


@dataclass
class ScoringRequestOutput:
    """Two texts and their score."""

    request_id: str
    outputs: ScoringOutput
    prompt_token_ids: list[int]
    finished: bool


@dataclass
class LikelihoodOutput:
    """How likely a continuation is after its context: the sum of its tokens' log-probabilities, and those."""

    logprob: float
    token_ids: list[int]
    token_logprobs: list[float] = field(default_factory=list)


@dataclass
class DistilOutput:
    """A text's tokens, and after each of them the likeliest, ``[tokens, k]``, with their log-probabilities."""

    token_ids: list[int]
    ids: Any
    logprobs: Any
    error: Exception | None = None
