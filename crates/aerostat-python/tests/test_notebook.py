"""The notebook of the documentation runs from its first cell to its last, on the model that it names."""

import os
from pathlib import Path

import pytest

from aerostat import ModelError
from aerostat._core import find

from conftest import fixture

NOTEBOOK = Path(os.environ.get("AEROSTAT_NOTEBOOK", Path(__file__).resolve().parents[3] / "docs" / "notebook.ipynb"))


def run(model: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What its cells print."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("AEROSTAT_NOTEBOOK_MODEL", model)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(output.output_type != "error" for cell in cells for output in cell.outputs)
    return "".join(output.get("text", "") for cell in cells for output in cell.outputs)


def test_the_notebook_runs_on_a_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    told = run(fixture("chat"), monkeypatch)
    assert "of 60 as by hand" in told and "cross-entropy to the teacher" in told


def test_the_notebook_runs_on_the_demo_model(monkeypatch: pytest.MonkeyPatch) -> None:
    # The model is kept where users keep it, so that it is downloaded once.
    monkeypatch.delenv("AEROSTAT_CACHE")
    try:
        find("demo", progress=False)
    except ModelError as error:
        pytest.skip(f"the demo model cannot be had here: {error}")
    told = run("demo", monkeypatch)
    right = int(told.split(" of 60 as by hand")[0].split()[-1])
    assert right >= 45
