"""Vectors of texts as sentence-transformers makes them, and scores of pairs, against what that library gave."""

import json
from typing import Any

import numpy as np
import pytest

import aerostat
from aerostat import LLM, PoolingParams

from conftest import FIXTURES

FOLDERS = ["cls", "dense", "largest"]


def expected(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURES / "sentences" / name / "expected.json").read_text())
    return found


@pytest.mark.parametrize("name", FOLDERS)
def test_an_encoder_gives_what_sentence_transformers_gives(name: str) -> None:
    llm = LLM(FIXTURES / "sentences" / name, progress=False)
    encoder = llm.as_encoder()
    for case in expected(name)["texts"]:
        found = encoder.encode(case["text"], prompt_name=case["prompt_name"])
        assert found.shape == (llm.embedding_size,) and np.allclose(found, case["vector"], atol=1e-4 * np.abs(case["vector"]).max())
    with pytest.raises(aerostat.UsageError, match="no prompt"):
        encoder.encode("x", prompt_name="nobody's")
    # A model that looks ahead gives no tokens.
    with pytest.raises(aerostat.AerostatError):
        llm.generate("x")


def test_embed_takes_texts_as_they_are_and_cuts_long_ones() -> None:
    llm = LLM(FIXTURES / "sentences" / "cls", progress=False)
    plain = {case["text"]: case["vector"] for case in expected("cls")["texts"] if case["prompt_name"] is None}
    texts = [text for text in plain if text]
    for output, text in zip(llm.embed(texts, pooling_params=PoolingParams()), texts):
        assert output.outputs is not None and np.allclose(output.outputs.array, plain[text], atol=1e-3)
    long = "who? " * 5000
    assert llm.embed(long)[0].outputs is not None


def test_pairs_are_scored_by_the_models_head() -> None:
    llm = LLM(FIXTURES / "sentences" / "ranker", progress=False)
    pairs = expected("ranker")["pairs"]
    for case in pairs:
        (scored,) = llm.score(case["query"], case["document"])
        (ranked,) = llm.rerank(case["query"], [case["document"]])
        assert scored.outputs.score == ranked.outputs.score == pytest.approx(case["score"], abs=1e-4)
    together = llm.score([case["query"] for case in pairs], [case["document"] for case in pairs])
    assert [one.outputs.score for one in together] == pytest.approx([case["score"] for case in pairs], abs=1e-4)
    for wrong in (lambda: llm.score("a", [None]), lambda: llm.rerank("a", "b"), lambda: llm.rerank("a", ["b"], instruction="c")):
        with pytest.raises(ValueError):
            wrong()
    assert llm.rerank("a", []) == []
