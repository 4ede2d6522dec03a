"""The actors for Ray Data, called as Ray calls them; `oracle/check_ray.py` runs them on a cluster."""

import threading
from typing import Any

import numpy as np
import pytest

import aerostat.ray
from aerostat import LLM, SamplingParams

TEXTS = np.array(["Hello", "you there", "What is it"], dtype=object)
GREEDY = {"temperature": 0.0, "max_tokens": 5}


@pytest.fixture(scope="module")
def llm(chat: str) -> LLM:
    return LLM(chat, progress=False)


def test_answers(llm: LLM, chat: str) -> None:
    actor = aerostat.ray.Generate(model=chat, sampling_params=GREEDY)
    found = actor({"id": np.arange(3), "text": TEXTS})
    assert found["id"].tolist() == [0, 1, 2] and found["error"].tolist() == [None] * 3
    assert found["answer"].tolist() == [o.outputs[0].text for o in llm.generate(list(TEXTS), SamplingParams(**GREEDY))]
    with pytest.raises(aerostat.UsageError, match="no column"):
        actor({"txt": TEXTS})


def test_a_block_that_comes_again_gets_the_same_answers(chat: str) -> None:
    answers = []
    for _ in range(2):
        actor = aerostat.ray.Generate(model=chat, sampling_params={"max_tokens": 8})
        answers += [actor({"text": TEXTS})["answer"].tolist() for _ in range(2)]
    assert all(one == answers[0] for one in answers)


def test_rows_that_cannot_be_served_are_data(chat: str) -> None:
    texts = np.array(["Hello", None, ""], dtype=object)
    for actor in (
        aerostat.ray.Generate(model=chat, sampling_params=GREEDY),
        aerostat.ray.Embed(model=chat),
        aerostat.ray.Classify(model=chat, labels=["a", "b"]),
        aerostat.ray.Distil(model=chat, k=3),
    ):
        found = actor({"text": texts})
        assert [error is None for error in found["error"]] == [True, False, False]
        assert all(len(values) == 3 for values in found.values())


def test_vectors_labels_and_likeliest_tokens(llm: LLM, chat: str) -> None:
    vectors = aerostat.ray.Embed(model=chat)({"text": TEXTS})["embedding"]
    assert np.array_equal(vectors, np.stack([o.outputs.array for o in llm.embed(list(TEXTS)) if o.outputs is not None]))
    labels = aerostat.ray.Classify(model=chat, labels=["a", "b"])({"text": TEXTS})
    assert labels["label"].tolist() == [o.outputs.label for o in llm.classify(list(TEXTS), ["a", "b"]) if o.outputs is not None]
    assert (labels["probability"] >= 0.5).all()
    likely = aerostat.ray.Distil(model=chat, k=3)({"text": TEXTS})
    for ids, tokens, wanted in zip(likely["ids"], likely["token_ids"], llm.distil(list(TEXTS), 3)):
        assert tokens == wanted.token_ids and np.array_equal(ids, wanted.ids)


def test_several_calls_at_once_share_an_actor(chat: str) -> None:
    actor = aerostat.ray.Generate(model=chat, sampling_params=GREEDY)
    alone = actor({"text": TEXTS})["answer"].tolist()
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(actor({"text": TEXTS})["answer"].tolist())) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert found == [alone] * 4
