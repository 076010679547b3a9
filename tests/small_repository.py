"""A repository of one small notebook, for tests of the command line."""

from collections.abc import Callable
from pathlib import Path

import nbformat

from mialib.study import COLUMNS


def made(folder: Path) -> Callable[..., Path]:
    """Make it in a folder; the function `write(yaml, name, notebook)` that is returned gives the path of a parameter file.

    The notebook fails with 7 epochs and with 8, and with 9 it makes the file `waiting` among its results and waits.
    """
    cells = [
        nbformat.v4.new_code_cell('run: str = "first"\nepochs: int = 1', metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(
            "import gzip, json, os, pathlib\n"
            "if epochs == 7: raise RuntimeError('seven is too many')\n"
            "folder = pathlib.Path(os.environ['MIALIB_OUTPUTS']) / 'small' / run\n"
            "if epochs == 9: import time; (folder / 'waiting').touch(); time.sleep(300)\n"
            "row = {'metric': 'auc', 'value': epochs / 10, 'attack': 'gap', 'compression': 'none', 'target': 0}\n"
            f"row = {{name: row.get(name) for name in {COLUMNS!r}}}\n"
            "lines = [','.join('' if cell is None else str(cell) for cell in line) for line in (row, row.values())]\n"
            "(folder / 'rows.csv.gz').write_bytes(gzip.compress('\\n'.join(lines).encode()))\n"
            "claim = dict(claim='it works', source='', paper='', ours='', verdict='reproduced')\n"
            "content = dict(notebook='small', run=run, parameters=dict(run=run, epochs=epochs), provenance=dict(trained=epochs, found=1), aggregates=[], claims={'it': claim})\n"
            "(folder / 'metrics.json').write_text(json.dumps(content))\n"
            "assert os.environ['MIALIB_PROGRESS']\n"
        ),
        nbformat.v4.new_code_cell(
            "if epochs == 8:\n"
            "    import sys, torch; from mialib.store import Store\n"
            "    cache = Store()\n"
            "    cache.put('abd', {'w': torch.ones(2)}, {})\n"
            "    print(cache.root, sys.executable)\n"
            "    assert cache.get('abc') is None  # damaged: a warning\n"
            "    (cache.root / 'ab' / 'abd.json').unlink(); (cache.root / 'ab' / 'abd.json').mkdir()\n"
            "    cache.put('abe', {'w': torch.ones(2)}, {})\n"
            "    cache.get('abd')\n"
        ),
    ]
    (folder / "notebooks").mkdir()
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata=metadata), folder / "notebooks" / "small.ipynb"
    )
    (folder / "pyproject.toml").touch()

    def write(text, name="first", notebook="small"):
        path = folder / "params" / notebook / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write
