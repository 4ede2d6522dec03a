"""Tiny models that lie in the repository; nothing is downloaded."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, Callable

import pytest

FIXTURES = Path(os.environ.get("AEROSTAT_FIXTURES", Path(__file__).resolve().parents[3] / "fixtures"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written to the user's folders."""
    monkeypatch.setenv("AEROSTAT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def ctrl_c() -> None:
    """It works also where the tests were begun in a shell's background, which has it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


def _command() -> str | None:
    """The command that belongs to the package: what the environment names, else what lies beside this Python."""
    named = os.environ.get("AEROSTAT_COMMAND")
    beside = os.path.join(sysconfig.get_path("scripts"), "aerostat")
    return named or (beside if os.path.exists(beside) else None)


@pytest.fixture(scope="session")
def command() -> str:
    """The command ``aerostat``."""
    found = _command()
    if found is None:
        pytest.skip("the command is not there: AEROSTAT_COMMAND names none, and it is not installed beside this Python")
    return found


Batch = Callable[[str, "list[dict[str, Any]]"], "list[list[str]]"]


@pytest.fixture
def batch(command: str, tmp_path: Path) -> Batch:
    """The answers of ``aerostat batch`` to bodies of completions, or of conversations."""

    def run(model: str, bodies: list[dict[str, Any]]) -> list[list[str]]:
        lines = []
        for number, body in enumerate(bodies):
            url = "/v1/chat/completions" if "messages" in body else "/v1/completions"
            lines.append(json.dumps({"custom_id": str(number), "method": "POST", "url": url, "body": {"model": model, **body}}))
        source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        source.write_text("\n".join(lines) + "\n")
        asked = [command, "batch", "-m", model, "-i", str(source), "-o", str(target), "--restart", "--quiet"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        answers: dict[str, list[str]] = {}
        for line in target.read_text().splitlines():
            row = json.loads(line)
            choices = row["response"]["body"]["choices"]
            answers[row["custom_id"]] = [one["text"] if "text" in one else one["message"]["content"] for one in choices]
        return [answers[str(number)] for number in range(len(bodies))]

    return run


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs_torch: runs where torch is installed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("torch") is None:
        for item in items:
            if item.get_closest_marker("needs_torch"):
                item.add_marker(pytest.mark.skip(reason="torch is not installed"))


def python(code: str, env: dict[str, str] | None = None) -> str:
    """What a program prints in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout
