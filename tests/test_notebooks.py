"""The committed notebooks hold the outputs of one run from top to bottom."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
MOST_BYTES = 1_000_000


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.name)
def notebook(request):
    return json.loads(request.param.read_text())


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell["outputs"]]


def test_there_are_eight():
    assert [path.name[0] for path in NOTEBOOKS] == list("12345678")


def test_every_cell_was_run_once_and_in_order(notebook):
    counts = [cell["execution_count"] for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_no_cell_failed_or_warned(notebook):
    assert not [output for output in outputs(notebook) if output["output_type"] == "error"]
    assert not [output["text"] for output in outputs(notebook) if output.get("name") == "stderr"]


def test_every_drawing_has_its_picture(notebook):
    drawing = [cell for cell in code_cells(notebook) if "plt.show()" in "".join(cell["source"])]
    pictures = [output for output in outputs(notebook) if "image/png" in output.get("data", {})]
    assert len(pictures) >= len(drawing) > 0


def test_no_output_tells_of_the_machine(notebook):
    text = json.dumps([{**output, "data": {**output.get("data", {}), "image/png": ""}} for output in outputs(notebook)])
    assert not [folder for folder in (str(Path.home()), "/home/", "/tmp/", "/Users/", "\\\\Users") if folder in text]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_no_notebook_is_too_large_to_review(path):
    assert path.stat().st_size < MOST_BYTES
