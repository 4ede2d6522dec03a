"""OpenAI's own client against the server of the command that came with the package."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

FIXTURES = Path(os.environ.get("AEROSTAT_FIXTURES", Path(__file__).resolve().parents[3] / "fixtures"))
CHECK = FIXTURES.parent / "oracle" / "check_serve.py"


def test_openais_client_passes() -> None:
    pytest.importorskip("openai", reason="the server is not checked with OpenAI's client: pip install openai")
    command = shutil.which("aerostat", path=sysconfig.get_path("scripts") + os.pathsep + os.environ.get("PATH", ""))
    if command is None or not CHECK.exists():
        pytest.skip(f"the server is not checked with OpenAI's client: no command `aerostat`, or no {CHECK}")
    arguments = [sys.executable, str(CHECK), "--client", "openai", command, str(FIXTURES / "chat")]
    checked = subprocess.run(arguments, capture_output=True, text=True, timeout=600)
    assert checked.returncode == 0, checked.stdout + checked.stderr
