"""The actors for Ray Data, called as Ray calls them; `oracle/check_ray.py` runs them on a cluster."""

import subprocess
import sys
import threading
import time
from pathlib import Path
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


def test_a_journal_answers_what_it_knows_and_asks_for_the_rest(chat: str, tmp_path: Path) -> None:
    how: dict[str, Any] = {"model": chat, "sampling_params": {"max_tokens": 6}, "journal": tmp_path}
    wanted = aerostat.ray.Generate(**{**how, "journal": None})({"text": TEXTS})["answer"].tolist()
    assert aerostat.ray.Generate(**how)({"text": TEXTS})["answer"].tolist() == wanted
    (file,) = tmp_path.iterdir()
    lines = file.read_text().splitlines(keepends=True)
    # The last row was torn when the machine went down, and one byte of the first is not what it was.
    file.write_text("".join([lines[0], lines[1].replace("completion", "complexion"), *lines[2:-1], lines[-1][:20]]))
    actor = aerostat.ray.Generate(**how)
    assert actor({"text": TEXTS})["answer"].tolist() == wanted
    stats = actor.llm.stats()
    assert stats is not None and stats["tokens"] == 12
    # Now all is there, and the model is not opened at all.
    again = aerostat.ray.Generate(**how)
    assert again({"text": TEXTS})["answer"].tolist() == wanted and again.llm.stats() is None
    # Whatever changes results has another file.
    for other in ({"sampling_params": {"max_tokens": 7}}, {"kv": "q8"}, {"column": "other"}):
        aerostat.ray.Generate(**{**how, **other})({"text": TEXTS, "other": TEXTS[::-1]})
    assert len(list(tmp_path.iterdir())) == 4


def test_a_journal_keeps_vectors_labels_and_likeliest_tokens(chat: str, tmp_path: Path) -> None:
    for kind, how in ((aerostat.ray.Embed, {}), (aerostat.ray.Classify, {"labels": ["a", "b"]}), (aerostat.ray.Distil, {"k": 3})):
        first, second = (kind(model=chat, journal=tmp_path, **how)({"text": TEXTS}) for _ in range(2))
        for name, values in first.items():
            assert all(np.array_equal(a, b) for a, b in zip(values, second[name])), name


def test_actors_refuse_what_they_cannot_do(chat: str) -> None:
    """One column was written over the other."""
    for make in (
        lambda: aerostat.ray.Generate(chat, output="error"), lambda: aerostat.ray.Embed(chat, output="error"),
        lambda: aerostat.ray.Classify(chat, labels=["a"], output="probability"), lambda: aerostat.ray.Generate(chat, output=None),  # type: ignore[arg-type]
        lambda: aerostat.ray.Generate(chat, sampling_params=5),  # type: ignore[arg-type]
    ):  # fmt: skip
        with pytest.raises(aerostat.UsageError, match="column|sampling_params"):
            make()
    pyarrow = pytest.importorskip("pyarrow")
    with pytest.raises(aerostat.UsageError, match="leave batch_format"):
        aerostat.ray.Generate(chat)(pyarrow.table({"text": ["a"]}))


KILLED = """
import sys, numpy as np, aerostat.ray
texts = np.array([f"Row {n}" for n in range(12)], dtype=object)
actor = aerostat.ray.Generate(model=sys.argv[1], journal=sys.argv[2], sampling_params={"max_tokens": 300, "ignore_eos": True}, rows_max=2)
print("begun", flush=True)
print([answer for answer in actor({"text": texts})["answer"]], flush=True)
"""


def test_a_process_that_is_killed_leaves_what_it_had(chat: str, tmp_path: Path) -> None:
    def start(folder: Path) -> "subprocess.Popen[str]":
        return subprocess.Popen([sys.executable, "-c", KILLED, chat, str(folder)], stdout=subprocess.PIPE, text=True)

    wanted = start(tmp_path / "whole").communicate(timeout=120)[0]
    folder = tmp_path / "journal"
    first = start(folder)
    until = time.monotonic() + 60
    while time.monotonic() < until and not any(file.stat().st_size > 1 for file in folder.glob("*")):
        time.sleep(0.005)
    first.kill()
    first.wait()
    (file,) = folder.iterdir()
    had = file.read_text().count('"completion"')
    assert 0 < had
    assert start(folder).communicate(timeout=120)[0] == wanted
    assert file.read_text().count('"completion"') == 12
