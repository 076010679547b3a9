"""A small repository with two notebooks and three executed runs."""

import base64
import io
import json

import matplotlib.pyplot as plt
import nbformat
import pytest

from mialib.site import pages

CODE = nbformat.v4.new_code_cell
TEXT = nbformat.v4.new_markdown_cell


def picture(width=30, height=20):
    """A PNG as text, as notebooks hold it."""
    file = io.BytesIO()
    plt.imsave(file, [[0.0] * width] * height)
    return base64.b64encode(file.getvalue()).decode()


def shown(metadata=None, **data):
    """A cell that showed something."""
    output = nbformat.v4.new_output("display_data", data, metadata=metadata or {})
    return CODE("show()", outputs=[output], execution_count=2)


def notebook(*cells, run="first"):
    parameters = CODE(f'run: str = "{run}"  # the run\nn: int = 1', metadata={"tags": ["parameters"]})
    metadata = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}
    return nbformat.v4.new_notebook(cells=[*cells[:1], parameters, *cells[1:]], metadata=metadata)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Its root. `a` has the runs `first` and `other`, `b` has `only`; all of them link to each other."""
    monkeypatch.setattr(pages, "REPO_ROOT", tmp_path)
    for path in ("params/a/first.yaml", "params/a/other.yaml"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("n: 1\n")
    top = "# Does {} leak?\n\nAbout $x^2$; see [b]({}/b.ipynb) and [a]({}/a.ipynb).\n\n## Data"
    made = {
        "a": notebook(TEXT(top.format("a", ".", ".")), shown(**{"image/png": picture()})),
        "b": notebook(TEXT(top.format("b", ".", ".")), run="of another name"),
    }
    (tmp_path / "notebooks").mkdir()
    for name, content in made.items():
        nbformat.write(content, tmp_path / "notebooks" / f"{name}.ipynb")
    for name, run in (("a", "first"), ("a", "other"), ("b", "only")):
        executed = nbformat.from_dict(made[name])
        there = "../../../notebooks"
        executed.cells[0] = TEXT(top.format(name, there, there))
        executed.cells.insert(2, CODE("n = 2", metadata={"tags": ["injected-parameters"]}))
        if run == "other":
            executed.cells[-1].source = "show(2)"
        folder = tmp_path / "outputs" / name / run
        (folder / "figures").mkdir(parents=True)
        nbformat.write(executed, folder / "executed.ipynb")
    known = {
        "parameters": {"dataset": "digits", "model": "cnn"},
        "provenance": {"device": "cpu", "seconds": 90.0, "torch": "2.14", "commit": "0123456789-dirty"},
    }
    (tmp_path / "outputs/a/first/metrics.json").write_text(json.dumps(known))
    (tmp_path / "outputs/README.md").write_text("# All results\n\n[first](a/first/executed.ipynb)\n")
    (tmp_path / "README.md").write_text(
        "# A repository\n\n[a](notebooks/a.ipynb), [b](notebooks/b.ipynb), [all](outputs/README.md), "
        "[pictures](outputs/a/other/figures/), [parameters](params/a/first.yaml)\n"
    )
    return tmp_path
