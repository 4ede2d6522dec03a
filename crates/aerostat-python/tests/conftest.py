"""Tiny models that lie in the repository; nothing is downloaded."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

FIXTURES = Path(os.environ.get("AEROSTAT_FIXTURES", Path(__file__).resolve().parents[3] / "fixtures"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written to the user's folders."""
    monkeypatch.setenv("AEROSTAT_CACHE", str(tmp_path / "cache"))


def fixture(name: str) -> str:
    """A model's folder."""
    return str(FIXTURES / name)


def expected(name: str) -> dict[str, Any]:
    """What transformers computes with it."""
    return json.loads((FIXTURES / name / "expected.json").read_text())


@pytest.fixture(scope="session")
def chat() -> str:
    """A model with a tokenizer and a chat template; its makers sample."""
    return fixture("chat")


@pytest.fixture(scope="session")
def greedy_chat(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same without a word on how to sample."""
    folder = tmp_path_factory.mktemp("models") / "greedy"
    shutil.copytree(FIXTURES / "chat", folder)
    config = json.loads((folder / "generation_config.json").read_text())
    for name in ("do_sample", "temperature", "top_k", "top_p"):
        config.pop(name)
    (folder / "generation_config.json").write_text(json.dumps(config))
    return str(folder)
