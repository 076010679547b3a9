"""What is read off a notebook without running it, and without what takes long to import."""

import subprocess
import sys

import nbformat
import pytest

from mialib import REPO_ROOT, params


def test_declared_are_the_annotated_names_with_their_defaults(tmp_path):
    source = "from typing import Optional\nrun: str = 'a'  # of it\nlist_: Optional[list] = [\n    1,\n]\nplain = 3\nleft: int"
    cells = [
        nbformat.v4.new_code_cell("x: int = 9"),
        nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]}),
    ]
    path = tmp_path / "small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    assert params.declared(path) == {"run": "a", "list_": [1]}
    nbformat.write(nbformat.v4.new_notebook(cells=cells[:1]), path)
    with pytest.raises(ValueError, match="small.ipynb has no cell with the tag `parameters`"):
        params.declared(path)


def test_words_are_read_off_the_notebook():
    assert params.words_of(REPO_ROOT / "notebooks" / "wang2020_mcmia.ipynb") == {"arms": "ABCDEFGHIJK"}
    assert params.words_of(REPO_ROOT / "notebooks" / "yuan2022_pruning.ipynb") == {}


def test_reading_a_notebook_imports_no_torch():
    code = f"import sys; from mialib import params; params.declared({str(REPO_ROOT / 'notebooks' / 'yuan2022_pruning.ipynb')!r})"
    code = (
        code.replace("params.declared(", "from pathlib import Path; params.declared(Path(").rstrip(")") + "))"
    )
    code += "; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], cwd=REPO_ROOT, capture_output=True, text=True)
    assert said.stdout == "False\n", said.stderr
