"""How well documents answer a query."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Iterable

from ._core import raised
from .errors import UsageError
from .outputs import ScoringOutput, ScoringRequestOutput

if TYPE_CHECKING:
    from .llm import LLM


def pair_scores(
    llm: "LLM", pairs: Iterable[tuple[Any, Any]], instruction: str | None, use_tqdm: bool
) -> list[ScoringRequestOutput]:
    """A score for each pair of texts."""
    model = llm._core.model
    groups: list[list[dict[str, Any]]] = []
    for number, (query, document) in enumerate(pairs):
        if not isinstance(query, str) or not isinstance(document, str):
            raise UsageError(f"pair {number}: expected two texts, not {type(query).__name__} and {type(document).__name__}")
        groups.append(json.loads(model.pair(query, document, instruction)))
    results = iter(llm._results([request for group in groups for request in group], "pairs", use_tqdm))
    outputs = []
    for number, group in enumerate(groups):
        found = [next(results) for _ in group]
        error = next((error for error in (raised(one, number) for one in found) if error is not None), None)
        if error is not None:
            raise error
        if "values" in found[0][1]:
            score = model.pair_score(found[0][1]["values"])
        else:
            score = model.pair_score(words=[members["logprobs"][-1] for _, members in found])
        outputs.append(ScoringRequestOutput(str(number), ScoringOutput(score), group[0]["tokens"], True))
    return outputs
