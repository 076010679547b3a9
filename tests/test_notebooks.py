"""The stored notebooks: read as they stand here, executed by nbval, and (slow) by nbval on other arithmetic."""

import os
import subprocess
import sys

import nbformat
import pytest

from mialib import REPO_ROOT
from mialib.figures import first_screen

NOTEBOOKS = sorted((REPO_ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_with_outputs_and_without_errors(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count is not None for cell in cells), (
        "nbval would run but not compare such a cell"
    )
    assert any(cell.outputs for cell in cells)
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nbval_compares_something(path):
    compared = [
        cell
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "code"
        and cell.outputs
        and "nbval-ignore-output" not in cell.metadata.get("tags", [])
    ]
    assert len(compared) >= 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_answer_of_the_stored_run_is_on_the_first_screen(path):
    title, page, parameters = nbformat.read(path, as_version=4).cells[:3]
    assert title.source.startswith("# ") and len(title.source.splitlines()) <= 16
    assert "parameters" in parameters.metadata.tags
    assert "nbval-ignore-output" in page.metadata.tags
    text, figure = page.outputs
    assert text.data["text/markdown"] != first_screen.WAITING
    assert figure.data["image/png"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_prose_is_wrapped(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    lines = [line for cell in cells for line in cell.source.splitlines() if not line.startswith("|")]
    # what cannot be cut may stick out: a link, an equation
    too_long = [
        line for line in lines if len(line) > 110 and not any(part in line for part in ("](", "$", "\\"))
    ]
    assert not too_long


@pytest.mark.slow
@pytest.mark.parametrize(
    "arithmetic",
    [{"OMP_NUM_THREADS": "2"}, {"ATEN_CPU_CAPABILITY": "default"}, {"ONEDNN_MAX_CPU_ISA": "AVX2"}],
    ids=lambda setting: next(iter(setting)),
)
def test_outputs_are_stable_on_other_arithmetic(arithmetic):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--nbval",
        "--nbval-current-env",
        "notebooks",
        "-p",
        "no:xdist",
    ]
    done = subprocess.run(command, cwd=REPO_ROOT, env=os.environ | arithmetic, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
