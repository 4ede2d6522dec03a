"""How well documents answer a query."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Iterable, Sequence

from ._checks import check_text
from ._core import Result, raised, succeeded
from .errors import UsageError
from .outputs import EmbeddingRequestOutput, ScoringOutput, ScoringRequestOutput

if TYPE_CHECKING:
    from .llm import LLM


def pair_scores(
    llm: "LLM", pairs: Iterable[tuple[Any, Any]], instruction: str | None, use_tqdm: bool
) -> list[ScoringRequestOutput]:
    """A score for each pair of texts."""
    model = llm._core.model
    if instruction is not None:
        check_text("instruction", instruction)
    groups: list[list[dict[str, Any]]] = []
    for number, (query, document) in enumerate(pairs):
        if not isinstance(query, str) or not isinstance(document, str):
            raise UsageError(f"pair {number}: expected two texts, not {type(query).__name__} and {type(document).__name__}")
        groups.append(json.loads(model.pair(check_text(f"pair {number}", query), check_text(f"pair {number}", document), instruction)))

    def shaped(results: list[Any]) -> list[Any]:
        left = iter(results)
        found = ([next(left) for _ in group] for group in groups)
        return [_pair_score(llm, number, groups[number], own) if all(map(succeeded, own)) else None for number, own in enumerate(found)]

    results = llm._results([request for group in groups for request in group], "pairs", use_tqdm, shaped)
    owners = (number for number, group in enumerate(groups) for _ in group)
    error = next((error for error in map(raised, results, owners) if error is not None), None)
    if error is not None:
        raise error
    return shaped(results)


def _pair_score(llm: "LLM", number: int, group: list[dict[str, Any]], found: list[Result]) -> ScoringRequestOutput:
    model = llm._core.model
    if "values" in found[0][1]:
        score = model.pair_score(found[0][1]["values"])
    else:
        score = model.pair_score(words=[members["logprobs"][-1] for _, members in found])
    return ScoringRequestOutput(str(number), ScoringOutput(score), group[0]["tokens"], True)


def cosines(vectors: Sequence[EmbeddingRequestOutput | None], first: int) -> list[Any]:
    """How alike the first texts' vectors are to those of the others: one to each, or pair by pair. Nothing for pairs of which
    one has no vector."""
    left, right = vectors[:first], vectors[first:]
    pairs = zip(list(left) * len(right) if first == 1 else left, right)
    return [_cosine(number, a, b) for number, (a, b) in enumerate(pairs)]


def _cosine(number: int, a: EmbeddingRequestOutput | None, b: EmbeddingRequestOutput | None) -> ScoringRequestOutput | None:
    import numpy as np

    if a is None or b is None or a.outputs is None or b.outputs is None:
        return None
    left, right = (np.asarray(one.array, dtype=np.float64) for one in (a.outputs, b.outputs))
    return ScoringRequestOutput(str(number), ScoringOutput(float(left @ right)), [*a.prompt_token_ids, *b.prompt_token_ids], True)
